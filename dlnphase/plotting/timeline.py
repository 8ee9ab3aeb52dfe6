"""What the figures over time share: one panel per run, or several runs over each other; members of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlnphase.plotting.sources import Source, caption_lines
from dlnphase.plotting.style import Look, captioned, letters, new_figure, panel_grid
from dlnphase.plotting.timeaxis import apply_axis, choose_axis
from dlnphase.results.train import Member, TrainResult, Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FLOOR = 1e-16  # of the largest value: below it a logarithmic axis shows round-off


@dataclass(frozen=True)
class Arrangement:
    """How a figure over time is laid out: the wish for the time axis, and whether runs share a panel."""

    time: str = "auto"
    layout: str = "auto"


# Draws one run on one axes: (axes, source, position in the overlay or None, time axis).
DrawRun = Callable[["Axes", Source, "int | None", str], None]


def timeline_figure(
    runs: Sequence[Source], look: Look, arrangement: Arrangement, draw: DrawRun, *, overlay: bool, ylabel: str
) -> Figure:
    """A figure with time running to the right.

    Args:
        draw: draws one run.
        overlay: whether runs of this figure may share a panel.
        ylabel: of every panel in the first column.
    """
    together = overlay and len(runs) > 1 and _share(runs, arrangement.layout)
    if together or len(runs) == 1:
        figure, axes = new_figure(look)
        kind = choose_axis([s.result for s in runs], arrangement.time)
        for k, source in enumerate(runs):
            draw(axes[0], source, k if together else None, kind)
        apply_axis(axes[0], kind, [s.result for s in runs])
        axes[0].set_ylabel(ylabel)
    else:
        rows, columns = panel_grid(len(runs))
        figure, axes = new_figure(look, rows, columns, height=1.0 if rows == 1 else 0.85)
        for k, (ax, source) in enumerate(zip(axes, runs, strict=False)):
            kind = choose_axis([source.result], arrangement.time)
            draw(ax, source, None, kind)
            apply_axis(ax, kind, [source.result])
            ax.set_title(source.label)
            if k % columns == 0:
                ax.set_ylabel(ylabel)
        for ax in axes[len(runs) :]:
            ax.set_visible(False)
        letters(axes[: len(runs)])
    captioned(figure, look, caption_lines(runs, panels=not together))
    return figure


def members_of(result: TrainResult) -> list[tuple[TrainResult | Member, np.ndarray]]:
    """Each initialisation of a run (the run itself, if there is one) with its rows of the trajectory."""
    path = result.trajectory
    assert path is not None
    if not result.members:
        return [(result, path.rows_of(int(path.member[0])))]
    found = [(m, path.rows_of(m.member)) for m in result.members]
    return [(m, rows) for m, rows in found if len(rows)]


def quantiles_over_members(
    path: Trajectory, values: np.ndarray, rows: Sequence[np.ndarray], levels: Sequence[float] = (0.1, 0.5, 0.9)
) -> tuple[np.ndarray, np.ndarray]:
    """Times (N,) and quantiles (levels, N) over members of a quantity interpolated to common times.

    A member that has ended keeps its last value.
    """
    times = np.unique(np.concatenate([path.t[r] for r in rows]))
    if len(times) > 2000:
        times = times[np.linspace(0, len(times) - 1, 2000).astype(int)]
    table = np.stack([np.interp(times, path.t[r], values[r]) for r in rows])
    return times, np.quantile(table, levels, axis=0)


def floor_of(values: np.ndarray) -> float:
    """The lowest value worth a place on a logarithmic axis."""
    finite = values[np.isfinite(values) & (values > 0)]
    return max(float(finite.min()), FLOOR * float(finite.max())) if len(finite) else 1e-16


def logarithmic(axes: Axes, values: np.ndarray) -> None:
    """A logarithmic y axis with room above and below these values; a linear one from 0 where they span no decade."""
    finite = values[np.isfinite(values) & (values > 0)]
    if len(finite) and finite.max() < 10 * finite.min():
        axes.set_ylim(0, 1.15 * float(finite.max()))
        return
    axes.set_yscale("log")
    if len(finite):
        low, high = floor_of(finite), float(finite.max())
        margin = max((high / low) ** 0.06, 1.3)
        axes.set_ylim(low / margin, high * margin)


def _share(runs: Sequence[Source], layout: str) -> bool:
    """Whether runs read well over each other: the same task, and times within a few decades."""
    if layout != "auto":
        return layout == "overlay"
    results = [s.result for s in runs]
    tasks = {(r.task.kind, r.task.shape, r.config.data_seed, r.config.rank) for r in results}
    ends = [float(r.trajectory.t.max()) for r in results]
    regimes = {r.outcome.regime for r in results}
    return len(tasks) == 1 and len(regimes) == 1 and max(ends) < 1e3 * max(min(ends), 1e-300)

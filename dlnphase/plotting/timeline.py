"""What the figures over time share: one panel per run, or several runs over each other; members of a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlnphase.plotting.sources import ResultSource, caption_lines
from dlnphase.plotting.style import Look, captioned, legend_above, legend_of_all, letters, new_figure, panel_grid
from dlnphase.plotting.timeaxis import apply_axis, choose_axis
from dlnphase.results.train import Member, Plateau, TrainResult, Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAND = 5  # members from which on their middle and spread are drawn
AXES = {"linear": "linear time", "log": "logarithmic time", "bursts": "time stretched around each burst"}
LOG_WORDS = "Logarithmic time: stretching it around bursts needs one run with transitions, alike in most starts."
BURST_WORDS = (
    "Stretched time: linear within the duration of a burst and its spread over starts, logarithmic in the time to it "
    "beyond."
)
AVERAGES = {
    "median": "their median at each time, band: from the 10 % to the 90 % quantile",
    "mean": "their mean at each time, band: one standard deviation to either side",
}
FLOOR = 1e-16  # of the largest value: below it a logarithmic axis shows round-off


@dataclass(frozen=True)
class Arrangement:
    """How a figure over time is laid out.

    Attributes:
        time: the wish for the time axis; ``both`` puts the rescaled one beside the linear one.
        layout: whether runs share a panel.
        average: what is drawn of many starts: ``median`` and band, or ``mean`` and standard deviation.
    """

    time: str = "auto"
    layout: str = "auto"
    average: str = "median"


# Draws one run on one axes: (axes, source, position in the overlay or None, time axis).
DrawRun = Callable[["Axes", ResultSource, "int | None", str], None]


def timeline_figure(
    runs: Sequence[ResultSource],
    look: Look,
    arrangement: Arrangement,
    draw: DrawRun,
    *,
    overlay: bool,
    ylabel: str,
    words: Sequence[str] = (),
) -> Figure:
    """A figure with time running to the right.

    Args:
        draw: draws one run.
        overlay: whether runs of this figure may share a panel.
        ylabel: of every panel in the first column.
        words: sentences for the caption, after those on the settings.
    """
    together = overlay and len(runs) > 1 and _share(runs, arrangement.layout)
    groups: list[Sequence[ResultSource]] = [runs] if together else [[source] for source in runs]
    times = ("bursts", "linear") if arrangement.time == "both" else (arrangement.time,)
    panels = [(group, time) for group in groups for time in times]
    rows, columns = (len(groups), 2) if len(times) == 2 else panel_grid(len(panels))
    figure, axes = new_figure(look, rows, columns, height=1.0 if rows == 1 else 0.85)
    for k, (ax, (group, wish)) in enumerate(zip(axes, panels, strict=False)):
        kind = choose_axis([s.result for s in group], wish)
        for position, source in enumerate(group):
            draw(ax, source, position if together else None, kind)
        apply_axis(ax, kind, [s.result for s in group])
        if len(panels) > 1:
            named = "" if together else group[0].label
            ax.set_title(f"{named}, {AXES[kind]}".removeprefix(", ") if len(times) == 2 else named)
        if k % columns == 0 and not ax.get_ylabel():
            ax.set_ylabel(ylabel)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    shown = axes[: len(panels)]
    if len(panels) == 1:
        legend_above(axes[0])
    else:
        legend_of_all(figure, shown)
    letters(shown)
    bent = axis_words([ax.get_xscale() for ax, (_, wish) in zip(shown, panels, strict=True) if wish != "linear"], times)
    captioned(figure, look, [*caption_lines(runs, panels=not together and len(times) == 1), *words, *bent])
    return figure


def average_words(runs: Sequence[ResultSource], average: str) -> list[str]:
    """What a caption says of the middle and the band of many starts; nothing where none is drawn."""
    if all(len(members_of(s.result)) < BAND for s in runs):
        return []
    return [
        f"Thin lines: each start; thick line: {AVERAGES[average]}; a start that has ended keeps its last cost, and "
        "both stop once half of the starts have."
    ]


def axis_words(scales: Sequence[str], wishes: Sequence[str]) -> list[str]:
    """What a caption says of time axes with these scales, where one of ``wishes`` may have been ``bursts``."""
    missed = "bursts" in wishes and "log" in scales
    return [BURST_WORDS] * ("function" in scales) + [LOG_WORDS] * missed


def members_of(result: TrainResult) -> list[tuple[TrainResult | Member, np.ndarray]]:
    """Each initialisation of a run (the run itself, if there is one) with its rows of the trajectory."""
    path = result.path
    if not result.members:
        return [(result, path.rows_of(int(path.member[0])))]
    found = [(m, path.rows_of(m.member)) for m in result.members]
    return [(m, rows) for m, rows in found if len(rows)]


def middle_and_spread(
    path: Trajectory, values: np.ndarray, rows: Sequence[np.ndarray], average: str = "median"
) -> tuple[np.ndarray, np.ndarray] | None:
    """Times (N,), and low, middle, high (3, N) over the members until half have ended; None for fewer than BAND.

    ``median``: with the 10 and 90 % quantiles; ``mean``: with one standard deviation to either side. Between its
    records a member is followed as the logarithmic axis draws it. One that has ended keeps its last value: were it left
    out, the rest, who are slower, would bend the curve upwards. Those who have ended lie lowest as a rule, so that the
    median is one of a member on its way.
    """
    if len(rows) < BAND:
        return None
    last = np.sort([path.t[r[-1]] for r in rows])[(len(rows) - 1) // 2]
    times = np.unique(np.concatenate([path.t[r] for r in rows]))
    times = times[times <= last]
    if len(times) > 2000:
        times = times[np.linspace(0, len(times) - 1, 2000).astype(int)]
    tiny = np.finfo(float).tiny
    logs = [np.interp(times, path.t[r], np.log(np.maximum(values[r], tiny))) for r in rows]
    table = np.exp(np.stack(logs))
    if average == "median":
        return times, np.quantile(table, (0.1, 0.5, 0.9), axis=0)
    mean, std = np.mean(table, axis=0), np.std(table, axis=0, ddof=1)
    return times, np.stack([mean - std, mean, mean + std])


@dataclass(frozen=True)
class Stage:
    """The stay of a run at one rank: over several members of the commonest sequence of ranks, their means.

    Attributes:
        rank: of the critical point.
        start, end: times.
        level: the cost there: predicted where ``exact``, else of the refined critical point.
        exact: whether theory names it.
    """

    rank: int
    start: float
    end: float
    level: float
    exact: bool


def stages_of(result: TrainResult) -> list[Stage]:
    """The stages of a run, in order; none where visits and transitions do not pair up.

    The end is a stage without a level (0) where it has a rank and lies near no critical point of it.
    """
    path = result.path
    paired = [(run, levels) for run, _ in members_of(result) if (levels := _levels(run)) is not None]
    if not paired:
        return []
    ranks = [tuple(rank for rank, _ in levels) for _, levels in paired]
    (common, _), *_ = Counter(ranks).most_common(1)
    paired = [pair for pair, its in zip(paired, ranks, strict=True) if its == common]
    jumps = np.mean([[row.time for row in run.rank_transitions] for run, _ in paired], axis=0)
    edges = [0.0, *(float(t) for t in jumps), float(path.t.max())]
    out = []
    for k, rank in enumerate(common):
        plateaus = [p for _, levels in paired if (p := levels[k][1]) is not None]
        known = [p.predicted for p in plateaus if p.predicted is not None]
        exact = bool(plateaus) and len(known) == len(plateaus)
        costs = known if exact else [p.refined for p in plateaus]
        out.append(Stage(rank, edges[k], edges[k + 1], float(np.mean(costs)) if costs else 0.0, exact))
    return out


def _levels(run: Member | TrainResult) -> list[tuple[int, Plateau | None]] | None:
    """Each rank of a path with its plateau, the last one maybe without; None where they do not pair up."""
    rows, plateaus = run.rank_transitions, run.theory.plateaus
    ranks = [rows[0].from_rank, *(row.to_rank for row in rows)] if rows else [p.rank for p in plateaus]
    if len(ranks) != len(rows) + 1 or [p.rank for p in plateaus] not in (ranks, ranks[:-1]):
        return None
    return list(zip(ranks, [*plateaus, None][: len(ranks)], strict=True))


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


def _share(runs: Sequence[ResultSource], layout: str) -> bool:
    """Whether runs read well over each other: the same task, and times within a few decades."""
    if layout != "auto":
        return layout == "overlay"
    results = [s.result for s in runs]
    tasks = {(r.task.kind, r.task.shape, r.config.data_seed, r.config.rank) for r in results}
    ends = [float(r.path.t.max()) for r in results]
    regimes = {r.outcome.regime for r in results}
    return len(tasks) == 1 and len(regimes) == 1 and max(ends) < 1e3 * max(min(ends), 1e-300)

"""The saddles a path visited, as a figure: cost, distance, curvature and escape against rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlnphase.errors import InputError
from dlnphase.plotting.sources import Source, caption_lines, detections_of, runs_of
from dlnphase.plotting.style import Look, captioned, letters, marker_style, new_figure, solid, whole_numbers
from dlnphase.plotting.timeline import FLOOR, Arrangement, members_of
from dlnphase.results.detect import DetectResult, VisitInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 0.14  # how far to the right or left of its rank a second series stands
KIND_MARKERS = {"strict-saddle": "v", "degenerate-saddle": "D", "global-minimum": "*", "not-critical": "x"}
BLACK = {"color": "black", "linestyle": "none"}


def figure(sources: Sequence[Source], look: Look, arrangement: Arrangement | None = None) -> Figure:
    """One row of panels for each detect-saddles result, or for each run where there is none.

    Raises:
        InputError: when no source visited anything.
    """
    shown = detections_of(sources) or runs_of(sources, need="saddles")
    shown = [s for s in shown if _visits_something(s)]
    if not shown:
        raise InputError("kind: the figure saddles has nothing to draw, no source visits a critical point")
    panels = [_panels(s) for s in shown]
    columns = max(len(p) for p in panels)
    fig, axes = new_figure(look, len(shown) * (2 if columns == 4 else 1), 2 if columns == 4 else columns, height=0.95)
    k = 0
    for source, row in zip(shown, panels, strict=True):
        for draw in row:
            draw(axes[k], source.result)
            _rank_axis(axes[k])
            if len(shown) > 1:
                axes[k].set_title(source.label)
            k += 1
        while k % columns:
            axes[k].set_visible(False)
            k += 1
    for ax in axes:
        if ax.get_legend() is not None:
            solid(ax.get_legend())
    letters([ax for ax in axes if ax.get_visible()])
    captioned(fig, look, caption_lines(shown))
    return fig


def _visits_something(source: Source) -> bool:
    if isinstance(source.result, DetectResult):
        return bool(source.result.visits)
    return any(run.rank_transitions for run, _ in members_of(source.result))


def _panels(source: Source) -> list[Callable[[Axes, Any], None]]:
    if not isinstance(source.result, DetectResult):
        return [draw_run_costs, draw_run_dwell]
    out: list[Callable[[Axes, Any], None]] = [draw_costs, draw_distances]
    if any(v.curvature is not None for v in source.result.visits):
        out.append(draw_curvature)
    if any(v.escape is not None for v in source.result.visits):
        out.append(draw_rates)
    return out


def draw_costs(axes: Axes, result: DetectResult) -> None:
    """C where the path is closest, at the critical point, and on the greedy path."""
    visits = result.visits
    points(axes, visits, lambda v: v.cost, 0, "path, at its closest", gid="cost")
    points(axes, visits, lambda v: v.critical_point.cost, None, "critical point", gid="critical", marker="+", side=SIDE)
    if any(v.greedy is not None for v in visits):
        points(
            axes, visits, lambda v: None if v.greedy is None else v.greedy.cost, None, r"greedy path, $\alpha\to 0$",
            gid="greedy", marker="x", side=2 * SIDE,
        )  # fmt: skip
    _log_above(axes, FLOOR * max(v.cost for v in visits) * 1e4)
    axes.set_ylabel("cost $C$")
    axes.legend(loc="lower left")


def draw_distances(axes: Axes, result: DetectResult) -> None:
    """How near the path comes, in parameter space (where there are weights) and in matrix space."""
    visits = result.visits
    points(axes, visits, lambda v: v.distance, 0, r"$\|\theta - \theta_c\|$", gid="distance")
    near = r"$\|\theta - \theta_c\|$, nearest found"
    points(axes, visits, lambda v: v.nearest_distance, 1, near, gid="nearest", side=SIDE)
    points(axes, visits, lambda v: v.matrix_distance, 2, r"$\|A - A_c\|_F$", gid="matrix", side=2 * SIDE)
    _log_above(axes, 0.0)
    axes.set_ylabel("distance to the critical point")
    axes.legend(loc="best")


def draw_curvature(axes: Axes, result: DetectResult) -> None:
    """The smallest Hessian eigenvalue, with the kind of critical point as marker; 0 as a line."""
    for kind, marker in KIND_MARKERS.items():
        chosen = [v for v in result.visits if v.kind == kind and v.curvature is not None]
        if chosen:
            # A smallest eigenvalue within its residual of zero is zero.
            points(axes, chosen, _eigenvalue, 0, kind.replace("-", " "), gid=kind, marker=marker)
    axes.axhline(0, color="black", linewidth=0.6)
    lowest = min((_eigenvalue(v) or 0.0 for v in result.visits), default=0.0)
    top = max(v.escape.predicted_rate for v in result.visits if v.escape is not None) if lowest == 0 else -lowest
    axes.set_ylim(-1.25 * top, 0.35 * top)
    axes.set_ylabel(r"smallest eigenvalue of $\nabla^2\mathcal{L}$")
    axes.legend(loc="lower right")


def draw_rates(axes: Axes, result: DetectResult) -> None:
    """How fast each saddle is left: the rate on the path beside ‖∇C‖ at the critical point."""
    left = [(v.rank, v.escape) for v in result.visits if v.escape is not None]
    _draw(axes, [(rank, e.rate) for rank, e in left if e.rate is not None], 0, "rate on the path", "rate", None)
    name = r"theory: $s = \|\nabla C(A_c)\|_{\mathrm{op}}$"
    _draw(axes, [(rank + SIDE, e.predicted_rate) for rank, e in left], None, name, "predicted", "+")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("rate of escape")
    axes.legend(loc="best")


def draw_run_costs(axes: Axes, result: Any) -> None:
    """Plateaus of a run of train: measured, at the critical point, and least cost of that rank where it is known."""
    rows = [(p.rank, p) for run, _ in members_of(result) for p in run.theory.plateaus]
    for get, index, name, gid, side in (
        (lambda p: p.measured, 0, "path, at its closest", "cost", 0.0),
        (lambda p: p.refined, None, "critical point", "critical", SIDE),
        (lambda p: p.predicted, None, "theory: least cost of that rank", "predicted", 2 * SIDE),
    ):
        xy = [(rank + side, get(p)) for rank, p in rows if get(p) is not None]
        _draw(axes, xy, index, name, gid, {"critical": "+", "predicted": "x"}.get(gid))
    _log_above(axes, FLOOR * max(p.measured for _, p in rows) * 1e4)
    axes.set_ylabel("cost $C$")
    axes.legend(loc="lower left")


def draw_run_dwell(axes: Axes, result: Any) -> None:
    """How long a run stays at each rank."""
    rows = [r for run, _ in members_of(result) for r in run.rank_transitions]
    _draw(axes, [(r.from_rank, r.dwell) for r in rows], 0, "dwell time", "dwell", None)
    _log_above(axes, 0.0)
    axes.set_ylabel("time at that rank")
    axes.legend(loc="best")


def points(
    axes: Axes, visits: Sequence[VisitInfo], get: Callable[[VisitInfo], float | None], index: int | None, label: str,
    *, gid: str, marker: str | None = None, side: float = 0.0,
) -> None:  # fmt: skip
    """A series of visits against rank; ``index`` None draws it black, as theory or reference."""
    xy = [(v.rank + side, float(y)) for v in visits if (y := get(v)) is not None]
    _draw(axes, xy, index, label, gid, marker)


def _draw(
    axes: Axes, xy: Sequence[tuple[float, float]], index: int | None, label: str, gid: str, marker: str | None
) -> None:
    if not xy:
        return
    look: dict[str, Any] = {**BLACK, "marker": "+"} if index is None else {**marker_style(index), "linestyle": "none"}
    if index is None or marker in ("x",):
        look["markersize"] = 8
    if len(xy) > 40:
        look["alpha"] = 0.35
    axes.plot(*np.array(xy).T, **{**look, **({"marker": marker} if marker else {})}, label=label, gid=gid)


def _eigenvalue(visit: VisitInfo) -> float | None:
    c = visit.curvature
    if c is None:
        return None
    return 0.0 if c.negative_eigenvalues == 0 else c.min_eigenvalue


def _log_above(axes: Axes, floor: float) -> None:
    """A logarithmic y axis over the positive values; what is at round-off stands on its lower edge."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
    positive = values[values > max(floor, 0)]
    if not len(positive):
        return
    low, high = float(positive.min()), float(positive.max())
    axes.set_yscale("log")
    axes.set_ylim(low / 2.5, high * 2.5)


def _rank_axis(axes: Axes) -> None:
    axes.set_xlabel("rank of the critical point")
    low, high = axes.dataLim.intervalx
    axes.set_xlim(np.floor(low) - 0.4, max(np.ceil(high - 0.45), np.floor(low) + 1) + 0.6)
    whole_numbers(axes.xaxis)

"""The saddles a path visited, as a figure: cost, distance, curvature and escape against rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlnphase.plotting.data import FigureData, data_of
from dlnphase.plotting.sources import ResultSource, caption_lines, detections_of, needed, runs_of
from dlnphase.plotting.style import (
    FAINT,
    Look,
    captioned,
    legend_above,
    letters,
    marker_style,
    new_figure,
    whole_numbers,
)
from dlnphase.plotting.timeline import Arrangement, members_of
from dlnphase.results.detect import DetectResult, VisitInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ZERO_COST = 1e-12  # of the highest cost: below it is the round-off of a refined minimum
KIND_MARKERS = {
    "strict-saddle": "v",
    "degenerate-saddle": "D",
    "global-minimum": "*",
    "local-minimum": "P",
    "not-critical": "x",
}
# Series that lie over each other at the same rank: a disc in a ring, a cross over both.
DISC: dict[str, Any] = {**marker_style(0), "markersize": 4.5, "zorder": 3}
SQUARE: dict[str, Any] = {**marker_style(1), "markersize": 4.5, "zorder": 3}
TRIANGLE: dict[str, Any] = {**marker_style(2), "markersize": 5, "zorder": 3}
RING: dict[str, Any] = {"color": "black", "marker": "o", "markerfacecolor": "none", "markersize": 9, "zorder": 2}
CROSS: dict[str, Any] = {"color": "black", "marker": "x", "markersize": 5, "zorder": 4}
Getter = Callable[[VisitInfo], "float | None"]


def figure(sources: Sequence[ResultSource], look: Look, arrangement: Arrangement | None = None) -> Figure:
    """One row of panels for each detect-saddles result, or for each run where there is none.

    Raises:
        InputError: when no source visited anything.
    """
    shown = _shown(sources)
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
    letters([ax for ax in axes if ax.get_visible()])
    captioned(fig, look, caption_lines(shown))
    return fig


def data(sources: Sequence[ResultSource]) -> FigureData:
    """A row for every visit and quantity: costs, distances, curvature, rates; of a run alone, costs and dwell times."""
    rows: list[tuple[ResultSource, list[tuple[Any, ...]]]] = []
    for source in _shown(sources):
        its: list[tuple[Any, ...]] = []
        if isinstance(source.result, DetectResult):
            for v in source.result.visits:
                its += [(v.member, v.rank, v.kind, name, value) for name, value in _quantities(v) if value is not None]
        else:
            for number, (run, _) in enumerate(members_of(source.result)):
                for p in run.theory.plateaus:
                    values = (("cost", p.measured), ("critical_cost", p.refined), ("least_cost", p.predicted))
                    its += [(number, p.rank, None, name, value) for name, value in values if value is not None]
                its += [(number, r.from_rank, None, "dwell", r.dwell) for r in run.rank_transitions]
        rows.append((source, its))
    return data_of(rows, "member", "rank", "kind", "quantity", "value")


def _quantities(visit: VisitInfo) -> list[tuple[str, float | None]]:
    greedy, escape = visit.greedy, visit.escape
    return [
        ("cost", visit.cost),
        ("critical_cost", visit.critical_point.cost),
        ("greedy_cost", None if greedy is None else greedy.cost),
        ("distance", visit.distance),
        ("nearest_distance", visit.nearest_distance),
        ("matrix_distance", visit.matrix_distance),
        ("min_eigenvalue", _eigenvalue(visit)),
        ("escape_rate", None if escape is None else escape.rate),
        ("predicted_rate", None if escape is None else escape.predicted_rate),
    ]


def _shown(sources: Sequence[ResultSource]) -> list[ResultSource]:
    """The detections, or the runs where there is none, that visit something."""
    shown = [s for s in detections_of(sources) or runs_of(sources, need="saddles") if _visits_something(s)]
    return needed(shown, "kind: the figure saddles has nothing to draw, no source visits a critical point")


def _visits_something(source: ResultSource) -> bool:
    if isinstance(source.result, DetectResult):
        return bool(source.result.visits)
    return any(run.rank_transitions for run, _ in members_of(source.result))


def _panels(source: ResultSource) -> list[Callable[[Axes, Any], None]]:
    if not isinstance(source.result, DetectResult):
        return [draw_run_costs, draw_run_dwell]
    out: list[Callable[[Axes, Any], None]] = [draw_costs, draw_distances]
    if any(v.curvature is not None for v in source.result.visits):
        out.append(draw_curvature)
    if any(v.escape is not None for v in source.result.visits):
        out.append(draw_rates)
    return out


def draw_costs(axes: Axes, result: DetectResult) -> None:
    """C where the path is closest, at the critical point, and on the greedy path, one inside the other."""
    visits = result.visits
    points(axes, visits, lambda v: v.critical_point.cost, RING, "critical point", gid="critical")
    points(axes, visits, lambda v: v.cost, DISC, "path, at its closest", gid="cost")
    if any(v.greedy is not None for v in visits):
        greedy: Getter = lambda v: None if v.greedy is None else v.greedy.cost  # noqa: E731
        points(axes, visits, greedy, CROSS, r"greedy path, $\alpha\to 0$", gid="greedy")
    _log_with_zero(axes, ZERO_COST * max(v.cost for v in visits))
    axes.set_ylabel("cost $C$")
    legend_above(axes)


def draw_distances(axes: Axes, result: DetectResult) -> None:
    """How near the path comes, in parameter space (where there are weights) and in matrix space."""
    visits = result.visits
    points(axes, visits, lambda v: v.distance, DISC, r"$\|\theta - \theta_c\|$", gid="distance")
    points(axes, visits, lambda v: v.nearest_distance, SQUARE, r"$\|\theta - \theta_c\|$, nearest found", gid="nearest")
    points(axes, visits, lambda v: v.matrix_distance, TRIANGLE, r"$\|A - A_c\|_F$", gid="matrix")
    _log_with_zero(axes, 0.0)
    axes.set_ylabel("distance to the critical point")
    legend_above(axes)


def draw_curvature(axes: Axes, result: DetectResult) -> None:
    """The smallest Hessian eigenvalue, with the kind of critical point as marker; 0 as a line."""
    for kind, marker in KIND_MARKERS.items():
        chosen = [v for v in result.visits if v.kind == kind and v.curvature is not None]
        # A smallest eigenvalue within its residual of zero is zero.
        points(axes, chosen, _eigenvalue, {**DISC, "marker": marker}, kind.replace("-", " "), gid=kind)
    axes.axhline(0, color="black", linewidth=0.6)
    values = [0.0, *(_eigenvalue(v) or 0.0 for v in result.visits)]
    lowest, highest = min(values), max(values)
    if lowest == highest:  # nothing but zeros: no scale to read off
        axes.set_ylim(-1, 1)
        axes.set_yticks([0], ["0"])
    else:
        axes.set_ylim(min(1.25 * lowest, -0.35 * highest), max(-0.35 * lowest, 1.25 * highest))
    more = r"+\lambda" if result.path.weight_decay else ""
    axes.set_ylabel(rf"smallest eigenvalue of $\nabla^2\mathcal{{L}}{more}$")
    legend_above(axes)


def draw_rates(axes: Axes, result: DetectResult) -> None:
    """How fast each saddle is left: the rate on the path inside ‖∇C‖ at the critical point."""
    left = [(v.rank, v.escape) for v in result.visits if v.escape is not None]
    less = r"-\lambda" if result.path.weight_decay else ""
    name = rf"theory: $s = \|\nabla C(A_c)\|_{{\mathrm{{op}}}}{less}$"
    _draw(axes, [(rank, e.predicted_rate) for rank, e in left], RING, name, "predicted")
    _draw(axes, [(rank, e.rate) for rank, e in left if e.rate is not None], DISC, "rate on the path", "rate")
    axes.set_ylim(0, 1.1 * max(rate for _, e in left for rate in (e.predicted_rate, e.rate or 0.0)))
    axes.set_ylabel("rate of escape")
    legend_above(axes)


def draw_run_costs(axes: Axes, result: Any) -> None:
    """Plateaus of a run of train: measured, at the critical point, and least cost of that rank where it is known."""
    rows = [(p.rank, p) for run, _ in members_of(result) for p in run.theory.plateaus]
    for value, look, name, gid in (
        ("refined", RING, "critical point", "critical"),
        ("measured", DISC, "path, at its closest", "cost"),
        ("predicted", CROSS, "theory: least cost of that rank", "predicted"),
    ):
        _draw(axes, [(rank, y) for rank, p in rows if (y := getattr(p, value)) is not None], look, name, gid)
    _log_with_zero(axes, ZERO_COST * max(p.measured for _, p in rows))
    axes.set_ylabel("cost $C$")
    legend_above(axes)


def draw_run_dwell(axes: Axes, result: Any) -> None:
    """How long a run stays at each rank."""
    rows = [r for run, _ in members_of(result) for r in run.rank_transitions]
    _draw(axes, [(r.from_rank, r.dwell) for r in rows], DISC, "dwell time", "dwell")
    _log_with_zero(axes, 0.0)
    axes.set_ylabel("time at that rank")
    legend_above(axes)


def points(axes: Axes, visits: Sequence[VisitInfo], get: Getter, look: dict[str, Any], label: str, *, gid: str) -> None:
    """A series of visits against rank."""
    _draw(axes, [(v.rank, float(y)) for v in visits if (y := get(v)) is not None], look, label, gid)


def _draw(axes: Axes, xy: Sequence[tuple[float, float]], look: dict[str, Any], label: str, gid: str) -> None:
    if xy:
        faint = {"alpha": 0.35} if len(xy) > 40 else {}
        axes.plot(*np.array(xy).T, **{"linestyle": "none", **look, **faint}, label=label, gid=gid)


def _eigenvalue(visit: VisitInfo) -> float | None:
    return None if visit.curvature is None else visit.curvature.least


def _log_with_zero(axes: Axes, zero: float) -> None:
    """A logarithmic y axis; what is at most ``zero`` (round-off) stands on a line of its own below it, named 0."""
    from matplotlib.ticker import FixedLocator, LogLocator

    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
    positive = values[values > max(zero, 0)]
    if not len(positive):
        return
    low, high = float(positive.min()) / 2.5, float(positive.max()) * 2.5
    axes.set_yscale("log")
    if not (values <= zero).any():
        axes.set_ylim(low, high)
        return
    strip = (high / low) ** 0.1
    for line in axes.lines:
        y = np.asarray(line.get_ydata(), dtype=float)
        line.set_ydata(np.where(y <= zero, low / strip, y))
    for locator, place in (
        (LogLocator(numticks=8), axes.yaxis.set_major_locator),
        (LogLocator(subs="auto", numticks=8), axes.yaxis.set_minor_locator),
    ):
        place(FixedLocator([float(tick) for tick in locator.tick_values(low, high) if low <= tick <= high]))
    axes.set_ylim(low / strip**2, high)
    axes.axhline(low, color=FAINT, linewidth=0.7, linestyle=(0, (2, 2)), zorder=0, gid="zero")
    aside: dict[str, Any] = {"xytext": (-4, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
    axes.annotate("0", (0, low / strip), xycoords=("axes fraction", "data"), **aside, gid="zero")


def _rank_axis(axes: Axes) -> None:
    axes.set_xlabel("rank of the critical point")
    low, high = axes.dataLim.intervalx
    axes.set_xlim(np.floor(low) - 0.4, max(np.ceil(high), np.floor(low) + 1) + 0.4)
    whole_numbers(axes.xaxis)

"""Cost against time: training and test, the plateaus at the visited saddles, the predicted escape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlnphase.plotting.sources import Source, runs_of
from dlnphase.plotting.style import REFINED, THEORY, Look, legend_above, line_style
from dlnphase.plotting.timeaxis import burst_clock
from dlnphase.plotting.timeline import (
    Arrangement,
    floor_of,
    logarithmic,
    members_of,
    quantiles_over_members,
    timeline_figure,
)
from dlnphase.results.train import TrainResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figure(sources: Sequence[Source], look: Look, arrangement: Arrangement) -> Figure:
    """The cost of every run among the sources."""
    runs = runs_of(sources, need="loss")
    return timeline_figure(runs, look, arrangement, draw, overlay=True, ylabel="cost $C(A)$")


def draw(axes: Axes, source: Source, position: int | None, time: str) -> None:
    """One run on one axes; ``position`` is its place in an overlay."""
    result: TrainResult = source.result
    path = result.trajectory
    assert path is not None
    several = len(members_of(result)) > 1
    if several:
        _draw_members(axes, source, position)
    else:
        look = line_style(position or 0)
        axes.plot(path.t, path.cost, **look, label=source.label if position is not None else "training", gid="cost")
        if position is None and np.isfinite(path.test_cost).any():
            axes.plot(path.t, path.test_cost, **line_style(1), label="test", gid="test")
    shown = [path.cost] if position is not None or several else [path.cost, path.test_cost]
    logarithmic(axes, np.concatenate([axes.dataLim.intervaly.clip(1e-300), *shown] if position else shown))
    if position is None and not several:
        _draw_theory(axes, result, time)
        _draw_lazy(axes, result)
    if position is None:
        axes.legend(loc="lower left")
    else:
        legend_above(axes)


def _draw_members(axes: Axes, source: Source, position: int | None) -> None:
    """Thin lines for the members, their median, and the band that holds four of five."""
    path = source.result.trajectory
    rows = [r for _, r in members_of(source.result)]
    look = line_style(position or 0)
    for r in rows:
        axes.plot(path.t[r], path.cost[r], color=look["color"], linewidth=0.4, alpha=0.35, gid="cost")
    times, (low, middle, high) = quantiles_over_members(path, path.cost, rows)
    axes.fill_between(times, low, high, color=look["color"], alpha=0.15, linewidth=0)
    name = f"{source.label}: " if position is not None and source.label else ""
    axes.plot(times, middle, **look, label=f"{name}median of {len(rows)} starts, 10–90 % band", gid="median")


def _draw_theory(axes: Axes, result: TrainResult, time: str) -> None:
    """Plateau costs over the time they last, labelled by rank; when theory says the origin is left."""
    assert result.trajectory is not None
    t = result.trajectory.t
    edges = [0.0, *(row.time for row in result.rank_transitions), float(t[-1])]
    floor = max(floor_of(result.trajectory.cost), axes.get_ylim()[0])
    named: set[str] = set()
    plateaus = result.theory.plateaus
    for k, plateau in enumerate(plateaus if len(plateaus) == len(edges) - 1 else ()):
        exact = plateau.predicted is not None
        level = plateau.predicted if plateau.predicted is not None else plateau.refined
        name = "theory: least cost of that rank" if exact else "at the critical point"
        if level > floor:
            label = None if name in named else name
            named.add(name)
            axes.plot(edges[k : k + 2], [level, level], **(THEORY if exact else REFINED), label=label, gid="plateau")
        if k < len(plateaus) - 1 or level > floor:
            _name_rank(axes, result, plateau.rank, edges[k], edges[k + 1], level, time)
    escape = result.theory.predictions.get("escape_time")
    if escape is not None and escape.predicted < t[-1]:
        look = {**THEORY, "linewidth": 0.8}
        axes.axvline(escape.predicted, **look, label="theory: escape from the origin", gid="escape")


def _draw_lazy(axes: Axes, result: TrainResult) -> None:
    """The exponential of the lazy regime as w → ∞: C(t) = C(0)·exp(−2Kt), K = L·w^((1−γ)(L−1))."""
    rate = result.theory.predictions.get("ntk_at_start")
    if result.theory.regime != "lazy" or rate is None or result.task.kind not in ("factorization", "completion"):
        return
    assert result.trajectory is not None
    t = result.trajectory.t
    level = result.outcome.initial_cost * np.exp(-2 * rate.predicted * t)
    axes.plot(t, level, **THEORY, label=r"theory: $C_0\,e^{-2Kt},\ K = L w^{(1-\gamma)(L-1)}$", gid="lazy")


def _name_rank(
    axes: Axes, result: TrainResult, rank: int, start: float, end: float, level: float, time: str
) -> None:
    """The rank above the middle of its plateau, as the axis shows it."""
    middle = (start + end) / 2
    if time == "log":
        middle = float(np.sqrt(max(start, end / 10) * end))
    elif time == "bursts":
        clock = burst_clock(result)
        assert clock is not None
        middle = float(clock.inverse(clock.forward(np.array([start, end])).mean()))
    path = result.trajectory
    assert path is not None
    tested = float(np.interp(middle, path.t, path.test_cost)) if np.isfinite(path.test_cost).all() else 0.0
    axes.annotate(
        f"rank {rank}", (middle, max(level, tested)), xytext=(0, 3), textcoords="offset points", ha="center",
        va="bottom", fontsize="small", gid="rank", zorder=6,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
    )  # fmt: skip

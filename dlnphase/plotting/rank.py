"""Rank against time: the staircase of the critical points that are visited, and the effective rank of A itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlnphase.plotting.sources import Source, runs_of
from dlnphase.plotting.style import COLOURS, THEORY, Look, legend_above, line_style, marker_style, whole_numbers
from dlnphase.plotting.timeline import Arrangement, members_of, timeline_figure
from dlnphase.results.train import Member, TrainResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figure(sources: Sequence[Source], look: Look, arrangement: Arrangement) -> Figure:
    """The rank staircase of every run among the sources."""
    runs = runs_of(sources, need="rank")
    return timeline_figure(runs, look, arrangement, draw, overlay=True, ylabel="rank")


def staircase(run: TrainResult | Member, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners (t, rank) of the staircase: the rank visited before the first transition, after each, at the end."""
    rows = run.rank_transitions
    first = rows[0].from_rank if rows else run.outcome.rank
    times = np.array([0.0, *(row.time for row in rows), end])
    ranks = np.array([first, *(row.to_rank for row in rows)])
    return times, np.append(ranks, ranks[-1])


def effective_rank(singular_values: np.ndarray) -> np.ndarray:
    """exp of the entropy of s/Σs, shape (T,): k for k equal modes; 1 when one dwarfs the rest (Roy, Vetterli 2007)."""
    total = np.maximum(singular_values.sum(1, keepdims=True), np.finfo(float).tiny)
    share = singular_values / total
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.exp(-np.where(share > 0, share * np.log(share), 0.0).sum(1))


def draw(axes: Axes, source: Source, position: int | None, time: str) -> None:
    """One run on one axes."""
    result: TrainResult = source.result
    path = result.trajectory
    assert path is not None
    members = members_of(result)
    look = line_style(position or 0)
    for run, rows in members:
        times, ranks = staircase(run, float(path.t[rows[-1]]))
        if len(members) == 1 and not run.rank_transitions:
            # No critical point was passed: all there is to tell is the rank of the end.
            name = source.label if position is not None else "rank of the end"
            point = {**marker_style(position or 0), "linestyle": "none", "clip_on": False, "zorder": 5}
            axes.plot(times[-1:], ranks[-1:], **point, label=name, gid="end")
            continue
        style = look if len(members) == 1 else {"color": look["color"], "linewidth": 0.4, "alpha": 0.4}
        name = source.label if position is not None else "critical points visited"
        axes.step(times, ranks, where="post", **style, label=name if len(members) == 1 else None, gid="staircase")
    if len(members) > 1:
        _draw_mean(axes, source, position, members)
    if position is None:
        if len(members) == 1:
            axes.plot(
                path.t, effective_rank(path.singular_values), **{**line_style(1), "linewidth": 0.9},
                label="effective rank of $A$, $e^{\\mathrm{entropy}}$", gid="effective",
            )  # fmt: skip
            _draw_theory(axes, result)
        axes.legend(loc="lower right" if any(run.rank_transitions for run, _ in members) else "best")
    else:
        legend_above(axes)
    top = max(min(path.A.shape[1:]), 1)
    seen = max(int(max(staircase(run, 1.0)[1])) for run, _ in members)
    now = axes.get_ylim()[1] if position else 0.0
    axes.set_ylim(-0.15, max(now, min(top, seen + 1) + 0.25))
    whole_numbers(axes.yaxis)


def _draw_mean(
    axes: Axes, source: Source, position: int | None, members: Sequence[tuple[TrainResult | Member, np.ndarray]]
) -> None:
    """The mean rank over the members at every time at which one of them jumps."""
    path = source.result.trajectory
    ends = [float(path.t[rows[-1]]) for _, rows in members]
    corners = [staircase(run, end) for (run, _), end in zip(members, ends, strict=True)]
    times = np.unique(np.concatenate([t for t, _ in corners]))
    table = [ranks[np.searchsorted(t, times, side="right").clip(1, len(t)) - 1] for t, ranks in corners]
    name = f"{source.label}: " if position is not None and source.label else ""
    look = {**line_style(position or 0), "color": COLOURS[(position or 0) % len(COLOURS)]}
    axes.step(times, np.mean(table, 0), where="post", **look, label=f"{name}mean of {len(members)} starts", gid="mean")


def _draw_theory(axes: Axes, result: TrainResult) -> None:
    escape = result.theory.predictions.get("escape_time")
    assert result.trajectory is not None
    if escape is not None and escape.predicted < result.trajectory.t[-1]:
        axes.axvline(escape.predicted, **THEORY, label="theory: escape from the origin", gid="escape")

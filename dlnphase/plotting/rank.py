"""Rank against time: the staircase of the critical points that are visited, and the effective rank of A itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlnphase.plotting.data import FigureData, data_of
from dlnphase.plotting.sources import ResultSource, runs_of
from dlnphase.plotting.style import THEORY, Look, line_style, marker_style, ordered_colours, whole_numbers
from dlnphase.plotting.timeline import Arrangement, members_of, timeline_figure
from dlnphase.results.train import Member, TrainResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figure(sources: Sequence[ResultSource], look: Look, arrangement: Arrangement) -> Figure:
    """The rank staircase of every run among the sources."""
    runs = runs_of(sources, need="rank")
    return timeline_figure(runs, look, arrangement, draw, overlay=True, ylabel="rank")


def data(sources: Sequence[ResultSource]) -> FigureData:
    """The rank visited from each time on (``visited``), and the effective rank at every record (``effective``)."""
    rows: list[tuple[ResultSource, list[tuple[Any, ...]]]] = []
    for source in runs_of(sources, need="rank"):
        path, its = source.result.path, []
        for number, (run, of) in enumerate(members_of(source.result)):
            t, ranks = staircase(run, float(path.t[of[-1]]))
            its += [(number, "visited", *pair) for pair in zip(t.tolist(), ranks.tolist(), strict=True)]
            effective = effective_rank(path.singular_values[of])
            its += [(number, "effective", *pair) for pair in zip(path.t[of].tolist(), effective.tolist(), strict=True)]
        rows.append((source, its))
    return data_of(rows, "member", "series", "t", "rank")


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


def shares(corners: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, list[int], np.ndarray]:
    """Times (N,), ranks (R,) ascending, and from each time on the share of the staircases at each rank, (R, N).

    Args:
        corners: (t, rank) of every staircase; one that has ended stays where it is.
    """
    times = np.unique(np.concatenate([t for t, _ in corners]))
    table = np.array([ranks[np.searchsorted(t, times, side="right").clip(1, len(t)) - 1] for t, ranks in corners])
    seen = sorted({int(r) for r in table.ravel()})
    return times, seen, np.array([(table == rank).mean(0) for rank in seen])


def draw(axes: Axes, source: ResultSource, position: int | None, time: str) -> None:
    """One run on one axes; many starts are shares where they stand alone, and their median rank among others."""
    result: TrainResult = source.result
    path = result.path
    members = members_of(result)
    look = line_style(position or 0)
    corners = [staircase(run, float(path.t[rows[-1]])) for run, rows in members]
    if len(members) > 1 and position is None:
        _draw_shares(axes, corners)
        return
    name = source.label if position is not None else "critical points visited"
    if len(members) > 1:
        times, seen, table = shares(corners)
        median = np.array(seen)[(np.cumsum(table, 0) >= 0.5).argmax(0)]
        axes.step(times, median, where="post", **look, label=f"{name}: median of {len(members)} starts", gid="median")
    elif not members[0][0].rank_transitions:
        # No critical point was passed: all there is to tell is the rank of the end.
        times, ranks = corners[0]
        point = {**marker_style(position or 0), "linestyle": "none", "clip_on": False, "zorder": 5}
        end = source.label if position is not None else "rank of the end"
        axes.plot(times[-1:], ranks[-1:], **point, label=end, gid="end")
    else:
        axes.step(*corners[0], where="post", **look, label=name, gid="staircase")
    if position is None:
        name, thin = r"effective rank of $A$, $e^{\mathrm{entropy}}$", {**line_style(1), "linewidth": 0.9}
        axes.plot(path.t, effective_rank(path.singular_values), **thin, label=name, gid="effective")
        _draw_theory(axes, result)
    top = max(min(path.A.shape[1:]), 1)
    seen_rank = max(int(ranks.max()) for _, ranks in corners)
    now = axes.get_ylim()[1] if position else 0.0
    axes.set_ylim(-0.15, max(now, min(top, seen_rank + 1) + 0.25))
    whole_numbers(axes.yaxis)


def _draw_shares(axes: Axes, corners: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Stacked areas: at every time, the share of the starts at each rank, the lowest rank at the bottom."""
    times, seen, table = shares(corners)
    below = np.zeros(len(times))
    for rank, share, colour in zip(seen, table, ordered_colours(len(seen)), strict=True):
        look: dict[str, Any] = {"facecolor": colour, "edgecolor": "white", "linewidth": 0.4, "label": f"rank {rank}"}
        axes.fill_between(times, below, below + share, step="post", **look, gid=f"share{rank}")
        below = below + share
    axes.set_ylim(0, 1)
    axes.set_ylabel(f"share of the {len(corners)} starts")


def _draw_theory(axes: Axes, result: TrainResult) -> None:
    escape = result.theory.predictions.get("escape_time")
    if escape is not None and escape.predicted < result.path.t[-1]:
        axes.axvline(escape.predicted, **THEORY, label="theory: escape from the origin", gid="escape")

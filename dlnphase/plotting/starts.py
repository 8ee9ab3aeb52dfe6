"""What several starts did: how long each stayed at every rank, and the shares that jumped and ended where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlnphase.findings import Distributions, StartShare
from dlnphase.plotting.data import FigureData, data_of
from dlnphase.plotting.sources import ResultSource, caption_lines, needed
from dlnphase.plotting.style import Look, captioned, legend_of_all, letters, line_style, new_figure, whole_numbers
from dlnphase.plotting.timeline import Arrangement
from dlnphase.results.train import TrainResult
from dlnphase.training.distributions import distributions_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORDS = (
    "Dwell times: a point for each stay that ended with a jump, box from the 25 % to the 75 % quantile, line at the "
    "median. Shares: of the starts, with the 95 % interval of Wilson."
)
LANE = 0.32  # half the height that the points of one rank are spread over


def shows(sources: Sequence[ResultSource]) -> list[ResultSource]:
    """The runs of several starts among the sources."""
    return [s for s in sources if s.kind == "train" and len(s.result.members) > 1]


def figure(sources: Sequence[ResultSource], look: Look, arrangement: Arrangement) -> Figure:
    """Dwell times at the left, shares at the right, a row for each run of several starts."""
    runs = _needed(sources)
    fig, axes = new_figure(look, len(runs), 2, height=1.0 if len(runs) == 1 else 0.85)
    for row, (source, told) in enumerate(runs):
        left, right = axes[2 * row : 2 * row + 2]
        _draw_dwells(left, source.result, told)
        _draw_shares(right, told)
        for ax in (left, right) if source.label else ():
            ax.set_title(source.label)
    letters(axes)
    legend_of_all(fig, axes)
    captioned(fig, look, [*caption_lines([source for source, _ in runs]), WORDS])
    return fig


def data(sources: Sequence[ResultSource]) -> FigureData:
    """Each stay (``dwell``, with its time), each ``jump``, and each ``end`` with its share and interval."""
    rows: list[tuple[ResultSource, list[tuple[Any, ...]]]] = []
    for source, told in _needed(sources):
        its: list[tuple[Any, ...]] = [
            ("dwell", m.member, t.from_rank, t.to_rank, t.dwell, None, None, None, None)
            for m in (source.result.members if told.dwells else ())
            for t in m.rank_transitions
        ]
        its += [("jump", None, j.from_rank, j.to_rank, None, *_numbers(j.made)) for j in told.jumps]
        its += [("end", None, None, e.rank, None, *_numbers(e.ended)) for e in told.ends]
        rows.append((source, its))
    names = ("series", "member", "from_rank", "to_rank", "dwell", "starts", "share", "low", "high")
    return data_of(rows, *names)


def _numbers(share: StartShare) -> tuple[int, float, float, float]:
    return share.starts, share.share, *share.ci95


def _needed(sources: Sequence[ResultSource]) -> list[tuple[ResultSource, Distributions]]:
    """The runs of several starts with what they say, or, in a file of before that was told, what their members say."""
    told = ((s, s.result.distributions or distributions_of(s.result.members)) for s in shows(sources))
    runs = [(source, its) for source, its in told if its is not None]
    return needed(runs, "kind: starts shows runs of several starts (train --seeds N), found none")


def _draw_dwells(axes: Axes, result: TrainResult, told: Distributions) -> None:
    """A lane for each rank that was left; the points of a lane stand one above the other in the order of the starts."""
    stays: dict[int, list[float]] = {}
    for member in result.members:
        for row in member.rank_transitions:
            stays.setdefault(row.from_rank, []).append(row.dwell)
    for k, dwell in enumerate(told.dwells):
        times = np.array(stays[dwell.rank])
        lanes = dwell.rank + np.linspace(-LANE, LANE, len(times))
        look = line_style(k)
        axes.plot(times, lanes, ".", color=look["color"], markersize=2.5, alpha=0.6, gid="dwell")
        lane = [dwell.rank - LANE, dwell.rank + LANE]
        axes.fill_betweenx(lane, dwell.q25, dwell.q75, color=look["color"], alpha=0.25, linewidth=0)
        axes.plot([dwell.median] * 2, lane, color="black", linewidth=1.2, gid="median")
    axes.set_xlabel("dwell time")
    axes.set_ylabel("rank that was left")
    every = np.concatenate([np.array(v) for v in stays.values()]) if stays else np.array([1.0])
    if every.min() > 0 and every.max() >= 10 * every.min():
        axes.set_xscale("log")
    whole_numbers(axes.yaxis)


def _draw_shares(axes: Axes, told: Distributions) -> None:
    """A bar with its interval for each jump, then for each rank at the end."""
    bars = [(f"{j.from_rank} → {j.to_rank}", j.made, 0) for j in told.jumps]
    bars += [(f"end at {e.rank}", e.ended, 1) for e in told.ends]
    named: set[int] = set()
    for k, (_, share, kind) in enumerate(bars):
        name = None if kind in named else ("starts that jumped", "starts that ended")[kind]
        named.add(kind)
        axes.barh(k, share.share, height=0.6, color=line_style(kind)["color"], alpha=0.6, label=name, gid="share")
        axes.plot(share.ci95, [k, k], color="black", linewidth=1.0, marker="|", gid="interval")
    axes.set_yticks(range(len(bars)), [name for name, _, _ in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"share of the {told.starts} starts")

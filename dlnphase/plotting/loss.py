"""Cost against time: training and test, the plateaus at the visited saddles, the predicted escape."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dlnphase.plotting.data import FigureData, data_of
from dlnphase.plotting.sources import ResultSource, runs_of
from dlnphase.plotting.style import REFINED, THEORY, Look, line_style
from dlnphase.plotting.timeaxis import burst_clock
from dlnphase.plotting.timeline import (
    Arrangement,
    Stage,
    average_words,
    floor_of,
    logarithmic,
    members_of,
    middle_and_spread,
    stages_of,
    timeline_figure,
)
from dlnphase.results.train import TrainResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figure(sources: Sequence[ResultSource], look: Look, arrangement: Arrangement) -> Figure:
    """The cost of every run among the sources."""
    runs = runs_of(sources, need="loss")
    drawn = partial(draw, average=arrangement.average)
    words = average_words(runs, arrangement.average)
    return timeline_figure(runs, look, arrangement, drawn, overlay=True, ylabel="cost $C(A)$", words=words)


def data(sources: Sequence[ResultSource]) -> FigureData:
    """Every record of every run."""
    rows = []
    for source in runs_of(sources, need="loss"):
        p = source.result.path
        none = np.full(len(p.t), np.nan)
        shares = (none if share is None else share for share in (p.accuracy, p.test_accuracy))
        parts = (p.member, p.t, p.step, p.cost, p.excess, p.test_cost, p.gradient_norm, *shares)
        rows.append((source, zip(*(part.tolist() for part in parts), strict=True)))
    names = ("member", "t", "step", "cost", "excess", "test_cost", "gradient_norm", "accuracy", "test_accuracy")
    return data_of(rows, *names)


def draw(axes: Axes, source: ResultSource, position: int | None, time: str, average: str = "median") -> None:
    """One run on one axes; ``position`` is its place in an overlay, ``average`` what is drawn of many starts."""
    result: TrainResult = source.result
    path = result.path
    tested = position is None and bool(np.isfinite(path.test_cost).any())
    shown = [path.cost, path.test_cost] if tested else [path.cost]
    if len(members_of(result)) > 1:
        for k, (values, name) in enumerate(zip(shown, ("", "test: "), strict=False)):
            prefix = f"{source.label}: " if position is not None and source.label else name
            _draw_members(axes, result, values, prefix, (position or 0) + k, average)
    else:
        look = line_style(position or 0)
        axes.plot(path.t, path.cost, **look, label=source.label if position is not None else "training", gid="cost")
        if tested:
            axes.plot(path.t, path.test_cost, **line_style(1), label="test", gid="test")
    logarithmic(axes, np.concatenate([axes.dataLim.intervaly.clip(1e-300), *shown] if position else shown))
    if position is None:
        _draw_theory(axes, result, time)
        _draw_lazy(axes, result)
        _draw_accuracy(axes, result)


def _draw_accuracy(axes: Axes, result: TrainResult) -> None:
    """Shares of wrong answers from 0, on an axis of their own at the right."""
    path = result.path
    shares = [(path.accuracy, "training"), (path.test_accuracy, "test")]
    known = [(1 - share, name) for share, name in shares if share is not None]
    if not known:
        return
    right = axes.twinx()
    right.spines["right"].set_visible(True)
    right.set_ylabel("share wrong")
    for k, (wrong, name) in enumerate(known):
        look = {**line_style(2 + k), "linewidth": 0.9}
        for _, rows in members_of(result):
            right.plot(path.t[rows], wrong[rows], **look, gid="wrong")
        axes.plot([], [], **look, label=f"share wrong, {name}")  # the legend is that of the left axis
    top = max(float(np.nanmax(wrong)) for wrong, _ in known)
    right.set_ylim(-0.02 * (top or 1.0), 1.1 * top or 1.0)


def _draw_members(axes: Axes, result: TrainResult, values: np.ndarray, prefix: str, index: int, average: str) -> None:
    """Thin lines for the members; where enough are on their way, their middle and the band around it."""
    path = result.path
    rows = [r for _, r in members_of(result)]
    look = line_style(index)
    middle = middle_and_spread(path, values, rows, average)
    thin: dict[str, Any] = {"linewidth": 0.4, "alpha": 0.35} if middle else {"linewidth": 0.8, "alpha": 0.8}
    name = None if middle else f"{prefix}each of {len(rows)} starts"
    for k, r in enumerate(rows):
        axes.plot(path.t[r], values[r], color=look["color"], **thin, gid="cost", label=name if k == 0 else None)
    if middle is not None:
        times, (low, centre, high) = middle
        band = "10–90 %" if average == "median" else "± standard deviation"
        axes.fill_between(times, np.maximum(low, 1e-300), high, color=look["color"], alpha=0.15, linewidth=0)
        axes.plot(times, centre, **look, label=f"{prefix}{average} of {len(rows)} starts, {band}", gid="median")


def _draw_theory(axes: Axes, result: TrainResult, time: str) -> None:
    """Plateau costs over the time they last, labelled by rank; when theory says the origin is left."""
    floor = max(floor_of(result.path.cost), axes.get_ylim()[0])
    named: set[str] = set()
    stages = stages_of(result)
    for k, stage in enumerate(stages):
        name = "theory: least cost of that rank" if stage.exact else "cost at the critical point"
        if stage.level > floor:
            label = None if name in named else name
            named.add(name)
            look = THEORY if stage.exact else REFINED
            axes.plot([stage.start, stage.end], [stage.level] * 2, **look, label=label, gid="plateau")
        if k < len(stages) - 1 or stage.level > floor:
            _name_rank(axes, result, stage, time)
    predictions = members_of(result)[0][0].theory.predictions  # the same for every start
    escape = predictions.get("escape_time")
    if escape is not None and escape.predicted < result.path.t.max():
        look = {**THEORY, "linewidth": 0.8}
        axes.axvline(escape.predicted, **look, label="theory: escape from the origin", gid="escape")


def _draw_lazy(axes: Axes, result: TrainResult) -> None:
    """The exponential of the lazy regime as w → ∞: C(t) = C(0)·exp(−2Kt), K = L·w^((1−γ)(L−1))."""
    theory = members_of(result)[0][0].theory
    rate = theory.predictions.get("ntk_at_start")
    if theory.regime != "lazy" or rate is None or result.task.kind not in ("factorization", "completion"):
        return
    t = np.sort(result.path.t)
    level = result.outcome.initial_cost * np.exp(-2 * rate.predicted * t)
    axes.plot(t, level, **THEORY, label=r"theory: $C_0\,e^{-2Kt},\ K = L w^{(1-\gamma)(L-1)}$", gid="lazy")


def _name_rank(axes: Axes, result: TrainResult, stage: Stage, time: str) -> None:
    """The rank above the middle of its plateau, as the axis shows it."""
    start, end = stage.start, stage.end
    middle = (start + end) / 2
    if time == "log":
        middle = float(np.sqrt(max(start, end / 10) * end))
    elif time == "bursts" and (clock := burst_clock(result)) is not None:
        middle = float(clock.inverse(clock.forward(np.array([start, end])).mean()))
    path = result.path
    rows = members_of(result)[0][1]
    tested = float(np.interp(middle, path.t[rows], path.test_cost[rows])) if np.isfinite(path.test_cost).all() else 0.0
    box = {"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 0.6}
    place: dict[str, Any] = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center", "va": "bottom"}
    words, at = f"rank {stage.rank}", (middle, max(stage.level, tested))
    axes.annotate(words, at, **place, fontsize="small", gid="rank", zorder=6, bbox=box)

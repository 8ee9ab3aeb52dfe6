"""The largest eigenvalue of the Hessian along a path, beside the curvature at which its step becomes unstable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlnphase.findings import Sharpness
from dlnphase.plotting.data import FigureData, data_of
from dlnphase.plotting.sources import ResultSource, needed, runs_of
from dlnphase.plotting.style import THEORY, Look, line_style
from dlnphase.plotting.timeline import Arrangement, logarithmic, timeline_figure
from dlnphase.results.observed import OBSERVED_FILE
from dlnphase.results.reading import at_hand
from dlnphase.results.train import RUN_FILE, TrainResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NONE = "kind: sharpness shows runs with a step (--dynamics gd) or with --record sharpness, found none"
WORDS = "Measured at the points, in the weights as they are held."


def shows(sources: Sequence[ResultSource]) -> list[ResultSource]:
    """The runs among the sources that looked at their sharpness."""
    return [s for s in runs_of(sources) if (o := s.result.observed) is not None and "sharpness" in o.values]


def figure(sources: Sequence[ResultSource], look: Look, arrangement: Arrangement) -> Figure:
    """Sharpness against time, every run that looked at it."""
    runs = runs_of(needed(shows(sources), NONE), need="sharpness")
    label = r"largest eigenvalue of $\nabla^2\mathcal{L}$"
    return timeline_figure(runs, look, arrangement, draw, overlay=True, ylabel=label, words=[WORDS])


def data(sources: Sequence[ResultSource]) -> FigureData:
    """Every record that was looked at, with the limit."""
    rows = []
    for source in needed(shows(sources), NONE):
        seen, told = source.result.observed, source.result.sharpness
        columns = seen.member.tolist(), seen.t.tolist(), seen.step.tolist(), seen.values["sharpness"]
        rows.append((source, [(*record, _limit(told, record[1])) for record in zip(*columns, strict=True)]))
    return data_of(rows, "member", "t", "step", "sharpness", "limit")


def _limit(told: Sharpness | None, time: float) -> float | None:
    """The limit of the step that is taken at a time; None without one."""
    if told is None or told.limit is None:
        return None
    return [told.limits[0].limit, *(c.limit for c in told.limits if c.time <= time)][-1] if told.limits else told.limit


def draw(axes: Axes, source: ResultSource, position: int | None, time: str) -> None:
    """One run on one axes: a line per start, and the limit of its step."""
    result: TrainResult = source.result
    seen = at_hand(result.observed, OBSERVED_FILE, RUN_FILE)
    look, values = line_style(position or 0), seen.values["sharpness"]
    name = source.label if position is not None else "sharpness"
    dots: dict[str, Any] = {"color": look["color"], "linewidth": 0.8, "marker": ".", "markersize": 3}
    for member in dict.fromkeys(seen.member.tolist()):
        rows, label = seen.rows_of(member), name if member == seen.member[0] else None
        axes.plot(seen.t[rows], values[rows], **dots, gid="sharpness", label=label)
    told = result.sharpness
    if told is not None and told.limit is not None:
        words = told.formula.replace("β", r"\beta").replace("η", r"\eta")
        label = f"theory: limit of the step, ${words}$" if position in (None, 0) else None
        own = THEORY if position is None else {**THEORY, "color": look["color"]}
        if told.limits:
            times, limits = [change.time for change in told.limits], [change.limit for change in told.limits]
            axes.step([*times, seen.t.max()], [*limits, told.limit], where="post", **own, label=label, gid="limit")
        else:
            axes.axhline(told.limit, **own, label=label, gid="limit")
    before = axes.dataLim.intervaly if position else ()
    limits = [] if told is None or told.limit is None else [told.limit, *(change.limit for change in told.limits)]
    logarithmic(axes, np.concatenate([before, values, limits]))

"""What was looked at along a path: a panel for each array of observed.npz, records running to the right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlnphase.observables import ARRAYS
from dlnphase.plotting.data import FigureData, data_of
from dlnphase.plotting.sources import ResultSource, caption_lines, detections_of, needed, runs_of
from dlnphase.plotting.style import FAINT, Look, captioned, letters, line_style, new_figure, panel_grid
from dlnphase.plotting.timeaxis import EARLY, apply_axis, choose_axis
from dlnphase.plotting.timeline import Arrangement, axis_words, logarithmic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


NONE = "kind: observed shows what --record looked at, found none"


def shows(sources: Sequence[ResultSource]) -> list[ResultSource]:
    """The runs and paths of other codes among the sources that looked at something that is drawn."""
    return [s for s in [*runs_of(sources), *detections_of(sources)] if s.result.observed is not None and _arrays(s)]


def figure(sources: Sequence[ResultSource], look: Look, arrangement: Arrangement) -> Figure:
    """Every array of every run that has some."""
    runs = needed(shows(sources), NONE)
    runs_of(runs, need="observed")
    panels = [(source, name) for source in runs for name in _arrays(source)]
    rows, columns = panel_grid(len(panels))
    fig, axes = new_figure(look, rows, columns, height=0.85)
    for ax, (source, name) in zip(axes, panels, strict=False):
        _draw(ax, source, name)
        _set_time(ax, source, arrangement.time)
        ax.set_title(source.label)
        ax.set_ylabel(ARRAYS[name].label)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    shown = axes[: len(panels)]
    letters(shown)
    words = [*axis_words([ax.get_xscale() for ax in shown], [arrangement.time])]
    words += ["One colour per layer, W_1 the first."] if any(ARRAYS[name].layers for _, name in panels) else []
    captioned(fig, look, [*caption_lines(runs), *words])
    return fig


def data(sources: Sequence[ResultSource]) -> FigureData:
    """Every number; ``index`` counts the entries of one record from 1, in the order of the array."""
    rows = []
    for source in needed(shows(sources), NONE):
        seen, its = source.result.observed, []
        for name in _arrays(source):
            flat = seen.values[name].reshape(len(seen.t), -1)
            for member, t, step, numbers in zip(
                seen.member.tolist(), seen.t.tolist(), seen.step.tolist(), flat.tolist(), strict=True
            ):
                its += [(member, t, step, name, k, v) for k, v in enumerate(numbers, 1)]
        rows.append((source, its))
    return data_of(rows, "member", "t", "step", "quantity", "index", "value")


def _set_time(axes: Axes, source: ResultSource, wanted: str) -> None:
    """The axis of a run; that of another code's path is linear, or logarithmic where half its records come early."""
    if source.kind == "train":
        apply_axis(axes, choose_axis([source.result], wanted), [source.result])
        return
    t = source.result.observed.t
    early = wanted == "auto" and t[len(t) // 2] < EARLY * t[-1]
    positive = t[t > 0]
    if (early or wanted in ("log", "bursts")) and len(positive):
        axes.set_xscale("log")
        axes.set_xlim(positive[0], t[-1] if t[-1] > positive[0] else 10 * positive[0])
    axes.set_xlabel("time $t$")


def _arrays(source: ResultSource) -> list[str]:
    """Those that are drawn, in order: no weights, and no residuals."""
    return [name for name, array in ARRAYS.items() if array.label and name in source.result.observed.values]


def _draw(axes: Axes, source: ResultSource, name: str) -> None:
    """One array on one axes: a line per entry and start."""
    seen = source.result.observed
    values = seen.values[name]
    for member in dict.fromkeys(seen.member.tolist()):
        rows = seen.rows_of(member)
        for place in np.ndindex(values.shape[1:]):
            number = place[0] if ARRAYS[name].layers else 0
            colour = FAINT if ARRAYS[name].faint else line_style(number)["color"]
            axes.plot(seen.t[rows], values[(rows, *place)], color=colour, linewidth=0.8, gid=name)
    if not ARRAYS[name].signed:
        logarithmic(axes, values)

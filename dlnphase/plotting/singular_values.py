"""Singular values of the end-to-end matrix against time: linear (what is learned) over logarithmic (what grows)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlnphase.findings import Mode
from dlnphase.plotting.data import FigureData, data_of
from dlnphase.plotting.sources import ResultSource, caption_lines, runs_of
from dlnphase.plotting.style import FAINT, THEORY, Look, captioned, legend_of_all, letters, line_style, new_figure
from dlnphase.plotting.timeaxis import apply_axis, choose_axis
from dlnphase.plotting.timeline import Arrangement, axis_words, members_of
from dlnphase.results.train import TrainResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 6  # modes drawn in their own colour; the others are faint
SMALL = 1.5  # inches a panel, below which its axis has a short name
DOT: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 3.5, "markerfacecolor": "white"}
DOT |= {"markeredgecolor": "black", "markeredgewidth": 0.8, "zorder": 4}
LOWEST = 3e-15  # of the largest: below it singular values are round-off


def figure(sources: Sequence[ResultSource], look: Look, arrangement: Arrangement) -> Figure:
    """The spectrum of every run among the sources, one column each."""
    runs = runs_of(sources, need="singular-values")
    columns = min(len(runs), 3)
    bands = -(-len(runs) // columns)
    fig, axes = new_figure(look, 2 * bands, columns, height=0.85)
    for k, source in enumerate(runs):
        top = axes[(k // columns) * 2 * columns + k % columns]
        bottom = axes[((k // columns) * 2 + 1) * columns + k % columns]
        kind = choose_axis([source.result], arrangement.time)
        for ax, logarithmic in ((top, False), (bottom, True)):
            draw(ax, source.result, logarithmic)
            apply_axis(ax, kind, [source.result], label=logarithmic)
        top.tick_params(labelbottom=False)
        top.set_title(source.label)
        if k % columns == 0:
            small = fig.get_size_inches()[1] < SMALL * 2 * bands
            what = "$s_k$, " if small else "singular values of $A$,\n"
            top.set_ylabel(f"{what}linear")
            bottom.set_ylabel(f"{what}{'log' if small else 'logarithmic'}")
    for k in range(len(runs), bands * columns):
        for row in (0, 1):
            axes[((k // columns) * 2 + row) * columns + k % columns].set_visible(False)
    words = axis_words([ax.get_xscale() for ax in axes if ax.get_visible()], [arrangement.time])
    letters(axes if len(runs) == 1 else [axes[(k // columns) * 2 * columns + k % columns] for k in range(len(runs))])
    legend_of_all(fig, axes, SHOWN + 3)
    captioned(fig, look, [*caption_lines(runs, panels=True), *words])
    return fig


def data(sources: Sequence[ResultSource]) -> FigureData:
    """Every singular value of every record; modes are counted from 1, the largest."""
    rows = []
    for source in runs_of(sources, need="singular-values"):
        p = source.result.path
        records = zip(p.member.tolist(), p.t.tolist(), p.singular_values.tolist(), strict=True)
        rows.append((source, [(member, t, k, s) for member, t, values in records for k, s in enumerate(values, 1)]))
    return data_of(rows, "member", "t", "mode", "singular_value")


def result_rank(result: TrainResult) -> int:
    """How many modes a run has learned, as far as they are told apart by colour."""
    return min(max(result.outcome.rank, 1), SHOWN)


def draw(axes: Axes, result: TrainResult, logarithmic: bool) -> None:
    """The singular values of one run, and those that were planted."""
    path = result.path
    learned = result_rank(result)
    members = members_of(result)
    thin = {"linewidth": 0.4, "alpha": 0.4} if len(members) > 1 else {}
    for member, rows in members:
        for i in range(path.singular_values.shape[1]):
            look = line_style(i) if i < learned else {"color": FAINT, "linewidth": 0.8, "zorder": 1}
            rest = "others" if result.outcome.rank > SHOWN else "not learned"
            name = f"$s_{{{i + 1}}}$" if i < learned else rest if i == learned else None
            label = name if rows[0] == members[0][1][0] else None
            axes.plot(path.t[rows], path.singular_values[rows, i], **{**look, **thin}, gid=f"s{i + 1}", label=label)
        _draw_half_times(axes, member.modes[:learned], rows[0] == members[0][1][0])
    _draw_planted(axes, result)
    largest = float(np.nanmax(path.singular_values)) or 1.0
    if logarithmic:
        positive = path.singular_values[path.singular_values > LOWEST * largest]
        axes.set_yscale("log")
        low = float(np.quantile(positive, 0.01)) if len(positive) else 0.0
        axes.set_ylim(max(low, LOWEST * largest) / 2, 3 * largest)
    else:
        axes.set_ylim(-0.03 * largest, 1.12 * largest)


def _draw_half_times(axes: Axes, modes: Sequence[Mode], named: bool) -> None:
    """A dot on every mode where it first passes half of its final size."""
    timed = [(m.time, m.size / 2) for m in modes if m.time is not None]
    if timed:
        label = "half of its final size" if named else None
        axes.plot(*zip(*timed, strict=True), **DOT, gid="half", label=label)


def _draw_planted(axes: Axes, result: TrainResult) -> None:
    for k, value in enumerate(result.config.singular_values or ()):
        axes.axhline(value, **{**THEORY, "linewidth": 0.7}, label="planted" if k == 0 else None, gid="planted")

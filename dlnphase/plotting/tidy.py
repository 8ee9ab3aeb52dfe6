"""The last look at a figure before it is saved: labels that would lie over each other or over the frame give way."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dlnphase.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP = 1.0  # pixels kept free between two labels
RAISES = 8  # each brings a label nearer to its place; by then it is there


def tidy(figure: Figure) -> None:
    """Lay the figure out, then move rank labels into their panel and hide those, and times of bursts, that collide."""
    _lay_out(figure)
    if _lift_titles(figure):
        figure.draw_without_rendering()
    _keep_below(figure)
    for axes in figure.axes:
        labels = [text for text in axes.texts if text.get_gid() == "rank"]
        for label in labels:
            _pull_inside(axes, label)
        for label in _crowded(labels):
            label.set_visible(False)
        _thin_times(axes)


def _pull_inside(axes: Axes, label: Any) -> None:
    box, frame = label.get_window_extent(), axes.bbox
    dpi = axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    left, right = frame.x0 + 2 * GAP - box.x0, frame.x1 - 2 * GAP - box.x1
    shift = max(left, 0.0) + min(right, 0.0)
    if shift:
        x, y = label.xyann
        label.xyann = (x + shift * 72 / dpi, y)


def _keep_below(figure: Figure) -> None:
    """Raise the top of panels until the rank labels in them lie below the legends above, laid out anew each time."""
    for _ in range(RAISES):
        if not [axes for axes in figure.axes if _raised(figure, axes)]:
            return
        figure.draw_without_rendering()


def _raised(figure: Figure, axes: Axes) -> bool:
    """Whether a label lay over a legend; its panel has more room above it then."""
    lift = 0.0
    for label in (text for text in axes.texts if text.get_gid() == "rank" and text.get_visible()):
        box = label.get_window_extent()
        over = [legend.get_window_extent().y0 for legend in _above(figure) if box.overlaps(legend.get_window_extent())]
        lift = max([lift, *(box.y1 - y + 2 * GAP for y in over)])
    if lift:
        axes.set_ylim(top=axes.transData.inverted().transform((axes.bbox.x0, axes.bbox.y1 + lift))[1])
    return lift > 0


def _crowded(labels: Sequence[Any]) -> list[Any]:
    """Those that would lie over one that stays; the first and the last have precedence."""
    order = [*labels[:1], *labels[:0:-1][:1], *labels[1:-1]]
    kept: list[Any] = []
    out = []
    for label in order:
        box = label.get_window_extent().padded(GAP)
        if any(box.overlaps(other) for other in kept):
            out.append(label)
        else:
            kept.append(box)
    return out


def _lay_out(figure: Figure) -> None:
    """Place the panels; InputError where the labels leave them no room."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "constrained_layout not applied")
        try:
            figure.draw_without_rendering()
        except UserWarning:
            width, height = figure.get_size_inches()
            raise InputError(f"size: found {width:g}x{height:g}, too small for the labels of this figure") from None


def _above(figure: Figure) -> list[Any]:
    """The legends that stand above a panel, or above all of them."""
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes)]
    return [legend for legend in legends if legend is not None and legend.get_gid() == "above"]


def _lift_titles(figure: Figure) -> bool:
    """Titles of panels with a legend above them stand above the legend; whether there are any."""
    lifted = False
    for legend in _above(figure):
        title = legend.axes.get_title("left") if legend.axes is not None else ""
        if title:
            height = legend.get_window_extent().height * 72 / figure.dpi
            legend.axes.set_title(title, loc="left", pad=height + 4)
            lifted = True
    return lifted


def _thin_times(axes: Axes) -> None:
    """Empty the tick labels of a rescaled time axis that would touch one that matters more: bursts, ends, the rest."""
    from matplotlib.ticker import FixedFormatter

    labels = axes.get_xticklabels()
    formatter = axes.xaxis.get_major_formatter()
    names = list(formatter.seq) if isinstance(formatter, FixedFormatter) else []
    if not names or len(names) != len(labels) or not all((t.get_gid() or "").startswith("time") for t in labels):
        return
    boxes = [label.get_window_extent().padded(2 * GAP) for label in labels]
    kept: list[Any] = []
    for k in sorted(range(len(names)), key=lambda k: str(labels[k].get_gid())):
        if any(boxes[k].overlaps(box) for box in kept):
            names[k] = ""
        else:
            kept.append(boxes[k])
    axes.xaxis.set_major_formatter(FixedFormatter(names))

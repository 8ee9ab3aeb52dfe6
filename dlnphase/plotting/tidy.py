"""The last look at a figure before it is saved: labels that would lie over each other or over the frame give way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP = 1.0  # pixels kept free between two labels


def tidy(figure: Figure) -> None:
    """Lay the figure out, then move rank labels into their panel and hide those, and times of bursts, that collide."""
    figure.draw_without_rendering()
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


def _thin_times(axes: Axes) -> None:
    """Empty the tick labels of a rescaled time axis that would touch the one before."""
    from matplotlib.ticker import FixedFormatter

    formatter = axes.xaxis.get_major_formatter()
    if axes.get_xscale() != "function" or not isinstance(formatter, FixedFormatter):
        return
    edge, names = float("-inf"), list(formatter.seq)
    for k, label in enumerate(axes.get_xticklabels()):
        if k >= len(names) or not names[k]:
            continue
        box = label.get_window_extent()
        if box.x0 < edge + 3 * GAP:
            names[k] = ""
        else:
            edge = box.x1
    axes.xaxis.set_major_formatter(FixedFormatter(names))

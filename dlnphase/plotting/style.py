"""The look of every figure: sizes, fonts, colours that survive colour blindness and grey print, captions, saving.

No pyplot and no global state: figures are plain objects, so nothing needs a display and nothing leaks.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import dlnphase
from dlnphase.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008, ordered so that neighbours differ in lightness too; black is kept for theory.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7F7F7F")
LINES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (1, 1.2)), (0, (3, 1, 1, 1, 1, 1)), "-", "-")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
THEORY: dict[str, Any] = {"color": "black", "linestyle": (0, (4, 3)), "linewidth": 1.0, "zorder": 3.5}
REFINED: dict[str, Any] = {"color": "black", "linestyle": (0, (1, 2)), "linewidth": 1.2, "zorder": 3.5}
FAINT = "#BBBBBB"
SEQUENCE = "cividis"  # ordered quantities: even in lightness, the same to all eyes
LIGHTEST = 0.75  # how far along it lines go: beyond, they are hard to see on white, and on black when inverted
DIVERGING = "PuOr"  # signed quantities: orange and purple, light in the middle
MAX_COLUMNS = 3  # panels side by side, below which their tick labels run into each other on a page
SHARE = 0.82  # of the width of a panel with its labels: what the panel itself has


@dataclass(frozen=True)
class Look:
    """One variant of the style.

    Attributes:
        name: ``paper`` or ``screen``.
        width, height: of one figure with one panel, in inches.
        font: size of text, in points.
        dpi: of PNG files.
        line: width of lines, in points.
        caption: whether the caption stands in the picture.
        size: of the whole picture in inches, or None for what the panels take.
        sheet: a matplotlib style drawn in, by name or file.
    """

    name: str
    width: float
    height: float
    font: float
    dpi: int
    line: float
    caption: bool = True
    size: tuple[float, float] | None = None
    sheet: str | None = None


LOOKS = {
    "paper": Look("paper", 5.5, 3.3, 8.0, 300, 1.2),
    "screen": Look("screen", 9.0, 5.2, 11.0, 120, 1.8),
}


@contextmanager
def style(look: Look) -> Iterator[None]:
    """The matplotlib settings of a variant, for the body alone."""
    import matplotlib

    settings: dict[Any, Any] = {
        "figure.dpi": look.dpi,
        "savefig.dpi": look.dpi,
        "font.size": look.font,
        "font.family": "DejaVu Sans",
        "mathtext.fontset": "dejavusans",
        "axes.titlesize": look.font,
        "axes.labelsize": look.font,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.unicode_minus": True,
        "legend.fontsize": look.font * 0.85,
        "legend.frameon": False,
        "legend.borderpad": 0.2,
        "legend.handlelength": 2.6,
        "xtick.labelsize": look.font * 0.9,
        "ytick.labelsize": look.font * 0.9,
        "lines.linewidth": look.line,
        "lines.markersize": look.font * 0.5,
        "svg.fonttype": "path",
        "svg.hashsalt": "dlnphase",
        "pdf.fonttype": 42,
        "path.simplify": True,
    }
    with matplotlib.rc_context(settings):
        if look.sheet is not None:
            _use_sheet(look.sheet)
        yield


def _use_sheet(sheet: str) -> None:
    """Draw in a style sheet of matplotlib or of the user's; InputError where there is none."""
    import matplotlib
    from matplotlib.style import use

    try:
        use(sheet)
    except (OSError, ValueError, KeyError) as error:
        known = ", ".join(name for name in matplotlib.style.available if not name.startswith("_"))
        why = str(error).splitlines()[0]
        raise InputError(f"style: found {sheet} ({why}), expected a style file or one of {known}") from None


def new_figure(
    look: Look, rows: int = 1, columns: int = 1, *, height: float = 1.0, **grid: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with a grid of panels, and its axes in reading order.

    Args:
        height: of one panel in units of the variant's.
        grid: passed to ``Figure.subplots`` (sharex, width_ratios, …).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = look.width * (1.0, 1.0, 1.35, 1.7)[min(columns, 3)]
    size = (width, look.height * height * (1 if rows == 1 else 0.78 * rows))
    figure = Figure(figsize=look.size or size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **grid)
    return figure, list(axes.flat)


def panel_grid(count: int) -> tuple[int, int]:
    """Rows and columns for so many panels."""
    columns = min(count, MAX_COLUMNS if count != 4 else 2)
    return -(-count // columns), columns


def captioned(figure: Figure, look: Look, lines: Sequence[str]) -> None:
    """Write small lines under the panels (settings, version), wrapped to the figure, and lay the panels out above.

    A caption that is to stand beside the picture is kept as an invisible text.
    """
    if not look.caption:
        figure.text(0, 0, "", gid="caption", visible=False, label="\n".join(lines))
        return
    size = look.font * 0.7
    inches = figure.get_size_inches()
    columns = int(inches[0] * 72 / (size * 0.56))
    wrapped = [part for line in lines for part in textwrap.wrap(line, columns, subsequent_indent="   ")]
    height = (len(wrapped) * size * 1.35 + size) / 72
    whole = inches[1] if look.size else inches[1] + height
    figure.set_size_inches(inches[0], whole)
    share = min(height / whole, 0.6)
    small: dict[str, Any] = {"fontsize": size, "color": "#555555", "va": "bottom", "ha": "left", "linespacing": 1.25}
    figure.text(0.01, 0.3 * size / 72 / whole, "\n".join(wrapped), **small, gid="caption", label="\n".join(lines))
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, share, 1, 1 - share))


def caption_of(figure: Figure) -> str:
    """The caption of a figure, as sentences on one line."""
    lines = [line for t in figure.texts if t.get_gid() == "caption" for line in str(t.get_label()).split("\n")]
    return " ".join(line if line.endswith(".") else f"{line}." for line in lines if line)


def save(figure: Figure, path: Path, look: Look, title: str, *, transparent: bool = False) -> bytes:
    """The figure as a file of the format its name ends in, with title and caption in the metadata."""
    import io

    words, maker = caption_of(figure), f"dlnphase {dlnphase.__version__}"
    metadata: dict[str, Any] = {
        "png": {"Title": title, "Description": words, "Software": maker},
        "svg": {"Title": title, "Description": words, "Creator": maker, "Date": None},
        "pdf": {"Title": title, "Subject": words, "Creator": maker, "CreationDate": None},
    }
    kind = path.suffix.lstrip(".")
    stream = io.BytesIO()
    with style(look):
        behind: dict[str, Any] = {"transparent": transparent, "facecolor": "none" if transparent else "white"}
        figure.savefig(stream, format=kind, dpi=look.dpi, metadata=metadata[kind], **behind)
    return stream.getvalue()


def line_style(index: int) -> dict[str, Any]:
    """Colour and dashes of the index-th series."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": LINES[index % len(LINES)]}


def marker_style(index: int) -> dict[str, Any]:
    """Colour and marker of the index-th series of points."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def ordered_colours(count: int) -> list[Any]:
    """Colours for an ordered family of curves, dark to light, never so light that white paper hides them."""
    import matplotlib

    colours = matplotlib.colormaps[SEQUENCE]
    return [colours(LIGHTEST * k / max(count - 1, 1)) for k in range(count)]


def legend_above(axes: Axes, columns: int = 4) -> None:
    """The legend in rows above the panel, where no curve can run through it, and no wider than the panel."""
    figure = axes.get_figure(root=True)
    if figure is None or not axes.get_legend_handles_labels()[1]:
        return
    place = axes.get_subplotspec()
    across = place.get_gridspec().ncols if place is not None else 1

    def make(count: int) -> Any:
        return axes.legend(
            loc="lower left", bbox_to_anchor=(0.0, 1.01), ncols=count, borderaxespad=0.0, columnspacing=1.4
        )

    _fitting(make, columns, SHARE * figure.bbox.width / across)


def legend_of_all(figure: Figure, axes: Sequence[Axes], columns: int = 6) -> None:
    """One legend above all panels: every name once, in order of appearance."""
    named: dict[str, Any] = {}
    for ax in axes:
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True):
            named.setdefault(name, handle)

    def make(count: int) -> Any:
        return figure.legend(
            list(named.values()), list(named), loc="outside upper left", ncols=count, columnspacing=1.4
        )

    if named:
        _fitting(make, columns, 0.99 * figure.bbox.width)


def _fitting(make: Callable[[int], Any], columns: int, room: float) -> None:
    """The legend with as many columns as fit into so many pixels."""
    for count in range(columns, 0, -1):
        legend = make(count)
        if count == 1 or legend.get_window_extent().width <= room:
            legend.set_gid("above")
            solid(legend)
            return
        legend.remove()


def solid(legend: Any) -> None:
    """Lines and markers of a legend in full colour, however faint the many curves they stand for."""
    for handle in legend.legend_handles:
        handle.set_alpha(1)
        if hasattr(handle, "set_linewidth"):
            handle.set_linewidth(max(*np.atleast_1d(handle.get_linewidth()), 1.0))


def whole_numbers(axis: Any) -> None:
    """Ticks at integers alone."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def letters(axes: Sequence[Axes]) -> None:
    """(a), (b), … in the titles of several panels, each no wider than its panel."""
    if len(axes) > 1:
        for letter, ax in zip("abcdefghijklmnopqrstuvwxyz", axes, strict=False):
            words = ax.get_title()
            ax.set_title("")
            ax.set_title(_wrapped(f"({letter})  {words}".rstrip(), ax), loc="left")


def _wrapped(title: str, axes: Axes) -> str:
    """A title on as many lines as its panel needs; formulas are left as they are."""
    place = axes.get_subplotspec()
    figure = axes.get_figure(root=True)
    if place is None or figure is None or "$" in title:
        return title
    inches = figure.get_size_inches()[0] / place.get_gridspec().ncols * 0.8
    columns = max(12, int(inches * 72 / (float(axes.title.get_fontsize()) * 0.6)))
    glued = title.replace(" = ", "\u00a0=\u00a0")  # γ = 2 stays on one line
    return "\n".join(textwrap.wrap(glued, columns))

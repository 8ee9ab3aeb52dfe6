"""Settings of ``dlnphase plot``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dlnphase.errors import InputError
from dlnphase.settings.common import name_words
from dlnphase.settings.parse import Parser, boolean, choice, optional, paths, words
from dlnphase.settings.table import Settings, option

TRAIN, DETECT, SWEEP = "train", "detect-saddles", "sweep-gamma"


@dataclass(frozen=True)
class Figure:
    """A kind of figure; the file of its name in plotting/ draws it.

    Attributes:
        title: over it, on the page of everything.
        of: the commands whose results can be drawn so.
        beside: those whose results it shows as well where some are there.
        main: those for whose results it is drawn unasked.
    """

    title: str
    of: tuple[str, ...] = (TRAIN,)
    beside: tuple[str, ...] = ()
    main: tuple[str, ...] = ()


# Every kind of figure, in the order in which they are drawn.
FIGURES = {
    "loss": Figure("Cost", main=(TRAIN,)),
    "singular-values": Figure("Singular values"),
    "rank": Figure("Rank"),
    "path": Figure("Path", of=(TRAIN, DETECT), main=(TRAIN,)),
    "saddles": Figure("Saddles", of=(TRAIN, DETECT), main=(DETECT,)),
    "convergence": Figure("Convergence to the greedy path", beside=(DETECT,)),
    "starts": Figure("What the starts did"),
    "sharpness": Figure("Sharpness"),
    "observed": Figure("Along the path", of=(TRAIN, DETECT)),
    "difference": Figure("Beside the first run"),
    "distances": Figure("Distances", of=(SWEEP,)),
    "exponents": Figure("Exponents", of=(SWEEP,), main=(SWEEP,)),
    "phase": Figure("Phase diagram", of=(SWEEP,), main=(SWEEP,)),
}
FORMATS = ("png", "svg", "pdf", "html", "csv")
SMALLEST, LARGEST = 1.0, 60.0  # of a picture, in inches


def _size() -> Parser:
    """Width × height in inches: ``3.25x2.4``, or two numbers."""

    def convert(value: Any) -> tuple[float, float]:
        parts = re.split(r"[x×,]", value) if isinstance(value, str) else list(value)
        width, height = (float(part) for part in parts)
        if not (SMALLEST <= width <= LARGEST and SMALLEST <= height <= LARGEST):
            raise ValueError
        return width, height

    words = f"width x height in inches, each from {SMALLEST:g} to {LARGEST:g}, like 3.25x2.4"
    return Parser(convert, words, "WxH", list)


def _sheet() -> Parser:
    """A style of matplotlib by name, or a file of one, kept absolute."""

    def convert(value: Any) -> str:
        name = str(value)
        if not isinstance(value, (str, Path)) or not name.strip() or not name.isprintable():
            raise ValueError
        return str(Path(name).expanduser().absolute()) if "/" in name or name.endswith(".mplstyle") else name

    return Parser(convert, "a matplotlib style, by its name or file", "STYLE")


@dataclass(frozen=True, kw_only=True)
class PlotSettings(Settings, panel="Plot"):
    """Which results to draw, as what, and how it looks. A figure shows its sources alone; nothing is computed anew."""

    RETIRED: ClassVar[frozenset[str]] = frozenset({"seed", "device", "dtype", "threads"})
    NAMED_BY_CONTENT: ClassVar[bool] = False  # figures of a result that has changed take the place of the old ones

    source: tuple[str, ...] | None = option(
        paths("result directories or files", "SOURCE", listed=True),
        "results of train, sweep-gamma, detect-saddles: directories or files, or directories of them",
        positional=True,
        repeatable=True,
    )
    kind: tuple[str, ...] = option(
        words("auto", "all", *FIGURES),
        "what to draw (repeatable); auto picks what matters most",
        repeatable=True,
        default_words="auto",
        default=("auto",),
    )
    format: tuple[str, ...] = option(
        words(*FORMATS), "file format (repeatable)", short="-f", repeatable=True, default_words="png", default=("png",)
    )
    terminal: bool = option(boolean(), "draw in the terminal instead of files", default=False)
    list: bool = option(boolean(), "tell the sources apart in a line each instead of drawing", default=False)
    variant: str = option(
        choice("paper", "screen"), "small and sharp for a page, or large for a screen", default="paper"
    )
    time: str = option(
        choice("auto", "linear", "log", "bursts", "both"),
        "time axis; bursts stretches it around every burst, however long the plateaus; both: that beside linear time",
        default="auto",
    )
    layout: str = option(
        choice("auto", "overlay", "panels"), "several runs over each other, or a panel each", default="auto"
    )

    average: str = option(
        choice("median", "mean"),
        "several starts: median with the band that holds four of five, or mean ± standard deviation",
        default="median",
    )
    caption: str = option(
        choice("figure", "file"), "captions in the picture, or beside it as .txt and as LaTeX", default="figure"
    )
    size: tuple[float, float] | None = option(
        optional(_size()), "of the whole picture, in inches", default_words="by variant and panels"
    )
    style: str | None = option(optional(_sheet()), "a matplotlib style sheet to draw in, over the variant's settings")

    def _settle(self) -> None:
        super()._settle()
        if not self.source:
            raise InputError("SOURCE: missing, expected one or more result directories or files")
        if len(self.kind) > 1 and {"auto", "all"} & set(self.kind):
            raise InputError(f"kind: found {', '.join(self.kind)}, expected auto or all by itself")

    @property
    def sources(self) -> tuple[str, ...]:
        """The names given, at least one."""
        return self.source or ()

    def slug(self) -> str:
        """A short name for the default output directory: ``plot-first``."""
        names = [_stem(Path(s)) for s in self.sources[:3]]
        return "-".join(["plot", *names, *(["and-more"] if len(self.sources) > 3 else [])])


def _stem(source: Path) -> str:
    name = source.parent.name if source.suffix in (".yaml", ".yml") else source.name
    return name_words(name) or "result"


def allowed_kinds(kinds_of_sources: Sequence[str]) -> tuple[str, ...]:
    """The figures that sources of these kinds (train, sweep-gamma, detect-saddles) can show, in order."""
    return tuple(kind for kind, figure in FIGURES.items() if set(figure.of) & set(kinds_of_sources))

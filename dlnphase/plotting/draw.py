"""The verb ``plot``: from results on disk to figures, and to files.

result, files = plot(PlotSettings(source=("runs/first",), kind=("all",), format=("svg",)))
figures, notes = draw(PlotSettings(source=("runs/first",), kind=("loss",)))   # matplotlib Figures, for a notebook
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dlnphase.errors import InputError
from dlnphase.plotting.latex import latex
from dlnphase.plotting.sources import ResultSource, caption_lines, labelled, read_sources
from dlnphase.plotting.style import LOOKS, Look, caption_of, save, style
from dlnphase.plotting.tidy import tidy
from dlnphase.plotting.timeline import LOG_WORDS, Arrangement
from dlnphase.results import Clock
from dlnphase.results.plot import FigureInfo, PlotResult, save_plot
from dlnphase.settings.plot import FIGURES, PlotSettings, allowed_kinds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")
REPORT_FILE = "report.html"


@dataclass(frozen=True, repr=False)
class Drawn:
    """A figure and what it shows; in a notebook, its picture."""

    kind: str
    figure: Figure
    sources: tuple[ResultSource, ...]

    def __repr__(self) -> str:
        return f"<Drawn: {self.kind} of {', '.join(s.name for s in self.sources)}>"

    def _repr_png_(self) -> bytes:
        """What a notebook shows, whether or not it has set up matplotlib."""
        return save(self.figure, Path(f"{self.kind}.png"), LOOKS["paper"], self.kind)


def plot(
    settings: PlotSettings | str | Path | Sequence[str | Path], out: Path | str | None = None
) -> tuple[PlotResult, dict[str, bytes]]:
    """Draw the figures and encode them; with ``out`` also write them there, with figures.yaml.

    Args:
        settings: what to draw, or just the sources.
        out: a directory, made if it is not there.

    Returns:
        What was drawn, and the content of each file by name.

    Raises:
        InputError: for sources that cannot be read, or kinds that they cannot show.
    """
    settings = settings if isinstance(settings, PlotSettings) else PlotSettings(source=settings)  # type: ignore[arg-type]
    clock = Clock()
    sources = read_sources(settings.sources)
    pictures = [name for name in settings.format if name not in ("csv", "html")]
    files: dict[str, bytes] = {}
    figures: list[FigureInfo] = []
    notes: tuple[str, ...] = ()
    if pictures or "csv" in settings.format:
        made, notes = _each(settings, sources, lambda kind, shown: _picture(kind, shown, settings, pictures))
        for info, its in made:
            figures.append(info)
            files |= its
        notes += axis_notes((info.kind, info.caption) for info in figures)
    if "html" in settings.format:
        page, left = report(settings, sources)
        paths = tuple(str(s.path) for s in sources)
        figures.append(FigureInfo("report", (REPORT_FILE,), paths, "Everything, with its tables, on one page."))
        files[REPORT_FILE] = page
        notes = tuple(dict.fromkeys((*notes, *left)))
    result = PlotResult(settings, clock.provenance(), tuple(figures), notes)
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        save_plot(result, files, Path(out))
    return result, files


def draw(settings: PlotSettings) -> tuple[list[Drawn], tuple[str, ...]]:
    """The figures as matplotlib Figures (no window, no global state), and notes on kinds with nothing to show."""
    made, notes = _each(settings, read_sources(settings.sources), lambda kind, shown: _drawn(kind, shown, settings))
    return made, notes + axis_notes((drawn.kind, caption_of(drawn.figure)) for drawn in made)


def axis_notes(captions: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Notes on the figures, kind and caption of each, whose time axis is not the one asked for."""
    return tuple(f"{kind}: {LOG_WORDS[0].lower()}{LOG_WORDS[1:-1]}" for kind, words in captions if LOG_WORDS in words)


def report(settings: PlotSettings, sources: Sequence[ResultSource]) -> tuple[bytes, tuple[str, ...]]:
    """The page of all sources with all their figures (those asked for by name, if any), and notes on what has none."""
    from dlnphase.plotting.html.library import compressed_library
    from dlnphase.plotting.html.page import Panel, moves, page

    wanted = replace(settings, kind=("all",) if settings.kind == ("auto",) else settings.kind, caption="file")

    def panel(kind: str, shown: list[ResultSource]) -> Panel:
        figure = _laid_out(kind, shown, wanted)
        picture = save(figure, Path(f"{kind}.svg"), look_of(wanted), kind, transparent=True)
        return Panel(kind, tuple(shown), picture, caption_of(figure), module_of(kind).data(shown))

    library = compressed_library() if moves(choose_kinds(wanted.kind, sources)[0]) else ""
    panels, notes = _each(wanted, sources, panel)
    notes += axis_notes((panel.kind, panel.caption) for panel in panels)
    return page(sources, panels, notes, library).encode(), notes


def module_of(kind: str) -> Any:
    """The module that draws a kind of figure."""
    return importlib.import_module(f"dlnphase.plotting.{kind.replace('-', '_')}")


def _shows(kind: str, sources: Sequence[ResultSource]) -> bool:
    """Whether a figure finds something to show in sources of the right kind: its module may ask for more."""
    return bool(getattr(module_of(kind), "shows", len)(sources))


def _each(
    settings: PlotSettings, sources: Sequence[ResultSource], make: Callable[[str, list[ResultSource]], T]
) -> tuple[list[T], tuple[str, ...]]:
    """What is made of every kind of figure that the settings ask for, and notes on those with nothing to show."""
    kinds, asked = choose_kinds(settings.kind, sources)
    made, notes = [], []
    for kind in kinds:
        shown = labelled([s for s in sources if s.kind in FIGURES[kind].of + FIGURES[kind].beside])
        try:
            made.append(make(kind, shown))
        except InputError as error:
            if asked or str(error).startswith(("size", "style")):
                raise
            notes.append(f"{kind}: not drawn ({error})")
    if not made:
        raise InputError("SOURCE: nothing to draw: " + "; ".join(notes))
    return made, tuple(notes)


def _drawn(kind: str, shown: list[ResultSource], settings: PlotSettings) -> Drawn:
    look = look_of(settings)
    with style(look):
        figure = module_of(kind).figure(shown, look, Arrangement(settings.time, settings.layout, settings.average))
        tidy(figure)
    return Drawn(kind, figure, tuple(shown))


def _laid_out(kind: str, shown: list[ResultSource], settings: PlotSettings) -> Figure:
    """A figure that is only to be saved: laying it out again for each format would take most of the time."""
    figure = _drawn(kind, shown, settings).figure
    figure.set_layout_engine("none")
    return figure


def _picture(
    kind: str, shown: list[ResultSource], settings: PlotSettings, formats: Sequence[str]
) -> tuple[FigureInfo, dict[str, bytes]]:
    """One figure in every format, its numbers and its caption, as files by name."""
    files: dict[str, bytes] = {}
    caption = " ".join(caption_lines(shown))
    if formats:
        figure = _laid_out(kind, shown, settings)
        caption = caption_of(figure)
        for ending in formats:
            files[f"{kind}.{ending}"] = save(figure, Path(f"{kind}.{ending}"), look_of(settings), kind)
        if settings.caption == "file":
            files |= caption_files(kind, list(files), caption)
    if "csv" in settings.format:
        files[f"{kind}.csv"] = module_of(kind).data(shown).csv().encode()
    return FigureInfo(kind, tuple(files), tuple(str(s.path) for s in shown), caption), files


def caption_files(kind: str, names: Sequence[str], words: str) -> dict[str, bytes]:
    """The caption of a figure as plain text and as a LaTeX figure that includes the first of these files fit for it."""
    fit = [name for ending in ("pdf", "png") for name in names if name.endswith(ending)] or list(names)
    snippet = (
        "\\begin{figure}\n  \\centering\n"
        f"  \\includegraphics[width=\\linewidth]{{{fit[0]}}}\n"
        f"  \\caption{{{latex(words)}}}\n  \\label{{fig:{kind}}}\n\\end{{figure}}\n"
    )
    return {f"{kind}.txt": f"{words}\n".encode(), f"{kind}.tex": snippet.encode()}


def look_of(settings: PlotSettings) -> Look:
    """The variant with what the settings change in it."""
    inside = settings.caption == "figure"
    return replace(LOOKS[settings.variant], caption=inside, size=settings.size, sheet=settings.style)


def choose_kinds(wanted: Sequence[str], sources: Sequence[ResultSource]) -> tuple[tuple[str, ...], bool]:
    """The kinds to draw, and whether they were asked for by name.

    Raises:
        InputError: for a kind that none of the sources can show.
    """
    kinds = [s.kind for s in sources]
    possible = allowed_kinds(kinds)
    if wanted == ("all",):
        return tuple(k for k in possible if _shows(k, sources)), False
    if wanted == ("auto",):
        main = tuple(k for k in possible if set(FIGURES[k].main) & set(kinds))
        return main, False
    for kind in wanted:
        if kind not in possible:
            found = ", ".join(dict.fromkeys(kinds))
            raise InputError(f"kind: found {kind}, but a result of {found} can show {', '.join(possible)}")
    return tuple(wanted), True

"""The verb ``plot``: from results on disk to figures, and to files.

    result, files = plot(PlotSettings(source=("runs/first",), kind=("all",), format=("svg",)))
    figures, notes = draw(PlotSettings(source=("runs/first",), kind=("loss",)))   # matplotlib Figures, for a notebook
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dlnphase.errors import InputError
from dlnphase.plotting.sources import Source, labelled, read_sources
from dlnphase.plotting.style import LOOKS, Look, caption_of, latex, save, style
from dlnphase.plotting.tidy import tidy
from dlnphase.plotting.timeline import Arrangement
from dlnphase.results import Clock
from dlnphase.results.plot import FigureInfo, PlotResult, save_plot
from dlnphase.settings.plot import DETECT_KINDS, SWEEP_KINDS, TRAIN_KINDS, PlotSettings, allowed_kinds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# which sources a figure shows
_SHOWS = {
    **dict.fromkeys(TRAIN_KINDS, ("train",)),
    **dict.fromkeys(SWEEP_KINDS, ("sweep-gamma",)),
    **dict.fromkeys((*DETECT_KINDS, "convergence"), ("train", "detect-saddles")),
}
# the main figures of each kind of source
_MAIN = {"train": ("loss", "path"), "sweep-gamma": ("phase", "exponents"), "detect-saddles": ("saddles",)}


@dataclass(frozen=True)
class Drawn:
    """A figure and what it shows."""

    kind: str
    figure: Figure
    sources: tuple[Source, ...]


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
    drawn, notes = draw(settings)
    files: dict[str, bytes] = {}
    look = look_of(settings)
    figures = []
    for item in drawn:
        names = tuple(f"{item.kind}.{ending}" for ending in settings.format)
        for name in names:
            files[name] = save(item.figure, Path(name), look, item.kind)
        if settings.caption == "file":
            texts = caption_files(item.kind, names, caption_of(item.figure))
            files |= texts
            names += tuple(texts)
        sources = tuple(str(s.path) for s in item.sources)
        figures.append(FigureInfo(item.kind, names, sources, caption_of(item.figure)))
    result = PlotResult(settings, clock.provenance(), tuple(figures), notes)
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        save_plot(result, files, Path(out))
    return result, files


def draw(settings: PlotSettings) -> tuple[list[Drawn], tuple[str, ...]]:
    """The figures as matplotlib Figures (no window, no global state), and notes on kinds with nothing to show."""
    assert settings.source
    sources = read_sources(settings.source)
    kinds, asked = choose_kinds(settings.kind, sources)
    look, arrangement = look_of(settings), Arrangement(settings.time, settings.layout, settings.average)
    drawn, notes = [], []
    for kind in kinds:
        shown = labelled([s for s in sources if s.kind in _SHOWS[kind]])
        module = importlib.import_module(f"dlnphase.plotting.{kind.replace('-', '_')}")
        try:
            with style(look):
                figure = module.figure(shown, look, arrangement)
                tidy(figure)
                drawn.append(Drawn(kind, figure, tuple(shown)))
        except InputError as error:
            if asked:
                raise
            notes.append(f"{kind}: not drawn ({error})")
    if not drawn:
        raise InputError("SOURCE: nothing to draw: " + "; ".join(notes))
    return drawn, tuple(notes)


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


def choose_kinds(wanted: Sequence[str], sources: Sequence[Source]) -> tuple[tuple[str, ...], bool]:
    """The kinds to draw, and whether they were asked for by name.

    Raises:
        InputError: for a kind that none of the sources can show.
    """
    kinds = [s.kind for s in sources]
    possible = allowed_kinds(kinds)
    if wanted == ("all",):
        several = kinds.count("train") > 1 and "detect-saddles" in kinds
        return tuple(k for k in possible if k != "convergence" or several), False
    if wanted == ("auto",):
        main = tuple(k for k in possible if any(k in _MAIN[s] for s in kinds))
        return main, False
    for kind in wanted:
        if kind not in possible:
            found = ", ".join(dict.fromkeys(kinds))
            raise InputError(f"kind: found {kind}, but a result of {found} can show {', '.join(possible)}")
    return tuple(wanted), True

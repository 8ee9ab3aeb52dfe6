"""The result of ``dlnphase plot``: figures.yaml, which says what was drawn from what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from dlnphase.findings import counted
from dlnphase.results.journal import commit
from dlnphase.results.provenance import Provenance
from dlnphase.results.reading import main_file
from dlnphase.results.schema import load_result, result_text
from dlnphase.results.tabular import Tabular, columns_of
from dlnphase.settings.plot import PlotSettings

FIGURES_FILE = "figures.yaml"


@dataclass(frozen=True)
class FigureInfo:
    """One figure: its kind, its files beside figures.yaml, the sources it shows and the caption under it."""

    kind: str
    files: tuple[str, ...]
    sources: tuple[str, ...]
    caption: str


@dataclass(frozen=True, repr=False)
class PlotResult(Tabular):
    """Everything ``dlnphase plot`` drew; ``notes`` says which kinds the sources had nothing for."""

    SCHEMA: ClassVar[str] = "dlnphase/plot@1"

    config: PlotSettings
    provenance: Provenance
    figures: tuple[FigureInfo, ...]
    notes: tuple[str, ...] = ()

    def headline(self) -> str:
        """``2 figures: loss, path``."""
        kinds = ", ".join(figure.kind for figure in self.figures)
        return f"{counted(len(self.figures), 'figure')}: {kinds}"

    def columns(self) -> dict[str, np.ndarray]:
        """A row per file: figure, file, sources, caption."""
        rows = [(f.kind, name, ", ".join(f.sources), f.caption) for f in self.figures for name in f.files]
        names = ("figure", "file", "sources", "caption")
        return columns_of([dict(zip(names, row, strict=True)) for row in rows])


def save_plot(result: PlotResult, files: dict[str, bytes], directory: Path) -> None:
    """Write the figures and figures.yaml as one; RunError when the disk refuses."""
    commit(directory, {**files, FIGURES_FILE: result_text(result)}, main=FIGURES_FILE)


def load_plot(source: Path | str) -> PlotResult:
    """Read figures.yaml (or its directory); InputError when it is not one."""
    return load_result(main_file(source, FIGURES_FILE), PlotResult)

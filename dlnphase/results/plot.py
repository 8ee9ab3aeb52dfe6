"""The result of ``dlnphase plot``: figures.yaml, which says what was drawn from what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from dlnphase.results.journal import commit
from dlnphase.results.provenance import Provenance
from dlnphase.results.reading import main_file
from dlnphase.results.schema import load_result, result_text
from dlnphase.settings.plot import PlotSettings

FIGURES_FILE = "figures.yaml"


@dataclass(frozen=True)
class FigureInfo:
    """One figure: its kind, its files beside figures.yaml, the sources it shows and the caption under it."""

    kind: str
    files: tuple[str, ...]
    sources: tuple[str, ...]
    caption: str


@dataclass(frozen=True)
class PlotResult:
    """Everything ``dlnphase plot`` drew; ``notes`` says which kinds the sources had nothing for."""

    SCHEMA: ClassVar[str] = "dlnphase/plot@1"

    config: PlotSettings
    provenance: Provenance
    figures: tuple[FigureInfo, ...]
    notes: tuple[str, ...] = ()


def save_plot(result: PlotResult, files: dict[str, bytes], directory: Path) -> None:
    """Write the figures and figures.yaml as one; RunError when the disk refuses."""
    commit(directory, {**files, FIGURES_FILE: result_text(result)}, main=FIGURES_FILE)


def load_plot(source: Path | str) -> PlotResult:
    """Read figures.yaml (or its directory); InputError when it is not one."""
    return load_result(main_file(source, FIGURES_FILE), PlotResult)

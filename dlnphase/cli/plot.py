"""``dlnphase plot``: parse, call :func:`dlnphase.plot`, show where the figures are (or draw them in the terminal)."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dlnphase.cli.interrupts import Interrupts
from dlnphase.cli.options import Call, settings_command
from dlnphase.errors import InputError
from dlnphase.settings.plot import FORMATS, PlotSettings

if TYPE_CHECKING:
    from dlnphase.results.plot import PlotResult


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    settings_command(
        app, "plot", PlotSettings, plot_cli, example="dlnphase plot runs/first --kind all --format svg --out figures"
    )


def plot_cli(call: Call[PlotSettings]) -> int:
    """Draw results: cost, singular values, rank, path, saddles, distances, exponents, phase diagram.

    SOURCE is one or more results of train, sweep-gamma or detect-saddles; several are overlaid or get a panel each.
    Theory is black and dashed, measurements have colours, line styles and markers that survive grey print. Writes one
    file per figure and format, and figures.yaml. A directory of results stands for all of them; --list tells them
    apart in a line each, --format html puts everything on one page.
    """
    if call.settings.list:
        return _list(call)
    if call.settings.terminal:
        return _in_terminal(call)
    from dlnphase.plotting.draw import plot
    from dlnphase.results import OutputDirectory, mode_of
    from dlnphase.results.plot import FIGURES_FILE, save_plot

    directory, mode = call.directory(call.settings), mode_of(call.overwrite, call.resume)
    if directory.suffix[1:].lower() in FORMATS and not directory.is_dir():
        raise InputError(
            f"--out: found {directory.name}, expected a directory: the file in it is named by its --kind and --format"
        )
    if mode == "new" and _drawn_so(directory, call.settings):
        mode = "overwrite"  # the same figures, drawn once more
    with Interrupts(patience=1) as stop:
        with OutputDirectory(directory, main=FIGURES_FILE, mode=mode):
            result = _there(directory, call) if call.resume else None
            if result is None:
                if stop.requested():  # from here to ``back`` a signal ends it: figures are quickly drawn again
                    raise KeyboardInterrupt
                result, files = plot(call.settings)
                stop.back(over=True)
                save_plot(result, files, directory)
        _show(result, directory, call)
        return stop.code(0, directory)


def _drawn_so(directory: Path, settings: PlotSettings) -> bool:
    """Whether the figures that are there were drawn by these very settings."""
    from dlnphase.results.plot import FIGURES_FILE, load_plot

    if not (directory / FIGURES_FILE).is_file():
        return False
    with contextlib.suppress(InputError):  # what cannot be read is not ours to write over
        return load_plot(directory).config.identity() == settings.identity()
    return False


def _there(directory: Path, call: Call[PlotSettings]) -> PlotResult | None:
    """The figures that are there, if they were drawn with the same settings and none has been lost."""
    from dlnphase.results import there
    from dlnphase.results.plot import FIGURES_FILE, load_plot

    result = there(directory, FIGURES_FILE, load_plot, call.settings)
    names = [name for figure in result.figures for name in figure.files] if result is not None else []
    return result if all((directory / name).exists() for name in names) else None


def _show(result: PlotResult, directory: Path, call: Call[PlotSettings]) -> None:
    from dlnphase.cli.console import stderr_console, stdout_console
    from dlnphase.cli.tables import print_json

    if call.json:
        print_json(result)
    elif not call.quiet:
        console = stdout_console()
        for figure in result.figures:
            for name in figure.files:
                console.print(str(directory / name), markup=False, soft_wrap=True)
        for note in result.notes:
            stderr_console().print(note, markup=False, soft_wrap=True)


def _list(call: Call[PlotSettings]) -> int:
    import sys

    from rich.text import Text

    from dlnphase.cli.console import stdout_console
    from dlnphase.cli.tables import new_table
    from dlnphase.plotting.listing import overview, unfinished_lines
    from dlnphase.plotting.sources import read_sources, results_in, unfinished_in
    from dlnphase.results.underway import unfinished

    if call.settings.terminal:
        raise InputError("--list: found beside --terminal, expected one of them")
    sources = call.settings.sources
    torn = unfinished_in(sources)
    # A directory of killed runs alone is no mistake here.
    read = [s for s in sources if not (unfinished_in([s]) and Path(s).is_dir() and not results_in(Path(s)))]
    lines = [*overview(read_sources(read)), *unfinished_lines([unfinished(place) for place in torn])]
    if call.json:
        sys.stdout.write(json.dumps([asdict(line) for line in lines], ensure_ascii=False) + "\n")
        return 0
    names = ("result", "command", "settings that differ", "outcome")
    rows = [[Text(word) for word in (line.name, line.command, line.settings, line.outcome)] for line in lines]
    stdout_console().print(new_table("Results", names, rows, fold=names))
    return 0


def _in_terminal(call: Call[PlotSettings]) -> int:
    import sys

    from dlnphase.cli.console import stdout_console
    from dlnphase.plotting.terminal import terminal_figures

    if call.json:
        raise InputError("--json: found beside --terminal, expected one of them")
    console = stdout_console()
    plain = not console.is_terminal or console.no_color or console.is_dumb_terminal
    for text in terminal_figures(call.settings, width=console.width, colour=not plain):
        sys.stdout.write(text + "\n")
    return 0

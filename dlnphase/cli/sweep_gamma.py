"""``dlnphase sweep-gamma``: parse, call :func:`dlnphase.sweep.run.sweep_gamma`, show."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dlnphase.cli.interrupts import INTERRUPTED, Interrupts
from dlnphase.cli.options import Call, settings_command
from dlnphase.cli.progress import LiveLine
from dlnphase.settings.sweep import SweepSettings

if TYPE_CHECKING:
    from dlnphase.results import OutputDirectory
    from dlnphase.results.sweep import Cell, SweepResult
    from dlnphase.sweep.run import Plan

BAR = 12  # characters of the progress bar


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    example = "dlnphase sweep-gamma --gammas 0.7:1.5:0.1 --widths 1e3,1e6 --train --out runs/phase"
    settings_command(app, "sweep-gamma", SweepSettings, sweep_gamma_cli, example=example)


def sweep_gamma_cli(call: Call[SweepSettings]) -> int:
    """Measure the phase transition: distances to minima and saddles over gamma and width.

    Tells how the distance from the start to the nearest minimum and to the nearest saddle scales with the width, in
    which phase each gamma lies, and at which gamma the curves of different widths cross; theory beside each number.
    Writes sweep.yaml as cells come, those of one width together.
    """
    with LiveLine(call.quiet) as line:
        line.now("loading PyTorch")
        from dlnphase.sweep.executors import warm_up

        warm_up(call.settings)
        from dlnphase.results import OutputDirectory, mode_of, there
        from dlnphase.results.sweep import SWEEP_FILE, load_sweep
        from dlnphase.sweep.run import prepare, sweep_failed

        mode = mode_of(call.overwrite, call.resume)
        line.now("preparing the task and the plan of the sweep")
        plan = prepare(call.settings)
    directory = call.directory(plan.settings)
    with Interrupts() as stop:
        with OutputDirectory(directory, main=SWEEP_FILE, mode=mode) as out:
            result = there(directory, SWEEP_FILE, load_sweep, plan.settings) if call.resume else None
            if result is not None and result.complete and not result.failed:
                line.say(f"nothing left to do: {directory} holds the whole sweep")
                out.forget_previous()
            else:
                done = result.cells if result is not None else ()
                if done:
                    line.say(f"going on: {len(done)} of {len(plan.settings.cells)} cells are there")
                result = _run(plan, done, out, line, stop)
        _show(result, directory, call)
        if not result.complete:
            return INTERRUPTED
        return stop.code(1 if sweep_failed(result) else 0, directory)


def _run(plan: Plan, done: tuple[Cell, ...], out: OutputDirectory, line: LiveLine, stop: Interrupts) -> SweepResult:
    from dlnphase.results.sweep import SweepFile
    from dlnphase.sweep.run import sweep_gamma

    file = SweepFile(out.path)
    progress = _Progress(len(plan.settings.cells), len(done))
    with line:
        line.update(progress.words)

        def on_cell(result: SweepResult) -> None:
            progress.feed(result)
            stop.back(over=progress.count == progress.total)
            out.set_aside()  # a sweep that is overwritten stays whole until the new one is
            file.save(result)
            for words in progress.failures():
                line.say(words)
            line.update(progress.words)

        result = sweep_gamma(plan, done=done, on_cell=on_cell, should_stop=stop.requested)
        if not (result.complete or result.cells or result.failed):
            raise KeyboardInterrupt  # nothing has been computed: what is there stays as it is
        if not result.complete:
            out.set_aside()
        file.save(result)
        if result.complete:
            out.forget_previous()
    return result


class _Progress:
    """What to say while cells come in: how many, which one came last, and the time left."""

    def __init__(self, total: int, before: int) -> None:
        self.total, self.before = total, before
        self.count = before
        self.last: Cell | None = None
        self._seen: set[tuple[float, int]] = set()
        self._failed = 0
        self._new_failures: list[str] = []
        self._start = time.monotonic()

    def feed(self, result: SweepResult) -> None:
        """Take in the result so far."""
        self.count = len(result.cells) + len(result.failed)
        for cell in result.cells:
            if (cell.gamma, cell.width) not in self._seen:
                self._seen.add((cell.gamma, cell.width))
                self.last = cell
        self._new_failures = [
            f"cell γ = {f.gamma:g}, w = {f.width:g} failed: {f.error}" for f in result.failed[self._failed :]
        ]
        self._failed = len(result.failed)

    def failures(self) -> list[str]:
        """Lines about cells that have just failed."""
        return self._new_failures

    def words(self) -> list[str]:
        """Parts of one line: bar and count, time left, the last cell."""
        filled = round(BAR * self.count / self.total)
        bar = "━" * filled + "┄" * (BAR - filled)
        last = []
        if self.last is not None:
            m, s = self.last.distance_to_minimum.mean, self.last.distance_to_saddle.mean
            where = f"γ = {self.last.gamma:g}, w = {self.last.width:g}"
            last = [where, f"distances {m:.3g} (minimum), {s:.3g} (saddle)"]
        return [f"{bar} {self.count}/{self.total} cells", f"{self._left()} left", *last]

    def _left(self) -> str:
        new = self.count - self.before
        if not new:
            return "?"
        from dlnphase.training.status import duration

        return duration((time.monotonic() - self._start) / new * (self.total - self.count))


def _show(result: SweepResult, directory: Path, call: Call[SweepSettings]) -> None:
    from dlnphase.cli.console import print_error, stdout_console
    from dlnphase.cli.sweep_tables import print_sweep
    from dlnphase.cli.tables import print_json

    if not result.complete:
        print_error(
            f"interrupted: {len(result.cells)} of {len(result.config.cells)} cells are saved in {directory}; "
            "--resume computes the others"
        )
    elif result.failed:
        names = ", ".join(f"γ = {f.gamma:g} w = {f.width:g}" for f in result.failed[:6])
        more = f" and {len(result.failed) - 6} more" if len(result.failed) > 6 else ""
        print_error(
            f"{len(result.failed)} of {len(result.config.cells)} cells failed ({names}{more}): "
            f"{result.failed[0].error}; the others are saved in {directory}, --resume tries these again"
        )
    if call.json:
        print_json(result)
    elif not call.quiet:
        print_sweep(stdout_console(), result, directory)

"""``dlnphase train``: parse, call :func:`dlnphase.train`, show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dlnphase.cli.interrupts import INTERRUPTED, Interrupts
from dlnphase.cli.options import Call, settings_command
from dlnphase.cli.progress import LiveLine
from dlnphase.errors import InputError, RunError
from dlnphase.settings import TrainSettings

if TYPE_CHECKING:
    from dlnphase.dynamics.records import Record
    from dlnphase.results import OutputDirectory
    from dlnphase.results.train import TrainResult
    from dlnphase.training.recording import Recorder
    from dlnphase.training.run import Run


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    settings_command(
        app, "train", TrainSettings, train_cli, example="dlnphase train --gamma 2 --width 1000 --out runs/first"
    )


def train_cli(call: Call[TrainSettings]) -> int:
    """Follow one network from its initialisation to the minimum.

    Tells at which times the rank of the end-to-end matrix jumps, how long it dwells at each saddle, in which regime
    it learns, and what theory predicts. Writes run.yaml and trajectory.npz.
    """
    with LiveLine(call.quiet) as line:
        line.now("loading PyTorch")
        from dlnphase.results import OutputDirectory, mode_of
        from dlnphase.results.train import RUN_FILE
        from dlnphase.training.run import failed, prepare

        mode = mode_of(call.overwrite, call.resume)
        line.now("preparing the task, the network and its initial weights")
        run = prepare(call.settings)
    directory = call.directory(run.settings)
    with Interrupts() as stop:
        with OutputDirectory(directory, main=RUN_FILE, mode=mode) as out:
            _spare(directory, run, mode)
            path = _unanalysed(directory, run, call)
            result = _finished(directory, run) if path is None and call.resume else None
            if result is not None:
                LiveLine(call.quiet).say(f"nothing left to do: {directory} holds the whole run")
                out.forget_previous(*result.files.values())
            else:
                result = _follow(run, call.quiet, stop, path, directory)
                _save(result, out)
        _show(result, directory, call)
        if result.outcome.reason == "interrupted":
            return INTERRUPTED
        return stop.code(1 if failed(result) else 0, directory)


def _spare(directory: Path, run: Run, mode: str) -> None:
    """Refuse to write over a completed matrix that no run of ours there has made."""
    from dlnphase.results.train import COMPLETED_FILE, RUN_FILE

    file = directory / COMPLETED_FILE
    if run.settings.target is not None and file.exists() and (mode == "new" or not (directory / RUN_FILE).exists()):
        raise InputError(f"--out: {directory} holds a {COMPLETED_FILE} that is of no run there, expected another --out")


def _stale(result: TrainResult, directory: Path) -> list[Path]:
    """Parts of the run that is to be overwritten which the new one has not."""
    from dlnphase.results.train import RUN_FILE, load_train

    if not (directory / RUN_FILE).exists():
        return []
    try:
        before = load_train(directory).files.values()
    except InputError:
        return []  # what cannot be read does not say what is its own
    return [directory / name for name in before if Path(name).name == name and name not in result.files.values()]


def _save(result: TrainResult, out: OutputDirectory) -> None:
    """Write the result; one that was interrupted does not cost the whole one that it overwrites."""
    from dlnphase.results.train import save_train
    from dlnphase.training.keeping import forget

    parts = tuple(result.files.values())
    if result.outcome.reason == "interrupted":
        out.set_aside(*parts)
    stale = _stale(result, out.path)
    save_train(result, out.path)
    forget(out.path)
    for part in stale:
        part.unlink(missing_ok=True)
    if result.outcome.reason != "interrupted":
        out.forget_previous(*parts)


def _unanalysed(directory: Path, run: Run, call: Call[TrainSettings]) -> Recorder | None:
    """The path of the same run, from a process that died after it had ended and before its result was there.

    Raises:
        InputError: where the path of another run would be lost to this one.
    """
    from dlnphase.training.keeping import PATH_FILE, kept

    if call.overwrite:
        return None
    try:
        return kept(run.settings, directory)
    except InputError:
        if call.resume:
            raise
        raise InputError(
            f"--out: {directory} holds a path of other settings that was not analysed ({PATH_FILE}); "
            "--overwrite starts anew, another --out keeps both"
        ) from None


def _finished(directory: Path, run: Run) -> TrainResult | None:
    """The result that is there, if the same settings led to it and it needs no more work."""
    from dlnphase.results import refuse_different
    from dlnphase.results.train import RUN_FILE, load_train

    if not (directory / RUN_FILE).exists():
        return None
    result = load_train(directory)
    refuse_different(result.config.identity(), run.settings.identity(), str(directory))
    return None if result.outcome.reason == "interrupted" else result


def _follow(run: Run, quiet: bool, stop: Interrupts, path: Recorder | None, directory: Path) -> TrainResult:
    """The result of a run, whose path is kept in the directory until it is there, or of a path that was kept."""
    from dlnphase.training.keeping import keep
    from dlnphase.training.run import train
    from dlnphase.training.status import Status

    status = Status(run)
    with LiveLine(quiet) as line:
        for note in run.notes:
            line.say(note)

        def on_record(record: Record) -> None:
            status.feed(record)
            stop.back(over=status.over)
            line.update(status.words)
            if status.over:
                line.now("the path has ended: looking for the saddles it visited")

        def on_recorded(recorder: Recorder) -> None:
            try:
                keep(recorder, run.settings, directory)
            except RunError as error:
                line.say(f"the path is not on disk while it is analysed: {error}")

        if path is not None:
            line.say(f"the path is there ({directory}): analysing it")
        should_stop = stop.requested
        return train(run, on_record=on_record, should_stop=should_stop, on_recorded=on_recorded, recorded=path)


def _show(result: TrainResult, directory: Path, call: Call[TrainSettings]) -> None:
    from dlnphase.cli import tables
    from dlnphase.cli.console import print_error, stdout_console
    from dlnphase.training.run import failed

    outcome = result.outcome
    if outcome.reason == "interrupted":
        print_error(f"interrupted at t = {outcome.time:.4g}, what is done is saved in {directory}; {outcome.advice}")
    elif failed(result):
        print_error(f"{outcome.reason} at t = {outcome.time:.4g}, saved in {directory}; {outcome.advice}")
    if call.json:
        tables.print_json(result)
    elif not call.quiet:
        tables.print_train(stdout_console(), result, directory)

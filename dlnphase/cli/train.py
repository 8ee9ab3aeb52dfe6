"""``dlnphase train``: parse, call :func:`dlnphase.train`, show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dlnphase.cli.interrupts import INTERRUPTED, Interrupts
from dlnphase.cli.options import Call, settings_command
from dlnphase.cli.progress import LiveLine
from dlnphase.errors import InputError
from dlnphase.settings import TrainSettings

if TYPE_CHECKING:
    from dlnphase.dynamics.records import Record
    from dlnphase.results import OutputDirectory
    from dlnphase.results.train import TrainResult
    from dlnphase.training.keeping import Keeper, SavedRun
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
        from dlnphase.training.keeping import Keeper, forget
        from dlnphase.training.run import failed, prepare

        mode = mode_of(call.overwrite, call.resume)
        line.now("preparing the task, the network and its initial weights")
        run = prepare(_settings(call))
    directory = call.directory(run.settings)
    with Interrupts() as stop:
        with OutputDirectory(directory, main=RUN_FILE, mode=mode) as out:
            _spare(directory, run, mode)
            line = LiveLine(call.quiet)
            keeper = Keeper(run, directory, line.say)
            kept = _kept(keeper, call)
            result = _finished(directory, run) if kept is None and call.resume else None
            if result is not None:
                line.say(f"nothing left to do: {directory} holds the whole run")
                out.forget_previous(*result.files.values())
                forget(directory)
            else:
                result = _follow(run, line, stop, keeper, kept)
                _save(result, out)
        _show(result, directory, call)
        if result.outcome.reason == "interrupted":
            return INTERRUPTED
        return stop.code(1 if failed(result) else 0, directory)


def _settings(call: Call[TrainSettings]) -> TrainSettings:
    """Those of the call; where it says no more than ``--out DIR --resume``, those of the run that is there."""
    from dlnphase.training.keeping import settings_in

    there = settings_in(call.out) if call.bare and call.resume and call.out is not None else None
    return call.settings if there is None else TrainSettings.from_plain(call.settings.to_plain() | there, str(call.out))


def _spare(directory: Path, run: Run, mode: str) -> None:
    """Refuse to write over a completed matrix that no run of ours there has made."""
    from dlnphase.results.train import COMPLETED_FILES, RUN_FILE

    if run.settings.target is None or not (mode == "new" or not (directory / RUN_FILE).exists()):
        return
    for name in COMPLETED_FILES.values():
        if (directory / name).exists():
            raise InputError(f"--out: {directory} holds a {name} that is of no run there, expected another --out")


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
    for part in stale:
        part.unlink(missing_ok=True)
    if result.outcome.reason != "interrupted":
        forget(out.path)
        out.forget_previous(*parts)


def _kept(keeper: Keeper, call: Call[TrainSettings]) -> SavedRun | None:
    """What a process that died has left of the same run.

    Raises:
        InputError: where it was not over and ``--resume`` does not ask for it, or where another run would be lost.
    """
    from dlnphase.results.train import STATE_FILE

    if call.overwrite:
        return None
    kept = keeper.kept()
    if kept is None:
        return None
    there = f"--out: {keeper.directory} holds a run"
    try:
        keeper.refuse_other(kept)
    except InputError:
        if call.resume:
            raise
        raise InputError(
            f"{there} of other settings that was not finished ({STATE_FILE}); "
            "--overwrite starts anew, another --out keeps both"
        ) from None
    if not kept.over and not call.resume:
        raise InputError(
            f"{there} that was killed after {kept.seconds + kept.lost:.0f} s ({STATE_FILE}); "
            "--resume goes on with it, --overwrite starts anew, another --out keeps both"
        )
    return kept


def _finished(directory: Path, run: Run) -> TrainResult | None:
    """The result that is there, if the same settings led to it and it needs no more work."""
    from dlnphase.results import there
    from dlnphase.results.train import RUN_FILE, load_train
    from dlnphase.training.keeping import ALONE

    result = there(directory, RUN_FILE, load_train, run.settings, ALONE)
    return None if result is None or result.outcome.reason == "interrupted" else result


def _follow(run: Run, line: LiveLine, stop: Interrupts, keeper: Keeper, kept: SavedRun | None) -> TrainResult:
    """The result of a run, which is kept in its directory until the result is there, or of one that was kept."""
    from dlnphase.training.run import train
    from dlnphase.training.status import Status

    status = Status(run)
    with line:
        for note in run.notes:
            line.say(note)

        def on_record(record: Record) -> None:
            status.feed(record)
            stop.back(over=status.over)
            line.update(status.words)
            if status.over:
                line.now("the path has ended: looking for the saddles it visited")

        if kept is not None:
            line.say(_found(kept))
        return train(run, on_record=on_record, should_stop=stop.requested, keeper=keeper, kept=kept)


def _found(kept: SavedRun) -> str:
    """What is there, and what is not, in a line."""
    if kept.over:
        return "the run is there, its analysis is not: analysing it"
    lost = f"at most {kept.lost:.1f} s of work and the step under way" if kept.lost > 0 else "nothing"
    return f"going on after {kept.seconds:.1f} s of the run; {lost} lost"


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

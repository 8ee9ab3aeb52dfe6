"""``dlnphase detect-saddles``: parse, call :func:`dlnphase.detect.run.detect_saddles`, show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dlnphase.cli.interrupts import INTERRUPTED, Interrupts
from dlnphase.cli.options import Call, settings_command
from dlnphase.cli.progress import LiveLine
from dlnphase.cli.proof_progress import TimeLeft
from dlnphase.errors import InputError
from dlnphase.settings import DetectSettings

if TYPE_CHECKING:
    from dlnphase.proofs.path import Progress
    from dlnphase.results import OutputDirectory
    from dlnphase.results.detect import DetectResult, VisitInfo
    from dlnphase.results.proof import ProofDocument


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    settings_command(
        app, "detect-saddles", DetectSettings, detect_saddles_cli, example="dlnphase detect-saddles runs/first --greedy"
    )


def detect_saddles_cli(call: Call[DetectSettings]) -> int:
    """Find the saddles that a path visited, and certify them.

    SOURCE is a run of dlnphase train, or an .npz of any other code together with the task options. Each visit is
    refined to a critical point and its kind is certified: curvature, gradient of the cost, an explicit descent. Writes
    saddles.yaml and saddles.npz, with --record also observed.npz. With --prove the visits are proved in ball
    arithmetic; --check verifies such a proof.
    """
    if call.settings.check is not None:
        return _check(call, call.settings.check)
    with LiveLine(call.quiet) as line:
        line.now("loading PyTorch")
        from dlnphase.results import OutputDirectory, mode_of
        from dlnphase.results.detect import SADDLES_FILE

    mode = mode_of(call.overwrite, call.resume)
    directory = call.directory(call.settings)
    with Interrupts() as stop:
        with OutputDirectory(directory, main=SADDLES_FILE, mode=mode) as out:
            result = _finished(directory, call.settings) if call.resume else None
            if result is not None:
                LiveLine(call.quiet).say(f"nothing left to do: {directory} holds the whole result")
                out.forget_previous(*result.files.values())
            else:
                result = _work(call, stop, _interrupted_proof(directory) if call.resume else None)
                _save(result, out)
        _show(result, directory, call)
        return stop.code(0, directory) if result.complete else INTERRUPTED


def _check(call: Call[DetectSettings], source: str) -> int:
    """Exit code 0 when every claim of a proof file follows, 1 when one does not."""
    from dlnphase.cli.saddle_tables import print_checked
    from dlnphase.detect.proofs import check_proof
    from dlnphase.results.proof import load_proof

    for name in ("overwrite", "resume", "out"):
        if getattr(call, name):
            raise InputError(f"--{name}: found beside --check, which writes nothing; drop it")
    with LiveLine(call.quiet) as line:
        progress = TimeLeft()
        checked = check_proof(
            load_proof(source), source, lambda done, total: line.update(lambda: progress.checked(done, total))
        )
    print_checked(checked, source, json=call.json, quiet=call.quiet)
    return 0 if checked.verified else 1


def _save(result: DetectResult, out: OutputDirectory) -> None:
    """Write the result; one that was interrupted does not cost the whole one that it overwrites."""
    from dlnphase.results.detect import save_detect

    parts = tuple(result.files.values())
    if not result.complete:
        out.set_aside(*parts)
    save_detect(result, out.path)
    if result.complete:
        out.forget_previous(*parts)


def _finished(directory: Path, settings: DetectSettings) -> DetectResult | None:
    """The result that is there, if the same settings led to it and it is whole."""
    from dlnphase.backend import resolve_backend
    from dlnphase.results import refuse_different
    from dlnphase.results.detect import SADDLES_FILE, load_detect
    from dlnphase.setup.build import build_task

    if not (directory / SADDLES_FILE).exists():
        return None
    result = load_detect(directory)
    if settings.has_task and not settings.is_run:  # what the result says was filled in from the task itself
        settings = build_task(settings, resolve_backend("cpu"))[1]
    refuse_different(result.config.identity(), settings.identity(), str(directory))
    return result if result.complete else None


def _interrupted_proof(directory: Path) -> ProofDocument | None:
    """The proof that an interrupted command has left there."""
    from dlnphase.results.proof import PROOF_FILE, load_proof

    return load_proof(directory) if (directory / PROOF_FILE).exists() else None


def _work(call: Call[DetectSettings], stop: Interrupts, before: ProofDocument | None) -> DetectResult:
    with LiveLine(call.quiet) as line:
        line.now("reading the path, looking for its visits")
        from dlnphase.detect.run import detect_saddles

        def on_visit(visit: VisitInfo) -> None:
            stop.back()
            line.update(lambda: [f"visit at t = {visit.time.closest:.4g}: rank {visit.rank}, {visit.kind}"])

        progress = TimeLeft()

        def on_step(step: Progress) -> None:
            stop.back()
            line.update(lambda: progress.proved(step))

        result = detect_saddles(
            call.settings, on_visit=on_visit, should_stop=stop.requested, on_step=on_step, earlier=before
        )
        for note in result.notes:
            line.say(note)
    return result


def _show(result: DetectResult, directory: Path, call: Call[DetectSettings]) -> None:
    from dlnphase.cli import tables
    from dlnphase.cli.console import print_error, stdout_console

    if not result.complete:
        print_error(f"interrupted: what is done is saved in {directory}; --resume runs it again to the end")
    if call.json:
        tables.print_json(result)
    elif not call.quiet:
        from dlnphase.cli.saddle_tables import print_detect

        print_detect(stdout_console(), result, directory)

"""A run on disk while it is under way, and before it is analysed: what took long is never lost to what comes after it.

Two files lie in its directory until its result does. ``state.records`` grows by what was recorded since the last time
and is never written anew; ``state.npz``, replaced as a whole, says how much of it counts, and holds the rest: where the
walk stands and what the recorder has under way. A process that dies between the two leaves some bytes that do not
count. When to write is a matter of time; what is written, and so every number of a run that goes on, is not.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import torch

from dlnphase.dynamics import Walk
from dlnphase.dynamics.state import State, pack, unpack
from dlnphase.errors import InputError, RunError
from dlnphase.results import Clock, npz_bytes, read_npz, refuse_different, write_atomic
from dlnphase.results.naming import content_digest
from dlnphase.results.train import RUN_FILE, STATE_FILE, load_train
from dlnphase.training.ends import Ends
from dlnphase.training.observing import Observer
from dlnphase.training.recording import PathRecorder

if TYPE_CHECKING:
    from dlnphase.training.run import Run

RECORDS_FILE = "state.records"
ALONE = "--resume alone, without other settings, goes on with those that are there"
EVERY = 2.0  # seconds before the first state is written, and between two at least
SHARE = 100.0  # times what writing took, until it is written again
BEAT = 0.25  # seconds between two signs of life, from which a run that goes on tells what was lost
VERSIONS = ("dlnphase", "git", "torch", "numpy", "scipy", "device", "threads")  # what the bits of a run depend on


@dataclass(slots=True)
class UnderWay(State):
    """All that moves in a run."""

    walk: Walk
    recorder: PathRecorder
    ends: Ends
    observer: Observer


@dataclass(frozen=True)
class SavedRun:
    """What a process has left of a run.

    Attributes:
        settings, content: what it is the run of, and a hash of the files that its settings name.
        versions: what it ran with.
        over: whether the run itself had ended, so that only its analysis is missing.
        seconds: that were spent on it.
        lost: seconds of work after the state was written that may have been done before the round in which the process
            died; 0 where it was asked to stop.
        pieces: sizes of the pieces of ``state.records`` that count.
        state: of what was under way.
    """

    settings: dict[str, Any]
    content: str
    versions: dict[str, Any]
    over: bool
    seconds: float
    lost: float
    pieces: list[int]
    state: dict[str, Any]


class Keeper:
    """Keeps one run in its directory.

    Args:
        run: set up, not begun.
        directory: where its result will be; locked by this process.
        say: takes a line for people.
        clock: seconds, from any start.
    """

    def __init__(
        self, run: Run, directory: Path, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.directory, self._run, self._say, self._clock = directory, run, say, clock
        self._versions: dict[str, Any] = {}
        self._pieces: list[int] = []
        self._before = 0.0
        self._start = self._beat = clock()
        self._next = self._start + EVERY
        self._there = self._refused = False

    # ---- what is there ---------------------------------------------------------------------
    def kept(self) -> SavedRun | None:
        """What a process has left in the directory; None where nothing is there, InputError where it is damaged."""
        return _read(self.directory, self._run.backend.device)

    def refuse_other(self, kept: SavedRun) -> None:
        """InputError where what is kept belongs to other settings, or to files that have changed."""
        refuse_different(kept.settings, json.loads(_settings(self._run)), str(self.directory), ALONE)
        if kept.content != content_digest(self._run.settings):
            raise InputError(
                f"--resume: {self.directory} was begun with another content of a file that its settings name; "
                "--overwrite starts anew"
            )

    def resume(self, kept: SavedRun, going: UnderWay) -> None:
        """Put all that moves where it was.

        Raises:
            InputError: where the run is not over and other versions would go on with other numbers; for damaged files.
        """
        self._versions = self._made_by()
        odd = [name for name in VERSIONS if kept.versions.get(name) != self._versions[name]]
        of_modes = self._run.start.info.krylov_modes is not None  # other versions held the same run by other matrices
        if odd and (of_modes or not kept.over):
            there, here = (
                ", ".join(f"{name} = {v.get(name)}" for name in odd) for v in (kept.versions, self._versions)
            )
            raise InputError(
                f"--resume: {self.directory} was begun where {there}, and here {here}: the numbers would not be the "
                "same; go on with what it was begun with, or --overwrite starts anew"
            )
        try:
            self._hear(kept, going.recorder)
            going.resume(kept.state)
        except (KeyError, TypeError, ValueError, IndexError, OSError, EOFError, BadZipFile) as error:
            raise InputError(
                f"{self.directory / STATE_FILE}: damaged ({type(error).__name__}); --overwrite starts anew"
            ) from None
        self._pieces, self._before, self._there = list(kept.pieces), kept.seconds, True

    def _hear(self, kept: SavedRun, recorder: PathRecorder) -> None:
        with open(self.directory / RECORDS_FILE, "rb") as stream:
            for size in kept.pieces:
                with np.load(io.BytesIO(stream.read(size)), allow_pickle=False) as arrays:
                    recorder.hear({name: arrays[name] for name in arrays.files})

    # ---- what is written -------------------------------------------------------------------
    @property
    def seconds(self) -> float:
        """What the run has taken so far, in all processes."""
        return self._before + self._clock() - self._start

    def between(self, going: UnderWay) -> None:
        """To be called between two rounds: writes the state where it is time to."""
        now = self._clock()
        if now >= self._next:
            self.write(going)
            done = self._clock()
            self._next, self._beat = done + max(EVERY, SHARE * (done - now)), done
        elif self._there and now >= self._beat + BEAT:
            self._beat = now
            with contextlib.suppress(OSError):
                os.utime(self.directory / STATE_FILE)

    def write(self, going: UnderWay, *, over: bool = False, stopped: bool = False) -> None:
        """Write what was recorded and where it stands; where the disk refuses, say so once.

        Args:
            over: the run has come to its end; stopped: nothing follows in this process.
        """
        self._versions = self._versions or self._made_by()
        tree = {
            "settings": _settings(self._run),
            "content": content_digest(self._run.settings),
            "versions": self._versions,
            "over": over,
            "stopped": stopped,
            "seconds": self.seconds,
            "state": going.state(),
        }
        try:
            self._append(npz_bytes(going.recorder.news()))
            state = npz_bytes(pack(tree | {"pieces": self._pieces, "saved": time.time()}))
            write_atomic(self.directory / STATE_FILE, state)
            self._there = True
        except (RunError, OSError) as error:
            if not self._refused:
                self._say(f"the run is not on disk while it is under way: {error}")
            self._refused = True

    def _append(self, piece: bytes) -> None:
        """Add a piece to the records, behind those that count."""
        path = self.directory / RECORDS_FILE
        if not self._pieces:
            forget(self.directory)  # of a run that is begun anew
        with open(path, "r+b" if self._pieces else "wb") as stream:
            stream.truncate(sum(self._pieces))
            stream.seek(0, os.SEEK_END)
            stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
        self._pieces.append(len(piece))

    def _made_by(self) -> dict[str, Any]:
        made = Clock(self._run.backend).provenance()
        return {name: getattr(made, name) for name in VERSIONS}


def settings_in(directory: Path) -> dict[str, Any] | None:
    """The settings that decide the numbers of the run in a directory, killed or with its result; None without one."""
    kept = _read(directory, torch.device("cpu"))
    if kept is not None:
        return kept.settings
    return load_train(directory).config.identity() if (directory / RUN_FILE).exists() else None


def _read(directory: Path, device: torch.device) -> SavedRun | None:
    path = directory / STATE_FILE
    if not path.exists():
        return None
    try:
        tree = unpack(read_npz(path), device)
        alive = max(path.stat().st_mtime - tree.pop("saved"), 0.0)
        lost = 0.0 if tree.pop("stopped") else alive + BEAT
        return SavedRun(**tree | {"lost": lost, "settings": json.loads(tree["settings"])})
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(
            f"{path}: found no state of a run, expected one that dlnphase kept; --overwrite starts anew"
        ) from None


def forget(directory: Path) -> None:
    """Remove what was kept of a run: its result is on disk, or it is begun anew."""
    for name in (STATE_FILE, RECORDS_FILE):
        (directory / name).unlink(missing_ok=True)


def _settings(run: Run) -> str:
    return json.dumps(run.settings.identity())

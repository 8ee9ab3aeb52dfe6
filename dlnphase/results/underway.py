"""What a directory tells of a run that has no result yet, without loading what would go on with it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dlnphase.errors import InputError
from dlnphase.results.files import read_npz
from dlnphase.results.locks import owner_of
from dlnphase.results.outdir import LOCK
from dlnphase.results.train import STATE_FILE


@dataclass(frozen=True)
class Unfinished:
    """A run that was killed or is under way.

    Attributes:
        directory: its own.
        settings: that decide its numbers, plain; empty where its state cannot be read.
        seconds: of work that are saved; None where its state cannot be read.
        when: the last sign of life, to the minute.
        process: that has the directory locked; None: there is none, it was killed.
    """

    directory: Path
    settings: dict[str, Any]
    seconds: float | None
    when: str
    process: str | None


def unfinished(directory: Path) -> Unfinished:
    """Look at the state that was kept in a directory."""
    path = directory / STATE_FILE
    try:
        # The tree of dynamics/state.py: a dictionary is a list of pairs, words and numbers stand for themselves.
        pairs = json.loads(read_npz(path)["tree"].tobytes())["dict"]
        top = {key: value for key, value in pairs if not isinstance(value, dict)}
        settings, seconds = json.loads(top["settings"]), float(top["seconds"])
    except (InputError, KeyError, TypeError, ValueError):
        settings, seconds = {}, None
    when = datetime.fromtimestamp(os.stat(path).st_mtime).strftime("%Y-%m-%d %H:%M")
    return Unfinished(directory, settings, seconds, when, owner_of(directory / LOCK))

"""Open any result by its directory or main file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlnphase.errors import InputError
from dlnphase.results.detect import SADDLES_FILE, load_detect
from dlnphase.results.journal import settle
from dlnphase.results.plot import FIGURES_FILE, load_plot
from dlnphase.results.recording import load_recording
from dlnphase.results.sweep import SWEEP_FILE, load_sweep
from dlnphase.results.train import RUN_FILE, load_train

READERS: dict[str, Callable[[Path], Any]] = {
    RUN_FILE: load_train,
    SWEEP_FILE: load_sweep,
    SADDLES_FILE: load_detect,
    FIGURES_FILE: load_plot,
}


def load(source: Path | str) -> Any:
    """The result in a directory, or of a main file: TrainResult, SweepResult, DetectResult or PlotResult.

    An .npz is a recorded path, as ``dlnphase.Recorder`` writes it or any other code: a Recording.

    Raises:
        InputError: where there is none, or several, or a file is damaged.
    """
    path = Path(source)
    if path.is_dir():
        settle(path)
        found = [name for name in READERS if (path / name).exists()]
        if len(found) != 1:
            names = ", ".join(found) or "none"
            raise InputError(f"{path}: found {names} of {', '.join(READERS)}, expected the directory of one result")
        return READERS[found[0]](path)
    if path.suffix.lower() == ".npz":
        return load_recording(path)
    if path.name not in READERS:
        raise InputError(
            f"{path}: expected the directory of a result, one of {', '.join(READERS)}, or the .npz of a Recorder"
        )
    return READERS[path.name](path)

"""A recorded path on disk before it is analysed: what took long is never lost to what comes after it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlnphase.critical.visits import WeightKeeper
from dlnphase.dynamics.records import REASONS
from dlnphase.errors import InputError
from dlnphase.results import npz_bytes, read_npz, refuse_different, write_atomic
from dlnphase.training.recording import MemberPath, Recorder

if TYPE_CHECKING:
    from dlnphase.settings import TrainSettings

PATH_FILE = "path.npz"


def keep(recorder: Recorder, settings: TrainSettings, directory: Path) -> None:
    """Write what was recorded to ``path.npz``; RunError when the disk refuses.

    Greedy paths are not kept: they are quickly walked again, and their critical points are no records. A path without a
    single finite record is none.
    """
    if settings.dynamics == "greedy" or not any(path.rows for path in recorder.paths):
        return
    arrays = {"settings": np.frombuffer(json.dumps(settings.identity()).encode(), dtype=np.uint8)}
    for i, path in enumerate(recorder.paths):
        kept, at = path.keeper.finish(), sorted(path.matrices)
        arrays[f"{i}.rows"] = np.array(path.rows, dtype=float).reshape(-1, 5)
        arrays[f"{i}.reason"] = np.array(REASONS.index(path.reason or "interrupted"))
        arrays[f"{i}.at"] = np.array(at, dtype=np.int64)
        if at:
            arrays[f"{i}.matrices"] = np.stack([path.matrices[k] for k in at])
        arrays[f"{i}.visits"] = np.array([index for index, _ in kept], dtype=np.int64)
        layers = {f"visit{k}": weights for k, (_, weights) in enumerate(kept)} | {"start": path.start, "end": path.end}
        for name, weights in layers.items():
            arrays |= {f"{i}.{name}.{layer}": w for layer, w in enumerate(weights or ())}
    write_atomic(directory / PATH_FILE, npz_bytes(arrays))


def kept(settings: TrainSettings, directory: Path) -> Recorder | None:
    """The whole path that ``path.npz`` holds; None if there is none, or if it was interrupted on its way.

    Raises:
        InputError: where other settings led to it.
    """
    if not (directory / PATH_FILE).exists():
        return None
    arrays = read_npz(directory / PATH_FILE)
    refuse_different(_settings_of(arrays, directory), json.loads(json.dumps(settings.identity())), str(directory))
    count = sum(name.endswith(".rows") for name in arrays)
    recorder = Recorder(count)
    recorder.paths = [_member(arrays, i) for i in range(count)]
    return None if any(path.reason == "interrupted" for path in recorder.paths) else recorder


def _settings_of(arrays: dict[str, np.ndarray], directory: Path) -> dict[str, Any]:
    """The settings that a kept path was begun with; InputError when the file is none."""
    try:
        return dict(json.loads(arrays["settings"].tobytes()))
    except (KeyError, ValueError, TypeError):
        raise InputError(f"{directory / PATH_FILE}: found no settings, expected a path that dlnphase kept") from None


def forget(directory: Path) -> None:
    """Remove the kept path: its result is on disk."""
    (directory / PATH_FILE).unlink(missing_ok=True)


def _member(arrays: dict[str, np.ndarray], i: int) -> MemberPath:
    rows = [(float(t), int(step), int(count), float(e), float(g)) for t, step, count, e, g in arrays[f"{i}.rows"]]
    at = arrays[f"{i}.at"].tolist()
    visits = [(int(index), _layers(arrays, f"{i}.visit{k}") or []) for k, index in enumerate(arrays[f"{i}.visits"])]
    return MemberPath(
        rows=rows,
        matrices=dict(zip(at, arrays[f"{i}.matrices"], strict=True)) if at else {},
        keeper=WeightKeeper.holding(visits),
        start=_layers(arrays, f"{i}.start"),
        end=_layers(arrays, f"{i}.end"),
        reason=REASONS[int(arrays[f"{i}.reason"])],
    )


def _layers(arrays: dict[str, np.ndarray], name: str) -> list[np.ndarray] | None:
    layers: list[np.ndarray] = []
    while f"{name}.{len(layers)}" in arrays:
        layers.append(arrays[f"{name}.{len(layers)}"])
    return layers or None

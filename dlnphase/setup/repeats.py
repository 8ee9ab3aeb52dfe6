"""Options that repeat what a file already says: accepted where they agree, refused in a line that names both values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dlnphase.errors import InputError
from dlnphase.settings import TaskSettings


def check_target(settings: TaskSettings, matrix: np.ndarray) -> None:
    """What is asked for beside a matrix of one's own, with gaps as NaN.

    Raises:
        InputError: naming the option, what was found, and what the file holds.
    """
    said: dict[str, Any] = {"shape": matrix.shape, "rank": None, "singular_values": None}
    room = 0.0
    if (settings.rank or settings.singular_values) and not np.isnan(matrix).any():
        values = np.linalg.svd(matrix.astype(float), compute_uv=False)
        # NumPy's bound on the round-off of singular values, in the precision of the file
        room = float(values[0]) * max(matrix.shape) * float(np.finfo(matrix.dtype).eps)
        said["singular_values"] = tuple(float(v) for v in values if v > room)
        said["rank"] = len(said["singular_values"])
    _compare(settings, said, str(settings.target), room)


def check_data(settings: TaskSettings, arrays: Mapping[str, np.ndarray]) -> None:
    """What is asked for beside samples X (N, d_in) and Y (N, d_out); InputError as above."""
    said = {"shape": (arrays["Y"].shape[1], arrays["X"].shape[1]), "measurements": len(arrays["X"])}
    _compare(settings, said, str(settings.data), 0.0)


def _compare(settings: TaskSettings, said: Mapping[str, Any], path: str, room: float) -> None:
    for name, value in said.items():
        asked, option = getattr(settings, name), name.replace("_", "-")
        if asked is None:
            continue
        if value is None:
            raise InputError(f"{option}: found {_words(asked)}, but {path} has gaps, which leave it open; drop it")
        if name == "singular_values":
            ordered = sorted(asked, reverse=True)
            same = len(ordered) == len(value) and bool(np.all(np.abs(np.subtract(ordered, value)) <= room))
        else:
            same = asked == value
        if not same:
            raise InputError(f"{option}: found {_words(asked)}, but {path} has {_words(value)}; drop it")


def _words(value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value)
    return ",".join(f"{v:g}" for v in value) if any(isinstance(v, float) for v in value) else "x".join(map(str, value))

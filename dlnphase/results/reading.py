"""What the readers of all results have in common: a directory or its main file, and the arrays beside it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from dlnphase.errors import InputError
from dlnphase.results.files import read_npz
from dlnphase.results.schema import load_result, load_unchanged


class _WithArrays(Protocol):
    """A result class that says which files lie beside its main one."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def files(self) -> dict[str, str]:
        """What lies beside the main file, by name."""
        ...


R = TypeVar("R", bound=_WithArrays)
T = TypeVar("T")


def main_file(source: Path | str, name: str) -> Path:
    """The main file of a result: of this name in a directory, or the file itself."""
    path = Path(source)
    return path / name if path.is_dir() else path


def at_hand(part: T | None, file: str, main: str) -> T:
    """What lies beside the main file of a result; InputError where it does not."""
    if part is None:
        raise InputError(f"{file} is not there, expected it beside {main}")
    return part


def load_with_arrays(
    path: Path,
    cls: type[R],
    part: str,
    default: str,
    check: Callable[[dict[str, np.ndarray], str], Any],
    more: Callable[[R, Path], R] = lambda result, directory: result,
) -> R:
    """Read a result and, where its file is there, the arrays beside it.

    Args:
        path: the main file.
        cls: the result class; its ``files`` names the arrays' file.
        part: the key in ``files``, and the field that takes the arrays.
        default: name of that file where ``files`` has no such key.
        check: arrays and their file's name → the value of the field; InputError when they do not fit.
        more: the result and its directory → the same with what else lies there.

    Raises:
        InputError: when it is not a result of this kind, or a file is damaged.
    """

    def read() -> R:
        result = load_result(path, cls)
        for key, name in {part: default, **result.files}.items():
            if Path(name).name != name:
                raise InputError(f"{path}: files.{key}: found {name!r}, expected a file beside it")
        result = more(result, path.parent)
        arrays = path.parent / result.files.get(part, default)
        if not os.path.exists(arrays):
            return result
        return dataclasses.replace(result, **{part: check(read_npz(arrays), str(arrays))})

    return load_unchanged(path, read)

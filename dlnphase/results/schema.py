"""Result files: a schema name with a version, then the fields of one dataclass.

A result class names its schema and is saved and loaded whole:

    @dataclass(frozen=True)
    class TrainResult:
        SCHEMA: ClassVar[str] = "dlnphase/train@1"
        ...

    text = result_text(result)                 # YAML, schema first
    result = load_result(path, TrainResult)    # checked key by key

When the fields of a result change so that older files no longer fit, raise the version and register an upgrade:

    UPGRADES["dlnphase/train", 1] = lambda data: {**data, "new_key": …}     # from version 1 to 2
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dlnphase.errors import InputError
from dlnphase.results.codec import decode, encode
from dlnphase.results.yamlfile import dump_yaml, read_yaml

T = TypeVar("T")

# (schema name, version) → function from the mapping of that version to the mapping of the next.
UPGRADES: dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {}


def to_document(result: Any) -> dict[str, Any]:
    """The result as plain Python with its schema first: what the YAML file and ``--json`` hold."""
    return {"schema": type(result).SCHEMA, **encode(result)}


def result_text(result: Any) -> str:
    """The YAML text of a result."""
    return dump_yaml(to_document(result))


def load_result(path: Path, cls: type[T]) -> T:
    """Read a result file.

    Raises:
        InputError: when it is not a result of this kind, is newer than this version can read, or a key is wrong.
    """
    return decode(cls, load_document(path, str(cls.SCHEMA)), str(path))  # type: ignore[attr-defined]


def load_unchanged(path: Path, read: Callable[[], T]) -> T:
    """What ``read`` returns, read again when the file at ``path`` was replaced meanwhile: no parts of two results."""
    while True:
        before = _version(path)
        try:
            value = read()
        except InputError:
            if _version(path) == before:
                raise
            continue
        if _version(path) == before:
            return value


def _version(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_mtime_ns


def load_document(path: Path, schema: str) -> dict[str, Any]:
    """The mapping of a result file, brought up to the given schema, without its ``schema`` key."""
    data = read_yaml(path)
    wanted, version = split_schema(schema, str(path))
    found, have = split_schema(data.get("schema") if isinstance(data, dict) else None, str(path))
    if found != wanted:
        raise InputError(f"{path}: found a result of {found}, expected {wanted}")
    if have > version:
        raise InputError(f"{path}: written by a newer dlnphase (found {found}@{have}, expected up to @{version})")
    data = {k: v for k, v in data.items() if k != "schema"}
    for step in range(have, version):
        data = UPGRADES[wanted, step](data)
    return data


def split_schema(schema: Any, where: str) -> tuple[str, int]:
    """``dlnphase/train@1`` → (``dlnphase/train``, 1); InputError for anything else."""
    match = re.fullmatch(r"(dlnphase/[a-z-]+)@([1-9][0-9]{0,5})", schema) if isinstance(schema, str) else None
    if match is None:
        raise InputError(f"{where}: found no schema line, expected a result file of dlnphase")
    return match[1], int(match[2])

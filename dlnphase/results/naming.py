"""Where a result goes unless ``--out`` says otherwise: a readable name, then a short hash of all that decides it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from dlnphase.settings.table import Settings, default_of, options

DIGITS = 8  # hexadecimal; among a thousand runs of one readable name, two share a hash with probability 1e-4


def default_name(settings: Settings) -> str:
    """``train-completion-10x10-L4-w100-g2-1f0c22ab``: two runs share a name only when nothing sets them apart.

    The hash covers every setting of the result's ``config:`` that is not at its default (so that a setting which a
    later version adds leaves the names of older runs alone), and the contents of the files that settings name.
    Figures take the place of those drawn from an earlier content of their sources.
    """
    cls, rows = type(settings), options(type(settings))
    digest = hashlib.blake2b(digest_size=DIGITS // 2)
    for name, value in settings.to_plain().items():
        if getattr(settings, name) == default_of(cls, name):
            continue
        digest.update(json.dumps([name, value]).encode())
        if rows[name].parser.is_path and value is not None and cls.NAMED_BY_CONTENT:
            for path in value if isinstance(value, list) else [value]:
                _add_content(digest, Path(path))
    return f"{settings.slug()}-{digest.hexdigest()}"


def content_digest(settings: Settings) -> str:
    """A hash of the contents of the files that settings name: the same settings may come to mean another task."""
    rows, digest = options(type(settings)), hashlib.blake2b(digest_size=16)
    for name, value in settings.to_plain().items():
        if rows[name].parser.is_path and value is not None:
            for path in value if isinstance(value, list) else [value]:
                _add_content(digest, Path(path))
    return digest.hexdigest()


def _add_content(digest: Any, path: Path) -> None:
    """The bytes of a file, or of the files of a directory by name; what cannot be read is refused by its reader."""
    files = [path]
    with contextlib.suppress(OSError):
        files = sorted(p for p in path.iterdir() if not p.name.startswith(".")) if path.is_dir() else files
    for file in files:
        with contextlib.suppress(OSError):
            if file.is_file():
                digest.update(file.name.encode())
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, hashlib.blake2b).digest())

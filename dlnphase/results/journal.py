"""Files that are never seen half-written, whatever kills the process that writes them.

One file is written under a temporary name in its own directory, flushed to the disk and renamed. A set of files that
belong together is committed in two moves: all of them under temporary names, then a journal that says which becomes
which. From the journal on the set counts as saved: a process that dies before leaves the old result whole, and what
one that dies after has left undone is finished by :func:`settle`, which everything that reads or writes a result
calls first. The old main file goes before the other files change and the new one comes last, so that no reader ever
meets a main file beside parts of another result.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO

from dlnphase.errors import RunError
from dlnphase.results.locks import locked

JOURNAL = ".dlnphase.journal"
STAGED = ".dlnphase-"  # temporary names begin with this …
PART = ".part"  # … and end with this


def write_atomic(path: Path, data: str | bytes | Callable[[IO[bytes]], None]) -> None:
    """Write one file so that readers see the old one or the new one, never a part.

    Args:
        path: the file.
        data: what it holds, or what writes that into the open file.

    Raises:
        RunError: when the disk is full, or the directory cannot be written; what was there stays.
    """
    commit(path.parent, {path.name: data}, main=path.name)


def commit(directory: Path, files: Mapping[str, str | bytes | Callable[[IO[bytes]], None]], *, main: str) -> None:
    """Write a set of files as one: at any moment the old set is there, or the new one, or a journal of the new one.

    Args:
        files: name → content, or what writes it into the open file.
        main: the file by which readers tell that a result is there.

    Raises:
        RunError: when one of them cannot be written; then none of the old ones is touched.
    """
    staged: dict[str, str] = {}
    target = directory / main
    try:
        try:
            settle(directory)
            for name, data in files.items():
                staged[name] = _stage(directory, name, data.encode() if isinstance(data, str) else data)
            if len(staged) == 1:
                os.replace(directory / staged[main], target)
                _sync_directory(directory)
                return
            journal = _stage(directory, "journal", json.dumps({"main": main, "files": staged}).encode())
        except OSError as error:
            why = error.strerror or error
            raise RunError(f"{target}: cannot be written ({why}); what was there is kept") from error
        with locked(directory / journal):
            try:
                os.replace(directory / journal, directory / JOURNAL)
            except OSError as error:
                _remove(directory, [journal])
                why = error.strerror or error
                raise RunError(f"{target}: cannot be written ({why}); what was there is kept") from error
            staged, saved = {}, staged  # from here on they are no leftovers
            _finish(directory, main, saved)
    except BaseException:
        _remove(directory, staged.values())
        raise


def settle(directory: Path) -> None:
    """Finish a commit whose process died after its journal was written; nothing happens where there is none.

    A commit under way in another process is waited for (it only renames files by then).

    Raises:
        RunError: when the directory cannot be written by this user, or the disk refuses.
    """
    path = directory / JOURNAL
    try:
        with locked(path):
            document = json.loads(path.read_text())
            main, files = document["main"], document["files"]
            if not all(_plain(name) and _plain(part) for name, part in files.items()) or main not in files:
                raise ValueError("names that no commit writes")
            _finish(directory, main, files)
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = getattr(error, "strerror", None) or error
        raise RunError(
            f"{directory}: the process that saved there died, and its files cannot be put in place ({why})"
        ) from error


def remove_leftovers(directory: Path) -> None:
    """Remove temporary files of processes that died while they wrote; call it with the directory's lock held."""
    with contextlib.suppress(OSError):
        _remove(directory, [p for p in os.listdir(directory) if p.startswith(STAGED) and p.endswith(PART)])


def remove_leftovers_of(path: Path) -> None:
    """Remove what processes that died left of one file under temporary names; call it with the file's lock held."""
    begin = f"{STAGED}{path.name}."
    with contextlib.suppress(OSError):
        names = [p for p in os.listdir(path.parent) if p.startswith(begin) and p.endswith(PART)]
        # mkstemp adds a few letters to the name: a longer rest is another file's, whose name begins the same.
        _remove(path.parent, [p for p in names if "." not in p[len(begin) : -len(PART)]])


def _finish(directory: Path, main: str, staged: Mapping[str, str]) -> None:
    """Put staged files in place: every move may be repeated, so a death at any point is made good by another call."""
    target = directory / main
    try:
        _sync_directory(directory)
        if (directory / staged[main]).exists():  # else all has been moved, and only the journal is left over
            with contextlib.suppress(FileNotFoundError):
                os.unlink(target)
            for name in sorted(staged, key=lambda n: n == main):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(directory / staged[name], directory / name)
            _sync_directory(directory)
        os.unlink(directory / JOURNAL)
    except OSError as error:
        why = error.strerror or error
        raise RunError(
            f"{target}: saved, but not put in place ({why}); the next dlnphase command there will do it"
        ) from error


def _plain(name: object) -> bool:
    """Whether a name of a journal is one of a file in its own directory."""
    return isinstance(name, str) and re.fullmatch(r"[^/\0]+", name) is not None and name not in (".", "..")


def _stage(directory: Path, name: str, data: bytes | Callable[[IO[bytes]], None]) -> str:
    """Write under a temporary name, to the disk; returns the name."""
    descriptor, temporary = tempfile.mkstemp(prefix=f"{STAGED}{name}.", suffix=PART, dir=directory)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            if isinstance(data, bytes):
                stream.write(data)
            else:
                data(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return os.path.basename(temporary)


def _remove(directory: Path, names: Iterable[str]) -> None:
    for name in names:
        with contextlib.suppress(OSError):
            os.unlink(directory / name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_directory(directory: Path) -> None:
    """Make the renames last through a power cut, where the system allows it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

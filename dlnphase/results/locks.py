"""The one lock of this package: on a file, and gone with the process that held it.

filelock stands in where the system has no POSIX locks. It is not used elsewhere, since it promises less: it empties
the file it locks, so that a second process could not be told the number of the first.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # pragma: no cover - filelock stands in
    fcntl = None  # type: ignore[assignment]


class Taken(Exception):
    """Another process holds the lock; ``owner`` says which, as a word."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner


@contextlib.contextmanager
def locked(path: Path, *, own: bool = False) -> Iterator[None]:
    """Hold the lock of a file.

    Args:
        own: whether the file is there for the lock alone. Then it is made, tells who holds it, is not waited for and
            goes with the lock; else it has to be there and is waited for.

    Raises:
        Taken: somebody else holds it, and it is not waited for.
        FileNotFoundError: the file is not there, or has gone while it was waited for.
        OSError: it cannot be opened.
    """
    portable: Any = None
    while True:
        descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if own else 0), 0o666)
        try:
            if fcntl is None:
                portable = _elsewhere(path, own)
            else:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if own else 0))
                except BlockingIOError:
                    raise Taken(_written(descriptor)) from None
            # A file removed by its last owner is not the one that others would lock.
            if os.path.exists(path) and os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                break
            if not own:
                raise FileNotFoundError(path)
        except BaseException:
            _let_go(descriptor, portable)
            raise
        _let_go(descriptor, portable)
    try:
        if own:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        if own:
            with contextlib.suppress(OSError):
                os.unlink(path)
        _let_go(descriptor, portable)


def owner_of(path: Path) -> str | None:
    """The process that holds a lock of one's own, as a word; None where nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        return _written(descriptor)
    except OSError:
        return _written(descriptor)
    finally:
        os.close(descriptor)


def _let_go(descriptor: int, portable: Any) -> None:
    os.close(descriptor)
    if portable is not None:
        portable.release()


def _written(descriptor: int) -> str:
    return os.read(descriptor, 64).decode(errors="replace").strip() or "unknown"


def _elsewhere(path: Path, own: bool) -> Any:
    """The lock of a system without POSIX locks, held, on a file beside."""
    import filelock

    lock = filelock.FileLock(path.with_name(f"{path.name}.lock"), timeout=0 if own else -1)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise Taken("unknown") from None
    return lock

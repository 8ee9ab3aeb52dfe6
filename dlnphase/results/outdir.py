"""The output directory: one result each, one process at a time, nothing overwritten unasked.

    with OutputDirectory(path, main="run.yaml", mode="new") as out:
        ...
        commit(out.path, {"trajectory.npz": …, "run.yaml": …}, main="run.yaml")

``mode`` is ``new`` (refuse a directory that holds a result), ``overwrite`` or ``resume``. Entering checks everything
that can be checked before any work is done; leaving removes a directory that was made for nothing.

A result that is overwritten stays whole until the new one is: :meth:`OutputDirectory.set_aside` links its files in
``kept-by-overwrite/`` before a part of the new result takes their place, :meth:`OutputDirectory.forget_previous` drops
them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar

from dlnphase.errors import InputError, RunError
from dlnphase.results.journal import PART, remove_leftovers, settle
from dlnphase.results.locks import Taken, locked
from dlnphase.settings.table import Settings

Mode = Literal["new", "overwrite", "resume"]
LOCK = ".dlnphase.lock"
PREVIOUS = "kept-by-overwrite"


class _Configured(Protocol):
    """A result that says which settings led to it."""

    @property
    def config(self) -> Settings:
        """Those it was computed with."""
        ...


R = TypeVar("R", bound=_Configured)


def mode_of(overwrite: bool, resume: bool) -> Mode:
    """The mode that two flags ask for; InputError when both are given."""
    if overwrite and resume:
        raise InputError("--overwrite and --resume: found both, expected one (start anew, or go on)")
    return "overwrite" if overwrite else "resume" if resume else "new"


class OutputDirectory:
    """A directory that is checked, created and locked on entering.

    Args:
        path: where the result goes.
        main: the file that tells that a result is there (``run.yaml``).
        mode: ``new``, ``overwrite`` or ``resume``.

    Raises (on entering):
        InputError: a result is there and the mode is ``new``; the path is not a directory or cannot be written;
            another process is at work there.
    """

    def __init__(self, path: Path | str, *, main: str, mode: Mode = "new") -> None:
        self.path = Path(path)
        self.main = self.path / main
        self.mode = mode
        self._made: list[Path] = []
        self._lock = contextlib.ExitStack()

    def __enter__(self) -> OutputDirectory:
        self._refuse_what_is_there()
        try:
            self._create()
            self._acquire()
            settle(self.path)  # a commit whose process died counts as saved; what others left half-written goes
            remove_leftovers(self.path)
            self._refuse_what_is_there()  # another process may have finished between the look and the lock
            if self.mode == "overwrite":
                self._probe()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def set_aside(self, *others: str) -> None:
        """With ``overwrite``: keep the result that is there in ``kept-by-overwrite/``, unless it holds one already.

        Args:
            others: files that belong to the main one.

        Raises:
            RunError: when it cannot be kept; it has not been touched then.
        """
        kept = self.path / PREVIOUS
        if self.mode != "overwrite" or not os.path.exists(self.main) or os.path.exists(kept / self.main.name):
            return
        try:
            kept.mkdir(exist_ok=True)
            for name in (*others, self.main.name):  # the main file last: it says that all of them are there
                if os.path.exists(self.path / name):
                    _link(self.path / name, kept / name)
        except OSError as error:
            raise RunError(f"{kept}: the old result cannot be kept there ({error.strerror or error})") from error

    def forget_previous(self, *others: str) -> None:
        """Remove what :meth:`set_aside` kept: a whole new result is there."""
        kept = self.path / PREVIOUS
        if self.mode == "new" or not os.path.isdir(kept):
            return
        with contextlib.suppress(OSError):
            for name in (self.main.name, *others):
                (kept / name).unlink(missing_ok=True)
            kept.rmdir()  # only an empty directory goes

    def _refuse_what_is_there(self) -> None:
        if os.path.lexists(self.path) and not os.path.isdir(self.path):
            found = "is a file" if os.path.exists(self.path) else "is a link that leads nowhere"
            raise InputError(f"--out: {self.path} {found}, expected a directory")
        if self.mode == "new" and os.path.lexists(self.main):
            raise InputError(
                f"--out: {self.path} already holds a result ({self.main.name}); "
                "--overwrite starts anew, --resume goes on, another --out keeps both"
            )

    def _create(self) -> None:
        missing = []
        parent = self.path
        while not os.path.exists(parent):
            missing.append(parent)
            parent = parent.parent
        try:
            for directory in reversed(missing):
                directory.mkdir(exist_ok=True)
                self._made.append(directory)
        except OSError as error:
            raise InputError(f"--out: {self.path} cannot be created ({error.strerror or error})") from None
        self._probe()

    def _probe(self) -> None:
        """A directory that cannot be written is told now, not after the work."""
        try:
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise InputError(f"--out: {self.path} cannot be written ({error.strerror or error})") from None

    def _acquire(self) -> None:
        try:
            self._lock.enter_context(locked(self.path / LOCK, own=True))
        except Taken as taken:
            raise InputError(f"--out: {self.path} is in use by another dlnphase (process {taken.owner})") from None
        except (OSError, NotImplementedError) as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(f"--out: {self.path} cannot be locked ({why})") from None

    def _release(self) -> None:
        self._lock.close()
        for directory in reversed(self._made):
            with contextlib.suppress(OSError):
                directory.rmdir()  # only an empty directory goes


def _link(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the file system knows no links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        half = target.with_name(f"{target.name}{PART}")
        try:
            shutil.copy2(source, half)
            os.replace(half, target)
        finally:
            half.unlink(missing_ok=True)


def there(directory: Path, main: str, load: Callable[[Path], R], settings: Settings, hint: str = "") -> R | None:
    """The result that is in a directory, if the same settings led to it; None where there is none.

    Args:
        main: its main file.
        load: reads it.
        settings: those that go on with it.
        hint: what to do about others, for the message.

    Raises:
        InputError: when it cannot be read, or other settings led to it.
    """
    if not (directory / main).exists():
        return None
    result = load(directory)
    refuse_different(result.config.identity(), settings.identity(), str(directory), hint)
    return result


def refuse_different(before: Mapping[str, Any], now: Mapping[str, Any], where: str, hint: str = "") -> None:
    """Refuse to go on with other settings than the result was begun with.

    Args:
        before, now: settings as plain mappings.
        where: the result, for the message.
        hint: what to do about it, for the message.

    Raises:
        InputError: with one line per key that differs, and the hint.
    """
    lines = [
        f"  {key}: {before.get(key, '(absent)')} there, {now.get(key, '(absent)')} asked for"
        for key in sorted(set(before) | set(now))
        if before.get(key, "(absent)") != now.get(key, "(absent)")
    ]
    if lines:
        lines += [f"  {hint}"] * bool(hint)
        raise InputError(f"--resume: {where} was begun with other settings:\n" + "\n".join(lines))

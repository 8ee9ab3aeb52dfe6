"""Ctrl-C, SIGTERM and a terminal that goes away: nothing is torn in the middle, what is done is saved, exit code 130.

A command lives through three stretches. Until it holds its output directory nothing is there to lose, and a signal
ends it on the spot (:func:`leave_at_once`). While it works, a signal is only noted, and the work asks for it
(:class:`Interrupts`). Once all is written and said, signals no longer change anything (:func:`ignore`).
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from dlnphase.cli.console import print_error

INTERRUPTED = 130  # exit code of a process that ended by Ctrl-C, as shells have it: 128 + SIGINT
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
NOTHING_SAVED = "interrupted before there was anything to save"


def leave_at_once() -> None:
    """From now on a signal ends the process with exit code 130, in one line: there is nothing to save yet."""
    for number in _listened():
        signal.signal(number, _leave)


def ignore() -> None:
    """From now on signals are ignored: the exit code is known, and the process is on its way out."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _listened() -> list[signal.Signals]:
    """The signals to listen to: a process started by nohup goes on when its terminal is closed."""
    hangup = getattr(signal, "SIGHUP", None)
    return [n for n in SIGNALS if n != hangup or signal.getsignal(n) is not signal.SIG_IGN]


def _leave(number: int, frame: FrameType | None) -> None:
    ignore()  # one signal is enough
    try:
        live = os.isatty(2) and os.environ.get("TERM") != "dumb"
        wipe = "\r\x1b[2K" if live else ""
        os.write(2, f"{wipe}dlnphase: {NOTHING_SAVED}\n".encode())
    finally:
        os._exit(INTERRUPTED)


class Interrupts:
    """Signals as a question the work asks: ``requested()``. Put it around everything that touches files.

    A signal only notes the wish, so that what is done can be saved. One more raises KeyboardInterrupt, but only while
    the work is under way that a ``requested()`` before it has allowed: what has come back is never torn.

    Args:
        patience: how many signals it takes until work under way is given up.
    """

    def __init__(self, patience: int = 2) -> None:
        self.seen = 0
        self._patience = patience
        self._open = self._over = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _listened():
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, signal.SIG_IGN if handler is _leave else handler)

    def requested(self) -> bool:
        """Whether somebody asked to stop; if not, the work that follows may be given up by further signals."""
        self._open = not self.seen and not self._over
        return bool(self.seen)

    def back(self, *, over: bool = False) -> None:
        """The work has come back with something: no signal tears what follows, up to the next ``requested()``.

        Args:
            over: it was the last piece of work.
        """
        self._open = False
        self._over |= over

    def code(self, code: int, directory: Path) -> int:
        """The exit code, in the light of a signal that came when the work was done: said in one line."""
        if self.seen and code != INTERRUPTED:
            print_error(f"interrupted when the work was done: everything is saved in {directory}")
            return INTERRUPTED
        return code

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.seen += 1
        if self.seen >= self._patience and self._open:
            self._open = False
            raise KeyboardInterrupt

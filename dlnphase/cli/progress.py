"""Progress on stderr: one live line on a terminal, an occasional plain line elsewhere, nothing with ``--quiet``."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from dlnphase.cli.console import stderr_console

LIVE_EVERY, PLAIN_FIRST, PLAIN_EVERY = 0.1, 5.0, 15.0  # seconds between two updates


class LiveLine:
    """A line that tells what is going on; ``update`` may be called as often as one likes.

    Args:
        quiet: say nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._console = stderr_console()
        self._quiet = quiet
        self._terminal = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live: Any = None
        self._start = time.monotonic()
        self._next = self._start + (LIVE_EVERY if self._terminal else PLAIN_FIRST)

    def __enter__(self) -> LiveLine:
        if self._terminal and not self._quiet:
            from rich.live import Live

            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, words: Callable[[], str]) -> None:
        """Show a line, if it is time for one; ``words`` is called only then. Rich markup is understood."""
        if self._quiet:
            return
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (LIVE_EVERY if self._terminal else PLAIN_EVERY)
        from rich.text import Text

        text = Text.from_markup(words())
        if self._live is not None:
            text.no_wrap, text.overflow = True, "ellipsis"
            self._live.update(text, refresh=True)
        else:
            self._console.print(text.plain, soft_wrap=True, markup=False)

    def say(self, line: str) -> None:
        """A line that stays (a warning, a choice that was made)."""
        if not self._quiet:
            self._console.print(line, soft_wrap=True)


class Interrupts:
    """Ctrl-C and SIGTERM as a question the work asks: ``requested()``.

    The first signal only notes the wish, so that what is done can be saved; the second raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self._requested = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def requested(self) -> bool:
        """Whether somebody asked to stop."""
        return self._requested

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True

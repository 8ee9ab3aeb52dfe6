"""Progress on stderr: one live line on a terminal, an occasional plain line elsewhere, nothing with ``--quiet``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from dlnphase.cli.console import stderr_console

LIVE_EVERY, PLAIN_FIRST, PLAIN_EVERY = 0.1, 5.0, 15.0  # seconds between two updates


class LiveLine:
    """A line that tells what is going on; ``update`` may be called as often as one likes.

    A terminal that has gone away, or a log on a full disk, ends the telling and not the run.

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
            with self._unheard():
                self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            with self._unheard():
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
        with self._unheard():
            if self._live is not None:
                text.no_wrap, text.overflow = True, "ellipsis"
                self._live.update(text, refresh=True)
            else:
                self._console.print(text.plain, soft_wrap=True, markup=False)

    def say(self, line: str) -> None:
        """A line that stays (a warning, a choice that was made)."""
        if not self._quiet:
            with self._unheard():
                self._console.print(line, soft_wrap=True, markup=False)

    @contextlib.contextmanager
    def _unheard(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self._quiet = True

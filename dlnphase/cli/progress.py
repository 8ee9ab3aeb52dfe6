"""Progress on stderr: one live line on a terminal, an occasional plain line elsewhere, nothing with ``--quiet``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

from dlnphase.cli.console import stderr_console

LIVE_EVERY, PLAIN_FIRST, PLAIN_EVERY = 0.1, 5.0, 15.0  # seconds between two updates
SHARE = 0.02  # of the time that may go into words: those of a large matrix ask for its singular values
BETWEEN = " · "
ERASE = "\r\x1b[2K"  # back to the start of the line, and wipe it; the cursor stays visible


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
        self._shown = False
        self._next = time.monotonic() + (0.0 if self._terminal else PLAIN_FIRST)

    def __enter__(self) -> LiveLine:
        self._next = 0.0 if self._terminal else self._next
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._erase()

    def now(self, words: str) -> None:
        """On a terminal, say at once what begins and may take a while."""
        if self._terminal:
            self._next = 0.0
            self.update(lambda: [words])

    def update(self, words: Callable[[], Sequence[str]]) -> None:
        """Show a line, if it is time for one.

        Args:
            words: called only then; parts of the line, the most telling first. Those that do not fit are left out.
        """
        if self._quiet:
            return
        now = time.monotonic()
        if now < self._next:
            return
        parts = words()
        every = LIVE_EVERY if self._terminal else PLAIN_EVERY
        self._next = now + max(every, (time.monotonic() - now) / SHARE)
        with self._unheard():
            if self._terminal:
                self._console.file.write(ERASE + _fitting(parts, self._console.width - 1))
                self._console.file.flush()
                self._shown = True
            else:
                self._console.print(BETWEEN.join(parts), soft_wrap=True, markup=False)

    def say(self, line: str) -> None:
        """A line that stays (a warning, a choice that was made)."""
        if not self._quiet:
            self._erase()
            with self._unheard():
                self._console.print(line, soft_wrap=True, markup=False)

    def _erase(self) -> None:
        if self._shown:
            self._shown = False
            with self._unheard():
                self._console.file.write(ERASE)
                self._console.file.flush()

    @contextlib.contextmanager
    def _unheard(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self._quiet = True


def _fitting(parts: Sequence[str], width: int) -> str:
    """As many of the parts, from the first on, as fit into a width; of the first, what fits."""
    from rich.cells import cell_len, set_cell_size

    line = parts[0]
    for part in parts[1:]:
        if cell_len(line + BETWEEN + part) > width:
            break
        line += BETWEEN + part
    return line if cell_len(line) <= width else set_cell_size(line, width)

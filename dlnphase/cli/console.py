"""Where the command line writes: results to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

NARROW = 80  # columns assumed where there is no terminal and COLUMNS does not say


def stdout_console() -> Console:
    """The console of results: plain off a terminal, with NO_COLOR or TERM=dumb in mind."""
    return _console(stderr=False)


def stderr_console() -> Console:
    """The console of progress and warnings."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None
    if not stream.isatty() and not os.environ.get("COLUMNS", "").isdigit():
        width = NARROW
    return Console(stderr=stderr, highlight=False, emoji=False, width=width, soft_wrap=False)


def print_error(message: str) -> None:
    """``dlnphase: …`` on stderr, unwrapped, so that one problem is one line; what is not printable is escaped.

    Names of files and keys may hold line breaks and marks that turn the direction of writing; only the indented lines
    that a message itself breaks off stay lines of their own.
    """
    lines = re.split(r"\n(?=  )", message.strip())
    text = "\n".join("".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in lines)
    with contextlib.suppress(OSError):  # a terminal that has gone away
        sys.stderr.write(f"dlnphase: {text}\n")
        sys.stderr.flush()

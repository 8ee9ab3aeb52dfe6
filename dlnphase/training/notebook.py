"""Progress of a run in a notebook: one line under the cell, by IPython's own display, where there is a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dlnphase.training.status import Status

if TYPE_CHECKING:
    from dlnphase.dynamics.records import Record
    from dlnphase.training.run import Run

EVERY = 0.3  # seconds between two updates: a notebook's browser is slower than a terminal


def in_notebook() -> bool:
    """Whether this process serves a notebook; a plain script, or IPython in a terminal, is none."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and getattr(shell, "kernel", None) is not None


def notebook_progress(run: Run) -> Callable[[Record], None]:
    """A consumer of records that shows where the run is; call it inside a notebook alone."""
    display: Any = sys.modules["IPython"].display.display
    status, shown, following = Status(run), display(_text("starting"), raw=True, display_id=True), time.monotonic()

    def on_record(record: Record) -> None:
        nonlocal following
        status.feed(record)
        if status.over or time.monotonic() >= following:
            following = time.monotonic() + EVERY
            shown.update(_text(" · ".join(status.words())), raw=True)

    return on_record


def _text(words: str) -> dict[str, str]:
    return {"text/plain": words}

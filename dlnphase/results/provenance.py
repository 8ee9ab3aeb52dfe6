"""What made a result: versions, device, threads, when, how long, and the commit when run from a checkout."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import dlnphase

if TYPE_CHECKING:
    from dlnphase.backend import Backend


@dataclass(frozen=True)
class Provenance:
    """Written into every result.

    Attributes:
        dlnphase, torch, numpy, scipy, python: versions.
        device: ``cpu``, or the CUDA device with its name.
        dtype: of the run.
        threads: CPU threads of torch.
        started: UTC time, ISO 8601.
        seconds: wall-clock time of the run.
        git: commit of the checkout dlnphase was run from (with ``+`` when it had changes), or None.
    """

    dlnphase: str
    torch: str
    numpy: str
    scipy: str
    python: str
    device: str
    dtype: str
    threads: int
    started: str
    seconds: float = 0.0
    git: str | None = None


class Clock:
    """Notes the start of a run; :meth:`provenance` closes it.

    Args:
        backend: what the run computes on; None for work that needs no torch, and does not load it.
        before: seconds that were spent on the run by processes before this one.
    """

    def __init__(self, backend: Backend | None = None, before: float = 0.0) -> None:
        self._start = time.perf_counter() - before
        device, dtype, threads = "cpu", "float64", 1
        if backend is not None:
            device, dtype, threads = _described(backend)
        self._value = Provenance(
            dlnphase=dlnphase.__version__,
            torch=_version("torch"),
            numpy=_version("numpy"),
            scipy=_version("scipy"),
            python=platform.python_version(),
            device=device,
            dtype=dtype,
            threads=threads,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            git=checkout_commit(),
        )

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the start, and before."""
        return time.perf_counter() - self._start

    def provenance(self) -> Provenance:
        """What made the result, with the seconds so far (to the millisecond)."""
        return replace(self._value, seconds=round(self.seconds, 3))


def _described(backend: Backend) -> tuple[str, str, int]:
    """Device with the name of its card, dtype, threads of torch."""
    import torch

    device = str(backend.device)
    if backend.device.type == "cuda":
        device = f"{device} ({torch.cuda.get_device_name(backend.device)})"
    return device, backend.dtype_name, torch.get_num_threads()


def _version(package: str) -> str:
    """The version of a package: as it tells itself where it is loaded, else as it was installed."""
    loaded = getattr(sys.modules.get(package), "__version__", None)
    return str(loaded) if loaded is not None else importlib.metadata.version(package)


@functools.cache
def checkout_commit() -> str | None:
    """Short commit of the git checkout this package lies in, with ``+`` for uncommitted changes; None outside one.

    Asked once: what runs is what was loaded, whatever becomes of the checkout afterwards.
    """
    root = Path(dlnphase.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        dirty = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "dlnphase")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if dirty else "")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()

"""What made a result: versions, device, threads, when, how long, and the commit when run from a checkout."""

from __future__ import annotations

import platform
import subprocess
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy
import scipy
import torch

import dlnphase
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
    """Notes the start of a run; :meth:`provenance` closes it."""

    def __init__(self, backend: Backend) -> None:
        self._start = time.perf_counter()
        device = str(backend.device)
        if backend.device.type == "cuda":
            device = f"{device} ({torch.cuda.get_device_name(backend.device)})"
        self._value = Provenance(
            dlnphase=dlnphase.__version__,
            torch=str(torch.__version__),
            numpy=numpy.__version__,
            scipy=scipy.__version__,
            python=platform.python_version(),
            device=device,
            dtype=backend.dtype_name,
            threads=torch.get_num_threads(),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            git=checkout_commit(),
        )

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the start."""
        return time.perf_counter() - self._start

    def provenance(self) -> Provenance:
        """What made the result, with the seconds so far (to the millisecond)."""
        return replace(self._value, seconds=round(self.seconds, 3))


def checkout_commit() -> str | None:
    """Short commit of the git checkout this package lies in, with ``+`` for uncommitted changes; None outside one."""
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

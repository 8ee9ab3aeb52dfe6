"""Sweeps in processes of their own, for tests that stop, kill and compare them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dlnphase.results import to_document
from dlnphase.results.sweep import load_sweep

FLAGS = ["sweep-gamma", "--gammas", "0.7,1.0,1.5", "--widths", "100,1e4,1e6", "--dim", "2", "-L", "2", "--seeds", "3"]
SMALL = {"gammas": "0.7,1.0,1.5", "widths": "100,1e4,1e6", "shape": (2, 2), "depth": 2, "seeds": 3}  # the same
LONG = ["sweep-gamma", "--gammas", "0.8,1.0,1.2", "--widths", "40:65:5", "--dim", "2", "-L", "2", "--seeds", "2", "-q"]
LONG_CELLS = 18


def numbers(source) -> dict:
    """A result (or its directory) without when and how long."""
    document = to_document(load_sweep(source) if isinstance(source, (str, Path)) else source)
    return {k: v for k, v in document.items() if k != "provenance"}


def spawn(out: Path, *arguments: str) -> subprocess.Popen:
    """The long sweep, started."""
    command = [sys.executable, "-m", "dlnphase", *LONG, "--out", str(out), *arguments]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)


def wait_for_cells(out: Path, count: int, process: subprocess.Popen) -> None:
    """Return when the file holds so many cells; AssertionError when the sweep ends before."""
    while process.poll() is None:
        if (out / "sweep.yaml").exists() and (out / "sweep.yaml").read_text().count("- gamma: ") >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"the sweep ended before it could be stopped: {process.stderr.read()}")


def troubled(job: str) -> str:
    """A job that kills its process ("poison"), raises ("bad"), takes a while ("slow…"), or gives itself back."""
    if job.startswith("slow"):
        time.sleep(1)
    if job == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "bad":
        raise ValueError("a bad\njob")
    return job


def never() -> bool:
    """For ``should_stop``."""
    return False

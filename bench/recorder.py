"""What ``dlnphase.Recorder`` costs a training loop, at its defaults.

``python -m bench.recorder`` prints the row alone.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch

import dlnphase

STEPS, REPEATS = 10_000, 5
SIZES = (10, 100, 100, 100, 10)

Row = tuple[str, str, str]  # what, figure, how it was taken


def recorder_overhead() -> Row:
    """CPU time of a plain torch loop with the recorder over without, interleaved, the median of the ratios."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            ratios, seconds = [], []
            for k in range(REPEATS):
                plain = _loop(None)
                recorded = _loop(Path(folder) / f"{k}.npz")
                ratios.append(recorded / plain)
                seconds.append(plain)
    finally:
        torch.set_num_threads(before)
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    how = f"{STEPS} steps of SGD, four layers, w = 100, {statistics.median(seconds):.3g} s without; {spread}"
    return "a training loop with Recorder / without", f"{statistics.median(ratios):.3f}", how


def _loop(path: Path | None) -> float:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(n, m, bias=False) for n, m in pairwise(SIZES)]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    inputs, outputs = torch.eye(SIZES[0]), torch.ones(SIZES[0], SIZES[-1])
    started = time.process_time()
    recorder = None if path is None else dlnphase.Recorder(model, path, optimizer=optimizer)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (0.5 * (model(inputs) - outputs).square().sum()).backward()
        optimizer.step()
        if recorder is not None:
            recorder.step()
    if recorder is not None:
        recorder.close()
    return time.process_time() - started


if __name__ == "__main__":
    print(" | ".join(recorder_overhead()))

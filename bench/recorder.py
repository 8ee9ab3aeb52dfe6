"""What ``dlnphase.Recorder`` costs a training loop, at its defaults.

``python -m bench.recorder`` prints the rows alone.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch

import dlnphase

REPEATS = 20
LOOPS = {(10, 100, 100, 100, 10): 10_000, (10, 300, 300, 10): 5_000}  # layers → steps

Row = tuple[str, str, str]  # what, figure, how it was taken


def recorder_overhead() -> list[Row]:
    """CPU time of plain torch loops with the recorder over without, in turn, the median of the ratios."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_row(sizes, steps) for sizes, steps in LOOPS.items()]
    finally:
        torch.set_num_threads(before)


def _row(sizes: tuple[int, ...], steps: int) -> Row:
    ratios, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for k in range(REPEATS):
            path = Path(folder) / f"{k}.npz"
            # Which goes first changes from pair to pair, so that a machine that slows down favours neither.
            if k % 2:
                recorded, plain = _loop(sizes, steps, path), _loop(sizes, steps, None)
            else:
                plain, recorded = _loop(sizes, steps, None), _loop(sizes, steps, path)
            ratios.append(recorded / plain)
            seconds.append(plain)
            path.unlink()
    low, middle, high = statistics.quantiles(ratios, n=4)
    how = (
        f"CPU: {steps} steps of SGD, {'×'.join(map(str, sizes))}, {statistics.median(seconds):.3g} s without; "
        f"median of {REPEATS} pairs, half of them from {low:.3f} to {high:.3f}"
    )
    return f"a training loop with Recorder / without, w = {sizes[1]}", f"{middle:.3f}", how


def _loop(sizes: tuple[int, ...], steps: int, path: Path | None) -> float:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(n, m, bias=False) for n, m in pairwise(sizes)]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    inputs, outputs = torch.eye(sizes[0]), torch.ones(sizes[0], sizes[-1])
    started = time.process_time()
    recorder = None if path is None else dlnphase.Recorder(model, path, optimizer=optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * (model(inputs) - outputs).square().sum()).backward()
        optimizer.step()
        if recorder is not None:
            recorder.step()
    if recorder is not None:
        recorder.close()
    return time.process_time() - started


if __name__ == "__main__":
    for row in recorder_overhead():
        print(" | ".join(row), flush=True)

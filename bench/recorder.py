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

REPEATS = 3
LOOPS = {(10, 100, 100, 100, 10): 10_000, (10, 300, 300, 10): 5_000}  # layers → steps

Row = tuple[str, str, str]  # what, figure, how it was taken


def recorder_overhead() -> list[Row]:
    """CPU time of plain torch loops with the recorder over without.

    Both are taken in the same loop: what is spent inside the recorder, and all the rest. Two loops one after the other
    differ by more than the recorder costs as soon as anything else runs on the machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_row(sizes, steps) for sizes, steps in LOOPS.items()]
    finally:
        torch.set_num_threads(before)


def _row(sizes: tuple[int, ...], steps: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        taken = [_loop(sizes, steps, Path(folder) / f"{k}.npz") for k in range(REPEATS)]
    ratios = [total / (total - inside) for total, inside in taken]
    rest = statistics.median(total - inside for total, inside in taken)
    how = (
        f"CPU: {steps} steps of SGD, {'×'.join(map(str, sizes))}, {rest:.3g} s without; "
        f"the middle one of {REPEATS} loops, from {min(ratios):.4f} to {max(ratios):.4f}"
    )
    return f"a training loop with Recorder / without, w = {sizes[1]}", f"{statistics.median(ratios):.4f}", how


def _loop(sizes: tuple[int, ...], steps: int, path: Path) -> tuple[float, float]:
    """CPU seconds of a loop from its first line to its last, and those of them that were spent in the recorder."""
    clock = time.process_time
    torch.manual_seed(0)
    layers = [torch.nn.Linear(n, m, bias=False) for n, m in pairwise(sizes)]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    inputs, outputs = torch.eye(sizes[0]), torch.ones(sizes[0], sizes[-1])
    started = clock()
    recorder = dlnphase.Recorder(model, path, optimizer=optimizer)
    inside, looks = clock() - started, 0.0
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * (model(inputs) - outputs).square().sum()).backward()
        optimizer.step()
        idle, before = clock(), clock()  # looking at this clock takes longer than most steps of the recorder
        recorder.step()
        inside += clock() - before - (before - idle)
        looks += 3 * (before - idle)
    before = clock()
    recorder.close()
    ended = clock()
    return ended - started - looks, inside + ended - before


if __name__ == "__main__":
    for row in recorder_overhead():
        print(" | ".join(row), flush=True)

"""When each mode of A is learned, whether or not the saddle between two of them was visited.

A mode is a singular value of A that the path ends with. It is learned when it first passes half of its final size, and
its rise is the time from a tenth to nine tenths of it, around that. Between records a cubic in log s through the four
nearest of them is followed, since modes grow exponentially before they saturate.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from dlnphase.findings import Mode, ModeSpread

HALF, LOW, HIGH = 0.5, 0.1, 0.9  # parts of the final size
FLOOR = 1e-9  # singular values are looked at down to this part of their final size
BISECTIONS = 60


def modes_of(time: np.ndarray, singular_values: np.ndarray, count: int) -> tuple[Mode, ...]:
    """The modes of one path, the largest first.

    Args:
        time: of the records, shape (T,).
        singular_values: of A, the largest first, shape (T, min(d_out, d_in)).
        count: how many modes the path ends with: those further back are round-off or have not been learned.
    """
    found = []
    for k in range(min(count, singular_values.shape[1])):
        size = float(singular_values[-1, k])
        half, rise = _passed(time, singular_values[:, k] / size) if size > 0 else (None, None)
        found.append(Mode(k + 1, size, half, rise, None))
    return _separated(found)


def _separated(modes: Sequence[Mode]) -> tuple[Mode, ...]:
    """Each mode with how far it is from the one learned just before it, in units of their mean rise."""
    order = sorted((m for m in modes if m.time is not None), key=lambda m: m.time or 0.0)
    apart: dict[int, float] = {}
    for before, mode in pairwise(order):
        assert before.time is not None and mode.time is not None
        if before.rise is not None and mode.rise is not None and before.rise + mode.rise > 0:
            apart[mode.mode] = (mode.time - before.time) / (0.5 * (before.rise + mode.rise))
    return tuple(Mode(m.mode, m.size, m.time, m.rise, apart.get(m.mode)) for m in modes)


def _passed(time: np.ndarray, part: np.ndarray) -> tuple[float | None, float | None]:
    """(when a curve that ends at 1 first passes ½, its 10–90 % rise); None for what was there from the start."""
    above = np.flatnonzero(part >= HALF)
    first = int(above[0])
    if first == 0:
        return None, None
    half = _crossing(time, part, first, HALF)
    low = np.flatnonzero(part[:first] < LOW)
    high = first + int(np.flatnonzero(part[first:] >= HIGH)[0])
    if not low.size:
        return half, None
    return half, _crossing(time, part, high, HIGH) - _crossing(time, part, int(low[-1]) + 1, LOW)


def _crossing(time: np.ndarray, part: np.ndarray, index: int, level: float) -> float:
    """When the curve passes a level between record index − 1, which is below it, and record index, which is not."""
    left, right = float(time[index - 1]), float(time[index])
    near = slice(max(index - 2, 0), min(index + 2, len(time)))
    t, keep = np.unique(time[near], return_index=True)
    y = np.log(np.maximum(part[near][keep], FLOOR)) - np.log(level)
    for _ in range(BISECTIONS):
        middle = 0.5 * (left + right)
        if _lagrange(t, y, middle) < 0:
            left = middle
        else:
            right = middle
    return 0.5 * (left + right)


def _lagrange(t: np.ndarray, y: np.ndarray, at: float) -> float:
    """The polynomial through a few points, at one time."""
    total = 0.0
    for i in range(len(t)):
        others = np.delete(t, i)
        total += float(y[i] * np.prod((at - others) / (t[i] - others)))
    return total


def mean_modes(members: Sequence[Sequence[Mode]]) -> tuple[tuple[Mode, ...], tuple[ModeSpread, ...]]:
    """Means over several starts, and how each mode varies; a mode counts over the starts that learned it."""
    means, spreads = [], []
    for k in range(max((len(modes) for modes in members), default=0)):
        rows = [modes[k] for modes in members if len(modes) > k]
        size, times = np.array([m.size for m in rows]), np.array([m.time for m in rows if m.time is not None])
        means.append(
            Mode(
                k + 1,
                float(size.mean()),
                _mean([m.time for m in rows]),
                _mean([m.rise for m in rows]),
                _mean([m.separation for m in rows]),
            )
        )
        timed = bool(times.size)
        spreads.append(
            ModeSpread(
                mode=k + 1,
                members=len(times),
                time_mean=float(times.mean()) if timed else None,
                time_std=None if not timed else float(times.std(ddof=1)) if len(times) > 1 else 0.0,
                time_min=float(times.min()) if timed else None,
                time_max=float(times.max()) if timed else None,
                size_std=float(size.std(ddof=1)) if len(size) > 1 else 0.0,
            )
        )
    return tuple(means), tuple(spreads)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None

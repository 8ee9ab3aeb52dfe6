"""When each mode of A is learned, whether or not the saddle between two of them was visited.

A mode is a singular value of A that the path ends with. It is learned when it first passes half of its final size, and
its rise is the time from a tenth to nine tenths of it, around that. Between records a cubic in log s through the four
nearest of them is followed, since modes grow exponentially before they saturate. Where that is not what a straight line
would say, a singular value may have passed through zero or past another one nearby: there A itself is interpolated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dlnphase.critical.visited import LARGE
from dlnphase.findings import Mode, ModeSpread

HALF, LOW, HIGH = 0.5, 0.1, 0.9  # parts of the final size
FLOOR = 1e-9  # singular values are looked at down to this part of their final size
BISECTIONS = 60  # of a step: to the last bit of a time
DOUBT = 0.02  # relative difference in time between the cubic and a straight line from which A is interpolated instead


def modes_of(
    time: np.ndarray, singular_values: np.ndarray, count: int, matrices: np.ndarray | None = None
) -> tuple[Mode, ...]:
    """The modes of one path, the largest first.

    Args:
        time: of the records, shape (T,).
        singular_values: of A, the largest first, shape (T, min(d_out, d_in)).
        count: how many modes the path ends with: those further back are round-off or have not been learned.
        matrices: A, shape (T, d_out, d_in), if it is at hand.
    """
    found = []
    for k in range(min(count, singular_values.shape[1])):
        size = float(singular_values[-1, k])
        curve = _Curve(time, singular_values[:, k] / size, k, size, matrices) if size > 0 else None
        half, rise = _passed(curve) if curve is not None else (None, None)
        found.append(Mode(k + 1, size, half, rise, None))
    return _separated(found)


def _separated(modes: Sequence[Mode]) -> tuple[Mode, ...]:
    """Each mode with how far it is from the one learned just before it, by their mean rise or the one known."""
    order = sorted(((m.time, m) for m in modes if m.time is not None), key=lambda pair: pair[0])
    apart: dict[int, float] = {}
    for (earlier, before), (later, mode) in pairwise(order):
        rises = [rise for rise in (before.rise, mode.rise) if rise is not None]
        if sum(rises) > 0:
            apart[mode.mode] = (later - earlier) * len(rises) / sum(rises)
    return tuple(Mode(m.mode, m.size, m.time, m.rise, apart.get(m.mode)) for m in modes)


@dataclass(frozen=True)
class _Curve:
    """A mode along its path, as part of its final size; it is the k-th of A."""

    time: np.ndarray
    part: np.ndarray
    k: int
    size: float
    matrices: np.ndarray | None


def _passed(curve: _Curve) -> tuple[float | None, float | None]:
    """(when a curve that ends at 1 first passes ½, its 10–90 % rise); None for what was there from the start."""
    part = curve.part
    above = np.flatnonzero(part >= HALF)
    first = int(above[0])
    if first == 0:
        return None, None
    half = _crossing(curve, first, HALF)
    low = np.flatnonzero(part[:first] < LOW)
    high = first + int(np.flatnonzero(part[first:] >= HIGH)[0])
    if not low.size:
        return half, None
    return half, _crossing(curve, high, HIGH) - _crossing(curve, int(low[-1]) + 1, LOW)


def _crossing(curve: _Curve, index: int, level: float) -> float:
    """When the curve passes a level between record index − 1, which is below it, and record index, which is not."""
    time, part = curve.time, curve.part
    near = np.arange(max(index - 2, 0), min(index + 2, len(time)))
    near = near[np.unique(time[near], return_index=True)[1]]
    logs = np.log(np.maximum(part[near], FLOOR)) - np.log(level)
    left, right = float(time[index - 1]), float(time[index])
    line = _lagrange(time[near], logs)
    found = _root(left, right, lambda t: float(line(t)))
    straight = float(np.interp(level, part[index - 1 : index + 1], (left, right)))
    # Of matrices that are large few are recorded: time is told coarsely there.
    if curve.matrices is None or curve.matrices[0].size > LARGE or abs(found - straight) <= DOUBT * found:
        return found
    path = _lagrange(time[near], curve.matrices[near])

    def above(t: float) -> float:
        return float(np.linalg.svd(path(t), compute_uv=False)[curve.k]) - level * curve.size

    return _root(left, right, above)


def _root(left: float, right: float, value: Callable[[float], float]) -> float:
    """Where a function changes from below zero to above."""
    for _ in range(BISECTIONS):
        middle = 0.5 * (left + right)
        left, right = (middle, right) if value(middle) < 0 else (left, middle)
    return 0.5 * (left + right)


def _lagrange(t: np.ndarray, y: np.ndarray) -> Callable[[float], np.ndarray]:
    """The polynomial through a few points (t_i, y_i), the y_i numbers or matrices, as a function of time."""
    others = np.stack([np.delete(t, i) for i in range(len(t))])
    apart = t[:, None] - others
    return lambda at: np.tensordot(np.prod((at - others) / apart, axis=1), y, axes=1)


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

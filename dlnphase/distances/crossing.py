"""The critical γ, with no fitted parameter: where the curves of log(d_m/d_s) against γ at two widths cross.

At γ = 1 every dependence on α drops out, so curves of all widths meet there, up to O(1/√w). For γ < 1 the wider network
is relatively nearer to its minimum, for γ > 1 to its saddle.

Between two γ of the grid the difference of two curves bends, from a slope of L/2 to one of 1/2 (times log(w_2/w_1)).
Of a curve that bends downwards the chord between the two points lies below and the lines through the points on either
side, continued, above: its zero is between theirs. So the zeros of these lines bracket the crossing, and the bracket is
part of the interval. With two γ alone there is no line on either side, and nothing is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from dlnphase.findings import Crossing

Line = tuple[int, int]


def crossings(
    gammas: Sequence[float], widths: Sequence[int], log_ratio: Mapping[tuple[float, int], np.ndarray]
) -> list[Crossing]:
    """Crossings of neighbouring widths, narrowest pair first; pairs whose curves do not cross are left out.

    Args:
        gammas, widths: ascending.
        log_ratio: log(d_m/d_s) over the same starts at every (γ, w); points may be missing.
    """
    out = []
    for low, high in pairwise(widths):
        shared = [g for g in gammas if (g, low) in log_ratio and (g, high) in log_ratio]
        if len(shared) < 2:
            continue
        x = np.asarray(shared)
        difference = np.stack([log_ratio[g, high] - log_ratio[g, low] for g in shared])
        found = crossing_point(x, difference.mean(1))
        if found is None:
            continue
        estimate, bracket = found
        out.append(Crossing((int(low), int(high)), estimate, _interval(x, difference), bracket))
    return out


def sign_change(difference: np.ndarray) -> int | None:
    """The i after which the difference of two curves goes from negative to positive most closely; None: nowhere."""
    rising = [i for i in range(len(difference) - 1) if difference[i] < 0 <= difference[i + 1]]
    return min(rising, key=lambda k: abs(difference[k]) + abs(difference[k + 1])) if rising else None


def crossing_point(gammas: np.ndarray, difference: np.ndarray) -> tuple[float, tuple[float, float]] | None:
    """Where the difference of two curves is zero, and the bracket that interpolation leaves.

    None where it does not go from negative to positive, or where no γ beside the two around the crossing is known.
    The estimate is the mean of the zeros of the lines on either side, of which the chord is the other bound.
    """
    lines = _lines(difference)
    if lines is None:
        return None
    zeros = [_zero(gammas, difference, line) for line in lines]
    low, high = gammas[lines[0][0]], gammas[lines[0][1]]
    clipped = np.clip(zeros, low, high)
    sides = clipped[1:] if len(clipped) == 3 else clipped
    return float(np.mean(sides)), (float(clipped.min()), float(clipped.max()))


def _lines(difference: np.ndarray) -> list[Line] | None:
    """The chord, and the lines on its left and right where they rise; None without any of those."""
    i = sign_change(difference)
    if i is None:
        return None
    sides = [(k, m) for k, m in ((i - 1, i), (i + 1, i + 2)) if k >= 0 and m < len(difference)]
    sides = [(k, m) for k, m in sides if difference[m] > difference[k]]
    return [(i, i + 1), *sides] if sides else None


def _zero(gammas: np.ndarray, difference: np.ndarray, line: Line) -> float:
    k, m = line
    return float(gammas[k] - difference[k] * (gammas[m] - gammas[k]) / (difference[m] - difference[k]))


def _interval(gammas: np.ndarray, difference: np.ndarray) -> tuple[float, float] | None:
    """The bracket, widened at each end by Student's interval of that zero (jackknife over the starts)."""
    from scipy.special import stdtrit

    count = difference.shape[1]
    mean = difference.mean(1)
    lines = _lines(mean)
    if count < 2 or lines is None:
        return None
    low, high = gammas[lines[0][0]], gammas[lines[0][1]]
    without = [(count * mean - column) / (count - 1) for column in difference.T]
    ends = []
    for line in lines:
        left_out = np.array([_zero(gammas, one, line) for one in without])
        half = float(stdtrit(count - 1, 0.975) * np.sqrt((count - 1) * left_out.var()))
        zero = float(np.clip(_zero(gammas, mean, line), low, high))
        ends.append((zero - half, zero + half))
    return min(e[0] for e in ends), max(e[1] for e in ends)

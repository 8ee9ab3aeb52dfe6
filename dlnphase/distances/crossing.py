"""The critical γ, with no fitted parameter: where the curves of log(d_m/d_s) against γ at two widths cross.

At γ = 1 every dependence on α drops out, so curves of all widths meet there, up to O(1/√w). For γ < 1 the wider network
is relatively nearer to its minimum, for γ > 1 to its saddle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from dlnphase.findings import Crossing

DRAWS = 1000
NEAR_ZERO = 0.05  # a grid point whose difference is below this fraction of its neighbour's fixes the crossing by itself


def crossings(
    gammas: Sequence[float],
    widths: Sequence[int],
    log_ratio: Mapping[tuple[float, int], np.ndarray],
    rng: np.random.Generator,
) -> list[Crossing]:
    """Crossings of neighbouring widths, narrowest pair first; pairs whose curves do not cross are left out.

    Args:
        gammas, widths: ascending.
        log_ratio: log(d_m/d_s) over seeds at (γ, w); points may be missing.
        rng: of the bootstrap: seeds are resampled per width, the same ones for every γ, as the same draws are scaled.
    """
    out = []
    for low, high in pairwise(widths):
        shared = [g for g in gammas if (g, low) in log_ratio and (g, high) in log_ratio]
        if len(shared) < 2:
            continue
        x = np.asarray(shared)
        narrow = np.stack([log_ratio[g, low] for g in shared])
        wide = np.stack([log_ratio[g, high] for g in shared])
        estimate = crossing_point(x, wide.mean(1) - narrow.mean(1))
        if estimate is None:
            continue
        out.append(Crossing((int(low), int(high)), estimate, _interval(x, narrow, wide, rng)))
    return out


def crossing_point(gammas: np.ndarray, difference: np.ndarray) -> float | None:
    """γ at which the difference of two curves goes from negative to positive; None where it does not.

    Between two grid points the curve bends at the crossing (its slope is L/2 on one side and 1/2 on the other, times
    log(w_2/w_1)), so unless one of them is nearly on it the lines of either side are continued to zero and averaged.
    """
    rising = [i for i in range(len(gammas) - 1) if difference[i] < 0 <= difference[i + 1]]
    if not rising:
        return None
    i = min(rising, key=lambda k: abs(difference[k]) + abs(difference[k + 1]))
    a, b, fa, fb = gammas[i], gammas[i + 1], difference[i], difference[i + 1]
    straight = float(a - fa * (b - a) / (fb - fa))
    if min(abs(fa), abs(fb)) <= NEAR_ZERO * max(abs(fa), abs(fb)) or i == 0 or i + 2 >= len(gammas):
        return straight
    sides = []
    for k, m in ((i - 1, i), (i + 2, i + 1)):
        slope = (difference[m] - difference[k]) / (gammas[m] - gammas[k])
        if slope <= 0:
            return straight
        sides.append(gammas[m] - difference[m] / slope)
    return float(np.clip(np.mean(sides), a, b))


def _interval(
    gammas: np.ndarray, narrow: np.ndarray, wide: np.ndarray, rng: np.random.Generator
) -> tuple[float, float] | None:
    if min(narrow.shape[1], wide.shape[1]) < 2:
        return None
    found = []
    for _ in range(DRAWS):
        means = []
        for sample in (narrow, wide):
            count = sample.shape[1]
            centre = sample.mean(1)
            picked = sample[:, rng.integers(0, count, size=count)].mean(1)
            means.append(centre + (picked - centre) * np.sqrt(count / (count - 1)))
        point = crossing_point(gammas, means[1] - means[0])
        if point is not None:
            found.append(point)
    if len(found) < 0.9 * DRAWS:
        return None
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)

"""Scaling exponents: slopes of log(distance) against log(width), with the two errors that they have.

Every start is measured at every width, so every start has a slope: a least-squares line in which a width w weighs √w,
since what a finite width adds falls with w. The exponent is the mean over the starts and its 95 % interval is Student's
over them (one number per start, whether or not the widths share their draws): the *sampling* error. How far the widths
are from the asymptote is another matter and is told apart: by how much the slope between neighbouring widths still
changes at the widest ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from dlnphase.findings import Exponent, LocalSlope

SETTLED = 0.02  # local slopes that change by less than this at the widest networks have set in
APPROACH = 0.8  # a drift towards theory has closed at least a fifth of its first gap
FLAT = 0.02  # slopes of d_m/d_s below this are no phase of their own: mean-field
ROUND_OFF = 1e-9  # slopes are no better than this, whatever the starts say


def fit_exponent(widths: Sequence[int], values: Sequence[np.ndarray], predicted: float | None = None) -> Exponent:
    """Fit the exponent of distances measured at several widths.

    Args:
        widths: two or more, ascending.
        values: one array of positive distances per width, over the same starts.
        predicted: theory.

    Raises:
        ValueError: for fewer than two widths, or other starts at some width.
    """
    if len(widths) < 2:
        raise ValueError(f"an exponent needs two widths, found {len(widths)}")
    if len({len(v) for v in values}) != 1:
        raise ValueError(f"an exponent needs the same starts at every width, found {[len(v) for v in values]}")
    x = np.log(np.asarray(widths, dtype=float))
    logs = np.log(np.asarray(values, dtype=float))
    slope, ci = mean_and_interval(_line(x) @ logs)
    local = tuple(
        LocalSlope(
            (int(widths[i]), int(widths[i + 1])), *mean_and_interval((logs[i + 1] - logs[i]) / (x[i + 1] - x[i]))
        )
        for i in range(len(x) - 1)
    )
    finite = abs(local[-1].slope - local[-2].slope) if len(local) > 1 else None
    return Exponent(slope, ci, predicted, local, _verdict(slope, ci, finite, predicted, local), finite)


def measured_regime(minimum: Exponent, saddle: Exponent) -> str:
    """What the slopes say: the minimum comes nearer than the saddle (lazy), falls behind it, or neither."""
    slope = minimum.slope - saddle.slope
    if abs(slope) <= FLAT:
        return "mean-field"
    return "lazy" if slope < 0 else "saddle-to-saddle"


def mean_and_interval(values: np.ndarray) -> tuple[float, tuple[float, float] | None]:
    """The mean and its 95 % interval by Student's t; None with a single value."""
    from scipy.special import stdtrit

    mean, count = float(values.mean()), len(values)
    if count < 2:
        return mean, None
    half = float(stdtrit(count - 1, 0.975) * values.std(ddof=1) / np.sqrt(count))
    return mean, (mean - half, mean + half)


def _line(x: np.ndarray) -> np.ndarray:
    """k with slope = Σ k_w·log d_w for the least-squares line with weights √w."""
    weights = np.exp(0.5 * (x - x[-1]))
    centred = x - (weights * x).sum() / weights.sum()
    return np.asarray(weights * centred / (weights * centred**2).sum())


def _verdict(
    slope: float,
    ci: tuple[float, float] | None,
    finite: float | None,
    predicted: float | None,
    local: Sequence[LocalSlope],
) -> str:
    if predicted is None:
        return "open"
    half = ROUND_OFF if ci is None else max((ci[1] - ci[0]) / 2, ROUND_OFF)
    settled = 0.0 if finite is None or finite > SETTLED else finite
    if abs(slope - predicted) <= half + settled:
        return "agrees"
    gaps = [abs(part.slope - predicted) for part in local]
    if len(gaps) > 1 and all(b < a for a, b in pairwise(gaps)) and gaps[-1] <= APPROACH * gaps[0]:
        return "drifts"
    return "differs"

"""Scaling exponents: slopes of log(distance) against log(width), with bootstrap intervals over seeds.

The slope is a weighted least-squares fit to the means of log d over seeds, weights 1/sem². Finite-width corrections
fall with w as the spread over seeds does, so the widest networks count most. Intervals resample the seeds of every
width (percentile bootstrap, deviations scaled by √(S/(S−1)) for S seeds). Slopes between neighbouring widths tell
whether the power law has set in.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from dlnphase.findings import Exponent, LocalSlope

DRAWS = 2000
TOLERANCE = 0.01  # slopes this close to theory agree with it
APPROACH = 0.8  # a drift towards theory has closed at least a fifth of its first gap
FLAT = 0.02  # slopes of d_m/d_s below this are no phase of their own: mean-field
RELATIVE_ROUND_OFF = 1e-12


def fit_exponent(
    widths: Sequence[int], values: Sequence[np.ndarray], rng: np.random.Generator, predicted: float | None = None
) -> Exponent:
    """Fit the exponent of distances measured at several widths.

    Args:
        widths: two or more, ascending.
        values: one array of positive distances over seeds per width.
        rng: of the bootstrap.
        predicted: theory.

    Raises:
        ValueError: for fewer than two widths.
    """
    if len(widths) < 2:
        raise ValueError(f"an exponent needs two widths, found {len(widths)}")
    x = np.log(np.asarray(widths, dtype=float))
    logs = [np.log(np.asarray(v, dtype=float)) for v in values]
    means, draws = _means(logs, rng)
    k = _slope_weights(x, _weights(logs))
    slope = float(k @ means)
    local = []
    for i in range(len(x) - 1):
        step = x[i + 1] - x[i]
        local.append(
            LocalSlope(
                (int(widths[i]), int(widths[i + 1])),
                float((means[i + 1] - means[i]) / step),
                _interval(None if draws is None else (draws[:, i + 1] - draws[:, i]) / step),
            )
        )
    ci = _interval(None if draws is None else draws @ k)
    return Exponent(slope, ci, predicted, tuple(local), _verdict(slope, ci, predicted, local))


def measured_regime(minimum: Exponent, saddle: Exponent) -> str:
    """What the slopes say: the minimum comes nearer than the saddle (lazy), falls behind it, or neither."""
    slope = minimum.slope - saddle.slope
    if abs(slope) <= FLAT:
        return "mean-field"
    return "lazy" if slope < 0 else "saddle-to-saddle"


def _verdict(slope: float, ci: tuple[float, float] | None, predicted: float | None, local: Sequence[LocalSlope]) -> str:
    if predicted is None:
        return "open"
    if abs(slope - predicted) <= TOLERANCE or (ci is not None and ci[0] <= predicted <= ci[1]):
        return "agrees"
    gaps = [abs(part.slope - predicted) for part in local]
    if len(gaps) > 1 and all(b < a for a, b in pairwise(gaps)) and gaps[-1] <= APPROACH * gaps[0]:
        return "drifts"
    return "differs"


def _means(logs: Sequence[np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean of log d at each width, and bootstrap draws of the means, shape (DRAWS, W)."""
    means = np.array([v.mean() for v in logs])
    if min(len(v) for v in logs) < 2:
        return means, None
    columns = []
    for v, mean in zip(logs, means, strict=True):
        picked = v[rng.integers(0, len(v), size=(DRAWS, len(v)))].mean(axis=1)
        columns.append(mean + (picked - mean) * np.sqrt(len(v) / (len(v) - 1)))
    return means, np.stack(columns, axis=1)


def _weights(logs: Sequence[np.ndarray]) -> np.ndarray:
    """1/sem² of the mean of log d; equal where a spread cannot be told."""
    if min(len(v) for v in logs) < 3:
        return np.ones(len(logs))
    variance = np.array([v.var(ddof=1) / len(v) for v in logs])
    return 1 / np.maximum(variance, max(variance.max() * 1e-12, RELATIVE_ROUND_OFF**2))


def _slope_weights(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """k with slope = Σ k_w·mean_w for the weighted least-squares line."""
    centred = x - (weights * x).sum() / weights.sum()
    return weights * centred / (weights * centred**2).sum()


def _interval(draws: np.ndarray | None) -> tuple[float, float] | None:
    if draws is None:
        return None
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)

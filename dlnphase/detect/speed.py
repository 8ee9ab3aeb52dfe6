"""How fast a path goes beside the gradient flow of the cost: the constant between its time and ours.

Under θ̇ = −c∇𝓛 the cost falls as −dC/dt = c‖∇𝓛‖². Over two records between which ‖∇𝓛‖ changes little, c is the decrease
over the trapezoid of ‖∇𝓛‖² (whose error is (ln of its ratio)²/12: under 2 %). It is a constant of the path where these
agree all along.
"""

from __future__ import annotations

import numpy as np

LITTLE = 1.2  # factor by which ‖∇𝓛‖ may change between two records that are looked at
CLEAR = 1e-3  # part of C − C_min that must be lost between them, so that round-off does not count
ENOUGH = 8  # pairs of records below which nothing is told
CONSTANT = 0.05  # relative spread (from a tenth to nine tenths of the pairs) up to which it is one constant


def speed_factor(time: np.ndarray, excess: np.ndarray, gradient_norm: np.ndarray) -> float | None:
    """c of a path, or None where it is no constant, or cannot be told.

    Args:
        time, excess, gradient_norm: t, C − C_min and ‖∇𝓛‖ at its records, each of shape (T,).
    """
    factors = _factors(time, excess, gradient_norm)
    if factors.size < ENOUGH:
        return None
    low, middle, high = (float(q) for q in np.quantile(factors, (0.1, 0.5, 0.9)))
    return middle if high - low <= CONSTANT * middle else None


def typical_speed(time: np.ndarray, excess: np.ndarray, gradient_norm: np.ndarray) -> float | None:
    """The median of −dC/dt over ‖∇𝓛‖² where records are dense, whether it is a constant or not; None where none are."""
    factors = _factors(time, excess, gradient_norm)
    return float(np.median(factors)) if factors.size else None


def _factors(time: np.ndarray, excess: np.ndarray, gradient_norm: np.ndarray) -> np.ndarray:
    """The decrease over the trapezoid, of every pair of neighbours that is dense."""
    before, after = gradient_norm[:-1], gradient_norm[1:]
    fallen, elapsed = excess[:-1] - excess[1:], np.diff(time)
    slow = (after <= LITTLE * before) & (before <= LITTLE * after)
    clear = slow & (fallen > CLEAR * excess[:-1]) & (elapsed > 0) & (before > 0)
    return fallen[clear] / (0.5 * (before[clear] ** 2 + after[clear] ** 2) * elapsed[clear])

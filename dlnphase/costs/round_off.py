"""What counts as round-off, from the precision of the numbers that a cost was given in: one table for all rooms.

Numbers known to a relative ε leave noise of some ε times a condition number in whatever is computed from them. Real
differences and noise are told apart at ε^(2/3), which leaves noise as many decades as it leaves the real ones beyond
half precision: 4e-11 in float64, 2e-5 in float32.
"""

from __future__ import annotations


def indistinct(resolution: float) -> float:
    """Relative size below which a singular value, an eigenvalue of H, or a difference is round-off."""
    return float(resolution ** (2 / 3))


def exact_fit(resolution: float) -> float:
    """C − C_min over its value at A = 0 below which a fit is exact: it is a square."""
    return indistinct(resolution) ** 2


def snapped(resolution: float) -> float:
    """Least-squares residual over the size of the data, squared, below which C_min is 0: a few hundred units."""
    return float((450 * resolution) ** 2)


def resolved(resolution: float) -> float:
    """Relative size above which a gradient or a mode is more than round-off of the numbers given: fifty units."""
    return 50.0 * resolution

"""Minima of a network whose narrowest layer keeps it above the minimum of the cost.

The end-to-end matrices near one of rank w are all those of rank w that are near it when w is the narrowest width: no
layer lets a further mode through, and the rank falls only far away. So a critical point of C among matrices of rank w
without negative curvature there is a minimum of 𝓛, although ∇C does not vanish. For factorization and regression it
is the lowest one (Eckart and Young 1936; in coordinates whitened by the inputs). For other costs the lowest one is not
known in closed form and there may be several.
"""

from __future__ import annotations

import numpy as np

from dlnphase.costs.quadratic import Cost
from dlnphase.critical.hostcost import HostCost
from dlnphase.critical.matrix import MatrixPoint, is_stable, refine_matrix

SAME_COST = 1e-9  # relative difference below which a value is the least that a closed form tells


def minimum_near(a: np.ndarray, host: HostCost, width: int) -> MatrixPoint | None:
    """The minimum at rank ``width`` that A is near and that leaves ∇C ≠ 0; None where there is none.

    Args:
        a: (d_out, d_in).
        width: of the narrowest layer.
    """
    if width >= min(host.shape):
        return None
    point = refine_matrix(a, host, rank=width)
    return point if holds(point, host, width) else None


def holds(point: MatrixPoint, host: HostCost, width: int) -> bool:
    """Whether a critical point is a minimum of networks of this width, though not of the cost."""
    held = point.converged and point.rank == width < min(host.shape) and point.next_mode > 0
    return held and is_stable(point, host)


def is_least(value: float, cost: Cost, width: int) -> bool:
    """Whether C = ``value`` is the least cost at this width, by the closed form; False where there is none."""
    least = cost.minimum_at_rank(width)
    return least is not None and reaches(value, least)


def reaches(value: float, least: float) -> bool:
    """Whether a value is the least there can be, to round-off."""
    return value - least <= SAME_COST * max(least, value)

"""What weight decay leaves of modes, in closed form, and where the least value of what is minimised is known.

One balanced mode a = u^L of ½(s − a)² + (λ/2)·L·u² moves by u̇ = u^(L−1)(s − u^L) − λu. For L = 2 it ends at
a = (s − λ)₊. For L ≥ 3 zero is always a local minimum; there is another, the larger root of λ = u^(L−2)(s − u^L), while

    λ < λ_max = u^(L−2)·sL/(2L − 2),  u^L = s(L − 2)/(2L − 2),

it costs less than zero does while

    λ < λ_0 = u^(L−2)·s/(L − 1),      u^L = s(L − 2)/(L − 1),

and a start of size u in every layer grows towards it from small u while λ < s·u^(L−2).
"""

from __future__ import annotations

from typing import TypeGuard

import numpy as np

from dlnphase.costs.interface import Cost
from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.critical.bottleneck import reaches
from dlnphase.critical.decay import Decay
from dlnphase.critical.hostcost import HostCost
from dlnphase.critical.matrix import MatrixPoint


def largest_decay(s: float, depth: int) -> float:
    """λ_max, from which on nothing but zero is left of a mode of size s."""
    if depth == 2:
        return s
    return float((s * (depth - 2) / (2 * depth - 2)) ** (1 - 2 / depth) * s * depth / (2 * depth - 2))


def paying_decay(s: float, depth: int) -> float:
    """λ_0, up to which a mode of size s costs less learned than left."""
    if depth == 2:
        return s
    return float((s * (depth - 2) / (depth - 1)) ** (1 - 2 / depth) * s / (depth - 1))


def decayed_size(s: float, decay: float, depth: int) -> float:
    """The size a of the minimum with a mode of size s learned; 0 where there is none."""
    if depth == 2:
        return max(s - decay, 0.0)
    if decay >= largest_decay(s, depth):
        return 0.0
    low, high = s * (depth - 2) / (2 * depth - 2), s  # λ = a^(1−2/L)(s − a) falls from its largest value to zero here
    while low < (middle := 0.5 * (low + high)) < high:  # to the last bit
        low, high = (middle, high) if middle ** (1 - 2 / depth) * (s - middle) > decay else (low, middle)
    return middle


def is_factorization(cost: Cost) -> TypeGuard[QuadraticCost]:
    """Whether every entry of A is seen alike, so that modes move by themselves."""
    return isinstance(cost, QuadraticCost) and cost.hessian.is_identity


def _target_modes(cost: Cost) -> np.ndarray | None:
    """The singular values that a factorization learns; None for other costs."""
    return np.linalg.svd(cost.minimizer.double().cpu().numpy(), compute_uv=False) if is_factorization(cost) else None


def least_objective(cost: Cost, decay: float, depth: int, width: int) -> float | None:
    """The least C − C_min + (λ/2)‖θ‖² of a factorization at this width; None for other costs."""
    s = _target_modes(cost)
    if s is None:
        return None
    sizes = np.array([decayed_size(float(x), decay, depth) for x in s])
    gains = 0.5 * s**2 - (0.5 * (s - sizes) ** 2 + 0.5 * decay * depth * sizes ** (2 / depth))
    return float(0.5 * np.sum(s**2) - np.sum(np.maximum(gains, 0.0)[:width]))


def plateau_cost(cost: Cost, decay: float, depth: int, rank: int) -> float | None:
    """C where the leading modes of a factorization are learned and decayed; None where that is no critical point."""
    s = _target_modes(cost)
    if s is None:
        return None
    sizes = [decayed_size(float(x), decay, depth) for x in s[:rank]]
    if 0.0 in sizes:
        return None
    return float(0.5 * np.sum((s[:rank] - np.array(sizes)) ** 2) + 0.5 * np.sum(s[rank:] ** 2))


def is_least_with_decay(point: MatrixPoint, host: HostCost, decay: Decay, width: int) -> bool:
    """Whether a critical matrix is known to be the least of C + (λ/2)‖θ‖² that networks of this width can have.

    Known are: for L = 2, where no further mode gains more than λ, by convexity (F is C plus λ times the nuclear norm);
    for a factorization, its closed form; and the origin where, with E = C(0) − C_min and s = ‖∇C(0)‖_op,

        (λL/2)·(E/s)^(2/L) ≥ E:

    F(A) − C_min ≥ max(E − s·x, 0) + (λL/2)·x^(2/L) for x = ‖A‖_*, by convexity of C and since Σ s_i^(2/L) ≥ x^(2/L); as
    the sum is concave up to x = E/s and rises beyond, it is nowhere below E (derived).
    """
    if decay.depth <= 2 and point.next_mode == 0:
        return True
    value = host.objective(point.A, np.linalg.svd(point.A, compute_uv=False)[: point.rank])
    least = least_objective(host.cost, decay.rate, decay.depth, width)
    if least is not None:
        return reaches(value, least)
    return point.rank == 0 and _holds_origin(host, decay)


def _holds_origin(host: HostCost, decay: Decay) -> bool:
    """Whether weight decay outweighs all that C could ever gain, as above."""
    zero = np.zeros(host.shape)
    most, slope = host.excess(zero), float(np.linalg.norm(host.gradient(zero), 2))
    return slope == 0 or decay.value(np.array([most / slope])) >= most

"""What weight decay leaves of the modes of a factorization, in theory and at the end of a run.

One balanced mode a = u^L of ½(s − a)² + (λ/2)·L·u² moves by u̇ = u^(L−1)(s − u^L) − λu. For L = 2 it ends at
a = (s − λ)₊. For L ≥ 3 zero is always a local minimum; there is another, the larger root of λ = u^(L−2)(s − u^L), while

    λ < λ_max = u^(L−2)·sL/(2L − 2),  u^L = s(L − 2)/(2L − 2),

it costs less than zero does while

    λ < λ_0 = u^(L−2)·s/(L − 1),      u^L = s(L − 2)/(L − 1),

and a start of size u in every layer grows towards it from small u while λ < s·u^(L−2).
"""

from __future__ import annotations

import numpy as np

from dlnphase.costs.interface import ConvexCost
from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.findings import DecayedMode, DecayTheory

BISECTIONS = 200  # of the interval of the larger root, to the last bit
PLANTED = 1e-12  # singular values of the target below this share of the largest are none
SAME = 1e-9  # relative difference below which what an end costs is the least that can be


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
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if middle ** (1 - 2 / depth) * (s - middle) > decay else (low, middle)
    return 0.5 * (low + high)


def is_factorization(cost: ConvexCost) -> bool:
    """Whether every entry of A is seen alike, so that modes move by themselves."""
    return isinstance(cost, QuadraticCost) and cost.hessian.is_identity


def decay_theory(
    cost: ConvexCost, decay: float, depth: int, alpha: float, top: float, end: np.ndarray, rank: int
) -> DecayTheory:
    """What to expect of a run with weight decay, beside what it came to.

    Args:
        cost: of the run.
        decay, depth, alpha: λ, L and the size of a layer of the start, as a unit vector sees it.
        top: ‖∇C(0)‖_op.
        end: A at the end, (d_out, d_in).
        rank: there.
    """
    leaves = top * alpha ** (depth - 2)
    if not is_factorization(cost):
        return DecayTheory(decay, leaves, rank > 0, ())
    assert isinstance(cost, QuadraticCost)
    u, s, vt = np.linalg.svd(cost.minimizer.double().cpu().numpy(), full_matrices=False)
    held = np.einsum("ik,ij,kj->k", u, end, vt)
    modes = tuple(
        DecayedMode(
            k + 1,
            float(size),
            paying_decay(float(size), depth),
            largest_decay(float(size), depth),
            decayed_size(float(size), decay, depth),
            float(held[k]),
        )
        for k, size in enumerate(s)
        if size > PLANTED * s[0]
    )
    return DecayTheory(decay, leaves, rank > 0, modes)


def least_objective(cost: ConvexCost, decay: float, depth: int, width: int) -> float | None:
    """The least C − C_min + (λ/2)‖θ‖² of a factorization at this width; None for other costs."""
    if not is_factorization(cost):
        return None
    assert isinstance(cost, QuadraticCost)
    s = np.linalg.svd(cost.minimizer.double().cpu().numpy(), compute_uv=False)
    sizes = np.array([decayed_size(float(x), decay, depth) for x in s])
    gains = 0.5 * s**2 - (0.5 * (s - sizes) ** 2 + 0.5 * decay * depth * sizes ** (2 / depth))
    return float(0.5 * np.sum(s**2) - np.sum(np.maximum(gains, 0.0)[:width]))


def plateau_cost(cost: ConvexCost, decay: float, depth: int, rank: int) -> float | None:
    """C where the leading modes of a factorization are learned and decayed; None where that is no critical point."""
    if not is_factorization(cost):
        return None
    assert isinstance(cost, QuadraticCost)
    s = np.linalg.svd(cost.minimizer.double().cpu().numpy(), compute_uv=False)
    sizes = [decayed_size(float(x), decay, depth) for x in s[:rank]]
    if 0.0 in sizes:
        return None
    return float(0.5 * np.sum((s[:rank] - np.array(sizes)) ** 2) + 0.5 * np.sum(s[rank:] ** 2))

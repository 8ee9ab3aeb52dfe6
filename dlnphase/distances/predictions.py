"""What theory says about the two distances as w → ∞ (theory page, the phase transition).

    d_m, γ < 1    ‖A* − A_θ0‖ / √L · w^(−(1−γ)(L−1)/2), the norm on the directions the cost measures     [J], constant
    derived d_m, γ > 1    √(L Σ_i s_i^(2/L)), s the singular values of the minimiser where that is least
    derived d_s, γ < 1    √(κ_L m) · w^((1−γ)/2), m the smallest rank ∇C takes at a saddle (1 for a factorization)
    derived d_s, γ > 1    √(κ_L r) · w^((1−γ)/2), r = rank ∇C(0)
    derived

κ_L = 1/⌊L/2⌋ + 1/⌈L/2⌉: killing one direction in k consecutive layers costs σ²w/k (:mod:`dlnphase.distances.kills`),
and the L layers are shared between the right and the left. κ_2 = 2, κ_3 = 3/2, κ_4 = 1. At γ = 1 both distances tend to
constants for which no closed form is known.

[J] Jacot, Ged, Şimşek, Hongler, Gabriel 2021, arXiv 2106.15933.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.distances.completions import minimisers, schatten
from dlnphase.distances.critical import critical_matrices
from dlnphase.distances.measured import measured_directions
from dlnphase.networks.chain import Network

GAMMA_CRITICAL = 1.0


def kappa(depth: int) -> float:
    """κ_L: squared cost of one dead pair of directions in units of α² = σ²w, as w → ∞ (L ≥ 2)."""
    half = depth // 2
    return 1 / half + 1 / (depth - half)


def minimum_exponent(gamma: float, depth: int) -> float:
    """d log d_m / d log w as w → ∞.

    −(1−γ)(L−1)/2 for 1 − 1/L ≤ γ < 1; −γ/2 below, where A_θ0 outgrows A*; 0 for γ ≥ 1.
    """
    if gamma >= 1:
        return 0.0
    return -(1 - gamma) * (depth - 1) / 2 if gamma >= 1 - 1 / depth else -gamma / 2


def saddle_exponent(gamma: float) -> float:
    """d log d_s / d log w as w → ∞: (1−γ)/2."""
    return (1 - gamma) / 2


def predicted_minimum(network: Network, cost: QuadraticCost, width: float, gamma: float) -> Tensor | None:
    """Predicted d_m of each member, shape (B,); None at γ = 1."""
    depth = network.depth
    if gamma < 1:
        missing = (cost.minimizer - network.product()).flatten(1)
        basis = measured_directions(cost)
        if basis is not None:
            missing = missing @ basis
        return missing.norm(dim=1) / depth**0.5 * float(width) ** (-(1 - gamma) * (depth - 1) / 2)
    if gamma > 1:
        least = min(float(schatten(matrix, depth)) for _, matrix in minimisers(cost, depth))
        return torch.full_like(network.theta[:, 0], least)
    return None


def predicted_saddle(cost: QuadraticCost, depth: int, width: float, gamma: float) -> float | None:
    """Predicted d_s; None at γ = 1, and where the cost has no saddle."""
    ranks = [matrix.dead for matrix in critical_matrices(cost)]
    if gamma == 1 or not ranks:
        return None
    dead = min(ranks) if gamma < 1 else _rank_at_origin(cost)
    return (kappa(depth) * dead) ** 0.5 * float(width) ** ((1 - gamma) / 2)


def predicted_regime(gamma: float) -> str:
    """The regime as w → ∞: lazy below γ = 1, mean-field at it, saddle-to-saddle above."""
    return "lazy" if gamma < 1 else "mean-field" if gamma == 1 else "saddle-to-saddle"


def _rank_at_origin(cost: QuadraticCost) -> int:
    zero = torch.zeros_like(cost.minimizer)
    s = torch.linalg.svdvals(cost.gradient(zero[None])[0])
    return int((s > 1e-8 * s[0]).sum())

"""What theory says about the two distances as w → ∞ (theory page, the phase transition).

    d_m, γ < 1    ‖A* − A_θ0‖ / √L · w^(−(1−γ)(L−1)/2), the norm on the directions the cost measures     [J], constant
    derived d_m, γ > 1    √(L Σ_i s_i^(2/L)), s the singular values of the minimiser where that is least
    derived d_s, γ < 1    √(κ_L m) · w^((1−γ)/2), m the least rank of ∇C at a saddle (:func:`least_rank`)
    derived d_s, γ > 1    √(κ_L r) · w^((1−γ)/2), r = rank ∇C(0)
    derived

κ_L = 1/⌊L/2⌋ + 1/⌈L/2⌉: killing one direction in k consecutive layers costs σ²w/k
(:mod:`dlnphase.distances.annihilation`), and the L layers are shared between the right and the left. κ_2 = 2,
κ_3 = 3/2, κ_4 = 1. At γ = 1 both distances tend to constants for which no closed form is known.

[J] Jacot, Ged, Şimşek, Hongler, Gabriel 2021, arXiv 2106.15933.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.costs.round_off import indistinct
from dlnphase.distances.completions import schatten
from dlnphase.distances.facts import facts_of
from dlnphase.networks.chain import Network

GAMMA_CRITICAL = 1.0  # docs/theory.md: below, d_m → 0 and d_s does not; above, the other way round


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
    """Predicted d_m of each member, shape (B,); None at γ = 1. :func:`minimum_claim` says what it is worth."""
    depth = network.depth
    facts = facts_of(cost, depth)
    if gamma < 1:
        missing = (cost.minimizer - network.product()).flatten(1)
        if facts.measured is not None:
            missing = missing @ facts.measured
        return missing.norm(dim=1) / depth**0.5 * float(width) ** (-(1 - gamma) * (depth - 1) / 2)
    if gamma > 1:
        least = min(float(schatten(matrix, depth)) for _, matrix in facts.minimisers)
        return torch.full_like(network.theta[:, 0], least)
    return None


def minimum_claim(cost: QuadraticCost, gamma: float) -> str:
    """``limit``, or ``at most`` where the minima are a set and γ > 1: the least quasi-norm on it is not known then."""
    return "limit" if gamma <= 1 or cost.settled else "at most"


def predicted_saddle(cost: QuadraticCost, depth: int, width: float, gamma: float) -> float | None:
    """Predicted d_s; None at γ = 1, and where the cost has no saddle. :func:`saddle_claim` says what it is worth."""
    at_origin = _rank_at_origin(cost)
    if gamma == 1 or not at_origin:
        return None
    dead = min(least_rank(cost)[0], at_origin) if gamma < 1 else at_origin
    return (kappa(depth) * dead) ** 0.5 * float(width) ** ((1 - gamma) / 2)


def saddle_claim(cost: QuadraticCost, depth: int, gamma: float) -> str:
    """``limit``, or ``at least`` where no saddle is known whose ∇C has the least rank that is possible."""
    if gamma >= 1:
        return "limit"
    least, exists = least_rank(cost)
    known = min((matrix.dead for matrix in facts_of(cost, depth).saddles), default=least)
    return "limit" if exists or known <= least else "at least"


def least_rank(cost: QuadraticCost) -> tuple[int, bool]:
    """The least rank that ∇C ≠ 0 can have at a saddle, and whether there is one; no search is asked.

    - Factorization and regression: 1, every single mode may be the one that is dead (reduced-rank regression).
    - H positive definite: 1 (:mod:`dlnphase.distances.conjugate`).
    - Completion: no less than 1; a saddle of that kind has to be exhibited.
    - M generic measurements: ∇C lies in a space of M dimensions, which meets the matrices of rank at most m outside 0
      only if (d_out − m)(d_in − m) < M, their codimension (Harris 1992, Algebraic Geometry, lecture 12); it does for
      certain if it meets {matrices of m given columns}: D − M < m·max(d_out, d_in).
    """
    if cost.settled:
        return 1, True
    if cost.hessian.seen is not None:
        return 1, False
    d_out, d_in = cost.shape
    values = torch.linalg.eigvalsh(cost.operator)
    seen = int((values > indistinct(cost.resolution) * values[-1]).sum())
    least = next(m for m in range(1, min(cost.shape) + 1) if (d_out - m) * (d_in - m) < seen)
    return least, d_out * d_in - seen < least * max(d_out, d_in)


def predicted_regime(gamma: float) -> str:
    """The regime as w → ∞: lazy below γ = 1, mean-field at it, saddle-to-saddle above."""
    return "lazy" if gamma < 1 else "mean-field" if gamma == 1 else "saddle-to-saddle"


def _rank_at_origin(cost: QuadraticCost) -> int:
    s = torch.linalg.svdvals(cost.gradient(torch.zeros_like(cost.minimizer)[None])[0])
    return int((s > indistinct(cost.resolution) * s[0]).sum()) if float(s[0]) > 0 else 0

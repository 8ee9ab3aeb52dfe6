"""Is the minimum that a path ends in sparse?

Small initialisations are conjectured to end in matrices of low rank; rank, nuclear norm ‖A‖_* = Σσ_i and the Schatten
quasi-norm (Σσ_i^(2/L))^(L/2) say how low (L·Σσ_i^(2/L) is the least ‖θ‖² of a network of depth L that realises A).
They are to be read beside those of the planted matrix and of the nuclear-norm minimiser of the same data,

    min ‖A‖_*   subject to   C(A) = C_min,  that is  H(A − Â) = 0,

found here by the alternating direction method of multipliers and certified by a feasible dual point: Λ in the range
of H with ‖Λ‖_op ≤ 1 gives the lower bound ⟨Λ, Â⟩ ≤ min ‖A‖_* (Boyd et al. 2011; Candès and Recht 2009).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.critical.hostcost import DISTINCT, HostCost
from dlnphase.critical.matrix import refine_matrix
from dlnphase.findings import Norms, Sparsity

GAP = 1e-5  # relative duality gap asked for
MAX_ITERATIONS = 5_000  # of the method of multipliers on a small matrix: time against the gap that is told
BUDGET = 400_000_000  # d_out·d_in·min(d_out, d_in) times iterations
LARGEST = 4096  # d_out·d_in above which no nuclear-norm minimiser is sought


@dataclass(frozen=True)
class NuclearMinimum:
    """The matrix of least nuclear norm that fits the data as well as any.

    Attributes:
        A: feasible to round-off, shape (d_out, d_in).
        nuclear: ‖A‖_*.
        gap: ‖A‖_* minus a certified lower bound, relative to the bound.
        iterations: of the method of multipliers.
    """

    A: np.ndarray
    nuclear: float
    gap: float
    iterations: int

    @property
    def rank(self) -> int:
        """Number of modes: of singular values above 1e-6 of the largest, and above what the gap leaves open."""
        s = np.linalg.svd(self.A, compute_uv=False)
        return int((s > max(DISTINCT * s[0], self.gap * self.nuclear)).sum())


def norms_of(a: np.ndarray, depth: int, *, rank: int | None = None) -> Norms:
    """Rank, nuclear norm and Schatten-2/L quasi-norm of a matrix."""
    s = np.linalg.svd(np.asarray(a, dtype=float), compute_uv=False)
    if rank is None:
        rank = int((s > DISTINCT * s[0]).sum()) if s[0] > 0 else 0
    return Norms(rank, float(s.sum()), float(np.sum(s ** (2 / depth)) ** (depth / 2)))


def end_of_path(
    matrices: np.ndarray,
    cost: QuadraticCost,
    depth: int,
    *,
    target: np.ndarray | None = None,
    host: HostCost | None = None,
) -> Sparsity:
    """Judge the matrices at the end of one or more paths on the same data.

    Args:
        matrices: (d_out, d_in), or several of them, (N, d_out, d_in), of which means (and the commonest rank) are told.
        cost: training cost.
        depth: L.
        target: planted matrix, or None.
        host: the cost where the ends of these paths were asked for already, or None.
    """
    host = HostCost(cost) if host is None else host
    stack = np.asarray(matrices, dtype=float).reshape(-1, *cost.shape)
    ends = [refine_matrix(a, host) for a in stack]
    ranks = [e.rank if e.converged and e.next_mode == 0.0 else None for e in ends]  # None: of A as it stands
    each = [norms_of(a, depth, rank=rank) for a, rank in zip(stack, ranks, strict=True)]
    reached = Norms(
        Counter(n.rank for n in each).most_common(1)[0][0],
        float(np.mean([n.nuclear for n in each])),
        float(np.mean([n.schatten for n in each])),
    )
    planted = None if target is None else norms_of(target, depth)
    minimum = None if cost.unique or stack[0].size > LARGEST else nuclear_minimum(cost)
    least = None if minimum is None else norms_of(minimum.A, depth, rank=minimum.rank)
    gap = None if minimum is None else minimum.gap
    words = _words(reached, planted, least, all(e.converged and e.next_mode == 0.0 for e in ends))
    return Sparsity(2 / depth, reached, planted, least, gap, words)


def _words(reached: Norms, planted: Norms | None, least: Norms | None, at_minimum: bool) -> str:
    if not at_minimum:
        return (
            "It stopped as near to the minimum as --tol asks, not at it: to the last digit its matrix has rank "
            f"{reached.rank}, and a smaller --tol goes on."
        )
    out = f"The minimum reached has rank {reached.rank} and nuclear norm {reached.nuclear:.5g}"
    if planted is not None:
        same = planted.rank == reached.rank and abs(reached.nuclear / max(planted.nuclear, 1e-300) - 1) < 1e-2
        if same:
            out += f", those of the planted matrix to {abs(reached.nuclear / planted.nuclear - 1):.1g}"
        else:
            out += f", the planted matrix {planted.rank} and {planted.nuclear:.5g}"
    if least is not None:
        out += f"; the least nuclear norm that fits the data is {least.nuclear:.5g} (rank {least.rank})"
    return out + "."


def nuclear_minimum(cost: QuadraticCost, *, gap: float = GAP, max_iterations: int | None = None) -> NuclearMinimum:
    """The minimiser of the nuclear norm over argmin C, with a certificate.

    Stops at the relative duality gap asked for, or after ``max_iterations`` (by default as many as are worth a few
    seconds, at most 5000) with the gap that was reached.
    """
    d_out, d_in = cost.shape
    if max_iterations is None:
        max_iterations = int(min(MAX_ITERATIONS, max(BUDGET // (d_out * d_in * min(d_out, d_in)), 100)))
    center = cost.minimizer.detach().cpu().double().numpy()
    fixed = cost.hessian.projection(cost.resolution)
    scale = float(np.linalg.norm(center, 2))
    if scale == 0.0:
        return NuclearMinimum(center, 0.0, 0.0, 0)
    z, dual, step = center.copy(), np.zeros_like(center), scale
    best = NuclearMinimum(center, float(np.linalg.norm(center, "nuc")), np.inf, 0)
    for iteration in range(1, max_iterations + 1):
        x = _shrink(z - dual, step)
        over = 1.6 * x + (1 - 1.6) * z  # over-relaxation
        before = z
        z = over + dual
        z = z - fixed(z - center)  # feasible: agrees with the data
        dual = dual + over - z
        if iteration % 10 == 0:
            found = _certified(z, dual, step, center, fixed, iteration)
            if found.gap < best.gap:
                best = found
            if best.gap <= gap:
                break
            primal, change = float(np.linalg.norm(x - z)), float(np.linalg.norm(z - before))
            step, dual = _rebalanced(step, dual, primal, change, iteration)
    return best


def _rebalanced(
    step: float, dual: np.ndarray, primal: float, change: float, iteration: int
) -> tuple[float, np.ndarray]:
    """Keep primal and dual residuals within a factor of each other; less often later, so that the method converges."""
    if iteration > 2000 and iteration % 500:
        return step, dual
    factor = 0.5 if primal > 5 * change else 2.0 if change > 5 * primal else 1.0
    # The scaled dual is the dual times the step: it changes along with it.
    return step * factor, dual * factor


def _certified(
    z: np.ndarray,
    dual: np.ndarray,
    step: float,
    center: np.ndarray,
    fixed: Callable[[np.ndarray], np.ndarray],
    iteration: int,
) -> NuclearMinimum:
    multiplier = fixed(-dual / step)
    multiplier = multiplier / max(1.0, float(np.linalg.norm(multiplier, 2)))
    lower = float(np.sum(multiplier * center))
    value = float(np.linalg.norm(z, "nuc"))
    return NuclearMinimum(z, value, (value - lower) / value if value > 0 else 0.0, iteration)


def _shrink(a: np.ndarray, by: float) -> np.ndarray:
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    return (u * np.maximum(s - by, 0.0)) @ vt

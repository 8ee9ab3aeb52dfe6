"""Critical matrices of a cost at fixed rank: sets of modes (Eckart–Young), or least squares on GV = 0, UᵀG = 0."""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares, minimize

from gauntlet.reference.costs import Quadratic

ZERO = 1e-8  # a residual below this, relative to the gradient's own scale, solves the equations
VANISHED = 1e-10  # singular values below this, relative to the size of the solution, are none
EQUAL = 1e-10  # modes closer than this, relatively, are one: every direction between them is a mode
WHITENED = 1e7  # condition number of Σ^½ up to which matrices are looked for in whitened coordinates


def critical_near(a: np.ndarray, rank: int, cost: Quadratic) -> np.ndarray | None:
    """The critical matrix of exactly this rank that is nearest to A, or that Gauss–Newton reaches; None where none is.

    In coordinates in which the cost is ½‖A − Â‖² critical matrices are sets of modes of Â. Elsewhere, and where modes
    of equal size make a continuum of them, Gauss–Newton sets out from A cut to that rank. For a regression the
    coordinates are those of AΣ^½: where inputs vary little A is far from what it will be long after the rest is
    learned, and cut in its own it would lose the rest.
    """
    if rank == 0:
        return np.zeros_like(a)
    if rank > min(a.shape):
        return None
    root = cost.whitening()
    if root is None or np.linalg.cond(root) > WHITENED:
        return _reached(a, rank, cost)
    flat = Quadratic.of_rows(np.eye(a.size), (cost.solution.reshape(a.shape) @ root).ravel(), a.shape)
    modes = _of_modes(a @ root, rank, flat.solution.reshape(a.shape))
    point = _reached(a @ root, rank, flat) if modes is None else modes
    return None if point is None else np.linalg.solve(root, point.T).T


def _of_modes(a: np.ndarray, rank: int, solution: np.ndarray) -> np.ndarray | None:
    """The nearest sum of so many modes of Â; None where it has too few, or a mode left out equals one that is kept.

    ‖A − Σ_S s_i u_i v_iᵀ‖² = ‖A‖² + Σ_S s_i(s_i − 2 u_iᵀAv_i): the modes are chosen one by one.
    """
    u, s, vt = np.linalg.svd(solution, full_matrices=False)
    real = int((s > EQUAL * s[0]).sum())
    if real < rank:
        return None
    order = np.argsort((s * (s - 2 * np.einsum("ki,kl,il->i", u, a, vt)))[:real])
    kept, left = order[:rank], order[rank:]
    if left.size and np.abs(s[kept][:, None] - s[left][None]).min() <= EQUAL * s[0]:
        return None
    return (u[:, kept] * s[kept]) @ vt[kept]


def _reached(a: np.ndarray, rank: int, cost: Quadratic) -> np.ndarray | None:
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    if s[rank - 1] <= 0:
        return None
    root = np.sqrt(s[:rank])
    size = float(np.linalg.norm(cost.gradient(np.zeros_like(a)))) or float(np.linalg.norm(cost.gradient(a)))
    unit = float(root[0])
    if size == 0.0:
        return None

    def factors(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cut = a.shape[0] * rank
        return z[:cut].reshape(a.shape[0], rank), z[cut:].reshape(rank, a.shape[1])

    def equations(z: np.ndarray) -> np.ndarray:
        left, right = factors(z)
        g = cost.gradient(left @ right) / size
        return np.concatenate([(g @ right.T).ravel(), (left.T @ g).ravel()]) / unit

    z0 = np.concatenate([(u[:, :rank] * root).ravel(), (root[:, None] * vt[:rank]).ravel()])
    found = least_squares(equations, z0, method="trf", xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=200)
    left, right = factors(found.x)
    point = left @ right
    u, s, vt = np.linalg.svd(point, full_matrices=False)
    if s[rank - 1] <= VANISHED * np.linalg.norm(cost.solution):
        return None  # the factors went to zero, where the equations hold for nothing
    g = cost.gradient(point) / size
    left_over = max(float(np.abs(g @ vt[:rank].T).max()), float(np.abs(u[:, :rank].T @ g).max()))
    return point if left_over <= ZERO else None


def least_rank(a: np.ndarray, cost: Quadratic, enough: float, width: int, offset: float = 0.0) -> tuple[int, int]:
    """Ranks that can be told of an end A whose excess cost is at most ``enough`` above ``offset``.

    The lower one is the least rank at which a descent from the truncated A gets to ``enough`` (less would claim a fit
    that is none); the higher one the least at which truncating alone stays below 100 × enough.
    """
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    full = min(*a.shape, width)

    def truncated(k: int) -> float:
        return cost.excess((u[:, :k] * s[:k]) @ vt[:k]) - offset

    high = next((k for k in range(full + 1) if truncated(k) <= enough), full)
    low = next((k for k in range(full + 1) if _fitted(u, s, vt, k, cost) - offset <= 2 * enough), full)
    return min(low, high), high


def _fitted(u: np.ndarray, s: np.ndarray, vt: np.ndarray, k: int, cost: Quadratic) -> float:
    if k == 0:
        return cost.excess(np.zeros(cost.shape))
    d_out, d_in = cost.shape
    root = np.sqrt(s[:k])
    unit = max(cost.excess(np.zeros(cost.shape)), 1e-300)

    def value(z: np.ndarray) -> tuple[float, np.ndarray]:
        left, right = z[: d_out * k].reshape(d_out, k), z[d_out * k :].reshape(k, d_in)
        g = cost.gradient(left @ right)
        return cost.excess(left @ right) / unit, np.concatenate([(g @ right.T).ravel(), (left.T @ g).ravel()]) / unit

    z0 = np.concatenate([(u[:, :k] * root).ravel(), (root[:, None] * vt[:k]).ravel()])
    found = minimize(value, z0, jac=True, method="BFGS", options={"gtol": 1e-14, "maxiter": 500})
    return float(found.fun) * unit

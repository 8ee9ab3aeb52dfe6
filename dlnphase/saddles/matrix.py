"""Floor 2: the critical point of a cost, at fixed rank, that a matrix is near.

A matrix A_c = U S Vᵀ of rank r is the end-to-end matrix of a critical point of every deep enough network when
UᵀG = 0 and GV = 0 for G = ∇C(A_c): exactly the critical points of C on the manifold of matrices of rank r.
They are found by Newton's method on that manifold (Riemannian Hessian of the fixed-rank manifold: Vandereycken 2013,
"Low-rank matrix completion by Riemannian optimization", section 2.3), which squares the error at each step; directions
in which the critical points form a continuum (repeated singular values, unobserved entries) are left alone.

The rank is not cut from the singular values of A: candidate ranks are refined, and that one counts whose critical
point is nearest in its own units, which are the smallest mode it has and the size of the mode it has not learned yet.
Minima may form a continuum that holds points of every rank; of those, the smallest rank that is near counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from dlnphase.costs import Cost
from dlnphase.saddles.visits import Visit

NEAR_SADDLE = 0.5  # a saddle is near when A is closer to it than half of its smallest learned and of its next mode
NEAR = 0.1  # nearer than this, no other candidate is looked at; and what a low-rank minimum must satisfy
ROUND_OFF = 1e-12  # gradients below this, in the natural unit, are zero
ZERO_MODE = 1e-11  # ‖∇C‖_op below this, in the natural unit, is a minimum
SAME = 1e-8  # two critical matrices closer than this, relatively, are one
MAX_NEWTON = 60
NULL_DIRECTION = 1e-9  # Hessian eigenvalues below this, relative to the largest, are directions of no change


@dataclass(frozen=True)
class MatrixPoint:
    """A critical point of C at fixed rank.

    Attributes:
        A: the matrix, exactly of this rank up to round-off, shape (d_out, d_in).
        rank: r.
        cost: C(A).
        gradient_norm: Frobenius norm of (UᵀG, GV), what must vanish, over ``scale``.
        scale: natural unit of gradients of C: ‖∇C(0)‖_F (or ‖HA‖_F where that is larger).
        distance: ‖A − A_given‖_F.
        nearness: distance over the smaller of A's smallest singular value and the size the next mode would grow to.
        converged: whether the gradient is at round-off and the point is near; else A is merely the best candidate.
        next_mode: s = ‖∇C(A)‖_op, 0 at a minimum.
    """

    A: np.ndarray
    rank: int
    cost: float
    gradient_norm: float
    scale: float
    distance: float
    nearness: float
    converged: bool
    next_mode: float


class HostCost:
    """A cost on host arrays in float64, for small linear algebra."""

    def __init__(self, cost: Cost) -> None:
        from dlnphase.backend import resolve_backend

        mover = getattr(cost, "to", None)
        self.cost: Cost = mover(resolve_backend("cpu")) if mover is not None else cost
        self.shape = self.cost.shape
        self.minimum = self.cost.minimum
        self.scale = float(np.linalg.norm(self.gradient(np.zeros(self.shape))))

    def gradient(self, a: np.ndarray) -> np.ndarray:
        """∇C(A), shape (d_out, d_in)."""
        return self.cost.gradient(torch.as_tensor(a)[None])[0].numpy()

    def value(self, a: np.ndarray) -> float:
        """C(A)."""
        return self.minimum + self.excess(a)

    def excess(self, a: np.ndarray) -> float:
        """C(A) − C_min, never negative by round-off."""
        return max(float(self.cost.excess(torch.as_tensor(a)[None])[0]), 0.0)

    def curvature(self, v: np.ndarray, a: np.ndarray) -> np.ndarray:
        """Hessian of C at A on a stack of matrices V, shape (n, d_out, d_in)."""
        v = torch.as_tensor(np.ascontiguousarray(v))
        return self.cost.apply_curvature(v, torch.as_tensor(a)[None].expand(v.shape)).numpy()


def refine_matrix(a: np.ndarray, cost: Cost | HostCost, *, rank: int | None = None) -> MatrixPoint:
    """The critical point of C at fixed rank that A is near.

    Args:
        a: shape (d_out, d_in).
        cost: any cost with ``gradient``, ``excess`` and ``apply_curvature``; moved to the CPU in float64.
        rank: look at this rank only; None tells the rank, too.

    Returns:
        The point that is near; where none is, the nearest one, with ``converged`` False.
    """
    host = cost if isinstance(cost, HostCost) else HostCost(cost)
    a = np.asarray(a, dtype=float)
    if rank is not None:
        return _refine_at(a, host, rank)
    s = np.linalg.svd(a, compute_uv=False)
    tails = [float(np.linalg.norm(s[r:])) for r in range(len(s) + 1)]
    # Where a rank-r matrix leaves out as much as it keeps, its critical point can hardly be near: look there last.
    likely = [r for r in range(len(s) + 1) if r == 0 or tails[r] <= 0.7 * s[r - 1]]
    candidates: list[MatrixPoint] = []
    for r in likely + [r for r in range(len(s) + 1) if r not in likely]:
        point = _refine_at(a, host, r)
        if point.converged and point.nearness <= NEAR:
            return point
        candidates.append(point)
        if r == likely[-1] and any(p.converged for p in candidates):
            break
    return _best(candidates, _refine_at(a, host, len(s)))


def _best(candidates: list[MatrixPoint], full: MatrixPoint) -> MatrixPoint:
    """The candidate nearest in its own units, or the full-rank minimum where that is by far the nearest in space."""
    best = min(candidates, key=lambda p: (not p.converged, p.nearness))
    others = [p.distance for p in candidates if p.next_mode > 0 and p.gradient_norm <= ROUND_OFF]
    if not best.converged and full.next_mode == 0 and full.distance <= NEAR * min(others, default=np.inf):
        return replace(full, converged=True)
    return best


def merge_same(visits: Sequence[Visit], points: Sequence[MatrixPoint]) -> tuple[list[Visit], list[MatrixPoint]]:
    """Join neighbouring visits of one and the same critical matrix; the closest record is that of the nearer one."""
    kept: list[tuple[Visit, MatrixPoint]] = []
    for visit, point in zip(visits, points, strict=True):
        if kept:
            before, same = kept[-1]
            size = max(float(np.linalg.norm(point.A)), float(np.linalg.norm(same.A)))
            if same.rank == point.rank and np.linalg.norm(point.A - same.A) <= SAME * size:
                near, nearest = (before, same) if same.distance <= point.distance else (visit, point)
                prominence = max(before.prominence, visit.prominence)
                kept[-1] = (Visit(near.index, before.enter, visit.exit, prominence), nearest)
                continue
        kept.append((visit, point))
    return [v for v, _ in kept], [p for _, p in kept]


def is_stable(point: MatrixPoint, cost: HostCost) -> bool:
    """Whether a critical point is a (weak) local minimum of C among matrices of its rank."""
    if point.rank == 0:
        return True
    frame, g, _, _ = _gradient_at(point.A, cost, point.rank)
    values = np.linalg.eigvalsh(_riemannian_hessian(frame, cost, point.A, g))
    return bool(values[0] >= -NULL_DIRECTION * np.abs(values).max())


def _refine_at(a: np.ndarray, host: HostCost, rank: int) -> MatrixPoint:
    """Newton's method at one rank from the truncation of A, within a trust region on ‖grad‖."""
    current = _truncate(a, rank)
    frame, g, gradient, norm = _gradient_at(current, host, rank)
    radius = 0.5 * float(frame.s[-1]) if rank else 0.0
    for _ in range(MAX_NEWTON):
        if norm <= 1e-16 * host.scale or radius <= 1e-15 * float(np.linalg.norm(current)):
            break
        step = _newton_step(frame, host, current, g, gradient, radius)
        following = _truncate(current + frame.ambient(step), rank)
        trial = _gradient_at(following, host, rank)
        length = float(np.linalg.norm(step))
        if trial[3] < norm:
            stalled = trial[3] > 0.5 * norm and norm <= ROUND_OFF * host.scale
            radius = max(radius, 2 * length) if trial[3] < 0.5 * norm else radius
            current, (frame, g, gradient, norm) = following, trial
            if stalled:
                break
        elif norm <= 0.1 * ROUND_OFF * host.scale:
            break  # at round-off already
        else:
            radius = 0.25 * length
    return _judge(a, current, rank, norm, host)


def _gradient_at(a: np.ndarray, host: HostCost, rank: int) -> tuple[_Frame, np.ndarray, np.ndarray, float]:
    frame = _Frame(a, rank)
    g = host.gradient(a)
    gradient = frame.coordinates(g)
    return frame, g, gradient, float(np.linalg.norm(gradient))


def _judge(a: np.ndarray, point: np.ndarray, rank: int, norm: float, host: HostCost) -> MatrixPoint:
    g = host.gradient(point)
    u, s, vt = np.linalg.svd(g)
    scale = max(host.scale, float(np.linalg.norm(g - host.gradient(np.zeros_like(a)))), np.finfo(float).tiny)
    at_minimum = s[0] <= ZERO_MODE * scale
    units = []
    if not at_minimum:
        pair = np.outer(u[:, 0], vt[0])
        bend = float(np.sum(pair * host.curvature(pair[None], point)[0]))
        units.append(float(s[0]) / bend if bend > 0 else np.inf)
    if rank:
        units.append(float(np.linalg.svd(point, compute_uv=False)[rank - 1]))
    distance = float(np.linalg.norm(a - point))
    unit = min(units, default=np.inf)  # a minimum at rank 0 is the only critical point there is: anything is near it
    nearness = distance / unit if unit > 0 else np.inf
    converged = norm <= ROUND_OFF * scale and nearness <= (NEAR if at_minimum else NEAR_SADDLE)
    next_mode = 0.0 if at_minimum else float(s[0])
    value = host.value(point)
    return MatrixPoint(point, rank, value, norm / scale, scale, distance, nearness, converged, next_mode)


class _Frame:
    """Tangent space of the rank-r matrices at A = U S Vᵀ, in coordinates (M, B, C): ξ = U M Vᵀ + U⊥ B Vᵀ + U Cᵀ V⊥ᵀ."""

    def __init__(self, a: np.ndarray, rank: int) -> None:
        u, s, vt = np.linalg.svd(a)
        self.rank = rank
        self.u, self.u_perp = u[:, :rank], u[:, rank:]
        self.v, self.v_perp = vt[:rank].T, vt[rank:].T
        self.s = s[:rank]

    def coordinates(self, z: np.ndarray) -> np.ndarray:
        """Orthogonal projection of matrices z (…, d_out, d_in) onto the tangent space, flat (…, n)."""
        zv = z @ self.v
        parts = (self.u.T @ zv, self.u_perp.T @ zv, self.v_perp.T @ (np.swapaxes(z, -1, -2) @ self.u))
        return np.concatenate([p.reshape(*z.shape[:-2], -1) for p in parts], -1)

    def split(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(M, B, C) of flat coordinates (…, n)."""
        r, p, q = self.rank, self.u_perp.shape[1], self.v_perp.shape[1]
        m, b, c = np.split(x, [r * r, r * r + p * r], -1)
        lead = x.shape[:-1]
        return m.reshape(*lead, r, r), b.reshape(*lead, p, r), c.reshape(*lead, q, r)

    def ambient(self, x: np.ndarray) -> np.ndarray:
        """The tangent matrices of flat coordinates, shape (…, d_out, d_in)."""
        m, b, c = self.split(x)
        return (self.u @ m + self.u_perp @ b) @ self.v.T + self.u @ np.swapaxes(c, -1, -2) @ self.v_perp.T


def _riemannian_hessian(frame: _Frame, host: HostCost, a: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Hessian of C on the manifold of matrices of this rank, in the coordinates of the frame."""
    size = a.size - frame.u_perp.shape[1] * frame.v_perp.shape[1]
    basis = np.eye(size)
    hessian = frame.coordinates(host.curvature(frame.ambient(basis), a))
    _, b, c = frame.split(basis)
    cross = frame.u_perp.T @ g @ frame.v_perp
    zero = np.zeros((size, frame.rank * frame.rank))
    bend = (cross @ (c / frame.s), cross.T @ (b / frame.s))
    hessian = hessian + np.concatenate([zero, *(x.reshape(size, -1) for x in bend)], -1)
    return (hessian + hessian.T) / 2


def _newton_step(
    frame: _Frame, host: HostCost, a: np.ndarray, g: np.ndarray, gradient: np.ndarray, radius: float
) -> np.ndarray:
    """−H⁺ grad in coordinates, damped to this length; directions of (nearly) zero curvature take no step."""
    values, vectors = np.linalg.eigh(_riemannian_hessian(frame, host, a, g))
    kept = np.abs(values) > NULL_DIRECTION * np.abs(values).max()
    values, vectors = values[kept], vectors[:, kept]
    parts = vectors.T @ gradient

    def damped(mu: float) -> np.ndarray:
        return parts * values / (values**2 + mu**2)

    size = np.abs(values).max(initial=0.0)
    if np.linalg.norm(damped(0.0)) <= radius:
        return -vectors @ damped(0.0)
    # ‖step‖ falls with the damping: bisect its logarithm, a factor is all the precision that a trust region needs.
    low, high = 1e-12 * size, 1e12 * size
    while high > 1.1 * low:
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if np.linalg.norm(damped(middle)) > radius else (low, middle)
    return -vectors @ damped(high)


def _truncate(a: np.ndarray, rank: int) -> np.ndarray:
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]

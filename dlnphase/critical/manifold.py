"""Matrices of one rank as a manifold: tangent spaces, Hessians, damped Newton steps.

Riemannian Hessian of the fixed-rank manifold: Vandereycken 2013, "Low-rank matrix completion by Riemannian
optimization", section 2.3. Everything here is in the flat coordinates of :class:`dlnphase.critical.hostcost.HostCost`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dlnphase.critical.hostcost import HostCost

NULL_DIRECTION = 1e-9  # Hessian eigenvalues below this, relative to the largest, are directions of no change


class Frame:
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


def riemannian_hessian(frame: Frame, host: HostCost, a: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Hessian of C on the manifold of matrices of this rank, in the coordinates of the frame."""
    size = a.size - frame.u_perp.shape[1] * frame.v_perp.shape[1]
    basis = np.eye(size)
    hessian = frame.coordinates(host.flat_curvature(frame.ambient(basis), a))
    _, b, c = frame.split(basis)
    cross = frame.u_perp.T @ g @ frame.v_perp
    zero = np.zeros((size, frame.rank * frame.rank))
    bend = (cross @ (c / frame.s), cross.T @ (b / frame.s))
    hessian = hessian + np.concatenate([zero, *(x.reshape(size, -1) for x in bend)], -1)
    return (hessian + hessian.T) / 2


def newton_step(values: np.ndarray, vectors: np.ndarray, gradient: np.ndarray, radius: float) -> np.ndarray:
    """−H⁺ grad from the eigenpairs of H, damped to this length; directions of no curvature take no step."""
    kept = np.abs(values) > NULL_DIRECTION * np.abs(values).max()
    values, vectors = values[kept], vectors[:, kept]
    parts = vectors.T @ gradient
    scale = float(np.abs(values).max(initial=0.0))
    return -vectors @ _within(radius, scale, lambda mu: parts / (values * (1 + (mu / values) ** 2)))


def descent_step(values: np.ndarray, vectors: np.ndarray, gradient: np.ndarray, radius: float) -> np.ndarray:
    """−|H|⁺ grad, a direction in which C falls, damped to this length; directions of no curvature take no step."""
    kept = np.abs(values) > NULL_DIRECTION * np.abs(values).max()
    size, vectors = np.abs(values[kept]), vectors[:, kept]
    parts = vectors.T @ gradient
    return -vectors @ _within(radius, size.max(initial=0.0), lambda mu: parts / (size + mu))


def _within(radius: float, scale: float, damped: Callable[[float], np.ndarray]) -> np.ndarray:
    """The least damped step that is not longer than the radius, to ten percent of the damping."""
    if np.linalg.norm(damped(0.0)) <= radius:
        return damped(0.0)
    low, high = 1e-12 * scale, 1e12 * scale
    while high > 1.1 * low:
        middle = low * float(np.sqrt(high / low))  # their product could leave the range of numbers
        low, high = (middle, high) if np.linalg.norm(damped(middle)) > radius else (low, middle)
    return damped(high)


def truncate(a: np.ndarray, rank: int) -> np.ndarray:
    """The best approximation of A by a matrix of this rank (Eckart–Young)."""
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]

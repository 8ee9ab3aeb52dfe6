"""Matrices of one rank as a manifold: tangent spaces, products with Hessians, the way back from a tangent.

Riemannian Hessian of the fixed-rank manifold: Vandereycken 2013, "Low-rank matrix completion by Riemannian
optimization", section 2.3. Everything here is in the flat coordinates of :class:`dlnphase.critical.hostcost.HostCost`
and costs what matrices of 2r columns cost: no basis of the complement of U or V is formed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np

from dlnphase.backend import stream
from dlnphase.critical.hostcost import HostCost

TIE = 1e-6  # singular values that agree to this, relatively, are equal
DENSE_PAIR = 100  # rows or columns, whichever are fewer, up to which all singular values cost less than the largest


@dataclass(frozen=True)
class LowRank:
    """A matrix by its thin singular value decomposition, A = U diag(s) Vᵀ.

    Attributes:
        u, s, v: shapes (d_out, r), (r,), (d_in, r).
    """

    u: np.ndarray
    s: np.ndarray
    v: np.ndarray

    @classmethod
    def of(cls, a: np.ndarray, rank: int | None = None) -> LowRank:
        """The best approximation of A by a matrix of this rank (Eckart–Young); all of A for None."""
        u, s, vt = np.linalg.svd(a, full_matrices=False)
        return cls(u, s, vt.T).truncated(len(s) if rank is None else rank)

    def truncated(self, rank: int) -> LowRank:
        """The leading modes of this matrix."""
        return LowRank(self.u[:, :rank], self.s[:rank], self.v[:, :rank])

    @cached_property
    def matrix(self) -> np.ndarray:
        """A, shape (d_out, d_in)."""
        return (self.u * self.s) @ self.v.T

    @cached_property
    def mark(self) -> bytes:
        """The same for the same numbers, and for no others."""
        return blake2b(b"".join(np.ascontiguousarray(x).tobytes() for x in (self.s, self.u, self.v))).digest()


class Frame:
    """Tangent space of the rank-r matrices at A = U S Vᵀ: ξ = U M Vᵀ + B Vᵀ + U Cᵀ with UᵀB = 0 and VᵀC = 0.

    Coordinates are (M, B, C), row by row in one vector of ``size`` numbers. They keep lengths; as B and C are held with
    all rows, 2r² of the numbers are spoken for by the two conditions, which every vector made here fulfils.
    """

    def __init__(self, point: LowRank) -> None:
        self.point = point
        self.rank, (self.rows, self.columns) = len(point.s), (len(point.u), len(point.v))
        self.size = self.rank * (self.rank + self.rows + self.columns)
        self.dimension = self.rank * (self.rows + self.columns - self.rank)

    def coordinates(self, z: np.ndarray) -> np.ndarray:
        """Orthogonal projection of matrices z (…, d_out, d_in) onto the tangent space, (…, size)."""
        u, v = self.point.u, self.point.v
        right, left = z @ v, np.swapaxes(z, -1, -2) @ u
        m = u.T @ right
        return self._joined(m, right - u @ m, left - v @ np.swapaxes(m, -1, -2))

    def gradient(self, host: HostCost, g: np.ndarray) -> np.ndarray:
        """The gradient on the manifold, weight decay included, for g = ∇C at A in flat coordinates, shape (size,)."""
        out = self.coordinates(g)
        if host.decay is not None and self.rank:
            out[: self.rank**2] += np.diag(host.decay.slope(self.point.s)).ravel()
        return out

    def split(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(M, B, C) of coordinates (…, size)."""
        r = self.rank
        m, b, c = np.split(x, [r * r, r * r + self.rows * r], -1)
        lead = x.shape[:-1]
        return m.reshape(*lead, r, r), b.reshape(*lead, self.rows, r), c.reshape(*lead, self.columns, r)

    def tangent(self, x: np.ndarray) -> np.ndarray:
        """The coordinates of a tangent that are closest to any numbers (…, size)."""
        m, b, c = self.split(x)
        u, v = self.point.u, self.point.v
        return self._joined(m, b - u @ (u.T @ b), c - v @ (v.T @ c))

    def ambient(self, x: np.ndarray) -> np.ndarray:
        """The tangent matrices of coordinates, shape (…, d_out, d_in)."""
        m, b, c = self.split(x)
        u, v = self.point.u, self.point.v
        left = np.concatenate([u @ m + b, np.broadcast_to(u, b.shape)], -1)
        return left @ np.swapaxes(np.concatenate([np.broadcast_to(v, c.shape), c], -1), -1, -2)

    def moved(self, x: np.ndarray) -> LowRank:
        """The matrix of this rank that is closest to A + ξ, for the coordinates of one tangent."""
        m, b, c = self.split(x)
        one, r = np.eye(self.rank), self.rank
        q_left, r_left = np.linalg.qr(np.hstack([self.point.u, b]))
        q_right, r_right = np.linalg.qr(np.hstack([self.point.v, c]))
        core = np.block([[np.diag(self.point.s) + m, one], [one, np.zeros((r, r))]])
        u, s, vt = np.linalg.svd(r_left @ core @ r_right.T)
        return LowRank(q_left @ u[:, :r], s[:r], q_right @ vt[:r].T)

    def basis(self) -> np.ndarray:
        """An orthonormal basis of the tangent space, shape (dimension, size): for small problems."""
        r, p, q = self.rank, self.rows - self.rank, self.columns - self.rank
        u_perp, v_perp = (np.linalg.qr(x, mode="complete")[0][:, r:] for x in (self.point.u, self.point.v))
        one = np.eye(r)
        out = np.zeros((self.dimension, self.size))
        out[: r * r, : r * r] = np.eye(r * r)
        middle = r * r + self.rows * r
        out[r * r : r * r + p * r, r * r : middle] = np.kron(u_perp.T, one)
        out[self.dimension - q * r :, middle:] = np.kron(v_perp.T, one)
        return out

    def hessian(self, host: HostCost, g: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The Hessian on the manifold, as of :meth:`gradient`, applied to tangents (n, size)."""
        m, b, c = self.split(x)
        u, v, s = self.point.u, self.point.v, self.point.s
        image = self.coordinates(host.flat_curvature(self.ambient(x), self.point.matrix))
        right, left = g @ (c / s), g.T @ (b / s)  # the manifold bends: U and V turn against what is left of ∇C
        right, left = right - u @ (u.T @ right), left - v @ (v.T @ left)
        image = image + self._joined(np.zeros((len(x), self.rank, self.rank)), right, left)
        if host.decay is None:
            return image
        turn = host.decay.slope(s) / s
        return image + self._joined(host.decay.turned(s, m), b * turn, c * turn)

    @staticmethod
    def _joined(m: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        return np.concatenate([part.reshape(*m.shape[:-2], -1) for part in (m, b, c)], -1)


def equal_leading(values: np.ndarray) -> int:
    """How many singular values, in falling order, equal the largest."""
    return int((values >= (1 - TIE) * values[0]).sum())


def top_pair(matrix: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The largest singular value of a matrix and its singular vectors, (s, u, v); by Lanczos where it is large."""
    size = float(np.linalg.norm(matrix))
    if min(matrix.shape) > DENSE_PAIR and size > 0:
        from scipy.sparse.linalg import svds  # takes a while to load, and small matrices need none of it

        # It squares the matrix: what is tiny must not vanish.
        u, s, vt = svds(matrix / size, k=1, v0=stream(0, "lanczos").standard_normal(min(matrix.shape)))
        s *= size
    else:
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return float(s[0]), u[:, 0], vt[0]

"""Norms and singular values of matrices, from both sides, with every rounding error of the computation counted.

A matrix is held as a midpoint and a radius: the true one lies within that Frobenius distance. A product in IEEE double
precision is off by at most γ_n‖A‖_F‖B‖_F, γ_n = n·u/(1 − n·u), in whatever order its terms are added (Higham 2002,
section 3.5), and that is what a radius grows by. Extreme eigenvalues of a Gram matrix are enclosed by Cholesky's
factorisation: where it succeeds on G − λ − shift, with the shift of Rump (2006, Verification of positive definiteness),
every eigenvalue of G is above λ. Trusted are IEEE arithmetic and that BLAS multiplies by sums of products; no estimate
of a singular value is.

Scalars are rounded outwards by SLACK, which is thousands of times what their few dozen operations can lose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNIT = float(np.finfo(float).eps) / 2  # u, the unit round-off of double precision
SLACK = 1e-9  # wider by nine digits that nobody reads, for proofs that count no single operation of scalars
WIDER = 10.0  # by so much more room is given where a factorisation refused
ATTEMPTS = 8  # after which the trivial bounds are given
SMALLEST = 1e-200  # a Gram matrix below this could underflow on the way: only the trivial bounds are given then


@dataclass(frozen=True)
class Enclosed:
    """A batch of matrices known up to a radius.

    Attributes:
        mid: shape (B, m, n), double precision.
        radius: ‖true − mid‖_F at most, shape (B,).
    """

    mid: np.ndarray
    radius: np.ndarray

    @classmethod
    def exact(cls, matrix: np.ndarray) -> Enclosed:
        """Floats as given: radius 0."""
        return cls(np.asarray(matrix, dtype=float), np.zeros(len(matrix)))

    @property
    def frobenius(self) -> np.ndarray:
        """An upper bound of ‖·‖_F, shape (B,)."""
        return up(np.linalg.norm(self.mid, axis=(1, 2)) + self.radius)

    def __matmul__(self, other: Enclosed) -> Enclosed:
        """The product, with the rounding of its computation in the radius."""
        left, right = self.frobenius, other.frobenius
        radius = self.radius * right + left * other.radius + gamma(self.mid.shape[2]) * left * right
        return Enclosed(self.mid @ other.mid, up(radius))

    def transposed(self) -> Enclosed:
        """The transposed matrices, exact."""
        return Enclosed(self.mid.swapaxes(1, 2), self.radius)

    def singular_values(self) -> tuple[np.ndarray, np.ndarray]:
        """A lower bound of the least of the min(m, n) singular values and an upper bound of the largest, each (B,)."""
        rows, columns = self.mid.shape[1:]
        small = Enclosed.exact(self.mid if rows <= columns else self.mid.swapaxes(1, 2))
        low, high = eigenvalues(small @ small.transposed())
        least, largest = np.sqrt(low) * (1 - SLACK), up(np.sqrt(high))
        return np.maximum(least - up(self.radius), 0.0), up(largest + self.radius)


def up(value: np.ndarray) -> np.ndarray:
    """Rounded away from zero by SLACK, for numbers that are not negative."""
    return value * (1 + SLACK)


def gamma(terms: int) -> float:
    """γ_n: relative error of a sum of n products, in any order."""
    return terms * UNIT / (1 - terms * UNIT)


def eigenvalues(gram: Enclosed) -> tuple[np.ndarray, np.ndarray]:
    """Bounds 0 ≤ low ≤ λ_min and λ_max ≤ high of symmetric positive semidefinite matrices, each of shape (B,)."""
    mid = (gram.mid + gram.mid.swapaxes(1, 2)) / 2
    trace = up(np.abs(np.trace(mid, axis1=1, axis2=2)) + mid.shape[1] * gram.radius)
    if bool((trace < SMALLEST).any()):
        return np.zeros(len(mid)), trace
    estimates = np.linalg.eigvalsh(mid)
    low = _verified(mid, gram.radius, trace, estimates[:, 0], 1.0)
    high = _verified(-mid, gram.radius, trace, -estimates[:, -1], -1.0)
    return np.maximum(low, 0.0), np.minimum(np.maximum(-high, 0.0), trace)


def _verified(mid: np.ndarray, radius: np.ndarray, trace: np.ndarray, guess: np.ndarray, sign: float) -> np.ndarray:
    """λ such that every eigenvalue of the (signed) matrix is proved to be at least λ; −trace where nothing succeeds."""
    n = mid.shape[1]
    found = np.full(len(mid), -np.inf)
    room = up(2 * radius + 8 * n * gamma(n + 2) * trace)
    for _ in range(ATTEMPTS):
        value = guess - room
        for index in np.flatnonzero(found == -np.inf):
            # ‖mid − true‖ and Rump's shift; the trace of what is factorised is below n·(trace + |λ|).
            size = n * (trace[index] + abs(value[index]))
            shift = up(radius[index] + 2 * gamma(n + 2) * size)
            if _positive(mid[index] - (value[index] + shift) * np.eye(n)):
                found[index] = value[index]
        if np.isfinite(found).all():
            break
        room = room * WIDER
    return np.where(np.isfinite(found), found, 0.0 if sign > 0 else -trace)


def _positive(matrix: np.ndarray) -> bool:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True

"""Damped Newton steps for a symmetric Hessian H: from all its eigenpairs, or from products with it alone.

Both kinds of step come from one space. Where all eigenpairs of H are at hand it is the whole space; where H is large
it is the Krylov space of the gradient, found by Lanczos's method, in which −(H² + μ²)⁻¹H grad is the damped
least-squares problem min ‖Hx + grad‖² + μ²‖x‖² (MINRES of Paige and Saunders 1975 for μ = 0). A step from zero has no
part in directions that H does not see.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dlnphase.critical.lanczos import KrylovSpace

NULL_DIRECTION = 1e-9  # Hessian eigenvalues below this, relative to the largest, are directions of no change
FORCING = 1e-2  # part of the gradient that an undamped step from products may leave
MAX_KRYLOV = 300  # products one step is worth
MEMORY = 1 << 28  # bytes that a basis may take


class EigenSteps:
    """Steps from all eigenpairs of H.

    Args:
        basis: orthonormal rows (n, size) that span the space.
        images: H applied to them, (n, size).
        gradient: (size,).
    """

    def __init__(self, basis: np.ndarray, images: np.ndarray, gradient: np.ndarray) -> None:
        matrix = images @ basis.T
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        self.rising = bool(values[0] >= -NULL_DIRECTION * np.abs(values).max())
        self.definite = bool(values[0] > NULL_DIRECTION * np.abs(values).max())
        kept = np.abs(values) > NULL_DIRECTION * np.abs(values).max()
        self._values, self._vectors = values[kept], vectors[:, kept].T @ basis
        self._parts = self._vectors @ gradient

    def newton(self, radius: float) -> np.ndarray:
        """−H⁺ grad, damped to this length; directions of no curvature take no step."""
        values, parts = self._values, self._parts
        scale = float(np.abs(values).max(initial=0.0))
        return -_within(radius, scale, lambda mu: parts / (values * (1 + (mu / values) ** 2))) @ self._vectors

    def descent(self, radius: float) -> np.ndarray:
        """−|H|⁺ grad, a direction in which C falls, damped to this length; no step where there is no curvature."""
        size, parts = np.abs(self._values), self._parts
        return -_within(radius, size.max(initial=0.0), lambda mu: parts / (size + mu)) @ self._vectors


class Krylov:
    """Steps from products with H, in the Krylov space of the gradient.

    The space grows until an undamped Newton step in it leaves a small part of the gradient, or is longer than the
    radius: the lengths of such steps grow with the space, so that none needs more of it.

    Args:
        apply: x ↦ Hx.
        gradient: (size,), not zero.
        radius: no step will be asked for that is longer.
        floor: what an undamped step may leave in any case.
    """

    def __init__(
        self, apply: Callable[[np.ndarray], np.ndarray], gradient: np.ndarray, radius: float, floor: float
    ) -> None:
        self._norm = float(np.linalg.norm(gradient))
        most = max(min(MAX_KRYLOV, gradient.size, MEMORY // (8 * gradient.size)), 2)
        space = KrylovSpace(apply, gradient, most)
        for size in space.grow():
            self._decompose(space.diagonal, space.beside)
            step = self._damped(0.0)
            left = float(np.linalg.norm(self._reduced @ step - self._norm * np.eye(size + 1, 1)[:, 0]))
            if left <= max(FORCING * self._norm, floor) or np.linalg.norm(step) > radius:
                break
        self._basis = space.basis
        values, vectors, _ = space.ritz()
        self.rising = bool(values[0] >= -NULL_DIRECTION * np.abs(values).max())
        kept = np.abs(values) > NULL_DIRECTION * np.abs(values).max()
        self._values, self._vectors = values[kept], vectors[:, kept]

    def _decompose(self, diagonal: np.ndarray, beside: np.ndarray) -> None:
        """The singular value decomposition of H on the space, which leads one vector beyond it."""
        k = len(diagonal)
        reduced = np.zeros((k + 1, k))
        reduced[:k] = np.diag(diagonal) + np.diag(beside[:-1], 1)
        reduced[1:] += np.diag(beside)
        left, sizes, turn = np.linalg.svd(reduced, full_matrices=False)
        self._reduced, self._sizes, self._turn = reduced, sizes, turn
        self._parts = self._norm * left[0]

    def _damped(self, mu: float) -> np.ndarray:
        kept = self._sizes > NULL_DIRECTION * self._sizes[0] if self._sizes[0] > 0 else np.zeros(len(self._sizes), bool)
        sizes = self._sizes[kept]
        return (self._parts[kept] / (sizes * (1 + (mu / sizes) ** 2))) @ self._turn[kept]

    def newton(self, radius: float) -> np.ndarray:
        """As of :class:`EigenSteps`, in the Krylov space."""
        return -_within(radius, float(self._sizes[0]), self._damped) @ self._basis

    def descent(self, radius: float) -> np.ndarray:
        """As of :class:`EigenSteps`, in the Krylov space."""
        size, parts = np.abs(self._values), self._norm * self._vectors[0]
        return -_within(radius, size.max(initial=0.0), lambda mu: self._vectors @ (parts / (size + mu))) @ self._basis


def _within(radius: float, scale: float, damped: Callable[[float], np.ndarray]) -> np.ndarray:
    """The least damped step that is not longer than the radius, to ten percent of the damping."""
    if np.linalg.norm(damped(0.0)) <= radius:
        return damped(0.0)
    low, high = 1e-12 * scale, 1e12 * scale
    while high > 1.1 * low:
        middle = low * float(np.sqrt(high / low))  # their product could leave the range of numbers
        low, high = (middle, high) if np.linalg.norm(damped(middle)) > radius else (low, middle)
    return damped(high)

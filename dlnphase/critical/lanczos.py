"""The Krylov space of a symmetric operator, by Lanczos's method with full reorthogonalisation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.linalg import eigh_tridiagonal

LOOK_EVERY = 5  # products between two looks at what came of them: a look decomposes a matrix of as many rows
EXHAUSTED = 1e-13  # a vector of this length, relative to ‖H‖, is none: the space is closed


class KrylovSpace:
    """span(x, Hx, H²x, …), one vector after the other.

    Args:
        apply: x ↦ Hx for x of shape (size,).
        start: (size,), not zero.
        most: vectors that there is room for, at least 1.

    Attributes:
        largest: ‖H‖, about.
        closed: whether H leads no further: the space is invariant.
    """

    def __init__(self, apply: Callable[[np.ndarray], np.ndarray], start: np.ndarray, most: int) -> None:
        self._apply = apply
        self._basis = np.empty((most, start.size))
        self._next = start / float(np.linalg.norm(start))
        self._diagonal, self._beside = np.zeros(most), np.zeros(most)
        self._size = 0
        self.largest, self.closed = 0.0, False

    @property
    def basis(self) -> np.ndarray:
        """Orthonormal rows (k, size)."""
        return self._basis[: self._size]

    @property
    def diagonal(self) -> np.ndarray:
        """The diagonal of H on the basis, (k,)."""
        return self._diagonal[: self._size]

    @property
    def beside(self) -> np.ndarray:
        """What stands beside that diagonal, (k,); the last one leads out of the space."""
        return self._beside[: self._size]

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Eigenvalues of H on the space, ascending, their vectors in its basis as columns, and ‖Hv − λv‖ of each."""
        values, vectors = eigh_tridiagonal(self.diagonal, self.beside[:-1])
        return values, vectors, np.abs(self.beside[-1] * vectors[-1])

    def grow(self) -> Iterator[int]:
        """Take in one vector after the other until H leads no further or room ends, with a turn now and then to look.

        The last turn comes at the end; each tells how many vectors there are.
        """
        while not self.closed and self._size < len(self._basis):
            self._basis[self._size] = self._next
            vector = self._basis[self._size]
            image = self._apply(vector)
            self._diagonal[self._size] = float(vector @ image)
            self._size += 1
            for _ in range(2):  # twice is enough
                image -= self.basis.T @ (self.basis @ image)
            length = float(np.linalg.norm(image))
            self._beside[self._size - 1] = length
            self.largest = max(self.largest, abs(self.diagonal[-1]) + length)
            self.closed = bool(length <= EXHAUSTED * self.largest)
            if not self.closed:
                self._next = image / length
            if self.closed or self._size == len(self._basis) or self._size % LOOK_EVERY == 0:
                yield self._size

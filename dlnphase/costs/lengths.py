"""How a cost measures lengths of matrices, on host arrays in double precision.

Directions that hardly matter to the cost are learned last, and may be far from where they will end when a path
already rests at a saddle. So lengths are measured by the cost itself, ‖D‖² = ⟨D, HD⟩, with the mean curvature on
directions that H does not see. For a regression, A√Σ are coordinates in which nothing is slow and the rank is the same:
*flat* coordinates. Where no others keep the rank, the entries of A are taken for them.
"""

from __future__ import annotations

import numpy as np

from dlnphase.costs.round_off import indistinct


class Lengths:
    """Lengths by the Frobenius norm, in flat coordinates that are the entries of A.

    Attributes:
        is_flat: whether flat coordinates are the entries of A themselves.
        by_singular_values: whether the length of a matrix in flat coordinates is that of its singular values.
    """

    is_flat: bool = True
    by_singular_values: bool = True

    def norm(self, v: np.ndarray) -> float:
        """√⟨V, HV⟩ over the root of the mean curvature, which also counts for directions that H does not see."""
        return float(np.linalg.norm(v))

    def flat(self, a: np.ndarray) -> np.ndarray:
        """A in flat coordinates."""
        return a

    def unflat(self, a: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`flat`; also takes ∇C into those coordinates."""
        return a

    def modes(self, u: np.ndarray, s: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Lengths of the modes s_k u_k v_kᵀ in flat coordinates, for columns u_k and v_k, shape (len(s),)."""
        if self.by_singular_values:
            return s.copy()
        return np.array([self.norm(x * np.outer(a, b)) for x, a, b in zip(s, u.T, v.T, strict=True)])

    def tails(self, u: np.ndarray, s: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Lengths of what is left of a matrix in flat coordinates beyond its k leading modes, k = 1 … len(s)."""
        if self.by_singular_values:
            return np.sqrt(np.append(np.cumsum(s[:0:-1] ** 2)[::-1], 0.0))
        left, out = (u * s) @ v.T, []
        for x, a, b in zip(s, u.T, v.T, strict=True):
            left = left - x * np.outer(a, b)
            out.append(self.norm(left))
        return np.array(out)


class EntryLengths(Lengths):
    """Lengths where entries are seen one by one, with weights M ≥ 0 of shape (d_out, d_in)."""

    def __init__(self, entries: np.ndarray) -> None:
        seen = entries > 0
        self.weights = np.where(seen, entries / (entries[seen].mean() if seen.any() else 1.0), 1.0)
        self.by_singular_values = bool((self.weights == 1).all())

    def norm(self, v: np.ndarray) -> float:
        """√Σ M_ij V_ij², relative to the mean of M where M > 0."""
        return float(np.sqrt(np.sum(self.weights * v**2)))

    def modes(self, u: np.ndarray, s: np.ndarray, v: np.ndarray) -> np.ndarray:
        """See the class; in one product of matrices."""
        if self.by_singular_values:
            return s.copy()
        return np.asarray(s * np.sqrt(np.maximum(np.sum((u**2).T @ self.weights * (v**2).T, 1), 0.0)))


class InputLengths(Lengths):
    """Lengths by A√Σ, given the eigenvalues and the eigenvectors of Σ and which of them are seen."""

    is_flat = False

    def __init__(self, values: np.ndarray, vectors: np.ndarray, seen: np.ndarray) -> None:
        root = np.sqrt(relative_curvature(values, seen))
        self.root, self.unroot = (vectors * root) @ vectors.T, (vectors / root) @ vectors.T

    def norm(self, v: np.ndarray) -> float:
        """‖V√Σ‖_F."""
        return float(np.linalg.norm(v @ self.root))

    def flat(self, a: np.ndarray) -> np.ndarray:
        """A√Σ."""
        return a @ self.root

    def unflat(self, a: np.ndarray) -> np.ndarray:
        """A Σ^(−½)."""
        return a @ self.unroot


class DenseLengths(Lengths):
    """Lengths by √H on row-major entries, given its eigenvalues, its eigenvectors and which of them are seen."""

    by_singular_values = False

    def __init__(self, values: np.ndarray, vectors: np.ndarray, seen: np.ndarray) -> None:
        self.root = (vectors * np.sqrt(relative_curvature(values, seen))) @ vectors.T

    def norm(self, v: np.ndarray) -> float:
        """‖√H vec V‖."""
        return float(np.linalg.norm(self.root @ v.ravel()))


def of_metric(metric: np.ndarray, resolution: float) -> InputLengths:
    """Lengths by A√Σ for a cost that is not quadratic and names this Σ, shape (d_in, d_in)."""
    values, vectors = np.linalg.eigh(metric)
    return InputLengths(values, vectors, values > indistinct(resolution) * values[-1])


def relative_curvature(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Eigenvalues relative to the mean of those seen; 1 for those that are not."""
    return np.where(seen, values / (values[seen].mean() if seen.any() else 1.0), 1.0)

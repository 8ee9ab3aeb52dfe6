"""A cost on host arrays in float64, and how it measures lengths.

Directions that hardly matter to the cost are learned last, and may be far from where they will end when a path
already rests at a saddle. So lengths are measured by the cost itself, ‖D‖² = ⟨D, HD⟩, with the mean curvature on
directions that H does not see. For a regression, A√Σ are coordinates in which nothing is slow and the rank is the same.
"""

from __future__ import annotations

import numpy as np
import torch

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import Cost
from dlnphase.costs.round_off import indistinct, resolved

DISTINCT = 1e-6  # modes closer than this, relative to the largest, are taken as equal; smaller ones as none
MAX_NEWTON = 50


class HostCost:
    """A cost on host arrays in float64, for small linear algebra.

    Attributes:
        cost: on the CPU in float64.
        shape, minimum: of the cost.
        scale: ‖∇C(0)‖_F.
        resolution: round-off of the numbers the cost was given in, relative (a float32 cost is known to that only).
        is_flat: whether flat coordinates are the entries of A themselves.
        settled: whether all minimisers agree on what the data can see of their rank (unique ones, and regressions).
    """

    def __init__(self, cost: Cost) -> None:
        given = getattr(cost, "minimizer", None)
        eps = float(torch.finfo(given.dtype if given is not None else torch.float64).eps)
        self.resolution = max(eps, float(getattr(cost, "resolution", 0.0)))
        mover = getattr(cost, "to", None)
        self.cost: Cost = mover(resolve_backend("cpu")) if mover is not None else cost
        self.shape = self.cost.shape
        self.minimum = self.cost.minimum
        self.scale = float(np.linalg.norm(self.gradient(np.zeros(self.shape))))
        self._structure = getattr(self.cost, "structure", None)
        operator = getattr(self.cost, "operator", None)
        if self._structure == "mask" and operator is not None:
            self._mask = operator.numpy()
            seen = self._mask > 0
            self._weights = np.where(seen, self._mask / (self._mask[seen].mean() if seen.any() else 1.0), 1.0)
            self._even = bool((self._mask == self._mask.flat[0]).all() and seen.all())
            self._plain = bool((self._weights == 1).all())
        elif self._structure in ("right", "dense") and operator is not None:
            values, self._vectors = np.linalg.eigh(operator.numpy())
            seen = values > indistinct(self.resolution) * values[-1]
            self._unseen = self._vectors[:, ~seen]
            self._inverse = np.where(seen, 1 / np.where(seen, values, 1.0), 0.0)
            relative = np.where(seen, values / (values[seen].mean() if seen.any() else 1.0), 1.0)
            self._root = (self._vectors * np.sqrt(relative)) @ self._vectors.T
            self._unroot = (self._vectors / np.sqrt(relative)) @ self._vectors.T
            self._plain = self._structure == "right"
        else:
            self._structure, self._plain = None, True
        self.is_flat = self._structure != "right"
        self.settled = self._structure == "right" or bool(getattr(self.cost, "unique", False))

    # ---- the cost -----------------------------------------------------------------------------
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
        stack = torch.as_tensor(np.ascontiguousarray(v))
        return self.cost.apply_curvature(stack, torch.as_tensor(a)[None].expand(stack.shape)).numpy()

    def nearest_minimum(self, a: np.ndarray) -> np.ndarray:
        """The minimiser of C nearest to A: A − H⁺∇C(A), twice against round-off; a general cost is iterated on."""
        for _ in range(MAX_NEWTON if self._structure is None else 2):
            step = self._solve(self.gradient(a), a)
            a = a - step
            if float(np.linalg.norm(step)) <= 1e-16 * float(np.linalg.norm(a)):
                break
        return a

    def nearest_modes(self, a: np.ndarray) -> tuple[np.ndarray, int] | None:
        """(A_c, rank) from the modes that A has learned by more than half, where critical points are sets of modes.

        That is so for factorization, and for regression in flat coordinates (Eckart–Young). None for other costs, and
        where modes of equal size are partly learned: there, critical points are a continuum.
        """
        if not (self._structure == "right" or (self._structure == "mask" and self._even)):
            return None
        seen = a if self._structure == "mask" else a - (a @ self._unseen) @ self._unseen.T
        u, s, vt = np.linalg.svd(self.flat(self.nearest_minimum(seen)), full_matrices=False)
        apart = max(DISTINCT, resolved(self.resolution)) * s[0]
        real = s > apart
        learned = real & (np.einsum("ik,ij,kj->k", u, self.flat(seen), vt) > s / 2)
        kept, left = s[learned], s[real & ~learned]
        if kept.size and left.size and np.abs(kept[:, None] - left[None]).min() <= apart:
            return None
        frame = u[:, learned]
        point = self.unflat((frame * kept) @ vt[learned])
        if self._structure == "right":  # what no input sees may be anything in the same columns
            point = point + frame @ (frame.T @ a @ self._unseen) @ self._unseen.T
        return point, int(learned.sum())

    def _solve(self, g: np.ndarray, a: np.ndarray) -> np.ndarray:
        """H⁺g."""
        if self._structure == "mask":
            return np.divide(g, self._mask, out=np.zeros_like(g), where=self._mask > 0)
        if self._structure == "right":
            return (g @ self._vectors * self._inverse) @ self._vectors.T
        if self._structure == "dense":
            return (self._vectors @ (self._inverse * (self._vectors.T @ g.ravel()))).reshape(g.shape)
        matrix = self.cost.curvature(torch.as_tensor(a)[None]).numpy().reshape(a.size, a.size)
        return np.linalg.lstsq(matrix, g.ravel(), rcond=indistinct(self.resolution))[0].reshape(a.shape)

    # ---- lengths ------------------------------------------------------------------------------
    def norm(self, v: np.ndarray) -> float:
        """√⟨V, HV⟩ over the root of the mean curvature, which also counts for directions that H does not see."""
        if self._structure == "mask":
            return float(np.sqrt(np.sum(self._weights * v**2)))
        if self._structure == "right":
            return float(np.linalg.norm(v @ self._root))
        if self._structure == "dense":
            return float(np.linalg.norm(self._root @ v.ravel()))
        return float(np.linalg.norm(v))

    def mode_sizes(self, u: np.ndarray, s: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Norms of the modes s_k u_k v_kᵀ in flat coordinates, for columns u_k and v_k, shape (len(s),)."""
        if self._plain:
            return s.copy()
        if self._structure == "mask":
            return s * np.sqrt(np.maximum(np.sum((u**2).T @ self._weights * (v**2).T, 1), 0.0))
        return np.array([self.norm(x * np.outer(a, b)) for x, a, b in zip(s, u.T, v.T, strict=True)])

    def tail_sizes(self, u: np.ndarray, s: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Norms of what is left of a matrix in flat coordinates beyond its k leading modes, k = 1 … len(s)."""
        if self._plain:
            return np.sqrt(np.append(np.cumsum(s[:0:-1] ** 2)[::-1], 0.0))
        left, out = (u * s) @ v.T, []
        for x, a, b in zip(s, u.T, v.T, strict=True):
            left = left - x * np.outer(a, b)
            out.append(self.norm(left))
        return np.array(out)

    # ---- flat coordinates ---------------------------------------------------------------------
    def flat(self, a: np.ndarray) -> np.ndarray:
        """A in coordinates in which the cost has no slow directions, where some keep the rank: A√Σ for a regression."""
        return a @ self._root if self._structure == "right" else a

    def unflat(self, a: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`flat`."""
        return a @ self._unroot if self._structure == "right" else a

    def flat_gradient(self, a: np.ndarray) -> np.ndarray:
        """∇C in those coordinates, at A given in them."""
        g = self.gradient(self.unflat(a))
        return g @ self._unroot if self._structure == "right" else g

    def flat_curvature(self, v: np.ndarray, a: np.ndarray) -> np.ndarray:
        """Hessian in those coordinates on a stack of matrices."""
        image = self.curvature(self.unflat(v), self.unflat(a))
        return image @ self._unroot if self._structure == "right" else image

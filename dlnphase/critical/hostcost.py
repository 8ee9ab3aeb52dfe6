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
from dlnphase.critical.decay import Decay

DISTINCT = 1e-6  # modes smaller than this, relative to the largest, are taken as none
MAX_NEWTON = 50
DOUBLINGS = 60  # of a step along a matrix, after which the cost is taken to fall for ever


class HostCost:
    """A cost on host arrays in float64, for small linear algebra.

    Attributes:
        cost: on the CPU in float64.
        shape, minimum, attained: of the cost; ``attained`` is False where no minimum exists.
        scale: ‖∇C(0)‖_F.
        resolution: round-off of the numbers the cost was given in, relative (a float32 cost is known to that only).
        is_quadratic: whether the Hessian is the same everywhere.
        is_flat: whether flat coordinates are the entries of A themselves.
        settled: whether all minimisers agree on what the data can see of their rank (unique ones, and regressions).
        decay: weight decay, or None. With it what is minimised is C plus the least that weights of A cost, and flat
            coordinates are the entries of A: in no others is that a function of singular values.
    """

    def __init__(self, cost: Cost, decay: Decay | None = None) -> None:
        self.decay = decay
        given = getattr(cost, "minimizer", None)
        eps = float(torch.finfo(given.dtype if given is not None else torch.float64).eps)
        self.resolution = max(eps, float(getattr(cost, "resolution", 0.0)))
        mover = getattr(cost, "to", None)
        self.cost: Cost = mover(resolve_backend("cpu")) if mover is not None else cost
        self.shape = self.cost.shape
        self.minimum, self.attained = self.cost.minimum, bool(getattr(self.cost, "attained", True))
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
        metric = getattr(self.cost, "metric", None)
        if metric is not None:
            values, vectors = np.linalg.eigh(metric.numpy())
            seen = values > indistinct(self.resolution) * values[-1]
            relative = np.sqrt(np.where(seen, values / values[seen].mean(), 1.0))
            self._root, self._unroot = (vectors * relative) @ vectors.T, (vectors / relative) @ vectors.T
        self.is_quadratic = self._structure is not None
        self._modes: np.ndarray | None = None
        if metric is not None and self.attained and (least := getattr(self.cost, "minimizer", None)) is not None:
            u, s, _ = np.linalg.svd(self.seen(least.numpy()) @ self._root, full_matrices=False)
            if s[-1] <= DISTINCT * s[0]:
                self._modes = u[:, s > DISTINCT * s[0]]
        self.is_flat = decay is not None or (self._structure != "right" and metric is None)
        self.settled = not self.is_flat or bool(getattr(self.cost, "unique", False))

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

    def objective(self, a: np.ndarray, s: np.ndarray) -> float:
        """:meth:`excess`, with decay plus the least (λ/2)‖θ‖² of weights that make A.

        Args:
            s: its singular values as far as its rank goes: the root of one that is round-off is none.
        """
        return self.excess(a) if self.decay is None else self.excess(a) + self.decay.value(s)

    def curvature(self, v: np.ndarray, a: np.ndarray) -> np.ndarray:
        """Hessian of C at A on a stack of matrices V, shape (n, d_out, d_in)."""
        stack = torch.as_tensor(np.ascontiguousarray(v))
        return self.cost.apply_curvature(stack, torch.as_tensor(a)[None].expand(stack.shape)).numpy()

    def nearest_minimum(self, a: np.ndarray) -> np.ndarray:
        """The minimiser of C nearest to A: A − H⁺∇C(A), twice against round-off; a general cost is iterated on.

        Where none exists that is A itself. A cost that knows what it does not see leaves that part of A as it is.
        """
        if not self.attained:
            return a
        if not self.is_quadratic and (kept := self._unseen_part(a)) is not None:
            return kept
        for _ in range(2 if self.is_quadratic else MAX_NEWTON):
            step = self._solve(self.gradient(a), a)
            if not self.is_quadratic:
                step = step * self._length(a, step)
            a = a - step
            if float(np.linalg.norm(step)) <= 1e-16 * float(np.linalg.norm(a)):
                break
        return a

    def _length(self, a: np.ndarray, step: np.ndarray) -> float:
        """The first of 1, ½, ¼, … of a step at which C or the norm of its gradient is less than here; 0 if none is."""
        value, size, length = self.excess(a), np.linalg.norm(self.gradient(a)), 1.0
        for _ in range(MAX_NEWTON):
            there = a - length * step
            if self.excess(there) < value or np.linalg.norm(self.gradient(there)) < size:
                return length
            length /= 2
        return 0.0

    def nearest_modes(self, a: np.ndarray) -> tuple[np.ndarray, int] | None:
        """(A_c, rank) from the modes that A has learned by more than half, where critical points are sets of modes.

        That is so for factorization, and for regression in flat coordinates (Eckart–Young). None for other costs, and
        where modes of equal size are partly learned: there, critical points are a continuum. (Modes that differ by more
        than round-off are critical points of their own, however flat the way from one to the other.)
        """
        if not (self._structure == "right" or (self._structure == "mask" and self._even)):
            return None
        seen = a if self._structure == "mask" else a - (a @ self._unseen) @ self._unseen.T
        u, s, vt = np.linalg.svd(self.flat(self.nearest_minimum(seen)), full_matrices=False)
        apart = max(DISTINCT, resolved(self.resolution)) * s[0]
        real = s > apart
        learned = real & (np.einsum("ik,ij,kj->k", u, self.flat(seen), vt) > s / 2)
        kept, left = s[learned], s[real & ~learned]
        equal = indistinct(self.resolution) * s[0]
        if kept.size and left.size and np.abs(kept[:, None] - left[None]).min() <= equal:
            return None
        frame = u[:, learned]
        point = self.unflat((frame * kept) @ vt[learned])
        if self._structure == "right":  # what no input sees may be anything in the same columns
            point = point + frame @ (frame.T @ a @ self._unseen) @ self._unseen.T
        return point, int(learned.sum())

    def minimum_rank(self, full: int) -> int:
        """The rank of all minimisers as the cost sees them, where they agree on one below full rank; else ``full``."""
        return full if self._modes is None else self._modes.shape[1]

    def _unseen_part(self, a: np.ndarray) -> np.ndarray | None:
        """Â + what the cost does not see of A − Â, in the columns of Â where that has low rank; None if not known."""
        minimizer, unseen = getattr(self.cost, "minimizer", None), getattr(self.cost, "unseen", None)
        if minimizer is None or unseen is None:
            return None
        rest = unseen(torch.as_tensor(a)[None] - minimizer)
        if rest is None:
            return None
        kept = rest[0].numpy()
        return minimizer.numpy() + (kept if self._modes is None else self._modes @ (self._modes.T @ kept))

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

    # ---- along one matrix ---------------------------------------------------------------------
    def stretch(self, a: np.ndarray, pair: np.ndarray, slope: float, bend: float) -> float:
        """How far A can go along a matrix before C stops falling: the size that a mode grows to; ∞ where it never does.

        Args:
            slope, bend: −⟨∇C(A), pair⟩ > 0 and ⟨pair, H pair⟩ at A: for a quadratic cost the answer is slope/bend.
        """
        if self.is_quadratic:
            return slope / bend if bend > 0 else np.inf

        from scipy.optimize import brentq  # takes a while to load, and quadratic costs need none of it

        def rise(x: float) -> float:
            return float(np.sum(self.gradient(a + x * pair) * pair))

        low, high = 0.0, slope / bend if bend > 0 else 1.0
        for _ in range(DOUBLINGS):
            if rise(high) > 0:
                return float(brentq(rise, low, high))
            low, high = high, 2 * high
        return np.inf

    def slopes(self, a: np.ndarray, pair: np.ndarray, x: np.ndarray) -> np.ndarray:
        """−⟨∇C(A + x·pair), pair⟩ for numbers x of any shape."""
        there = torch.as_tensor(a + x.reshape(-1, 1, 1) * pair)
        return -np.sum(self.cost.gradient(there).numpy() * pair, axis=(-2, -1)).reshape(x.shape)

    def mode_size(self, a: np.ndarray, pair: np.ndarray, slope: float, otherwise: float) -> float:
        """:meth:`stretch` where that is finite; slope/bend where A may go on for ever; else what is given."""
        bend = float(np.sum(pair * self.curvature(pair[None], a)[0]))
        reach = self.stretch(a, pair, slope, bend)
        if np.isfinite(reach):
            return reach
        return slope / bend if bend > 0 else otherwise

    def seen(self, d: np.ndarray) -> np.ndarray:
        """A matrix without what a cost that is not quadratic says it never sees."""
        unseen = getattr(self.cost, "unseen", None)
        rest = None if self.is_quadratic or unseen is None else unseen(torch.as_tensor(d)[None])
        return d if rest is None else d - rest[0].numpy()

    def difference(self, a: np.ndarray, b: np.ndarray) -> float:
        """What the cost sees of A − B: √⟨A − B, H(A − B)⟩, H as it is on the way from one to the other."""
        d = a - b
        image = self.curvature(d[None], a)[0] if self.is_quadratic else self.gradient(a) - self.gradient(b)
        return float(np.sqrt(max(np.sum(d * image), 0.0)))

    # ---- lengths ------------------------------------------------------------------------------
    def norm(self, v: np.ndarray) -> float:
        """√⟨V, HV⟩ over the root of the mean curvature, which also counts for directions that H does not see."""
        if self._structure == "mask":
            return float(np.sqrt(np.sum(self._weights * v**2)))
        if not self.is_flat:
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
        return a if self.is_flat else a @ self._root

    def unflat(self, a: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`flat`."""
        return a if self.is_flat else a @ self._unroot

    def flat_gradient(self, a: np.ndarray) -> np.ndarray:
        """∇C in those coordinates, at A given in them."""
        g = self.gradient(self.unflat(a))
        return g if self.is_flat else g @ self._unroot

    def flat_curvature(self, v: np.ndarray, a: np.ndarray) -> np.ndarray:
        """Hessian in those coordinates on a stack of matrices."""
        image = self.curvature(self.unflat(v), self.unflat(a))
        return image if self.is_flat else image @ self._unroot

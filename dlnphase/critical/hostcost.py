"""A cost on host arrays in float64: what the search for critical matrices asks of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dlnphase.backend import resolve_backend
from dlnphase.costs.lengths import Lengths, of_metric
from dlnphase.costs.own import complete
from dlnphase.costs.quadratic import Cost, QuadraticCost
from dlnphase.costs.round_off import indistinct, resolved
from dlnphase.critical.decay import Decay

DISTINCT = 1e-6  # modes smaller than this, relative to the largest, are taken as none
MAX_NEWTON = 50  # steps to a minimum of a cost that is not quadratic, and halvings of one: both end before, or never
DOUBLINGS = 60  # of a step along a matrix, after which the cost is taken to fall for ever


class HostCost:
    """A cost on host arrays in float64, for small linear algebra.

    Attributes:
        cost: on the CPU in float64.
        shape, minimum, attained: of the cost; ``attained`` is False where no minimum exists.
        scale: ‖∇C(0)‖_F.
        resolution: round-off of the numbers the cost was given in, relative (a float32 cost is known to that only).
        is_quadratic: whether the Hessian is the same everywhere.
        lengths: how it measures matrices, and flat coordinates (:mod:`dlnphase.costs.lengths`).
        is_flat: whether flat coordinates are the entries of A themselves.
        settled: whether all minimisers agree on what the data can see of their rank (unique ones, and regressions).
        decay: weight decay, or None. With it what is minimised is C plus the least that weights of A cost, and flat
            coordinates are the entries of A: in no others is that a function of singular values.
        first: what a new mode costs per size by weight decay, :attr:`Decay.first`; 0 without.
        searched: what searches for critical matrices came to, by what they began with: the end of a path is asked for
            by its visits, its outcome and its sparsity.
    """

    def __init__(self, cost: Cost, decay: Decay | None = None) -> None:
        self.decay, self.first = decay, 0.0 if decay is None else decay.first
        self.searched: dict[object, Any] = {}
        whole = complete(cost)
        self.cost, self.resolution = whole.to(resolve_backend("cpu")), whole.resolution
        self.shape, self.minimum, self.attained = self.cost.shape, self.cost.minimum, self.cost.attained
        self.scale = float(np.linalg.norm(self.gradient(np.zeros(self.shape))))
        hessian = self.cost.hessian if isinstance(self.cost, QuadraticCost) else None
        metric = self.cost.metric
        self.is_quadratic = hessian is not None
        self._inverse = self._project = None
        self.lengths = Lengths() if metric is None else of_metric(metric.numpy(), self.resolution)
        if hessian is not None:
            self._inverse, self.lengths = hessian.inverse(self.resolution), hessian.lengths(self.resolution)
            if hessian.has_modes:
                self._project = hessian.projection(self.resolution)
        self._modes: np.ndarray | None = None
        if metric is not None and self.attained and (least := self.cost.minimizer) is not None:
            u, s, _ = np.linalg.svd(self.lengths.flat(self.seen(least.numpy())), full_matrices=False)
            if s[-1] <= DISTINCT * s[0]:
                self._modes = u[:, s > DISTINCT * s[0]]
        if decay is not None and not self.lengths.is_flat:
            self.lengths = Lengths()
        self.is_flat = self.lengths.is_flat
        self.settled = not self.is_flat or self.cost.unique

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
        if self._project is None:
            return None
        seen = self._project(a)
        u, s, vt = np.linalg.svd(self.lengths.flat(self.nearest_minimum(seen)), full_matrices=False)
        apart = max(DISTINCT, resolved(self.resolution)) * s[0]
        real = s > apart
        learned = real & (np.einsum("ik,ij,kj->k", u, self.lengths.flat(seen), vt) > s / 2)
        kept, left = s[learned], s[real & ~learned]
        equal = indistinct(self.resolution) * s[0]
        if kept.size and left.size and np.abs(kept[:, None] - left[None]).min() <= equal:
            return None
        frame = u[:, learned]
        point = self.lengths.unflat((frame * kept) @ vt[learned])
        if seen is not a:  # what no input sees may be anything in the same columns
            point = point + frame @ (frame.T @ (a - seen))
        return point, int(learned.sum())

    def minimum_rank(self, full: int) -> int:
        """The rank of all minimisers as the cost sees them, where they agree on one below full rank; else ``full``."""
        return full if self._modes is None else self._modes.shape[1]

    def _unseen_part(self, a: np.ndarray) -> np.ndarray | None:
        """Â + what the cost does not see of A − Â, in the columns of Â where that has low rank; None if not known."""
        if (minimizer := self.cost.minimizer) is None:
            return None
        rest = self.cost.unseen(torch.as_tensor(a)[None] - minimizer)
        if rest is None:
            return None
        kept = rest[0].numpy()
        return minimizer.numpy() + (kept if self._modes is None else self._modes @ (self._modes.T @ kept))

    def _solve(self, g: np.ndarray, a: np.ndarray) -> np.ndarray:
        """H⁺g."""
        if self._inverse is not None:
            return self._inverse(g)
        matrix = self.cost.curvature(torch.as_tensor(a)[None]).numpy().reshape(a.size, a.size)
        return np.linalg.lstsq(matrix, g.ravel(), rcond=indistinct(self.resolution))[0].reshape(a.shape)

    # ---- along one matrix ---------------------------------------------------------------------
    def stretch(self, a: np.ndarray, pair: np.ndarray, slope: float, bend: float) -> float:
        """How far A can go along a matrix before C stops falling: the size that a mode grows to; ∞ where it never does.

        Args:
            slope, bend: −⟨∇C(A), pair⟩ > 0, less what weight decay takes of it, and ⟨pair, H pair⟩ at A: for a
                quadratic cost the answer is slope/bend.
        """
        if self.is_quadratic:
            return slope / bend if bend > 0 else np.inf

        from scipy.optimize import brentq  # takes a while to load, and quadratic costs need none of it

        def rise(x: float) -> float:
            return float(np.sum(self.gradient(a + x * pair) * pair)) + held

        held = 0.0 if self.decay is None else -slope - float(np.sum(self.gradient(a) * pair))
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
        rest = None if self.is_quadratic else self.cost.unseen(torch.as_tensor(d)[None])
        return d if rest is None else d - rest[0].numpy()

    def difference(self, a: np.ndarray, b: np.ndarray) -> float:
        """What the cost sees of A − B: √⟨A − B, H(A − B)⟩, H as it is on the way from one to the other."""
        d = a - b
        image = self.curvature(d[None], a)[0] if self.is_quadratic else self.gradient(a) - self.gradient(b)
        return float(np.sqrt(max(np.sum(d * image), 0.0)))

    # ---- in flat coordinates ------------------------------------------------------------------
    def flat_gradient(self, a: np.ndarray) -> np.ndarray:
        """∇C in flat coordinates, at A given in them."""
        return self.lengths.unflat(self.gradient(self.lengths.unflat(a)))

    def flat_curvature(self, v: np.ndarray, a: np.ndarray) -> np.ndarray:
        """Hessian in flat coordinates on a stack of matrices, at A given in them."""
        return self.lengths.unflat(self.curvature(self.lengths.unflat(v), self.lengths.unflat(a)))

"""The minimum of a convex cost over all matrices, or that there is none.

Newton's method with conjugate gradients, which needs Hessian products alone. Where a matrix gets all the data
right (``separation`` > 0) the cost falls for ever as it grows: inf C = 0 is not attained, and that matrix proves it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dlnphase.backend import Movable
from dlnphase.costs.round_off import indistinct, resolved

if TYPE_CHECKING:
    from dlnphase.costs.interface import ConvexCost

# Far above what is needed (Newton's method squares its error); what has not come by then is told as not found.
MAX_NEWTON, MAX_CG, MAX_HALVINGS = 200, 1000, 40
SETTLED = 1e-7  # a Newton step shorter than this part of A: the next error is its square
DECREASE = 1e-4  # share of the decrease that the slope promises at which a step is taken (Armijo)
DAMPING = 1e-3  # of the Hessian where it may vanish, times its largest value and the part of ∇C(0) that is left


@dataclass(frozen=True)
class Found(Movable):
    """What is known of the least value of a cost.

    Attributes:
        value: inf C, or the least value met where ``known`` is False.
        minimizer: Â, shape (d_out, d_in), or None.
        attained: whether Â is a minimum.
        known: whether ``value`` is inf C.
    """

    value: float
    minimizer: Tensor | None
    attained: bool
    known: bool = True


def minimise(cost: ConvexCost, *, metric: Tensor | None = None, bound: float | None = None) -> Found:
    """Look for the minimum from A = 0.

    Args:
        cost: value, gradient and Hessian product are used, and ``separation`` where the cost has one.
        metric: Σ, shape (d_in, d_in): the search goes in the coordinates A√Σ; None: in A.
        bound: a size of the Hessian in those coordinates; None: that along ∇C(0).
    """
    work = _Work(cost, metric)
    x = np.zeros(cost.shape)
    value, g = work.value(x), work.gradient(x)
    first = float(np.linalg.norm(g))
    if bound is None:
        bound = work.bend(x, g) / first if first > 0 else 0.0
    for _ in range(MAX_NEWTON):
        left = float(np.linalg.norm(g)) / first if first > 0 else 0.0
        if left == 0.0:
            return Found(value, work.matrix(x), True)
        step = work.newton(x, g, min(0.1, left), DAMPING * bound * left)
        length = _length(work, x, step, value, g)
        if length is None:  # no step is downhill any more than round-off: this is as low as numbers tell
            return Found(value, work.matrix(x), left <= SETTLED, known=left <= SETTLED)
        x = x + length * step
        value, g = work.value(x), work.gradient(x)
        if work.separates(x):
            return Found(0.0, None, False)
        if np.linalg.norm(length * step) <= SETTLED * np.linalg.norm(x):
            return _polished(work, x, g)
    return Found(value, None, False, known=False)


def _length(work: _Work, x: np.ndarray, step: np.ndarray, value: float, g: np.ndarray) -> float | None:
    """The first of 1, ½, ¼, … at which the cost falls enough, or at which its gradient has halved."""
    slope, size, length = float((g * step).sum()), float(np.linalg.norm(g)), 1.0
    for _ in range(MAX_HALVINGS):
        there = x + length * step
        if work.value(there) <= value + DECREASE * length * slope or np.linalg.norm(work.gradient(there)) <= size / 2:
            return length
        length /= 2
    return None


def _polished(work: _Work, x: np.ndarray, g: np.ndarray) -> Found:
    """One more step, undamped, where it makes the gradient smaller."""
    with np.errstate(all="ignore"):  # a gradient that is round-off may have a part that no Hessian product reaches
        last = x + work.newton(x, g, SETTLED, 0.0)
    if np.linalg.norm(work.gradient(last)) < np.linalg.norm(g):
        x = last
    return Found(work.value(x), work.matrix(x), True)


class _Work:
    """A cost on host arrays, in the coordinates A√Σ."""

    def __init__(self, cost: ConvexCost, metric: Tensor | None) -> None:
        self.cost, self.shape = cost, cost.shape
        self._root: Tensor | None = None
        if metric is not None:
            values, vectors = torch.linalg.eigh(metric)
            seen = values > indistinct(cost.resolution) * values[-1]
            self._root = (vectors[:, seen] * values[seen].rsqrt()) @ vectors[:, seen].T

    def matrix(self, x: np.ndarray) -> Tensor:
        """A, shape (d_out, d_in), where the cost lives."""
        a = torch.as_tensor(x, dtype=self.cost.like.dtype, device=self.cost.like.device)
        return a if self._root is None else a @ self._root

    def value(self, x: np.ndarray) -> float:
        """C."""
        return float(self.cost.value(self.matrix(x)[None])[0])

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """∇C in these coordinates."""
        return self._back(self.cost.gradient(self.matrix(x)[None])[0])

    def separates(self, x: np.ndarray) -> bool:
        """Whether every answer is right, by more than round-off."""
        a = self.matrix(x)[None]
        least = self.cost.separation(a)
        if least is None:
            return False
        return float(least[0]) > resolved(self.cost.resolution) * float(a.abs().amax())

    def bend(self, x: np.ndarray, v: np.ndarray) -> float:
        """‖Hv‖."""
        return float(np.linalg.norm(self._apply(v, self.matrix(x)[None])))

    def newton(self, x: np.ndarray, g: np.ndarray, rtol: float, damping: float) -> np.ndarray:
        """−(H + damping)⁻¹ g to a relative residual."""
        from scipy.sparse.linalg import LinearOperator, cg  # takes a while to load, and quadratic costs need none of it

        a = self.matrix(x)[None]

        def apply(flat: np.ndarray) -> np.ndarray:
            v = flat.reshape(self.shape)
            return (self._apply(v, a) + damping * v).ravel()

        operator = LinearOperator((g.size, g.size), matvec=apply, dtype=float)
        solution, _ = cg(operator, -g.ravel(), rtol=rtol, atol=0.0, maxiter=MAX_CG)
        return solution.reshape(self.shape)

    def _apply(self, v: np.ndarray, a: Tensor) -> np.ndarray:
        return self._back(self.cost.apply_curvature(self.matrix(v)[None], a)[0])

    def _back(self, g: Tensor) -> np.ndarray:
        return (g if self._root is None else g @ self._root).double().cpu().numpy()

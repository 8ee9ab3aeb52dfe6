"""Taylor polynomials of the gradient flow in ball arithmetic, and how far they are from solving it.

With the coefficients c_0, …, c_p of θ̃ exact (dyadic), [∇𝓛(θ̃)]_j is enclosed by the recurrences of series.py. The
defect θ̃' + ∇𝓛(θ̃) has the coefficients (j+1)c_{j+1} + [∇𝓛]_j for j < p, which are round-off, and [∇𝓛]_j for j ≥ p, which
are bounded by convolutions of norms.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dlnphase.proofs.balls import UP, Balls, flint
from dlnphase.proofs.quadratic import BallCost
from dlnphase.proofs.series import FlowSeries

TINY = 1e-290  # covers what underflows in them


class TaylorStep(FlowSeries):
    """θ̃ on one step, from an exact start; arguments and coefficients as of :class:`FlowSeries`.

    Attributes:
        norms: ‖c_j‖ from above, (p + 1,).
    """

    def __init__(self, layers: list[Balls], cost: BallCost, order: int) -> None:
        super().__init__(layers, cost, order)
        self.order, self._cost, kinds = order, cost, range(len(layers))
        steps = list(enumerate(zip(self.coefficients[1:], self.slopes, strict=True), 1))
        self._low = [[_size(c[l] * j + f[l]) for j, (c, f) in steps] for l in kinds]
        self._layer_norms = [np.array([_size(c[l]) for c in self.coefficients]) for l in kinds]
        self.norms = np.sqrt(np.sum(np.square(self._layer_norms), 0)) * UP

    def defect(self, h: float) -> float:
        """sup ‖θ̃' + ∇𝓛(θ̃)‖ over [0, h] from above."""
        powers = _powers(h, self.order)
        w = [n * powers for n in self._layer_norms]
        depth, p = len(w), self.order
        x, s = [w[0]], [w[-1]]
        for l in range(1, depth):
            x.append(_product_norms(self.below[l], powers, x[-1], w[l]))
        for l in range(depth - 2, 0, -1):
            s.insert(0, _product_norms(self.above[l], powers, s[0], w[l]))
        size = self._cost.square_size
        g = np.concatenate([[_size(m) for m in self.g], size * x[-1][p:]])
        g[:p] *= powers[:p]
        total = 0.0
        for l in range(depth):
            q = g if l == depth - 1 else _product_norms(self.pulled[l], powers, s[l], g)
            slopes = q if l == 0 else np.convolve(q, x[l - 1])
            part = float(np.dot(self._low[l], powers[:p])) + float(np.sum(slopes[p:]))
            total += (part * UP) ** 2
        return (math.sqrt(total) + TINY) * UP

    def movement(self, h: float) -> float:
        """sup ‖θ̃(τ) − θ̃(h/2)‖ over [0, h] from above: Σ_j ‖c_j‖h^j(1 − 2^(−j))."""
        weights = 1 - 0.5 ** np.arange(self.order + 1)
        return float(np.sum(self.norms * _powers(h, self.order) * weights)) * UP

    def at(self, h: float) -> list[Balls]:
        """θ̃(h) in balls."""
        step = flint().arb(h)
        out = list(self.coefficients[-1])
        for c in reversed(self.coefficients[:-1]):
            out = [o * step + w for o, w in zip(out, c, strict=True)]
        return out


def _product_norms(known: list[Balls], powers: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Norms of the coefficients of a product: of those known, and by convolution beyond."""
    out = np.convolve(a, b) * UP
    first = np.array([_size(m) for m in known]) * powers[: len(known)] * UP
    out[: len(known)] = np.minimum(first, out[: len(known)])
    return out


def _powers(h: float, order: int) -> np.ndarray:
    return h ** np.arange(order + 1) * UP


def _size(matrix: Balls) -> float:
    """Frobenius norm from above."""
    return math.sqrt(sum(_square(x) for x in matrix.entries()) + TINY) * UP


def _square(ball: Any) -> float:
    return float(ball.abs_upper()) ** 2

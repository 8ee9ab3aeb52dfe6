"""Taylor polynomials of the gradient flow in ball arithmetic, and how far they are from solving it.

With the coefficients c_0, …, c_p of θ̃ exact (dyadic), [∇𝓛(θ̃)]_j is enclosed by the recurrences of the products. The
defect θ̃' + ∇𝓛(θ̃) has the coefficients (j+1)c_{j+1} + [∇𝓛]_j for j < p, which are round-off, and [∇𝓛]_j for j ≥ p, which
are bounded by convolutions of norms.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dlnphase.proofs.balls import Balls, flint
from dlnphase.proofs.quadratic import BallCost

UP = 1 + 2.0**-40  # covers the rounding of sums and products of non-negative floats
TINY = 1e-290  # covers what underflows in them


class TaylorStep:
    """θ̃ on one step, from an exact start.

    Args:
        layers: W_1, …, W_L as exact matrices of balls.
        cost: in balls.
        order: p.

    Attributes:
        coefficients: [j][l], exact.
        norms: ‖c_j‖ from above, (p + 1,).
    """

    def __init__(self, layers: list[Balls], cost: BallCost, order: int) -> None:
        self.order = order
        self._cost = cost
        depth = len(layers)
        self.coefficients = [layers]
        self._wt: list[list[Balls]] = [[w.transpose()] for w in layers]
        self._xt: list[list[Balls]] = [self._wt[0], *([] for _ in range(depth - 1))]  # (W_l ⋯ W_1)ᵀ
        self._st: list[list[Balls]] = [*([] for _ in range(depth - 1)), self._wt[-1]]  # (W_L ⋯ W_l)ᵀ
        self._g: list[Balls] = []
        self._q: list[list[Balls]] = [[] for _ in range(depth)]  # (W_L ⋯ W_{l+1})ᵀ G
        self._low: list[list[float]] = [[] for _ in layers]
        for j in range(order):
            slopes = self._gradient(j)
            following = [(f / -(j + 1)).mid() for f in slopes]
            self.coefficients.append(following)
            for l, (c, f) in enumerate(zip(following, slopes, strict=True)):
                self._wt[l].append(c.transpose())
                self._low[l].append(_size(c * (j + 1) + f))
        layer_norms = [[_size(c[l]) for c in self.coefficients] for l in range(depth)]
        self.norms = np.sqrt(np.sum(np.square(layer_norms), 0)) * UP
        self._layer_norms = [np.array(n) for n in layer_norms]

    def _gradient(self, j: int) -> list[Balls]:
        """[∂𝓛/∂W_l]_j for all l."""
        depth = len(self._wt)
        for l in range(1, depth):
            self._xt[l].append(_term(self._xt[l - 1], self._wt[l], j))
        for l in range(depth - 2, 0, -1):
            self._st[l].append(_term(self._wt[l], self._st[l + 1], j))
        a = self._xt[-1][j].transpose()
        self._g.append(self._cost.gradient(a) if j == 0 else self._cost.apply(a))
        out = []
        for l in range(depth):
            q = self._g if l == depth - 1 else self._q[l]
            if l < depth - 1:
                q.append(_term(self._st[l + 1], self._g, j))
            out.append(q[j] if l == 0 else _term(q, self._xt[l - 1], j))
        return out

    def defect(self, h: float) -> float:
        """sup ‖θ̃' + ∇𝓛(θ̃)‖ over [0, h] from above."""
        powers = _powers(h, self.order)
        w = [n * powers for n in self._layer_norms]
        depth, p = len(w), self.order
        x, s = [w[0]], [w[-1]]
        for l in range(1, depth):
            x.append(_product_norms(self._xt[l], powers, x[-1], w[l]))
        for l in range(depth - 2, 0, -1):
            s.insert(0, _product_norms(self._st[l], powers, s[0], w[l]))
        size = self._cost.square_size
        g = np.concatenate([[_size(m) for m in self._g], size * x[-1][p:]])
        g[:p] *= powers[:p]
        total = 0.0
        for l in range(depth):
            q = g if l == depth - 1 else _product_norms(self._q[l], powers, s[l], g)
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


def _term(a: list[Balls], b: list[Balls], j: int) -> Balls:
    total = a[0] * b[j]
    for i in range(1, j + 1):
        total += a[i] * b[j - i]
    return total


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

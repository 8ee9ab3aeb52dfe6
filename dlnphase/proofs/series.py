"""A polynomial near the gradient flow from an exact start: Taylor coefficients by the recurrences of the products.

It proves nothing: provers and checkers take it as it is, exact numbers, and each bounds the defect in its own way.
"""

from __future__ import annotations

from typing import Protocol

from dlnphase.proofs.balls import Balls


class SeriesCost(Protocol):
    """What is asked of a cost."""

    def gradient(self, a: Balls) -> Balls:
        """∇C(A)."""

    def apply(self, v: Balls) -> Balls:
        """H(V)."""


class FlowSeries:
    """θ̃ of degree p, and the coefficients of all that its gradient is made of.

    Args:
        layers: W_1, …, W_L as exact matrices of balls.
        cost: in balls.
        order: p.

    Attributes:
        coefficients: [j][l], exact, j = 0 … p.
        slopes: [∂𝓛/∂W_l]_j as balls, [j][l], j < p.
        below, above: (W_l ⋯ W_1)ᵀ and (W_L ⋯ W_l)ᵀ, [l][j].
        g, pulled: ∇C, [j], and (W_L ⋯ W_{l+1})ᵀ∇C, [l][j].
    """

    def __init__(self, layers: list[Balls], cost: SeriesCost, order: int) -> None:
        depth = len(layers)
        self.coefficients, self.slopes = [layers], list[list[Balls]]()
        self._turned = [[w.transpose()] for w in layers]
        self.below: list[list[Balls]] = [self._turned[0], *([] for _ in range(depth - 1))]
        self.above: list[list[Balls]] = [*([] for _ in range(depth - 1)), self._turned[-1]]
        self.g: list[Balls] = []
        self.pulled: list[list[Balls]] = [*([] for _ in range(depth - 1)), self.g]
        for j in range(order):
            self.slopes.append(self._gradient(j, cost))
            following = [(f / -(j + 1)).mid() for f in self.slopes[-1]]
            self.coefficients.append(following)
            for known, c in zip(self._turned, following, strict=True):
                known.append(c.transpose())

    def _gradient(self, j: int, cost: SeriesCost) -> list[Balls]:
        """[∂𝓛/∂W_l]_j for all l."""
        depth = len(self._turned)
        for l in range(1, depth):
            self.below[l].append(_term(self.below[l - 1], self._turned[l], j))
        for l in range(depth - 2, 0, -1):
            self.above[l].append(_term(self._turned[l], self.above[l + 1], j))
        a = self.below[-1][j].transpose()
        self.g.append(cost.gradient(a) if j == 0 else cost.apply(a))
        for l in range(depth - 1):
            self.pulled[l].append(_term(self.above[l + 1], self.g, j))
        return [self.pulled[0][j], *(_term(q, p, j) for q, p in zip(self.pulled[1:], self.below, strict=False))]


def _term(a: list[Balls], b: list[Balls], j: int) -> Balls:
    """Coefficient j of a product."""
    total = a[0] * b[j]
    for i in range(1, j + 1):
        total += a[i] * b[j - i]
    return total

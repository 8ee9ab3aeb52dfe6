"""The yardstick of errors at one end of a network: how large each input, or output, direction is."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from dlnphase.dynamics.stabilised.chain import Array, Chain


@dataclass(frozen=True)
class End:
    """(WᵀW + ε)⁻¹ for the layer at an end, ε the square of the least size that a direction is taken to have.

    A layer narrower than its end leaves directions empty. Then only the directions it has are decomposed; the inverse,
    which would be a large matrix, is 1/ε on all others.

    Attributes:
        basis: orthonormal columns, the directions that a narrow layer has; None where the inverse is a matrix.
        inverse: that matrix, or its eigenvalues on the basis; None where W is not finite.
        least: ε.
        empty: ε·tr (WᵀW + ε)⁻¹, how many directions have no size of their own, beyond those that a narrow layer leaves
            for its shape alone; infinite where W is not finite.
    """

    basis: Array | None
    inverse: Array | None
    least: float
    empty: float

    @classmethod
    def of(cls, chain: Chain, w: Array, floor: float, tiny: float) -> End:
        """Of W_1, or W_Lᵀ, shape (hidden size, end); ε is ``floor`` of ‖W‖², at least ``tiny``."""
        least = floor * chain.square(w) + tiny
        rows, columns = w.shape
        if not isfinite(least):
            return cls(None, None, least, float("inf"))
        if rows < columns:
            values, turn = chain.xp.linalg.eigh(w @ w.T)
            there = values > least
            values = values[there]
            inverse = 1 / (values + least)
            empty = least * float(inverse.sum()) + rows - len(values)
            return cls(w.T @ (turn[:, there] / values**0.5), inverse, least, empty)
        gram = w.T @ w
        gram.ravel()[:: columns + 1] += least
        inverse = chain.xp.linalg.inv(gram)
        return cls(None, inverse, least, least * float(inverse.trace()))

    def square(self, vector: Array) -> float:
        """tr V(WᵀW + ε)⁻¹Vᵀ, the square of a change of the layer, relative to it direction by direction."""
        if self.inverse is None:
            return float("inf")
        if self.basis is None:
            return float(((vector @ self.inverse) * vector).sum())
        inside = vector @ self.basis
        inside *= inside
        outside = max(float((vector * vector).sum()) - float(inside.sum()), 0.0)
        return float((inside * self.inverse).sum()) + outside / self.least

"""A quadratic cost as exact numbers, and in balls: C(A) = C_min + ½‖F vec(A − Â)‖².

Written with a factor F of its Hessian H = FᵀF the cost is convex whatever the rounding of its numbers. A mask is its
own square. Elsewhere F is taken from the eigenvectors of the float Hessian, and the cost of a theorem is the one of
these floats: ``difference`` says how far its Hessian is from the one that training used (round-off).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlnphase.costs.quadratic import Cost
from dlnphase.costs.round_off import indistinct
from dlnphase.errors import InputError
from dlnphase.proofs.balls import Ball, Balls, exact, flint, inner, operator_norm, upper


@dataclass(frozen=True)
class CostData:
    """The exact numbers of a quadratic cost.

    Attributes:
        structure: ``mask`` (F = diag(√factor) on the entries), ``right`` (F V = V·factor), ``dense`` (F = factor).
        factor: M ≥ 0 of shape (d_out, d_in); R of shape (d_in, m); F of shape (m, d_out·d_in), entries row by row.
        minimizer: Â, (d_out, d_in).
        minimum: C_min.
        difference: max |FᵀF − H| over max |H| of the cost that training used.
    """

    structure: str
    factor: np.ndarray
    minimizer: np.ndarray
    minimum: float
    difference: float = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""
        return self.minimizer.shape[0], self.minimizer.shape[1]


def cost_data(cost: Cost) -> CostData:
    """The numbers of a quadratic cost of this project.

    Raises:
        InputError: for a cost that is not quadratic.
    """
    structure = getattr(cost, "structure", None)
    if structure not in ("mask", "right", "dense"):
        raise InputError("prove: the cost is not quadratic, expected factorization, completion, sensing or regression")
    operator: np.ndarray = getattr(cost, "operator").cpu().double().numpy()  # noqa: B009
    minimizer: np.ndarray = getattr(cost, "minimizer").cpu().double().numpy()  # noqa: B009
    if structure == "mask":
        return CostData(structure, operator, minimizer, cost.minimum)
    resolution = max(float(getattr(cost, "resolution", 0.0)), float(np.finfo(float).eps))
    symmetric = (operator + operator.T) / 2
    values, vectors = np.linalg.eigh(symmetric)
    seen = values > indistinct(resolution) * values[-1]
    root = vectors[:, seen] * np.sqrt(values[seen])
    difference = float(np.abs(root @ root.T - operator).max() / np.abs(operator).max())
    return CostData(structure, root if structure == "right" else root.T, minimizer, cost.minimum, difference)


class BallCost:
    """The cost, its gradient and its Hessian on matrices of balls.

    Args:
        data: the exact numbers.
    """

    def __init__(self, data: CostData) -> None:
        self.data = data
        self.shape = data.shape
        self._minimizer = exact(data.minimizer)
        self._factor = exact(data.factor)
        self._square: float | None = None
        self._plain = data.structure == "mask" and bool((data.factor == 1).all())
        self._mask = data.factor.ravel().tolist() if data.structure == "mask" else None

    def gradient(self, a: Balls) -> Balls:
        """∇C(A) = H(A − Â), (d_out, d_in)."""
        return self.apply(a - self._minimizer)

    def apply(self, residual: Balls) -> Balls:
        """H applied to a (d_out, d_in) matrix."""
        if self._plain:
            return residual
        if self._mask is not None:
            entries = [m * x for m, x in zip(self._mask, residual.entries(), strict=True)]
            return flint().arb_mat(*self.shape, entries)
        if self.data.structure == "right":
            return residual * self._factor * self._factor.transpose()
        column = flint().arb_mat(self._factor.ncols(), 1, residual.entries())
        return flint().arb_mat(*self.shape, (self._factor.transpose() * (self._factor * column)).entries())

    def residual(self, a: Balls) -> Balls:
        """F vec(A − Â) as one column; its zeros are the global minima."""
        column = flint().arb_mat(self.shape[0] * self.shape[1], 1, (a - self._minimizer).entries())
        return self.measure(column)

    def excess(self, a: Balls) -> Ball:
        """C(A) − C_min."""
        r = self.residual(a)
        return inner(r, r) / 2

    def measure(self, columns: Balls) -> Balls:
        """F applied to each column of a matrix with d_out·d_in rows."""
        if self._mask is not None:
            rows = columns.table()
            kept = [[x * flint().arb(m).sqrt() for x in row] for m, row in zip(self._mask, rows, strict=True) if m]
            return flint().arb_mat(kept) if kept else flint().arb_mat(0, columns.ncols())
        if self.data.structure == "dense":
            return self._factor * columns
        d_out, d_in = self.shape
        rows = columns.table()
        down = self._factor.transpose()
        out = [(down * flint().arb_mat(rows[i * d_in : (i + 1) * d_in])).entries() for i in range(d_out)]
        return flint().arb_mat(d_out * down.nrows(), columns.ncols(), [x for block in out for x in block])

    def square_size(self) -> float:
        """A float that ‖H‖_op does not exceed."""
        if self._square is None:
            size = self.norm()
            self._square = upper(size * size)
        return self._square

    def norm(self) -> Ball:
        """An upper bound of ‖F‖_op."""
        if self._mask is not None:
            return flint().arb(max(self._mask)).sqrt().upper()
        return operator_norm(self._factor)

"""A quadratic cost as exact numbers, and in balls: C(A) = C_min + ½‖F vec(A − Â)‖².

Written with a factor F of its Hessian H = FᵀF the cost is convex whatever the rounding of its numbers. A mask is its
own square. Elsewhere F is taken from the eigenvectors of the float Hessian, and the cost of a theorem is the one of
these floats: ``difference`` says how far its Hessian is from the one that training used (round-off).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import ClassVar

import numpy as np

from dlnphase.costs.quadratic import Cost, QuadraticCost
from dlnphase.costs.round_off import indistinct
from dlnphase.errors import InputError
from dlnphase.proofs.balls import UP, Ball, Balls, exact, flint, inner, operator_norm, upper


class BallCost(ABC):
    """A quadratic cost as exact numbers, and on matrices of balls; a class for each form of F.

    Attributes:
        word: names the form in a proof's file.
        factor: the numbers of F, see the classes.
        minimizer: Â, (d_out, d_in).
        minimum: C_min.
        difference: max |FᵀF − H| over max |H| of the cost that training used.
    """

    word: ClassVar[str]

    def __init__(self, factor: np.ndarray, minimizer: np.ndarray, minimum: float, difference: float = 0.0) -> None:
        self.factor, self.minimizer, self.minimum, self.difference = factor, minimizer, minimum, difference
        self.balls, self._centre = exact(factor), exact(minimizer)
        self.shape = (minimizer.shape[0], minimizer.shape[1])

    @cached_property
    def matrix(self) -> np.ndarray:
        """F in floats, (m, d_out·d_in), entries of matrices row by row."""
        return self._matrix()

    @cached_property
    def majorant(self) -> float:
        """An upper bound of ‖F‖_F², by which rounding of float Hessians is measured."""
        return float(np.sum(self.matrix**2)) * UP

    @abstractmethod
    def _matrix(self) -> np.ndarray:
        pass

    @abstractmethod
    def adjoint(self, y: np.ndarray) -> np.ndarray:
        """Fᵀy as a (d_out, d_in) matrix, in floats."""

    @abstractmethod
    def apply(self, v: Balls) -> Balls:
        """H = FᵀF applied to a (d_out, d_in) matrix of balls."""

    @abstractmethod
    def measure(self, columns: Balls) -> Balls:
        """F applied to each column of a matrix of balls with d_out·d_in rows."""

    def norm(self) -> Ball:
        """An upper bound of ‖F‖_op."""
        return operator_norm(self.balls)

    @cached_property
    def square_size(self) -> float:
        """A float that ‖H‖_op does not exceed."""
        size = self.norm()
        return upper(size * size)

    def gradient(self, a: Balls) -> Balls:
        """∇C(A) = H(A − Â), (d_out, d_in)."""
        return self.apply(a - self._centre)

    def residual(self, a: Balls) -> Balls:
        """F vec(A − Â) as one column; its zeros are the global minima."""
        return self.measure(flint().arb_mat(self.shape[0] * self.shape[1], 1, (a - self._centre).entries()))

    def excess(self, a: Balls) -> Ball:
        """C(A) − C_min."""
        r = self.residual(a)
        return inner(r, r) / 2


class EntryBalls(BallCost):
    """F = diag(√M) on the entries, M ≥ 0 of shape (d_out, d_in)."""

    word = "mask"

    def __init__(self, factor: np.ndarray, minimizer: np.ndarray, minimum: float, difference: float = 0.0) -> None:
        super().__init__(factor, minimizer, minimum, difference)
        self._plain, self._entries = bool((factor == 1).all()), factor.ravel().tolist()

    def _matrix(self) -> np.ndarray:
        return np.diag(np.sqrt(self.factor.ravel()))

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        """√M times the entries seen, 0 elsewhere."""
        out, seen = np.zeros(self.shape), self.factor > 0
        out[seen] = y * np.sqrt(self.factor[seen])
        return out

    def apply(self, v: Balls) -> Balls:
        """M ∘ V."""
        if self._plain:
            return v
        return flint().arb_mat(*self.shape, [m * x for m, x in zip(self._entries, v.entries(), strict=True)])

    def measure(self, columns: Balls) -> Balls:
        """The rows of the entries seen, times √M."""
        rows = columns.table()
        kept = [[x * flint().arb(m).sqrt() for x in row] for m, row in zip(self._entries, rows, strict=True) if m]
        return flint().arb_mat(kept) if kept else flint().arb_mat(0, columns.ncols())

    def norm(self) -> Ball:
        """max √M."""
        return flint().arb(max(self._entries)).sqrt().upper()


class InputBalls(BallCost):
    """F V = V R, R of shape (d_in, m)."""

    word = "right"

    def _matrix(self) -> np.ndarray:
        return np.kron(np.eye(self.shape[0]), self.factor.T)

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        """Y Rᵀ."""
        return np.asarray(y.reshape(self.shape[0], -1) @ self.factor.T)

    def apply(self, v: Balls) -> Balls:
        """V R Rᵀ."""
        return v * self.balls * self.balls.transpose()

    def measure(self, columns: Balls) -> Balls:
        """V R of each column."""
        d_out, d_in = self.shape
        rows, down = columns.table(), self.balls.transpose()
        out = [(down * flint().arb_mat(rows[i * d_in : (i + 1) * d_in])).entries() for i in range(d_out)]
        return flint().arb_mat(d_out * down.nrows(), columns.ncols(), [x for block in out for x in block])


class DenseBalls(BallCost):
    """F of shape (m, d_out·d_in), entries row by row."""

    word = "dense"

    def _matrix(self) -> np.ndarray:
        return self.factor

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        """Fᵀy."""
        return np.asarray((self.factor.T @ y).reshape(self.shape))

    def apply(self, v: Balls) -> Balls:
        """FᵀF vec V."""
        column = flint().arb_mat(self.balls.ncols(), 1, v.entries())
        return flint().arb_mat(*self.shape, (self.balls.transpose() * (self.balls * column)).entries())

    def measure(self, columns: Balls) -> Balls:
        """F times the columns."""
        return self.balls * columns


def ball_cost(cost: Cost) -> BallCost:
    """A quadratic cost of this project in balls.

    Raises:
        InputError: for a cost that is not quadratic.
    """
    if not isinstance(cost, QuadraticCost):
        raise InputError("prove: the cost is not quadratic, expected factorization, completion, sensing or regression")
    operator, minimizer = (x.cpu().double().numpy() for x in (cost.operator, cost.minimizer))
    if cost.hessian.seen is not None:
        return EntryBalls(operator, minimizer, cost.minimum)
    values, vectors = np.linalg.eigh((operator + operator.T) / 2)
    seen = values > indistinct(cost.resolution) * values[-1]
    root = vectors[:, seen] * np.sqrt(values[seen])
    difference = float(np.abs(root @ root.T - operator).max() / np.abs(operator).max())
    if cost.hessian.of_inputs:
        return InputBalls(root, minimizer, cost.minimum, difference)
    return DenseBalls(root.T, minimizer, cost.minimum, difference)

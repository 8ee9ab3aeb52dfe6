"""Convex quadratic costs on the end-to-end matrix, and their minima.

Every cost here is C(A) = C_min + ½⟨A − Â, H(A − Â)⟩ for a positive semidefinite operator H on matrices
and one minimiser Â. Written like that, the excess C − C_min loses no digits near the minimum, and the
price of a cost does not depend on the number of samples it came from.

H comes in three forms, of which the first two are cheap (:mod:`dlnphase.costs.hessians`):
    mask   H(A) = M ∘ A        factorization (M = 1) and completion
    right  H(A) = A Σ          regression, Σ = XᵀX/N
    dense  H(A) = unvec(H vec A), vec row by row: sensing, or any quadratic cost of your own

Any object with the attributes and methods of :class:`dlnphase.costs.interface.Cost` can be trained on.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dlnphase.backend import Backend
from dlnphase.costs.hessians import FORMS, Hessian
from dlnphase.costs.interface import ConvexCost
from dlnphase.costs.interface import Cost as Cost
from dlnphase.costs.observations import Data, Observations, entries
from dlnphase.costs.round_off import indistinct, resolved, snapped
from dlnphase.errors import InputError


class QuadraticCost(ConvexCost):
    """C(A) = minimum + ½⟨A − Â, H(A − Â)⟩.

    Args:
        kind: factorization, completion, sensing or regression: the name shown to users.
        structure: ``mask``, ``right`` or ``dense``; says what ``operator`` holds.
        operator: M of shape (d_out, d_in), Σ of shape (d_in, d_in), or H of shape (D, D).
        minimizer: Â, shape (d_out, d_in); the one of least Frobenius norm where it is not unique.
        minimum: C_min.
        resolution: relative precision of the numbers it was given in, at least ε of the tensors' dtype; it stays with
            the cost when that is held in another dtype (None: that ε).
        data: what it was made of, where that is kept.
    """

    minimizer: Tensor
    hessian: Hessian

    def __init__(
        self,
        kind: str,
        structure: str,
        operator: Tensor,
        minimizer: Tensor,
        minimum: float = 0.0,
        resolution: float | None = None,
        data: Data | None = None,
    ) -> None:
        if structure not in FORMS:
            raise ValueError(f"structure {structure!r} is none of {tuple(FORMS)}")
        self.kind = kind
        self.hessian = FORMS[structure](operator)
        self.minimizer = minimizer
        self.minimum, self.data = float(minimum), data
        self.shape = (int(minimizer.shape[0]), int(minimizer.shape[1]))
        self.resolution = max(float(torch.finfo(minimizer.dtype).eps), resolution or 0.0)

    def __repr__(self) -> str:
        return f"QuadraticCost({self.kind}, {self.shape[0]}×{self.shape[1]}, minimum={self.minimum:.6g})"

    def to(self, backend: Backend) -> QuadraticCost:
        """The same cost on another device or in another dtype."""
        hessian, minimizer = self.hessian.to(backend), self.minimizer.to(backend.device, backend.dtype)
        if hessian is self.hessian and minimizer is self.minimizer:
            return self
        data = None if self.data is None else self.data.to(backend)
        return QuadraticCost(self.kind, hessian.word, hessian.numbers, minimizer, self.minimum, self.resolution, data)

    @property
    def operator(self) -> Tensor:
        """The numbers of H: M, Σ, or H as a matrix."""
        return self.hessian.numbers

    @property
    def observations(self) -> Observations | None:
        """The entries, where C looks at them one by one; else what was kept of the data."""
        if self.data is not None:
            return self.data.observations(self.resolution)
        return None if self.hessian.seen is None else entries(self.operator, self.minimizer)

    @property
    def unique(self) -> bool:
        """Whether the minimiser is unique (H is positive definite)."""
        return self.hessian.is_definite(self.resolution)

    @property
    def settled(self) -> bool:
        """Whether all minimisers agree on what the data can see of their rank: unique ones, and regressions."""
        return self.hessian.of_inputs or self.unique

    def measured(self) -> Tensor | None:
        """Orthonormal columns that span the range of H on row-major entries, (D, m); None where it is everything."""
        return self.hessian.measured(self.shape, self.resolution)

    @property
    def like(self) -> Tensor:  # type: ignore[override]
        """The minimiser."""
        return self.minimizer

    @property
    def curvature_bound(self) -> float:
        """The largest eigenvalue of H."""
        return self.hessian.largest

    def numbers(self) -> dict[str, Tensor]:
        """The minimiser and the operator."""
        return {"the minimiser": self.minimizer, "the curvature": self.operator}

    def value(self, a: Tensor) -> Tensor:
        """C(A), shape (B,)."""
        return self.minimum + self.excess(a)

    def excess(self, a: Tensor) -> Tensor:
        """C(A) − C_min, shape (B,); exact to relative round-off of A − Â."""
        residual = a - self.minimizer
        return 0.5 * (residual * self.hessian.apply(residual)).sum((-2, -1))

    def gradient(self, a: Tensor) -> Tensor:
        """∇C(A) = H(A − Â), shape (B, d_out, d_in)."""
        return self.hessian.apply(a - self.minimizer)

    def apply_curvature(self, v: Tensor, a: Tensor | None = None) -> Tensor:
        """H(V); does not depend on A."""
        return self.hessian.apply(v)

    def curvature(self, a: Tensor | None = None) -> Tensor:
        """H as a matrix on row-major entries, shape (D, D)."""
        return self.hessian.matrix(self.shape)

    def minimum_at_rank(self, rank: int) -> float | None:
        """min C over matrices of at most this rank.

        Closed forms: Eckart–Young for factorization; reduced-rank regression (the same in coordinates
        whitened by Σ) for regression. A masked or sensed minimum at low rank has none: None, unless
        Â itself already has that rank.
        """
        if rank >= min(self.shape):
            return self.minimum
        whitened = self.hessian.whitened(self.minimizer)
        if whitened is not None:
            s = torch.linalg.svdvals(whitened)
            return self.minimum + 0.5 * float((s[rank:] ** 2).sum())
        s = torch.linalg.svdvals(self.minimizer)
        return self.minimum if float(s[rank]) <= resolved(self.resolution) * float(s[0]) else None


def require_quadratic(cost: ConvexCost, what: str) -> QuadraticCost:
    """The cost, if it is quadratic; InputError that says what needs it else."""
    if not isinstance(cost, QuadraticCost):
        raise InputError(f"cost: found {cost.name}, but {what} a squared cost")
    return cost


# ---- the four costs of this project (docs/theory.md, section 2) ------------------------------------


def factorization(target: np.ndarray, backend: Backend) -> QuadraticCost:
    """½‖A − A*‖_F² for a (d_out, d_in) target without gaps; minimum 0 at A*."""
    known = precision(target)
    target = _finite("target", target).copy()  # a tensor may share memory with the user's array
    ones = backend.tensor(np.ones_like(target))
    return QuadraticCost("factorization", "mask", ones, backend.tensor(target), resolution=known)


def completion(target: np.ndarray, observed: np.ndarray, backend: Backend) -> QuadraticCost:
    """½Σ_{(i,j)∈Ω}(A − A*)_ij².

    Args:
        target: (d_out, d_in); entries outside Ω are ignored and may be NaN.
        observed: boolean (d_out, d_in), True on Ω.

    Raises:
        InputError: when nothing is observed, an observed entry is not finite, or the two shapes differ.
    """
    known = precision(target)
    observed, target = np.asarray(observed, dtype=bool), np.asarray(target, dtype=float)
    if observed.shape != target.shape:
        raise InputError(f"observed: has shape {observed.shape}, expected that of the target, {target.shape}")
    if not observed.any():
        raise InputError("target: no entry is observed, expected at least one number")
    filled = _finite("target", np.where(observed, target, 0.0))
    mask = backend.tensor(observed.astype(float))
    return QuadraticCost("completion", "mask", mask, backend.tensor(filled), resolution=known)


def sensing(operators: np.ndarray, values: np.ndarray, backend: Backend, *, keep: bool = False) -> QuadraticCost:
    """½Σ_m(⟨B_m, A⟩ − y_m)² for operators B of shape (M, d_out, d_in) and values y of shape (M,).

    Keeps what the sum depends on; the measurements themselves only where ``keep`` says so.
    """
    known = precision(operators, values)
    operators, values = _finite("operators", operators), _finite("values", values)
    if operators.ndim != 3 or values.shape != operators.shape[:1] or not len(values):
        raise InputError(
            f"operators: have shape {operators.shape} and values {values.shape}, expected (M, d_out, d_in) and (M,)"
        )
    count, d_out, d_in = operators.shape
    flat = operators.reshape(count, -1)
    solution, *_ = np.linalg.lstsq(flat, values, rcond=indistinct(known))
    minimum = 0.5 * float(np.sum((flat @ solution - values) ** 2))
    return QuadraticCost(
        "sensing",
        "dense",
        backend.tensor(flat.T @ flat),
        backend.tensor(solution.reshape(d_out, d_in)),
        _snap(minimum, 0.5 * float(values @ values), known),
        known,
        Data(backend.tensor(operators), backend.tensor(values)) if keep else None,
    )


def regression(x: np.ndarray, y: np.ndarray, backend: Backend, *, keep: bool = False) -> QuadraticCost:
    """1/(2N) Σ_n ‖A x_n − y_n‖² for inputs X of shape (N, d_in) and outputs Y of shape (N, d_out).

    Keeps Σ_xx = XᵀX/N, the least-squares matrix Â (least norm) and C_min; the data only where ``keep`` says so.
    """
    known = precision(x, y)
    x, y = _finite("X", x), _finite("Y", y)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
        raise InputError(
            f"data: X has shape {x.shape} and Y {y.shape}, expected (N, d_in) and (N, d_out) with the same N ≥ 1"
        )
    solution, *_ = np.linalg.lstsq(x, y, rcond=indistinct(known))
    minimum = 0.5 * float(np.sum((x @ solution - y) ** 2)) / len(x)
    scale = 0.5 * float(np.sum(y**2)) / len(x)
    moments, least = backend.tensor(x.T @ x / len(x)), backend.tensor(solution.T)
    data = Data(backend.tensor(x), backend.tensor(y)) if keep else None
    return QuadraticCost("regression", "right", moments, least, _snap(minimum, scale, known), known, data)


def precision(*arrays: np.ndarray) -> float:
    """The coarsest ε of the floating dtypes that arrays came in; whole numbers count as exact."""
    dtypes = [np.asarray(a).dtype for a in arrays]
    return max([float(np.finfo(d).eps) for d in dtypes if d.kind == "f"], default=float(np.finfo(float).eps))


def _finite(name: str, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array, dtype=float)
    if not np.isfinite(array).all():
        raise InputError(f"{name}: {int((~np.isfinite(array)).sum())} entries are not finite numbers")
    return array


def _snap(minimum: float, scale: float, resolution: float) -> float:
    """A least-squares residual at round-off of the data is an exact fit: C_min = 0."""
    return 0.0 if minimum <= snapped(resolution) * scale else minimum

"""The Hessians H of quadratic costs: what they do to a matrix, and what follows from their form alone.

Who asks a cost something that depends on the form of H asks here; nobody compares forms. A new form is a new class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from dlnphase.backend import Backend
from dlnphase.costs.lengths import DenseLengths, EntryLengths, InputLengths, Lengths
from dlnphase.costs.round_off import indistinct


class Hessian(ABC):
    """A positive semidefinite operator on (d_out, d_in) matrices.

    Attributes:
        word: its name, for people and files.
        numbers: what it is made of.
        of_inputs: whether it acts on inputs alone, H(A) = A Σ. Then A is best seen as A√Σ, where nothing is slow and
            the rank is the same, and the least-norm minimiser projects every other one: all its singular values are
            the smallest.
        seen: which entries it looks at, boolean (d_out, d_in), where it looks at them one by one; else None.
    """

    word: ClassVar[str]
    of_inputs: ClassVar[bool] = False

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers

    def to(self, backend: Backend) -> Hessian:
        """The same one on another device or in another dtype."""
        numbers = self.numbers.to(backend.device, backend.dtype)
        return self if numbers is self.numbers else type(self)(numbers)

    @property
    def seen(self) -> Tensor | None:
        """See the class."""
        return None

    @property
    def is_identity(self) -> bool:
        """Whether H(A) = A: every entry of A is seen alike, and modes move by themselves."""
        return False

    @property
    def has_modes(self) -> bool:
        """Whether coordinates exist where H is a number and the rank is the same (Eckart–Young holds there)."""
        return False

    @staticmethod
    @abstractmethod
    def product(numbers: Any, v: Any) -> Any:
        """H(V) for one V of shape (d_out, d_in), both arrays of NumPy or both tensors."""

    def apply(self, v: Tensor) -> Tensor:
        """H(V), shape (..., d_out, d_in)."""
        image: Tensor = self.product(self.numbers, v)
        return image

    @abstractmethod
    def matrix(self, shape: tuple[int, int]) -> Tensor:
        """H on row-major entries, shape (D, D)."""

    @property
    def largest(self) -> float:
        """The largest eigenvalue."""
        return float(torch.linalg.eigvalsh(self.numbers)[-1])

    def is_definite(self, resolution: float) -> bool:
        """Whether every eigenvalue is above round-off."""
        eigenvalues = torch.linalg.eigvalsh(self.numbers)
        return bool(eigenvalues[0] > indistinct(resolution) * eigenvalues[-1])

    def whitened(self, a: Tensor) -> Tensor | None:
        """A where H is the identity and the rank is the same, (d_out, d_in); None without such coordinates."""
        return None

    def modes(self, resolution: float) -> tuple[Tensor, Tensor] | None:
        """(V, r), (d_in, m) and (m,): A ↦ A V r are such coordinates of what H sees, up to a factor; None as above."""
        return None

    @abstractmethod
    def measured(self, shape: tuple[int, int], resolution: float) -> Tensor | None:
        """Orthonormal columns that span the range of H on row-major entries, (D, m); None where it is everything."""

    @abstractmethod
    def projection(self, resolution: float) -> Callable[[np.ndarray], np.ndarray]:
        """The orthogonal projection of host arrays (d_out, d_in) onto the range of H: what the data fixes."""

    @abstractmethod
    def inverse(self, resolution: float) -> Callable[[np.ndarray], np.ndarray]:
        """H⁺ on host arrays (d_out, d_in)."""

    @abstractmethod
    def lengths(self, resolution: float) -> Lengths:
        """How matrices are measured where H is the curvature."""

    def _eigen(self, resolution: float) -> tuple[Tensor, Tensor]:
        """Eigenvalues above round-off, and their eigenvectors as columns."""
        values, vectors = torch.linalg.eigh(self.numbers)
        kept = values > indistinct(resolution) * values[-1]
        return values[kept], vectors[:, kept]

    @cached_property
    def _host_eigen(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues, and eigenvectors as columns, of the numbers in double precision."""
        values, vectors = np.linalg.eigh(self.numbers.detach().cpu().double().numpy())
        return values, vectors

    def _host_seen(self, resolution: float) -> np.ndarray:
        """Which of those eigenvalues are above round-off."""
        values = self._host_eigen[0]
        return np.asarray(values > indistinct(resolution) * values[-1])

    def _host_inverse(self, resolution: float) -> tuple[np.ndarray, np.ndarray]:
        """Reciprocals of the eigenvalues above round-off, 0 for the others, and all eigenvectors."""
        (values, vectors), seen = self._host_eigen, self._host_seen(resolution)
        return np.where(seen, 1 / np.where(seen, values, 1.0), 0.0), vectors


class EntryHessian(Hessian):
    """H(A) = M ∘ A for M ≥ 0 of shape (d_out, d_in): factorization (M = 1) and completion."""

    word = "mask"

    @property
    def seen(self) -> Tensor:
        """Where M > 0."""
        return self.numbers > 0

    @property
    def has_modes(self) -> bool:
        """Whether all entries count alike."""
        return bool((self.numbers == self.numbers[0, 0]).all())

    @property
    def is_identity(self) -> bool:
        """Whether M = 1."""
        return bool((self.numbers == 1).all())

    @staticmethod
    def product(numbers: Any, v: Any) -> Any:
        """M ∘ V."""
        return numbers * v

    def matrix(self, shape: tuple[int, int]) -> Tensor:
        """diag(vec M)."""
        return torch.diag(self.numbers.flatten())

    @property
    def largest(self) -> float:
        """max M."""
        return float(self.numbers.max())

    def is_definite(self, resolution: float) -> bool:
        """Whether every entry is seen."""
        return bool(self.seen.all())

    def whitened(self, a: Tensor) -> Tensor | None:
        """A·√M, where all entries count alike."""
        return a * self.numbers[0, 0].sqrt() if self.has_modes else None

    def modes(self, resolution: float) -> tuple[Tensor, Tensor] | None:
        """A itself, where all entries count alike."""
        if not self.has_modes:
            return None
        d_in = self.numbers.shape[1]
        eye = torch.eye(d_in, dtype=self.numbers.dtype, device=self.numbers.device)
        return eye, torch.ones(d_in, dtype=self.numbers.dtype, device=self.numbers.device)

    def measured(self, shape: tuple[int, int], resolution: float) -> Tensor | None:
        """A column for each entry seen."""
        seen = torch.nonzero(self.seen.flatten()).flatten()
        size = self.numbers.numel()
        if len(seen) == size:
            return None
        return torch.eye(size, dtype=self.numbers.dtype, device=self.numbers.device)[:, seen]

    def projection(self, resolution: float) -> Callable[[np.ndarray], np.ndarray]:
        """The entries seen, and 0 elsewhere."""
        seen = self.seen.cpu().numpy().astype(float)
        return (lambda v: v) if seen.all() else (lambda v: seen * v)

    def inverse(self, resolution: float) -> Callable[[np.ndarray], np.ndarray]:
        """Entries over M where M > 0, and 0 elsewhere."""
        entries = self.numbers.detach().cpu().double().numpy()
        return lambda v: np.divide(v, entries, out=np.zeros_like(v), where=entries > 0)

    def lengths(self, resolution: float) -> Lengths:
        """By the weights of the entries."""
        return EntryLengths(self.numbers.detach().cpu().double().numpy())


class InputHessian(Hessian):
    """H(A) = A Σ for Σ of shape (d_in, d_in): regression, Σ = XᵀX/N."""

    word = "right"
    of_inputs = True

    @property
    def has_modes(self) -> bool:
        """A√Σ are such coordinates."""
        return True

    @staticmethod
    def product(numbers: Any, v: Any) -> Any:
        """V Σ."""
        return v @ numbers

    def matrix(self, shape: tuple[int, int]) -> Tensor:
        """1 ⊗ Σ."""
        eye = torch.eye(shape[0], dtype=self.numbers.dtype, device=self.numbers.device)
        return torch.kron(eye, self.numbers.T.contiguous())

    def whitened(self, a: Tensor) -> Tensor | None:
        """A √Σ."""
        values, vectors = torch.linalg.eigh(self.numbers)
        return a @ (vectors * values.clamp_min(0).sqrt())

    def modes(self, resolution: float) -> tuple[Tensor, Tensor] | None:
        """The eigenvectors of Σ that are seen, and the roots of their eigenvalues."""
        values, vectors = self._eigen(resolution)
        return vectors, values.sqrt()

    def measured(self, shape: tuple[int, int], resolution: float) -> Tensor | None:
        """Each output with each eigenvector of Σ that is seen."""
        _, kept = self._eigen(resolution)
        if kept.shape[1] == shape[1]:
            return None
        return torch.kron(torch.eye(shape[0], dtype=kept.dtype, device=kept.device), kept.contiguous())

    def projection(self, resolution: float) -> Callable[[np.ndarray], np.ndarray]:
        """The columns that some input sees."""
        seen = self._host_seen(resolution)
        basis = self._host_eigen[1][:, seen]
        return (lambda v: v) if seen.all() else (lambda v: v @ basis @ basis.T)

    def inverse(self, resolution: float) -> Callable[[np.ndarray], np.ndarray]:
        """V Σ⁺."""
        inverse, vectors = self._host_inverse(resolution)
        return lambda v: (v @ vectors * inverse) @ vectors.T

    def lengths(self, resolution: float) -> Lengths:
        """By A√Σ."""
        return InputLengths(*self._host_eigen, self._host_seen(resolution))


class DenseHessian(Hessian):
    """H(A) = unvec(H vec A), vec row by row, H of shape (D, D): sensing, or any quadratic cost of your own."""

    word = "dense"

    @staticmethod
    def product(numbers: Any, v: Any) -> Any:
        """unvec(H vec V)."""
        return (numbers @ v.reshape(-1)).reshape(v.shape)

    def apply(self, v: Tensor) -> Tensor:
        """unvec(H vec V)."""
        return (v.flatten(-2) @ self.numbers.T).view(v.shape)

    def matrix(self, shape: tuple[int, int]) -> Tensor:
        """H itself."""
        return self.numbers

    def measured(self, shape: tuple[int, int], resolution: float) -> Tensor | None:
        """The eigenvectors of H that are seen."""
        _, kept = self._eigen(resolution)
        return None if kept.shape[1] == shape[0] * shape[1] else kept

    def projection(self, resolution: float) -> Callable[[np.ndarray], np.ndarray]:
        """What the measurements see."""
        basis = self._host_eigen[1][:, self._host_seen(resolution)]
        return lambda v: np.asarray((basis @ (basis.T @ v.ravel())).reshape(v.shape))

    def inverse(self, resolution: float) -> Callable[[np.ndarray], np.ndarray]:
        """unvec(H⁺ vec V)."""
        inverse, vectors = self._host_inverse(resolution)
        return lambda v: np.asarray((vectors @ (inverse * (vectors.T @ v.ravel()))).reshape(v.shape))

    def lengths(self, resolution: float) -> Lengths:
        """By √H vec A."""
        return DenseLengths(*self._host_eigen, self._host_seen(resolution))


FORMS: dict[str, type[Hessian]] = {form.word: form for form in (EntryHessian, InputHessian, DenseHessian)}

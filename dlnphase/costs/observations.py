"""A cost as the sum over what was observed that it is: gradients of parts of it, and of noisy labels.

C(A) = Σ_i ℓ_i(A) over entries, samples or measurements. What algorithms with noise ask is Σ_i c_i ∇ℓ_i(A) for weights c
of their own, and the same with labels y + ε: unbiased for ∇C where E c_i = 1, E ε = 0 and the slope is linear in y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dlnphase.backend import Movable
from dlnphase.costs.sampling import Entries, Samples, Seen


class Slopes(Protocol):
    """∂ℓ/∂Z of predictions."""

    def slope(self, z: Tensor) -> Tensor:
        """The shape of Z."""
        ...


@dataclass(frozen=True)
class Squares:
    """ℓ = ½(z − y)²; ``target`` y has the shape of Z without its batch."""

    target: Tensor

    def slope(self, z: Tensor) -> Tensor:
        """z − y."""
        return z - self.target


class Measurements:
    """Z_m = ⟨B_m, A⟩, shape (B, M), for operators of shape (M, d_out, d_in); each counts 1."""

    def __init__(self, operators: Tensor) -> None:
        self.count = self.per_matrix = int(operators.shape[0])
        self._shape, self._flat = operators.shape[1:], operators.flatten(1)

    @property
    def steepness(self) -> float:
        """M·max ‖B_m‖² over the largest eigenvalue of Σ B_m ⊗ B_m."""
        largest = self._flat.square().sum(1).max()
        return float(self.count * largest / torch.linalg.matrix_norm(self._flat, 2) ** 2)

    def predict(self, a: Tensor) -> Tensor:
        """⟨B_m, A⟩."""
        return a.flatten(1) @ self._flat.T

    def pull_back(self, z: Tensor) -> Tensor:
        """Σ_m Z_m B_m."""
        return (z @ self._flat).view(-1, *self._shape)

    def spread(self, each: Tensor) -> Tensor:
        """As they are."""
        return each

    def squares(self, z: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """G = z_m B_m of each: Σ_m z_m² ⟨left·B_m·right, B_m⟩."""
        operators = self._flat.view(-1, *self._shape)
        sizes = [((a @ operators @ b) * operators).sum((-2, -1)) for a, b in zip(left, right, strict=True)]
        return (z.square() * torch.stack(sizes)).sum(-1)


@dataclass(frozen=True)
class Observations:
    """What a cost is a sum over.

    Attributes:
        seen: entries, samples or measurements.
        loss: of each, with its label.
        what: they, in words.
        linear: whether labels are numbers and slopes linear in them: noise in labels leaves gradients unbiased.
    """

    seen: Seen
    loss: Slopes
    what: str
    linear: bool = False

    @property
    def count(self) -> int:
        """How many there are."""
        return self.seen.count

    @property
    def labels(self) -> int:
        """How many numbers of noise a step takes; those of entries that are not observed are passed over."""
        return self.seen.per_matrix

    def gradient(self, a: Tensor, weights: Tensor | None, noise: Tensor | None) -> Tensor:
        """Σ_i c_i ∇ℓ_i(A) with labels y + ε, shape (B, d_out, d_in).

        Args:
            weights: c, shape (B, count); None: 1.
            noise: ε, shape (B, labels); None: 0.
        """
        z = self.seen.predict(a)
        slope = self.loss.slope(z if noise is None else z - noise.reshape(z.shape))
        return self.seen.pull_back(slope if weights is None else slope * self.seen.spread(weights))

    def gradient_covariance(self, a: Tensor, factors: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Trace of the covariance of n∇_θ ℓ_i for one i at random: n Σ_i ‖∇_θ ℓ_i‖² − ‖∇_θ C‖², shape (B,).

        A batch of B of them has (n − B)/(B(n − 1)) of that (drawing without replacement).

        Args:
            a: A, shape (B, d_out, d_in).
            factors: (S_l S_lᵀ, P_lᵀ P_l) of each layer, see :meth:`dlnphase.networks.chain.Network.ntk_factors`: a
                gradient G in A is S_lᵀ G P_lᵀ in W_l, of squared norm ⟨S_l S_lᵀ G P_lᵀ P_l, G⟩.
        """
        slope = self.loss.slope(self.seen.predict(a))
        whole = self.seen.pull_back(slope)
        each = torch.stack([self.seen.squares(slope, left, right) for left, right in factors]).sum(0)
        mean = torch.stack([((left @ whole @ right) * whole).sum((-2, -1)) for left, right in factors]).sum(0)
        return (self.count * each - mean).clamp_min(0.0)


@dataclass(frozen=True)
class Data(Movable):
    """What a quadratic cost was made of, where it keeps it: operators or inputs, and the values or outputs.

    Attributes:
        design: B of shape (M, d_out, d_in), or X of shape (N, d_in).
        right: y of shape (M,), or Y of shape (N, d_out).
    """

    design: Tensor
    right: Tensor

    def observations(self, resolution: float) -> Observations:
        """Measurements, or samples of a regression."""
        if self.design.ndim == 3:
            return Observations(Measurements(self.design), Squares(self.right), "measurements", linear=True)
        samples = Samples(self.design, int(self.right.shape[1]), resolution)
        return Observations(samples, Squares(self.right), "samples", linear=True)


def entries(mask: Tensor, target: Tensor) -> Observations | None:
    """The observed entries of a matrix; None where some count more than others."""
    if not bool(((mask == 0) | (mask == 1)).all()):
        return None
    return Observations(Entries(mask), Squares(target), "entries", linear=True)

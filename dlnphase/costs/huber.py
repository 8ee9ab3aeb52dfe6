"""Huber's cost: ½r² of residuals up to δ, δ|r| − ½δ² beyond (Huber 1964): a gross error pulls with δ and no more."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlnphase.backend import Backend


@dataclass(frozen=True)
class Huber:
    """Huber losses of Z against ``target``.

    Attributes:
        target: of the shape of Z without its batch; what is not seen is 0 in both.
        delta: δ > 0.
    """

    target: Tensor
    delta: float
    name = "huber"
    curvature_bound = 1.0

    def total(self, z: Tensor) -> Tensor:
        """Σ ℓ, shape (B,)."""
        size = (z - self.target).abs()
        near = size.clamp_max(self.delta)
        return (near * (size - 0.5 * near)).sum((-2, -1))

    def slope(self, z: Tensor) -> Tensor:
        """r, cut at ±δ."""
        return (z - self.target).clamp(-self.delta, self.delta)

    def bend(self, z: Tensor, dz: Tensor) -> Tensor:
        """dz where |r| ≤ δ, else 0."""
        return torch.where((z - self.target).abs() <= self.delta, dz, 0.0)

    def margins(self, z: Tensor) -> Tensor | None:
        """No right and wrong."""
        return None

    def separation(self, z: Tensor) -> Tensor | None:
        """Growing residuals never help."""
        return None

    def blind(self, v: Tensor) -> Tensor:
        """Nothing is ignored."""
        return torch.zeros_like(v)

    def to(self, backend: Backend) -> Huber:
        """The same on another device or in another dtype."""
        return Huber(self.target.to(backend.device, backend.dtype), self.delta)

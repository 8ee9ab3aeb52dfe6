"""Huber's cost: ½r² of residuals up to δ, δ|r| − ½δ² beyond (Huber 1964): a gross error pulls with δ and no more."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dlnphase.costs.minimise import Found
from dlnphase.costs.sampled import Loss
from dlnphase.errors import InputError


@dataclass(frozen=True)
class Huber(Loss):
    """Huber losses of Z against ``target``.

    Attributes:
        target: of the shape of Z without its batch; what is not seen is 0 in both.
        delta: δ > 0.
    """

    target: Tensor
    delta: float
    name = "huber"
    curvature_bound = 1.0

    @classmethod
    def of_targets(cls, targets: Tensor, **own: float) -> Huber:
        """With δ = ``delta``; InputError where it is no positive number."""
        delta = own["delta"]
        if not (math.isfinite(delta) and delta > 0):
            raise InputError(f"huber-delta: found {delta}, expected a positive number")
        return cls(targets, float(delta))

    def known(self) -> Found:
        """0, at the targets."""
        return Found(0.0, self.target, True)

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

"""The logistic cost: ℓ(z) = log(1 + exp(−sz)) for a label s = ±1.

On entries it is 1-bit completion (Davenport, Plan, van den Berg, Wootters 2014), on samples logistic regression, of
each class against the rest where there are several.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from dlnphase.backend import Backend


@dataclass(frozen=True)
class Logistic:
    """Logistic losses of predictions Z of the shape of ``signs``.

    Attributes:
        signs: ±1, and 0 where nothing is asked.
        classes: whether the last axis is that of classes, of which the largest prediction is the answer.
    """

    signs: Tensor
    classes: bool = False
    name = "logistic"
    curvature_bound = 0.25

    def total(self, z: Tensor) -> Tensor:
        """Σ ℓ, shape (B,)."""
        return (softplus(-self.signs * z, threshold=1e4) * self.signs.abs()).sum((-2, -1))

    def slope(self, z: Tensor) -> Tensor:
        """−s / (1 + exp(sz))."""
        return -self.signs * torch.sigmoid(-self.signs * z)

    def bend(self, z: Tensor, dz: Tensor) -> Tensor:
        """p(1 − p) dz."""
        return self.signs.abs() * torch.sigmoid(z) * torch.sigmoid(-z) * dz

    def margins(self, z: Tensor) -> Tensor:
        """sz of each label, or by how much the right class leads, (B, n)."""
        if self.classes:
            right = self.signs > 0
            lead = z.masked_fill(~right, float("-inf")).amax(-1) - z.masked_fill(right, float("-inf")).amax(-1)
            return lead
        return (self.signs * z).masked_fill(self.signs == 0, float("nan")).flatten(1)

    def separation(self, z: Tensor) -> Tensor:
        """The least sz, shape (B,)."""
        return (self.signs * z).masked_fill(self.signs == 0, float("inf")).flatten(1).amin(-1)

    def blind(self, v: Tensor) -> Tensor:
        """Nothing is ignored."""
        return torch.zeros_like(v)

    def to(self, backend: Backend) -> Logistic:
        """The same on another device or in another dtype."""
        return Logistic(self.signs.to(backend.device, backend.dtype), self.classes)

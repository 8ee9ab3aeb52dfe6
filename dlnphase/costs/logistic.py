"""The logistic cost: ℓ(z) = log(1 + exp(−sz)) for a label s = ±1.

On entries it is 1-bit completion (Davenport, Plan, van den Berg, Wootters 2014), on samples logistic regression, of
each class against the rest where there are several.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from dlnphase.backend import Backend
from dlnphase.costs.minimise import Found
from dlnphase.costs.sampled import Loss


@dataclass(frozen=True)
class Logistic(Loss):
    """Logistic losses of predictions Z of the shape of ``signs``.

    Attributes:
        signs: ±1, and 0 where nothing is asked.
        classes: whether the last axis is that of classes, of which the largest prediction is the answer.
    """

    signs: Tensor
    classes: bool = False
    name = "logistic"
    curvature_bound = 0.25

    @classmethod
    def of_targets(cls, targets: Tensor, **own: float) -> Logistic:
        """With signs."""
        return cls(targets)

    @classmethod
    def of_classes(cls, index: np.ndarray, count: int, backend: Backend, **own: float) -> tuple[Logistic, int]:
        """Two classes have one row, d_out = 1, whose sign is the answer; k > 2 have k rows, of which the largest is."""
        signs = 2.0 * np.eye(count)[index] - 1 if count > 2 else 2.0 * index[:, None] - 1
        return cls(backend.tensor(signs), classes=count > 2), signs.shape[1]

    def known(self) -> Found:
        """inf C = 0 is never attained: entries grow for ever."""
        return Found(0.0, None, False)

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

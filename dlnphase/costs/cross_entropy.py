"""Softmax cross-entropy: ℓ(z) = log Σ_j exp z_j − z_y, for one of k classes.

Everything is formed from z_j − z_y, and the part of the right class from the sum of the others: a sample that is
classified with margin m has ℓ ≈ e^(−m), and keeps all its digits however large m is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlnphase.backend import Backend
from dlnphase.costs.sampled import Loss


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Cross-entropy of the softmax of Z, shape (B, N, k).

    Attributes:
        labels: the right class of each sample, integers of shape (N,).
    """

    labels: Tensor
    name = "cross-entropy"
    curvature_bound = 0.5  # diag(p) − ppᵀ ≤ ½

    @classmethod
    def of_classes(cls, index: np.ndarray, count: int, backend: Backend, **own: float) -> tuple[CrossEntropy, int]:
        """A row for each class."""
        return cls(torch.as_tensor(index, device=backend.device)), count

    def total(self, z: Tensor) -> Tensor:
        """Σ_n ℓ_n, shape (B,)."""
        top, others, _ = self._shares(z)
        return (top + torch.log1p(others + torch.expm1(-top))).sum((-2, -1))

    def slope(self, z: Tensor) -> Tensor:
        """p − e_y."""
        return self._with_right(self._probabilities(z))

    def bend(self, z: Tensor, dz: Tensor) -> Tensor:
        """(diag(p) − ppᵀ) dz."""
        p = self._probabilities(z)
        index = self._index(dz)
        moved = dz - dz.gather(-1, index)
        out = p * (moved - (p * moved).sum(-1, keepdim=True))
        return self._with_right(out)

    def margins(self, z: Tensor) -> Tensor:
        """z_y − max of the others, shape (B, N)."""
        return -self._relative(z).amax(-1)

    def separation(self, z: Tensor) -> Tensor:
        """The least margin, shape (B,)."""
        return self.margins(z).amin(-1)

    def blind(self, v: Tensor) -> Tensor:
        """The same change of every class."""
        return v.mean(-2, keepdim=True).expand(v.shape)

    def _index(self, z: Tensor) -> Tensor:
        return self.labels.view(1, -1, 1).expand(*z.shape[:-1], 1)

    def _relative(self, z: Tensor) -> Tensor:
        """z_j − z_y, −∞ at the right class."""
        index = self._index(z)
        return (z - z.gather(-1, index)).scatter(-1, index, float("-inf"))

    def _shares(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(M, Σ_{j≠y} exp(z_j − z_y − M), its terms) with M = max(0, max_j (z_j − z_y))."""
        relative = self._relative(z)
        top = relative.amax(-1, keepdim=True).clamp_min(0)
        terms = torch.exp(relative - top)
        return top, terms.sum(-1, keepdim=True), terms

    def _probabilities(self, z: Tensor) -> Tensor:
        """p_j of the wrong classes, 0 at the right one."""
        top, others, terms = self._shares(z)
        return terms / (others + torch.exp(-top))

    def _with_right(self, wrong: Tensor) -> Tensor:
        """The right class gets minus the sum of the others."""
        index = self._index(wrong)
        rest = wrong.scatter(-1, index, 0.0)
        return rest.scatter(-1, index, -rest.sum(-1, keepdim=True))

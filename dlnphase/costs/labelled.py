"""The squared cost of classes: ½ mean over n of ‖A x_n − e_y‖², with the answers it gives right."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dlnphase.backend import Backend
from dlnphase.costs.cross_entropy import CrossEntropy
from dlnphase.costs.observations import Data
from dlnphase.costs.quadratic import QuadraticCost, regression


class LabelledSquares(QuadraticCost):
    """A regression onto one row a class, of which the largest is the answer."""

    x: Tensor
    labels: CrossEntropy

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray, classes: int, backend: Backend) -> LabelledSquares:
        """From inputs (N, d_in) and classes 0 … k − 1 (N,)."""
        rows = np.eye(classes)[y]
        plain, data = regression(x, rows, backend), Data(backend.tensor(x), backend.tensor(rows))
        out = cls("classification", "right", plain.operator, plain.minimizer, plain.minimum, plain.resolution, data)
        out.x, out.labels = data.design, CrossEntropy(torch.as_tensor(y, device=backend.device))
        return out

    def accuracy(self, a: Tensor) -> Tensor:
        """The share of samples whose class has the largest answer."""
        margins = self.labels.margins(self.x @ a.mT)
        return (margins > 0).sum(-1).to(a.dtype) / margins.shape[-1]

"""Convex costs of the form C(A) = Σ_i w·ℓ_i(z_i), Z what is seen of A: a loss, put on entries or on samples.

A loss (one per file, as ``huber``) knows its labels and answers three questions on predictions; a sampling says what is
seen of A. Value, gradient and Hessian product follow by the chain rule.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dlnphase.backend import Backend, Movable
from dlnphase.costs.interface import ConvexCost
from dlnphase.costs.minimise import Found, minimise
from dlnphase.costs.observations import Observations
from dlnphase.costs.sampling import CHUNK, Sampling


class Loss(Movable):
    """Losses ℓ_i on predictions Z of shape (B, …) with labels of shape (…); sums over all of them are taken.

    A loss is a frozen dataclass that says ``total``, ``slope``, ``bend``, and how it is made for the tasks that it fits
    (``of_targets``, ``of_classes``). To have it as ``--cost``, give it a row in the table of ``settings/costs.py``.
    """

    name: str
    curvature_bound: float

    @classmethod
    def of_targets(cls, targets: Tensor, **own: float) -> Loss:
        """With a number for every prediction, 0 where none is seen; ``own`` are the settings of this cost alone."""
        raise NotImplementedError

    @classmethod
    def of_classes(cls, index: np.ndarray, count: int, backend: Backend, **own: float) -> tuple[Loss, int]:
        """With one of ``count`` classes for every sample, shape (N,); and d_out."""
        raise NotImplementedError

    def known(self) -> Found | None:
        """What is known of the minimum where every prediction is an entry of A; None: it is looked for."""
        return None

    def total(self, z: Tensor) -> Tensor:
        """Σ ℓ, shape (B,)."""
        raise NotImplementedError

    def slope(self, z: Tensor) -> Tensor:
        """∂ℓ/∂Z, shape of Z."""
        raise NotImplementedError

    def bend(self, z: Tensor, dz: Tensor) -> Tensor:
        """The second derivative at Z applied to dZ; Z may have batch 1."""
        raise NotImplementedError

    def margins(self, z: Tensor) -> Tensor | None:
        """By how much each answer is right, shape (B, n), NaN where nothing is asked; None without right and wrong."""
        return None

    def separation(self, z: Tensor) -> Tensor | None:
        """Where it is positive, ℓ(cZ) → 0 as c → ∞, shape (B,); None where that cannot be."""
        return None

    def blind(self, v: Tensor) -> Tensor:
        """The part of V (on matrices) that the loss ignores although it is seen."""
        return torch.zeros_like(v)


class SampledCost(ConvexCost):
    """C(A) = w·Σ_i ℓ_i(Z_i).

    Args:
        kind: the task shown to users.
        loss: ℓ and its labels.
        sampling: what is seen of A.
        resolution: relative precision of the numbers it was given in.
        found: what is known of the minimum; None: it is looked for.
    """

    def __init__(
        self, kind: str, loss: Loss, sampling: Sampling, resolution: float, found: Found | None = None
    ) -> None:
        self.kind, self.loss, self.sampling = kind, loss, sampling
        self.by_products = sampling.metric is not None
        self.name, self.shape, self.like = loss.name, sampling.shape, sampling.like
        self.resolution = max(float(torch.finfo(self.like.dtype).eps), resolution)
        self.minimum, self.minimizer, self.attained = 0.0, None, False
        self.found = found if found is not None else minimise(self, metric=sampling.metric, bound=loss.curvature_bound)
        self.minimum, self.minimizer, self.attained = self.found.value, self.found.minimizer, self.found.attained

    def __repr__(self) -> str:
        least = f"minimum={self.minimum:.6g}" if self.attained else "no minimum"
        return f"SampledCost({self.name}, {self.kind}, {self.shape[0]}×{self.shape[1]}, {least})"

    def to(self, backend: Backend) -> SampledCost:
        """The same cost on another device or in another dtype."""
        found = self.found.to(backend)
        return SampledCost(self.kind, self.loss.to(backend), self.sampling.to(backend), self.resolution, found)

    @property
    def unique(self) -> bool:
        """Whether the minimum exists and everything is seen by a loss that ignores nothing."""
        seen = self.sampling.complete and not bool(self.loss.blind(self.like.new_ones(self.shape)).any())
        return self.attained and seen

    @property
    def curvature_bound(self) -> float:
        """An upper bound of the Hessian, wherever A is."""
        metric = self.sampling.metric
        top = 1.0 if metric is None else float(torch.linalg.eigvalsh(metric)[-1])
        return self.loss.curvature_bound * top

    @property
    def observations(self) -> Observations:
        """What is seen, with its losses."""
        return Observations(self.sampling, self.loss, "entries" if self.sampling.metric is None else "samples")

    @property
    def metric(self) -> Tensor | None:
        """Σ such that A√Σ are coordinates in which no input is slow; None where entries are seen as they are."""
        return self.sampling.metric

    def value(self, a: Tensor) -> Tensor:
        """C(A), shape (B,)."""
        return self.sampling.weight * self.loss.total(self.sampling.predict(a))

    def gradient(self, a: Tensor) -> Tensor:
        """∇C(A), shape (B, d_out, d_in)."""
        return self.sampling.pull_back(self.loss.slope(self.sampling.predict(a)))

    def apply_curvature(self, v: Tensor, a: Tensor) -> Tensor:
        """Hessian of C at A applied to V; where all A are one, its predictions are formed once."""
        one = len(a) == 1 or a.stride(0) == 0
        z = self.sampling.predict(a[:1] if one else a)
        size = max(1, CHUNK // self.sampling.per_matrix)
        parts = []
        for first in range(0, len(v), size):
            part = slice(first, first + size)
            bend = self.loss.bend(z if one else z[part], self.sampling.predict(v[part]))
            parts.append(self.sampling.pull_back(bend))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def unseen(self, v: Tensor) -> Tensor:
        """The part of V that is not seen, or that the loss ignores."""
        hidden = self.sampling.unseen(v)
        return hidden + self.loss.blind(v - hidden)

    def accuracy(self, a: Tensor) -> Tensor | None:
        """The share of answers with a margin above 0."""
        margins = self.loss.margins(self.sampling.predict(a))
        if margins is None:
            return None
        asked = ~margins.isnan()
        return ((margins > 0) & asked).sum(-1).to(a.dtype) / asked.sum(-1)

    def separation(self, a: Tensor) -> Tensor | None:
        """Of the loss, at what is seen of A."""
        return self.loss.separation(self.sampling.predict(a))

    def margin(self, a: Tensor) -> Tensor | None:
        """The least margin."""
        margins = self.loss.margins(self.sampling.predict(a))
        return None if margins is None else margins.nan_to_num(nan=float("inf")).amin(-1)

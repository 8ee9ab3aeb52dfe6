"""Which directions in matrix space a cost measures."""

from __future__ import annotations

import torch
from torch import Tensor

from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.costs.round_off import indistinct


def measured_directions(cost: QuadraticCost) -> Tensor | None:
    """Orthonormal columns spanning the range of H on row-major entries, shape (D, m); None where it is everything."""
    d_out, d_in = cost.shape
    if cost.structure == "mask":
        seen = torch.nonzero(cost.operator.flatten() > 0).flatten()
        if len(seen) == d_out * d_in:
            return None
        eye = torch.eye(d_out * d_in, dtype=cost.operator.dtype, device=cost.operator.device)
        return eye[:, seen]
    values, vectors = torch.linalg.eigh(cost.operator)
    kept = vectors[:, values > indistinct(cost.resolution) * values[-1]]
    if cost.structure == "dense":
        return None if kept.shape[1] == d_out * d_in else kept
    if kept.shape[1] == d_in:
        return None
    eye = torch.eye(d_out, dtype=kept.dtype, device=kept.device)
    return torch.kron(eye, kept.contiguous())

"""Shares of right answers, of any cost that knows them."""

from __future__ import annotations

import numpy as np
import torch

from dlnphase.costs.interface import ConvexCost


def accuracies(cost: ConvexCost | None, matrices: np.ndarray) -> np.ndarray | None:
    """The share of right answers of a stack of matrices (T, d_out, d_in), shape (T,); None where none is asked for."""
    if cost is None:
        return None
    shares: list[torch.Tensor] = []
    for a in torch.as_tensor(matrices, dtype=cost.like.dtype, device=cost.like.device):
        share = cost.accuracy(a[None])  # one by one: the answers to thousands of samples take room
        if share is None:
            return None
        shares.append(share)
    return torch.cat(shares).cpu().numpy().astype(float)


def accuracy(cost: ConvexCost | None, a: np.ndarray) -> float | None:
    """The share of right answers of a matrix (d_out, d_in); None where none is asked for."""
    found = accuracies(cost, a[None])
    return None if found is None else float(found[0])

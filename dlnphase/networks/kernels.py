"""Sizes of neural tangent kernels and of their changes, from their Kronecker factors: no D × D matrix is formed.

A kernel is K = Σ_l A_l ⊗ B_l, held as pairs (A_l, B_l) of shapes (B, d_out, d_out) and (B, d_in, d_in), as
:meth:`Network.ntk_factors` gives them, and ⟨A⊗B, C⊗D⟩ = ⟨A, C⟩⟨B, D⟩.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Factors = Sequence[tuple[Tensor, Tensor]]


def relative_change(before: Factors, after: Factors) -> Tensor:
    """‖K_1 − K_0‖_F/‖K_0‖_F, shape (B,); infinite where K_0 = 0. Either may have one member."""
    before, after = in_one_unit(before, after)
    whole = inner(before, before)
    square = inner(after, after) - 2 * inner(after, before) + whole
    return torch.where(whole > 0, (square.clamp_min(0.0) / whole).sqrt(), torch.inf)


def relative_size(change: Factors, kernel: Factors) -> Tensor:
    """‖K̇‖_F/‖K‖_F, shape (B,); infinite where K = 0."""
    change, kernel = in_one_unit(change, kernel)
    whole = inner(kernel, kernel)
    return torch.where(whole > 0, (inner(change, change).clamp_min(0.0) / whole).sqrt(), torch.inf)


def inner(x: Factors, y: Factors) -> Tensor:
    """⟨X, Y⟩ of two kernels, shape (B,)."""
    parts = [(a * c).sum((-2, -1)) * (b * d).sum((-2, -1)) for a, b in x for c, d in y]
    return torch.stack(torch.broadcast_tensors(*parts)).sum(0)


def in_one_unit(*kernels: Factors) -> list[list[tuple[Tensor, Tensor]]]:
    """The same kernels in a unit that they share: squares of layers of unlike sizes leave the range of numbers."""
    pairs = [pair for factors in kernels for pair in factors]
    left, right = (max(float(pair[side].abs().max()) for pair in pairs) or 1.0 for side in (0, 1))
    return [[(a / left, b / right) for a, b in factors] for factors in kernels]

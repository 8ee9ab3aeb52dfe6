"""How large directions are, by M_l = W_l W_lᵀ + W_{l+1}ᵀ W_{l+1}: the yardstick of errors of stiff steps."""

from __future__ import annotations

import torch
from torch import Tensor

from dlnphase.networks.chain import Network, split

GROWTH_KNOWN = 1e-2  # relative error below which a step tells the size of a direction it fills


def direction_weights(network: Network) -> list[Tensor]:
    """M_ii of M_l = W_l W_lᵀ + W_{l+1}ᵀ W_{l+1} for every space l = 0, …, L, each (B, n_l)."""
    squares = [w.square() for w in network.weights]
    below = [s.sum(-1) for s in squares]
    above = [s.sum(-2) for s in squares]
    middle = [b + a for b, a in zip(below[:-1], above[1:], strict=True)]
    return [above[0], *middle, below[-1]]


def inverse_sizes(network: Network) -> list[Tensor]:
    """1/r for r = √M_ii, the size of each direction of each space 0, …, L, each (B, n_l): the yardstick of errors."""
    floor = torch.finfo(network.theta.dtype).tiny ** 0.5
    return [m.clamp_min(floor).rsqrt() for m in direction_weights(network)]


def scaled_norm(theta: Tensor, dims: tuple[int, ...], scales: list[Tensor]) -> Tensor:
    """√(1/L Σ_l Σ_ij W_l[i,j]² / (r_i r_j)) of flat layers (B, P), shape (B,); scales hold 1/r of every space."""
    total = torch.zeros_like(theta[:, 0])
    for i, layer in enumerate(split(theta, dims)):
        inner = torch.matmul(layer.square(), scales[i].unsqueeze(-1)).squeeze(-1)
        total = total + (inner * scales[i + 1]).sum(-1)
    return (total / (len(dims) - 1)).sqrt()


def has_empty_ends(network: Network) -> bool:
    """Whether the first or the last layer of a member leaves input or output directions untouched.

    Layers narrower than the ends do, and so do starts of low rank. Such directions have no size of their own.
    """
    tolerance = 100 * torch.finfo(network.theta.dtype).eps
    ends = (network.weights[0], network.weights[-1].mT)
    ranks = (torch.linalg.matrix_rank(w.nan_to_num(0.0, 0.0, 0.0), rtol=tolerance) < w.shape[-1] for w in ends)
    return any(bool(r.any()) for r in ranks)


def with_grown_ends(scales: list[Tensor], new: Network, error: Tensor) -> list[Tensor]:
    """Scales in which an input or output direction has at least the size a step gives it.

    Only where the step tells that size to one part in a hundred: error that fills an empty direction is no growth.
    Behind a layer narrower than the end, some directions carry no mode of their own, only the turning of others:
    there the smallest direction of that layer is size enough.

    Steps of this kind walk such a network from its start on, through every burst, where errors of layers go the same
    way and add up in A: sizes count 2/L of what they are, so that a deep one is as exact as one of two layers.

    Args:
        scales: 1/r of every space before the step.
        new: the network after it.
        error: its estimated error, flat (B, P).
    """
    wrong = split(error, new.dims)
    floor = torch.finfo(error.dtype).tiny ** 0.5
    out = list(scales)
    for space, layer, dim, other in ((0, 0, -2, -1), (new.depth, new.depth - 1, -1, -2)):
        squares = new.weights[layer].square()
        size = squares.sum(dim)
        known = wrong[layer].square().sum(dim) < GROWTH_KNOWN**2 * size
        grown = torch.where(known, size, 0.0)
        if squares.shape[dim] < squares.shape[other]:
            grown = torch.maximum(grown, squares.sum(other).amin(-1, keepdim=True))
        out[space] = torch.minimum(scales[space], grown.clamp_min(floor).rsqrt())
    return [scale * max(new.depth / 2, 1.0) for scale in out]


def space_weights(network: Network, space: int) -> Tensor:
    """M_ii of one space, shape (B, n_l)."""
    out = torch.zeros((network.batch, network.dims[space]), dtype=network.theta.dtype, device=network.theta.device)
    if space > 0:
        out = out + network.weights[space - 1].square().sum(-1)
    if space < network.depth:
        out = out + network.weights[space].square().sum(-2)
    return out

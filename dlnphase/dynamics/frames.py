"""Rotated frames in which small components of a network are stored as small numbers.

Rotating every space, W_l → O_l W_l O_{l-1}ᵀ, leaves the flow unchanged if the cost is rotated along.
In floating point it matters: once a mode is learned, products of layers carry round-off of *its* size,
while an unlearned mode lives on terms of size α^(L−1). In a frame whose axes are the singular directions
of each space, graded from large to small, products are accurate entry by entry and the noise is gone
(theory sheet, section 8).

The rotations are built from vectors x close to a unit vector e_i, by a formula whose small entries are
accurate relatively, so that re-aligning an aligned frame does not spoil the grading it protects.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from dlnphase.network import Network

EMERGENCE = 30.0  # a direction leads its space when its weight λ exceeds this multiple of the mean of the rest
POWER_ITERATIONS = 12


@dataclass
class Frames:
    """Frames of all spaces of a batch: the network holds Ŵ_l = O_l W_l O_{l-1}ᵀ.

    Attributes:
        rotations: O_0, …, O_L, each (B, n_l, n_l).
        leading: number of aligned leading directions of each space and member, each (B,).
    """

    rotations: list[Tensor]
    leading: list[Tensor] = field(default_factory=list)

    @classmethod
    def identity(cls, network: Network) -> Frames:
        """The frame a network comes in."""
        like = network.theta
        eyes = [torch.eye(n, dtype=like.dtype, device=like.device).repeat(network.batch, 1, 1) for n in network.dims]
        return cls(eyes, [torch.zeros(network.batch, dtype=torch.long, device=like.device) for _ in network.dims])

    def select(self, members: Tensor) -> Frames:
        """Some members of the batch."""
        return Frames([o[members] for o in self.rotations], [k[members] for k in self.leading])

    def to_original(self, network: Network, member: int) -> list[Tensor]:
        """Layers of one member in the frame the run started in: W_l = O_lᵀ Ŵ_l O_{l-1}."""
        o = self.rotations
        return [o[i + 1][member].T @ w[member] @ o[i][member] for i, w in enumerate(network.weights)]


def direction_weights(network: Network) -> list[Tensor]:
    """M_ii of M_l = W_l W_lᵀ + W_{l+1}ᵀ W_{l+1} for every space l = 0, …, L, each (B, n_l)."""
    squares = [w.square() for w in network.weights]
    below = [s.sum(-1) for s in squares]
    above = [s.sum(-2) for s in squares]
    middle = [b + a for b, a in zip(below[:-1], above[1:], strict=True)]
    return [above[0], *middle, below[-1]]


def inverse_scale(weights: list[Tensor]) -> Tensor:
    """1/√(r_i r_j) for every parameter W_l[i, j], r = √M_ii: the yardstick of relative error, flat (B, P)."""
    floor = torch.finfo(weights[0].dtype).tiny ** 0.5
    roots = [m.clamp_min(floor).pow(-0.25) for m in weights]
    return torch.cat([(roots[i + 1].unsqueeze(-1) * roots[i].unsqueeze(-2)).flatten(1) for i in range(len(roots) - 1)], 1)


def align(network: Network, frames: Frames) -> bool:
    """Turn every space, in place, so that its leading directions lie along its first axes.

    Returns whether any space of any member has a leading direction (else nothing was changed).
    """
    spaces = range(len(network.dims))
    for space in spaces:
        _realign(network, frames, space)
    for space in spaces:
        _promote(network, frames, space)
    return any(bool((k > 0).any()) for k in frames.leading)


def _realign(network: Network, frames: Frames, space: int) -> None:
    """One power step per leading direction: x ∝ M e_i on the axes from i on."""
    leading = frames.leading[space]
    for i in range(int(leading.max())):
        column = _gram_times_axis(network, space, i)[:, i:]
        x = column / torch.linalg.vector_norm(column, dim=-1, keepdim=True)
        tail = x[:, 1:] * (leading > i).unsqueeze(-1) * torch.sign(x[:, :1])
        _turn(network, frames, space, i, tail)


def _promote(network: Network, frames: Frames, space: int) -> None:
    """Add directions that have grown out of the rest, each found by power iteration on the axes not yet leading."""
    n = network.dims[space]
    leading = frames.leading[space]
    axes = torch.arange(n, device=leading.device)
    while True:
        open_axes = axes >= leading.unsqueeze(-1)
        weights = _space_weights(network, space) * open_axes
        total = weights.sum(-1)
        count = (n - leading).clamp_min(1)
        x = torch.zeros_like(weights).scatter_(1, weights.argmax(-1, keepdim=True), 1.0)
        value = total / count
        for _ in range(POWER_ITERATIONS):
            y = _gram_times(network, space, x) * open_axes
            value = torch.linalg.vector_norm(y, dim=-1)
            x = y / value.clamp_min(torch.finfo(y.dtype).tiny).unsqueeze(-1)
        rest = (total - value).clamp_min(0.0) / (count - 1).clamp_min(1)
        emerged = (value > EMERGENCE * rest) & (count > 1) & (value > 0)
        if not bool(emerged.any()):
            return
        for i in leading[emerged].unique().tolist():
            chosen = emerged & (leading == i)
            head = x[:, i : i + 1]
            tail = x[:, i + 1 :] * torch.where(head < 0, -1.0, 1.0) * chosen.unsqueeze(-1)
            _turn(network, frames, space, i, tail)
        leading += emerged.long()


def _turn(network: Network, frames: Frames, space: int, i: int, tail: Tensor) -> None:
    """Rotate one space so that the unit vector x = (√(1−|tail|²), tail) on its axes i, i+1, … becomes axis i."""
    head = (1.0 - tail.square().sum(-1)).clamp_min(0.0).sqrt()
    if space > 0:
        _turn_rows(network.weights[space - 1], i, head, tail)
    if space < network.depth:
        _turn_rows(network.weights[space].mT, i, head, tail)
    _turn_rows(frames.rotations[space], i, head, tail)


def _turn_rows(matrix: Tensor, i: int, head: Tensor, tail: Tensor) -> None:
    """Rows i, i+1, … of a batch of matrices, in place: the direct rotation that maps x to e_i."""
    first, others = matrix[:, i], matrix[:, i + 1 :]
    z = (tail.unsqueeze(-2) @ others).squeeze(-2)
    pushed = first + z / (1.0 + head).unsqueeze(-1)
    new_first = head.unsqueeze(-1) * first + z
    others -= tail.unsqueeze(-1) * pushed.unsqueeze(-2)
    matrix[:, i] = new_first


def _gram_times(network: Network, space: int, x: Tensor) -> Tensor:
    """M_l x for vectors x of shape (B, n_l)."""
    x = x.unsqueeze(-1)
    out = torch.zeros_like(x)
    if space > 0:
        w = network.weights[space - 1]
        out = out + w @ (w.mT @ x)
    if space < network.depth:
        w = network.weights[space]
        out = out + w.mT @ (w @ x)
    return out.squeeze(-1)


def _gram_times_axis(network: Network, space: int, i: int) -> Tensor:
    """M_l e_i, shape (B, n_l)."""
    out: Tensor | None = None
    if space > 0:
        w = network.weights[space - 1]
        out = (w @ w[:, i].unsqueeze(-1)).squeeze(-1)
    if space < network.depth:
        w = network.weights[space]
        term = (w.mT @ w[:, :, i].unsqueeze(-1)).squeeze(-1)
        out = term if out is None else out + term
    assert out is not None
    return out


def _space_weights(network: Network, space: int) -> Tensor:
    """Diagonal of M_l, shape (B, n_l)."""
    out = torch.zeros((network.batch, network.dims[space]), dtype=network.theta.dtype, device=network.theta.device)
    if space > 0:
        out = out + network.weights[space - 1].square().sum(-1)
    if space < network.depth:
        out = out + network.weights[space].square().sum(-2)
    return out

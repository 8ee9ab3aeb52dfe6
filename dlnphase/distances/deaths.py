"""Where the dead directions of a saddle die: which layers, and what that costs.

With G = U_R Γ V_Rᵀ the cost gradient at the saddle, every pair of directions has to die: on the right in W_k ⋯ W_1,
on the left in W_L ⋯ W_{k+1}. All pairs may use the same k (:func:`uniform_death`, for each k), or some k and others
k + 1: :func:`mixed_death` for L = 3, where each step of the search is exact, :func:`graded_death` for any depth.
Mixing spreads the work over rows and columns of the layers shared: nothing is gained as w → ∞, but up to 16 % where w
is a few times the number of directions. For criticality the left directions dying in the longer chain have to be
orthogonal to G times the right directions dying in the longer chain; which subspace that is, is optimised as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlnphase.distances.critical import CriticalMatrix
from dlnphase.distances.kills import bottom_subspace, kill
from dlnphase.networks.chain import Network

MIXED_SWEEPS = 60
MIXED_TOLERANCE = 1e-9
ROUGH_SWEEPS = 6
TURNS = 4


@dataclass(frozen=True)
class Death:
    """A network whose given directions are dead.

    Attributes:
        network: the nearest one found of its kind.
        squared: ‖θ − θ_0‖², shape (B,).
        groups: (k, V, U) with W_k ⋯ W_1 V = 0 and Uᵀ W_L ⋯ W_{k+1} = 0.
        spaces: for each space 0 … L an orthonormal basis of what is dead there, or None.
    """

    network: Network
    squared: Tensor
    groups: list[tuple[int, Tensor, Tensor]]
    spaces: list[Tensor | None]


def once_per_draw(
    network: Network, matrices: list[CriticalMatrix], draws: Sequence[int], make: Callable[[list[int]], Death]
) -> Death:
    """Deaths of members of which many are one draw at several scales: what dies and where does not depend on the scale.

    Args:
        draws: members of equal number have the same weights up to a factor.
        make: the deaths of some members.
    """
    first: dict[tuple[int, int], int] = {}
    for member, (draw, matrix) in enumerate(zip(draws, matrices, strict=True)):
        first.setdefault((draw, id(matrix)), member)
    if len(first) == network.batch:
        return make(list(range(network.batch)))
    chosen = list(first.values())
    death, sizes = make(chosen), network.theta.norm(dim=1)
    place = {key: row for row, key in enumerate(first)}
    rows = [place[draw, id(matrix)] for draw, matrix in zip(draws, matrices, strict=True)]
    scale = sizes / sizes[[chosen[row] for row in rows]]
    return Death(
        network.with_theta(death.network.theta[rows] * scale[:, None]),
        death.squared[rows] * scale**2,
        [(k, v[rows], u[rows]) for k, v, u in death.groups],
        [None if space is None else space[rows] for space in death.spaces],
    )


def uniform_death(network: Network, matrices: list[CriticalMatrix], split: int, *, rough: bool = False) -> Death:
    """All right directions die in the first ``split`` layers, all left ones in the others (one matrix per member)."""
    right, left = _sides(matrices)
    below = kill(network.weights[:split], right, rough=rough)
    above = kill([w.mT for w in reversed(network.weights[split:])], left, rough=rough)
    dead = Network.from_weights([*below.layers, *(w.mT for w in reversed(above.layers))])
    spaces: list[Tensor | None] = [*below.frames, None, *reversed(above.frames)]
    return Death(dead, below.squared + above.squared, [(split, right, left)], spaces)


def mode_costs(network: Network, matrices: list[CriticalMatrix], splits: tuple[int, int]) -> Tensor:
    """What each pair of directions costs by itself with either split, shape (B, m, 2)."""
    right, left = _sides(matrices)
    out = []
    for i in range(right.shape[2]):
        row = []
        for split in splits:
            below = kill(network.weights[:split], right[:, :, i : i + 1], rough=True)
            above = kill([w.mT for w in reversed(network.weights[split:])], left[:, :, i : i + 1], rough=True)
            row.append(below.squared + above.squared)
        out.append(torch.stack(row, 1))
    return torch.stack(out, 1)


def graded_death(network: Network, matrices: list[CriticalMatrix], splits: tuple[int, int], first: Tensor) -> Death:
    """Any depth: part of the right directions die in the longer of two chains, the others in the shorter.

    The groups are killed one after the other, which is a start for polishing, not the nearest point of its kind.

    Args:
        splits: (k of the first group, k of the others), the first larger.
        first: shape (B, m, count), orthonormal columns: the first group in the basis of the right directions.
    """
    right, left = _sides(matrices)
    gamma = torch.stack([m.strengths for m in matrices])
    others = torch.linalg.qr(first, mode="complete")[0][:, :, first.shape[2] :]
    # Left directions may die early only where G leads from right ones that die late: orth(Γ·first) goes with the first.
    partner = torch.linalg.qr(gamma.unsqueeze(2) * first, mode="complete")[0]
    count = first.shape[2]
    groups = [
        (splits[0], right @ first, left @ partner[:, :, :count]),
        (splits[1], right @ others, left @ partner[:, :, count:]),
    ]
    weights = list(network.weights)
    for split, v, u in groups:
        below = kill(weights[:split], v)
        weights = [*below.layers, *weights[split:]]
        above = kill([w.mT for w in reversed(weights[split:])], u)
        weights = [*weights[:split], *(w.mT for w in reversed(above.layers))]
    dead = Network.from_weights(weights)
    spaces: list[Tensor | None] = [right, *([None] * (network.depth - 1)), left]
    return Death(dead, ((dead.theta - network.theta) ** 2).sum(1), groups, spaces)


def mixed_death(
    network: Network, matrices: list[CriticalMatrix], count: int, costs: Tensor, reverse: bool, *, rough: bool = False
) -> Death:
    """L = 3: ``count`` right directions die in W_2W_1 (their left partners in W_3), the others in W_1 (and W_3W_2).

    Alternates exact steps for the middle spaces E (right) and F (left) with turns of the subspace that takes the longer
    way; costs (from :func:`mode_costs`) say which modes start there.
    """
    right, left = _sides(matrices)
    gamma = torch.stack([m.strengths for m in matrices])
    w1, w2, w3 = network.weights
    m = right.shape[2]
    order = (costs[:, :, 1] - costs[:, :, 0]).argsort(1, descending=reverse)
    eye = torch.eye(m, dtype=right.dtype, device=right.device)
    short = eye[order[:, count:]].mT  # b: right directions with k = 1, in the basis of V_R
    image, pull = w1 @ right, w3.mT @ left
    long_, partner = _partners(short, gamma)
    e = bottom_subspace(w2, image @ long_)
    previous: Tensor | None = None
    for _ in range(ROUGH_SWEEPS if rough else MIXED_SWEEPS):
        f = bottom_subspace((w2 - (w2 @ e) @ e.mT).mT, pull @ partner)
        e = bottom_subspace(w2 - f @ (f.mT @ w2), image @ long_)
        short = _turn(short, gamma, e.mT @ image, f.mT @ pull)
        long_, partner = _partners(short, gamma)
        squared = _mixed_cost(w2, e, f, image, pull, long_, partner)
        if previous is not None and bool(((previous - squared) <= MIXED_TOLERANCE * squared).all()):
            break
        previous = squared
    v_long, v_short = right @ long_, right @ short
    u_long = left @ partner
    u_short = left @ torch.linalg.qr(partner, mode="complete")[0][:, :, partner.shape[2] :]
    image, pull = w1 @ v_long, w3.mT @ u_long
    new1 = w1 - (image - e @ (e.mT @ image)) @ v_long.mT - (w1 @ v_short) @ v_short.mT
    new2 = w2 - (w2 @ e) @ e.mT
    new2 = new2 - f @ (f.mT @ new2)
    new3 = w3 - u_long @ (pull - f @ (f.mT @ pull)).mT - u_short @ (u_short.mT @ w3)
    dead = Network.from_weights([new1, new2, new3])
    squared = ((dead.theta - network.theta) ** 2).sum(1)
    groups = [(2, v_long, u_short), (1, v_short, u_long)]
    return Death(dead, squared, groups, [right, e, f, left])


def _sides(matrices: list[CriticalMatrix]) -> tuple[Tensor, Tensor]:
    return torch.stack([m.right for m in matrices]), torch.stack([m.left for m in matrices])


def _partners(short: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Right directions with k = 2 (the complement of b) and left ones dying in W_3W_2 (orth Γ⁻¹b), in the bases V_R,
    U_R."""
    long_ = torch.linalg.qr(short, mode="complete")[0][:, :, short.shape[2] :]
    return long_, torch.linalg.qr(short / gamma.unsqueeze(2))[0]


def _turn(short: Tensor, gamma: Tensor, right: Tensor, left: Tensor) -> Tensor:
    """Gradient ascent on the subspace b: tr(Π_c LᵀL) − tr(bᵀRᵀR b), Π_c the projection on Γ⁻¹b, bᵀb = 1."""
    h1 = right.mT @ right
    inverse = 1 / gamma.unsqueeze(2)
    k = (left.mT @ left) * inverse * inverse.mT
    n = torch.diag_embed(gamma**-2)

    def gain(b: Tensor) -> tuple[Tensor, Tensor]:
        s = torch.linalg.inv(b.mT @ n @ b)
        kb = b.mT @ k @ b
        value = (s * kb.mT).sum((1, 2)) - (b * (h1 @ b)).sum((1, 2))
        gradient = k @ b @ s - n @ b @ s @ kb @ s - h1 @ b
        return value, gradient - b @ (b.mT @ gradient)

    value, slope = gain(short)
    rate = 1 / (h1.diagonal(dim1=1, dim2=2).amax(1) + (left**2).sum((1, 2)) + torch.finfo(h1.dtype).tiny)
    for _ in range(TURNS):
        trial = torch.linalg.qr(short + rate[:, None, None] * slope)[0]
        new, new_slope = gain(trial)
        better = new > value
        short = torch.where(better[:, None, None], trial, short)
        slope = torch.where(better[:, None, None], new_slope, slope)
        value = torch.where(better, new, value)
        rate = torch.where(better, 1.5 * rate, 0.3 * rate)
    return short


def _mixed_cost(
    w2: Tensor, e: Tensor, f: Tensor, image: Tensor, pull: Tensor, long_: Tensor, partner: Tensor
) -> Tensor:
    def square(x: Tensor) -> Tensor:
        return (x**2).sum((1, 2))

    ends = square(image) - square(e.mT @ image @ long_) + square(pull) - square(f.mT @ pull @ partner)
    return ends + square(w2 @ e) + square(f.mT @ w2) - square(f.mT @ w2 @ e)

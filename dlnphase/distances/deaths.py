"""Where the dead directions of a saddle die: which layers, and what that costs.

With G = U_R Γ V_Rᵀ the cost gradient at the saddle, every pair of directions has to die: on the right in W_k ⋯ W_1,
on the left in W_L ⋯ W_{k+1}. All pairs may use the same k (:func:`uniform_death`, for each k), or some k and others
k + 1: :mod:`dlnphase.distances.mixing` for L = 3, each of whose steps is exact, :func:`graded_death` for any depth.
Mixing spreads the work over rows and columns of the layers shared: nothing is gained as w → ∞, but up to 16 % where w
is a few times the number of directions. For criticality the left directions dying in the longer chain have to be
orthogonal to G times the right directions dying in the longer chain; which subspace that is, is optimised as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from dlnphase.distances.annihilation import kill
from dlnphase.distances.critical import CriticalMatrix
from dlnphase.networks.batch import Batched
from dlnphase.networks.chain import Network


@dataclass(frozen=True, eq=False)
class Death(Batched):
    """Networks whose given directions are dead.

    Attributes:
        network: the nearest one found of its kind.
        squared: ‖θ − θ_0‖², shape (B,).
        splits: the k of each group of directions: W_k ⋯ W_1 V = 0 and Uᵀ W_L ⋯ W_{k+1} = 0.
        right, left: V and U of each group.
        spaces: for each space 0 … L an orthonormal basis of what is dead there, (B, n_l, 0) if nothing is known to be.
    """

    network: Network
    squared: Tensor
    splits: tuple[int, ...]
    right: list[Tensor]
    left: list[Tensor]
    spaces: list[Tensor]


def gathered(places: Sequence[tuple[Death, int]], scale: Tensor) -> Death:
    """One death a member, out of batches of them that have the same shapes.

    Args:
        places: the batch and the row of each member.
        scale: factor of the weights against those there, shape (B,).
    """
    batches = list(dict.fromkeys(death for death, _ in places))
    starts = dict(zip(batches, accumulate([len(b.squared) for b in batches], initial=0), strict=False))
    rows = [starts[death] + row for death, row in places]

    def pick(parts: Sequence[Tensor]) -> Tensor:
        return (parts[0] if len(parts) == 1 else torch.cat(list(parts)))[rows]

    first = batches[0]
    network = first.network.with_theta(pick([b.network.theta for b in batches]) * scale[:, None])
    lists = [
        [pick(parts) for parts in zip(*(getattr(b, name) for b in batches), strict=True)]
        for name in ("right", "left", "spaces")
    ]
    return Death(network, pick([b.squared for b in batches]) * scale**2, first.splits, *lists)


def uniform_death(network: Network, matrices: list[CriticalMatrix], split: int) -> Death:
    """All right directions die in the first ``split`` layers, all left ones in the others (one matrix per member)."""
    right, left = sides(matrices)
    below = kill(network.weights[:split], right)
    above = kill([w.mT for w in reversed(network.weights[split:])], left)
    dead = Network.from_weights([*below.layers, *(w.mT for w in reversed(above.layers))])
    spaces = [*below.frames, *reversed(above.frames)]
    spaces.insert(split, nothing(network, split))
    return Death(dead, below.squared + above.squared, (split,), [right], [left], spaces)


def nothing(network: Network, index: int) -> Tensor:
    """A basis without columns of space ``index`` of every member."""
    return network.theta.new_zeros(network.batch, network.dims[index], 0)


def mode_costs(network: Network, matrices: list[CriticalMatrix], splits: tuple[int, int]) -> Tensor:
    """What each pair of directions costs by itself with either split, shape (B, m, 2)."""
    right, left = sides(matrices)
    out = []
    for i in range(right.shape[2]):
        row = []
        for split in splits:
            below = kill(network.weights[:split], right[:, :, i : i + 1])
            above = kill([w.mT for w in reversed(network.weights[split:])], left[:, :, i : i + 1])
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
    right, left = sides(matrices)
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
    spaces = [right, *(nothing(network, index) for index in range(1, network.depth)), left]
    squared = ((dead.theta - network.theta) ** 2).sum(1)
    return Death(dead, squared, splits, [v for _, v, _ in groups], [u for _, _, u in groups], spaces)


def sides(matrices: list[CriticalMatrix]) -> tuple[Tensor, Tensor]:
    """V_R and U_R, one matrix a member, shapes (B, d_in, m) and (B, d_out, m)."""
    return torch.stack([m.right for m in matrices]), torch.stack([m.left for m in matrices])

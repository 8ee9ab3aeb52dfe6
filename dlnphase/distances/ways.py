"""The ways in which the dead directions of a critical matrix may die, and bounds that rule most of them out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlnphase.distances.critical import CriticalMatrix
from dlnphase.distances.deaths import Death, graded_death, mode_costs, uniform_death
from dlnphase.distances.lower import least_cost_of_value
from dlnphase.distances.mixing import mixed_death
from dlnphase.distances.starts import distinct
from dlnphase.networks.chain import Network

MIXED_SPREAD = 0.02  # below this relative spread of the modes' costs, mixing splits has nothing to gain
GRADED_EQUATIONS = 300  # kill equations up to which mixed splits of depths other than 3 are searched
ANGLES = 24  # directions tried for the first of two graded groups
SAME = 1e-6  # deaths whose squares differ by less than this share are one


@dataclass(frozen=True, eq=False)
class Way:
    """One critical matrix and one way for its dead directions to die.

    Attributes:
        matrix: the critical matrix.
        death: the cheapest death found by that way, one member a draw.
        bound: lower bound on the distance over this kind, shape (B,).
    """

    matrix: CriticalMatrix
    death: Death
    bound: Tensor

    @property
    def kind(self) -> tuple[object, ...]:
        """Ways of one kind are searched in one batch."""
        return (self.matrix.signature, self.death.splits, self.death.right[0].shape[2])

    @property
    def scales(self) -> bool:
        """Whether nothing is kept: saddles of the kind are as much larger as the network is."""
        return not min(self.matrix.left_kept.shape[1], self.matrix.right_kept.shape[1])

    @property
    def is_exact(self) -> bool:
        """Whether its death is the nearest saddle of the kind: nothing is kept, in chains of at most two layers."""
        splits = self.death.splits
        return self.scales and max(splits[0], self.death.network.depth - splits[-1]) <= 2

    def words(self) -> str:
        """For people: which layers take the dead directions."""
        splits, depth = self.death.splits, self.death.network.depth
        if len(splits) == 1:
            return f"right in W1…W{splits[0]}, left in W{splits[0] + 1}…W{depth}"
        counts = [v.shape[2] for v in self.death.right]
        return ", ".join(f"{n} with right in W1…W{k}" for n, k in zip(counts, splits, strict=True))


class SharedDraws:
    """What depends on the draw of a member alone: what dies where does not depend on the scale of its weights.

    Args:
        network: B members.
        numbers: members of equal number have the same weights up to a factor.

    Attributes:
        network: the first member of each draw.
        rows: the place of every member there.
        first: the first member of the same draw, for every member.
        factor: how much larger a member is than that one, shape (B,).
    """

    def __init__(self, network: Network, numbers: Sequence[int]) -> None:
        firsts, rows = distinct(numbers)
        self.network = network.select(firsts)
        self.rows = rows.tolist()
        self.first = [firsts[row] for row in self.rows]
        size = network.theta.norm(dim=1)
        self.factor = size / size[self.first]


def uniform_ways(network: Network, draws: SharedDraws, matrices: Sequence[CriticalMatrix]) -> list[Way]:
    """All directions of each matrix with the same k, for k = 1, …, L−1.

    What is killed and what is fitted are different entries of the layers, in bases adapted to what is dead, and the
    latter are compressions of the layers: the squared distance is at least the sum of what each of the two costs, for
    what is fitted as in :mod:`dlnphase.distances.lower` (Horn 1950).
    """
    norms = torch.stack([torch.linalg.matrix_norm(w, 2) for w in network.weights], 1).cpu().numpy()
    norms = np.maximum(norms, np.finfo(float).tiny)[:, None]
    ways = []
    for matrix in matrices:
        fitted = torch.zeros_like(network.theta[:, 0])
        if matrix.basis is None:
            kept = torch.linalg.svdvals(matrix.matrix)[: min(matrix.matrix.shape) - matrix.dead]
            fitted = fitted + torch.as_tensor(least_cost_of_value(kept.cpu().numpy(), norms).sum(1)).to(fitted)
        for split in range(1, network.depth):
            death = uniform_death(draws.network, [matrix] * draws.network.batch, split)
            killed = death.squared.clamp_min(0)[draws.rows] * draws.factor**2
            ways.append(Way(matrix, death, (killed + fitted).sqrt()))
    return ways


def mixed_ways(network: Network, matrix: CriticalMatrix) -> list[tuple[Death, Tensor]]:
    """Some directions with k + 1, the others with k, where that may pay: several directions in narrow layers.

    Args:
        network: one member a draw.

    Returns:
        Deaths and, for each, which members it is told of: not of those whose death is that of the one before, which
        started from the other end.
    """
    depth, dead = network.depth, matrix.dead
    if depth < 3 or dead < 2:
        return []
    matrices, middle = [matrix] * network.batch, depth // 2
    splits = (middle, middle + 1)
    costs = mode_costs(network, matrices, splits)
    costs = costs / costs.new_tensor([1 / k + 1 / (depth - k) for k in splits])  # what wide layers ask, any mode alike
    if float((costs.std((1, 2)) / costs.mean((1, 2))).amax()) <= MIXED_SPREAD:
        return []
    if depth > 3 and 2 * dead * max(network.hidden) > GRADED_EQUATIONS:
        return []
    eye = torch.eye(dead, dtype=network.theta.dtype, device=network.theta.device)
    everyone = torch.ones(network.batch, dtype=torch.bool, device=eye.device)
    out = []
    for k in range(1, depth - 1):
        if depth > 3 and dead == 2:
            angles = [math.pi * i / ANGLES for i in range(ANGLES)]
            columns = [eye.new_tensor([[math.cos(angle)], [math.sin(angle)]]) for angle in angles]
            deaths = _mixed_deaths(network, matrix, k, [column.expand(network.batch, 2, 1) for column in columns])
            out += [(death, everyone) for death in deaths]
            continue
        costs = mode_costs(network, matrices, (k, k + 1))
        order = (costs[:, :, 1] - costs[:, :, 0]).argsort(1)
        for count in sorted({dead // 2, dead - dead // 2}):
            firsts = [eye[way[:, :count]].mT for way in (order, order.flip(1))]
            one, other = _mixed_deaths(network, matrix, k, firsts)
            out += [(one, everyone), (other, (other.squared - one.squared).abs() > SAME * one.squared)]
    return out


def _mixed_deaths(network: Network, matrix: CriticalMatrix, k: int, firsts: list[Tensor]) -> list[Death]:
    """Deaths of those of ``firsts`` in W_{k+1} ⋯ W_1 and of the others in W_k ⋯ W_1, found in one batch."""
    count = network.batch
    many, first = network.select([*range(count)] * len(firsts)), torch.cat(firsts)
    matrices = [matrix] * many.batch
    if network.depth == 3:
        death = mixed_death(many, matrices, first)
    else:
        death = graded_death(many, matrices, (k + 1, k), first)
    return [death.select(slice(i * count, (i + 1) * count)) for i in range(len(firsts))]

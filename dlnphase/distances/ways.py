"""The ways in which the dead directions of a critical matrix may die, and bounds that rule most of them out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dlnphase.distances.critical import CriticalMatrix
from dlnphase.distances.deaths import Death, gathered, graded_death, mode_costs, uniform_death
from dlnphase.distances.mixing import mixed_death
from dlnphase.distances.starts import distinct
from dlnphase.networks.chain import Network

MIXED_SPREAD = 0.02  # below this relative spread of the modes' costs, mixing splits has nothing to gain
GRADED_EQUATIONS = 300  # kill equations up to which mixed splits of depths other than 3 are searched
ANGLES = 24  # directions tried for the first of two graded groups


@dataclass(frozen=True)
class Way:
    """One critical matrix and one way for its dead directions to die.

    Attributes:
        matrix: the critical matrix.
        splits: (k,) of a uniform split, or (larger k, smaller k) of a mixed one.
        count: directions of the larger k in a mixed split.
        reverse: start a mixed split from the modes that like the larger k least.
        angle: of the first of two directions in a graded split.
        bound: lower bound on the distance over this kind, shape (B,).
        killed: squared size of the cheapest death, shape (B,).
        depth: of the network.
    """

    matrix: CriticalMatrix
    splits: tuple[int, ...]
    bound: Tensor
    killed: Tensor
    depth: int
    count: int = 0
    reverse: bool = False
    angle: float | None = None

    @property
    def kind(self) -> tuple[object, ...]:
        """Ways of one kind are searched in one batch."""
        return (self.splits, self.count, self.angle is None)

    @property
    def scales(self) -> bool:
        """Whether nothing is kept: saddles of the kind are as much larger as the network is."""
        return not min(self.matrix.left_kept.shape[1], self.matrix.right_kept.shape[1])

    @property
    def is_exact(self) -> bool:
        """Whether its death is the nearest saddle of the kind: nothing is kept, in chains of at most two layers."""
        return self.scales and max(self.splits[0], self.depth - self.splits[-1]) <= 2

    def words(self) -> str:
        """For people: which layers take the dead directions."""
        if len(self.splits) == 1:
            k = self.splits[0]
            return f"right in W1…W{k}, left in W{k + 1}…W{self.depth}"
        a, b = self.splits
        return f"{self.count} with right in W1…W{a}, {self.matrix.dead - self.count} with right in W1…W{b}"


class Deaths:
    """The deaths of one network: each is worked out when it is first asked for, and once for all scales of a draw.

    Args:
        network: B members.
        draws: members of equal number have the same weights up to a factor: what dies and where does not depend on it.
    """

    def __init__(self, network: Network, draws: Sequence[int]) -> None:
        self.network = network
        firsts, rows = distinct(draws)
        self._first = [firsts[row] for row in rows.tolist()]
        self._size = network.theta.norm(dim=1)
        self._known: dict[tuple[object, ...], tuple[Death, int]] = {}

    def first(self, member: int) -> int:
        """The first member of the same draw."""
        return self._first[member]

    def ratio(self, first: int, member: int) -> float:
        """How much larger a member is than another of its draw."""
        return float(self._size[member] / self._size[first])

    def of(self, ways: Sequence[Way], members: Sequence[int]) -> Death:
        """The death of some members, each by its own way; all ways of one kind."""
        firsts = [self._first[member] for member in members]
        keys = [(way.matrix, way.kind, way.reverse, way.angle, first) for way, first in zip(ways, firsts, strict=True)]
        new = {key: row for row, key in enumerate(keys) if key not in self._known}
        if new:
            rows = list(new.values())
            death = _death(self.network.select([firsts[row] for row in rows]), [ways[row] for row in rows])
            self._known.update((key, (death, row)) for row, key in enumerate(new))
        return gathered([self._known[key] for key in keys], self._size[list(members)] / self._size[firsts])


def uniform_ways(deaths: Deaths, matrices: Sequence[CriticalMatrix]) -> list[Way]:
    """All directions of each matrix with the same k, for k = 1, …, L−1.

    What is killed and what is fitted are different entries of the layers, in bases adapted to what is dead, and the
    latter are compressions of the layers: the squared distance is at least the sum of what each of the two costs.
    """
    network = deaths.network
    everyone = range(network.batch)
    norms: Tensor | None = None
    ways = []
    for matrix in matrices:
        fitted = torch.zeros_like(network.theta[:, 0])
        if matrix.basis is None:
            if norms is None:
                norms = torch.stack([torch.linalg.matrix_norm(w, 2) for w in network.weights], 1)
            kept = torch.linalg.svdvals(matrix.matrix)[: min(matrix.matrix.shape) - matrix.dead]
            fitted = fitted + sum((growth_bound(norms, float(s)) ** 2 for s in kept), start=fitted)
        for split in range(1, network.depth):
            way = Way(matrix, (split,), fitted, fitted, network.depth)
            killed = deaths.of([way] * network.batch, everyone).squared.clamp_min(0)
            ways.append(replace(way, bound=(killed + fitted).sqrt(), killed=killed))
    return ways


def mixed_ways(network: Network, matrix: CriticalMatrix, draws: Sequence[int]) -> list[Way]:
    """Some directions with k + 1, the others with k, where that may pay: several directions in narrow layers.

    Args:
        draws: members of equal number have the same weights up to a factor.
    """
    depth, dead = network.depth, matrix.dead
    if depth < 3 or dead < 2:
        return []
    middle = depth // 2
    firsts = network.select(distinct(draws)[0])
    splits = (middle, middle + 1)
    costs = mode_costs(firsts, [matrix] * firsts.batch, splits)
    costs = costs / costs.new_tensor([1 / k + 1 / (depth - k) for k in splits])  # what wide layers ask, any mode alike
    if float((costs.std((1, 2)) / costs.mean((1, 2))).amax()) <= MIXED_SPREAD:
        return []
    nothing = torch.zeros_like(network.theta[:, 0])
    counts = sorted({dead // 2, dead - dead // 2})
    if depth == 3:
        return [
            Way(matrix, (2, 1), nothing, nothing, depth, count=n, reverse=back)
            for n in counts
            for back in (False, True)
        ]
    if 2 * dead * max(network.hidden) > GRADED_EQUATIONS:
        return []
    pairs = [(k + 1, k) for k in range(1, depth - 1)]
    if dead == 2:
        turns = [math.pi * i / ANGLES for i in range(ANGLES)]
        return [Way(matrix, pair, nothing, nothing, depth, count=1, angle=a) for pair in pairs for a in turns]
    return [
        Way(matrix, pair, nothing, nothing, depth, count=n, reverse=back)
        for pair in pairs
        for n in counts
        for back in (False, True)
    ]


def _death(network: Network, ways: Sequence[Way]) -> Death:
    """The death of each member by its own way, all of one kind."""
    matrices = [way.matrix for way in ways]
    splits, count, like = ways[0].splits, ways[0].count, network.theta
    if len(splits) == 1:
        return uniform_death(network, matrices, splits[0], rough=True)
    angles = [way.angle for way in ways if way.angle is not None]
    if angles:
        columns = like.new_tensor([[[math.cos(angle)], [math.sin(angle)]] for angle in angles])
        return graded_death(network, matrices, (splits[0], splits[1]), columns)
    costs = mode_costs(network, matrices, (splits[1], splits[0]))
    sign = like.new_tensor([[-1.0 if way.reverse else 1.0] for way in ways])
    order = ((costs[:, :, 1] - costs[:, :, 0]) * sign).argsort(1)
    if network.depth == 3:
        return mixed_death(network, matrices, count, order)
    eye = torch.eye(ways[0].matrix.dead, dtype=like.dtype, device=like.device)
    return graded_death(network, matrices, (splits[0], splits[1]), eye[order[:, :count]].mT)


def growth_bound(norms: Tensor, target: float) -> Tensor:
    """A lower bound on min ‖x‖ subject to Π_l (n_l + x_l) ≥ target, x ≥ 0, shape (B,).

    By the inequality of the means Π(n_l + x_l) ≤ (mean n + ‖x‖/√L)^L. Its square is convex and grows with
    ln(target), so for several singular values the squares add up (Horn 1950; as in :mod:`dlnphase.distances.lower`).
    """
    depth = norms.shape[1]
    return (depth**0.5 * (target ** (1 / depth) - norms.mean(1))).clamp_min(0)

"""The ways in which the dead directions of a critical matrix may die, and bounds that rule most of them out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dlnphase.distances.chains import Constraint, Term
from dlnphase.distances.critical import CriticalMatrix
from dlnphase.distances.deaths import Death, graded_death, mixed_death, mode_costs, uniform_death
from dlnphase.distances.nearest import nearest
from dlnphase.distances.starts import balanced_start
from dlnphase.networks.chain import Network

HOPELESS = 5.0  # a start whose first step is so many times the best distance is given up
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
    """

    matrix: CriticalMatrix
    splits: tuple[int, ...]
    bound: Tensor
    count: int = 0
    reverse: bool = False
    angle: float | None = None
    depth: int = 0

    @property
    def kind(self) -> tuple[object, ...]:
        """Ways of one kind are searched in one batch."""
        return (self.splits, self.count, self.reverse, self.angle)

    @property
    def best_of_kind(self) -> bool:
        """Whether its death is already the cheapest of its kind (graded ones are not)."""
        return len(self.splits) == 1 or self.depth == 3

    def words(self, depth: int) -> str:
        """For people: which layers take the dead directions."""
        if len(self.splits) == 1:
            k = self.splits[0]
            return f"right in W1…W{k}, left in W{k + 1}…W{depth}"
        a, b = self.splits
        return f"{self.count} with right in W1…W{a}, {self.matrix.dead - self.count} with right in W1…W{b}"


def uniform_ways(network: Network, matrix: CriticalMatrix) -> list[Way]:
    """All directions of one matrix with the same k, for k = 1, …, L−1."""
    norms = torch.stack([torch.linalg.matrix_norm(w, 2) for w in network.weights], 1)
    keep = growth_bound(norms, matrix.strongest)
    ways = []
    for split in range(1, network.depth):
        death = uniform_death(network, [matrix] * network.batch, split, rough=True)
        ways.append(Way(matrix, (split,), torch.maximum(death.squared.clamp_min(0).sqrt(), keep), depth=network.depth))
    return ways


def mixed_ways(network: Network, matrix: CriticalMatrix) -> list[Way]:
    """Some directions with k + 1, the others with k, where that may pay: several directions in narrow layers."""
    depth, dead = network.depth, matrix.dead
    if depth < 3 or dead < 2:
        return []
    middle = depth // 2
    costs = mode_costs(network, [matrix] * network.batch, (middle, middle + 1))
    if float((costs.std((1, 2)) / costs.mean((1, 2))).amax()) <= MIXED_SPREAD:
        return []
    nothing = torch.zeros_like(network.theta[:, 0])
    counts = sorted({dead // 2, dead - dead // 2})
    if depth == 3:
        return [
            Way(matrix, (2, 1), nothing, count=n, reverse=back, depth=depth) for n in counts for back in (False, True)
        ]
    if 2 * dead * max(network.hidden) > GRADED_EQUATIONS:
        return []
    pairs = [(k + 1, k) for k in range(1, depth - 1)]
    if dead == 2:
        turns = [math.pi * i / ANGLES for i in range(ANGLES)]
        return [Way(matrix, pair, nothing, count=1, angle=a, depth=depth) for pair in pairs for a in turns]
    return [
        Way(matrix, pair, nothing, count=n, reverse=back, depth=depth)
        for pair in pairs
        for n in counts
        for back in (False, True)
    ]


def death_of(network: Network, ways: list[Way]) -> Death:
    """The death of each member by its own way; all ways of one kind."""
    matrices, way = [w.matrix for w in ways], ways[0]
    if len(way.splits) == 1:
        return uniform_death(network, matrices, way.splits[0])
    splits = (way.splits[0], way.splits[1])
    if way.angle is not None:
        column = network.theta.new_tensor([[math.cos(way.angle)], [math.sin(way.angle)]])
        return graded_death(network, matrices, splits, column.expand(network.batch, 2, 1))
    costs = mode_costs(network, matrices, (splits[1], splits[0]))
    if network.depth == 3:
        return mixed_death(network, matrices, way.count, costs, way.reverse)
    order = (costs[:, :, 1] - costs[:, :, 0]).argsort(1, descending=way.reverse)
    eye = torch.eye(way.matrix.dead, dtype=network.theta.dtype, device=network.theta.device)
    return graded_death(network, matrices, splits, eye[order[:, : way.count]].mT)


def kept_mode_distance(network: Network, matrix: CriticalMatrix) -> Tensor:
    """Distance to {uᵀAv = s} for the strongest mode that a critical matrix keeps, shape (B,).

    One equation out of many, so no farther than the saddles that keep the mode; found by a local search from two
    starts.
    """
    u, s, vh = torch.linalg.svd(matrix.matrix)
    batch, depth = network.batch, network.depth
    start = vh[0].view(1, -1, 1).expand(batch, -1, 1)
    end = u[:, 0].view(1, 1, -1).expand(batch, 1, -1)
    term = Term(tuple(range(depth)), False, start, end, None, s[:1].expand(batch, 1))
    constraint = Constraint([term], (s[0] + network.product().flatten(1).norm(dim=1)).unsqueeze(1))
    balanced = balanced_start(network, s[0] * torch.outer(u[:, 0], vh[0]))
    found = nearest(network, balanced, constraint, tol=1e-3, max_steps=10)
    other = nearest(network, network, constraint, tol=1e-3, max_steps=10, reach=HOPELESS * found.distance)
    return torch.minimum(found.distance, other.distance)


def growth_bound(norms: Tensor, target: float) -> Tensor:
    """A lower bound on min ‖x‖ subject to Π_l (n_l + x_l) ≥ target, x ≥ 0, shape (B,).

    By the inequality of the means Π(n_l + x_l) ≤ (mean n + ‖x‖/√L)^L.
    """
    depth = norms.shape[1]
    return (depth**0.5 * (target ** (1 / depth) - norms.mean(1))).clamp_min(0)

"""d_s: the distance from θ_0 to the set of saddles (theory page, the phase transition).

Candidates are critical matrices (:mod:`dlnphase.distances.critical`) times a split of the layers: the row space of ∇C
dies in W_k ⋯ W_1, its column space in W_L ⋯ W_{k+1}, for k = 1, …, L−1. The cheapest death of each side is known
(:mod:`dlnphase.distances.annihilation`) and bounds a candidate from below; where something is kept and has to be fitted
as well, the point is polished by :func:`dlnphase.distances.nearest.nearest` on the set of critical points of that kind.
Candidates are searched in the order of their bounds until no bound is below the best point found.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.distances.any_saddle import descend
from dlnphase.distances.chains import Constraint
from dlnphase.distances.critical import CriticalMatrix
from dlnphase.distances.deaths import Death, gathered
from dlnphase.distances.facts import facts_of
from dlnphase.distances.kinds import first_point, saddle_constraint
from dlnphase.distances.nearest import GAIN, ROUGH, nearest
from dlnphase.distances.ways import SharedDraws, Way, mixed_ways, uniform_ways
from dlnphase.networks.batch import Batched
from dlnphase.networks.chain import Network

GAP = 1e-5  # candidates that could be nearer by less than this fraction are not searched
POOR = 0.1  # truncation error above which the network is too coarse for a fine search, and for mixed splits, which gain
GAP_OF_POOR, POOR_TOL = 0.03, 3e-3  # less in wide layers; there the former is this, and stationarity this
MARGIN = 0.98  # of the largest share that polishing has left a distance: what may gain more is searched too
CHUNK = 64  # members searched in one batch: memory against calls
SMALL = 80  # parameters up to which saddles of any kind are searched as well
NARROW = 3  # layers are narrow up to so many times the size of the matrix: searches from several starts end apart there
OTHER = "another kind"
Pair = tuple[int, int]  # a member and a way (its index)
MIXED_NEAR = 1.03  # mixed splits are tried where uniform ones come within this factor of the nearest saddle
NEARLY = 1.2  # A = 0 is tried with mixed splits where its bound is within this factor of the nearest saddle


@dataclass(frozen=True)
class SaddleDistance(Batched):
    """Distance to the nearest saddle found, with its certificate, member by member.

    Attributes:
        distance: ‖θ − θ_0‖ ≥ d_s, shape (B,): attained, hence an upper bound.
        gradient_norm: ‖∇𝓛(θ)‖ at the point found, shape (B,).
        gradient_scale: (Σ_l ‖S_l‖²‖P_l‖²)^½·‖∇C(A_θ0)‖ at θ_0, the natural unit of the former, shape (B,).
        cost_gradient_norm: ‖∇C(A_θ)‖ > 0: the point is no minimum, shape (B,).
        winner: name of the critical matrix, per member.
        layers: in which layers the dead directions die, in words, per member.
        network: the points themselves.
    """

    distance: Tensor
    gradient_norm: Tensor
    gradient_scale: Tensor
    cost_gradient_norm: Tensor
    winner: list[str]
    layers: list[str]
    network: Network


def distance_to_saddle(
    network: Network,
    cost: QuadraticCost,
    *,
    tol: float = 1e-6,
    max_steps: int = 40,
    draws: Sequence[int] | None = None,
    truncation: float = 0.0,
) -> SaddleDistance:
    """d_s over an enumerated family of saddles (an attained value: an upper bound with certificate).

    Args:
        network: θ_0, B members, depth at least 2; full or Krylov-reduced.
        cost: a quadratic cost with ∇C(0) ≠ 0.
        tol, max_steps: of each polishing search.
        draws: members of equal number have the same weights up to a factor (None: there are none).
        truncation: relative error of the network itself: above POOR no search is finer than it is worth.
    """
    draws = range(network.batch) if draws is None else draws
    search = _Search(network, facts_of(cost, network.depth).saddles, draws, max_steps, truncation)
    search.run(max(tol, POOR_TOL) if truncation > POOR else tol)
    ways, best, theta, chosen = search.ways, search.best, search.theta, search.chosen
    scale = _gradient_scale(network, cost)
    other = torch.zeros_like(best, dtype=torch.bool)
    if theta.shape[1] <= SMALL and max(network.hidden) <= NARROW * max(network.shape):
        any_theta, any_distance = descend(network, cost, theta, scale)
        other = any_distance < best * (1 - GAP)
        best, theta = torch.where(other, any_distance, best), torch.where(other[:, None], any_theta, theta)
    point = network.with_theta(theta)
    slope = cost.gradient(point.product())
    return SaddleDistance(
        distance=best,
        gradient_norm=point.gradient(slope).norm(dim=1),
        gradient_scale=scale,
        cost_gradient_norm=slope.flatten(1).norm(dim=1),
        winner=[OTHER if o else ways[c].matrix.name if c >= 0 else "" for o, c in zip(other, chosen, strict=True)],
        layers=["" if o or c < 0 else ways[c].words() for o, c in zip(other, chosen, strict=True)],
        network=point,
    )


@dataclass(frozen=True)
class _Point:
    """The nearest point known of a kind: its distance, θ, and how stationary it is."""

    distance: float
    theta: Tensor
    stationarity: float


class _Search:
    """The search over all ways for a batch; best, theta and chosen (indices of ways) hold what it found.

    Points are kept by member and way; where nothing is kept, by the first member of the draw: they are as much larger
    as a member is.
    """

    def __init__(
        self, network: Network, matrices: list[CriticalMatrix], draws: Sequence[int], max_steps: int, truncation: float
    ) -> None:
        self.network, self.max_steps = network, max_steps
        self.fine = truncation <= POOR
        self.gap = GAP if self.fine else GAP_OF_POOR
        self.draws = SharedDraws(network, draws)
        self.ways = uniform_ways(network, self.draws, matrices)
        self.bounds = torch.stack([way.bound for way in self.ways], 1)
        self.best = torch.full_like(self.bounds[:, 0], torch.inf)
        self.theta = network.theta.clone()
        self.chosen = [-1] * network.batch
        self.gain = torch.ones_like(self.best)
        self.points: dict[Pair, _Point] = {}

    def run(self, tol: float) -> None:
        """The way of lowest bound first; roughly those that could be nearer; the best and their rivals to the end."""
        first = self.bounds.argmin(1).tolist()
        self._search(list(enumerate(first)))
        open_ = self.bounds < (self.best * (1 - self.gap))[:, None]
        open_[range(len(first)), first] = False
        self._search([(m, c) for m, c in torch.nonzero(open_).tolist()])
        if self.fine:
            self._mix()
        rivals = [
            pair
            for pair in itertools.product(range(self.network.batch), range(len(self.ways)))
            if (point := self.points.get(self._key(pair))) is not None
            and point.distance * self._factor(pair) * (1 - GAIN * point.stationarity**2) <= float(self.best[pair[0]])
            and not self.ways[pair[1]].is_exact
        ]
        self._polish(rivals, {self._key(pair): self.points[self._key(pair)] for pair in rivals}, tol, self.best)

    def _search(self, pairs: list[Pair]) -> None:
        """Polish, roughly, the (member, way) pairs that could win.

        One is given up when it would have to gain clearly more from polishing than any other did.
        """
        starts = self._starts(pairs)
        for pair in pairs:
            if self._key(pair) in starts and self.ways[pair[1]].is_exact:
                self._record(pair, starts[self._key(pair)])
        pairs = [pair for pair in pairs if self._key(pair) in starts and not self.ways[pair[1]].is_exact]
        while pairs:
            near = [
                pair
                for pair in pairs
                if starts[self._key(pair)].distance * self._factor(pair) * float(self.gain[pair[0]]) * MARGIN
                < float(self.best[pair[0]]) * (1 - self.gap)
            ]
            self._polish(near, starts, ROUGH, torch.full_like(self.best, torch.inf))
            for member, choice in near:
                key = self._key((member, choice))
                gain = self.points[key].distance / starts[key].distance
                self.gain[member] = min(float(self.gain[member]), gain)
            pairs = [pair for pair in pairs if pair not in near] if near else []

    def _mix(self) -> None:
        """Try mixed splits of the matrices that won or nearly won with uniform ones."""
        uniform = self.bounds.shape[1]
        for matrix in dict.fromkeys(way.matrix for way in self.ways[:uniform]):
            columns = [c for c in range(uniform) if self.ways[c].matrix is matrix]
            near = self.bounds[:, columns].amin(1) <= (NEARLY if matrix.strongest == 0 else 0.0) * self.best
            for member, choice in itertools.product(range(self.network.batch), columns):
                point = self.points.get(self._key((member, choice)))
                if point is not None:
                    within = MIXED_NEAR * float(self.best[member])
                    near[member] |= point.distance * self._factor((member, choice)) <= within
            members = torch.nonzero(near).flatten().tolist()
            rows = sorted({self.draws.rows[m] for m in members})
            if not rows:
                continue
            pairs = []
            for death, told in mixed_ways(self.draws.network.select(rows), matrix):
                whole = death.select([rows.index(row) if row in rows else 0 for row in range(self.draws.network.batch)])
                pairs += [(m, len(self.ways)) for m in members if bool(told[rows.index(self.draws.rows[m])])]
                self.ways.append(Way(matrix, whole, torch.zeros_like(self.best)))
            self._search(pairs)

    def _groups(self, keys: Iterable[Pair]) -> list[list[Pair]]:
        """(member, way) pairs that can be searched in one batch."""
        groups: dict[tuple[object, ...], list[Pair]] = {}
        for key in keys:
            groups.setdefault(self.ways[key[1]].kind, []).append(key)
        return [g[i : i + CHUNK] for g in groups.values() for i in range(0, len(g), CHUNK)]

    def _kind(self, group: list[Pair]) -> tuple[Network, list[CriticalMatrix], Death, Constraint]:
        """Networks, critical matrices, deaths and constraint of a batch of pairs."""
        members = [m for m, _ in group]
        network, matrices = self.network.select(members), [self.ways[c].matrix for _, c in group]
        places = [(self.ways[c].death, self.draws.rows[m]) for m, c in group]
        death = gathered(places, self.draws.factor[members])
        return network, matrices, death, saddle_constraint(network, matrices, death)

    def _starts(self, pairs: list[Pair]) -> dict[Pair, _Point]:
        """A first point of each kind; those that were not reached are left out."""
        out = {}
        for group in self._groups(dict.fromkeys(self._key(pair) for pair in pairs)):
            theta, distance = first_point(*self._kind(group))
            for row, key in enumerate(group):
                if torch.isfinite(distance[row]):
                    out[key] = _Point(float(distance[row]), theta[row], 0.0)
        return out

    def _polish(self, pairs: list[Pair], starts: dict[Pair, _Point], tol: float, to_beat: Tensor) -> None:
        """Search from the points of some pairs on; pairs that can no longer beat what there is are left there."""
        beat: dict[Pair, float] = {}
        for pair in pairs:
            key = self._key(pair)
            beat[key] = max(beat.get(key, 0.0), float(to_beat[pair[0]]) / self._factor(pair))
        for group in self._groups(beat):
            network, _, _, constraint = self._kind(group)
            start = network.with_theta(torch.stack([starts[key].theta for key in group]))
            limit = self.best.new_tensor([beat[key] for key in group])
            found = nearest(network, start, constraint, tol=tol, max_steps=self.max_steps, to_beat=limit)
            for row, key in enumerate(group):
                self.points[key] = _Point(float(found.distance[row]), found.theta[row], float(found.stationarity[row]))
        for pair in pairs:
            self._record(pair, self.points[self._key(pair)])

    def _key(self, pair: Pair) -> Pair:
        """Where the points of a pair are kept."""
        return (self.draws.first[pair[0]], pair[1]) if self.ways[pair[1]].scales else pair

    def _factor(self, pair: Pair) -> float:
        """How much larger a member is than the one whose points are kept for it."""
        return float(self.draws.factor[pair[0]]) if self.ways[pair[1]].scales else 1.0

    def _record(self, pair: Pair, point: _Point) -> None:
        """Keep the nearest point of each kind, and the nearest of all.

        What was searched further takes the place of what it began with: that is off its set by what a rough search
        leaves, and may seem nearer than it is.
        """
        (member, choice), factor = pair, self._factor(pair)
        self.points[self._key(pair)] = point
        further = self.chosen[member] == choice and math.isfinite(point.distance)
        if further or point.distance * factor < float(self.best[member]):
            self.best[member], self.theta[member] = point.distance * factor, point.theta * factor
            self.chosen[member] = choice


def _gradient_scale(network: Network, cost: QuadraticCost) -> Tensor:
    prefixes, suffixes = network.prefixes(), network.suffixes()
    total = torch.zeros_like(network.theta[:, 0])
    for s, p in zip(suffixes, prefixes, strict=False):
        total = total + (s**2).sum((1, 2)) * (p**2).sum((1, 2))
    return total.sqrt() * cost.gradient(network.product()).flatten(1).norm(dim=1)

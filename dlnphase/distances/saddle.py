"""d_s: the distance from θ_0 to the set of saddles (theory page, the phase transition).

Candidates are critical matrices (:mod:`dlnphase.distances.critical`) times a split of the layers: the row space of ∇C
dies in W_k ⋯ W_1, its column space in W_L ⋯ W_{k+1}, for k = 1, …, L−1. The cheapest death of each side is known
(:mod:`dlnphase.distances.annihilation`) and bounds a candidate from below; where something is kept and has to be fitted
as well, the point is polished by :func:`dlnphase.distances.nearest.nearest` on the set of critical points of that kind.
Candidates are searched in the order of their bounds until no bound is below the best point found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.distances.any_saddle import descend
from dlnphase.distances.critical import CriticalMatrix
from dlnphase.distances.facts import facts_of
from dlnphase.distances.kinds import Groups, Kind, saddle_constraint
from dlnphase.distances.nearest import GAIN, Nearest, nearest
from dlnphase.distances.ways import Deaths, mixed_ways, uniform_ways
from dlnphase.networks.batch import Batched
from dlnphase.networks.chain import Network

GAP = 1e-5  # candidates that could be nearer by less than this fraction are not searched
POOR = 0.1  # truncation error above which the network is too coarse for a fine search, and for mixed splits, which gain
GAP_OF_POOR, POOR_TOL = 0.03, 3e-3  # less in wide layers; there the former is this, and stationarity this
MARGIN = 0.98
CHUNK = 64  # members searched in one batch
SMALL = 80  # parameters up to which saddles of any kind are searched as well
NARROW = 3  # layers are narrow up to so many times the size of the matrix: searches from several starts end apart there
SAME = 1e-6  # deaths whose squares differ by less than this share are one
OTHER = "another kind"
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
        polished: candidates searched to the end, shape (B,).
        winner: name of the critical matrix, per member.
        layers: in which layers the dead directions die, in words, per member.
        network: the points themselves.
    """

    distance: Tensor
    gradient_norm: Tensor
    gradient_scale: Tensor
    cost_gradient_norm: Tensor
    polished: Tensor
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
    search.run()
    search.follow(max(tol, POOR_TOL) if truncation > POOR else tol)
    ways, best, theta, chosen = search.ways, search.best, search.theta, search.chosen
    scale = _gradient_scale(network, cost)
    other = torch.zeros_like(best, dtype=torch.bool)
    if theta.shape[1] <= SMALL and search.narrow:
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
        polished=search.polished,
        winner=[OTHER if o else ways[c].matrix.name if c >= 0 else "" for o, c in zip(other, chosen, strict=True)],
        layers=["" if o or c < 0 else ways[c].words() for o, c in zip(other, chosen, strict=True)],
        network=point,
    )


@dataclass(frozen=True)
class _Point:
    """The nearest point known of a kind: its distance, θ, (k, V, U) of what is dead, and how stationary it is."""

    distance: float
    theta: Tensor
    groups: Groups
    stationarity: float

    @classmethod
    def of(cls, found: Nearest, groups: Groups, row: int) -> _Point:
        """One member of what a search found."""
        own = [(k, v[row], u[row]) for k, v, u in groups]
        return cls(float(found.distance[row]), found.theta[row], own, float(found.stationarity[row]))

    def scaled(self, factor: float) -> _Point:
        """The same point of a network that is a factor larger."""
        return self if factor == 1 else replace(self, distance=self.distance * factor, theta=self.theta * factor)


class _Search:
    """The search over all candidates for a batch; best, theta and chosen (indices of ways) hold what it found."""

    def __init__(
        self, network: Network, matrices: list[CriticalMatrix], draws: Sequence[int], max_steps: int, truncation: float
    ) -> None:
        self.network, self.draws, self.max_steps = network, draws, max_steps
        self.fine = truncation <= POOR
        self.narrow = max(network.hidden) <= NARROW * max(network.shape)
        self.gap = GAP if self.fine else GAP_OF_POOR
        self.deaths = Deaths(network, draws)
        self.ways = uniform_ways(self.deaths, matrices)
        self.bounds = torch.stack([way.bound for way in self.ways], 1)
        self.best = torch.full_like(self.bounds[:, 0], torch.inf)
        self.theta = network.theta.clone()
        self.chosen = [-1] * network.batch
        self.polished = torch.zeros(network.batch, dtype=torch.long)
        self.gain = torch.ones_like(self.best)
        self.points: dict[tuple[int, int], _Point] = {}
        self._kinds: dict[tuple[tuple[int, int], ...], Kind] = {}
        self._polished: dict[tuple[int, int], tuple[int, _Point]] = {}

    def run(self) -> None:
        """The candidate of lowest bound first; then, roughly, those that could be nearer."""
        first = self.bounds.argmin(1).tolist()
        pairs = list(enumerate(first))
        self._polish(pairs, self._feasible(pairs))
        open_ = self.bounds < (self.best * (1 - self.gap))[:, None]
        open_[range(len(first)), first] = False
        self._work_off([(m, c) for m, c in torch.nonzero(open_).tolist()])
        if self.fine:
            self._mix()
        if self.narrow:
            self._confirm()

    def follow(self, tol: float) -> None:
        """Search the best points further, and their rivals: those that could win by what a search may still gain.

        Args:
            tol: stationarity at which a search stops.
        """
        known = self.points
        pairs = [
            pair
            for pair, point in known.items()
            if point.distance * (1 - GAIN * point.stationarity**2) <= float(self.best[pair[0]])
        ]
        self.points = {}
        self.best, self.theta = torch.full_like(self.best, torch.inf), self.network.theta.clone()
        self.chosen = [-1] * self.network.batch
        for pair in [pair for pair in pairs if self.ways[pair[1]].is_exact]:
            self._record(*pair, known[pair])
        alike = self._alike([pair for pair in pairs if not self.ways[pair[1]].is_exact])
        for group in self._groups([same[0] for same in alike.values()]):
            members = [m for m, _ in group]
            part = self.network.select(members)
            points = [known[pair] for pair in group]
            groups = [
                (parts[0][0], torch.stack([v for _, v, _ in parts]), torch.stack([u for _, _, u in parts]))
                for parts in zip(*(point.groups for point in points), strict=True)
            ]
            constraint = saddle_constraint(part, [self.ways[c].matrix for _, c in group], groups)
            start = part.with_theta(torch.stack([point.theta for point in points]))
            classes = [alike[self._class(pair)] for pair in group]
            beat = self.best.new_tensor(
                [max(float(self.best[m]) / self._factor(own[0][0], m) for m, _ in own) for own in classes]
            )
            reached = nearest(part, start, constraint, tol=tol, max_steps=self.max_steps, to_beat=beat)
            for row, own in enumerate(classes):
                point = _Point.of(reached, groups, row)
                for member, choice in own:
                    self._record(member, choice, point.scaled(self._factor(own[0][0], member)))

    def _work_off(self, pairs: list[tuple[int, int]]) -> None:
        """Polish the (member, way) pairs that could win.

        A candidate is given up when it would have to gain clearly more from polishing than any other did.
        """
        feasible = self._feasible(pairs)
        while feasible:
            near = {
                (m, c): start
                for (m, c), start in feasible.items()
                if start[0] * float(self.gain[m]) * MARGIN < float(self.best[m]) * (1 - self.gap)
            }
            self._polish(list(near), near)
            feasible = {pair: start for pair, start in feasible.items() if pair not in near} if near else {}

    def _mix(self) -> None:
        """Try mixed splits of the matrices that won or nearly won with uniform ones."""
        uniform = self.bounds.shape[1]
        for matrix in dict.fromkeys(way.matrix for way in self.ways[:uniform]):
            columns = [c for c in range(uniform) if self.ways[c].matrix is matrix]
            near = self.bounds[:, columns].amin(1) <= (NEARLY if matrix.strongest == 0 else 0.0) * self.best
            for (member, choice), point in self.points.items():
                near[member] |= choice in columns and point.distance <= MIXED_NEAR * float(self.best[member])
            members = torch.nonzero(near).flatten().tolist()
            if not members:
                continue
            new = mixed_ways(self.network.select(members), matrix, [self.draws[m] for m in members])
            choices = range(len(self.ways), len(self.ways) + len(new))
            self.ways += new
            repeated = {pair for choice in choices for pair in self._repeated(choice, members)}
            self._work_off([(m, c) for m in members for c in choices if (m, c) not in repeated])

    def _repeated(self, choice: int, members: list[int]) -> list[tuple[int, int]]:
        """The members whose death by a mixed split from the other end is that of the way before it: found already."""
        if not self.ways[choice].reverse:
            return []
        ways = [self.ways[c] for c in (choice - 1, choice) for _ in members]
        before, after = self.deaths.of(ways, [*members, *members]).squared.chunk(2)
        same = (after - before).abs() <= SAME * before
        return [(member, choice) for member, is_same in zip(members, same.tolist(), strict=True) if is_same]

    def _groups(self, pairs: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        """(member, way) pairs that can be searched in one batch."""
        groups: dict[tuple[object, ...], list[tuple[int, int]]] = {}
        for member, choice in pairs:
            way = self.ways[choice]
            groups.setdefault((*way.matrix.signature, *way.kind), []).append((member, choice))
        return [g[i : i + CHUNK] for g in groups.values() for i in range(0, len(g), CHUNK)]

    def _kind(self, group: list[tuple[int, int]]) -> Kind:
        key = tuple(group)
        if key not in self._kinds:
            members, ways = [m for m, _ in group], [self.ways[c] for _, c in group]
            self._kinds[key] = Kind(self.deaths, ways, members)
        return self._kinds[key]

    def _feasible(self, pairs: list[tuple[int, int]]) -> dict[tuple[int, int], tuple[float, Tensor]]:
        """Distance and parameters of a first point of each kind; exact ones are offered at once, unreached ones left
        out."""
        out = {}
        for group in self._groups(pairs):
            kind = self._kind(group)
            theta, distance = kind.first_point()
            for row, pair in enumerate(group):
                if torch.isfinite(distance[row]) and kind.exact:
                    self._record(*pair, _Point(float(distance[row]), theta[row], kind.groups(row), 0.0))
                elif torch.isfinite(distance[row]):
                    out[pair] = (float(distance[row]), theta[row])
        return out

    def _polish(self, pairs: list[tuple[int, int]], starts: dict[tuple[int, int], tuple[float, Tensor]]) -> None:
        alike = self._alike([pair for pair in pairs if pair in starts])
        for group in self._groups([same[0] for key, same in alike.items() if key not in self._polished]):
            kind = self._kind(group)
            found = kind.polish(torch.stack([starts[pair][1] for pair in group]), self.max_steps)
            for row, pair in enumerate(group):
                self._polished[self._class(pair)] = pair[0], _Point.of(found, kind.death.groups, row)
        for key, same in alike.items():
            first, point = self._polished[key]
            for member, choice in same:
                here = point.scaled(self._factor(first, member))
                self.polished[member] += 1
                self.gain[member] = min(float(self.gain[member]), here.distance / starts[member, choice][0])
                self._record(member, choice, here)

    def _class(self, pair: tuple[int, int]) -> tuple[int, int]:
        """What pairs have in common that are searched once: where nothing is kept, points scale with the draw."""
        member, choice = pair
        return (self.deaths.first(member), choice) if self.ways[choice].scales else pair

    def _alike(self, pairs: list[tuple[int, int]]) -> dict[tuple[int, int], list[tuple[int, int]]]:
        """The pairs of each class."""
        out: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for pair in pairs:
            out.setdefault(self._class(pair), []).append(pair)
        return out

    def _factor(self, first: int, member: int) -> float:
        """How much larger a member is than another of its draw."""
        return 1.0 if first == member else self.deaths.ratio(first, member)

    def _confirm(self) -> None:
        """Search the winners again from balanced factors of what they keep, which in narrow layers may lead nearer."""
        pairs = [(m, c) for m, c in enumerate(self.chosen) if c >= 0 and self.ways[c].matrix.strongest > 0]
        for group in self._groups(pairs):
            kind = self._kind(group)
            found = kind.polish(kind.balanced().theta, self.max_steps)
            for row, (member, choice) in enumerate(group):
                self._record(member, choice, _Point.of(found, kind.death.groups, row))

    def _record(self, member: int, choice: int, point: _Point) -> None:
        """Keep the nearest point of each kind, and the nearest of all."""
        known = self.points.get((member, choice))
        if math.isfinite(point.distance) and (known is None or point.distance < known.distance):
            self.points[member, choice] = point
            if point.distance < float(self.best[member]):
                self.best[member], self.theta[member], self.chosen[member] = point.distance, point.theta, choice


def _gradient_scale(network: Network, cost: QuadraticCost) -> Tensor:
    prefixes, suffixes = network.prefixes(), network.suffixes()
    total = torch.zeros_like(network.theta[:, 0])
    for s, p in zip(suffixes, prefixes, strict=False):
        total = total + (s**2).sum((1, 2)) * (p**2).sum((1, 2))
    return total.sqrt() * cost.gradient(network.product()).flatten(1).norm(dim=1)

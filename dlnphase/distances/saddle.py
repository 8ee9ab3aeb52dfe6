"""d_s: the distance from θ_0 to the set of saddles (theory page, the phase transition).

Candidates are critical matrices (:mod:`dlnphase.distances.critical`) times a split of the layers: the row space of ∇C
dies in W_k ⋯ W_1, its column space in W_L ⋯ W_{k+1}, for k = 1, …, L−1. The cheapest death of each side is known
(:mod:`dlnphase.distances.kills`) and bounds a candidate from below; where something is kept and has to be fitted as
well, the point is polished by :func:`dlnphase.distances.nearest.nearest` on the set of critical points of that kind.
Candidates are searched in the order of their bounds until no bound is below the best point found.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.distances.any_saddle import descend
from dlnphase.distances.chains import Constraint, Term
from dlnphase.distances.critical import CriticalMatrix
from dlnphase.distances.deaths import Death
from dlnphase.distances.facts import facts_of
from dlnphase.distances.nearest import FEASIBLE, Nearest, nearest, restore
from dlnphase.distances.starts import align_frames, carried, overlay
from dlnphase.distances.ways import Way, death_of, kept_mode_distance, mixed_ways, uniform_ways
from dlnphase.networks.chain import Network

GAP = 1e-3  # candidates that could be nearer by less than this fraction are not searched
MARGIN = 0.98
PATIENCE = 3  # candidates polished in vain, one after the other, before a member is done
CHUNK = 64  # members searched in one batch
MIXED_PATIENCE = 6
SMALL = 80  # parameters up to which saddles of any kind are searched as well
NARROW = 3  # … in layers of at most so many times the size of the matrix
OTHER = "another kind"
NEARLY = 1.2  # A = 0 is tried with mixed splits where its bound is within this factor of the nearest saddle


@dataclass(frozen=True)
class SaddleDistance:
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
    network: Network, cost: QuadraticCost, *, tol: float = 1e-6, max_steps: int = 40
) -> SaddleDistance:
    """d_s over an enumerated family of saddles (an attained value: an upper bound with certificate).

    Args:
        network: θ_0, B members, depth at least 2; full or Krylov-reduced.
        cost: a quadratic cost with ∇C(0) ≠ 0.
        tol, max_steps: of each polishing search.
    """
    search = _Search(network, facts_of(cost, network.depth).saddles, tol, max_steps)
    search.run()
    ways, best, theta, chosen = search.ways, search.best, search.theta, search.chosen
    scale = _gradient_scale(network, cost)
    other = torch.zeros_like(best, dtype=torch.bool)
    if theta.shape[1] <= SMALL and max(network.hidden) <= NARROW * max(cost.shape):
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
        layers=["" if o or c < 0 else ways[c].words(network.depth) for o, c in zip(other, chosen, strict=True)],
        network=point,
    )


class _Search:
    """The search over all candidates for a batch; best, theta and chosen (indices of ways) hold what it found."""

    def __init__(self, network: Network, matrices: list[CriticalMatrix], tol: float, max_steps: int) -> None:
        self.network, self.tol, self.max_steps = network, tol, max_steps
        self.ways = [way for matrix in matrices for way in uniform_ways(network, matrix)]
        self.bounds = torch.stack([way.bound for way in self.ways], 1)
        self.best = torch.full_like(self.bounds[:, 0], torch.inf)
        self.theta = network.theta.clone()
        self.chosen = [-1] * network.batch
        self.polished = torch.zeros(network.batch, dtype=torch.long)
        self.gain = torch.ones_like(self.best)
        self._kinds: dict[tuple[tuple[int, int], ...], _Kind] = {}

    def run(self) -> None:
        """The candidate of lowest bound first; then those not excluded, in the order of their first feasible point."""
        first = self.bounds.argmin(1).tolist()
        pairs = list(enumerate(first))
        self._polish(pairs, self._feasible(pairs))
        self._raise_bounds()
        open_ = self.bounds < (self.best * (1 - GAP))[:, None]
        open_[range(len(first)), first] = False
        self._work_off([(m, c) for m, c in torch.nonzero(open_).tolist()], PATIENCE)
        self._mix()
        self._confirm()

    def _raise_bounds(self) -> None:
        """Candidates still open cost at least what their strongest kept mode alone does."""
        open_ = self.bounds < (self.best * (1 - GAP))[:, None]
        for matrix in dict.fromkeys(way.matrix for way in self.ways):
            columns = [c for c, way in enumerate(self.ways) if way.matrix is matrix]
            members = torch.nonzero(open_[:, columns].any(1)).flatten()
            if matrix.strongest == 0 or matrix.basis is not None or not len(members):
                continue
            least = kept_mode_distance(self.network.select(members), matrix)
            for column in columns:
                self.bounds[members, column] = torch.maximum(self.bounds[members, column], least)

    def _work_off(self, pairs: list[tuple[int, int]], patience: int) -> None:
        """Polish (member, way) pairs, the most promising of each member first, until none can win any more."""
        feasible = self._feasible(pairs)
        failures = [0] * self.network.batch
        while feasible:
            turn: dict[int, tuple[float, int]] = {}
            for (member, choice), (value, _) in feasible.items():
                if member not in turn or value < turn[member][0]:
                    turn[member] = (value, choice)
            # A candidate is given up when it would have to gain clearly more from polishing than any other did.
            reach = {m: v * float(self.gain[m]) * MARGIN for m, (v, _) in turn.items()}
            pairs = [(m, c) for m, (_, c) in turn.items() if reach[m] < float(self.best[m]) * (1 - GAP)]
            before = self.best.clone()
            self._polish(pairs, feasible)
            for member, _ in pairs:
                failures[member] = 0 if float(self.best[member]) < float(before[member]) else failures[member] + 1
            going = {m for m, _ in pairs if failures[m] < patience}
            feasible = {p: v for p, v in feasible.items() if p not in pairs and p[0] in going}

    def _mix(self) -> None:
        """Try mixed splits of the matrices that won with uniform ones, and of A = 0 where it nearly did."""
        uniform = self.bounds.shape[1]
        for matrix in dict.fromkeys(way.matrix for way in self.ways[:uniform]):
            columns = [c for c in range(uniform) if self.ways[c].matrix is matrix]
            near = self.bounds[:, columns].amin(1) <= (NEARLY if matrix.strongest == 0 else 0.0) * self.best
            members = [m for m, c in enumerate(self.chosen) if near[m] or (c >= 0 and self.ways[c].matrix is matrix)]
            if not members:
                continue
            new = mixed_ways(self.network.select(members), matrix)
            self.ways += new
            self._work_off([(m, len(self.ways) - 1 - i) for m in members for i in range(len(new))], MIXED_PATIENCE)

    def _groups(self, pairs: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        """(member, way) pairs that can be searched in one batch."""
        groups: dict[tuple[object, ...], list[tuple[int, int]]] = {}
        for member, choice in pairs:
            way = self.ways[choice]
            groups.setdefault((*way.matrix.signature, *way.kind), []).append((member, choice))
        return [g[i : i + CHUNK] for g in groups.values() for i in range(0, len(g), CHUNK)]

    def _kind(self, group: list[tuple[int, int]]) -> _Kind:
        key = tuple(group)
        if key not in self._kinds:
            self._kinds[key] = _Kind(self.network.select([m for m, _ in group]), [self.ways[c] for _, c in group])
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
                    self._offer(*pair, distance[row], theta[row])
                elif torch.isfinite(distance[row]):
                    out[pair] = (float(distance[row]), theta[row])
        return out

    def _polish(self, pairs: list[tuple[int, int]], starts: dict[tuple[int, int], tuple[float, Tensor]]) -> None:
        for group in self._groups([p for p in pairs if p in starts]):
            start = torch.stack([starts[p][1] for p in group])
            found = self._kind(group).polish(start, self.tol, self.max_steps)
            for row, (member, choice) in enumerate(group):
                self.polished[member] += 1
                self.gain[member] = min(float(self.gain[member]), float(found.distance[row]) / starts[group[row]][0])
                self._offer(member, choice, found.distance[row], found.theta[row])

    def _confirm(self) -> None:
        """Search the winners once more from balanced factors of what they keep."""
        pairs = [(m, c) for m, c in enumerate(self.chosen) if c >= 0 and self.ways[c].matrix.strongest > 0]
        for group in self._groups(pairs):
            kind = self._kind(group)
            found = kind.polish(kind.balanced().theta, self.tol, self.max_steps)
            for row, (member, choice) in enumerate(group):
                self._offer(member, choice, found.distance[row], found.theta[row])

    def _offer(self, member: int, choice: int, distance: Tensor, theta: Tensor) -> None:
        if float(distance) < float(self.best[member]):
            self.best[member], self.theta[member], self.chosen[member] = distance, theta, choice


# ---- one way of one candidate -------------------------------------------------------------------------


class _Kind:
    """Saddles of one kind for a batch of members: same shapes, same layers, each member its own critical matrix."""

    def __init__(self, network: Network, ways: list[Way]) -> None:
        self.network = network
        self.matrices = [w.matrix for w in ways]
        self.death = death_of(network, ways)
        self._best_of_kind = ways[0].best_of_kind
        self.constraint = saddle_constraint(network, self.matrices, self.death.groups)

    @property
    def exact(self) -> bool:
        """Nothing is kept, so the cheapest death is the nearest saddle of the kind."""
        return self._best_of_kind and len(self.constraint.terms) == 2 * len(self.death.groups)

    def balanced(self) -> Network:
        """Balanced factors of what is kept, laid over the killed network outside its dead spaces."""
        return _balanced(self.death, self.matrices)

    def first_point(self) -> tuple[Tensor, Tensor]:
        """A point of the kind reached from the killed network, else from balanced factors; distances (B,), inf if
        none."""
        network, _, residual = restore(self.death.network, self.constraint)
        theta, distance = network.theta, self._distance(network, residual)
        missed = torch.nonzero(~torch.isfinite(distance)).flatten()
        if len(missed):
            again, _, residual = restore(self.balanced().select(missed), self.constraint.select(missed))
            theta, distance = theta.clone(), distance.clone()
            theta[missed] = again.theta
            miss = (again.theta - self.network.theta[missed]).norm(dim=1)
            distance[missed] = torch.where(residual <= FEASIBLE, miss, torch.inf)
        return theta, distance

    def polish(self, start: Tensor, tol: float, max_steps: int) -> Nearest:
        """The nearest point of the kind, from one start per member."""
        return nearest(self.network, self.network.with_theta(start), self.constraint, tol=tol, max_steps=max_steps)

    def _distance(self, network: Network, residual: Tensor) -> Tensor:
        distance = (network.theta - self.network.theta).norm(dim=1)
        return torch.where(residual <= FEASIBLE, distance, torch.inf)


def saddle_constraint(
    network: Network, matrices: list[CriticalMatrix], groups: list[tuple[int, Tensor, Tensor]]
) -> Constraint:
    """W_k ⋯ W_1 V = 0 and Uᵀ W_L ⋯ W_{k+1} = 0 for each group (k, V, U), and U_cᵀ A V_c as in the critical matrix."""
    batch, depth = network.batch, network.depth
    theta = network.theta
    terms = []
    for split, right, left in groups:
        zero = theta.new_zeros(batch, network.dims[split] * right.shape[2])
        terms.append(Term(tuple(range(split)), False, right, None, None, zero))
        zero = theta.new_zeros(batch, network.dims[split] * left.shape[2])
        terms.append(Term(tuple(range(depth - 1, split - 1, -1)), True, left, None, None, zero))
    size = matrices[0].left_kept.shape[1] * matrices[0].right_kept.shape[1]
    if size:
        left_kept, right_kept = (torch.stack([getattr(m, s) for m in matrices]) for s in ("left_kept", "right_kept"))
        goal = left_kept.mT @ torch.stack([m.matrix for m in matrices]) @ right_kept
        basis = None if matrices[0].basis is None else torch.stack([_basis_of(m) for m in matrices])
        flat = goal.flatten(1)
        target = flat if basis is None else torch.einsum("bdk,bd->bk", basis, flat)
        terms.append(Term(tuple(range(depth)), False, right_kept, left_kept.mT, basis, target))
    sizes = [t.target.shape[1] for t in terms]
    start = Constraint(terms, theta.new_ones(batch, len(terms))).at(network).value.split(sizes, 1)
    scale = torch.stack([v.norm(dim=1) + t.target.norm(dim=1) for v, t in zip(start, terms, strict=True)], 1)
    return Constraint(terms, scale.clamp_min(torch.finfo(theta.dtype).tiny))


def _basis_of(matrix: CriticalMatrix) -> Tensor:
    assert matrix.basis is not None
    return matrix.basis


def _balanced(death: Death, matrices: list[CriticalMatrix]) -> Network:
    """Balanced factors of what is kept, laid over the killed network outside its dead spaces."""
    matrix = torch.stack([m.matrix for m in matrices])
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    # What is kept may have more modes than a narrow layer lets through: then a start with the leading ones.
    rank = min(max(1, int((s > 1e-12 * s[:, :1]).sum(1).amax())), *death.network.dims)
    layers = []
    for index, w in enumerate(death.network.weights):
        below, above = death.spaces[index], death.spaces[index + 1]
        w = w if below is None else w - (w @ below) @ below.mT
        layers.append(w if above is None else w - above @ (above.mT @ w))
    root = s[:, :rank] ** (1 / death.network.depth)
    network = Network.from_weights(layers)
    frames, _ = align_frames(network, carried(network, vh[:, :rank].mT, u[:, :, :rank]), root)
    return overlay(death.network, frames, root)


def _gradient_scale(network: Network, cost: QuadraticCost) -> Tensor:
    prefixes, suffixes = network.prefixes(), network.suffixes()
    total = torch.zeros_like(network.theta[:, 0])
    for s, p in zip(suffixes, prefixes, strict=False):
        total = total + (s**2).sum((1, 2)) * (p**2).sum((1, 2))
    return total.sqrt() * cost.gradient(network.product()).flatten(1).norm(dim=1)

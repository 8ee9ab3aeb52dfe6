"""d_m: the distance from θ_0 to the set of global minima {θ : C(A_θ) = min C} (theory page, the phase transition).

The set is cut out by Bᵀ vec(A_θ − Â) = 0 with B a basis of the directions the cost measures: all of them for a
factorization, the observed entries of a completion, the range of the data for a regression or for sensing.
The search starts from θ_0 (right in the lazy regime) and from balanced factors of minimisers laid over θ_0 (right for
small initialisations), aligned with it from both ends and, where that is better, from random frames. It polishes each
start with :func:`dlnphase.distances.nearest.nearest` and keeps the nearest point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.costs.round_off import indistinct
from dlnphase.distances.chains import Constraint, Term
from dlnphase.distances.facts import facts_of
from dlnphase.distances.nearest import GAIN, ROUGH, Nearest, nearest
from dlnphase.distances.starts import Aligned, aligned_factors
from dlnphase.errors import InputError
from dlnphase.networks.batch import Batched
from dlnphase.networks.chain import Network

TOGETHER = 0.03  # rough points closer than this share of their distance from θ_0 lead to the same one
HOPELESS = 20.0  # a start whose first step is so many times the best distance is given up


@dataclass(frozen=True)
class MinimumDistance(Batched):
    """Distance to the nearest global minimum found, with its certificate, member by member.

    Attributes:
        distance: ‖θ − θ_0‖ ≥ d_m, shape (B,): attained, hence an upper bound.
        excess: C(A_θ) − C_min at the point found, shape (B,).
        initial_excess: C(A_θ0) − C_min, shape (B,), the scale of the former.
        stationarity: ‖P(θ − θ_0)‖/‖θ − θ_0‖, P the projection on the tangent space of the set, shape (B,).
        winner: name of the start that led there, per member.
        network: the points themselves.
    """

    distance: Tensor
    excess: Tensor
    initial_excess: Tensor
    stationarity: Tensor
    winner: list[str]
    network: Network


def minimum_constraint(network: Network, cost: QuadraticCost) -> Constraint:
    """The equations Bᵀ vec(A_θ − Â) = 0 of the set of global minima, for every member of a batch."""
    basis = facts_of(cost, network.depth).measured
    narrowest = min(network.dims)
    goal = cost.minimizer
    if basis is None and narrowest < min(cost.shape):  # modes at round-off do not fit, and need not
        u, s, vh = torch.linalg.svd(goal, full_matrices=False)
        goal = (u[:, :narrowest] * s[:narrowest]) @ vh[:narrowest]
    goal = goal.flatten()
    goal = goal if basis is None else basis.T @ goal
    batch = network.batch
    eye = torch.eye(network.dims[0], dtype=network.theta.dtype, device=network.theta.device)
    term = Term(
        order=tuple(range(network.depth)),
        flip=False,
        start=eye.expand(batch, -1, -1),
        end=None,
        basis=basis,
        target=goal.expand(batch, -1),
    )
    scale = goal.norm() + network.product().flatten(1).norm(dim=1)
    return Constraint([term], scale.clamp_min(torch.finfo(goal.dtype).tiny).unsqueeze(1))


def distance_to_minimum(
    network: Network,
    cost: QuadraticCost,
    *,
    tol: float = 1e-6,
    max_steps: int = 60,
    draws: Sequence[int] | None = None,
) -> MinimumDistance:
    """d_m from several starts, the nearest kept (an attained value: an upper bound with certificate).

    Args:
        network: θ_0, B members; full or Krylov-reduced.
        cost: a quadratic cost on (d_out, d_in) matrices.
        tol: stationarity at which a search stops.
        draws: members of equal number have the same weights up to a factor (None: there are none).

    Raises:
        InputError: when the network is too narrow for any minimiser.
    """
    facts = facts_of(cost, network.depth)
    narrowest = min(network.dims)
    ranks = [_rank(matrix, cost.resolution) for _, matrix in facts.minimisers]
    if min(ranks) > narrowest:
        raise InputError(
            f"width: a minimum of rank {min(ranks)} does not fit through a layer of width {narrowest}"
            + ("" if facts.measured is None else ", and none of lower rank was found")
        )
    fitting = [pair for pair, rank in zip(facts.minimisers, ranks, strict=True) if rank <= narrowest]
    starts = _starts(network, fitting, range(network.batch) if draws is None else draws)
    found = _from_all_starts(network, cost, [aligned for _, aligned in starts], max_steps)
    winner, reached = _further(network, cost, found, tol, max_steps)
    point = network.with_theta(reached.theta)
    return MinimumDistance(
        distance=reached.distance,
        excess=cost.excess(point.product()),
        initial_excess=cost.excess(network.product()),
        stationarity=reached.stationarity,
        winner=[starts[w][0] for w in winner],
        network=point,
    )


def _starts(
    network: Network, minimisers: list[tuple[str, Tensor]], draws: Sequence[int]
) -> list[tuple[str, Aligned | None]]:
    """Names and balanced factors of each minimiser, and None: θ_0 itself."""
    starts: list[tuple[str, Aligned | None]] = []
    for name, matrix in minimisers:
        several = aligned_factors(network, matrix, draws)
        words = ("", ", backward", ", drawn")[: len(several)]
        starts += [(f"balanced({name}{how})", aligned) for how, aligned in zip(words, several, strict=True)]
    return [*starts, ("origin", None)]


def _from_all_starts(
    network: Network, cost: QuadraticCost, starts: list[Aligned | None], max_steps: int
) -> list[Nearest]:
    """What is roughly reached from each."""
    constraint = minimum_constraint(network, cost)
    best = torch.full_like(network.theta[:, 0], torch.inf)
    found = []
    for aligned in starts:
        reach = HOPELESS * best
        reach = reach if aligned is None else torch.where(aligned.other, reach, 0.0)
        start = network if aligned is None else aligned.start(network)
        found.append(nearest(network, start, constraint, tol=ROUGH, max_steps=max_steps, reach=reach))
        best = torch.minimum(best, found[-1].distance)
    return found


def _rivals(found: list[Nearest]) -> list[Tensor]:
    """The members, for each start, that may be led to the nearest minimum from the rough point it led to."""
    distances = torch.stack([f.distance for f in found], 1)
    gain = GAIN * torch.stack([f.stationarity for f in found], 1) ** 2
    rivals = torch.isfinite(distances) & (distances * (1 - gain) <= distances.amin(1, keepdim=True))
    for later in range(1, len(found)):  # of starts that have come together, the first is enough
        for earlier in range(later):
            apart = (found[later].theta - found[earlier].theta).norm(dim=1)
            rivals[:, later] &= ~(rivals[:, earlier] & (apart <= TOGETHER * distances[:, later]))
    return [torch.nonzero(column).flatten() for column in rivals.unbind(1)]


def _further(
    network: Network, cost: QuadraticCost, found: list[Nearest], tol: float, max_steps: int
) -> tuple[list[int], Nearest]:
    """The number of the best start and what it leads to, per member, from the rough points that each start led to."""
    far = torch.full_like(network.theta[:, 0], torch.inf)
    best = Nearest(network.theta.clone(), far, far.clone(), far.clone(), torch.zeros_like(far, dtype=torch.long))
    winner = [0] * network.batch
    for choice, members in enumerate(_rivals(found)):
        if not len(members):
            continue
        part, start = network.select(members), network.with_theta(found[choice].theta[members])
        reached = nearest(
            part, start, minimum_constraint(part, cost), tol=tol, max_steps=max_steps, to_beat=best.distance[members]
        )
        better = reached.distance < best.distance[members] * (1 - 1e-9)
        for field in fields(best):
            getattr(best, field.name)[members[better]] = getattr(reached, field.name)[better]
        for member in members[better].tolist():
            winner[member] = choice
    return winner, best


def _rank(matrix: Tensor, resolution: float) -> int:
    s = torch.linalg.svdvals(matrix)
    return int((s > indistinct(resolution) * s[0]).sum()) if float(s[0]) > 0 else 0

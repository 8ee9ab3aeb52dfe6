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
from dlnphase.distances.nearest import Nearest, nearest
from dlnphase.distances.starts import Aligned, aligned_factors
from dlnphase.errors import InputError
from dlnphase.networks.batch import Batched
from dlnphase.networks.chain import Network

NEARER = 1e-6  # a start has to lead nearer by this share than those before it: it trades digits against Newton steps


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
    constraint = minimum_constraint(network, cost)
    far = torch.full_like(network.theta[:, 0], torch.inf)
    best = Nearest(network.theta.clone(), far, far.clone(), far.clone(), torch.zeros_like(far, dtype=torch.long))
    winner = [0] * network.batch
    for choice, (_, aligned) in enumerate(starts):
        new = torch.ones_like(far, dtype=torch.bool) if aligned is None else aligned.other
        members = torch.nonzero(new).flatten()
        if not len(members):
            continue
        part = network.select(members)
        start = part if aligned is None else aligned.select(members).start(part)
        beat = best.distance[members] * (1 - NEARER)  # a start that comes to where another led leaves off there
        reached = nearest(part, start, constraint.select(members), tol=tol, max_steps=max_steps, to_beat=beat)
        better = reached.distance < beat
        for field in fields(best):
            getattr(best, field.name)[members[better]] = getattr(reached, field.name)[better]
        for member in members[better].tolist():
            winner[member] = choice
    point = network.with_theta(best.theta)
    return MinimumDistance(
        distance=best.distance,
        excess=cost.excess(point.product()),
        initial_excess=cost.excess(network.product()),
        stationarity=best.stationarity,
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


def _rank(matrix: Tensor, resolution: float) -> int:
    s = torch.linalg.svdvals(matrix)
    return int((s > indistinct(resolution) * s[0]).sum()) if float(s[0]) > 0 else 0

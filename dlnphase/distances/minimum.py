"""d_m: the distance from θ_0 to the set of global minima {θ : C(A_θ) = min C} (theory page, the phase transition).

The set is cut out by Bᵀ vec(A_θ − Â) = 0 with B a basis of the directions the cost measures: all of them for a
factorization, the observed entries of a completion, the range of the data for a regression or for sensing.
The search starts from θ_0 (right in the lazy regime) and from balanced factors of minimisers laid over θ_0 (right for
small initialisations), aligned with it from both ends and, where that is better, from random frames. It polishes each
start with :func:`dlnphase.distances.nearest.nearest` and keeps the nearest point.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.costs.round_off import indistinct
from dlnphase.distances.chains import Constraint, Term
from dlnphase.distances.facts import facts_of
from dlnphase.distances.nearest import nearest
from dlnphase.distances.starts import balanced_start, drawn_start
from dlnphase.errors import InputError
from dlnphase.networks.chain import Network

HOPELESS = 20.0  # a start whose first step is so many times the best distance is given up


@dataclass(frozen=True)
class MinimumDistance:
    """Distance to the nearest global minimum found, with its certificate, member by member.

    Attributes:
        distance: ‖θ − θ_0‖ ≥ d_m, shape (B,): attained, hence an upper bound.
        excess: C(A_θ) − C_min at the point found, shape (B,).
        initial_excess: C(A_θ0) − C_min, shape (B,), the scale of the former.
        stationarity: ‖P(θ − θ_0)‖/‖θ − θ_0‖, P the projection on the tangent space of the set, shape (B,).
        winner: name of the start that led there, per member.
        tried: distance reached from each start, shape (B,) each; inf where it reached none or was not followed.
        network: the points themselves.
    """

    distance: Tensor
    excess: Tensor
    initial_excess: Tensor
    stationarity: Tensor
    winner: list[str]
    tried: dict[str, Tensor]
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
    network: Network, cost: QuadraticCost, *, tol: float = 1e-7, max_steps: int = 60
) -> MinimumDistance:
    """d_m from several starts, the nearest kept (an attained value: an upper bound with certificate).

    Args:
        network: θ_0, B members; full or Krylov-reduced.
        cost: a quadratic cost on (d_out, d_in) matrices.
        tol: stationarity at which a search stops.

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
    constraint = minimum_constraint(network, cost)
    starts: list[tuple[str, Network]] = []
    known: dict[str, Tensor] = {}  # members for which a start is one of those before it
    for (name, matrix), rank in zip(facts.minimisers, ranks, strict=True):
        if rank > narrowest:
            continue
        starts.append((f"balanced({name})", balanced_start(network, matrix)))
        if network.depth > 2:
            starts.append((f"balanced({name}, backward)", balanced_start(network, matrix, backward=True)))
            start, other = drawn_start(network, matrix)
            starts.append((f"balanced({name}, drawn)", start))
            known[starts[-1][0]] = ~other
    starts.append(("origin", network))
    best = torch.full_like(network.theta[:, 0], torch.inf)
    theta = network.theta.clone()
    stationarity = torch.full_like(best, torch.inf)
    winner = [""] * network.batch
    tried = {}
    for name, start in starts:
        reach = HOPELESS * best
        reach = torch.where(known[name], 0.0, reach) if name in known else reach
        found = nearest(network, start, constraint, tol=tol, max_steps=max_steps, reach=reach)
        tried[name] = found.distance
        # A later start has to be better by more than round-off to be named the winner.
        better = found.distance < best * (1 - 1e-9)
        best = torch.where(better, found.distance, best)
        theta = torch.where(better[:, None], found.theta, theta)
        stationarity = torch.where(better, found.stationarity, stationarity)
        winner = [name if b else w for b, w in zip(better.tolist(), winner, strict=True)]
    point = network.with_theta(theta)
    return MinimumDistance(
        distance=best,
        excess=cost.excess(point.product()),
        initial_excess=cost.excess(network.product()),
        stationarity=stationarity,
        winner=winner,
        tried=tried,
        network=point,
    )


def _rank(matrix: Tensor, resolution: float) -> int:
    s = torch.linalg.svdvals(matrix)
    return int((s > indistinct(resolution) * s[0]).sum()) if float(s[0]) > 0 else 0

"""What a recorded path says: visits, rank transitions, regime, outcome, theory beside measurement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch

from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.critical import (
    HostCost,
    MatrixPoint,
    RankTransition,
    Visit,
    find_visits,
    merge_same,
    rank_transitions,
    refine_matrix,
)
from dlnphase.networks.chain import Network
from dlnphase.results.train import Member, NetworkInfo, Outcome, Plateau, Regime, Spread, TaskInfo, Theory
from dlnphase.training.recording import MemberPath, cost_values
from dlnphase.training.theory import predict

V = TypeVar("V")

LAZY_NTK_CHANGE = 0.5  # a path without saddles that changes the NTK by less than this, relative, is lazy
TRUNCATED = 100.0  # a rank whose truncation costs more than so many times the excess at the end is not looked at there
NEAR_END = 0.1  # the end is at a minimum that is closer than this part of its smallest singular value
CRITICAL = 1e-11  # gradients below this, in their natural unit, are zero
RANK_TOLERANCE = 1e-3  # numerical rank of a matrix that is near no critical point: singular values above this share
# The worst reason of a batch is the one told.
WORST_FIRST = ("diverged", "precision_floor", "interrupted", "max_steps", "max_time", "converged")


@dataclass(frozen=True)
class Analysis:
    """One member analysed: what the result keeps, and the record numbers of its visits."""

    member: Member
    visits: tuple[int, ...]


@dataclass(frozen=True)
class Context:
    """What the analysis of every member shares."""

    cost: QuadraticCost
    test: QuadraticCost | None
    network: NetworkInfo
    task: TaskInfo
    tol: float


def analyse(path: MemberPath, member: int, square_norm: float, context: Context) -> Analysis:
    """Visits, transitions, regime and theory of one member's path.

    Args:
        path: at least one record.
        member: its number.
        square_norm: ‖θ_0‖² of the full network.
    """
    host = HostCost(context.cost)
    time, step = path.column(0), path.column(1)
    excess, gradient = path.column(3), path.column(4)
    cost = excess + context.cost.minimum
    visits, points = _critical_visits(path, find_visits(time, step, excess, gradient), host, context.tol)
    matrices = [path.matrices[v.index] for v in visits]
    rows = rank_transitions(
        time, step, gradient, cost, visits, [p.rank for p in points],
        [np.linalg.svd(a, compute_uv=False) for a in matrices],
    )  # fmt: skip
    saddles = [v for v, p in zip(visits, points, strict=True) if p.next_mode > 0]
    movement, ntk_change = _change(path, square_norm)
    evidence = Regime(len(saddles), max((v.prominence for v in saddles), default=0.0), movement, ntk_change)
    end = path.matrices[max(path.matrices)]
    ends = np.stack([path.matrices[0], end])
    tests = (None, None) if context.test is None else tuple(float(v) for v in cost_values(context.test, ends))
    reason = path.reason or "interrupted"
    outcome = Outcome(
        reason=reason,
        regime=_regime(evidence, len(rows), reason),
        time=float(time[-1]),
        steps=int(step[-1]),
        evaluations=int(path.column(2)[-1]),
        cost=float(cost[-1]),
        test_cost=tests[1],
        excess=float(excess[-1]),
        initial_cost=float(cost[0]),
        initial_test_cost=tests[0],
        rank=_rank(end, points[-1] if points and visits[-1].index == len(time) - 1 else refine_matrix(end, host)),
        evidence=evidence,
    )
    plateaus = tuple(
        Plateau(p.rank, context.cost.minimum_at_rank(p.rank), p.cost, float(cost[v.index]))
        for v, p in zip(visits, points, strict=True)
    )
    regime, predictions = predict(path, rows, movement * float(np.sqrt(square_norm)), context.network, context.task)
    return Analysis(
        Member(member, outcome, tuple(rows), Theory(regime, plateaus, predictions)), tuple(v.index for v in visits)
    )


def _critical_visits(
    path: MemberPath, visits: Sequence[Visit], host: HostCost, tol: float
) -> tuple[list[Visit], list[MatrixPoint]]:
    """The visits near a critical point, each with it; a lull of ‖∇𝓛‖ near none is no visit.

    A run that converged has arrived, however little its gradient had time to fall: its end is the last visit.
    """
    points = [refine_matrix(path.matrices[v.index], host) for v in visits]
    visits, points = merge_same(visits, points, host)
    kept = [(v, p) for v, p in zip(visits, points, strict=True) if p.converged]
    end = _end(path, host, tol) if path.reason == "converged" else None
    if end is not None:
        last = len(path.rows) - 1
        enter, prominence = last, 0.0
        while kept and (kept[-1][0].index == last or kept[-1][1].rank == end.rank):
            visit, _ = kept.pop()
            enter, prominence = visit.enter, max(prominence, visit.prominence)
        kept.append((Visit(last, enter, last, prominence), end))
    return [v for v, _ in kept], [p for _, p in kept]


def _end(path: MemberPath, host: HostCost, tol: float) -> MatrixPoint | None:
    """The critical point of least rank that a converged path is near and that is a minimum as far as tol can tell.

    Data with rounded or noisy numbers have their exact minimum at a higher rank, by modes too small to be looked for.
    """
    last = len(path.rows) - 1
    a = path.matrices[last]
    enough = max(tol * path.rows[0][3], path.rows[last][3])
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    for rank in range(len(s) + 1):
        if host.excess((u[:, :rank] * s[:rank]) @ vt[:rank]) > TRUNCATED * enough:
            continue
        point = refine_matrix(a, host, rank=rank)
        near = rank == 0 or point.distance <= NEAR_END * np.linalg.svd(point.A, compute_uv=False)[rank - 1]
        if point.gradient_norm <= CRITICAL and near and host.excess(point.A) <= enough:
            return replace(point, converged=True, next_mode=0.0)
    return None


def _change(path: MemberPath, square_norm: float) -> tuple[float, float]:
    """‖θ_end − θ_0‖/‖θ_0‖ and ‖K_end − K_0‖_F/‖K_0‖_F; NaN where the end was not kept."""
    if path.start is None or path.end is None:
        return float("nan"), float("nan")
    first = Network.from_weights([torch.as_tensor(w, dtype=torch.float64) for w in path.start])
    last = Network.from_weights([torch.as_tensor(w, dtype=torch.float64) for w in path.end])
    moved = float(torch.linalg.vector_norm(last.theta - first.theta))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.float64(moved) / np.sqrt(square_norm)), _ntk_change(first, last)


def _ntk_change(first: Network, last: Network) -> float:
    """‖K_1 − K_0‖_F/‖K_0‖_F from the factors of K, without forming it: ⟨A⊗B, C⊗D⟩ = ⟨A, C⟩⟨B, D⟩."""
    before, after = first.ntk_factors(), last.ntk_factors()

    def inner(x: list[tuple[torch.Tensor, torch.Tensor]], y: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
        return float(sum((a * c).sum() * (b * d).sum() for a, b in x for c, d in y))

    whole = inner(before, before)
    if whole == 0.0:
        return float("inf")
    return float(np.sqrt(max(inner(after, after) - 2 * inner(after, before) + whole, 0.0) / whole))


def _regime(evidence: Regime, transitions: int, reason: str) -> str | None:
    if evidence.saddles_visited and transitions:
        return "saddle-to-saddle"
    if reason == "diverged":
        return None
    if reason != "converged" or not np.isfinite(evidence.ntk_change):
        return "saddle-to-saddle" if evidence.saddles_visited else None
    if evidence.saddles_visited:
        return "saddle-to-saddle"
    return "lazy" if evidence.ntk_change < LAZY_NTK_CHANGE else "mean-field"


def _rank(a: np.ndarray, point: MatrixPoint) -> int:
    if point.converged:
        return point.rank
    s = np.linalg.svd(a, compute_uv=False)
    return int((s > RANK_TOLERANCE * s[0]).sum()) if s[0] > 0 else 0


# ---- several members ---------------------------------------------------------------------------------


def combine(members: Sequence[Member]) -> tuple[Outcome, tuple[RankTransition, ...], Theory, tuple[Spread, ...]]:
    """Means over members, and how each transition varies."""
    if len(members) == 1:
        only = members[0]
        return only.outcome, only.rank_transitions, only.theory, ()
    groups: dict[tuple[int, int], list[RankTransition]] = {}
    for member in members:
        for row in member.rank_transitions:
            groups.setdefault((row.from_rank, row.to_rank), []).append(row)
    ordered = sorted(groups.items(), key=lambda item: item[0])
    return (
        _mean_outcome([m.outcome for m in members]),
        tuple(_mean_transition(rows) for _, rows in ordered),
        Theory(members[0].theory.regime),
        tuple(_spread(rows) for _, rows in ordered),
    )


def _common(values: Sequence[V]) -> V:
    return Counter(values).most_common(1)[0][0]


def _mean_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    def mean(name: str) -> float:
        return float(np.mean([getattr(o, name) for o in outcomes]))

    has_test = outcomes[0].test_cost is not None
    evidence = Regime(
        saddles_visited=round(np.mean([o.evidence.saddles_visited for o in outcomes])),
        prominence=float(np.mean([o.evidence.prominence for o in outcomes])),
        parameter_movement=float(np.mean([o.evidence.parameter_movement for o in outcomes])),
        ntk_change=float(np.mean([o.evidence.ntk_change for o in outcomes])),
    )
    return replace(
        outcomes[0],
        reason=next(r for r in WORST_FIRST if any(o.reason == r for o in outcomes)),
        regime=_common([o.regime for o in outcomes]),
        time=mean("time"),
        steps=round(mean("steps")),
        evaluations=round(mean("evaluations")),
        cost=mean("cost"),
        excess=mean("excess"),
        initial_cost=mean("initial_cost"),
        test_cost=mean("test_cost") if has_test else None,
        initial_test_cost=mean("initial_test_cost") if has_test else None,
        rank=_common([o.rank for o in outcomes]),
        evidence=evidence,
    )


def _mean_transition(rows: Sequence[RankTransition]) -> RankTransition:
    def mean(name: str) -> float:
        return float(np.mean([getattr(r, name) for r in rows]))

    return replace(
        rows[0],
        time=mean("time"),
        step=round(mean("step")),
        dwell=mean("dwell"),
        cost_before=mean("cost_before"),
        cost_after=mean("cost_after"),
        singular_values=[float(s) for s in np.mean([r.singular_values for r in rows], axis=0)],
        prominence=mean("prominence"),
    )


def _spread(rows: Sequence[RankTransition]) -> Spread:
    time, dwell = np.array([r.time for r in rows]), np.array([r.dwell for r in rows])
    several = len(rows) > 1
    return Spread(
        rows[0].from_rank, rows[0].to_rank, len(rows),
        float(time.mean()), float(time.std(ddof=1)) if several else 0.0, float(time.min()), float(time.max()),
        float(dwell.mean()), float(dwell.std(ddof=1)) if several else 0.0,
    )  # fmt: skip

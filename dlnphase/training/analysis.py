"""What a recorded path says: visits, rank transitions, regime, outcome, theory beside measurement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch

from dlnphase.costs.accuracy import accuracy
from dlnphase.costs.interface import ConvexCost
from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.critical import HostCost, MatrixPoint, RankTransition, refine_matrix
from dlnphase.critical.bottleneck import is_least
from dlnphase.critical.decay import Decay
from dlnphase.critical.decayed_modes import is_least_with_decay, plateau_cost
from dlnphase.critical.learning_coefficient import learning_coefficient
from dlnphase.critical.matrix import is_decayed_minimum
from dlnphase.critical.visited import Path, Visited, matrix_rank, transitions, visited_points
from dlnphase.findings import DecayTheory
from dlnphase.networks.chain import Network
from dlnphase.networks.kernels import relative_change
from dlnphase.results.train import Member, NetworkInfo, Outcome, Plateau, Prediction, Regime, Spread, TaskInfo, Theory
from dlnphase.setup.resolved import Algorithm
from dlnphase.training.answers import answers
from dlnphase.training.decay_theory import decay_theory
from dlnphase.training.decayed import Unreached
from dlnphase.training.early import passes_early, with_dense_start
from dlnphase.training.modes import modes_of
from dlnphase.training.noise import Question, noise_on
from dlnphase.training.reasons import REASONS
from dlnphase.training.recording import MemberPath, cost_values
from dlnphase.training.theory import predict

V = TypeVar("V")

LAZY_NTK_CHANGE = 0.5  # a path without saddles that changes the NTK by less than this, relative, is lazy


@dataclass(frozen=True)
class Analysis:
    """One member analysed: what the result keeps, the record numbers of its visits, and A's singular values (T, d)."""

    member: Member
    visits: tuple[int, ...]
    singular_values: np.ndarray


@dataclass(frozen=True)
class Context:
    """What the analysis of every member shares.

    Attributes:
        rtol: of a gradient flow, None for other dynamics.
        unreached: weights that the networks as they are held lack; None without weight decay.
        descent: the discrete algorithm, None for a path in time.
    """

    cost: ConvexCost
    test: ConvexCost | None
    network: NetworkInfo
    task: TaskInfo
    tol: float
    rtol: float | None = None
    noise: Question | None = None
    unreached: Unreached | None = None
    descent: Algorithm | None = None

    @property
    def flows(self) -> bool:
        """Whether what is followed is gradient flow, or becomes it as steps become small."""
        return self.descent is None or self.descent.update.flows

    def growth(self, rate: float) -> float | None:
        """The rate of what gradient flow lets grow at this one, in steps of the first size; None: the same."""
        return None if self.descent is None else self.descent.update.growth(rate, self.descent.lr.values[0])

    def steady(self, step: int) -> bool:
        """Whether :meth:`growth` holds up to this step."""
        changes = () if self.descent is None else self.descent.lr.steps[1:]
        return not changes or step <= changes[0] or self.growth(1.0) is None

    @property
    def decay(self) -> float:
        """Weight decay λ."""
        return 0.0 if self.unreached is None else self.unreached.rate


def analyse(path: MemberPath, member: int, square_norm: float, context: Context) -> Analysis:
    """Visits, transitions, regime and theory of one member's path.

    Args:
        path: at least one record.
        member: its number.
        square_norm: ‖θ_0‖² of the full network.
    """
    host = HostCost(context.cost, Decay(context.decay, context.network.depth) if context.decay else None)
    time, step = path.column(0), path.column(1)
    excess, gradient, penalty = path.column(3), path.column(4), path.column(5)
    cost = excess + context.cost.minimum
    tol = context.tol if path.reason == "converged" else None
    width = min(context.network.full_hidden or context.network.hidden)
    held = penalty if context.decay else None
    records = Path(time, step, excess, gradient, path.matrices, tol, width=width, penalty=held)
    visited = [v for v in visited_points(records, host) or () if v.counts]
    rows = transitions(records, context.cost.minimum, visited)
    saddles = [v for v in visited if v.saddle]
    passed = sum(is_decayed_minimum(v.point, host, width) for v in saddles) if context.decay else 0
    movement, ntk_change = _change(path, square_norm, context)
    clearest = max((v.visit.prominence for v in saddles), default=0.0)
    evidence = Regime(len(saddles), clearest, movement, ntk_change, passed)
    end = path.matrices[max(path.matrices)]
    ends = np.stack([path.matrices[0], end])
    tests = (None, None) if context.test is None else tuple(float(v) for v in cost_values(context.test, ends))
    reason = path.reason or "interrupted"
    at_end = bool(visited) and visited[-1].visit.index == len(time) - 1
    end_rank = visited[-1].rank if at_end else matrix_rank(end, refine_matrix(end, host))
    decayed = bool(context.decay and at_end and not rows and end_rank == 0)  # all of K is gone, and nothing learned
    outcome = Outcome(
        reason=reason,
        regime=None if decayed else _regime(evidence, len(rows), reason),
        time=float(time[-1]),
        steps=int(step[-1]),
        evaluations=int(path.column(2)[-1]),
        cost=float(cost[-1]),
        test_cost=tests[1],
        excess=float(excess[-1]),
        initial_cost=float(cost[0]),
        initial_test_cost=tests[0],
        rank=end_rank,
        evidence=evidence,
        **answers(path, context.cost, context.test, context.network.depth, decayed=bool(context.decay)),
        **_reached(visited[-1] if at_end and reason == "converged" else None, host, context.cost, width),
        penalty=float(penalty[-1]) if context.decay else None,
        initial_penalty=float(penalty[0]) if context.decay else None,
        learning_coefficient=_learning_coefficient(end_rank, context),
    )
    plateaus = tuple(
        Plateau(
            v.rank, _expected_cost(v.rank, context), v.point.cost, float(cost[v.visit.index]),
            **_answers_at(path.matrices[v.visit.index], context),
            learning_coefficient=_learning_coefficient(v.rank, context),
        )
        for v in visited
        if v.point.converged
    )  # fmt: skip
    theory = _theory(path, rows, movement * float(np.sqrt(square_norm)), end_rank, context)
    kept = np.array(sorted(path.matrices))
    matrices = np.stack([path.matrices[k] for k in kept])
    spectra = np.linalg.svd(matrices, compute_uv=False)
    modes = modes_of(time[kept], spectra, outcome.rank, matrices)
    if context.rtol is not None and path.start is not None and passes_early(spectra, outcome.rank):
        dense, at = with_dense_start(time[kept], matrices, path.start, host.cost, context.rtol, context.decay)
        modes = modes_of(dense, np.linalg.svd(at, compute_uv=False), outcome.rank, at)
    noise = None
    if context.noise is not None and isinstance(context.cost, QuadraticCost):
        places = {v.rank: v.visit.index for v in visited}
        test = context.test if isinstance(context.test, QuadraticCost) else None
        noise = noise_on(path, places, spectra, outcome.rank, context.noise, context.cost, test)
    return Analysis(
        Member(member, outcome, tuple(rows), replace(theory, plateaus=plateaus), modes, noise),
        tuple(v.visit.index for v in visited),
        spectra,
    )


def _theory(
    path: MemberPath, rows: Sequence[RankTransition], movement: float, rank: int, context: Context
) -> Theory:
    """What gradient flow predicts, and what decay leaves of the modes; nothing for what follows no flow."""
    if not context.flows:
        return Theory(None, (), {})
    network, task = context.network, context.task
    escape = rows[:1] if rows and context.steady(rows[0].step) else ()
    regime, predictions = predict(path, escape, movement, network, task, context.decay, context.growth)
    decay = None
    if context.decay:
        end, top = path.matrices[max(path.matrices)], task.top_gradient
        decay = decay_theory(context.cost, context.decay, network.depth, network.alpha, top, end, rank)
    return Theory(regime, (), predictions, decay)


def _learning_coefficient(rank: int, context: Context) -> float | None:
    """λ at this rank, where the cost is that of a regression that tells all matrices apart."""
    (d_out, d_in), network = context.task.shape, context.network
    dims = (d_in, *(network.full_hidden or network.hidden), d_out)
    return float(learning_coefficient(dims, rank)[0]) if context.task.unique and rank <= min(dims) else None


def _answers_at(a: np.ndarray, context: Context) -> dict[str, Any]:
    """Test cost and accuracies at a visit, as entries of its plateau."""
    cost, test = context.cost, context.test
    tested = None if test is None else float(cost_values(test, a[None])[0])
    return {"test_cost": tested, "accuracy": accuracy(cost, a), "test_accuracy": accuracy(test, a)}


def _expected_cost(rank: int, context: Context) -> float | None:
    """C at the critical point of this rank that small starts visit, where a closed form is known."""
    if context.decay:
        return plateau_cost(context.cost, context.decay, context.network.depth, rank)
    return context.cost.minimum_at_rank(rank)


def _decayed_end(end: MatrixPoint, host: HostCost, decay: Decay, width: int) -> dict[str, Any]:
    """As :func:`_reached`, with weight decay; what is minimised is told with C_min."""
    value = host.objective(end.A, np.linalg.svd(end.A, compute_uv=False)[: end.rank])
    known = is_least_with_decay(end, host, decay, width)
    return {"reached": "decayed-minimum" if known else "decayed-local-minimum", "reachable": value + host.minimum}


def _reached(end: Visited | None, host: HostCost, cost: ConvexCost, width: int) -> dict[str, Any]:
    """What a run that has converged came to, and the cost there, as entries of its outcome."""
    if end is None:
        return {}
    if host.decay is not None:
        return _decayed_end(end.point, host, host.decay, width)
    if not cost.attained:
        return {"reached": "no-minimum", "reachable": cost.minimum}
    if not end.held:
        return {"reached": "global-minimum", "reachable": cost.minimum}
    kind = "width-minimum" if is_least(end.point.cost, cost, width) else "local-minimum"
    return {"reached": kind, "reachable": end.point.cost}


def _change(path: MemberPath, square_norm: float, context: Context) -> tuple[float, float]:
    """‖θ_end − θ_0‖/‖θ_0‖ and ‖K_end − K_0‖_F/‖K_0‖_F; NaN where the end was not kept."""
    if path.start is None or path.end is None:
        return float("nan"), float("nan")
    first, last = Network.of_arrays(path.start), Network.of_arrays(path.end)
    moved = float(torch.linalg.vector_norm(last.theta - first.theta))
    if context.unreached is not None and context.network.representation != "full":
        lacking = max(square_norm - float(first.theta.square().sum()), 0.0)
        gone = 1 - context.unreached.share(path.column(0)[-1:], path.column(1)[-1:])
        moved = float(np.sqrt(moved**2 + lacking * gone[0] ** 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        change = float(relative_change(first.ntk_factors(), last.ntk_factors()))
        return float(np.float64(moved) / np.sqrt(square_norm)), change


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
        _mean_theory([m.theory for m in members]),
        tuple(_spread(rows) for _, rows in ordered),
    )


def _mean_theory(theories: Sequence[Theory]) -> Theory:
    """Means of what is predicted and of what was measured, each over the members that it applies to."""
    plateaus = []
    for rank in sorted({p.rank for t in theories for p in t.plateaus}):
        seen = [p for t in theories for p in t.plateaus if p.rank == rank]
        predicted = _mean_of(p.predicted for p in seen)
        answers_there: dict[str, Any] = {
            n: _mean_of(getattr(p, n) for p in seen) for n in ("test_cost", "accuracy", "test_accuracy")
        }
        answers_there["learning_coefficient"] = seen[0].learning_coefficient  # of the rank alone
        means = _mean(p.refined for p in seen), _mean(p.measured for p in seen)
        plateaus.append(Plateau(rank, predicted, *means, **answers_there))
    predictions = {}
    for name in dict.fromkeys(name for t in theories for name in t.predictions):
        told = [t.predictions[name] for t in theories if name in t.predictions]
        measured = _mean_of(p.measured for p in told)
        predictions[name] = Prediction(told[0].formula, _mean(p.predicted for p in told), measured)
    return Theory(theories[0].regime, tuple(plateaus), predictions, _mean_decay([t.decay for t in theories]))


def _mean_decay(decays: Sequence[DecayTheory | None]) -> DecayTheory | None:
    """What several starts with weight decay came to: sizes of modes are means over them."""
    told = [d for d in decays if d is not None]
    if not told:
        return None
    modes = tuple(
        replace(rows[0], measured=_mean(row.measured for row in rows))
        for rows in zip(*(d.modes for d in told), strict=True)
    )
    return replace(told[0], left=_common([d.left for d in told]), modes=modes)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of those that are there; None without any."""
    there = [v for v in values if v is not None]
    return _mean(there) if there else None


def _common(values: Sequence[V]) -> V:
    return Counter(values).most_common(1)[0][0]


def _mean_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    def mean(name: str) -> float:
        return float(np.mean([getattr(o, name) for o in outcomes]))

    has_test, rank = outcomes[0].test_cost is not None, _common([o.rank for o in outcomes])
    evidence = Regime(
        saddles_visited=round(np.mean([o.evidence.saddles_visited for o in outcomes])),
        prominence=float(np.mean([o.evidence.prominence for o in outcomes])),
        parameter_movement=float(np.mean([o.evidence.parameter_movement for o in outcomes])),
        ntk_change=float(np.mean([o.evidence.ntk_change for o in outcomes])),
        minima_passed=round(np.mean([o.evidence.minima_passed for o in outcomes])),
    )
    shares: dict[str, Any] = {
        n: _mean_of(getattr(o, n) for o in outcomes)
        for n in ("accuracy", "test_accuracy", "margin", "alignment", "penalty", "initial_penalty")
    }
    return replace(
        outcomes[0],
        reason=next(r for r in REASONS if any(o.reason == r for o in outcomes)),
        regime=_common([o.regime for o in outcomes]),
        time=mean("time"),
        steps=round(mean("steps")),
        evaluations=round(mean("evaluations")),
        cost=mean("cost"),
        excess=mean("excess"),
        initial_cost=mean("initial_cost"),
        test_cost=mean("test_cost") if has_test else None,
        initial_test_cost=mean("initial_test_cost") if has_test else None,
        rank=rank,
        learning_coefficient=next(o.learning_coefficient for o in outcomes if o.rank == rank),
        **shares,
        reached=outcomes[0].reached if len({o.reached for o in outcomes}) == 1 else None,
        reachable=_mean_of(o.reachable for o in outcomes),
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

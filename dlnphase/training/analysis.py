"""What a recorded path says: visits, rank transitions, regime, outcome, theory beside measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

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
from dlnphase.networks.chain import Network
from dlnphase.networks.kernels import relative_change
from dlnphase.results.train import Member, NetworkInfo, Outcome, Plateau, Regime, TaskInfo, Theory
from dlnphase.setup.resolved import Algorithm
from dlnphase.training.answers import answers
from dlnphase.training.decay_theory import decay_theory
from dlnphase.training.decayed import Unreached
from dlnphase.training.early import wants_dense_start, with_dense_start
from dlnphase.training.modes import modes_of
from dlnphase.training.noise import Question, noise_on
from dlnphase.training.recording import MemberPath, cost_values
from dlnphase.training.theory import predict

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
    def narrowest(self) -> int:
        """The width of the narrowest layer of the full network."""
        return min(self.network.full_hidden or self.network.hidden)

    @property
    def decay(self) -> float:
        """Weight decay λ."""
        return 0.0 if self.unreached is None else self.unreached.rate

    @cached_property
    def host(self) -> HostCost:
        """The cost as the search for critical matrices asks for it, and remembers what it came to."""
        return HostCost(self.cost, Decay(self.decay, self.network.depth) if self.decay else None)


def analyse(path: MemberPath, member: int, square_norm: float, context: Context) -> Analysis:
    """Visits, transitions, regime and theory of one member's path.

    Args:
        path: at least one record.
        member: its number.
        square_norm: ‖θ_0‖² of the full network.
    """
    host = context.host
    time, step, penalty = path.column(0), path.column(1), path.column(5) if context.decay else None
    tol = context.tol if path.reason == "converged" else None
    records = Path(
        time, step, path.column(3), path.column(4), path.matrices, tol, width=context.narrowest, penalty=penalty
    )
    visited = [v for v in visited_points(records, host) or () if v.counts]
    rows = transitions(records, context.cost.minimum, visited)
    evidence = _evidence(path, square_norm, visited, host, context)
    outcome = _outcome(path, records, visited, len(rows), evidence, host, context)
    theory = _theory(path, rows, evidence.parameter_movement * float(np.sqrt(square_norm)), outcome.rank, context)
    kept = np.array(sorted(path.matrices))
    matrices = np.stack([path.matrices[k] for k in kept])
    spectra = np.linalg.svd(matrices, compute_uv=False)
    modes = modes_of(time[kept], spectra, outcome.rank, matrices)
    early = wants_dense_start(spectra, outcome.rank, matrices[0].size)
    if context.rtol is not None and path.start is not None and early:
        dense, at = with_dense_start(time[kept], matrices, path.start, host.cost, context.rtol, context.decay)
        modes = modes_of(dense, np.linalg.svd(at, compute_uv=False), outcome.rank, at)
    noise = None
    if context.noise is not None and isinstance(context.cost, QuadraticCost):
        places = {v.rank: v.visit.index for v in visited}
        test = context.test if isinstance(context.test, QuadraticCost) else None
        noise = noise_on(path, places, spectra, outcome.rank, context.noise, context.cost, test)
    theory = replace(theory, plateaus=_plateaus(path, visited, context))
    found = Member(member, outcome, tuple(rows), theory, modes, noise)
    return Analysis(found, tuple(v.visit.index for v in visited), spectra)


def _evidence(
    path: MemberPath, square_norm: float, visited: Sequence[Visited], host: HostCost, context: Context
) -> Regime:
    """What the regime is told from."""
    saddles = [v for v in visited if v.saddle]
    passed = sum(is_decayed_minimum(v.point, host, context.narrowest) for v in saddles) if context.decay else 0
    clearest = max((v.visit.prominence for v in saddles), default=0.0)
    return Regime(len(saddles), clearest, *_change(path, square_norm, context), passed)


def _outcome(
    path: MemberPath,
    records: Path,
    visited: Sequence[Visited],
    jumps: int,
    evidence: Regime,
    host: HostCost,
    context: Context,
) -> Outcome:
    """How a path ended, after so many rank transitions."""
    time, excess, penalty = records.time, records.excess, records.penalty
    cost = excess + context.cost.minimum
    end = path.matrices[max(path.matrices)]
    ends = np.stack([path.matrices[0], end])
    tests = (None, None) if context.test is None else tuple(float(v) for v in cost_values(context.test, ends))
    reason = path.reason or "interrupted"
    at_end = bool(visited) and visited[-1].visit.index == len(time) - 1
    rank = visited[-1].rank if at_end else matrix_rank(end, refine_matrix(end, host))
    decayed = bool(context.decay and at_end and not jumps and rank == 0)  # all of K is gone, and nothing learned
    return Outcome(
        reason=reason,
        regime=None if decayed else _regime(evidence, jumps, reason),
        time=float(time[-1]),
        steps=int(records.step[-1]),
        evaluations=int(path.column(2)[-1]),
        cost=float(cost[-1]),
        test_cost=tests[1],
        excess=float(excess[-1]),
        initial_cost=float(cost[0]),
        initial_test_cost=tests[0],
        rank=rank,
        evidence=evidence,
        **answers(path, context.cost, context.test, context.network.depth, decayed=bool(context.decay)),
        **_reached(visited[-1] if at_end and reason == "converged" else None, host, context.cost, context.narrowest),
        penalty=None if penalty is None else float(penalty[-1]),
        initial_penalty=None if penalty is None else float(penalty[0]),
        learning_coefficient=_learning_coefficient(rank, context),
    )


def _plateaus(path: MemberPath, visited: Sequence[Visited], context: Context) -> tuple[Plateau, ...]:
    """The cost at each visit of a critical point, as predicted, refined and measured."""
    cost = path.column(3) + context.cost.minimum
    return tuple(
        Plateau(
            v.rank,
            _expected_cost(v.rank, context),
            v.point.cost,
            float(cost[v.visit.index]),
            **_answers_at(path.matrices[v.visit.index], context),
            learning_coefficient=_learning_coefficient(v.rank, context),
        )
        for v in visited
        if v.point.converged
    )


def _theory(path: MemberPath, rows: Sequence[RankTransition], movement: float, rank: int, context: Context) -> Theory:
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
    """‖θ_end − θ_0‖/‖θ_0‖ and ‖K_end − K_0‖_F/‖K_0‖_F; NaN where the end was not kept, or only a part of K_0."""
    if path.start is None or path.end is None:
        return float("nan"), float("nan")
    first, last = Network.of_arrays(path.start), Network.of_arrays(path.end)
    moved = float(torch.linalg.vector_norm(last.theta - first.theta))
    if context.unreached is not None and context.network.representation != "full":
        lacking = max(square_norm - float(first.theta.square().sum()), 0.0)
        gone = 1 - context.unreached.share(path.column(0)[-1:], path.column(1)[-1:])
        moved = float(np.sqrt(moved**2 + lacking * gone[0] ** 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = context.network.krylov_modes is None
        change = float(relative_change(first.ntk_factors(), last.ntk_factors())) if whole else float("nan")
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

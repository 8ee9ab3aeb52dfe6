"""Cells of a sweep: distances, and the dynamics where asked for. Runs anywhere its job can be sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from dlnphase import __version__
from dlnphase.backend import Backend
from dlnphase.costs.quadratic import QuadraticCost, require_quadratic
from dlnphase.costs.tasks import Task
from dlnphase.distances import (
    MinimumDistance,
    SaddleDistance,
    distance_to_minimum,
    distance_to_saddle,
    minimum_claim,
    predicted_minimum,
    predicted_saddle,
    saddle_claim,
)
from dlnphase.distances.lower import lower_bounds
from dlnphase.distances.representation import Held, choose
from dlnphase.errors import RunError, describe
from dlnphase.networks.chain import Network
from dlnphase.networks.representation import initial_network
from dlnphase.networks.sampling import sigma_of
from dlnphase.results.sweep import Cell, CellTransition, Failure, Measured, MinimumCell, Nearer, SaddleCell
from dlnphase.results.train import Member, TrainResult
from dlnphase.settings import TrainSettings
from dlnphase.settings.sweep import SweepSettings
from dlnphase.setup.build import build_backend, build_start
from dlnphase.setup.resolved import Continuous
from dlnphase.training.run import Run, train


@dataclass(frozen=True)
class Job:
    """Some cells of one width, to be computed together: all that this needs, to be pickled and sent.

    Attributes:
        settings: of the sweep.
        task: what to learn, on the CPU.
        width: of the cells.
        gammas: of the cells.
        version: of dlnphase, where the job was made.
    """

    settings: SweepSettings
    task: Task
    width: int
    gammas: tuple[float, ...]
    version: str = __version__


def run_job(job: Job) -> tuple[Cell | Failure, ...]:
    """Measure the cells of a job, on one CPU thread or as many as were asked for: the same numbers in any process.

    Cells whose numerics fail are named with the reason; the others are measured all the same.

    Raises:
        RunError: where a worker of a cluster has another version of dlnphase than the sweep.
    """
    if job.version != __version__:
        raise RunError(f"the sweep runs dlnphase {job.version} and this worker {__version__}, expected the same")
    before = torch.get_num_threads()
    torch.set_num_threads(job.settings.threads or 1)
    try:
        return _run_together(job)
    finally:
        torch.set_num_threads(before)


def _run_together(job: Job) -> tuple[Cell | Failure, ...]:
    try:
        return tuple(_finished(job, cell) for cell in _measure(job))
    except Exception as error:  # one cell may have brought the others down with it: each by itself, then
        if len(job.gammas) == 1:
            return (Failure(job.gammas[0], job.width, describe(error)),)
        return tuple(_run_together(replace(job, gammas=(gamma,)))[0] for gamma in job.gammas)


def _finished(job: Job, cell: Cell | Failure) -> Cell | Failure:
    """The cell with its dynamics, where they are asked for."""
    if isinstance(cell, Failure) or not job.settings.train:
        return cell
    try:
        return replace(cell, **_follow(job, cell.gamma))
    except Exception as error:
        return Failure(cell.gamma, cell.width, describe(error))


def _measure(job: Job) -> list[Cell | Failure]:
    """Distances of all cells of a job, all starts at all γ as members of one batch."""
    settings, width, seeds, depth = job.settings, job.width, len(job.settings.seeds), job.settings.depth
    backend = build_backend(settings)
    precise = Backend(backend.device, torch.float64)  # distances need every digit, whatever the dynamics run in
    cost = require_quadratic(job.task.cost, "distances need").to(precise)
    order = settings.krylov_order if isinstance(settings.krylov_order, int) else None
    held = choose(depth, width, cost, precise, seed=settings.seed, member=settings.seeds[0], order=order)
    unit = initial_network(held, depth, width, cost.shape, 1.0, precise, seed=settings.seed, members=settings.seeds)
    starts = [unit.with_theta(unit.theta * sigma_of(width, gamma)) for gamma in job.gammas]
    batch = unit.with_theta(torch.cat([start.theta for start in starts]))
    draws = list(range(seeds)) * len(starts)
    minimum = distance_to_minimum(batch, cost, draws=draws)
    known = held.error if order is None else 0.0  # of an order that was asked for it is not known: nothing is left out
    saddle = distance_to_saddle(batch, cost, draws=draws, truncation=known)
    cells: list[Cell | Failure] = []
    for index, (gamma, start) in enumerate(zip(job.gammas, starts, strict=True)):
        rows = slice(index * seeds, (index + 1) * seeds)
        try:
            cells.append(_cell(settings, held, cost, start, width, gamma, minimum.select(rows), saddle.select(rows)))
        except RunError as error:
            cells.append(Failure(gamma, width, describe(error)))
    return cells


def _cell(
    settings: SweepSettings,
    held: Held,
    cost: QuadraticCost,
    start: Network,
    width: int,
    gamma: float,
    minimum: MinimumDistance,
    saddle: SaddleDistance,
) -> Cell:
    """What is told of one cell; RunError where a distance is no number that could be."""
    sigma = sigma_of(width, gamma)
    predicted = predicted_minimum(start, cost, width, gamma)
    bounds = lower_bounds(start, cost, width=width, sigma=sigma, full=held.order is None)
    d_m, d_s = _floats(minimum.distance), _floats(saddle.distance)
    for name, distances in (("minimum", d_m), ("saddle", d_s)):
        if not np.isfinite(distances).all():
            raise RunError(f"the search for the nearest {name} left what a float holds, at sigma = {sigma:.3g}")
        if min(distances) <= 0:
            raise RunError(f"the distance to the nearest {name} is too small for a float, at sigma = {sigma:.3g}")
    return Cell(
        gamma=gamma,
        width=width,
        seeds=len(settings.seeds),
        representation=held.kind,
        krylov_order=held.order,
        hidden=held.hidden,
        truncation=held.error,
        distance_to_minimum=MinimumCell(
            *_mean(d_m),
            predicted=None if predicted is None else float(predicted.mean()),
            excess=float((minimum.excess.abs() / minimum.initial_excess).max()),
            stationarity=float(minimum.stationarity.max()),
            found_from=dict(sorted(Counter(minimum.winner).items())),
            values=tuple(d_m),
            claim=minimum_claim(cost, gamma),
            lower=float(bounds.minimum.min()),
        ),
        distance_to_saddle=SaddleCell(
            *_mean(d_s),
            predicted=predicted_saddle(cost, settings.depth, width, gamma),
            gradient=float((saddle.gradient_norm / saddle.gradient_scale).max()),
            cost_gradient=float(saddle.cost_gradient_norm.min()),
            found=dict(sorted(Counter(saddle.winner).items())),
            values=tuple(d_s),
            claim=saddle_claim(cost, settings.depth, gamma),
            lower=float(bounds.saddle.min()),
        ),
        nearer=Nearer(bounds.common, bounds.probability),
    )


def _follow(job: Job, gamma: float) -> dict[str, Any]:
    """The gradient flow from the same starts (same seeds; the representation is chosen for whole paths)."""
    settings = job.settings
    backend = build_backend(settings)
    # Only the network, the dynamics and the machine are read off these settings: the task itself is at hand.
    given = TrainSettings(
        depth=settings.depth,
        width=job.width,
        gamma=gamma,
        seeds=settings.seeds,
        seed=settings.seed,
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads or 1,
        rtol=settings.rtol,
        max_steps=settings.max_steps,
        tol=settings.tol,
        weight_decay=settings.weight_decay,
    )
    task = Task(job.task.cost.to(backend), None if job.task.test is None else job.task.test.to(backend))
    start = build_start(given, task.cost, backend, settings.seed, weight_decay=settings.weight_decay)
    result = train(Run(given, backend, task, start, Continuous.of(given), start.notes))
    members = result.members or (Member(settings.seeds[0], result.outcome, result.rank_transitions, result.theory),)
    ends = _final_matrices(result, [m.member for m in members])
    spectra = np.linalg.svd(ends, compute_uv=False)
    outcomes = [m.outcome for m in members]
    regimes = Counter(o.regime for o in outcomes if o.regime is not None)
    escapes = [
        m.rank_transitions[0].time for m in members if m.rank_transitions and not m.rank_transitions[0].from_rank
    ]
    tests = [o.test_cost for o in outcomes if o.test_cost is not None]
    return {
        "regime_seen": regimes.most_common(1)[0][0] if regimes else None,
        "reasons": dict(sorted(Counter(o.reason for o in outcomes).items())),
        "rank_transitions": _transitions(members),
        "escape_time": measured(escapes) if escapes else None,
        "parameter_movement": measured([o.evidence.parameter_movement for o in outcomes]),
        "ntk_change": measured([o.evidence.ntk_change for o in outcomes]),
        "matrix_rank": measured([float(o.rank) for o in outcomes]),
        "nuclear_norm": measured([float(s.sum()) for s in spectra]),
        "final_cost": measured([o.cost for o in outcomes]),
        "test_cost": measured(tests) if tests else None,
        "distributions": result.distributions,
        "decay": result.theory.decay,
    }


def _final_matrices(result: TrainResult, members: Sequence[int]) -> np.ndarray:
    path = result.path
    return np.stack([path.A[path.rows_of(m)[-1]] for m in members])


def _transitions(members: Sequence[Member]) -> tuple[CellTransition, ...]:
    times: dict[tuple[int, int], list[float]] = {}
    for member in members:
        for row in member.rank_transitions:
            times.setdefault((row.from_rank, row.to_rank), []).append(row.time)
    return tuple(CellTransition(a, b, float(np.mean(t)), len(t)) for (a, b), t in sorted(times.items()))


def measured(values: Sequence[float]) -> Measured:
    """Mean, standard error and values."""
    return Measured(*_mean(values), values=tuple(float(v) for v in values))


def _mean(values: Sequence[float]) -> tuple[float, float | None]:
    array = np.asarray(values, dtype=float)
    sem = float(array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else None
    return float(array.mean()), sem


def _floats(values: torch.Tensor) -> list[float]:
    return [float(v) for v in values.tolist()]

"""The phase diagram: distances over γ × width × starts, their exponents, the critical γ.

    result = sweep_gamma(SweepSettings(gammas=(0.7, 1.0, 1.5), widths=(10**4, 10**6, 10**9)))
    print(result.critical_gamma.estimate)

Under multiprocessing (``jobs`` above 1) a script has to guard its top level by ``if __name__ == "__main__":``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from dlnphase.backend import Backend, resolve_backend
from dlnphase.costs.quadratic import require_quadratic
from dlnphase.costs.tasks import Task
from dlnphase.distances import (
    GAMMA_CRITICAL,
    crossings,
    fit_exponent,
    least_rank,
    measured_regime,
    minimum_exponent,
    predicted_regime,
    saddle_exponent,
)
from dlnphase.distances.crossing import sign_change
from dlnphase.distances.facts import facts_of
from dlnphase.results import Clock
from dlnphase.results.sweep import Cell, CriticalGamma, Failure, GammaExponents, SweepResult
from dlnphase.settings.sweep import SweepSettings
from dlnphase.setup.build import build_backend, build_task, task_info, thread_limit
from dlnphase.sweep.cells import Job, run_job
from dlnphase.sweep.executors import Outcome, jobs_of, run_dask, run_here, run_processes

COARSE = 0.01  # truncation from which a reader is told
SEEN = 1e-4  # brackets narrower than what is printed are not
TOGETHER = 128  # networks, at most, that are measured as one batch: what is lost is only the overhead of each call
DEEP, FEW = 5, 16  # layers from which networks are large in any reduction, and how many of these are measured at once


@dataclass(frozen=True)
class Plan:
    """A sweep that is set up and has not begun.

    Attributes:
        settings: resolved.
        backend, task: checked.
        notes: what the user should know about the distances of this task.
    """

    settings: SweepSettings
    backend: Backend
    task: Task
    notes: tuple[str, ...]


def prepare(settings: SweepSettings) -> Plan:
    """Read files and check everything that can be refused before any cell is run; InputError for what cannot work."""
    with thread_limit(settings.threads):
        backend = build_backend(settings)
        task, settings = build_task(settings, resolve_backend("cpu", "float64"))
        return Plan(settings, backend, task, _notes(task, settings.depth, settings.weight_decay))


def sweep_gamma(
    settings: SweepSettings | Plan | None = None,
    *,
    done: Iterable[Cell] = (),
    on_cell: Callable[[SweepResult], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> SweepResult:
    """Measure the phase diagram.

    Args:
        settings: what to sweep (the defaults are the project's phase table), or a plan already prepared.
        done: cells of an earlier, interrupted sweep of the same settings: not computed again.
        on_cell: called with the result so far (no exponents yet) whenever cells have come.
        should_stop: asked between jobs; True ends the sweep with ``complete: false``.

    Returns:
        The result. Cells that failed are named in ``failed``; the others are all there.

    Raises:
        InputError: for settings or files that cannot work, or a cluster that does not answer.
    """
    plan = settings if isinstance(settings, Plan) else prepare(settings or SweepSettings())
    with thread_limit(plan.settings.threads):
        return _sweep(plan, done, on_cell, should_stop or (lambda: False))


def _sweep(
    plan: Plan, done: Iterable[Cell], on_cell: Callable[[SweepResult], None] | None, should_stop: Callable[[], bool]
) -> SweepResult:
    clock = Clock(plan.backend)
    wanted = plan.settings.cells
    cells = {(c.gamma, c.width): c for c in done if (c.gamma, c.width) in wanted}
    failed: dict[tuple[float, int], Failure] = {}
    missing = {key for key in wanted if key not in cells}
    jobs = jobs_for(plan, missing)
    info = task_info(plan.task.cost)

    def result(complete: bool) -> SweepResult:
        return SweepResult(
            config=replace(plan.settings, jobs=None, scheduler=None),  # where it was computed is no part of the result
            provenance=clock.provenance(),
            task=info,
            cells=tuple(cells[k] for k in wanted if k in cells),
            failed=tuple(failed[k] for k in wanted if k in failed),
            complete=complete,
            notes=(*plan.notes, *coarse_notes(cells.values(), plan.settings)),
        )

    with contextlib.suppress(KeyboardInterrupt):  # the second Ctrl-C: the cells under way are given up
        for index, found, error in _execute(plan.settings, jobs, should_stop):
            job = jobs[index]
            for cell in found or [Failure(gamma, job.width, error or "no result") for gamma in job.gammas]:
                key = cell.gamma, cell.width
                if key in missing and isinstance(cell, Cell):
                    cells[key] = cell
                elif key in missing:
                    failed[key] = cell
            if on_cell is not None:
                on_cell(result(False))
    return summarise(result(len(cells) + len(failed) == len(wanted)))


def jobs_for(plan: Plan, missing: Container[tuple[float, int]]) -> list[Job]:
    """The jobs in which some cell is missing.

    Which cells are computed together follows from the settings alone, so that what is missing comes out the same to the
    last bit, whatever is there already. Runs that are followed take long beside their distances: each cell is a job.
    The widest layers come first, in two jobs for an early answer, then the narrowest, which take longest, and so on.
    """
    settings = plan.settings
    deep, gammas = settings.depth >= DEEP, settings.gammas
    most = 1 if settings.train else max(1, (FEW if deep else TOGETHER) // len(settings.seeds))

    def parts(count: int) -> list[tuple[float, ...]]:
        if deep:  # at γ > 1 all have the same saddles up to their scale, and are soon done: they come first, together
            return [gammas[max(0, end - most) : end] for end in range(len(gammas), 0, -most)]
        return [gammas[start::count] for start in range(count)]  # those near γ = 1 take longest: some to each job

    count = -(-len(gammas) // most)
    first, *others = reversed(settings.widths)
    every = [(first, part) for part in parts(min(max(count, 2), len(gammas)))]
    every += [(width, part) for width in reversed(others) for part in parts(count)]
    jobs = (Job(settings, plan.task, width, part) for width, part in every)
    return [job for job in jobs if any((gamma, job.width) in missing for gamma in job.gammas)]


def _execute(settings: SweepSettings, jobs: list[Job], should_stop: Callable[[], bool]) -> Iterator[Outcome]:
    if not jobs:
        return iter(())
    if settings.scheduler is not None:
        return run_dask(run_job, jobs, should_stop, settings.scheduler)
    workers = jobs_of(settings, sum(len(job.gammas) for job in jobs), len(jobs))
    if workers == 1:
        return run_here(run_job, jobs, should_stop)
    return run_processes(run_job, jobs, should_stop, workers)


# ---- what the cells say together ---------------------------------------------------------------------


def summarise(result: SweepResult) -> SweepResult:
    """Exponents and critical γ from the cells: the same cells give the same numbers, in whatever order they came."""
    depth = result.config.depth
    exponents = []
    for gamma in result.config.gammas:
        cells = [c for c in result.cells if c.gamma == gamma]
        if len(cells) < 2:
            continue
        widths = [c.width for c in cells]
        fits = [
            fit_exponent(widths, [np.asarray(getattr(c, name).values) for c in cells], predicted)
            for name, predicted in (
                ("distance_to_minimum", minimum_exponent(gamma, depth)),
                ("distance_to_saddle", saddle_exponent(gamma)),
            )
        ]
        exponents.append(GammaExponents(gamma, measured_regime(*fits), predicted_regime(gamma), *fits))
    return replace(result, exponents=tuple(exponents), critical_gamma=_critical_gamma(result))


def _critical_gamma(result: SweepResult) -> CriticalGamma | None:
    found = crossings(result.config.gammas, result.config.widths, _log_ratios(result))
    if not found:
        return None
    widest = found[-1]
    return CriticalGamma(widest.estimate, widest.ci95, GAMMA_CRITICAL, tuple(found), widest.bracket)


def _log_ratios(result: SweepResult) -> dict[tuple[float, int], np.ndarray]:
    return {
        (c.gamma, c.width): np.log(np.asarray(c.distance_to_minimum.values) / np.asarray(c.distance_to_saddle.values))
        for c in result.cells
    }


def _no_crossing(result: SweepResult) -> str:
    """Why no critical γ is told."""
    ratios = _log_ratios(result)
    for low, high in reversed(list(pairwise(result.config.widths))):
        shared = [g for g in result.config.gammas if (g, low) in ratios and (g, high) in ratios]
        step = sign_change(np.array([float((ratios[g, high] - ratios[g, low]).mean()) for g in shared]))
        if step is not None:
            a, b = shared[step], shared[step + 1]
            return (
                f"cross between γ = {a:g} and {b:g}; where is told with a further γ below {a:g} or above {b:g}, "
                f"the more exactly the closer the grid (such as --gammas 0.8:1.2:0.1)."
            )
    return "do not cross between these γ: no critical γ."


def coarse_notes(cells: Collection[Cell], settings: SweepSettings) -> list[str]:
    """What readers are told where saddles are those of networks that are far from the ones they stand for."""
    worst = max((cell.truncation for cell in cells), default=0.0)
    if worst <= COARSE:
        return []
    change = f"still changed by {worst:.1%} at the last Krylov order (--krylov-order takes more)"
    far = change if settings.krylov_order == "auto" else "were not compared with those of another Krylov order"
    return [f"distances to saddles are those of reduced networks, and {far}"]


def _notes(task: Task, depth: int, decay: float) -> tuple[str, ...]:
    """How this task differs from a full-rank factorization, where every constant is known."""
    cost = require_quadratic(task.cost, "distances need")
    notes = ["distances are attained values with certificates: upper bounds on d_m and d_s"]
    if decay:
        notes.append(f"the flow follows C and weight decay {decay:g}; distances and slopes are those of C alone")
    dead = sorted({m.dead for m in facts_of(cost, depth).saddles})
    if cost.kind == "regression":
        notes.append(
            "regression: the modes are those of Â·Σ^(1/2) (reduced-rank regression); directions without data are free"
        )
    if not cost.unique and cost.kind != "regression":
        notes.append(
            f"{cost.kind}: the minima are a set of matrices; for γ > 1 the nearest of several low-rank ones is taken"
        )
    if dead:
        notes.append(
            f"saddles: ∇C has rank {dead[-1]} at A = 0; at the saddles considered it has rank {dead[0]} or more"
        )
    least, exists = least_rank(cost)
    if dead and dead[0] > least and not exists:
        notes.append(
            f"saddles: one whose ∇C has rank {least} is not excluded, and none was found: for γ < 1 theory is a bound"
        )
    return tuple(notes)


def sweep_sentence(result: SweepResult) -> str:
    """What the sweep says, in one sentence; the same for the terminal, notebooks and captions."""
    critical = result.critical_gamma
    lead = "The" if result.complete else f"{len(result.cells)} of {len(result.config.cells)} cells are done; the"
    if critical is None:
        return f"{lead} curves of log(d_m/d_s) of different widths {_no_crossing(result)}"
    interval = "" if critical.ci95 is None else f" (95 % interval {critical.ci95[0]:.4f} to {critical.ci95[1]:.4f}"
    if interval and critical.bracket is not None and critical.bracket[1] - critical.bracket[0] >= SEEN:
        interval += f", of which the grid of γ leaves {critical.bracket[0]:.4f} to {critical.bracket[1]:.4f})"
    elif interval:
        interval += ")"
    low, high = critical.crossings[-1].widths
    return (
        f"{lead} curves of log(d_m/d_s) at w = {low:g} and {high:g} cross at the critical γ = "
        f"{critical.estimate:.3f}{interval}; theory says {critical.predicted:g}."
    )


def sweep_failed(result: SweepResult) -> bool:
    """Whether a cell failed (exit code 1)."""
    return bool(result.failed)

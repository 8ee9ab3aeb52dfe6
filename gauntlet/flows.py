"""One flow: what dlnphase makes of a case, and where it leaves the reference.

``judge(case)`` calls the package on the case's own numbers, then the reference, and compares: the time at which each
level of the excess cost is reached, A there, burst times, the reason and the ranks told.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gauntlet.cases import Case, case_of
from gauntlet.labels import ends_rank, missed, mode_faults, visit_faults
from gauntlet.reference.chain import Chain
from gauntlet.reference.costs import Quadratic, cost_of
from gauntlet.reference.critical import critical_near
from gauntlet.reference.flow import Reference, follow, rotated
from gauntlet.verdict import Verdict

LATE = 0.05  # a level reached by this share earlier or later is off …
SAME = 0.01  # … unless the reference's cost at that time is the same to this share: a plateau has no times
FAR = 0.05  # ‖A − A_ref‖ at equal cost or time, over the largest ‖A_ref‖ of the path
SLOPE = 0.2  # |d log C / d log t| from which times are measured: SAME over LATE
UNREACHED = 9.0  # stands for the logarithm of a time that never comes
TOL = 1e-8  # of the run
LEVELS = 24
PATIENCE = 30.0  # seconds the package may take


def judge(name: str) -> Verdict:
    """Run both sides on a case and compare; every tenth case asks for a second opinion on the reference as well."""
    case = case_of(name)
    return judge_case(case, second=int(name.split(":")[2]) % 10 == 0)


def judge_case(case: Case, *, second: bool = False) -> Verdict:
    """The same for a case at hand.

    Args:
        second: ask for a second opinion on the reference even where the two sides agree.
    """
    verdict = Verdict("flow", case.name, case.words)
    cost = cost_of(case.task, case.data)
    started = time.process_time()
    try:
        result = run_package(case)
    except Exception as error:  # whatever it raises on a valid case is a finding
        verdict.faults.append(f"raised: {type(error).__name__}: {error}")
        verdict.status = "fails"
        return verdict
    packaged = time.process_time()
    verdict.reason = result.outcome.reason
    if verdict.reason == "interrupted":
        verdict.status, verdict.reference = "skipped", f"the package took more than {PATIENCE:g} s"
    else:
        _decide(case, cost, result, verdict, second)
    verdict.seconds = (packaged - started, time.process_time() - packaged)
    return verdict


def _decide(case: Case, cost: Quadratic, result: Any, verdict: Verdict, second: bool) -> None:
    """Compare, and let a second reference decide where the first one finds faults."""
    reference = compare(case, cost, result, verdict)
    verdict.reference = reference.failed or reference.work
    if not reference.failed and (verdict.faults or second):
        other = Verdict("flow", case.name, case.words)
        again = compare(case, cost, result, other, turn=True)
        if again.failed:
            verdict.reference += f"; second opinion: {again.failed}"
        else:
            verdict.numbers["reference_spread"] = _spread(reference, again)
            kinds = {fault.split(":")[0] for fault in other.faults}
            dropped = [fault for fault in verdict.faults if fault.split(":")[0] not in kinds]
            verdict.faults = [fault for fault in verdict.faults if fault not in dropped]
            if dropped:
                reference.failed = verdict.reference = f"two references disagree on: {'; '.join(dropped)}"
    if verdict.faults:
        verdict.status = "fails"
    elif reference.failed:
        verdict.status = "skipped"
    elif verdict.reason in ("precision_floor", "max_steps"):
        verdict.status = "told"


def _spread(one: Reference, two: Reference) -> float:
    """By how much two references differ in time, where their costs differ at all: max |log(t_1/t_2)|."""
    with np.errstate(divide="ignore", invalid="ignore"):
        late = np.abs(np.log(one.reached / two.reached))
        gap = np.abs(np.log(one.excess_at / two.excess_at))
    return float(np.nanmax(np.where(gap > SLOPE * late, late, 0.0), initial=0.0))


def run_package(case: Case) -> Any:
    """``dlnphase.train`` on files with the case's weights and task."""
    import dlnphase
    from dlnphase.costs.tasks import Task
    from dlnphase.training.run import prepare

    with tempfile.TemporaryDirectory() as folder:
        weights, file = Path(folder, "weights.npz"), Path(folder, "task.npz")
        np.savez(weights, **{f"W{k}": w for k, w in enumerate(case.layers, 1)})
        if case.task == "regression":
            np.savez(file, **case.data)
            task = {"data": str(file)}
        else:
            shape = (case.layers[-1].shape[0], case.layers[0].shape[1])
            np.savez(file, target=case.data.get("target", np.ones(shape)))
            task = {"target": str(file)}
        run = prepare(dlnphase.TrainSettings(init_weights=str(weights), **task))
        if case.task == "sensing":  # no file holds measurement matrices: the cost is handed over as an object
            run = replace(run, task=Task(dlnphase.sensing(case.data["operators"], case.data["values"], run.backend)))
        limit = time.process_time() + PATIENCE
        return dlnphase.train(run, should_stop=lambda: time.process_time() > limit)


def compare(case: Case, cost: Quadratic, result: Any, verdict: Verdict, *, turn: bool = False) -> Reference:
    """Add to the verdict what differs; with ``turn``, against a reference in other bases and by another method."""
    path = result.trajectory
    width = min(min(w.shape) for w in case.layers)
    offset = _offset(result, case, cost, width, verdict)
    excess = path.excess - offset
    chosen = select(excess, path.t)
    if len(chosen) == 0:
        verdict.faults.append("records: none after the start has a lower cost")
        return Reference(np.zeros(0), [], np.zeros(0))
    layers = rotated(case.layers, np.random.default_rng(1)) if turn else case.layers
    reference = follow(layers, cost, excess[chosen], path.t[chosen], offset=offset, explicit=not turn)
    threshold = TOL * yardstick(float(excess[0]), cost.excess(np.zeros(cost.shape)) - offset)
    _levels(path, chosen, excess, threshold, reference, verdict)
    _matrices(path, chosen, reference, verdict)
    _bursts(result, reference, verdict)
    _reason(result, float(excess[-1]), threshold, verdict)
    if not reference.failed:
        verdict.faults += visit_faults(result, cost, reference)
        verdict.faults += missed(result, cost, reference)
        verdict.faults += ends_rank(result, cost, width, threshold, offset)
        faults, verdict.numbers["mode"] = mode_faults(result, reference)
        verdict.faults += faults
    return reference


def _offset(result: Any, case: Case, cost: Quadratic, width: int, verdict: Verdict) -> float:
    """The least excess cost at this width, by its closed form; or that of the minimum of the network told at the end.

    That one is found again here: a critical matrix of that rank, and a dense Hessian without negative eigenvalues.
    """
    least = cost.least_excess(width)
    if getattr(result.outcome, "reached", None) != "local-minimum":
        return least or 0.0
    point = critical_near(result.trajectory.A[-1], width, cost)
    chain = Chain([w.shape for w in case.layers], cost)
    values = np.linalg.eigvalsh(chain.hessian(np.concatenate([w[-1].ravel() for w in result.trajectory.weights])))
    if point is None or values[0] < -SAME * values[-1]:
        verdict.faults.append(f"reached: a local minimum told, the least eigenvalue is {values[0]:.3g}")
        return least or 0.0
    return cost.excess(point)


def select(excess: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Records to ask about: nearest to levels even in log cost, the last included, each lower than all before."""
    lowest = np.minimum.accumulate(excess)
    falling = np.flatnonzero((excess > 0) & (t > 0) & (excess[0] > 0) & (excess <= lowest) & (excess < excess[0]))
    if len(falling) == 0:
        return falling
    logs = np.log(excess[falling])
    grid = np.linspace(np.log(excess[0]), logs[-1], LEVELS)
    marks = {int(falling[np.argmin(np.abs(logs - g))]) for g in grid}
    spread = np.linspace(0, len(falling) - 1, LEVELS // 2).astype(int)
    out = np.array(sorted(marks | {int(i) for i in falling[spread]}))
    keep = np.concatenate([[True], np.diff(excess[out]) < 0])
    return out[keep]


def _levels(
    path: Any, chosen: np.ndarray, excess: np.ndarray, threshold: float, reference: Reference, verdict: Verdict
) -> None:
    """Times of levels: above the tolerance of the run as ``level``, of what lies below it as ``end``."""
    t, value, reached = path.t[chosen], excess[chosen], reference.reached
    with np.errstate(divide="ignore", invalid="ignore"):
        late = np.abs(np.log(t / reached))
        gap = np.abs(np.log(np.maximum(reference.excess_at, 1e-300) / value))
    if reference.failed:  # what it got to still counts
        got = np.isfinite(reached) & np.isfinite(reference.excess_at)
        t, value, reached, late, gap = (x[got] for x in (t, value, reached, late, gap))
    late, gap = (np.where(np.isfinite(x), x, UNREACHED) for x in (late, gap))
    above = value > threshold
    falling = gap > SLOPE * late  # elsewhere the cost hardly depends on the time
    for kind, some in (("level", above), ("end", ~above)):
        if some.any():
            verdict.numbers["late" if kind == "level" else "late_end"] = float(np.max((late * falling)[some]))
            off = np.where(some & (gap > SAME), late, 0.0)
            worst = int(np.argmax(off))
            if off[worst] > np.log1p(LATE):
                told = f"C − C_min = {value[worst]:.3g} told at t = {t[worst]:.6g}, true {reached[worst]:.6g}"
                verdict.faults.append(f"{kind}: {told}")


def _matrices(path: Any, chosen: np.ndarray, reference: Reference, verdict: Verdict) -> None:
    """A at equal cost, or at equal time where that is nearer: where the cost stands still, it does not fix A."""
    scale = max((float(np.linalg.norm(a)) for a in reference.matrices if a is not None), default=0.0)
    if scale == 0.0:
        return
    worst = 0.0
    for k, i in enumerate(chosen):
        true = [reference.matrices[k], *reference.matrices_at[k : k + 1]]
        apart = [float(np.linalg.norm(path.A[i] - a)) / scale for a in true if a is not None]
        worst = max(worst, min(apart, default=0.0))
    verdict.numbers["matrix"] = worst
    if worst > FAR:
        verdict.faults.append(f"matrix: A at equal cost and time off by {worst:.3g} of its largest size")


def _bursts(result: Any, reference: Reference, verdict: Verdict) -> None:
    if not reference.maxima or reference.failed:
        return
    maxima = np.array(reference.maxima)
    worst = 0.0
    for row in result.rank_transitions:
        off = float(np.min(np.abs(maxima - row.time))) / row.time if row.time > 0 else 0.0
        worst = max(worst, off)
        if off > LATE:
            near = maxima[np.argmin(np.abs(maxima - row.time))]
            verdict.faults.append(f"burst: {row.from_rank} → {row.to_rank} told at t = {row.time:.6g}, true {near:.6g}")
    verdict.numbers["burst"] = worst


def _reason(result: Any, last: float, threshold: float, verdict: Verdict) -> None:
    if result.outcome.reason == "diverged":
        verdict.faults.append(f"reason: diverged at cost {result.outcome.cost:.3g}; the cost of a flow falls")
    if result.outcome.reason == "converged" and last > (1 + SAME) * threshold:
        verdict.faults.append(f"reason: converged at C − C_min = {last:.3g}, the tolerance is {threshold:.3g}")


def yardstick(first: float, at_zero: float) -> float:
    """What the tolerance is a share of: the excess cost at the start, or at A = 0 where that is less and not zero."""
    return min(first, at_zero) if at_zero > 0 else first

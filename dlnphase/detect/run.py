"""Which saddles a path visited: each refined to a critical point, certified, compared with the greedy path.

result = detect_saddles(DetectSettings(source="runs/first"))
for visit in result.visits:
    print(visit.rank, visit.kind, visit.distance)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from dlnphase.backend import resolve_backend
from dlnphase.costs.accuracy import accuracy
from dlnphase.costs.quadratic import require_quadratic
from dlnphase.critical import (
    Certificate,
    HostCost,
    MatrixPoint,
    ParameterPoint,
    RankTransition,
    Visit,
    certify,
    minimal_point,
    refine_weights,
)
from dlnphase.critical.certify import rotations
from dlnphase.critical.decay import Decay
from dlnphase.critical.escape import Escape, escape_of
from dlnphase.critical.greedy import GreedyPoint, greedy_path
from dlnphase.critical.visited import Path, Visited, transitions, visited_points
from dlnphase.detect.notes import notes_on, unseen_ranks
from dlnphase.detect.sources import PathSource, read_source
from dlnphase.detect.trace import MemberTrace, lacking_at
from dlnphase.errors import InputError
from dlnphase.results import Clock
from dlnphase.results.detect import (
    MATRICES,
    CriticalPoint,
    CurvatureInfo,
    DetectResult,
    EscapeInfo,
    GreedyInfo,
    GreedyStep,
    PathInfo,
    TimeSpan,
    VisitInfo,
)
from dlnphase.results.observed import OBSERVED_FILE, Observed
from dlnphase.results.proof import PARTS, ProofDocument
from dlnphase.settings.detect import DetectSettings
from dlnphase.setup.build import task_info
from dlnphase.training.observing import look_at, records_to_look_at

if TYPE_CHECKING:
    from dlnphase.detect.proofs import Prover
    from dlnphase.proofs.path import Progress

GREEDY_RTOL, GREEDY_TOL = 1e-3, 1e-10  # of the greedy path that visits are compared with
SAME = 1e-6  # relative distance below which a refined critical matrix is the greedy one


@dataclass(frozen=True)
class _Seen:
    """A visit with its matrix-space critical point, and the record that the path leaves it for."""

    trace: MemberTrace
    visited: Visited
    until: int

    @property
    def visit(self) -> Visit:
        """Where on the path."""
        return self.visited.visit

    @property
    def point(self) -> MatrixPoint:
        """The critical matrix."""
        return self.visited.point


def detect_saddles(
    settings: DetectSettings | str,
    *,
    on_visit: Callable[[VisitInfo], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_step: Callable[[Progress], None] | None = None,
    earlier: ProofDocument | None = None,
) -> DetectResult:
    """Find, refine and certify the visits of a path.

    Args:
        settings: what to look at, or just the source.
        on_visit: called with every visit as it is done.
        should_stop: asked again and again; True ends with what is done (``complete`` False).
        on_step: called after every step of a path that is proved.
        earlier: an interrupted proof of the same path, to go on with.

    Raises:
        InputError: for a source or task that cannot be used.
    """
    settings = DetectSettings(source=settings) if isinstance(settings, str) else settings
    before = torch.get_num_threads()
    # Small matrices: a second thread costs more than it brings, unless it is asked for.
    clock = Clock(resolve_backend("cpu", "float64", settings.threads or 1))
    try:
        return _detect(read_source(settings), clock, on_visit, should_stop, on_step, earlier)
    finally:
        torch.set_num_threads(before)


def _detect(
    source: PathSource,
    clock: Clock,
    on_visit: Callable[[VisitInfo], None] | None,
    should_stop: Callable[[], bool] | None,
    on_step: Callable[[Progress], None] | None,
    earlier: ProofDocument | None,
) -> DetectResult:
    settings = source.settings
    stop = should_stop if should_stop is not None else lambda: False
    decay = source.info.weight_decay
    host = HostCost(source.task.cost, Decay(decay, source.info.depth) if decay else None)
    prover = None
    if settings.prove and decay:
        raise InputError(f"prove: found with weight decay {decay:g}, expected a path without")
    if settings.prove:
        from dlnphase.detect.proofs import Prover  # balls and their checks are loaded by those who ask for proofs

        prover = Prover(require_quadratic(source.task.cost, "proofs need"))
    seen: list[_Seen] = []
    rows: list[list[RankTransition]] = []
    greedy: list[GreedyPoint] = []
    visits: list[VisitInfo] = []
    looked_at: Observed | None = None
    complete = False
    with contextlib.suppress(KeyboardInterrupt):  # the visit under way is given up, what is done is kept
        seen, rows = _visits_of_all(source, host, stop)
        ranks = [s.point.rank for s in seen if s.point.converged]
        greedy = _greedy(source, max(ranks), stop) if settings.greedy and ranks else []
        if len(rows) == len(source.traces):
            for visit in _judged(seen, source, host, greedy, prover, stop):
                visits.append(visit)
                if on_visit is not None:
                    on_visit(visit)
        whole = len(rows) == len(source.traces) and len(visits) == len(seen)
        if whole and prover is not None and settings.prove == "path":
            whole = prover.path(source, before=earlier, on_step=on_step, should_stop=stop)
        if whole and settings.record and source.rows is not None:
            looked_at = _looked_at(source, source.rows, settings.record)
        complete = whole
    provenance = clock.provenance()
    return DetectResult(
        config=source.settings,
        provenance=provenance,
        task=task_info(source.task.cost),
        path=source.info,
        visits=tuple(visits),
        transitions=tuple(tuple(of_member) for of_member in rows),
        greedy_path=tuple(GreedyStep(g.point.rank, g.point.cost, _spectrum(g.point.A), g.note) for g in greedy),
        complete=complete,
        notes=notes_on(source, greedy),
        files={
            **MATRICES,
            **({} if looked_at is None else {"observed": OBSERVED_FILE}),
            **(PARTS if prover is not None else {}),
        },
        matrices=_matrices(seen[: len(visits)], greedy, source),
        observed=looked_at,
        proof=prover.document(provenance) if prover is not None else None,
    )


def _looked_at(source: PathSource, rows: tuple[np.ndarray, np.ndarray], names: tuple[str, ...]) -> Observed:
    """What the observables say of a path of weights, at some of its own records."""
    t, step = rows
    chosen = records_to_look_at(len(t), sum(w[0].size for w in source.layers))
    layers = [w[chosen].astype(float) for w in source.layers]
    return look_at(layers, t[chosen], step[chosen], names, source.task.cost, source.info.weight_decay)


def _visits_of_all(
    source: PathSource, host: HostCost, stop: Callable[[], bool]
) -> tuple[list[_Seen], list[list[RankTransition]]]:
    """The visits of every path with their critical matrices, and its transitions; of fewer paths when stopped."""
    seen: list[_Seen] = []
    rows: list[list[RankTransition]] = []
    for trace in source.traces:
        columns = (trace.time, trace.step, trace.excess, trace.gradient_norm, trace.matrices)
        width = min(source.info.hidden, default=None)
        path = Path(*columns, tol=trace.tol, between=trace.between, width=width, penalty=trace.penalty)
        visited = visited_points(path, host, min_prominence=source.settings.min_prominence, should_stop=stop)
        if visited is None:
            return seen, rows
        ends = [*(v.visit.index for v in visited[1:]), len(trace.time) - 1][: len(visited)]  # none without a visit
        seen += [_Seen(trace, v, end) for v, end in zip(visited, ends, strict=True)]
        rows.append(transitions(path, host.minimum, visited))
    return seen, rows


def _judged(
    seen: list[_Seen],
    source: PathSource,
    host: HostCost,
    greedy: list[GreedyPoint],
    prover: Prover | None,
    stop: Callable[[], bool],
) -> Iterator[VisitInfo]:
    """One visit after the other, judged and proved where that is asked for; fewer when stopped."""
    before: VisitInfo | None = None
    for item in seen:
        if stop():
            return
        visit = _judge(item, source, host, greedy)
        if source.info.spacing is not None:
            unseen = unseen_ranks(before, visit, item.trace.time)
            visit = replace(visit, note="; ".join(filter(None, (visit.note, unseen))))
        if prover is not None:
            weights = item.trace.weights(item.visit.index)
            proof = prover.visit(item.trace.member, item.point, weights, source.info.hidden)
            visit = replace(visit, proof=proof)
        yield visit
        before = visit


def _judge(item: _Seen, source: PathSource, host: HostCost, greedy: list[GreedyPoint]) -> VisitInfo:
    trace, visit, point = item.trace, item.visit, item.point
    depth = source.info.depth
    visited, nearest, certificate = _certified(item, source, host)
    path = slice(visit.index, item.until + 1)
    escape = escape_of(trace.time[path], trace.matrices[path], point, host, depth) if point.converged else None
    weights = trace.weights(visit.index)
    away, nearest_away = _distances(visited, nearest, trace, visit.index, source.info)
    saddle = item.visited.saddle and not (host.decay and certificate is not None and certificate.descent is None)
    return VisitInfo(
        member=trace.member,
        rank=item.visited.rank,
        time=TimeSpan(*(float(trace.time[i]) for i in (visit.enter, visit.index, visit.exit))),
        cost=float(trace.excess[visit.index]) + host.minimum,
        gradient_norm=float(trace.gradient_norm[visit.index]),
        prominence=visit.prominence,
        distance=away,
        nearest_distance=nearest_away,
        matrix_distance=point.distance,
        critical_point=CriticalPoint(
            point.cost,
            visited.gradient_norm if visited is not None else point.gradient_norm,
            point.rank,
            _spectrum(point.A),
            visited.form if visited is not None and weights else "matrix",
            accuracy(source.task.cost, point.A),
            accuracy(source.task.test, point.A),
            None if host.decay is None else host.decay.value(np.array(_spectrum(point.A)[: point.rank])),
        ),
        curvature=_curvature(certificate, point, source),
        kind=certificate.kind if certificate is not None else _plain_kind(point),
        escape=_escape(point, certificate, escape, source.info, host) if saddle else None,
        greedy=_compared(item, host, greedy) if point.converged else None,
        note=_note(item, certificate, host),
    )


def _distances(
    visited: ParameterPoint | None, nearest: ParameterPoint | None, trace: MemberTrace, index: int, info: PathInfo
) -> tuple[float | None, float | None]:
    """‖θ − θ_c‖ to the critical point that is visited and to the nearest, of the full network; None without weights.

    What a reduced network lacks no gradient reaches. The minimal point has nothing there; the nearest keeps it as it
    is, unless weight decay lets only nothing be critical.
    """
    weights = trace.weights(index)
    beyond = trace.lacking if trace.penalty is None else lacking_at(trace, index, info)
    if visited is None or nearest is None or weights is None:
        return None, None
    kept = trace.penalty is None  # what is unused may stay at a critical point
    there = 0.0 if kept and visited.form == "nearest" else beyond
    away = None if there is None else float(np.hypot(visited.distance, there))
    return away, nearest.distance if kept else away


def _note(item: _Seen, certificate: Certificate | None, host: HostCost) -> str:
    notes = [certificate.note] if certificate is not None and certificate.note else []
    if item.visited.within_tol and not host.attained:
        notes.append(f"no minimum exists: C is within the run's tol of {item.trace.tol:.1e} of its infimum here")
    elif item.visited.within_tol:
        left = float(np.linalg.norm(host.gradient(item.point.A), 2))
        notes.append(
            f"a minimum as far as the run's tol of {item.trace.tol:.1e} can tell; a mode with ‖∇C‖ = {left:.2g} is left"
        )
    return "; ".join(notes)


def _certified(
    item: _Seen, source: PathSource, host: HostCost
) -> tuple[ParameterPoint | None, ParameterPoint | None, Certificate | None]:
    """The critical point in parameter space and its certificate; from weights, or from balanced factors of A_c."""
    weights = item.trace.weights(item.visit.index)
    if not source.settings.certify:
        return None, None, None
    if weights is None:
        hidden = tuple(min(n, item.point.rank + 1) for n in source.info.hidden)
        if min(hidden) < item.point.rank:
            raise InputError(f"width: found {min(hidden)}, the path visits a point of rank {item.point.rank}")
        d_out, d_in = source.task.shape
        sizes = (d_in, *hidden, d_out)
        visited = nearest = minimal_point([np.zeros((n, m)) for m, n in pairwise(sizes)], item.point, host)
    else:
        visited, nearest = refine_weights(weights, item.point, host)
    return visited, nearest, certify(visited, host, hidden=source.info.hidden)


def _plain_kind(point: MatrixPoint) -> str:
    if not point.converged:
        return "not-critical"
    return "global-minimum" if point.next_mode == 0 else "uncertified"


def _curvature(certificate: Certificate | None, point: MatrixPoint, source: PathSource) -> CurvatureInfo | None:
    if certificate is None or certificate.curvature is None:
        return None
    c, turns = certificate.curvature, None
    if c.zero_eigenvalues is not None:
        turns = rotations(point.rank, source.info.hidden)
    complete = c.complete and source.true_sizes
    return CurvatureInfo(c.min_eigenvalue, c.negative_eigenvalues, c.residual, complete, c.zero_eigenvalues, turns)


def _growth(point: MatrixPoint, certificate: Certificate | None, host: HostCost) -> float:
    """The rate at which a saddle is left, in theory."""
    if host.decay is None or host.decay.depth == 2:
        return point.next_mode - host.first
    curvature = certificate.curvature if certificate is not None else None
    return 0.0 if curvature is None else -curvature.min_eigenvalue


def _escape(
    point: MatrixPoint, certificate: Certificate | None, escape: Escape | None, info: PathInfo, host: HostCost
) -> EscapeInfo | None:
    """How a saddle was left; the rate in the time of our flow, where a path is known to go c times as fast."""
    speed = 1.0 if info.ours or info.speed is None else info.speed
    if point.next_mode == 0 or not point.converged:
        return None
    descent = certificate.descent if certificate is not None else None
    return EscapeInfo(
        order=descent.order if descent is not None else None,
        rate=escape.rate / speed if escape is not None and escape.rate is not None else None,
        predicted_rate=_growth(point, certificate, host),
        alignment=escape.alignment if escape is not None else None,
        descent=descent.ratio if descent is not None else None,
        epsilon=descent.epsilon if descent is not None else None,
        decrease=descent.obtained if descent is not None else None,
    )


def _greedy(source: PathSource, up_to: int, stop: Callable[[], bool]) -> list[GreedyPoint]:
    """The critical points of the greedy path up to this rank."""
    points: list[GreedyPoint] = []
    width = min(source.info.hidden, default=None)
    for _ in greedy_path(
        source.task.cost,
        source.info.depth,
        width=width,
        rtol=GREEDY_RTOL,
        tol=GREEDY_TOL,
        check=False,
        points=points,
        weight_decay=source.info.weight_decay,
    ):
        if stop() or (points and points[-1].point.rank >= up_to):
            break
    return points


def _compared(item: _Seen, host: HostCost, greedy: list[GreedyPoint]) -> GreedyInfo | None:
    same_rank = [g.point for g in greedy if g.point.rank == item.point.rank]
    if not same_rank:
        return None
    a = item.trace.matrices[item.visit.index]
    other = min(same_rank, key=lambda p: float(np.linalg.norm(p.A - item.point.A)))
    size = max(float(np.linalg.norm(g.point.A)) for g in greedy) or 1.0
    unit = host.excess(np.zeros(host.shape)) or 1.0
    excess = float(item.trace.excess[item.visit.index])
    return GreedyInfo(
        cost=other.cost,
        relative_difference=abs(excess - host.excess(other.A)) / unit,
        distance=float(np.linalg.norm(host.seen(a - other.A))) / size,
        same=bool(np.linalg.norm(host.seen(item.point.A - other.A)) <= SAME * size),
    )


def _spectrum(a: np.ndarray) -> tuple[float, ...]:
    return tuple(float(s) for s in np.linalg.svd(a, compute_uv=False))


def _matrices(seen: list[_Seen], greedy: list[GreedyPoint], source: PathSource) -> dict[str, np.ndarray]:
    shape = (0, *source.task.shape)
    return {
        "member": np.array([s.trace.member for s in seen], dtype=np.int64),
        "closest": np.array([s.trace.matrices[s.visit.index] for s in seen]).reshape(-1, *shape[1:]),
        "critical": np.array([s.point.A for s in seen]).reshape(-1, *shape[1:]),
        "greedy": np.array([g.point.A for g in greedy]).reshape(-1, *shape[1:]),
    }


__all__ = ["DetectResult", "DetectSettings", "detect_saddles"]

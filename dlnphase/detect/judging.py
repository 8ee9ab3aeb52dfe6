"""One visit judged: its critical point in parameter space, certified, beside the greedy path, and how it was left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from dlnphase.costs.accuracy import accuracy
from dlnphase.critical import (
    Certificate,
    HostCost,
    MatrixPoint,
    ParameterPoint,
    Visit,
    certify,
    minimal_point,
    refine_weights,
)
from dlnphase.critical.certify import rotations
from dlnphase.critical.escape import Escape, escape_of
from dlnphase.critical.greedy import GreedyPoint
from dlnphase.critical.matrix import SAME
from dlnphase.critical.visited import Visited
from dlnphase.detect.notes import unseen_ranks
from dlnphase.detect.trace import MemberTrace, PathSource, lacking_at
from dlnphase.errors import InputError
from dlnphase.results.detect import CriticalPoint, CurvatureInfo, EscapeInfo, GreedyInfo, PathInfo, TimeSpan, VisitInfo

if TYPE_CHECKING:
    from dlnphase.detect.proofs import Prover


@dataclass(frozen=True)
class VisitedRecord:
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


def judged(
    seen: list[VisitedRecord],
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


def _judge(item: VisitedRecord, source: PathSource, host: HostCost, greedy: list[GreedyPoint]) -> VisitInfo:
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
            spectrum(point.A),
            visited.form if visited is not None and weights else "matrix",
            accuracy(source.task.cost, point.A),
            accuracy(source.task.test, point.A),
            None if host.decay is None else host.decay.value(np.array(spectrum(point.A)[: point.rank])),
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


def _note(item: VisitedRecord, certificate: Certificate | None, host: HostCost) -> str:
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
    item: VisitedRecord, source: PathSource, host: HostCost
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


def _compared(item: VisitedRecord, host: HostCost, greedy: list[GreedyPoint]) -> GreedyInfo | None:
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


def spectrum(a: np.ndarray) -> tuple[float, ...]:
    """The singular values of a matrix."""
    return tuple(float(s) for s in np.linalg.svd(a, compute_uv=False))

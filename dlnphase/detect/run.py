"""Which saddles a path visited: each refined to a critical point, certified, compared with the greedy path.

result = detect_saddles(DetectSettings(source="runs/first"))
for visit in result.visits:
    print(visit.rank, visit.kind, visit.distance)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import require_quadratic
from dlnphase.critical import (
    HostCost,
    RankTransition,
)
from dlnphase.critical.decay import Decay
from dlnphase.critical.greedy import GreedyPoint, greedy_path
from dlnphase.critical.visited import transitions, visited_points
from dlnphase.detect.judging import VisitedRecord, judged, spectrum
from dlnphase.detect.notes import notes_on
from dlnphase.detect.sources import read_source
from dlnphase.detect.trace import PathSource
from dlnphase.errors import InputError
from dlnphase.results import Clock
from dlnphase.results.detect import (
    MATRICES,
    DetectResult,
    GreedyStep,
    VisitInfo,
)
from dlnphase.results.observed import OBSERVED_FILE, Observed
from dlnphase.results.proof import PARTS, ProofDocument
from dlnphase.settings.detect import DetectSettings
from dlnphase.setup.build import task_info
from dlnphase.training.observing import look_at, records_to_look_at

if TYPE_CHECKING:
    from dlnphase.proofs.path import Progress

GREEDY_RTOL, GREEDY_TOL = 1e-3, 1e-10  # of the greedy path that visits are compared with


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
    seen: list[VisitedRecord] = []
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
            for visit in judged(seen, source, host, greedy, prover, stop):
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
        greedy_path=tuple(GreedyStep(g.point.rank, g.point.cost, spectrum(g.point.A), g.note) for g in greedy),
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
) -> tuple[list[VisitedRecord], list[list[RankTransition]]]:
    """The visits of every path with their critical matrices, and its transitions; of fewer paths when stopped."""
    seen: list[VisitedRecord] = []
    rows: list[list[RankTransition]] = []
    for trace in source.traces:
        path = replace(trace, width=min(source.info.hidden, default=None))
        visited = visited_points(path, host, min_prominence=source.settings.min_prominence, should_stop=stop)
        if visited is None:
            return seen, rows
        ends = [*(v.visit.index for v in visited[1:]), len(trace.time) - 1][: len(visited)]  # none without a visit
        seen += [VisitedRecord(trace, v, end) for v, end in zip(visited, ends, strict=True)]
        rows.append(transitions(path, host.minimum, visited))
    return seen, rows


def _greedy(source: PathSource, up_to: int, stop: Callable[[], bool]) -> list[GreedyPoint]:
    """The critical points of the greedy path up to this rank."""
    points: list[GreedyPoint] = []
    info, walk = source.info, partial(greedy_path, rtol=GREEDY_RTOL, tol=GREEDY_TOL, check=False, points=points)
    width = min(info.hidden, default=None)
    for _ in walk(source.task.cost, info.depth, width=width, weight_decay=info.weight_decay):
        if stop() or (points and points[-1].point.rank >= up_to):
            break
    return points


def _matrices(seen: list[VisitedRecord], greedy: list[GreedyPoint], source: PathSource) -> dict[str, np.ndarray]:
    shape = (0, *source.task.shape)
    return {
        "member": np.array([s.trace.member for s in seen], dtype=np.int64),
        "closest": np.array([s.trace.matrices[s.visit.index] for s in seen]).reshape(-1, *shape[1:]),
        "critical": np.array([s.point.A for s in seen]).reshape(-1, *shape[1:]),
        "greedy": np.array([g.point.A for g in greedy]).reshape(-1, *shape[1:]),
    }


__all__ = ["DetectResult", "DetectSettings", "detect_saddles"]

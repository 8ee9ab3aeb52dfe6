"""What the moving figures of the page are drawn from: records of each run, thinned, on every time axis and plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dlnphase.plotting.path import plane_words
from dlnphase.plotting.plane import Plane, plane_of_run, visited
from dlnphase.plotting.sources import ResultSource
from dlnphase.plotting.timeaxis import BurstClock, burst_clock, choose_axis, labelled_times
from dlnphase.plotting.timeline import floor_of, members_of, stages_of
from dlnphase.results.train import TrainResult

RECORDS = 12_000  # of all paths together: beyond, every path is thinned
FRAMES, ENTRIES = 150, 400  # matrices per run for the slider, and the largest number of entries they may have
MODES = 12  # singular values per record


def live_data(sources: Sequence[ResultSource]) -> dict[str, Any]:
    """JSON-ready data of every run among the sources that has a trajectory with records; ``runs`` is empty without."""
    shown = [s for s in sources if s.kind == "train" and s.result.trajectory is not None and len(s.result.trajectory.t)]
    paths = sum(len(members_of(s.result)) for s in shown)
    most = max(RECORDS // max(paths, 1), 60)
    return {"runs": [_run(source, most) for source in shown]}


def _run(source: ResultSource, most: int) -> dict[str, Any]:
    result: TrainResult = source.result
    path = result.path
    clock = burst_clock(result)
    end = float(path.t.max())
    plane = plane_of_run(result)
    floor = floor_of(path.cost)
    bent = [] if clock is None else labelled_times(clock, end)
    return {
        "name": source.name,
        "axis": choose_axis([result]),
        "end": end,
        "ticks": [] if clock is None else _rounded(clock.forward(np.array([t for t, _ in bent]))),
        "labels": [f"{t:.3g}" for t, _ in bent],
        "weights": [weight for _, weight in bent],
        "stages": [
            {
                "rank": s.rank,
                "t": [s.start, s.end],
                "level": s.level,
                "exact": s.exact,
                "x": [] if clock is None else _rounded(clock.forward(np.array([s.start, s.end]))),
            }
            for s in stages_of(result)
            if s.level > floor
        ],
        "rank": max(result.outcome.rank, 1),
        "planted": list(result.config.singular_values or ()),
        "plane": plane_words(plane, path.A),
        "paths": [
            _path(result, rows, clock, plane, visited(result, run, rows), most) for run, rows in members_of(result)
        ],
        "frames": _frames(result),
    }


def _path(
    result: TrainResult,
    rows: np.ndarray,
    clock: BurstClock | None,
    plane: Plane,
    visits: tuple[np.ndarray, list[int]],
    most: int,
) -> dict[str, Any]:
    path = result.path
    kept = np.unique(np.concatenate([thinned(rows, most), visits[0]]).astype(int))
    tested = bool(np.isfinite(path.test_cost).any())
    xy = plane.project(path.A[kept])
    return {
        "t": [float(f"{t:.12g}") for t in path.t[kept]],  # a burst may be 10¹⁰ times shorter than the time it comes at
        "x": [] if clock is None else _rounded(clock.forward(path.t[kept])),
        "cost": _rounded(path.cost[kept]),
        "test": _rounded(path.test_cost[kept]) if tested else [],
        "gradient": _rounded(path.gradient_norm[kept]),
        "s": [_rounded(values) for values in path.singular_values[kept, :MODES].T],
        "along": _rounded(xy[:, 0]),
        "across": _rounded(xy[:, 1]),
        "visits": [int(i) for i in np.searchsorted(kept, visits[0])],
        "ranks": visits[1],
    }


def _frames(result: TrainResult) -> dict[str, Any]:
    """Matrices along the first path, with the times they belong to; none where they are large."""
    path = result.path
    if path.A[0].size > ENTRIES:
        return {}
    kept = thinned(members_of(result)[0][1], FRAMES)
    return {
        "t": [float(f"{t:.12g}") for t in path.t[kept]],
        "A": [[_rounded(row, 3) for row in a] for a in path.A[kept]],
    }


def thinned(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows, evenly, with the first and the last."""
    if len(rows) <= most:
        return rows
    return np.asarray(rows[np.linspace(0, len(rows) - 1, most).round().astype(int)])


def _rounded(values: np.ndarray, digits: int = 6) -> list[float | None]:
    """Numbers of so many digits, as JSON knows them: null for what is not finite."""
    return [float(f"{v:.{digits}g}") if np.isfinite(v) else None for v in values]

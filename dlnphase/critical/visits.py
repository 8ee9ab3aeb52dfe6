"""Visits along a path, and the transitions between them.

A visit is a local minimum of ‖∇𝓛‖ along the path; its prominence, in decades of ‖∇𝓛‖, says how clear it
is (docs/theory.md, section 5). The two ends of a path are open: a path may begin at its first saddle and
end at its last, so beyond an end ‖∇𝓛‖ is taken to be large, and a start that the path leaves with a rising
gradient, or an end that it reaches with a falling one, are visits like any other.

The transition between two visits is the maximum of −dC/dt, which under gradient flow is ‖∇𝓛‖².
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dlnphase.critical.peaks import peaks
from dlnphase.dynamics.state import Fixed, Room, State
from dlnphase.errors import InputError
from dlnphase.findings import RankTransition

MIN_PROMINENCE = 0.5  # decades of ‖∇𝓛‖ by which a visit must stand out
# Two visits between which the cost does not change beyond round-off are one: of the excess there, and at the start.
SAME_COST, SAME_COST_OF_START = 1e-13, 1e-22
_OPEN = 700.0  # decades: stands for "beyond the path", more than float64 can span


@dataclass(frozen=True)
class Visit:
    """One visit, as indices into the records of a path.

    Attributes:
        index: the closest record, where ‖∇𝓛‖ is least.
        enter, exit: first and last record of the stretch around ``index`` on which ‖∇𝓛‖ stays below the
            geometric mean of its minimum and of the lower of its two shoulders.
        prominence: decades by which −log₁₀‖∇𝓛‖ stands out (of the deepest visit: above the path's largest gradient).
    """

    index: int
    enter: int
    exit: int
    prominence: float


def find_visits(
    time: np.ndarray,
    step: np.ndarray,
    excess: np.ndarray,
    gradient_norm: np.ndarray,
    *,
    min_prominence: float = MIN_PROMINENCE,
    between: np.ndarray | None = None,
) -> list[Visit]:
    """Visits of one path, in order.

    Args:
        time, step, excess, gradient_norm: of the records of one member, each of shape (T,):
            t, accepted steps, C − C_min and ‖∇𝓛(θ)‖.
        min_prominence: decades of ‖∇𝓛‖ by which a visit must stand out.
        between: what ‖∇𝓛‖ reaches at least somewhere between each record and the next, shape (T−1,);
            None where nothing is known.

    Raises:
        InputError: for arrays of different lengths, numbers that are not finite, times that do not increase,
            or a threshold that is not a positive number.
    """
    time, excess, gradient_norm = _checked(time, step, excess, gradient_norm)
    if not (np.isfinite(min_prominence) and min_prominence > 0):
        raise InputError(f"min-prominence: found {min_prominence}, expected a positive number of decades")
    if time.size < 2:
        return []
    # Records stand at even places, what is known of the stretches between them at odd ones: a peak is at a record.
    depth = -np.log10(np.maximum(with_between(gradient_norm, between), np.finfo(float).tiny))
    floor = float(depth.min())
    padded = np.concatenate([[floor - _OPEN], depth, [floor - _OPEN]])
    visits = []
    for index, prominence in zip(*peaks(padded, min_prominence), strict=True):
        peak = int(index) - 1
        # A peak above which nothing rises on either side is open on both: it is measured from the path's lowest point.
        prominence = min(float(prominence), float(depth[peak]) - floor)
        if prominence >= min_prominence:
            enter, leave = _stretch(depth, peak, prominence)
            visits.append(Visit(peak // 2, (enter + 1) // 2, leave // 2, prominence))
    return _merge_round_off(visits, excess)


def with_between(gradient_norm: np.ndarray, between: np.ndarray | None) -> np.ndarray:
    """‖∇𝓛‖ of the records at even places, of the stretches between them at odd ones, shape (2T−1,).

    Where nothing is known of a stretch, or less than its ends tell, the larger end stands for it.
    """
    out = np.empty(max(2 * len(gradient_norm) - 1, 0))
    out[::2] = gradient_norm
    ends = np.maximum(gradient_norm[:-1], gradient_norm[1:])
    out[1::2] = ends if between is None else np.maximum(ends, between)
    return out


def transition_times(
    time: np.ndarray, gradient_norm: np.ndarray, visits: Sequence[Visit], between: np.ndarray | None = None
) -> list[tuple[int, float]]:
    """Between each visit and the next: the record of largest ‖∇𝓛‖, and the time of its maximum.

    The time is that of the vertex of the parabola through log‖∇𝓛‖ at this record and its neighbours. Where ‖∇𝓛‖ was
    larger still between two records (``between``, as of :func:`find_visits`), it is the middle of that stretch.
    """
    out = []
    for before, after in pairwise(visits):
        index = before.index + int(np.argmax(gradient_norm[before.index : after.index + 1]))
        when = _vertex(time, gradient_norm, index)
        if between is not None and after.index > before.index:
            stretch = before.index + int(np.argmax(between[before.index : after.index]))
            if between[stretch] > gradient_norm[index]:
                index, when = stretch + 1, float(time[stretch] + time[stretch + 1]) / 2
        out.append((index, when))
    return out


def rank_transitions(
    time: np.ndarray,
    step: np.ndarray,
    gradient_norm: np.ndarray,
    cost: np.ndarray,
    visits: Sequence[Visit],
    ranks: Sequence[int],
    singular_values: Sequence[np.ndarray],
    between: np.ndarray | None = None,
) -> list[RankTransition]:
    """One row per transition between consecutive visits; none for a path with fewer than two.

    Args:
        time, step, gradient_norm, cost: of the records of one member, each of shape (T,); cost is C(A), C_min included.
        visits: of :func:`find_visits`.
        ranks: of the refined critical point of each visit (:func:`dlnphase.critical.refine_matrix`).
        singular_values: of A at each visit.
        between: as of :func:`find_visits`.
    """
    rows: list[RankTransition] = []
    previous = float(time[0]) if len(time) else 0.0
    for i, (index, when) in enumerate(transition_times(time, gradient_norm, visits, between)):
        rows.append(
            RankTransition(
                from_rank=int(ranks[i]),
                to_rank=int(ranks[i + 1]),
                time=when,
                step=int(step[index]),
                dwell=when - previous,
                cost_before=float(cost[visits[i].index]),
                cost_after=float(cost[visits[i + 1].index]),
                singular_values=[float(s) for s in singular_values[i + 1]],
                prominence=visits[i].prominence,
            )
        )
        previous = when
    return rows


@dataclass(slots=True, init=False, eq=False, repr=False)
class WeightKeeper(State):
    """Keeps the weights of a streaming path at the records that will turn out to be visits.

    Feed it every record of one member; it holds one candidate and what was confirmed. A minimum of ‖∇𝓛‖ is
    kept once the gradient has risen from it by ``min_prominence`` decades, and again only after it has fallen by as
    much from its next maximum, so that every visit of at least that prominence is among those kept.

    Attributes:
        confirmed: (record index, layers) of what is kept for good; only ever added to, and saved apart from the state.
    """

    confirmed: Room[list[tuple[int, list[np.ndarray]]]]
    _factor: Fixed[float]
    _candidate: tuple[int, list[np.ndarray]] | None
    _low: float
    _high: float

    def __init__(self, min_prominence: float = 0.25) -> None:
        self._factor = 10.0**min_prominence
        self.confirmed = []
        self._candidate = None
        self._low = np.inf
        self._high = 0.0

    def feed(self, index: int, gradient_norm: float, weights: Callable[[], list[np.ndarray]]) -> None:
        """Record number ``index`` with this ‖∇𝓛‖; ``weights()`` is called only if they may be needed."""
        if self._candidate is None:
            self._high = max(self._high, gradient_norm)
            first = not self.confirmed and self._low == np.inf
            if first or gradient_norm * self._factor < self._high:
                self._candidate, self._low = (index, weights()), gradient_norm
            return
        if gradient_norm < self._low:
            self._candidate, self._low = (index, weights()), gradient_norm
        elif gradient_norm > self._low * self._factor:
            self.confirmed.append(self._candidate)
            self._candidate, self._high = None, gradient_norm

    def finish(self) -> list[tuple[int, list[np.ndarray]]]:
        """(record index, layers) of everything kept, the last candidate included, in order."""
        return self.confirmed + ([self._candidate] if self._candidate is not None else [])


def _checked(
    time: np.ndarray, step: np.ndarray, excess: np.ndarray, gradient_norm: np.ndarray
) -> tuple[np.ndarray, ...]:
    arrays = {"t": time, "step": step, "cost": excess, "gradient_norm": gradient_norm}
    arrays = {name: np.asarray(a, dtype=float) for name, a in arrays.items()}
    shapes = {name: a.shape for name, a in arrays.items()}
    if len(set(shapes.values())) != 1 or arrays["t"].ndim != 1:
        raise InputError(f"path: found arrays of shapes {shapes}, expected one number per record in each")
    for name, a in arrays.items():
        if not np.isfinite(a).all():
            raise InputError(f"path: {int((~np.isfinite(a)).sum())} entries of {name} are not finite numbers")
    if (np.diff(arrays["t"]) < 0).any():
        raise InputError("path: t goes backwards, expected times in increasing order")
    return arrays["t"], arrays["cost"], arrays["gradient_norm"]


def _stretch(depth: np.ndarray, peak: int, prominence: float) -> tuple[int, int]:
    """First and last record around the peak that stay above half its prominence."""
    low = np.flatnonzero(depth < depth[peak] - prominence / 2)
    before, after = low[low < peak], low[low > peak]
    return (int(before[-1]) + 1 if before.size else 0), (int(after[0]) - 1 if after.size else depth.size - 1)


def _merge_round_off(visits: list[Visit], excess: np.ndarray) -> list[Visit]:
    """Join neighbours between which the cost does not change beyond round-off; the first of them is kept."""
    out: list[Visit] = []
    for visit in visits:
        if out:
            before, after = excess[out[-1].index], excess[visit.index]
            if abs(before - after) <= max(SAME_COST * before, SAME_COST_OF_START * excess[0]):
                last = out.pop()
                visit = Visit(last.index, last.enter, visit.exit, max(last.prominence, visit.prominence))
        out.append(visit)
    return out


def _vertex(time: np.ndarray, gradient_norm: np.ndarray, index: int) -> float:
    """Time of the vertex of the parabola through log‖∇𝓛‖ at a record and its neighbours (at an end: its own)."""
    if not 0 < index < len(time) - 1:
        return float(time[index])
    t0, t1, t2 = (float(t) for t in time[index - 1 : index + 2])
    below, above = t1 - t0, t2 - t1
    if below <= 0 or above <= 0:
        return t1
    y0, y1, y2 = np.log(np.maximum(gradient_norm[index - 1 : index + 2], np.finfo(float).tiny))
    left, right = (y1 - y0) / below, (y2 - y1) / above
    bend = (left - right) / (t2 - t0)  # minus half the second derivative
    if bend <= 0:
        return t1
    slope = (left * above + right * below) / (t2 - t0)  # at t1
    return float(min(max(t1 + slope / (2 * bend), t0), t2))

"""How fast a path goes beside the gradient flow of the cost: the constant between its time and ours.

Under θ̇ = −c∇𝓛 the cost falls as −dC/dt = c‖∇𝓛‖². Over two records between which ‖∇𝓛‖ changes little, c is the decrease
over the trapezoid of ‖∇𝓛‖² (whose error is (ln of its ratio)²/12: under 2 %). Over two records that lie farther apart
our flow is followed from the first until its cost is that of the second: that takes c times the time between them,
where it does arrive there. It is a constant of the path where these agree all along.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlnphase.costs.interface import ConvexCost
from dlnphase.detect.trace import MemberTrace
from dlnphase.dynamics import Record, gradient_flow
from dlnphase.networks.chain import Network
from dlnphase.networks.products import Layers
from dlnphase.results.detect import SAME_SPEED

LITTLE = 1.2  # factor by which ‖∇𝓛‖ may change between two records that are looked at
CLEAR = 1e-3  # part of C − C_min that must be lost between them, so that round-off does not count
ENOUGH = 8  # pairs of records below which nothing is told
STRETCHES = 12  # that are followed, evenly along the path
FEW = 4  # stretches below which nothing is told
FLOW_STEPS = 500  # in which the flow has to come from a record to the next
ARRIVED = 0.1  # the flow leads to the next record if it misses it by no more than this share of the way


@dataclass(frozen=True)
class Speed:
    """c of a path: the median of what was measured along it, and where a tenth and nine tenths of that lie."""

    value: float
    low: float
    high: float


def speed_factor(time: np.ndarray, excess: np.ndarray, gradient_norm: np.ndarray) -> Speed | None:
    """c of a path with dense records, or None where it is no constant, or cannot be told.

    Args:
        time, excess, gradient_norm: t, what its flow makes fall and ‖∇𝓛‖ at its records, each of shape (T,).
    """
    factors = _factors(time, excess, gradient_norm)
    return _constant(factors) if factors.size >= ENOUGH else None


def followed_speed(trace: MemberTrace, cost: ConvexCost, *, rtol: float, decay: float = 0.0) -> Speed | None:
    """c of a path whose records lie far apart, by the flow from some of them to the next; None as above.

    Args:
        trace: with weights.
        cost: what it was trained on.
        rtol: of the integration.
        decay: weight decay λ.
    """
    fallen = trace.objective[:-1] - trace.objective[1:]
    clear = np.flatnonzero((fallen > CLEAR * trace.objective[:-1]) & (np.diff(trace.time) > 0))
    chosen = clear[np.unique(np.linspace(0, len(clear) - 1, min(STRETCHES, len(clear))).round().astype(int))]
    factors = []
    for index in chosen:
        start = trace.weights(int(index))
        needed = None if start is None else _flow_time(start, trace, int(index), cost, rtol, decay)
        if needed is not None:
            factors.append(needed / float(trace.time[index + 1] - trace.time[index]))
    return _constant(np.array(factors)) if len(factors) >= FEW else None


def _flow_time(
    start: Layers, trace: MemberTrace, index: int, cost: ConvexCost, rtol: float, decay: float
) -> float | None:
    """The time our flow takes from a record to the next; None where it does not lead there."""
    network = Network.of_arrays(start)
    goal, before = float(trace.objective[index + 1]), None
    for record in gradient_flow(network, cost, rtol=rtol, tol=0.0, max_steps=FLOW_STEPS, weight_decay=decay):
        now = (float(record.time[0]), objective_of(record), float(record.gradient_norm[0]))
        if now[1] <= goal:
            break
        before = now
    if before is None or now[1] > goal:
        return None
    needed = before[0] + (now[0] - before[0]) * (before[1] - goal) / (before[1] - now[1])
    for _ in range(2):  # C falls by ‖∇𝓛‖² a unit of time: two steps of Newton's method on the flow itself
        *_, last = gradient_flow(network, cost, rtol=rtol, tol=0.0, max_time=needed, weight_decay=decay)
        ahead = (objective_of(last) - goal) / float(last.gradient_norm[0]) ** 2
        if not 0 < needed + ahead < np.inf:
            return None
        needed += ahead
    way = np.linalg.norm(trace.matrices[index + 1] - trace.matrices[index])
    missed = np.linalg.norm(last.A[0] - trace.matrices[index + 1])
    return needed if missed <= ARRIVED * way else None


def objective_of(record: Record) -> float:
    """What the flow makes fall, above C_min, of a record of one network."""
    return float(record.excess[0] if record.penalty is None else record.excess[0] + record.penalty[0])


def _constant(factors: np.ndarray) -> Speed | None:
    """What these have in common, where they agree."""
    low, middle, high = (float(q) for q in np.quantile(factors, (0.1, 0.5, 0.9)))
    return Speed(middle, low, high) if high - low <= SAME_SPEED * middle else None


def typical_speed(time: np.ndarray, excess: np.ndarray, gradient_norm: np.ndarray) -> float | None:
    """The median of −dC/dt over ‖∇𝓛‖² where records are dense, whether it is a constant or not; None where none are."""
    factors = _factors(time, excess, gradient_norm)
    return float(np.median(factors)) if factors.size else None


def _factors(time: np.ndarray, excess: np.ndarray, gradient_norm: np.ndarray) -> np.ndarray:
    """The decrease over the trapezoid, of every pair of neighbours that is dense."""
    before, after = gradient_norm[:-1], gradient_norm[1:]
    fallen, elapsed = excess[:-1] - excess[1:], np.diff(time)
    slow = (after <= LITTLE * before) & (before <= LITTLE * after)
    clear = slow & (fallen > CLEAR * excess[:-1]) & (elapsed > 0) & (before > 0)
    return fallen[clear] / (0.5 * (before[clear] ** 2 + after[clear] ** 2) * elapsed[clear])

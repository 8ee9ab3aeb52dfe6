"""What every integrator of the flow shares: how the next step size is found, and when a run is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlnphase.costs.quadratic import Cost
from dlnphase.dynamics.state import State
from dlnphase.errors import InputError
from dlnphase.networks.batch import Batched
from dlnphase.networks.chain import Network

SAFETY, SHRINK, GROW = 0.9, 0.2, 4.0  # step-size control: margin, and the least and largest change in one step
FIRST_STEP = 0.05  # first step, as a fraction of the time in which θ changes by its own size
# A step below this is no step any more: 58 decades are left above the least number for products of two.
SMALLEST_STEP = 1e-250
END_OF_TIME = 1e100  # a flow that has not converged by then never will
STALL = 2500  # steps without any fall of the excess cost after which round-off, not the flow, sets the step
# Relative fall of the excess cost that counts as one: above round-off that adds up, below what any plateau shows.
STALL_CHANGE = 1e-6
DIVERGED = 1e6  # excess cost over its first value that no descent with a useful step reaches
BISECTIONS = 40  # of the interval of one step: the end of a run is found to 1e-12 of it
LANDED = 0.98  # share of the excess cost asked for by tol that a last step may reach down to: it says when it was met


@dataclass(slots=True, init=False, eq=False, repr=False)
class StepControl(State, Batched):
    """Step sizes of m members from their error estimates (predictive controller, Gustafsson 1994).

    Escapes are explosive: the step that is right now is too large next time. The prediction extrapolates the trend of
    step sizes and errors, and so avoids most rejections.

    Attributes:
        h: step sizes to try next, shape (m,); NaN before the first.
        rejected: whether the last try was rejected, shape (m,).
    """

    power: float
    safety: float
    h: np.ndarray
    rejected: np.ndarray
    _last_h: np.ndarray
    _last_ratio: np.ndarray

    def __init__(self, members: int, embedded_order: int, safety: float = SAFETY) -> None:
        self.power, self.safety = 1.0 / (embedded_order + 1), safety
        self.h = np.full(members, np.nan)
        self.rejected = np.zeros(members, dtype=bool)
        self._last_h = np.full(members, np.nan)
        self._last_ratio = np.ones(members)

    def judge(self, h: np.ndarray, ratio: np.ndarray, cut: np.ndarray) -> np.ndarray:
        """Which of the tried steps h are accepted, shape (m,); sets the next ones.

        Args:
            ratio: estimated error over the one allowed.
            cut: steps cut short by an output time, which say nothing about how far the next one may go.
        """
        bad = ~np.isfinite(ratio)
        ratio = np.where(bad, np.inf, np.maximum(ratio, 1e-10))
        accepted = ratio <= 1.0
        plain = self.safety * ratio**-self.power
        with np.errstate(invalid="ignore"):
            predicted = plain * (h / self._last_h) * (self._last_ratio / ratio) ** self.power
        usable = accepted & np.isfinite(predicted)
        factor = np.where(usable, np.minimum(plain, predicted), plain)
        factor = np.clip(np.where(bad, SHRINK, factor), SHRINK, np.where(self.rejected, 1.0, GROW))
        self.h = np.where(accepted & cut, np.maximum(h * factor, self.h), h * factor)
        self._last_h = np.where(accepted, h, self._last_h)
        self._last_ratio = np.where(accepted, np.maximum(ratio, 1e-2), self._last_ratio)
        self.rejected = ~accepted
        return accepted


@dataclass(frozen=True)
class Limits:
    """When a run is over, and where steps must end.

    Attributes:
        tol: converged once C − C_reachable is at most tol times its value at the start, or at A = 0 where that is less;
            0: never.
        offset: C_reachable − C_min, the least excess cost of matrices that fit through the narrowest layer.
        max_time: time at which to stop.
        max_steps: accepted steps after which to stop.
        outputs: times at which a step must end, increasing, the last one infinite.
        at_zero: C(0) − C_min.
    """

    tol: float
    offset: float
    max_time: float
    max_steps: int
    outputs: np.ndarray
    at_zero: float

    @classmethod
    def of(
        cls,
        cost: Cost,
        network: Network,
        tol: float,
        max_time: float | None,
        max_steps: int,
        output_times: Sequence[float] | None,
    ) -> Limits:
        """Limits from the options of a flow.

        Raises:
            InputError: for output times that do not increase or lie before 0.
        """
        outputs = np.asarray(() if output_times is None else output_times, dtype=float)
        if (np.diff(outputs) <= 0).any() or (outputs < 0).any():
            raise InputError("output_times: expected increasing times of at least 0")
        offset, at_zero = excess_out_of_reach(cost, network), excess_at_zero(cost, network)
        end = END_OF_TIME if max_time is None else max_time
        return cls(tol, offset, end, max_steps, np.append(outputs[outputs > 0], np.inf), at_zero)

    def threshold(self, first: float) -> float:
        """The excess cost above ``offset`` at which a run has converged that starts with excess cost ``first``."""
        return self.tol * yardstick(first - self.offset, self.at_zero - self.offset)

    def ceiling(self, first: float) -> float:
        """The excess cost from which a run that starts with ``first`` has diverged: a flow never goes uphill."""
        return DIVERGED * max(first, self.at_zero, float(np.finfo(float).tiny))

    def aim(self, before: tuple[float, float], after: tuple[float, float], threshold: float, h: float) -> float | None:
        """The shorter step that ends where the excess cost meets the threshold; None where this step is good enough.

        Args:
            before, after: (excess cost, ‖∇𝓛‖) at both ends of a step of size h, which has lowered the excess cost.
        """
        end = after[0] - self.offset
        if not (self.tol > 0 and end < LANDED * threshold) or not before[0] - self.offset > threshold:
            return None
        first, last = ((excess - self.offset, gradient * gradient * h) for excess, gradient in (before, after))
        share = passing(first, last, (1 + LANDED) / 2 * threshold)
        return share * h if share < LANDED else None

    def reason(
        self, excess: float, threshold: float, ceiling: float, h: float, idle: int, time: float, steps: int
    ) -> str | None:
        """Why a member is over, as for :class:`dlnphase.dynamics.records.Record`, or None.

        Args:
            threshold: excess cost above ``offset`` at which it has converged, see :meth:`threshold`.
            ceiling: see :meth:`ceiling`.
            idle: steps since the excess cost was last lower than ever before.
        """
        if not excess <= ceiling or not np.isfinite(excess) or h < SMALLEST_STEP:
            return "diverged"
        if self.tol > 0 and excess - self.offset <= threshold:
            return "converged"
        if idle > STALL:
            return "precision_floor"
        if time >= self.max_time:
            return "max_time"
        if steps >= self.max_steps:
            return "max_steps"
        return None


def check_decay(weight_decay: float, tol: float) -> None:
    """InputError for a λ that is no number of at least 0, and for a tol beside it: nobody knows what can be reached."""
    if not (np.isfinite(weight_decay) and weight_decay >= 0):
        raise InputError(f"weight_decay: found {weight_decay}, expected a finite number of at least 0")
    if weight_decay and tol:
        raise InputError(f"tol: found {tol} with weight_decay, which makes the least cost unknown; expected 0")


def yardstick(first: float, at_zero: float) -> float:
    """What ``tol`` is a share of: the excess cost at the start, or at A = 0 where that is less.

    A start of large scale has a cost that says nothing about the task. Where A = 0 is a minimum, the start's counts.
    """
    return min(first, at_zero) if at_zero > 0 else first


def excess_at_zero(cost: Cost, network: Network) -> float:
    """C(0) − C_min."""
    return float(cost.excess(network.theta.new_zeros((1, *network.shape)))[0])


def excess_out_of_reach(cost: Cost, network: Network) -> float:
    """The least C − C_min of matrices that fit through the narrowest layer, where that is known; else 0."""
    reachable = cost.minimum_at_rank(min(network.dims))
    return 0.0 if reachable is None else reachable - cost.minimum


def passing(before: tuple[float, float], after: tuple[float, float], level: float) -> float:
    """The share of a step at which a falling quantity passes a level, from (value, −slope) at both ends.

    Its logarithm is interpolated by the cubic of these values and slopes.
    """
    floor = np.finfo(float).tiny
    (y0, m0), (y1, m1) = ((np.log(max(v, floor)), -s / max(v, floor)) for v, s in (before, after))
    goal = np.log(level)
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        u = (low + high) / 2
        w = 1 - u
        value = y0 * w * w * (1 + 2 * u) + m0 * u * w * w + y1 * u * u * (3 - 2 * u) - m1 * u * u * w
        low, high = (u, high) if value > goal else (low, u)
    return high

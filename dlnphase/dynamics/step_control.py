"""What every integrator of the flow shares: how the next step size is found, and when a run is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlnphase.costs.quadratic import Cost
from dlnphase.errors import InputError

SAFETY, SHRINK, GROW = 0.9, 0.2, 4.0  # step-size control: margin, and the least and largest change in one step
FIRST_STEP = 0.05  # first step, as a fraction of the time in which θ changes by its own size
SMALLEST_STEP = 1e-250
END_OF_TIME = 1e100  # a flow that has not converged by then never will
STALL = 2500  # steps without any fall of the excess cost after which round-off, not the flow, sets the step
STALL_CHANGE = 1e-6


class StepControl:
    """Step sizes of m members from their error estimates (predictive controller, Gustafsson 1994).

    Escapes are explosive: the step that is right now is too large next time. The prediction extrapolates the trend of
    step sizes and errors, and so avoids most rejections.

    Attributes:
        h: step sizes to try next, shape (m,); NaN before the first.
        rejected: whether the last try was rejected, shape (m,).
    """

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

    def select(self, keep: np.ndarray) -> None:
        """Keep some members, boolean (m,)."""
        for name in ("h", "rejected", "_last_h", "_last_ratio"):
            setattr(self, name, getattr(self, name)[keep])


@dataclass(frozen=True)
class Limits:
    """When a run is over, and where steps must end.

    Attributes:
        tol: converged once C − C_reachable is at most tol times its first value; 0: never.
        offset: C_reachable − C_min, the least excess cost of matrices that fit through the narrowest layer.
        max_time: time at which to stop.
        max_steps: accepted steps after which to stop.
        outputs: times at which a step must end, increasing, the last one infinite.
    """

    tol: float
    offset: float
    max_time: float
    max_steps: int
    outputs: np.ndarray

    @classmethod
    def of(
        cls,
        cost: Cost,
        narrowest: int,
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
        reachable = cost.minimum_at_rank(narrowest)
        offset = 0.0 if reachable is None else reachable - cost.minimum
        end = END_OF_TIME if max_time is None else max_time
        return cls(tol, offset, end, max_steps, np.append(outputs[outputs > 0], np.inf))

    def reason(self, excess: float, threshold: float, h: float, idle: int, time: float, steps: int) -> str | None:
        """Why a member is over, one of :data:`dlnphase.dynamics.records.REASONS`, or None.

        Args:
            threshold: tol times the first excess cost above ``offset``.
            idle: steps since the excess cost was last lower than ever before.
        """
        if not np.isfinite(excess) or h < SMALLEST_STEP:
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

"""A step size or a batch size that changes at given steps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dlnphase.errors import InputError

Changing = float | Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Schedule:
    """One value from step 0 on, another from a later step on, and so on; steps are counted from 0.

    Attributes:
        steps: from which on each value holds, ascending, the first 0.
        values: of each.
    """

    steps: tuple[int, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, value: Changing | Schedule) -> Schedule:
        """Of one number, or of pairs (step, value).

        Raises:
            InputError: for pairs that do not begin at step 0 and ascend.
        """
        if isinstance(value, Schedule):
            return value
        pairs = ((0, value),) if isinstance(value, (int, float)) else tuple(value)
        steps = tuple(step for step, _ in pairs)
        if not pairs or steps[0] != 0 or any(a >= b for a, b in pairwise(steps)):
            raise InputError(f"schedule: found changes at steps {steps}, expected 0 and then later and later ones")
        return cls(steps, tuple(value for _, value in pairs))

    def at(self, step: int) -> float:
        """The value that the step of this number takes."""
        return self.values[bisect_right(self.steps, step) - 1]

    def along(self, steps: np.ndarray) -> np.ndarray:
        """The same of many steps at once."""
        return np.array(self.values)[np.searchsorted(self.steps, steps, side="right") - 1]

    def counts(self, steps: np.ndarray) -> list[np.ndarray]:
        """How many of the first so many steps take each value: an array of the shape of ``steps`` for each."""
        ends = (*self.steps[1:], np.inf)
        return [np.minimum(steps, b) - np.minimum(steps, a) for a, b in zip(self.steps, ends, strict=True)]

    def total(self, steps: int, of: Callable[[float], float] = float) -> float:
        """The sum of the values of the first so many steps, or of a function of them."""
        counts = self.counts(np.asarray(steps, dtype=float))
        return sum(float(count) * of(value) for count, value in zip(counts, self.values, strict=True))

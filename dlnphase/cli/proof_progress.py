"""What the live line says while a path is proved, or its proof is checked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlnphase.proofs.path import Progress


class TimeLeft:
    """Parts of the line, with the time left by the share that is done since the first call."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None
        self._limbs = 0

    def proved(self, step: Progress) -> list[str]:
        """Of a path under way; the time left is that to the end of the recorded path, about where its proof ends."""
        if step.limbs != self._limbs:  # more bits: it has begun again
            self._first, self._limbs = None, step.limbs
        at = f"proof at t = {step.time:.4g} of about {step.length:.4g}"
        left = f"{self._left(step.time / step.length)} left"
        more = [f"C − C_min = {step.excess:.3g}", f"{step.steps} steps", f"{53 * step.limbs} bits"]
        return [at, f"radius of the tube {step.radius:.1e}", left, *more]

    def checked(self, done: int, total: int) -> list[str]:
        """Of a check under way."""
        return [f"{done} of {total} steps checked", f"{self._left(done / total)} left"]

    def _left(self, share: float) -> str:
        now = time.monotonic()
        if self._first is None:
            self._first = (now, share)
        began, before = self._first
        if not before < share <= 1:
            return "?"
        from dlnphase.training.status import duration

        return duration((now - began) / (share - before) * (1 - share))

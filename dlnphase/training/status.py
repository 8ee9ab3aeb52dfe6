"""A run under way in one line: how far it is, at which rank, and what it waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from dlnphase.dynamics.records import Record
    from dlnphase.training.run import Run

LEARNED = 0.05  # a mode counts as learned when its singular value is above this share of the largest
FALLING = 0.1  # |d ln(C − C_min) / d ln t| above which the cost is falling


class Status:
    """Feed it records; ask it for words now and then.

    Args:
        run: the run that is followed.
    """

    def __init__(self, run: Run) -> None:
        self._cost = run.task.cost
        self._batch = run.start.network.batch
        self._max_steps = run.settings.max_steps
        self._descent = run.settings.dynamics == "gd"
        self._done = 0
        self._first: float | None = None
        self._record: Record | None = None

    def feed(self, record: Any) -> None:
        """Note a record; costs nothing."""
        self._record = record
        self._done += sum(reason is not None for reason in record.reasons)
        if self._first is None:
            self._first = float(record.excess[0])

    def words(self) -> str:
        """Time, cost, rank and what it waits for, of the first member still under way."""
        record = self._record
        if record is None or not len(record.members):
            return "starting"
        t, excess, norm = float(record.time[0]), float(record.excess[0]), float(record.gradient_norm[0])
        a = np.asarray(record.A[0])
        if not np.isfinite(a).all():
            return f"t = {t:.4g}   the numbers are no longer finite"
        s = np.linalg.svd(a, compute_uv=False)
        like = self._cost.minimizer
        slope = self._cost.gradient(torch.as_tensor(a, dtype=like.dtype, device=like.device)[None])[0]
        top = float(torch.linalg.matrix_norm(slope, 2))
        rank = int((s > LEARNED * max(float(s[0]), top)).sum())
        falling = norm * norm * t > FALLING * excess > 0
        doing = f"learning mode {max(rank, 1)}" if falling else f"at rank {rank}, waiting for s = {top:.3g}"
        ratio = excess / self._first if self._first else 0.0
        head = f"{self._done}/{self._batch} done  " if self._batch > 1 else ""
        steps = f"step {int(record.step[0])}" + (f"/{self._max_steps}" if self._descent else "")
        return f"{head}t = {t:.4g}  cost {ratio:.1e} of start  {doing}  [dim]{steps}[/dim]"

"""A run under way in one line: how far it is, at which rank, and what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from dlnphase.dynamics.records import Record
    from dlnphase.training.run import Run

LEARNED = 0.05  # a mode counts as learned when its singular value is above this share of the largest
FALLING = 0.1  # |d ln(C − C_min) / d ln t| above which the cost is falling
FORESEEN = 0.02  # share of the work of a batch from which the time left is told


class Status:
    """Feed it records; ask it for words now and then.

    Args:
        run: the run that is followed.
        clock: seconds, from any start.
    """

    def __init__(self, run: Run, clock: Callable[[], float] = time.monotonic) -> None:
        self._cost = run.task.cost
        self._batch, self._room = run.start.network.batch, min(run.start.network.dims)
        self._max_steps, self._tol = run.settings.max_steps, run.settings.tol
        self._foreseen = not run.settings.weight_decay  # else nobody knows which cost it goes to
        self._done = np.zeros(self._batch, dtype=bool)
        self._first = np.full(self._batch, np.nan)
        self._excess = np.full(self._batch, np.nan)
        self._steps = np.zeros(self._batch)
        self._clock, self._start = clock, clock()
        self._far: tuple[Record, int] | None = None  # the record, and the place in it, of the largest time so far

    def feed(self, record: Any) -> None:
        """Note a record; costs nothing."""
        if not len(record.members):
            return
        members = record.members
        self._excess[members], self._steps[members] = record.excess, record.step
        self._first[members] = np.where(np.isnan(self._first[members]), record.excess, self._first[members])
        self._done[members] |= [reason is not None for reason in record.reasons]
        place = int(np.argmax(record.time))
        if self._far is None or record.time[place] >= self._far[0].time[self._far[1]]:
            self._far = record, place

    @property
    def over(self) -> bool:
        """Whether every member has come to its end."""
        return bool(self._done.all())

    def words(self) -> list[str]:
        """Parts of a line, the most telling first: members done and time left, then where the furthest member is."""
        if self._far is None:
            return ["starting"]
        record, place = self._far
        t = float(record.time[place])
        furthest = "furthest: " if self._batch > 1 else ""
        if not np.isfinite(record.A[place]).all():
            return [*self._members(), f"{furthest}t = {t:.4g}", "the numbers are no longer finite"]
        first = self._first[int(record.members[place])]
        ratio = float(record.excess[place]) / first if first else 0.0
        where = [f"{furthest}t = {t:.4g}", self._doing(record, place), f"cost {ratio:.1e} of its start"]
        return [*self._members(), *where, f"step {int(record.step[place])}"]

    def _members(self) -> list[str]:
        """Of a batch: how many are done, and the time left if the others go on as fast."""
        if self._batch == 1:
            return []
        done = f"{int(self._done.sum())} of {self._batch} done"
        share = self._share()
        if self.over or share < FORESEEN:
            return [done]
        return [f"{done}, {duration((self._clock() - self._start) * (1 - share) / share)} left"]

    def _share(self) -> float:
        """The share of the work that is done: of the decades of cost down to ``tol``, or else of the steps."""
        if not self._foreseen:
            return 0.0
        if self._tol > 0:
            with np.errstate(divide="ignore", invalid="ignore"):
                parts = np.log(self._excess / self._first) / np.log(self._tol)
        else:
            parts = self._steps / (self._max_steps or np.inf)
        return float(np.where(self._done, 1.0, np.nan_to_num(np.clip(parts, 0.0, 1.0))).mean())

    def _doing(self, record: Record, place: int) -> str:
        """At which rank a member is, and whether it learns or waits."""
        a = np.asarray(record.A[place])
        t, excess, norm = (float(v[place]) for v in (record.time, record.excess, record.gradient_norm))
        s = np.linalg.svd(a, compute_uv=False)
        like = self._cost.like
        slope = self._cost.gradient(torch.as_tensor(a, dtype=like.dtype, device=like.device)[None])[0]
        top = float(torch.linalg.matrix_norm(slope, 2))
        rank = int((s > LEARNED * max(float(s[0]), top)).sum())
        if norm * norm * t > FALLING * excess > 0:
            return f"learning mode {max(rank, 1)}"
        return f"at rank {rank}, waiting for mode {rank + 1}" if rank < self._room else f"at rank {rank}"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

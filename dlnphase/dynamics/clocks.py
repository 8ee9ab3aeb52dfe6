"""Times, counts and bounds of the members of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlnphase.dynamics.stabilised_flow import Handover
from dlnphase.dynamics.state import State
from dlnphase.networks.batch import Batched


@dataclass(slots=True, eq=False, repr=False)
class Clocks(State, Batched):
    """What every member has of its own, each of shape (m,).

    Attributes:
        members: batch indices.
        time, time_rest: t, and what of it is below one unit in the last place of t.
        steps, evaluations: accepted steps and slopes so far.
        next_output: number of output times already met.
        threshold, ceiling: excess cost at which a member has converged, see ``Limits.threshold``, or diverged.
        last_excess, last_change: the lowest excess cost so far, and the step at which it last fell.
    """

    members: np.ndarray
    time: np.ndarray
    time_rest: np.ndarray
    steps: np.ndarray
    evaluations: np.ndarray
    next_output: np.ndarray
    threshold: np.ndarray
    ceiling: np.ndarray
    last_excess: np.ndarray
    last_change: np.ndarray

    @classmethod
    def at_start(cls, members: list[int]) -> Clocks:
        """Of members that have not moved; their thresholds are known from the first record on."""
        count = len(members)
        return cls(
            members=np.array(members),
            time=np.zeros(count),
            time_rest=np.zeros(count),
            steps=np.zeros(count, dtype=np.int64),
            evaluations=np.zeros(count, dtype=np.int64),
            next_output=np.zeros(count, dtype=np.int64),
            threshold=np.full(count, np.nan),
            ceiling=np.full(count, np.inf),
            last_excess=np.full(count, np.inf),
            last_change=np.zeros(count, dtype=np.int64),
        )

    @classmethod
    def handed(cls, members: list[int], states: Sequence[Handover]) -> Clocks:
        """Of members whose mild parts ended like this."""
        count = len(members)
        steps = np.array([s.steps for s in states])
        return cls(
            members=np.array(members),
            time=np.array([s.time for s in states]),
            time_rest=np.zeros(count),
            steps=steps,
            evaluations=np.array([s.evaluations for s in states]),
            next_output=np.array([s.outputs for s in states]),
            threshold=np.array([s.threshold for s in states]),
            ceiling=np.array([s.ceiling for s in states]),
            last_excess=np.full(count, np.inf),
            last_change=steps.copy(),
        )

"""What every dynamics yields: one record per recorded step of the members that took it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from dlnphase.dynamics.state import State


@dataclass(slots=True)
class Record:
    """The state of m members of a batch after one recorded step, on the host.

    Attributes:
        members: batch indices of these members, shape (m,).
        time: gradient-flow time t (for gradient descent, step·η), shape (m,).
        step: accepted steps so far, shape (m,).
        evaluations: gradient evaluations so far, shape (m,).
        excess: C(A) − C_min, shape (m,).
        gradient_norm: ‖∇𝓛(θ)‖, with weight decay that of C(A_θ) + (λ/2)‖θ‖², shape (m,).
        A: end-to-end matrices, shape (m, d_out, d_in).
        reasons: why members end here, a word that ``training/reasons.py`` lists, else None; whoever receives the
            record may end others by writing theirs.
        weights: call it before the next record to get the layers of record-member i
            in the frame the run started in: ``weights(i)`` is a list of (n_l, n_{l-1}) arrays.
        note: a line for people about what just happened, or "".
        penalty: (λ/2)‖θ‖², shape (m,); None without weight decay.
    """

    members: np.ndarray
    time: np.ndarray
    step: np.ndarray
    evaluations: np.ndarray
    excess: np.ndarray
    gradient_norm: np.ndarray
    A: np.ndarray
    reasons: list[str | None]
    weights: Callable[[int], list[np.ndarray]]
    note: str = field(default="")
    penalty: np.ndarray | None = None

    @property
    def penalties(self) -> np.ndarray:
        """What ``penalty`` says, shape (m,): 0 without weight decay."""
        return np.zeros(len(self.members)) if self.penalty is None else self.penalty


class Walk(State):
    """Networks under way: a state, and the rounds that move it.

    Between two rounds it can be saved (:mod:`dlnphase.dynamics.state`). One that is set up from the same settings and
    resumes that state goes on with the same numbers, bit for bit.
    """

    __slots__ = ()

    def rounds(self) -> Iterator[list[Record]]:
        """What was recorded in each round of steps, maybe nothing, until every member has ended."""
        raise NotImplementedError

    def records(self) -> Iterator[Record]:
        """The records of all rounds, one by one."""
        for records in self.rounds():
            yield from records


Dynamics = Iterator[Record]

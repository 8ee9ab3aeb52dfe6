"""Ends that only the analysis of A can tell: the loop over the members of a record, for whoever judges one member."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dlnphase.dynamics import Record
from dlnphase.dynamics.state import State


class MemberEnd(Protocol):
    """Judges one member."""

    def reached(self, record: Record, i: int) -> bool:
        """Whether member i of a record is where it will stay, as far as ``tol`` tells."""
        ...


@dataclass(slots=True, init=False, eq=False, repr=False)
class Ends(State):
    """Ends members as they come to where their judges say they will stay; none where there are no judges.

    A subclass sets up ``_ends``, one judge a member, which are states themselves.
    """

    _ends: list[MemberEnd]

    def end(self, record: Record) -> None:
        """Write the reason ``converged`` to members that are there; before anybody else looks at the record."""
        for i, member in enumerate(record.members if self._ends else ()):
            if record.reasons[i] is None and self._ends[int(member)].reached(record, i):
                record.reasons[i] = "converged"

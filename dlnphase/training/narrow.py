"""When a run is over whose network is too narrow for the minimum of the cost.

Where the least cost at its narrowest width has a closed form, the dynamics measure ``tol`` above it. Elsewhere it is
not known, and waiting for C_min would be waiting for ever: a member that comes near a minimum of its network, refined
and found without negative curvature, has converged when its cost is within ``tol`` of that one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlnphase.costs.quadratic import Cost
from dlnphase.critical import HostCost
from dlnphase.critical.bottleneck import minimum_near
from dlnphase.critical.manifold import Frame, LowRank
from dlnphase.dynamics import Record
from dlnphase.dynamics.state import Fixed, State
from dlnphase.dynamics.step_control import yardstick
from dlnphase.networks.chain import Network
from dlnphase.training.ends import Ends

NEARLY = 1e-2  # part of ∇C along the modes that there is room for, below which a minimum may be near
AGAIN = 10.0  # by how much that part falls between two searches


@dataclass(slots=True, init=False, eq=False, repr=False)
class NarrowEnds(Ends):
    """Ends members that have come to a minimum that their width allows, as they come.

    Args:
        network: the start of the run.
        tol: as for the dynamics, a share of what lies above that minimum at the start, or at A = 0 where that is less.
    """

    def __init__(self, network: Network, cost: Cost, tol: float) -> None:
        width = min(network.dims)
        self._ends = []
        if tol > 0 and width < min(cost.shape):
            host = HostCost(cost)
            self._ends = [_End(host, width, tol, float(first)) for first in cost.excess(network.product())]


@dataclass(slots=True, init=False, eq=False, repr=False)
class _End(State):
    """The minimum of one member, once it is near one."""

    host: Fixed[HostCost]
    width: Fixed[int]
    tol: Fixed[float]
    first: Fixed[float]
    at_zero: Fixed[float]
    next_search: float
    least: float | None

    def __init__(self, host: HostCost, width: int, tol: float, first: float) -> None:
        self.host, self.width, self.tol, self.first = host, width, tol, first
        self.at_zero = host.excess(np.zeros(host.shape))
        self.next_search = NEARLY
        self.least = None

    def reached(self, record: Record, i: int) -> bool:
        """Whether A of member i is at a minimum that the width allows, as far as ``tol`` tells."""
        a, excess = record.A[i], float(record.excess[i])
        if not np.isfinite(a).all():
            return False
        if self.least is None:
            self._search(a)
        if self.least is None:
            return False
        enough = self.tol * yardstick(self.first - self.least, self.at_zero - self.least)
        if excess - self.least < -enough:  # it was not there that the path was going
            self.least = None
            return False
        return excess - self.least <= enough

    def _search(self, a: np.ndarray) -> None:
        flat = self.host.lengths.flat(a)
        g = self.host.flat_gradient(flat)
        whole = float(np.linalg.norm(g))
        part = float(np.linalg.norm(Frame(LowRank.of(flat, self.width)).coordinates(g))) / whole if whole else np.inf
        if part <= self.next_search:
            self.next_search = part / AGAIN
            point = minimum_near(a, self.host, self.width)
            self.least = None if point is None else self.host.excess(point.A)

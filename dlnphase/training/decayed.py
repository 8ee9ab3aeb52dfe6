"""When a run with weight decay is over, and what of its weights no gradient reaches.

What is minimised is C(A_θ) + (λ/2)‖θ‖², whose least value no formula tells, and for L ≥ 3 has minima of many ranks.
So a member has converged when it comes near a minimum, refined and found without negative curvature, and what is
minimised is within ``tol`` of its value there. For L ≥ 3 a path may pass a minimum on its way: it is trapped only where
what is left of the other modes can no longer grow. A mode of −∇C of size s across the learned ones feeds weights that
carry nothing yet, no layer of them larger than c, at a rate of at most s·c^(L−2), and they decay at the rate λ.

A reduced network lacks weights that no gradient reaches. They decay as e^(−λt), with a step η as (1 − ηλ)^k, and all
they do is add to ‖θ‖² and to ‖∇‖.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlnphase.costs.interface import ConvexCost
from dlnphase.critical import HostCost, refine_matrix
from dlnphase.critical.decay import Decay
from dlnphase.critical.matrix import is_decayed_minimum
from dlnphase.dynamics import Record
from dlnphase.dynamics.state import Fixed, State
from dlnphase.dynamics.step_control import yardstick
from dlnphase.setup.resolved import Algorithm
from dlnphase.training.ends import Ends

NEARLY = 1e-2  # share of its largest value below which ‖∇‖ may be that near a minimum
AGAIN = 10.0  # by how much it falls between two searches


@dataclass(frozen=True)
class Unreached:
    """The weights of reduced networks that gradients do not reach.

    Attributes:
        square_norm: of them at the start, shape (B,).
        rate: λ.
        descent: the discrete algorithm, None for a flow.
    """

    square_norm: np.ndarray
    rate: float
    descent: Algorithm | None = None

    def share(self, time: np.ndarray, step: np.ndarray) -> np.ndarray:
        """What is left of each of them after this time, or after so many steps, as a share."""
        if self.descent is None:
            return np.asarray(np.exp(-self.rate * time))
        return self.descent.update.left(self.descent.lr, self.rate, step)

    def complete(self, record: Record) -> None:
        """Add what they are to a record."""
        left = self.square_norm[record.members] * self.share(record.time, record.step) ** 2
        record.penalty = record.penalties + 0.5 * self.rate * left
        record.gradient_norm = np.hypot(record.gradient_norm, self.rate * np.sqrt(left))


@dataclass(slots=True, init=False, eq=False, repr=False)
class DecayedEnds(Ends):
    """Completes the records of a run with weight decay, and ends members that have come to a minimum.

    Args:
        cost: of the run.
        decay: λ and L.
        width: of the narrowest layer.
        tol: share of what lies above the minimum at the start, or of C(0) − C_min where that is less; 0: never.
        unreached: by the networks as they are held.
    """

    unreached: Fixed[Unreached]

    def __init__(self, cost: ConvexCost, decay: Decay, width: int, tol: float, unreached: Unreached) -> None:
        self.unreached = unreached
        host = HostCost(cost, decay)
        self._ends = [_End(host, decay, width, tol) for _ in unreached.square_norm]

    def end(self, record: Record) -> None:
        """Complete the record, and write ``converged`` to members that are there; before anybody else looks at it."""
        self.unreached.complete(record)
        Ends.end(self, record)


@dataclass(slots=True, init=False, eq=False, repr=False)
class _End(State):
    """The minimum of one member, once it is near one."""

    host: Fixed[HostCost]
    decay: Fixed[Decay]
    width: Fixed[int]
    tol: Fixed[float]
    first: float | None
    largest: float
    next_search: float
    least: float | None
    minimum: np.ndarray | None
    rank: int
    next_mode: float

    def __init__(self, host: HostCost, decay: Decay, width: int, tol: float) -> None:
        self.host, self.decay, self.width, self.tol = host, decay, width, tol
        self.first, self.largest, self.next_search = None, 0.0, np.inf
        self.least, self.minimum, self.rank, self.next_mode = None, None, 0, 0.0

    def reached(self, record: Record, i: int) -> bool:
        """Whether member i of a record is at a minimum, as far as ``tol`` tells, and will stay."""
        a, norm = record.A[i], float(record.gradient_norm[i])
        objective = float(record.excess[i] + record.penalties[i])
        if self.tol == 0 or not (np.isfinite(a).all() and np.isfinite(objective)):
            return False
        self.first = objective if self.first is None else self.first
        self.largest = max(self.largest, norm)
        if norm <= min(NEARLY * self.largest, self.next_search):  # each search is nearer than the one before
            self.next_search = norm / AGAIN
            self._search(a)
        if self.least is None or self.minimum is None:
            return False
        enough = self.tol * yardstick(self.first - self.least, self.host.excess(np.zeros_like(a)))
        return abs(objective - self.least) <= enough and self._trapped(record.weights(i), self.minimum)

    def _search(self, a: np.ndarray) -> None:
        point = refine_matrix(a, self.host)
        self.least = self.minimum = None
        if is_decayed_minimum(point, self.host, self.width):
            s = np.linalg.svd(point.A, compute_uv=False)[: point.rank]
            self.least, self.minimum = self.host.objective(point.A, s), point.A
            self.rank, self.next_mode = point.rank, point.next_mode

    def _trapped(self, weights: Sequence[np.ndarray], minimum: np.ndarray) -> bool:
        """Whether what is not learned at the minimum has to decay."""
        decay = self.decay
        if decay.depth < 3 or self.next_mode == 0:
            return True
        most = (decay.rate / self.next_mode) ** (1 / (decay.depth - 2))
        return unlearned_size(weights, minimum, self.rank, most) < most


def unlearned_size(weights: Sequence[np.ndarray], a: np.ndarray, rank: int, enough: float) -> float:
    """The largest operator norm of what layers are beside the modes of A, or an upper bound that is below ``enough``.

    Args:
        weights: W_1, …, W_L near a point that makes A, (d_out, d_in), of this rank.
    """
    u, _, vt = np.linalg.svd(a)
    frame, largest = vt[:rank].T, 0.0
    for layer, w in enumerate(weights, 1):
        w = np.asarray(w, dtype=float)
        last = layer == len(weights)
        above = u[:, :rank] if last else np.linalg.qr(w @ frame)[0]
        rest = w - above @ (above.T @ w @ frame) @ frame.T
        bound = float(np.linalg.norm(rest))
        largest = max(largest, bound if bound < enough else float(np.linalg.norm(rest, 2)))
        frame = above
    return largest

"""The greedy low-rank path: what gradient flow does in the limit α → 0 (docs/theory.md, section 6).

From a critical matrix A_k of rank k one channel of size ε is opened in every layer along the top singular pair (u, v)
of −∇C(A_k), and the flow is followed to the next critical point; then again, until ∇C = 0. Each orbit starts from
balanced factors of A_k (balancedness is conserved, and zero in the limit) in a network of k + 1 channels: by rotation
and inclusion that is the orbit in a network of any width, and no round-off can open a further channel.

With weight decay λ a new channel of two layers grows at rate s − λ, and the path ends where no mode has s > λ; its
points are those of C + (λ/2)‖θ‖². For L ≥ 3 the origin is a local minimum whatever λ is: the path stays there.

Times have no limit, every dwell time grows without bound as ε → 0: those recorded are those of this ε. The
matrices visited do have one, and each orbit is run again from a smaller ε to see that it ends in the same matrix.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from dlnphase.costs.quadratic import Cost
from dlnphase.critical.decay import Decay
from dlnphase.critical.hostcost import HostCost
from dlnphase.critical.manifold import equal_leading
from dlnphase.critical.matrix import SAME, MatrixPoint, is_stable, refine_matrix
from dlnphase.dynamics.flow import MAX_STEPS, GradientFlow, solvable
from dlnphase.dynamics.records import Record, Walk
from dlnphase.dynamics.state import Fixed, State
from dlnphase.dynamics.step_control import check_decay
from dlnphase.errors import InputError
from dlnphase.networks.chain import Network
from dlnphase.networks.products import balanced

OPENED = 1e-4  # size ε^L that a new mode starts with, relative to what it will grow into
# An orbit has arrived when ‖∇𝓛‖ has fallen below the first part of its largest value and a stable critical point of
# its rank is within the second of A, in the units of ``MatrixPoint.nearness``; or when ‖∇𝓛‖ is below the third.
NEARLY, CLOSE, ARRIVED = 1e-2, 1e-2, 1e-7
CHECK, CHECK_RTOL = 3.0, 1e-3  # an orbit is checked by starting it from ε over this, followed with this tolerance
HELD = "with weight decay and three layers or more the origin is a local minimum: a start of vanishing size stays there"


@dataclass(frozen=True)
class GreedyPoint:
    """A critical point of the greedy path.

    Attributes:
        point: the critical matrix, refined.
        ties: number of equal leading singular values of ∇C there; above 1 the path branches and one branch is followed.
        independent: whether the orbit that led here ends in the same matrix from a smaller ε; None if not checked.
    """

    point: MatrixPoint
    ties: int
    independent: bool | None

    @property
    def note(self) -> str:
        """The point in words."""
        kind = "minimum" if self.point.next_mode == 0 else "saddle"
        words = f"rank {self.point.rank} {kind}, C = {self.point.cost:.6g}"
        if self.ties > 1:
            words += f"; tie between {self.ties} equal leading modes, one is followed"
        if self.independent is False:
            words += "; depends on epsilon"
        return words


def greedy_path(
    cost: Cost,
    depth: int,
    *,
    width: int | None = None,
    epsilon: float | None = None,
    rtol: float = 1e-4,
    tol: float = 1e-8,
    max_time: float | None = None,
    max_steps: int = MAX_STEPS,
    check: bool = True,
    points: list[GreedyPoint] | None = None,
    weight_decay: float = 0.0,
) -> Iterator[Record]:
    """Follow the greedy path from the origin; yields records of one member like any run, on the CPU in float64.

    Args:
        cost: convex cost on the end-to-end matrix.
        depth: L ≥ 2.
        width: hidden width, which bounds the rank (default min(d_out, d_in)); layers in records have no more channels.
        epsilon: size of a new channel, in units of a layer of the mode that it grows into (default 1e-4^(1/L): the
            path is that of the limit to about one part in ten thousand).
        rtol: of the flow on each orbit.
        tol: stop when C − C_min is at most tol times its value at the origin; 0: stop only where ∇C = 0.
        max_time, max_steps: budgets of the whole path.
        check: run each orbit again from a smaller ε, to see that it ends in the same matrix.
        points: if given, the critical points are appended to it as they are reached, the origin first.
        weight_decay: λ of C(A_θ) + (λ/2)‖θ‖²; ``tol`` has no use then, every end is a minimum of the sum.

    The last record of an orbit carries the critical point in words as its ``note``. The path ends as ``converged`` at a
    minimum (or, where none exists, when C is within tol of its infimum), or where the width leaves no channel to open.

    Raises:
        InputError: for a depth below 2 or an ε outside (0, 0.5].
    """
    yield from GreedyPath(
        cost,
        depth,
        width=width,
        epsilon=epsilon,
        rtol=rtol,
        tol=tol,
        max_time=max_time,
        max_steps=max_steps,
        check=check,
        points=points,
        weight_decay=weight_decay,
    ).records()


@dataclass(slots=True, init=False, eq=False, repr=False)
class GreedyPath(Walk):
    """The greedy path as a walk; arguments as for :func:`greedy_path`.

    Attributes:
        points: the critical points reached so far.
        orbit: the one under way, or None before it begins.
        time, steps, evaluations: spent up to its start.
        over: whether the path has ended.
    """

    cost: Fixed[HostCost]
    depth: Fixed[int]
    epsilon: Fixed[float]
    rtol: Fixed[float]
    tol: Fixed[float]
    max_steps: Fixed[int]
    max_time: Fixed[float]
    channels: Fixed[int]
    check: Fixed[bool]
    points: list[GreedyPoint]
    orbit: _Orbit | None
    time: float
    steps: int
    evaluations: int
    threshold: float
    over: bool

    def __init__(
        self,
        cost: Cost,
        depth: int,
        *,
        width: int | None = None,
        epsilon: float | None = None,
        rtol: float = 1e-4,
        tol: float = 1e-8,
        max_time: float | None = None,
        max_steps: int = MAX_STEPS,
        check: bool = True,
        points: list[GreedyPoint] | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        if depth < 2:
            raise InputError(f"depth: found {depth}, the greedy path needs at least 2 layers")
        epsilon = min(OPENED ** (1 / depth), 0.5) if epsilon is None else epsilon
        if not 0 < epsilon <= 0.5:
            raise InputError(f"epsilon: found {epsilon}, expected a number in (0, 0.5]")
        check_decay(weight_decay, 0.0)
        decay = Decay(weight_decay, depth) if weight_decay else None
        self.cost, self.depth, self.epsilon, self.rtol, self.tol = HostCost(cost, decay), depth, epsilon, rtol, tol
        self.max_steps, self.max_time, self.check = max_steps, np.inf if max_time is None else max_time, check
        smallest = min(cost.shape)
        self.channels = smallest if width is None else min(width, smallest)
        self.points, self.orbit = points if points is not None else [], None
        self.time, self.steps, self.evaluations, self.threshold, self.over = 0.0, 0, 0, 0.0, False

    def rounds(self) -> Iterator[list[Record]]:
        """From the origin to the minimum; the check of an orbit belongs to its last round."""
        if not self.points:
            here = self._arrive(np.zeros(self.cost.shape), None)
            # With weight decay the path ends at critical points alone.
            self.threshold = -np.inf if self.cost.decay else self.tol * self.cost.excess(here.point.A)
            self.points.append(here)
            if self._final(here):
                self.over = True
                yield [self._still(here)]
        while not self.over:
            self.orbit = self.orbit or _Orbit(self, self.points[-1].point)
            for record, arrived in self.orbit.records():
                yield [self._told(record, arrived)]

    def resume(self, state: dict[str, Any]) -> None:
        """Set up the orbit that the state says is under way, and go on with it."""
        orbit, points = state["orbit"], state["points"]
        State.resume(self, state | {"orbit": None, "points": self.points})
        self.points[:] = [GreedyPoint(**(point | {"point": MatrixPoint(**point["point"])})) for point in points]
        if orbit is not None:
            self.orbit = _Orbit(self, self.points[-1].point)
            self.orbit.resume(orbit)

    def _told(self, record: Record, arrived: bool) -> Record:
        """A record of an orbit as one of the path; the last one says where the orbit has led."""
        told = self._shifted(record, arrived)
        if not arrived:
            self.over = told.reasons[0] is not None
            return told
        if not self.cost.attained and self.cost.decay is None and float(told.excess[0]) <= self.threshold:
            told.note = f"no minimum exists: C is within tol of its infimum, at rank {self.points[-1].point.rank + 1}"
            told.reasons, self.over = ["converged"], True
            return told
        before, a = self.points[-1].point, told.A[0]
        here = self._arrive(a, self._same_from_smaller(before, a) if self.check else None)
        self.time, self.steps, self.evaluations = (float(told.time[0]), int(told.step[0]), int(told.evaluations[0]))
        self.points.append(here)
        moved = self._objective(before) - self._objective(here.point)
        final = self._final(here)
        stuck = not here.point.converged or moved <= 0
        told.note = here.note if here.point.converged else "the orbit ends near no critical point"
        told.reasons = ["converged" if final else "diverged" if stuck else None]
        self.orbit, self.over = None, final or stuck
        return told

    def _arrive(self, a: np.ndarray, independent: bool | None) -> GreedyPoint:
        point = refine_matrix(a, self.cost)
        s = np.linalg.svd(self.cost.gradient(point.A), compute_uv=False)
        ties = equal_leading(s) if point.next_mode > 0 and not self._held else 0
        return GreedyPoint(point, ties, independent)

    def _final(self, here: GreedyPoint) -> bool:
        done = here.point.next_mode == 0 or self.cost.excess(here.point.A) <= self.threshold
        return done or here.point.rank >= self.channels or self._held

    @property
    def _held(self) -> bool:
        """Whether weight decay keeps every channel shut."""
        return self.cost.decay is not None and self.depth > 2

    def _objective(self, point: MatrixPoint) -> float:
        return self.cost.objective(point.A, np.linalg.svd(point.A, compute_uv=False)[: point.rank])

    def _same_from_smaller(self, start: MatrixPoint, reached: np.ndarray) -> bool | None:
        """Whether the orbit from a smaller ε ends in the same matrix; None where it was cut short of an end."""
        orbit = _Orbit(self, start, again=True)
        ((last, arrived),) = deque(orbit.records(), maxlen=1)
        if not arrived and last.reasons[0] is not None:
            return None
        first, second = refine_matrix(reached, self.cost).A, refine_matrix(last.A[0], self.cost).A
        return bool(np.linalg.norm(first - second) <= SAME * np.linalg.norm(first))

    def _shifted(self, record: Record, arrived: bool) -> Record:
        """A record of one orbit as one of the path: time and work go on, layers have a fixed number of channels."""
        weights = record.weights
        return replace(
            record,
            time=self.time + record.time,
            step=self.steps + record.step,
            evaluations=self.evaluations + record.evaluations,
            reasons=[None] if arrived else list(record.reasons),
            weights=lambda i: _padded(weights(i), self.channels),
        )

    def _still(self, here: GreedyPoint) -> Record:
        """The record of a path that ends where it starts: the origin is a minimum."""
        (d_out, d_in), zero, none = self.cost.shape, np.zeros(1), np.zeros(1, dtype=int)
        layers = [np.zeros((n, m)) for m, n in pairwise((d_in, *[self.channels] * (self.depth - 1), d_out))]
        excess, note = np.array([self.cost.excess(here.point.A)]), HELD if self._held else here.note
        columns, penalty = (none, zero, none, none, excess, zero, here.point.A[None]), zero if self.cost.decay else None
        return Record(*columns, ["converged"], lambda i: layers, note, penalty=penalty)


@dataclass(slots=True, init=False, eq=False, repr=False)
class _Orbit(State):
    """The flow of a path out of one critical matrix, one channel opened, in what is left of its steps and its time.

    With ``again`` it is the check: from a smaller ε, followed with a wider tolerance.

    Attributes:
        largest: ‖∇𝓛‖ so far.
        next_look: ‖∇𝓛‖ from which it is worth to look for the next critical matrix again.
    """

    cost: Fixed[HostCost]
    rank: Fixed[int]
    threshold: Fixed[float]
    flow: GradientFlow
    largest: float
    next_look: float

    def __init__(self, path: GreedyPath, start: MatrixPoint, *, again: bool = False) -> None:
        cost = path.cost
        epsilon, rtol = (path.epsilon / CHECK, max(path.rtol, CHECK_RTOL)) if again else (path.epsilon, path.rtol)
        left = None if np.isinf(path.max_time) else max(path.max_time - path.time, np.finfo(float).tiny)
        # The new channel is far above round-off, and the directions that carry exactly nothing have no frame to align.
        self.flow = GradientFlow(
            Network.of_arrays(opened(start, cost, path.depth, epsilon)),
            cost.cost,
            rtol=rtol,
            tol=0.0,
            max_steps=max(path.max_steps - (0 if again else path.steps), 1),
            max_time=left,
            method="stiff" if solvable(cost.cost) and cost.decay is None else "stabilised",
            align_frames=False,
            weight_decay=0.0 if cost.decay is None else cost.decay.rate,
        )
        self.cost, self.rank, self.threshold = cost, start.rank + 1, path.threshold
        self.largest, self.next_look = 0.0, np.inf

    def records(self) -> Iterator[tuple[Record, bool]]:
        """Records, and whether the next critical matrix has been reached, up to there or to where the flow ends."""
        for record in self.flow.records():
            norm = float(record.gradient_norm[0])
            self.largest = max(self.largest, norm)
            arrived = norm <= ARRIVED * self.largest or float(record.excess[0]) <= self.threshold
            if not arrived and norm <= NEARLY * self.largest and norm <= self.next_look:
                arrived, self.next_look = self._close(record.A[0]), norm / 3
            yield record, arrived
            if arrived:
                return

    def _close(self, a: np.ndarray) -> bool:
        point = refine_matrix(a, self.cost, rank=self.rank)
        return point.converged and point.nearness <= CLOSE and is_stable(point, self.cost)


def opened(point: MatrixPoint, cost: HostCost, depth: int, epsilon: float) -> list[np.ndarray]:
    """Balanced factors of a critical matrix of rank k with one new channel along the top singular pair of −∇C.

    Args:
        epsilon: size of the channel in each layer, in units of a layer of the mode that it will grow into.

    Returns:
        W_1, …, W_L with k + 1 hidden channels.
    """
    k = point.rank
    u, s, vt = np.linalg.svd(point.A, full_matrices=False)
    x, g, yt = np.linalg.svd(-cost.gradient(point.A), full_matrices=False)
    pair, slope = np.outer(x[:, 0], yt[0]), float(g[0]) - cost.first
    size = cost.mode_size(point.A, pair, slope, slope) ** (1 / depth)
    channels = np.append(s[:k] ** (1 / depth), epsilon * size)
    right, left = np.column_stack([vt[:k].T, yt[0]]), np.column_stack([u[:, :k], x[:, 0]])
    return balanced([right, *[np.eye(k + 1)] * (depth - 1), left], channels)


def _padded(weights: list[np.ndarray], channels: int) -> list[np.ndarray]:
    """The same network with this many hidden channels, the new ones zero (inclusion)."""
    sizes = (weights[0].shape[1], *[channels] * (len(weights) - 1), weights[-1].shape[0])
    pairs = zip(weights, sizes[1:], sizes, strict=False)
    return [np.pad(w, ((0, above - w.shape[0]), (0, below - w.shape[1]))) for w, above, below in pairs]

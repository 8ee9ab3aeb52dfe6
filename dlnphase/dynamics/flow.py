"""Gradient flow θ̇ = −∇𝓛(θ), integrated with error control from initialisation to the minimum.

The driver owns time, step sizes, frames and the reasons to stop; how one step is taken is the method's
business (``rosenbrock`` or ``dormand_prince``). Every member of a batch has its own time and step size
and leaves the batch when it is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from dlnphase.costs import Cost
from dlnphase.dynamics import dormand_prince, rosenbrock
from dlnphase.dynamics.frames import (
    Frames,
    align,
    has_empty_ends,
    inverse_sizes,
    learned_directions,
    scaled_norm,
)
from dlnphase.dynamics.records import Record
from dlnphase.dynamics.stiff_solver import Point
from dlnphase.errors import InputError
from dlnphase.network import Network

METHODS: dict[str, ModuleType] = {"stiff": rosenbrock, "explicit": dormand_prince}
ALIGN_EVERY = 4  # steps between two alignments of the frames
SAFETY, SHRINK, GROW = 0.9, 0.2, 4.0  # step-size control: margin, and the least and largest change in one step
FIRST_STEP = 0.05  # first step, as a fraction of the time in which θ changes by its own size
END_OF_TIME = 1e100  # a flow that has not converged by then never will
MAX_STEPS = 200_000
STALL = 2500  # steps without any change of the excess cost after which round-off, not the flow, sets the step
STALL_CHANGE = 1e-6
DEEP = 1e-3  # h times the round-off of ∇C from which frames are aligned after every step
EXACT_BELOW = 1e-6  # tolerances from which errors are measured layer by layer, as they are on deep plateaus
SMALLEST_STEP = 1e-250
LARGEST_SOLVE = 4096  # D above which the D × D solve of the stiff method is refused
PER_MEMBER = (
    "members",
    "time",
    "time_rest",
    "h",
    "last_h",
    "last_ratio",
    "steps",
    "evaluations",
    "next_output",
    "rejected",
    "threshold",
    "last_excess",
    "last_change",
)


@torch.no_grad()  # as a decorator: inside, grad mode would stay off in the caller between two records
def gradient_flow(
    network: Network,
    cost: Cost,
    *,
    rtol: float = 1e-4,
    max_time: float | None = None,
    tol: float = 1e-8,
    max_steps: int = MAX_STEPS,
    output_times: Sequence[float] | None = None,
    method: str = "stiff",
    align_frames: bool = True,
) -> Iterator[Record]:
    """Follow gradient flow from a batch of networks; yields a record of every member that took a step.

    Args:
        network: where to start; not modified.
        cost: convex cost on the end-to-end matrix.
        rtol: error allowed in one step, relative to the size of each pair of aligned directions.
        max_time: stop there (reason ``max_time``); None: no limit short of ``END_OF_TIME``.
        tol: stop (reason ``converged``) when C − C_min is at most tol times its first value; 0 = never.
            C_min is the minimum over matrices that fit through the narrowest layer, where that is known.
        max_steps: accepted steps before reason ``max_steps``.
        output_times: increasing times at which a step must end, so that a record lies exactly there.
        method: ``stiff`` (ROS34PW2 on the Gauss–Newton part) or ``explicit`` (Dormand–Prince 5(4)).
        align_frames: False keeps the frame of the start; small modes then drown in the round-off of large ones.

    Raises:
        InputError: for an unknown method, or a matrix too large for the stiff one.
    """
    if method not in METHODS:
        raise InputError(f"method: found {method!r}, expected one of {', '.join(METHODS)}")
    size = network.shape[0] * network.shape[1]
    if method == "stiff" and size > LARGEST_SOLVE:
        raise InputError(
            f"method: the stiff method solves systems of size d_out·d_in = {size}, above {LARGEST_SOLVE}; use explicit"
        )
    flow = _Flow(network, cost, METHODS[method], rtol, align_frames)
    flow.limits(tol, max_time, max_steps, output_times)
    yield from flow.run()


class _Flow:
    """The state of a batch under way."""

    def __init__(self, network: Network, cost: Cost, method: ModuleType, rtol: float, aligned: bool) -> None:
        like = network.theta
        self.cost, self.method, self.rtol, self.aligned = cost, method, rtol, aligned
        self.network = network.clone()
        self.frames = Frames.identity(network, cost)
        self.growing = has_empty_ends(network)
        self.members = np.arange(network.batch)
        self.time = np.zeros(network.batch)
        self.time_rest = np.zeros(network.batch)
        self.h = np.full(network.batch, np.nan)
        self.last_h = np.full(network.batch, np.nan)
        self.last_ratio = np.ones(network.batch)
        self.steps = np.zeros(network.batch, dtype=np.int64)
        self.evaluations = np.zeros(network.batch, dtype=np.int64)
        self.next_output = np.zeros(network.batch, dtype=np.int64)
        self.rejected = np.zeros(network.batch, dtype=bool)
        self.last_excess = np.zeros(network.batch)
        self.last_change = np.zeros(network.batch, dtype=np.int64)
        self.like = like
        self._new_frame()

    def limits(self, tol: float, max_time: float | None, max_steps: int, output_times: Sequence[float] | None) -> None:
        """When to stop, and where steps must end."""
        self.tol, self.max_steps = tol, max_steps
        self.max_time = END_OF_TIME if max_time is None else max_time
        outputs = np.asarray(() if output_times is None else output_times, dtype=float)
        if (np.diff(outputs) <= 0).any() or (outputs < 0).any():
            raise InputError("output_times: expected increasing times of at least 0")
        self.outputs = np.append(outputs[outputs > 0], np.inf)
        reachable = self.cost.minimum_at_rank(min(self.network.dims))
        self.offset = 0.0 if reachable is None else reachable - self.cost.minimum
        self.threshold: np.ndarray | None = None

    def run(self) -> Iterator[Record]:
        count = 0
        point = self._point()
        self.evaluations += 1
        while True:
            record = self._record(point)
            if self.threshold is None:
                self.threshold = self.tol * (record.excess - self.offset)
            self._watch(record)
            record.reasons = self._reasons(record)
            yield record
            keep = np.array([r is None for r in record.reasons])
            if not keep.any():
                return
            if not keep.all():
                self._select(keep)
                point = self._point()
            point = self._advance(point)
            count += 1
            deep = self._deep()
            if self.aligned and (count % ALIGN_EVERY == 0 or deep):
                if align(self.network, self.frames, settled=deep):
                    self.framed.measure_noise(self.network.product())
                    self.learned = learned_directions(self.network, self.frames)
                    self._new_scale()
                    point = self._point()
                else:
                    self._new_scale()

    # ---- one step --------------------------------------------------------------------------
    def _advance(self, point: Point) -> Point:
        """Try steps until at least one member has moved; members that were rejected stay where they are."""
        if np.isnan(self.h).any():
            rate = self._host(scaled_norm(point.slope, self.network.dims, self.scales))
            with np.errstate(divide="ignore"):
                self.h = np.where(rate > 0, FIRST_STEP / rate, END_OF_TIME)
        while True:
            end = np.minimum(self.max_time, self.outputs[self.next_output])
            room = (end - self.time) - self.time_rest
            lands = self.h >= room * (1 - 1e-12)
            h = np.where(lands, room, self.h)
            exact = self.rtol < EXACT_BELOW or self._deep()
            theta, error = self.method.step(point, self.framed, self._tensor(h), self.scales, exact, self.growing)
            self.evaluations += self.method.STAGES
            accepted = self._control(h, self._host(error) / self.rtol, lands)
            if accepted.any() or (self.h < SMALLEST_STEP).any():
                break
        self._tick(accepted, h, lands, end)
        if accepted.all():
            self.network = self.network.with_theta(theta)
        else:
            mask = torch.as_tensor(accepted, device=theta.device).unsqueeze(-1)
            self.network = self.network.with_theta(torch.where(mask, theta, self.network.theta))
        return self._point()

    def _control(self, h: np.ndarray, ratio: np.ndarray, lands: np.ndarray) -> np.ndarray:
        """Accept or reject, and set the next step sizes (predictive controller, Gustafsson 1994).

        Escapes are explosive: the step that is right now is too large next time. The prediction
        extrapolates the trend of step sizes and errors, and so avoids most rejections.
        """
        bad = ~np.isfinite(ratio)
        ratio = np.where(bad, np.inf, np.maximum(ratio, 1e-10))
        accepted = ratio <= 1.0
        power = 1.0 / (self.method.EMBEDDED_ORDER + 1)
        plain = SAFETY * ratio**-power
        with np.errstate(invalid="ignore"):
            predicted = plain * (h / self.last_h) * (self.last_ratio / ratio) ** power
        usable = accepted & ~self.rejected & np.isfinite(predicted)
        factor = np.where(usable, np.minimum(plain, predicted), plain)
        factor = np.clip(np.where(bad, SHRINK, factor), SHRINK, np.where(self.rejected, 1.0, GROW))
        # A step cut short by an output time says nothing about how far the next one may go.
        self.h = np.where(accepted & lands, np.maximum(h * factor, self.h), h * factor)
        self.last_h = np.where(accepted, h, self.last_h)
        self.last_ratio = np.where(accepted, np.maximum(ratio, 1e-2), self.last_ratio)
        self.rejected = ~accepted
        return accepted

    def _tick(self, accepted: np.ndarray, h: np.ndarray, lands: np.ndarray, end: np.ndarray) -> None:
        """Advance the clocks. A burst can be shorter than one unit in the last place of t: the rest is kept apart."""
        added = self.time_rest + h
        time = self.time + added
        rest = added - (time - self.time)
        self.time = np.where(accepted, np.where(lands, end, time), self.time)
        self.time_rest = np.where(accepted, np.where(lands, 0.0, rest), self.time_rest)
        self.next_output += accepted & (self.time >= self.outputs[self.next_output])
        self.steps += accepted

    # ---- records ---------------------------------------------------------------------------
    def _record(self, point: Point) -> Record:
        frames, network = self.frames, self.network
        return Record(
            members=self.members,
            time=self.time,
            step=self.steps,
            evaluations=self.evaluations.copy(),
            excess=point.excess.cpu().numpy().astype(float),
            gradient_norm=self._host(point.gradient_norm()),
            A=self.framed.original(point.a).cpu().numpy().astype(float),
            reasons=[],
            weights=lambda i: [w.cpu().numpy() for w in frames.to_original(network, i)],
        )

    def _watch(self, record: Record) -> None:
        """Note at which step each member's excess cost last changed."""
        changed = abs(record.excess - self.last_excess) > STALL_CHANGE * self.last_excess
        self.last_excess = np.where(changed, record.excess, self.last_excess)
        self.last_change = np.where(changed, self.steps, self.last_change)

    def _reasons(self, record: Record) -> list[str | None]:
        assert self.threshold is not None
        out: list[str | None] = []
        for i in range(len(self.members)):
            reason = None
            if not np.isfinite(record.excess[i]) or self.h[i] < SMALLEST_STEP:
                reason = "diverged"
            elif self.tol > 0 and record.excess[i] - self.offset <= self.threshold[i]:
                reason = "converged"
            elif self.steps[i] - self.last_change[i] > STALL:
                reason = "precision_floor"
            elif self.time[i] >= self.max_time:
                reason = "max_time"
            elif self.steps[i] >= self.max_steps:
                reason = "max_steps"
            out.append(reason)
        return out

    def _point(self) -> Point:
        return Point(self.network, self.framed, self.learned)

    def _deep(self) -> bool:
        """Whether a step multiplies round-off of ∇C to something that could be seen."""
        noise = self.framed.noise
        return noise is not None and bool((self.h * noise.amax((-2, -1)).cpu().numpy() > DEEP).any())

    # ---- frames, scales, batches -----------------------------------------------------------
    def _new_frame(self) -> None:
        self.framed = self.frames.cost
        self.learned = learned_directions(self.network, self.frames)
        self._new_scale()

    def _new_scale(self) -> None:
        self.scales = inverse_sizes(self.network)

    @staticmethod
    def _host(values: Tensor) -> np.ndarray:
        return values.cpu().numpy().astype(float)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=self.like.dtype, device=self.like.device)

    def _select(self, keep: np.ndarray) -> None:
        index = torch.as_tensor(np.flatnonzero(keep), device=self.like.device)
        self.network = self.network.select(index)
        self.frames = self.frames.select(index)
        for name in PER_MEMBER:
            setattr(self, name, getattr(self, name)[keep])
        self._new_frame()

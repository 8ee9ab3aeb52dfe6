"""Gradient flow θ̇ = −∇𝓛(θ), integrated with error control from initialisation to the minimum.

Each member starts by itself, with explicit steps, for as long as its path is mild (``mild``). What is left goes on as
one batch under the driver of this file, which owns time, frames and the reasons to stop; how one step is taken is the
method's business (``rosenbrock`` or ``dormand_prince``). Every member has its own time and step size and leaves the
batch when it is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from dlnphase.costs.quadratic import Cost
from dlnphase.dynamics.frames import (
    Frames,
    align,
    has_empty_ends,
    inverse_sizes,
    learned_directions,
    scaled_norm,
)
from dlnphase.dynamics.mild import Handover, Mild
from dlnphase.dynamics.records import Record
from dlnphase.dynamics.side_by_side import parts, side_by_side
from dlnphase.dynamics.step_control import END_OF_TIME, FIRST_STEP, SMALLEST_STEP, STALL_CHANGE, Limits, StepControl
from dlnphase.dynamics.steppers import dormand_prince, rosenbrock
from dlnphase.dynamics.steppers.stiff_solver import Point
from dlnphase.errors import InputError
from dlnphase.networks.chain import Network

METHODS = ("auto", "stiff", "stabilised", "explicit")
ALIGN_EVERY = 4  # steps between two alignments of the frames
MAX_STEPS = 200_000
DEEP = 1e-3  # h times the round-off of ∇C from which frames are aligned after every step
EXACT_BELOW = 1e-6  # tolerances from which errors are measured layer by layer, as they are on deep plateaus
LARGEST_SOLVE = 4096  # D above which the D × D solve of the stiff method is refused
PER_MEMBER = (
    "members",
    "time",
    "time_rest",
    "steps",
    "evaluations",
    "next_output",
    "threshold",
    "ceiling",
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
    method: str = "auto",
    align_frames: bool = True,
) -> Iterator[Record]:
    """Follow gradient flow from a batch of networks; yields a record of every member that took a step.

    Args:
        network: where to start; not modified.
        cost: convex cost on the end-to-end matrix.
        rtol: error allowed in one step, relative to the size of each pair of aligned directions.
        max_time: stop there (reason ``max_time``); None: no limit short of ``END_OF_TIME``.
        tol: stop (reason ``converged``) when C − C_min is at most tol times its value at the start, or at A = 0 where
            that is less; 0 = never. The last step is cut to end where that happens.
            C_min is the minimum over matrices that fit through the narrowest layer, where that is known.
        max_steps: accepted steps before reason ``max_steps``.
        output_times: increasing times at which a step must end, so that a record lies exactly there.
        method: ``auto`` takes stabilised explicit steps while the path is mild and stiff ones from then on, where D × D
            systems are worth solving (not for large D, nor for costs whose data is in their Hessian). One of them
            alone: ``stabilised`` (order 4, explicit, any D) or ``stiff`` (ROS34PW2 on the Gauss–Newton part);
            ``explicit`` is Dormand–Prince 5(4), an independent check.
        align_frames: False keeps the stiff method in the frame of the start; small modes then drown in the round-off
            of large ones.

    Raises:
        InputError: for an unknown method, or a matrix too large for the stiff one.
    """
    if method not in METHODS:
        raise InputError(f"method: found {method!r}, expected one of {', '.join(METHODS)}")
    size = network.shape[0] * network.shape[1]
    if method == "stiff" and size > LARGEST_SOLVE:
        raise InputError(
            f"method: the stiff method solves systems of size d_out·d_in = {size}, above {LARGEST_SOLVE}; "
            "use auto or stabilised"
        )
    limits = Limits.of(cost, network, tol, max_time, max_steps, output_times)
    rest: list[int] = list(range(network.batch))
    states: dict[int, Handover] = {}
    if method in ("auto", "stabilised"):
        for member in rest:
            mild = Mild(network, member, cost, rtol, limits, to_the_end=method == "stabilised" or not solvable(cost))
            yield from mild.run()
            if mild.handover is not None:
                states[member] = mild.handover
        rest = list(states)
    flows = []
    for members in parts(rest, network.theta.device):
        stepper = dormand_prince if method == "explicit" else rosenbrock
        flow = _Flow(network.select(members), cost, stepper, rtol, align_frames, limits)
        flow.members = np.array(members)
        if states:
            flow.take_over([states[member] for member in members])
        flows.append(flow.run())
    yield from side_by_side(flows)


def solvable(cost: Cost) -> bool:
    """Whether D × D systems with the Hessian of a cost are worth solving at every step."""
    d_out, d_in = cost.shape
    return d_out * d_in <= LARGEST_SOLVE and not getattr(cost, "by_products", False)


class _Flow:
    """The state of a batch under way."""

    def __init__(
        self, network: Network, cost: Cost, method: ModuleType, rtol: float, aligned: bool, limits: Limits
    ) -> None:
        like = network.theta
        self.cost, self.method, self.rtol, self.aligned, self.limits = cost, method, rtol, aligned, limits
        self.network = network.clone()
        self.frames = Frames.identity(network, cost)
        self.growing = has_empty_ends(network)
        self.members = np.arange(network.batch)
        self.time = np.zeros(network.batch)
        self.time_rest = np.zeros(network.batch)
        self.control = StepControl(network.batch, method.EMBEDDED_ORDER)
        self.steps = np.zeros(network.batch, dtype=np.int64)
        self.evaluations = np.zeros(network.batch, dtype=np.int64)
        self.next_output = np.zeros(network.batch, dtype=np.int64)
        self.threshold = np.full(network.batch, np.nan)
        self.ceiling = np.full(network.batch, np.inf)
        self.last_excess = np.full(network.batch, np.inf)
        self.last_change = np.zeros(network.batch, dtype=np.int64)
        self.like = like
        self.told = False
        self._new_frame()

    def take_over(self, states: list[Handover]) -> None:
        """Go on from where the mild parts of all members ended; the frames remember how they started."""
        for name, values in (
            ("time", [s.time for s in states]),
            ("steps", [s.steps for s in states]),
            ("evaluations", [s.evaluations for s in states]),
            ("next_output", [s.outputs for s in states]),
            ("threshold", [s.threshold for s in states]),
            ("ceiling", [s.ceiling for s in states]),
            ("last_change", [s.steps for s in states]),
        ):
            setattr(self, name, np.array(values))
        self.network = self.network.with_theta(torch.stack([s.theta for s in states]))
        self.told = True
        if self.aligned:
            align(self.network, self.frames)
        self._new_frame()

    def run(self) -> Iterator[Record]:
        """Records of the start, unless it was told already, and of every step."""
        count = 0
        point = self._point()
        self.evaluations += 1
        while True:
            if not self.told:
                record = self._record(point)
                if count == 0:
                    self.threshold = np.array([self.limits.threshold(e) for e in record.excess])
                    self.ceiling = np.array([self.limits.ceiling(e) for e in record.excess])
                self._watch(record)
                record.reasons = self._reasons(record)
                yield record
                keep = np.array([r is None for r in record.reasons])
                if not keep.any():
                    return
                if not keep.all():
                    self._select(keep)
                    point = self._point()
            self.told = False
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
        control = self.control
        if np.isnan(control.h).any():
            rate = self._host(scaled_norm(point.slope, self.network.dims, self.scales))
            with np.errstate(divide="ignore"):
                control.h = np.where(rate > 0, FIRST_STEP / rate, END_OF_TIME)
        while True:
            end = np.minimum(self.limits.max_time, self.limits.outputs[self.next_output])
            room = (end - self.time) - self.time_rest
            lands = control.h >= room * (1 - 1e-12)
            h = np.where(lands, room, control.h)
            exact = self.rtol < EXACT_BELOW or self._deep()
            theta, error = self.method.step(point, self.framed, self._tensor(h), self.scales, exact, self.growing)
            self.evaluations += self.method.STAGES
            accepted = control.judge(h, self._host(error) / self.rtol, lands)
            there = Point(self.network.with_theta(theta), self.framed, self.learned)
            accepted &= ~self._aims(accepted, point, there, h)
            if accepted.any() or (control.h < SMALLEST_STEP).any():
                break
        self._tick(accepted, h, lands, end)
        if accepted.all():
            self.network = there.network
            return there
        mask = torch.as_tensor(accepted, device=theta.device).unsqueeze(-1)
        self.network = self.network.with_theta(torch.where(mask, theta, self.network.theta))
        return self._point()

    def _aims(self, accepted: np.ndarray, here: Point, there: Point, h: np.ndarray) -> np.ndarray:
        """Which members have stepped past the end of their run; they try again with a step that ends there."""
        out = np.zeros_like(accepted)
        excess = self._host(there.excess)
        past = accepted & (excess - self.limits.offset < self.threshold)
        if past.any():
            ends = [np.stack([self._host(p.excess), self._host(p.gradient_norm())], -1) for p in (here, there)]
            for i in np.flatnonzero(past):
                before, after = (tuple(end[i]) for end in ends)
                aim = self.limits.aim(before, after, float(self.threshold[i]), float(h[i]))
                if aim is not None:
                    self.control.h[i], out[i] = aim, True
        return out

    def _tick(self, accepted: np.ndarray, h: np.ndarray, lands: np.ndarray, end: np.ndarray) -> None:
        """Advance the clocks. A burst can be shorter than one unit in the last place of t: the rest is kept apart."""
        added = self.time_rest + h
        time = self.time + added
        rest = added - (time - self.time)
        self.time = np.where(accepted, np.where(lands, end, time), self.time)
        self.time_rest = np.where(accepted, np.where(lands, 0.0, rest), self.time_rest)
        self.next_output += accepted & (self.time >= self.limits.outputs[self.next_output])
        self.steps += accepted

    # ---- records ---------------------------------------------------------------------------
    def _record(self, point: Point) -> Record:
        frames, network = self.frames, self.network
        return Record(
            members=self.members,
            time=self.time,
            step=self.steps.copy(),
            evaluations=self.evaluations.copy(),
            excess=point.excess.cpu().numpy().astype(float),
            gradient_norm=self._host(point.gradient_norm()),
            A=self.framed.original(point.a).cpu().numpy().astype(float),
            reasons=[],
            weights=lambda i: [w.cpu().numpy() for w in frames.to_original(network, i)],
        )

    def _watch(self, record: Record) -> None:
        """Note at which step each member's excess cost was last lower than ever; a rise is round-off."""
        changed = record.excess < (1 - STALL_CHANGE) * self.last_excess
        self.last_excess = np.where(changed, record.excess, self.last_excess)
        self.last_change = np.where(changed, self.steps, self.last_change)

    def _reasons(self, record: Record) -> list[str | None]:
        idle = self.steps - self.last_change
        bounds = self.threshold, self.ceiling
        each = zip(record.excess, *bounds, self.control.h, idle, self.time, self.steps, strict=True)
        return [self.limits.reason(*values) for values in each]

    def _point(self) -> Point:
        return Point(self.network, self.framed, self.learned)

    def _deep(self) -> bool:
        """Whether a step multiplies round-off of ∇C to something that could be seen."""
        noise = self.framed.noise
        return noise is not None and bool((self.control.h * noise.amax((-2, -1)).cpu().numpy() > DEEP).any())

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
        self.control.select(keep)
        self._new_frame()

"""Gradient flow θ̇ = −∇𝓛(θ) − λθ, integrated with error control from initialisation to the minimum.

Each member starts by itself, with explicit steps, for as long as its path is mild (``mild``). What is left goes on as
one batch under the driver of this file, which owns time, frames and the reasons to stop; how one step is taken is the
method's business (``rosenbrock`` or ``dormand_prince``). Every member has its own time and step size and leaves the
batch when it is done. Between two rounds of steps all that is under way is a state (:class:`GradientFlow`).

With weight decay λ the mild part is all there is: what grows then grows faster than λ, no wait is longer than about
ln(1/α)/λ, and stabilised steps cross it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlnphase.costs.quadratic import Cost, QuadraticCost
from dlnphase.dynamics.clocks import Clocks
from dlnphase.dynamics.framed_cost import FramedCost
from dlnphase.dynamics.frames import Frames, align, learned_directions
from dlnphase.dynamics.records import Record, Walk
from dlnphase.dynamics.sizes import has_empty_ends, inverse_sizes, scaled_norm
from dlnphase.dynamics.stabilised_flow import Handover, StabilisedFlow
from dlnphase.dynamics.state import Fixed, Room, State
from dlnphase.dynamics.step_control import (
    END_OF_TIME,
    FIRST_STEP,
    SMALLEST_STEP,
    STALL_CHANGE,
    Limits,
    StepControl,
    check_decay,
)
from dlnphase.dynamics.steppers import dormand_prince, rosenbrock
from dlnphase.dynamics.steppers.stiff_solver import Point
from dlnphase.dynamics.threads import in_threads, parts
from dlnphase.errors import InputError
from dlnphase.networks.chain import Network

STEPPERS = {"stiff": rosenbrock, "explicit": dormand_prince}  # what takes the steps of a batch
METHODS = ("auto", "stabilised", *STEPPERS)
ALIGN_EVERY = 4  # steps between two alignments of the frames
MAX_STEPS = 200_000
DEEP = 1e-3  # h times the round-off of ∇C from which frames are aligned after every step
EXACT_BELOW = 1e-6  # tolerances from which errors are measured layer by layer, as they are on deep plateaus
LARGEST_SOLVE = 4096  # D above which the D × D solve of the stiff method is refused


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
    weight_decay: float = 0.0,
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
        weight_decay: λ of C(A_θ) + (λ/2)‖θ‖². The methods are ``auto`` and ``stabilised`` then, which do the same: the
            others rest on what the flow conserves without decay. What can be reached is not known beforehand: ``tol``
            has to be 0, and whoever receives the records ends the members.

    Raises:
        InputError: for an unknown method, one that cannot be used with weight decay, ``tol`` beside it, or a matrix
            too large for the stiff one, or for the explicit one where the Hessian of the cost has to be turned.
    """
    flow = GradientFlow(
        network,
        cost,
        rtol=rtol,
        max_time=max_time,
        tol=tol,
        max_steps=max_steps,
        output_times=output_times,
        method=method,
        align_frames=align_frames,
        weight_decay=weight_decay,
    )
    yield from flow.records()


def solvable(cost: Cost) -> bool:
    """Whether D × D systems with the Hessian of a cost are worth solving at every step."""
    d_out, d_in = cost.shape
    return d_out * d_in <= LARGEST_SOLVE and not getattr(cost, "by_products", False)


@dataclass(slots=True, init=False, eq=False, repr=False)
class GradientFlow(Walk):
    """Gradient flow as a walk; arguments as for :func:`gradient_flow`."""

    network: Fixed[Network]
    cost: Fixed[Cost]
    rtol: Fixed[float]
    limits: Fixed[Limits]
    method: Fixed[str]
    aligned: Fixed[bool]
    decay: Fixed[float]
    member: int  # whose mild part is under way, or the next one to start
    mild: StabilisedFlow | None
    handed: dict[int, Handover]
    flows: list[_Flow] | None

    @torch.no_grad()
    def __init__(
        self,
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
        weight_decay: float = 0.0,
    ) -> None:
        check_decay(weight_decay, tol)
        if weight_decay and method not in ("auto", "stabilised"):
            raise InputError(f"method: found {method} with weight_decay, expected auto or stabilised")
        if method not in METHODS:
            raise InputError(f"method: found {method!r}, expected one of {', '.join(METHODS)}")
        size = network.shape[0] * network.shape[1]
        if method == "stiff" and size > LARGEST_SOLVE:
            raise InputError(
                f"method: the stiff method solves systems of size d_out·d_in = {size}, above {LARGEST_SOLVE}; "
                "use auto or stabilised"
            )
        turned = isinstance(cost, QuadraticCost) and not (cost.hessian.is_identity or cost.hessian.of_inputs)
        if method == "explicit" and turned and size > LARGEST_SOLVE:
            turning = f"method: explicit steps turn a Hessian of {size} × {size} numbers along with the frame, above"
            raise InputError(f"{turning} {LARGEST_SOLVE}; use auto or stabilised")
        self.network, self.cost, self.rtol, self.method, self.aligned = network, cost, rtol, method, align_frames
        self.limits = Limits.of(cost, network, tol, max_time, max_steps, output_times)
        self.member, self.mild, self.handed, self.flows, self.decay = 0, None, {}, None, weight_decay

    @torch.no_grad()  # as a decorator: inside, grad mode would stay off in the caller between two records
    def rounds(self) -> Iterator[list[Record]]:
        """One record at a time of each member's mild part; then one of each part of the batch that goes on."""
        while self.method in ("auto", "stabilised") and self.member < self.network.batch:
            mild = self.mild = self.mild or self._mild()
            for record in mild.run():
                yield [record]
            if mild.handover is not None:
                self.handed[self.member] = mild.handover
            self.member, self.mild = self.member + 1, None
        if self.flows is None:
            self.flows = self._flows()
            for flow in self.flows:
                flow.begin(self.handed)
        yield from in_threads([flow.run() for flow in self.flows])

    @torch.no_grad()
    def resume(self, state: dict[str, Any]) -> None:
        """Set up what the state says is under way, and go on with it."""
        mild, flows = state["mild"], state["flows"]
        State.resume(self, state | {"mild": None, "flows": None})
        self.handed = {member: Handover(**values) for member, values in state["handed"].items()}
        if mild is not None:
            self.mild = self._mild()
            self.mild.resume(mild)
        if flows is not None:
            self.flows = self._flows()
            for flow, values in zip(self.flows, flows, strict=True):
                flow.resume(values)

    def _mild(self) -> StabilisedFlow:
        alone = self.method == "stabilised" or self.decay > 0 or not solvable(self.cost)
        given = self.network, self.member, self.cost, self.rtol, self.limits
        return StabilisedFlow(*given, to_the_end=alone, decay=self.decay)

    def _flows(self) -> list[_Flow]:
        """What the mild parts have handed over, in parts, each at its start."""
        rest = list(self.handed) if self.method in ("auto", "stabilised") else list(range(self.network.batch))
        stepper = STEPPERS.get(self.method, rosenbrock)
        return [
            _Flow(self.network.select(members), members, self.cost, stepper, self.rtol, self.aligned, self.limits)
            for members in parts(rest, self.network.theta.device)
        ]


@dataclass(slots=True, init=False, eq=False, repr=False)
class _Flow(State):
    """A batch under way."""

    cost: Fixed[Cost]
    method: Fixed[ModuleType]
    rtol: Fixed[float]
    aligned: Fixed[bool]
    limits: Fixed[Limits]
    growing: Fixed[bool]
    like: Fixed[Tensor]
    network: Network
    frames: Frames
    clocks: Clocks
    control: StepControl
    count: int
    told: bool
    reasons: list[str | None]
    learned: tuple[Tensor, Tensor] | None
    scales: list[Tensor]
    framed: Room[FramedCost]
    point: Room[Point]

    def __init__(
        self,
        network: Network,
        members: list[int],
        cost: Cost,
        method: ModuleType,
        rtol: float,
        aligned: bool,
        limits: Limits,
    ) -> None:
        self.cost, self.method, self.rtol, self.aligned, self.limits = cost, method, rtol, aligned, limits
        self.network, self.like = network.clone(), network.theta
        self.frames = Frames.identity(network, cost)
        self.growing = has_empty_ends(network)
        self.clocks = Clocks.at_start(members)
        self.control = StepControl(network.batch, method.EMBEDDED_ORDER)
        self.count, self.told, self.reasons = 0, False, [None] * network.batch
        self._new_frame()

    def begin(self, states: dict[int, Handover]) -> None:
        """At the start, or from where these members' mild parts ended; the frames remember how they started."""
        if states:
            members = self.clocks.members.tolist()
            self.clocks = Clocks.handed(members, [states[member] for member in members])
            self.network = self.network.with_theta(torch.stack([states[member].theta for member in members]))
            self.told = True
            if self.aligned:
                align(self.network, self.frames)
            self._new_frame()
        self.point = self._point()
        self.clocks.evaluations += 1

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same part of a batch."""
        State.resume(self, state)
        self.framed = self.frames.cost
        self.point = self._point()

    def run(self) -> Iterator[Record]:
        """Records of the start, unless it was told already, and of every step."""
        while self._remain():
            if self.told:
                self._step()
            self.told = True
            yield self._tell()

    def _remain(self) -> bool:
        """Let those leave the batch that ended with the last record; whether any is left."""
        keep = np.array([r is None for r in self.reasons])
        if keep.any() and not keep.all():
            self._select(keep)
            self.point = self._point()
            self.reasons = [None] * int(keep.sum())
        return bool(keep.any())

    def _tell(self) -> Record:
        """The record of where the members stand; its reasons are kept, whoever receives it may end members by them."""
        record, clocks = self._record(self.point), self.clocks
        if self.count == 0:
            clocks.threshold = np.array([self.limits.threshold(e) for e in record.excess])
            clocks.ceiling = np.array([self.limits.ceiling(e) for e in record.excess])
        self._watch(record)
        record.reasons = self.reasons = self._reasons(record)
        return record

    def _step(self) -> None:
        """Move at least one member, and turn the frames where it is time to."""
        self.point = self._advance(self.point)
        self.count += 1
        deep = self._deep()
        if self.aligned and (self.count % ALIGN_EVERY == 0 or deep):
            if align(self.network, self.frames, settled=deep):
                self.framed.measure_noise(self.network.product())
                self.learned = learned_directions(self.network, self.frames)
                self._new_scale()
                self.point = self._point()
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
        end = np.minimum(self.limits.max_time, self.limits.outputs[self.clocks.next_output])
        room = (end - self.clocks.time) - self.clocks.time_rest
        while True:
            lands = control.h >= room * (1 - 1e-12)
            h = np.where(lands, room, control.h)
            exact = self.rtol < EXACT_BELOW or self._deep()
            theta, error = self.method.step(point, self.framed, self._tensor(h), self.scales, exact, self.growing)
            self.clocks.evaluations += self.method.STAGES
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
        past = accepted & (excess - self.limits.offset < self.clocks.threshold)
        if past.any():
            ends = [np.stack([self._host(p.excess), self._host(p.gradient_norm())], -1) for p in (here, there)]
            for i in np.flatnonzero(past):
                before, after = (tuple(end[i]) for end in ends)
                aim = self.limits.aim(before, after, float(self.clocks.threshold[i]), float(h[i]))
                if aim is not None:
                    self.control.h[i], out[i] = aim, True
        return out

    def _tick(self, accepted: np.ndarray, h: np.ndarray, lands: np.ndarray, end: np.ndarray) -> None:
        """Advance the clocks. A burst can be shorter than one unit in the last place of t: the rest is kept apart."""
        added = self.clocks.time_rest + h
        time = self.clocks.time + added
        rest = added - (time - self.clocks.time)
        self.clocks.time = np.where(accepted, np.where(lands, end, time), self.clocks.time)
        self.clocks.time_rest = np.where(accepted, np.where(lands, 0.0, rest), self.clocks.time_rest)
        self.clocks.next_output += accepted & (self.clocks.time >= self.limits.outputs[self.clocks.next_output])
        self.clocks.steps += accepted

    # ---- records ---------------------------------------------------------------------------
    def _record(self, point: Point) -> Record:
        frames, network = self.frames, self.network
        return Record(
            members=self.clocks.members,
            time=self.clocks.time,
            step=self.clocks.steps.copy(),
            evaluations=self.clocks.evaluations.copy(),
            excess=point.excess.cpu().numpy().astype(float),
            gradient_norm=self._host(point.gradient_norm()),
            A=self.framed.original(point.a).cpu().numpy().astype(float),
            reasons=[],
            weights=lambda i: [w.cpu().numpy() for w in frames.to_original(network, i)],
        )

    def _watch(self, record: Record) -> None:
        """Note at which step each member's excess cost was last lower than ever; a rise is round-off."""
        changed = record.excess < (1 - STALL_CHANGE) * self.clocks.last_excess
        self.clocks.last_excess = np.where(changed, record.excess, self.clocks.last_excess)
        self.clocks.last_change = np.where(changed, self.clocks.steps, self.clocks.last_change)

    def _reasons(self, record: Record) -> list[str | None]:
        idle = self.clocks.steps - self.clocks.last_change
        bounds = self.clocks.threshold, self.clocks.ceiling
        each = zip(record.excess, *bounds, self.control.h, idle, self.clocks.time, self.clocks.steps, strict=True)
        by_round_off = ("precision_floor" if undecided else None for undecided in self.frames.undecided.tolist())
        return [self.limits.reason(*values) or other for values, other in zip(each, by_round_off, strict=True)]

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
        self.clocks = self.clocks.select(keep)
        self.control = self.control.select(keep)
        self._new_frame()

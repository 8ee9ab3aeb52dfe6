"""The part of gradient flow that goes on as one batch, member by member in a frame of its own directions.

It owns time, frames and the reasons to stop; how one step is taken is the method's business (a module of steppers/).
Every member has its own time and step size and leaves the batch when it is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlnphase.costs.quadratic import Cost
from dlnphase.dynamics.clocks import Clocks
from dlnphase.dynamics.framed_cost import FramedCost
from dlnphase.dynamics.frames import Frames, align, learned_directions
from dlnphase.dynamics.records import Record
from dlnphase.dynamics.sizes import has_empty_ends, inverse_sizes, scaled_norm
from dlnphase.dynamics.stabilised_flow import Handover
from dlnphase.dynamics.state import Fixed, Room, State
from dlnphase.dynamics.step_control import END_OF_TIME, FIRST_STEP, SMALLEST_STEP, STALL_CHANGE, Limits, StepControl
from dlnphase.dynamics.steppers.stiff_solver import Point
from dlnphase.networks.chain import Network

ALIGN_EVERY = 4  # steps between two alignments of the frames
DEEP = 1e-3  # h times the round-off of ∇C from which frames are aligned after every step
EXACT_BELOW = 1e-6  # tolerances from which errors are measured layer by layer, as they are on deep plateaus


@dataclass(slots=True, init=False, eq=False, repr=False)
class FramedFlow(State):
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

"""The mildly stiff part of a path: one network, stabilised explicit steps, no frames.

A path is mild while its directions differ little in size (no learned mode can drown an unlearned one in its
round-off) and while a step as long as accuracy allows is stable with a few dozen slopes. That is all of a run at
moderate width, and the growth before the first burst at any width. What is not mild is handed over to the stiff method.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlnphase.costs.quadratic import Cost
from dlnphase.dynamics.ends import End
from dlnphase.dynamics.records import Record
from dlnphase.dynamics.stabilised import DORMAND_PRINCE, Chain, Stepper, Tableau, Vector, fitting, tableaux
from dlnphase.dynamics.stabilised.chain import Array
from dlnphase.dynamics.state import Fixed, Room, State
from dlnphase.dynamics.step_control import END_OF_TIME, FIRST_STEP, STALL_CHANGE, Limits, StepControl
from dlnphase.networks.chain import Network

SPREAD = 1e11  # times ε: ratio of the sizes of two directions from which the smaller needs a frame of its own
SINGLE = 1e-3  # that ratio where ε leaves no room for it: single precision is only mild where nobody takes over
PATIENCE = 3500  # slopes spent on one plateau after which the stiff method, which crosses it in a few steps, is cheaper
PLATEAU = 0.01  # a plateau is where the excess cost changes by less than this share
SAFETY = 0.85  # of the step size that the error would allow
RESTS = 0.01  # share of its size by which A has to move before ρ is found anew
REMEASURE = 3  # steps between two measurements of the sizes of directions
UNTROUBLED = 1.5  # h·ρ, a quarter of what the shortest method bears
NOISE = 0.1  # error estimate times curvature, as a share of ‖∇𝓛‖; what reaches ‖∇𝓛‖ is a few per cent of that
DROWNED = 1e3  # round-offs of θ times ϱ that leave nothing of a smaller ‖∇𝓛‖: what eight stages make of one
RESOLUTION = 0.07  # share of its way that A may move in one step: bursts are seen, not jumped over
FASTEST_RISE = 3.0  # of the speed of A from one step to the next, that is expected to repeat itself
CURVATURE_MARGIN = 1.04  # the curvature is an estimate from below


@dataclass(frozen=True)
class Handover:
    """Where the mild part of a path ended: everything the stiff method needs to go on.

    Attributes:
        theta: parameters, shape (P,).
        time, steps, evaluations: of the run so far.
        threshold: excess cost, above the reachable one, at which the run has converged.
        ceiling: excess cost from which it has diverged.
        outputs: number of output times already met.
    """

    theta: Tensor
    time: float
    steps: int
    evaluations: int
    threshold: float
    ceiling: float
    outputs: int


@dataclass(slots=True, init=False, eq=False, repr=False)
class StabilisedFlow(State):
    """The mild part of the path of one member.

    Args:
        network: the whole batch, not modified.
        member: which of it.
        to_the_end: there is nobody to hand over to; steps are kept stable, however many it takes.
        decay: weight decay λ.

    Attributes:
        handover: after :meth:`run`, where the stiff method has to go on, or None where the run is over.
    """

    member: Fixed[int]
    rtol: Fixed[float]
    limits: Fixed[Limits]
    to_the_end: Fixed[bool]
    precise: Fixed[bool]
    floor: Fixed[float]
    tiny: Fixed[float]
    eps: Fixed[float]
    chain: Chain
    stepper: Stepper
    control: StepControl
    method: Fixed[Tableau]  # by its number of stages, see :meth:`state`
    time: float
    steps: int
    evaluations: int
    outputs: int
    last_excess: float
    last_change: int
    plateau_excess: float
    plateau_start: int
    threshold: float
    ceiling: float
    curvature: float
    a: Array
    speed: float
    drift: float
    rise: float
    ends: list[End]
    inner: list[float]
    reasons: list[str | None]
    told: bool
    handover: Room[Handover | None]

    @np.errstate(all="ignore")
    def __init__(
        self,
        network: Network,
        member: int,
        cost: Cost,
        rtol: float,
        limits: Limits,
        *,
        to_the_end: bool = False,
        decay: float = 0.0,
    ) -> None:
        start = network.select([member])
        self.chain = Chain(start, cost, decay)
        self.stepper = Stepper(self.chain, self.chain.array(start.theta[0]))
        self.member, self.rtol, self.limits, self.to_the_end = member, rtol, limits, to_the_end
        spread = SPREAD * torch.finfo(start.theta.dtype).eps
        self.precise, self.floor = spread < 1, min(spread, SINGLE) ** 2
        self.tiny, self.eps = torch.finfo(start.theta.dtype).tiny, torch.finfo(start.theta.dtype).eps
        self.control = StepControl(1, DORMAND_PRINCE.embedded_order, SAFETY)
        self.method = DORMAND_PRINCE
        self.time, self.steps, self.evaluations, self.outputs = 0.0, 0, 1, 0
        self.last_excess, self.last_change = np.inf, 0
        self.plateau_excess, self.plateau_start = 0.0, 0
        self.threshold, self.ceiling = (f(self.stepper.objective) for f in (limits.threshold, limits.ceiling))
        self.curvature, self.a, self.speed, self.drift, self.rise = np.nan, self.chain.a + 0.0, 0.0, np.inf, 1.0
        self.ends, self.inner = [], []
        self.reasons, self.told = [None], False
        self.handover = None

    def state(self) -> dict[str, Any]:
        """With the method in use, 0 for Dormand–Prince."""
        return State.state(self) | {"stages": self.method.stages if self.method.recurrence else 0}

    @np.errstate(all="ignore")
    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same member."""
        stages = state["stages"]
        State.resume(self, {name: value for name, value in state.items() if name != "stages"})
        self.method = next((m for m in tableaux() if m.stages == stages), DORMAND_PRINCE)
        self.ends = [End(**end) for end in state["ends"]]

    def run(self) -> Iterator[Record]:
        """Records of the start, unless it was told already, and of every step, until it is over or no longer mild."""
        if not self.told:
            self.told = True
            yield self._tell(self._reason())
        while self.reasons == [None] and (self.steps == 0 or (self._patient() and (self.to_the_end or self._heard()))):
            moved = self._prepare() and self._advance()
            reason = self._reason() if moved else "diverged"
            if not moved:
                self.stepper.stay()
            if reason in ("diverged", "precision_floor") and not self.to_the_end:
                break
            yield self._tell(reason)
        if self.reasons == [None]:
            self._hand_over()

    def _tell(self, reason: str | None) -> Record:
        """A record of where it stands; its reasons are kept, whoever receives it may end the member by them."""
        record = self._record(reason)
        self.reasons = record.reasons
        return record

    # ---- one step --------------------------------------------------------------------------
    @np.errstate(all="ignore")  # a step too long overflows and is rejected
    def _prepare(self) -> bool:
        """Measure the point and find the method for the step that is wanted; False where the path is no longer mild."""
        age = self.steps % REMEASURE
        # While A rests so does ρ, and where even a ρ several times the last one changes nothing it need not be known.
        stale = self.drift > RESTS * self.chain.size_of(self.a)
        if stale and (age == 0 or not self.control.h[0] * self.curvature < UNTROUBLED):
            self.stepper.measure()
            self.curvature, self.drift = CURVATURE_MARGIN * self.chain.curvature(), 0.0
            if self.steps == 0:  # no step says yet how fast A moves
                self.speed = self.chain.size_of(self.chain.velocity())
        if age == 0 and not self._measure_sizes() and not self.to_the_end:
            return False
        if np.isnan(self.control.h[0]):
            rate = self._relative(self.stepper.slope)
            if not rate > 0:
                return False
            self.control.h[0] = FIRST_STEP / rate
        self.control.h[0] = min(self.control.h[0], self._resolved())
        return self._choose_method()

    def _resolved(self) -> float:
        """The longest step in which A, going on as it did, moves by no more than RESOLUTION of the way it has to go."""
        chain = self.chain
        slope = chain.size_of(chain.g)
        if not slope * self.speed > 0:
            return END_OF_TIME
        return RESOLUTION * (chain.size_of(self.a) + 2 * self.stepper.excess / slope) / (self.speed * self.rise)

    def _choose_method(self) -> bool:
        method = fitting(float(self.control.h[0]) * self.curvature, self.method)
        if method is None and self.to_the_end:
            method = tableaux()[-1]
            self.control.h[0] = method.interval / self.curvature
        if method is not None:
            self.method, self.control.power = method, 1.0 / (method.embedded_order + 1)
        return method is not None

    @np.errstate(all="ignore")
    def _advance(self) -> bool:
        """Try steps until one is accepted; False where none can be found."""
        limits, stepper, control = self.limits, self.stepper, self.control
        end = min(limits.max_time, limits.outputs[self.outputs])
        start = stepper.excess, stepper.size(stepper.slope)
        while True:
            lands = bool(control.h[0] >= (end - self.time) * (1 - 1e-12))
            h = end - self.time if lands else float(control.h[0])
            if not lands and self.time + h == self.time:
                return False
            stepper.attempt(self.method, h)
            self.evaluations += self.method.stages
            ratio = max(self._relative(stepper.error) / self.rtol, self._noise())
            if control.judge(np.array([h]), np.array([ratio]), np.array([lands]))[0]:
                aim = limits.aim(start, (stepper.excess, stepper.new_slope()), self.threshold, h)
                if aim is None or self.time + aim == self.time:
                    break
                control.h[0] = aim
            self._choose_method()
        stepper.accept()
        moved = self.chain.size_of(self.chain.a - self.a)
        speed = moved / h
        self.rise = min(max(speed / self.speed, 1.0), FASTEST_RISE) if self.speed > 0 else 1.0
        self.a, self.speed, self.drift = self.chain.a + 0.0, speed, self.drift + moved
        self.time = end if lands else self.time + h
        self.outputs += bool(self.time >= limits.outputs[self.outputs])
        self.steps += 1
        return True

    def _patient(self) -> bool:
        """Whether the cost has fallen lately: on a long plateau explicit steps are not worth their price."""
        excess = self.stepper.excess
        if abs(excess - self.plateau_excess) > PLATEAU * self.plateau_excess:
            self.plateau_excess, self.plateau_start = excess, self.evaluations
        return self.to_the_end or self.evaluations - self.plateau_start < PATIENCE

    def _heard(self) -> bool:
        """Whether ‖∇𝓛‖ is above the round-off of θ as the stages of a long step carry it on: what learned modes leave.

        Below, no step but the shortest is accurate: only frames keep that round-off away from what is not learned.
        """
        noise = DROWNED * self.eps * self.curvature * self.stepper.size(self.stepper.theta)
        return not self.stepper.size(self.stepper.slope) < noise

    def _reason(self) -> str | None:
        excess = self.stepper.objective
        # With weight decay a wait may take many steps: a gradient that is none of round-off is as good as a fall.
        if excess < (1 - STALL_CHANGE) * self.last_excess or (self.chain.decay and self._heard()):
            self.last_excess, self.last_change = excess, self.steps
        h = float(self.control.h[0])
        idle = self.steps - self.last_change
        return self.limits.reason(excess, self.threshold, self.ceiling, h, idle, self.time, self.steps)

    # ---- sizes -----------------------------------------------------------------------------
    def _measure_sizes(self) -> bool:
        """Sizes of input and output directions, from W_1ᵀW_1 and W_LW_Lᵀ. Whether they are comparable."""
        layers, chain = self.stepper.theta.layers, self.chain
        self.ends = [End.of(chain, w, self.floor, self.tiny) for w in (layers[0], layers[-1].T)]
        comparable = all(end.empty < 0.5 for end in self.ends)
        sizes = [chain.square(w) for w in layers]
        least = self.floor * max(sizes) + self.tiny
        self.inner = [max(size, least) for size in sizes[1:-1]]
        return self.precise and comparable and min(sizes) > least

    def _relative(self, vector: Vector) -> float:
        """Size of a vector relative to the point: of its ends direction by direction, of its inner layers as wholes."""
        first, *inner, last = (vector.layers[0], *vector.layers[1:-1], vector.layers[-1])
        total = self.ends[0].square(first) + self.ends[1].square(last.T)
        for w, size in zip(inner, self.inner, strict=True):
            total += self.chain.square(w) / size
        return float((total / self.chain.depth) ** 0.5)

    def _noise(self) -> float:
        """What the error of the step tried last may add to ‖∇𝓛‖, over the part of ‖∇𝓛‖ that it may be.

        Errors of learned modes that are harmless to A can drown the small gradient of a plateau, and errors that are
        small beside A are not beside what is left of it to learn."""
        stepper = self.stepper
        return self.curvature * stepper.size(stepper.error) / (NOISE * max(stepper.new_slope(), self.tiny))

    # ---- what leaves -----------------------------------------------------------------------
    def _record(self, reason: str | None) -> Record:
        chain, stepper, theta = self.chain, self.stepper, self.stepper.theta
        return Record(
            members=np.array([self.member]),
            time=np.array([self.time]),
            step=np.array([self.steps]),
            evaluations=np.array([self.evaluations]),
            excess=np.array([stepper.excess]),
            gradient_norm=np.array([stepper.size(stepper.slope)]),
            A=chain.tensor(chain.a).cpu().numpy().astype(float)[None],
            reasons=[reason],
            weights=lambda i: [chain.tensor(w).cpu().numpy().copy() for w in theta.layers],
            penalty=np.array([stepper.penalty]) if chain.decay else None,
        )

    def _hand_over(self) -> None:
        theta = self.chain.tensor(self.stepper.theta.flat).clone()
        counts = self.time, self.steps, self.evaluations
        self.handover = Handover(theta, *counts, self.threshold, self.ceiling, self.outputs)

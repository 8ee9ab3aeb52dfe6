"""Gradient flow θ̇ = −∇𝓛(θ) − λθ, integrated with error control from initialisation to the minimum.

Each member starts by itself, with explicit steps, for as long as its path is mild (`stabilised_flow.py`). What is left
goes on as one batch (`framed_flow.py`), a part of it on each thread. Between two rounds of steps all that is under way
is a state (:class:`GradientFlow`).

With weight decay λ the mild part is all there is: what grows then grows faster than λ, no wait is longer than about
ln(1/α)/λ, and stabilised steps cross it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dlnphase.costs.quadratic import Cost, QuadraticCost
from dlnphase.dynamics.framed_flow import FramedFlow
from dlnphase.dynamics.records import Record, Walk
from dlnphase.dynamics.stabilised_flow import Handover, StabilisedFlow
from dlnphase.dynamics.state import Fixed, State
from dlnphase.dynamics.step_control import (
    Limits,
    check_decay,
)
from dlnphase.dynamics.steppers import dormand_prince, rosenbrock
from dlnphase.dynamics.threads import in_threads, parts
from dlnphase.errors import InputError
from dlnphase.networks.chain import Network

STEPPERS = {"stiff": rosenbrock, "explicit": dormand_prince}  # what takes the steps of a batch
METHODS = ("auto", "stabilised", *STEPPERS)
MAX_STEPS = 200_000  # an end for paths that have none: the longest in docs/benchmarks.md takes 1 207
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
    flows: list[FramedFlow] | None

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

    def _flows(self) -> list[FramedFlow]:
        """What the mild parts have handed over, in parts, each at its start."""
        rest = list(self.handed) if self.method in ("auto", "stabilised") else list(range(self.network.batch))
        stepper = STEPPERS.get(self.method, rosenbrock)
        return [
            FramedFlow(self.network.select(members), members, self.cost, stepper, self.rtol, self.aligned, self.limits)
            for members in parts(rest, self.network.theta.device)
        ]

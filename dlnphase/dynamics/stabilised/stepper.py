"""Explicit Runge–Kutta methods: Dormand–Prince, and stabilised ones whose s slopes carry a step of 0.35 s²/ρ.

ρ is the largest curvature. The construction of the stabilised methods, of order 4, is that of ROCK4 (Abdulle, SIAM J.
Sci. Comput. 23 (2002) 2042–2055): a three-term recurrence of s − 4 stages, then four more that complete the order. The
coefficients are our own, computed and explained by ``tools/stabilised_tableaux.py``; this file only runs them. Where a
flow is mildly stiff they beat an implicit step: they pay 1.7·√(h·ρ) slopes for what costs gradient descent h·ρ/2.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from dlnphase.dynamics.stabilised.chain import Array, Chain, Vector
from dlnphase.dynamics.state import Fixed, Room, State


@dataclass(frozen=True)
class Tableau:
    """Coefficients of one method.

    Attributes:
        stages: slopes a step costs; the one at its start is that of the end of the step before.
        interval: largest h·ρ for which it is stable, ρ the largest curvature.
        recurrence: (μ, κ) of Y_{j+1} = μ h f(Y_j) + (1 − κ) Y_j + κ Y_{j−1}, s − 4 of them, or none.
        a, b: rows of the stages that follow, from the second on, and their sum.
        error: the estimate, on the slopes of these stages and the one at the new point.
        order, embedded_order: of the result, and one below that of the estimate.
    """

    stages: int
    interval: float
    recurrence: list[list[float]]
    a: list[list[float]]
    b: list[float]
    error: list[float]
    order: int = 4
    embedded_order: int = 3


DORMAND_PRINCE = Tableau(  # J. Comput. Appl. Math. 6 (1980) 19–26; on the negative real axis stable to 3.3
    stages=6,
    interval=3.0,
    recurrence=[],
    a=[
        [1 / 5],
        [3 / 40, 9 / 40],
        [44 / 45, -56 / 15, 32 / 9],
        [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
        [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
    ],
    b=[35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
    error=[71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40],
    order=5,
    embedded_order=4,
)
PLAIN = 2.4  # h·ρ below which the fifth order of Dormand and Prince beats the fourth of five stages


@cache
def tableaux() -> tuple[Tableau, ...]:
    """All stabilised methods, by number of stages."""
    text = files("dlnphase.dynamics.stabilised").joinpath("tableaux.json").read_text(encoding="utf-8")
    return tuple(Tableau(**entry) for entry in json.loads(text))


def cheapest(stiffness: float) -> Tableau | None:
    """The stabilised method of fewest stages that bears this h·ρ, None where even the last does not."""
    methods = tableaux()
    i = bisect_left(methods, stiffness, key=lambda m: m.interval)
    return methods[i] if i < len(methods) else None


def fitting(stiffness: float, last: Tableau | None) -> Tableau | None:
    """As :func:`cheapest`, but Dormand–Prince where accuracy, not stability, sets the step.

    Args:
        last: the method in use; changing has a threshold, since step sizes change with the method.
    """
    plain = DORMAND_PRINCE.interval if last is DORMAND_PRINCE else PLAIN
    return DORMAND_PRINCE if stiffness <= plain else cheapest(stiffness)


@dataclass(slots=True, init=False, eq=False, repr=False)
class Stepper(State):
    """Takes steps of one network; holds the memory they need.

    Attributes:
        theta: where it stands.
        slope: −∇𝓛 there, with weight decay −∇𝓛 − λθ.
        error: estimated error of the step tried last.
        excess: C − C_min where that step led; before any step, and after :meth:`stay`, at ``theta``.
        penalty: (λ/2)‖θ‖² there, 0 without weight decay.
    """

    chain: Fixed[Chain]
    theta: Vector
    slope: Vector
    excess: float
    penalty: float
    error: Room[Vector]
    _new: Room[Vector]
    _even: Room[Vector]
    _odd: Room[Vector]
    _room: Room[Vector]
    _rows: Room[Array]
    _k: Room[list[Vector]]
    _h: Room[float]
    _slope: Room[Array]
    _constants: Room[dict[tuple[int, int], list[Array]]]

    def __init__(self, chain: Chain, theta: Array) -> None:
        self.chain = chain
        _, (self.theta, self.slope, self.error, self._new, self._even, self._odd, self._room) = chain.vectors(7)
        self._rows, self._k = chain.vectors(len(DORMAND_PRINCE.error))
        self._constants = {}
        self.theta.flat[...] = theta
        self.stay()

    def resume(self, state: dict[str, Any]) -> None:
        """Stand where the state says; the chain has its products, A and ∇C there as after the step that led there."""
        State.resume(self, state)
        self.chain.slope(self.theta, self._room, 1.0)

    def size(self, vector: Vector) -> float:
        """Euclidean norm of a vector of the chain."""
        return self.chain.square(vector.flat) ** 0.5

    @property
    def objective(self) -> float:
        """What a flow never climbs: ``excess`` and ``penalty``."""
        return self.excess + self.penalty

    def measure(self) -> None:
        """Let the chain form what its curvature and velocity need; at the start and after :meth:`accept`."""
        self.chain.measure(self.theta)

    def attempt(self, method: Tableau, h: float) -> None:
        """Try a step of size h from ``theta``; :meth:`accept` goes there."""
        chain, k, rows, room, combine = self.chain, self._k, self._rows, self._room, self.chain.combine
        y = self._recur(method, h) if method.recurrence else self.theta
        *a, b, error = self._coefficients(method)
        if method.recurrence:
            chain.slope(y, k[0], h)
        else:
            k[0].flat[...] = self.slope.flat
            k[0].flat *= h
        for i, row in enumerate(a, 1):
            combine(row, rows[:i], room.flat)
            room.flat += y.flat
            chain.slope(room, k[i], h)
        last = len(b)
        combine(b, rows[:last], self._new.flat)
        self._new.flat += y.flat
        chain.slope(self._new, k[last], h)
        combine(error, rows[: last + 1], self.error.flat)
        self.excess, self.penalty = chain.excess(), chain.penalty(self._new)
        self._h, self._slope = h, k[last].flat

    def new_slope(self) -> float:
        """‖∇𝓛‖ where the step tried last led."""
        return self.chain.square(self._slope) ** 0.5 / self._h

    def stay(self) -> None:
        """Evaluate the point where it stands: at the start, and where no step from there was any good."""
        self.chain.slope(self.theta, self.slope, 1.0)
        self.excess, self.penalty = self.chain.excess(), self.chain.penalty(self.theta)

    def accept(self) -> None:
        """Stand where the last step led."""
        self.theta, self._new = self._new, self.theta
        self.slope.flat[...] = self._slope
        self.slope.flat /= self._h

    def _recur(self, method: Tableau, h: float) -> Vector:
        """The point to which the recurrence leads."""
        y, before = self._odd, self._even
        before.flat[...] = self.theta.flat
        y.flat[...] = self.slope.flat
        y.flat *= method.recurrence[0][0] * h
        y.flat += before.flat
        for mu, kappa in method.recurrence[1:]:
            self.chain.recur(y, before, mu * h, kappa)
            y, before = before, y
        return y

    def _coefficients(self, method: Tableau) -> list[Array]:
        key = (method.stages, method.order)
        if key not in self._constants:
            self._constants[key] = [self.chain.constants(c) for c in (*method.a, method.b, method.error)]
        return self._constants[key]

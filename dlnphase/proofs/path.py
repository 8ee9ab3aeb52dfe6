"""A gradient flow enclosed from its exact start: nodes θ̃_i at times t_i with ‖θ(t_i) − θ̃_i‖ ≤ R_i.

On each step θ̃ is a Taylor polynomial with defect at most d. While θ stays in the tube, ‖θ − θ̃‖' ≤ μ‖θ − θ̃‖ + d with
μ ≥ −λ_min(∇²𝓛) there (logarithmic norm), so that R_{i+1} ≥ e^(μh)R_i + d·(e^(μh) − 1)/μ + the next node's rounding;
θ cannot leave a tube that is wider than this all along. Nodes are sums of ``limbs`` floats, exact dyadic numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from dlnphase.networks.products import Layers, product
from dlnphase.proofs.balls import SLACK, UP, Ball, Balls, Undecided, exact, flint, middle, norm_of, precision, upper
from dlnphase.proofs.curvature import parting_rate, third_bound
from dlnphase.proofs.minimum import EndProof, prove_end
from dlnphase.proofs.quadratic import BallCost
from dlnphase.proofs.taylor import TaylorStep

LIMB = 53  # bits of a float
GUARD = 16  # bits of a ball beyond those of a node
GROWTH = 0.01  # K₃·movement·h allowed in one step: what the tube's width may add to ln R
UNCERTAIN = 2.0**-20  # R/‖θ̃‖ above which the proof starts again with another limb
MOST_LIMBS = 12  # 636 bits: a path that asks for more is refused while there is patience left
TRY_END = 20  # steps between two tries to end

Node = list[np.ndarray]  # per layer (limbs, n_l, n_{l−1})


@dataclass
class Tube:
    """The path so far; what is saved and gone on with.

    Attributes:
        limbs: floats per number of a node.
        nodes: θ̃_i.
        steps: h_i, exact floats; t_i is their exact sum.
        radii: R_i.
        excess, slope: C − C_min and ‖∇𝓛‖ at the nodes, in floats, to find the visits by.
    """

    limbs: int
    nodes: list[Node]
    steps: list[float] = field(default_factory=list)
    radii: list[float] = field(default_factory=lambda: [0.0])
    excess: list[float] = field(default_factory=list)
    slope: list[float] = field(default_factory=list)

    def times(self) -> list[Ball]:
        """t_0 = 0, t_1, … in balls."""
        out = [flint().arb(0)]
        for h in self.steps:
            out.append(out[-1] + flint().arb(h))
        return out


@dataclass(frozen=True)
class Progress:
    """Where a proof under way stands: steps, time, radius, C − C_min, limbs; the time at which it may end."""

    steps: int
    time: float
    radius: float
    excess: float
    limbs: int
    length: float


def start_tube(weights: Layers, limbs: int = 1) -> Tube:
    """A tube at its exact start."""
    zero = [np.zeros((limbs - 1, *w.shape)) for w in weights]
    nodes = [np.concatenate([w[None], z]) for w, z in zip(weights, zero, strict=True)]
    return Tube(limbs, [nodes])


def prove_path(
    weights: Layers,
    cost: BallCost,
    *,
    tube: Tube | None = None,
    length: float = math.inf,
    max_time: float = math.inf,
    max_steps: int = 10**6,
    on_step: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[Tube, EndProof | None]:
    """Follow the flow until its convergence to a global minimum is proved, with as many limbs as it takes.

    Args:
        weights: the exact start.
        tube: go on with this one.
        length: the time at which it may end, for those who are told.
        max_time, max_steps: give up there.
        should_stop: asked after each step; True ends with what is done.

    Returns:
        The tube, and the end where it is proved (None when stopped, or out of time or steps).

    Raises:
        Undecided: when more limbs than allowed are needed.
    """
    tube = tube or start_tube(weights)

    def told(step: Progress) -> None:
        if on_step is not None:
            on_step(replace(step, length=length))

    while True:
        end, again = _follow(tube, cost, max_time, max_steps, told, should_stop)
        if not again:
            return tube, end
        if tube.limbs >= MOST_LIMBS:
            raise Undecided(f"precision: the radius grows beyond use even with {LIMB * tube.limbs} bits")
        tube = start_tube(weights, tube.limbs + 1)


def _follow(
    tube: Tube,
    cost: BallCost,
    max_time: float,
    max_steps: int,
    on_step: Callable[[Progress], None],
    should_stop: Callable[[], bool] | None,
) -> tuple[EndProof | None, bool]:
    """(the end if it is proved, whether more limbs are needed)."""
    now = math.fsum(tube.steps)
    with precision(LIMB * tube.limbs + GUARD):
        while True:
            node = float_layers(tube.nodes[-1])
            if len(tube.steps) % TRY_END == 0 and tube.steps:
                try:
                    return prove_end(node, flint().arb(about(tube.nodes[-1], tube.radii[-1])), cost), False
                except Undecided:
                    pass
            if now >= max_time or len(tube.steps) >= max_steps:
                return None, False
            try:
                h = _advance(tube, cost)
            except Undecided:
                return None, True
            now += h
            size = math.sqrt(sum(float(np.sum(w * w)) for w in node))
            if not tube.radii[-1] <= UNCERTAIN * size:
                return None, True
            on_step(Progress(len(tube.steps), now, tube.radii[-1], tube.excess[-1], tube.limbs, max_time))
            if should_stop is not None and should_stop():
                return None, False


def about(node: Node, radius: float) -> float:
    """R of a node, about its leading floats."""
    return (radius + sum(float(np.sum(np.abs(w[1:]))) for w in node)) * UP


def _advance(tube: Tube, cost: BallCost) -> float:
    """One step; returns h.

    Raises:
        Undecided: when no step is small enough.
    """
    bits = LIMB * tube.limbs
    step = TaylorStep([node_balls(w) for w in tube.nodes[-1]], cost, order=10 + bits // 6)
    start, radius = float_layers(tube.nodes[-1]), tube.radii[-1]
    a = product(start)
    tube.slope[len(tube.nodes) - 1 :] = [float(step.norms[1])]
    residual = cost.matrix @ (a - cost.minimizer).ravel()
    tube.excess[len(tube.nodes) - 1 :] = [0.5 * float(residual @ residual)]
    h = _first_guess(step, start, residual, cost, bits)
    unit = 2.0**-bits * float(step.norms[0])
    for _ in range(60):
        defect = step.defect(h)
        if defect * h <= unit:
            break
        h *= 0.8
    else:
        raise Undecided("precision: no step is small enough")
    ends = step.at(h)
    node = [_limbs(m, tube.limbs) for m in ends]
    jump = norm_of([m - node_balls(w) for m, w in zip(ends, node, strict=True)])
    following = next_radius(step, radius, defect, h, cost)
    tube.steps.append(h)
    tube.nodes.append(node)
    tube.radii.append(upper((following + jump) * flint().arb(SLACK)))
    return h


def next_radius(step: TaylorStep, radius: float, defect: float, h: float, cost: BallCost) -> Ball:
    """e^(μh)R + d·(e^(μh) − 1)/μ with μ over a tube that is wide enough for it."""
    arb = flint().arb
    layers = zip(*step.coefficients, strict=True)
    centre = [np.sum([middle(c) * (h / 2) ** j for j, c in enumerate(layer)], 0) for layer in layers]
    off = norm_of([m - exact(c) for m, c in zip(step.at(h / 2), centre, strict=True)])
    moved = upper(arb(step.movement(h)) + off)
    width = 2 * radius + 2 * defect * h + 1e-280
    for _ in range(4):
        mu = arb(parting_rate(centre, (moved + width) * (1 + 2.0**-50), cost))
        growth = (mu * h).exp()
        gain = (mu * h).expm1() / mu if not mu.contains(0) else arb(h) * growth.max(arb(1))
        inside = growth.max(arb(1)) * (arb(radius) + arb(defect) * h)
        if inside < width:
            return growth * radius + gain * defect
        width *= 4
    raise Undecided("precision: the tube does not close")


def _first_guess(step: TaylorStep, start: Layers, residual: np.ndarray, cost: BallCost, bits: int) -> float:
    """A step at which the last coefficients are as small as the rounding, and the tube moves little."""
    p, goal = step.order, 2.0 ** -(bits + 4) * float(step.norms[0])
    h = min((goal / step.norms[p]) ** (1 / p), (goal / step.norms[p - 1]) ** (1 / (p - 1)))
    norms = [float(np.linalg.norm(w, 2)) for w in start]
    third = third_bound(norms, 0.0, float(np.linalg.norm(cost.matrix.T @ residual)), cost.square_size)
    return float(min(h, math.sqrt(2 * GROWTH / (third * float(step.norms[1]) + 1e-300))))


def node_balls(limbs: np.ndarray) -> Balls:
    """The exact matrix that a node's limbs (K, n, m) add up to (the precision must hold their bits)."""
    total = exact(limbs[0])
    for limb in limbs[1:]:
        total += exact(limb)
    return total


def _limbs(matrix: Balls, count: int) -> np.ndarray:
    """The midpoints as sums of floats, (count, n, m)."""
    rest, out = matrix.mid(), []
    for _ in range(count):
        limb = middle(rest)
        out.append(limb)
        rest = (rest - exact(limb)).mid()
    return np.array(out)


def float_layers(node: Node) -> Layers:
    """The leading floats of a node."""
    return [w[0] for w in node]

"""How wrong a reduced network is, measured on the first burst of its own gradient flow.

Orders are nested, and one explicit integrator steps the networks of orders k and k+1 with the same steps: what differs
between them is truncation, not integration.

**What is promised.** A reduced network *agrees within ε* with the full one on a stretch of the path if for each t
there is a t′ with |t′ − t| ≤ ε·t and ‖A_reduced(t′) − A_full(t)‖_F ≤ ε·max_t‖A(t)‖_F. Above γ = 1 most of the
difference is a shift of the bursts in time, which is why time gets its own share. The pilot measures the ε
between orders k and k+1 until the excess cost has fallen to a hundredth or its budget of steps is spent, which always
includes the first burst; the promise for the whole path is SAFETY times that. A start much smaller than the pilot
needs is scaled up: while ∇C stays ∇C(0) the flow is homogeneous, θ(t) = c·θ̃(c^(L−2)·t), and a relative shift in time
does not depend on c. For the same reason one burst tells about the next: each mode leaves its plateau in the same
rescaled time, whatever its size, and truncation is an error in rescaled time. Measured at L = 4, order 3, w = 1e9,
γ = 2: the pilot says 3.9e-4, the three bursts come 3.5e-4, 3.6e-4, 3.8e-4 late.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from dlnphase.backend import Backend
from dlnphase.costs.quadratic import Cost, QuadraticCost
from dlnphase.dynamics.stabilised import Chain, Stepper, cheapest, tableaux
from dlnphase.networks.chain import Network

SAFETY = 3.0  # between the error in the pilot's stretch and what is promised for the whole path (module text)
PILOT_RTOL = 1e-4  # of one step, far below the disagreements of percents and less that it looks for
PILOT_STEPS = 30  # accepted steps, of which the first burst takes about half, at any width and γ
FIRST_STEP = 0.01  # as a fraction of the time in which θ changes by its own size
TRIES = 30  # sizes of one step, after which the pilot gives up
STEP_SAFETY, SHRINK, GROW = 0.75, 0.2, 2.0  # of its step sizes
CURVATURE_MARGIN = 1.1  # the curvature is an estimate from below
PILOT_END = 1e-2  # stop when the excess cost is below this share of its initial value

PILOT_SIZE = 1e-3  # the pilot starts from products of layers of at least this share of the size learned


def disagreement(
    coarse: Network, fine: Network, cost: Cost, weight_decay: float = 0.0, largest: float = float("inf")
) -> float:
    """The ε within which two single networks agree on the pilot's stretch of their gradient flows (module text).

    Args:
        coarse: the lower order, B = 1, hidden sizes at most those of ``fine``.
        fine: the higher order, B = 1.
        weight_decay: λ of the flow that will be followed; a start that is scaled up by c decays at c^(L−2)·λ.
        largest: c at most.
    """
    if isinstance(
        cost, QuadraticCost
    ):  # in double precision whatever the run's: single holds no squares of small starts
        cost = cost.to(Backend(fine.theta.device, torch.float64))
        coarse, fine = (n.with_theta(n.theta.double()) for n in (coarse, fine))
    larger = min(_magnification(fine, cost), largest)
    decay = weight_decay * larger ** (fine.depth - 2)
    pair = [Stepper(chain := Chain(n, cost, decay), chain.array(n.theta[0] * larger)) for n in (coarse, fine)]
    rows: list[tuple[float, float, float]] = []  # ‖δ‖, |shift|, ‖δ − shift·t·Ȧ‖
    scale = 0.0
    for time, small, large, velocity in _path(pair):
        scale = max(scale, float(large.norm()))
        delta = small - large
        speed = time * velocity
        square = float((speed * speed).sum())
        shift = float((delta * speed).sum()) / square if square > 0 else 0.0
        rows.append((float(delta.norm()), abs(shift), float((delta - shift * speed).norm())))
    if scale == 0.0:  # it never moved: nothing to disagree about, or nothing known
        return 0.0 if float(fine.gradient(cost.gradient(fine.product())).abs().max()) == 0.0 else float("inf")
    # A shift needs only be believed where it explains more than it costs.
    return max(min(whole / scale, max(shift, rest / scale)) for whole, shift, rest in rows)


def _magnification(network: Network, cost: Cost) -> float:
    """By how much the pilot scales the layers up, at least 1."""
    zero = torch.zeros_like(network.product())
    slope = float(cost.gradient(zero).norm())
    if slope == 0.0:
        return 1.0
    learned = 2 * float(cost.excess(zero)) / slope  # ‖A*‖ for a factorization
    depth = network.depth
    unit = float(network.weights[0].norm()) / network.dims[0] ** 0.5
    if unit == 0.0:
        return 1.0
    left, right = zip(*network.with_theta(network.theta / unit).ntk_factors(), strict=True)
    trace = sum(
        float(a.diagonal(0, 1, 2).sum()) * float(b.diagonal(0, 1, 2).sum()) for a, b in zip(left, right, strict=True)
    )
    layer = unit * (trace / (depth * zero.numel())) ** (1 / (2 * (depth - 1)))  # α for Gaussian layers
    return max(1.0, (PILOT_SIZE * learned) ** (1 / depth) / layer) if layer > 0 else 1.0


def _path(pair: Sequence[Stepper]) -> Iterator[tuple[float, Tensor, Tensor, Tensor]]:
    """Accepted steps (t, A of the coarse network, A of the fine one, its Ȧ), both taken with the same steps."""
    leader = pair[1]
    end = PILOT_END * max(stepper.excess for stepper in pair)
    speed = leader.size(leader.slope)
    if speed == 0.0:
        return
    time, h = 0.0, FIRST_STEP * leader.size(leader.theta) / speed
    curvature = _curvature(pair)
    for _ in range(PILOT_STEPS):
        taken, h = _advance(pair, h, curvature)
        if not taken:
            return
        time += taken
        curvature = _curvature(pair)
        a = [stepper.chain.tensor(stepper.chain.a) for stepper in pair]
        yield time, a[0], a[1], leader.chain.tensor(leader.chain.velocity())
        if max(stepper.excess for stepper in pair) <= end:
            return


def _curvature(pair: Sequence[Stepper]) -> float:
    for stepper in pair:
        stepper.measure()
    return CURVATURE_MARGIN * max(stepper.chain.curvature() for stepper in pair)


@np.errstate(all="ignore")  # a step too long overflows and is rejected
def _advance(pair: Sequence[Stepper], h: float, curvature: float) -> tuple[float, float]:
    """Take one step of both networks, of size h or, where that fails, smaller: (size taken, size to try next)."""
    for _ in range(TRIES):
        if not (method := cheapest(h * curvature)):
            method, h = tableaux()[-1], tableaux()[-1].interval / curvature
        for stepper in pair:
            stepper.attempt(method, h)
        wrong = max(s.size(s.error) / s.size(s.theta) for s in pair) / PILOT_RTOL
        factor = min(GROW, max(SHRINK, STEP_SAFETY * max(wrong, 1e-10) ** -0.25)) if isfinite(wrong) else SHRINK
        if wrong <= 1:
            for stepper in pair:
                stepper.accept()
            return h, h * factor
        h *= factor
    return 0.0, h

"""Floor 1: how wrong a reduced network is, measured on the first burst of its own gradient flow.

Orders are nested, so the networks of orders k and k+1 are members of one batch, the smaller padded with zeros
(an invariant set of the flow), and one explicit integrator steps both with the same steps: what differs
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

from collections.abc import Iterator

import torch
from torch import Tensor

from dlnphase.backend import Backend
from dlnphase.costs import Cost, QuadraticCost
from dlnphase.network import Network

SAFETY = 3.0
PILOT_RTOL = 1e-4
PILOT_STEPS = 40  # accepted steps, of which the first burst takes up to 25, at any width and γ
PILOT_END = 1e-2  # stop when the excess cost is below this share of its initial value

PILOT_SIZE = 1e-3  # the pilot starts from products of layers of at least this share of the size learned

# Dormand and Prince 1980: the 5(4) pair with the first-same-as-last property.
_A = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_E = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def pad(network: Network, dims: tuple[int, ...]) -> Network:
    """The same network with zeros on further hidden directions: the flow never leaves that set."""
    out = []
    for w, rows, columns in zip(network.weights, dims[1:], dims[:-1], strict=True):
        layer = w.new_zeros((w.shape[0], rows, columns))
        layer[:, : w.shape[1], : w.shape[2]] = w
        out.append(layer)
    return Network.from_weights(out)


def disagreement(coarse: Network, fine: Network, cost: Cost) -> float:
    """The ε within which two single networks agree on the pilot's stretch of their gradient flows (module text).

    Args:
        coarse: the lower order, B = 1, hidden sizes at most those of ``fine``.
        fine: the higher order, B = 1.
    """
    if isinstance(
        cost, QuadraticCost
    ):  # in double precision whatever the run's: single holds no squares of small starts
        cost = cost.to(Backend(fine.theta.device, torch.float64))
        coarse, fine = (n.with_theta(n.theta.double()) for n in (coarse, fine))
    pair = Network(torch.cat([pad(coarse, fine.dims).theta, fine.theta]) * _magnification(fine, cost), fine.dims)
    rows: list[tuple[float, float, float]] = []  # ‖δ‖, |shift|, ‖δ − shift·t·Ȧ‖
    scale = 0.0
    for time, network, velocity in _path(pair, cost):
        a = network.product()
        scale = max(scale, float(a[1].norm()))
        delta = a[0] - a[1]
        speed = time * network.jvp(velocity)[1]
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


def _path(network: Network, cost: Cost) -> Iterator[tuple[float, Network, Tensor]]:
    """Accepted steps (t, network, θ̇) of the gradient flow with one step size for the whole batch."""

    def velocity(theta: Tensor) -> Tensor:
        at = network.with_theta(theta)
        prefixes = at.prefixes()
        return -at.gradient(cost.gradient(prefixes[-1]), prefixes)

    theta, k1 = network.theta, velocity(network.theta)
    end = PILOT_END * float(cost.excess(network.product()).max())
    speed = float(k1.norm())
    if speed == 0.0:
        return
    time, h, accepted = 0.0, 0.01 * float(theta.norm()) / speed, 0
    for _ in range(4 * PILOT_STEPS):
        stages = [k1]
        trial = theta
        for row in _A:
            increment = stages[0] * row[0]
            for coefficient, stage in zip(row[1:], stages[1:], strict=True):
                increment = increment.add_(stage, alpha=coefficient)
            trial = theta + h * increment
            stages.append(velocity(trial))
        error = torch.zeros_like(theta)
        for coefficient, stage in zip(_E, stages, strict=True):
            error.add_(stage, alpha=coefficient * h)
        ratio = float((error.norm(dim=1) / trial.norm(dim=1)).max()) / PILOT_RTOL
        if ratio <= 1:
            time, theta, k1, accepted = time + h, trial, stages[-1], accepted + 1
            at = network.with_theta(theta)
            yield time, at, k1
            if accepted >= PILOT_STEPS or float(cost.excess(at.product()).max()) <= end:
                return
        h *= min(5.0, max(0.2, 0.9 * max(ratio, 1e-10) ** -0.2)) if ratio == ratio else 0.2

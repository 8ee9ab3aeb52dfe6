"""An exact global minimum near given weights, and the end of a gradient flow.

The global minima of 𝓛(θ) = C_min + ½‖r(θ)‖², r(θ) = F vec(A_θ − Â), are the zeros of r where there are any. With
J = ∂vec A/∂θ and the kernel K = F J Jᵀ Fᵀ at θ*, take Q near K⁻¹ (floats) and B = JᵀFᵀQ. On θ = θ* + Bξ the map
f(ξ) = r(θ* + Bξ) has f'(0) = KQ. If η ≥ ‖f(0)‖, ‖1 − f'(ξ)‖ ≤ q < 1 for ‖ξ‖ ≤ ρ and η ≤ (1 − q)ρ, then f has a zero
there (Newton–Kantorovich in its contraction form), at most ‖B‖ρ from θ*. f' changes by at most ‖F‖K₂‖B‖²ρ.

The end: while ‖θ − θ(T)‖ < ρ and κ ≤ σ_min(FJ) there, d√(2𝓛)/dt ≤ −κ‖θ'‖, so the rest of the path is no longer than
√(2𝓛(T))/κ; if that is below ρ the flow never leaves the ball and converges to a global minimum inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlnphase.networks.products import Layers, around_layers
from dlnphase.proofs.balls import (
    PRECISION,
    SLACK,
    Ball,
    Balls,
    Undecided,
    eigenvalue_bounds,
    exact,
    flint,
    identity,
    middle,
    norm,
    norm_of,
    operator_norm,
    precision,
    upper,
)
from dlnphase.proofs.quadratic import BallCost

MAX_NEWTON = 60  # float steps towards a minimum before one is proved near: they end before, where they no longer help


@dataclass(frozen=True)
class MinimumProof:
    """An exact global minimum near weights.

    Attributes:
        weights: the weights the distance is from, exact.
        near: float weights θ*, around which the minimum is proved.
        distance: an upper bound on the distance from ``weights`` to a global minimum.
    """

    weights: Layers
    near: Layers
    distance: float


def prove_minimum(weights: Sequence[np.ndarray], cost: BallCost) -> MinimumProof:
    """Prove that a global minimum of the loss is near.

    Raises:
        Undecided: with the reason.
    """
    layers = [np.asarray(w, dtype=float) for w in weights]
    with precision(PRECISION):
        near = _gauss_newton(layers, cost)
        moved = norm_of([exact(a) - exact(b) for a, b in zip(layers, near, strict=True)])
        return MinimumProof(layers, near, upper(moved + minimum_within(near, cost)))


def minimum_within(near: Layers, cost: BallCost) -> Ball:
    """A radius within which θ* has a global minimum.

    Raises:
        Undecided: when the test fails.
    """
    arb = flint().arb
    layers = [exact(w) for w in near]
    residual, kernel = linear_part(layers, cost)
    try:
        q = exact(np.linalg.inv(middle(kernel)))
    except (np.linalg.LinAlgError, ValueError):
        raise Undecided("the constraint is singular: not every fit of the data is near in weight space") from None
    first = operator_norm(identity(q.nrows()) - kernel * q)
    size = operator_norm(q.transpose() * kernel * q).sqrt()
    eta = norm(residual).upper()
    rho = 2 * eta + arb(2) ** -60
    reach = (size * rho).upper()
    quotient = first + cost.norm() * second_bound(_norms(layers), reach) * size * size * rho
    if not (quotient < 1 and eta <= (1 - quotient) * rho):
        raise Undecided("no global minimum is certain near: the residual is too large for the curvature of the network")
    return reach


@dataclass(frozen=True)
class EndProof:
    """Where a gradient flow ends.

    Attributes:
        distance: an upper bound on the distance from the given weights to the global minimum it converges to.
        cost: an upper bound on 𝓛 − C_min where the end begins.
    """

    distance: float
    cost: float


def prove_end(weights: Sequence[np.ndarray], radius: Ball, cost: BallCost) -> EndProof:
    """Prove that the flow from anywhere within ``radius`` of the weights converges to a global minimum near.

    Raises:
        Undecided: when it is not near enough yet.
    """
    layers = [exact(np.asarray(w, dtype=float)) for w in weights]
    residual, kernel = linear_part(layers, cost)
    least = eigenvalue_bounds(kernel)[0]
    if not least > 0:
        raise Undecided("the constraint is singular: not every fit of the data is near in weight space")
    sigma, norms, f = least.sqrt().lower(), _norms(layers), cost.norm()
    start = (norm(residual) + f * first_bound(norms, radius) * radius).upper()
    rho = (2 * start / sigma).upper()
    ball = (rho + radius).upper()
    kappa = (sigma - f * second_bound(norms, ball) * ball).lower()
    if not (kappa > 0 and start < kappa * rho):
        raise Undecided("the flow is not near enough to a minimum yet")
    return EndProof(upper((start / kappa + radius) * SLACK), upper(start * start / 2))


def linear_part(layers: list[Balls], cost: BallCost) -> tuple[Balls, Balls]:
    """r(θ) as one column, and K = F J Jᵀ Fᵀ, at weights in balls."""
    below, above = [identity(layers[0].ncols())], [identity(layers[-1].nrows())]
    for w in layers[:-1]:
        below.append(w * below[-1])
    for w in reversed(layers[1:]):
        above.append(above[-1] * w)
    total = None
    for s, p in zip(reversed(above), below, strict=True):
        term = _kronecker(s * s.transpose(), p.transpose() * p)
        total = term if total is None else total + term
    half = cost.measure(total)
    return cost.residual(layers[-1] * below[-1]), cost.measure(half.transpose())


def _norms(layers: list[Balls]) -> list[Ball]:
    """Upper bounds of ‖W_l‖_op."""
    return [norm(w).upper() for w in layers]


def first_bound(norms: list[Ball], reach: Ball | float) -> Ball:
    """An upper bound of ‖J‖ within ``reach``: √Σ_l Π_{j≠l} c_j², c_j = ‖W_j‖ + reach."""
    c = [n + reach for n in norms]
    square = flint().arb(0)
    for l in range(len(c)):
        square += _product(c, (l,)) * _product(c, (l,))
    return square.sqrt().upper()


def second_bound(norms: list[Ball], reach: Ball | float) -> Ball:
    """An upper bound of ‖D²A‖ within ``reach``: the largest row sum of c_ij = Π_{l≠i,j} c_l, i ≠ j."""
    c = [n + reach for n in norms]
    rows = [sum((_product(c, (i, j)) for j in range(len(c)) if j != i), flint().arb(0)) for i in range(len(c))]
    most = rows[0]
    for row in rows[1:]:
        most = most.max(row)
    return most.upper()


def _product(c: list[Ball], without: tuple[int, ...]) -> Ball:
    out = flint().arb(1)
    for l, x in enumerate(c):
        if l not in without:
            out *= x
    return out


def _kronecker(a: Balls, b: Balls) -> Balls:
    left, right = a.table(), b.table()
    return flint().arb_mat([[x * y for x in row for y in line] for row in left for line in right])


def _gauss_newton(layers: Layers, cost: BallCost) -> Layers:
    """Float weights nearer to r = 0, by steps of least norm while they help."""
    best, least = layers, np.inf
    current = layers
    for _ in range(MAX_NEWTON):
        with precision(64):
            r, kernel = (middle(part) for part in linear_part([exact(w) for w in current], cost))
            size = float(np.linalg.norm(r))
            if not size < 0.9 * least:
                break
            best, least = current, size
            multiplier = np.linalg.lstsq(kernel, r.ravel(), rcond=1e-15)[0]
            back = cost.adjoint(multiplier)
        below, above = around_layers(current)
        current = [w - s.T @ back @ p.T for w, s, p in zip(current, above, below, strict=True)]
    return best

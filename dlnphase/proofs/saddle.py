"""One visited saddle, proved: the critical matrix, its cost, that it is no minimum, and a critical point near weights.

No minimum: for fixed float vectors u, v the number s' = −uᵀGv > 0. One new hidden channel of size ε in every layer
turns A into A + ε^L uvᵀ and lowers C by s'ε^L − O(ε^2L), in every neighbourhood; a channel is free where the hidden
sizes exceed k.

In weight space: with float matrices R_l of shape (n_l, k), R_l⁺ = (R_lᵀR_l)⁻¹R_lᵀ and A = [1; X]Y,

    W_1 = R_1 Y,   W_l = R_l R_{l−1}⁺,   W_L = [1; X] R_{L−1}⁺

multiplies to A, and ∂𝓛/∂W_l = (…)ᵀ[1; X]ᵀG… or …GYᵀ(…)ᵀ vanishes exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlnphase.critical import HostCost, MatrixPoint, minimal_point
from dlnphase.networks.products import Layers
from dlnphase.proofs.balls import (
    PRECISION,
    Ball,
    Balls,
    Interval,
    Undecided,
    exact,
    flint,
    interval,
    norm,
    norm_of,
    operator_norm,
    precision,
    upper,
)
from dlnphase.proofs.chart import Chart, prove_critical
from dlnphase.proofs.quadratic import BallCost


@dataclass(frozen=True)
class SaddleProof:
    """What is proved of one visit, with everything a checker needs.

    Attributes:
        chart: the box that holds the critical matrix.
        pair: u (d_out,) and v (d_in,), floats.
        cost: encloses C(A).
        rate: encloses s = ‖∇C(A)‖_op, and is above 0.
        frames: R_1, …, R_{L−1}, floats of shape (n_l, k); empty where there are no weights.
        weights: the weights the distance is from, exact, or empty.
        distance: an upper bound on ‖θ − θ_c‖ for a critical point θ_c, or None where there are no weights.
    """

    chart: Chart
    pair: tuple[np.ndarray, np.ndarray]
    cost: Interval
    rate: Interval
    frames: Layers
    weights: Layers
    distance: float | None


def prove_saddle(
    point: MatrixPoint, cost: BallCost, host: HostCost, weights: Sequence[np.ndarray] | None, hidden: Sequence[int]
) -> SaddleProof:
    """Prove that a critical matrix of this rank is near, is no minimum, and comes from weights near those given.

    Args:
        point: of refine_matrix.
        cost, host: the same cost in balls and in floats.
        weights: W_1, …, W_L of the path where it is closest, or None.
        hidden: sizes of the hidden spaces.

    Raises:
        Undecided: with the reason.
    """
    if not point.converged:
        raise Undecided("no critical matrix is near")
    if min(hidden) <= point.rank:
        raise Undecided("rank: no hidden channel is free, so that a descent through a new one does not exist")
    with precision(PRECISION):
        chart = prove_critical(point.A, point.rank, cost)
        a = chart.matrix()
        g = cost.gradient(a)
        u, _, vt = np.linalg.svd(host.gradient(point.A))
        rate = rate_bounds(g, -u[:, 0], vt[0])
        if not rate[0] > 0:
            raise Undecided("∇C = 0 is not excluded: a minimum, or a saddle beyond this precision")
        value = interval(cost.excess(a) + flint().arb(cost.minimum))
        if weights is None:
            return SaddleProof(chart, (-u[:, 0], vt[0]), value, rate, [], [], None)
        layers = [np.asarray(w, dtype=float) for w in weights]
        frames = float_frames(layers, chart.Y, point, host)
        distance = upper(distance_to(layers, frames, chart))
    return SaddleProof(chart, (-u[:, 0], vt[0]), value, rate, frames, layers, distance)


def rate_bounds(g: Balls, u: np.ndarray, v: np.ndarray) -> Interval:
    """Encloses ‖G‖_op for G in the balls: −uᵀGv/(‖u‖‖v‖) from below."""
    left, right = exact(u[None]), exact(v[:, None])
    low = -(left * g * right)[0, 0] / (norm(left) * norm(right))
    return interval(low)[0], upper(operator_norm(g))


def float_frames(weights: Layers, y: np.ndarray, point: MatrixPoint, host: HostCost) -> Layers:
    """R_l = W_l ⋯ W_1 Y⁺ for l = 1 … L−1 at the minimal critical point near the weights, so that W_1 = R_1 Y there."""
    if point.rank == 0:
        return [np.zeros((w.shape[0], 0)) for w in weights[:-1]]
    built = minimal_point(weights, point, host).weights
    frame, frames = np.linalg.pinv(y), []
    for w in built[:-1]:
        frame = w @ frame
        frames.append(frame)
    return frames


def distance_to(weights: Layers, frames: Layers, chart: Chart) -> Ball:
    """‖θ − θ_c‖ for the critical point that the frames and the chart make.

    Raises:
        Undecided: when a frame is not certain to have rank k.
    """
    there = critical_weights(weights, frames, chart)
    return norm_of([built - exact(w) for built, w in zip(there, weights, strict=True)])


def critical_weights(weights: Layers, frames: Layers, chart: Chart) -> list[Balls]:
    """W_1, …, W_L of θ_c in balls; zero for rank 0."""
    if chart.rank == 0:
        return [exact(np.zeros(w.shape)) for w in weights]
    left, right = chart.balls()
    tall = [exact(r) for r in frames]
    wide = [_pseudo_inverse(r) for r in tall]
    middle = [tall[i + 1] * wide[i] for i in range(len(tall) - 1)]
    return [tall[0] * right, *middle, left * wide[-1]]


def _pseudo_inverse(r: Balls) -> Balls:
    """R⁺ = (RᵀR)⁻¹Rᵀ."""
    try:
        return (r.transpose() * r).inv() * r.transpose()
    except ZeroDivisionError:
        raise Undecided("precision: a frame is not certain to have full rank") from None

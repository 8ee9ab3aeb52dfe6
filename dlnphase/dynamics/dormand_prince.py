"""Dormand–Prince 5(4): the explicit pair for flows that are not stiff, and an independent check of the stiff method.

Dormand and Prince, J. Comput. Appl. Math. 6 (1980) 19–26.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlnphase.dynamics.framed_cost import FramedCost
from dlnphase.dynamics.frames import scaled_norm, with_grown_ends
from dlnphase.dynamics.stiff_solver import Point

ORDER = 5
EMBEDDED_ORDER = 4
A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
E = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
STAGES = 7


def step(
    point: Point, cost: FramedCost, h: Tensor, scales: list[Tensor], exact: bool = True, growing: bool = False
) -> tuple[Tensor, Tensor]:
    """One step of size h (shape (B,)): (θ at t + h, flat (B, P); size of its estimated error relative to r, (B,)).

    The error is always measured on the layers; ``growing`` as for :func:`dlnphase.dynamics.rosenbrock.step`.
    """
    network = point.network
    size = h.unsqueeze(-1)
    slopes = [point.slope]
    at = network.theta
    for row in A[1:]:
        at = torch.addcmul(network.theta, _combine(row, slopes), size)
        slopes.append(Point(network.with_theta(at), cost).slope)
    wrong = _combine(E, slopes) * size
    if growing:
        scales = with_grown_ends(scales, network.with_theta(at), wrong)
    return at, scaled_norm(wrong, network.dims, scales)


def _combine(coefficients: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    out = slopes[0] * coefficients[0]
    for c, k in zip(coefficients[1:], slopes[1:], strict=False):
        if c != 0.0:
            out.add_(k, alpha=c)
    return out

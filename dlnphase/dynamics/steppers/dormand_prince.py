"""Dormand–Prince 5(4): the explicit pair for flows that are not stiff, and an independent check of the stiff method.

Dormand and Prince, J. Comput. Appl. Math. 6 (1980) 19–26.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlnphase.dynamics.framed_cost import FramedCost
from dlnphase.dynamics.sizes import scaled_norm, with_grown_ends
from dlnphase.dynamics.stabilised import DORMAND_PRINCE
from dlnphase.dynamics.steppers.stiff_solver import Point, seen

ORDER, EMBEDDED_ORDER = DORMAND_PRINCE.order, DORMAND_PRINCE.embedded_order
A = ([], *DORMAND_PRINCE.a, DORMAND_PRINCE.b)
E = DORMAND_PRINCE.error
STAGES = len(A)


def step(
    point: Point, cost: FramedCost, h: Tensor, scales: list[Tensor], exact: bool = True, growing: bool = False
) -> tuple[Tensor, Tensor]:
    """One step of size h (shape (B,)): (θ at t + h, flat (B, P); size of its estimated error relative to r, (B,)).

    The error is always measured on the layers; ``growing`` as for :func:`dlnphase.dynamics.steppers.rosenbrock.step`.
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
    change = network.jvp(wrong, point.prefixes, point.suffixes)
    return at, torch.maximum(scaled_norm(wrong, network.dims, scales), seen(point, cost, change))


def _combine(coefficients: list[float], slopes: list[Tensor]) -> Tensor:
    out = slopes[0] * coefficients[0]
    for c, k in zip(coefficients[1:], slopes[1:], strict=False):
        if c != 0.0:
            out.add_(k, alpha=c)
    return out

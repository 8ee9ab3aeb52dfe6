"""How a path leaves a saddle: along which direction, and how fast.

Near a critical matrix A_c the amplitude a = uᵀ(A − A_c)v of the next mode, (s, u, v) the top of −∇C(A_c), follows
ȧ = L a^(2−2/L) (s − b a) with b = ⟨uvᵀ, H uvᵀ⟩ (balanced, aligned growth: docs/theory.md, section 4), so that

    s · (t_2 − t_1) = ∫ da / (L a^(2−2/L) (1 − a b/s))   from a(t_1) to a(t_2):

the path itself gives a value for s, which for L = 2 is the rate of an exponential. For a cost that is not quadratic the
last factor is −⟨∇C(A_c + a uvᵀ), uvᵀ⟩/s, the slope that is left at a. Weight decay λ of two layers takes λ from s; of
three or more it shuts new modes, and there is no such escape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dlnphase.critical.hostcost import HostCost
from dlnphase.critical.manifold import equal_leading
from dlnphase.critical.matrix import MatrixPoint

EARLY, LEAVING = 0.01, 0.1  # the rate is taken while the mode grows between these parts of its final size
RESOLVED = 1e-9  # a growth shorter than this part of the time at which it happens cannot be timed

Slope = Callable[[np.ndarray], np.ndarray]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)  # exact to round-off on panels no longer than 1


@dataclass(frozen=True)
class Escape:
    """How a path leaves.

    Attributes:
        rate: s, less λ, as the growth of the mode gives it; None where records or the clock do not resolve the growth.
        alignment: share of the way from the closest record that lies along the top singular pair (or tied pairs) of
            −∇C(A_c), when the mode has grown to ``LEAVING`` of its size: 1 is exactly along.
    """

    rate: float | None
    alignment: float


def escape_of(time: np.ndarray, matrices: np.ndarray, point: MatrixPoint, cost: HostCost, depth: int) -> Escape | None:
    """How the path goes on from a visit; None at a minimum, or where it ends before it has left.

    Args:
        time, matrices: from the closest record of the visit to that of the next visit (or the end), shapes (T,), (T,
            d_out, d_in).
        point: the critical point visited.
    """
    if point.next_mode == 0.0 or (cost.decay is not None and depth > 2):
        return None
    x, s, yt = np.linalg.svd(-cost.gradient(point.A), full_matrices=False)
    ties = equal_leading(s)
    moved = matrices - point.A  # along u and v this is A itself: A_c has no part there
    if ties > 1:  # any direction of the tied block may grow: take the one that did
        block = np.einsum("ia,tij,bj->tab", x[:, :ties], moved, yt[:ties])
        left, _, right = np.linalg.svd(block[-1])
        u, v = x[:, :ties] @ left[:, 0], right[0] @ yt[:ties]
    else:
        u, v = x[:, 0], yt[0]
    pair = np.outer(u, v)
    top = float(s[0]) - cost.first
    size = cost.mode_size(point.A, pair, top, 0.0)
    if size <= 0:
        return None
    amplitude = np.einsum("i,tij,j->t", u, moved, v)
    left_at = np.flatnonzero(amplitude >= LEAVING * size)
    if not left_at.size:
        return None
    leave = int(left_at[0])
    way = matrices[leave] - matrices[0]
    length = float(np.linalg.norm(way))
    if length == 0.0:
        return None
    alignment = float(np.linalg.norm(x[:, :ties].T @ way @ yt[:ties].T)) / length
    slope = None if cost.is_quadratic else (lambda x: (cost.slopes(point.A, pair, x * size) - cost.first) / top)
    return Escape(_rate(time, amplitude, leave, size, depth, slope), alignment)


def _rate(
    time: np.ndarray, amplitude: np.ndarray, leave: int, size: float, depth: int, slope: Slope | None
) -> float | None:
    early = np.flatnonzero(amplitude[:leave] <= EARLY * size)
    first = int(early[-1]) + 1 if early.size else 0
    if first >= leave:
        first = leave - 1
    if first < 0 or amplitude[first] <= 0 or amplitude[leave] >= size:
        return None
    elapsed = float(time[leave] - time[first])
    if elapsed <= RESOLVED * abs(float(time[leave])):
        return None
    grown = growth_time(float(amplitude[first]) / size, float(amplitude[leave]) / size, depth, slope)
    return size ** (2 / depth - 1) * grown / elapsed


def growth_time(start: float, end: float, depth: int, slope: Slope | None = None) -> float:
    """∫ da / (L a^(2−2/L) (1 − a)) from ``start`` to ``end``, both within (0, 1), to round-off.

    With ``slope`` that takes the place of 1 − a.

    In the logit u of a this is ∫ a^(2/L−1)/L du, whose integrand is analytic up to ±iπ: Gauss' rule converges at once.
    """
    low, high = np.log(start / (1 - start)), np.log(end / (1 - end))
    panels = np.linspace(low, high, int(np.ceil(high - low)) + 1)
    half = np.diff(panels)[:, None] / 2
    u = panels[:-1, None] + half * (1 + _NODES)
    rest = 1.0 if slope is None else 1 / ((1 + np.exp(u)) * slope(1 / (1 + np.exp(-u))))
    return float((half * _WEIGHTS * rest * (1 + np.exp(-u)) ** (1 - 2 / depth)).sum()) / depth

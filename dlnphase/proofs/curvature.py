"""How fast two gradient flows can part: a lower bound of the Hessian's eigenvalues over a tube, in float64.

Everything here is float arithmetic with its rounding bounded beforehand, after Rump 2010: a product of matrices with
inner size n, in any order of summation, is within γ_n = n·u/(1 − n·u) of |A||B|, whose Frobenius norm is at most
‖A‖‖B‖. γ is taken generously; a bound that is a hair too large costs nothing.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from dlnphase.networks.products import Layers, around_layers
from dlnphase.proofs.balls import UP, Undecided, flint, upper
from dlnphase.proofs.minimum import first_bound, second_bound
from dlnphase.proofs.quadratic import BallCost

UNIT = 2.0**-53  # relative rounding of one float operation


def eigenvalue_range(symmetric: np.ndarray, error: float) -> tuple[float, float]:
    """Bounds of the eigenvalues of every matrix within ``error`` (Frobenius) of a float one.

    S = VΛVᵀ + E for float V, Λ: xᵀSx ≥ min Λ·‖Vᵀx‖² − ‖E‖, and ‖Vᵀx‖² is within ‖VVᵀ − 1‖ of 1.

    Raises:
        Undecided: when the float eigenvectors are no basis.
    """
    values, v = np.linalg.eigh(symmetric)
    n = len(values)
    gamma = 4 * (n + 8) * UNIT
    spread = float(np.abs(values).max(initial=0.0))
    rest = np.linalg.norm(symmetric - (v * values) @ v.T) + gamma * (np.linalg.norm(symmetric) + 2 * n * spread)
    skew = float(np.linalg.norm(v @ v.T - np.eye(n)) + 2 * gamma * n) * UP
    if not (math.isfinite(rest) and skew < 0.5):
        raise Undecided("precision: eigenvectors in floats are no basis")
    slack = float((rest + error) * UP + spread * 8 * UNIT)
    low, high = float(values[0]), float(values[-1])
    return low * (1 + skew if low < 0 else 1 - skew) - slack, high * (1 + skew if high > 0 else 1 - skew) + slack


def layer_norms(layers: Layers) -> list[float]:
    """Upper bounds of ‖W_l‖_op."""
    out = []
    for w in layers:
        small = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
        error = 2 * (max(w.shape) + 4) * UNIT * float(np.sum(w * w)) * UP
        out.append(math.sqrt(max(eigenvalue_range(small, error)[1], 0.0)) * UP)
    return out


def hessian(layers: Layers, cost: BallCost) -> tuple[np.ndarray, float, float]:
    """(∇²𝓛 in floats, a bound of its rounding error in Frobenius norm, an upper bound of ‖∇C‖_F) at float weights."""
    depth = len(layers)
    below, above = around_layers(layers)
    a = layers[-1] @ below[-1]
    g = (cost.matrix.T @ (cost.matrix @ (a - cost.minimizer).ravel())).reshape(a.shape)
    fj = cost.matrix @ np.hstack([np.kron(s, p.T) for s, p in zip(above, below, strict=True)])
    out = fj.T @ fj
    starts = np.cumsum([0, *(w.size for w in layers)])
    for lower_layer in range(depth):
        between = np.eye(layers[lower_layer].shape[0])
        for upper_layer in range(lower_layer + 1, depth):
            q = above[upper_layer].T @ g @ below[lower_layer].T  # (n_l, n_{l'−1})
            block = np.einsum("ib,jk->ijkb", q, between)
            rows, cols = layers[upper_layer].size, layers[lower_layer].size
            at, to = starts[upper_layer], starts[lower_layer]
            out[at : at + rows, to : to + cols] += block.reshape(rows, cols)
            out[to : to + cols, at : at + rows] += block.reshape(rows, cols).T
            between = layers[upper_layer] @ between
    error, slope = _rounding(layers, cost)
    return out, error, float(np.linalg.norm(g)) * UP + slope


def _rounding(layers: Layers, cost: BallCost) -> tuple[float, float]:
    """Bounds of the rounding errors of the Hessian and of ∇C, from Frobenius norms."""
    dims = [layers[0].shape[1], *(w.shape[0] for w in layers)]
    unit = [math.sqrt(n) for n in dims]
    sizes = [float(np.linalg.norm(w)) * UP for w in layers]
    count = dims[0] * dims[-1] + sum(a * b for a, b in pairwise(dims)) + 16
    gamma = 16 * count * UNIT

    def chain(start: int, stop: int) -> float:
        return unit[start] * math.prod(sizes[start:stop])

    depth = len(layers)
    slope = cost.majorant * (math.prod(sizes) * unit[0] + float(np.linalg.norm(cost.minimizer)))
    total = cost.majorant * sum((chain(l + 1, depth) * unit[-1] * chain(0, l)) ** 2 for l in range(depth))
    for lo in range(depth):
        for hi in range(lo + 1, depth):
            total += 2 * chain(hi + 1, depth) * unit[-1] * slope * chain(0, lo) * chain(lo + 1, hi)
    return gamma * total * UP + 1e-280, gamma * slope * UP + 1e-280


def parting_rate(layers: Layers, reach: float, cost: BallCost) -> float:
    """An upper bound of −λ_min(∇²𝓛) over the ball of radius ``reach`` around float weights.

    By K₃ = sup‖D³𝓛‖ ≤ 3‖H‖a_2a_1 + ‖G‖a_3 with c_l = ‖W_l‖ + reach: a_1² = Σ_lΠ_{j≠l}c_j², a_2 the largest row sum of
    Π_{l≠i,j}c_l, a_3 = L(L−1)(L−2)L^(−3/2)·max c^(L−3).
    """
    matrix, error, slope = hessian(layers, cost)
    least, _ = eigenvalue_range(matrix, error)
    rate = -least + third_bound(layer_norms(layers), reach, slope, cost.square_size) * reach * UP
    return rate + abs(rate) * 2 * UNIT


def third_bound(norms: list[float], reach: float, slope: float, size: float) -> float:
    """K₃ within ``reach``, from ‖W_l‖, ‖∇C‖ at the centre and ‖H‖."""
    first, second = (upper(bound([flint().arb(n) for n in norms], reach)) for bound in (first_bound, second_bound))
    depth, most = len(norms), (max(norms) + reach) * UP
    third = depth * (depth - 1) * (depth - 2) * depth**-1.5 * most ** (depth - 3) if depth > 2 else 0.0
    return (3 * size * first * second + (slope + size * first * reach) * third) * UP

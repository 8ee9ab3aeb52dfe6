"""Bounds of d_m and d_s from below, and which of the two is proved to be nearer (theory page, from both sides).

The distances of :mod:`dlnphase.distances.minimum` and :mod:`dlnphase.distances.saddle` are attained, so bounds from
above. Here, for the same θ_0 and with rounding counted (:mod:`dlnphase.distances.enclosures`):

d_m, by the tangent kernel. Every minimiser A has ⟨Z, A − A_θ0⟩ = m for Z in the range of H. For θ_0 + δ to reach
    one, m ≤ ‖JᵀZ‖·d + ‖Z‖·R(d), d = ‖δ‖, R(d) a bound of ‖A_{θ0+δ} − A_θ0 − Jδ‖. Sharp in the lazy regime.
d_m, by products of singular values. s_i(W_l + δ_l) ≤ s_i(δ_l) + c_l (Weyl), c_l = ‖W_l‖_op, and
    Π_{i≤k} s_i(A) ≤ Π_l Π_{i≤k} s_i(W_l + δ_l) (Horn 1950): the least Σ_{l,i} (x_{l,i} − c_l)²₊ with such products is
    Σ_i H(ln s_i), H(y) = min Σ_l (x_l − c_l)²₊ over Π_l x_l = e^y, since H is convex and grows (Tomić–Weyl).
d_s. A critical point with ∇C ≠ 0 has uᵀW_L ⋯ W_2 = 0 and W_{L−1} ⋯ W_1 v = 0 for some unit u, v: the change of the
    first product has to reach its least singular value, the change of the second likewise.

How far products can move within a distance is bounded in :mod:`dlnphase.distances.changes`.

From above, for the verdict, two points that are exact without any iteration: W_1 = W_L = 0 is critical with A = 0, and
changing the last (or first) layer alone by (Â − A_θ0)P⁺, P = W_{L−1} ⋯ W_1, reaches a minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import exp, sqrt

import numpy as np
import torch

from dlnphase.backend import Backend
from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.distances.changes import HALVINGS, NormBounds, expansion, root, series
from dlnphase.distances.enclosures import SLACK, UNIT, Enclosed, gamma, up
from dlnphase.networks.chain import Network

LARGEST_SOLVE = 1024  # d_out·d_in up to which Z is made for a cost that does not measure every direction alike


@dataclass(frozen=True)
class LowerBounds:
    """Bounds from below, and what follows from them.

    Attributes:
        minimum: a lower bound of d_m, shape (B,).
        saddle: a lower bound of d_s, shape (B,).
        nearer: per member ``minimum``, ``saddle`` or ``undecided``.
        probability: 1 for a network held in full; for a reduced one that of the bounds on the norms of its layers.
    """

    minimum: np.ndarray
    saddle: np.ndarray
    nearer: tuple[str, ...]
    probability: float

    @property
    def common(self) -> str:
        """The verdict that holds for every member, or ``undecided``."""
        return self.nearer[0] if len(set(self.nearer)) == 1 else "undecided"


def lower_bounds(network: Network, cost: QuadraticCost, *, width: int, sigma: float, full: bool) -> LowerBounds:
    """Both bounds and the verdict for every member.

    Args:
        network: θ_0, B members in double precision, depth at least 2; full or reduced (straight products are exact).
        cost: quadratic; its minimisers are those of the numbers it holds.
        width, sigma: of the full network, whose layers a reduced one bounds in probability (Davidson and Szarek 2001).
        full: whether ``network`` holds the full network.
    """
    cost = cost.to(Backend(torch.device("cpu"), torch.float64))
    chain = NormBounds(network, width, sigma, full)
    minimum = np.maximum(_by_kernel(chain, cost), _by_products(chain, cost))
    saddle = _saddle(chain)
    nearest_minimum, nearest_saddle = _reached(chain, cost)
    nearer = tuple(
        "minimum" if above_m < below_s else "saddle" if above_s < below_m else "undecided"
        for above_m, below_s, above_s, below_m in zip(nearest_minimum, saddle, nearest_saddle, minimum, strict=True)
    )
    return LowerBounds(minimum, saddle, nearer, chain.probability)


def least_cost_of_value(value: np.ndarray | float, norms: np.ndarray | Sequence[float]) -> np.ndarray:
    """min Σ_l (x_l − c_l)²₊ over Π_l x_l = value, from below (by its dual: any μ gives a bound); shape (…).

    Args:
        value: product wanted, ≥ 0, shape (…).
        norms: c_l > 0, shape (…, L).
    """
    c = np.asarray(norms, dtype=float)
    value = np.asarray(value, dtype=float)
    wanted = np.where(value > 0, value, 1.0)  # 0 costs nothing, as is told below
    low = np.zeros(np.broadcast_shapes(value.shape, c.shape[:-1]))
    high = wanted ** (2 / c.shape[-1]) + low  # x_l = (c_l + (c_l² + 4μ)^½)/2 ≥ μ^½ reaches the value by then
    for _ in range(HALVINGS):
        mu = (low + high) / 2
        below = _stretched(c, mu).prod(-1) < wanted
        low, high = np.where(below, mu, low), np.where(below, high, mu)
    x = _stretched(c, low)
    logs = np.log(x)
    bound = ((x - c) ** 2).sum(-1) + 2 * low * (np.log(wanted) - logs.sum(-1))
    lost = SLACK * 1e-3 * ((x**2).sum(-1) + 2 * low * (np.abs(np.log(wanted)) + np.abs(logs).sum(-1)))
    return np.where(value <= c.prod(-1), 0.0, np.maximum(bound - lost, 0.0))


def _stretched(c: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """The x_l that are cheapest at a price μ of ln x_l: x(x − c) = μ."""
    return (c + np.sqrt(c * c + 4 * mu[..., None])) / 2


def _saddle(chain: NormBounds) -> np.ndarray:
    """A lower bound of d_s, shape (B,)."""
    depth = chain.depth
    left, right = chain.least("above"), chain.least("below")
    if depth == 2:  # the two conditions ask for different layers
        return np.sqrt(left**2 + right**2) * (1 - SLACK)
    sides = []
    for reach, first in ((left, 1), (right, 0)):
        layers = range(first, first + depth - 1)
        if first:  # uᵀ W_L ⋯ W_2: what lies above a changed layer is held, what lies below (down to layer 2) is bounded
            bottoms = [chain.run(1, index - 1) for index in layers]
            tops = [chain.above_norm[depth - 1 - index] for index in layers]
        else:
            bottoms = [chain.below_norm[index] for index in layers]
            tops = [chain.run(index + 1, depth - 2) for index in layers]
        sums = expansion(bottoms, tops, chain, first)
        with np.errstate(divide="ignore", invalid="ignore"):  # a network of zeros is at its saddle: the bound is 0
            guess = np.where(sums[0] > 0, up(reach / np.sqrt(sums[0]) * sqrt(len(sums))), 0.0)
        sides.append(root(reach, partial(series, sums, start=1), guess))
    return np.maximum(*sides) * (1 - SLACK)


def _by_kernel(chain: NormBounds, cost: QuadraticCost) -> np.ndarray:
    """A lower bound of d_m by the tangent kernel, shape (B,)."""
    depth = chain.depth
    z, reach = _direction(chain, cost)
    size = z.frobenius
    slope = np.zeros(chain.batch)
    suffixes = [*(p.transposed() for p in reversed(chain.above)), None]
    prefixes = [None, *chain.below]
    for s, p in zip(suffixes, prefixes, strict=True):
        part = z if s is None else s.transposed() @ z
        slope = slope + (part if p is None else part @ p.transposed()).frobenius ** 2
    slope = up(np.sqrt(slope))
    bottoms = [chain.below_norm[index] for index in range(depth)]
    tops = [chain.above_norm[depth - 1 - index] for index in range(depth)]
    sums = expansion(bottoms, tops, chain, 0)
    reach = np.maximum(reach, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        guess = np.where(slope > 0, up(reach / slope), 0.0)
    return root(reach, lambda d: up(slope * d + size * series(sums, d, 2)), guess) * (1 - SLACK)


def _direction(chain: NormBounds, cost: QuadraticCost) -> tuple[Enclosed, np.ndarray]:
    """Z of shape (B, d_out, d_in), and ⟨Z, A − A_θ0⟩ from below, the same for every minimiser A."""
    missing, spread = _missing(chain, cost)
    if cost.unique:
        z = Enclosed.exact(missing)
        return z, _inner(missing, missing) - up(spread * z.frobenius)
    # ⟨HY, A − A_θ0⟩ = ⟨Y, H(A − A_θ0)⟩ holds for every minimiser; Y is made so that HY is nearly what is missing.
    y = _preimage(cost, torch.as_tensor(missing))
    measured = cost.apply_curvature(y).numpy()
    z = Enclosed(measured, _lost(cost) * np.linalg.norm(y.numpy(), axis=(1, 2)))
    return z, _inner(measured, missing) - up(spread * z.frobenius + z.radius * np.linalg.norm(missing, axis=(1, 2)))


def _missing(chain: NormBounds, cost: QuadraticCost) -> tuple[np.ndarray, np.ndarray]:
    """Â − A_θ0 of shape (B, d_out, d_in), and how far off it may be, shape (B,)."""
    goal, product = cost.minimizer.numpy()[None], chain.product()
    rounding = UNIT * (np.linalg.norm(goal, axis=(1, 2)) + np.linalg.norm(product.mid, axis=(1, 2)))
    return goal - product.mid, up(product.radius + 2 * rounding)


def _lost(cost: QuadraticCost) -> float:
    """Round-off of H(Y) per unit of ‖Y‖_F."""
    size = cost.shape[0] * cost.shape[1]
    return 2 * gamma(size) * float(torch.linalg.vector_norm(cost.operator)) * (1 + SLACK)


def _is_projection(cost: QuadraticCost, matrix: torch.Tensor) -> bool:
    """Whether H only blots entries out, exactly: then H(V) is measured as V is."""
    once = cost.apply_curvature(matrix)
    return bool(torch.equal(cost.apply_curvature(once), once))


def _preimage(cost: QuadraticCost, missing: torch.Tensor) -> torch.Tensor:
    """Y with H(Y) near the part of ``missing`` that the cost measures."""
    if _is_projection(cost, missing) or missing[0].numel() > LARGEST_SOLVE:
        return missing
    curvature = cost.curvature()
    inverse = torch.linalg.pinv(curvature, hermitian=True, rtol=len(curvature) * 2 * UNIT * 1e3)
    return (missing.flatten(1) @ inverse).view(missing.shape)


def _inner(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """⟨X, Y⟩ from below, shape (B,)."""
    terms = x * y
    return terms.sum((1, 2)) - 2 * gamma(terms[0].size + 1) * np.abs(terms).sum((1, 2))


def _by_products(chain: NormBounds, cost: QuadraticCost) -> np.ndarray:
    """A lower bound of d_m by products of singular values, shape (B,): of Â, or of what all minimisers share."""
    norms = np.maximum(np.stack(chain.norm, 1), exp(-600))
    if cost.unique:
        values = _singular_values(cost.minimizer.numpy())
        sums = least_cost_of_value(values[values > 0], norms[:, None]).sum(1)
    else:
        operator, nuclear = _least_sizes(cost)
        sums = np.maximum(least_cost_of_value(operator, norms), _of_nuclear(nuclear, norms, min(cost.shape)))
    return np.sqrt(sums) * (1 - SLACK)


def _singular_values(matrix: np.ndarray) -> np.ndarray:
    """Singular values from below: by Weyl, the computed ones less the residual of the decomposition."""
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    size = gamma(max(matrix.shape) + 2) * np.sqrt(len(s)) * float(s[0])
    defect = np.linalg.norm(u.T @ u - np.eye(len(s))) + np.linalg.norm(vt @ vt.T - np.eye(len(s)))
    residual = np.linalg.norm(matrix - (u * s) @ vt)
    return s - up(residual + 2 * defect * s[0] + 8 * size)


def _least_sizes(cost: QuadraticCost) -> tuple[float, float]:
    """What s_1 and Σs_i of every minimiser are at least: ⟨Z, Â⟩/‖Z‖_* and ⟨Z, Â⟩/‖Z‖_op for Z = H(Â)."""
    goal = cost.minimizer[None]
    z = cost.apply_curvature(goal).numpy()
    lost = _lost(cost) * float(goal.norm())
    reach = float(_inner(z, goal.numpy())[0]) - lost * float(goal.norm())
    if reach <= 0:
        return 0.0, 0.0
    values = np.linalg.svd(z[0], compute_uv=False)
    room = lost + 16 * gamma(max(cost.shape) + 2) * float(values.sum())
    nuclear, operator = float(values.sum()) + len(values) * room, float(values[0]) + room
    return reach / nuclear * (1 - SLACK), reach / operator * (1 - SLACK)


def _of_nuclear(nuclear: float, norms: np.ndarray, rank: int) -> np.ndarray:
    """Bound of Σ_i H(ln s_i) for Σs_i ≥ N, i ≤ ``rank``: L(N^(2/L) − 2c·rank^(1−1/L)·N^(1/L)), c = max c_l, shape (B,).

    From (x − c)²₊ ≥ x² − 2cx at s^(1/L), concavity of s^(2/L) for L ≥ 2, and Hölder; it grows with N where positive.
    """
    depth, c = norms.shape[1], norms.max(1)
    root_ = nuclear ** (1 / depth)
    return np.maximum(0.0, depth * root_ * (root_ - 2 * c * rank ** (1 - 1 / depth)) * (1 - SLACK))


def _reached(chain: NormBounds, cost: QuadraticCost) -> tuple[np.ndarray, np.ndarray]:
    """Upper bounds of d_m and d_s by the two exact points, each (B,); infinite where one does not exist."""
    missing, spread = _missing(chain, cost)
    matrix = torch.as_tensor(missing)
    if _is_projection(cost, matrix):
        matrix = cost.apply_curvature(matrix)
    gap = up(torch.linalg.vector_norm(matrix, dim=(1, 2)).numpy() + spread)
    least = np.maximum(chain.least("below"), chain.least("above"))
    with np.errstate(divide="ignore"):
        minimum = np.where(least > 0, up(gap / least), np.inf)
    goal = cost.minimizer[None]
    slope = float(cost.apply_curvature(goal).norm()) * (1 - SLACK)
    moves = slope > _lost(cost) * float(goal.norm())  # else A = 0 may be a minimum
    saddle = up(np.sqrt(chain.ends[0] ** 2 + chain.ends[1] ** 2)) if moves else np.full(chain.batch, np.inf)
    return minimum, saddle

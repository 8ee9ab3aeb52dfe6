"""What kind of critical point this is, with everything the statement rests on.

For C convex and hidden layers at least min(d_out, d_in) wide, θ_c is a global minimum if and only if ∇C(A_c) = 0, and
a saddle otherwise (Laurent and von Brecht 2018). Negative curvature proves a strict saddle; for L ≥ 3 the saddles of
the greedy path have none, and are proved by descent: open one new channel of size ε in every layer along the top
singular pair (u, v) of −∇C(A_c). Then A = A_c + ε^L uvᵀ and the cost falls by s·ε^L to leading order,
s = ‖∇C(A_c)‖_op. The decrease is obtained by evaluating the cost of the network with the channel opened.

With weight decay every critical point has rotations of its hidden spaces for zero eigenvalues. Where there are no more
of them, their number says which: none is negative at a local minimum (Morse and Bott), and one that is makes a strict
saddle. A new channel gains (s − λ)ε² at L = 2 and nothing at L ≥ 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlnphase.critical.bottleneck import is_least
from dlnphase.critical.curvature import Curvature, curvature_at, free_channel
from dlnphase.critical.decay import Decay
from dlnphase.critical.decayed_modes import is_least_with_decay
from dlnphase.critical.hostcost import HostCost
from dlnphase.critical.manifold import equal_leading, top_pair
from dlnphase.critical.matrix import ROUND_OFF, MatrixPoint, is_stable
from dlnphase.critical.weights import ParameterPoint, natural_size
from dlnphase.networks.products import Layers, product

KINDS = ("strict-saddle", "degenerate-saddle", "global-minimum", "local-minimum", "not-critical", "uncertified")
ZERO_CURVATURE = 1e-9  # eigenvalues above minus this, in natural units, are zero
CHANNEL = 5e-3  # size ε^L of the new channel, in units of the size that the mode will grow to


@dataclass(frozen=True)
class Descent:
    """A decrease of the cost along an explicit curve that leaves θ_c.

    Attributes:
        order: 2 along negative curvature (and always for L = 2), else L.
        epsilon: ε, size of the new channel in every layer, or of the step along the eigenvector.
        predicted: s·ε^L, or ½|λ|ε².
        obtained: C(A_c) − C after the step, with weight decay of C + (λ/2)‖θ‖².
        measured_order: log₂ of the decrease at ε over that at ε/2.
    """

    order: int
    epsilon: float
    predicted: float
    obtained: float
    measured_order: float

    @property
    def ratio(self) -> float:
        """Obtained over predicted: 1 to leading order."""
        return self.obtained / self.predicted


@dataclass(frozen=True)
class Certificate:
    """The kind of a critical point and its grounds.

    Attributes:
        kind: one of ``KINDS``.
        curvature: lower end of the Hessian's spectrum; None when not critical.
        next_mode: s = ‖∇C(A_c)‖_op, zero at a minimum.
        ties: how many singular values of ∇C(A_c) equal the largest.
        descent: a curve along which the cost falls; None at a minimum and where there is none.
        note: what a reader should know, or "".
    """

    kind: str
    curvature: Curvature | None
    next_mode: float
    ties: int
    descent: Descent | None
    note: str = ""


def certify(point: ParameterPoint, cost: HostCost, *, hidden: Sequence[int] | None = None) -> Certificate:
    """Tell the kind of a critical point.

    Args:
        point: of :func:`dlnphase.critical.refine_weights`.
        hidden: true hidden sizes where the weights are those of a reduced network.
    """
    depth, matrix = len(point.weights), point.point
    if not matrix.converged or point.gradient_norm > ROUND_OFF:
        note = f"gradient {max(point.gradient_norm, matrix.gradient_norm):.1e} in natural units"
        if matrix.nearness > 0.1:
            note += f", {matrix.nearness:.2g} mode sizes away from the path"
        return Certificate("not-critical", None, matrix.next_mode, 0, None, note)
    unit = point.unit / natural_size(cost, depth)
    curvature = curvature_at(point.weights, cost, ZERO_CURVATURE * unit, hidden=hidden)
    if cost.decay is not None:
        sizes = tuple(hidden) if hidden is not None else tuple(w.shape[0] for w in point.weights[:-1])
        return _with_decay(point, cost, cost.decay, curvature, sizes)
    if matrix.next_mode == 0.0:
        return Certificate("global-minimum", curvature, 0.0, 0, None)
    ties, note = _ties(matrix, cost)
    strict = curvature.min_eigenvalue < -curvature.threshold
    descent = _along_eigenvector(point, cost, curvature) if strict and depth > 2 else _new_channel(point, cost)
    if descent is None and strict:
        descent = _along_eigenvector(point, cost, curvature)
    if descent is not None and descent.obtained > 0:
        kind = "strict-saddle" if strict else "degenerate-saddle"
        return Certificate(kind, curvature, matrix.next_mode, ties, descent, note)
    return _bottleneck(point, cost, curvature, ties, hidden)


def _ties(matrix: MatrixPoint, cost: HostCost) -> tuple[int, str]:
    """How many modes lead, and a note where it is more than one."""
    values = np.linalg.svd(cost.gradient(matrix.A), compute_uv=False)
    ties = equal_leading(values)
    return ties, f"{ties} equal leading modes: which one is learned next is not decided here" if ties > 1 else ""


def rotations(rank: int, hidden: Sequence[int]) -> int:
    """Dimension of the orbit of a point with this many learned channels under rotations of its hidden spaces."""
    return sum(rank * (n - rank) + rank * (rank - 1) // 2 for n in hidden)


def _with_decay(
    point: ParameterPoint, cost: HostCost, decay: Decay, curvature: Curvature, hidden: tuple[int, ...]
) -> Certificate:
    """The kind of a critical point of C(A_θ) + (λ/2)‖θ‖²."""
    matrix = point.point
    if is_least_with_decay(matrix, cost, decay, min(hidden)):
        narrow = decay.depth == 2 and matrix.next_mode > 0
        note = f"the least C + (λ/2)‖θ‖² that width {min(hidden)} allows" if narrow else ""
        return Certificate("global-minimum", curvature, matrix.next_mode, 0, None, note)
    if curvature.min_eigenvalue < -curvature.threshold:
        grows = decay.depth == 2 and matrix.next_mode > decay.rate
        ties, note = _ties(matrix, cost) if grows else (0, "")
        descent = (_new_channel(point, cost) if grows else None) or _along_eigenvector(point, cost, curvature)
        kind = "strict-saddle" if descent is not None and descent.obtained > 0 else "uncertified"
        return Certificate(kind, curvature, matrix.next_mode, ties, descent, note)
    if curvature.complete:
        alone = curvature.zero_eigenvalues == rotations(matrix.rank, hidden)
    else:  # layers make of A whatever they can at least cost: 𝓛 rises where C and that cost do among matrices
        closed = decay.depth > 2 or matrix.rank == min(hidden)
        alone = closed and is_stable(matrix, cost, strictly=True)
    if alone:
        note = "a minimum of C + (λ/2)‖θ‖², to rotations of hidden spaces; it is not known to be the least"
        return Certificate("local-minimum", curvature, matrix.next_mode, 0, None, note)
    note = "no negative eigenvalue, and more zeros than rotations of hidden spaces explain: a minimum or a saddle"
    return Certificate("uncertified", curvature, matrix.next_mode, 0, None, note)


def _bottleneck(
    point: ParameterPoint, cost: HostCost, curvature: Curvature, ties: int, hidden: Sequence[int] | None
) -> Certificate:
    """No channel is free: the network is narrower than what is left to learn."""
    matrix = point.point
    width = min(hidden if hidden is not None else [w.shape[0] for w in point.weights[:-1]], default=0)
    if matrix.rank == width and is_least(matrix.cost, cost.cost, width):
        note = f"the least cost that width {width} allows, above the minimum over all matrices"
        return Certificate("global-minimum", curvature, matrix.next_mode, ties, None, note)
    if matrix.rank == width and is_stable(matrix, cost, strictly=True):
        note = (
            f"a local minimum at width {width}: among matrices of this rank the cost rises in every direction; "
            "the least cost at this width is not known"
        )
        return Certificate("local-minimum", curvature, matrix.next_mode, ties, None, note)
    note = f"no free channel at width {width} and no negative curvature: a local minimum at this width or a saddle"
    return Certificate("uncertified", curvature, matrix.next_mode, ties, None, note)


def _new_channel(point: ParameterPoint, cost: HostCost) -> Descent | None:
    """Open one channel of size ε in every layer of a minimal point; None where a hidden space has none free."""
    if point.frames is None or any(f.shape[1] >= f.shape[0] for f in point.frames):
        return None
    matrix, depth = point.point, len(point.weights)
    s, u, v = top_pair(-cost.gradient(matrix.A))
    s -= cost.first
    pair = np.outer(u, v)
    scale = cost.mode_size(matrix.A, pair, s, natural_size(cost, depth) ** depth)
    epsilon = float((CHANNEL * scale) ** (1 / depth))
    chain = [v, *(free_channel(f) for f in point.frames), u]
    step = [np.outer(chain[i + 1], chain[i]) for i in range(depth)]
    before, after, half = (_excess(point.weights, step, size, cost) for size in (0.0, epsilon, epsilon / 2))
    drop, small = before - after, before - half
    order = float(np.log2(drop / small)) if drop > 0 and small > 0 else float("nan")
    return Descent(depth, epsilon, s * epsilon**depth, drop, order)


def _along_eigenvector(point: ParameterPoint, cost: HostCost, curvature: Curvature) -> Descent | None:
    """Step along the most negative curvature, to whichever side the cost falls more."""
    if curvature.direction is None:
        return None
    size, found = natural_size(cost, len(point.weights)), None
    for epsilon in (1e-2 * size, 1e-3 * size, 1e-4 * size):
        predicted = 0.5 * abs(curvature.min_eigenvalue) * epsilon**2
        before = _excess(point.weights, curvature.direction, 0.0, cost)
        drops = {}
        for sign in (1, -1):
            after, half = (_excess(point.weights, curvature.direction, sign * e, cost) for e in (epsilon, epsilon / 2))
            drops[sign] = (before - after, before - half)
        drop, small = max(drops.values())
        if drop > 0 and small > 0:
            found = Descent(2, epsilon, predicted, drop, float(np.log2(drop / small)))
            if abs(found.ratio - 1) < 0.01:  # the quadratic term leads
                break
    return found


def _excess(weights: Layers, step: Layers, size: float, cost: HostCost) -> float:
    there = [w + size * d for w, d in zip(weights, step, strict=True)]
    excess = cost.excess(product(there))
    return excess if cost.decay is None else excess + 0.5 * cost.decay.rate * sum(float(np.sum(w**2)) for w in there)

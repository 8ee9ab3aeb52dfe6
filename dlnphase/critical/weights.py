"""From a critical matrix to a critical point θ_c of the loss, near the point where a path came closest.

Newton's method on ∇𝓛(θ) = 0 is hopeless here: for L ≥ 3 the gradient vanishes to higher order in every unused
direction, so it converges slowly and to no definite rank. θ_c is built instead. With A_c = U S Vᵀ and
G = ∇C(A_c), θ is critical when each mode (x, y) of G is cut on the left in some layer a, xᵀW_L ⋯ W_a = 0,
and on the right in an earlier one b < a, W_b ⋯ W_1 y = 0, while W_L ⋯ W_1 = A_c. Two such points are of use:

With weight decay critical points are balanced and nothing is left of unused channels: there is the minimal one alone.

minimal    W_l = E_l C_l E_{l-1}ᵀ with E_l an orthonormal frame of the r learned channels of hidden space l: nothing is
           left of the unused channels. This is the saddle of the greedy path, the one that is certified.
nearest    only what has to go is removed (the cheapest pair of layers for each mode, W_L and W_1 unless another pair is
           far cheaper) and the learned part refitted by Gauss–Newton steps of least norm. It keeps the random bulk of
           the initial weights in the middle layers and its distance is an upper bound on that to the set of saddles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlnphase.critical.hostcost import HostCost
from dlnphase.critical.manifold import top_pair
from dlnphase.critical.matrix import ROUND_OFF, ZERO_MODE, MatrixPoint
from dlnphase.networks.products import Layers, around_layers, balanced, product

MAX_SWEEPS = 200  # of cutting and refitting, or of turning frames: what weights that settle slowly may cost
CHEAPER = 0.5  # another pair of layers is taken when it costs less than this part of cutting W_L and W_1
KERNEL = 1024  # entries of a goal up to which its tangent kernel is formed and solved as one dense matrix
LARGEST_KERNEL = 2048  # up to which that is done where products do not solve it: layers may be far from balanced
MAX_PRODUCTS = 100  # with a larger kernel that one step towards a goal is worth; balanced layers need ten
UNSOLVED = 1e-6  # part of what is missing from which on products are taken not to solve it
SOLVED = 1e-13  # part of what is missing that such a step may leave; the next one takes it
RANK_DEFECT = 1e-12  # eigenvalues of a tangent kernel below this, relative to the largest, are directions of no change
BULK = 0.3  # unused channels larger than this, in units of a learned layer, belong to the critical point


@dataclass(frozen=True)
class ParameterPoint:
    """A critical point θ_c of the loss 𝓛(θ) = C(W_L ⋯ W_1).

    Attributes:
        weights: W_1, …, W_L.
        point: the critical matrix it realises.
        gradient_norm: ‖∇𝓛(θ_c)‖ in natural units.
        unit: natural unit of ‖∇𝓛‖, :func:`natural_unit`.
        distance: ‖θ_c − θ‖ from the weights given.
        form: ``minimal`` or ``nearest``.
        frames: orthonormal bases of the learned channels of hidden spaces 1 … L−1, each (n_l, r); None unless minimal.
    """

    weights: Layers
    point: MatrixPoint
    gradient_norm: float
    unit: float
    distance: float
    form: str
    frames: list[np.ndarray] | None = None


def refine_weights(weights: Layers, point: MatrixPoint, cost: HostCost) -> tuple[ParameterPoint, ParameterPoint]:
    """The critical point that a path visits and the nearest one found, which may be the same.

    Args:
        weights: W_1, …, W_L at the path's closest point.
        point: of :func:`refine_matrix` at W_L ⋯ W_1.

    Returns:
        (visited, nearest). The visited point is the minimal one, unless the path's unused channels are as large as
        its learned ones, or it sits exactly on a critical point that is not minimal: then both are the nearest one.
    """
    weights = [np.asarray(w, dtype=float) for w in weights]
    minimal = minimal_point(weights, point, cost)
    if cost.decay is not None:  # nothing that is unused is critical, and the frames are the nearest there are
        return minimal, minimal
    nearest = nearest_point(weights, point, cost)
    if minimal.distance <= nearest.distance:
        return minimal, minimal
    size = natural_size(cost, len(weights))
    bulk = max(float(np.linalg.norm(w - m, 2)) for w, m in zip(nearest.weights, minimal.weights, strict=True))
    exact = nearest.distance <= 1e-6 * minimal.distance
    if exact or (bulk > BULK * size and nearest.distance < 0.1 * minimal.distance):
        return nearest, nearest
    return minimal, nearest


def natural_size(cost: HostCost, depth: int) -> float:
    """Size of one layer of the first mode, :meth:`HostCost.mode_size`^(1/L) along the top of −∇C(0); 1 if ∇C(0) = 0."""
    zero = np.zeros(cost.shape)
    s, u, v = top_pair(-cost.gradient(zero))
    if s == 0:
        return 1.0
    pair = np.outer(u, v)
    return cost.mode_size(zero, pair, s, 1.0) ** (1 / depth)


def natural_unit(cost: HostCost, depth: int) -> float:
    """Natural unit of ‖∇𝓛‖: ‖∇C(0)‖_op times the size of a mode's other L − 1 layers; 1 if ∇C(0) = 0."""
    s = top_pair(cost.gradient(np.zeros(cost.shape)))[0]
    return s * natural_size(cost, depth) ** (depth - 1) if s > 0 else 1.0


def minimal_point(weights: Layers, point: MatrixPoint, cost: HostCost) -> ParameterPoint:
    """The critical point with nothing outside its r learned channels, whose frames are those of the weights given.

    With weight decay it is balanced: every layer is E_l S^(1/L) E_{l−1}ᵀ.
    """
    depth, r = len(weights), point.rank
    u, s, v = _factors(point)
    frames = [v, *_hidden_frames(weights, u, s, v), u]
    if cost.decay is not None and r:
        frames = _nearest_frames(weights, frames, s)
        return _finish(weights, balanced(frames, s ** (1 / depth)), point, cost, "minimal", frames[1:-1])
    cores = [frames[i + 1].T @ w @ frames[i] for i, w in enumerate(weights)]
    if r:
        cores = _refit(cores, np.diag(s))
    built = [frames[i + 1] @ core @ frames[i].T for i, core in enumerate(cores)]
    return _finish(weights, built, point, cost, "minimal", frames[1:-1] if depth > 1 else [])


def nearest_point(weights: Layers, point: MatrixPoint, cost: HostCost) -> ParameterPoint:
    """The critical point that takes the least away: cut and refit in turn until ∇𝓛 is at round-off."""
    depth = len(weights)
    if depth == 1:
        return _finish(weights, [point.A], point, cost, "nearest")
    modes = _Modes(point, cost)
    default = [(depth, 1)] * modes.left.shape[1]
    tries = [_cheapest_pairs(weights, modes)]
    if tries[0] != default:
        tries.append(default)
    best: ParameterPoint | None = None
    for pairs in tries:
        built = _cut_and_refit(weights, point, modes, pairs)
        if built is not None:
            found = _finish(weights, built, point, cost, "nearest")
            if found.gradient_norm <= ROUND_OFF and (best is None or found.distance < best.distance):
                best = found
    return best if best is not None else minimal_point(weights, point, cost)


class _Modes:
    """Directions outside the learned ones at A_c: modes of G (columns of left and right), and the null block."""

    def __init__(self, point: MatrixPoint, cost: HostCost) -> None:
        r = point.rank
        u, s, vt = np.linalg.svd(point.A)
        self.u, self.s, self.v = u[:, :r], s[:r], vt[:r].T
        u_perp, v_perp = u[:, r:], vt[r:].T
        x, g, yt = np.linalg.svd(u_perp.T @ cost.gradient(point.A) @ v_perp)
        count = int((g > ZERO_MODE * point.scale).sum())
        self.left, self.right = u_perp @ x[:, :count], v_perp @ yt[:count].T
        self.null_left, self.null_right = u_perp @ x[:, count:], v_perp @ yt[count:].T
        # The product must vanish on the null block too: cutting its smaller side is enough.
        self.cut_left = self.null_left.shape[1] <= self.null_right.shape[1]
        if self.cut_left:
            self.rows, self.columns = self.u, np.hstack([self.v, self.null_right])
        else:
            self.rows, self.columns = np.hstack([self.u, self.null_left]), self.v
        self.goal = self.rows.T @ point.A @ self.columns


def _cheapest_pairs(weights: Layers, modes: _Modes) -> list[tuple[int, int]]:
    """For each mode the layers (a, b), a > b, where cutting it on the left and on the right takes the least away."""
    depth, count = len(weights), modes.left.shape[1]
    left, right = np.full((count, depth + 1), np.inf), np.full((count, depth + 1), np.inf)
    for i in range(count):
        for a, vector in _carried(weights, modes.left[:, i], from_left=True):
            left[i, a] = float(np.linalg.norm(vector @ weights[a - 1])) ** 2
        for b, vector in _carried(weights, modes.right[:, i], from_left=False):
            right[i, b] = float(np.linalg.norm(weights[b - 1] @ vector)) ** 2
    pairs = []
    for i in range(count):
        prices = {(a, b): left[i, a] + right[i, b] for a in range(2, depth + 1) for b in range(1, a)}
        cheapest = min(prices, key=lambda pair: prices[pair])
        pairs.append(cheapest if prices[cheapest] < CHEAPER * prices[depth, 1] else (depth, 1))
    return pairs


def _carried(weights: Layers, vector: np.ndarray, *, from_left: bool) -> list[tuple[int, np.ndarray]]:
    """(layer, unit vector to cut from it) as the vector is carried through the chain, while above round-off."""
    order = range(len(weights), 0, -1) if from_left else range(1, len(weights) + 1)
    out = []
    for layer in order:
        out.append((layer, vector))
        w = weights[layer - 1]
        carried = vector @ w if from_left else w @ vector
        size = float(np.linalg.norm(carried))
        if size <= 1e-12 * float(np.linalg.norm(w)):
            break
        vector = carried / size
    return out


def _cut_and_refit(weights: Layers, point: MatrixPoint, modes: _Modes, pairs: list[tuple[int, int]]) -> Layers | None:
    """Alternate between cutting and one Gauss–Newton step on the product; None if that does not settle."""
    depth = len(weights)
    current = [w.copy() for w in weights]
    size = max(float(np.abs(point.A).max()), np.finfo(float).tiny)
    moved = np.inf
    for _ in range(MAX_SWEEPS):
        before = current
        current = _cut(current, modes, pairs)
        if modes.goal.size:
            current = _towards(modes.goal, current, modes.rows, modes.columns)
        current = _cut(current, modes, pairs)
        error = float(np.abs(modes.rows.T @ product(current) @ modes.columns - modes.goal).max(initial=0.0))
        last, moved = moved, max(float(np.abs(a - b).max()) for a, b in zip(current, before, strict=True))
        if not np.isfinite(moved):
            return None
        if error <= 1e-14 * size * depth and (
            moved <= 1e-15 or moved >= 0.9 * last or pairs == [(depth, 1)] * len(pairs)
        ):
            return current
    return current


def _cut(weights: Layers, modes: _Modes, pairs: list[tuple[int, int]]) -> Layers:
    """Remove every mode on its left layer and on its right layer, and the null block on the side it is cut on."""
    out = [w.copy() for w in weights]
    null = modes.null_left if modes.cut_left else modes.null_right
    for side, (vectors, end) in enumerate(((modes.left, len(weights)), (modes.right, 1))):
        from_left = side == 0
        gone: dict[int, list[np.ndarray]] = {end: list(null.T) if modes.cut_left is from_left else []}
        for vector, pair in zip(vectors.T, pairs, strict=True):
            carried = _carried(weights, vector, from_left=from_left)
            gone.setdefault(pair[side], []).extend(v for layer, v in carried if layer == pair[side])
        for layer, found in gone.items():
            if found:
                q, w = _orthonormal(np.stack(found, 1)), out[layer - 1]
                out[layer - 1] = w - (q @ (q.T @ w) if from_left else (w @ q) @ q.T)
    return out


def _orthonormal(vectors: np.ndarray) -> np.ndarray:
    u, s, _ = np.linalg.svd(vectors, full_matrices=False)
    return u[:, s > 1e-10 * s[0]]


def _towards(
    goal: np.ndarray, weights: Layers, rows: np.ndarray | None = None, columns: np.ndarray | None = None
) -> Layers:
    """One Gauss–Newton step of least norm towards rowsᵀ A columns = goal; without them towards A = goal."""
    (p, s), defect = around_layers(weights), product(weights)
    if rows is not None and columns is not None:
        p, s, defect = [x @ columns for x in p], [rows.T @ x for x in s], rows.T @ defect @ columns
    defect = goal - defect
    multiplier = _of_kernel([x @ x.T for x in s], [x.T @ x for x in p], defect)
    return [w + sl.T @ multiplier @ pl.T for w, sl, pl in zip(weights, s, p, strict=True)]


def _of_kernel(left: Layers, right: Layers, defect: np.ndarray) -> np.ndarray:
    """The X of least norm for which Σ_l left_l X right_l is the defect, (r, c), as far as it is in the range.

    Conjugate gradients where the kernel is large, preconditioned by the terms of the first and the last layer, of which
    one factor each is 1: their sum is inverted by two eigen-decompositions. Where layers are balanced the other L − 2
    terms are no larger than it (weighted means of both), so that some ten products are enough. Where they are not, the
    dense matrix is solved after all while it fits; beyond, what is left over is left to the next step.
    """
    if defect.size <= KERNEL:
        return np.linalg.lstsq(_kernel(left, right), defect.ravel(), rcond=RANK_DEFECT)[0].reshape(defect.shape)
    (rows, x), (columns, y) = np.linalg.eigh(left[0]), np.linalg.eigh(right[-1])
    sums = rows[:, None] + columns
    known = sums > RANK_DEFECT * sums.max()
    inverse = np.where(known, 1 / np.where(known, sums, 1.0), 0.0)
    found, rest, direction, before = np.zeros_like(defect), defect, np.zeros_like(defect), 1.0
    enough = SOLVED * float(np.linalg.norm(defect))
    for _ in range(MAX_PRODUCTS):
        if float(np.linalg.norm(rest)) <= enough:
            break
        damped = x @ ((x.T @ rest @ y) * inverse) @ y.T
        size = float(np.sum(rest * damped))
        if size <= 0.0:
            break  # what is left is outside the range
        direction, before = damped + size / before * direction, size
        image = sum((a @ direction @ b for a, b in zip(left, right, strict=True)), np.zeros_like(defect))
        step = size / float(np.sum(direction * image))
        found, rest = found + step * direction, rest - step * image
    if float(np.linalg.norm(rest)) > UNSOLVED / SOLVED * enough and defect.size <= LARGEST_KERNEL:
        inverse = np.linalg.pinv(_kernel(left, right), rcond=RANK_DEFECT, hermitian=True)
        return (inverse @ defect.ravel()).reshape(defect.shape)
    return found


def _kernel(left: Layers, right: Layers) -> np.ndarray:
    """Σ_l left_l ⊗ right_l on row-major entries."""
    return sum((np.kron(a, b) for a, b in zip(left, right, strict=True)), np.zeros(()))


def _refit(cores: Layers, goal: np.ndarray) -> Layers:
    """Square cores near the ones given whose product is the goal, by Gauss–Newton steps of least norm."""
    r = goal.shape[0]
    size = float(np.abs(goal).max())
    best, best_error = cores, np.inf
    for _ in range(50):
        error = float(np.abs(product(cores) - goal).max())
        if error >= 0.5 * best_error and best_error <= 1e-13 * size:
            break
        if error < best_error:
            best, best_error = cores, error
        cores = _towards(goal, cores)
    if best_error <= 1e-10 * size:
        return best
    # Cores too far from the goal: take its balanced factors.
    return balanced([np.eye(r)] * (len(cores) + 1), np.diag(goal) ** (1 / len(cores)))


def _hidden_frames(weights: Layers, u: np.ndarray, s: np.ndarray, v: np.ndarray) -> list[np.ndarray]:
    """Orthonormal frames (n_l, r) of the learned channels: where the images of V going up and of U coming down meet."""
    depth = len(weights)
    prefixes, suffixes = around_layers(weights)
    frames = []
    for layer in range(1, depth):
        up = prefixes[layer] @ v / s ** (layer / depth)
        down = suffixes[layer - 1].T @ u / s ** ((depth - layer) / depth)
        x, _, yt = np.linalg.svd(up + down, full_matrices=False)
        frames.append(x @ yt)
    return frames


def _nearest_frames(weights: Layers, frames: list[np.ndarray], s: np.ndarray) -> list[np.ndarray]:
    """Hidden frames for which the balanced layers E_l S^(1/L) E_{l−1}ᵀ are nearest to the weights, one after the other.

    ‖W − W_c‖² depends on E_l by −2⟨E_l, (W_l E_{l−1} + W_{l+1}ᵀE_{l+1}) S^(1/L)⟩: the best is its polar factor.
    """
    root, frames, before = s ** (1 / len(weights)), list(frames), -np.inf
    for _ in range(MAX_SWEEPS):
        reached = 0.0
        for space in range(1, len(weights)):
            pulled = (weights[space - 1] @ frames[space - 1] + weights[space].T @ frames[space + 1]) * root
            x, pull, yt = np.linalg.svd(pulled, full_matrices=False)
            frames[space], reached = x @ yt, reached + float(pull.sum())
        if reached <= before * (1 + np.finfo(float).eps):
            break
        before = reached
    return frames


def _factors(point: MatrixPoint) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    u, s, vt = np.linalg.svd(point.A, full_matrices=False)
    return u[:, : point.rank], s[: point.rank], vt[: point.rank].T


def _finish(
    start: Layers, built: Layers, point: MatrixPoint, cost: HostCost, form: str, frames: list[np.ndarray] | None = None
) -> ParameterPoint:
    g = cost.gradient(product(built))
    below, above = around_layers(built)
    rate = cost.decay.rate if cost.decay is not None else 0.0
    layers = zip(above, built, below, strict=True)
    squares = sum(float(np.sum((s.T @ g @ p.T + rate * w) ** 2)) for s, w, p in layers)
    unit = natural_unit(cost, len(built))
    distance = float(np.sqrt(sum(float(np.sum((a - b) ** 2)) for a, b in zip(start, built, strict=True))))
    return ParameterPoint(built, point, float(np.sqrt(squares)) / unit, unit, distance, form, frames)

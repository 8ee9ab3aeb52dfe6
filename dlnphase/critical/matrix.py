"""The critical point of a cost, at fixed rank, that a matrix is near.

A matrix A_c = U S Vᵀ of rank r is the end-to-end matrix of a critical point of every deep enough network when
UᵀG = 0 and GV = 0 for G = ∇C(A_c): exactly the critical points of C on the manifold of matrices of rank r.
They are found by Newton's method on that manifold, which squares the error at each step; directions in which the
critical points form a continuum (repeated singular values, unobserved entries) are left alone.

The rank is not cut from the singular values of A: candidate ranks are refined, and that one counts whose critical
point is near in its own units, which are the smallest mode it has and the size of the mode it has not learned yet.
For factorization and regression the critical points are sets of modes (Eckart–Young) and are read off directly.
Minima may form a continuum that holds points of every rank; of those, the smallest rank that is near counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dlnphase.costs.quadratic import Cost
from dlnphase.costs.round_off import indistinct, resolved
from dlnphase.critical.hessian import DENSE as DENSE_HESSIAN
from dlnphase.critical.hessian import lanczos
from dlnphase.critical.hostcost import HostCost
from dlnphase.critical.manifold import Frame, LowRank, top_pair
from dlnphase.critical.steps import NULL_DIRECTION, EigenSteps, Krylov
from dlnphase.critical.visits import Visit

NEAR_SADDLE = 0.5  # a saddle is near when A is closer to it than this part of its smallest and of its next mode
NEAR_MINIMUM = 0.1  # the same for a minimum of lower than full rank, of which there may be a continuum
ROUND_OFF = 1e-12  # gradients below this, in the natural unit, are zero
ZERO_MODE = 1e-11  # ‖∇C‖_op below this, in the natural unit, is a minimum
EMPTY_MODE = 1e-13  # a mode smaller than this, relative to the largest, is none
FIRST = 0.5  # radius of the first step of a search, as a share of the smallest mode …
CAREFUL = 0.02  # … and where that led far away: along a bent valley a long step leaves for another critical point
CLEARLY = 0.1  # nearness of a critical matrix beside which no other is searched for in such short steps
SAME = 1e-6  # two critical matrices closer than this, relatively, are one: above what refinement leaves of a difference
MAX_NEWTON, PATIENCE = 60, 10  # steps of a search; steps in which ‖grad‖ has to fall to a third: what a vain one costs
DENSE = 150  # dimension of a manifold up to which all eigenpairs of its Hessian cost less than products with it


@dataclass(frozen=True)
class MatrixPoint:
    """A critical point of C at fixed rank.

    Attributes:
        A: the matrix, exactly of this rank up to round-off, shape (d_out, d_in).
        rank: r.
        cost: C(A).
        gradient_norm: Frobenius norm of (UᵀG, GV), what must vanish, over ``scale``.
        scale: natural unit of gradients of C: ‖∇C(0)‖_F (or ‖HA‖_F where that is larger).
        distance: ‖A − A_given‖_F.
        nearness: that distance over the smaller of A's smallest mode and the next one's final size, all as the cost
            measures lengths.
        converged: whether the gradient is at round-off and the point is near; else A is merely the best candidate.
        next_mode: s = ‖∇C(A)‖_op, 0 at a minimum.
    """

    A: np.ndarray
    rank: int
    cost: float
    gradient_norm: float
    scale: float
    distance: float
    nearness: float
    converged: bool
    next_mode: float


def refine_matrix(a: np.ndarray, cost: Cost | HostCost, *, rank: int | None = None) -> MatrixPoint:
    """The critical point of C at fixed rank that A is near.

    Args:
        a: shape (d_out, d_in).
        cost: any cost with ``gradient``, ``excess`` and ``apply_curvature``; moved to the CPU in float64.
        rank: look at this rank only; None tells the rank, too.

    Returns:
        The point that is near; where none is, the nearest one, with ``converged`` False.
    """
    host = cost if isinstance(cost, HostCost) else HostCost(cost)
    a = np.asarray(a, dtype=float)
    if rank is not None:
        given = LowRank.of(host.lengths.flat(a))
        point = _refined_carefully(a, given, host, _refine_at(a, given, host, rank))
        return point if point.converged else _nearer(point, _refine_at(a, given, host, rank, descend=True))
    if host.decay is not None:
        return _best(_of_all_ranks(a, host))
    modes = host.nearest_modes(a)
    if modes is not None:
        point = judge_matrix(a, *modes, host)
        if point.converged:
            return point
    count = min(a.shape)
    given = LowRank.of(host.lengths.flat(a))
    full: MatrixPoint | None = None
    if host.settled:  # no lower rank to look for where a minimum of full rank is near
        full = _refine_at(a, given, host, count)
        if full.converged and full.nearness <= NEAR_MINIMUM:
            return full
    full = _refine_at(a, given, host, count) if full is None else full
    possible, reach = _possible(given, host)
    for ranks in (allowed(possible, host.flat_gradient(given.matrix), reach, host), possible):
        first = [full if r == count else _refine_at(a, given, host, r) for r in ranks]
        candidates = _carefully(a, given, host, first)
        if any(p.converged for p in candidates):
            return _best(candidates)
    return _best(candidates + [_refine_at(a, given, host, r, descend=True) for r in possible if 0 < r < count])


def _of_all_ranks(a: np.ndarray, host: HostCost) -> list[MatrixPoint]:
    """The critical points of every rank that may be near; decay shrinks modes, so full rank is one like the others."""
    given = LowRank.of(host.lengths.flat(a))
    ranks, _ = _possible(given, host)
    found = _carefully(a, given, host, [_refine_at(a, given, host, rank) for rank in ranks])
    return found if any(p.converged for p in found) else [_refine_at(a, given, host, r, descend=True) for r in ranks]


def _nearer(first: MatrixPoint, second: MatrixPoint) -> MatrixPoint:
    return min((first, second), key=lambda p: (not p.converged, p.gradient_norm > ROUND_OFF, p.nearness))


def _possible(given: LowRank, host: HostCost) -> tuple[list[int], np.ndarray]:
    """Ranks whose critical point may be near, and how far away at most, rank by rank from 1.

    Near means closer than half of the smallest mode of A_c, which then is not larger than that of A plus the
    distance: not where truncation leaves out more than the smallest mode that it keeps.
    """
    modes, tails = (measure(given.u, given.s, given.v) for measure in (host.lengths.modes, host.lengths.tails))
    reach = np.minimum.accumulate(modes)
    there = (modes > EMPTY_MODE * modes[0]) & (tails <= reach)
    return [0, *(int(r) for r in np.flatnonzero(there) + 1)], reach


def allowed(ranks: Sequence[int], g: np.ndarray, reach: np.ndarray, host: HostCost) -> list[int]:
    """Those of these ranks that can have a critical point within reach, for all that ∇C says.

    ∇C is zero across r modes of a critical matrix of rank r: it has r singular values less than there could be, and
    the one here is at least as far from it as its r smallest singular values are long (Eckart–Young). So far it changes
    over no less than that length over the largest curvature. For ranks above the one a path rests at that is far.

    Args:
        g: ∇C where the search begins, plain or in flat coordinates.
        reach: how far the point may be that is looked for, rank by rank from 1, in the lengths of these coordinates.
    """
    bound = host.cost.curvature_bound
    if bound is None or host.decay is not None:
        return list(ranks)
    slopes = np.linalg.svd(g, compute_uv=False)
    lengths = np.sqrt(np.cumsum(slopes[::-1] ** 2))
    zero = 10 * max(ROUND_OFF, resolved(host.resolution)) * max(host.scale, float(slopes[0]))
    return [r for r in ranks if r in (0, len(slopes)) or lengths[r - 1] <= bound * reach[r - 1] + zero]


def _best(candidates: list[MatrixPoint]) -> MatrixPoint:
    """The candidate nearest in its own units; of several minima that are near, that of smallest rank comes first."""
    low = next((p for p in candidates if p.converged and p.next_mode == 0), None)
    if low is not None:
        candidates = [p for p in candidates if p.next_mode > 0] + [low]
    return min(candidates, key=lambda p: (not p.converged, p.gradient_norm > ROUND_OFF, p.nearness))


def merge_same(
    visits: Sequence[Visit], points: Sequence[MatrixPoint], host: HostCost
) -> tuple[list[Visit], list[MatrixPoint]]:
    """Join neighbouring visits of one and the same critical matrix; the closest record is that of the nearer one.

    Matrices are the same where the data sees no difference: ⟨D, HD⟩ = 0 for their difference D.
    """
    zero = np.zeros(host.shape)
    kept: list[tuple[Visit, MatrixPoint]] = []
    for visit, point in zip(visits, points, strict=True):
        if kept:
            before, same = kept[-1]
            size = max(host.difference(point.A, zero), host.difference(same.A, zero))
            if same.rank == point.rank and host.difference(point.A, same.A) <= SAME * size:
                near, nearest = (before, same) if same.nearness <= point.nearness else (visit, point)
                prominence = max(before.prominence, visit.prominence)
                kept[-1] = (Visit(near.index, before.enter, visit.exit, prominence), nearest)
                continue
        kept.append((visit, point))
    return [v for v, _ in kept], [p for _, p in kept]


def is_stable(point: MatrixPoint, cost: HostCost, *, strictly: bool = False) -> bool:
    """Whether a critical point is a (weak) local minimum of C among matrices of its rank.

    Args:
        strictly: ask for positive curvature in every direction, which proves it (on large manifolds it is not looked
            for, and the answer is False); without, for none that is negative.
    """
    if point.rank == 0:
        return True
    here = _Place(LowRank.of(cost.lengths.flat(point.A), point.rank), cost)
    if strictly:
        return here.frame.dimension <= DENSE_HESSIAN and here.eigenpairs().definite
    if here.frame.dimension <= DENSE:
        return here.eigenpairs().rising
    pairs = lanczos(lambda x: here.product(here.frame.tangent(x)), here.frame.size, 0.0)
    return pairs.smallest >= -NULL_DIRECTION * pairs.largest


def is_decayed_minimum(point: MatrixPoint, host: HostCost, width: int) -> bool:
    """Whether a critical matrix is a local minimum of what a network of this width minimises with weight decay.

    Among matrices of its rank it has to be one. A further mode does not pay at L ≥ 3, however small it is; at L = 2 it
    does not where it gains no more than λ, and then the point is the global minimum, or where there is no room for it.
    """
    if host.decay is None or not point.converged:
        return False
    if host.decay.depth <= 2 and point.next_mode == 0:
        return True
    return (host.decay.depth > 2 or point.rank >= width) and is_stable(point, host)


class _Place:
    """A matrix of one rank in flat coordinates, with what a step from there needs.

    Attributes:
        point, frame: the matrix and its tangent space.
        g: ∇C.
        gradient, norm: its tangent part, in coordinates of the frame, and how long that is.
    """

    def __init__(self, point: LowRank, host: HostCost) -> None:
        self.point, self.frame, self.host = point, Frame(point), host
        self.g = host.flat_gradient(point.matrix)
        self.gradient = self.frame.gradient(host, self.g)
        self.norm = float(np.linalg.norm(self.gradient))

    def objective(self) -> float:
        """What is minimised, above the minimum of the cost."""
        return self.host.objective(self.host.lengths.unflat(self.point.matrix), self.point.s)

    def product(self, x: np.ndarray) -> np.ndarray:
        """The Hessian on one tangent."""
        return self.frame.hessian(self.host, self.g, x[None])[0]

    def eigenpairs(self) -> EigenSteps:
        """All of the Hessian."""
        basis = self.frame.basis()
        return EigenSteps(basis, self.frame.hessian(self.host, self.g, basis), self.gradient)

    def model(self, radius: float, floor: float) -> EigenSteps | Krylov:
        """What steps up to this length are taken from."""
        if self.frame.dimension <= DENSE:
            return self.eigenpairs()
        return Krylov(self.product, self.gradient, radius, floor)


def _nothing_left(top: float, zero: float, host: HostCost) -> bool:
    """Whether no mode is left at a critical matrix that gains anything; without decay that makes it a minimum.

    With weight decay a further mode gains ‖∇C‖_op across the learned ones and pays λ: for L = 2 that decides, by
    convexity (F is C plus λ times the nuclear norm); for L ≥ 3 it says nothing of the modes that were learned.
    """
    if host.decay is None:
        return host.attained and top <= zero
    if host.decay.depth == 1:
        return True
    return top <= zero + (host.decay.rate if host.decay.depth == 2 else 0.0)


def _refine_at(a: np.ndarray, given: LowRank, host: HostCost, rank: int, *, descend: bool = False) -> MatrixPoint:
    """The critical point of this rank that is reached from the truncation of A, which is ``given`` in flat coordinates.

    By Newton's method on ‖grad‖ alone, which stays with whatever kind of critical point is close; or by descent of
    C among matrices of this rank, which goes further and ends in the points that paths are drawn to.
    """
    if rank == min(a.shape) and host.decay is None:
        return judge_matrix(a, host.nearest_minimum(a), host.minimum_rank(rank), host)
    found = _search(given, host, rank, descend=descend)
    return judge_matrix(a, host.lengths.unflat(found.matrix), rank, host, found)


def _carefully(a: np.ndarray, given: LowRank, host: HostCost, points: list[MatrixPoint]) -> list[MatrixPoint]:
    """What Newton's method led to from each rank; where nothing is clearly near, it sets out again in short steps."""
    if any(point.converged and point.nearness <= CLEARLY for point in points):
        return points
    return [_refined_carefully(a, given, host, point) for point in points]


def _refined_carefully(a: np.ndarray, given: LowRank, host: HostCost, point: MatrixPoint) -> MatrixPoint:
    """The same point, or one of its rank that short steps lead to and that is near where this one is not."""
    rank = point.rank
    whole = rank == min(a.shape) and host.decay is None
    if point.converged or whole or not 0 < rank * (sum(a.shape) - rank) <= DENSE:
        return point
    found = _search(given, host, rank, descend=False, first=CAREFUL)
    careful = judge_matrix(a, host.lengths.unflat(found.matrix), rank, host, found)
    return careful if careful.converged else point


def _search(given: LowRank, host: HostCost, rank: int, *, descend: bool, first: float = FIRST) -> LowRank:
    """What :func:`_searched` comes to, which is remembered, by its factors: a large matrix takes more room."""
    key = given.mark, rank, descend, first
    if key not in host.searched:
        host.searched[key] = replace(_searched(given, host, rank, descend, first))
    found: LowRank = host.searched[key]
    return replace(found)


def _searched(given: LowRank, host: HostCost, rank: int, descend: bool, first: float) -> LowRank:
    """Trust-region Newton in flat coordinates on the manifold: the merit is ‖grad‖, or C − C_min when descending.

    Args:
        first: radius of the first step, as a share of the smallest mode.
    """
    start = given.truncated(rank)
    if rank == 0:
        return start
    here = _Place(start, host)
    unit = max(float(np.linalg.norm(host.flat_gradient(np.zeros_like(here.g)))), np.finfo(float).tiny)
    radius = first * float(start.s[-1])
    reach = 3 * float(host.lengths.modes(start.u, start.s, start.v).min())  # beyond, the point cannot be near
    model: EigenSteps | Krylov | None = None
    goal = here.norm
    for iteration in range(MAX_NEWTON):
        if here.norm <= 1e-16 * unit or radius <= 1e-15 * float(np.linalg.norm(here.point.s)):
            break
        if iteration % PATIENCE == PATIENCE - 1:
            if here.norm > goal / 3 and not descend:
                break  # Newton's method that is slow has no critical point to go to
            goal = here.norm
        if host.lengths.norm(host.lengths.unflat(here.point.matrix - given.matrix)) > reach:
            break
        if model is None:
            model = here.model(radius, 0.01 * ROUND_OFF * unit)
        quick = descend and here.norm <= 1e-6 * unit and model.rising
        step = model.newton(radius) if quick or not descend else model.descent(radius)
        there = _Place(here.frame.moved(step), host)
        length = float(np.linalg.norm(step))
        if descend and not quick:
            before, after = (place.objective() for place in (here, there))
            fall = 0.25 * abs(float(here.gradient @ step))
            better, good = after < before, there.norm < 0.5 * here.norm or after < before - fall
        else:
            better, good = there.norm < here.norm, there.norm < 0.5 * here.norm
        if better:
            stalled = not good and here.norm <= ROUND_OFF * unit
            radius = max(radius, 2 * length) if good else radius
            here, model = there, None
            if stalled:
                break
        elif here.norm <= 0.1 * ROUND_OFF * unit:
            break  # at round-off already
        else:
            radius = 0.25 * length
    return here.point


def judge_matrix(
    a: np.ndarray, point: np.ndarray, rank: int, host: HostCost, found: LowRank | None = None
) -> MatrixPoint:
    """The point beside A; ``found`` is its decomposition in flat coordinates, where it is known."""
    g = host.gradient(point)
    flat = found or LowRank.of(host.lengths.flat(point), rank)
    plain = flat if host.is_flat else LowRank.of(point, rank)
    tangent = Frame(plain).gradient(host, g)
    norm = float(np.linalg.norm(tangent))
    if host.decay is not None:  # what holds the learned modes against the decay teaches nothing
        g = g - Frame(plain).ambient(Frame(plain).coordinates(g))
    top = top_pair(g)[0]
    scale = max(host.scale, float(np.linalg.norm(g - host.gradient(np.zeros_like(a)))), np.finfo(float).tiny)
    at_minimum = _nothing_left(top, max(ZERO_MODE, resolved(host.resolution)) * scale, host)
    units = list(host.lengths.modes(flat.u, flat.s, flat.v))
    if not at_minimum:
        size, u, v = top_pair(host.flat_gradient(flat.matrix) if host.decay is None else g)
        pair = -np.outer(u, v)
        bend = float(np.sum(pair * host.flat_curvature(pair[None], flat.matrix)[0]))
        size -= host.first
        reach = host.stretch(point, host.lengths.unflat(pair), size, bend)
        reach = size / bend if np.isinf(reach) and bend > 0 else reach  # it falls for ever: the first scale it shows
        units.append(reach * host.lengths.norm(host.lengths.unflat(pair)))
    unit = min(units, default=np.inf)  # a minimum at rank 0 is the only critical point there is: anything is near it
    nearness = host.lengths.norm(a - point) / unit if unit > 0 else np.inf
    limit = NEAR_MINIMUM if at_minimum and rank < min(a.shape) else NEAR_SADDLE
    # What a cost of fewer digits measures of its own round-off cannot be fitted away.
    converged = norm <= max(ROUND_OFF, resolved(host.resolution)) * scale and nearness <= limit
    if not host.attained and host.decay is None:
        # Far out everything is small: critical is where ∇C is small for what is left of C.
        share = float(np.abs(tangent).max(initial=0.0)) * float(np.linalg.norm(point))  # a norm might underflow
        converged = converged and share <= indistinct(host.resolution) * host.excess(point)
    next_mode = 0.0 if at_minimum else top
    value = host.value(point)
    distance = float(np.linalg.norm(a - point))
    return MatrixPoint(point, rank, value, norm / scale, scale, distance, nearness, converged, next_mode)

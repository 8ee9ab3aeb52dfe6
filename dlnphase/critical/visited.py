"""Which critical points a path visited: one decision, for runs of ours and for paths of other codes alike.

The visits of a path are refined one by one; those of one critical matrix are joined. A visit near no critical point
(``MatrixPoint.converged`` False) is a lull of the gradient: it has a rank only as a matrix has one, and it is no end of
a transition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dlnphase.costs.round_off import resolved
from dlnphase.critical.bottleneck import holds, minimum_near
from dlnphase.critical.hostcost import HostCost
from dlnphase.critical.manifold import LowRank
from dlnphase.critical.matrix import (
    EMPTY_MODE,
    ROUND_OFF,
    SAME,
    MatrixPoint,
    allowed,
    is_decayed_minimum,
    judge_matrix,
    merge_same,
    refine_matrix,
)
from dlnphase.critical.visits import MIN_PROMINENCE, Visit, find_visits, rank_transitions
from dlnphase.dynamics.step_control import yardstick
from dlnphase.findings import RankTransition

TRUNCATED = 100.0  # a rank whose truncation costs more than so many times the excess at the end is not looked at there
LARGE = 1 << 16  # entries of A from which its decompositions are counted: a search at one rank takes a minute and more
TRIES = 3  # ranks that are tried at the end of such an A
NEAR_END = 0.1  # the end is at a minimum that is closer than this part of its smallest singular value
STILL = 1e-10  # a path whose ‖∇𝓛‖ never exceeds this, in natural units of ∇C, does not move
RANK_TOLERANCE = 1e-3  # numerical rank of a matrix that is near no critical point: singular values above this share


@dataclass(frozen=True)
class Path:
    """The records of one member.

    Attributes:
        time, step, excess, gradient_norm: t, accepted steps, C − C_min and ‖∇𝓛‖, each of shape (T,); of a path with
            weight decay the last is that of C + (λ/2)‖θ‖².
        matrices: A by record number, at least at every visit and at the end.
        width: of the narrowest layer; None where it is not known.
        between: what ‖∇𝓛‖ reaches at least between each record and the next, shape (T−1,), where that is known.
        tol: the part of its first excess, or of that of A = 0 where it is less, within which the path was followed to a
            minimum; None for one that was not.
        penalty: (λ/2)‖θ‖², shape (T,); None without weight decay.
    """

    time: np.ndarray
    step: np.ndarray
    excess: np.ndarray
    gradient_norm: np.ndarray
    matrices: Mapping[int, np.ndarray] | np.ndarray
    tol: float | None = None
    between: np.ndarray | None = None
    width: int | None = None
    penalty: np.ndarray | None = None

    @property
    def objective(self) -> np.ndarray:
        """What is minimised, above C_min, shape (T,)."""
        return self.excess if self.penalty is None else self.excess + self.penalty


@dataclass(frozen=True)
class Visited:
    """A visit and the critical matrix it is near.

    Attributes:
        visit: where on the path.
        point: refined; where ``converged`` is False there is none, and this is the best candidate.
        rank: of the critical matrix, or of A itself where there is none.
        within_tol: a minimum as far as the path's ``tol`` can tell, and not as far as round-off can; where the point is
            not converged, the end of a path that was cut off by its ``tol`` with a mode partly learned.
        held: a minimum of the network, whose narrowest layer, or whose weight decay, keeps it above that of the cost.
    """

    visit: Visit
    point: MatrixPoint
    rank: int
    within_tol: bool = False
    held: bool = False

    @property
    def saddle(self) -> bool:
        """Whether the path has somewhere to go from here."""
        return self.point.next_mode > 0 and not self.held

    @property
    def counts(self) -> bool:
        """Whether transitions begin and end here: at a critical point, or at the end of a path that converged."""
        return self.point.converged or self.within_tol


def visited_points(
    path: Path,
    host: HostCost,
    *,
    min_prominence: float = MIN_PROMINENCE,
    should_stop: Callable[[], bool] | None = None,
) -> list[Visited] | None:
    """Every visit of a path with the critical matrix it is near, in order; None when stopped on the way.

    A path that never moves is one visit. One that was followed to a minimum ends in a visit, however little its
    gradient had time to fall.
    """
    visits = find_visits(
        path.time, path.step, path.objective, path.gradient_norm, min_prominence=min_prominence, between=path.between
    )
    last = len(path.time) - 1
    if not visits and path.gradient_norm.max() <= STILL * host.scale:
        visits = [Visit(0, 0, last, 0.0)]
    points: list[MatrixPoint] = []
    for visit in visits:
        if should_stop is not None and should_stop():
            return None
        points.append(refine_matrix(path.matrices[visit.index], host))
    merged = merge_same(visits, points, host)
    width = min(host.shape) if path.width is None else path.width
    found = [
        Visited(v, p, matrix_rank(path.matrices[v.index], p), held=host.decay is None and holds(p, host, width))
        for v, p in zip(*merged, strict=True)
    ]
    if path.tol is None:
        return found
    a, closing = path.matrices[last], Visit(last, last, last, 0.0)
    if host.decay is not None:  # it was followed until it was near a minimum that it could not leave
        point = refine_matrix(a, host)
        kept = is_decayed_minimum(point, host, width)
        return _closed(found, Visited(closing, point, point.rank, held=kept), host, np.inf)
    enough = path.tol * yardstick(path.excess[0], host.excess(np.zeros_like(a)))
    held = minimum_near(a, host, width)
    if held is not None and host.excess(held.A) <= enough:  # tol alone cannot tell it from C_min
        held = None
    end = _end(a, host, max(enough, path.excess[last])) if held is None else held
    by_itself = held is not None or (end.converged and refine_matrix(end.A, host, rank=end.rank).next_mode == 0)
    most = enough + max(path.excess[last], host.excess(end.A)) * (1 + SAME)
    return _closed(found, Visited(closing, end, end.rank, not by_itself, held is not None), host, most)


def _closed(found: list[Visited], closing: Visited, host: HostCost, most: float) -> list[Visited]:
    """The visits of a path that ends in one, which takes in those of the same point right before it.

    Args:
        most: excess cost up to which a critical point of the rank of the end is the end, as far as tol can tell. A
            narrow network may first rest at a saddle of that rank, with another mode in the place of one it ends with.
    """
    last, enter, prominence = closing.visit.index, closing.visit.enter, closing.visit.prominence
    while found:
        before = found[-1]
        at_end = before.point.converged and before.rank == closing.rank and host.excess(before.point.A) <= most
        if before.visit.index != last and not at_end:
            break
        enter, prominence = before.visit.enter, max(prominence, before.visit.prominence)
        found.pop()
    return [*found, replace(closing, visit=Visit(last, enter, last, prominence))]


def transitions(path: Path, minimum: float, visited: Sequence[Visited]) -> list[RankTransition]:
    """The rank transitions of a path: from each visit that counts to the next; C_min is ``minimum``."""
    real = [v for v in visited if v.counts]
    columns = path.time, path.step, path.gradient_norm, path.excess + minimum
    spectra = [np.linalg.svd(path.matrices[v.visit.index], compute_uv=False) for v in real]
    return rank_transitions(*columns, [v.visit for v in real], [v.rank for v in real], spectra, path.between)


def matrix_rank(a: np.ndarray, point: MatrixPoint) -> int:
    """The rank of the critical point A is near; where there is none, of A itself (modes above RANK_TOLERANCE)."""
    if point.converged:
        return point.rank
    s = np.linalg.svd(a, compute_uv=False)
    return int((s > RANK_TOLERANCE * s[0]).sum())


def _end(a: np.ndarray, host: HostCost, enough: float) -> MatrixPoint:
    """The critical point of least rank that the end A is near and that is a minimum as far as tol can tell.

    Data with rounded or noisy numbers have their exact minimum at a higher rank, by modes too small to be looked for.
    A mode that costs more than tol allows may be partly learned when the rest is within it: then no critical point is
    near, and it is A itself that is told, cut to the least rank at which it stays within tol (not ``converged``).
    The same where A is large and the first few ranks led to none.

    Args:
        enough: the excess cost that tol allows, or that the path ended with where that is more.
    """
    given = LowRank.of(a)
    there = int((given.s > EMPTY_MODE * given.s[0]).sum())
    ranks = sorted({*range(there + 1), len(given.s)})
    tries = TRIES if a.size > LARGE else len(ranks)
    within = allowed(ranks, host.gradient(a), NEAR_END / (1 - NEAR_END) * given.s, host)
    for rank, left in _cuts(given, host.excess, ranks) if host.attained else ():
        if left > TRUNCATED * enough:
            continue
        if tries == 0:
            break
        tries -= 1
        if rank not in within:
            continue
        point = refine_matrix(a, host, rank=rank)
        near = rank == 0 or point.distance <= NEAR_END * np.linalg.svd(point.A, compute_uv=False)[rank - 1]
        if point.gradient_norm <= max(ROUND_OFF, resolved(host.resolution)) and near and host.excess(point.A) <= enough:
            return replace(point, converged=True, next_mode=0.0)
    flat = LowRank.of(host.lengths.flat(a))
    cuts = _cuts(flat, lambda cut: host.excess(host.lengths.unflat(cut)), ranks)
    rank = next(rank for rank, left in cuts if rank == len(given.s) or left <= enough)
    return replace(
        judge_matrix(a, host.lengths.unflat(flat.truncated(rank).matrix), rank, host), converged=False, next_mode=0.0
    )


def _cuts(given: LowRank, excess: Callable[[np.ndarray], float], ranks: Sequence[int]) -> Iterator[tuple[int, float]]:
    """Increasing ranks, with the excess cost of the matrix cut to them, each made of the one before."""
    cut, done = np.zeros((len(given.u), len(given.v))), 0
    for rank in ranks:
        cut = cut + (given.u[:, done:rank] * given.s[done:rank]) @ given.v[:, done:rank].T
        done = rank
        yield rank, excess(cut)

"""Jumps of the rank where noise hides critical points: from the minimum that the same descent without noise goes to.

With weight decay, L ≥ 3, each rank that pays has a minimum of its own (Wang, Jacot 2023), and a path under noise stands
in the basin of one without coming near it. The basin of a record is told by going on from it without noise for
:data:`LASTING` times 1/λ. Layers along the path are taken as balanced, which decay makes them: the differences
W_{l+1}ᵀW_{l+1} − W_l W_lᵀ fall as exp(−2λt). The start goes on from its own weights, and no record before these
differences have fallen to :data:`UNBALANCED` is looked at.

Beside a barrier a path may cross it several times before it goes down on one side: a change that is taken back before
:data:`LASTING` times 1/λ are over, in which it would have come to the other minimum, is no jump. A jump and back
between two records that were looked at is missed, and one at the very end may yet be taken back. A record from which a
mode is still on its way when that time is over tells nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, log

import numpy as np

from dlnphase.costs.interface import ConvexCost
from dlnphase.critical import HostCost
from dlnphase.critical.visited import RANK_TOLERANCE
from dlnphase.dynamics import gradient_descent
from dlnphase.findings import RankJump
from dlnphase.networks.chain import Network
from dlnphase.networks.products import balanced
from dlnphase.setup.resolved import Algorithm
from dlnphase.training.recording import MemberPath

LOOKS = 28  # times along a path at which it is looked at, beside the start
LASTING = 10.0  # times 1/λ without noise
UNBALANCED = 0.01  # share of what the layers of the start differed by
SETTLED = 0.05  # a mode that changed more than this, relatively, in the last fifth is still on its way
GONE = 1e-6  # share of the largest mode that is left where A has gone to zero
LARGEST, LARGEST_START, LONGEST = 400, 20_000, 20_000  # numbers of A, weights of the start, steps without noise
Place = tuple[int, int]  # path, record
Told = dict[Place, int | None]  # rank of the basin there, None where it was not told


@dataclass(frozen=True)
class Quiet:
    """The descent of a run, without its noise.

    Attributes:
        decay: λ > 0.
        width: of the narrowest hidden layer.
    """

    cost: ConvexCost
    descent: Algorithm
    decay: float
    depth: int
    width: int

    @property
    def lr(self) -> float:
        """The smallest step that the run takes, which is stable where it was."""
        return min(self.descent.lr.values)

    @property
    def steps(self) -> int:
        """So many make :data:`LASTING` times 1/λ."""
        return ceil(LASTING / (self.decay * self.descent.update.pace(self.lr)))

    def ranks(self, layers: Sequence[np.ndarray]) -> list[int | None]:
        """The rank each network of a batch comes to, None where it is still on its way; layers (B, n_l, n_{l−1})."""
        network = Network.of_arrays(layers)
        first = np.linalg.svd(network.product().numpy(), compute_uv=False)[:, 0]
        seen: list[list[np.ndarray]] = [[] for _ in first]
        lost: set[int] = set()
        for record in gradient_descent(
            network,
            HostCost(self.cost).cost,
            lr=self.lr,
            max_steps=self.steps,
            tol=0,
            record_every=max(1, self.steps // 5),
            weight_decay=self.decay,
            update=self.descent.update,
        ):
            lost |= {int(i) for i, why in zip(record.members, record.reasons, strict=True) if why == "diverged"}
            for i, a in zip(record.members, record.A, strict=True):
                seen[i].append(a)
        return [
            None if i in lost or len(its) < 2 else _settled(its[-2], its[-1], float(first[i]))
            for i, its in enumerate(seen)
        ]

    def balanced(self, matrices: np.ndarray) -> list[np.ndarray]:
        """Balanced layers with these matrices, shape (B, d_out, d_in), no wider than they need."""
        u, s, vt = np.linalg.svd(matrices, full_matrices=False)
        kept = min(self.width, s.shape[1])
        frames = [vt[:, :kept].mT, *[np.eye(kept)] * (self.depth - 1), u[:, :, :kept]]
        return balanced(frames, s[:, :kept] ** (1 / self.depth))


def _settled(before: np.ndarray, after: np.ndarray, first: float) -> int | None:
    """The rank of what a descent came to; None if it had not come to it."""
    s, t = (np.linalg.svd(a, compute_uv=False) for a in (before, after))
    if t[0] <= GONE * first:
        return 0
    there = t > RANK_TOLERANCE * t[0]
    still = (s > RANK_TOLERANCE * t[0]) != there
    return None if still.any() or (abs(t - s) > SETTLED * t)[there].any() else int(there.sum())


def basin_jumps(paths: Sequence[MemberPath], quiet: Quiet) -> list[tuple[RankJump, ...]] | None:
    """Changes of the rank of the basin along each path, in order, each halfway between the two records it is between.

    Returns:
        None where that would take too long (sizes above). A path on which it never changes has an empty tuple.
    """
    shape, starts = paths[0].matrices[0].shape, [path.start for path in paths]
    small = shape[0] * shape[1] <= LARGEST and quiet.steps <= LONGEST
    if not small or any(w is None or sum(layer.size for layer in w) > LARGEST_START for w in starts):
        return None
    times = [path.column(0) for path in paths]
    places = [_records(path, t, log(1 / UNBALANCED) / (2 * quiet.decay)) for path, t in zip(paths, times, strict=True)]

    def look(at: Sequence[Place]) -> list[int | None]:
        return quiet.ranks(quiet.balanced(np.stack([paths[p].matrices[k] for p, k in at]))) if at else []

    first = quiet.ranks([np.stack(layers) for layers in zip(*(w for w in starts if w is not None), strict=True)])
    told: Told = {(p, 0): rank for p, rank in enumerate(first)}
    todo = [(p, int(k)) for p, its in enumerate(places) for k in _spread(times[p][its], its)]
    while todo:
        told |= dict(zip(todo, look(todo), strict=True))
        todo = [m for p, its in enumerate(places) for m in _between(p, its, told)]
    return [_jumps(p, times[p], told, LASTING / quiet.decay) for p in range(len(paths))]


def _records(path: MemberPath, times: np.ndarray, balanced: float) -> np.ndarray:
    """Numbers of the records that may be looked at, without the start."""
    there = [k for k, a in sorted(path.matrices.items()) if k and times[k] >= balanced and np.isfinite(a).all()]
    return np.array(there, dtype=int)


def _spread(times: np.ndarray, records: np.ndarray) -> np.ndarray:
    """Some of the records, evenly in time, the last among them."""
    if not len(times):
        return records
    return records[np.unique(np.searchsorted(times, np.linspace(times[0], times[-1], LOOKS)).clip(max=len(times) - 1))]


def _changes(path: int, told: Told) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Pairs of (record, rank) of a path, one after the other among those that tell a rank, where it differs."""
    known = sorted((k, rank) for (p, k), rank in told.items() if p == path and rank is not None)
    return [(a, b) for a, b in pairwise(known) if a[1] != b[1]]


def _between(path: int, records: np.ndarray, told: Told) -> list[Place]:
    """The record midway of each such pair that has one not looked at; bisection."""
    out = []
    for (a, _), (b, _) in _changes(path, told):
        free = [int(k) for k in records[(records > a) & (records < b)] if (path, int(k)) not in told]
        out += [(path, free[len(free) // 2])] if free else []
    return out


def _jumps(path: int, times: np.ndarray, told: Told, quick: float) -> tuple[RankJump, ...]:
    """The changes of a path, without those that are taken back sooner than ``quick``."""
    kept: list[RankJump] = []
    for (a, was), (b, now) in _changes(path, told):
        jump = RankJump(was, now, float(times[a] + times[b]) / 2)
        if kept and kept[-1].from_rank == now and jump.time - kept[-1].time < quick:
            kept.pop()
        else:
            kept.append(jump)
    return tuple(kept)

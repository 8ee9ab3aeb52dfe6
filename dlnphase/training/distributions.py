"""What several starts did, as distributions: how long they stayed at a rank, how they jumped, where they ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

import numpy as np

from dlnphase.findings import Distributions, Dwells, EndShare, JumpShare, RankJump, StartShare
from dlnphase.results.train import Member

LEVEL = 0.95  # of the intervals, as their names say
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)  # of dwell times, as results name them


def distributions_of(
    members: Sequence[Member], *, noisy: bool = False, basins: Sequence[Sequence[RankJump]] | None = None
) -> Distributions | None:
    """Dwell times, jumps and final ranks over several starts; None for a single one.

    Args:
        noisy: whether gradients were stochastic, so that visits of critical points tell nothing.
        basins: jumps of each start from one basin to another, which are counted instead then; None: jumps are not told.
    """
    if len(members) < 2:
        return None
    starts = len(members)
    stays: dict[int, list[tuple[int, float]]] = {}
    for number, member in enumerate(members):
        for stay in () if noisy else member.rank_transitions:
            stays.setdefault(stay.from_rank, []).append((number, stay.dwell))
    visits = [[RankJump(row.from_rank, row.to_rank, row.time) for row in m.rank_transitions] for m in members]
    made = basins if noisy else visits
    rows = [(number, row) for number, its in enumerate(made or ()) for row in its]
    jumps: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for number, row in rows:
        jumps.setdefault((row.from_rank, row.to_rank), []).append((number, row.time))
    up = {number for number, row in rows if row.to_rank > row.from_rank}
    down = {number for number, row in rows if row.to_rank < row.from_rank}
    ends = Counter(m.outcome.rank for m in members if m.outcome.reason != "diverged")
    return Distributions(
        starts=starts,
        dwells=tuple(_dwells(rank, its) for rank, its in sorted(stays.items())),
        jumps=tuple(_jump_share(*pair, its, starts) for pair, its in sorted(jumps.items())),
        up=None if made is None else share_of(len(up), starts),
        down=None if made is None else share_of(len(down), starts),
        ends=tuple(EndShare(rank, share_of(count, ends.total())) for rank, count in sorted(ends.items())),
        jumps_by="visits" if not noisy else None if basins is None else "basins",
    )


def _jump_share(before: int, after: int, made: Sequence[tuple[int, float]], starts: int) -> JumpShare:
    share = share_of(len({number for number, _ in made}), starts)
    return JumpShare(before, after, len(made), share, float(np.median([time for _, time in made])))


def share_of(count: int, of: int) -> StartShare:
    """A share k/n with the interval of Wilson (1927), which holds for few starts and for shares of 0 and 1 as well.

    The ends solve (p̂ − p)² = z²p(1 − p)/n: ((p̂ + z²/2n) ± z·√(p̂(1 − p̂)/n + z²/4n²)) / (1 + z²/n).
    """
    share, z = count / of, NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle, room = share + z * z / (2 * of), z * sqrt(share * (1 - share) / of + (z / (2 * of)) ** 2)
    low, high = ((middle + side * room) / (1 + z * z / of) for side in (-1, 1))
    # Where nobody did, or everybody, that end is the share itself, which round-off would miss.
    return StartShare(count, of, share, (low if count else 0.0, high if count < of else 1.0))


def _dwells(rank: int, stays: Sequence[tuple[int, float]]) -> Dwells:
    times = np.array([time for _, time in stays])
    minimum, q10, q25, median, q75, q90, maximum = np.quantile(times, QUANTILES).tolist()
    std = float(times.std(ddof=1)) if len(times) > 1 else 0.0
    starts = len({number for number, _ in stays})
    return Dwells(rank, len(times), starts, float(times.mean()), std, minimum, q10, q25, median, q75, q90, maximum)

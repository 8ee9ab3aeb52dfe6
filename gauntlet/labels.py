"""Ranks told, against ranks found here: critical matrices near a visit, and the least rank that fits at the end."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from gauntlet.reference.costs import Quadratic
from gauntlet.reference.critical import critical_near, least_rank
from gauntlet.reference.flow import Reference

NEAR = 0.5  # a visit of rank k is nearer to its critical matrix than this share of that matrix's smallest value


def visit_faults(result: Any, cost: Quadratic, reference: Reference) -> list[str]:
    """What is wrong with the ranks of the transitions."""
    faults: list[str] = []
    path = result.trajectory
    rows = result.rank_transitions
    for before, after in pairwise(rows):
        if before.to_rank != after.from_rank:
            faults.append(f"ranks: {before.from_rank} → {before.to_rank} is followed by {after.from_rank} → …")
    for row in rows:
        index = int(np.argmin(np.abs(path.cost - row.cost_before) + 1e300 * (path.t > row.time)))
        a = path.A[index]
        if not near_rank(a, row.from_rank, cost):
            s = np.linalg.svd(a, compute_uv=False)
            faults.append(
                f"label: rank {row.from_rank} told at t = {path.t[index]:.6g}, where A has "
                f"{', '.join(f'{x:.2g}' for x in s)} and no critical matrix of that rank is near"
            )
    return faults


def near_rank(a: np.ndarray, rank: int, cost: Quadratic) -> bool:
    """Whether a critical matrix of this rank lies near A, on the scale of its own smallest singular value."""
    point = critical_near(a, rank, cost)
    if point is None:
        return False
    s = np.linalg.svd(point, compute_uv=False)
    scale = s[rank - 1] if rank else float(np.linalg.norm(cost.solution))
    return float(np.linalg.norm(a - point, 2)) <= NEAR * scale


def ends_rank(result: Any, cost: Quadratic, width: int) -> list[str]:
    """What is wrong with the rank told at the end of a converged run."""
    outcome = result.outcome
    if outcome.reason != "converged":
        return []
    enough = max(1.0e-8 * float(result.trajectory.excess[0]), outcome.excess)
    low, high = least_rank(result.trajectory.A[-1], cost, enough, width)
    if low <= outcome.rank <= high:
        return []
    return [f"rank: {outcome.rank} told at the end, {low} to {high} fit the excess cost {enough:.3g}"]

"""Ranks told, against ranks found here: critical matrices near a visit, and the least rank that fits at the end."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from gauntlet.reference.costs import Quadratic
from gauntlet.reference.critical import critical_near, least_rank
from gauntlet.reference.flow import Reference

CLEAR = 0.7  # decades by which a lull of the reference's gradient stands out, of a visit that has to be told
AT = 0.05  # and how near it is to a critical matrix, in that matrix's smallest value and in what is to be learned next
LATE, SAME = 0.05, 0.01  # as of the levels: a mode's time, unless its size at that time is right
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


def missed(result: Any, cost: Quadratic, reference: Reference) -> list[str]:
    """Saddles that the reference clearly passes, that no transition starts from, and that are not counted either."""
    told = {row.from_rank for row in result.rank_transitions}
    counted = result.outcome.evidence.saddles_visited
    faults = []
    for t, depth, a in reference.lulls[:-1]:
        if depth < CLEAR or t > result.outcome.time:
            continue
        rank = int((np.linalg.svd(a, compute_uv=False) > AT * np.linalg.norm(cost.solution)).sum())
        point = critical_near(a, rank, cost)
        if point is None or rank in told:
            continue
        s = np.linalg.svd(point, compute_uv=False)
        ahead = float(np.linalg.norm(cost.gradient(point), 2) / np.linalg.norm(cost.hessian, 2))
        scale = min(s[rank - 1], ahead) if rank else ahead
        if np.linalg.norm(a - point, 2) <= AT * scale:
            faults.append(f"missed: the saddle of rank {rank} near t = {t:.6g}, {depth:.2g} decades deep, is not told")
    return faults if len(faults) + len(told) > counted else []


def mode_faults(result: Any, reference: Reference) -> tuple[list[str], float]:
    """Modes whose time is off, and by how much the worst is: |log(t / t_ref)|."""
    faults, worst = [], 0.0
    if reference.spectrum is None:
        return faults, worst
    times, values = reference.spectrum
    for mode in getattr(result, "modes", ()):
        if mode.time is None:
            continue
        k, half = mode.mode - 1, mode.size / 2
        logs = np.log(np.maximum(values[:, k], 1e-300))
        above = np.flatnonzero(logs >= np.log(half))
        if not len(above) or above[0] == 0:
            faults.append(f"mode: {mode.mode} told at t = {mode.time:.6g}, it never rises past half of {mode.size:.3g}")
            continue
        i = int(above[0])
        part = (np.log(half) - logs[i - 1]) / (logs[i] - logs[i - 1])
        true = float(times[i - 1] + part * (times[i] - times[i - 1]))
        off = abs(float(np.log(mode.time / true)))
        there = abs(float(np.interp(mode.time, times, logs)) - np.log(half))
        if there > SAME:
            worst = max(worst, off)
            if off > np.log1p(LATE):
                faults.append(f"mode: {mode.mode} told at t = {mode.time:.6g}, true {true:.6g}")
    return faults, worst


def near_rank(a: np.ndarray, rank: int, cost: Quadratic) -> bool:
    """Whether a critical matrix of this rank lies near A, on the scale of its own smallest mode.

    Lengths are those of the cost, or plain ones: either will do.
    """
    point = critical_near(a, rank, cost)
    if point is None:
        return False
    if rank == 0:
        last = cost.solution.reshape(a.shape)
    else:
        u, s, vt = np.linalg.svd(point)
        last = s[rank - 1] * np.outer(u[:, rank - 1], vt[rank - 1])
    off = a - point
    seen = [float(d.ravel() @ cost.hessian @ d.ravel()) for d in (off, last)]
    return seen[0] <= NEAR**2 * seen[1] or float(np.linalg.norm(off, 2)) <= NEAR * float(np.linalg.norm(last, 2))


def ends_rank(result: Any, cost: Quadratic, width: int, threshold: float, offset: float) -> list[str]:
    """What is wrong with the rank told at the end of a converged run, ``offset`` the excess cost of where it went."""
    outcome = result.outcome
    if outcome.reason != "converged":
        return []
    enough = max(threshold, outcome.excess - offset)
    low, high = least_rank(result.trajectory.A[-1], cost, enough, width, offset)
    if low <= outcome.rank <= high:
        return []
    return [f"rank: {outcome.rank} told at the end, {low} to {high} fit the excess cost {enough:.3g}"]

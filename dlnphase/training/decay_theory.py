"""What theory says of a run with weight decay, beside what it came to."""

from __future__ import annotations

import numpy as np

from dlnphase.costs.interface import ConvexCost
from dlnphase.critical.decayed_modes import decayed_size, is_factorization, largest_decay, paying_decay
from dlnphase.findings import DecayedMode, DecayTheory

PLANTED = 1e-12  # singular values of the target below this share of the largest are none


def decay_theory(
    cost: ConvexCost, decay: float, depth: int, alpha: float, top: float, end: np.ndarray, rank: int
) -> DecayTheory:
    """What to expect of a run with weight decay, beside what it came to.

    Args:
        cost: of the run.
        decay, depth, alpha: λ, L and the size of a layer of the start, as a unit vector sees it.
        top: ‖∇C(0)‖_op.
        end: A at the end, (d_out, d_in).
        rank: there.
    """
    leaves = top * alpha ** (depth - 2)
    if not is_factorization(cost):
        return DecayTheory(decay, leaves, rank > 0, ())
    u, s, vt = np.linalg.svd(cost.minimizer.double().cpu().numpy(), full_matrices=False)
    held = np.einsum("ik,ij,kj->k", u, end, vt)
    modes = tuple(
        DecayedMode(
            k + 1,
            float(size),
            paying_decay(float(size), depth),
            largest_decay(float(size), depth),
            decayed_size(float(size), decay, depth),
            float(held[k]),
        )
        for k, size in enumerate(s)
        if size > PLANTED * s[0]
    )
    return DecayTheory(decay, leaves, rank > 0, modes)

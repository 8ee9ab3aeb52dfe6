"""The first moments of a flow once more, in smaller steps.

A start is mostly noise: its A is small beside its layers, and the first steps, as long as the layers allow, may carry a
singular value of A through zero or past another one between two records. No curve through records tells when it passed
half its size then. Later steps see what they learn. Of large matrices few records are kept, so that the first of them
are not those of the first steps, and a hundred more would take gigabytes: there, times are those of the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from dlnphase.costs.quadratic import Cost
from dlnphase.critical.visited import LARGE
from dlnphase.dynamics.flow import gradient_flow
from dlnphase.networks.chain import Network
from dlnphase.training.modes import HALF, LOW

EARLY = 8  # records that are gone through again
PARTS = 16  # of each stretch between two of them


def wants_dense_start(singular_values: np.ndarray, count: int, entries: int) -> bool:
    """Whether any of the first ``count`` modes passes a tenth or a half of its end among the first records.

    Args:
        singular_values: of A at the records that are kept, shape (T, min(d_out, d_in)).
        entries: of A; never of a large one.
    """
    part = singular_values[: EARLY + 1, :count] / np.maximum(singular_values[-1, :count], np.finfo(float).tiny)
    passes = bool((np.diff((part >= HALF).astype(int) + (part >= LOW), axis=0) != 0).any())
    return passes and entries <= LARGE


def with_dense_start(
    time: np.ndarray,
    matrices: np.ndarray,
    start: Sequence[np.ndarray],
    cost: Cost,
    rtol: float,
    weight_decay: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Times (T',) and A (T', d_out, d_in) of a path with more of them between its first records.

    Args:
        time: of the records, shape (T,); matrices: A there, shape (T, d_out, d_in).
        start: the layers of the first record.
        cost: on the CPU in float64.
        rtol, weight_decay: of the flow.
    """
    last = min(EARLY, len(time) - 1)
    marks = time[: last + 1]
    grid = np.unique(np.concatenate([np.linspace(a, b, PARTS + 1) for a, b in pairwise(marks)]))
    network = Network.of_arrays(start)
    again = gradient_flow(
        network,
        cost,
        rtol=rtol,
        tol=0.0,
        max_time=float(grid[-1]),
        output_times=grid.tolist(),
        weight_decay=weight_decay,
    )
    found = {float(record.time[0]): record.A[0] for record in again}
    between = [t for t in np.setdiff1d(grid, marks).tolist() if t in found]
    joined = np.concatenate([time, between])
    order = np.argsort(joined, kind="stable")
    return joined[order], np.concatenate([matrices, [found[t] for t in between]] if between else [matrices])[order]

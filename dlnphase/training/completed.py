"""A user's matrix with its gaps filled in: by the end of a path, and by what it had learned where it met the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.costs.tasks import Task
from dlnphase.findings import Noise
from dlnphase.results.matrixfile import MatrixTable
from dlnphase.results.train import Member
from dlnphase.training.recording import MemberPath


def completed_by(
    paths: Sequence[MemberPath], members: Sequence[Member], noise: Noise | None, task: Task
) -> Mapping[str, MatrixTable]:
    """The completed matrices of a run, means over its starts: entries that training saw as they were given, others A's.

    Returns:
        ``completed``, of the end of the paths; where modes were learned after the noise also ``completed_at_noise``, of
        the starts that met it at the rank that is told, each at the record that its row in the table of noise is of.
        Nothing for a cost that is not squared.
    """
    cost = task.cost
    if not isinstance(cost, QuadraticCost):
        return {}
    seen, given = cost.operator.cpu().numpy() > 0, cost.minimizer.cpu().numpy()

    def table(matrices: Sequence[np.ndarray]) -> MatrixTable:
        labels = task.labels
        values = np.where(seen, given, np.mean(matrices, axis=0))
        return MatrixTable(values, labels.rows, labels.columns, labels.corner)

    out = {"completed": table([path.matrices[max(path.matrices)] for path in paths])}
    if noise is not None and noise.rank:  # at rank 0 nothing is completed
        met = [
            path.matrices[record]
            for path, member in zip(paths, members, strict=True)
            if (record := _met(path, member, noise.rank)) is not None
        ]
        if met:
            out["completed_at_noise"] = table(met)
    return out


def _met(path: MemberPath, member: Member, rank: int) -> int | None:
    """The record at which a path stood at the rank of the noise; None where it met it elsewhere, or learned no more."""
    if member.noise is None or member.noise.rank != rank or member.outcome.rank <= rank:
        return None
    times = [floor.time for floor in member.noise.floors if floor.rank == rank]
    return int(np.flatnonzero(path.column(0) == times[0])[0]) if times else None

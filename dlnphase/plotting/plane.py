"""The plane on which paths of matrices are looked at: the two main directions of the saddles they visit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlnphase.plotting.timeline import members_of
from dlnphase.results.train import Member, TrainResult


@dataclass(frozen=True)
class Plane:
    """A plane in matrix space.

    Attributes:
        centre: a matrix of it, flattened, (D,).
        basis: two orthonormal directions, (2, D).
    """

    centre: np.ndarray
    basis: np.ndarray

    def project(self, matrices: np.ndarray) -> np.ndarray:
        """Coordinates of matrices (T, d_out, d_in), shape (T, 2), in units of ‖A‖_F."""
        return (matrices.reshape(-1, self.centre.size) - self.centre) @ self.basis.T

    def share(self, matrices: np.ndarray) -> float:
        """The share of the squared distance from the centre that lies in the plane, over all these matrices."""
        flat = matrices.reshape(-1, self.centre.size) - self.centre
        total = float((flat**2).sum())
        return float(((flat @ self.basis.T) ** 2).sum()) / total if total > 0 else 1.0


def plane_of(points: np.ndarray, path: np.ndarray) -> Plane:
    """The plane of the first two principal directions of points (V, d_out, d_in), from the first of them.

    Fewer than three distinct points leave a direction open: the path (T, d_out, d_in) fills it in. The first axis
    runs from the first to the last point, so that time runs to the right; the points on the way lie above it.
    """
    start = points[0].ravel() if len(points) else path[0].ravel()
    end = points[-1].ravel() if len(points) > 1 else path[-1].ravel()
    scale = max(float(np.linalg.norm(end - start)), float(np.abs(path).max()), 1e-300)
    first = _leading((points.reshape(len(points), -1) - start) / scale, 2)
    rest = (path.reshape(len(path), -1) - start) / scale
    if len(first) < 2:
        rest = rest - (rest @ first.T) @ first if len(first) else rest
        first = np.concatenate([first, _leading(rest, 2 - len(first))]) if len(first) else _leading(rest, 2)
    basis = _completed(first)
    return Plane(start, _turned(basis, start, end, points if len(points) > 2 else path))


def plane_of_run(result: TrainResult) -> Plane:
    """That of the visits of a run, or of its first start; of the two ends of a path that visits nothing."""
    run, rows = members_of(result)[0]
    index, _ = visited(result, run, rows)
    path = result.path.A
    return plane_of(path[index if len(index) else rows[[0, -1]]], path[rows])


def visited(result: TrainResult, run: TrainResult | Member, rows: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Indices of the records at which a path visits its critical points, and their ranks.

    The record of a visit is the one whose cost the result's transitions name, between the jumps on either side.
    """
    path = result.path
    t, cost = path.t[rows], path.cost[rows]
    transitions = run.rank_transitions
    if not transitions:
        return rows[:0], []
    edges = [-np.inf, *(row.time for row in transitions), np.inf]
    costs = [row.cost_before for row in transitions] + [transitions[-1].cost_after]
    ranks = [row.from_rank for row in transitions] + [transitions[-1].to_rank]
    out = []
    for k, value in enumerate(costs):
        inside = np.flatnonzero((t >= edges[k]) & (t <= edges[k + 1]))
        inside = inside if len(inside) else np.array([int(np.argmin(np.abs(cost - value)))])
        out.append(int(rows[inside[np.argmin(np.abs(cost[inside] - value))]]))
    return np.array(out), ranks


def _leading(flat: np.ndarray, count: int) -> np.ndarray:
    if len(flat) == 0:
        return np.zeros((0, flat.shape[1]))
    _, s, vt = np.linalg.svd(flat, full_matrices=False)
    return np.asarray(vt[:count][s[:count] > 1e-9 * max(float(s[0]), 1e-300)])


def _completed(basis: np.ndarray) -> np.ndarray:
    """Two orthonormal rows, whatever there was before."""
    rows = list(basis)
    for axis in np.eye(basis.shape[1]):
        if len(rows) >= 2 or basis.shape[1] < 2:
            break
        rest = axis - sum((axis @ r) * r for r in rows)
        if np.linalg.norm(rest) > 0.5:
            rows.append(rest / np.linalg.norm(rest))
    while len(rows) < 2:
        rows.append(np.zeros(basis.shape[1]))
    return np.array(rows)


def _turned(basis: np.ndarray, start: np.ndarray, end: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The same plane with its first axis along start → end, and the points in between on the upper side."""
    x, y = basis @ (end - start)
    size = float(np.hypot(x, y))
    if size > 0:
        turn = np.array([[x, y], [-y, x]]) / size
        basis = turn @ basis
    heights = (points.reshape(len(points), -1) - start) @ basis[1]
    if heights.sum() < 0:
        basis = basis * np.array([[1.0], [-1.0]])
    return basis

"""Consumers of records: gather each member's path, within bounds of memory, and its weights at its visits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from dlnphase.costs.accuracy import accuracies
from dlnphase.costs.interface import ConvexCost
from dlnphase.critical.visits import WeightKeeper
from dlnphase.dynamics.records import Record
from dlnphase.dynamics.state import Room, State
from dlnphase.results.train import Trajectory

Row = tuple[float, int, int, float, float, float]
MATRIX_BYTES = 256 * 2**20  # end-to-end matrices kept, all members together; beyond that every second one is let go


@dataclass(slots=True, eq=False, repr=False)
class MemberPath(State):
    """What was recorded of one member: scalars at every record, matrices at most of them, weights at a few.

    ``rows`` holds (t, step, evaluations, excess, gradient norm, penalty) per record, the last 0 without weight decay,
    ``matrices`` A by record number. What grows with the path is saved apart from the state, as it comes: see
    :meth:`PathRecorder.news`.
    """

    rows: Room[list[Row]] = field(default_factory=list)
    matrices: Room[dict[int, np.ndarray]] = field(default_factory=dict)
    keeper: WeightKeeper = field(default_factory=WeightKeeper)
    start: list[np.ndarray] | None = None
    end: list[np.ndarray] | None = None
    reason: str | None = None

    def column(self, index: int) -> np.ndarray:
        """One of the scalars at every record."""
        return np.array([row[index] for row in self.rows])


@dataclass(slots=True, init=False, eq=False, repr=False)
class PathRecorder(State):
    """Feed it every round of a run; it keeps what the result needs.

    Args:
        members: number of members in the batch.
    """

    paths: list[MemberPath]
    _bytes: int
    _stride: int
    _round: Room[list[Record]]  # the last records, which may still be asked for their weights
    _written: Room[list[tuple[int, set[int], int]]]  # of each path: rows, matrices, and visits that news() has told

    def __init__(self, members: int) -> None:
        self.paths = [MemberPath() for _ in range(members)]
        self._bytes = 0
        self._stride = 1
        self._round = []
        self._written = [(0, set(), 0) for _ in self.paths]

    @property
    def begun(self) -> bool:
        """Whether anything has been recorded."""
        return any(path.rows for path in self.paths)

    def news(self) -> dict[str, np.ndarray]:
        """What was recorded since the last call, as arrays: rows (member first), matrices and the layers of visits."""
        rows, at, matrices, visits, layers = [], [], [], [], []
        for i, (path, (told, known, confirmed)) in enumerate(zip(self.paths, self._written, strict=True)):
            rows += [(i, *row) for row in path.rows[told:]]
            fresh = [k for k in path.matrices if k not in known]
            at += [(i, k) for k in fresh]
            matrices += [path.matrices[k] for k in fresh]
            visits += [(i, index) for index, _ in path.keeper.confirmed[confirmed:]]
            layers += [weights for _, weights in path.keeper.confirmed[confirmed:]]
            self._written[i] = (len(path.rows), known | set(fresh), len(path.keeper.confirmed))
        out = {"rows": np.array(rows, dtype=float).reshape(-1, 7)}
        out |= {"at": np.array(at, dtype=np.int64), "matrices": np.stack(matrices)} if at else {}
        out |= {"visits": np.array(visits, dtype=np.int64)} if visits else {}
        return out | {f"W{k}": np.stack(parts) for k, parts in enumerate(zip(*layers, strict=True), 1)}

    def hear(self, news: dict[str, np.ndarray]) -> None:
        """Add what :meth:`news` told, in the order in which it was told; then comes :meth:`resume`."""
        for member, t, step, count, excess, norm, penalty in news["rows"].tolist():
            self.paths[int(member)].rows.append((t, int(step), int(count), excess, norm, penalty))
        if "at" in news:
            for (member, k), matrix in zip(news["at"].tolist(), news["matrices"], strict=True):
                self.paths[member].matrices[k] = matrix
        if "visits" in news:
            layers = [news[f"W{k}"] for k in range(1, sum(name.startswith("W") for name in news) + 1)]
            for (member, index), *weights in zip(news["visits"].tolist(), *layers, strict=True):
                self.paths[member].keeper.confirmed.append((index, weights))

    def state(self) -> dict[str, Any]:
        """All but what :meth:`news` tells: which matrices are left, and the last records."""
        return State.state(self) | {
            "at": [np.array(list(path.matrices), dtype=np.int64) for path in self.paths],
            "last": [[r.members, np.array(r.A), [r.weights(i) for i in range(len(r.members))]] for r in self._round],
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a state, after all the news up to it."""
        State.resume(self, {name: state[name] for name in state if name not in ("at", "last")})
        for path, at in zip(self.paths, state["at"], strict=True):
            path.matrices = {k: path.matrices[k] for k in at.tolist()}
        self._round = []
        for members, a, weights in state["last"]:
            none = np.zeros(len(members))
            reasons: list[str | None] = [None] * len(members)
            self._round.append(Record(members, none, none, none, none, none, a, reasons, weights.__getitem__))
        self._written = [(len(p.rows), set(p.matrices), len(p.keeper.confirmed)) for p in self.paths]

    def feed(self, records: list[Record]) -> None:
        """Keep the records of one round; members that have not moved since their last one are passed over."""
        heard = {int(member) for record in records for member in record.members}
        self._end([record for record in self._round if not heard.intersection(record.members.tolist())])
        self._round = records
        for record in records:
            self._feed(record)
        if self._bytes > MATRIX_BYTES:
            self._thin()

    def _feed(self, record: Record) -> None:
        for i, member in enumerate(record.members):
            path = self.paths[int(member)]
            row = (
                float(record.time[i]),
                int(record.step[i]),
                int(record.evaluations[i]),
                float(record.excess[i]),
                float(record.gradient_norm[i]),
                float(record.penalties[i]),
            )
            reason = record.reasons[i]
            if path.rows and path.rows[-1][1] == row[1]:
                path.reason = reason or path.reason
                if reason is not None and path.end is None:
                    path.end = record.weights(i)
                continue
            if not (np.isfinite(row[3:]).all() and np.isfinite(record.A[i]).all()):
                path.reason = reason or "diverged"  # the numbers before it are kept, these are none
                continue
            self._keep(path, row, record, i, reason)

    def _end(self, records: list[Record]) -> None:
        """Keep the layers of members that are under way: they have to wait for others, or are stopped."""
        for record in records:
            for i, member in enumerate(record.members):
                path = self.paths[int(member)]
                if path.reason is None and path.rows:
                    path.end = record.weights(i)
                    path.matrices.setdefault(len(path.rows) - 1, np.array(record.A[i], order="C"))

    def _keep(self, path: MemberPath, row: Row, record: Record, i: int, reason: str | None) -> None:
        index = len(path.rows)
        path.rows.append(row)
        path.keeper.feed(index, row[4], lambda: record.weights(i))
        if index % self._stride == 0 or reason is not None or index in _candidates(path):
            path.matrices[index] = np.array(record.A[i], order="C")
            self._bytes += path.matrices[index].nbytes
        if index == 0:
            path.start = record.weights(i)
        if reason is not None:
            path.end, path.reason = record.weights(i), reason

    def _thin(self) -> None:
        """Let every second matrix go; the scalars, the ends and what may be a visit stay."""
        self._stride *= 2
        for path in self.paths:
            kept = {len(path.rows) - 1} | _candidates(path)
            path.matrices = {k: a for k, a in path.matrices.items() if k % self._stride == 0 or k in kept}
        self._bytes = sum(a.nbytes for path in self.paths for a in path.matrices.values())

    def stop(self, reason: str) -> None:
        """End every member that has not ended by itself, right after the last round was fed."""
        self._end(self._round)
        for path in self.paths:
            if path.reason is None:
                path.reason = reason


def _candidates(path: MemberPath) -> set[int]:
    """Record numbers that may turn out to be visits."""
    return {index for index, _ in path.keeper.finish()}


def layers_at(path: MemberPath, visits: Sequence[int]) -> list[tuple[int, list[np.ndarray]]]:
    """(record number, layers) at the visits and at the end of a path, in order, as far as they were kept."""
    last = len(path.rows) - 1
    kept = dict(path.keeper.finish())
    out = {index: kept[index] for index in visits if index in kept}
    if path.end is not None and last >= 0:
        out[last] = path.end
    if not out and path.start is not None:
        out[0] = path.start  # a run that diverged at once: nothing else is finite
    return sorted(out.items())


def assemble(
    paths: Sequence[MemberPath],
    members: np.ndarray,
    visits: Sequence[Sequence[int]],
    singular_values: Sequence[np.ndarray],
    cost: ConvexCost,
    test: ConvexCost | None,
    *,
    decayed: bool = False,
) -> Trajectory:
    """One trajectory of the rows whose matrices were kept.

    Args:
        paths: one per member that has any record.
        members: their numbers.
        visits: record numbers of the visits of each.
        singular_values: of the matrices kept of each, (rows, min(d_out, d_in)).
        cost, test: training and test cost.
        decayed: whether there was weight decay, whose part is kept then.
    """
    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ("member", "t", "step", "excess", "gradient_norm", "A", *(("penalty",) if decayed else ()))
    }
    layers: list[list[np.ndarray]] = []
    index: list[int] = []
    between: list[np.ndarray] = []
    offset = 0
    for path, member, seen in zip(paths, members, visits, strict=True):
        rows = np.array(sorted(path.matrices))
        if not rows.size:
            continue
        columns["member"].append(np.full(rows.size, int(member)))
        for name, column in (("t", 0), ("step", 1), ("excess", 3), ("gradient_norm", 4), ("penalty", 5)):
            if name in columns:
                columns[name].append(path.column(column)[rows])
        columns["A"].append(np.stack([path.matrices[k] for k in rows]))
        between.append(_let_go(path.column(4), rows))
        for record, weights in layers_at(path, seen):
            layers.append(weights)
            index.append(offset + int(np.searchsorted(rows, record).clip(0, rows.size - 1)))
        offset += rows.size
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    a, gone = joined["A"], np.concatenate(between)
    return Trajectory(
        **joined,
        cost=joined["excess"] + cost.minimum,
        test_cost=np.full(len(a), np.nan) if test is None else cost_values(test, a),
        singular_values=np.concatenate(singular_values),
        weights=tuple(np.stack(parts) for parts in zip(*layers, strict=True)),
        weights_index=np.array(index, dtype=np.int64),
        accuracy=accuracies(cost, a),
        test_accuracy=accuracies(test, a),
        between=gone if gone.any() else None,
    )


def _let_go(gradient_norm: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The largest ‖∇𝓛‖ of the records behind each row and before the next, 0 where there is none, (len(rows),)."""
    inner = [gradient_norm[a + 1 : b].max(initial=0.0) for a, b in pairwise(rows)]
    return np.array([*inner, 0.0])


def cost_values(cost: ConvexCost, matrices: np.ndarray) -> np.ndarray:
    """C(A) of a stack of matrices (T, d_out, d_in), shape (T,)."""
    like = cost.like
    a = torch.as_tensor(matrices, dtype=like.dtype, device=like.device)
    return cost.value(a).cpu().numpy().astype(float)

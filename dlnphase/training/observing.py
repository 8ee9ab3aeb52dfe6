"""Looking at a path besides A: the layers of a few dozen records are kept while it runs, and looked at in the end.

How many records there will be is not known beforehand. Two sets are kept: records at even distances, of which every
third is left when there are too many, and records at growing distances, which tell of the beginning however long the
rest is. The distance of the former is a power of three, and so odd: a path that swings to and fro at every step is seen
from both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dlnphase.backend import resolve_backend
from dlnphase.costs.interface import ConvexCost, parts_of
from dlnphase.critical.observables import Scene, observe
from dlnphase.critical.sharpness import stability_limit
from dlnphase.dynamics.records import Record
from dlnphase.dynamics.schedule import Changing, Schedule
from dlnphase.dynamics.state import Fixed, State
from dlnphase.errors import InputError
from dlnphase.findings import Sharpness, TimedLimit
from dlnphase.networks.chain import Network
from dlnphase.observables import OBSERVABLES
from dlnphase.results.observed import Observed
from dlnphase.results.train import NetworkInfo
from dlnphase.training.recording import MemberPath

MOST, LEAST = 54, 9  # records of one member in each of the two sets, where there is room, and in any case
BYTES = 2**27  # of layers kept, all members together
THIN = 3  # of the records at even distances, every so manieth is left when there are too many
MANY = 1e6  # records up to which those at growing distances are no more than the others


@dataclass(slots=True, eq=False, repr=False)
class KeptLayers(State):
    """Layers of one member at some of its records.

    Attributes:
        records: that it has come by.
        stride: between two at even distances.
        following: number of the next at a growing distance.
        last: step of the last record.
        rows: (number, time, step, whether it is one at growing distances) of those kept.
        layers: of each.
    """

    records: int = 0
    stride: int = 1
    following: int = 0
    last: int = -1
    rows: list[tuple[int, float, int, bool]] = field(default_factory=list)
    layers: list[list[np.ndarray]] = field(default_factory=list)


@dataclass(slots=True, init=False, eq=False, repr=False)
class Observer(State):
    """Feed it every round of a run; it keeps what the observables will be asked about.

    Args:
        network: at the start.
        wanted: whether anything is; else it keeps nothing.
    """

    most: Fixed[int]
    growth: Fixed[float]
    members: list[KeptLayers]

    def __init__(self, network: Network, *, wanted: bool) -> None:
        self.members = [KeptLayers() for _ in range(network.batch if wanted else 0)]
        self.most = _most(network.theta.numel())
        self.growth = float(MANY ** (1 / self.most))

    def feed(self, records: Sequence[Record]) -> None:
        """Keep the records of one round that are due."""
        for record in records if self.members else ():
            for i, member in enumerate(record.members):
                kept, step = self.members[int(member)], int(record.step[i])
                if step != kept.last and np.isfinite(record.A[i]).all():
                    self._pass(kept, float(record.time[i]), step, record, i)

    def _pass(self, kept: KeptLayers, time: float, step: int, record: Record, i: int) -> None:
        number, kept.last = kept.records, step
        kept.records += 1
        lasting = number == kept.following
        if lasting:
            kept.following = int(number * self.growth) + 1
        if not lasting and number % kept.stride:
            return
        kept.rows.append((number, time, step, lasting))
        kept.layers.append(record.weights(i))
        if sum(not row[3] for row in kept.rows) > self.most:
            kept.stride *= THIN
            left = [k for k, (n, _, _, stays) in enumerate(kept.rows) if stays or n % kept.stride == 0]
            kept.rows, kept.layers = [kept.rows[k] for k in left], [kept.layers[k] for k in left]


def needs_parts(names: Sequence[str]) -> bool:
    """Whether any of these asks what the cost is a sum of."""
    return any(OBSERVABLES[name].parts for name in names)


def refuse_partless(names: Sequence[str], cost: ConvexCost) -> None:
    """InputError for what a cost has to be a known sum for, where it is not."""
    for name in names:
        if OBSERVABLES[name].parts:
            parts_of(cost, f"record: found {name}")


def refuse_lacking(names: Sequence[str], network: NetworkInfo) -> None:
    """InputError for what a reduced network cannot tell of the one that it stands for."""
    part = network.krylov_modes is not None  # of every layer, the first and the last too
    whole = [name for name in names if OBSERVABLES[name].whole or (part and OBSERVABLES[name].arrays)]
    kind = "layers" if part else "inner layers"
    if whole and network.representation != "full" and (part or network.depth > 2):
        raise InputError(
            f"record: found {', '.join(whole)} with a reduced network, which lacks what its {kind} do outside "
            "the directions that training touches; expected --representation full"
        )


def observed(
    kept: KeptLayers, path: MemberPath, member: int, names: tuple[str, ...], cost: ConvexCost, decay: float
) -> Observed | None:
    """What the observables say of one member, at the records that were kept and at its end; None without a record."""
    rows, layers = list(kept.rows), list(kept.layers)
    if path.end is not None and path.rows and rows and rows[-1][2] != path.rows[-1][1]:
        rows.append((kept.records, path.rows[-1][0], path.rows[-1][1], True))
        layers.append(path.end)
    if not rows:
        return None
    _, t, step, _ = zip(*rows, strict=True)
    stacked = [np.stack(parts) for parts in zip(*layers, strict=True)]
    return look_at(stacked, np.array(t), np.array(step), names, cost, decay, member=member)


def look_at(
    layers: Sequence[np.ndarray],
    t: np.ndarray,
    step: np.ndarray,
    names: tuple[str, ...],
    cost: ConvexCost,
    decay: float,
    *,
    member: int = 0,
) -> Observed:
    """What the observables say of some records of one path.

    Args:
        layers: W_1, …, W_L, each of shape (R, n_l, n_{l−1}).
        t, step: of the records, shape (R,).
    """
    networks = Network.of_arrays(layers)
    scene = Scene(networks, networks.select([0]), cost.to(resolve_backend("cpu")), decay)
    return Observed(np.full(len(t), member), t, step.astype(np.int64), observe(scene, names))


def records_to_look_at(count: int, parameters: int) -> np.ndarray:
    """Of so many records that are all at hand, which are looked at: what an :class:`Observer` would have kept."""
    most, stride = _most(parameters), 1
    while -(-count // stride) > most:
        stride *= THIN
    growing = np.unique(np.geomspace(1, count, most).astype(int)) - 1
    return np.unique(np.concatenate([np.arange(0, count, stride), growing]))


def _most(numbers: int) -> int:
    """How many records are kept in each set of layers with so many numbers."""
    return int(np.clip(BYTES // (16 * numbers), LEAST, MOST))


def sharpness_of(seen: Observed, reason: str, lr: Changing | Schedule, momentum: float | None = 0.0) -> Sharpness:
    """The sharpness along one or several paths beside the step.

    Args:
        reason: why the worst of them ended.
        lr: η, which may change.
        momentum: β of heavy ball, 0 for plain gradient descent; None where no curvature makes the step unstable.
    """
    members = [seen.values["sharpness"][seen.rows_of(m)] for m in np.unique(seen.member)]
    start, end = (float(np.mean([values[k] for values in members])) for k in (0, -1))
    largest = max(float(values.max()) for values in members)
    if momentum is None:
        return Sharpness(start, largest, end)
    schedule, last = Schedule.of(lr), int(seen.step.max())
    limits = np.array([stability_limit(schedule.at(int(step)), momentum) for step in seen.step])
    above = [seen.values["sharpness"][rows] >= limits[rows] for rows in map(seen.rows_of, np.unique(seen.member))]
    changes = tuple(
        TimedLimit(schedule.total(step) / (1 - momentum), stability_limit(value, momentum))
        for step, value in zip(schedule.steps, schedule.values, strict=True)
        if step < last
    )
    limit = stability_limit(schedule.at(max(last - 1, 0)), momentum)
    verdict = "unstable" if reason == "diverged" else _verdict(above)
    share = float(np.mean(np.concatenate(above)))
    formula = "2(1 + β)/η" if momentum else "2/η"
    return Sharpness(start, largest, end, limit, formula, share, verdict, changes if len(changes) > 1 else ())


def _verdict(above: Sequence[np.ndarray]) -> str:
    """In a word, from where the records of each member lie at or above the limit."""
    if not any(over.any() for over in above):
        return "stable"
    # From each record to the next the limit may be crossed downwards, by a catapult, or upwards.
    rises = any((over[1:] & ~over[:-1]).any() or over.all() for over in above)
    return "edge-of-stability" if rises else "catapult"

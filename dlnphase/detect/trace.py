"""The path of one network, as ``detect-saddles`` looks at it, and all the paths that a source holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dlnphase.costs.tasks import Task
from dlnphase.critical.visited import Path
from dlnphase.errors import InputError
from dlnphase.networks.products import Layers
from dlnphase.results.detect import PathInfo
from dlnphase.settings.detect import DetectSettings


def increasing(time: np.ndarray, where: str) -> np.ndarray:
    """The times themselves; InputError naming the first that does not come after the one before it."""
    late = np.flatnonzero(~(np.diff(time) > 0))
    if late.size:
        k = int(late[0])
        found = f"time number {k + 2} is {time[k + 1]:.10g} after {time[k]:.10g}"
        raise InputError(f"{where}: {found}, expected each above the one before")
    return time


@dataclass(frozen=True)
class MemberTrace(Path):
    """The path of one network with all its matrices, and what else a source holds of it.

    Attributes:
        matrices: A, (T, d_out, d_in).
        weights: record number → layers, or None where the source holds none.
        member: its number.
        lacking: norm of the weights that a reduced network lacks, which without weight decay never move; None where
            nobody can tell.
    """

    matrices: np.ndarray
    weights: Callable[[int], Layers | None] = lambda record: None
    member: int = 0
    lacking: float | None = 0.0


def lacking_at(trace: MemberTrace, index: int, info: PathInfo) -> float:
    """The norm of what a reduced network lacks of the weights at a record; weight decay tells it, and takes it to 0."""
    weights = trace.weights(index)
    if weights is None or trace.penalty is None or tuple(w.shape[0] for w in weights[:-1]) == info.hidden:
        return 0.0
    whole = 2 * float(trace.penalty[index]) / info.weight_decay
    return float(np.sqrt(max(whole - sum(float(np.sum(w**2)) for w in weights), 0.0)))


@dataclass(frozen=True)
class PathSource:
    """What SOURCE holds: the paths, the task they were trained on, and what is known of the network.

    ``true_sizes`` is False where the hidden sizes are those of a reduction of a larger network, whose own nobody told.
    ``layers`` are those of the first path at every record of ``rows`` (its times and steps), where all are at hand.
    """

    traces: tuple[MemberTrace, ...]
    task: Task
    info: PathInfo
    settings: DetectSettings
    true_sizes: bool = True
    layers: Layers = field(default_factory=list)
    rows: tuple[np.ndarray, np.ndarray] | None = None

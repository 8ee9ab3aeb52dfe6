"""Settings as resolved: what numbers depend on, with nothing left open.

Settings as given leave most of this open (``None``), since a file may say it, or it belongs to other tasks.
What a verb works with has a value for all of it; it is made here, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, TypeVar

from dlnphase.costs.tasks import default_singular_values
from dlnphase.dynamics import Schedule, Update
from dlnphase.errors import InputError
from dlnphase.settings import NetworkSettings, TaskSettings
from dlnphase.settings.dynamics import DynamicsSettings

T = TypeVar("T")


def settled(value: T | None, name: str) -> T:
    """The value of a setting that has one by now; InputError, naming it, where it does not."""
    if value is None:
        raise InputError(f"{name}: missing, expected a value")
    return value


@dataclass(frozen=True)
class Planted:
    """A task around a planted matrix.

    Attributes:
        kind: of the task.
        shape: (d_out, d_in).
        singular_values: of the matrix, as many as its rank.
        observed: fraction of its entries that are seen.
        measurements: measurements or samples; None for a task that sees entries.
        noise: standard deviation of the noise on what is seen.
        data_seed: of all that is drawn.
    """

    kind: str
    shape: tuple[int, int]
    singular_values: tuple[float, ...]
    observed: float
    measurements: int | None
    noise: float
    data_seed: int

    @classmethod
    def of(cls, settings: TaskSettings) -> Self:
        """That of settings which name no file; InputError for any that lack a task."""
        return cls(
            kind=settled(settings.task, "task"),
            shape=settled(settings.shape, "shape"),
            singular_values=settings.singular_values or default_singular_values(settled(settings.rank, "rank")),
            observed=settings.observed or 1.0,
            measurements=settings.measurements,
            noise=settings.noise or 0.0,
            data_seed=settings.data_seed or 0,
        )


@dataclass(frozen=True)
class GaussianStart:
    """Networks of depth L and width w whose entries are drawn from N(0, w^−γ)."""

    depth: int
    width: int
    gamma: float

    @classmethod
    def of(cls, settings: NetworkSettings) -> Self:
        """Those of settings which name no file."""
        depth, width = settled(settings.depth, "depth"), settled(settings.width, "width")
        return cls(depth, width, settled(settings.gamma, "gamma"))


@dataclass(frozen=True)
class Continuous:
    """A path in time: the relative error that a step may make, and where it stops (without ``max_time``: nowhere)."""

    rtol: float
    max_time: float | None
    max_steps: int

    @classmethod
    def of(cls, settings: DynamicsSettings) -> Self:
        """That of the settings of a flow or of the greedy path."""
        return cls(settled(settings.rtol, "rtol"), settings.max_time, settled(settings.max_steps, "max-steps"))


@dataclass(frozen=True)
class Algorithm:
    """A discrete algorithm: its rule, its steps η, and after how many steps it stops."""

    update: Update
    lr: Schedule
    max_steps: int

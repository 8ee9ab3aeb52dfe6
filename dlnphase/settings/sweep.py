"""Settings of ``dlnphase sweep-gamma``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dlnphase.errors import InputError
from dlnphase.settings.common import MachineSettings, TaskSettings
from dlnphase.settings.parse import auto_or, boolean, integer, integers, members, number, numbers, optional, text
from dlnphase.settings.table import again, option

DEFAULT_SHAPE = (5, 5)  # small: exponents in w do not depend on it, and the wait for them does
MAX_CELLS = 1_000_000  # a sweep with more is a typing error
TOP_SINGULAR_VALUE = 4.0  # of the default target: at γ = 1 its modes are about as far from lazy as from active


@dataclass(frozen=True, kw_only=True)
class SweepSettings(MachineSettings, TaskSettings, panel="Sweep"):
    """The phase diagram: which γ, widths and starts, on which task, followed or not, and by how many processes."""

    DEFAULT_TASK: ClassVar[str] = "factorization"
    DEFAULT_RANK: ClassVar[int | None] = None

    gammas: tuple[float, ...] = option(
        numbers(),
        "values of gamma",
        short="-g",
        default_words="0.7:2.0:0.1",
        default=tuple(round(0.7 + 0.1 * k, 1) for k in range(14)),
    )
    widths: tuple[int, ...] = option(
        integers(1),
        "hidden widths w",
        short="-w",
        default_words="1e2,1e4,1e6,1e9",
        default=(100, 10_000, 1_000_000, 1_000_000_000),
    )
    depth: int = option(integer(2, 1000), "number of layers L", short="-L", default=3)
    seeds: tuple[int, ...] = option(
        members(), "how many starts per cell, or which (10:19)", default_words="8", default=tuple(range(8))
    )
    krylov_order: int | str = option(
        auto_or(integer(1, 100)), "rounds of the reduction of wide networks", default="auto"
    )
    train: bool = option(boolean(), "also follow the gradient flow in every cell", panel="Dynamics", default=False)
    rtol: float = option(
        number(positive=True, below=0.1), "relative error allowed per step", panel="Dynamics", default=1e-4
    )
    max_steps: int = option(integer(1, 10**12), "stop after so many steps", panel="Dynamics", default=100_000)
    tol: float = option(
        number(0.0, below=1.0),
        "stop at this share of C - C_min at the start, or at A = 0 if that is less",
        panel="Dynamics",
        default=1e-8,
    )
    weight_decay: float = option(
        number(0.0),
        "with --train: add (lambda/2)|theta|^2 to the cost that the flow follows",
        panel="Dynamics",
        default=0.0,
    )
    task: str | None = again(TaskSettings, "task", default_words="factorization")
    shape: tuple[int, int] | None = again(TaskSettings, "shape", default_words="5x5")
    rank: int | None = again(TaskSettings, "rank", default_words="full")
    singular_values: tuple[float, ...] | None = again(
        TaskSettings, "singular_values", default_words="evenly spaced from 4"
    )
    jobs: int | None = option(
        optional(integer(1, 4096), "auto"),
        "processes on this machine",
        panel="Machine",
        default_words="auto: one per core, 1 for a small sweep",
        identity=False,
        alias=True,
    )
    scheduler: str | None = option(
        text("an address such as tcp://host:8786", "ADDRESS"),
        "a Dask cluster to compute on",
        panel="Machine",
        identity=False,
        alias=True,
    )

    def _settle(self) -> None:
        if self.target is None and self.data is None and self.dim is None and self.shape is None:
            self._set("shape", DEFAULT_SHAPE)
        super()._settle()
        planted = self.target is None and self.data is None
        if planted and self.rank is not None and self.singular_values is None:
            values = tuple(TOP_SINGULAR_VALUE * (self.rank - i) / self.rank for i in range(self.rank))
            self._set("singular_values", values)
        self._set("gammas", tuple(sorted(self.gammas)))
        self._set("widths", tuple(sorted(self.widths)))
        if len(self.gammas) * len(self.widths) > MAX_CELLS:
            raise InputError(
                f"gammas: found {len(self.gammas)} beside {len(self.widths)} widths, expected at most {MAX_CELLS} cells"
            )
        if max(self.widths) > 10**12:
            raise InputError(f"widths: found {max(self.widths)}, expected at most 1e12")
        if self.scheduler is not None and self.jobs is not None:
            raise InputError(f"jobs: found {self.jobs} beside scheduler {self.scheduler}, expected one of them")

        if self.weight_decay and not self.train:
            raise InputError(
                f"weight-decay: found {self.weight_decay:g} without train, expected with it: distances are those of C, "
                "which it does not change"
            )

    @property
    def cells(self) -> tuple[tuple[float, int], ...]:
        """(γ, w) of every cell, in the order of the result."""
        return tuple((gamma, width) for gamma in self.gammas for width in self.widths)

    def slug(self) -> str:
        """A short name for the default output directory: ``sweep-gamma-factorization-5x5-L3``."""
        words = ["sweep-gamma", self.task_words()]
        if self.shape is not None:
            words.append(f"{self.shape[0]}x{self.shape[1]}")
        return "-".join([*words, f"L{self.depth}"])

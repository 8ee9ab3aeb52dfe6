"""Settings that several commands share: the machine, the task, the network, the dynamics."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dlnphase.errors import InputError
from dlnphase.settings.parse import (
    Parser,
    auto_or,
    boolean,
    choice,
    columns,
    integer,
    members,
    number,
    numbers,
    optional,
    path,
    shape,
)
from dlnphase.settings.table import Settings, option

OBSERVED = 0.8  # fraction of entries a completion sees; a sensing task takes as many measurements


@dataclass(frozen=True)
class PlantedKind:
    """A kind of planted task; ``costs/tasks.py`` draws it.

    Attributes:
        observed: whether only some of the entries are seen.
        measurements: how many there are for a shape d_out, d_in; None where there are none to count.
        numbers: how many it holds beside a few matrices, from d_out, d_in and that count.
    """

    observed: bool = False
    measurements: Callable[[int, int], int] | None = None
    numbers: Callable[[int, int, int], int] = lambda d_out, d_in, count: 0


TASKS = {
    "completion": PlantedKind(observed=True),
    "factorization": PlantedKind(),
    "sensing": PlantedKind(
        measurements=lambda d_out, d_in: max(1, round(OBSERVED * d_out * d_in)),
        numbers=lambda d_out, d_in, count: d_out * d_in * (2 * count + 2 * d_out * d_in),
    ),
    "regression": PlantedKind(
        measurements=lambda d_out, d_in: 10 * d_in,
        numbers=lambda d_out, d_in, count: count * 2 * (d_in + d_out) + 2 * d_in * d_in,
    ),
}
TASK_NAMES = tuple(TASKS)

PLANTED = ("shape", "rank", "singular_values", "observed", "measurements", "noise", "data_seed")
SAID = {"target": ("shape", "rank", "singular_values"), "data": ("shape", "measurements")}  # of these, by a file
_HELD_OUT = ("observed", "data_seed")  # of these, what a matrix of one's own takes as well
AS_TEXT = ("header", "index_column")  # how a matrix is read from text


def name_words(text: str) -> str:
    """What a file system takes everywhere of a name; maybe nothing."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:60]


def _device(value: Any) -> str:
    if not isinstance(value, str) or re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,4})?", value) is None:
        raise ValueError
    return value


@dataclass(frozen=True, kw_only=True)
class MachineSettings(Settings, panel="Machine"):
    """Where the numbers are computed, and the seed they start from."""

    seed: int = option(integer(0), "seed of the initial weights (each member has its own stream)", default=0)
    device: str = option(
        Parser(_device, "auto, cpu, cuda or cuda:N", "DEVICE", choices=("auto", "cpu", "cuda")),
        "where to compute: auto (CUDA if usable), cpu, cuda or cuda:N",
        identity=False,
        default="auto",
    )
    dtype: str = option(choice("float64", "float32"), "precision of the run", default="float64")
    threads: int | None = option(
        optional(integer(1, 4096)),
        "CPU threads torch may use",
        default_words="1 for small networks, else torch's choice",
        identity=False,
    )


@dataclass(frozen=True, kw_only=True)
class TaskSettings(Settings, panel="Task"):
    """What the network is to learn: a planted matrix, or the user's own files."""

    DEFAULT_TASK: ClassVar[str] = "completion"
    DATA_TASKS: ClassVar[tuple[str, ...]] = ("regression",)
    DEFAULT_RANK: ClassVar[int | None] = 3  # None: full

    task: str | None = option(
        choice(*TASK_NAMES),
        "kind of task",
        default_words="completion",
        replaces=("observed", "measurements", "target", "data"),
    )
    dim: int | None = option(
        integer(1, 2**31),
        "a square shape: the same as --shape DIMxDIM",
        alias=True,
        replaces=("shape", "target", "data"),
    )
    shape: tuple[int, int] | None = option(
        shape(), "d_out x d_in of the end-to-end matrix", default_words="10x10", replaces=("dim", "target", "data")
    )
    rank: int | None = option(
        integer(1, 2**31),
        "rank of the planted matrix",
        default_words="3",
        replaces=("singular_values", "target", "data"),
    )
    singular_values: tuple[float, ...] | None = option(
        numbers(positive=True, unique=False),
        "singular values of the planted matrix",
        default_words="10,6,3 at rank 3, else evenly spaced from 10",
        replaces=("rank", "target", "data"),
    )
    observed: float | None = option(
        number(positive=True, below=1),
        "completion: fraction of entries seen; the others of your own matrix are held out as a test",
        default_words=f"{OBSERVED:g}; all of your own",
        replaces=("target", "data"),
    )
    measurements: int | None = option(
        integer(1, 2**31),
        "sensing: number of measurements; regression: of samples",
        default_words="0.8 of the entries; 10 per input",
        replaces=("target", "data"),
    )
    noise: float | None = option(
        number(0.0),
        "standard deviation of the noise on what training sees",
        default_words="0",
        replaces=("target", "data"),
    )
    data_seed: int | None = option(
        integer(0),
        "seed of the planted matrix, mask, measurements and noise, or of what is held out",
        default_words="0",
        replaces=("target", "data"),
    )
    target: str | None = option(
        path("a .npy, .npz or .csv file"),
        "your matrix (.npy, .npz, .csv): completion if entries are missing, else factorization",
        replaces=("task", "dim", *PLANTED, "data"),
    )
    header: bool | None = option(
        boolean(),
        "your matrix as text: leave out its first line, which holds names",
        default_words="told from the file",
    )
    index_column: str | None = option(
        columns(),
        "your matrix as text: leave out these columns of labels, by number or name; none: learn all",
        default_words="told from the file",
    )
    data: str | None = option(
        path("an .npz file"),
        "your data, C = 1/(2N) sum |A x - y|^2: .npz with X (N x d_in), Y (N x d_out), also X_test, Y_test",
        replaces=("task", "dim", *PLANTED, "target"),
    )

    @classmethod
    def _replaced(cls, name: str, merged: Mapping[str, Any]) -> tuple[str, ...]:
        """What is held out of a matrix of one's own stays with it, and with another one that takes its place."""
        names = super()._replaced(name, merged)
        if "target" in names:
            names += AS_TEXT
        if merged.get("target") is None:
            return names
        if name == "target":
            return tuple(n for n in names if n not in _HELD_OUT)
        if name == "observed" or (name == "data_seed" and merged.get("observed") is not None):
            return tuple(n for n in names if n not in ("target", *AS_TEXT))
        return names

    def _settle(self) -> None:
        super()._settle()
        if self.dim is not None:
            if self.shape not in (None, (self.dim, self.dim)):
                raise InputError(f"dim: found {self.dim} beside shape {self.shape[0]}x{self.shape[1]}, expected one")
            self._set("shape", (self.dim, self.dim))
            self._set("dim", None)
        if self.target is not None or self.data is not None:
            self._check_files()
        else:
            self._settle_planted()

    def task_words(self) -> str:
        """The task in the name of a directory: the user's file, else the kind of task."""
        own = self.target or self.data
        return name_words(Path(own).stem) or "target" if own else self.task or self.DEFAULT_TASK

    def _check_files(self) -> None:
        source = "target" if self.target is not None else "data"
        if self.target is not None and self.data is not None:
            raise InputError("target: found beside data, expected one of them")
        held_out = source == "target" and self.observed is not None
        for name in PLANTED:
            if name in SAID[source]:
                continue  # compared with the file when it is read
            if getattr(self, name) is not None and not (held_out and name in _HELD_OUT):
                raise InputError(
                    f"{name.replace('_', '-')}: found beside {source}, which is a task of its own; drop one"
                )
        if held_out and self.data_seed is None:
            self._set("data_seed", 0)
        if source == "data" and not self._data_may_be_text():
            self._refuse_beside("data", AS_TEXT)
        fits = ("completion", "factorization") if source == "target" else self.DATA_TASKS
        if self.task is not None and self.task not in fits:
            raise InputError(f"task: found {self.task} beside {source}, expected {' or '.join(fits)}")

    def _data_may_be_text(self) -> bool:
        """Whether ``data`` may name a text file."""
        return False

    def _refuse_beside(self, what: str, names: tuple[str, ...]) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise InputError(f"{name.replace('_', '-')}: found beside {what}, expected only with target")

    def _settle_planted(self) -> None:
        self._refuse_beside("a planted task", AS_TEXT)
        task = self.task or self.DEFAULT_TASK
        shape = self.shape or (10, 10)
        self._set("task", task)
        self._set("shape", shape)
        if self.rank is not None and self.rank > min(shape):
            raise InputError(f"rank: found {self.rank}, expected at most {min(shape)} for shape {shape[0]}x{shape[1]}")
        if self.singular_values is not None:
            count = len(self.singular_values)
            if count > min(shape):
                raise InputError(
                    f"singular-values: found {count}, expected at most {min(shape)} for shape {shape[0]}x{shape[1]}"
                )
            if self.rank not in (None, count):
                raise InputError(
                    f"singular-values: found {count} beside rank {self.rank}, expected as many as the rank"
                )
            self._set("rank", count)
        elif self.rank is None:
            self._set("rank", min(self.DEFAULT_RANK or min(shape), *shape))
        self._only("observed", task, tuple(name for name, row in TASKS.items() if row.observed), OBSERVED)
        counted = {name: row.measurements(*shape) for name, row in TASKS.items() if row.measurements is not None}
        self._only("measurements", task, tuple(counted), counted.get(task))
        for name, default in (("noise", 0.0), ("data_seed", 0)):
            if getattr(self, name) is None:
                self._set(name, default)

    def _only(self, name: str, task: str, tasks: tuple[str, ...], default: Any) -> None:
        """A setting of some tasks: its default there, an error elsewhere."""
        if task in tasks and getattr(self, name) is None:
            self._set(name, default)
        elif task not in tasks and getattr(self, name) is not None:
            raise InputError(
                f"{name}: found {getattr(self, name)} with task {task}, expected only with {' or '.join(tasks)}"
            )


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Settings, panel="Network"):
    """One architecture and its initialisation, or the user's own weights."""

    depth: int | None = option(
        integer(2, 1000), "number of layers L", short="-L", default_words="4", replaces=("init_weights",)
    )
    width: int | None = option(
        integer(1, 10**12), "hidden width w", short="-w", default_words="100", replaces=("init_weights",)
    )
    gamma: float | None = option(
        number(), "initial weights are N(0, w^-gamma)", short="-g", default_words="2.0", replaces=("init_weights",)
    )
    representation: str | None = option(
        choice("auto", "full", "krylov"),
        "full weights, or the part gradients can reach (exact in law, any width)",
        default_words="auto; full for your own weights",
    )
    krylov_order: int | str | None = option(
        auto_or(integer(1, 100)), "rounds of the reduction; auto picks them from the error", default_words="auto"
    )
    seeds: tuple[int, ...] = option(
        members(), "how many initialisations to follow at once (64), or which (10:19)", default=(0,)
    )
    init_weights: str | None = option(
        path("an .npz file or a checkpoint"),
        "your own start: .npz with W1…WL, a torch state dict, a checkpoint or safetensors",
        replaces=("depth", "width", "gamma", "seeds"),
    )

    def _settle(self) -> None:
        super()._settle()
        if self.init_weights is not None and self.gamma is not None:
            raise InputError("gamma: found beside init-weights, which decides the scale; drop one")
        for name, default in {"depth": 4, "width": 100, "gamma": 2.0}.items():
            if self.init_weights is None and getattr(self, name) is None:
                self._set(name, default)
        if self.representation is None:
            # Weights that somebody made are followed as they are, unless a reduction is asked for.
            self._set("representation", "full" if self.init_weights is not None else "auto")
        if self.krylov_order is None:
            self._set("krylov_order", "auto")
        if self.representation == "full" and self.krylov_order != "auto":
            raise InputError(
                f"krylov-order: found {self.krylov_order} with representation full, expected krylov or auto"
            )

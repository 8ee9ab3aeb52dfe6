"""Settings of the cost: what is made of the difference between A and the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from dlnphase.errors import InputError
from dlnphase.settings.common import AS_TEXT, PLANTED, TASK_NAMES, TaskSettings, name_words
from dlnphase.settings.parse import Parser, choice, columns, number, path
from dlnphase.settings.table import again, option


@dataclass(frozen=True)
class CostKind:
    """A cost.

    Attributes:
        loss: its file in costs/ and the class there, which says how it is made for each of the tasks.
        tasks: those it makes sense for.
        signs: whether it is told signs of entries alone, which are drawn at random where the matrix is planted.
        own: settings of it alone, called cost_parameter, with their defaults.
    """

    loss: str
    tasks: tuple[str, ...]
    signs: bool = False
    own: Mapping[str, float] = field(default_factory=dict)


COSTS = {
    "squared": CostKind("", (*TASK_NAMES, "classification")),
    "cross-entropy": CostKind("cross_entropy:CrossEntropy", ("classification",)),
    "logistic": CostKind("logistic:Logistic", ("classification", "completion", "factorization"), signs=True),
    "huber": CostKind("huber:Huber", ("completion", "factorization", "regression"), own={"huber_delta": 1.0}),
}
OWN = {name: cost for cost, row in COSTS.items() for name in row.own}
_TASK = ("task", "dim", *PLANTED, "target", "data", *AS_TEXT, "label_column", *OWN)


def _cost(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    module, colon, name = value.partition(":")
    own = colon and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))
    if value not in COSTS and not own:
        raise ValueError
    return value


@dataclass(frozen=True, kw_only=True)
class CostSettings(TaskSettings, panel="Task"):
    """The task, and which convex cost of A it is."""

    DATA_TASKS: ClassVar[tuple[str, ...]] = ("regression", "classification")

    task: str | None = again(
        TaskSettings,
        "task",
        parser=choice(*TASK_NAMES, "classification"),
        help="kind of task; classification needs --data",
    )
    data: str | None = again(
        TaskSettings,
        "data",
        parser=path("an .npz or .csv file"),
        help="your data: .npz with X (N x d_in), Y (N x d_out) or classes y, also X_test, Y_test; .csv: classes",
    )
    label_column: str | None = option(
        columns(), "your data as .csv: the column of classes, by number or name", default_words="none"
    )
    cost: str | None = option(
        Parser(_cost, f"{', '.join(COSTS)} or MODULE:NAME", "COST"),
        f"{', '.join(COSTS)}, or MODULE:NAME of your own",
        default_words="squared; cross-entropy for classification",
        replaces=tuple(OWN),
    )
    huber_delta: float | None = option(
        number(positive=True),
        "huber: residuals beyond it count linearly",
        default_words=f"{COSTS['huber'].own['huber_delta']:g}",
    )

    @classmethod
    def _replaced(cls, name: str, merged: Mapping[str, Any]) -> tuple[str, ...]:
        """A task asked for by name stays one of the data that is there, where it can be."""
        names = super()._replaced(name, merged)
        if name == "task" and merged.get("task") == "classification":
            return tuple(n for n in names if n != "data")
        return names

    @property
    def own_cost(self) -> str | None:
        """The name of a cost that is the user's, which is a task of its own; None for those of this package."""
        return self.cost if self.cost is not None and ":" in self.cost else None

    def task_words(self) -> str:
        """The task and, where it is another than the usual one, its cost, in the name of a directory."""
        if self.own_cost:
            return name_words(self.own_cost.replace(":", "-"))
        plain = super().task_words()
        return plain if self.cost is None else f"{plain}-{self.cost}"

    def _settle(self) -> None:
        if self.own_cost:
            self._refuse_task()
            super(TaskSettings, self)._settle()  # what a task of this package settles is not asked
            return
        if self.label_column is not None and self.data is None:
            raise InputError("label-column: found without data, expected it beside a .csv file of data")
        wants_classes = self.label_column is not None or (self.cost and "regression" not in COSTS[self.cost].tasks)
        if self.task is None and self.data is not None and wants_classes:
            self._set("task", "classification")
        if self.task == "classification" and self.data is None:
            raise InputError("task: found classification without data, expected --data with X and y")
        super()._settle()
        self._settle_cost()

    def _data_may_be_text(self) -> bool:
        return self.task == "classification"

    def _settle_cost(self) -> None:
        if self.task == "classification" and self.cost is None:
            self._set("cost", "cross-entropy")
        row = COSTS[self.cost or "squared"]
        task = self.task or ("regression" if self.data is not None else "completion")
        if task not in row.tasks:
            raise InputError(f"cost: found {self.cost} with task {task}, expected it with {' or '.join(row.tasks)}")
        if self.cost == "squared" and task != "classification":
            self._set("cost", None)
        for name, cost in OWN.items():
            value = getattr(self, name)
            if name in row.own and value is None:
                self._set(name, row.own[name])
            elif name not in row.own and value is not None:
                raise InputError(f"{name.replace('_', '-')}: found {value:g}, expected only with cost {cost}")
        if row.signs and self.noise:
            found = f"found {self.noise:g} with cost {self.cost}"
            raise InputError(f"noise: {found}, whose signs are drawn at random already")

    def _refuse_task(self) -> None:
        """A cost of one's own says what it is about."""
        for name in _TASK:
            if getattr(self, name) is not None:
                raise InputError(f"{name.replace('_', '-')}: found beside cost {self.cost}, which is a task of its own")

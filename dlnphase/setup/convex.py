"""Tasks whose cost is another than the squared one of regression, completion and their kin."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TypeVar

import numpy as np

from dlnphase.backend import Backend, stream
from dlnphase.costs.convex import on_classes, on_entries, on_samples
from dlnphase.costs.interface import ConvexCost
from dlnphase.costs.labelled import LabelledSquares
from dlnphase.costs.minimise import Found
from dlnphase.costs.own import load_cost
from dlnphase.costs.sampled import Loss
from dlnphase.costs.tasks import Labels, Task, held_out, offsets, planted_matrix
from dlnphase.errors import InputError
from dlnphase.findings import counted
from dlnphase.settings.costs import COSTS, CostSettings
from dlnphase.setup import inputs
from dlnphase.setup.labelled import read_labelled
from dlnphase.setup.repeats import check_data, check_target
from dlnphase.setup.resolved import Planted, settled

S = TypeVar("S", bound=CostSettings)
UNSOUGHT = Found(0.0, None, False, known=False)  # of costs that are evaluated and never minimised


def convex_task(settings: S, backend: Backend) -> tuple[Task, S]:
    """The task of settings that name a cost; the settings with what only the task could tell.

    Raises:
        InputError: for a file or a module that cannot be used.
    """
    if settings.own_cost is not None:
        return Task(load_cost(settings.own_cost).to(backend)), settings
    if settings.data is None:
        return _entries(settings, backend)
    make = _classification if settings.task == "classification" else _samples
    return make(settings, settings.data, backend)


def note_on_minimum(cost: ConvexCost, settings: CostSettings) -> tuple[str, ...]:
    """A word where no minimum exists, or none was found; with weight decay there is one."""
    if cost.attained:
        return ()
    found = getattr(cost, "found", None)
    if found is not None and not found.known:
        return (f"no minimum was found: costs are told above {cost.minimum:.6g}, the lowest that was met",)
    what = "entries" if cost.metric is None else "samples"
    if getattr(settings, "weight_decay", None):
        return (f"all {what} can be got right: it is weight decay that keeps A finite",)
    grows = "A grows for ever as C falls to 0, unless weights decay"
    return (f"separable: all {what} can be got right, so C has no minimum, and {grows}",)


def _classification(settings: S, path: str, backend: Backend) -> tuple[Task, S]:
    data = read_labelled(
        path, label_column=settings.label_column, header=settings.header, index_column=settings.index_column
    )
    count = len(data.classes)

    def cost(x: np.ndarray, y: np.ndarray, found: Found | None = None) -> ConvexCost:
        if settings.cost == "squared":
            return LabelledSquares.of(x, y, count, backend)
        loss, own = _loss(settings)
        return on_classes(loss, x, y, backend, count, found, **own)

    training = cost(data.x, data.y)
    rows = training.shape[0]
    check_data(settings, {"X": data.x, "Y": np.empty((len(data.x), rows))})
    test = None if data.test is None else cost(*data.test, UNSOUGHT)
    samples = f"{Path(path).name}: {counted(len(data.x), 'sample')}"
    names = f"{samples} of {count} classes ({', '.join(data.classes[:6])}"
    notes = (
        names + (", …)" if count > 6 else ")"),
        *data.notes,
        *note_on_minimum(training, settings),
        *offsets(data.x, np.ones((len(data.x), 1)) * 0),
    )
    labels = Labels(data.classes if rows == count else (), data.columns)
    return Task(training, test, notes=notes, labels=labels), settings


def _samples(settings: S, path: str, backend: Backend) -> tuple[Task, S]:
    """A regression by another cost than the squared one."""
    arrays, (loss, own) = inputs.read_regression(path), _loss(settings)
    check_data(settings, arrays)
    cost = on_samples(loss, arrays["X"], arrays["Y"], backend, None, **own)
    test = None
    if "X_test" in arrays:
        test = on_samples(loss, arrays["X_test"], arrays["Y_test"], backend, UNSOUGHT, **own)
    notes = (*note_on_minimum(cost, settings), *offsets(arrays["X"], arrays["Y"]))
    return Task(cost, test, notes=notes), replace(settings, task="regression")


def _entries(settings: S, backend: Backend) -> tuple[Task, S]:
    """Entries of a user's matrix or of a planted one, or their signs."""
    (loss, own), signs = _loss(settings), COSTS[settings.cost or "squared"].signs

    def cost_on(values: np.ndarray, entries: np.ndarray) -> ConvexCost:
        return on_entries(loss, values, entries, backend, signs=signs, **own)

    target, labels, values = None, Labels(), settings.singular_values
    notes: tuple[str, ...] = ()
    if settings.target is not None:
        table = inputs.read_matrix(settings.target, header=settings.header, index_column=settings.index_column)
        check_target(settings, table.values)
        matrix, labels = table.values, Labels(table.rows, table.columns, table.corner)
        known = ~np.isnan(matrix)
        seen, notes = held_out(matrix, settings.observed, settings.data_seed or 0, Path(settings.target).name)
        notes = table.notes + notes
    else:
        planted = Planted.of(settings)
        values = planted.singular_values
        target = planted_matrix(planted.shape, values, planted.data_seed)
        matrix, known = _observations(planted, target, signs), np.ones(target.shape, dtype=bool)
        seen = np.ones(target.size, dtype=bool)
        if planted.kind == "completion":
            count = max(1, round(planted.observed * target.size))
            seen[:] = False
            seen[stream(planted.data_seed, "task", 1).permutation(target.size)[:count]] = True
        seen = seen.reshape(target.shape)
    cost = cost_on(matrix, seen)
    rest = known & ~seen
    test = None
    if rest.any():
        test = cost_on(matrix if target is None or signs else target, rest)
    task = Task(cost, test, target, notes=(*notes, *note_on_minimum(cost, settings)), labels=labels)
    kind = "completion" if not seen.all() else "factorization"
    if settings.task not in (None, kind):
        raise InputError(f"task: found {settings.task}, but the data makes it a {kind}")
    return task, replace(settings, task=kind, singular_values=values)


def _observations(planted: Planted, target: np.ndarray, signs: bool) -> np.ndarray:
    """What is seen of a planted matrix: entries with noise, or signs that are + with probability 1/(1 + e^(−A*))."""
    rng = stream(planted.data_seed, "noise")
    if signs:
        return np.where(rng.random(target.shape) < 1 / (1 + np.exp(-target)), 1.0, -1.0)
    return target + planted.noise * rng.standard_normal(target.shape)


def _loss(settings: CostSettings) -> tuple[type[Loss], dict[str, float]]:
    """The class of a loss, by the table of costs, and the settings that are its own."""
    row = COSTS[settled(settings.cost, "cost")]
    module, _, name = row.loss.partition(":")
    loss: type[Loss] = getattr(import_module(f"dlnphase.costs.{module}"), name)
    return loss, {key.removeprefix(f"{module}_"): getattr(settings, key) for key in row.own}

"""From settings to what a verb works on: backend, task, starting networks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from dlnphase.backend import Backend, resolve_backend
from dlnphase.costs.interface import ConvexCost
from dlnphase.costs.tasks import Labels, Task, matrix_task, planted_task, regression_task
from dlnphase.dynamics.updates import Update
from dlnphase.errors import InputError
from dlnphase.findings import counted
from dlnphase.networks.chain import Network, parameter_count
from dlnphase.networks.krylov import unrevealed_square_norm
from dlnphase.networks.representation import Representation, initial_network
from dlnphase.networks.sampling import alpha_of, sigma_of
from dlnphase.results.matrixfile import MatrixTable
from dlnphase.results.train import NetworkInfo, TaskInfo
from dlnphase.settings import CostSettings, MachineSettings, NetworkSettings, TaskSettings, TrainSettings
from dlnphase.settings.common import TASKS
from dlnphase.setup import inputs
from dlnphase.setup.convex import convex_task
from dlnphase.setup.repeats import check_data, check_target
from dlnphase.setup.representation import DROPPED, choose_representation, represent
from dlnphase.setup.resolved import GaussianStart, Planted

MAX_TASK_BYTES = 4 * 2**30  # a task whose own arrays would be larger is refused before they are made
THREADS_PAY = 500_000  # numbers in a batch of networks from which a second thread saves time

S = TypeVar("S", bound=TaskSettings)


@dataclass(frozen=True)
class Start:
    """The networks a run starts from.

    Attributes:
        network: a batch with one member per initialisation.
        info: what they are, for the result.
        members: the number of each initialisation, shape (B,).
        square_norm: ‖θ_0‖² of the full networks, shape (B,), whatever the representation.
        notes: what the user should know about them.
    """

    network: Network
    info: NetworkInfo
    members: np.ndarray
    square_norm: np.ndarray
    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def thread_limit(threads: int | None, parameters: int = 0) -> Iterator[None]:
    """Run the body on the CPU threads the user chose; else on one where more would only wait for each other.

    Args:
        threads: the user's choice, or None.
        parameters: numbers in the batch of networks; above THREADS_PAY torch's own choice stands.
    """
    before = torch.get_num_threads()
    if threads is not None or parameters <= THREADS_PAY:
        torch.set_num_threads(threads or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def build_backend(settings: MachineSettings) -> Backend:
    """Device, dtype and threads of a run; InputError for a device that is not there."""
    return resolve_backend(settings.device, settings.dtype, settings.threads)


def build_task(settings: S, backend: Backend, *, keep: bool = False) -> tuple[Task, S]:
    """The task, and the settings with everything resolved that only the task itself could tell.

    Args:
        keep: whether its cost keeps measurements and samples, as dynamics with noise need them.

    Raises:
        InputError: for a file that cannot be used, or a task too large for memory.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # told right below, by name
        task, settings = _build_task(settings, backend, keep)
    _check_range(task.cost, settings, backend)
    return task, settings


def _build_task(settings: S, backend: Backend, keep: bool) -> tuple[Task, S]:
    if isinstance(settings, CostSettings) and settings.cost is not None:
        return convex_task(settings, backend)
    if settings.target is not None:
        table = inputs.read_matrix(settings.target, header=settings.header, index_column=settings.index_column)
        check_target(settings, table.values)
        name, seed = Path(settings.target).name, settings.data_seed or 0
        task = matrix_task(table.values, backend, observed=settings.observed, data_seed=seed, name=name)
        task = replace(task, labels=Labels(table.rows, table.columns, table.corner), notes=table.notes + task.notes)
        if settings.task not in (None, task.cost.kind):
            raise InputError(f"task: found {settings.task}, but {_gaps(settings, table)}, expected {task.cost.kind}")
        return task, replace(settings, task=task.cost.kind)
    if settings.data is not None:
        arrays = inputs.read_regression(settings.data)
        check_data(settings, arrays)
        test = arrays.get("X_test"), arrays.get("Y_test")
        task = regression_task(arrays["X"], arrays["Y"], backend, *test, keep=keep)
        return task, replace(settings, task="regression")
    return _planted(settings, backend, keep)


def _gaps(settings: TaskSettings, table: MatrixTable) -> str:
    """Whether a matrix has gaps, and how many, in words."""
    rows, columns = np.nonzero(np.isnan(table.values))
    if rows.size:
        first = f"the first in row {rows[0] + 1}, column {columns[0] + 1}"
        return f"{settings.target} has {rows.size} gap{'s' * (rows.size != 1)}, {first}"
    return "observed holds entries out" if settings.observed is not None else f"{settings.target} has no gaps"


def _planted(settings: S, backend: Backend, keep: bool) -> tuple[Task, S]:
    planted = Planted.of(settings)
    _check_task_memory(planted)
    task = planted_task(**vars(planted), backend=backend, keep=keep)
    return task, replace(settings, singular_values=planted.singular_values)


def _check_range(cost: ConvexCost, settings: TaskSettings, backend: Backend) -> None:
    """Refuse a task whose numbers the dtype cannot hold, before anything is computed with them."""
    start = cost.excess(cost.like.new_zeros((1, *cost.shape)))
    numbers = {**cost.numbers(), "the cost at A = 0": start}
    for name, values in numbers.items():
        largest = float(values.abs().max())
        if not largest <= torch.finfo(backend.dtype).max ** (1.0 if name == "the cost at A = 0" else 0.5):
            source = next((s for s in ("target", "data") if getattr(settings, s) is not None), "singular-values")
            raise InputError(
                f"{source}: {name} has numbers of up to {largest:.3g}, beyond what {backend.dtype_name} can square; "
                "scale the task" + ("" if backend.dtype == torch.float64 else ", or take --dtype float64")
            )


def _check_task_memory(task: Planted) -> None:
    d_out, d_in = task.shape
    size, count = d_out * d_in, task.measurements or 1
    needed = 8 * (4 * size + TASKS[task.kind].numbers(d_out, d_in, count))
    if needed > MAX_TASK_BYTES:
        raise InputError(
            f"shape: a {task.kind} task of shape {d_out}x{d_in} with {count} measurement(s) needs about "
            f"{needed / 2**30:.3g} GiB, expected at most {MAX_TASK_BYTES // 2**30} GiB"
        )


def task_info(cost: ConvexCost) -> TaskInfo:
    """What a result says about its task."""
    zero = cost.like.new_zeros((1, *cost.shape))
    top = float(torch.linalg.matrix_norm(cost.gradient(zero)[0], 2))
    return TaskInfo(cost.kind, cost.shape, cost.minimum, cost.unique, top, cost.name, cost.attained)


def build_start(
    settings: NetworkSettings,
    cost: ConvexCost,
    backend: Backend,
    seed: int,
    *,
    weight_decay: float = 0.0,
    update: Update | None = None,
    whole: bool = False,
) -> Start:
    """The starting networks, full or reduced, or the user's own.

    Args:
        weight_decay: λ that they will be trained with, on which it depends how far they may be reduced.
        update: that they will be trained with, which may need full ones.
        whole: reduce them from the whole ends in any case.

    Raises:
        InputError: for weights that do not fit the task, a scale outside the dtype, or networks too large for memory.
    """
    if settings.init_weights is not None:
        return _start_from_file(settings, settings.init_weights, cost, backend, weight_decay, update)
    drawn = GaussianStart.of(settings)
    depth, width, gamma = drawn.depth, drawn.width, drawn.gamma
    sigma, alpha = _scale(width, gamma, backend)
    law, members = (depth, width, cost.shape, sigma), settings.seeds
    wish = {**_wish(settings, depth, update), "weight_decay": weight_decay, "whole": whole or _needs_ends(settings)}
    chosen = choose_representation(*law, cost, backend, seed=seed, member=members[0], batch=len(members), **wish)
    network = initial_network(chosen, *law, backend, seed=seed, members=members)
    norm = _square_norm(network)
    if chosen.order is not None:
        rest = unrevealed_square_norm(*law, chosen.order, seed=seed, members=members, start=chosen.start)
        norm = norm + rest
    how = _how(chosen, network, norm)
    info = NetworkInfo(depth, width, gamma, sigma, alpha, **how, full_hidden=(width,) * (depth - 1))
    return Start(network, info, np.asarray(settings.seeds), norm, _notes(chosen))


def _needs_ends(settings: NetworkSettings) -> bool:
    """Whether few modes of a target cannot stand for both ends of a network.

    They can for A along a flow of the whole cost: noise moves it in every direction, what is recorded besides A counts
    what the rest of the ends does, and an excess of the size of what was dropped of A(0) is not told.
    """
    if not isinstance(settings, TrainSettings) or settings.dynamics != "flow" or settings.weight_decay:
        return True
    return bool(settings.record) or settings.tol < 10 * DROPPED**2


def norms_lacking(
    network: NetworkInfo, config: TrainSettings, cost: ConvexCost, members: Sequence[int]
) -> dict[int, float]:
    """By start, the norm of what reduced networks lack of the full ones, of a run that ended; {} where nobody tells."""
    if network.representation == "full" or config.weight_decay:  # weight decay shrinks it: the penalty tells it
        return dict.fromkeys(members, 0.0)
    if network.lacking is not None:
        numbers = config.seeds if config.init_weights is None else range(len(network.lacking))
        return dict(zip(numbers, network.lacking, strict=True))
    # A file from before that was told: its start is made once more, if the user's file is still there.
    order = "auto" if network.krylov_order is None else network.krylov_order
    held = replace(config, representation=network.representation, krylov_order=order)
    try:
        start = build_start(held, cost, resolve_backend("cpu"), config.seed, whole=network.krylov_modes is None)
    except InputError:
        return {}
    return dict(zip(start.members.tolist(), start.info.lacking or (), strict=True))


def build_limit(settings: NetworkSettings, cost: ConvexCost, backend: Backend) -> Start:
    """The start of the limit α → 0: the origin, with as many channels as A can have modes.

    Raises:
        InputError: for weights of one's own, or several starts: the limit has none to choose.
    """
    if settings.init_weights is not None:
        raise InputError("init-weights: found with dynamics greedy, which starts at the origin; drop one")
    if len(settings.seeds) > 1:
        raise InputError(f"seeds: found {len(settings.seeds)} with dynamics greedy, which has one start, expected 1")
    drawn = GaussianStart.of(settings)
    hidden = drawn.depth - 1
    dims = (cost.shape[1], *([min(drawn.width, *cost.shape)] * hidden), cost.shape[0])
    network = Network(backend.tensor(np.zeros((1, parameter_count(dims)))), dims)
    full = (drawn.width,) * hidden
    info = NetworkInfo(drawn.depth, drawn.width, None, 0.0, 0.0, "full", network.hidden, full_hidden=full)
    return Start(network, info, np.array([0]), np.zeros(1))


def _start_from_file(
    settings: NetworkSettings, path: str, cost: ConvexCost, backend: Backend, weight_decay: float, update: Update | None
) -> Start:
    layers = inputs.read_weights(path)
    shape = (layers[-1].shape[1], layers[0].shape[2])
    if shape != cost.shape:
        wanted = f"{cost.shape[0]}x{cost.shape[1]}"
        raise InputError(f"init-weights: {path} gives a {shape[0]}x{shape[1]} matrix, expected {wanted} like the task")
    if settings.depth not in (None, len(layers)):
        raise InputError(f"depth: found {settings.depth}, but init-weights {path} has {counted(len(layers), 'layer')}")
    widths = sorted({w.shape[1] for w in layers[:-1]})
    if settings.width is not None and widths != [settings.width]:
        found = ", ".join(map(str, widths))
        raise InputError(f"width: found {settings.width}, but init-weights {path} has {found}")
    count = len(layers[0])
    if settings.seeds not in ((0,), tuple(range(count))):
        raise InputError(
            f"seeds: found {len(settings.seeds)}, but init-weights {path} holds {count} "
            f"network{'s' * (count != 1)}, numbered from 0"
        )
    given = Network.from_weights([backend.tensor(w) for w in layers])
    sigma = float(given.theta.square().mean().sqrt())
    alpha = sigma * float(np.sqrt(np.mean(given.hidden)))
    wish = {**_wish(settings, given.depth, update), "weight_decay": weight_decay, "whole": _needs_ends(settings)}
    network, chosen = represent(given, cost, **wish)
    norm = _square_norm(given)
    info = NetworkInfo(given.depth, None, None, sigma, alpha, **_how(chosen, network, norm), full_hidden=given.hidden)
    return Start(network, info, np.arange(given.batch), norm, _notes(chosen))


def _scale(width: int, gamma: float, backend: Backend) -> tuple[float, float]:
    """σ and α; InputError where the dtype cannot hold them."""
    limits = torch.finfo(backend.dtype)
    try:
        sigma, alpha = sigma_of(width, gamma), alpha_of(width, gamma)
    except OverflowError:
        sigma = alpha = float("inf")
    if not limits.tiny < sigma < limits.max:
        where = f"outside what {backend.dtype_name} holds"
        raise InputError(f"gamma: found {gamma:g}, but sigma = w^(-gamma/2) = {sigma:g} is {where}")
    return sigma, alpha


def _wish(settings: NetworkSettings, depth: int, update: Update | None) -> dict[str, Any]:
    """How the network is to be held: as asked for, and full where nothing else would move like it."""
    order = settings.krylov_order if isinstance(settings.krylov_order, int) else None
    reason = "" if update is None else update.needs_full(depth)
    if reason and (settings.representation == "krylov" or order is not None):
        raise InputError(f"representation: found krylov, but {reason}; expected full")
    return {"representation": "full" if reason else settings.representation, "order": order}


def _how(chosen: Representation, network: Network, norm: np.ndarray) -> dict[str, Any]:
    """How networks are held whose full ones have these ‖θ_0‖², shape (B,)."""
    lacking = np.sqrt(np.maximum(norm - _square_norm(network), 0.0))
    return {
        "representation": chosen.kind,
        "hidden": chosen.hidden,
        "krylov_order": chosen.order,
        "krylov_modes": None if chosen.start is None else chosen.start.count,
        "truncation_error": None if chosen.kind == "full" else chosen.error,
        "lacking": None if chosen.kind == "full" else tuple(lacking.tolist()),
    }


def _notes(chosen: Representation) -> tuple[str, ...]:
    return () if chosen.kind == "full" else (f"network held as {chosen.in_words()}",)


def _square_norm(network: Network) -> np.ndarray:
    return network.theta.double().square().sum(1).cpu().numpy()

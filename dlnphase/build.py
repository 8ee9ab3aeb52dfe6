"""Floor 4: from settings to what a verb works on: backend, task, starting networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch

from dlnphase import inputs
from dlnphase.backend import Backend, resolve_backend
from dlnphase.costs import QuadraticCost
from dlnphase.errors import InputError
from dlnphase.network import Network
from dlnphase.results.train import NetworkInfo, TaskInfo
from dlnphase.sampling import alpha_of, gaussian_network, hidden_dims, sigma_of
from dlnphase.settings import MachineSettings, NetworkSettings, TaskSettings
from dlnphase.tasks import Task, default_singular_values, matrix_task, planted_task, regression_task

MAX_TASK_BYTES = 4 * 2**30  # a task whose own arrays would be larger is refused before they are made

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


def build_backend(settings: MachineSettings) -> Backend:
    """Device, dtype and threads of a run; InputError for a device that is not there."""
    return resolve_backend(settings.device, settings.dtype, settings.threads)


def build_task(settings: S, backend: Backend) -> tuple[Task, S]:
    """The task, and the settings with everything resolved that only the task itself could tell.

    Raises:
        InputError: for a file that cannot be used, or a task too large for memory.
    """
    if settings.target is not None:
        matrix = inputs.read_matrix(settings.target)
        task = matrix_task(matrix, backend)
        if settings.task not in (None, task.cost.kind):
            gaps = "has no gaps" if task.cost.kind == "factorization" else "has gaps"
            raise InputError(f"task: found {settings.task!r}, but {settings.target} {gaps}, expected {task.cost.kind}")
        return task, replace(settings, task=task.cost.kind)
    if settings.data is not None:
        arrays = inputs.read_regression(settings.data)
        task = regression_task(arrays["X"], arrays["Y"], backend, arrays.get("X_test"), arrays.get("Y_test"))
        return task, replace(settings, task="regression")
    return _planted(settings, backend)


def _planted(settings: S, backend: Backend) -> tuple[Task, S]:
    assert settings.task and settings.shape and settings.rank  # settled by TaskSettings
    _check_task_memory(settings)
    values = settings.singular_values or default_singular_values(settings.rank)
    task = planted_task(
        settings.task,
        settings.shape,
        values,
        backend,
        observed=settings.observed or 1.0,
        measurements=settings.measurements,
        noise=settings.noise or 0.0,
        data_seed=settings.data_seed or 0,
    )
    return task, replace(settings, singular_values=values)


def _check_task_memory(settings: TaskSettings) -> None:
    d_out, d_in = settings.shape or (1, 1)
    size, count = d_out * d_in, settings.measurements or 1
    needed = size * 8 * 4
    if settings.task == "sensing":
        needed += 8 * size * (2 * count + 2 * size)
    elif settings.task == "regression":
        needed += 8 * count * 2 * (d_in + d_out) + 16 * d_in * d_in
    if needed > MAX_TASK_BYTES:
        raise InputError(
            f"shape: a {settings.task} task of shape {d_out}x{d_in} with {count} measurement(s) needs about "
            f"{needed / 2**30:.3g} GiB, expected at most {MAX_TASK_BYTES // 2**30} GiB"
        )


def task_info(cost: QuadraticCost) -> TaskInfo:
    """What a result says about its task."""
    zero = torch.zeros((1, *cost.shape), dtype=cost.minimizer.dtype, device=cost.minimizer.device)
    top = float(torch.linalg.matrix_norm(cost.gradient(zero)[0], 2))
    return TaskInfo(cost.kind, cost.shape, cost.minimum, cost.unique, top)


def build_start(settings: NetworkSettings, cost: QuadraticCost, backend: Backend, seed: int) -> Start:
    """The starting networks, full or reduced, or the user's own.

    Raises:
        InputError: for weights that do not fit the task, a scale outside the dtype, or networks too large for memory.
    """
    if settings.init_weights is not None:
        return _start_from_file(settings.init_weights, cost, backend)
    assert settings.depth and settings.width and settings.gamma is not None
    sigma, alpha = sigma_of(settings.width, settings.gamma), alpha_of(settings.width, settings.gamma)
    limits = torch.finfo(backend.dtype)
    if not limits.tiny < sigma < limits.max:
        raise InputError(
            f"gamma: found {settings.gamma:g}, sigma = w^(-gamma/2) = {sigma:g} is outside {backend.dtype_name}"
        )
    dims = hidden_dims(settings.depth, settings.width, cost.shape)
    members = np.asarray(settings.seeds)
    if settings.representation != "krylov":
        inputs.check_memory(dims, len(members), limits.bits // 8)
    network = gaussian_network(dims, sigma, backend, seed=seed, members=settings.seeds)
    info = NetworkInfo(settings.depth, settings.width, settings.gamma, sigma, alpha, "full", network.hidden)
    return Start(network, info, members, _square_norm(network))


def _start_from_file(path: str, cost: QuadraticCost, backend: Backend) -> Start:
    layers = inputs.read_weights(path)
    shape = (layers[-1].shape[1], layers[0].shape[2])
    if shape != cost.shape:
        raise InputError(
            f"init-weights: {path} gives a {shape[0]}x{shape[1]} matrix, the task has {cost.shape[0]}x{cost.shape[1]}"
        )
    network = Network.from_weights([backend.tensor(w) for w in layers])
    sigma = float(network.theta.square().mean().sqrt())
    alpha = sigma * float(np.sqrt(np.mean(network.hidden)))
    info = NetworkInfo(network.depth, None, None, sigma, alpha, "full", network.hidden)
    return Start(network, info, np.arange(network.batch), _square_norm(network))


def _square_norm(network: Network) -> np.ndarray:
    return network.theta.double().square().sum(1).cpu().numpy()

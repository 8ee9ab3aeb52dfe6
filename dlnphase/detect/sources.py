"""The paths that ``detect-saddles`` looks at: a run of ours, or arrays of any other code.

What another code hands over is an .npz with ``t`` (T,) and either the layers ``W1`` … ``WL``, each (T, n_l, n_{l-1}),
or only the end-to-end matrices ``A`` (T, d_out, d_in); ``step`` (T,) if it likes. ‖∇𝓛‖ is computed here: exactly from
weights; from matrices under the assumption of balanced layers, which small initialisations approach and keep:

    ‖∇𝓛‖² = Σ_l ‖(AAᵀ)^((L−l)/2L) ∇C(A) (AᵀA)^((l−1)/2L)‖_F²

With weight decay ‖∇𝓛‖ is that of C + (λ/2)‖θ‖²: λW_l is added to the gradient of every layer.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from dlnphase.backend import resolve_backend
from dlnphase.costs.interface import ConvexCost
from dlnphase.costs.tasks import Task
from dlnphase.detect.checkpoints import checkpoint_files, read_checkpoints
from dlnphase.detect.own_run import from_run
from dlnphase.detect.sparse import far_apart, followed, least_between
from dlnphase.detect.speed import followed_speed, speed_factor
from dlnphase.detect.trace import MemberTrace, PathSource, increasing
from dlnphase.errors import InputError
from dlnphase.findings import counted
from dlnphase.networks.chain import Network
from dlnphase.networks.products import Layers
from dlnphase.results import settle
from dlnphase.results.detect import PathInfo
from dlnphase.results.files import in_range, read_npz
from dlnphase.results.recording import WORDS
from dlnphase.results.train import RUN_FILE
from dlnphase.settings.detect import DetectSettings
from dlnphase.setup.build import build_task
from dlnphase.setup.states import SUFFIXES
from dlnphase.training.observing import needs_parts, refuse_partless

FOLLOWED_RTOL = 1e-4  # of the flow between two records
CHUNK = 1 << 24  # numbers of weights looked at in one go


def read_source(settings: DetectSettings) -> PathSource:
    """Read and check; all on the CPU in float64.

    Raises:
        InputError: naming the file or option, what was found and what is expected.
    """
    path = Path(settings.sources[0])
    if os.path.isdir(path):
        settle(path)
    if settings.is_run:
        return from_run(path, settings)
    files = checkpoint_files(settings.sources)
    if files:
        return _from_checkpoints(files, settings)
    for name in settings.sources:
        if not os.path.exists(name):
            raise InputError(f"SOURCE: {name}: no such file or directory")
    if path.suffix.lower() != ".npz" or len(settings.sources) > 1:
        raise InputError(
            f"SOURCE: {path}: expected a run directory (with {RUN_FILE}), an .npz file, or checkpoints "
            f"({', '.join(SUFFIXES)})"
        )
    return _from_npz(path, settings)


def _needs_task(name: str, settings: DetectSettings) -> None:
    if not settings.has_task:
        raise InputError(
            f"task: {name} does not say what it was trained on; give --target FILE, --data FILE, "
            "or --task with the options of dlnphase train"
        )


def _task_of(settings: DetectSettings) -> tuple[Task, DetectSettings]:
    """The task that a path of another code was trained on, and the settings with what it tells."""
    wanted = settings.record or ()
    task, settings = build_task(settings, resolve_backend("cpu"), keep=needs_parts(wanted))
    refuse_partless(wanted, task.cost)
    return task, settings


def _from_checkpoints(files: list[Path], settings: DetectSettings) -> PathSource:
    _needs_task(files[0].parent.name or "the folder", settings)
    stack = read_checkpoints(files, settings)
    where = f"SOURCE: {files[0].parent}"
    rows = _checked_rows({"t": stack.times, "step": stack.steps}, stack.layers, where)
    task, settings = _task_of(settings)
    task = replace(task, notes=task.notes + stack.notes)
    return _from_weights([w for _, w in stack.layers], rows, task, settings, where)


def _from_npz(path: Path, settings: DetectSettings) -> PathSource:
    _needs_task(path.name, settings)
    for name in ("times", "every"):
        if getattr(settings, name) is not None:
            raise InputError(f"{name}: found beside {path.name}, which holds its own times; drop it")
    arrays = read_npz(path, "SOURCE", words=WORDS)
    optimizer, not_flow = (str(arrays.pop(name, "")) for name in ("optimizer", "not_flow"))
    if settings.weight_decay:  # what is taken in speaks against nothing
        told = f"weight decay {settings.weight_decay:g}"
        not_flow = "; ".join(words for words in not_flow.split("; ") if words != told)
    where = f"SOURCE: {path}"
    if "t" not in arrays:
        if "step" not in arrays or settings.lr is None:
            raise InputError(f"{where}: found no array t, expected the times of the records (or step, and --lr)")
        arrays["t"] = arrays["step"] * settings.lr
    elif settings.lr is not None:
        raise InputError(f"lr: found beside {path.name}, which holds its own times t; drop it")
    arrays["t"] = arrays["t"] * settings.loss_scale
    layers = _layers(arrays, where)
    if not layers and "A" not in arrays:
        raise InputError(f"{where}: found neither W1, W2, … nor A, expected weights or end-to-end matrices")
    rows = _checked_rows(arrays, layers or [("A", arrays["A"])], where)
    task, settings = _task_of(settings)
    if layers:
        source = _from_weights([w for _, w in layers], rows, task, settings, where)
    else:
        source = _from_matrices(arrays["A"].astype(float), rows, task, settings, where)
    return replace(source, info=replace(source.info, optimizer=optimizer, not_flow=not_flow))


def _layers(arrays: dict[str, np.ndarray], where: str) -> list[tuple[str, np.ndarray]]:
    numbered = {int(m[1]): name for name in arrays if (m := re.fullmatch(r"W([1-9][0-9]{0,3})", name))}
    if sorted(numbered) != list(range(1, len(numbered) + 1)) or len(numbered) == 1:
        raise InputError(f"{where}: found {', '.join(numbered.values())}, expected W1, W2, … WL without a gap, L ≥ 2")
    layers = [(numbered[k], arrays[numbered[k]]) for k in sorted(numbered)]
    for (below, lower), (name, upper) in pairwise(layers):
        if lower.ndim == upper.ndim == 3 and upper.shape[2] != lower.shape[1]:
            raise InputError(f"{where}: {name} takes {upper.shape[2]} inputs, {below} gives {lower.shape[1]}")
    return layers


def _checked_rows(
    arrays: dict[str, np.ndarray], stacks: list[tuple[str, np.ndarray]], where: str
) -> tuple[np.ndarray, np.ndarray]:
    """t and step, after everything has been checked to be finite, of three dimensions and of one length."""
    t = arrays["t"]
    if t.ndim != 1 or t.size < 2:
        raise InputError(f"{where}: t has shape {t.shape}, expected one time per record, at least 2")
    for name, stack in stacks:
        if stack.ndim != 3 or 0 in stack.shape:
            raise InputError(f"{where}: {name} has shape {stack.shape}, expected records x rows x columns")
        if len(stack) != t.size:
            raise InputError(f"{where}: {name} has {counted(len(stack), 'record')}, t has {t.size}, expected as many")
    step = arrays.get("step", np.arange(t.size))
    if step.shape != t.shape:
        raise InputError(f"{where}: step has shape {step.shape}, expected {t.shape} like t")
    for name, array in [("t", t), ("step", step), *stacks]:
        in_range(array, f"{where}: {name}")
    return increasing(t.astype(float), f"{where}: t"), step.astype(float)


def _check_shape(shape: tuple[int, int], task: Task, where: str) -> None:
    if shape != task.shape:
        raise InputError(
            f"{where}: its matrices are {shape[0]}x{shape[1]}, the task has {task.shape[0]}x{task.shape[1]}"
        )


def _from_weights(
    layers: Layers, rows: tuple[np.ndarray, np.ndarray], task: Task, settings: DetectSettings, where: str
) -> PathSource:
    name = where.removeprefix("SOURCE: ")
    if settings.depth not in (None, len(layers)):
        raise InputError(f"depth: found {settings.depth}, but {name} has {counted(len(layers), 'layer')}")
    widths = {w.shape[1] for w in layers[:-1]}
    if settings.width is not None and widths != {settings.width}:
        raise InputError(f"width: found {settings.width}, but {name} has {', '.join(map(str, sorted(widths)))}")
    _check_shape((layers[-1].shape[1], layers[0].shape[2]), task, where)
    t, step = rows
    decay = _decay_of(settings)
    size = sum(int(np.prod(w.shape[1:])) for w in layers)
    parts = []
    for start in range(0, t.size, max(CHUNK // size, 1)):
        chunk = slice(start, start + max(CHUNK // size, 1))
        network = Network.of_arrays([w[chunk] for w in layers])
        a = network.product()
        slope = network.gradient(task.cost.gradient(a)) + decay * network.theta
        held = 0.5 * decay * network.theta.square().sum(1)
        norm = torch.linalg.vector_norm(slope, dim=1)
        parts.append((task.cost.excess(a).numpy(), norm.numpy(), a.numpy(), held.numpy()))
    excess, gradient, matrices, penalty = (np.concatenate(p) for p in zip(*parts, strict=True))
    columns = t, step, np.maximum(excess, 0.0), gradient, matrices
    trace = MemberTrace(*columns, weights=lambda i: [w[i].astype(float) for w in layers])
    trace = replace(trace, penalty=penalty) if decay else trace
    followed_too = {"rtol": FOLLOWED_RTOL, "decay": decay}
    speed = speed_factor(t, trace.objective, gradient) or followed_speed(trace, task.cost, **followed_too)
    hidden = tuple(w.shape[1] for w in layers[:-1])
    info = PathInfo("weights", t.size, (0,), len(layers), hidden, "computed from the weights", spacing=_spacing(t))
    info = replace(info, weight_decay=decay)
    if speed is not None:
        info = replace(info, speed=speed.value, speed_range=(speed.low, speed.high))
    factor = None if info.ours else info.speed
    trace = replace(trace, between=least_between(t, trace.objective, gradient, factor))
    if settings.between is not False:
        far = far_apart(trace) if settings.between is None else np.ones(t.size - 1, dtype=bool)
        trace, count, strayed = followed(trace, task.cost, far, speed=factor, **followed_too)
        info = replace(info, followed=count, strayed=strayed)
    return PathSource((trace,), task, info, settings, layers=layers, rows=rows)


def _spacing(t: np.ndarray) -> tuple[float, float]:
    """The least and the largest time between two records."""
    return float(np.diff(t).min()), float(np.diff(t).max())


def _from_matrices(
    matrices: np.ndarray, rows: tuple[np.ndarray, np.ndarray], task: Task, settings: DetectSettings, where: str
) -> PathSource:
    _check_shape((matrices.shape[1], matrices.shape[2]), task, where)
    if settings.record:
        raise InputError(
            f"record: found {', '.join(settings.record)} with matrices alone, expected W1 … WL: the layers are what it "
            "looks at"
        )
    if settings.depth is None:
        raise InputError(f"depth: {where.removeprefix('SOURCE: ')} holds only A, expected the number of layers")
    t, step = rows
    a = torch.as_tensor(matrices)
    excess = np.maximum(task.cost.excess(a).numpy(), 0.0)
    width = min(task.shape) if settings.width is None else settings.width
    if settings.between:
        raise InputError("between: found with matrices alone, expected weights, from which the flow can be followed")
    decay, s = _decay_of(settings), np.linalg.svd(matrices, compute_uv=False)
    gradient = balanced_gradient(matrices, task.cost, settings.depth, decay)
    penalty = 0.5 * decay * settings.depth * np.sum(s ** (2 / settings.depth), axis=1) if decay else None
    trace = MemberTrace(t, step, excess, gradient, matrices, penalty=penalty)
    trace = replace(trace, between=least_between(t, trace.objective, gradient))
    hidden = (width,) * (settings.depth - 1)
    words = "computed from A, layers taken as balanced"
    info = PathInfo("matrices", t.size, (0,), settings.depth, hidden, words, spacing=_spacing(t), weight_decay=decay)
    return PathSource((trace,), task, info, settings)


def _decay_of(settings: DetectSettings) -> float:
    """λ in units of our cost: a loss c times ours, beside (μ/2)‖θ‖², moves weights as ours beside (μ/2c)‖θ‖² does."""
    return (settings.weight_decay or 0.0) / settings.loss_scale


def balanced_gradient(matrices: np.ndarray, cost: ConvexCost, depth: int, decay: float = 0.0) -> np.ndarray:
    """‖∇𝓛‖ of balanced networks with these end-to-end matrices (T, d_out, d_in) and weight decay λ, shape (T,)."""
    g = cost.gradient(torch.as_tensor(matrices)).numpy()
    u, s, vt = np.linalg.svd(matrices, full_matrices=True)
    d_out, d_in = matrices.shape[1:]
    left, right = np.zeros((len(s), d_out)), np.zeros((len(s), d_in))
    left[:, : s.shape[1]], right[:, : s.shape[1]] = s, s
    turned = np.swapaxes(u, 1, 2) @ g @ np.swapaxes(vt, 1, 2)
    modes = np.arange(s.shape[1])
    total = np.zeros(len(s))
    for layer in range(1, depth + 1):
        weight_left = left ** ((depth - layer) / depth) if layer < depth else np.ones_like(left)
        weight_right = right ** ((layer - 1) / depth) if layer > 1 else np.ones_like(right)
        slope = weight_left[:, :, None] * turned * weight_right[:, None]
        slope[:, modes, modes] += decay * s ** (1 / depth)
        total += np.square(slope).sum((1, 2))
    return np.sqrt(total)

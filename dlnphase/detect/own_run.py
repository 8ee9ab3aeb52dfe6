"""The path of a run of ours, from its directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dlnphase.backend import resolve_backend
from dlnphase.detect.trace import MemberTrace, PathSource
from dlnphase.errors import InputError
from dlnphase.networks.products import Layers
from dlnphase.results.detect import PathInfo
from dlnphase.results.files import in_range
from dlnphase.results.train import RUN_FILE, NetworkInfo, TrainResult, load_train
from dlnphase.settings.common import SAID
from dlnphase.settings.detect import DetectSettings
from dlnphase.settings.train import TrainSettings
from dlnphase.setup.build import build_task, norms_lacking


def from_run(path: Path, settings: DetectSettings) -> PathSource:
    """The paths of a run directory; InputError for one that is incomplete, or options that say otherwise."""
    if settings.record:
        raise InputError(
            f"record: found beside the run {path}, which kept few of its layers; dlnphase train --record looks at them "
            "while it runs"
        )
    result = load_train(path)
    _agree_with_run(settings, result, path)
    if result.trajectory is None:
        raise InputError(f"SOURCE: {path}: {result.files.get('trajectory')} is missing beside {RUN_FILE}")
    task, _ = build_task(_beside_its_file(settings, result.config), resolve_backend("cpu"))
    if task.shape != result.trajectory.A.shape[1:]:
        raise InputError(f"SOURCE: {path}: the trajectory has matrices of another shape than the task {task.shape}")
    hidden, known = _true_sizes(result.network)
    members = tuple(dict.fromkeys(int(m) for m in result.trajectory.member))
    lacking = norms_lacking(result.network, result.config, task.cost, members)
    traces = tuple(replace(_trace_of(result, member), lacking=lacking.get(member)) for member in members)
    network = result.network.depth, hidden
    info = PathInfo("dlnphase train", len(result.trajectory.t), members, *network, "recorded", result.outcome.reason)
    info = replace(info, weight_decay=result.config.weight_decay)
    return PathSource(traces, task, info, settings, known)


def _true_sizes(network: NetworkInfo) -> tuple[tuple[int, ...], bool]:
    """The hidden sizes of the network itself, and whether they are known: older files tell those of a reduced one."""
    if network.full_hidden is not None:
        return network.full_hidden, True
    if network.width is not None:
        return (network.width,) * (network.depth - 1), True
    return network.hidden, network.representation == "full"


def _agree_with_run(settings: DetectSettings, result: TrainResult, path: Path) -> None:
    """Options that repeat what the run says are taken; InputError for one that says something else."""
    config = result.config
    if settings.lr is not None and isinstance(config.lr, float) and settings.lr != config.lr:
        raise InputError(f"lr: found {settings.lr:g}, but the run {path} has {config.lr:g}; drop it")
    for name in ("times", "every", "between") if isinstance(config.lr, float) else ("lr", "times", "every", "between"):
        if value := getattr(settings, name):
            raise InputError(f"{name}: found {value} beside the run {path}, which tells its own times; drop it")
    if settings.loss_scale != 1.0:
        raise InputError(f"loss-scale: found {settings.loss_scale:g} beside the run {path}, expected 1")
    if settings.weight_decay not in (None, config.weight_decay):
        raise InputError(
            f"weight-decay: found {settings.weight_decay:g}, but the run {path} has {config.weight_decay:g}; drop it"
        )
    told: dict[str, Any] = {"depth": result.network.depth, "width": result.network.width}
    asked = {name: value for name in told if (value := getattr(settings, name)) is not None}
    if told["width"] is None and len(widths := set(_true_sizes(result.network)[0])) == 1:
        told["width"] = widths.pop()
    told |= {name: getattr(config, name) for name in settings.given_task}
    asked |= settings.given_task
    if "dim" in asked:
        told["dim"] = config.shape[0] if config.shape is not None and config.shape[0] == config.shape[1] else None
    for name, value in asked.items():
        if value == told[name] or (told[name] is None and name in (*_said_by_file(config), "dim")):
            continue
        option = name.replace("_", "-")
        raise InputError(f"{option}: found {value}, but the run {path} has {told[name]}; drop it")


def _said_by_file(config: TrainSettings) -> tuple[str, ...]:
    """What the file that a run was trained on says of its task."""
    source = next((name for name in SAID if getattr(config, name) is not None), None)
    return () if source is None else SAID[source]


def _beside_its_file(settings: DetectSettings, config: TrainSettings) -> TrainSettings:
    """The settings of a run, with those asked for that its file says and that are compared when it is read."""
    said = _said_by_file(config)
    asked: dict[str, Any] = {name: value for name in said if (value := getattr(settings, name)) is not None}
    if said and settings.dim is not None:
        asked["shape"] = (settings.dim, settings.dim)
    return replace(config, **asked)


def _trace_of(result: TrainResult, member: int) -> MemberTrace:
    trajectory = result.path
    rows = trajectory.rows_of(member)
    stored = {int(row): k for k, row in enumerate(trajectory.weights_index)}

    def weights(record: int) -> Layers | None:
        k = stored.get(int(rows[record]))
        return None if k is None else [in_range(w[k].astype(float), "SOURCE: weights") for w in trajectory.weights]

    columns = (trajectory.t, trajectory.step, trajectory.excess, trajectory.gradient_norm)
    t, step, excess, norm = (c[rows].astype(float) for c in columns)
    outcome = next((m.outcome for m in result.members if m.member == member), result.outcome)
    tol = result.config.tol if outcome.reason == "converged" else None
    penalty = None if trajectory.penalty is None else trajectory.penalty[rows].astype(float)
    between = None if trajectory.between is None else trajectory.between[rows][:-1].astype(float)
    a = trajectory.A[rows].astype(float)
    return MemberTrace(t, step, excess, norm, a, tol, between, penalty=penalty, weights=weights, member=member)

"""The gradient flow behind a source, proved from its exact start (``--prove path``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dlnphase.backend import resolve_backend
from dlnphase.critical import HostCost
from dlnphase.detect.trace import PathSource
from dlnphase.errors import InputError
from dlnphase.networks.products import Layers, product
from dlnphase.proofs.balls import Undecided
from dlnphase.proofs.path import Node, Progress, Tube, prove_path, start_tube
from dlnphase.proofs.quadratic import BallCost
from dlnphase.proofs.theorem import Theorem, conclude
from dlnphase.results.proof import ProofDocument, ProvedEnd, ProvedPath, ProvedVisit
from dlnphase.results.train import RUN_FILE, load_train
from dlnphase.setup.build import build_start

COLUMNS = ("steps", "radii", "excess", "slope")  # of a tube, lists in its file
PATIENCE = 4.0  # the proof gives up after so many times the length of the path it was given


@dataclass(frozen=True)
class ProvedFlow:
    """The theorem as claims, and the arrays they rest on."""

    claims: ProvedPath
    theorem: Theorem | None
    arrays: dict[str, np.ndarray]


def prove_flow(
    source: PathSource,
    cost: BallCost,
    *,
    before: ProofDocument | None = None,
    on_step: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ProvedFlow:
    """Prove the flow from the first start of the source; go on where an interrupted proof ended.

    Raises:
        InputError: when the source is no gradient flow of a full network with its start.
    """
    member, weights = starting_weights(source)
    tube = _continued(before, weights)
    end, reason, stopped = None, "", False

    def stop() -> bool:
        nonlocal stopped
        stopped = should_stop is not None and should_stop()
        return stopped

    try:
        length = float(source.traces[0].time[-1])
        limit = PATIENCE * length
        tube, end = prove_path(
            weights, cost, tube=tube, length=length, max_time=limit, on_step=on_step, should_stop=stop
        )
        if end is None:
            reason = "interrupted" if stopped else f"no convergence to a minimum is certain up to t = {limit:.4g}"
    except Undecided as why:
        return ProvedFlow(ProvedPath("refused", str(why), member), None, {})
    theorem = None
    if not stopped:
        host = HostCost(source.task.cost)
        theorem = conclude(tube, end, cost, host, min_prominence=source.settings.min_prominence)
    return ProvedFlow(_claims(theorem, tube, member, reason), theorem, _arrays(tube))


def starting_weights(source: PathSource) -> tuple[int, Layers]:
    """(member, W_1 … W_L) of the first start, the very floats it began with.

    Raises:
        InputError: see above.
    """
    trace = source.traces[0]
    if source.info.origin == "dlnphase train":
        return trace.member, _of_run(source)
    weights = trace.weights(0)
    if weights is None:
        raise InputError("prove: a path needs the weights it starts from, found only end-to-end matrices")
    return trace.member, weights


def _of_run(source: PathSource) -> Layers:
    """The start of a run of ours, drawn again from its settings."""
    path = Path(source.settings.sources[0])
    run = load_train(path / RUN_FILE if path.is_dir() else path)
    config, trace = run.config, source.traces[0]
    told = {"representation": run.network.representation, "dynamics": config.dynamics, "dtype": config.dtype}
    for (name, found), wanted in zip(told.items(), ("full", "flow", "float64"), strict=True):
        if found != wanted:
            raise InputError(f"prove: a path needs a run with {name} {wanted}, found {found}")
    start = build_start(config, source.task.cost, resolve_backend("cpu"), config.seed)
    place = start.members.tolist().index(trace.member)
    weights = [w[place].numpy().copy() for w in start.network.weights]
    a = product(weights)
    if not np.allclose(a, trace.matrices[0], rtol=1e-12, atol=1e-12 * float(np.abs(a).max())):
        raise InputError("prove: the start drawn from the settings of the run is not the one it recorded")
    return weights


def _claims(theorem: Theorem | None, tube: Tube, member: int, reason: str) -> ProvedPath:
    visits = () if theorem is None else theorem.visits
    rows = tuple(
        ProvedVisit(s.chart.rank, v.time, v.distance, v.node, s.cost, s.rate, float(s.distance or 0.0))
        for v, s in ((v, v.saddle) for v in visits)
    )
    end = ProvedEnd("refused", reason)
    if theorem is not None and theorem.end is not None:
        end = ProvedEnd("proved", "", theorem.end.distance, theorem.end_time)
    proved = theorem is not None and theorem.end is not None and bool(rows) and not theorem.refused
    if theorem is not None and not proved and not reason:
        reason = "; ".join(theorem.refused) or "no visit is certain"
    return ProvedPath(
        "proved" if proved else "refused", reason, member, rows, end, len(tube.steps), 53 * tube.limbs, tube.radii[-1]
    )


def _arrays(tube: Tube) -> dict[str, np.ndarray]:
    first = tube.nodes[0]
    dims = [first[0].shape[2], *(w.shape[1] for w in first)]
    flat = [np.concatenate([w.reshape(tube.limbs, -1) for w in node], 1) for node in tube.nodes]
    columns = {name: getattr(tube, name) for name in COLUMNS}
    return {f"path_{name}": np.array(x) for name, x in ({"dims": dims, "nodes": flat} | columns).items()}


def _continued(before: ProofDocument | None, weights: Layers) -> Tube:
    """The tube that an interrupted proof of the same start has left, or a new one."""
    fresh = start_tube(weights)
    arrays = (before.arrays or {}) if before is not None else {}
    if "path_nodes" not in arrays:
        return fresh
    flat = arrays["path_nodes"]
    nodes = [_node(row, [w.shape for w in weights]) for row in flat]
    tube = Tube(flat.shape[1], nodes, *(arrays[f"path_{name}"].tolist() for name in COLUMNS))
    same = all(np.array_equal(a[0], w) and not a[1:].any() for a, w in zip(nodes[0], weights, strict=True))
    return tube if same else fresh


def _node(flat: np.ndarray, shapes: list[tuple[int, ...]]) -> Node:
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = np.split(flat, ends[:-1], axis=1)
    return [part.reshape(len(flat), *shape).copy() for part, shape in zip(parts, shapes, strict=True)]

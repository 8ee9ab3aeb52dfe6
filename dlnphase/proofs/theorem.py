"""From an enclosed path to a theorem: which saddles the flow visits, when, within what distance, and where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlnphase.critical import HostCost, find_visits, refine_matrix
from dlnphase.critical.visits import MIN_PROMINENCE
from dlnphase.networks.products import product
from dlnphase.proofs.balls import PRECISION, Undecided, flint, interval, precision, upper
from dlnphase.proofs.minimum import EndProof
from dlnphase.proofs.path import Tube, about, float_layers
from dlnphase.proofs.quadratic import BallCost
from dlnphase.proofs.saddle import SaddleProof, prove_saddle


@dataclass(frozen=True)
class PathVisit:
    """A proved visit.

    Attributes:
        node: number of the node where the path is closest.
        time: encloses its time.
        distance: an upper bound on ‖θ(t) − θ_c‖.
        saddle: the proof of the critical point, from the leading floats of the node.
    """

    node: int
    time: tuple[float, float]
    distance: float
    saddle: SaddleProof


@dataclass(frozen=True)
class Theorem:
    """What is proved of a gradient flow from an exact start.

    Attributes:
        visits: with ranks that rise from one to the next.
        end: convergence to a global minimum; None when it was not reached.
        end_time: encloses the time from which convergence is proved.
        refused: visits that were seen and not proved, in words.
    """

    visits: tuple[PathVisit, ...]
    end: EndProof | None
    end_time: tuple[float, float]
    refused: tuple[str, ...] = ()


def conclude(
    tube: Tube, end: EndProof | None, cost: BallCost, host: HostCost, *, min_prominence: float = MIN_PROMINENCE
) -> Theorem:
    """Find the visits among the nodes (minima of ‖∇𝓛‖ of at least this prominence), and prove each of them."""
    with precision(PRECISION):
        times = [interval(t) for t in tube.times()]
    proved: list[PathVisit] = []
    refused: list[str] = []
    for node in _visited(tube, times, min_prominence):
        weights = float_layers(tube.nodes[node])
        point = refine_matrix(product(weights), host)
        if not point.converged or point.next_mode == 0:
            continue
        try:
            saddle = prove_saddle(point, cost, host, weights, [w.shape[0] for w in weights[:-1]])
        except Undecided as reason:
            refused.append(f"rank {point.rank} at t = {times[node][0]:.4g}: {reason}")
            continue
        if saddle.distance is None or (proved and saddle.chart.rank <= proved[-1].saddle.chart.rank):
            continue
        proved.append(PathVisit(node, times[node], _distance(saddle.distance, tube, node), saddle))
    return Theorem(tuple(proved), end, times[-1], tuple(refused))


def _distance(from_node: float, tube: Tube, node: int) -> float:
    """‖θ(t_i) − θ_c‖: from the leading floats of the node, and from the path to them."""
    with precision(PRECISION):
        return upper(flint().arb(from_node) + flint().arb(about(tube.nodes[node], tube.radii[node])))


def _visited(tube: Tube, times: Sequence[tuple[float, float]], min_prominence: float) -> list[int]:
    """Nodes of least ‖∇𝓛‖; the start counts."""
    count = len(tube.slope)
    if count < 3:
        return [0]
    steps = np.arange(count)
    at = np.array([t[0] for t in times[:count]])
    visits = find_visits(at, steps, np.array(tube.excess), np.array(tube.slope), min_prominence=min_prominence)
    return sorted({0, *(v.index for v in visits)})

"""What records that lie far apart tell of the path between them.

Along gradient flow dC/dt = −‖∇𝓛‖², so somewhere between two records ‖∇𝓛‖² is at least −ΔC/Δt (mean value): a burst
that no record caught still separates two visits. A path in other units moves at c times that speed, with one c all
along; where records are dense c is read off them, and taken out. With weights the flow itself can be followed from one
record to the next (:func:`followed`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dlnphase.costs.interface import ConvexCost
from dlnphase.detect.speed import ARRIVED, typical_speed
from dlnphase.detect.trace import MemberTrace
from dlnphase.dynamics import gradient_flow
from dlnphase.networks.chain import Network
from dlnphase.networks.products import Layers

ROUND_OFF = 1e-12  # falls of the cost below this share of it are not told from round-off
JUMP = 0.5  # records between which ln ‖∇𝓛‖ changes by more, or has to rise by more, may hide a burst
QUIET = 1e-3  # stretches on which the excess cost falls by less than this share hold no burst, and are not followed

Row = tuple[float, float, float, float, float, np.ndarray]  # time, step, C − C_min, ‖∇𝓛‖, (λ/2)‖θ‖², A


def least_between(
    time: np.ndarray, excess: np.ndarray, gradient_norm: np.ndarray, speed: float | None = None
) -> np.ndarray:
    """What ‖∇𝓛‖ reaches at least between each record and the next, shape (T−1,); 0 where the cost does not fall.

    ``excess`` is what the flow makes fall. A path whose speed c is known (``speed``) is brought to ours first. Where it
    is not, one that moves faster than ours is slowed down by what dense records tell; for one that is slower the bound
    only loses strength.
    """
    fall, lasted = excess[:-1] - excess[1:], np.diff(time)
    known = (fall > ROUND_OFF * excess[:-1]) & (lasted > 0)
    factor = speed if speed is not None else max(1.0, typical_speed(time, excess, gradient_norm) or 1.0)
    out = np.zeros(len(fall))
    out[known] = np.sqrt(fall[known] / (lasted[known] * factor))
    return out


def far_apart(trace: MemberTrace) -> np.ndarray:
    """Whether a burst may hide between each record and the next, shape (T−1,): ‖∇𝓛‖ changes much or rises there."""
    lower, upper = trace.gradient_norm[:-1], trace.gradient_norm[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        jumps = np.abs(np.log(upper / lower)) > JUMP
    rises = np.zeros(len(lower), dtype=bool)
    if trace.between is not None:
        rises = trace.between > np.exp(JUMP) * np.maximum(lower, upper)
    return jumps | rises


def followed(
    trace: MemberTrace,
    cost: ConvexCost,
    which: np.ndarray,
    *,
    rtol: float,
    speed: float | None = None,
    decay: float = 0.0,
) -> tuple[MemberTrace, int, int]:
    """The path with the flow from a record to the next filled in.

    A stretch is filled in where the flow does lead to the next record; quiet stretches stay as they are.

    Args:
        trace: with weights where a stretch that is looked at begins.
        cost: what it was trained on.
        which: stretches to look at, shape (T−1,).
        rtol: of the integration.
        speed: how fast the path goes beside the flow, where it is not as fast.
        decay: weight decay λ.

    Returns:
        The path, how many stretches were filled in, and on how many the flow strayed.
    """
    fall = trace.objective[:-1] - trace.objective[1:] > QUIET * trace.objective[:-1]
    wanted = which & fall & (np.diff(trace.time) > 0)
    rows: list[Row] = []
    layers: list[int | Layers] = []  # a record of the source by its number, or the layers of one that was filled in
    filled = strayed = 0
    for index in range(len(trace.time)):
        rows.append(_row(trace, index))
        layers.append(index)
        start = trace.weights(index) if index < len(wanted) and wanted[index] else None
        if start is None:
            continue
        more = _stretch(trace, index, start, cost, rtol, speed, decay)
        filled, strayed = filled + (more is not None), strayed + (more is None)
        for row, weights in more or []:
            rows.append(row)
            layers.append(weights)
    if not filled:
        return trace, 0, strayed

    def weights_of(record: int) -> Layers | None:
        held = layers[record]
        return trace.weights(held) if isinstance(held, int) else held

    time, step, excess, norm, held = (np.array([row[k] for row in rows], dtype=float) for k in range(5))
    matrices = np.stack([row[5] for row in rows])
    penalty = None if trace.penalty is None else held
    columns, member = (time, step, excess, norm, matrices), trace.member
    path = MemberTrace(*columns, trace.tol, penalty=penalty, weights=weights_of, member=member)
    return replace(path, between=least_between(time, path.objective, norm, speed)), filled, strayed


def _stretch(
    trace: MemberTrace, index: int, start: Layers, cost: ConvexCost, rtol: float, speed: float | None, decay: float
) -> list[tuple[Row, Layers]] | None:
    """Records of the flow strictly between a record and the next; None where it does not lead there."""
    lasted = float(trace.time[index + 1] - trace.time[index])
    ours = lasted * (1.0 if speed is None else speed)  # the same stretch in the time of our flow
    steps = float(trace.step[index + 1] - trace.step[index])
    network = Network.of_arrays(start)
    out: list[tuple[Row, Layers]] = []
    end = trace.matrices[index]
    for record in gradient_flow(network, cost, rtol=rtol, max_time=ours, tol=0.0, weight_decay=decay):
        share = float(record.time[0]) / ours
        end = record.A[0]
        if 0 < share < 1:
            when, step = float(trace.time[index]) + share * lasted, float(trace.step[index]) + share * steps
            held = 0.0 if record.penalty is None else float(record.penalty[0])
            row = (when, step, float(record.excess[0]), float(record.gradient_norm[0]), held, end)
            out.append((row, record.weights(0)))
    goal = trace.matrices[index + 1]
    near = np.linalg.norm(end - goal) <= ARRIVED * np.linalg.norm(goal - trace.matrices[index])
    return out if near else None


def _row(trace: MemberTrace, index: int) -> Row:
    columns = (trace.time, trace.step, trace.excess, trace.gradient_norm)
    time, step, excess, norm = (float(column[index]) for column in columns)
    held = 0.0 if trace.penalty is None else float(trace.penalty[index])
    return time, step, excess, norm, held, trace.matrices[index]

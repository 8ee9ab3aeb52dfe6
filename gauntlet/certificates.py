"""Certificates: what dlnphase says of a critical point, against the dense Hessian at the point it names.

A case is a critical matrix found by the reference, laid into a network in random directions, with something small in
the channels it does not use. The package is given those weights alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from gauntlet.cases import CERTIFICATE_CLASSES, Case, case_of, rng_of
from gauntlet.package import package_cost
from gauntlet.reference.chain import Chain
from gauntlet.reference.costs import Quadratic, cost_of
from gauntlet.reference.critical import critical_near
from gauntlet.reference.distances import gradient_unit
from gauntlet.verdict import Verdict

NEAR = 0.5  # of the smallest mode of a critical matrix: what small weights beside it may change A by
STILL = 1e-8  # ‖∇𝓛‖ in natural units, of a point called critical
ZERO = 1e-9  # ‖∇C‖ relative to ‖∇C(0)‖, of a minimum
SAME = 1e-6  # smallest eigenvalues, relative to the largest
RANGE = 30.0  # the count must agree where no eigenvalue lies within this factor of the threshold


@dataclass(frozen=True)
class Told:
    """What the package says: kind, the point's weights, smallest eigenvalue, count, whether complete, threshold."""

    kind: str
    weights: list[np.ndarray]
    rank: int
    min_eigenvalue: float | None = None
    negative: int | None = None
    complete: bool = True
    threshold: float = 0.0


def judge(name: str) -> Verdict:
    """One critical point."""
    case = case_of(name, CERTIFICATE_CLASSES)
    verdict = Verdict("certificate", name, case.words)
    cost = cost_of(case.task, case.data)
    weights, rank = placed(case, cost, rng_of(name + "1"))
    if weights is None:
        verdict.status, verdict.reference = "skipped", "no critical matrix was found"
        return verdict
    verdict.words += f", critical matrix of rank {rank}"
    started = time.process_time()
    try:
        told = run_package(case, weights)
    except Exception as error:  # whatever it raises on a valid case is a finding
        verdict.status, verdict.faults = "fails", [f"raised: {type(error).__name__}: {error}"]
        return verdict
    packaged = time.process_time()
    verdict.reason = told.kind
    compare(told, rank, cost, verdict)
    verdict.seconds = (packaged - started, time.process_time() - packaged)
    if verdict.faults:
        verdict.status = "fails"
    elif told.kind in ("not-critical", "uncertified"):
        verdict.status = "told"
    return verdict


def placed(case: Case, cost: Quadratic, rng: np.random.Generator) -> tuple[list[np.ndarray] | None, int]:
    """Weights at (or 1e-4 from) a critical point of a random set of modes, and its rank; None where there is none."""
    u, s, vt = np.linalg.svd(cost.solution.reshape(cost.shape), full_matrices=False)
    room = min(int((s > 1e-9 * s[0]).sum()), *(w.shape[0] for w in case.layers[:-1]))
    rank = int(rng.integers(0, room, endpoint=True))
    modes = np.sort(rng.permutation(room)[:rank]) if rng.random() < 0.6 else np.arange(rank)
    a = critical_near((u[:, modes] * s[modes]) @ vt[modes], rank, cost)
    if a is None:
        return None, rank
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    depth, dims = len(case.layers), [w.shape[0] for w in case.layers[:-1]]
    frames = [np.linalg.qr(rng.standard_normal((n, rank)))[0] if rank else np.zeros((n, 0)) for n in dims]
    frames = [vt[:rank].T, *frames, u[:, :rank]]
    root = s[:rank] ** (1 / depth)
    size = float(np.linalg.norm(cost.solution)) ** (1 / depth)
    noise = size * float(rng.choice([0.0, 1e-6, 1e-4]))
    layers = [(frames[l + 1] * root) @ frames[l].T for l in range(depth)]
    shaken = [w + noise * rng.standard_normal(w.shape) for w in layers]
    # Shaken by more than its smallest mode it may as well be near a point without that mode.
    near = rank == 0 or np.linalg.norm(reduce(lambda x, w: w @ x, shaken) - a, 2) <= NEAR * s[rank - 1]
    return (shaken if near else layers), rank


def run_package(case: Case, weights: list[np.ndarray]) -> Told:
    """Refine and certify the weights, as ``detect-saddles`` does with a visit."""
    from dlnphase.critical import HostCost, certify, refine_matrix, refine_weights

    host = HostCost(package_cost(case))
    a = weights[0]
    for w in weights[1:]:
        a = w @ a
    point = refine_matrix(a, host)
    visited, _ = refine_weights(weights, point, host)
    found: Any = certify(visited, host)
    if found.curvature is None:
        return Told(found.kind, visited.weights, point.rank)
    c = found.curvature
    return Told(
        found.kind, visited.weights, point.rank, c.min_eigenvalue, c.negative_eigenvalues, c.complete, c.threshold
    )


def compare(told: Told, rank: int, cost: Quadratic, verdict: Verdict) -> None:
    """Add to the verdict what the dense Hessian and the gradients at the named point contradict."""
    if told.kind == "not-critical":
        return
    chain = Chain([w.shape for w in told.weights], cost)
    theta = np.concatenate([w.ravel() for w in told.weights])
    a = chain.product(theta)
    gradient = float(np.linalg.norm(chain.slope(0.0, theta))) / max(gradient_unit(chain, theta), 1e-300)
    if np.any(theta) and gradient > STILL:
        verdict.faults.append(f"critical: gradient {gradient:.3g} in natural units")
    s = np.linalg.svd(a, compute_uv=False)
    true = int((s > 1e-9 * np.linalg.norm(cost.solution)).sum())
    minima = told.kind == "global-minimum" and told.rank < rank  # of a continuum of minima the least rank is told
    if told.rank != true or (told.rank != rank and not minima):
        verdict.faults.append(f"rank: {told.rank} told, the point has {true} and was built with {rank}")
    slope = float(np.linalg.norm(cost.gradient(a))) / float(np.linalg.norm(cost.gradient(np.zeros_like(a))))
    width = min(min(w.shape) for w in told.weights)
    offset = cost.least_excess(width)
    lowest = slope <= ZERO or (offset is not None and abs(cost.excess(a) - offset) <= 1e-9 * max(offset, 1e-300))
    if (told.kind == "global-minimum") != lowest and told.kind != "uncertified":
        verdict.faults.append(f"kind: {told.kind} where ‖∇C‖ is {slope:.3g} of its value at 0")
    if told.min_eigenvalue is None:
        return
    values = np.linalg.eigvalsh(chain.hessian(theta))
    off = abs(values[0] - told.min_eigenvalue) / max(np.abs(values).max(), 1e-300)
    verdict.numbers["eigenvalue"] = float(off)
    if off > SAME:
        verdict.faults.append(f"eigenvalue: smallest {told.min_eigenvalue:.6g} told, is {values[0]:.6g}")
    few, many = (int((values < -told.threshold * f).sum()) for f in (RANGE, 1 / RANGE))
    if told.negative is not None and few == many and (told.negative != few if told.complete else told.negative > few):
        verdict.faults.append(f"count: {told.negative} negative eigenvalues told, {few} are")
    strict = told.kind == "strict-saddle"
    if few == many and strict != (few > 0) and told.kind != "uncertified":
        verdict.faults.append(f"kind: {told.kind} with {few} negative eigenvalues")

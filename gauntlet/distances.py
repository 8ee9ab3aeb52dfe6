"""Distances: what dlnphase finds, against brute force, and whether its points are what it says they are."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from gauntlet.cases import DISTANCE_CLASSES, Case, case_of, rng_of
from gauntlet.package import package_cost, package_network
from gauntlet.reference.costs import Quadratic, cost_of
from gauntlet.reference.distances import chain_of, gradient_unit, nearest_minimum, nearest_saddle
from gauntlet.verdict import Verdict

NEARER = 0.01  # brute force that finds a point nearer by this share has found what was missed
STARTS = 24
EXACT = 1e-7  # relative excess cost, or gradient in natural units, of a point that is one


def judge(name: str) -> Verdict:
    """Both distances of one case."""
    case = case_of(name, DISTANCE_CLASSES)
    verdict = Verdict("distance", name, case.words)
    cost = cost_of(case.task, case.data)
    started = time.process_time()
    try:
        minimum, saddle, lower = run_package(case)
    except Exception as error:  # whatever it raises on a valid case is a finding
        verdict.status, verdict.faults = "fails", [f"raised: {type(error).__name__}: {error}"]
        return verdict
    packaged = time.process_time()
    compare(case, cost, minimum, saddle, lower, verdict)
    verdict.seconds = (packaged - started, time.process_time() - packaged)
    if verdict.faults:
        verdict.status = "fails"
    return verdict


def compare(case: Case, cost: Quadratic, minimum: Any, saddle: Any, lower: Any, verdict: Verdict) -> None:
    """Add to the verdict what brute force and the equations say of two distances, and of their bounds from below."""
    rng = rng_of(case.name)
    nearest = {}
    for kind, found, search in (("minimum", minimum, nearest_minimum), ("saddle", saddle, nearest_saddle)):
        told = float(found.distance[0])
        point = found.network.theta[0].numpy().astype(float)
        verdict.faults += _is_one(kind, case, cost, told, point)
        true = search(case.layers, cost, rng, STARTS)
        nearest[kind] = min(told, true)
        below = float(getattr(lower, kind)[0])
        verdict.numbers[f"{kind}_lower"] = below / nearest[kind]
        if below > nearest[kind]:
            verdict.faults.append(f"{kind} bound: {below:.9g} proved, one at {nearest[kind]:.9g} exists")
        if np.isfinite(true):
            verdict.numbers[f"{kind}_above"] = max(told / true - 1, 0.0)
            verdict.numbers[f"{kind}_below"] = max(true / told - 1, 0.0)
            if told > (1 + NEARER) * true:
                verdict.faults.append(f"{kind}: told {told:.6g}, one at {true:.6g} exists")
        else:
            verdict.reference += f"no {kind} found; "
    other = {"minimum": "saddle", "saddle": "minimum"}.get(lower.nearer[0])
    if other is not None and nearest[other] < float(getattr(lower, lower.nearer[0])[0]):
        verdict.faults.append(f"nearer: the {lower.nearer[0]} is proved nearer, a {other} is")


def run_package(case: Case) -> tuple[Any, Any, Any]:
    """``distance_to_minimum`` and ``distance_to_saddle`` from the case's weights, and the bounds from below."""
    import dlnphase
    from dlnphase.distances.lower import lower_bounds

    network, cost = package_network(case.layers), package_cost(case)
    lower = lower_bounds(network, cost, width=max(network.dims), sigma=1.0, full=True)
    return dlnphase.distance_to_minimum(network, cost), dlnphase.distance_to_saddle(network, cost), lower


def _is_one(kind: str, case: Case, cost: Quadratic, told: float, point: np.ndarray) -> list[str]:
    """Whether the point lies at the distance told, and is a minimum, or a critical point that is none."""
    chain, theta0 = chain_of(case.layers, cost)
    faults = []
    apart = float(np.linalg.norm(point - theta0))
    if abs(apart - told) > 1e-9 * told:
        faults.append(f"{kind} point: lies at {apart:.9g}, told {told:.9g}")
    a = chain.product(point)
    unit = cost.excess(chain.product(theta0)) + cost.excess(np.zeros(cost.shape))
    if kind == "minimum":
        if cost.excess(a) > EXACT * unit:
            faults.append(f"minimum point: excess cost {cost.excess(a):.3g} of {unit:.3g}")
        return faults
    gradient = float(np.linalg.norm(chain.slope(0.0, point))) / gradient_unit(chain, theta0)
    if gradient > EXACT:
        faults.append(f"saddle point: gradient {gradient:.3g} in natural units")
    if cost.excess(a) <= 1e-9 * unit:
        faults.append("saddle point: is a minimum")
    return faults

"""Intervals: how often those of exponents and of the critical γ hold what many more starts give.

One sweep over many starts is cut into repetitions of a few starts each, as a user would run them. The truth is the
same estimate from all starts together: its own error is smaller by the square root of the number of repetitions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gauntlet.verdict import Verdict

LEAST, MOST = 0.92, 0.98  # of 200 repetitions: two standard errors about 0.95
REPETITIONS = 200


@dataclass(frozen=True)
class Design:
    """A sweep and what is read off it.

    Attributes:
        settings: of the sweep, starts excepted.
        starts: a repetition has.
        read: the estimate and its interval in a result; None for the interval where nothing is told.
        truth: None for what all starts together give, or a number.
    """

    settings: dict[str, Any]
    starts: int
    read: Callable[[Any], tuple[float, Any]]
    truth: float | None = None


def _slope(name: str) -> Callable[[Any], tuple[float, Any]]:
    def read(result: Any) -> tuple[float, Any]:
        fit = getattr(result.exponents[0], name)
        return fit.slope, fit.ci95

    return read


def _critical(result: Any) -> tuple[float, Any]:
    found = result.critical_gamma
    return (float("nan"), None) if found is None else (found.estimate, found.ci95)


_TWO = {"task": "factorization", "shape": (2, 2), "depth": 2, "widths": (30, 3000)}
_THREE = _TWO | {"depth": 3, "widths": (30, 300, 3000)}
_CROSS = {"task": "factorization", "shape": (2, 2), "depth": 2, "widths": (100, 10_000)}
CLASSES: dict[str, Design] = {
    "saddle-4-starts": Design(_TWO | {"gammas": (0.7,)}, 4, _slope("distance_to_saddle")),
    "saddle-8-starts": Design(_TWO | {"gammas": (0.7,)}, 8, _slope("distance_to_saddle")),
    "saddle-small-start": Design(_TWO | {"gammas": (1.5,)}, 4, _slope("distance_to_saddle")),
    "saddle-deep": Design(_THREE | {"gammas": (1.5,)}, 4, _slope("distance_to_saddle")),
    "minimum-4-starts": Design(_TWO | {"gammas": (0.7,)}, 4, _slope("distance_to_minimum")),
    "minimum-8-starts": Design(_TWO | {"gammas": (0.7,)}, 8, _slope("distance_to_minimum")),
    "minimum-small-start": Design(_TWO | {"gammas": (1.5,)}, 4, _slope("distance_to_minimum")),
    "critical-8-starts": Design(_CROSS | {"gammas": (0.8, 0.9, 1.0, 1.1, 1.2)}, 8, _critical),
    "critical-holds-1": Design(_CROSS | {"gammas": (0.8, 0.9, 1.0, 1.1, 1.2)}, 8, _critical, 1.0),
    "critical-far-apart": Design(_CROSS | {"gammas": (0.5, 1.5)}, 8, _critical, 1.0),
}


def judge(name: str) -> Verdict:
    """One design, with the starts of a seed."""
    kind, seed, number = name.split(":")
    design = CLASSES[kind]
    words = ", ".join(f"{key} {value}" for key, value in design.settings.items())
    verdict = Verdict("interval", name, f"{words}, {design.starts} starts, {REPETITIONS} repetitions")
    started = time.process_time()
    try:
        whole, parts = run_package(design, 10_000 * int(seed) + int(number))
    except Exception as error:  # whatever it raises on valid settings is a finding
        verdict.status, verdict.faults = "fails", [f"raised: {type(error).__name__}: {error}"]
        return verdict
    compare(design, whole, parts, verdict)
    verdict.seconds = (time.process_time() - started, 0.0)
    verdict.status = "fails" if verdict.faults else "agrees"
    return verdict


def run_package(design: Design, seed: int) -> tuple[Any, list[Any]]:
    """The sweep over all starts, and over each repetition's."""
    import dlnphase
    from dlnphase.sweep.run import summarise

    count = design.starts * REPETITIONS
    settings = dlnphase.SweepSettings(**design.settings, seeds=count, seed=seed, jobs=1)
    whole = dlnphase.sweep_gamma(settings)
    parts = []
    for k in range(REPETITIONS):
        some = slice(k * design.starts, (k + 1) * design.starts)
        cells = tuple(_cut(cell, some) for cell in whole.cells)
        config = replace(whole.config, seeds=whole.config.seeds[some], seed=seed + k)
        parts.append(summarise(replace(whole, config=config, cells=cells)))
    return whole, parts


def _cut(cell: Any, some: slice) -> Any:
    def cut(measured: Any) -> Any:
        return replace(measured, values=measured.values[some], mean=float(np.mean(measured.values[some])))

    return replace(
        cell,
        seeds=some.stop - some.start,
        distance_to_minimum=cut(cell.distance_to_minimum),
        distance_to_saddle=cut(cell.distance_to_saddle),
    )


def compare(design: Design, whole: Any, parts: list[Any], verdict: Verdict) -> None:
    """The share of the intervals that hold the truth."""
    truth = design.read(whole)[0] if design.truth is None else design.truth
    told = [interval for _, interval in map(design.read, parts) if interval is not None]
    if not told:
        verdict.words += "; no interval is told"
        return
    held = float(np.mean([low <= truth <= high for low, high in told]))
    widths = [high - low for low, high in told]
    verdict.numbers |= {"coverage": held, "told": len(told) / len(parts), "width": float(np.median(widths))}
    verdict.words += f"; {held:.3f} of {len(told)} intervals hold {truth:.4f}, median width {np.median(widths):.2g}"
    low = design.truth is not None  # what is not the estimator's own limit may be held more often
    if held < LEAST or (held > MOST and not low):
        verdict.faults.append(f"coverage: {held:.3f} of {len(told)} intervals hold {truth:.4f}")

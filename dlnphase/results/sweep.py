"""The result of ``dlnphase sweep-gamma``: sweep.yaml, as values, written as cells come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dlnphase.errors import InputError
from dlnphase.findings import Crossing, DecayTheory, Distributions, Exponent
from dlnphase.results.codec import encode
from dlnphase.results.journal import write_atomic
from dlnphase.results.provenance import Provenance
from dlnphase.results.reading import main_file
from dlnphase.results.schema import load_result, to_document
from dlnphase.results.tabular import Tabular, columns_of
from dlnphase.results.train import TaskInfo
from dlnphase.results.yamlfile import dump_yaml
from dlnphase.settings.sweep import SweepSettings

SWEEP_FILE = "sweep.yaml"


@dataclass(frozen=True)
class Measured:
    """A number measured on every start: mean, standard error (None with one start) and the values themselves."""

    mean: float
    sem: float | None
    values: tuple[float, ...]


@dataclass(frozen=True)
class MinimumCell:
    """d_m in one cell: attained values, so upper bounds, with their certificate.

    Attributes:
        mean, sem, values: over the starts.
        predicted: as w → ∞, for these starts; None at γ = 1.
        excess: largest (C − C_min)/(C − C_min at θ_0) at the points found.
        stationarity: largest part of θ − θ_0 that is tangent to the set of minima, relative.
        found_from: how many starts were won by which search.
        claim: what ``predicted`` is: ``limit``, or ``at most`` (a bound on it).
        lower: a proved lower bound of d_m, the least over the starts; None in files of earlier versions.
    """

    mean: float
    sem: float | None
    predicted: float | None
    excess: float
    stationarity: float
    found_from: dict[str, int]
    values: tuple[float, ...]
    claim: str = "limit"
    lower: float | None = None


@dataclass(frozen=True)
class SaddleCell:
    """d_s in one cell: attained values, so upper bounds, with their certificate.

    Attributes:
        mean, sem, values: over the starts.
        predicted: as w → ∞; None at γ = 1.
        gradient: largest ‖∇𝓛‖ at the points found, in units of what it would be at θ_0 with nothing killed.
        cost_gradient: smallest ‖∇C‖ there: above 0, so the points are no minima.
        found: how many starts found which critical matrix nearest.
        claim: what ``predicted`` is: ``limit``, or ``at least`` (a bound on it).
        lower: a proved lower bound of d_s, the least over the starts; None in files of earlier versions.
    """

    mean: float
    sem: float | None
    predicted: float | None
    gradient: float
    cost_gradient: float
    found: dict[str, int]
    values: tuple[float, ...]
    claim: str = "limit"
    lower: float | None = None


@dataclass(frozen=True)
class Nearer:
    """Which of minimum and saddle is proved to be nearer to θ_0.

    Attributes:
        verdict: ``minimum`` or ``saddle`` where that is proved for every start, else ``undecided``.
        probability: 1 where the network is held in full; else that of the bounds used on layers that are not held.
    """

    verdict: str
    probability: float


@dataclass(frozen=True)
class CellTransition:
    """A rank transition over the starts of a cell: mean time and how many made it."""

    from_rank: int
    to_rank: int
    time: float
    starts: int


@dataclass(frozen=True)
class Cell:
    """One γ and width.

    Attributes:
        gamma, width: of the cell; seeds: number of starts.
        representation, krylov_order, hidden: how the networks were held for the distances.
        truncation: relative change of a distance from the order before; 0 where nothing is truncated.
        distance_to_minimum, distance_to_saddle: see there.
        nearer: which of the two is proved to be nearer; None in files of earlier versions.
        regime_seen: of the dynamics, most common over the starts; this and all below only with ``--train``.
        reasons: how many runs ended why.
        rank_transitions: over the starts.
        escape_time: time of the first transition out of rank 0, over the starts that made it.
        parameter_movement: ‖θ_end − θ_0‖/‖θ_0‖; ntk_change: ‖K_end − K_0‖/‖K_0‖.
        matrix_rank, nuclear_norm: of the end-to-end matrix reached; final_cost, test_cost: of it.
        distributions: of dwell times, jumps and ranks at the end; None with one start.
        decay: what theory says weight decay leaves, beside what the starts came to; None without.
    """

    gamma: float
    width: int
    seeds: int
    representation: str
    krylov_order: int | None
    hidden: tuple[int, ...]
    truncation: float
    distance_to_minimum: MinimumCell
    distance_to_saddle: SaddleCell
    nearer: Nearer | None = None
    regime_seen: str | None = None
    reasons: dict[str, int] | None = None
    rank_transitions: tuple[CellTransition, ...] | None = None
    escape_time: Measured | None = None
    parameter_movement: Measured | None = None
    ntk_change: Measured | None = None
    matrix_rank: Measured | None = None
    nuclear_norm: Measured | None = None
    final_cost: Measured | None = None
    test_cost: Measured | None = None
    distributions: Distributions | None = None
    decay: DecayTheory | None = None

    OPTIONAL: ClassVar[int] = 10  # fields before what only --train fills in

    def to_plain(self) -> dict[str, Any]:
        """Every field, those of the dynamics only where they were followed."""
        names = [f.name for f in fields(self)]
        always = set(names[: self.OPTIONAL])
        return {n: encode(getattr(self, n)) for n in names if n in always or getattr(self, n) is not None}


@dataclass(frozen=True)
class Failure:
    """A cell that failed: where, and what it said."""

    gamma: float
    width: int
    error: str


@dataclass(frozen=True)
class GammaExponents:
    """What the slopes say at one γ.

    Attributes:
        regime: from the measured slopes; predicted_regime: from γ.
        distance_to_minimum, distance_to_saddle: slopes d log(distance)/d log(width).
    """

    gamma: float
    regime: str
    predicted_regime: str
    distance_to_minimum: Exponent
    distance_to_saddle: Exponent


@dataclass(frozen=True)
class CriticalGamma:
    """Where the curves of log(d_m/d_s) of the two widest networks cross; ``crossings`` has every neighbouring pair.

    ``ci95`` holds the error of the draws and that of interpolation, ``bracket`` the latter alone.
    """

    estimate: float
    ci95: tuple[float, float] | None
    predicted: float
    crossings: tuple[Crossing, ...]
    bracket: tuple[float, float] | None = None


@dataclass(frozen=True, repr=False)
class SweepResult(Tabular):
    """Everything ``dlnphase sweep-gamma`` found; ``complete`` is false while cells are missing."""

    SCHEMA: ClassVar[str] = "dlnphase/sweep-gamma@1"

    config: SweepSettings
    provenance: Provenance
    task: TaskInfo
    cells: tuple[Cell, ...]
    exponents: tuple[GammaExponents, ...] = ()
    critical_gamma: CriticalGamma | None = None
    failed: tuple[Failure, ...] = ()
    complete: bool = True
    notes: tuple[str, ...] = ()

    def headline(self) -> str:
        """``factorization 5×5, L = 3, 56 of 56 cells, critical γ = 1.000``."""
        (rows, columns), critical = self.task.shape, self.critical_gamma
        found = "" if critical is None else f", critical γ = {critical.estimate:.3f}"
        cells = f"{len(self.cells)} of {len(self.config.cells)} cells"
        return f"{self.task.kind} {rows}×{columns}, L = {self.config.depth}, {cells}{found}"

    def columns(self) -> dict[str, np.ndarray]:
        """A row per cell: gamma, width, seeds, and mean, sem, predicted and lower of both distances."""
        parts = ("distance_to_minimum", "distance_to_saddle")
        numbers = ("mean", "sem", "predicted", "lower")
        return columns_of(
            [
                {"gamma": c.gamma, "width": c.width, "seeds": c.seeds}
                | {
                    part if n == "mean" else f"{part}_{n}": getattr(getattr(c, part), n)
                    for part in parts
                    for n in numbers
                }
                | {"nearer": None if c.nearer is None else c.nearer.verdict}
                for c in self.cells
            ]
        )

    def cell(self, gamma: float, width: int) -> Cell | None:
        """The cell of a γ and width, or None."""
        return next((c for c in self.cells if c.gamma == gamma and c.width == width), None)


class SweepFile:
    """sweep.yaml of a sweep under way: each save costs what the new cells cost.

    Args:
        directory: where it lies; must exist.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / SWEEP_FILE
        self._texts: dict[tuple[float, int], str] = {}

    def save(self, result: SweepResult) -> None:
        """Replace the file by one that holds this result; RunError when the disk refuses."""
        document = to_document(SweepResult(**{**_shallow(result), "cells": ()}))
        keys = list(document)
        split = keys.index("cells")
        head = {k: document[k] for k in keys[:split]}
        tail = {k: document[k] for k in keys[split + 1 :]}
        write_atomic(self.path, dump_yaml(head) + self._cells(result.cells) + dump_yaml(tail))

    def _cells(self, cells: Sequence[Cell]) -> str:
        if not cells:
            return "cells: []\n"
        for cell in cells:
            key = (cell.gamma, cell.width)
            if key not in self._texts:
                self._texts[key] = dump_yaml([cell.to_plain()])
        return "cells:\n" + "".join(self._texts[c.gamma, c.width] for c in cells)


def load_sweep(source: Path | str) -> SweepResult:
    """Read a sweep: its directory, or its sweep.yaml.

    Raises:
        InputError: when it is not a sweep of dlnphase, or the file is damaged.
    """
    path = main_file(source, SWEEP_FILE)
    result = load_result(path, SweepResult)
    _check_cells(result, str(path))
    return result


def _check_cells(result: SweepResult, where: str) -> None:
    """Refuse cells that no sweep of these settings has: foreign, twice, or with another number of starts."""
    wanted, seen = set(result.config.cells), set()
    for k, cell in enumerate(result.cells):
        key, starts = (cell.gamma, cell.width), len(result.config.seeds)
        if key not in wanted or key in seen:
            raise InputError(f"{where}.cells[{k}]: γ = {key[0]:g}, w = {key[1]} is none of its cells, or there twice")
        seen.add(key)
        for name, distance in (("minimum", cell.distance_to_minimum), ("saddle", cell.distance_to_saddle)):
            if len(distance.values) != starts or not all(0 < v < float("inf") for v in distance.values):
                raise InputError(
                    f"{where}.cells[{k}].distance_to_{name}.values: found {len(distance.values)} numbers, expected "
                    f"{starts} finite ones above 0"
                )


def _shallow(result: SweepResult) -> dict[str, Any]:
    return {f.name: getattr(result, f.name) for f in fields(result)}

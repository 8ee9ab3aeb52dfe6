"""What a user may write: ``make lint`` checks its types as strictly as it can, ``tests/test_typed_api.py`` runs it.

``assert_type`` says what a type checker is told, so that a type that turns into Any is an error here. Arrays are
NumPy's and torch's: what comes out of them when they are indexed is their affair.
"""

from pathlib import Path
from typing import assert_type

import numpy as np
import torch

import dlnphase

assert_type(dlnphase.__version__, str)


def one_run(folder: Path) -> dlnphase.TrainResult:
    """Train, save, load, detect, draw."""
    settings = dlnphase.TrainSettings(
        task="factorization",
        shape=(3, 3),
        singular_values=(3.0, 1.0),
        depth=3,
        width=12,
        gamma=3.0,
        seeds=(0,),
        tol=1e-6,
    )
    assert_type(settings.shape, tuple[int, int] | None)
    assert_type(settings.seeds, tuple[int, ...])
    result = dlnphase.train(settings, should_stop=lambda: False)
    assert_type(result, dlnphase.TrainResult)
    assert_type(result.config, dlnphase.TrainSettings)
    assert_type(result.outcome.regime, str | None)
    assert_type(result.outcome.evidence.ntk_change, float)
    assert_type(result.provenance.dlnphase, str)
    assert_type(result.trajectory, dlnphase.Trajectory | None)
    assert_type(result.theory.predictions["movement"].measured, float | None)
    for row in result.rank_transitions:
        assert_type(row.from_rank, int)
        assert_type(row.time, float)
        assert_type(row.singular_values, list[float])
    dlnphase.save_train(result, folder)
    loaded = dlnphase.load_train(folder)
    assert_type(loaded, dlnphase.TrainResult)

    found = dlnphase.detect_saddles(dlnphase.DetectSettings(source=str(folder), certify=True))
    assert_type(found, dlnphase.DetectResult)
    for visit in found.visits:
        assert_type(visit.kind, str)
        assert_type(visit.critical_point.cost, float)
        if visit.curvature is not None:
            assert_type(visit.curvature.min_eigenvalue, float)
    dlnphase.save_detect(found, folder)
    assert_type(dlnphase.load_detect(folder), dlnphase.DetectResult)

    drawn, files = dlnphase.plot(dlnphase.PlotSettings(source=(str(folder),), kind=("loss",)), folder)
    assert_type(drawn, dlnphase.PlotResult)
    assert_type(drawn.figures[0].caption, str)
    assert_type(files, dict[str, bytes])
    assert_type(dlnphase.load_plot(folder), dlnphase.PlotResult)
    return loaded


def one_sweep() -> dlnphase.SweepResult:
    """A small phase diagram."""
    settings = dlnphase.SweepSettings(
        gammas=(0.7, 1.5), widths=(100, 10_000), depth=2, shape=(2, 2), seeds=(0, 1), jobs=1
    )
    assert_type(settings.cells, tuple[tuple[float, int], ...])

    def seen(partial: dlnphase.SweepResult) -> None:
        assert_type(len(partial.cells), int)

    swept = dlnphase.sweep_gamma(settings, on_cell=seen)
    assert_type(swept, dlnphase.SweepResult)
    for cell in swept.cells:
        assert_type(cell.distance_to_minimum.mean, float)
        assert_type(cell.distance_to_saddle.predicted, float | None)
    for row in swept.exponents:
        assert_type(row.distance_to_saddle.slope, float)
    critical = swept.critical_gamma
    if critical is not None:
        assert_type(critical.estimate, float)
        assert_type(critical.ci95, tuple[float, float] | None)
    return swept


def by_hand() -> float:
    """The parts a notebook wants; the last excess of a flow."""
    backend = dlnphase.resolve_backend("cpu", "float64")
    cost = dlnphase.factorization(np.diag([2.0, 1.0]), backend)
    assert_type(cost, dlnphase.QuadraticCost)
    dlnphase.check_cost(cost)
    network = dlnphase.gaussian_network((2, 6, 2), 0.05, backend)
    assert_type(network, dlnphase.Network)
    last = 0.0
    for record in dlnphase.gradient_flow(network, cost, tol=1e-6):
        assert_type(record.reasons, list[str | None])
        assert_type(record.A, np.ndarray)
        last = float(record.excess.max())
    assert_type(dlnphase.distance_to_minimum(network, cost).distance, torch.Tensor)
    assert_type(dlnphase.distance_to_saddle(network, cost).distance, torch.Tensor)
    return last


def other_names() -> list[object]:
    """What is left of the public names, so that each of them is one for a type checker."""
    return [
        dlnphase.Recorder,
        dlnphase.Recording,
        dlnphase.balanced_network,
        dlnphase.check_cost,
        dlnphase.completion,
        dlnphase.cross_entropy,
        dlnphase.gradient_descent,
        dlnphase.greedy_path,
        dlnphase.huber_completion,
        dlnphase.huber_regression,
        dlnphase.lightning_callback,
        dlnphase.load,
        dlnphase.load_sweep,
        dlnphase.logistic_regression,
        dlnphase.one_bit_completion,
        dlnphase.regression,
        dlnphase.sensing,
        dlnphase.InputError("words"),
        dlnphase.RunError("words"),
    ]

"""dlnphase: the training dynamics of deep linear networks, measured beside their theory.

The verbs of the command line as functions on plain dataclasses, and the parts a notebook wants:

    import dlnphase
    result = dlnphase.train(dlnphase.TrainSettings(depth=4, width=100, gamma=2.0))

Everything is imported when it is first asked for, so that ``import dlnphase`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name → module it lives in
_PUBLIC = {
    "train": "dlnphase.training.run",
    "TrainSettings": "dlnphase.settings",
    "TrainResult": "dlnphase.results.train",
    "Trajectory": "dlnphase.results.train",
    "plot": "dlnphase.plotting.draw",
    "PlotSettings": "dlnphase.settings",
    "PlotResult": "dlnphase.results.plot",
    "load_plot": "dlnphase.results.plot",
    "load_train": "dlnphase.results.train",
    "save_train": "dlnphase.results.train",
    "sweep_gamma": "dlnphase.sweep.run",
    "SweepSettings": "dlnphase.settings",
    "SweepResult": "dlnphase.results.sweep",
    "load_sweep": "dlnphase.results.sweep",
    "detect_saddles": "dlnphase.detect.run",
    "DetectSettings": "dlnphase.settings",
    "DetectResult": "dlnphase.results.detect",
    "load_detect": "dlnphase.results.detect",
    "save_detect": "dlnphase.results.detect",
    "load": "dlnphase.results.load",
    "Recorder": "dlnphase.detect.recorder",
    "Recording": "dlnphase.results.recording",
    "lightning_callback": "dlnphase.detect.lightning",
    "greedy_path": "dlnphase.critical.greedy",
    "distance_to_minimum": "dlnphase.distances",
    "distance_to_saddle": "dlnphase.distances",
    "InputError": "dlnphase.errors",
    "RunError": "dlnphase.errors",
    "Network": "dlnphase.networks.chain",
    "QuadraticCost": "dlnphase.costs.quadratic",
    "completion": "dlnphase.costs.quadratic",
    "factorization": "dlnphase.costs.quadratic",
    "regression": "dlnphase.costs.quadratic",
    "sensing": "dlnphase.costs.quadratic",
    "cross_entropy": "dlnphase.costs.convex",
    "logistic_regression": "dlnphase.costs.convex",
    "one_bit_completion": "dlnphase.costs.convex",
    "huber_completion": "dlnphase.costs.convex",
    "huber_regression": "dlnphase.costs.convex",
    "gaussian_network": "dlnphase.networks.sampling",
    "balanced_network": "dlnphase.networks.sampling",
    "gradient_flow": "dlnphase.dynamics",
    "gradient_descent": "dlnphase.dynamics",
    "check_cost": "dlnphase.costs.check",
    "resolve_backend": "dlnphase.backend",
}

__all__ = ["__version__", *sorted(_PUBLIC)]

if TYPE_CHECKING:  # each name by itself, so that strict type checkers take it for exported
    from dlnphase.backend import resolve_backend as resolve_backend
    from dlnphase.costs.check import check_cost as check_cost
    from dlnphase.costs.convex import cross_entropy as cross_entropy
    from dlnphase.costs.convex import huber_completion as huber_completion
    from dlnphase.costs.convex import huber_regression as huber_regression
    from dlnphase.costs.convex import logistic_regression as logistic_regression
    from dlnphase.costs.convex import one_bit_completion as one_bit_completion
    from dlnphase.costs.quadratic import QuadraticCost as QuadraticCost
    from dlnphase.costs.quadratic import completion as completion
    from dlnphase.costs.quadratic import factorization as factorization
    from dlnphase.costs.quadratic import regression as regression
    from dlnphase.costs.quadratic import sensing as sensing
    from dlnphase.critical.greedy import greedy_path as greedy_path
    from dlnphase.detect.lightning import lightning_callback as lightning_callback
    from dlnphase.detect.recorder import Recorder as Recorder
    from dlnphase.detect.run import detect_saddles as detect_saddles
    from dlnphase.distances import distance_to_minimum as distance_to_minimum
    from dlnphase.distances import distance_to_saddle as distance_to_saddle
    from dlnphase.dynamics import gradient_descent as gradient_descent
    from dlnphase.dynamics import gradient_flow as gradient_flow
    from dlnphase.errors import InputError as InputError
    from dlnphase.errors import RunError as RunError
    from dlnphase.networks.chain import Network as Network
    from dlnphase.networks.sampling import balanced_network as balanced_network
    from dlnphase.networks.sampling import gaussian_network as gaussian_network
    from dlnphase.plotting.draw import plot as plot
    from dlnphase.results.detect import DetectResult as DetectResult
    from dlnphase.results.detect import load_detect as load_detect
    from dlnphase.results.detect import save_detect as save_detect
    from dlnphase.results.load import load as load
    from dlnphase.results.plot import PlotResult as PlotResult
    from dlnphase.results.plot import load_plot as load_plot
    from dlnphase.results.recording import Recording as Recording
    from dlnphase.results.sweep import SweepResult as SweepResult
    from dlnphase.results.sweep import load_sweep as load_sweep
    from dlnphase.results.train import TrainResult as TrainResult
    from dlnphase.results.train import Trajectory as Trajectory
    from dlnphase.results.train import load_train as load_train
    from dlnphase.results.train import save_train as save_train
    from dlnphase.settings import DetectSettings as DetectSettings
    from dlnphase.settings import PlotSettings as PlotSettings
    from dlnphase.settings import SweepSettings as SweepSettings
    from dlnphase.settings import TrainSettings as TrainSettings
    from dlnphase.sweep.run import sweep_gamma as sweep_gamma
    from dlnphase.training.run import train as train
else:  # hidden from type checkers, for whom it would make every misspelt name a valid one

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module 'dlnphase' has no attribute {name!r}")
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)

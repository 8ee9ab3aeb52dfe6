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
    "train": "dlnphase.training",
    "TrainSettings": "dlnphase.settings",
    "TrainResult": "dlnphase.results.train",
    "Trajectory": "dlnphase.results.train",
    "plot": "dlnphase.plotting.draw",
    "PlotSettings": "dlnphase.settings",
    "load_train": "dlnphase.results.train",
    "save_train": "dlnphase.results.train",
    "sweep_gamma": "dlnphase.sweep",
    "SweepSettings": "dlnphase.settings",
    "SweepResult": "dlnphase.results.sweep",
    "load_sweep": "dlnphase.results.sweep",
    "detect_saddles": "dlnphase.detect",
    "DetectSettings": "dlnphase.settings",
    "DetectResult": "dlnphase.results.detect",
    "load_detect": "dlnphase.results.detect",
    "save_detect": "dlnphase.results.detect",
    "greedy_path": "dlnphase.dynamics",
    "distance_to_minimum": "dlnphase.phase",
    "distance_to_saddle": "dlnphase.phase",
    "InputError": "dlnphase.errors",
    "RunError": "dlnphase.errors",
    "Network": "dlnphase.network",
    "QuadraticCost": "dlnphase.costs",
    "completion": "dlnphase.costs",
    "factorization": "dlnphase.costs",
    "regression": "dlnphase.costs",
    "sensing": "dlnphase.costs",
    "gaussian_network": "dlnphase.sampling",
    "balanced_network": "dlnphase.sampling",
    "gradient_flow": "dlnphase.dynamics",
    "gradient_descent": "dlnphase.dynamics",
    "resolve_backend": "dlnphase.backend",
}

__all__ = ["__version__", *sorted(_PUBLIC)]

if TYPE_CHECKING:
    from dlnphase.backend import resolve_backend
    from dlnphase.costs import QuadraticCost, completion, factorization, regression, sensing
    from dlnphase.detect import detect_saddles
    from dlnphase.dynamics import gradient_descent, gradient_flow, greedy_path
    from dlnphase.errors import InputError, RunError
    from dlnphase.network import Network
    from dlnphase.phase import distance_to_minimum, distance_to_saddle
    from dlnphase.plotting.draw import plot
    from dlnphase.results.detect import DetectResult, load_detect, save_detect
    from dlnphase.results.sweep import SweepResult, load_sweep
    from dlnphase.results.train import TrainResult, Trajectory, load_train, save_train
    from dlnphase.sampling import balanced_network, gaussian_network
    from dlnphase.settings import DetectSettings, PlotSettings, SweepSettings, TrainSettings
    from dlnphase.sweep import sweep_gamma
    from dlnphase.training import train


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'dlnphase' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

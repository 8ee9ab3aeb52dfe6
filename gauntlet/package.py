"""The case's own numbers as objects of the package; the only place, beside the calls judged, that knows its names."""

from __future__ import annotations

from typing import Any

import numpy as np

from gauntlet.cases import Case


def package_cost(case: Case) -> Any:
    """The cost of a case, by the package's own constructors."""
    import dlnphase

    backend = dlnphase.resolve_backend("cpu", "float64")
    data = case.data
    if case.task == "factorization":
        return dlnphase.factorization(data["target"], backend)
    if case.task == "completion":
        return dlnphase.completion(data["target"], ~np.isnan(data["target"]), backend)
    if case.task == "sensing":
        return dlnphase.sensing(data["operators"], data["values"], backend)
    return dlnphase.regression(data["X"], data["Y"], backend)


def package_network(layers: list[np.ndarray]) -> Any:
    """One network of these layers."""
    import dlnphase

    backend = dlnphase.resolve_backend("cpu", "float64")
    return dlnphase.Network.from_weights([backend.tensor(w) for w in layers])

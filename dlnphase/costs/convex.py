"""The costs other than quadratic ones, from arrays: a loss over classes, over outputs, or over entries."""

from __future__ import annotations

import numpy as np
import torch

from dlnphase.backend import Backend
from dlnphase.costs.cross_entropy import CrossEntropy
from dlnphase.costs.huber import Huber
from dlnphase.costs.logistic import Logistic
from dlnphase.costs.minimise import Found
from dlnphase.costs.quadratic import precision
from dlnphase.costs.sampled import Loss, SampledCost
from dlnphase.costs.sampling import Entries, Samples
from dlnphase.errors import InputError


def on_classes(
    loss: type[Loss],
    x: np.ndarray,
    labels: np.ndarray,
    backend: Backend,
    classes: int | None = None,
    found: Found | None = None,
    **own: float,
) -> SampledCost:
    """Mean over n of the loss of A x_n, for the class of each sample.

    Args:
        x: inputs, shape (N, d_in).
        labels: the class of each sample, integers from 0, shape (N,).
        classes: how many there are (default: the largest label and one).
        found: what is known of the minimum; None looks for it.
        own: settings of the loss.
    """
    inputs, index = _inputs(x, backend), _labels(labels, len(x), classes)
    count = classes if classes is not None else int(index.max()) + 1
    known = precision(x)
    made, rows = loss.of_classes(index, count, backend, **own)
    return SampledCost("classification", made, Samples(inputs, rows, known), known, found)


def on_samples(
    loss: type[Loss], x: np.ndarray, y: np.ndarray, backend: Backend, found: Found | None = None, **own: float
) -> SampledCost:
    """Mean over n of the loss of A x_n, for X (N, d_in) and Y (N, d_out); the rest as for :func:`on_classes`."""
    inputs, outputs = _inputs(x, backend), np.asarray(y, dtype=float)
    if outputs.ndim != 2 or len(outputs) != len(inputs) or not np.isfinite(outputs).all():
        raise InputError(f"data: Y has shape {outputs.shape}, expected finite numbers of shape ({len(inputs)}, d_out)")
    known = precision(x, y)
    made = loss.of_targets(backend.tensor(outputs), **own)
    return SampledCost("regression", made, Samples(inputs, outputs.shape[1], known), known, found)


def on_entries(
    loss: type[Loss], target: np.ndarray, observed: np.ndarray, backend: Backend, *, signs: bool = False, **own: float
) -> SampledCost:
    """Σ_{(i,j)∈Ω} of the loss of A_ij.

    Args:
        target: (d_out, d_in); entries outside Ω are ignored and may be NaN.
        observed: boolean (d_out, d_in), True on Ω.
        signs: whether the loss is told signs alone: the target has two values, of which the larger stands for +1.
        own: settings of the loss.
    """
    observed = _observed(target, observed)
    values = _signs(np.asarray(target, dtype=float), observed) if signs else target
    known = float(np.finfo(float).eps) if signs else precision(target)
    made = loss.of_targets(backend.tensor(np.where(observed, values, 0.0)), **own)
    kind = "factorization" if observed.all() else "completion"
    return SampledCost(kind, made, Entries(backend.tensor(observed.astype(float))), known, made.known())


def cross_entropy(
    x: np.ndarray, labels: np.ndarray, backend: Backend, classes: int | None = None, found: Found | None = None
) -> SampledCost:
    """Softmax cross-entropy, mean over n of logsumexp(A x_n) − (A x_n)_{y_n}.

    Args:
        x: inputs, shape (N, d_in).
        labels: the class of each sample, integers from 0, shape (N,).
        classes: k = d_out (default: the largest label and one).
        found: what is known of the minimum; None looks for it.
    """
    return on_classes(CrossEntropy, x, labels, backend, classes, found)


def logistic_regression(
    x: np.ndarray, labels: np.ndarray, backend: Backend, classes: int | None = None, found: Found | None = None
) -> SampledCost:
    """Mean over n of Σ_k log(1 + exp(−s_nk (A x_n)_k)), s = ±1: each class against the rest.

    Two classes have one row, d_out = 1, whose sign is the answer; k > 2 have k rows, of which the largest is.
    """
    return on_classes(Logistic, x, labels, backend, classes, found)


def one_bit_completion(target: np.ndarray, observed: np.ndarray, backend: Backend) -> SampledCost:
    """Σ_{(i,j)∈Ω} log(1 + exp(−s_ij A_ij)): only signs s_ij = ±1 of entries are seen.

    inf C = 0 is never attained: entries grow for ever.

    Args:
        target: (d_out, d_in), two values of which the larger stands for +1; outside Ω anything.
        observed: boolean (d_out, d_in), True on Ω.
    """
    return on_entries(Logistic, target, observed, backend, signs=True)


def huber_completion(target: np.ndarray, observed: np.ndarray, delta: float, backend: Backend) -> SampledCost:
    """Σ_{(i,j)∈Ω} of Huber's cost of A_ij − A*_ij: ½r² up to δ, δ|r| − ½δ² beyond; minimum 0 at A*.

    Args:
        target: (d_out, d_in); entries outside Ω are ignored and may be NaN.
        observed: boolean (d_out, d_in), True on Ω.
        delta: δ > 0.
    """
    return on_entries(Huber, target, observed, backend, delta=delta)


def huber_regression(
    x: np.ndarray, y: np.ndarray, delta: float, backend: Backend, found: Found | None = None
) -> SampledCost:
    """Mean over n of Σ_k Huber's cost of (A x_n − y_n)_k, for X (N, d_in) and Y (N, d_out)."""
    return on_samples(Huber, x, y, backend, found, delta=delta)


def _inputs(x: np.ndarray, backend: Backend) -> torch.Tensor:
    x = np.asarray(x)
    if x.ndim != 2 or not x.size or not np.isfinite(x).all() or not x.any():
        raise InputError(f"data: X has shape {x.shape}, expected finite numbers of shape (N, d_in), not all of them 0")
    return backend.tensor(x)


def _labels(labels: np.ndarray, count: int, classes: int | None) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or (labels < 0).any():
        raise InputError(
            f"data: y holds {labels.dtype} of shape {labels.shape}, expected a class from 0 for each of {count} samples"
        )
    top = int(labels.max())
    if classes is not None and top >= classes:
        raise InputError(f"data: y has the class {top}, expected one below {classes}")
    if classes is None and top < 1:
        raise InputError("data: y has one class, expected at least two")
    return labels.astype(np.int64)


def _observed(target: np.ndarray, observed: np.ndarray) -> np.ndarray:
    observed, target = np.asarray(observed, dtype=bool), np.asarray(target, dtype=float)
    if target.ndim != 2 or observed.shape != target.shape or not observed.any():
        raise InputError(
            f"target: shape {target.shape}, observed: {observed.shape} with {int(observed.sum())} entries, expected "
            "one shape (d_out, d_in) and at least one entry"
        )
    if not np.isfinite(target[observed]).all():
        raise InputError("target: observed entries are not finite numbers")
    return observed


def _signs(target: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """±1 of a matrix of two values."""
    values = np.unique(target[observed])
    if not any({*values} <= pair for pair in ({-1.0, 1.0}, {0.0, 1.0})):
        found = ", ".join(f"{v:g}" for v in values[:4]) + (", …" if len(values) > 4 else "")
        raise InputError(f"target: found entries {found}, expected -1 and 1, or 0 and 1, for the logistic cost")
    return np.where(np.nan_to_num(target) > 0, 1.0, -1.0)

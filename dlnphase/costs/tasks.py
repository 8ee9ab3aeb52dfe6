"""What a network is asked to learn: a training cost, its test cost and, if planted, the matrix behind both.

Planted tasks are drawn here from the ``task`` and ``noise`` streams; tasks on a user's own arrays are
assembled here too, but the files themselves are read above (``dlnphase.setup.inputs``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dlnphase.backend import Backend, stream
from dlnphase.costs.interface import ConvexCost
from dlnphase.costs.quadratic import completion, factorization, regression, sensing
from dlnphase.errors import InputError

OFFSET = 0.1  # part of the square of data that their mean makes up, above which it is told


@dataclass(frozen=True)
class Labels:
    """Names of the rows and columns of a user's matrix, or (), and the name of the column that the rows' stood in."""

    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    corner: str = ""


@dataclass(frozen=True)
class Task:
    """A cost to train on and what to compare with.

    Attributes:
        cost: training cost C; an object of a user's own is completed, see :mod:`dlnphase.costs.own`.
        test: cost on what training does not see (unobserved entries, the planted matrix, held-out data), or None.
        target: the planted matrix A*, shape (d_out, d_in), or None for a user's data.
        notes: what a reader should know about the data.
        labels: of a user's matrix.
        numbers: how many numbers training sees; 0 where that is not known.
        weight: of half their squared errors in the cost: 1/N for a regression on N samples, else 1.
    """

    cost: ConvexCost
    test: ConvexCost | None = None
    target: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    labels: Labels = Labels()
    numbers: int = 0
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("cost", "test"):
            given = getattr(self, name)
            if given is not None and not isinstance(given, ConvexCost):
                from dlnphase.costs.own import OwnCost  # loads what looks for minima

                object.__setattr__(self, name, OwnCost(given))

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""
        return self.cost.shape


def default_singular_values(rank: int) -> tuple[float, ...]:
    """Singular values planted when none are given: 10, 6, 3 at rank 3, else evenly spaced 10, …, 10/rank."""
    return (10.0, 6.0, 3.0) if rank == 3 else tuple(10.0 * (rank - i) / rank for i in range(rank))


def planted_matrix(shape: tuple[int, int], singular_values: tuple[float, ...], data_seed: int) -> np.ndarray:
    """U diag(s) Vᵀ with Haar-distributed singular vectors, shape (d_out, d_in).

    Raises:
        InputError: when there are more singular values than min(shape), or one is negative or not finite.
    """
    s = np.asarray(singular_values, dtype=float)
    if s.size > min(shape):
        raise InputError(f"rank: found {s.size}, expected at most min{shape} = {min(shape)}")
    if not np.isfinite(s).all() or (s < 0).any():
        raise InputError(f"singular-values: found {s.tolist()}, expected finite numbers of at least 0")
    rng = stream(data_seed, "task", 0)
    left = _orthonormal(rng, shape[0], s.size)
    right = _orthonormal(rng, shape[1], s.size)
    return (left * s) @ right.T


def planted_task(
    kind: str,
    shape: tuple[int, int],
    singular_values: tuple[float, ...],
    backend: Backend,
    *,
    observed: float = 0.8,
    measurements: int | None = None,
    noise: float = 0.0,
    data_seed: int = 0,
    keep: bool = False,
) -> Task:
    """A task of one of the kinds in ``DRAWS`` around a planted matrix of the given singular values.

    Args:
        observed: completion: fraction of entries seen, exactly round(observed·D) of them, uniformly drawn.
        measurements: sensing: number M of measurements ⟨B_m, A*⟩ with B entries N(0, 1/M) (default round(observed·D));
            regression: number N of samples with inputs N(0, 1) (default 10·d_in).
        noise: standard deviation of Gaussian noise added to every number that training sees.
        keep: whether the cost keeps measurements and samples, as dynamics with noise need them.
    """
    if not 0 < observed <= 1:
        raise InputError(f"observed: found {observed}, expected a fraction in (0, 1]")
    if not (np.isfinite(noise) and noise >= 0):
        raise InputError(f"noise: found {noise}, expected a finite number of at least 0")
    if kind not in DRAWS:
        raise InputError(f"task: found {kind}, expected one of {', '.join(DRAWS)}")
    if measurements is not None and measurements < 1:
        raise InputError(f"measurements: found {measurements}, expected an integer of at least 1")
    target = planted_matrix(shape, singular_values, data_seed)
    rngs = stream(data_seed, "task", 1), stream(data_seed, "noise")
    return DRAWS[kind](Draw(target, backend, *rngs, observed, measurements, noise, keep))


@dataclass(frozen=True)
class Draw:
    """What a planted task is drawn from.

    Attributes:
        target: A*.
        rng, noise_rng: of masks, measurements and inputs; of the noise, which is drawn once.
        observed, measurements, level, keep: as for :func:`planted_task`, the level being its ``noise``.
    """

    target: np.ndarray
    backend: Backend
    rng: np.random.Generator
    noise_rng: np.random.Generator
    observed: float
    measurements: int | None
    level: float
    keep: bool

    def noise(self, size: int | tuple[int, ...]) -> np.ndarray:
        """What is added to what training sees."""
        return self.level * self.noise_rng.standard_normal(size)

    def count(self) -> int:
        """round(observed·D), at least 1."""
        return max(1, round(self.observed * self.target.size))


def _factorization(draw: Draw) -> Task:
    target = draw.target
    seen = target + draw.noise(target.shape)
    test = factorization(target, draw.backend) if draw.level else None
    return Task(factorization(seen, draw.backend), test, target, numbers=target.size)


def _completion(draw: Draw) -> Task:
    target, count = draw.target, draw.count()
    flat = np.zeros(target.size, dtype=bool)
    flat[draw.rng.permutation(target.size)[:count]] = True
    mask = flat.reshape(target.shape)
    seen = target + draw.noise(target.shape)
    test = completion(target, ~mask, draw.backend) if not mask.all() else None
    return Task(completion(seen, mask, draw.backend), test, target, numbers=count)


def _sensing(draw: Draw) -> Task:
    target, count = draw.target, draw.measurements or draw.count()
    operators = draw.rng.standard_normal((count, *target.shape)) / np.sqrt(count)
    values = np.einsum("mij,ij->m", operators, target) + draw.noise(count)
    cost = sensing(operators, values, draw.backend, keep=draw.keep)
    return Task(cost, factorization(target, draw.backend), target, numbers=count)


def _regression(draw: Draw) -> Task:
    (d_out, d_in), count = draw.target.shape, draw.measurements or 10 * draw.target.shape[1]
    x = draw.rng.standard_normal((count, d_in))
    y = x @ draw.target.T + draw.noise((count, d_out))
    cost, test = regression(x, y, draw.backend, keep=draw.keep), factorization(draw.target, draw.backend)
    return Task(cost, test, draw.target, numbers=y.size, weight=1 / count)


# Kinds of planted tasks; what settings say of each stands in ``settings/common.py``.
DRAWS: dict[str, Callable[[Draw], Task]] = {
    "completion": _completion,
    "factorization": _factorization,
    "sensing": _sensing,
    "regression": _regression,
}


def matrix_task(
    matrix: np.ndarray, backend: Backend, *, observed: float | None = None, data_seed: int = 0, name: str = "target"
) -> Task:
    """A user's matrix: completion when it has gaps (NaN) or entries are held out, factorization when it has neither.

    Args:
        matrix: shape (d_out, d_in).
        observed: the fraction of its entries that training sees, exactly round(observed·n) of the n there are, drawn
            uniformly from the ``held-out`` stream; the test cost is on the others. None: all.
        data_seed: of that stream.
        name: of the matrix, in notes.
    """
    seen, notes = held_out(matrix, observed, data_seed, name)
    held = ~np.isnan(matrix) & ~seen
    test = completion(matrix, held, backend) if held.any() else None
    if seen.all():
        return Task(factorization(matrix, backend), notes=notes, numbers=matrix.size)
    return Task(completion(matrix, seen, backend), test, notes=notes, numbers=int(seen.sum()))


def held_out(
    matrix: np.ndarray, observed: float | None, data_seed: int, name: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which entries of a user's matrix training sees, and what to say of that; arguments as of :func:`matrix_task`."""
    known = ~np.isnan(matrix)
    seen, notes = known, []
    if observed is not None:
        there = np.flatnonzero(known)
        count = max(1, round(observed * there.size))
        seen = np.zeros(matrix.size, dtype=bool)
        seen[stream(data_seed, "held-out").permutation(there)[:count]] = True
        seen = seen.reshape(matrix.shape)
        held = known & ~seen
        notes.append(f"{name}: {int(held.sum())} of {there.size} entries are held out as a test")
    blind = [
        f"{count} {word}{'s' * (count != 1)}"
        for word, axis in (("row", 1), ("column", 0))
        if (count := int((~seen.any(axis)).sum()))
    ]
    if blind:
        what = "with no entry that training sees: nothing is learned about them"
        notes.append(f"{name}: {' and '.join(blind)} {what}")
    return seen, tuple(notes)


def regression_task(
    x: np.ndarray,
    y: np.ndarray,
    backend: Backend,
    x_test: np.ndarray | None = None,
    y_test: np.ndarray | None = None,
    *,
    keep: bool = False,
) -> Task:
    """A user's data: inputs (N, d_in), outputs (N, d_out), held-out pairs if any; ``keep`` as for a planted task."""
    if (x_test is None) != (y_test is None):
        raise InputError("data: found only one of X_test and Y_test, expected both or none")
    test = None if x_test is None or y_test is None else regression(x_test, y_test, backend)
    cost = regression(x, y, backend, keep=keep)
    if test is not None and test.shape != cost.shape:
        raise InputError(f"data: X_test and Y_test give a {test.shape} matrix, X and Y a {cost.shape} one")
    return Task(cost, test, notes=offsets(x, y), numbers=y.size, weight=1 / len(x))


def offsets(x: np.ndarray, y: np.ndarray) -> tuple[str, ...]:
    """A word on data whose means are large: layers without biases learn no constant, unless an input is one."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    shares = []
    for values in (x, y):
        square = float(np.mean(np.sum(values**2, axis=1)))
        shares.append(float(np.sum(values.mean(axis=0) ** 2)) / square if square > 0 else 0.0)
    constant = bool((np.ptp(x, axis=0) == 0).any() and (x != 0).any())
    if max(shares) <= OFFSET or constant:
        return ()
    return (
        f"the mean makes up {100 * shares[0]:.2g} % of the square of X and {100 * shares[1]:.2g} % of that of Y: a "
        "network without biases learns no constant; centre both, or add an input that is always 1",
    )


def _orthonormal(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """n × k with orthonormal columns, Haar-distributed (QR of a Gaussian matrix, signs fixed)."""
    q, r = np.linalg.qr(rng.standard_normal((n, k)))
    return q * np.where(np.diag(r) < 0, -1.0, 1.0)

"""Is a cost of one's own what the dynamics take it for? Shapes, dtype, batches, derivatives, convexity.

    dlnphase.check_cost(my_cost)  # silent, or an InputError that says everything that is wrong

Derivatives are compared with central differences, whose error is about ε^(2/3) for a step of ε^(1/3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from dlnphase.backend import stream
from dlnphase.costs.interface import ConvexCost, Cost
from dlnphase.costs.minimise import Found
from dlnphase.costs.own import OwnCost
from dlnphase.errors import InputError

EPS = torch.finfo(torch.float64).eps
STEP = EPS ** (1 / 3)
OFF = 100 * EPS ** (2 / 3)  # relative error of a central difference that is still round-off and third derivatives
EXACT = 1e3 * EPS  # the same for two ways to compute one number
SIZES = (0.1, 1.0, 10.0)  # of the entries of the matrices tried
BATCH = 4  # matrices at once: a cost that mixes members of a batch is found out by the second one already


def check_cost(cost: Any, *, seed: int = 0) -> None:
    """Compare a cost with its own derivatives, and with what a convex cost must be, at random matrices in float64.

    Args:
        cost: an object with ``shape`` and ``value()`` (or ``excess()`` and ``minimum``); what else it says of a
            :class:`dlnphase.costs.interface.ConvexCost` is compared, what it does not say is derived.
        seed: of the matrices.

    Raises:
        InputError: with one line for everything that is wrong: which method, what was found, what is expected.
    """
    told = hasattr(cost, "minimum")
    if not told and not callable(getattr(cost, "value", None)):
        raise InputError("cost: value() is missing, expected it, or excess() and minimum")
    if not isinstance(cost, ConvexCost):
        cost = OwnCost(cost, None if told else Found(0.0, None, False))  # nothing is looked for: numbers are compared
    shape = tuple(cost.shape)
    if len(shape) != 2 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise InputError(f"cost: shape is {shape}, expected (d_out, d_in)")
    rng = stream(seed, "search")
    problems: dict[str, str] = {}  # the first three words → the whole line: the same mistake at every size is told once
    for size in SIZES:
        a, b, v = (torch.as_tensor(size * rng.standard_normal((BATCH, *shape))) for _ in range(3))
        found = list(_forms(cost, a, v))
        if not found:  # numbers of the wrong shape cannot be compared
            found = [*_values(cost, a, b, told), *_derivatives(cost, a, v / torch.linalg.vector_norm(v) * size)]
        for words in found:
            problems.setdefault(" ".join(words.split()[:3]), f"cost: {words}")
    if problems:
        raise InputError("\n".join(problems.values()))


def _forms(cost: Cost, a: Tensor, v: Tensor) -> Iterator[str]:
    """Shape, dtype, finiteness; the same numbers alone and in a batch; arguments left alone."""
    size = a[0].numel()
    calls: dict[str, tuple[Callable[[Tensor], Tensor], tuple[tuple[int, ...], ...]]] = {
        "excess": (cost.excess, ((BATCH,),)),
        "gradient": (cost.gradient, (tuple(a.shape),)),
        "apply_curvature": (lambda x: cost.apply_curvature(v[: len(x)], x), (tuple(a.shape),)),
        "curvature": (cost.curvature, ((size, size), (BATCH, size, size))),
    }
    for name, (call, shapes) in calls.items():
        given = a.clone()
        try:
            out = call(given)
        except Exception as error:
            yield f"{name}() raises {type(error).__name__} for a batch of {BATCH} matrices ({error})"
            continue
        if not isinstance(out, Tensor) or tuple(out.shape) not in shapes:
            what = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            yield f"{name}() of {BATCH} matrices gives {what}, expected {' or '.join(str(s) for s in shapes)}"
            continue
        if out.dtype != a.dtype:
            yield f"{name}() gives {out.dtype} for matrices of {a.dtype}, expected the same"
        if not torch.isfinite(out).all():
            yield f"{name}() gives numbers that are not finite"
        if not torch.equal(given, a):
            yield f"{name}() changes the matrices it is given"
        alone = call(a[:1])
        first = out[:1] if len(out) == BATCH and tuple(out.shape) != (size, size) else out
        if not _close(alone.reshape(-1), first.reshape(-1), EXACT):
            yield f"{name}() gives another answer for a matrix alone than in a batch"


def _values(cost: Cost, a: Tensor, b: Tensor, told: bool) -> Iterator[str]:
    """C − C_min is never negative, and convex on segments."""
    ends, middle = (cost.excess(a), cost.excess(b)), cost.excess((a + b) / 2)
    largest = torch.stack([*ends, middle]).abs().max()
    lowest = torch.stack([*ends, middle]).min()
    if told and lowest < -EXACT * largest:
        yield f"excess() is {float(lowest):.3g} at a random matrix, below 0: minimum is not the least value of C"
    above = middle - (ends[0] + ends[1]) / 2
    if (above > EXACT * largest).any():
        yield (
            f"not convex: between two random matrices C lies {float(above.max()):.3g} above the line that joins its "
            "values there"
        )


def _derivatives(cost: Cost, a: Tensor, v: Tensor) -> Iterator[str]:
    """Gradient and Hessian against central differences; the two forms of the Hessian against each other."""
    size = a[0].numel()
    up, down = a + STEP * v, a - STEP * v
    slope, told = (cost.excess(up) - cost.excess(down)) / (2 * STEP), (cost.gradient(a) * v).sum((-2, -1))
    noise = torch.linalg.vector_norm(cost.gradient(a)) * torch.linalg.vector_norm(v) + cost.excess(a).abs().max()
    worst = int((slope - told).abs().argmax())
    if (slope - told).abs()[worst] > OFF * noise:
        yield (
            f"gradient() is wrong: along a random direction C rises by {float(slope[worst]):.6g} per unit, gradient() "
            f"says {float(told[worst]):.6g}{_factor(told, slope)}"
        )
    bend, product = (cost.gradient(up) - cost.gradient(down)) / (2 * STEP), cost.apply_curvature(v, a)
    noise = torch.linalg.vector_norm(bend) + torch.linalg.vector_norm(cost.gradient(a))
    if torch.linalg.vector_norm(bend - product) > OFF * noise:
        yield (
            "apply_curvature() is not the derivative of gradient(): its norm is "
            f"{float(torch.linalg.vector_norm(product)):.6g}, that of the difference quotient "
            f"{float(torch.linalg.vector_norm(bend)):.6g}{_factor(product, bend)}"
        )
    matrix = cost.curvature(a).expand(BATCH, size, size)
    if not _close((matrix @ v.flatten(1).unsqueeze(-1)).squeeze(-1), product.flatten(1), EXACT * size):
        yield "curvature() and apply_curvature() give different Hessians (rows and columns are entries of A row by row)"
    if not _close(matrix, matrix.transpose(-2, -1), EXACT):
        yield "curvature() is not symmetric"


def _factor(told: Tensor, measured: Tensor) -> str:
    """A constant factor between the two, if that is all."""
    factor = float((told * measured).sum() / (measured * measured).sum().clamp_min(torch.finfo(torch.float64).tiny))
    constant = _close(told, factor * measured, 1e-4) and abs(factor) > 1e-4
    return f": too large by a factor of {factor:.4g}" if constant else ""


def _close(x: Tensor, y: Tensor, tolerance: float) -> bool:
    return bool((x - y).abs().max() <= tolerance * torch.maximum(x.abs().max(), y.abs().max()))

"""Cases by name: ``class:seed:number`` draws the same network and task on every machine.

The classes are stratified: each aims at one thing that can go wrong and leaves the rest to chance. NumPy alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

Rng = np.random.Generator
TASKS = ("factorization", "completion", "sensing", "regression")


@dataclass(frozen=True)
class Case:
    """A network and what it is to learn.

    Attributes:
        name: ``class:seed:number``.
        layers: W_1 … W_L, W_l of shape (n_l, n_{l-1}).
        task: factorization, completion, sensing or regression.
        data: its arrays: ``target`` | ``operators``, ``values`` | ``X``, ``Y``.
        words: what was drawn, for people.
    """

    name: str
    layers: list[np.ndarray]
    task: str
    data: dict[str, np.ndarray]
    words: str


@dataclass(frozen=True)
class Plan:
    """What a class asks for; what it leaves at None or as a range is drawn.

    Attributes:
        depth, side, gamma: ranges (both ends included) of L, of d_out and d_in, and of γ.
        width: ``below`` (1 … rank of the target − 1, a bottleneck), ``between`` (rank … min d), ``at``
            (w = d_in = d_out), ``above``, ``wide`` (20 … 40), ``ragged`` (each hidden layer its own), or ``any``.
        tasks: among which to choose.
        rank: ``low``, ``full``, ``zero`` or ``any``.
        spectrum: ``plain`` (1 … 10), ``near`` (values that differ by 1e-3 to 1e-8, or not at all) or ``steep``
            (condition up to 1e6).
        start: ``gaussian``, ``balanced``, ``uneven`` (layers of scales 0.03 … 30) or ``orthogonal``.
        scale: decades by which the target is scaled.
        noise: relative to the smallest value planted.
        widest: of the hidden layers, for ``above`` and ``any``.
    """

    depth: tuple[int, int] = (2, 5)
    side: tuple[int, int] = (2, 5)
    gamma: tuple[float, float] = (0.5, 2.5)
    width: str = "any"
    tasks: tuple[str, ...] = TASKS
    rank: str = "any"
    spectrum: str = "plain"
    start: str = "gaussian"
    scale: float = 0.0
    noise: float = 0.0
    widest: int = 10


CLASSES: dict[str, Plan] = {
    "lazy": Plan(gamma=(0.3, 0.9), width="above"),
    "mean-field": Plan(gamma=(0.9, 1.1), width="above"),
    "small-start": Plan(gamma=(1.2, 2.2), width="above"),
    "tiny-start": Plan(gamma=(2.2, 3.5), width="above", depth=(2, 4)),
    "large-start": Plan(gamma=(-0.5, 0.3), width="above", depth=(2, 4)),
    "two-layers": Plan(depth=(2, 2)),
    "deep": Plan(depth=(6, 8), side=(2, 3), gamma=(0.7, 2.0)),
    "bottleneck": Plan(width="below", rank="full", side=(3, 5)),
    "narrow": Plan(width="between", rank="low", side=(3, 5)),
    "square-low-rank": Plan(width="at", rank="low", side=(3, 5), tasks=("factorization", "regression")),
    "square": Plan(width="at"),
    "ragged": Plan(width="ragged"),
    "wide": Plan(width="wide", depth=(2, 3), gamma=(0.5, 1.5)),
    "near-equal": Plan(spectrum="near", side=(3, 5)),
    "steep": Plan(spectrum="steep", side=(3, 5), gamma=(0.7, 2.0)),
    "scaled": Plan(scale=6.0),
    "noisy": Plan(noise=0.3),
    "vectors": Plan(side=(1, 5)),
    "zero-target": Plan(rank="zero", tasks=("factorization", "completion", "regression")),
    "balanced": Plan(start="balanced"),
    "uneven-layers": Plan(start="uneven", gamma=(0.7, 1.5)),
    "orthogonal": Plan(start="orthogonal"),
}


# Small enough for brute force: every class meets lazy, mean-field and small starts.
_SMALL = Plan(depth=(2, 3), side=(2, 3), gamma=(0.4, 2.5), width="above", widest=6)
DISTANCE_CLASSES: dict[str, Plan] = {
    "factorization": replace(_SMALL, tasks=("factorization",), rank="full"),
    "two-layers": replace(_SMALL, tasks=("factorization",), rank="full", depth=(2, 2)),
    "four-layers": replace(_SMALL, tasks=("factorization",), rank="full", depth=(4, 4), side=(2, 2), widest=4),
    "low-rank": replace(_SMALL, tasks=("factorization",), rank="low"),
    "completion": replace(_SMALL, tasks=("completion",)),
    "sensing": replace(_SMALL, tasks=("sensing",)),
    "regression": replace(_SMALL, tasks=("regression",)),
    "noisy": replace(_SMALL, noise=0.3),
    "narrow": replace(_SMALL, width="between", rank="low", side=(2, 4)),
    "scaled": replace(_SMALL, scale=3.0),
    "large-start": replace(_SMALL, gamma=(-0.5, 0.4)),
}

_POINT = Plan(depth=(2, 5), side=(2, 5), width="above", rank="full", gamma=(1.0, 1.0), widest=8)
CERTIFICATE_CLASSES: dict[str, Plan] = {
    **{task: replace(_POINT, tasks=(task,)) for task in TASKS},
    "two-layers": replace(_POINT, depth=(2, 2)),
    "low-rank": replace(_POINT, rank="low"),
    "square": replace(_POINT, width="at"),
    "bottleneck": replace(_POINT, width="below", side=(3, 5)),
    "ragged": replace(_POINT, width="ragged"),
    "near-equal": replace(_POINT, spectrum="near", side=(3, 5)),
    "steep": replace(_POINT, spectrum="steep", side=(3, 5)),
    "noisy": replace(_POINT, noise=0.3),
    "scaled": replace(_POINT, scale=6.0),
}


def case_of(name: str, classes: dict[str, Plan] = CLASSES) -> Case:
    """The case of a name; ValueError for a name that is none."""
    kind, seed, number = (name.split(":") + ["", ""])[:3]
    if kind not in classes or not seed.isdigit() or not number.isdigit():
        raise ValueError(f"{name!r} is no case; expected CLASS:SEED:NUMBER with a class of {', '.join(classes)}")
    return draw(name, classes[kind], rng_of(name))


def rng_of(name: str) -> Rng:
    """The stream of a case."""
    kind, seed, number = name.split(":")
    return np.random.default_rng([zlib.crc32(kind.encode()), int(seed), int(number)])


def draw(name: str, plan: Plan, rng: Rng) -> Case:
    """One case of a plan."""
    depth = int(rng.integers(*plan.depth, endpoint=True))
    shape = _shape(plan, rng)
    gamma = float(rng.uniform(*plan.gamma))
    target, words = _target(plan, shape, rng)
    rank = int(np.linalg.matrix_rank(target))
    hidden = _hidden(plan, depth, shape, rank, rng)
    task = str(rng.choice(plan.tasks))
    layers = _start(plan, (shape[1], *hidden, shape[0]), gamma, rng)
    data = _data(task, target, plan.noise, rng)
    text = f"{task} {shape[0]}x{shape[1]} rank {rank} {words}, L={depth} hidden {hidden} γ={gamma:.3g} {plan.start}"
    return Case(name, layers, task, data, text)


def _shape(plan: Plan, rng: Rng) -> tuple[int, int]:
    d_out, d_in = (int(n) for n in rng.integers(*plan.side, endpoint=True, size=2))
    return (d_in, d_in) if plan.width == "at" else (d_out, d_in)


def _target(plan: Plan, shape: tuple[int, int], rng: Rng) -> tuple[np.ndarray, str]:
    full = min(shape)
    rank = {"zero": 0, "full": full, "low": int(rng.integers(1, max(full - 1, 1), endpoint=True))}.get(
        plan.rank, int(rng.integers(1, full, endpoint=True))
    )
    if rank == 0:
        return np.zeros(shape), "zero"
    s = _spectrum(plan, rank, rng) * 10.0 ** rng.uniform(-plan.scale, plan.scale)
    u = np.linalg.qr(rng.standard_normal((shape[0], rank)))[0]
    v = np.linalg.qr(rng.standard_normal((shape[1], rank)))[0]
    return (u * s) @ v.T, "s = " + ", ".join(f"{x:.4g}" for x in s)


def _spectrum(plan: Plan, rank: int, rng: Rng) -> np.ndarray:
    if plan.spectrum == "near":
        gap = 10.0 ** rng.uniform(-8, -3) if rng.random() < 0.7 else 0.0
        s = rng.uniform(1.0, 10.0, size=rank)
        s[: max(2, rank - 1)] = s[0] * (1 - gap * np.arange(len(s[: max(2, rank - 1)])))
        return np.sort(s)[::-1]
    if plan.spectrum == "steep":
        return 10.0 * np.geomspace(1.0, 10.0 ** -rng.uniform(2, 6), rank)
    return np.sort(10.0 ** rng.uniform(0.0, 1.0, size=rank))[::-1]


def _hidden(plan: Plan, depth: int, shape: tuple[int, int], rank: int, rng: Rng) -> tuple[int, ...]:
    low, high = min(shape), max(shape)
    choose: dict[str, Callable[[], int]] = {
        "below": lambda: int(rng.integers(1, max(rank - 1, 1), endpoint=True)),
        "between": lambda: int(rng.integers(max(rank, 1), low, endpoint=True)),
        "at": lambda: low,
        "above": lambda: int(rng.integers(high + 1, plan.widest, endpoint=True)),
        "wide": lambda: int(rng.integers(20, 40, endpoint=True)),
        "any": lambda: int(rng.integers(max(rank, 1), plan.widest, endpoint=True)),
        "ragged": lambda: int(rng.integers(max(rank, 1), 8, endpoint=True)),
    }
    if plan.width == "ragged":
        return tuple(choose["ragged"]() for _ in range(depth - 1))
    return (choose[plan.width](),) * (depth - 1)


def _start(plan: Plan, dims: tuple[int, ...], gamma: float, rng: Rng) -> list[np.ndarray]:
    width = max(dims[1:-1])
    sigma = width ** (-gamma / 2)
    pairs = list(pairwise(dims))
    if plan.start == "balanced":
        k = min(dims)
        frames = [np.linalg.qr(rng.standard_normal((n, k)))[0] for n in dims]
        roots = sigma * np.sqrt(width) * rng.uniform(0.3, 1.0, size=k)
        return [(b * roots) @ a.T for a, b in pairwise(frames)]
    layers = [sigma * rng.standard_normal((b, a)) for a, b in pairs]
    if plan.start == "orthogonal":
        layers = [sigma * np.sqrt(max(w.shape)) * _polar(w) for w in layers]
    if plan.start == "uneven":
        factors = 10.0 ** rng.uniform(-1.5, 1.5, size=len(layers))
        factors /= np.prod(factors) ** (1 / len(layers))
        layers = [w * f for w, f in zip(layers, factors, strict=True)]
    return layers


def _polar(w: np.ndarray) -> np.ndarray:
    u, _, vt = np.linalg.svd(w, full_matrices=False)
    return u @ vt


def _data(task: str, target: np.ndarray, noise: float, rng: Rng) -> dict[str, np.ndarray]:
    d_out, d_in = target.shape
    size = target.size
    s = np.linalg.svd(target, compute_uv=False)
    deviation = noise * float(s[s > 1e-12 * max(s[0], 1e-300)][-1]) if s[0] > 0 else noise
    if task in ("factorization", "completion"):
        seen = target + deviation * rng.standard_normal(target.shape)
        if task == "completion" and size > 1:
            gone = rng.permutation(size)[: max(1, round(rng.uniform(0.1, 0.4) * size))]
            seen.flat[gone] = np.nan
        return {"target": seen}
    if task == "sensing":
        count = max(1, round(rng.uniform(0.5, 1.5) * size))
        operators = rng.standard_normal((count, d_out, d_in)) / np.sqrt(count)
        values = np.einsum("mij,ij->m", operators, target)
        return {"operators": operators, "values": values + deviation * rng.standard_normal(count)}
    count = int(rng.integers(max(1, d_in - 1), 4 * d_in, endpoint=True))
    x = rng.standard_normal((count, d_in)) * 10.0 ** rng.uniform(-0.5, 0.5, size=d_in)
    return {"X": x, "Y": x @ target.T + deviation * rng.standard_normal((count, d_out))}

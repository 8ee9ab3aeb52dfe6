"""Noise: one noisy mode against the quadrature of its Fokker–Planck equation, and reduced networks against full ones.

One mode, L = 2. With label noise of standard deviation σ, a step of a 1 × 1 factorization towards s is, from balanced
weights u, u, and with weight decay λ,

    u ← u + η[(s − u²)u − λu] + ησuξ,     ξ of N(0, 1),

and so, as η → 0 at D = ησ²/2, the diffusion du = u(s − λ − u²) dt + √(2D)·u dW in the sense of Itô; with heavy ball
the same with η/(1 − β) for η. In x = ln u its drift is s − λ − D − e^(2x). Its stationary law and its mean
first-passage times, up to a mode and down from it, are held against the package's runs.

In law. Reduced and full networks (w = 64) with the same noise and seeds of their own: Kolmogorov–Smirnov tests on the
time of the first mode, on the dwell before the second, and on the final singular values, corrected by Holm's method.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import ks_2samp

from gauntlet.reference.diffusion import Diffusion
from gauntlet.verdict import Verdict

TOLERANCE = 0.03  # of a mean time, and of the mean, the standard deviation and the quantiles of a stationary law
LEVEL = 1e-3  # of the tests of one case together
SHARES = (0.1, 0.5, 0.9)
SETTLED = 5.0  # the time from which on a law is taken for the stationary one
GROUP = 2000  # runs at once: a step draws for all of them
BEYOND = 0.5826  # −ζ(1/2)/√(2π)


@dataclass(frozen=True)
class Mode:
    """One noisy mode with s = 1.

    Attributes:
        start, end: sizes of the mode between which its time is taken; no ``end``: the stationary law, from ``start``.
        strength: D.
        decay, momentum: λ and β.
        pace: time of a step.
        length: longest run, and for a stationary law the length of all of it.
        members: runs.
    """

    start: float
    end: float | None
    strength: float = 0.1
    decay: float = 0.0
    momentum: float = 0.0
    pace: float = 0.0005
    length: float = 30.0
    members: int = 4000


@dataclass(frozen=True)
class Law:
    """Modes 3 and 1.5 of a 4 × 4 matrix, learned by full and by reduced networks.

    Attributes:
        dynamics, momentum, decay: the algorithm, β and λ.
        depth, lr, steps: L, η and how long a run is.
        label_noise, batch: σ, and how many of the 16 entries a step sees.
        members: networks of each kind.
    """

    dynamics: str
    momentum: float = 0.0
    decay: float = 0.0
    depth: int = 2
    lr: float = 0.01
    steps: int = 800
    label_noise: float = 3.0
    batch: int | None = None
    members: int = 300


CLASSES: dict[str, Mode | Law] = {
    "stationary": Mode(0.9, None, pace=0.002, members=2000),
    "stationary-decay": Mode(0.6, None, decay=0.3, pace=0.002, members=2000),
    "stationary-momentum": Mode(0.9, None, momentum=0.5, pace=0.002, members=2000),
    "passage-up": Mode(0.01, 0.5),
    "passage-up-decay": Mode(0.01, 0.35, decay=0.3),
    "passage-up-momentum": Mode(0.01, 0.5, momentum=0.5),
    "passage-down": Mode(0.75, 0.2, strength=0.25, pace=0.001, length=60.0, members=6000),
    "law-sgd": Law("sgd"),
    "law-sgd-decay": Law("sgd", decay=0.3),
    "law-momentum": Law("sgd", momentum=0.8, lr=0.002),
    "law-momentum-decay": Law("sgd", momentum=0.8, decay=0.3, lr=0.002),
    "law-muon": Law("muon", momentum=0.9, steps=300),
    "law-muon-decay": Law("muon", momentum=0.9, decay=0.3, steps=300),
    "law-deep-batches": Law("sgd", depth=3, label_noise=0.0, batch=4, lr=0.004, steps=2000),
    "law-deep-momentum-decay": Law("sgd", momentum=0.8, decay=0.1, depth=3, lr=0.002, steps=800),
}
TARGET = np.diag([3.0, 1.5, 0.0, 0.0])
WIDTH, GAMMA = 64, 1.5


def judge(name: str) -> Verdict:
    """One design, with the streams of a seed."""
    kind, seed, number = name.split(":")
    own = 10_000 * int(seed) + 100 * list(CLASSES).index(kind) + int(number)  # no two classes draw alike
    return judge_design(name, CLASSES[kind], own)


def judge_design(name: str, design: Mode | Law, seed: int) -> Verdict:
    """The same of any design."""
    words = ", ".join(f"{key} {value}" for key, value in vars(design).items() if value is not None)
    verdict = Verdict("noise", name, words)
    started = time.process_time()
    if isinstance(design, Law):
        compare_laws(run_law(design, "full", 2 * seed), run_law(design, "krylov", 2 * seed + 1), verdict)
        verdict.reference = "Kolmogorov–Smirnov, Holm"
    else:
        compare_mode(design, run_mode(design, seed), verdict)
        verdict.reference = "quadrature"
    verdict.seconds = (time.process_time() - started, 0.0)
    verdict.status = "fails" if verdict.faults else "agrees"
    return verdict


# ---- one mode ------------------------------------------------------------------------------------------


def run_mode(design: Mode, seed: int) -> np.ndarray:
    """Times of passage of all runs (inf where there was none), or sizes of the mode at times one apart from 5 on."""
    parts = np.split(np.arange(design.members), range(GROUP, design.members, GROUP))
    return np.concatenate([_some(design, seed, members) for members in parts])


def _some(design: Mode, seed: int, members: np.ndarray) -> np.ndarray:
    import torch

    from dlnphase.backend import resolve_backend
    from dlnphase.costs.quadratic import factorization
    from dlnphase.dynamics import Draws, HeavyBall, Update, gradient_descent
    from dlnphase.networks.chain import Network

    cost = factorization(np.ones((1, 1)), resolve_backend("cpu"))
    network = Network(torch.full((len(members), 2), design.start**0.5, dtype=torch.float64), (1, 1, 1))
    sigma = (2 * design.strength / design.pace) ** 0.5
    records = gradient_descent(
        network,
        cost,
        lr=design.pace * (1 - design.momentum),
        max_steps=round(design.length / design.pace),
        tol=0,
        record_every=1 if design.end is not None else round(1 / design.pace),
        weight_decay=design.decay,
        update=HeavyBall(design.momentum) if design.momentum else Update(),
        draws=Draws(cost.observations, members, label_noise=sigma, seed=seed),
    )
    if design.end is None:
        return np.concatenate([record.A[:, 0, 0] for record in records if record.time[0] >= SETTLED])
    times = np.full(len(members), np.inf)
    for record in records:
        there = (record.A[:, 0, 0] - design.end) * (design.end - design.start) >= 0
        times[there] = np.minimum(times[there], record.time[there])
        if np.isfinite(times).all():
            break
    return times


def compare_mode(design: Mode, found: np.ndarray, verdict: Verdict) -> None:
    """With the quadrature."""
    rate, strength = 1 - design.decay, design.strength
    law = Diffusion(
        lambda x: rate - strength - np.exp(2 * x),
        lambda x: np.full_like(x, (2 * strength) ** 0.5),
        np.log(1e-5),
        np.log(5 * rate**0.5),
    )
    if design.end is not None:
        start, end = 0.5 * np.log(design.start), 0.5 * np.log(design.end)
        # What is seen at steps alone passes a level as the diffusion passes one so much beyond (Siegmund 1979).
        beyond = 0.0 if design.momentum else BEYOND * (2 * strength * design.pace) ** 0.5
        true = law.passage(start, end + np.sign(end - start) * beyond)
        limit = law.passage(start, end)
        told, late = float(found.mean()), int(np.isinf(found).sum())
        error = float(found.std() / len(found) ** 0.5 / true) if not late else np.inf
        verdict.numbers |= {"passage": abs(told / true - 1), "passage_error": error}
        verdict.words += (
            f"; mean time {told:.4f} ± {100 * error:.2g} %, by quadrature {true:.4f} (seen at all times {limit:.4f})"
        )
        if not abs(told / true - 1) <= TOLERANCE:
            verdict.faults.append(f"passage: {told:.4f}, by quadrature {true:.4f}; {late} runs never came")
        return
    mean = law.mean(lambda x: np.exp(2 * x))
    pairs = {
        "mean": (found.mean(), mean),
        "deviation": (found.std(), law.mean(lambda x: (np.exp(2 * x) - mean) ** 2) ** 0.5),
        **{f"{100 * p:g} %": (np.quantile(found, p), np.exp(2 * law.quantile(p))) for p in SHARES},
    }
    verdict.numbers["stationary"] = max(float(abs(told / true - 1)) for told, true in pairs.values())
    verdict.words += "; " + ", ".join(f"{what} {told:.4f} ({true:.4f})" for what, (told, true) in pairs.items())
    for what, (told, true) in pairs.items():
        if not abs(told / true - 1) <= TOLERANCE:
            verdict.faults.append(f"stationary: {what} {told:.4f}, by quadrature {true:.4f}")


# ---- in law --------------------------------------------------------------------------------------------


def run_law(design: Law, representation: str, seed: int) -> dict[str, np.ndarray]:
    """Of every network: when the first mode is at half its size, the dwell until the second is, and final modes."""
    from dlnphase.backend import resolve_backend
    from dlnphase.costs.quadratic import factorization
    from dlnphase.dynamics import Draws, HeavyBall, Muon, Update, gradient_descent
    from dlnphase.networks.representation import initial_network
    from dlnphase.setup.representation import choose_representation

    backend = resolve_backend("cpu")
    cost, members = factorization(TARGET, backend), np.arange(design.members)
    network: Any = (design.depth, WIDTH, TARGET.shape, WIDTH ** (-GAMMA / 2))
    chosen = choose_representation(*network, cost, backend, representation=representation, seed=seed)
    rules: dict[str, Callable[[], Update]] = {"muon": partial(Muon, design.momentum), "sgd": Update}
    rule = partial(HeavyBall, design.momentum) if design.momentum and design.dynamics == "sgd" else None
    draws = Draws(cost.observations, members, batch_size=design.batch, label_noise=design.label_noise, seed=seed)
    records = gradient_descent(
        initial_network(chosen, *network, backend, seed=seed, members=members.tolist()),
        cost,
        lr=design.lr,
        max_steps=design.steps,
        tol=0,
        record_every=5,
        weight_decay=design.decay,
        update=(rule or rules[design.dynamics])(),
        draws=draws,
    )
    modes = np.stack([np.linalg.svd(record.A, compute_uv=False) for record in records])  # records, members, modes
    first, second = (_crossing(modes[:, :, k], TARGET[k, k] / 2) for k in range(2))
    return {"first mode": first, "dwell": second - first} | {f"s_{k + 1}": modes[-1, :, k] for k in range(4)}


def _crossing(sizes: np.ndarray, level: float) -> np.ndarray:
    """Number of records, as a real one, before each column first is at a level; their count where it never is."""
    there = sizes >= level
    index = np.where(there.any(0), there.argmax(0), 0)
    column = np.arange(sizes.shape[1])
    before, after = sizes[np.maximum(index - 1, 0), column], sizes[index, column]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(index > 0, (level - before) / (after - before), 1.0)
    return np.where(there.any(0), index - 1 + part, len(sizes))


def compare_laws(full: dict[str, np.ndarray], reduced: dict[str, np.ndarray], verdict: Verdict) -> None:
    """Kolmogorov–Smirnov tests of each number, corrected by Holm (1979)."""
    chances = {what: float(ks_2samp(full[what], reduced[what]).pvalue) for what in full}
    order = sorted(chances, key=chances.__getitem__)
    corrected, least = {}, 0.0
    for k, what in enumerate(order):
        least = corrected[what] = max(least, min(1.0, (len(order) - k) * chances[what]))
    verdict.numbers["chance"] = min(corrected.values())
    verdict.words += "; " + ", ".join(
        f"{what} {np.mean(full[what]):.4g} and {np.mean(reduced[what]):.4g} (p {corrected[what]:.2g})" for what in full
    )
    verdict.faults += [f"law: {what}, p {p:.2g}" for what, p in corrected.items() if p < LEVEL]

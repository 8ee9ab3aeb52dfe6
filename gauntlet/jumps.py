"""Jumps of the rank under label noise: down with weight decay, never back up; up alone without.

With weight decay, L ≥ 3, each rank that pays has a minimum of its own, and small noise lets a run fall from one of
high rank to one of lower rank, not the other way (Wang, Jacot 2023). Starts from large weights settle at rank 3 of a
completion whose third mode only just has a minimum; what they do after that is counted, a mode being lost below LOST
and gained above GAINED. Without decay starts from small weights take the ordinary path, rank by rank.
Shares of the starts have exact intervals (Clopper, Pearson 1934).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from gauntlet.verdict import Verdict

LOST, GAINED = 0.01, 0.3  # of a mode of size 1, whose barrier is at 0.05 and whose minimum at 0.4
RECORDS = 400


@dataclass(frozen=True)
class Jumps:
    """Many starts of the network of gallery/jumps.yaml.

    Attributes:
        decay, gamma: λ and γ.
        settled: the time from which on jumps are counted.
        down: whether modes are to be lost, and none gained; else each of the three is to be gained, and none lost.
        label_noise, lr, steps: σ, η and how long a run is.
        members: starts.
    """

    decay: float
    gamma: float
    settled: float
    down: bool
    label_noise: float = 0.7
    lr: float = 0.02
    steps: int = 20_000
    members: int = 100


CLASSES = {
    "decay": Jumps(0.36, 0.6, 40.0, down=True),
    "less-noise": Jumps(0.36, 0.6, 40.0, down=True, label_noise=0.5),
    "no-decay": Jumps(0.0, 2.0, 0.0, down=False),
}
SHAPE, MODES, OBSERVED, DEPTH, WIDTH = (6, 6), (4.0, 2.0, 1.0), 0.8, 3, 20


def judge(name: str) -> Verdict:
    """One design, with the starts of a seed."""
    kind, seed, number = name.split(":")
    own = 10_000 * int(seed) + 100 * list(CLASSES).index(kind) + int(number)  # no two classes draw alike
    return judge_design(name, CLASSES[kind], own)


def judge_design(name: str, design: Jumps, seed: int) -> Verdict:
    """The same of any design."""
    words = ", ".join(f"{key} {value}" for key, value in vars(design).items())
    verdict, started = Verdict("jump", name, words), time.process_time()
    compare(design, *run_package(design, seed), verdict)
    verdict.seconds = (time.process_time() - started, 0.0)
    verdict.status = "fails" if verdict.faults else "agrees"
    return verdict


def run_package(design: Jumps, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Times of the records and singular values of A at them, shapes (T,) and (T, members, 6)."""
    from dlnphase.backend import resolve_backend
    from dlnphase.costs.tasks import planted_task
    from dlnphase.dynamics import Draws, gradient_descent
    from dlnphase.networks.sampling import gaussian_network

    backend, members = resolve_backend("cpu"), np.arange(design.members)
    cost = planted_task("completion", SHAPE, MODES, backend, observed=OBSERVED).cost
    dims = (SHAPE[1], *[WIDTH] * (DEPTH - 1), SHAPE[0])
    network = gaussian_network(dims, WIDTH ** (-design.gamma / 2), backend, seed=seed, members=members.tolist())
    records = gradient_descent(
        network,
        cost,
        lr=design.lr,
        max_steps=design.steps,
        tol=0,
        record_every=max(1, design.steps // RECORDS),
        weight_decay=design.decay,
        draws=Draws(cost.observations, members, label_noise=design.label_noise, seed=seed),
    )
    times, sizes = zip(
        *((record.time[0], np.linalg.svd(record.A, compute_uv=False)) for record in records), strict=True
    )
    return np.array(times), np.stack(sizes)


def jumps(times: np.ndarray, sizes: np.ndarray, settled: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Modes lost and gained by each start from then on, and the rank it settled at; shapes (members,).

    Args:
        times, sizes: as of :func:`run_package`.
    """
    first = int(np.searchsorted(times, settled))
    there = sizes[first] > (LOST * GAINED) ** 0.5
    rank, lost, gained = there.sum(1), np.zeros(sizes.shape[1], int), np.zeros(sizes.shape[1], int)
    for now in sizes[first + 1 :]:
        falls, rises = there & (now < LOST), ~there & (now > GAINED)
        lost, gained = lost + falls.sum(1), gained + rises.sum(1)
        there = (there & ~falls) | rises
    return lost, gained, rank


def compare(design: Jumps, times: np.ndarray, sizes: np.ndarray, verdict: Verdict) -> None:
    """Count, and hold against what is to be seen."""
    lost, gained, rank = jumps(times, sizes, design.settled)
    after = rank + gained - lost
    shares = {"down": int((lost > 0).sum()), "up": int((gained > 0).sum())}
    for what, count in shares.items():
        exact = binomtest(count, design.members).proportion_ci(method="exact")
        verdict.numbers |= {what: count / design.members, f"{what}_low": exact.low, f"{what}_high": exact.high}
        verdict.words += f"; {count} of {design.members} starts jumped {what} ({exact.low:.3f} – {exact.high:.3f})"
    first, last = (dict(zip(*np.unique(k, return_counts=True), strict=True)) for k in (rank, after))
    verdict.words += "; ranks " + " → ".join(
        ", ".join(f"{k} of {count}" for k, count in ranks.items()) for ranks in (first, last)
    )
    if design.down:
        verdict.faults += [] if shares["down"] else ["jumps: none down"]
        verdict.faults += [f"jumps: {shares['up']} starts jumped up"] if shares["up"] else []
    elif shares["down"] or (gained != len(MODES)).any():
        verdict.faults.append(
            f"jumps: {shares['down']} starts jumped down, modes gained {sorted(set(gained.tolist()))}"
        )

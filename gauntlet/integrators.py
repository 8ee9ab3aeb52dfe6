"""``python -m gauntlet.integrators``: each integrator against SciPy where width and dimensions are equal, rank is not.

There the rest decays slowly, along directions that no learned mode holds, and steps are long: the tail of the cost is
where an integrator is late without anything else looking wrong. Prints one line a case and method, then a table.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from dlnphase.dynamics.flow import METHODS
from gauntlet.reference.costs import cost_of
from gauntlet.reference.flow import follow

TOL, DECADES = 1e-8, 8


@dataclass(frozen=True)
class Tail:
    """A start of width d_in = d_out and a target of lower rank."""

    words: str
    layers: list[np.ndarray]
    target: np.ndarray


def drawn(seed: int, number: int) -> Tail:
    """One case; the same on every machine."""
    rng = np.random.default_rng([seed, number])
    depth, d = int(rng.integers(2, 4, endpoint=True)), int(rng.integers(3, 6, endpoint=True))
    rank, gamma = int(rng.integers(1, d)), float(rng.choice([0.5, 0.75, 1.0, 1.25]))
    s = np.sort(rng.uniform(1.0, 3.0, size=rank))[::-1]
    u, v = (np.linalg.qr(rng.standard_normal((d, d)))[0][:, :rank] for _ in range(2))
    layers = [d ** (-gamma / 2) * rng.standard_normal((d, d)) for _ in range(depth)]
    return Tail(f"{d}x{d} rank {rank}, L={depth} γ={gamma:g}", layers, (u * s) @ v.T)


def told(tail: Tail, method: str, rtol: float) -> tuple[np.ndarray, np.ndarray, str]:
    """(times, C − C_min at them, reason) by the package."""
    import torch

    from dlnphase.backend import resolve_backend
    from dlnphase.costs.quadratic import factorization
    from dlnphase.dynamics import gradient_flow
    from dlnphase.networks.chain import Network

    network = Network.from_weights([torch.as_tensor(w) for w in tail.layers])
    cost = factorization(tail.target, resolve_backend("cpu"))
    rows, reason = [], None
    for record in gradient_flow(network, cost, method=method, tol=TOL, rtol=rtol):
        rows.append((float(record.time[0]), float(record.excess[0])))
        reason = record.reasons[0]
    time, excess = np.array(rows).T
    return time, excess, reason or ""


def judge(tail: Tail, methods: list[str], rtol: float) -> dict[str, tuple[str, float]]:
    """By method: the reason, and the largest |log(t / t_ref)| over the levels 10⁻¹ … 10⁻⁸ of the cost."""
    cost = cost_of("factorization", {"target": tail.target})
    first = min(cost.excess(np.linalg.multi_dot(tail.layers[::-1])), cost.excess(np.zeros(cost.shape)))
    levels = first * 10.0 ** -np.arange(1.0, DECADES + 0.01)
    runs = {method: told(tail, method, rtol) for method in methods}
    end = 1.3 * max(float(time[-1]) for time, _, _ in runs.values())
    reached = follow(tail.layers, cost, levels, np.array([end]), rtol=1e-10).reached
    out = {}
    for method, (time, excess, reason) in runs.items():
        lowest = np.log(np.minimum.accumulate(excess))
        off = np.abs(np.log(np.interp(-np.log(levels), -lowest, time) / reached))
        out[method] = reason, float(np.max(off))
    return out


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m gauntlet.integrators", description=__doc__)
    parser.add_argument("-n", "--count", type=int, default=58, help="cases (58)")
    parser.add_argument("--seed", type=int, default=0, help="of the cases (0)")
    parser.add_argument("--rtol", type=float, default=1e-4, help="of the integrators (1e-4)")
    parser.add_argument("--method", action="append", choices=METHODS, help="these alone (all)")
    given = parser.parse_args()
    methods = given.method or list(METHODS)
    errors: dict[str, list[float]] = {method: [] for method in methods}
    for number in range(given.count):
        tail = drawn(given.seed, number)
        for method, (reason, off) in judge(tail, methods, given.rtol).items():
            errors[method].append(off)
            print(f"{number} {tail.words} {method}: {reason}, off by {off:.2g}", flush=True)
    print("\n| method | cases | median | 90 % | largest |\n|---|---|---|---|---|")
    for method, off in errors.items():
        print(f"| {method} | {len(off)} | {np.median(off):.1e} | {np.quantile(off, 0.9):.1e} | {np.max(off):.1e} |")


if __name__ == "__main__":
    main()

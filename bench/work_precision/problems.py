"""The networks, starts and levels of the sweep: a completion of rank 3, four layers, three sizes, three scales."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from bench.work_precision.equation import Chain
from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import QuadraticCost, completion
from dlnphase.networks.chain import Network
from dlnphase.networks.krylov.sample import sample
from dlnphase.networks.sampling import gaussian_network

SINGULAR_VALUES = (10.0, 6.0, 3.0)
DEPTH = 4
SCALES = (1e-1, 1e-3, 1e-6)
# Shares of the cost at A = 0 through which the path is timed: halfway down each burst, and once when all is learned.
LEVELS = (0.65, 0.19, 0.03, 1e-4)
WIDTH = 1000  # of the network that the reduced one stands for
ORDER = 3
DIMS = {"tiny": (4, 4, 4, 4, 4), "small": (10, 13, 13, 13, 10), "reduced": (10, 70, 80, 70, 10)}
OBSERVED = {4: 14, 10: 80}  # of 16 and of 100 entries


@dataclass(frozen=True)
class Problem:
    """One network, cost and start, for both sides.

    Attributes:
        size: tiny, small or reduced.
        alpha: α, the size of a layer of the start seen by a unit vector.
        chain: the equation for general solvers.
        theta: the start, (P,).
        typical: the root mean square of its entries; absolute tolerances are rtol times it.
        network, cost: the same for dlnphase.
        levels: 𝓛 at which the path is timed, from large to small.
    """

    size: str
    alpha: float
    chain: Chain
    theta: np.ndarray
    typical: float
    network: Network
    cost: QuadraticCost
    levels: tuple[float, ...]


@cache
def problem(size: str, alpha: float) -> Problem:
    """The problem of that size and scale, the same in every process."""
    backend, dims = resolve_backend("cpu", threads=1), DIMS[size]
    d = dims[0]
    rng = np.random.default_rng([2026, d])
    left, right = (np.linalg.qr(rng.standard_normal((d, len(SINGULAR_VALUES))))[0] for _ in range(2))
    target = (left * SINGULAR_VALUES) @ right.T
    mask = np.zeros(d * d)
    mask[rng.permutation(d * d)[: OBSERVED[d]]] = 1.0
    mask = mask.reshape(d, d)
    if size == "reduced":
        noise = alpha / WIDTH**0.5
        network = sample(DEPTH, WIDTH, (d, d), noise, ORDER, backend)
    else:
        noise = alpha / max(dims[1:-1]) ** 0.5
        network = gaussian_network(dims, noise, backend)
    assert network.dims == dims, network.dims
    chain = Chain.plain(dims, mask, mask * target)
    cost = completion(target, mask > 0, backend)
    first = 0.5 * float(np.sum((mask * target) ** 2))
    theta = network.theta[0].numpy().copy()
    typical = float(np.sqrt(np.mean(theta**2)))
    return Problem(size, alpha, chain, theta, typical, network, cost, tuple(first * level for level in LEVELS))

"""Bounds of the distances from below: against brute force, against attained points, and with every rounding counted."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from dlnphase.backend import resolve_backend
from dlnphase.costs.tasks import planted_task
from dlnphase.distances import distance_to_minimum, distance_to_saddle
from dlnphase.distances.changes import NormBounds, expansion, series
from dlnphase.distances.enclosures import Enclosed
from dlnphase.distances.lower import least_cost_of_value, lower_bounds
from dlnphase.distances.representation import choose
from dlnphase.networks.chain import Network
from dlnphase.networks.representation import initial_network
from dlnphase.networks.sampling import gaussian_network, hidden_dims, sigma_of

CPU = resolve_backend("cpu")
FIVE = planted_task("factorization", (5, 5), (4.0, 3.2, 2.4, 1.6, 0.8), CPU).cost


def _bounds(cost, depth, width, gamma, members=(0, 1)):
    held = choose(depth, width, cost, CPU, seed=0, member=0)
    sigma = sigma_of(width, gamma)
    network = initial_network(held, depth, width, cost.shape, sigma, CPU, seed=0, members=tuple(members))
    return network, lower_bounds(network, cost, width=width, sigma=sigma, full=held.order is None)


# ---- enclosures ------------------------------------------------------------------------------------------


def test_a_product_lies_within_its_radius_exactly():
    rng = np.random.default_rng(0)
    for scale in (1.0, 1e-8, 1e8):
        a, b = rng.standard_normal((1, 3, 40)) * scale, rng.standard_normal((1, 40, 3)) / scale
        a[0, :, 1], b[0, 1] = -a[0, :, 0] * (1 + 1e-15), b[0, 0]  # cancellation
        product = Enclosed.exact(a) @ Enclosed.exact(b)
        off = Fraction(0)
        for i in range(3):
            for j in range(3):
                exact = sum(Fraction(x) * Fraction(y) for x, y in zip(a[0, i], b[0, :, j], strict=True))
                off += (exact - Fraction(product.mid[0, i, j])) ** 2
        assert off <= Fraction(float(product.radius[0])) ** 2


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e7])
def test_singular_values_are_enclosed(condition):
    rng = np.random.default_rng(1)
    left, right = (np.linalg.qr(rng.standard_normal((n, 4)))[0] for n in (4, 30))
    true = np.geomspace(1.0, 1 / condition, 4)
    matrix = (left * true) @ right.T
    low, high = Enclosed(matrix[None], np.array([1e-14])).singular_values()
    assert low[0] <= true[-1] <= true[0] <= high[0]
    assert high[0] <= 1 + 1e-6
    assert low[0] >= 0.9 * true[-1] - 1e-6  # through the Gram matrix: half the digits


def test_a_singular_matrix_has_no_positive_lower_bound():
    low, _ = Enclosed.exact(np.ones((1, 3, 3))).singular_values()
    assert low[0] <= 1e-6


# ---- changes of products ---------------------------------------------------------------------------------


def test_the_series_is_the_sum_over_sets_of_layers():
    network = gaussian_network((2, 4, 3, 5, 2), 0.7, CPU, members=(0, 1))
    chain = NormBounds(network, 4, 0.7, True)
    bottoms, tops = [chain.below_norm[i] for i in range(4)], [chain.above_norm[3 - i] for i in range(4)]
    sums = expansion(bottoms, tops, chain, 0)
    for size in range(1, 5):
        total = 0.0
        for chosen in combinations(range(4), size):
            norm = bottoms[chosen[0]] * tops[chosen[-1]]
            for low, high in pairwise(chosen):
                norm = norm * chain.run(low + 1, high - 1)
            total = total + norm**2
        assert np.allclose(sums[size - 1], total, rtol=1e-7)


def test_no_change_of_the_layers_moves_the_product_further():
    rng = np.random.default_rng(3)
    closest = 0.0
    for _ in range(300):
        depth = int(rng.integers(2, 6))
        dims = tuple(int(n) for n in rng.integers(1, 5, depth + 1))
        network = gaussian_network(dims, float(rng.uniform(0.1, 2)), CPU, seed=int(rng.integers(1e6)))
        chain = NormBounds(network, min(dims[1:-1]), 1.0, True)
        delta = torch.as_tensor(rng.standard_normal(network.theta.shape)) * float(10 ** rng.uniform(-2, 1))
        rest = network.with_theta(network.theta + delta).product() - network.product() - network.jvp(delta)
        tops = [chain.above_norm[depth - 1 - i] for i in range(depth)]
        sums = expansion(chain.below_norm[:depth], tops, chain, 0)
        bound = series(sums, delta.norm(dim=1).numpy(), 2)
        assert float(rest.norm()) <= bound[0]
        closest = max(closest, float(rest.norm()) / bound[0])
    assert closest > 0.3  # the bound is of the right size


# ---- products of singular values -------------------------------------------------------------------------


@pytest.mark.parametrize("norms", [(0.1, 0.1), (0.01, 0.3, 0.2), (1.0, 0.5, 0.2, 0.4), (1e-9, 1e-9, 1e-9)])
@pytest.mark.parametrize("value", [0.5, 3.0, 1e4])
def test_the_least_cost_of_a_value_is_what_a_solver_finds(norms, value):
    bound = least_cost_of_value(value, norms)
    c = np.array(norms)

    def cost(y):
        x = np.exp(np.append(y, np.log(value) - y.sum()))
        return float((np.maximum(x - c, 0) ** 2).sum())

    start = np.full(len(c) - 1, np.log(value) / len(c))
    found = minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-14, "maxiter": 20000})
    assert bound <= found.fun * (1 + 1e-9)
    assert bound >= found.fun * (1 - 1e-6)


def test_a_value_that_the_start_already_allows_costs_nothing():
    assert least_cost_of_value(0.9, (1.0, 1.0, 1.0)) == 0.0


# ---- the bounds themselves -------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_wide_bounds_meet_the_attained_distance_to_the_minimum(depth):
    for gamma in (0.7, 0.8, 1.5, 2.0):
        network, bounds = _bounds(FIVE, depth, 10**9, gamma)
        attained = distance_to_minimum(network, FIVE).distance.numpy()
        ratio = bounds.minimum / attained
        assert (ratio <= 1 + 1e-7).all()
        assert (ratio >= (0.97 if depth == 2 else 0.99)).all()


def test_the_side_is_proved_away_from_the_transition():
    for width in (10**6, 10**9):
        for gamma, side in ((0.5, "minimum"), (0.7, "minimum"), (1.3, "saddle"), (2.0, "saddle")):
            _, bounds = _bounds(FIVE, 3, width, gamma, members=range(4))
            assert bounds.common == side
            assert 1 - 1e-11 < bounds.probability < 1
    assert _bounds(FIVE, 3, 10**6, 1.0)[1].common == "undecided"


def test_two_layers_are_bounded_sharply():
    """L = 2, one mode: the nearest saddle kills the weaker direction of either side."""
    cost = planted_task("factorization", (1, 1), (2.0,), CPU).cost
    network = gaussian_network((1, 6, 1), 0.4, CPU, members=(0, 1, 2))
    bounds = lower_bounds(network, cost, width=6, sigma=0.4, full=True)
    exact = network.theta.norm(dim=1).numpy()  # both layers to zero: the only saddle of a 1 × 1 matrix
    assert np.allclose(bounds.saddle, exact, rtol=1e-7)
    assert (bounds.saddle <= exact).all()
    assert bounds.probability == 1.0


TASKS = (
    ("factorization", (2, 3), (2.0, 0.7), {}),
    ("factorization", (3, 3), (2.0,), {}),
    ("completion", (4, 3), (2.0,), {"observed": 0.7}),
    ("completion", (3, 3), (2.0, 1.0), {"observed": 0.9}),
    ("sensing", (2, 3), (1.5,), {"measurements": 4}),
    ("sensing", (2, 2), (1.5,), {"measurements": 7}),
)


@pytest.mark.parametrize("index", range(len(TASKS)))
def test_no_lower_bound_is_above_an_attained_distance(index):
    kind, shape, values, more = TASKS[index]
    cost = planted_task(kind, shape, values, CPU, **more).cost
    for depth, width, gamma in ((2, 4, 0.5), (3, 3, 1.0), (4, 4, 1.2)):
        network = gaussian_network(hidden_dims(depth, width, shape), sigma_of(width, gamma), CPU, members=(0, 1))
        bounds = lower_bounds(network, cost, width=width, sigma=sigma_of(width, gamma), full=True)
        minimum = distance_to_minimum(network, cost).distance.numpy()
        saddle = distance_to_saddle(network, cost).distance.numpy()
        assert (bounds.minimum <= minimum * (1 + 1e-7)).all()
        assert (bounds.saddle <= saddle * (1 + 1e-7)).all()
        for verdict, m, s in zip(bounds.nearer, minimum, saddle, strict=True):
            assert verdict != "minimum" or m < s
            assert verdict != "saddle" or s < m


def test_random_points_of_the_two_sets_are_no_nearer():
    """Brute force that shares nothing with the search: random minima and saddles of random tiny networks."""
    rng = np.random.default_rng(7)
    for _ in range(60):
        depth, width = int(rng.integers(2, 5)), int(rng.integers(2, 5))
        shape = (2, 2)
        cost = planted_task("factorization", shape, tuple(np.sort(rng.uniform(0.3, 3, 2))[::-1]), CPU).cost
        sigma = float(10 ** rng.uniform(-1.5, 0.5))
        network = gaussian_network(hidden_dims(depth, width, shape), sigma, CPU, seed=int(rng.integers(1e6)))
        bounds = lower_bounds(network, cost, width=width, sigma=sigma, full=True)
        target = cost.minimizer.numpy()
        start = [w[0].numpy() for w in network.weights]
        for layer in range(depth):  # change one layer alone, from a slightly turned start
            turned = [w + 0.1 * sigma * rng.standard_normal(w.shape) for w in start]
            below = np.linalg.multi_dot([*turned[:layer][::-1], np.eye(2)]) if layer else np.eye(2)
            above = np.linalg.multi_dot([np.eye(2), *turned[layer + 1 :][::-1]]) if layer < depth - 1 else np.eye(2)
            moved = np.linalg.pinv(above) @ target @ np.linalg.pinv(below)
            changed = [*turned[:layer], moved, *turned[layer + 1 :]]
            product = changed[0]
            for w in changed[1:]:
                product = w @ product
            if np.linalg.norm(product - target) > 1e-9:
                continue
            away = np.sqrt(sum(np.linalg.norm(a - b) ** 2 for a, b in zip(changed, start, strict=True)))
            assert bounds.minimum[0] <= away * (1 + 1e-7)
        killed = [w.copy() for w in start]
        killed[0], killed[-1] = 0 * killed[0], 0 * killed[-1]
        away = np.sqrt(sum(np.linalg.norm(a - b) ** 2 for a, b in zip(killed, start, strict=True)))
        assert bounds.saddle[0] <= away * (1 + 1e-7)


def test_a_network_of_zeros_and_a_deep_one_are_bounded_too():
    cost = planted_task("factorization", (2, 2), (2.0,), CPU).cost
    for depth, scale in ((3, 0.0), (60, 1.0)):
        network = gaussian_network((2, *([3] * (depth - 1)), 2), 0.6, CPU)
        bounds = lower_bounds(network.with_theta(scale * network.theta), cost, width=3, sigma=0.6, full=True)
        assert np.isfinite(bounds.minimum).all() and np.isfinite(bounds.saddle).all()
        assert bounds.saddle[0] <= float((scale * network.theta).norm())


def test_a_bottleneck_and_a_zero_layer_are_bounded_by_zero():
    cost = planted_task("factorization", (3, 3), (2.0,), CPU).cost
    network = gaussian_network((3, 2, 3), 0.5, CPU)
    assert lower_bounds(network, cost, width=2, sigma=0.5, full=True).saddle[0] == 0.0
    zero = Network(torch.zeros_like(network.theta), network.dims)
    bounds = lower_bounds(zero, cost, width=2, sigma=0.0, full=True)
    assert bounds.saddle[0] == 0.0 and bounds.minimum[0] > 0

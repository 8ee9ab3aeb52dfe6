"""Greedy path, critical points, certificates, escape of costs that are not quadratic, against dense Hessians."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from convex_problems import COSTS, CPU
from scipy.integrate import quad

import dlnphase
from dlnphase.backend import resolve_backend
from dlnphase.costs.convex import cross_entropy
from dlnphase.critical import HostCost, certify, minimal_point, refine_matrix
from dlnphase.critical.escape import growth_time
from dlnphase.critical.greedy import greedy_path
from dlnphase.critical.visited import Path, visited_points
from dlnphase.dynamics import gradient_descent, stable_step

NAMES = [name for name in COSTS if name != "one bit"]  # which has no critical point but the origin on its greedy path


def dense_hessian(weights, oracle):
    shapes = [w.shape for w in weights]

    def loss(theta):
        a, start = None, 0
        for n, m in shapes:
            w = theta[start : start + n * m].view(n, m)
            a, start = w if a is None else w @ a, start + n * m
        return oracle(a[None])[0]

    theta = torch.as_tensor(np.concatenate([w.ravel() for w in weights]))
    return torch.autograd.functional.hessian(loss, theta).numpy(), torch.func.grad(loss)(theta).numpy()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_the_greedy_path_visits_certified_saddles_up_to_the_minimum(name, depth):
    cost, oracle = COSTS[name]
    points = []
    last = None
    for record in greedy_path(cost, depth, tol=1e-6, rtol=1e-3, check=False, points=points):
        last = record
    assert last.reasons == ["converged"]
    assert [g.point.rank for g in points] == list(range(len(points)))
    assert points[-1].point.cost == pytest.approx(cost.minimum, rel=1e-12, abs=1e-14)
    host = HostCost(cost)
    for g in points:
        hidden = [g.point.rank + 1] * (depth - 1)
        sizes = (cost.shape[1], *hidden, cost.shape[0])
        theta = minimal_point([np.zeros((n, m)) for m, n in pairwise(sizes)], g.point, host)
        found = certify(theta, host)
        hessian, gradient = dense_hessian(theta.weights, oracle)
        values = np.linalg.eigvalsh(hessian)
        assert np.abs(gradient).max() <= 1e-13 * max(1.0, host.scale)
        minimum = g is points[-1]
        assert found.kind == ("global-minimum" if minimum else "strict-saddle" if depth == 2 else "degenerate-saddle")
        assert found.curvature.negative_eigenvalues == (values < -found.curvature.threshold).sum()
        assert found.curvature.min_eigenvalue == pytest.approx(min(values[0], 0.0), abs=1e-12 * values[-1])
        if not minimum:
            assert found.descent.ratio == pytest.approx(1, abs=0.02)
            assert found.descent.measured_order == pytest.approx(depth, abs=0.02)


@pytest.mark.parametrize("depth", [3, 4])
def test_the_flow_of_a_classification_visits_the_saddles_of_the_greedy_path(depth):
    cost, _ = COSTS["cross-entropy"]
    network = dlnphase.gaussian_network((4, *[20] * (depth - 1), 3), sigma=20**-1.5, backend=CPU, seed=3)
    points = []
    for _ in greedy_path(cost, depth, tol=1e-6, rtol=1e-3, check=False, points=points):
        pass
    records = list(dlnphase.gradient_flow(network, cost, rtol=1e-3, tol=1e-7))
    assert records[-1].reasons == ["converged"]
    assert records[-1].excess[0] <= 1e-7 * (np.log(3) - cost.minimum)
    host = HostCost(cost)
    columns = ("time", "step", "excess", "gradient_norm", "A")
    path = Path(*(np.array([getattr(r, name)[0] for r in records]) for name in columns), tol=1e-7)
    visited = {v.rank: v for v in visited_points(path, host) if v.counts}
    assert sorted(visited) == [0, 1, 2]
    for g in points:  # logits may differ by what no class sees
        np.testing.assert_allclose(host.seen(visited[g.point.rank].point.A), g.point.A, atol=1e-7)


def test_far_out_where_everything_is_small_nothing_is_critical():
    """Separable data: ∇C(cA) falls below any threshold as c grows, and no such matrix is a minimum or a saddle."""
    x = np.array([[1.0, 0.3], [0.8, -0.2], [-1.0, 0.1], [-0.7, -0.4]])
    cost = cross_entropy(x, np.array([0, 0, 1, 1]), CPU)
    host = HostCost(cost)
    assert not host.attained
    for size in (10.0, 60.0, 300.0):
        a = size * np.array([[1.0, 0.0], [-1.0, 0.0]])
        point = refine_matrix(a, host)
        assert not point.converged and point.next_mode > 0, point


def test_a_greedy_path_without_a_minimum_ends_within_tol_of_the_infimum():
    x = np.array([[1.0, 0.3], [0.8, -0.2], [-1.0, 0.1], [-0.7, -0.4]])
    cost = cross_entropy(x, np.array([0, 0, 1, 1]), CPU)
    points = []
    records = list(greedy_path(cost, 2, tol=1e-3, points=points))
    assert records[-1].reasons == ["converged"] and "no minimum exists" in records[-1].note
    assert records[-1].excess[0] <= 1e-3 * np.log(2)
    assert [g.point.rank for g in points] == [0]


def test_growth_time_takes_the_slope_that_is_left():
    """∫ da / (L a^(2−2/L) φ(a)) for the slope of a logistic cost, against adaptive quadrature."""

    def slope(a):
        return 2 / (1 + np.exp(3 * np.asarray(a)))

    for depth in (2, 3, 4):
        expected, _ = quad(lambda a, d=depth: 1 / (d * a ** (2 - 2 / d) * slope(a)), 0.01, 0.1, epsabs=0, epsrel=1e-12)
        assert growth_time(0.01, 0.1, depth, slope) == pytest.approx(expected, rel=1e-10)
        assert growth_time(0.01, 0.1, depth, lambda a: 1 - a) == pytest.approx(growth_time(0.01, 0.1, depth), rel=1e-14)


def test_a_mode_grows_to_where_the_cost_stops_falling():
    cost, _ = COSTS["huber"]
    host = HostCost(cost)
    zero = np.zeros(host.shape)
    u, s, vt = np.linalg.svd(-host.gradient(zero))
    pair = np.outer(u[:, 0], vt[0])
    size = host.mode_size(zero, pair, float(s[0]), 1.0)
    sizes = np.linspace(0, 2 * size, 2001)
    costs = [host.excess(x * pair) for x in sizes]
    assert sizes[int(np.argmin(costs))] == pytest.approx(size, abs=sizes[1])
    np.testing.assert_allclose(host.slopes(zero, pair, np.array([0.0, size])), [s[0], 0.0], atol=1e-10)


@pytest.mark.parametrize("name", COSTS)
def test_the_automatic_step_of_gradient_descent_is_stable(name):
    cost, _ = COSTS[name]
    network = dlnphase.gaussian_network((cost.shape[1], 10, cost.shape[0]), sigma=0.2, backend=CPU, seed=1)
    lr, _ = stable_step(network, cost)
    costs = np.array([r.excess[0] for r in gradient_descent(network, cost, lr=lr, max_steps=400, tol=1e-6)])
    assert (np.diff(costs) <= 1e-12 * costs[0]).all() and costs[-1] < 0.95 * costs[0]


def test_single_precision_runs():
    cost = COSTS["cross-entropy"][0].to(resolve_backend("cpu", "float32"))
    backend = resolve_backend("cpu", "float32")
    network = dlnphase.gaussian_network((4, 10, 3), sigma=0.2, backend=backend, seed=1)
    *_, last = dlnphase.gradient_flow(network, cost, rtol=1e-3, tol=1e-3)
    assert last.reasons == ["converged"]

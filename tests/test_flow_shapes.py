"""Gradient flow with nothing to learn, in narrow layers, of low rank, of rows and columns, in single precision."""

import numpy as np
import pytest
import torch
from following import CPU, METHODS, at, follow, gaussian, last, random_target
from problems import (
    TASKS,
    aligned_problem,
    product,
    scipy_flow,
    stated_cost,
    time_any_depth,
)

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import completion, factorization
from dlnphase.networks.sampling import balanced_network, hidden_dims


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_the_origin_stays_where_it_is(depth):
    cost = factorization(np.diag([3.0, 2.0, 1.0]), CPU)
    dims = hidden_dims(depth, 5, (3, 3))
    origin = gaussian(dims, 0.0)
    for options in ({}, {"max_time": 7.0}, {"max_time": 7.0, "method": "explicit"}):
        records = follow(origin, cost, **options)
        assert records[-1].reasons == ["max_time"]
        assert np.abs(records[-1].A).max() == 0.0 and records[-1].excess[0] == 7.0
    assert records[-1].time[0] == 7.0


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_zero_target_is_reached(depth):
    """Nothing to learn: weights decay, as a power of time for L ≥ 2."""
    cost = factorization(np.zeros((3, 3)), CPU)
    network = gaussian(hidden_dims(depth, 5, (3, 3)), 0.5)
    records = follow(network, cost)
    assert records[-1].reasons == ["converged"]
    assert follow(gaussian(network.dims, 0.0), cost)[-1].reasons == ["converged"], "already there"


@pytest.mark.parametrize(
    ("dims", "rank"),
    [((3, 1, 3), 1), ((3, 2, 3), 2), ((3, 1, 1, 3), 1), ((3, 2, 2, 3), 2), ((3, 1, 4, 3), 1), ((3, 2, 4, 2, 3), 2)],
)
def test_layers_narrower_than_the_rank_end_at_the_minimum_of_theirs(dims, rank):
    target = random_target((3, 3), (3.0, 2.0, 1.0))
    expected = {1: 2.5, 2: 0.5}[rank]
    for method in METHODS if dims[1] == 2 else ("stiff",):
        records = follow(gaussian(dims, 0.15), factorization(target, CPU), method=method, max_steps=2000)
        assert records[-1].reasons == ["converged"]
        assert records[-1].excess[0] == pytest.approx(expected, abs=1e-6)
        assert np.linalg.matrix_rank(records[-1].A[0], tol=1e-6) == rank


@pytest.mark.parametrize("dims", [(3, 1, 4, 3), (3, 2, 3), (4, 2, 2, 3)])
def test_narrow_layers_are_those_of_scipy(dims):
    network = gaussian(dims, 0.3)
    stated = stated_cost("regression", network.shape, CPU)
    times = (1.0, 3.0, 8.0)
    expected = scipy_flow([w[0].numpy() for w in network.weights], stated.gradient, times)
    records = follow(network, stated.cost, rtol=1e-5, output_times=times, max_time=8.0, tol=0)
    for t, layers in zip(times, expected, strict=True):
        np.testing.assert_allclose(at(records, t), product(layers), rtol=0, atol=1e-3)
    assert len(records) < 400


@pytest.mark.parametrize("depth", [2, 4, 8])
def test_bursts_of_narrow_layers_are_as_exact_at_any_depth(depth):
    """Modes pass half of their size at the times of the closed form, to a few times rtol: errors of layers add up."""
    start, values, rtol = (0.02, 0.01), (3.0, 0.5), 1e-4
    problem = aligned_problem("factorization", depth, CPU, start=start, values=values, width=2)
    times = [time_any_depth(0.0, np.log(a / (s - a)), s, depth) for a, s in zip(start, values, strict=True)]
    records = follow(problem.network, problem.cost, rtol=rtol, output_times=times, max_time=times[-1])
    for t, s, k in zip(times, values, (0, 1), strict=True):
        a = np.linalg.svd(at(records, t), compute_uv=False)[k]
        speed = depth * (s / 2) ** (2 - 2 / depth) * s / 2
        assert abs(a - s / 2) / speed < 2.5 * rtol * t


def test_a_narrow_regression_ends_at_its_reduced_rank_minimum():
    stated = stated_cost("regression", (3, 4), CPU)
    records = follow(gaussian((4, 1, 3), 0.2), stated.cost, max_steps=2000)
    assert records[-1].reasons == ["converged"]
    expected = stated.cost.minimum_at_rank(1)
    assert records[-1].excess[0] + stated.cost.minimum == pytest.approx(expected, rel=1e-6)


def test_a_narrow_completion_ends_at_a_critical_point_and_says_no_more_than_that():
    mask = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], bool)
    cost = completion(np.arange(1.0, 10).reshape(3, 3) + 5 * np.eye(3), mask, CPU)
    for dims in ((3, 1, 3), (3, 1, 1, 3)):
        records = follow(gaussian(dims, 0.1), cost, max_steps=2000, max_time=1e9)
        assert records[-1].reasons == ["max_time"]
        assert records[-1].gradient_norm[0] < 1e-10 and records[-1].excess[0] > 1
        assert np.isfinite(records[-1].weights(0)[0]).all()


@pytest.mark.parametrize("depth", [3, 4])
def test_a_start_of_low_rank_keeps_its_rank(depth):
    """Exactly balanced, rank one, not aligned: it can only turn and grow, never reach what the target asks for."""
    rng = np.random.default_rng(0)
    start = balanced_network(
        0.1 * np.outer(rng.standard_normal(3), rng.standard_normal(3)),
        hidden_dims(depth, 5, (3, 3)),
        CPU,
        rotation_seed=0,
    )
    cost = factorization(random_target((3, 3), (3.0, 2.0, 1.0)), CPU)
    records = follow(start, cost, max_time=1e6, max_steps=3000)
    assert records[-1].reasons == ["max_time"]
    assert records[-1].excess[0] == pytest.approx(2.5, rel=1e-6)
    assert np.linalg.svd(records[-1].A[0])[1][1] < 1e-9


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6])
def test_repeated_singular_values_at_every_depth(depth):
    cost = factorization(2 * np.eye(3), CPU)
    records = follow(gaussian(hidden_dims(depth, 6, (3, 3)), 0.05), cost)
    assert records[-1].reasons == ["converged"]
    np.testing.assert_allclose(records[-1].A[0], 2 * np.eye(3), atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1)])
@pytest.mark.parametrize("depth", [2, 4])
def test_rows_columns_and_numbers_are_matrices(shape, depth):
    cost = factorization(np.full(shape, 1.5), CPU)
    records = follow(gaussian(hidden_dims(depth, 6, shape), 0.1, members=(0, 1)), cost)
    for member in (0, 1):
        reason, a, _, _ = last(records, member)
        assert reason == "converged"
        np.testing.assert_allclose(a, np.full(shape, 1.5), atol=1e-3)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("task", TASKS)
def test_single_precision_reaches_a_tolerance_of_its_own(task, depth, device):
    backend = resolve_backend(device, "float32")
    problem = aligned_problem(task, depth, backend, start=(0.05, 0.08, 0.03))
    options = {"rtol": 1e-3, "output_times": problem.times, "max_time": problem.times[-1], "tol": 0}
    records = follow(problem.network, problem.cost, **options)
    for t in problem.times:
        speed = np.abs(problem.exact(1.001 * t) - problem.exact(0.999 * t)).max() / (0.002 * t)
        assert np.abs(at(records, t) - problem.exact(t)).max() < 2e-3 * depth * (2.0 + t * speed)
    network = gaussian(hidden_dims(depth, 6, problem.cost.shape), 0.1, backend=backend)
    assert follow(network, problem.cost, rtol=1e-3, tol=1e-6)[-1].reasons == ["converged"]


@pytest.mark.parametrize("task", ["completion", "sensing"])
def test_single_precision_keeps_the_zeros_of_a_turned_cost(task, device):
    """C − C_min, a sum of squares, falls below no zero but by a few round-offs; several starts reach the tolerance."""
    backend = resolve_backend(device, "float32")
    problem = aligned_problem(task, 4, backend, start=(0.05, 0.08, 0.03))
    network = gaussian(hidden_dims(4, 6, problem.cost.shape), 0.1, members=(0, 2, 6, 7), backend=backend)
    records = follow(network, problem.cost, rtol=1e-3, tol=1e-6, max_steps=400)
    size = float(torch.linalg.matrix_norm(problem.cost.curvature(), 2))
    for member in range(4):
        reason, a, excess, _ = last(records, member)
        assert reason == "converged"
        far = float(np.sum((a - problem.cost.minimizer.cpu().numpy()) ** 2))
        assert excess > -0.5 * np.finfo(np.float32).eps * size * far  # what rounding H once may do


@pytest.mark.parametrize("method", ["auto", "stiff", "stabilised"])
@pytest.mark.parametrize("factor", [0.0, 1e-170])
def test_an_inner_layer_of_nothing_is_a_start_like_any_other(method, factor):
    network = gaussian((3, 5, 5, 3), 0.5)
    network.weights[1].mul_(factor)
    records = follow(network, factorization(np.diag([3.0, 2.0, 1.0]), CPU), method=method)
    assert records[-1].reasons == ["converged"]

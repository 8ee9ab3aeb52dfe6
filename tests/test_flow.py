"""Gradient flow against exact solutions, SciPy and its own symmetries."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from following import CPU, METHODS, at, follow, gaussian
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    TASKS,
    LogCosh,
    aligned_problem,
    mode,
    mode_two_layers,
    product,
    scipy_flow,
    stated_cost,
    time_four_layers,
)
from scipy.linalg import expm
from tolerances import assert_equal
from turns import random_rotations

from dlnphase.backend import resolve_backend
from dlnphase.costs.tasks import planted_task
from dlnphase.dynamics import gradient_flow, stable_step
from dlnphase.networks.chain import Network
from dlnphase.networks.sampling import hidden_dims

# ---- exact solutions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.0, 0.1, 1.0, 5.0])
def test_the_oracle_is_the_closed_form_of_the_theory_sheet(t):
    assert mode(t, 0.01, 1.3, 2, 1.2) == pytest.approx(mode_two_layers(t, 0.01, 1.3, 1.2), rel=1e-10)
    assert time_four_layers(mode(t, 0.01, 1.3, 4, 1.2), 0.01, 1.3, 1.2) == pytest.approx(t, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("task", TASKS)
def test_balanced_aligned_starts_follow_the_closed_form(task, depth, method, device):
    """To the requested tolerance. A relative error of layers moves A by L times as much, and the time of an escape
    by L − 2 times as much, which shows as Ȧ times that."""
    problem = aligned_problem(task, depth, resolve_backend(device), start=(0.05, 0.08, 0.03))
    options = {"output_times": problem.times, "max_time": problem.times[-1], "tol": 0, "method": method}
    for rtol in (1e-3, 1e-5):
        records = follow(problem.network, problem.cost, rtol=rtol, **options)
        for t in problem.times:
            error = np.abs(at(records, t) - problem.exact(t)).max()
            speed = np.abs(problem.exact(1.001 * t) - problem.exact(0.999 * t)).max() / (0.002 * t)
            assert error < 2 * rtol * depth * (2.0 + t * speed), f"t = {t}"


@pytest.mark.parametrize(("method", "order"), [("stiff", 2), ("explicit", 4)])
def test_errors_shrink_with_the_tolerance_and_steps_grow_as_the_order_says(method, order):
    problem = aligned_problem("sensing", 3, CPU)
    tolerances = np.array([1e-4, 1e-5, 1e-6] if method == "stiff" else [1e-6, 1e-7, 1e-8, 1e-9])
    errors, steps = [], []
    for rtol in tolerances:
        options = {"output_times": problem.times, "max_time": problem.times[-1], "tol": 0}
        records = follow(problem.network, problem.cost, rtol=rtol, method=method, **options)
        errors.append(max(np.abs(at(records, t) - problem.exact(t)).max() for t in problem.times))
        steps.append(records[-1].step[0])
    decades = np.log(tolerances)
    assert np.polyfit(decades, np.log(errors), 1)[0] == pytest.approx(1.0, abs=0.2)
    # A local error of order q + 1 is held at rtol: h ∝ rtol^(1/(q+1)).
    assert -np.polyfit(decades, np.log(steps), 1)[0] == pytest.approx(1 / (order + 1), abs=0.05)


@pytest.mark.parametrize("task", TASKS)
def test_one_layer_relaxes_linearly(task):
    """L = 1: vec A(t) = vec Â + e^(−Ht) vec(A_0 − Â), whatever the directions; what is not measured never moves."""
    stated = stated_cost(task, (3, 4), CPU)
    network = gaussian((4, 3), 0.7)
    a0 = network.product()[0].numpy().ravel()
    goal, h = stated.cost.minimizer.numpy().ravel(), stated.cost.curvature().numpy()
    for method in METHODS:
        records = follow(network, stated.cost, rtol=1e-6, output_times=(0.5, 3.0), max_time=3.0, tol=0, method=method)
        for t in (0.5, 3.0):
            exact = goal + expm(-h * t) @ (a0 - goal)
            assert_equal(at(records, t).ravel(), exact, factor=2e7)
    if task == "completion":
        unseen = stated.cost.operator.numpy() == 0
        assert_equal(at(records, 3.0)[unseen], a0.reshape(3, 4)[unseen])


# ---- SciPy -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "dims"),
    [
        *((task, (3, 4, 5, 2)) for task in TASKS),
        ("regression", (3, 4, 2)),
        ("sensing", (1, 3, 3, 4)),
        ("completion", (4, 3, 3, 3, 1)),
    ],
)
def test_layers_are_those_of_scipy(task, dims):
    """All layers, in the frame of the start, not only A: unbalanced and unaligned starts, every task."""
    network = gaussian(dims, 0.4)
    stated = stated_cost(task, network.shape, CPU)
    times = (0.5, 2.0, 8.0)
    expected = scipy_flow([w[0].numpy() for w in network.weights], stated.gradient, times)
    found = {}
    for record in gradient_flow(network, stated.cost, rtol=1e-7, output_times=times, max_time=8.0, tol=0):
        if record.time[0] in times:
            found[float(record.time[0])] = record.weights(0), record.A[0]
    for t, layers in zip(times, expected, strict=True):
        for mine, theirs in zip(found[t][0], layers, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-6 * max(1.0, np.abs(theirs).max()))
        np.testing.assert_allclose(found[t][1], product(layers), rtol=0, atol=1e-5 * np.abs(product(layers)).max())
        assert_equal(product(found[t][0]), found[t][1], factor=10)


@pytest.mark.parametrize("method", METHODS)
def test_a_cost_of_ones_own_that_is_not_quadratic(method):
    target = np.array([[2.0, -1.0, 0.5], [0.3, 1.5, -2.0]])
    network = gaussian((3, 5, 5, 2), 0.3)
    times = (1.0, 4.0, 10.0)
    expected = scipy_flow([w[0].numpy() for w in network.weights], lambda a: np.tanh(a - target), times)
    cost = LogCosh(CPU.tensor(target))
    records = follow(network, cost, rtol=1e-6, output_times=times, max_time=10.0, tol=0, method=method)
    for t, layers in zip(times, expected, strict=True):
        np.testing.assert_allclose(at(records, t), product(layers), rtol=0, atol=1e-5)


# ---- methods, frames, symmetries ----------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "depth"), list(zip(TASKS, (3, 4, 2, 3), strict=True)))
def test_both_methods_agree_with_and_without_alignment(task, depth):
    cost = stated_cost(task, (3, 4), CPU).cost
    network = gaussian(hidden_dims(depth, 6, (3, 4)), 0.25)
    times = (1.0, 3.0, 6.0, 12.0)
    runs = [
        follow(network, cost, rtol=1e-4, output_times=times, max_time=12.0, tol=0, method=m, align_frames=f)
        for m in METHODS
        for f in (True, False)
    ]
    for t in times:
        for other in runs[1:]:
            np.testing.assert_allclose(at(other, t), at(runs[0], t), rtol=0, atol=3e-3)


@pytest.mark.parametrize("frames", [True, False])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dims", [(4, 6, 3), (4, 6, 5, 3), (4, 5, 6, 5, 3)])
def test_balancedness_is_conserved(dims, method, frames):
    cost = stated_cost("completion", (3, 4), CPU).cost
    network = gaussian(dims, 0.3, members=(0, 1))
    start = [d.numpy() for d in network.balancedness()]
    for rtol in (1e-3, 1e-5):
        kept = {}
        for record in gradient_flow(network, cost, rtol=rtol, max_time=30.0, method=method, align_frames=frames):
            for i, reason in enumerate(record.reasons):
                if reason:
                    kept[int(record.members[i])] = record.weights(i)
        for member, layers in kept.items():
            assert max(np.abs(w).max() for w in layers) > 0.8, "something was learned"
            after = [up.T @ up - lo @ lo.T for lo, up in pairwise(layers)]
            change = max(np.abs(a - s[member]).max() for a, s in zip(after, start, strict=True))
            assert change < 20 * rtol


def test_a_long_plateau_of_an_ill_conditioned_cost_is_left_in_peace():
    """Three learned modes of comparable size wait 3·10⁷ for the fourth: nothing that keeps layers in balance may
    push the learned ones about meanwhile."""
    cost = planted_task("sensing", (4, 4), (5.0,), CPU, observed=1.0, noise=0.1, data_seed=804).cost
    network = gaussian((4, 7, 7, 7, 4), 0.00255, seed=804)
    records = follow(network, cost, rtol=1e-3, max_steps=600)
    assert records[-1].reasons == ["converged"]
    waiting = [r.excess[0] for r in records if 2e6 < r.time[0] < 3e7]
    assert len(waiting) > 3 and max(waiting) < min(waiting) * 1.01
    layers = records[-1].weights(0)
    for lo, up, start in zip(layers[:-1], layers[1:], network.balancedness(), strict=True):
        assert np.abs(up.T @ up - lo @ lo.T - start[0].numpy()).max() < 20e-3


@settings(max_examples=6)
@given(st.sampled_from(TASKS), st.integers(2, 5), st.integers(0, 1000))
def test_rotating_the_hidden_layers_of_a_start_changes_nothing_in_a(task, depth, seed):
    cost = stated_cost(task, (3, 2), CPU, seed=seed % 7).cost
    network = gaussian(hidden_dims(depth, 5, (3, 2)), 0.3, seed=seed)
    turned = network.rotate(random_rotations(network.dims, CPU, seed=seed))
    times = (1.0, 5.0)
    one, two = (follow(n, cost, rtol=1e-4, output_times=times, max_time=5.0, tol=0) for n in (network, turned))
    for t in times:
        np.testing.assert_allclose(at(two, t), at(one, t), rtol=0, atol=2e-3)


@pytest.mark.parametrize("dims", [(3, 4, 2), (3, 4, 5, 2), (3, 2, 2, 4, 3)])
def test_padding_hidden_layers_with_zeros_changes_nothing_in_a(dims):
    network = gaussian(dims, 0.3)
    cost = stated_cost("regression", network.shape, CPU).cost
    wide = (dims[0], *(n + 3 for n in dims[1:-1]), dims[-1])
    padded = [
        torch.nn.functional.pad(w, (0, wide[i] - dims[i], 0, wide[i + 1] - dims[i + 1]))
        for i, w in enumerate(network.weights)
    ]
    times = (1.0, 4.0, 12.0)
    options = {"rtol": 1e-5, "output_times": times, "max_time": 12.0, "tol": 0}
    one, two = follow(network, cost, **options), follow(Network.from_weights(padded), cost, **options)
    for t in times:
        np.testing.assert_allclose(at(two, t), at(one, t), rtol=0, atol=2e-4)


@settings(max_examples=12)
@given(st.sampled_from(TASKS), st.integers(1, 5), st.floats(0.05, 1.0), st.integers(0, 1000), st.sampled_from(METHODS))
def test_the_cost_never_rises(task, depth, sigma, seed, method):
    """Up to what an error of the allowed size does at a minimum, λ_max |δθ|²."""
    cost = stated_cost(task, (3, 4), CPU, seed=seed % 5).cost
    network = gaussian(hidden_dims(depth, 5, (3, 4)), sigma, seed=seed)
    records = follow(network, cost, rtol=1e-4, max_time=8.0, method=method)
    excess = np.array([r.excess[0] for r in records])
    size = max(float(network.theta.square().sum()), sum((w**2).sum() for w in records[-1].weights(0)))
    curvature = 1 / stable_step(network, cost)[0]
    assert (np.diff(excess) <= 1e-4**2 * curvature * size).all()
    assert excess[-1] < excess[0]

"""Gradient descent against torch.optim.SGD on autograd, its stable step, and its records."""

import numpy as np
import pytest
import torch
from problems import TASKS, aligned_problem, stated_cost

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import completion, factorization
from dlnphase.costs.tasks import planted_task
from dlnphase.dynamics import gradient_descent, gradient_flow, stable_step
from dlnphase.errors import InputError
from dlnphase.networks.chain import Network
from dlnphase.networks.sampling import gaussian_network, hidden_dims

CPU = resolve_backend("cpu")


def descend(network, cost, **options):
    return list(gradient_descent(network, cost, **{"lr": 0.05, "max_steps": 200, **options}))


@pytest.mark.parametrize("dims", [(3, 2), (3, 5, 2), (4, 6, 6, 6, 3)])
@pytest.mark.parametrize("task", TASKS)
def test_every_step_is_that_of_autograd_and_sgd(task, dims, device):
    """1000 steps from given weights, to 1e-12 of the largest weight at every one of them."""
    backend = resolve_backend(device)
    network = gaussian_network(dims, 0.3, backend, seed=3)
    stated = stated_cost(task, network.shape, backend)
    design, right = backend.tensor(stated.design), backend.tensor(stated.right)
    layers = [w[0].clone().requires_grad_() for w in network.weights]
    optimizer = torch.optim.SGD(layers, lr=0.02)
    seen = 0
    for record in gradient_descent(network, stated.cost, lr=0.02, max_steps=1000, tol=0, record_every=1):
        assert record.step[0] == seen and record.time[0] == pytest.approx(0.02 * seen)
        for mine, theirs in zip(record.weights(0), layers, strict=True):
            other = theirs.detach().cpu().numpy()
            assert np.abs(mine - other).max() <= 1e-12 * np.abs(other).max()
        optimizer.zero_grad()
        product = layers[0]
        for w in layers[1:]:
            product = w @ product
        loss = 0.5 * (design @ product.flatten() - right).square().sum()
        loss.backward()
        assert record.excess[0] + stated.cost.minimum == pytest.approx(loss.item(), rel=1e-9)
        norm = np.sqrt(sum(float(w.grad.square().sum()) for w in layers))
        assert record.gradient_norm[0] == pytest.approx(norm, rel=1e-8)
        optimizer.step()
        seen += 1
    assert seen == 1001 and record.reasons == ["max_steps"]


def test_small_steps_follow_the_flow():
    """Halving η halves the distance to gradient flow: order one."""
    problem = aligned_problem("factorization", 3, CPU, start=(0.05, 0.08, 0.03))
    errors = []
    for lr in (0.02, 0.01, 0.005):
        count = round(2.5 / lr)
        record = descend(problem.network, problem.cost, lr=lr, max_steps=count, tol=0)[-1]
        assert record.time[0] == pytest.approx(2.5)
        errors.append(np.abs(record.A[0] - problem.exact(2.5)).max())
    ratios = np.array(errors[:-1]) / errors[1:]
    np.testing.assert_allclose(ratios, 2.0, rtol=0.15)


# ---- the stable step ---------------------------------------------------------------------------------


def starts(task):
    """A start and cost of each task, at a small and at a large initialisation."""
    task = planted_task(task, (5, 4), (4.0, 2.0), CPU, noise=0.05)
    for depth, sigma in ((1, 0.5), (2, 0.05), (4, 0.3), (3, 0.9)):
        yield gaussian_network(hidden_dims(depth, 6, (5, 4)), sigma, CPU, members=(0, 1)), task.cost


@pytest.mark.parametrize("task", TASKS)
def test_the_stable_step_descends_all_the_way(task):
    for network, cost in starts(task):
        lr, words = stable_step(network, cost)
        assert f"{lr:.4g}" in words and "λ_max" in words
        excess = {}
        for record in gradient_descent(network, cost, lr=lr, max_steps=1500, tol=1e-5):
            for member, value in zip(record.members, record.excess, strict=True):
                assert value <= excess.get(int(member), np.inf) * (1 + 1e-9) + 1e-12
                excess[int(member)] = value
        assert "diverged" not in record.reasons


@pytest.mark.parametrize("task", TASKS)
def test_four_times_the_stable_step_is_not_stable_everywhere(task):
    """η = 4·½·2/λ_max = 4/λ_max: twice the limit, at a minimum that is known and reached."""
    network, cost = next(iter(starts(task)))
    lr, _ = stable_step(network, cost)
    records = descend(network, cost, lr=4 * lr, max_steps=5000, tol=1e-12)
    assert {reason for record in records for reason in record.reasons if reason} == {"diverged"}
    assert not records[-1].excess[0] < 1e6 * records[0].excess[0]


def test_the_limit_at_a_balanced_minimum_is_two_over_lambda():
    """λ_max = L s^(2−2/L) (docs/theory.md, section 4): a hair below is stable, a hair above is not."""
    for depth in (2, 3, 4):
        problem = aligned_problem("factorization", depth, CPU, start=(2.0 - 1e-6, 1.2, 0.6))
        limit = 2 / (depth * 2.0 ** (2 - 2 / depth))
        below, above = (
            descend(problem.network, problem.cost, lr=f * limit, max_steps=400, tol=0)[-1].excess[0]
            for f in (0.98, 1.02)
        )
        assert below < 1e-13 < 1e-9 < above


def test_the_stable_step_knows_where_the_curvature_is_largest():
    cost = factorization(np.diag([3.0, 1.0]), CPU)
    small = gaussian_network((2, 5, 5, 2), 0.01, CPU)
    lr, words = stable_step(small, cost)
    assert lr == pytest.approx(0.5 * 2 / (3 * 3.0 ** (4 / 3))) and "once the target is learned" in words
    large = gaussian_network((2, 5, 5, 2), 2.0, CPU)
    lr, words = stable_step(large, cost)
    top = float(torch.linalg.eigvalsh(large.ntk()[0])[-1])
    assert lr == pytest.approx(1 / top, rel=1e-2) and "at the start" in words
    both = Network(torch.cat([small.theta, large.theta]), small.dims)
    assert stable_step(both, cost)[0] == pytest.approx(lr, rel=1e-2), "the steepest member decides"


def test_where_there_is_no_curvature_no_step_is_made_up():
    nothing = gaussian_network((2, 3, 2), 0.0, CPU)
    with pytest.raises(InputError, match="lr: the curvature at the start"):
        stable_step(nothing, factorization(np.zeros((2, 2)), CPU))


@pytest.mark.parametrize(("depth", "size", "observed"), [(4, 12, 0.2), (10, 20, 0.3)])
def test_a_sparse_completion_learns_more_than_its_zero_filled_matrix_shows(depth, size, observed):
    """The matrix behind few entries is larger than these filled up with zeros; the step must not be too long for it."""
    task = planted_task("completion", (size, size), (8.0,), CPU, observed=observed, data_seed=1)
    network = gaussian_network(hidden_dims(depth, 20, (size, size)), 0.2, CPU, seed=1)
    lr, _ = stable_step(network, task.cost)
    records = descend(network, task.cost, lr=lr, max_steps=1500, tol=1e-5)
    excess = [r.excess[0] for r in records]
    assert excess[-1] < 1e-2 * excess[0]
    assert (np.diff(excess) <= 1e-9 * excess[0]).all()


# ---- records and reasons --------------------------------------------------------------------------------


def test_the_last_state_is_recorded_whatever_the_rhythm():
    network, cost = gaussian_network((3, 5, 2), 0.3, CPU), stated_cost("factorization", (2, 3), CPU).cost
    for every in (None, 1, 7, 1000):
        records = descend(network, cost, max_steps=50, tol=0, record_every=every)
        assert records[0].step[0] == 0 and records[-1].step[0] == 50 and records[-1].reasons == ["max_steps"]
        steps = [int(r.step[0]) for r in records]
        assert steps == sorted(set(steps))
        if every:
            assert steps == sorted({*range(0, 51, every), 50})
        assert records[-1].evaluations[0] == 51
    records = descend(network, cost, max_steps=5000, tol=1e-4, record_every=10**6)
    assert records[-1].reasons == ["converged"]
    assert records[-1].excess[0] <= 1e-4 * records[0].excess[0]
    one_less = descend(network, cost, max_steps=int(records[-1].step[0]) - 1, tol=1e-4)[-1]
    assert one_less.reasons == ["max_steps"] and one_less.excess[0] > 1e-4 * records[0].excess[0]


def test_records_are_made_where_something_happens():
    network, cost = gaussian_network((3, 5, 2), 1e-3, CPU), stated_cost("factorization", (2, 3), CPU).cost
    records = descend(network, cost, lr=0.02, max_steps=3000, tol=1e-8)
    excess = np.array([r.excess[0] for r in records])
    assert records[-1].reasons == ["converged"] and 50 < len(records) < records[-1].step[0]
    assert (excess[1:] / excess[:-1]).min() > 0.85


def test_members_leave_when_they_are_done_and_move_as_they_do_alone():
    cost = stated_cost("regression", (2, 3), CPU).cost
    parts = [gaussian_network((3, 5, 2), s, CPU, members=(k,)) for k, s in enumerate((0.5, 0.01, 40.0, 0.1))]
    together = Network(torch.cat([p.theta for p in parts]), (3, 5, 2))
    ends = {}
    for record in gradient_descent(together, cost, lr=0.05, max_steps=4000, record_every=10):
        for i, reason in enumerate(record.reasons):
            if reason:
                ends[int(record.members[i])] = reason, int(record.step[i]), record.weights(i)
    assert [ends[m][0] for m in range(4)] == ["converged", "converged", "diverged", "converged"]
    assert len({ends[m][1] for m in (0, 1, 3)}) == 3
    for member in (0, 1, 3):
        alone = descend(parts[member], cost, lr=0.05, max_steps=4000)[-1]
        assert (alone.reasons[0], int(alone.step[0])) == ends[member][:2]
        for mine, theirs in zip(ends[member][2], alone.weights(0), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-11)


def test_weights_told_are_those_of_their_record_even_later():
    network, cost = gaussian_network((3, 5, 2), 0.3, CPU), stated_cost("factorization", (2, 3), CPU).cost
    for record in gradient_descent(network, cost, lr=0.05, max_steps=30, record_every=5):
        first, second = record.weights(0)
        np.testing.assert_allclose(second @ first, record.A[0], atol=1e-14)


def test_the_start_is_not_modified():
    network, cost = gaussian_network((3, 5, 2), 0.3, CPU), stated_cost("factorization", (2, 3), CPU).cost
    before = network.theta.clone()
    descend(network, cost)
    assert torch.equal(network.theta, before)


@pytest.mark.parametrize("lr", [0.0, -1.0, np.nan, np.inf])
def test_steps_that_are_none_are_refused(lr):
    network, cost = gaussian_network((3, 5, 2), 0.3, CPU), stated_cost("factorization", (2, 3), CPU).cost
    with pytest.raises(InputError, match="lr: found"):
        descend(network, cost, lr=lr)


@pytest.mark.parametrize("start", [np.nan, 1e200])
def test_starts_without_a_finite_cost_are_diverged(start):
    network, cost = gaussian_network((3, 5, 2), 0.3, CPU), stated_cost("factorization", (2, 3), CPU).cost
    network.theta[:] = start
    records = descend(network, cost)
    assert (len(records), records[0].reasons) == (1, ["diverged"])


def test_no_steps_and_nothing_to_learn():
    network, cost = gaussian_network((3, 5, 2), 0.3, CPU), stated_cost("factorization", (2, 3), CPU).cost
    records = descend(network, cost, max_steps=0)
    assert (len(records), records[0].reasons) == (1, ["max_steps"])
    zero = factorization(np.zeros((2, 3)), CPU)
    assert descend(gaussian_network((3, 5, 2), 0.0, CPU), zero)[-1].reasons == ["converged"]
    origin = descend(gaussian_network((3, 5, 2), 0.0, CPU), cost, max_steps=20)
    assert origin[-1].reasons == ["max_steps"] and np.abs(origin[-1].A).max() == 0


def test_a_layer_narrower_than_the_rank_converges_to_the_minimum_of_its_rank():
    cost = factorization(np.diag([3.0, 2.0, 1.0]), CPU)
    records = descend(gaussian_network((3, 1, 3), 0.2, CPU), cost, lr=0.05, max_steps=2000)
    assert records[-1].reasons == ["converged"] and records[-1].excess[0] == pytest.approx(2.5, abs=1e-6)


def test_descent_and_flow_end_at_the_same_minimum():
    mask = np.random.default_rng(0).random((4, 4)) < 0.8
    target = np.outer([1.0, 2.0, -1.0, 0.5], [1.0, 0.5, -1.0, 2.0])
    cost = completion(target, mask, CPU)
    network = gaussian_network((4, 6, 6, 4), 0.02, CPU)
    flow = list(gradient_flow(network, cost))[-1]
    descent = descend(network, cost, lr=0.01, max_steps=20000)[-1]
    assert flow.reasons == descent.reasons == ["converged"]
    np.testing.assert_allclose(descent.A, flow.A, atol=0.02)


def test_single_precision(device):
    backend = resolve_backend(device, "float32")
    stated = stated_cost("sensing", (2, 3), backend)
    records = descend(gaussian_network((3, 5, 2), 0.3, backend), stated.cost, max_steps=5000, tol=1e-5)
    assert records[-1].reasons == ["converged"]
    assert records[-1].A.dtype == np.float64 and records[-1].weights(0)[0].dtype == np.float32

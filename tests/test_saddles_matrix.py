"""Refinement in matrix space: against closed forms, and against what defines a fixed-rank critical point."""

import numpy as np
import pytest
from scipy.optimize import minimize

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import completion, factorization, regression
from dlnphase.costs.tasks import planted_matrix, planted_task
from dlnphase.critical import matrix, refine_matrix
from dlnphase.critical.hostcost import HostCost

CPU = resolve_backend("cpu")
VALUES = (7.0, 4.0, 2.0, 1.0)


def near(a, size, seed=0):
    """The matrix with noise of this Frobenius norm on it."""
    noise = np.random.default_rng(seed).standard_normal(a.shape)
    return a + size * noise / np.linalg.norm(noise)


def kept(target, modes):
    u, s, vt = np.linalg.svd(target, full_matrices=False)
    return (u[:, modes] * s[modes]) @ vt[modes]


def best_at_rank(task, rank):
    """A minimum of C over matrices of this rank, by a general-purpose optimiser on two factors."""
    if rank == 0:
        return np.zeros(task.shape)
    d_out, d_in = task.shape
    u, s, vt = np.linalg.svd(task.target)
    start = np.concatenate([(u[:, :rank] * s[:rank] ** 0.5).ravel(), (vt[:rank].T * s[:rank] ** 0.5).ravel()])

    def factors(x):
        return x[: d_out * rank].reshape(d_out, rank), x[d_out * rank :].reshape(d_in, rank)

    def function(x):
        left, right = factors(x)
        a = CPU.tensor(left @ right.T)[None]
        g = task.cost.gradient(a)[0].numpy()
        return float(task.cost.excess(a)[0]), np.concatenate([(g @ right).ravel(), (g.T @ left).ravel()])

    found = minimize(function, start, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 5000})
    left, right = factors(found.x)
    return left @ right.T


@pytest.mark.parametrize("modes", [[], [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [1], [0, 2], [1, 3]])
@pytest.mark.parametrize("shape", [(8, 6), (4, 7)])
def test_factorization_critical_points_are_sets_of_modes(shape, modes):
    target = planted_matrix(shape, VALUES, 0)
    truth = kept(target, modes)
    point = refine_matrix(near(truth, 0.05), factorization(target, CPU))
    missed = [s for i, s in enumerate(VALUES) if i not in modes]
    assert point.converged and point.rank == len(modes)
    assert np.allclose(point.A, truth, atol=1e-12)
    assert point.cost == pytest.approx(0.5 * sum(s**2 for s in missed), rel=1e-10, abs=1e-24)
    assert point.next_mode == pytest.approx(max(missed, default=0.0), abs=1e-12)
    assert np.linalg.matrix_rank(point.A, tol=1e-12) == len(modes)


@pytest.mark.parametrize("kind", ["completion", "sensing", "regression"])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_every_cost_reaches_a_critical_point_at_round_off(kind, rank):
    task = planted_task(kind, (7, 6), (7.0, 4.0, 2.0), CPU, observed=0.9)
    truth = best_at_rank(task, rank)
    point = refine_matrix(near(truth, 0.03), task.cost)
    assert point.converged and point.rank == rank
    assert np.allclose(point.A, truth, atol=1e-6)
    g = task.cost.gradient(CPU.tensor(point.A)[None])[0].numpy()
    u, s, vt = np.linalg.svd(point.A)
    assert np.linalg.norm(u[:, :rank].T @ g) < 1e-12 * point.scale
    assert np.linalg.norm(g @ vt[:rank].T) < 1e-12 * point.scale
    assert s[rank] < 1e-12 and point.next_mode == pytest.approx(np.linalg.norm(g, 2)) and point.next_mode > 0.5


@pytest.mark.parametrize("kind", ["completion", "sensing", "regression"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_ranks_that_the_gradient_rules_out_would_not_have_been_found(kind, rank, monkeypatch):
    """With modes of every size beside a critical matrix, as a path has them: the same point, by fewer searches."""
    task = planted_task(kind, (7, 6), (7.0, 4.0, 2.0), CPU, observed=0.9)
    left, right = (np.linalg.qr(np.random.default_rng(n).standard_normal((n, 6)))[0] for n in (7, 6))
    a = best_at_rank(task, rank) + (left * 10.0 ** -np.arange(2, 8)) @ right.T
    costs = [HostCost(task.cost) for _ in range(2)]
    point = refine_matrix(a, costs[0])
    monkeypatch.setattr(matrix, "allowed", lambda ranks, *rest: ranks)
    whole = refine_matrix(a, costs[1])
    assert point.rank == whole.rank == rank and np.array_equal(point.A, whole.A) and point.converged
    tried, all_of_them = ({key[1] for key in cost.searched} for cost in costs)
    assert tried <= all_of_them and (rank in tried or not tried)
    if kind == "completion" and rank < 3:
        assert max(tried) < max(all_of_them)


def test_reduced_rank_regression_agrees_with_the_closed_form():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((200, 6)) * [3, 2, 1.5, 1, 1, 0.5]
    y = x @ planted_matrix((5, 6), VALUES, 1).T + rng.standard_normal((200, 5))
    cost = regression(x, y, CPU)
    for rank in range(5):
        # start from the whitened truncation of least squares, moved
        least = cost.minimizer.numpy()
        root = np.linalg.cholesky(x.T @ x / 200)
        u, s, vt = np.linalg.svd(least @ root, full_matrices=False)
        truth = (u[:, :rank] * s[:rank]) @ vt[:rank] @ np.linalg.inv(root)
        point = refine_matrix(near(truth, 0.002), cost)
        assert point.rank == rank and point.converged
        assert point.cost == pytest.approx(cost.minimum_at_rank(rank), rel=1e-10)


def test_a_continuum_of_critical_points_is_entered_at_its_nearest_point():
    target = planted_matrix((6, 6), (5.0, 5.0, 1.0), 0)
    u, _, vt = np.linalg.svd(target)
    x = np.array([0.6, 0.8])
    truth = 5 * np.outer(u[:, :2] @ x, x @ vt[:2])  # one direction of the degenerate pair
    point = refine_matrix(near(truth, 1e-3), factorization(target, CPU))
    assert point.converged and point.rank == 1 and point.distance < 2e-3
    assert point.cost == pytest.approx(0.5 * 26, rel=1e-10)


@pytest.mark.parametrize("gap", [1e-9, 1e-7, 1e-5])
def test_nearly_equal_modes_are_saddles_of_their_own(gap):
    """By Eckart–Young: near the larger of two modes that hardly differ there is that mode, however flat the way."""
    target = planted_matrix((5, 6), (5.0 * (1 + gap), 5.0), 0)
    u, s, vt = np.linalg.svd(target)
    turned = np.array([1.0, 3e-3])
    point = refine_matrix(5 * np.outer(u[:, :2] @ turned, turned @ vt[:2]), factorization(target, CPU))
    assert point.converged and point.rank == 1
    np.testing.assert_allclose(point.A, s[0] * np.outer(u[:, 0], vt[0]), atol=1e-12 / gap)


def test_a_minimum_takes_the_smallest_rank_that_is_near_and_no_smaller():
    target = planted_matrix((6, 6), (5.0, 2.0), 0)
    mask = np.ones((6, 6), bool)
    mask[[0, 1, 2], [3, 4, 5]] = False
    cost = completion(np.where(mask, target, np.nan), mask, CPU)
    point = refine_matrix(near(target, 1e-3), cost)
    assert (point.rank, point.next_mode, point.converged) == (2, 0.0, True)
    free = target.copy()
    free[0, 3] += 4.0  # another exact fit, of rank 3
    point = refine_matrix(near(free, 1e-3), cost)
    assert (point.rank, point.next_mode, point.converged) == (3, 0.0, True)


def test_a_row_that_is_never_observed_is_left_alone():
    target = planted_matrix((6, 5), (5.0, 2.0), 0)
    mask = np.ones((6, 5), bool)
    mask[2] = False
    cost = completion(target, mask, CPU)
    u, s, vt = np.linalg.svd(np.where(mask, target, 0.0), full_matrices=False)
    for rank in (0, 1, 2):
        point = refine_matrix(near((u[:, :rank] * s[:rank]) @ vt[:rank], 1e-3), cost)
        assert (point.rank, point.converged) == (rank, True)
        assert point.cost == pytest.approx(0.5 * np.sum(s[rank:] ** 2), rel=1e-10, abs=1e-20)
        assert np.abs(point.A[2]).max() < 2e-3


def test_a_zero_target_has_one_critical_point():
    cost = factorization(np.zeros((4, 3)), CPU)
    point = refine_matrix(near(np.zeros((4, 3)), 1e-3), cost)
    assert (point.rank, point.cost, point.next_mode, point.converged) == (0, 0.0, 0.0, True)


@pytest.mark.parametrize("rank", [1, 2])
def test_a_cost_in_single_precision_has_its_minimum_and_its_saddles(rank):
    task = planted_task("completion", (6, 6), (7.0, 4.0), resolve_backend("cpu", "float32"), observed=0.9)
    double = planted_task("completion", (6, 6), (7.0, 4.0), CPU, observed=0.9)
    truth = best_at_rank(double, rank)
    point = refine_matrix(near(truth, 1e-3), task.cost)
    assert point.converged and point.rank == rank
    assert (point.next_mode == 0.0) == (rank == 2)
    assert np.allclose(point.A, truth, atol=1e-5)


def test_half_way_between_two_critical_points_nothing_is_claimed():
    target = planted_matrix((6, 6), (7.0, 4.0), 0)
    point = refine_matrix(0.7 * kept(target, [0]) + 0.6 * kept(target, [1]), factorization(target, CPU))
    assert not point.converged

"""Costs: against their definitions summed term by term, autograd, least squares and brute force."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import TASKS, stated_cost
from scipy.linalg import lstsq
from scipy.optimize import minimize
from tolerances import assert_equal

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import Cost, QuadraticCost, completion, factorization, regression, sensing
from dlnphase.errors import InputError

CPU = resolve_backend("cpu")
SHAPES = [(3, 4), (4, 2), (1, 5), (5, 1), (1, 1)]


def matrices(shape, backend=CPU, batch=3, seed=3):
    return backend.tensor(np.random.default_rng(seed).standard_normal((batch, *shape)))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_derivatives_are_those_of_the_definition(task, shape, any_backend):
    stated, dtype = stated_cost(task, shape, any_backend), any_backend.dtype_name
    cost, a = stated.cost, matrices(shape, any_backend)
    plain = a.cpu().numpy().astype(float)
    assert cost.shape == shape and cost.kind == task and isinstance(cost, Cost)
    assert_equal(cost.value(a), [stated.value(x) for x in plain], dtype)
    assert_equal(cost.gradient(a), np.stack([stated.gradient(x) for x in plain]), dtype)
    hessian = stated.design.T @ stated.design
    assert_equal(cost.curvature(a), hessian, dtype)
    v = matrices(shape, any_backend, seed=4)
    images = (hessian @ v.cpu().numpy().astype(float).reshape(3, -1, 1)).reshape(3, *shape)
    assert_equal(cost.apply_curvature(v, a), images, dtype)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_and_curvature_are_those_of_autograd(task, shape):
    cost = stated_cost(task, shape, CPU).cost
    a = matrices(shape)[0]
    assert_equal(cost.gradient(a), torch.autograd.functional.jacobian(lambda x: cost.value(x), a))
    hessian = torch.autograd.functional.hessian(lambda x: cost.value(x), a)
    assert_equal(cost.curvature().reshape(*shape, *shape), hessian)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_minimum_is_that_of_least_squares(task, shape):
    stated = stated_cost(task, shape, CPU)
    solution = lstsq(stated.design, stated.right)[0]
    expected = 0.5 * np.sum((stated.design @ solution - stated.right) ** 2)
    scale = 0.5 * np.sum(stated.right**2)
    assert stated.cost.minimum == pytest.approx(expected, abs=1e-12 * scale)
    assert_equal(stated.cost.minimizer, solution.reshape(shape), factor=10)
    assert float(stated.cost.excess(stated.cost.minimizer)) == 0.0


def test_a_task_with_noise_has_a_positive_minimum_and_one_without_exactly_zero():
    """C_min is computed, not assumed; an exact fit is told from round-off."""
    for task in ("sensing", "regression"):
        assert stated_cost(task, (3, 4), CPU).cost.minimum > 1e-3
        rng = np.random.default_rng(0)
        target = rng.standard_normal((3, 4))
        if task == "sensing":
            operators = rng.standard_normal((20, 3, 4))
            cost = sensing(operators, np.einsum("mij,ij->m", operators, target), CPU)
        else:
            x = rng.standard_normal((20, 4))
            cost = regression(x, x @ target.T, CPU)
        assert cost.minimum == 0.0
        assert_equal(cost.minimizer, target, factor=10)


def test_data_that_do_not_determine_the_matrix_give_the_minimiser_of_least_norm():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((3, 6)), rng.standard_normal((3, 4))
    cost = regression(x, y, CPU)
    assert not cost.unique and cost.minimum == 0.0
    assert_equal(cost.minimizer, (np.linalg.pinv(x) @ y).T, factor=100)
    operators, values = rng.standard_normal((5, 4, 3)), rng.standard_normal(5)
    cost = sensing(operators, values, CPU)
    assert not cost.unique and cost.minimum == 0.0
    assert_equal(cost.minimizer, (np.linalg.pinv(operators.reshape(5, -1)) @ values).reshape(4, 3), factor=100)


def test_uniqueness():
    target = np.arange(6.0).reshape(2, 3)
    assert factorization(target, CPU).unique
    assert completion(target, np.ones((2, 3), bool), CPU).unique
    assert not completion(target, np.eye(2, 3) > 0, CPU).unique
    assert stated_cost("regression", (3, 4), CPU).cost.unique
    assert stated_cost("sensing", (3, 4), CPU).cost.unique
    column = np.ones((9, 1))
    assert not regression(np.hstack([column, column]), column, CPU).unique


@pytest.mark.parametrize("task", TASKS)
def test_the_excess_keeps_its_digits_near_the_minimum(task):
    """At a distance of 1e-9 the cost differs from C_min by 1e-18, which C(A) − C_min as a difference would lose."""
    stated = stated_cost(task, (3, 4), CPU)
    step = np.random.default_rng(5).standard_normal((3, 4))
    # Entries on a grid of 2^-40 around Â, so that A − Â is exact.
    near = stated.cost.minimizer + CPU.tensor(np.round(step * 2**10) * 2.0**-40)
    step = (near - stated.cost.minimizer).numpy()
    expected = 0.5 * np.sum((stated.design @ step.ravel()) ** 2)
    assert expected < 1e-17
    assert float(stated.cost.excess(near)) == pytest.approx(expected, rel=1e-12)


@given(st.sampled_from(TASKS), st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_costs_are_convex_and_above_their_minimum(task, seed, scale):
    cost = stated_cost(task, (3, 4), CPU, seed=seed % 50).cost
    a, b = scale * matrices((3, 4), seed=seed), matrices((3, 4), seed=seed + 1)
    assert (cost.excess(a) >= 0).all() and (cost.value(a) >= cost.minimum).all()
    tangent = cost.value(a) + (cost.gradient(a) * (b - a)).sum((-2, -1))
    assert (cost.value(b) - tangent >= -1e-12 * (cost.value(a) + tangent.abs())).all()


# ---- low rank ---------------------------------------------------------------------------------------


def best_at_rank(stated, rank, starts=12):
    """min of the definition over U Vᵀ of inner size ``rank``, by L-BFGS from many starts."""
    d_out, d_in = stated.cost.shape
    rng = np.random.default_rng(9)

    def value(z):
        u, v = z[: d_out * rank].reshape(d_out, rank), z[d_out * rank :].reshape(d_in, rank)
        residual = stated.design @ (u @ v.T).ravel() - stated.right
        g = (stated.design.T @ residual).reshape(d_out, d_in)
        return 0.5 * residual @ residual, np.concatenate([(g @ v).ravel(), (g.T @ u).ravel()])

    options = {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-10}
    return min(
        minimize(value, rng.standard_normal((d_out + d_in) * rank), jac=True, method="L-BFGS-B", options=options).fun
        for _ in range(starts)
    )


@pytest.mark.parametrize("task", ["factorization", "regression"])
@pytest.mark.parametrize(("shape", "rank"), [((3, 4), 1), ((3, 4), 2), ((5, 3), 1), ((5, 3), 2)])
def test_the_minimum_at_low_rank_is_the_brute_force_one(task, shape, rank):
    stated = stated_cost(task, shape, CPU)
    assert stated.cost.minimum_at_rank(rank) == pytest.approx(best_at_rank(stated, rank), rel=1e-7)


@pytest.mark.parametrize("task", TASKS)
def test_minima_at_the_ends_of_the_ranks(task):
    stated = stated_cost(task, (3, 4), CPU)
    assert stated.cost.minimum_at_rank(3) == stated.cost.minimum == stated.cost.minimum_at_rank(7)
    if task in ("factorization", "regression"):
        zero = stated.value(np.zeros((3, 4)))
        assert stated.cost.minimum_at_rank(0) == pytest.approx(zero, rel=1e-12)
        values = [stated.cost.minimum_at_rank(k) for k in range(4)]
        assert all(a > b for a, b in itertools.pairwise(values))


def test_a_masked_minimum_at_low_rank_is_known_only_where_the_least_norm_fit_has_that_rank():
    assert stated_cost("completion", (3, 4), CPU).cost.minimum_at_rank(1) is None
    target = np.outer([1.0, 2.0, 0.0], [1.0, -1.0])
    seen = np.array([[True, True], [True, True], [False, True]])
    assert completion(target, seen, CPU).minimum_at_rank(1) == 0.0
    assert completion(target, np.ones((3, 2), bool), CPU).minimum_at_rank(1) == pytest.approx(0.0, abs=1e-28)


def test_eckart_young():
    cost = factorization(np.diag([3.0, 2.0, 1.0]), CPU)
    assert [cost.minimum_at_rank(k) for k in range(4)] == pytest.approx([7.0, 2.5, 0.5, 0.0])


# ---- statistics ---------------------------------------------------------------------------------------


def test_a_regression_does_not_know_how_many_samples_it_came_from():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((40, 3)), rng.standard_normal((40, 2))
    once = regression(x, y, CPU)
    often = regression(np.tile(x, (500, 1)), np.tile(y, (500, 1)), CPU)
    shuffled = rng.permutation(40)
    for other in (often, regression(x[shuffled], y[shuffled], CPU)):
        assert_equal(other.operator, once.operator)
        assert_equal(other.minimizer, once.minimizer, factor=10)
        assert other.minimum == pytest.approx(once.minimum, rel=1e-12)
    held = [t for t in (vars(often) | vars(often.hessian)).values() if isinstance(t, torch.Tensor)]
    assert sorted(t.numel() for t in held) == [6, 9]


def test_what_is_not_observed_is_never_read():
    target = np.array([[1.0, np.nan], [np.inf, 2.0]])
    seen = np.eye(2, dtype=bool)
    cost = completion(target, seen, CPU)
    a = torch.tensor([[[3.0, 1e300], [-1e300, 5.0]]], dtype=torch.float64)
    assert float(cost.value(a)) == 0.5 * (2.0**2 + 3.0**2)
    assert cost.gradient(a)[0].tolist() == [[2.0, 0.0], [0.0, 3.0]]


def test_a_cost_moves_to_another_dtype():
    cost = stated_cost("regression", (3, 4), CPU).cost
    single = cost.to(resolve_backend("cpu", "float32"))
    assert single.minimizer.dtype == single.operator.dtype == torch.float32
    assert single.minimum == cost.minimum and single.kind == cost.kind
    assert_equal(single.value(matrices((3, 4)).float()), cost.value(matrices((3, 4))), "float32")


def test_costs_keep_their_own_copy(backend):
    target, operators, values = np.eye(3), np.ones((2, 3, 3)), np.ones(2)
    x, y, seen = np.eye(3), np.eye(3), np.ones((3, 3), bool)
    costs = [
        factorization(target, backend),
        completion(target, seen, backend),
        sensing(operators, values, backend),
        regression(x, y, backend),
    ]
    before = [cost.value(torch.ones(1, 3, 3, dtype=backend.dtype, device=backend.device)).item() for cost in costs]
    for array in (target, operators, values, x, y, seen):
        array[:] = 0
    after = [cost.value(torch.ones(1, 3, 3, dtype=backend.dtype, device=backend.device)).item() for cost in costs]
    assert after == before


# ---- wrong input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(bad):
    hole = np.array([[1.0, bad], [1.0, 1.0]])
    with pytest.raises(InputError, match="target: 1 entries"):
        factorization(hole, CPU)
    with pytest.raises(InputError, match="target: 1 entries"):
        completion(hole, np.ones((2, 2), bool), CPU)
    with pytest.raises(InputError, match="operators: 1 entries"):
        sensing(hole[None], np.ones(1), CPU)
    with pytest.raises(InputError, match="values: 1 entries"):
        sensing(np.ones((1, 2, 2)), np.array([bad]), CPU)
    with pytest.raises(InputError, match="X: 1 entries"):
        regression(hole, np.ones((2, 2)), CPU)
    with pytest.raises(InputError, match="Y: 1 entries"):
        regression(np.ones((2, 2)), hole, CPU)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="no entry is observed"):
        completion(np.ones((2, 2)), np.zeros((2, 2), bool), CPU)
    with pytest.raises(InputError, match="the same N"):
        regression(np.ones((3, 2)), np.ones((4, 2)), CPU)
    with pytest.raises(InputError, match="the same N"):
        regression(np.ones((0, 2)), np.ones((0, 2)), CPU)
    with pytest.raises(InputError, match="the same N"):
        regression(np.ones(3), np.ones(3), CPU)
    with pytest.raises(InputError, match="operators"):
        sensing(np.ones((3, 2, 2)), np.ones(4), CPU)
    with pytest.raises(InputError, match="operators"):
        sensing(np.ones((3, 4)), np.ones(3), CPU)
    with pytest.raises(InputError, match="observed"):
        completion(np.ones((2, 3)), np.ones((2, 2), bool), CPU)
    with pytest.raises(ValueError, match="structure"):
        QuadraticCost("own", "sparse", torch.ones(1, 1), torch.ones(1, 1))

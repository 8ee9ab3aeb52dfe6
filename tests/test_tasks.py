"""Planted tasks and tasks on a user's own arrays."""

import numpy as np
import pytest
import torch

from dlnphase.backend import resolve_backend
from dlnphase.costs.tasks import (
    DRAWS,
    default_singular_values,
    matrix_task,
    planted_matrix,
    planted_task,
    regression_task,
)
from dlnphase.errors import InputError

CPU = resolve_backend("cpu")
VALUES = (3.0, 2.0, 0.5)


def at(cost, matrix):
    return float(cost.value(CPU.tensor(matrix).unsqueeze(0)))


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (3, 3), (9, 3)])
def test_a_planted_matrix_has_the_singular_values_asked_for(shape):
    matrix = planted_matrix(shape, VALUES, 1)
    assert matrix.shape == shape
    found = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(found[:3], VALUES, rtol=1e-13)
    assert found[3:].max(initial=0) < 1e-14
    assert np.array_equal(matrix, planted_matrix(shape, VALUES, 1))
    assert np.abs(matrix - planted_matrix(shape, VALUES, 2)).max() > 0.1


def test_planted_singular_vectors_are_uniform_on_the_sphere():
    """Entries of a Haar vector of dimension n have mean 0 and variance 1/n; without fixed signs the mean is not 0."""
    first = np.array([planted_matrix((4, 3), (1.0,), seed) for seed in range(2000)])
    np.testing.assert_allclose((first**2).mean(0), 1 / 12, atol=5 * 0.13 / np.sqrt(2000))
    np.testing.assert_allclose(first.mean(0), 0, atol=5 * np.sqrt(1 / 12 / 2000))


def test_default_singular_values():
    assert default_singular_values(3) == (10.0, 6.0, 3.0)
    assert default_singular_values(1) == (10.0,)
    assert default_singular_values(4) == (10.0, 7.5, 5.0, 2.5)


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("shape", [(5, 4), (4, 6)])
def test_without_noise_the_planted_matrix_is_a_perfect_fit(kind, shape):
    task = planted_task(kind, shape, VALUES, CPU, observed=1.0 if kind == "sensing" else 0.8)
    assert task.shape == shape and task.cost.kind == kind
    assert at(task.cost, task.target) == pytest.approx(0.0, abs=1e-24)
    assert task.cost.minimum == 0.0
    if task.test is not None:
        assert at(task.test, task.target) == pytest.approx(0.0, abs=1e-24)
        assert at(task.test, np.zeros(shape)) > 0.1


@pytest.mark.parametrize("observed", [0.01, 0.3, 0.5, 0.8, 1.0])
def test_a_completion_sees_the_fraction_asked_for_and_is_tested_on_the_rest(observed):
    task = planted_task("completion", (7, 6), VALUES, CPU, observed=observed)
    mask = task.cost.operator.numpy()
    assert set(np.unique(mask)) <= {0.0, 1.0}
    assert mask.sum() == max(1, round(observed * 42))
    if observed == 1.0:
        assert task.test is None
    else:
        np.testing.assert_array_equal(task.test.operator.numpy(), 1 - mask)
        np.testing.assert_array_equal(task.cost.minimizer.numpy(), mask * task.target)
        np.testing.assert_array_equal(task.test.minimizer.numpy(), (1 - mask) * task.target)


def test_masks_are_uniform():
    masks = [
        planted_task("completion", (3, 4), (1.0,), CPU, observed=0.5, data_seed=s).cost.operator.numpy()
        for s in range(800)
    ]
    np.testing.assert_allclose(np.mean(masks, 0), 0.5, atol=5 * 0.5 / np.sqrt(800))


def test_noise_has_the_size_asked_for_and_touches_only_what_training_sees():
    clean = planted_task("factorization", (60, 50), VALUES, CPU)
    noisy = planted_task("factorization", (60, 50), VALUES, CPU, noise=0.3)
    np.testing.assert_array_equal(clean.target, noisy.target)
    residual = noisy.cost.minimizer.numpy() - noisy.target
    assert residual.std() == pytest.approx(0.3, rel=5 / np.sqrt(2 * 3000))
    assert clean.test is None
    np.testing.assert_array_equal(noisy.test.minimizer.numpy(), noisy.target)


@pytest.mark.parametrize("kind", DRAWS)
def test_noise_changes_neither_the_target_nor_what_is_measured(kind):
    clean, noisy = (planted_task(kind, (5, 4), VALUES, CPU, noise=n, measurements=30) for n in (0.0, 0.2))
    np.testing.assert_array_equal(clean.target, noisy.target)
    assert torch.equal(clean.cost.operator, noisy.cost.operator)
    assert not torch.equal(clean.cost.minimizer, noisy.cost.minimizer)
    assert at(noisy.test, noisy.target) == pytest.approx(0.0, abs=1e-24)


def test_a_sensing_operator_preserves_norms_on_average():
    """B has entries N(0, 1/M): E Σ_m ⟨B_m, A⟩² = ‖A‖², relative variance 2/M."""
    a = np.random.default_rng(0).standard_normal((4, 3))
    values = [
        2 * at(planted_task("sensing", (4, 3), (0.0,), CPU, measurements=20, data_seed=s).cost, a) / (a**2).sum()
        for s in range(400)
    ]
    assert np.mean(values) == pytest.approx(1.0, abs=5 * np.sqrt(2 / 20 / 400))


def test_a_regression_has_white_inputs_and_ten_samples_a_dimension():
    operators = [planted_task("regression", (2, 3), (1.0,), CPU, data_seed=s).cost.operator.numpy() for s in range(400)]
    np.testing.assert_allclose(np.mean(operators, 0), np.eye(3), atol=5 * np.sqrt(2 / 30 / 400))
    spread = np.std([o[0, 0] for o in operators])
    assert spread == pytest.approx(np.sqrt(2 / 30), rel=0.2)


@pytest.mark.parametrize("kind", DRAWS)
def test_the_data_seed_decides_everything(kind):
    one, same, other = (planted_task(kind, (5, 4), VALUES, CPU, noise=0.1, data_seed=s) for s in (3, 3, 4))
    assert torch.equal(one.cost.minimizer, same.cost.minimizer)
    assert not torch.equal(one.cost.minimizer, other.cost.minimizer)


@pytest.mark.parametrize(
    ("values", "options", "word"),
    [
        ((1.0,) * 5, {}, "rank: found 5"),
        ((1.0, -1.0), {}, "singular-values"),
        ((np.nan,), {}, "singular-values"),
        ((1.0,), {"observed": 0.0}, "observed"),
        ((1.0,), {"observed": 1.5}, "observed"),
        ((1.0,), {"observed": np.nan}, "observed"),
        ((1.0,), {"noise": -1.0}, "noise"),
        ((1.0,), {"noise": np.inf}, "noise"),
        ((1.0,), {"kind": "fishing"}, "task"),
        ((1.0,), {"kind": "sensing", "measurements": 0}, "measurements"),
        ((1.0,), {"kind": "regression", "measurements": -2}, "measurements"),
    ],
)
def test_impossible_tasks_are_refused_by_name(values, options, word):
    options = {"kind": "completion", **options}
    with pytest.raises(InputError, match=word):
        planted_task(options.pop("kind"), (4, 6), values, CPU, **options)


# ---- a user's arrays ---------------------------------------------------------------------------------


def test_a_matrix_with_gaps_is_a_completion_and_one_without_a_factorization():
    matrix = np.arange(6.0).reshape(2, 3)
    assert matrix_task(matrix, CPU).cost.kind == "factorization"
    matrix[1, 1] = np.nan
    cost = matrix_task(matrix, CPU).cost
    assert cost.kind == "completion"
    assert cost.operator.tolist() == [[1, 1, 1], [1, 0, 1]]
    with pytest.raises(InputError, match="no entry"):
        matrix_task(np.full((2, 2), np.nan), CPU)
    with pytest.raises(InputError, match="not finite"):
        matrix_task(np.array([[1.0, np.inf]]), CPU)


def test_data_of_a_user_is_a_regression_with_its_own_test():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 3)), rng.standard_normal((20, 2))
    assert regression_task(x, y, CPU).test is None
    task = regression_task(x[:12], y[:12], CPU, x[12:], y[12:])
    a = rng.standard_normal((2, 3))
    assert at(task.cost, a) == pytest.approx(((x[:12] @ a.T - y[:12]) ** 2).sum() / 24, rel=1e-12)
    assert at(task.test, a) == pytest.approx(((x[12:] @ a.T - y[12:]) ** 2).sum() / 16, rel=1e-12)
    with pytest.raises(InputError, match="only one of X_test and Y_test"):
        regression_task(x, y, CPU, x)
    with pytest.raises(InputError, match="X_test and Y_test give"):
        regression_task(x, y, CPU, x[:, :2], y)


def test_data_with_large_means_are_told_and_centred_ones_are_not():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((200, 3)), rng.standard_normal((200, 2))
    assert regression_task(x, y, CPU).notes == ()
    (note,) = regression_task(x, y + 1.0, CPU).notes
    part = 1 - y.var(axis=0).sum() / np.mean(np.sum((y + 1.0) ** 2, axis=1))  # all but the variance
    told = float(note.split(" % of that of Y")[0].split()[-1]) / 100
    assert told == pytest.approx(part, abs=0.006) and "without biases" in note
    assert "without biases" in regression_task(x + 1.0, y, CPU).notes[0]
    ones = np.column_stack([x, np.ones(200)])
    assert regression_task(ones, y + 1.0, CPU).notes == ()

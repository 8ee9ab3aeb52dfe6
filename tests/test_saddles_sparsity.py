"""The end of the path: norms, and the nuclear-norm minimiser with its certificate."""

import numpy as np
import pytest
from scipy.optimize import minimize

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import completion, factorization, sensing
from dlnphase.costs.tasks import planted_matrix, planted_task
from dlnphase.critical.sparsity import end_of_path, norms_of, nuclear_minimum
from dlnphase.settings import TrainSettings
from dlnphase.training.run import train

CPU = resolve_backend("cpu")


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_norms_are_those_of_the_singular_values(depth):
    norms = norms_of(planted_matrix((6, 5), (4.0, 1.0), 0), depth)
    assert norms.rank == 2 and norms.nuclear == pytest.approx(5.0)
    assert norms.schatten == pytest.approx((4 ** (2 / depth) + 1) ** (depth / 2))
    # The nuclear norm at L = 2: half of the least ‖W_1‖² + ‖W_2‖².
    assert norms_of(np.diag([3.0, 2.0]), 2).schatten == pytest.approx(5.0)


def test_a_two_by_two_completion_has_its_minimiser_in_closed_form():
    """[[1, 2], [3, x]]: the nuclear norm is least over x where a fine scan finds it."""
    target = np.array([[1.0, 2.0], [3.0, np.nan]])
    found = nuclear_minimum(completion(target, ~np.isnan(target), CPU))
    grid = np.linspace(0, 10, 200_001)
    stack = np.array([[[1.0, 2.0], [3.0, x]] for x in grid[::100]])
    best = np.linalg.svd(stack, compute_uv=False).sum(1).min()
    assert found.gap <= 1e-5 and found.nuclear <= best * (1 + 1e-5)
    assert found.nuclear >= best * (1 - 1e-4)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("completion", {"observed": 0.7}), ("sensing", {"measurements": 14}), ("regression", {"measurements": 3})],
)
def test_the_minimiser_is_feasible_certified_and_not_beaten(kind, options):
    task = planted_task(kind, (5, 4), (7.0, 4.0), CPU, **options)
    found = nuclear_minimum(task.cost)
    assert float(task.cost.excess(CPU.tensor(found.A)[None])[0]) < 1e-18 * 50
    assert found.nuclear == pytest.approx(np.linalg.svd(found.A, compute_uv=False).sum())
    assert -1e-12 < found.gap <= 1e-5
    # A general-purpose optimiser on the free directions, from several starts, finds nothing lower.
    h = task.cost.curvature().numpy()
    values, vectors = np.linalg.eigh(h)
    free = vectors[:, values < 1e-10 * values[-1]]

    def nuclear(x):
        return np.linalg.svd(found.A + (free @ x).reshape(5, 4), compute_uv=False).sum()

    rng = np.random.default_rng(0)
    lowest = min(
        minimize(nuclear, rng.standard_normal(free.shape[1]), method="Powell", options={"maxiter": 300}).fun
        for _ in range(3)
    )
    assert found.nuclear <= lowest * (1 + 1e-5)
    # The certificate bounds every feasible matrix, the planted one included.
    assert found.nuclear * (1 - found.gap) <= 11.0 * (1 + 1e-12)


def test_enough_measurements_give_the_planted_matrix_back():
    task = planted_task("sensing", (8, 6), (7.0, 4.0), CPU, measurements=42)
    assert np.allclose(nuclear_minimum(task.cost).A, task.target, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_modes_that_the_gap_leaves_open_are_no_rank(dtype):
    """Twenty of twenty-five numbers, planted rank 1: the search stops within its gap of it, at a matrix of rank 4."""
    task = planted_task("sensing", (5, 5), (10.0,), resolve_backend("cpu", dtype), measurements=20)
    found = nuclear_minimum(task.cost)
    assert found.nuclear == pytest.approx(10.0, rel=1e-4) and norms_of(found.A, 4).rank == 4
    assert end_of_path(task.target, task.cost, 4).nuclear_minimizer.rank == 1


def test_the_end_of_a_path_is_judged_in_words():
    task = planted_task("completion", (6, 6), (7.0, 4.0), CPU, observed=0.8)
    reached = end_of_path(task.target, task.cost, 3, target=task.target)
    assert reached.reached == reached.planted and "those of the planted matrix" in reached.words
    assert reached.nuclear_minimizer.nuclear <= 11.0 + 1e-6 and reached.nuclear_gap <= 1e-5
    assert "not at it" in end_of_path(0.5 * task.target, task.cost, 3).words
    free = task.target + 5 * (1 - task.cost.operator.numpy()) * np.random.default_rng(0).standard_normal((6, 6))
    dense = end_of_path(np.stack([free, free]), task.cost, 3, target=task.target)
    assert dense.reached.rank > 2 and "the planted matrix 2 and 11" in dense.words
    unique = end_of_path(task.target, factorization(task.target, CPU), 3)
    assert unique.nuclear_minimizer is None and unique.planted is None


def test_small_scale_ends_sparse_and_the_lazy_regime_does_not():
    rich = train(TrainSettings(width=100, gamma=2.0, threads=1)).sparsity
    assert rich.reached.rank == rich.planted.rank == 3
    assert rich.reached.nuclear == pytest.approx(19.0, rel=1e-2)
    lazy = train(TrainSettings(width=10**6, gamma=0.75, threads=1)).sparsity
    assert lazy.reached.rank == 10 and lazy.reached.nuclear > 1.1 * rich.reached.nuclear
    assert lazy.reached.schatten > 2 * rich.reached.schatten
    assert train(TrainSettings(task="factorization", dim=4, width=20, gamma=2.0, threads=1)).sparsity is None


@pytest.mark.parametrize("way", ["backend", "arrays"])
def test_numbers_in_float32_leave_their_round_off_out_of_the_fit(way):
    """Twenty measurements of a 5 × 5 matrix fix twenty directions, whether the run or the user's arrays are float32."""
    full, single = resolve_backend("cpu"), resolve_backend("cpu", "float32")
    if way == "backend":
        cost = planted_task("sensing", (5, 5), (10.0,), single, measurements=20).cost
    else:
        rng = np.random.default_rng(0)
        operators = rng.standard_normal((20, 5, 5)).astype(np.float32)
        planted = 10 * np.outer(rng.standard_normal(5), rng.standard_normal(5))
        planted *= 10 / np.linalg.norm(planted)
        values = np.einsum("mij,ij->m", operators, planted).astype(np.float32)
        cost = sensing(operators, values, full)
        assert cost.resolution == np.finfo(np.float32).eps
    assert not cost.unique and not cost.to(full).unique
    assert cost.to(full).measured().shape[1] == 20
    found = nuclear_minimum(cost.to(full))
    assert found.nuclear == pytest.approx(10.0, rel=1e-4)
    assert nuclear_minimum(cost).nuclear == pytest.approx(10.0, rel=1e-4)

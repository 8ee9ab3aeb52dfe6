"""Where a path meets the noise: floors against closed forms and independent fits, marks, words, what is not told."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import dlnphase
from dlnphase.costs.tasks import matrix_task, planted_matrix, planted_task
from dlnphase.errors import InputError
from dlnphase.findings import Noise, NoiseFloor
from dlnphase.training.noise import Question, mean_noise, noise_on
from dlnphase.training.recording import MemberPath
from dlnphase.training.sentences import train_sentence

CPU = dlnphase.resolve_backend("cpu")
RNG = np.random.default_rng(11)


def staircase(best, task):
    """A path that visits the given matrices one after the other, and what noise_on is asked about it."""
    costs = [float(task.cost.excess(CPU.tensor(a[None]))[0]) for a in best]
    rows = [(float(k), k, k, cost, 1.0 / (1 + k)) for k, cost in enumerate(costs)]
    path = MemberPath(rows=rows, matrices=dict(enumerate(best)), reason="converged")
    spectra = np.linalg.svd(np.stack(best), compute_uv=False)
    return path, {k: k for k in range(len(best))}, spectra, len(best) - 1


def truncations(matrix, last=None):
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return [(u[:, :k] * s[:k]) @ vt[:k] for k in range((last or len(s)) + 1)]


def found(best, task, level, **question):
    asked = Question(level, "given" if level else "measured", task.numbers, task.weight, **question)
    return noise_on(*staircase(best, task), asked, task.cost, task.test)


def visible(task_map, a, rank):
    """How many directions of the matrices of this rank the data sees: the rank of a Jacobian, made by hand."""
    u, s, vt = np.linalg.svd(a)
    left, right = u[:, :rank] * np.sqrt(s[:rank]), vt[:rank].T * np.sqrt(s[:rank])
    columns = []
    for i in range(a.shape[0]):
        for j in range(rank):
            step = np.zeros((a.shape[0], rank))
            step[i, j] = 1.0
            columns.append(task_map(step @ right.T))
    for i in range(a.shape[1]):
        for j in range(rank):
            step = np.zeros((a.shape[1], rank))
            step[i, j] = 1.0
            columns.append(task_map(left @ step.T))
    return np.linalg.matrix_rank(np.array(columns)) if columns else 0


def test_the_floor_of_a_factorization_is_its_closed_form():
    """σ²/2·(d_out − k)(d_in − k), and what is left of planted matrices of rank k with noise, by SVD alone."""
    sigma, shape, rank = 0.05, (9, 7), 2
    target = planted_matrix(shape, (6.0, 3.0), 1)
    left = [
        0.5 * np.sum(np.linalg.svd(target + sigma * RNG.standard_normal(shape), compute_uv=False)[rank:] ** 2)
        for _ in range(800)
    ]
    noise = found(truncations(target + sigma * RNG.standard_normal(shape)), matrix_task(target, CPU), sigma)
    for floor in noise.floors:
        k = floor.rank
        assert floor.expected == pytest.approx(sigma**2 / 2 * (9 - k) * (7 - k), rel=1e-12)
        assert floor.spread == pytest.approx(sigma**2 * np.sqrt((9 - k) * (7 - k) / 2), rel=1e-12)
    floor = noise.floors[rank]
    assert abs(np.mean(left) - floor.expected) < 4 * floor.spread / np.sqrt(800) + 2e-3 * floor.expected
    assert np.std(left) == pytest.approx(floor.spread, rel=0.1)


def test_the_floor_of_a_completion_counts_the_directions_that_the_mask_sees():
    shape = (7, 6)
    target = planted_matrix(shape, (5.0, 3.0, 2.0), 2)
    for draw in range(6):
        mask = np.random.default_rng(draw).random(shape) < 0.75
        mask[0] = [True, *[False] * 5]  # a row with fewer entries than the rank
        task = matrix_task(np.where(mask, target, np.nan), CPU)
        noise = found(truncations(target, 3), task, 0.1)
        for floor in noise.floors:
            p = visible(lambda a, mask=mask: a[mask], target, floor.rank)
            assert floor.expected == pytest.approx(0.005 * (mask.sum() - p), rel=1e-9, abs=1e-15)


def test_what_fits_of_low_rank_leave_of_noise_is_the_floor_of_a_completion():
    """Alternating least squares, which shares nothing with the package, on many draws of noise."""
    shape, rank, sigma = (12, 10), 2, 0.05
    target = planted_matrix(shape, (9.0, 6.0), 3)
    mask = np.random.default_rng(0).random(shape) < 0.7
    left = []
    for draw in range(40):
        seen = target + sigma * np.random.default_rng([1, draw]).standard_normal(shape)
        u, s, vt = np.linalg.svd(target)
        a, b = u[:, :rank] * s[:rank], vt[:rank].T.copy()
        for _ in range(30):
            for i in range(shape[0]):
                a[i] = np.linalg.lstsq(b[mask[i]], seen[i, mask[i]], rcond=None)[0]
            for j in range(shape[1]):
                b[j] = np.linalg.lstsq(a[mask[:, j]], seen[mask[:, j], j], rcond=None)[0]
        left.append(0.5 * np.sum((a @ b.T - seen)[mask] ** 2))
    floor = found(truncations(target, 2), matrix_task(np.where(mask, target, np.nan), CPU), sigma).floors[2]
    assert abs(np.mean(left) - floor.expected) < 4 * floor.spread / np.sqrt(40)


def test_the_floors_of_sensing_and_regression():
    shape, sigma = (5, 4), 0.2
    sensed = planted_task("sensing", shape, (3.0, 1.0), CPU, measurements=15, noise=sigma)
    h = sensed.cost.operator.numpy()
    for floor in found(truncations(sensed.target, 2), sensed, sigma).floors:
        p = visible(lambda a: h @ a.ravel(), sensed.target, floor.rank)
        assert floor.expected == pytest.approx(sigma**2 / 2 * (15 - p), rel=1e-9)
    fitted = planted_task("regression", shape, (3.0, 1.0), CPU, measurements=30, noise=sigma)
    for floor in found(truncations(fitted.target, 2), fitted, sigma).floors:
        k = floor.rank
        assert floor.expected == pytest.approx(sigma**2 / (2 * 30) * (30 * 5 - k * (9 - k)), rel=1e-9)
    # The mean of the least squares left over is that of the floor at full rank.
    assert fitted.cost.minimum == pytest.approx(sigma**2 / 60 * (30 * 5 - 20), rel=4 * np.sqrt(2 / 130))


@pytest.mark.parametrize(("kind", "size"), [("factorization", 9), ("completion", 12)])
def test_a_noisy_path_meets_its_noise_at_the_planted_rank(kind, size):
    settings = dlnphase.TrainSettings(
        task=kind, shape=(size, size), noise=0.2, depth=3, width=40, tol=1e-3, data_seed=1
    )
    result = dlnphase.train(settings)
    noise, path = result.noise, result.trajectory
    assert (noise.source, noise.level, noise.rank, noise.chance) == ("planted", 0.2, 3, None)
    floor = noise.floors[3]
    limit = floor.expected + 2 * floor.spread
    after, before = path.t > noise.time, path.t < noise.time
    assert path.cost[after].max() <= limit and path.cost[before].min() >= limit * (1 - 1e-9)
    assert noise.floors[2].cost > noise.floors[2].expected + 2 * noise.floors[2].spread
    assert min(noise.floors, key=lambda f: f.test_cost).rank == 3  # what comes after only costs
    assert len(result.modes) > 3
    if kind == "factorization":
        again = dlnphase.train(dlnphase.TrainSettings.from_plain(result.config.to_plain(), "run.yaml"))
        assert again.noise == noise


def own(shape, values, sigma, seed):
    matrix = planted_matrix(shape, values, seed)
    return matrix + sigma * np.random.default_rng([2, seed]).standard_normal(shape)


def test_noise_of_unknown_size_is_measured():
    """The rank and σ of planted signals; 2·(residual)/σ² is χ² with the numbers that are left."""
    for seed in range(8):
        matrix = own((16, 14), (30.0, 18.0), 0.4, seed)
        noise = found(truncations(matrix), matrix_task(matrix, CPU), None, seed=seed)
        assert noise.rank == 2 and noise.chance > 0.05
        assert noise.level == pytest.approx(0.4, rel=4 / np.sqrt(2 * 14 * 12))


def test_noise_is_found_in_noise_as_often_as_the_test_says():
    ranks = []
    for seed in range(60):
        matrix = np.random.default_rng([3, seed]).standard_normal((9, 8))
        noise = found(truncations(matrix), matrix_task(matrix, CPU), None, seed=seed)
        ranks.append(None if noise is None else noise.rank)
    missed = sum(rank != 0 for rank in ranks)
    assert missed <= 10  # Binomial(60, 0.05) has mean 3 and standard deviation 1.7


@pytest.mark.parametrize("values", [(7.0, 4.0, 2.0), (5.0,), (6.0, 5.9, 5.8, 5.7), (7.0, 6.0, 5.0)])
def test_no_noise_is_seen_where_there_is_none(values):
    matrix = planted_matrix((8, 7), values, 4)
    assert found(truncations(matrix, len(values)), matrix_task(matrix, CPU), None) is None
    mask = np.random.default_rng(1).random(matrix.shape) < 0.85
    task = matrix_task(np.where(mask, matrix, np.nan), CPU)
    assert found(truncations(matrix, len(values)), task, None) is None


def test_nothing_is_told_of_matrices_too_small_to_tell():
    matrix = own((3, 2), (5.0, 0.0), 0.1, 0)
    assert found(truncations(matrix), matrix_task(matrix, CPU), None) is None


def test_a_cost_that_stays_above_the_noise_is_told_as_that():
    matrix = own((8, 8), (9.0, 5.0), 0.5, 1)
    noise = found(truncations(matrix, 2), matrix_task(matrix, CPU), 0.01)
    assert noise.rank is None and noise.time is None and [f.rank for f in noise.floors] == [0, 1, 2]


def test_several_starts():
    rows = [NoiseFloor(0, 0.0, 9.0, 2.0, 0.5, 4.0), NoiseFloor(1, 3.0, 1.0, 1.0, 0.25, 1.0)]
    a = Noise(0.5, "given", 1, 2.0, None, tuple(rows))
    b = Noise(0.5, "given", 1, 4.0, None, tuple(rows[:1]))
    mean = mean_noise([a, None, b, Noise(0.5, "given", None, None, None, ())])
    assert (mean.level, mean.rank, mean.time) == (0.5, 1, 3.0) and mean.floors == tuple(rows)
    assert mean_noise([None]) is None


def test_it_is_told_in_the_table_and_in_words(run):
    np.save("own.npy", own((12, 11), (20.0, 12.0), 0.3, 3))
    command = ("train", "--target", "own.npy", "-L", "2", "-w", "40", "--tol", "1e-3", "--observed", "0.8")
    code, out, _ = run(*command, "--noise-level", "0.3", "--out", "given")
    assert code == 0 and "Noise, σ = 0.3 (given)" in out and "← the noise" in out
    rows = [line.split() for line in out.split("Modes")[1].split("apart:")[0].splitlines()[3:] if line.strip()]
    assert [row[-1] for row in rows] == ["signal"] * 2 + ["noise"] * (len(rows) - 2) and len(rows) > 2
    assert "noise alone explains the cost" in " ".join(out.split()) and max(map(len, out.splitlines())) <= 80
    words = " ".join(out.split())
    assert "the end of the run and completed.csv hold them too, completed-at-noise.csv (rank 2) does not" in words
    assert "Test cost on the entries held out" in " ".join(out.split()) and "another exact fit" not in out
    code, out, _ = run(*command, "--out", "measured")
    assert code == 0 and "(measured)" in out and " noise?" in out
    assert "cannot be told from noise" in " ".join(out.split())
    (row,) = [line for line in out.splitlines() if line.endswith("← the noise")]
    assert "σ from here" in row  # the cost there is what σ was measured by: no comparison
    result = dlnphase.load("measured")
    assert result.noise.rank == 2 and result.noise.source == "measured" and Path("measured/run.yaml").exists()
    floor = _the_matrix_before_the_noise_is_kept(result, planted_matrix((12, 11), (20.0, 12.0), 3), np.load("own.npy"))
    code, out, _ = run(*command, "--max-time", str(floor.time), "--out", "ended")  # as the advice says
    assert code == 0 and "what was left cannot be told from noise" in " ".join(out.split())
    assert dlnphase.load("ended").noise.rank == 2 and dlnphase.load("ended").completed_at_noise is None


def _the_matrix_before_the_noise_is_kept(result, truth, given):
    assert result.files["completed_at_noise"] == "completed-at-noise.csv"
    (floor,) = [floor for floor in result.noise.floors if floor.rank == 2]
    at_noise = result.trajectory.A[np.flatnonzero(result.trajectory.t == floor.time)[0]]
    end = result.trajectory.A[-1]
    unseen = result.completed.values != given
    assert 0 < unseen.sum() < unseen.size / 2
    np.testing.assert_array_equal(result.completed.values[unseen], end[unseen])
    np.testing.assert_array_equal(result.completed_at_noise.values[unseen], at_noise[unseen])
    np.testing.assert_array_equal(result.completed_at_noise.values[~unseen], given[~unseen])
    assert np.linalg.norm((at_noise - truth)[unseen]) < np.linalg.norm((end - truth)[unseen])
    return floor


def test_a_floor_that_noise_leaves_nothing_of_is_no_number_with_a_spread(run):
    np.save("own.npy", own((6, 5), (20.0, 12.0), 0.3, 3))
    command = ("train", "--target", "own.npy", "-L", "2", "-w", "40", "--tol", "1e-3", "--noise-level", "0.3")
    code, out, _ = run(*command, "--out", "given")
    assert code == 0 and "± 0 " not in out and "noise leaves nothing" in " ".join(out.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise": 0.1, "noise_level": 0.1}, "noise-level: found beside noise"),
        ({"noise_level": 0.0}, "noise_level: found 0.0, expected a finite number above 0"),
    ],
)
def test_refusals(options, words):
    with pytest.raises(InputError) as error:
        dlnphase.TrainSettings(**options)
    assert str(error.value).startswith(words)


def test_data_that_no_mode_stands_out_of_are_said_to_be_that(tmp_path):
    """Seven numbers: any rank looks like noise, and no time is recommended to stop at, nor a matrix kept without it."""
    target = np.array([[1.0, 2, np.nan], [4, np.nan, 6], [7, 8, 9]])
    np.save(tmp_path / "few.npy", target)
    result = dlnphase.train(dlnphase.TrainSettings(target=str(tmp_path / "few.npy"), tol=1e-3, threads=1))
    assert (result.noise.rank, result.noise.source) == (0, "measured")
    words = train_sentence(result)
    assert "No mode stands out of the data" in words and "--max-time" not in words
    assert result.completed_at_noise is None
    # The end of this path lies near a saddle of rank 1; its own matrix has a second mode, and that is what is told.
    assert result.outcome.rank == 2 and result.sparsity.reached.rank >= 2


@pytest.mark.parametrize(("end", "words"), [(3.0, "is not decided: it was next told at rank 3"), (4.5, "stayed above")])
def test_a_floor_that_was_passed_between_two_ranks_is_not_said_to_be_out_of_reach(end, words):
    """Ranks 0, 1 and then 3, which fits any data: the cost of 3 is below the 4 that noise leaves at rank 1."""
    floors = (NoiseFloor(0, 0.0, 50.0, 5.0, 0.2), NoiseFloor(1, 1.0, 9.0, 4.0, 0.2), NoiseFloor(3, 2.0, end, 0.0, 0.0))
    result = dlnphase.train(dlnphase.TrainSettings(task="factorization", shape=(2, 2), width=5, max_steps=5, threads=1))
    noise = Noise(0.1, "planted", None, None, None, floors)
    assert words in train_sentence(dataclasses.replace(result, noise=noise))

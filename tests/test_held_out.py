"""A matrix of one's own: entries held out, the completed matrix, what a later setting makes void."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dlnphase
from dlnphase.costs.tasks import matrix_task
from dlnphase.errors import InputError
from dlnphase.results.matrixfile import MatrixTable
from dlnphase.settings.table import resolve
from dlnphase.setup.inputs import read_matrix

CPU = dlnphase.resolve_backend("cpu")
RNG = np.random.default_rng(5)
RANK_ONE = np.round(np.outer(RNG.uniform(1, 2, 8), RNG.uniform(1, 2, 7)) * 3, 4)
QUICK = {"depth": 2, "width": 20, "tol": 1e-3}


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "own.csv"
    pd.DataFrame(RANK_ONE, index=[f"u{k}" for k in range(8)], columns=[f"f, {k}" for k in range(7)]).to_csv(file)
    return file


@pytest.mark.parametrize("gaps", [0, 9])
@pytest.mark.parametrize("observed", [0.05, 0.7, 1.0])
def test_training_and_test_entries_share_what_there_is(gaps, observed):
    matrix = RNG.standard_normal((6, 7))
    matrix.flat[RNG.permutation(42)[:gaps]] = np.nan
    known = ~np.isnan(matrix)
    task = matrix_task(matrix, CPU, observed=observed, data_seed=3, name="m")
    seen = task.cost.operator.numpy() > 0
    count = round(observed * known.sum())
    assert seen.sum() == count and not (seen & ~known).any()
    np.testing.assert_array_equal(task.cost.minimizer.numpy()[seen], matrix[seen])
    if observed == 1.0:
        assert task.test is None and np.array_equal(seen, known)
        return
    held = task.test.operator.numpy() > 0
    np.testing.assert_array_equal(seen | held, known)
    assert not (seen & held).any() and f"m: {held.sum()} of {known.sum()} entries are held out" in task.notes[0]
    a = RNG.standard_normal(matrix.shape)
    residual = 0.5 * np.nansum(np.where(held, a - matrix, 0.0) ** 2)
    assert float(task.test.value(CPU.tensor(a[None]))) == pytest.approx(residual, rel=1e-12)


def test_what_is_held_out_has_a_stream_of_its_own():
    """Uniform over the entries, by ``data_seed`` alone; another seed draws another set."""
    matrix = np.arange(1.0, 61.0).reshape(6, 10)
    masks = np.array([matrix_task(matrix, CPU, observed=0.5, data_seed=s).cost.operator.numpy() for s in range(400)])
    again = matrix_task(matrix + 1, CPU, observed=0.5, data_seed=7).cost.operator.numpy()
    np.testing.assert_array_equal(again, masks[7])
    share = masks.mean(0)  # each entry is seen in Binomial(400, ½) draws
    assert abs(share - 0.5).max() < 4.5 * np.sqrt(0.25 / 400)


def test_rows_without_an_entry_are_told():
    matrix = np.ones((4, 3))
    matrix[1:3] = np.nan
    assert "m: 2 rows with no entry that training sees" in matrix_task(matrix, CPU, name="m").notes[0]


def test_a_rerun_equals_and_the_completed_matrix_keeps_what_was_seen(own, tmp_path):
    settings = dlnphase.TrainSettings(target=str(own), observed=0.7, data_seed=2, **QUICK)
    result = dlnphase.train(settings)
    assert result.config.task == "completion" and result.config.data_seed == 2
    (tmp_path / "run").mkdir()
    dlnphase.save_train(result, tmp_path / "run")
    again = dlnphase.train(dlnphase.load(tmp_path / "run").config)
    assert again.outcome == result.outcome and again.outcome.test_cost is not None

    frame = pd.read_csv(tmp_path / "run" / "completed.csv", index_col=0)  # as its users will
    given = pd.read_csv(own, index_col=0)
    assert list(frame.index) == list(given.index) and list(frame.columns) == list(given.columns)
    seen = matrix_task(RANK_ONE, CPU, observed=0.7, data_seed=2).cost.operator.numpy() > 0
    np.testing.assert_array_equal(frame.to_numpy()[seen], RANK_ONE[seen])
    np.testing.assert_array_equal(frame.to_numpy()[~seen], result.trajectory.A[-1][~seen])
    residual = 0.5 * ((frame.to_numpy() - RANK_ONE)[~seen] ** 2).sum()
    assert result.outcome.test_cost == pytest.approx(residual, rel=1e-12)
    for table in (read_matrix(tmp_path / "run" / "completed.csv"), dlnphase.load(tmp_path / "run").completed):
        np.testing.assert_array_equal(table.values, frame.to_numpy())
        assert table.rows == tuple(given.index) and table.columns == tuple(given.columns)


@pytest.mark.parametrize("rows", [(), ("0", "1")])
@pytest.mark.parametrize("columns", [(), ("3", "4", "a,b")])
def test_a_written_matrix_is_read_by_its_shape_whatever_its_names(tmp_path, rows, columns):
    file, values = tmp_path / "m.csv", np.random.default_rng(0).standard_normal((2, 3))
    table = MatrixTable(values, rows, columns, "id" if rows and columns else "")
    file.write_text(table.csv())
    back = MatrixTable.read(file, (2, 3))
    np.testing.assert_array_equal(back.values, values)
    assert (back.rows, back.columns, back.corner) == (table.rows, table.columns, table.corner)
    for shape, text in (((3, 3), table.csv()), ((2, 5), table.csv()), ((2, 3), table.csv().replace(".", "x"))):
        file.write_text(text)
        with pytest.raises(InputError, match=r"m\.csv: expected a matrix of"):
            MatrixTable.read(file, shape)


def test_of_several_starts_the_mean_completes(own, tmp_path):
    result = dlnphase.train(dlnphase.TrainSettings(target=str(own), observed=0.6, seeds=3, **QUICK))
    ends = [result.trajectory.A[result.trajectory.rows_of(m)[-1]] for m in range(3)]
    seen = matrix_task(RANK_ONE, CPU, observed=0.6).cost.operator.numpy() > 0
    np.testing.assert_allclose(result.completed.values[~seen], np.mean(ends, 0)[~seen], rtol=1e-14)
    assert result.files["completed"] == "completed.csv"


@pytest.mark.parametrize(
    ("config", "flags", "expected"),
    [
        ({"target": "a.csv", "observed": 0.7, "data_seed": 1}, {"target": "b.csv"}, ("b.csv", 0.7, 1)),
        ({"target": "a.csv", "task": "completion"}, {"observed": "0.7"}, ("a.csv", 0.7, 0)),
        ({"target": "a.csv", "observed": 0.7}, {"data_seed": "4"}, ("a.csv", 0.7, 4)),
        ({"task": "completion", "observed": 0.8, "data_seed": 3}, {"target": "b.csv"}, ("b.csv", None, None)),
        ({"target": "a.csv"}, {"task": "completion"}, (None, 0.8, 0)),
        ({"target": "a.csv", "observed": 0.7, "header": True}, {"shape": "4x4"}, (None, 0.7, 0)),
        ({"target": "a.csv", "index_column": 1}, {"observed": "0.7"}, ("a.csv", 0.7, 0)),
    ],
)
def test_what_a_later_setting_makes_void(config, flags, expected):
    settings = resolve(dlnphase.TrainSettings, config=config, flags=flags)
    target = settings.target and settings.target.rsplit("/", 1)[-1]
    assert (target, settings.observed, settings.data_seed) == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data_seed": 1}, "data-seed: found beside target"),
        ({"observed": 0.7, "noise": 0.1}, "noise: found beside target"),
        ({"observed": 1.5}, "observed: found 1.5"),
        ({"task": "factorization", "observed": 0.5}, "task: found factorization, but observed holds entries out"),
        ({"task": "completion"}, "own.csv has no gaps, expected factorization"),
    ],
)
def test_refusals(own, options, words):
    with pytest.raises(InputError) as error:
        dlnphase.train(dlnphase.TrainSettings(target=str(own), **options, **QUICK))
    assert words in str(error.value)


def test_factorization_of_a_matrix_with_gaps_says_where(tmp_path):
    (tmp_path / "g.csv").write_text("x,y\n1,2\n3,\n,4\n")
    with pytest.raises(InputError, match=r"g\.csv has 2 gaps, the first in row 2, column 2, expected completion"):
        dlnphase.train(dlnphase.TrainSettings(target=str(tmp_path / "g.csv"), task="factorization"))


def test_no_completed_matrix_of_a_users_is_written_over(own, run):
    command = ["train", "--target", str(own), "--depth", "2", "--width", "20", "--tol", "1e-3", "--out", "out"]
    out = Path("out")
    out.mkdir()
    (out / "completed.csv").write_text("mine\n")
    code, _, err = run(*command, "--observed", "0.7")
    assert code == 2 and "completed.csv" in err and (out / "completed.csv").read_text() == "mine\n"
    shutil.rmtree(out)
    code, shown, err = run(*command, "--observed", "0.7")
    assert code == 0 and "completed.csv" in shown and "17 of 56 entries are held out" in err
    with (out / "completed.csv").open() as stream:
        assert next(csv.reader(stream)) == ["", *(f"f, {k}" for k in range(7))]
    assert run(*command, "--overwrite")[0] == 0  # a factorization: nothing is left of what the older run completed
    assert sorted(p.name for p in out.iterdir()) == ["run.yaml", "trajectory.npz"]

"""The csv of every figure against the results it is drawn from, read with the csv module alone."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import dlnphase
from dlnphase.cli.app import run

EXAMPLES = Path(__file__).resolve().parent / "data" / "schemas"


def tables(out: Path, *sources: str) -> dict[str, list[dict[str, str]]]:
    assert run(["plot", *(str(EXAMPLES / s) for s in sources), "--kind", "all", "-f", "csv", "--out", str(out)]) == 0
    read = {}
    for path in sorted(out.glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as stream:
            read[path.stem] = list(csv.DictReader(stream))
    assert not list(out.glob("*.png"))
    return read


def column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) if row[name] else np.nan for row in rows])


@pytest.fixture(scope="module")
def of_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    return tables(tmp_path_factory.mktemp("runs") / "out", "train@1", "train-seeds@1")


@pytest.mark.parametrize("name", ["train@1", "train-seeds@1"])
def test_records_keep_every_digit(of_runs, name: str) -> None:
    path = dlnphase.load_train(EXAMPLES / name).trajectory
    rows = [row for row in of_runs["loss"] if row["source"] == name]
    for key in ("member", "t", "step", "cost", "excess", "test_cost", "gradient_norm"):
        np.testing.assert_array_equal(column(rows, key), getattr(path, key), err_msg=key)
    rows = [row for row in of_runs["singular-values"] if row["source"] == name]
    shape = path.singular_values.shape
    np.testing.assert_array_equal(column(rows, "singular_value").reshape(shape), path.singular_values)
    np.testing.assert_array_equal(column(rows, "mode").reshape(shape), np.tile(np.arange(shape[1]) + 1, (shape[0], 1)))
    assert len({row["label"] for row in rows}) == 1 and rows[0]["label"]


def test_the_staircase_and_the_path_are_told(tmp_path: Path) -> None:
    of_runs = tables(tmp_path / "out", "train@1")
    result = dlnphase.load_train(EXAMPLES / "train@1")
    stairs = [r for r in of_runs["rank"] if r["source"] == "train@1" and r["series"] == "visited"]
    jumps = [row.time for row in result.rank_transitions]
    assert list(column(stairs, "t")[1:-1]) == jumps and column(stairs, "rank")[-1] == result.outcome.rank
    s = result.trajectory.singular_values
    share = np.maximum(s / s.sum(1, keepdims=True), 1e-300)
    told = [r for r in of_runs["rank"] if r["source"] == "train@1" and r["series"] == "effective"]
    np.testing.assert_allclose(column(told, "rank"), np.exp(-(share * np.log(share)).sum(1)))
    places = [r for r in of_runs["path"] if r["source"] == "train@1" and r["series"] == "path"]
    xy = np.stack([column(places, "along"), column(places, "across")], 1)
    flat = result.trajectory.A.reshape(len(xy), -1)
    # coordinates in a plane: never further apart than the matrices themselves
    assert (np.linalg.norm(xy - xy[0], axis=1) <= np.linalg.norm(flat - flat[0], axis=1) * (1 + 1e-9)).all()
    assert {r["rank"] for r in of_runs["path"] if r["series"] == "visit"} >= {str(result.outcome.rank)}


def test_visits_of_a_detection_and_of_a_run(of_runs, tmp_path: Path) -> None:
    found = dlnphase.load_detect(EXAMPLES / "detect-saddles@1")
    rows = tables(tmp_path / "out", "detect-saddles@1")["saddles"]
    for quantity, values in (
        ("cost", [v.cost for v in found.visits]),
        ("critical_cost", [v.critical_point.cost for v in found.visits]),
        ("matrix_distance", [v.matrix_distance for v in found.visits]),
        ("predicted_rate", [v.escape.predicted_rate for v in found.visits if v.escape]),
    ):
        assert list(column([r for r in rows if r["quantity"] == quantity], "value")) == values
    assert [r["kind"] for r in rows if r["quantity"] == "cost"] == [v.kind for v in found.visits]
    result = dlnphase.load_train(EXAMPLES / "train@1")
    dwell = [r for r in of_runs["saddles"] if r["source"] == "train@1" and r["quantity"] == "dwell"]
    assert list(column(dwell, "value")) == [row.dwell for row in result.rank_transitions]


def test_cells_slopes_and_ratios_of_a_sweep(tmp_path: Path) -> None:
    sweep = dlnphase.load_sweep(EXAMPLES / "sweep-gamma@1")
    read = tables(tmp_path / "out", "sweep-gamma@1")
    rows = [r for r in read["distances"] if r["quantity"] == "distance_to_saddle"]
    assert list(column(rows, "mean")) == [c.distance_to_saddle.mean for c in sweep.cells]
    assert list(column(rows, "gamma")) == [c.gamma for c in sweep.cells]
    ratio = np.array([c.distance_to_minimum.mean / c.distance_to_saddle.mean for c in sweep.cells])
    np.testing.assert_allclose(column(read["phase"], "log10_ratio"), np.log10(ratio))
    slopes = [r for r in read["exponents"] if r["quantity"] == "distance_to_minimum"]
    assert list(column(slopes, "slope")) == [e.distance_to_minimum.slope for e in sweep.exponents]
    told = [e.distance_to_minimum.ci95 or (np.nan, np.nan) for e in sweep.exponents]
    np.testing.assert_array_equal(np.stack([column(slopes, "ci95_low"), column(slopes, "ci95_high")], 1), told)

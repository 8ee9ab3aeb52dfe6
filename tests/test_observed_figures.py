"""Figures of what was looked at along a path, and of runs beside each other, against the results they show."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

import dlnphase
from dlnphase.plotting.difference import chord, compare
from dlnphase.plotting.draw import draw, module_of
from dlnphase.plotting.sources import read_sources
from dlnphase.results.observed import Observed
from dlnphase.results.train import load_train, save_train
from dlnphase.settings import PlotSettings, TrainSettings

SMALL = {"task": "factorization", "shape": (4, 3), "singular_values": (3.0, 1.0), "depth": 3, "width": 8, "gamma": 2.0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for name, more in (
        ("flow", {"record": "weights"}),
        ("gd", {"dynamics": "gd", "lr": 0.01, "tol": 1e-4, "record": "weights,layers,norms,hessian,ntk"}),
        ("other", {"shape": (3, 3), "max_steps": 5}),
    ):
        (root / name).mkdir()
        save_train(dlnphase.train(TrainSettings(**SMALL | more)), root / name)
    return root


def rows_of(kind, *paths):
    return list(csv.DictReader(io.StringIO(module_of(kind).data(read_sources(paths)).csv())))


def lines(figure, gid):
    return [line for ax in figure.axes for line in ax.lines if line.get_gid() == gid]


def test_the_sharpness_stands_beside_its_limit(runs):
    (drawn,), _ = draw(PlotSettings(source=(runs / "gd",), kind=("sharpness",)))
    result = load_train(runs / "gd")
    (line,), (limit,) = lines(drawn.figure, "sharpness"), lines(drawn.figure, "limit")
    np.testing.assert_array_equal(line.get_ydata(), result.observed.values["sharpness"])
    assert set(limit.get_ydata()) == {2 / 0.01} and drawn.figure.axes[0].get_ylim()[1] > 200
    rows = rows_of("sharpness", runs / "gd")
    assert [float(r["sharpness"]) for r in rows] == result.observed.values["sharpness"].tolist()
    assert {float(r["limit"]) for r in rows} == {200.0}


def test_every_array_has_a_panel_and_every_number_a_row(runs):
    (drawn,), _ = draw(PlotSettings(source=(runs / "gd",), kind=("observed",)))
    seen = load_train(runs / "gd").observed
    shown = [n for n in seen.values if not n.startswith("W") and n != "hessian_residual"]
    assert sum(ax.get_visible() for ax in drawn.figure.axes) == len(shown)
    assert len(lines(drawn.figure, "layer_norms")) == 3
    rows = rows_of("observed", runs / "gd")
    assert {r["quantity"] for r in rows} == set(shown)
    norms = [float(r["value"]) for r in rows if r["quantity"] == "layer_norms"]
    assert norms == seen.values["layer_norms"].ravel().tolist()


def test_two_runs_beside_each_other_are_as_far_apart_as_their_matrices(runs):
    rows = rows_of("difference", runs / "flow", runs / "gd")
    flow, gd = (load_train(runs / n).trajectory for n in ("flow", "gd"))
    told = [r for r in rows if r["quantity"] == "A"]
    assert {r["quantity"] for r in rows} == {"A", "weights"} and len(told) > 10
    for row in told[:: len(told) // 7]:
        t = float(row["t"])
        x = flow.A[np.searchsorted(flow.t, t)]
        y = np.stack([[np.interp(t, gd.t, gd.A[:, i, j]) for j in range(3)] for i in range(4)])
        assert float(row["distance"]) == pytest.approx(np.linalg.norm(x - y), abs=1e-12)
        cosine = np.sum(x * y) / np.linalg.norm(x) / np.linalg.norm(y)
        assert np.cos(np.radians(float(row["angle"]))) == pytest.approx(cosine, abs=1e-12)
    first = [r for r in rows if float(r["t"]) == 0.0]
    assert len(first) == 2 and all(float(r[n]) < 1e-6 for r in first for n in ("distance", "angle"))
    (drawn,), _ = draw(PlotSettings(source=(runs / "flow", runs / "gd"), kind=("difference",)))
    assert len(lines(drawn.figure, "distance")) == len(lines(drawn.figure, "angle")) == 2


def test_a_run_beside_itself_is_nowhere_apart(runs):
    result = load_train(runs / "gd")
    for apart in compare(result, result):
        assert not apart.distance.any() and not apart.angle.any() and not apart.open.any()


def test_chords_of_a_parabola_miss_it_by_no_more_than_is_said():
    s = np.linspace(0, 4, 9)
    t = np.linspace(0, 4, 161)
    np.testing.assert_allclose(chord(t, s, s[:, None])[:, 0], t)
    module = module_of("difference")
    missed = np.abs(chord(t, s, (s**2)[:, None])[:, 0] - t**2)
    said = module._open(t, s, (s**2)[:, None])
    assert (missed <= said + 1e-12).all() and missed.max() == pytest.approx(said.max() / 4)


def test_what_cannot_be_drawn_is_said_in_a_line(runs, run, tmp_path):
    for kind, names, words in (
        ("difference", ("flow",), "fewer than two"),
        ("difference", ("flow", "other"), "3x3"),
        ("sharpness", ("flow",), "--dynamics gd"),
        ("observed", ("other",), "--record"),
    ):
        code, _, err = run("plot", *(runs / n for n in names), "--kind", kind, "--out", tmp_path / "f")
        assert code == 2 and words in err and err.count("\n") == 1, (kind, err)
    code, _, err = run("plot", runs / "other", "--kind", "all", "--out", tmp_path / "all")
    assert code == 0 and "sharpness" not in err and "difference" not in err
    assert not (tmp_path / "all" / "sharpness.png").exists()
    code, _, _ = run("plot", runs / "flow", runs / "gd", "--kind", "all", "-f", "csv", "--out", tmp_path / "both")
    assert code == 0 and {"difference.csv", "observed.csv", "sharpness.csv"} <= {
        p.name for p in (tmp_path / "both").iterdir()
    }


def test_what_was_looked_at_is_a_table(runs):
    seen = load_train(runs / "gd").observed
    columns = seen.columns()
    assert {"member", "t", "step", "sharpness", "layer_norms_1", "layer_norms_3", "ntk_rate"} <= set(columns)
    assert all(len(c) == len(seen.t) for c in columns.values()) and "layer_norms" in seen.headline()
    assert isinstance(seen, Observed)


def test_labels_tell_what_differs_and_no_more_and_round_off_stretches_no_axis(runs, tmp_path):
    """Flow beside noise: what only one of them has, or has switched off, is no difference."""
    noisy, heavy = tmp_path / "noisy", tmp_path / "heavy"
    for path, more in ((noisy, {"batch_size": 5, "max_steps": 200}), (heavy, {"momentum": 0.5, "max_steps": 50})):
        path.mkdir()
        save_train(dlnphase.train(TrainSettings(**SMALL, dynamics="sgd", **more)), path)
    sources = read_sources([noisy, runs / "flow", heavy])
    assert [s.label for s in sources] == ["sgd, β = 0, batches of 5", "flow", "sgd, β = 0.5"]
    assert [s.label for s in read_sources([noisy, runs / "flow"])] == ["sgd, batches of 5", "flow"]
    (drawn,), _ = draw(PlotSettings(source=(noisy, runs / "flow"), kind=("difference",)))
    (line,) = lines(drawn.figure, "distance")
    assert drawn.figure.axes[0].get_ylim()[0] > 1e-8 and np.nanmax(line.get_ydata()) > 1e-3

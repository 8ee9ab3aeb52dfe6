"""Results in a notebook: opened by their directory, one line as repr, a table, a data frame."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import dlnphase
from dlnphase.errors import InputError
from dlnphase.plotting.draw import draw
from dlnphase.results.detect import save_detect
from dlnphase.results.sweep import SweepFile
from dlnphase.results.train import Member, save_train

SMALL = {"task": "factorization", "shape": (4, 3), "singular_values": (3.0, 1.0), "depth": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    for name in ("run", "saddles", "sweep"):
        (root / name).mkdir()
    run = dlnphase.train(dlnphase.TrainSettings(**SMALL, width=20, gamma=3.0))
    save_train(run, root / "run")
    save_detect(dlnphase.detect_saddles(str(root / "run")), root / "saddles")
    sweep = dlnphase.SweepSettings(task="factorization", dim=2, gammas=(0.7, 1.5), widths=(100,), seeds=(0, 1))
    SweepFile(root / "sweep").save(dlnphase.sweep_gamma(sweep))
    return root


def test_any_result_is_opened_by_its_directory_or_file(folder):
    for name, kind in (("run", "TrainResult"), ("saddles", "DetectResult"), ("sweep", "SweepResult")):
        assert type(dlnphase.load(folder / name)).__name__ == kind
    assert dlnphase.load(folder / "run" / "run.yaml").outcome.rank == 2
    with pytest.raises(InputError, match=r"found none of run\.yaml"):
        dlnphase.load(folder)
    with pytest.raises(InputError, match="expected the directory of a result"):
        dlnphase.load(folder / "run" / "trajectory.npz")


def test_data_frames_hold_the_numbers(folder):
    run = dlnphase.load(folder / "run")
    frame = run.to_dataframe()
    assert len(frame) == len(run.trajectory.t)
    assert list(frame.columns[:7]) == ["member", "t", "step", "cost", "excess", "test_cost", "gradient_norm"]
    values = np.linalg.svd(run.trajectory.A, compute_uv=False)
    assert np.allclose(frame[["singular_value_1", "singular_value_2"]], values[:, :2])
    saddles = dlnphase.load(folder / "saddles")
    frame = saddles.to_dataframe()
    assert list(frame["rank"]) == [0, 1, 2] and list(frame["kind"]) == [v.kind for v in saddles.visits]
    sweep = dlnphase.load(folder / "sweep")
    frame = sweep.to_dataframe()
    assert list(frame["gamma"]) == [0.7, 1.5]
    assert list(frame["distance_to_saddle"]) == [c.distance_to_saddle.mean for c in sweep.cells]
    assert (frame["distance_to_minimum_lower"] <= frame["distance_to_minimum"]).all()


def test_without_pandas_there_is_one_line(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        dlnphase.load(folder / "run").to_dataframe()


def test_a_result_is_one_line_and_a_table(folder):
    told = {"run": "factorization 4×3, L = 3", "saddles": "visits at rank 0, 1, 2", "sweep": "2 of 2"}
    for name, words in told.items():
        result = dlnphase.load(folder / name)
        assert words in repr(result) and "\n" not in repr(result) and len(repr(result)) < 160
        page = result._repr_html_()
        assert page.count("<table>") == page.count("</table>") == 1
        assert page.count("<tr>") == 1 + len(result.display_rows())


def test_figures_are_a_table_of_files(folder):
    result, files = dlnphase.plot(dlnphase.PlotSettings(source=str(folder / "run"), kind="loss", format="csv,svg"))
    assert repr(result) == "<PlotResult: 1 figure: loss>"
    assert sorted(result.to_dataframe()["file"]) == sorted(files) == ["loss.csv", "loss.svg"]
    assert all(name in result._repr_html_() for name in files)


def test_arrays_are_told_in_one_line(folder):
    path = dlnphase.load(folder / "run").trajectory
    assert repr(path).startswith(f"<Trajectory: {len(path.t)} records of 1 start, t up to")
    assert "A 4×3, 3 layers at" in repr(path) and "\n" not in repr(path)


def test_a_run_without_transitions_shows_its_modes_and_without_those_a_headline_alone(folder):
    import dataclasses

    result = dataclasses.replace(dlnphase.load(folder / "run"), rank_transitions=())
    page = result._repr_html_()
    assert "<th>separation</th>" in page and page.count("<tr>") == 1 + len(result.modes) > 2
    result = dataclasses.replace(result, modes=())
    assert "<table>" not in result._repr_html_()
    with pytest.raises(InputError, match=r"trajectory\.npz"):
        dataclasses.replace(result, trajectory=None).to_dataframe()


def test_a_start_is_a_line_and_a_figure_its_picture(folder):
    run = dlnphase.load(folder / "run")
    start = Member(3, run.outcome, run.rank_transitions, run.theory)
    assert repr(start) == f"<Member 3: saddle-to-saddle, rank 2, converged at t = {run.outcome.time:.4g}>"
    (drawn,), _ = draw(dlnphase.PlotSettings(source=str(folder / "run"), kind="loss"))
    assert repr(drawn) == "<Drawn: loss of run>"
    assert drawn._repr_png_().startswith(b"\x89PNG")

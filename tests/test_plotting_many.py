"""Figures of many sources and of wide sweeps, drawn from the small results that stand in tests/data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dlnphase
from dlnphase.cli.app import run
from dlnphase.plotting import draw as drawing
from dlnphase.plotting.distances import LABELLED
from dlnphase.plotting.sources import MANY
from dlnphase.plotting.style import caption_of
from dlnphase.plotting.terminal import Canvas, cells_of
from dlnphase.results.sweep import SweepFile

EXAMPLES = Path(__file__).resolve().parent / "data" / "schemas"


def draw(kind, *sources, **settings):
    settings = dlnphase.PlotSettings(source=[str(s) for s in sources], kind=kind, **settings)
    return drawing.draw(settings)[0][0].figure


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run under seven seeds: what it shows does not matter, how many there are does."""
    root, out = tmp_path_factory.mktemp("runs"), []
    result = dlnphase.load_train(EXAMPLES / "train@1")
    for seed in range(MANY + 3):
        out.append(root / f"seed-{seed}")
        out[-1].mkdir()
        dlnphase.save_train(replace(result, config=replace(result.config, seed=seed)), out[-1])
    return out


def test_a_caption_of_many_runs_tells_what_they_share_and_where_they_differ(runs):
    caption = caption_of(draw("loss", *runs, layout="overlay")).replace("\n", " ")
    assert f"{len(runs)} × factorization 3×2 of rank 2" in caption and "γ = 3" in caption
    assert "seed 0; seed 1; seed 2" in caption and "seed-0, seed-1" in caption
    few = caption_of(draw("loss", *runs[:2], layout="overlay"))
    assert " × factorization" not in few and "seed 0" in few and "seed 1" in few


def test_panels_of_many_runs_leave_no_empty_one_to_see(runs):
    figure = draw("singular-values", *runs, layout="panels")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == 2 * len(runs) < len(figure.axes)
    assert all(axes.lines for axes in shown)


def test_many_gammas_are_told_by_a_colour_bar(tmp_path):
    sweep = dlnphase.load_sweep(EXAMPLES / "sweep-gamma@1")
    gammas = tuple(np.round(0.5 + 0.1 * np.arange(LABELLED + 4), 1).tolist())
    cells = tuple(replace(sweep.cells[k % 2], gamma=g) for g in gammas for k in range(2))
    config = replace(sweep.config, gammas=gammas)
    SweepFile(tmp_path).save(replace(sweep, config=config, cells=cells, exponents=(), critical_gamma=None))
    figure = draw("distances", tmp_path)
    (bar,) = [axes for axes in figure.axes if axes.get_ylabel() == r"$\gamma$"]
    assert [float(label.get_text()) for label in bar.get_yticklabels()] == list(gammas)
    for axes in figure.axes[:2]:
        colours = {line.get_color() for line in axes.lines if (line.get_gid() or "").startswith("gamma")}
        assert axes.get_legend() is None and len(colours) == len(gammas)


@pytest.mark.parametrize("time", ["auto", "linear", "log", "bursts"])
def test_the_terminal_draws_several_runs_and_every_axis_of_time(runs, time, capsys):
    sources = [str(r) for r in runs[:3]] + [str(EXAMPLES / "train-seeds@1")]
    assert run(["plot", *sources, "--kind", "loss", "--terminal", "--time", time]) == 0
    assert run(["plot", sources[0], "--kind", "loss", "--terminal", "--time", time]) == 0
    assert run(["plot", str(EXAMPLES / "train-seeds@1"), "--kind", "loss", "--terminal", "--time", time]) == 0
    out = capsys.readouterr().out
    assert out.count("log10 cost") == 3 and "seed 1" in out and "test" in out
    if time == "log":
        assert "log10 t" in out
    if time == "bursts":
        assert "stretched around each burst" in out


def test_a_logarithmic_axis_begins_before_the_first_burst_or_where_the_cost_begins_to_move(tmp_path):
    result = dlnphase.load_train(EXAMPLES / "train@1")
    path = result.trajectory
    moved = path.t[(path.t > 0) & (path.excess < 0.99 * path.excess[0])].min()
    still = replace(result, rank_transitions=())
    for name, drawn, start in (("a", result, result.rank_transitions[0].time / 30), ("b", still, moved / 3)):
        (tmp_path / name).mkdir()
        dlnphase.save_train(drawn, tmp_path / name)
        assert draw("loss", tmp_path / name, time="log").axes[0].get_xlim()[0] == pytest.approx(start)


def test_curves_in_the_terminal_leave_each_other_to_be_seen():
    drawn = []

    class Recorder:
        def scatter(self, x, y, label, marker):
            drawn.append((np.array(x), np.array(y), label, marker))

        def yticks(self, values, labels):
            assert len(values) == len(labels)

    canvas = Canvas(Recorder(), 80)
    x = np.linspace(0, 1, 300)
    for name, y in (("a", x), ("b", x), ("c", np.where(x < 0.5, x, 2.0))):
        canvas.curve(x, y, name)
    canvas.draw()
    assert [d[2] for d in drawn] == ["a", "b", "c"] and len({d[3] for d in drawn}) == 3
    cells = [set(zip(np.round(d[0], 9), np.round(d[1], 9), strict=True)) for d in drawn]
    assert not (cells[0] & cells[1] or cells[1] & cells[2] or cells[0] & cells[2])
    for k, (low, high) in enumerate(((0, 1), (0, 1), (0, 1))):
        for part in np.linspace(low, high, 6)[:-1]:  # each is seen in every stretch it runs through
            assert ((drawn[k][0] >= part) & (drawn[k][0] <= part + 0.2)).any()
    (rising,) = [cells_of(np.array([[0.0, 0.0], [0.0, 7.0]]))]
    assert rising == [(0, k) for k in range(8)]  # a jump is a whole line

"""Figures show what the results hold: drawn data against YAML and npz, for every kind and for awkward runs."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib.image as mpimg
import numpy as np
import pytest
from matplotlib.text import Text

from dlnphase.cli.app import run
from dlnphase.detect.run import detect_saddles
from dlnphase.errors import InputError
from dlnphase.plotting.convergence import start_norm
from dlnphase.plotting.draw import draw, plot
from dlnphase.plotting.plane import plane_of, visited
from dlnphase.plotting.rank import effective_rank
from dlnphase.plotting.sources import read_sources
from dlnphase.plotting.style import COLOURS, caption_of, ordered_colours
from dlnphase.plotting.timeaxis import BurstClock, burst_clock, choose_axis, labelled_times, power_of_ten
from dlnphase.plotting.timeline import LOG_WORDS
from dlnphase.results.detect import load_detect, save_detect
from dlnphase.results.plot import load_plot
from dlnphase.results.sweep import SweepFile, load_sweep
from dlnphase.results.train import Member, load_train, save_train
from dlnphase.settings import DetectSettings, PlotSettings, SweepSettings, TrainSettings
from dlnphase.sweep.run import sweep_gamma
from dlnphase.training.run import train

SMALL = {"task": "factorization", "shape": "4", "rank": 2, "depth": 3, "width": 30}


def _save(directory: Path, **settings: object) -> Path:
    directory.mkdir()
    save_train(train(TrainSettings(**{**SMALL, **settings})), directory)
    return directory


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small result of every sort, by name."""
    root = tmp_path_factory.mktemp("results")
    _save(root / "run")
    _save(root / "completed", task="completion", rank=1)
    _save(root / "many", seeds=16, width=20, depth=2)
    _save(root / "none", max_time=1e-3)
    _save(root / "lazy", gamma=0.7, width=2000)
    _save(root / "greedy", dynamics="greedy")
    _save(root / "narrower", width=300)
    for name in ("run", "many"):
        (root / f"{name}-saddles").mkdir()
        found = detect_saddles(DetectSettings(source=str(root / name), greedy=name == "run"))
        save_detect(found, root / f"{name}-saddles")
    sweep = sweep_gamma(
        SweepSettings(gammas="0.8,1.0,1.5", widths="30,100,1000", shape="2", depth=2, seeds=3, train=True, jobs=1)
    )
    (root / "sweep").mkdir()
    SweepFile(root / "sweep").save(sweep)
    return root


def _figure(kind: str, *sources: Path, **settings: object):
    drawn, _ = draw(PlotSettings(source=[str(s) for s in sources], kind=kind, **settings))
    assert [d.kind for d in drawn] == [kind]
    return drawn[0].figure


def _lines(figure, gid: str) -> list[np.ndarray]:
    return [np.asarray(line.get_xydata()) for ax in figure.axes for line in ax.lines if line.get_gid() == gid]


def _assert_readable(figure) -> None:
    """No panel without data, nothing outside the page, no two tick labels or captions over each other."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    page = figure.bbox
    for ax in figure.axes:
        if not ax.get_visible():
            continue
        assert ax.lines or ax.collections or ax.images, "empty panel"
        box = ax.get_tightbbox(renderer)
        assert box.x0 >= page.x0 - 1 and box.x1 <= page.x1 + 1, "clipped at a side"
        assert box.y0 >= page.y0 - 1 and box.y1 <= page.y1 + 1, "clipped above or below"
        for axis in (ax.xaxis, ax.yaxis):
            boxes = [t.get_window_extent(renderer) for t in axis.get_ticklabels() if t.get_text() and t.get_visible()]
            inside = [b for b in boxes if b.overlaps(ax.bbox.expanded(1.3, 1.3))]
            horizontal = axis is ax.xaxis
            starts = sorted((b.x0, b.x1) if horizontal else (b.y0, b.y1) for b in inside)
            assert all(a[1] <= b[0] + 1 for a, b in pairwise(starts)), "tick labels overlap"
    titles = [
        child.get_window_extent(renderer)
        for ax in figure.axes
        for child in ax.get_children()
        if isinstance(child, Text) and ax.get_visible() and child.get_text() == (ax.get_title("left") or None)
    ]
    assert not any(a.overlaps(b) for i, a in enumerate(titles) for b in titles[:i]), "titles overlap"
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes)]
    for box in [legend.get_window_extent(renderer).padded(-1) for legend in legends if legend is not None]:
        assert not any(box.overlaps(ax.bbox) for ax in figure.axes if ax.get_visible()), "legend in a panel"
    (caption,) = [t for t in figure.texts if t.get_gid() == "caption"]
    low = min(ax.get_tightbbox(renderer).y0 for ax in figure.axes if ax.get_visible())
    assert caption.get_window_extent(renderer).y1 <= low + 1, "caption over a panel"
    assert caption.get_window_extent(renderer).x1 <= page.x1


# ---- the drawn data is the result ---------------------------------------------------------------------


def test_loss_draws_the_cost_the_plateaus_and_the_escape(results: Path) -> None:
    result = load_train(results / "run")
    figure = _figure("loss", results / "run")
    (cost,) = _lines(figure, "cost")
    np.testing.assert_array_equal(cost, np.stack([result.trajectory.t, result.trajectory.cost], 1))
    levels = [line[0, 1] for line in _lines(figure, "plateau")]
    assert levels == [p.predicted for p in result.theory.plateaus[:2]]  # the end, at round-off, has none
    edges = [0.0] + [row.time for row in result.rank_transitions]
    assert [tuple(line[:, 0]) for line in _lines(figure, "plateau")] == list(pairwise(edges))
    (escape,) = _lines(figure, "escape")
    assert escape[0, 0] == result.theory.predictions["escape_time"].predicted
    ranks = [t.get_text() for t in figure.axes[0].texts if t.get_gid() == "rank"]
    assert ranks == ["rank 0", "rank 1"]


def test_loss_draws_the_test_cost_and_the_exponential_of_the_lazy_regime(results: Path) -> None:
    path = load_train(results / "completed").trajectory
    (tested,) = _lines(_figure("loss", results / "completed"), "test")
    np.testing.assert_array_equal(tested[:, 1], path.test_cost)
    lazy = load_train(results / "lazy")
    (line,) = _lines(_figure("loss", results / "lazy"), "lazy")
    rate = np.log(line[0, 1] / line[-1, 1]) / (line[-1, 0] - line[0, 0])
    assert rate == pytest.approx(2 * lazy.theory.predictions["ntk_at_start"].predicted)
    # it is theory for that run: the measured decay is near it
    t, cost = lazy.trajectory.t, lazy.trajectory.cost
    assert np.log(cost[0] / cost[-1]) / t[-1] == pytest.approx(rate, rel=0.25)


def test_sixteen_starts_are_all_drawn_with_their_median(results: Path) -> None:
    path = load_train(results / "many").trajectory
    figure = _figure("loss", results / "many")
    drawn = _lines(figure, "cost")
    assert len(drawn) == 16
    for member, line in enumerate(drawn):
        np.testing.assert_array_equal(line[:, 1], path.cost[path.rows_of(member)])
    (median,) = _lines(figure, "median")
    k = len(median) // 2
    now, table = median[k, 0], []
    for m in range(16):
        t, cost = path.t[path.rows_of(m)], path.cost[path.rows_of(m)]
        if t[-1] < now:  # who has ended keeps its last value
            table.append(cost[-1])
        else:
            j = min(int(np.searchsorted(t, now, side="right")), len(t) - 1)
            part = (now - t[j - 1]) / (t[j] - t[j - 1])
            table.append(cost[j - 1] ** (1 - part) * cost[j] ** part)  # straight on the logarithmic axis
    assert median[k, 1] == pytest.approx(np.median(table))
    assert (np.diff(median[:, 1]) <= 1e-12 * median[0, 1]).all()  # every cost falls, so does their median
    ends = np.sort([path.t[path.rows_of(m)[-1]] for m in range(16)])
    assert median[-1, 0] == ends[7]  # until half have ended
    assert "from the 10 % to the 90 % quantile" in caption_of(figure).replace("\n", " ")


def test_mean_and_standard_deviation_are_drawn_where_asked_for(results: Path) -> None:
    path = load_train(results / "many").trajectory
    figure = _figure("loss", results / "many", average="mean")
    (mean,) = _lines(figure, "median")
    first = [path.cost[path.rows_of(m)[0]] for m in range(16)]
    assert mean[0, 1] == pytest.approx(np.mean(first))
    (band,) = figure.axes[0].collections
    edges = band.get_paths()[0].vertices
    assert edges[:, 1].max() >= np.mean(first) + np.std(first, ddof=1) * (1 - 1e-9)
    assert any("mean of 16 starts" in t.get_text() for t in figure.axes[0].get_legend().get_texts())


def test_fewer_than_five_starts_have_no_band(results: Path, tmp_path: Path) -> None:
    figure = _figure("loss", _save(tmp_path / "three", seeds=3, width=20, depth=2))
    assert not _lines(figure, "median") and not figure.axes[0].collections and len(_lines(figure, "cost")) == 3
    assert _lines(figure, "plateau") and any(t.get_gid() == "rank" for t in figure.axes[0].texts)  # of a batch too


def test_the_rank_of_a_batch_is_a_share_for_each_rank(results: Path) -> None:
    result = load_train(results / "many")
    axes = _figure("rank", results / "many").axes[0]
    assert axes.get_ylabel() == "share of the 16 starts"
    now = float(np.median([row.time for m in result.members for row in m.rank_transitions]))
    ranks = [max([r.to_rank for r in m.rank_transitions if r.time <= now], default=0) for m in result.members]
    top = 0.0
    for rank in sorted(set(ranks)):
        (area,) = [c for c in axes.collections if c.get_gid() == f"share{rank}"]
        inside = [y for y in np.linspace(0.001, 0.999, 500) if area.get_paths()[0].contains_point((now + 1e-9, y))]
        assert len(inside) / 500 == pytest.approx(ranks.count(rank) / 16, abs=0.01)
        assert min(inside) >= top - 0.01
        top = max(inside)


def test_singular_values_and_planted_ones(results: Path) -> None:
    result = load_train(results / "run")
    figure = _figure("singular-values", results / "run")
    for i in range(4):
        for line in _lines(figure, f"s{i + 1}"):  # linear above logarithmic
            np.testing.assert_array_equal(line[:, 1], result.trajectory.singular_values[:, i])
    assert {line[0, 1] for line in _lines(figure, "planted")} == set(result.config.singular_values)
    halves = [(m.time, m.size / 2) for m in result.modes]
    assert len(halves) == result.outcome.rank and len(_lines(figure, "half")) == 2
    assert all(np.array_equal(line, halves) for line in _lines(figure, "half"))
    assert [ax.get_yscale() for ax in figure.axes] == ["linear", "log"]


def test_rank_staircase_jumps_at_the_transitions(results: Path) -> None:
    result = load_train(results / "run")
    figure = _figure("rank", results / "run")
    (stairs,) = _lines(figure, "staircase")
    assert list(stairs[1:-1, 0]) == [row.time for row in result.rank_transitions]
    assert list(stairs[:-1, 1]) == [0, *(row.to_rank for row in result.rank_transitions)]
    np.testing.assert_allclose(effective_rank(np.array([[3.0, 3.0, 0.0], [5.0, 0.0, 0.0]])), [2, 1])


def test_path_is_the_projection_of_the_matrices(results: Path) -> None:
    result = load_train(results / "run")
    figure = _figure("path", results / "run", results / "greedy", results / "run-saddles")
    (line,) = _lines(figure, "path")
    matrices = result.trajectory.A.reshape(len(line), -1)
    index, ranks = visited(result, result, np.arange(len(line)))
    assert ranks == [0, 1, 2]
    # an isometry on the visits: three points lie in a plane, so their mutual distances are those on the page
    for i, j in ((0, 1), (1, 2), (0, 2)):
        on_page = np.linalg.norm(line[index[i]] - line[index[j]])
        assert on_page == pytest.approx(np.linalg.norm(matrices[index[i]] - matrices[index[j]]), rel=1e-6)
    assert abs(line[index[2], 1]) < 1e-6 * abs(line[index[2], 0])  # first to last visit runs to the right
    (visits,) = _lines(figure, "visits")
    np.testing.assert_array_equal(visits, line[index])
    greedy = np.concatenate(_lines(figure, "greedy"))
    assert len(greedy) == len(load_train(results / "greedy").trajectory.t) + len(
        load_detect(results / "run-saddles").matrices["greedy"]
    )


def test_plane_share_and_degenerate_points() -> None:
    flat = np.zeros((3, 2, 2))
    flat[1, 0, 0], flat[2, 1, 1] = 2.0, 1.0
    plane = plane_of(flat, flat)
    assert plane.share(flat) == pytest.approx(1.0)
    still = np.zeros((4, 1, 1))
    assert np.isfinite(plane_of(still[:1], still).project(still)).all()


def test_saddles_of_a_detection(results: Path) -> None:
    found = load_detect(results / "run-saddles")
    figure = _figure("saddles", results / "run-saddles")
    for gid, values in (
        ("cost", [v.cost for v in found.visits]),
        ("critical", [v.critical_point.cost for v in found.visits]),
        ("greedy", [v.greedy.cost for v in found.visits]),
        ("distance", [v.distance for v in found.visits]),
        ("matrix", [v.matrix_distance for v in found.visits]),
        ("predicted", [v.escape.predicted_rate for v in found.visits if v.escape]),
    ):
        (line,) = _lines(figure, gid)
        zero = 1e-12 * found.visits[0].cost if gid in ("critical", "greedy") else 0.0
        shown = np.array(values) > zero
        np.testing.assert_array_equal(line[shown, 1], np.array(values)[shown], err_msg=gid)
        assert list(line[:, 0]) == [v.rank for v in found.visits][: len(line)]  # at its rank, not beside it
    # what is zero stands on the line that says so, below everything else
    axes = figure.axes[0]
    (named,) = [t for t in axes.texts if t.get_gid() == "zero"]
    assert named.get_text() == "0" and not shown_as_number(axes, named.xy[1])
    assert _lines(figure, "critical")[0][-1, 1] == named.xy[1] < min(v.cost for v in found.visits)


def shown_as_number(axes, level: float) -> bool:
    """Whether a tick of the axis stands at or below a level."""
    return bool((np.concatenate([axes.yaxis.get_majorticklocs(), axes.yaxis.get_minorticklocs()]) <= level).any())


def test_saddles_of_a_run_alone(results: Path) -> None:
    result = load_train(results / "run")
    figure = _figure("saddles", results / "run")
    np.testing.assert_array_equal(_lines(figure, "cost")[0][:, 1], [p.measured for p in result.theory.plateaus])
    np.testing.assert_array_equal(_lines(figure, "dwell")[0][:, 1], [r.dwell for r in result.rank_transitions])


def test_convergence_is_the_least_distance_to_the_greedy_points(results: Path) -> None:
    figure = _figure("convergence", results / "run", results / "narrower", results / "run-saddles")
    points = load_detect(results / "run-saddles").matrices["greedy"]
    drawn = {round(float(x), 12): y for x, y in _lines(figure, "rank1")[0]}
    for name in ("run", "narrower"):
        result = load_train(results / name)
        gaps = np.linalg.norm(result.trajectory.A - points[1], axis=(1, 2)) / np.linalg.norm(points[-1])
        assert drawn[round(result.network.alpha, 12)] == pytest.approx(gaps.min())
        start = np.linalg.norm(result.trajectory.A[0])  # one draw of what theory tells the mean square of
        network = result.network
        assert start == pytest.approx(start_norm(network.width, network.alpha, network.depth, (4, 4)), rel=0.6)


def test_sweep_figures_draw_the_cells(results: Path) -> None:
    sweep = load_sweep(results / "sweep")
    figure = _figure("distances", results / "sweep")
    for ax, name in zip(figure.axes, ("distance_to_minimum", "distance_to_saddle"), strict=False):
        for gamma in (0.8, 1.0, 1.5):
            (points,) = [c for c in ax.containers if c.get_label() == rf"$\gamma = {gamma:g}$"]
            means = [getattr(sweep.cell(gamma, w), name).mean for w in (30, 100, 1000)]
            np.testing.assert_array_equal(points.lines[0].get_ydata(), means)
            told = [line for line in ax.lines if line.get_gid() == f"predicted{gamma:g}"]
            expected = [getattr(sweep.cell(gamma, w), name).predicted for w in (30, 100, 1000)]
            assert [list(line.get_ydata()) for line in told] == ([] if gamma == 1 else [expected])
    figure = _figure("exponents", results / "sweep")
    for ax, name in zip(figure.axes, ("distance_to_minimum", "distance_to_saddle"), strict=False):
        slopes = [getattr(e, name).slope for e in sweep.exponents]
        np.testing.assert_array_equal(ax.containers[0].lines[0].get_ydata(), slopes)
        (segments,) = [c.get_segments() for c in ax.containers[0].lines[2]]
        for segment, row in zip(segments, sweep.exponents, strict=True):
            np.testing.assert_allclose(segment[:, 1], getattr(row, name).ci95, atol=1e-12)
        (theory,) = [line for line in ax.lines if line.get_gid() == "predicted"]
        np.testing.assert_array_equal(theory.get_ydata(), [getattr(e, name).predicted for e in sweep.exponents])
    for ax, name in zip(figure.axes[2:], ("distance_to_minimum", "distance_to_saddle"), strict=True):
        missed = [getattr(e, name).slope - getattr(e, name).predicted for e in sweep.exponents]
        np.testing.assert_allclose(ax.containers[0].lines[0].get_ydata(), missed)
        (grey,) = [c.get_segments() for c in ax.containers[1].lines[2]]
        changes = [getattr(e, name).finite_width for e in sweep.exponents]
        np.testing.assert_allclose([np.ptp(segment[:, 1]) / 2 for segment in grey], changes, rtol=1e-6, atol=1e-12)


def test_phase_diagram_draws_the_ratio_and_the_crossing(results: Path) -> None:
    sweep = load_sweep(results / "sweep")
    figure = _figure("phase", results / "sweep")
    (mesh,) = [c for c in figure.axes[0].collections if c.get_gid() == "map"]
    expected = [
        [
            np.log10(sweep.cell(g, w).distance_to_minimum.mean / sweep.cell(g, w).distance_to_saddle.mean)
            for g in (0.8, 1.0, 1.5)
        ]
        for w in (30, 100, 1000)
    ]
    np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(3, 3), expected)
    for k, width in enumerate((30, 100, 1000)):
        np.testing.assert_allclose(_lines(figure, f"width{width}")[0][:, 1], expected[k])
    assert _lines(figure, "crossing")[0][0, 0] == sweep.critical_gamma.estimate
    for regime in ("lazy", "mean-field", "saddle-to-saddle"):
        cells = [(c.gamma, c.width) for c in sweep.cells if c.regime_seen == regime]
        assert len(_lines(figure, f"seen-{regime}")) == len(cells)


def test_a_sweep_with_gaps_leaves_them_open(results: Path, tmp_path: Path) -> None:
    sweep = load_sweep(results / "sweep")
    SweepFile(tmp_path).save(replace(sweep, cells=sweep.cells[1:-2], exponents=(), critical_gamma=None, complete=False))
    figure = _figure("phase", tmp_path)
    (mesh,) = [c for c in figure.axes[0].collections if c.get_gid() == "map"]
    assert int(np.ma.count_masked(mesh.get_array())) == 3
    assert "Missing (grey): 3 cells." in caption_of(figure).replace("\n", " ")
    drawn, notes = draw(PlotSettings(source=[str(tmp_path)], kind="all"))
    assert [d.kind for d in drawn] == ["distances", "phase"] and "exponents" in notes[0]


# ---- every figure is readable -------------------------------------------------------------------------


SOURCES = (
    "run",
    "many",
    "none",
    "lazy",
    "completed",
    "many-saddles",
    "sweep",
    "run narrower greedy run-saddles",
    "completed lazy run",
)
ON_SCREEN = ("sweep",)


@pytest.mark.parametrize(("names", "variant"), [*((n, "paper") for n in SOURCES), *((n, "screen") for n in ON_SCREEN)])
def test_every_figure_of_every_result_is_readable(results: Path, names: str, variant: str) -> None:
    drawn, _ = draw(PlotSettings(source=[str(results / n) for n in names.split()], kind="all", variant=variant))
    assert drawn
    for item in drawn:
        _assert_readable(item.figure)
        words = caption_of(item.figure)
        assert "dlnphase" in words and "L = " in words


def test_interrupted_run_and_a_visit_without_end_plot(results: Path, tmp_path: Path) -> None:
    stop = iter([False] * 40 + [True] * 10**6)
    result = train(TrainSettings(**SMALL), should_stop=lambda: next(stop))
    assert result.outcome.reason == "interrupted"
    save_train(result, tmp_path)
    drawn, _ = draw(PlotSettings(source=[str(tmp_path)], kind="all"))
    assert {"loss", "rank", "path"} <= {d.kind for d in drawn}
    assert all("interrupted" in caption_of(d.figure) for d in drawn)
    with pytest.raises(InputError, match="no source visits"):
        draw(PlotSettings(source=[str(results / "none")], kind="saddles"))


def test_colours_differ_in_grey_and_theory_is_black(results: Path) -> None:
    def grey(colour: str) -> float:
        r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return 0.299 * r + 0.587 * g + 0.114 * b

    shades = [grey(c) for c in COLOURS[:2]]
    assert abs(shades[0] - shades[1]) > 60
    lines = [ln for ln in _figure("loss", results / "run").axes[0].lines if ln.get_gid() in ("plateau", "escape")]
    assert lines and all(ln.get_color() == "black" and ln.get_linestyle() != "-" for ln in lines)
    overlaid = _figure("loss", results / "run", results / "narrower", layout="overlay").axes[0].lines
    assert len({(ln.get_color(), ln.get_linestyle()) for ln in overlaid}) == len(overlaid)


# ---- the time axis ------------------------------------------------------------------------------------


def test_rescaled_axis_is_monotone_invertible_and_shows_every_burst() -> None:
    clock = BurstClock(np.array([7e10, 1.4e11, 2.9e11]), np.array([2.0, 5.0, 30.0]))
    t = np.unique(np.concatenate([b + np.linspace(-50, 50, 201) * 10.0**k for b in clock.bursts for k in range(9)]))
    t = t[t >= 0]
    x = clock.forward(t)
    assert (np.diff(x) > 0).all()
    np.testing.assert_allclose(clock.inverse(x), t, rtol=1e-9)
    whole = float(clock.forward(np.array(3e11)) - clock.forward(np.array(0.0)))
    for burst, width in zip(clock.bursts, clock.widths, strict=True):
        ten = clock.forward(np.array([burst - 5 * width, burst + 5 * width]))
        assert (ten[1] - ten[0]) / whole > 0.1  # a burst of 10 widths out of 10¹⁰ has a tenth of the page


@pytest.mark.parametrize("time", ["bursts", "linear"])
def test_labels_of_many_plateaus_never_lie_over_each_other(tmp_path: Path, time: str) -> None:
    path = _save(tmp_path / "ten", shape="10", rank=9, width=1000, gamma=3, rtol=1e-2)
    assert len(load_train(path).rank_transitions) == 9
    for kind in ("loss", "path"):
        figure = _figure(kind, path, time=time)
        _assert_readable(figure)
        (ax,) = figure.axes
        boxes = [t.get_window_extent() for t in ax.texts if t.get_gid() == "rank" and t.get_visible()]
        assert len(boxes) >= 3
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        assert all(ax.bbox.x0 <= b.x0 and b.x1 <= ax.bbox.x1 for b in boxes)


def test_axis_follows_the_run(results: Path) -> None:
    runs = {name: load_train(results / name) for name in ("run", "many", "none")}
    clock = burst_clock(runs["run"])
    np.testing.assert_array_equal(clock.bursts, [r.time for r in runs["run"].rank_transitions])
    assert burst_clock(runs["none"]) is None
    assert choose_axis([runs["none"]], "bursts") == "log"
    assert choose_axis([runs["many"]], "bursts") == "bursts"
    assert choose_axis([runs["run"]], "linear") == "linear"
    ticks = _figure("loss", results / "run", time="bursts").axes[0].get_xticks()
    assert set(clock.bursts) < set(ticks) and {0.0, runs["run"].trajectory.t.max()} < set(ticks)
    assert list(ticks) == sorted(ticks) and len(ticks) > len(clock.bursts) + 2


def test_starts_of_one_run_share_a_clock_that_holds_all_their_bursts(results: Path) -> None:
    one = load_train(results / "run")
    late = tuple(replace(row, time=1.5 * row.time) for row in one.rank_transitions)
    path = one.trajectory
    assert path is not None
    twice = {name: np.concatenate([getattr(path, name)] * 2) for name in path.ROWS if name != "member"}
    twice |= {name: np.concatenate([getattr(path, name)] * 2) for name in ("singular_values", "A")}
    count = len(path.t)
    both = replace(path, member=np.repeat([0, 1], count), **twice)
    starts = [
        Member(k, one.outcome, rows, one.theory, one.modes) for k, rows in enumerate((one.rank_transitions, late))
    ]
    batch = replace(one, members=tuple(starts), trajectory=both)
    clock, alone = burst_clock(batch), burst_clock(one)
    assert clock is not None and alone is not None
    np.testing.assert_allclose(clock.bursts, 1.25 * alone.bursts)
    assert (clock.widths >= 0.25 * alone.bursts * (1 - 1e-12)).all()
    other = replace(starts[1], rank_transitions=late[:1])
    assert burst_clock(replace(batch, members=(starts[0], other))) is None  # no more than half agree
    assert choose_axis([replace(batch, members=(starts[0], other))], "bursts") == "log"
    early = replace(both, t=np.where(both.t == both.t.max(), 1e3 * both.t.max(), both.t))
    assert choose_axis([replace(batch, trajectory=early)]) == "bursts"  # linear time would hide every plateau
    figure = _figure("loss", results / "many", time="bursts")
    assert figure.axes[0].get_xscale() == "function" and LOG_WORDS not in caption_of(figure).replace("\n", " ")
    _assert_readable(figure)


def test_labelled_times_are_the_bursts_the_ends_and_round_ones() -> None:
    clock = BurstClock(np.array([6.52, 14.5, 28.7]), np.array([0.1, 0.2, 0.5]))
    assert [t for t, _ in labelled_times(clock, 35.3)] == [0, 5, 6.52, 10, 14.5, 20, 28.7, 30, 35.3]
    assert [power_of_ten(w) for w in (3, 100, 1e4, 250)] == ["3", "$10^{2}$", "$10^{4}$", "250"]


def test_both_axes_of_time_stand_beside_each_other(results: Path) -> None:
    figure = _figure("loss", results / "run", time="both")
    assert [ax.get_xscale() for ax in figure.axes] == ["function", "linear"]
    assert ["stretched" in ax.get_title("left") for ax in figure.axes] == [True, False]
    _assert_readable(figure)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["loss", "singular-values", "rank"])
def test_bursts_that_cannot_be_drawn_are_told_where_the_figure_is_listed(
    results: Path, tmp_path: Path, kind: str, capsys
) -> None:
    command = ["plot", str(results / "none"), "--kind", kind, "--time", "bursts"]
    assert run([*command, "-f", "svg", "--out", str(tmp_path / "out")]) == 0
    assert "needs one run" in capsys.readouterr().err
    saved = load_plot(tmp_path / "out")
    assert saved.notes == (
        f"{kind}: logarithmic time: stretching it around bursts needs one run with transitions, alike in most starts",
    )
    assert "Logarithmic time" in saved.figures[0].caption
    _, notes = draw(PlotSettings(source=str(results / "none"), kind=kind, time="log"))
    assert notes == () == draw(PlotSettings(source=str(results / "run"), kind=kind, time="bursts"))[1]


def test_bursts_of_several_runs_are_told_in_the_terminal(results: Path, capsys) -> None:
    assert (
        run(
            [
                "plot",
                str(results / "run"),
                str(results / "narrower"),
                "--kind",
                "loss",
                "--terminal",
                "--time",
                "bursts",
            ]
        )
        == 0
    )
    assert "needs one run" in capsys.readouterr().out


# ---- the command --------------------------------------------------------------------------------------


def test_command_writes_every_format_and_says_what_it_drew(results: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "figures"
    args = ["plot", str(results / "run"), "--kind", "loss", "--kind", "path", "-f", "png", "-f", "svg,pdf"]
    assert run([*args, "--out", str(out)]) == 0
    heads = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    listed = capsys.readouterr().out.split()
    assert len(listed) == 6
    for name in listed:
        assert Path(name).read_bytes().startswith(heads[Path(name).suffix[1:]])
    saved = load_plot(out)
    assert [f.kind for f in saved.figures] == ["loss", "path"]
    assert "γ = 2" in saved.figures[0].caption
    assert "γ = 2" in (out / "loss.svg").read_text(encoding="utf-8")
    assert run([*args, "--out", str(out)]) == 0  # the same figures once more
    assert run([*args, "--variant", "screen", "--out", str(out)]) == 2  # others are there
    assert run([*args, "--out", str(out), "--resume"]) == 0
    capsys.readouterr()
    assert run([*args, "--out", str(tmp_path / "mine.pdf")]) == 2  # figures go into a directory, not into a file
    assert (
        "--out: found mine.pdf, expected a directory" in capsys.readouterr().err
        and not (tmp_path / "mine.pdf").exists()
    )
    assert run(["plot", "--config", str(out / "figures.yaml"), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "loss.svg").read_bytes() == (out / "loss.svg").read_bytes()


def test_captions_beside_the_picture_its_size_and_its_style(results: Path, tmp_path: Path, capsys) -> None:
    out, sheet = tmp_path / "out", tmp_path / "mine.mplstyle"
    sheet.write_text("axes.facecolor: 112233\n")
    args = ["plot", str(results / "run"), "--kind", "loss", "--size", "5x3", "--style", str(sheet)]
    assert run([*args, "--caption", "file", "--out", str(out)]) == 0
    picture = mpimg.imread(out / "loss.png")
    assert picture.shape[:2] == (900, 1500)
    assert (np.abs(picture[450, 750, :3] - np.array([0x11, 0x22, 0x33]) / 255) < 0.01).all()
    caption = (out / "loss.txt").read_text()
    assert caption.strip() == load_plot(out).figures[0].caption and "γ = 2" in caption
    snippet = (out / "loss.tex").read_text()
    assert r"\includegraphics[width=\linewidth]{loss.png}" in snippet and r"$\gamma$ = 2" in snippet
    assert not re.search(r"[^\x00-\x7f]", snippet.replace("é", "")), "letters that LaTeX may not have"
    for flag, value in (("--size", "1x1"), ("--size", "nine"), ("--style", "none-such")):
        assert run(["plot", str(results / "run"), "--kind", "loss", flag, value, "--out", str(tmp_path / "no")]) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1 and flag.strip("-") in message


@pytest.mark.parametrize("content", ["", "a: 1\n", "schema: other/thing@1\n", "schema: dlnphase/train@1\n", "{[", "\0"])
def test_foreign_and_damaged_files_get_one_line(tmp_path: Path, content: str, capsys) -> None:
    (tmp_path / "run.yaml").write_text(content)
    assert run(["plot", str(tmp_path), "--out", str(tmp_path / "f")]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "run.yaml" in captured.err
    assert not (tmp_path / "f").exists()


def test_damaged_or_missing_trajectory_and_wrong_kind_get_one_line(results: Path, tmp_path: Path, capsys) -> None:
    text = (results / "run" / "run.yaml").read_text(encoding="utf-8")
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    for arguments in (
        [str(tmp_path), "--kind", "loss"],
        [str(tmp_path / "nothing")],
        [str(results / "sweep"), "--kind", "loss"],
        [str(results / "run"), "--kind", "convergence"],
        [str(results / "run"), "--kind", "nonsense"],
        [str(results / "run"), str(results / "many"), "--kind", "auto", "--kind", "loss"],
        [],
    ):
        assert run(["plot", *arguments, "--out", str(tmp_path / "f")]) == 2, arguments
        assert capsys.readouterr().err.count("\n") == 1, arguments
    (tmp_path / "trajectory.npz").write_bytes(b"PK\3\4 not an archive")
    assert run(["plot", str(tmp_path), "--out", str(tmp_path / "f")]) == 2
    assert "trajectory.npz" in capsys.readouterr().err


def test_terminal_draws_plain_text_off_a_terminal(results: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    assert run(["plot", str(results / "run"), str(results / "sweep"), "--kind", "all", "--terminal"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert max(len(line) for line in out.splitlines() if "│" in line) <= 72
    for title in ("log10 cost", "singular values", "rank of", "path of A", "log10 distance", "critical gamma"):
        assert title in out
    assert run(["plot", str(results / "run"), "--kind", "saddles", "--terminal"]) == 2


def test_plotting_needs_no_display_and_import_no_matplotlib(results: Path, tmp_path: Path) -> None:
    code = (
        "import sys, dlnphase, dlnphase.cli.app as a\n"
        "assert 'matplotlib' not in sys.modules and 'torch' not in sys.modules\n"
        f"dlnphase.plot({str(results / 'run')!r}, {str(tmp_path / 'f')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": "/usr/bin", "MPLBACKEND": ""})
    assert (tmp_path / "f" / "loss.png").exists() and (tmp_path / "f" / "figures.yaml").exists()


def test_labels_tell_sources_apart(results: Path) -> None:
    sources = read_sources([results / "run", results / "narrower", results / "greedy", results / "sweep"])
    labels = [s.label for s in sources]
    assert labels[0].startswith("w = 30") and labels[1].startswith("w = 300") and "greedy" in labels[2]
    assert labels[3] == "" and len(set(labels)) == 4
    same = [s.label for s in read_sources([results / "run", results / "run" / "run.yaml"])]
    assert same == ["run", "run"]


def test_python_verb_returns_result_and_files(results: Path) -> None:
    result, files = plot(PlotSettings(source=[str(results / "run")], kind="rank", format=("svg", "pdf")))
    assert set(files) == {"rank.svg", "rank.pdf"} == set(result.figures[0].files)
    assert result.figures[0].sources == (str(results / "run" / "run.yaml"),)


def test_every_line_of_an_ordered_family_is_seen_on_light_paper_and_on_dark():
    """Contrast of at least 2 (WCAG), as drawn on white and as a page in a dark theme turns it: invert, rotate hue."""

    def luminance(rgb):
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ np.array([0.2126, 0.7152, 0.0722]))

    def contrast(one, other):
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    def dark(rgb):  # invert(0.92) hue-rotate(180deg) of the page's style, matrices of the filter-effects standard
        turn = np.array([[-0.574, 1.43, 0.144], [0.426, 0.43, 0.144], [0.426, 1.43, -0.856]])
        return np.clip(turn @ (0.92 - 0.84 * rgb), 0, 1)

    white = np.ones(3)
    for colour in ordered_colours(9):
        rgb = np.array(colour[:3])
        assert contrast(rgb, white) >= 2
        assert contrast(dark(rgb), dark(white)) >= 2

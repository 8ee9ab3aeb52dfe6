"""sweep-gamma: the same file however it is computed, killed or resumed; failures named; the terminal."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from sweeping import FLAGS, LONG, LONG_CELLS, SMALL, never, numbers, spawn, troubled, wait_for_cells

from dlnphase.cli import app
from dlnphase.distances.saddle import POOR
from dlnphase.dynamics import GradientFlow
from dlnphase.errors import InputError
from dlnphase.results import json_ready, refuse_different, result_text, to_document
from dlnphase.results.sweep import SweepFile, load_sweep
from dlnphase.settings import SweepSettings, TrainSettings
from dlnphase.sweep import cells
from dlnphase.sweep.executors import jobs_of, run_here, run_processes
from dlnphase.sweep.run import coarse_notes, jobs_for, prepare, summarise, sweep_gamma, sweep_sentence
from dlnphase.training.run import train


@pytest.fixture(scope="module")
def result():
    return sweep_gamma(SweepSettings(**SMALL, jobs=1))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert app.run([*LONG, "--out", str(out), "--jobs", "1"]) == 0
    return out


# ---- what it finds -------------------------------------------------------------------------------------


def test_cells_exponents_and_critical_gamma(result):
    assert result.complete and not result.failed
    assert [(c.gamma, c.width) for c in result.cells] == list(result.config.cells)
    rows = {e.gamma: e for e in result.exponents}
    assert [rows[g].regime for g in (0.7, 1.0, 1.5)] == ["lazy", "mean-field", "saddle-to-saddle"]
    assert rows[0.7].distance_to_saddle.slope == pytest.approx(0.15, abs=0.01)
    assert rows[1.5].distance_to_saddle.slope == pytest.approx(-0.25, abs=0.01)
    assert result.critical_gamma.estimate == pytest.approx(1.0, abs=0.01)
    assert "critical γ" in sweep_sentence(result)
    for cell in result.cells:
        assert len(cell.distance_to_minimum.values) == cell.seeds == 3
        assert cell.distance_to_minimum.mean == pytest.approx(np.mean(cell.distance_to_minimum.values))
        assert cell.distance_to_minimum.excess < 1e-16
        assert cell.distance_to_saddle.gradient < 1e-12
        assert cell.distance_to_saddle.cost_gradient > 0
        assert (cell.distance_to_saddle.predicted is None) == (cell.gamma == 1.0)


def test_results_survive_save_and_load(result, tmp_path):
    SweepFile(tmp_path).save(result)
    assert load_sweep(tmp_path) == result
    assert (tmp_path / "sweep.yaml").read_text() == result_text(result)


def test_files_grow_width_by_width(tmp_path):
    file, seen = SweepFile(tmp_path), []

    def on_cell(partial):
        file.save(partial)
        loaded = load_sweep(tmp_path)
        assert loaded == partial and not loaded.complete and not loaded.exponents
        seen.append(len(loaded.cells))

    sweep_gamma(SweepSettings(**SMALL, jobs=1), on_cell=on_cell)
    assert seen == [2, 3, 6, 9]  # the widest in two parts, then three γ at a time


def test_the_first_answer_comes_soon_and_no_job_holds_all_that_is_slow():
    plan = prepare(SweepSettings())
    every = {(g, w) for g in plan.settings.gammas for w in plan.settings.widths}
    jobs = jobs_for(plan, every)
    assert {(g, job.width) for job in jobs for g in job.gammas} == every and sum(len(j.gammas) for j in jobs) == 56
    assert [job.width for job in jobs] == [10**9] * 2 + [100, 10**4, 10**6]  # narrow ones take longest
    near = [sum(0.9 < gamma < 1.4 for gamma in job.gammas) for job in jobs]  # where several kinds of saddles compete
    assert near == [2, 2, 4, 4, 4]
    assert jobs_for(plan, {(1.0, 100)}) == [job for job in jobs if 1.0 in job.gammas and job.width == 100]


@pytest.mark.parametrize(("order", "fine"), [("auto", False), (2, True)])
def test_a_search_is_coarse_only_where_the_reduction_is_known_to_be(order, fine, monkeypatch):
    told = []

    def stop(*_: object, truncation: float, **__: object) -> None:
        told.append(truncation)
        raise InputError("seen")

    monkeypatch.setattr("dlnphase.sweep.cells.distance_to_saddle", stop)
    sweep_gamma(SweepSettings(gammas=(1.0,), widths=(10**6,), depth=6, dim=2, seeds=1, krylov_order=order, jobs=1))
    assert (told[0] <= POOR) == fine


def test_jobs_of_deep_networks_hold_few_of_them_and_those_above_one_come_first():
    plan = prepare(SweepSettings(depth=6, seeds=4, gammas=(0.75, 0.9, 1.0, 1.1, 1.4, 2.0), widths=(10**6, 10**12)))
    jobs = jobs_for(plan, set(plan.settings.cells))
    assert [(job.width, job.gammas) for job in jobs] == [
        (width, gammas) for width in (10**12, 10**6) for gammas in ((1.0, 1.1, 1.4, 2.0), (0.75, 0.9))
    ]


def test_done_cells_are_not_computed_again(result, monkeypatch):
    calls = []
    monkeypatch.setattr("dlnphase.sweep.run.run_job", lambda job: calls.append((job.gammas, job.width)))
    again = sweep_gamma(SweepSettings(**SMALL, jobs=1), done=result.cells)
    assert calls == []
    assert numbers(again) == numbers(result)


def test_the_order_in_which_cells_come_does_not_matter(result):
    assert numbers(summarise(result)) == numbers(result)


def test_train_adds_the_dynamics(tmp_path):
    """Small initialisation ends sparse, the lazy regime dense; the numbers are those of dlnphase train."""
    settings = SweepSettings(
        gammas="0.7,2.0", widths="30", task="completion", shape=(4, 4), rank=1, depth=3, seeds=2, train=True, jobs=1
    )
    swept = sweep_gamma(settings)
    SweepFile(tmp_path).save(swept)
    assert load_sweep(tmp_path) == swept
    lazy, small = swept.cells
    assert small.regime_seen == "saddle-to-saddle"
    first = small.rank_transitions[0]
    assert (first.from_rank, first.to_rank, first.starts) == (0, 1, 2)
    assert small.matrix_rank.mean < lazy.matrix_rank.mean
    assert small.nuclear_norm.mean < lazy.nuclear_norm.mean
    assert small.test_cost.mean < 0.1 * lazy.test_cost.mean
    assert small.ntk_change.mean > 10 * lazy.ntk_change.mean
    one = train(
        TrainSettings(
            task="completion",
            shape=(4, 4),
            singular_values=settings.singular_values,
            depth=3,
            width=30,
            gamma=2.0,
            seeds=2,
        )
    )
    assert small.escape_time.values == tuple(m.rank_transitions[0].time for m in one.members)
    assert small.final_cost.values == tuple(m.outcome.cost for m in one.members)


def test_weight_decay_acts_on_the_dynamics_alone(run):
    """L = 2: every mode ends at (s − λ)₊, whatever γ; distances stay those of the cost."""
    s, decay = np.array([4.0, 1.5, 0.5]), 1.0
    flags = ["sweep-gamma", "--gammas", "0.7,2", "--widths", "20", "--dim", "3", "-L", "2", "--seeds", "2"]
    flags += ["--jobs", "1", "--singular-values", ",".join(map(str, s))]
    code, out, err = run(*flags, "--weight-decay", decay, "--train", "--out", "decayed")
    assert code == 0, err
    words = " ".join(out.split())
    assert "Weight decay, λ = 1, at w = 20" in words and "distances and slopes are those of C alone" in words
    assert run(*flags, "--out", "plain")[0] == 0
    for cell, plain in zip(load_sweep("decayed").cells, load_sweep("plain").cells, strict=True):
        assert cell.distance_to_minimum.values == pytest.approx(plain.distance_to_minimum.values, rel=1e-12)
        assert cell.distance_to_saddle.values == pytest.approx(plain.distance_to_saddle.values, rel=1e-12)
        assert plain.decay is None
        assert [mode.measured for mode in cell.decay.modes] == pytest.approx(np.maximum(s - decay, 0.0), abs=1e-3)
        assert cell.decay.leaves == pytest.approx(s[0]) and cell.matrix_rank.values == (2.0, 2.0)
    code, out, err = run(*flags, "--weight-decay", decay)
    assert code == 2 and out == "" and err.count("\n") == 1 and "weight-decay: found 1 without train" in err


def test_distances_are_measured_in_float64_whatever_the_dtype(result):
    single = sweep_gamma(SweepSettings(**{**SMALL, "gammas": "0.7"}, jobs=1, dtype="float32"))
    double = sweep_gamma(SweepSettings(**{**SMALL, "gammas": "0.7"}, jobs=1))
    assert single.cells == double.cells


def test_settings():
    settings = SweepSettings()
    assert settings.gammas[0] == 0.7 and settings.gammas[-1] == 2.0 and len(settings.gammas) == 14
    assert settings.widths == (100, 10**4, 10**6, 10**9) and settings.depth == 3 and settings.seeds == tuple(range(8))
    assert settings.task == "factorization" and settings.rank == 5
    assert SweepSettings(gammas="1.5,0.7").gammas == (0.7, 1.5)
    assert SweepSettings.from_plain(settings.to_plain(), "config") == settings
    assert jobs_of(SweepSettings(jobs=3), 2) == 2
    assert jobs_of(SweepSettings(), 5) == 1
    assert SweepSettings(jobs="auto").jobs is None
    for wrong in ({"widths": "1e13"}, {"jobs": 2, "scheduler": "tcp://x:1"}, {"gammas": "nan"}, {"depth": 1}):
        with pytest.raises(InputError):
            SweepSettings(**wrong)


def test_jobs_do_not_count_as_other_settings():
    refuse_different(SweepSettings(jobs=1).identity(), SweepSettings(jobs=2).identity(), "x")
    assert "jobs" not in SweepSettings(jobs=2).to_plain()


def test_notes_tell_what_differs():
    assert len(prepare(SweepSettings()).notes) == 2
    completion = prepare(SweepSettings(task="completion", shape=(5, 5), rank=2)).notes
    assert any("a set of matrices" in note for note in completion)
    regression = prepare(SweepSettings(task="regression", shape=(3, 4), rank=2)).notes
    assert any("reduced-rank regression" in note for note in regression)


# ---- however it is computed -----------------------------------------------------------------------------


def _children(process: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def _workers(process: int) -> list[int]:
    """The processes that the server has forked."""
    servers = [p for p in _children(process) if "forkserver" in Path(f"/proc/{p}/cmdline").read_text()]
    return [p for server in servers for p in _children(server)]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_two_processes_one_of_them_killed_give_the_same_numbers(result):
    killed = []

    def on_cell(partial):
        if not killed:
            killed.append(_workers(os.getpid())[-1])
            os.kill(killed[-1], signal.SIGKILL)

    again = sweep_gamma(SweepSettings(**SMALL, jobs=2), on_cell=on_cell)
    assert killed
    assert numbers(again) == numbers(result)


def test_a_job_that_takes_its_process_down_fails_alone_and_so_does_one_that_raises():
    jobs = ["a", "poison", "b", "bad"]
    found = {i: (value, error) for i, value, error in run_processes(troubled, jobs, never, 1)}
    assert found[0] == ("a", None) and found[2] == ("b", None)
    assert found[1][0] is None and "process died" in found[1][1]
    assert found[3] == (None, "ValueError: a bad job")


def test_a_job_that_takes_its_process_down_costs_no_other_its_work():
    """Beside jobs of which one kills its process three times, another is at work each time: it is not tried again."""
    found = {i: (value, error) for i, value, error in run_processes(troubled, ["poison", "slow", "a"], never, 2)}
    assert found[1] == ("slow", None) and found[2] == ("a", None)
    assert "process died" in found[0][1]


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_the_threads_asked_for_are_those_of_every_cell_and_of_the_dynamics(threads, monkeypatch):
    seen, before = [], torch.get_num_threads()

    def noted(function):
        return lambda *args, **kwargs: (seen.append(torch.get_num_threads()), function(*args, **kwargs))[1]

    monkeypatch.setattr("dlnphase.sweep.cells.distance_to_minimum", noted(cells.distance_to_minimum))
    monkeypatch.setattr("dlnphase.training.run.GradientFlow", noted(GradientFlow))
    settings = {**SMALL, "gammas": "2.0", "widths": "10", "seeds": 1}
    swept = sweep_gamma(SweepSettings(**settings, jobs=1, train=True, threads=threads))
    assert seen == [threads or 1] * 2 and swept.provenance.threads == (threads or 1)
    assert torch.get_num_threads() == before


def test_a_sweep_that_is_stopped_starts_no_more_jobs():
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > 1

    assert list(run_here(troubled, ["a", "b", "c"], stop)) == [(0, "a", None)]
    assert list(run_here(troubled, ["bad"], never)) == [(0, None, "ValueError: a bad job")]


# ---- killed, interrupted, resumed ------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_kill_9_then_resume_gives_the_uninterrupted_file(jobs, uninterrupted, tmp_path):
    out = tmp_path / "run"
    process = spawn(out, "--jobs", jobs)
    wait_for_cells(out, 3, process)
    process.kill()
    process.wait()
    half = load_sweep(out)
    assert 3 <= len(half.cells) < LONG_CELLS and not half.complete
    assert app.run([*LONG, "--out", str(out), "--resume", "--jobs", "1"]) == 0
    resumed = load_sweep(out)
    assert set(map(repr, half.cells)) <= set(map(repr, resumed.cells))
    assert numbers(resumed) == numbers(uninterrupted)
    text = [(p / "sweep.yaml").read_text().partition("\ncells:")[2] for p in (out, uninterrupted)]
    assert text[0] == text[1]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_a_sweep(number, tmp_path):
    """Neither a worker nor the server that forks them, however the sweep ends; nor do they say anything."""
    process = spawn(tmp_path / "run", "--jobs", "2")
    wait_for_cells(tmp_path / "run", 2, process)
    others = [*_children(process.pid), *_workers(process.pid)]
    assert len(_workers(process.pid)) == 2 and len(others) >= 4
    process.send_signal(number)
    words = process.stderr.read()  # ends when the last of them does: all hold the other end
    assert process.wait() == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert "Traceback" not in words and not any(Path(f"/proc/{p}/exe").exists() for p in others)


def test_an_interrupt_saves_says_so_and_resumes(uninterrupted, tmp_path):
    out = tmp_path / "run"
    process = spawn(out, "--jobs", "1")
    wait_for_cells(out, 2, process)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    words = process.stderr.read()
    assert "interrupted" in words and "--resume" in words and "Traceback" not in words
    assert not load_sweep(out).complete
    assert app.run([*LONG, "--out", str(out), "--resume"]) == 0
    assert numbers(out) == numbers(uninterrupted)


# ---- the command -----------------------------------------------------------------------------------------


def test_the_table_and_the_sentence(run):
    code, out, err = run(*FLAGS, "--jobs", "1", "--out", "here")
    assert code == 0 and err == ""
    assert "0.7   lazy" in out and "1.5   saddle-to-saddle" in out and "mean-field" in out
    assert "critical γ" in " ".join(out.split()) and "Saved in here" in out
    assert "\x1b" not in out and max(map(len, out.splitlines())) <= 80
    assert yaml.safe_load(Path("here/sweep.yaml").read_text())["schema"] == "dlnphase/sweep-gamma@1"

    code, out, err = run(*FLAGS, "--jobs", "1", "--out", "here")
    assert code == 2 and out == "" and "already holds a result" in err
    code, out, err = run(*FLAGS, "--seeds", "2", "--jobs", "1", "--out", "here", "--resume")
    assert code == 2 and "seeds: 3 there, 2 asked for" in err
    code, out, err = run("sweep-gamma", "--config", "here/sweep.yaml", "--out", "again", "--jobs", "1", "--json")
    assert code == 0
    assert json.loads(out)["cells"] == json_ready(to_document(load_sweep("here")))["cells"]
    code, out, err = run(*FLAGS, "--jobs", "1", "--out", "quiet", "-q")
    assert (code, out, err) == (0, "", "")


def test_a_failing_cell_is_named_and_the_others_finish(run):
    flags = [*FLAGS[:5], "--dim", "3", "-L", "2", "--seeds", "2", "--jobs", "1", "--out", "here"]
    flags[4] = "2,100,1e4"
    code, _, err = run(*flags)
    assert code == 1
    assert "3 of 9 cells failed (γ = 0.7 w = 2, γ = 1 w = 2, γ = 1.5 w = 2)" in err
    assert "does not fit through a layer of width 2" in err
    swept = load_sweep("here")
    assert swept.complete and len(swept.cells) == 6 and len(swept.failed) == 3
    assert len(swept.exponents) == 3
    code, _, err = run(*flags, "--resume")
    assert code == 1 and "--resume tries these again" in err
    assert numbers("here") == numbers(swept)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--gammas", "nan"], "--gammas: found nan"),
        (["--widths", "0,100"], "--widths: found 0,100"),
        (["--widths", "1e13"], "widths: found"),
        (["--gammas", "0.7:2.0:0.4"], "--gammas: found 0.7:2.0:0.4"),
        (["--jobs", "0"], "--jobs: found 0"),
        (["--dim", "3", "--rank", "4"], "rank: found 4, expected at most 3"),
        (["--target", "missing.csv"], "missing.csv"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(run, flags, words):
    code, out, err = run("sweep-gamma", *flags)
    assert code == 2 and out == "" and words in err and err.count("\n") == 1
    assert not any(Path().iterdir())


def test_a_cell_of_a_reduced_network_in_which_mixed_splits_win_has_its_certificate():
    (cell,) = sweep_gamma(SweepSettings(gammas="1.1", widths="200", depth=3, seeds=1, jobs=1)).cells
    found = cell.distance_to_saddle
    assert found.gradient < 1e-5 and found.lower <= found.mean


def test_what_a_sweep_says_of_coarse_networks_stands_in_its_file(uninterrupted):
    measured, settings = load_sweep(uninterrupted).cells, SweepSettings(**SMALL)
    assert coarse_notes(measured, settings) == []
    far = [replace(measured[0], truncation=0.601), *measured[1:]]
    assert "still changed by 60.1% at the last Krylov order" in coarse_notes(far, settings)[0]
    asked = SweepSettings(**SMALL, krylov_order=3)
    assert "were not compared with those of another Krylov order" in coarse_notes(far, asked)[0]
    there = sweep_gamma(settings, done=[replace(c, truncation=0.601) for c in sweep_gamma(settings).cells])
    assert there.notes == (*prepare(settings).notes, *coarse_notes(far, settings))

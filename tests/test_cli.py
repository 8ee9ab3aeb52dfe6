"""The command line: what is printed where, exit codes, one line for a user's mistake."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

SMALL = [
    "train",
    "--task",
    "factorization",
    "--shape",
    "4x3",
    "--singular-values",
    "3,1",
    "-L",
    "3",
    "-w",
    "20",
    "-g",
    "3",
]


def files(folder="."):
    return sorted(str(p) for p in Path(folder).rglob("*") if p.is_file())


def test_train_shows_its_transitions_and_saves_them(run):
    code, out, err = run(*SMALL, "--out", "here")
    assert code == 0 and err == ""
    assert files() == ["here/run.yaml", "here/trajectory.npz"]
    assert re.search(r"0 → 1 .*\n1 → 2", out) and "saddle-to-saddle" in out and "Saved in here" in out
    assert "\x1b" not in out and "\r" not in out and max(map(len, out.splitlines())) <= 80
    document = yaml.safe_load(Path("here/run.yaml").read_text())
    assert document["schema"] == "dlnphase/train@1" and document["outcome"]["reason"] == "converged"
    rows = document["rank_transitions"]
    assert [(r["from_rank"], r["to_rank"]) for r in rows] == [(0, 1), (1, 2)]
    keys = {"time", "step", "dwell", "cost_before", "cost_after", "singular_values", "prominence"}
    assert keys < set(rows[0])
    keys = {"dlnphase", "torch", "python", "device", "dtype", "threads", "started", "seconds", "git"}
    assert keys <= set(document["provenance"])
    arrays = np.load("here/trajectory.npz", allow_pickle=False)
    assert {"t", "step", "cost", "test_cost", "gradient_norm", "singular_values", "A", "W1", "W3"} <= set(arrays)


def test_json_is_one_document_and_quiet_is_silent(run):
    code, out, err = run(*SMALL, "--json")
    document = json.loads(out)
    assert code == 0 and err == "" and out.count("\n") == 1
    saved = yaml.safe_load(next(Path("runs").rglob("run.yaml")).read_text())
    assert document == saved
    code, out, err = run(*SMALL, "--quiet", "--overwrite")
    assert (code, out, err) == (0, "", "")


def test_a_result_reproduces_its_run(run):
    run(*SMALL, "--seed", "5", "--out", "a", "-q")
    code, *_ = run("train", "--config", "a/run.yaml", "--out", "b", "-q")
    one, two = (yaml.safe_load(Path(f"{name}/run.yaml").read_text()) for name in "ab")
    one.pop("provenance"), two.pop("provenance")
    assert code == 0 and one == two
    assert Path("a/trajectory.npz").read_bytes() == Path("b/trajectory.npz").read_bytes()
    run("train", "--config", "a/run.yaml", "--seed", "6", "--out", "c", "-q")
    assert yaml.safe_load(Path("c/run.yaml").read_text())["config"]["seed"] == 6


def test_overwrite_and_resume(run):
    run(*SMALL, "--out", "a", "-q")
    before = Path("a/run.yaml").read_text()
    code, out, err = run(*SMALL, "--out", "a")
    assert code == 2 and "already holds a result" in err and err.count("\n") == 1
    code, out, err = run(*SMALL, "--out", "a", "--resume")
    assert code == 0 and "nothing left to do" in err and "0 → 1" in out
    code, out, err = run(*SMALL, "--out", "a", "--resume", "--seed", "1", "--rtol", "1e-3")
    assert code == 2 and "  seed: 0 there, 1 asked for\n" in err and "  rtol: 0.0001 there, 0.001 asked for\n" in err
    assert Path("a/run.yaml").read_text() == before
    code, out, err = run(*SMALL, "--out", "a", "--overwrite", "--resume")
    assert code == 2 and "expected one" in err
    code, out, err = run(*SMALL, "--out", "a", "--overwrite", "--seed", "1", "-q")
    assert code == 0 and Path("a/run.yaml").read_text() != before


def test_configuration_files(run, tmp_path):
    Path("my.yaml").write_text(
        "task: factorization\nshape: 4x3\nsingular_values: 3,1\ndepth: 3\nwidth: 2e1\ntol: 1e-6\n"
    )
    code, *_ = run("train", "--config", "my.yaml", "--gamma", "3", "--out", "a", "-q")
    config = yaml.safe_load(Path("a/run.yaml").read_text())["config"]
    assert code == 0 and (config["width"], config["tol"], config["gamma"]) == (20, 1e-6, 3.0)
    Path("sub").mkdir()
    Path("sub/m.csv").write_text("1,2\n3,\n")
    Path("sub/my.yaml").write_text("target: m.csv\nwidth: 10\ntol: 1e-2\n")  # beside the file that names it
    code, *_ = run("train", "--config", "sub/my.yaml", "--out", "b", "-q")
    config = yaml.safe_load(Path("b/run.yaml").read_text())["config"]
    assert code == 0 and config["target"] == str(tmp_path / "sub" / "m.csv") and config["task"] == "completion"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--gamma", "nan"], "--gamma: found nan, expected a finite number"),
        (["train", "--width", "0"], "--width: found 0, expected an integer from 1 to 1e12"),
        (["train", "--rank", "11"], "--rank: found 11, expected at most 10 for --shape 10x10"),
        (["train", "--target", "letters.csv"], "letters.csv: line 2: found 'x', expected a number or an empty cell"),
        (["train", "--target", "ragged.csv"], "ragged.csv: line 2 has 1 cell, expected 2 like the first line"),
        (["train", "--target", "gaps.csv"], "gaps.csv: every entry is NaN or empty, expected at least one number"),
        (["train", "--target", "missing.csv"], "missing.csv: no such file"),
        (["train", "--data", "lengths.npz"], "lengths.npz: X has 5 rows and Y has 4, expected as many"),
        (["train", "--config", "unknown.yaml"], "unknown.yaml: widht: unknown key, did you mean width?"),
        (["train", "--config", "type.yaml"], "type.yaml: depth: found deep, expected an integer from 2 to 1000"),
        (["train", "--config", "missing.yaml"], "missing.yaml: no such file"),
        (["train", "--config", "tags.yaml"], "tags.yaml: line 1: found the tag"),
        (["train", "--out", "letters.csv/x"], "--out: letters.csv/x cannot be created"),
        (["train", "--out", "letters.csv"], "--out: letters.csv is a file, expected a directory"),
        (["train", "--device", "cuda:63"], "--device: cuda:63 is not there"),
        (["train", "--foo"], "No such option: --foo"),
        (["train", "--width"], "--width"),
        (["trian"], "No such command trian. Did you mean train?"),
        (["train", "surplus"], "surplus"),
        (["train", "-w", "1e12", "--representation", "full"], "GiB"),
    ],
)
def test_a_mistake_is_one_line_exit_2_and_nothing_written(run, arguments, words):
    Path("letters.csv").write_text("1,2\nx,3\n")
    Path("ragged.csv").write_text("1,2\n3\n")
    Path("gaps.csv").write_text(",\n,nan\n")
    np.savez("lengths.npz", X=np.ones((5, 3)), Y=np.ones((4, 2)))
    Path("unknown.yaml").write_text("widht: 3\n")
    Path("type.yaml").write_text("depth: deep\n")
    Path("tags.yaml").write_text("a: !!python/object/apply:os.system ['touch hacked']\n")
    before = files()
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and words in err
    assert err.startswith("dlnphase: ") and err.count("\n") == 1 and "Traceback" not in err
    assert files() == before and not Path("runs").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_an_unwritable_directory_is_told_before_the_work(run, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    code, _, err = run(*SMALL, "--out", "locked/x")
    assert code == 2 and "cannot be created" in err


def test_a_directory_that_refuses_files_is_told_before_the_work(run, monkeypatch):
    import tempfile

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    code, _, err = run(*SMALL, "--out", "x")
    assert code == 2 and "--out: x cannot be written (Permission denied)" in err and not Path("x").exists()


def test_divergence_is_exit_1_with_partial_results_and_advice(run):
    code, _, err = run(*SMALL, "--dynamics", "gd", "--lr", "5", "--out", "a")
    assert code == 1 and "diverged" in err and "--lr auto" in err and err.count("\n") == 1
    assert yaml.safe_load(Path("a/run.yaml").read_text())["outcome"]["reason"] == "diverged"
    assert len(np.load("a/trajectory.npz")["t"]) > 1


def test_a_budget_that_runs_out_is_exit_0(run):
    code, out, _ = run(*SMALL, "--max-time", "0.5")
    assert code == 0 and "time budget ran out" in " ".join(out.split())


def test_a_full_disk_is_exit_1(run, monkeypatch):
    import dlnphase.results.journal as module

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_stage", full)
    code, _, err = run(*SMALL, "--out", "a")
    assert code == 1 and "No space left on device" in err and "Traceback" not in err


def test_seeds_are_told_with_their_spread(run):
    code, out, _ = run(*SMALL, "--seeds", "3")
    assert code == 0 and "mean over 3 starts" in out and "3/3" in out


def test_own_csv_is_completed(run):
    rng = np.random.default_rng(0)
    matrix = np.outer(rng.standard_normal(6), rng.standard_normal(5)) * 4
    rows = [[f"{v:.6f}" for v in row] for row in matrix]
    for i, j in ((0, 0), (2, 3), (4, 1), (5, 4)):
        rows[i][j] = ""
    Path("mine.csv").write_text("\n".join(",".join(row) for row in rows))
    code, out, _ = run("train", "--target", "mine.csv", "--out", "a")
    assert code == 0 and "completion 6×5" in out and "0 → 1" in out
    end = np.load("a/trajectory.npz")["A"][-1]
    np.testing.assert_allclose(end, matrix, atol=0.05)


def test_the_width_of_the_terminal_is_honoured(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    _, out, _ = run("train", "--help")
    assert 100 < max(map(len, out.splitlines())) <= 120


def test_help_shows_panels_defaults_and_an_example(run):
    code, out, _ = run("train", "--help")
    flat = " ".join(re.sub(r"[│╭╮╰╯─]", " ", out).split())
    assert code == 0
    for panel in ("Network", "Task", "Dynamics", "Machine", "Output"):
        assert f"─ {panel} ─" in out
    assert "number of layers L [default: 4]" in flat and "Example: dlnphase train" in flat
    code, out, _ = run("--help")
    assert code == 0 and "train" in out
    code, out, _ = run("--version")
    assert code == 0 and re.fullmatch(r"dlnphase \d+\.\d+\.\d+\n", out)


def test_help_does_not_import_the_heavy_libraries():
    code = (
        "import sys\nfrom dlnphase.cli.app import run\n"
        "assert run(['train', '--help']) == 0 and run(['--help']) == 0\n"
        "heavy = {'torch', 'scipy', 'matplotlib', 'numpy', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import dlnphase\nassert not {'torch', 'scipy', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_what_is_done(tmp_path, signum):
    command = [sys.executable, "-m", "dlnphase", "train", "--dynamics", "gd", "--lr", "1e-6", "--out", "a"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not (tmp_path / "a" / ".dlnphase.lock").exists():
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(1.0)
        process.send_signal(signum)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "interrupted" in err and "Traceback" not in err
    # gd looks at its sharpness; from the state --resume goes on
    kept = ["observed.npz", "run.yaml", "state.npz", "state.records", "trajectory.npz"]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == kept
    assert yaml.safe_load((tmp_path / "a" / "run.yaml").read_text())["outcome"]["reason"] == "interrupted"


def test_an_output_that_nobody_reads_and_a_poor_terminal_are_no_trouble(tmp_path):
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-m", "dlnphase", *SMALL], cwd=tmp_path, capture_output=True, timeout=60, env=environment
    )
    assert done.returncode == 0 and b"0 ? 1" in done.stdout and b"\x1b" not in done.stdout
    assert b"Traceback" not in done.stderr
    shell = f"{sys.executable} -m dlnphase train --help | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, capture_output=True, timeout=60)
    assert b"Traceback" not in done.stderr


def test_weights_of_ones_own_and_the_greedy_limit_have_headlines_of_their_own(run):
    rng = np.random.default_rng(0)
    np.savez("w.npz", W1=0.01 * rng.standard_normal((5, 3)), W2=0.01 * rng.standard_normal((4, 5)))
    task = ["--task", "factorization", "--shape", "4x3", "--singular-values", "3,1"]
    code, out, _ = run("train", "--init-weights", "w.npz", *task)
    assert code == 0 and "L = 2, weights from a file, σ = 0.0" in out and "0 → " in out
    code, out, _ = run("train", "--dynamics", "greedy", "-L", "2", *task)
    assert code == 0 and "L = 2, the limit α → 0" in out and "1 → 2" in out

"""Numbers that no float holds: caught where they arise, named, and what is finite is kept."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq

from dlnphase.backend import resolve_backend
from dlnphase.cli import app
from dlnphase.results.sweep import load_sweep
from dlnphase.results.train import load_train
from dlnphase.setup.build import build_task

TASK = ["--task", "factorization", "--shape", "3x2"]
SMALL = [*TASK, "-L", "2", "-w", "8"]


@pytest.fixture
def run(capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = app.run([str(a) for a in arguments])
        out, err = capfd.readouterr()
        assert "Warning" not in err and err.count("dlnphase: ") == (1 if code else 0)
        return code, out, err

    return call


@pytest.mark.parametrize("lr", ["3", "1e6", "1e150", "1e300"])
@pytest.mark.parametrize("seeds", ["1", "3"])
def test_a_step_that_is_too_large_diverges_and_keeps_what_was_finite(lr, seeds, run):
    code, _, err = run("train", *SMALL, "--dynamics", "gd", "--lr", lr, "--seeds", seeds, "--out", "a", "-q")
    assert code == 1 and "diverged at t = " in err and "saved in a" in err and "too large: try --lr auto" in err
    result = load_train("a")
    assert result.outcome.reason == "diverged" and result.outcome.regime is None
    assert len(result.trajectory.t) >= int(seeds) and np.isfinite(result.trajectory.A).all()
    for verb in (["plot", "a", "--out", "f"], ["detect-saddles", "a", "--out", "d", "-q"]):
        assert run(*verb)[0] == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--singular-values", "1e200,1"], "singular-values: the minimiser has numbers of up to"),
        (["--singular-values", "1e20,1", "--dtype", "float32"], "beyond what float32 can square; scale the task"),
        (["--noise", "1e300"], "beyond what float64 can square"),
        (["--target", "huge.npy"], "huge.npy: entries of up to 1e+200, expected at most 1e+150"),
        (["--target", "large.npy", "--dtype", "float32"], "target: the minimiser has numbers of up to 1e+30"),
        (["--data", "data.npz"], "data: the minimiser has numbers of up to"),
        (["-g", "1e3"], "gamma: found 1000, but sigma = w^(-gamma/2) = 0 is outside what float64 holds"),
        (["-g", "-1e3"], "sigma = w^(-gamma/2) = inf is outside"),
        (["-g", "60", "--dtype", "float32"], "is outside what float32 holds"),
        (["-g", "-100"], "the first numbers of this run are already not finite"),
    ],
)
def test_a_start_or_task_out_of_range_is_refused_by_name(flags, words, run):
    np.save("huge.npy", np.full((3, 2), 1e200))
    np.save("large.npy", np.full((3, 2), 1e30))
    np.savez("data.npz", X=np.full((4, 2), 1e-100), Y=np.full((4, 3), 1e100))
    task = [] if flags[0] in ("--target", "--data") else TASK
    code, out, err = run("train", *task, *flags, "--out", "a")
    assert code == 2 and out == "" and words in err and not Path("a").exists()


def test_a_wait_longer_than_any_time_is_an_answer(run):
    code, out, _ = run("train", *TASK, "-g", "100", "--out", "a")
    assert code == 0 and "at t = 1e+100" in " ".join(out.split())
    outcome = load_train("a").outcome
    assert outcome.reason == "max_time" and "longer than any time a float holds" in outcome.advice


def test_cells_out_of_range_fail_alone_and_are_named(run):
    flags = ["--gammas", "0.7,1.5,500", "--widths", "100,1e4", "--dim", "2", "-L", "2", "--seeds", "2", "--jobs", "1"]
    code, _, err = run("sweep-gamma", *flags, "--out", "a", "-q")
    assert code == 1 and "saved in a" in err and "sigma = " in err
    swept = load_sweep("a")
    assert {f.gamma for f in swept.failed} == {500.0} and len(swept.cells) + len(swept.failed) == 6
    assert all(re.search("a float", f.error) for f in swept.failed) and len(swept.exponents) >= 2
    assert run("sweep-gamma", *flags, "--out", "a", "--resume", "-q")[0] == 1
    assert load_sweep("a").cells == swept.cells


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["-g", "3"],
        ["-g", "0.7"],
        ["--dynamics", "gd", "-L", "2"],
        ["-L", "3"],
        ["--tol", "1e-14", "--max-steps", "300"],
    ],
)
def test_float32_meets_its_tolerance_or_says_what_it_reached(flags, run):
    """Judged in float64, on the end-to-end matrix that was saved."""
    code, _, err = run("train", *TASK, "--dtype", "float32", *flags, "--out", "a", "-q")
    result = load_train("a")
    task, _ = build_task(result.config, resolve_backend("cpu"))
    ends = task.cost.excess(task.cost.minimizer.new_tensor(result.trajectory.A[[0, -1]]))
    if code == 0:
        assert result.outcome.reason == ("max_steps" if "--tol" in flags else "converged")
    if result.outcome.reason == "converged":
        assert float(ends[1]) <= 1.01 * result.config.tol * float(ends[0])
    elif code == 0:
        assert "step budget --max-steps 300 ran out" in result.outcome.advice
    else:
        assert code == 1 and result.outcome.reason == "precision_floor" and "--dtype float64" in err


def test_float32_in_a_sweep_says_how_every_run_ended(run):
    flags = ["--gammas", "0.7,1.5", "--widths", "100,1e4", "--dim", "3", "-L", "2", "--seeds", "2", "--jobs", "1"]
    assert run("sweep-gamma", *flags, "--train", "--dtype", "float32", "--out", "a", "-q")[0] == 0
    assert run("sweep-gamma", *flags, "--train", "--out", "b", "-q")[0] == 0
    single, double = load_sweep("a"), load_sweep("b")
    for one, two in zip(single.cells, double.cells, strict=True):
        assert one.distance_to_saddle == two.distance_to_saddle and one.distance_to_minimum == two.distance_to_minimum
        assert sum(one.reasons.values()) == 2 and set(one.reasons) <= {"converged", "precision_floor"}
        assert one.reasons == two.reasons == {"converged": 2}
        assert max(one.final_cost.values) <= 1.01e-8 * 100


@pytest.mark.parametrize("size", [1e20, 1e100])
def test_huge_layers_beside_tiny_ones_are_followed_as_far_as_times_go(size, run):
    """The huge layer does not move: A − A* decays as e^(−t W_1ᵀW_1)."""
    rng = np.random.default_rng(0)
    w1, w2, target = size * rng.standard_normal((5, 3)), rng.standard_normal((3, 5)) / size, np.diag([3.0, 2.0, 1.0])
    np.savez("w.npz", W1=w1, W2=w2)
    np.save("t.npy", target)
    code, out, _ = run("train", "--init-weights", "w.npz", "--target", "t.npy", "--out", "a")
    assert code == 0 and "hardly moved" in out
    outcome = load_train("a").outcome
    rates, v = np.linalg.eigh(w1.T @ w1 / size**2)
    missing = np.square((w2 @ w1 - target) @ v)

    def cost(t):  # t in units of size⁻²
        return 0.5 * np.sum(missing * np.exp(-2 * t * rates))

    yard = min(cost(0.0), 0.5 * np.sum(target**2))
    end = brentq(lambda t: np.log(cost(t) / (1e-8 * yard)), 0.0, 1e3)
    assert (outcome.reason, outcome.regime) == ("converged", "lazy")
    assert outcome.time * size * size == pytest.approx(end, rel=0.02)
    assert outcome.evidence.ntk_change < 1e-6


def test_layers_whose_flow_has_no_time_are_refused_with_their_sizes(run):
    np.savez("w.npz", W1=np.full((5, 3), 1e149), W2=np.full((3, 5), 1e-149))
    np.save("t.npy", np.eye(3))
    code, _, err = run("train", "--init-weights", "w.npz", "--target", "t.npy", "--out", "a")
    assert code == 2 and err.count("\n") == 1
    assert "--init-weights: " in err and "W1 of 1.0e+149, W2 of 1.0e-149 move in a time of" in err
    assert not Path("a").exists()
    np.savez("w.npz", W1=np.full((5, 3), 1e160), W2=np.full((3, 5), 1e-160))
    code, _, err = run("train", "--init-weights", "w.npz", "--target", "t.npy", "--out", "a")
    assert code == 2 and "W1: entries of up to 1e+160, expected at most 1e+150" in err

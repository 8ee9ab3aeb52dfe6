"""Visits told by their critical points: the same for a run and for a path of another code."""

from pathlib import Path

import numpy as np
import pytest

from dlnphase.backend import resolve_backend
from dlnphase.costs.tasks import matrix_task, planted_matrix
from dlnphase.critical import HostCost, refine_matrix
from dlnphase.detect.run import detect_saddles
from dlnphase.detect.speed import speed_factor
from dlnphase.results.train import save_train
from dlnphase.settings import DetectSettings, TrainSettings
from dlnphase.training.run import train

CASES = Path(__file__).parent / "data" / "cases"
CPU = resolve_backend("cpu")


@pytest.fixture(scope="module")
def lull(tmp_path_factory):
    """A completion whose gradient has a lull near no critical point, where A has one mode of size 25: run and folder.

    Two entries that are not observed let this mode grow for ever at rank 1; the nearest minimum has rank 3, and its
    third mode is a hundredth of the distance to it.
    """
    directory = tmp_path_factory.mktemp("runs") / "lull"
    directory.mkdir()
    files = {"target": str(CASES / "down_target.npy"), "init_weights": str(CASES / "down_weights.npz")}
    result = train(TrainSettings(threads=1, **files))
    save_train(result, directory)
    return result, directory


def test_a_lull_near_no_critical_point_is_no_visit_of_a_run_and_has_the_rank_of_its_matrix(lull):
    run, directory = lull
    assert run.outcome.reason == "converged" and run.outcome.rank == 2
    assert all(row.from_rank < row.to_rank for row in run.rank_transitions)
    assert [p.rank for p in run.theory.plateaus] == [2]
    found = detect_saddles(DetectSettings(source=str(directory)))
    assert [(v.rank, v.kind) for v in found.visits] == [(1, "not-critical"), (2, "global-minimum")]
    assert found.transitions == (run.rank_transitions,)


def test_a_matrix_far_from_a_minimum_in_its_own_units_is_not_at_it():
    target = np.load(CASES / "down_target.npy")
    host = HostCost(matrix_task(target, CPU).cost)
    full = host.nearest_minimum(np.outer([1.0, 0.6, 1.1], [-6.0, 1.0, 20.0, -4.0]))
    u, s, vt = np.linalg.svd(full)
    one = s[0] * np.outer(u[:, 0], vt[0])  # one mode of three, and the data is off by the two others
    assert host.excess(one) > 1e-2 * host.excess(np.zeros(target.shape))
    assert not refine_matrix(one, host).converged


def test_a_run_and_its_detection_tell_the_same_end_where_the_data_hold_a_little_more(tmp_path):
    """A mode far below --tol: a run that converged is at a minimum as far as tol can tell, and so is its detection."""
    target = np.diag([5.0, 2.0, 1e-6])
    np.save(tmp_path / "target.npy", target)
    run = train(TrainSettings(threads=1, target=str(tmp_path / "target.npy"), depth=3, width=20, gamma=2.5))
    save_train(run, tmp_path)
    found = detect_saddles(DetectSettings(source=str(tmp_path)))
    assert run.outcome.rank == 2 and run.theory.plateaus[-1].rank == 2
    last = found.visits[-1]
    assert (last.rank, last.kind) == (2, "global-minimum")
    assert "tol of 1.0e-08" in last.note and "1e-06 is left" in last.note  # and the saddle it is, is not kept back
    assert found.transitions == (run.rank_transitions,)


def test_a_run_cut_off_by_tol_with_a_mode_half_learned_ends_at_the_rank_its_cost_needs(tmp_path):
    """The second mode costs 2.6 tolerances and is learned to less than half when the rest is within it: rank 2.

    The critical point of rank 1 is near in its own units, and its cost is above the tolerance: it is not where the
    run ended, and no critical point of rank 2 is near.
    """
    target, tol = np.diag([1.0, 0.016]), 1e-4
    np.save(tmp_path / "target.npy", target)
    run = train(TrainSettings(threads=1, target=str(tmp_path / "target.npy"), depth=2, width=4, gamma=6.0, tol=tol))
    last = np.linalg.svd(run.trajectory.A[-1], compute_uv=False)
    assert run.outcome.reason == "converged" and 0.3 < last[1] / 0.016 < 0.5
    assert 2 * tol * 0.5 * np.sum(target**2) < 0.5 * 0.016**2
    assert run.outcome.rank == 2 and [(r.from_rank, r.to_rank) for r in run.rank_transitions] == [(0, 1), (1, 2)]
    assert [p.rank for p in run.theory.plateaus] == [0, 1]
    save_train(run, tmp_path)
    found = detect_saddles(DetectSettings(source=str(tmp_path)))
    assert [v.rank for v in found.visits] == [0, 1, 2] and found.transitions == (run.rank_transitions,)
    end = found.visits[-1]
    assert end.kind == "not-critical" and "tol of 1.0e-04" in end.note


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", ["target", "data"])
def test_rounding_of_a_users_data_is_no_mode(kind, dtype, tmp_path):
    """Singular values 7, 2.6, 1.4 saved in any precision: the path ends at the minimum of rank 3."""
    target = planted_matrix((8, 6), (7.0, 2.6, 1.4), 0)
    if kind == "target":
        np.save(tmp_path / "task.npy", target.astype(dtype))
        task = {"target": str(tmp_path / "task.npy")}
    else:
        inputs = np.random.default_rng(0).standard_normal((60, 6)).astype(dtype)
        np.savez(tmp_path / "task.npz", X=inputs, Y=(inputs.astype(float) @ target.T).astype(dtype))
        task = {"data": str(tmp_path / "task.npz")}
    run = train(TrainSettings(threads=1, depth=3, width=50, gamma=2.5, tol=1e-6, **task))
    assert run.outcome.rank == 3
    np.savez(tmp_path / "path.npz", t=run.trajectory.t, A=run.trajectory.A.astype(np.float32))
    found = detect_saddles(DetectSettings(source=str(tmp_path / "path.npz"), depth=3, width=50, **task))
    kinds = ["degenerate-saddle"] * 3 + ["global-minimum"]
    assert [(v.rank, v.kind) for v in found.visits] == list(enumerate(kinds))
    assert [(r.from_rank, r.to_rank) for r in found.transitions[0]] == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("factor", [0.25, 1.0, 2.0])
def test_a_constant_between_the_speed_of_a_path_and_the_gradient_is_told(factor, tmp_path):
    """Plain descent on c times the cost, at times step × rate, as another code hands it over."""
    target = planted_matrix((4, 3), (3.0, 1.0), 0)
    rng = np.random.default_rng(0)
    w1, w2 = 0.05 * rng.standard_normal((6, 3)), 0.05 * rng.standard_normal((4, 6))
    rate, kept = 0.005 / factor, []
    for step in range(4000):
        if step % 4 == 0:
            kept.append((step * rate, w1, w2))
        g = factor * (w2 @ w1 - target)
        w1, w2 = w1 - rate * w2.T @ g, w2 - rate * g @ w1.T
    np.save(tmp_path / "target.npy", target)
    arrays = dict(zip(("t", "W1", "W2"), (np.array(part) for part in zip(*kept, strict=True)), strict=True))
    np.savez(tmp_path / "path.npz", **arrays)
    settings = {"source": str(tmp_path / "path.npz"), "target": str(tmp_path / "target.npy"), "certify": False}
    found = detect_saddles(DetectSettings(**settings))
    told = [note for note in found.notes if "as fast as" in note]
    assert found.visits[0].escape.rate == pytest.approx(3.0, rel=0.05)  # in our time, whatever the factor
    assert bool(told) is (factor != 1.0)
    speed = speed_factor(*columns(arrays, target))
    assert speed is not None and speed.value == pytest.approx(factor, rel=0.02)
    np.savez(tmp_path / "path.npz", **{**arrays, "t": arrays["t"] ** 1.5})  # no constant: nothing is told
    assert not any("as fast as" in note for note in detect_saddles(DetectSettings(**settings)).notes)


def columns(arrays, target):
    """t, C − C_min and ‖∇𝓛‖ of a path of two layers."""
    w1, w2 = arrays["W1"], arrays["W2"]
    g = w2 @ w1 - target
    below, above = np.swapaxes(w2, 1, 2) @ g, g @ np.swapaxes(w1, 1, 2)
    return arrays["t"], 0.5 * (g**2).sum((1, 2)), np.sqrt((below**2).sum((1, 2)) + (above**2).sum((1, 2)))

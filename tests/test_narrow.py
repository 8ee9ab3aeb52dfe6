"""Networks narrower than the rank of what they are to learn: what they converge to, and that they say so."""

import numpy as np
import pytest
import torch

from dlnphase import DetectSettings, TrainSettings, detect_saddles, train
from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import completion, factorization
from dlnphase.critical import HostCost
from dlnphase.critical.bottleneck import minimum_near
from dlnphase.detect.sentences import detect_sentence
from dlnphase.results.train import save_train
from dlnphase.training.sentences import train_sentence

CPU = resolve_backend("cpu")
COMPLETION = {"task": "completion", "shape": (4, 5), "rank": 3, "width": 2, "depth": 3, "gamma": 1.2, "data_seed": 3}


def loss_and_slopes(layers, seen):
    """The loss of layers on the entries seen (NaN elsewhere), its gradient and its dense Hessian, by autograd."""
    known = torch.as_tensor(~np.isnan(seen))
    target = torch.as_tensor(np.nan_to_num(seen))
    shapes = [w.shape for w in layers]

    def loss(theta):
        parts, a, start = [], None, 0
        for shape in shapes:
            size = shape[0] * shape[1]
            parts.append(theta[start : start + size].view(shape))
            start += size
        for w in parts:
            a = w if a is None else w @ a
        return 0.5 * ((a - target)[known] ** 2).sum()

    theta = torch.cat([torch.as_tensor(w).flatten() for w in layers]).requires_grad_(True)
    value = loss(theta)
    (slope,) = torch.autograd.grad(value, theta)
    return float(value.detach()), slope.numpy(), torch.autograd.functional.hessian(loss, theta.detach()).numpy()


def holed(seed, shape=(4, 5), rank=3, holes=4):
    rng = np.random.default_rng(seed)
    target = rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1]))
    target.flat[rng.permutation(target.size)[:holes]] = np.nan
    return target


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("narrow")
    target = holed(2)
    np.save(folder / "target.npy", target)
    result = train(TrainSettings(target=str(folder / "target.npy"), width=2, depth=3, gamma=1.2, max_steps=3000))
    (folder / "run").mkdir()
    save_train(result, folder / "run")
    return result, target, folder / "run"


def test_a_completion_too_narrow_to_fit_converges_to_a_minimum_of_its_network(run):
    result, target, _ = run
    outcome = result.outcome
    assert (outcome.reason, outcome.reached, outcome.rank) == ("converged", "local-minimum", 2)
    assert outcome.reachable > 1e-3, "no exact fit"
    end = [w[-1] for w in result.trajectory.weights]
    value, slope, hessian = loss_and_slopes(end, target)
    above = value - outcome.reachable
    yard = min(outcome.initial_cost, 0.5 * np.nansum(target**2)) - outcome.reachable
    assert -1e-10 * yard <= above <= 1.0001e-8 * yard, "within --tol of the minimum it names"
    values = np.linalg.eigvalsh(hessian)
    # What is left to fall is ½ gᵀH⁺g: the minimum it names is where Newton's method from here leads.
    kept = values > 1e-4 * values[-1]
    parts = np.linalg.eigh(hessian)[1].T @ slope
    assert above == pytest.approx(0.5 * np.sum(parts[kept] ** 2 / values[kept]), rel=0.02)
    assert values[0] > -1e-3 * values[-1], "negative curvature no larger than the distance that is left"


def test_its_sentence_and_its_table_of_critical_points_say_what_kept_it(run):
    result, _, folder = run
    words = train_sentence(result)
    assert "to a minimum of the network at cost" in words and "width 2 keeps it above the minimum" in words
    assert "exact fit" not in words and "--tol asks" not in words and "saddle of rank 2" not in words
    found = detect_saddles(DetectSettings(source=str(folder)))
    last = found.visits[-1]
    assert (last.kind, last.rank, last.escape) == ("local-minimum", 2, None)
    assert last.critical_point.cost == pytest.approx(result.outcome.reachable, rel=1e-9)
    assert last.curvature.negative_eigenvalues == 0
    assert "the least cost at this width is not known" in last.note
    assert "local minimum of rank 2" in detect_sentence(found)


@pytest.mark.parametrize("dynamics", ["flow", "gd", "greedy"])
def test_a_factorization_is_measured_above_the_tail_that_its_width_leaves(dynamics):
    settings = TrainSettings(
        task="factorization",
        shape=(4, 4),
        singular_values=(4.0, 2.0, 1.0),
        width=2,
        depth=3,
        dynamics=dynamics,
        **({} if dynamics == "greedy" else {"gamma": 1.5}),
    )
    result = train(settings)
    outcome = result.outcome
    assert (outcome.reason, outcome.reached, outcome.rank) == ("converged", "width-minimum", 2)
    assert outcome.reachable == pytest.approx(0.5 * 1.0**2, rel=1e-12), "Eckart and Young"
    if dynamics != "greedy":  # its orbits end at the critical points, wherever tol is
        assert 0 <= outcome.cost - 0.5 <= 1e-8 * 10.0
    assert "the least cost that width 2 allows, 0.5 (at any width it is 0)" in train_sentence(result)


def test_a_regression_is_measured_above_the_best_of_its_rank(tmp_path):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((30, 4)) * [3.0, 1.0, 1.0, 0.5]
    y = x @ rng.standard_normal((4, 3)) + 0.1 * rng.standard_normal((30, 3))
    np.savez(tmp_path / "data.npz", X=x, Y=y)
    outcome = train(TrainSettings(data=str(tmp_path / "data.npz"), width=1, depth=2, gamma=1.0)).outcome
    fitted = x @ np.linalg.lstsq(x, y, rcond=None)[0]  # reduced-rank regression: the fit cut to its first mode
    u, s, vt = np.linalg.svd(fitted, full_matrices=False)
    best = 0.5 * np.sum((s[0] * np.outer(u[:, 0], vt[0]) - y) ** 2) / 30
    assert outcome.reached == "width-minimum"
    assert outcome.reachable == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("dynamics", ["flow", "gd"])
def test_starts_of_a_batch_end_each_at_a_minimum_of_its_own(dynamics):
    result = train(TrainSettings(**COMPLETION, observed=0.8, seeds=3, dynamics=dynamics, max_steps=20_000))
    assert {m.outcome.reason for m in result.members} == {"converged"}
    for member in result.members:
        assert member.outcome.reached == "local-minimum"
        assert 0 < member.outcome.reachable <= member.outcome.cost
    costs = [m.outcome.reachable for m in result.members]
    assert result.outcome.reachable == pytest.approx(np.mean(costs))


def test_a_narrow_completion_that_fits_converges_to_the_minimum_of_the_cost():
    outcome = train(TrainSettings(**(COMPLETION | {"rank": 2}), observed=0.9)).outcome
    assert (outcome.reason, outcome.reached) == ("converged", "global-minimum")
    assert outcome.reachable == 0.0 and outcome.excess <= 1e-8 * outcome.initial_cost


def test_a_saddle_of_the_narrow_network_is_no_minimum_of_it():
    host = HostCost(factorization(np.diag([4.0, 2.0, 1.0]), CPU))
    assert minimum_near(np.diag([4.0, 0.0, 1.0]), host, 2) is None, "the second mode is still to be learned"
    assert minimum_near(np.diag([4.0, 2.0, 0.0]), host, 2).cost == pytest.approx(0.5)
    assert minimum_near(np.diag([4.0, 2.0, 1.0]), host, 3) is None, "there is room for all"
    target = holed(1)
    wide = HostCost(completion(np.nan_to_num(target), ~np.isnan(target), CPU))
    assert minimum_near(np.zeros((4, 5)), wide, 2) is None


def test_a_saddle_of_the_rank_of_the_end_is_told(tmp_path):
    """Width 2 learns modes 1 and 3, rests there (cost ½·2.1², a strict saddle), and turns to modes 1 and 2 (½·1.9²)."""
    e, size = np.eye(3), 0.3
    first = np.stack([size * e[0], size * e[2] + 1e-12 * e[1]])
    np.savez(tmp_path / "weights.npz", W1=first, W2=size * np.eye(2), W3=first.T)
    np.save(tmp_path / "target.npy", np.diag([6.8, 2.1, 1.9]))
    files = {"target": str(tmp_path / "target.npy"), "init_weights": str(tmp_path / "weights.npz")}
    result = train(TrainSettings(threads=1, **files))
    assert [(p.rank, pytest.approx(p.refined)) for p in result.theory.plateaus] == [
        (0, 0.5 * (6.8**2 + 2.1**2 + 1.9**2)),
        (2, 0.5 * 2.1**2),
        (2, 0.5 * 1.9**2),
    ]
    assert [(t.from_rank, t.to_rank) for t in result.rank_transitions] == [(0, 2), (2, 2)]
    (tmp_path / "run").mkdir()
    save_train(result, tmp_path / "run")
    found = detect_saddles(DetectSettings(source=str(tmp_path / "run")))
    assert [v.kind for v in found.visits] == ["degenerate-saddle", "strict-saddle", "global-minimum"]
    assert found.visits[1].curvature.negative_eigenvalues == 1  # towards mode 2, in the place of mode 3

"""Steps and batches that change at given steps: against torch's MultiStepLR, sums written out, and the command line."""

import numpy as np
import pytest
import torch
from problems import loss_gradient, stated_cost
from test_optimisers import RULES

import dlnphase
from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import completion
from dlnphase.dynamics import Draws, HeavyBall, Schedule, gradient_descent
from dlnphase.errors import InputError
from dlnphase.networks.sampling import gaussian_network
from dlnphase.settings import TrainSettings

CPU = resolve_backend("cpu")
CHANGES = [(0, 0.01), (100, 0.002), (250, 0.0004)]  # those of MultiStepLR(milestones=[100, 250], gamma=0.2)
SMALL = {"task": "completion", "shape": "4x3", "rank": 2, "depth": 3, "width": 8, "gamma": 1.5, "threads": 1}


@pytest.mark.parametrize("rule", RULES)
def test_every_step_is_that_of_torch_with_multisteplr(rule):
    """400 steps, each to 1e-12 of the largest weight, from the weights where the one before it ended."""
    update, optimiser, decay = RULES[rule]
    network = gaussian_network((3, 3, 3, 3), 0.5, CPU, seed=3)
    stated = stated_cost("completion", network.shape, CPU)
    layers = [w[0].clone().requires_grad_() for w in network.weights]
    optimiser = optimiser(layers)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones=[100, 250], gamma=0.2)
    options = {"lr": CHANGES, "max_steps": 400, "tol": 0, "record_every": 1, "weight_decay": decay, "update": update}
    time, seen = 0.0, 0
    for record in gradient_descent(network, stated.cost, **options):
        assert record.time[0] == pytest.approx(time, rel=1e-12)
        for w, theirs in zip(record.weights(0), layers, strict=True):
            other = theirs.detach().numpy()
            assert np.abs(w - other).max() <= 1e-12 * np.abs(other).max()
            theirs.data.copy_(torch.as_tensor(w))
        for w, g in zip(layers, loss_gradient(record.weights(0), stated.gradient), strict=True):
            w.grad = torch.as_tensor(g)
        time, seen = time + update.pace(optimiser.param_groups[0]["lr"]), seen + 1
        optimiser.step()
        scheduler.step()
    assert seen == 401


def test_changes_that_change_nothing_leave_every_bit():
    start = gaussian_network((3, 4, 4), 0.5, CPU, members=(0, 1))
    cost = stated_cost("completion", start.shape, CPU).cost

    def path(lr, batch):
        draws = Draws(cost.observations, np.arange(2), batch_size=batch)
        return [r.A for r in gradient_descent(start, cost, lr=lr, max_steps=60, tol=0, record_every=1, draws=draws)]

    np.testing.assert_array_equal(path(0.02, 3), path([(0, 0.02), (10, 0.02)], [(0, 3), (7, 3), (30, 3)]))
    changed = path([(0, 0.02), (10, 0.01)], [(0, 3), (7, 5)])
    same = np.array([np.array_equal(a, b) for a, b in zip(path(0.02, 3), changed, strict=True)])
    assert same[:8].all() and not same[8:].any()  # the seventh step is the first with five entries


def test_each_step_draws_as_many_as_are_due_and_stays_unbiased():
    target = np.arange(1.0, 13).reshape(3, 4)
    cost = completion(target, np.ones((3, 4)), CPU)
    draws = Draws(cost.observations, np.array([0]), batch_size=[(0, 2), (5, 12), (9, 7)])
    zero = torch.zeros((1, 3, 4), dtype=torch.float64)
    found = [draws.gradient(zero, step)[0].numpy() for step in range(2000)]
    assert [int(np.count_nonzero(g)) for g in found[:12]] == [2] * 5 + [12] * 4 + [7] * 3
    for g, size in ((found[0], 2), (found[7], 12), (found[11], 7)):
        np.testing.assert_allclose(g[g != 0], -12 / size * target[g != 0])
    np.testing.assert_allclose(np.mean(found[9:], 0), -target, rtol=0.1)


def test_schedules_that_do_not_ascend_from_zero_are_refused():
    for wrong in ([(1, 0.1)], [(0, 0.1), (5, 0.2), (5, 0.3)], []):
        with pytest.raises(InputError, match="expected 0 and then later"):
            Schedule.of(wrong)
    assert Schedule.of(0.3) == Schedule((0,), (0.3,)) and Schedule.of(Schedule.of(0.3)).at(10**9) == 0.3
    several = Schedule.of(CHANGES)
    assert [several.at(k) for k in (0, 99, 100, 249, 250)] == [0.01, 0.01, 0.002, 0.002, 0.0004]
    np.testing.assert_array_equal(several.along(np.array([99, 100, 1000])), [0.01, 0.002, 0.0004])
    assert several.total(300) == pytest.approx(100 * 0.01 + 150 * 0.002 + 50 * 0.0004)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("lr", "0.1,500:0.01,2e3:1e-3", ((0, 0.1), (500, 0.01), (2000, 0.001))),
        ("lr", "0:0.1", 0.1),
        ("lr", [0.1, "500:0.01"], ((0, 0.1), (500, 0.01))),
        ("lr", ((0, 0.1), (500, 0.01)), ((0, 0.1), (500, 0.01))),
        ("batch_size", "10,500:40", ((0, 10), (500, 40))),
    ],
)
def test_settings_take_a_list_and_give_it_back(name, text, value):
    settings = TrainSettings(dynamics="sgd", **{name: text})
    assert getattr(settings, name) == value
    assert TrainSettings.from_plain(settings.to_plain(), "config") == settings


@pytest.mark.parametrize(
    "flags",
    [
        ("--lr", "0.1,0.01"),
        ("--lr", "5:0.1"),
        ("--lr", "0.1,5:0.01,5:0.001"),
        ("--lr", "0.1,-5:0.2"),
        ("--lr", "0.1,5:0"),
        ("--lr", "auto,5:0.1"),
        ("--batch-size", "3,5:0"),
        ("--batch-size", "3,5:1.5"),
        ("--batch-size", "3,5:1000"),
    ],
)
def test_a_list_that_says_nothing_is_refused_in_one_line(run, flags):
    code, out, err = run("train", "--dynamics", "sgd", *flags)
    assert code == 2 and out == "" and err.count("\n") == 1 and flags[0].strip("-") in err and "expected" in err


def test_a_run_whose_step_changes_keeps_time_resumes_and_tells_its_limits(run, tmp_path):
    flags = ["train", "--task", "factorization", "--shape", "4x4", "--singular-values", "4,2", "-L", "3", "-w", "8"]
    flags += ["--dynamics", "gd", "--momentum", "0.5", "--lr", "0.02,100:0.08", "--max-steps", "400", "--tol", "0"]
    code, out, err = run(*flags, "--out", tmp_path / "a")
    assert code == 0, err
    assert "2(1 + β)/η = 150 at first and 37.5 at the end: stable" in " ".join(out.split())
    result = dlnphase.load(tmp_path / "a")
    path = result.trajectory
    np.testing.assert_allclose(path.t, 2 * np.where(path.step < 100, 0.02 * path.step, 2 + 0.08 * (path.step - 100)))
    assert [(c.time, c.limit) for c in result.sharpness.limits] == [(0.0, 150.0), pytest.approx((4.0, 37.5))]
    assert result.sharpness.limit == pytest.approx(37.5) and result.config.lr == ((0, 0.02), (100, 0.08))
    assert run("train", "--config", tmp_path / "a" / "run.yaml", "--out", tmp_path / "b", "-q")[0] == 0
    np.testing.assert_array_equal(dlnphase.load(tmp_path / "b").trajectory.A, path.A)
    code, _, err = run(*flags, "--lr", "0.02,101:0.08", "--out", tmp_path / "a", "--resume")
    assert code == 2 and "0.02,100:0.08" in err and "0.02,101:0.08" in err
    assert run("plot", tmp_path / "a", "--kind", "sharpness", "--format", "csv", "--out", tmp_path / "f")[0] == 0
    rows = np.genfromtxt(tmp_path / "f" / "sharpness.csv", delimiter=",", names=True, dtype=None, encoding="utf8")
    np.testing.assert_allclose(rows["limit"], np.where(rows["t"] < 4 * (1 - 1e-12), 150, 37.5))


def test_the_escape_of_heavy_ball_is_predicted_while_its_step_is_one():
    """The rate of growth belongs to one step size; a run whose step changes before it escapes is told none."""
    common = {"task": "factorization", "shape": "3x3", "singular_values": "3,1", "depth": 2, "width": 8, "gamma": 8.0}
    common |= {"dynamics": "gd", "momentum": 0.9, "max_steps": 3000, "threads": 1}
    late = dlnphase.train(TrainSettings(**common, lr="0.002,2500:0.001"))
    assert late.rank_transitions[0].step < 2500
    told = late.theory.predictions["growth_rate"]
    assert told.predicted == pytest.approx(HeavyBall(0.9).growth(3.0, 0.002))
    assert told.measured == pytest.approx(told.predicted, rel=0.02)
    early = dlnphase.train(TrainSettings(**common, lr="0.002,20:0.001"))
    assert early.rank_transitions[0].step > 20 and "growth_rate" not in early.theory.predictions

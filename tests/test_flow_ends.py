"""Batches, output times and threads of the gradient flow, and every way in which it ends."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from following import CPU, METHODS, at, follow, gaussian, last, random_target
from problems import (
    LogCosh,
    aligned_problem,
    product,
    stated_cost,
)
from tolerances import assert_equal

from dlnphase.costs.quadratic import completion, factorization
from dlnphase.costs.tasks import planted_task
from dlnphase.dynamics import gradient_flow, step_control
from dlnphase.errors import InputError
from dlnphase.networks.chain import Network
from dlnphase.networks.sampling import gaussian_network

# ---- batches and times -----------------------------------------------------------------------------------


def test_members_of_a_batch_move_as_they_do_alone_and_end_when_they_are_done():
    cost = planted_task("completion", (4, 3), (3.0, 1.0), CPU).cost
    scales = (0.4, 0.1, 0.03)
    network = Network(torch.cat([gaussian((3, 6, 6, 4), s, (k,)).theta for k, s in enumerate(scales)]), (3, 6, 6, 4))
    times = (2.0, 10.0, 50.0)
    together = follow(network, cost, output_times=times)
    ends = [last(together, m)[3] for m in range(3)]
    assert all(a < b for a, b in pairwise(ends)), "the smaller the start, the later the end"
    assert sum(any(r.reasons) for r in together) == 3
    for member in range(3):
        alone = follow(network.select([member]), cost, output_times=times)
        mine, theirs = last(together, member), last(alone)
        assert mine[0] == theirs[0] == "converged"
        assert mine[3] == pytest.approx(theirs[3], rel=0.05), "a step sooner or later"
        np.testing.assert_allclose(mine[1], theirs[1], rtol=0, atol=2e-3)
        for t in times:
            if t < min(mine[3], theirs[3]):
                np.testing.assert_allclose(at(together, t, member), at(alone, t), rtol=0, atol=2e-3)


def test_records_tell_the_truth_about_each_step():
    network = gaussian((3, 5, 4, 2), 0.3, members=(0, 1, 2))
    cost = stated_cost("sensing", (2, 3), CPU).cost
    seen, before = 0, {}
    for record in gradient_flow(network, cost):
        seen += 1
        assert_equal(record.excess, cost.excess(CPU.tensor(record.A)), factor=10)
        assert len(record.reasons) == len(record.members) == len(record.time) == len(record.A)
        for i, member in enumerate(record.members):
            layers = Network.from_weights([CPU.tensor(w) for w in record.weights(i)])
            assert_equal(layers.product()[0], record.A[i], factor=10)
            slope = layers.gradient(cost.gradient(layers.product()))
            assert record.gradient_norm[i] == pytest.approx(float(slope.norm()), rel=1e-6)
            then = before.get(int(member), (-1.0, -1, 0))
            assert record.time[i] >= then[0] and record.step[i] in (then[1], then[1] + 1)
            assert record.evaluations[i] > then[2]
            before[int(member)] = float(record.time[i]), int(record.step[i]), int(record.evaluations[i])
            if then[1] == -1:
                assert record.time[i] == 0 and record.step[i] == 0
                for w, first in zip(record.weights(i), network.weights, strict=True):
                    np.testing.assert_array_equal(w, first[member].numpy())
    assert seen > 20


def test_autograd_works_between_two_records():
    """A consumer's own code runs while the generator waits; it keeps its grad mode."""
    network, cost = gaussian((3, 5, 2), 0.3), stated_cost("factorization", (2, 3), CPU).cost
    for _ in gradient_flow(network, cost, max_steps=3):
        assert torch.is_grad_enabled()


def test_the_start_is_not_modified():
    network = gaussian((3, 5, 2), 0.3)
    before = network.theta.clone()
    follow(network, stated_cost("factorization", (2, 3), CPU).cost)
    assert torch.equal(network.theta, before)


def test_weights_move_little_at_first():
    network = gaussian((3, 5, 5, 2), 0.3)
    cost = stated_cost("factorization", (2, 3), CPU).cost
    slope = float(network.gradient(cost.gradient(network.product())).norm())
    for t in (1e-12, 1e-6, 1e-3):
        record = follow(network, cost, output_times=(t,), max_time=t)[-1]
        moved = np.sqrt(sum(np.sum((w - s[0].numpy()) ** 2) for w, s in zip(record.weights(0), network.weights)))  # noqa: B905
        assert moved == pytest.approx(slope * t, rel=1e-2)


@pytest.mark.parametrize("method", METHODS)
def test_output_times_are_hit_exactly_and_bend_no_path(method):
    problem = aligned_problem("factorization", 3, CPU)
    times = (1e-9, 0.1, 0.1 + 1e-9, 1 / 3, np.nextafter(1 / 3, 1), 2.0, 2.5)
    records = follow(problem.network, problem.cost, output_times=times, max_time=2.2, tol=0, method=method)
    seen = [r.time[0] for r in records]
    assert [t for t in times if t <= 2.2] == [t for t in seen if t in times]
    assert seen[-1] == 2.2 and records[-1].reasons == ["max_time"]
    assert np.abs(at(records, 2.0) - problem.exact(2.0)).max() < 1e-3
    free = follow(problem.network, problem.cost, max_time=2.2, tol=0, method=method)
    assert len(records) < len(free) + 3 * len(times)


# ---- every way to end --------------------------------------------------------------------------------------


def test_a_run_ends_converged_at_the_asked_fraction_of_its_first_excess():
    network, cost = gaussian((3, 6, 6, 2), 0.2), stated_cost("regression", (2, 3), CPU).cost
    for tol in (1e-3, 1e-8):
        records = follow(network, cost, tol=tol)
        assert records[-1].reasons == ["converged"]
        assert records[-1].excess[0] <= tol * records[0].excess[0] < records[-2].excess[0]


@pytest.mark.parametrize("dims", [(4, 8, 3), (4, 8, 8, 3)])
def test_a_stiff_run_stays_at_its_minimum_in_long_steps(dims):
    """ROUND_OFFS: nothing but round-off of A is left there; taken for errors of steps, it holds them to a unit of t."""
    cost = factorization(random_target((3, 4), (3.0, 1.0)), CPU)
    records = follow(gaussian(dims, 0.3), cost, method="stiff", tol=0, max_time=1e6, max_steps=300)
    assert records[-1].reasons == ["max_time"] and len(records) < 150
    assert records[-1].excess[0] < 1e-29


def test_budgets_that_run_out():
    network, cost = gaussian((3, 6, 6, 2), 0.2), stated_cost("regression", (2, 3), CPU).cost
    records = follow(network, cost, max_steps=7)
    assert (records[-1].reasons, records[-1].step[0], len(records)) == (["max_steps"], 7, 8)
    records = follow(network, cost, max_steps=0)
    assert (records[-1].reasons, len(records)) == (["max_steps"], 1)
    records = follow(network, cost, max_time=0.5)
    assert (records[-1].reasons, records[-1].time[0]) == (["max_time"], 0.5)
    assert follow(network, cost, max_time=0.0)[-1].reasons == ["max_time"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("start", [np.nan, np.inf, 1e120])
def test_numbers_that_overflow_end_as_diverged(start, method):
    network = gaussian((3, 4, 4, 2), 1.0)
    network.theta[:] = start
    records = follow(network, stated_cost("factorization", (2, 3), CPU).cost, method=method)
    assert records[-1].reasons == ["diverged"]


@pytest.mark.parametrize("method", METHODS)
def test_a_cost_whose_gradient_points_uphill_ends_as_diverged(method):
    class Uphill(LogCosh):
        def gradient(self, a):
            return -super().gradient(a)

    network = gaussian((2, 3, 2), 0.5)
    *_, end = gradient_flow(network, Uphill(torch.ones(2, 2, dtype=torch.float64)), method=method, max_steps=2000)
    assert end.reasons == ["diverged"]
    assert end.excess[0] < 1e12


def test_a_cost_that_turns_into_nan_on_the_way_ends_as_diverged():
    class Cliff(LogCosh):
        def excess(self, a):
            return torch.where(a[:, 0, 0] > 0.5, torch.nan, super().excess(a))

        def gradient(self, a):
            return torch.where(a[:, :1, :1] > 0.5, torch.nan, super().gradient(a))

    cost = Cliff(CPU.tensor(np.eye(2)))
    records = follow(gaussian((2, 4, 2), 0.2), cost, align_frames=False, max_steps=3000)
    assert records[-1].reasons == ["diverged"]
    assert np.isfinite(records[-2].excess).all()


def test_a_cost_that_has_not_changed_for_very_many_steps_ends_at_the_precision_floor(monkeypatch):
    """At a critical point above C_min nothing but round-off is left to follow."""
    monkeypatch.setattr(step_control, "STALL", 150)
    mask = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], bool)
    cost = completion(np.arange(1.0, 10).reshape(3, 3) + 5 * np.eye(3), mask, CPU)
    network = gaussian((3, 1, 1, 3), 0.1)
    records = follow(network, cost, method="stabilised", max_steps=2000)
    assert records[-1].reasons == ["precision_floor"]
    rests = follow(network, cost, max_time=50.0)[-1]
    assert rests.reasons == ["max_time"]
    assert records[-1].excess[0] == pytest.approx(rests.excess[0], rel=1e-5) and rests.excess[0] > 1
    change = np.diff([r.excess[0] for r in records[-140:]])
    assert np.abs(change).max() < 2e-6 * records[-1].excess[0]


def test_a_stabilised_run_that_can_go_no_further_tells_where_it_stands():
    class Cliff(LogCosh):
        def gradient(self, a):
            return torch.where(a[:, :1, :1] > 0.5, torch.nan, super().gradient(a))

    cost = Cliff(CPU.tensor(np.diag([2.0, 1.0, 1.0])))
    last = follow(gaussian((3, 4, 3), 0.3), cost, method="stabilised")[-1]
    assert last.reasons == ["diverged"] and np.isfinite(last.excess[0]) and last.A[0, 0, 0] <= 0.5
    np.testing.assert_allclose(product(last.weights(0)), last.A[0], atol=1e-12)


def test_wrong_options_are_refused():
    network, cost = gaussian((3, 4, 2), 0.2), stated_cost("factorization", (2, 3), CPU).cost
    with pytest.raises(InputError, match="method: found 'euler'"):
        follow(network, cost, method="euler")
    for times in ((1.0, 1.0), (2.0, 1.0), (-1.0, 1.0)):
        with pytest.raises(InputError, match="output_times"):
            follow(network, cost, output_times=times)
    large = factorization(np.zeros((70, 60)), CPU)
    with pytest.raises(InputError, match="4200, above 4096; use auto or stabilised"):
        follow(gaussian((60, 2, 70), 0.1), large, method="stiff")
    masked = completion(np.zeros((70, 60)), np.eye(70, 60) > 0, CPU)
    with pytest.raises(InputError, match="4200 × 4200 numbers along with the frame"):
        follow(gaussian((60, 2, 70), 0.1), masked, method="explicit")
    assert follow(gaussian((60, 2, 70), 0.1), large, method="explicit", max_steps=1)


# ---- threads ---------------------------------------------------------------------------------------------


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_parts_of_a_batch_on_threads_keep_their_order_and_their_numbers(two_threads):
    cost = planted_task("factorization", (3, 3), (3.0, 1.0), CPU).cost
    batch = gaussian_network((3, 6, 6, 3), 1e-3, CPU, members=range(18))

    def run():
        seen = []
        for record in gradient_flow(batch, cost, method="stiff"):
            for i, member in enumerate(record.members):
                np.testing.assert_allclose(product(record.weights(i)), record.A[i], atol=1e-9)
                seen.append((int(member), record.time[i], record.A[i].tobytes(), record.reasons[i]))
        return seen

    first = run()
    assert first == run()
    ends = {member: np.frombuffer(a) for member, _, a, reason in first if reason == "converged"}
    assert sorted(ends) == list(range(18))
    torch.set_num_threads(1)
    for record in gradient_flow(batch, cost, method="stiff"):
        for i, member in enumerate(record.members):
            if record.reasons[i]:
                np.testing.assert_allclose(ends[int(member)], record.A[i].ravel(), atol=1e-3)


def test_what_goes_wrong_on_a_thread_is_raised_and_the_rest_is_let_go(two_threads):
    class Broken(LogCosh):
        calls = 0

        def gradient(self, a):
            self.calls += 1
            if self.calls > 60:
                raise ZeroDivisionError("in a cost")
            return super().gradient(a)

    batch = gaussian_network((3, 6, 3), 1e-2, CPU, members=range(16))
    with pytest.raises(ZeroDivisionError, match="in a cost"):
        follow(batch, Broken(torch.ones((3, 3), dtype=torch.float64)), method="stiff")
    path = gradient_flow(batch, LogCosh(torch.ones((3, 3), dtype=torch.float64)), method="stiff")
    next(path)
    path.close()

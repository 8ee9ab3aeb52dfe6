"""train: what it must show, on networks with known answers, and its promises about results."""

import dataclasses
from concurrent.futures import wait

import numpy as np
import pytest
import torch
from problems import product

from dlnphase.detect.run import detect_saddles
from dlnphase.dynamics import threads
from dlnphase.errors import InputError
from dlnphase.results import result_text
from dlnphase.results.train import Trajectory, load_train, save_train
from dlnphase.settings import DetectSettings, TrainSettings
from dlnphase.training.narrow import NarrowEnds
from dlnphase.training.reasons import REASONS
from dlnphase.training.run import failed, prepare, train
from dlnphase.training.sentences import train_sentence

SMALL = {"task": "factorization", "shape": (4, 3), "singular_values": (3.0, 1.0), "depth": 3, "width": 20, "gamma": 3.0}


@pytest.fixture(scope="module")
def figure():
    """The paper's figure: every default."""
    return train(TrainSettings())


@pytest.fixture(scope="module")
def small():
    return train(TrainSettings(**SMALL))


def ranks(result):
    rows = result.rank_transitions
    return [rows[0].from_rank, *(row.to_rank for row in rows)] if rows else []


def numbers(result):
    """Everything but when and where it was made."""
    return result_text(dataclasses.replace(result, provenance=None, config=None))


def test_the_defaults_are_the_papers_figure(figure):
    outcome = figure.outcome
    assert (outcome.reason, outcome.regime, outcome.rank) == ("converged", "saddle-to-saddle", 3)
    assert ranks(figure) == [0, 1, 2, 3]
    assert outcome.excess <= 1e-8 * outcome.initial_cost
    assert outcome.test_cost < 1e-3 * outcome.initial_test_cost
    assert [p.rank for p in figure.theory.plateaus] == [0, 1, 2, 3]
    assert all(r.prominence > 1 for r in figure.rank_transitions)
    assert sum(r.dwell for r in figure.rank_transitions) == pytest.approx(figure.rank_transitions[-1].time)
    assert "rank 0 → 1 → 2 → 3" in train_sentence(figure) and "recovered" in train_sentence(figure)


def test_the_trajectory_is_the_run(figure):
    path = figure.trajectory
    assert (np.diff(path.t) > 0).all() and path.t[0] == 0
    assert path.t[-1] == figure.outcome.time and path.cost[-1] == figure.outcome.cost
    assert (np.diff(path.excess) <= 1e-6 * path.excess[0]).all()  # a flow goes downhill
    np.testing.assert_allclose(path.singular_values[:, 0], np.linalg.norm(path.A, 2, axis=(1, 2)), rtol=1e-10)
    for k, row in enumerate(path.weights_index):
        product = path.weights[0][k]
        for layer in path.weights[1:]:
            product = layer[k] @ product
        np.testing.assert_allclose(product, path.A[row], atol=1e-10 * np.abs(path.A).max())
    assert path.weights_index[-1] == len(path.t) - 1 and len(path.weights_index) == 4
    visits = [figure.rank_transitions[0].cost_before, *(r.cost_after for r in figure.rank_transitions)]
    np.testing.assert_array_equal(path.cost[path.weights_index], visits)


@pytest.mark.parametrize(("depth", "width"), [(2, 10**6), (3, 100)])
def test_plateaus_of_a_factorization_are_where_theory_puts_them(depth, width):
    values = np.array([7.0, 4.0, 2.0, 1.0])
    result = train(
        TrainSettings(task="factorization", singular_values=values, shape=(8, 6), depth=depth, width=width, gamma=3.0)
    )
    assert ranks(result) == [0, 1, 2, 3, 4] and result.outcome.regime == "saddle-to-saddle"
    exact = [0.5 * float((values[k:] ** 2).sum()) for k in range(5)]
    for plateau, cost in zip(result.theory.plateaus[:4], exact, strict=False):
        assert plateau.predicted == pytest.approx(cost, rel=1e-10)
        assert plateau.refined == pytest.approx(cost, rel=1e-10)
        assert plateau.measured == pytest.approx(cost, rel=0.01)
    escape = result.theory.predictions["escape_time"]
    assert escape.measured == pytest.approx(escape.predicted, rel=0.3)  # the draw is worth a factor of order 1
    if depth == 2:
        rate = result.theory.predictions["growth_rate"]
        assert rate.measured == pytest.approx(7.0, rel=0.01) and rate.predicted == pytest.approx(7.0, rel=1e-10)
    movement = result.theory.predictions["movement"]
    assert movement.measured == pytest.approx(movement.predicted, rel=0.02)


@pytest.mark.parametrize("depth", [2, 3])
def test_a_large_start_is_lazy(depth):
    values = (0.7, 0.4, 0.2, 0.1)
    result = train(
        TrainSettings(task="factorization", singular_values=values, shape=(8, 6), depth=depth, width=1000, gamma=0.7)
    )
    assert result.outcome.reason == "converged" and result.outcome.regime == "lazy"
    assert result.rank_transitions == () and result.outcome.evidence.saddles_visited == 0
    assert result.outcome.evidence.ntk_change < 0.1
    kernel = result.theory.predictions["ntk_at_start"]
    assert kernel.measured == pytest.approx(kernel.predicted, rel=0.1)
    movement = result.theory.predictions["movement"]
    assert movement.measured == pytest.approx(movement.predicted, rel=0.05)
    assert "no saddle visited" in train_sentence(result)


def test_gamma_one_is_neither():
    assert train(TrainSettings(gamma=1.0, depth=3)).outcome.regime == "mean-field"


def test_the_same_settings_give_the_same_numbers_and_so_does_their_file(small, tmp_path):
    again = train(TrainSettings(**SMALL))
    assert numbers(again) == numbers(small)
    save_train(small, tmp_path)
    loaded = load_train(tmp_path)
    assert result_text(loaded) == result_text(small)
    third = train(loaded.config)
    for name, array in small.trajectory.arrays().items():
        np.testing.assert_array_equal(third.trajectory.arrays()[name], array, err_msg=name)
        np.testing.assert_array_equal(loaded.trajectory.arrays()[name], array, err_msg=name)


def test_global_seeds_are_irrelevant(small):
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    assert numbers(train(TrainSettings(**SMALL))) == numbers(small)
    assert numbers(train(TrainSettings(**SMALL, seed=1))) != numbers(small)


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_a_run_takes_the_threads_it_was_given(threads):
    before, seen = torch.get_num_threads(), set()
    result = train(TrainSettings(**SMALL, threads=threads), on_record=lambda _: seen.add(torch.get_num_threads()))
    assert seen == {threads or 1} == {result.provenance.threads}
    assert torch.get_num_threads() == before


def test_many_seeds_are_followed_at_once_and_summed_up(small):
    result = train(TrainSettings(**SMALL, seeds=4))
    assert [m.member for m in result.members] == [0, 1, 2, 3]
    first = result.members[0]
    assert [r.to_rank for r in first.rank_transitions] == [1, 2]
    for one, many in zip(small.rank_transitions, first.rank_transitions, strict=True):
        assert many.time == pytest.approx(one.time, rel=1e-3)  # a batch sums in another order
    times = np.array([[r.time for r in m.rank_transitions] for m in result.members])
    for k, (spread, row) in enumerate(zip(result.spread, result.rank_transitions, strict=True)):
        assert spread.members == 4 and row.time == spread.time_mean == pytest.approx(times[:, k].mean())
        assert spread.time_std == pytest.approx(times[:, k].std(ddof=1))
        assert (spread.time_min, spread.time_max) == (times[:, k].min(), times[:, k].max())
    path = result.trajectory
    assert sorted(set(path.member)) == [0, 1, 2, 3]
    assert all((np.diff(path.t[path.rows_of(m)]) > 0).all() for m in range(4))
    assert train_sentence(result).startswith("4 of 4 starts went from saddle to saddle: rank 0 → 1 → 2, ")
    alone = train(TrainSettings(**SMALL, seeds=(2,)))
    assert alone.rank_transitions[0].time == pytest.approx(times[2, 0], rel=1e-3)


@pytest.mark.parametrize("task", ["completion", "factorization", "sensing", "regression"])
def test_descent_is_autograd_and_sgd_step_by_step(task, tmp_path):
    rng = np.random.default_rng(0)
    layers = [rng.standard_normal(s) * 0.3 for s in ((6, 4), (6, 6), (5, 6))]
    np.savez(tmp_path / "w.npz", **{f"W{k}": w for k, w in enumerate(layers, 1)})
    noise = {"noise": 0.1} if task in ("sensing", "regression") else {}
    settings = TrainSettings(
        task=task,
        shape=(5, 4),
        singular_values=(2.0, 1.0),
        init_weights=str(tmp_path / "w.npz"),
        dynamics="gd",
        lr=0.05,
        max_steps=1000,
        tol=0.0,
        **noise,
    )
    run = prepare(settings)
    seen = {}
    result = train(run, on_record=lambda r: seen.update({int(r.step[0]): (r.A[0].copy(), float(r.excess[0]))}))
    assert result.outcome.reason == "max_steps" and result.outcome.steps == 1000 and len(seen) > 30
    parameters = [torch.tensor(w, requires_grad=True) for w in layers]
    optimiser = torch.optim.SGD(parameters, lr=0.05)
    cost = run.task.cost
    for step in range(1001):
        a = parameters[2] @ parameters[1] @ parameters[0]
        loss = cost.value(a[None])[0]
        if step in seen:
            np.testing.assert_allclose(seen[step][0], a.detach().numpy(), rtol=1e-12, atol=1e-12)
            assert seen[step][1] + cost.minimum == pytest.approx(float(loss.detach()), rel=1e-11)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def test_an_automatic_step_is_stable_and_said():
    run = prepare(TrainSettings(**SMALL, dynamics="gd"))
    assert min(run.descent.lr.values) > 0 and any("η" in note for note in run.notes)
    result = train(run)
    assert result.outcome.reason == "converged" and ranks(result)[-1] == 2


def test_a_step_too_large_diverges_with_advice():
    result = train(TrainSettings(**SMALL, dynamics="gd", lr=5.0))
    assert result.outcome.reason == "diverged" and failed(result)
    assert "--lr auto" in result.outcome.advice
    assert np.isfinite(result.trajectory.A).all() and len(result.trajectory.t) > 1
    assert result.theory.predictions.keys() <= {"ntk_at_start", "escape_time"}


@pytest.mark.parametrize(("limit", "reason"), [({"max_time": 0.5}, "max_time"), ({"max_steps": 5}, "max_steps")])
def test_a_budget_that_runs_out_is_an_answer(limit, reason):
    result = train(TrainSettings(**SMALL, **limit))
    assert result.outcome.reason == reason and not failed(result) and "raise it" in result.outcome.advice
    assert result.outcome.regime in (None, "saddle-to-saddle") and result.outcome.rank == 0
    if reason == "max_time":
        assert result.outcome.time == 0.5


def test_a_plateau_is_never_taken_for_the_end():
    """At γ = 6 the gradient at the first saddles is far below any threshold on ‖∇𝓛‖."""
    result = train(TrainSettings(**(SMALL | {"gamma": 6.0, "width": 100})))
    assert result.trajectory.gradient_norm[0] < 1e-9
    assert result.outcome.reason == "converged" and ranks(result) == [0, 1, 2]


def test_an_interrupted_run_keeps_what_was_done(small, tmp_path):
    count = iter(range(10**6))
    result = train(TrainSettings(**SMALL), should_stop=lambda: next(count) == 40)
    assert result.outcome.reason == "interrupted" and not failed(result)
    assert len(result.trajectory.t) == 41
    np.testing.assert_array_equal(result.trajectory.t, small.trajectory.t[:41])
    assert result.trajectory.weights_index[-1] == 40
    save_train(result, tmp_path)
    assert load_train(tmp_path).outcome == result.outcome

    def interrupt(record):
        if record.step[0] == 40:
            raise KeyboardInterrupt

    assert numbers(train(TrainSettings(**SMALL), on_record=interrupt)) == numbers(result)


def test_weights_of_ones_own_are_followed_as_they_are(small, tmp_path):
    start = prepare(TrainSettings(**SMALL)).start.network
    np.savez(tmp_path / "w.npz", **{f"W{k}": w[0].numpy() for k, w in enumerate(start.weights, 1)})
    own = {k: v for k, v in SMALL.items() if k not in ("depth", "width", "gamma")}
    result = train(TrainSettings(**own, init_weights=str(tmp_path / "w.npz")))
    np.testing.assert_array_equal(result.trajectory.A, small.trajectory.A)
    assert result.network.gamma is None and result.network.sigma == pytest.approx(small.network.sigma, rel=0.1)
    with pytest.raises(InputError, match="gives a 4x3 matrix, expected 10x10"):
        train(TrainSettings(init_weights=str(tmp_path / "w.npz")))


def test_hidden_rotations_of_a_start_change_nothing(tmp_path):
    from turns import random_rotations

    from dlnphase.backend import resolve_backend

    start = prepare(TrainSettings(**SMALL)).start.network
    turned = start.rotate(random_rotations(start.dims, resolve_backend("cpu")))
    own = {k: v for k, v in SMALL.items() if k not in ("depth", "width", "gamma")}
    results = []
    for name, network in (("a.npz", start), ("b.npz", turned)):
        np.savez(tmp_path / name, **{f"W{k}": w[0].numpy() for k, w in enumerate(network.weights, 1)})
        results.append(train(TrainSettings(**own, init_weights=str(tmp_path / name), rtol=1e-6, max_time=60.0)))
    a, b = (r.trajectory for r in results)
    ends = [np.interp(np.linspace(0, 40, 200), p.t, p.singular_values[:, 0]) for p in (a, b)]
    np.testing.assert_allclose(*ends, atol=1e-3)
    for one, other in zip(results[0].rank_transitions, results[1].rank_transitions, strict=True):
        assert one.time == pytest.approx(other.time, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gamma": 1000.0}, "gamma: found 1000"),
        ({"gamma": -1e6}, "gamma: found -1e"),
        ({"shape": (10**6, 10**6)}, "shape: a factorization task"),
        ({"width": 10**12, "representation": "full"}, r"needs about .* GiB"),
        ({"device": "cuda:99"}, "device: cuda:99 is not there"),
        ({"dynamics": "greedy", "seeds": (0, 1)}, "seeds: found 2 with dynamics greedy"),
    ],
)
def test_what_cannot_work_is_refused_before_it_starts(change, words):
    with pytest.raises(InputError, match=words):
        prepare(TrainSettings(**(SMALL | change)))


def test_a_damaged_trajectory_is_told(small):
    arrays = small.trajectory.arrays()
    for name, array in {
        "t": arrays["t"][:-1],
        "A": arrays["A"][:, :, :2],
        "W1": arrays["W1"][:1],
        "weights_index": arrays["weights_index"] + 10_000,
    }.items():
        with pytest.raises(InputError, match=r"x\.npz"):
            Trajectory.from_arrays(arrays | {name: array}, "x.npz")
    with pytest.raises(InputError, match="gradient_norm is missing"):
        Trajectory.from_arrays({k: v for k, v in arrays.items() if k != "gradient_norm"}, "x.npz")


def test_long_runs_of_large_matrices_stay_within_memory(monkeypatch, small):
    from dlnphase.training import recording

    monkeypatch.setattr(recording, "MATRIX_BYTES", 40 * small.trajectory.A[0].nbytes)
    thin = train(TrainSettings(**SMALL))
    assert len(thin.trajectory.t) < 0.9 * len(small.trajectory.t)
    assert thin.rank_transitions == small.rank_transitions  # the scalars and the visits are all there
    assert thin.outcome == small.outcome
    product = thin.trajectory.weights[2][1] @ thin.trajectory.weights[1][1] @ thin.trajectory.weights[0][1]
    np.testing.assert_allclose(product, thin.trajectory.A[thin.trajectory.weights_index[1]], atol=1e-10)


def test_detect_saddles_finds_the_visits_of_a_run_of_which_few_matrices_are_kept(monkeypatch, small, tmp_path):
    """The gradient between the records that are left tells the visits apart, which these records alone do not."""
    from dlnphase.training import recording

    monkeypatch.setattr(recording, "MATRIX_BYTES", 8 * small.trajectory.A[0].nbytes)
    thin = train(TrainSettings(**SMALL))
    assert small.trajectory.between is None and len(thin.trajectory.t) < 20
    blind = dataclasses.replace(thin, trajectory=dataclasses.replace(thin.trajectory, between=None))
    found = {}
    for name, result in {"whole": small, "thin": thin, "blind": blind}.items():
        (tmp_path / name).mkdir()
        save_train(result, tmp_path / name)
        settings = DetectSettings(source=str(tmp_path / name), certify=False, greedy=False)
        found[name] = [(visit.rank, visit.time.closest) for visit in detect_saddles(settings).visits]
    assert found["thin"] == found["whole"] and len(found["blind"]) < len(found["whole"])


def test_real_data_digits(tmp_path):
    """scikit-learn's digits, 64 pixels → 10 classes, one-hot: the modes of the data, one by one."""
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = digits.data / 16, np.eye(10)[digits.target]
    np.savez(tmp_path / "digits.npz", X=x[:1500], Y=y[:1500], X_test=x[1500:], Y_test=y[1500:])
    data = {"data": str(tmp_path / "digits.npz"), "depth": 3, "width": 10**6, "rtol": 1e-3, "max_time": 5000.0}
    result = train(TrainSettings(**data))
    assert result.task.kind == "regression" and result.task.shape == (10, 64) and result.task.minimum > 0.1
    assert result.outcome.reason == "max_time" and result.outcome.regime == "saddle-to-saddle"
    assert ranks(result) == [0, 1, 2]
    for plateau in result.theory.plateaus:  # reduced-rank regression knows the cost at every rank
        assert plateau.refined == pytest.approx(plateau.predicted, rel=1e-9)
        assert plateau.measured == pytest.approx(plateau.predicted, rel=1e-3)
    assert result.outcome.test_cost < result.outcome.initial_test_cost


def test_an_interrupted_batch_says_how_many_starts_had_not_begun():
    seen = []
    settings = TrainSettings(**(SMALL | {"seeds": 4}))
    result = train(settings, on_record=seen.append, should_stop=lambda: len(seen) > 3)
    assert result.outcome.reason == "interrupted"
    assert "3 of 4 starts had not begun" in result.outcome.advice and "3 of 4 starts had not begun" in result.notes


@pytest.mark.parametrize("reason", ["converged", "diverged"])
def test_a_batch_stopped_when_those_that_began_have_ended_is_not_over(reason, monkeypatch):
    """A result that is over is never gone on with: the starts that had not begun would be lost without a word."""
    ended = []

    def end(ends, record):
        if record.step[0] == 3:
            record.reasons[:] = [reason]
            ended.append(record.members[0])

    monkeypatch.setattr(NarrowEnds, "end", end)
    result = train(TrainSettings(**(SMALL | {"seeds": 3})), should_stop=lambda: len(ended) == 2)
    assert [m.outcome.reason for m in result.members] == [reason] * 2
    assert result.outcome.reason == "interrupted"
    assert result.outcome.advice == "1 of 3 starts had not begun; --resume goes on from there"


def test_a_batch_stopped_under_way_is_not_over_though_a_start_has_diverged(monkeypatch):
    seen = []

    def end(ends, record):
        record.reasons[:] = ["diverged"] if not seen else record.reasons
        seen.append(record)

    monkeypatch.setattr(NarrowEnds, "end", end)
    result = train(TrainSettings(**(SMALL | {"seeds": 2})), should_stop=lambda: len(seen) > 3)
    assert [m.outcome.reason for m in result.members] == ["diverged", "interrupted"]
    assert result.outcome.reason == "interrupted"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_advice_is_something_that_is_not_done_already(dtype):
    run = prepare(TrainSettings(**SMALL, dtype=dtype))
    for reason in ("precision_floor", "diverged"):
        assert ("--dtype float64" in REASONS[reason].advice(run)) is (dtype == "float32")


def test_a_member_that_waits_for_the_others_keeps_where_it_is_when_the_batch_is_interrupted():
    """The first start has left its mild part; while the second one is in its own, the run is stopped."""
    seen = []

    def second(record):
        seen.append(int(record.members[0]))

    settings = TrainSettings(**(SMALL | {"seeds": 2, "width": 10**6}))
    result = train(settings, on_record=second, should_stop=lambda: seen[-1] == 1 and len(seen) > seen.index(1) + 3)
    assert [m.outcome.reason for m in result.members] == ["interrupted", "interrupted"]
    assert seen.count(0) == seen.index(1), "the first start was not handed over"
    for member in result.members:
        assert np.isfinite(member.outcome.evidence.parameter_movement)
    path = result.trajectory
    last = int(np.flatnonzero(path.member == 0)[-1])
    place = int(np.flatnonzero(path.weights_index == last)[-1])
    product = path.weights[0][place]
    for layer in path.weights[1:]:
        product = layer[place] @ product
    np.testing.assert_allclose(product, path.A[last], atol=1e-12)


@pytest.mark.parametrize("how", ["asked", "raised", "raised in the middle of a round"])
def test_members_on_other_threads_keep_where_they_are_when_the_batch_is_interrupted(how, monkeypatch):
    """Two parts of two, a record of each in turn: stopped after the first one of a round, or while both step."""
    monkeypatch.setattr(threads, "PART", 2)
    seen, rounds = [], []

    def on_record(record):
        seen.append(record)
        if how == "raised" and 0 in record.members and len(rounds) > 20:
            raise KeyboardInterrupt

    def waiting(futures):
        rounds.append(len(futures))
        if how == "raised in the middle of a round" and len(rounds) > 20:
            raise KeyboardInterrupt
        return wait(futures)

    monkeypatch.setattr(threads, "wait", waiting)
    settings = TrainSettings(**(SMALL | {"seeds": 4, "width": 10**6, "threads": 2}))
    result = train(settings, on_record=on_record, should_stop=lambda: how == "asked" and len(rounds) > 20)
    assert max(rounds) == 2 and 20 < len(rounds) < 23, "both parts were under way"
    assert [m.outcome.reason for m in result.members] == ["interrupted"] * 4
    path = result.trajectory
    for member in range(4):
        last = int(np.flatnonzero(path.member == member)[-1])
        place = int(np.flatnonzero(path.weights_index == last)[-1])
        layers = [w[place] for w in path.weights]
        np.testing.assert_allclose(product(layers), path.A[last], rtol=1e-9, atol=1e-12 * abs(path.A[last]).max())
        step = max(int(r.step[list(r.members).index(member)]) for r in seen if member in r.members)
        assert int(path.step[last]) >= step, "what was computed is kept"
        assert np.isfinite(result.members[member].outcome.evidence.parameter_movement)

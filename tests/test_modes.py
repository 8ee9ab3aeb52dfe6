"""When modes are learned: against closed forms and a dense integration, and how it is told."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from problems import mode_two_layers
from rich.console import Console
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from dlnphase.backend import resolve_backend
from dlnphase.cli.tables import print_train
from dlnphase.costs.quadratic import factorization
from dlnphase.critical.visited import LARGE
from dlnphase.findings import Mode, ModeSpread
from dlnphase.networks.sampling import gaussian_network
from dlnphase.results.train import Member, load_train, save_train
from dlnphase.settings import TrainSettings
from dlnphase.training.early import wants_dense_start, with_dense_start
from dlnphase.training.modes import mean_modes, modes_of
from dlnphase.training.run import train
from dlnphase.training.sentences import train_sentence

SMALL = {"task": "factorization", "shape": (4, 3), "singular_values": (3.0, 1.0), "depth": 3, "width": 20, "gamma": 3.0}


def test_logistic_modes_are_timed_between_records():
    """L = 2: a(t) = s/(1 + (s/a_0 − 1)e^(−2st)) passes half at ln(s/a_0 − 1)/2s and rises in ln(81)/2s."""
    time = np.sort(np.concatenate([np.linspace(0, 6, 70), np.random.default_rng(0).uniform(0, 6, 30)]))
    sizes, start = np.array([3.0, 1.0]), 1e-3
    values = np.stack([mode_two_layers(time, start, s) for s in sizes], axis=1)
    values[-1] = sizes
    first, second = modes_of(time, values, 2)
    for mode, s in ((first, 3.0), (second, 1.0)):
        assert mode.time == pytest.approx(np.log(s / start - 1) / (2 * s), abs=0.01 * np.log(81) / (2 * s))
        assert mode.rise == pytest.approx(np.log(81) / (2 * s), rel=0.02)
    gap = second.time - first.time
    assert first.separation is None and second.separation == pytest.approx(gap / (0.5 * (first.rise + second.rise)))


def test_what_was_there_from_the_start_or_is_not_learned_has_no_time():
    time = np.array([0.0, 1.0, 2.0, 3.0])
    values = np.array([[4.0, 0.4, 0.0], [5.0, 1.0, 0.0], [6.0, 3.0, 0.0], [7.0, 3.5, 0.0]])
    large, late, never = modes_of(time, values, 3)
    assert (large.time, large.rise, large.separation) == (None, None, None)
    assert 1 < late.time < 2 and late.rise is None  # it began above a tenth
    assert never == Mode(3, 0.0, None, None, None)
    assert len(modes_of(time, values, 1)) == 1


def test_a_mode_beside_one_that_was_partly_there_at_the_start_is_apart_by_its_own_rise():
    """Half a unit of time apart, and the first one's rise is not known: by the second one's they come together."""
    t = np.linspace(0.0, 12.0, 400)
    first, second = 5.0 / (1 + np.exp(-(t - 1.0))), 4.0 / (1 + np.exp(-(t - 1.5)))
    large, small = modes_of(t, np.stack([first, second * (1 - np.exp(-40 * t))], -1), 2)
    assert large.rise is None and small.rise is not None
    assert small.separation == pytest.approx((small.time - large.time) / small.rise)
    assert small.separation < 0.5


def test_two_records_or_equal_times_are_enough():
    values = np.array([[1e-12], [1.0]])
    (mode,) = modes_of(np.array([0.0, 2.0]), values, 1)
    assert 0 < mode.time < 2
    (mode,) = modes_of(np.array([0.0, 1.0, 1.0, 2.0]), np.array([[0.01], [0.02], [0.6], [1.0]]), 1)
    assert mode.time == pytest.approx(1.0)


@pytest.mark.parametrize("times", [[0.0, 2.0, 8.0, 20.0], [0.0, 3.0, 20.0]])
def test_a_mode_that_passes_through_zero_between_two_records_is_timed_on_denser_ones(times):
    """One layer: A = s − (s − a_0) e^(−t), from a_0 = −1 to half of s = 4 at ln 2.5; the records alone cannot tell."""
    time = np.array(times)
    a = (4 - 5 * np.exp(-time))[:, None, None]
    cost = factorization(np.array([[4.0]]), resolve_backend("cpu"))
    (plain,) = modes_of(time, np.abs(a[:, :, 0]), 1)
    assert abs(plain.time / np.log(2.5) - 1) > 0.05
    assert wants_dense_start(np.abs(a[:, :, 0]), 1, 1)
    dense, matrices = with_dense_start(time, a, [a[0]], cost, 1e-6)
    np.testing.assert_allclose(matrices[:, 0, 0], 4 - 5 * np.exp(-dense), atol=1e-4)
    (mode,) = modes_of(dense, np.linalg.svd(matrices, compute_uv=False), 1)
    assert mode.time == pytest.approx(np.log(2.5), rel=5e-3)


def test_a_mode_that_has_just_passed_through_zero_is_timed_by_the_matrix():
    """A = s − (s − a_0) e^(−t) again, its zero within the four records: log |A| has a kink there, A has none."""
    time = np.concatenate([[0.0, 0.2, 0.6], np.linspace(1.1, 20, 40)])
    a = (4 - 5 * np.exp(-time))[:, None, None]
    (plain,) = modes_of(time, np.abs(a[:, :, 0]), 1)
    (mode,) = modes_of(time, np.abs(a[:, :, 0]), 1, a)
    assert abs(plain.time / np.log(2.5) - 1) > 0.02
    assert mode.time == pytest.approx(np.log(2.5), rel=5e-3)


def test_modes_that_pass_later_or_belong_to_large_matrices_get_no_denser_records():
    late = np.concatenate([np.full(9, 1e-3), [0.3, 0.7, 1.0]])[:, None]
    assert not wants_dense_start(late, 1, 4) and wants_dense_start(late[1:], 1, 4)
    assert wants_dense_start(late[1:], 1, LARGE) and not wants_dense_start(late[1:], 1, LARGE + 1)


@pytest.fixture(scope="module")
def merged():
    """A start so large that the saddles between the modes are not visited, one row 0 → 3: the modes come one by one."""
    settings = {"task": "factorization", "shape": (5, 4), "singular_values": (8.0, 3.0, 1.0), "depth": 3, "width": 12}
    return train(TrainSettings(threads=1, gamma=1.8, seed=3, **settings))


def test_times_of_modes_are_those_of_a_dense_integration(merged):
    """DOP853 at 1e-11 on the weights, roots of its dense output: times within 0.2 % of a rise, rises within 0.5 %."""
    dims = (4, 12, 12, 5)
    network = gaussian_network(dims, 12 ** (-1.8 / 2), resolve_backend("cpu"), seed=3)
    layers = [w[0].numpy() for w in network.weights]
    ends = np.cumsum([w.size for w in layers])[:-1]
    target = merged.trajectory.A[-1]

    def chain(theta):
        return [p.reshape(w.shape) for p, w in zip(np.split(theta, ends), layers, strict=True)]

    def slope(_, theta):
        w1, w2, w3 = chain(theta)
        g = w3 @ w2 @ w1 - planted
        parts = (w2.T @ w3.T @ g, w3.T @ g @ w1.T, g @ w1.T @ w2.T)
        return -np.concatenate([p.ravel() for p in parts])

    u, _, vt = np.linalg.svd(target, full_matrices=False)
    planted = (u[:, :3] * [8.0, 3.0, 1.0]) @ vt[:3]  # the run ended within 1e-8 of it
    start = np.concatenate([w.ravel() for w in layers])
    end = merged.outcome.time
    path = solve_ivp(slope, (0, end), start, method="DOP853", rtol=1e-11, atol=1e-13, dense_output=True).sol

    def size(t, k):
        w1, w2, w3 = chain(path(t))
        return np.linalg.svd(w3 @ w2 @ w1, compute_uv=False)[k]

    def passing(k, part):
        grid = np.linspace(0, end, 2000)
        goal = part * size(end, k)
        first = next(i for i, t in enumerate(grid) if size(t, k) >= goal)
        return brentq(lambda t: size(t, k) - goal, grid[first - 1], grid[first], xtol=1e-12)

    assert [(r.from_rank, r.to_rank) for r in merged.rank_transitions] == [(0, 3)] and len(merged.modes) == 3
    for k, mode in enumerate(merged.modes):
        rise = passing(k, 0.9) - passing(k, 0.1)
        assert mode.time == pytest.approx(passing(k, 0.5), abs=0.002 * rise)
        assert mode.rise == pytest.approx(rise, rel=0.005)


def test_modes_are_told_where_no_saddle_between_them_was_visited_and_survive_the_file(merged, tmp_path):
    words = train_sentence(merged)
    times = ", ".join(f"{m.time:.4g}" for m in merged.modes)
    assert "rank 0 → 3" in words and f"Its 3 modes came one by one, passing half their size at t = {times}." in words
    save_train(merged, tmp_path)
    assert load_train(tmp_path).modes == merged.modes


def test_groups_of_modes_are_told_as_such(merged):
    def told(*separations):
        modes = [Mode(k + 1, 1.0, k + 1.0, 0.5, s) for k, s in enumerate(separations)]
        return train_sentence(dataclasses.replace(merged, modes=tuple(modes)))

    assert "Its 3 modes came one by one, passing half their size at t = 1, 2, 3." in told(None, 2.0, 2.0)
    assert "Its 3 modes came together, passing half their size at t = 1 to 3 (3 modes)." in told(None, 0.2, 0.2)
    assert "Its 3 modes came in 2 groups, passing half their size at t = 1, 2 to 3 (2 modes)." in told(None, 2.0, 0.2)
    assert "Its mode passed half its size at t = 1." in told(None)
    assert "modes came" not in train_sentence(dataclasses.replace(merged, modes=()))


def test_the_table_shows_every_mode_and_its_spread(capsys):
    def shown(*modes, **rest):
        result = dataclasses.replace(empty, modes=modes, **rest)
        print_train(Console(width=120), result, Path("out"))
        return capsys.readouterr().out

    empty = dataclasses.replace(train(TrainSettings(threads=1, **SMALL)), modes=())
    out = shown(Mode(1, 3.25, 1.5, 0.25, None), Mode(2, 1.125, None, None, None))
    assert re.search(r"mode +size +half of it at +10–90 % rise +apart", out)
    assert re.search(r"1 +3\.25 +1\.5 +0\.25 +–", out) and re.search(r"2 +1\.125 +– +– +–", out)
    many = [Mode(k + 1, 1.0, 2.0, 0.5, None) for k in range(12)]
    assert "… 12" in shown(*many) and "11 " not in shown(*many).split("Modes")[1].split("…")[0]
    spread = (ModeSpread(1, 3, 1.5, 0.125, 1.0, 2.0, 0.0),)
    out = shown(Mode(1, 3.25, 1.5, 0.25, None), mode_spread=spread, members=(member_of(empty),) * 4)
    assert "mean over 4 starts" in out and re.search(r"– +0\.12 +3/4", out)


def member_of(result):
    return Member(0, result.outcome, result.rank_transitions, result.theory, result.modes)


def test_several_starts_are_averaged_and_no_path_is_told_that_nobody_took():
    result = train(TrainSettings(threads=1, seeds=2, **SMALL))
    times = np.array([[m.time for m in member.modes] for member in result.members])
    assert [m.time for m in result.modes] == pytest.approx(times.mean(axis=0))
    assert [s.time_std for s in result.mode_spread] == pytest.approx(times.std(axis=0, ddof=1))
    assert [s.members for s in result.mode_spread] == [2, 2]
    assert [(s.time_min, s.time_max) for s in result.mode_spread] == [(t.min(), t.max()) for t in times.T]
    first, second = result.members
    direct = dataclasses.replace(second, rank_transitions=(dataclasses.replace(second.rank_transitions[0], to_rank=2),))
    mixed = dataclasses.replace(result, members=(first, direct, first))
    words = train_sentence(mixed)
    assert words.startswith("2 of 3 starts went from saddle to saddle: rank 0 → 1 → 2, ")
    assert "; 1 went from saddle to saddle: rank 0 → 2, " in words and "2 → 2" not in words
    short = dataclasses.replace(first, outcome=dataclasses.replace(first.outcome, reason="max_time"))
    assert "(1 converged, 1 max time)" in train_sentence(dataclasses.replace(result, members=(first, short)))


def test_a_mode_that_few_starts_learned_counts_over_them():
    rows = [(Mode(1, 2.0, 1.0, 0.1, None), Mode(2, 1.0, None, None, None)), (Mode(1, 4.0, 3.0, 0.3, None),)]
    (one, two), (first, second) = mean_modes(rows)
    assert (one.size, one.time, one.rise) == (3.0, 2.0, pytest.approx(0.2))
    assert (first.members, second.members) == (2, 0)
    assert two.time is None and second.time_mean is None and second.size_std == 0.0

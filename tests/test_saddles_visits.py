"""Visits on synthetic records of known answer, and on paths integrated by scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.signal import find_peaks

from dlnphase.critical import WeightKeeper, find_visits, rank_transitions, transition_times
from dlnphase.critical.peaks import peaks
from dlnphase.errors import InputError


def plateaus(dips, width=1.0, spacing=10.0, records=4000):
    """A path whose −log10‖∇𝓛‖ has one Gaussian dip of the given decades at spacing, 2·spacing, …; dC/dt = −‖∇𝓛‖²."""
    t = np.linspace(0.0, spacing * (len(dips) + 1), records)
    depth = sum(d * np.exp(-0.5 * ((t - spacing * (i + 1)) / width) ** 2) for i, d in enumerate(dips))
    g = 10.0 ** (-depth)
    drop = np.concatenate([[0.0], np.cumsum(0.5 * (g[1:] ** 2 + g[:-1] ** 2) * np.diff(t))])
    return t, np.arange(records), drop[-1] * 1.01 - drop, g


@pytest.mark.parametrize("threshold", [0.25, 0.5, 1.0, 1.9])
def test_dips_are_found_where_they_are_and_as_deep_as_they_are(threshold):
    dips = [3.0, 2.0, 4.0]
    visits = find_visits(*plateaus(dips), min_prominence=threshold)
    t = plateaus(dips)[0]
    assert [round(t[v.index]) for v in visits] == [10, 20, 30]
    assert np.allclose([v.prominence for v in visits], dips, atol=1e-3)
    # Half the prominence of a Gaussian dip is √(2 ln 2) widths away on each side.
    for v in visits:
        assert t[v.index] - t[v.enter] == pytest.approx(np.sqrt(2 * np.log(2)), abs=0.03)
        assert t[v.exit] - t[v.index] == pytest.approx(np.sqrt(2 * np.log(2)), abs=0.03)


def test_a_dip_below_the_threshold_is_no_visit():
    visits = find_visits(*plateaus([3.0, 0.4, 3.0]), min_prominence=0.5)
    assert len(visits) == 2
    assert len(find_visits(*plateaus([3.0, 0.4, 3.0]), min_prominence=0.3)) == 3


def test_the_ends_of_a_path_are_open():
    t, step, cost, g = plateaus([3.0, 2.0])
    # from the bottom of one dip to that of the next
    part = slice(np.searchsorted(t, 10.0), np.searchsorted(t, 20.0) + 1)
    visits = find_visits(t[part], step[part], cost[part], g[part])
    assert [v.index for v in visits] == [0, part.stop - part.start - 1]
    assert visits[0].enter == 0 and visits[1].exit == part.stop - part.start - 1
    assert visits[0].prominence == pytest.approx(3.0, abs=1e-2)


def test_a_start_that_first_comes_nearer_is_still_a_visit():
    t, step, cost, g = plateaus([3.0, 2.0])
    part = slice(np.searchsorted(t, 9.9), None)
    assert len(find_visits(t[part], step[part], cost[part], g[part])) == 2


def test_lazy_decay_has_no_visit_but_its_end():
    t = np.linspace(0, 12, 300)
    wiggle = 1 + 0.1 * np.sin(40 * t)
    visits = find_visits(t, np.arange(300), np.exp(-2 * t), np.exp(-t) * wiggle, min_prominence=0.25)
    assert len(visits) == 1 and visits[0].index > 290
    assert rank_transitions(t, np.arange(300), np.exp(-t), np.exp(-2 * t), visits, [3], [np.ones(3)]) == []


def test_a_path_that_does_not_move_has_no_visits():
    flat = np.ones(50)
    assert find_visits(np.arange(50.0), np.arange(50), flat, flat) == []
    assert find_visits(np.arange(50.0), np.arange(50), 0 * flat, 0 * flat) == []
    assert find_visits(np.zeros(1), np.zeros(1), np.ones(1), np.ones(1)) == []


def test_round_off_at_a_minimum_or_at_a_saddle_is_not_a_chain_of_visits():
    rng = np.random.default_rng(0)
    t, _, cost, g = plateaus([3.0, 3.0])
    steps = np.arange(t.size + 500)
    noise = 1e-16 * 10.0 ** rng.uniform(-2, 0, 500)
    tail = t[-1] + np.arange(1.0, 501.0)
    costs = np.concatenate([cost - cost[-1] + 1e-30, noise**2])
    assert len(find_visits(np.concatenate([t, tail]), steps, costs, np.concatenate([g, noise]))) == 3
    still = np.full(500, cost[0]) * (1 + 1e-16 * rng.standard_normal(500))
    costs, times = np.concatenate([still, cost]), np.concatenate([np.arange(-500.0, 0), t])
    assert len(find_visits(times, steps, costs, np.concatenate([noise, g]))) == 3


@pytest.mark.parametrize("count", [15, 40, 400])
def test_transition_time_is_interpolated_between_records(count):
    # log‖∇𝓛‖ of a logistic burst is −2 log cosh, exactly known, sampled at uneven times that miss its maximum.
    centre = 3.3
    t = np.sort(np.random.default_rng(count).uniform(0, 6.6, count))
    g = 1 / np.cosh(2 * (t - centre)) ** 2
    cost = 1 - np.tanh(2 * (t - centre)) + 1e-3
    visits = find_visits(t, np.arange(count), cost, g)
    assert [v.index for v in visits] == [0, count - 1]
    [(index, when)] = transition_times(t, g, visits)
    gap = np.diff(t)[max(index - 2, 0) : index + 2].max()
    assert abs(when - centre) <= max(0.25 * gap, 1e-3)


def test_rows_tell_dwell_times_and_costs():
    t, step, cost, g = plateaus([3.0, 2.0, 4.0])
    visits = find_visits(t, step, cost, g)
    spectra = [np.array([float(k), 0.0]) for k in range(3)]
    rows = rank_transitions(t, step, g, cost, visits, [0, 1, 2], spectra)
    assert [(r.from_rank, r.to_rank) for r in rows] == [(0, 1), (1, 2)]
    assert rows[1].dwell == pytest.approx(rows[1].time - rows[0].time)
    assert rows[0].dwell == rows[0].time
    assert rows[0].cost_before == cost[visits[0].index] and rows[1].cost_after == cost[visits[2].index]
    assert rows[1].singular_values == [2.0, 0.0] and rows[0].prominence == visits[0].prominence


def test_the_keeper_of_a_stream_holds_every_visit_that_is_found_afterwards():
    rng = np.random.default_rng(1)
    for _ in range(20):
        t, step, cost, g = plateaus(list(rng.uniform(0.2, 4, 4)), records=500)
        part = slice(int(rng.integers(0, 100)), 500 - int(rng.integers(0, 100)))
        keeper = WeightKeeper(0.25)
        for i, norm in enumerate(g[part]):
            keeper.feed(i, norm, lambda i=i: [np.array([i])])
        kept = keeper.finish()
        assert all(i == w[0][0] for i, w in kept)
        found = find_visits(t[part], step[part], cost[part], g[part], min_prominence=0.3)
        assert {v.index for v in found} <= {i for i, _ in kept}
        assert len(kept) <= 6


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda p: (p[0][:-1], *p[1:]), "one number per record"),
        (lambda p: (p[0][::-1], *p[1:]), "backwards"),
        (lambda p: (*p[:3], np.where(p[1] == 7, np.nan, p[3])), "gradient_norm"),
    ],
)
def test_bad_paths_are_refused_with_a_reason(change, word):
    with pytest.raises(InputError, match=word):
        find_visits(*change(plateaus([3.0])))
    with pytest.raises(InputError, match="min-prominence"):
        find_visits(*plateaus([3.0]), min_prominence=-1.0)


@given(arrays(float, st.integers(2, 60), elements=st.integers(-4, 4).map(float)), st.sampled_from([0.5, 1.0, 2.5]))
def test_peaks_and_prominences_are_those_of_scipy(values, least):
    """Ties and plateaus included: the numbers are few."""
    found, prominence = peaks(values, least)
    expected, properties = find_peaks(values, prominence=least)
    assert found.tolist() == expected.tolist() and prominence.tolist() == properties["prominences"].tolist()


def test_peaks_of_a_long_noisy_sequence_are_those_of_scipy():
    values = np.cumsum(np.random.default_rng(0).normal(size=20_000))
    found, prominence = peaks(values, 1.0)
    expected, properties = find_peaks(values, prominence=1.0)
    assert found.tolist() == expected.tolist() and prominence.tolist() == properties["prominences"].tolist()

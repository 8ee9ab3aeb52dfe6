"""Exponents and crossings on synthetic data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from dlnphase.backend import resolve_backend
from dlnphase.costs.tasks import planted_task
from dlnphase.distances import Exponent, crossing_point, crossings, distance_to_saddle, fit_exponent, measured_regime
from dlnphase.distances.predictions import minimum_exponent, predicted_regime, saddle_exponent
from dlnphase.distances.representation import choose
from dlnphase.networks.representation import initial_network
from dlnphase.networks.sampling import sigma_of

CPU = resolve_backend("cpu")
WIDTHS = (10**2, 10**4, 10**6, 10**9)


def _power_law(rng: np.random.Generator, slope: float, noise: float, seeds: int = 8) -> list[np.ndarray]:
    return [3.0 * w**slope * np.exp(noise * rng.standard_normal(seeds)) for w in WIDTHS]


def test_an_exact_power_law_is_recovered_exactly():
    rng = np.random.default_rng(0)
    fit = fit_exponent(WIDTHS, _power_law(rng, -0.3, 0.0), predicted=-0.3)
    assert fit.slope == pytest.approx(-0.3, abs=1e-12)
    assert fit.ci95 == pytest.approx((-0.3, -0.3), abs=1e-9)
    assert [part.slope for part in fit.local] == pytest.approx([-0.3] * 3, abs=1e-12)
    assert fit.verdict == "agrees"


@pytest.mark.parametrize("seeds", [4, 8, 16])
@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_intervals_cover_the_truth(seeds, shared):
    """Of 1000 synthetic sweeps, 92 to 98 % of the intervals hold the true slope, however much the widths share their
    draws."""
    rng = np.random.default_rng(seeds)
    hits = 0
    for _ in range(1000):
        common = rng.standard_normal(seeds)
        noise = [np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.standard_normal(seeds) for _ in WIDTHS]
        values = [3.0 * w**0.15 * np.exp(0.05 * w**-0.1 * n) for w, n in zip(WIDTHS, noise, strict=True)]
        low, high = fit_exponent(WIDTHS, values).ci95
        hits += low <= 0.15 <= high
    assert 920 <= hits <= 980


def test_intervals_cover_the_truth_of_measured_distances():
    """Distances of 200 draws to the nearest saddle, of which 4 or 8 at a time are looked at: the truth is that of all
    of them."""
    cost = planted_task("factorization", (2, 2), (3.0, 1.5), CPU).cost
    values = []
    for width in (20, 200, 2000):
        held = choose(2, width, cost, CPU, seed=0, member=0)
        network = initial_network(held, 2, width, cost.shape, sigma_of(width, 0.7), CPU, members=tuple(range(200)))
        values.append(distance_to_saddle(network, cost, max_steps=10).distance.numpy())
    truth = fit_exponent((20, 200, 2000), values).slope
    for seeds in (4, 8):
        hits = 0
        for k in range(400):
            picked = np.random.default_rng([k, seeds]).choice(200, seeds, replace=False)
            low, high = fit_exponent((20, 200, 2000), [v[picked] for v in values]).ci95
            hits += low <= truth <= high
        assert 0.92 <= hits / 400 <= 0.98


def test_narrow_widths_weigh_less():
    """What the narrowest network is off by hardly moves the slope: a width weighs √w."""
    rng = np.random.default_rng(1)
    values = _power_law(rng, 0.1, 1e-3)
    values[0] = 3.0 * WIDTHS[0] ** 0.1 * np.exp(0.3 + 0.1 * rng.standard_normal(8))
    assert fit_exponent(WIDTHS, values).slope == pytest.approx(0.1, abs=1e-3)


def test_a_power_law_that_has_not_set_in_is_named():
    rng = np.random.default_rng(2)
    drifting = [2.0 * (1 - 0.9 * w**-0.05) * (1 + 1e-4 * rng.standard_normal(8)) for w in WIDTHS]
    fit = fit_exponent(WIDTHS, drifting, predicted=0.0)
    assert fit.verdict == "drifts"
    slopes = [part.slope for part in fit.local]
    assert slopes[0] > slopes[1] > slopes[2] > 0
    assert fit.local[0].widths == (100, 10_000)
    wrong = [w**0.2 * (1 + 1e-4 * rng.standard_normal(8)) for w in WIDTHS]
    assert fit_exponent(WIDTHS, wrong, predicted=0.0).verdict == "differs"
    assert fit_exponent(WIDTHS, wrong).verdict == "open"


def test_one_seed_gives_a_slope_without_interval():
    rng = np.random.default_rng(3)
    fit = fit_exponent(WIDTHS, _power_law(rng, 0.4, 0.0, seeds=1))
    assert fit.slope == pytest.approx(0.4)
    assert fit.ci95 is None
    assert fit.local[0].ci95 is None


def test_a_single_width_has_no_exponent():
    with pytest.raises(ValueError, match="two widths"):
        fit_exponent((100,), [np.ones(3)])


def test_theoretical_exponents():
    assert minimum_exponent(0.7, 3) == pytest.approx(-0.3)
    assert minimum_exponent(0.75, 4) == pytest.approx(-0.375)
    assert minimum_exponent(0.5, 3) == pytest.approx(-0.25)
    assert minimum_exponent(1.0, 3) == minimum_exponent(2.0, 3) == 0
    assert saddle_exponent(0.7) == pytest.approx(0.15)
    assert saddle_exponent(2.0) == pytest.approx(-0.5)
    assert [predicted_regime(g) for g in (0.9, 1.0, 1.1)] == ["lazy", "mean-field", "saddle-to-saddle"]


def test_the_regime_is_told_from_the_slopes():
    def exponent(slope: float) -> Exponent:
        return Exponent(slope, None, None, (), "open")

    assert measured_regime(exponent(-0.3), exponent(0.15)) == "lazy"
    assert measured_regime(exponent(0.001), exponent(0.0)) == "mean-field"
    assert measured_regime(exponent(0.0), exponent(-0.25)) == "saddle-to-saddle"


# ---- crossing --------------------------------------------------------------------------------------------


def _log_ratio(gamma: float, width: float, critical: float) -> float:
    """log(d_m/d_s) in the limit, L = 3, with its kink at the critical γ."""
    slope = 1.5 if gamma < critical else 0.5
    return slope * (gamma - critical) * np.log(width)


@pytest.mark.parametrize("critical", [1.0, 1.03, 0.97])
@pytest.mark.parametrize("grid", [np.arange(0.7, 1.31, 0.1), np.arange(0.75, 1.31, 0.1)])
def test_crossing_of_kinked_curves(critical, grid):
    """Exact on straight curves, whether or not the critical γ is on the grid, as long as the kink is known to be
    there."""
    difference = np.array([_log_ratio(g, 1e9, critical) - _log_ratio(g, 1e6, critical) for g in grid])
    estimate, bracket = crossing_point(grid, difference)
    assert estimate == pytest.approx(critical, abs=0.011)
    assert bracket[0] - 1e-12 <= critical <= bracket[1] + 1e-12


@pytest.mark.parametrize("round_", [0.01, 0.05, 0.2])
def test_the_bracket_holds_where_any_curve_that_bends_downwards_crosses(round_):
    """Rounded kinks, crossings anywhere between the grid points: the bracket holds every one of 200."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        grid = np.sort(rng.uniform(0.6, 1.5, 5))
        kink, level = rng.uniform(0.8, 1.2), rng.uniform(-0.3, 0.3)

        def curve(g, kink=kink, level=level):
            return level + (g - kink) - 0.5 * np.sqrt((g - kink) ** 2 + round_**2)

        found = crossing_point(grid, curve(grid))
        if found is None:
            continue
        assert curve(found[1][0]) <= 1e-12 and curve(found[1][1]) >= -1e-12


def test_curves_that_do_not_cross():
    assert crossing_point(np.array([0.5, 0.7, 0.9]), np.array([-3.0, -2.0, -1.0])) is None
    assert crossing_point(np.array([1.1, 1.5]), np.array([1.0, 2.0])) is None


def test_two_gammas_tell_no_crossing():
    """Between 0.5 and 1.5 the curves cross, but a straight line across the bend says 1.25."""
    gammas = (0.5, 1.5)
    ratio = {(g, w): np.full(4, _log_ratio(g, w, 1.0)) for g in gammas for w in (10**4, 10**6)}
    assert crossings(gammas, (10**4, 10**6), ratio) == []
    more = {(g, w): np.full(4, _log_ratio(g, w, 1.0)) for g in (0.3, *gammas) for w in (10**4, 10**6)}
    (found,) = crossings((0.3, *gammas), (10**4, 10**6), more)
    assert found.bracket == pytest.approx((1.0, 1.25))
    assert found.ci95 == pytest.approx((1.0, 1.25))


@pytest.mark.parametrize("seeds", [4, 8, 16])
@pytest.mark.parametrize("first", [0.7, 0.76])
def test_crossings_have_intervals_that_cover_the_truth(seeds, first):
    """Of 200 sweeps at least 92 % hold the critical γ: more than 95 % may, as the interval holds the bracket too."""
    gammas, widths = [round(first + 0.1 * k, 2) for k in range(8)], [10**4, 10**6]
    hits = 0
    for k in range(200):
        rng = np.random.default_rng([k, seeds])
        noise = {w: 0.05 * rng.standard_normal(seeds) for w in widths}  # the same draws for every γ
        ratio = {(g, w): _log_ratio(g, w, 1.0) + noise[w] for g in gammas for w in widths}
        (found,) = crossings(gammas, widths, ratio)
        hits += found.ci95[0] <= 1.0 <= found.ci95[1]
    assert hits >= 184


def test_crossings_with_missing_cells_use_what_is_there():
    gammas, widths = [0.8, 0.9, 1.0, 1.1], [10**3, 10**6]
    ratio = {(g, w): np.full(3, _log_ratio(g, w, 0.95)) for g in gammas for w in widths}
    del ratio[0.8, 10**6]
    (found,) = crossings(gammas, widths, ratio)
    assert found.widths == (10**3, 10**6)
    assert 0.9 < found.estimate < 1.0
    assert crossings(gammas, [10**3], ratio) == []

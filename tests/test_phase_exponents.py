"""Exponents and crossings on synthetic data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from dlnphase.distances import Exponent, crossing_point, crossings, fit_exponent, measured_regime
from dlnphase.distances.predictions import minimum_exponent, predicted_regime, saddle_exponent

WIDTHS = (10**2, 10**4, 10**6, 10**9)


def _power_law(rng: np.random.Generator, slope: float, noise: float, seeds: int = 8) -> list[np.ndarray]:
    return [3.0 * w**slope * np.exp(noise * rng.standard_normal(seeds)) for w in WIDTHS]


def test_an_exact_power_law_is_recovered_exactly():
    rng = np.random.default_rng(0)
    fit = fit_exponent(WIDTHS, _power_law(rng, -0.3, 0.0), rng, predicted=-0.3)
    assert fit.slope == pytest.approx(-0.3, abs=1e-12)
    assert fit.ci95 == pytest.approx((-0.3, -0.3), abs=1e-9)
    assert [part.slope for part in fit.local] == pytest.approx([-0.3] * 3, abs=1e-12)
    assert fit.verdict == "agrees"


def test_intervals_cover_the_truth():
    """Of 400 synthetic sweeps 95 % of the intervals should hold the true slope; at least 88 % must (8 seeds)."""
    hits = 0
    for k in range(400):
        rng = np.random.default_rng(k)
        low, high = fit_exponent(WIDTHS, _power_law(rng, 0.15, 0.05), rng).ci95
        hits += low <= 0.15 <= high
    assert 0.88 <= hits / 400 <= 0.99


def test_noisy_widths_weigh_less():
    """One width with a hundred times the spread, and off the line by chance: the others decide."""
    rng = np.random.default_rng(1)
    values = _power_law(rng, 0.1, 1e-3)
    values[0] = 3.0 * WIDTHS[0] ** 0.1 * np.exp(0.3 + 0.1 * rng.standard_normal(8))
    assert fit_exponent(WIDTHS, values, rng).slope == pytest.approx(0.1, abs=1e-3)


def test_a_power_law_that_has_not_set_in_is_named():
    rng = np.random.default_rng(2)
    drifting = [2.0 * (1 - 0.9 * w**-0.05) * (1 + 1e-4 * rng.standard_normal(8)) for w in WIDTHS]
    fit = fit_exponent(WIDTHS, drifting, rng, predicted=0.0)
    assert fit.verdict == "drifts"
    slopes = [part.slope for part in fit.local]
    assert slopes[0] > slopes[1] > slopes[2] > 0
    assert fit.local[0].widths == (100, 10_000)
    wrong = [w**0.2 * (1 + 1e-4 * rng.standard_normal(8)) for w in WIDTHS]
    assert fit_exponent(WIDTHS, wrong, rng, predicted=0.0).verdict == "differs"
    assert fit_exponent(WIDTHS, wrong, rng).verdict == "open"


def test_one_seed_gives_a_slope_without_interval():
    rng = np.random.default_rng(3)
    fit = fit_exponent(WIDTHS, _power_law(rng, 0.4, 0.0, seeds=1), rng)
    assert fit.slope == pytest.approx(0.4)
    assert fit.ci95 is None
    assert fit.local[0].ci95 is None


def test_a_single_width_has_no_exponent():
    with pytest.raises(ValueError, match="two widths"):
        fit_exponent((100,), [np.ones(3)], np.random.default_rng(0))


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
    assert crossing_point(grid, difference) == pytest.approx(critical, abs=0.011)


def test_curves_that_do_not_cross():
    assert crossing_point(np.array([0.5, 0.7, 0.9]), np.array([-3.0, -2.0, -1.0])) is None
    assert crossing_point(np.array([1.1, 1.5]), np.array([1.0, 2.0])) is None


def test_crossings_have_intervals_that_cover_the_truth():
    gammas, widths = [round(0.7 + 0.1 * k, 1) for k in range(8)], [10**4, 10**6, 10**9]
    hits = total = 0
    for k in range(30):
        rng = np.random.default_rng(k)
        noise = {w: 0.05 * rng.standard_normal(8) for w in widths}  # the same draws for every γ
        ratio = {(g, w): _log_ratio(g, w, 1.0) + noise[w] for g in gammas for w in widths}
        for found in crossings(gammas, widths, ratio, rng):
            total += 1
            hits += found.ci95[0] <= 1.0 <= found.ci95[1]
            assert found.estimate == pytest.approx(1.0, abs=0.03)
    assert total == 60
    assert hits >= 50


def test_crossings_with_missing_cells_use_what_is_there():
    gammas, widths = [0.8, 0.9, 1.0, 1.1], [10**3, 10**6]
    rng = np.random.default_rng(0)
    ratio = {(g, w): np.full(3, _log_ratio(g, w, 0.95)) for g in gammas for w in widths}
    del ratio[0.8, 10**6]
    (found,) = crossings(gammas, widths, ratio, rng)
    assert found.widths == (10**3, 10**6)
    assert 0.9 < found.estimate < 1.0
    assert crossings(gammas, [10**3], ratio, rng) == []

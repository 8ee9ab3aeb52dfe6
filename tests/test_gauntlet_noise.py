"""Noise in the gauntlet: its quadrature against closed forms, faults put in, and a slice of its cases."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import gamma, norm

from gauntlet import jumps, noise
from gauntlet.noise import CLASSES, judge_design
from gauntlet.reference.diffusion import Diffusion


def test_the_stationary_law_of_a_noisy_mode_is_a_gamma_law():
    """du = u(r − u²) dt + √(2D)·u dW: u² has the shape (r − D)/2D and the scale 2D."""
    for r, d in ((1.0, 0.1), (0.7, 0.25)):
        law = Diffusion(
            lambda x, r=r, d=d: r - d - np.exp(2 * x), lambda x, d=d: np.sqrt(2 * d) + 0 * x, np.log(1e-7), np.log(5.0)
        )
        true = gamma((r - d) / (2 * d), scale=2 * d)
        assert law.mean(lambda x: np.exp(2 * x)) == pytest.approx(r - d, rel=1e-6)
        for share in (0.1, 0.5, 0.9):
            assert np.exp(2 * law.quantile(share)) == pytest.approx(true.ppf(share), rel=1e-5)


def test_the_same_law_in_other_coordinates():
    """In u itself: b is not constant."""
    law = Diffusion(lambda u: u * (1 - u * u), lambda u: np.sqrt(0.2) * u, 1e-3, 4.0, 200_001)
    assert law.mean(lambda u: u * u) == pytest.approx(0.9, rel=1e-6)


def test_passages_with_a_drift_and_of_an_ornstein_uhlenbeck_process():
    """(a − x)/v with a constant drift, and for dx = −x dt + √2 dW √(2π)∫ Φ(y) e^(y²/2) dy."""
    walk = Diffusion(lambda x: 0 * x + 2.0, lambda x: 0 * x + 0.5, -20.0, 5.0)
    assert walk.passage(0.0, 3.0) == pytest.approx(1.5, rel=1e-8)
    back = Diffusion(lambda x: 0 * x - 2.0, lambda x: 0 * x + 0.5, -5.0, 20.0)
    assert back.passage(1.03, -1.9) == pytest.approx(2.93 / 2, rel=1e-8)
    y = np.linspace(0.0, 1.5, 20_001)
    true = np.trapezoid(np.sqrt(2 * np.pi) * norm.cdf(y) * np.exp(y * y / 2), y)
    spring = Diffusion(lambda x: -x, lambda x: np.sqrt(2.0) + 0 * x, -9.0, 9.0)
    assert spring.passage(0.0, 1.5) == pytest.approx(true, rel=1e-6)
    assert spring.passage(0.0, -1.5) == pytest.approx(true, rel=1e-6)


QUICK = replace(CLASSES["passage-up"], start=0.1, end=0.4, pace=0.002, members=2000)


@pytest.mark.parametrize(("stronger", "fault"), [(1.0, None), (2.0, "passage")])
def test_a_passage_of_another_noise_is_found(stronger, fault, monkeypatch):
    run = noise.run_mode
    monkeypatch.setattr(noise, "run_mode", lambda d, seed: run(replace(d, strength=stronger * d.strength), seed))
    verdict = judge_design("passage-up:3:0", QUICK, 3)
    assert {f.split(":")[0] for f in verdict.faults} == ({fault} if fault else set()), verdict


@pytest.mark.parametrize(("decay", "fault"), [(0.3, None), (0.35, "stationary")])
def test_a_stationary_law_of_another_decay_is_found(decay, fault, monkeypatch):
    run = noise.run_mode
    monkeypatch.setattr(noise, "run_mode", lambda d, seed: run(replace(d, decay=decay), seed))
    verdict = judge_design("stationary-decay:3:0", replace(CLASSES["stationary-decay"], length=15.0, members=1000), 3)
    assert {f.split(":")[0] for f in verdict.faults} == ({fault} if fault else set()), verdict


LAWS = {
    "law-momentum-decay": {},
    "law-muon-decay": {"steps": 120, "members": 60},
    "law-deep-batches": {"steps": 400, "members": 60},
}


@pytest.mark.parametrize("name", LAWS)
def test_reduced_networks_have_the_law_of_full_ones_under_noise(name):
    verdict = judge_design(f"{name}:1:0", replace(CLASSES[name], **LAWS[name]), 1)
    assert verdict.faults == [], verdict


def test_another_noise_changes_the_law_as_it_is_tested(monkeypatch):
    run = noise.run_law

    def other(design, representation, seed):
        less = replace(design, label_noise=0.5 * design.label_noise) if representation == "krylov" else design
        return run(less, representation, seed)

    monkeypatch.setattr(noise, "run_law", other)
    verdict = judge_design("law-sgd:1:0", replace(CLASSES["law-sgd"], steps=500), 1)
    assert any(fault.startswith("law: ") for fault in verdict.faults), verdict


# ---- jumps of the rank -------------------------------------------------------------------------------


def test_jumps_are_counted_by_where_a_mode_is_lost_and_gained():
    """One start loses a mode and gets it back; another only wavers between the two levels."""
    sizes = np.array([[0.5, 0.5], [0.02, 0.02], [0.005, 0.2], [0.2, 0.02], [0.4, 0.25]])[:, :, None]
    times = np.arange(5.0)
    lost, gained, rank = jumps.jumps(times, sizes, 0.0)
    assert (lost.tolist(), gained.tolist(), rank.tolist()) == ([1, 0], [1, 0], [1, 1])
    lost, gained, rank = jumps.jumps(times, sizes, 2.0)
    assert (lost.tolist(), gained.tolist(), rank.tolist()) == ([0, 0], [1, 0], [0, 1])


@pytest.mark.parametrize(("name", "change"), [("decay", {"steps": 6000}), ("no-decay", {"steps": 3000})])
def test_noise_takes_modes_away_under_weight_decay_alone(name, change):
    verdict = jumps.judge_design(f"{name}:1:0", replace(jumps.CLASSES[name], members=12, **change), 1)
    assert verdict.faults == [], verdict


@pytest.mark.parametrize(("name", "change"), [("decay", {"label_noise": 0.0}), ("no-decay", {"decay": 0.6})])
def test_a_run_without_its_noise_or_with_decay_is_told(name, change):
    """No noise, no jump; and where decay keeps the third mode away, it is missed."""
    verdict = jumps.judge_design(f"{name}:1:0", replace(jumps.CLASSES[name], members=4, steps=3000, **change), 1)
    assert [fault.split(":")[0] for fault in verdict.faults] == ["jumps"], verdict

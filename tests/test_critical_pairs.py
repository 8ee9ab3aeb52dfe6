"""Critical pairs (A, ∇C) of any cost, and theory that is told by an argument of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.costs.tasks import planted_task
from dlnphase.distances import distance_to_minimum, distance_to_saddle, least_rank, predicted_saddle, saddle_claim
from dlnphase.distances.any_saddle import hessian
from dlnphase.distances.conjugate import critical_pairs
from dlnphase.distances.facts import facts_of
from dlnphase.errors import InputError
from dlnphase.networks.chain import Network
from dlnphase.networks.sampling import gaussian_network, hidden_dims, sigma_of
from dlnphase.settings import SweepSettings
from dlnphase.sweep.run import prepare, sweep_gamma
from gauntlet.distances import judge

CPU = resolve_backend("cpu")


def _sensing(shape, values, measurements, data_seed=0) -> QuadraticCost:
    return planted_task("sensing", shape, values, CPU, measurements=measurements, data_seed=data_seed).cost


def _check(pair, cost: QuadraticCost) -> None:
    """The definition, written out on plain arrays."""
    h, target = cost.curvature().numpy(), cost.minimizer.numpy()
    g = (h @ (pair.matrix - target).ravel()).reshape(cost.shape)
    size = np.linalg.norm(g)
    assert np.linalg.norm(g - pair.gradient) < 1e-9 * size
    assert np.linalg.norm(g @ pair.matrix.T) < 1e-9 * size * (np.linalg.norm(pair.matrix) + 1)
    assert np.linalg.norm(g.T @ pair.matrix) < 1e-9 * size * (np.linalg.norm(pair.matrix) + 1)
    assert np.linalg.matrix_rank(g, rtol=1e-7) == pair.rank


@pytest.mark.parametrize(
    "cost",
    [
        _sensing((2, 3), (4.0,), 5),
        _sensing((3, 3), (4.0, 2.0), 4),
        _sensing((5, 5), (4.0,), 12),
        planted_task("completion", (4, 5), (4.0, 2.0), CPU).cost,
        planted_task("completion", (10, 10), (10.0, 6.0, 3.0), CPU).cost,
    ],
    ids=["2x3", "3x3", "5x5", "completion", "completion 10x10"],
)
def test_pairs_are_critical_and_reach_the_least_rank(cost):
    """The least rank is told by a count of dimensions that knows nothing of the search."""
    pairs = critical_pairs(cost)
    for pair in pairs:
        _check(pair, cost)
    assert min(p.rank for p in pairs) == least_rank(cost)[0]


@pytest.mark.parametrize("seed", range(4))
def test_a_cost_that_measures_everything_has_a_saddle_with_one_dead_direction(seed):
    """Oracle: −(uᵀÂv)²/(2⟨uvᵀ, H⁻¹uvᵀ⟩), the conjugate cost at its best strength, minimised by scipy over u and v."""
    rng = np.random.default_rng(seed)
    shape = (3, 4)
    root = rng.standard_normal((12, 12))
    h, target = root @ root.T + 0.3 * np.eye(12), rng.standard_normal(shape)
    cost = QuadraticCost("sensing", "dense", torch.as_tensor(h), torch.as_tensor(target))
    assert least_rank(cost) == (1, True)
    inverse = np.linalg.inv(h)

    def conjugate(z):
        b = np.outer(z[:3], z[3:])
        return -((b * target).sum() ** 2) / (2 * b.ravel() @ inverse @ b.ravel())

    best = min(minimize(conjugate, rng.standard_normal(7)).fun for _ in range(12))
    found = [p for p in critical_pairs(cost) if p.rank == 1]
    for pair in found:
        _check(pair, cost)
    values = [0.5 * p.gradient.ravel() @ inverse @ p.gradient.ravel() + (p.gradient * target).sum() for p in found]
    assert min(values) == pytest.approx(best, rel=1e-6)


def test_too_few_measurements_for_one_dead_direction():
    """10 × 10 from 80 Gaussian measurements: (10 − 1)² > 79, so ∇C never has rank 1; (10 − 2)² < 80, so 2 it is."""
    cost = _sensing((10, 10), (10.0, 6.0, 3.0), 80)
    assert least_rank(cost)[0] == 2
    assert min(m.dead for m in facts_of(cost, 2).saddles) == 2
    assert saddle_claim(cost, 2, 0.5) == "limit"


def test_sensing_below_gamma_1_has_a_nearer_saddle_than_the_origin():
    """A of rank 1 with ∇C of rank 1: √2 nearer than A = 0, at √κ_2·w^¼ = 14.14."""
    settings = {"task": "sensing", "shape": (2, 3), "rank": 1, "measurements": 5, "depth": 2, "seeds": 2, "jobs": 1}
    swept = sweep_gamma(SweepSettings(gammas="0.5", widths="1e4", **settings))
    saddle = swept.cells[0].distance_to_saddle
    assert saddle.mean == pytest.approx(2**0.5 * 10, rel=0.01)
    assert (saddle.predicted, saddle.claim) == (pytest.approx(2**0.5 * 10), "limit")


def test_theory_that_is_a_bound_is_told_as_one(monkeypatch):
    """Where the search finds no saddle of the least rank, the number is a lower bound, and the note says so."""
    cost = _sensing((5, 5), (4.0,), 12)
    assert least_rank(cost) == (2, False)
    assert saddle_claim(cost, 2, 0.5) == "limit"
    found = facts_of(cost, 2)
    fewer = replace(found, saddles=[m for m in found.saddles if m.dead > 2])
    monkeypatch.setattr("dlnphase.distances.predictions.facts_of", lambda *_: fewer)
    assert saddle_claim(cost, 2, 0.5) == "at least"
    assert saddle_claim(cost, 2, 1.5) == "limit"
    assert predicted_saddle(cost, 2, 1e4, 0.5) == pytest.approx((2 * 2) ** 0.5 * 10)


def test_a_planted_minimum_fits_through_narrow_layers():
    """The least-squares matrix of a completion has full rank, but minima of rank 3 fit through a width of 5."""
    swept = sweep_gamma(
        SweepSettings(task="completion", shape=(10, 10), rank=3, gammas="1.0", widths="5", depth=3, seeds=1, jobs=1)
    )
    assert not swept.failed
    assert swept.cells[0].distance_to_minimum.excess < 1e-16


def test_facts_are_found_once():
    cost = planted_task("completion", (4, 5), (4.0, 2.0), CPU).cost
    assert facts_of(cost, 3) is facts_of(cost.to(CPU), 3)
    assert facts_of(cost, 2) is not facts_of(cost, 3)


def test_the_nearest_saddle_of_a_wide_completion_has_one_dead_direction():
    cost = planted_task("completion", (5, 5), (4.0, 2.0), CPU, observed=0.6).cost
    network = gaussian_network(hidden_dims(2, 400, cost.shape), sigma_of(400, 0.5), CPU, members=[0, 1])
    found = distance_to_saddle(network, cost)
    assert float(found.distance.mean()) == pytest.approx(predicted_saddle(cost, 2, 400, 0.5), rel=0.1)
    assert prepare(SweepSettings(task="completion", shape=(5, 5), rank=2)).notes


def test_a_target_known_in_float32_fits_through_as_many_channels_as_it_has_modes():
    """Modes at float32's round-off ask for no width."""
    single = resolve_backend("cpu", "float32")
    cost = planted_task("factorization", (6, 6), (4.0, 2.0), single).cost.to(CPU)
    network = gaussian_network(hidden_dims(2, 3, (6, 6)), sigma_of(3, 1.0), CPU, members=[0])
    found = distance_to_minimum(network, cost)
    assert float(found.excess / found.initial_excess) < 1e-10
    with pytest.raises(InputError, match="a minimum of rank 2 does not fit through a layer of width 1"):
        distance_to_minimum(gaussian_network(hidden_dims(2, 1, (6, 6)), 0.1, CPU, members=[0]), cost)


@pytest.mark.parametrize("kind", ["factorization", "sensing"])
def test_the_hessian_of_the_loss_is_that_of_automatic_differentiation(kind):
    cost = planted_task(kind, (2, 3), (3.0, 1.0), CPU).cost
    network = gaussian_network(hidden_dims(3, 4, (2, 3)), 0.7, CPU, members=[0, 1])
    for member, found in enumerate(hessian(network, cost)):

        def loss(theta):
            return cost.value(Network(theta[None], network.dims).product())[0]

        torch.testing.assert_close(found, torch.autograd.functional.hessian(loss, network.theta[member]))


@pytest.mark.parametrize(
    ("depth", "gamma", "member", "listed"), [(2, 0.7, 0, 2.211), (3, 0.7, 1, 1.416), (3, 1.5, 2, 1.594)]
)
def test_narrow_networks_have_nearer_saddles_of_kinds_that_are_not_listed(monkeypatch, depth, gamma, member, listed):
    """3 × 3 through layers of 3, where the kinds listed alone are 5 to 10 % too far."""
    cost = planted_task("factorization", (3, 3), (4.0, 2.0, 1.0), CPU).cost
    network = gaussian_network(hidden_dims(depth, 3, cost.shape), sigma_of(3, gamma), CPU, members=[member])
    found = distance_to_saddle(network, cost)
    assert found.winner == ["another kind"]
    assert float(found.gradient_norm / found.gradient_scale) < 1e-12
    assert float(found.cost_gradient_norm) > 1e-2
    assert float(found.distance) < 0.96 * listed
    assert float(found.distance) == pytest.approx(float((found.network.theta - network.theta).norm()))
    monkeypatch.setattr("dlnphase.distances.saddle.SMALL", 0)
    assert float(distance_to_saddle(network, cost).distance) == pytest.approx(listed, abs=1e-3)


def test_a_point_that_the_search_left_on_its_way_is_no_critical_matrix():
    """Noisy sensing whose minimum of rank 1 was not reached: what was told as a saddle had a gradient of 0.06."""
    assert judge("noisy:1:9").status == "agrees"


def test_minima_of_a_rank_beside_an_exact_fit_of_that_rank_are_found():
    """Four measurements of a 2 × 2 matrix: a rank-1 matrix fits, and another one nearly does and is a saddle."""
    verdict = judge("scaled:52:6")
    assert verdict.status == "agrees", verdict.faults
    assert verdict.numbers["saddle_above"] < 1e-9

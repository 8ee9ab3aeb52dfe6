"""d_m and d_s: constants and slopes of the theory, certificates, and nothing nearer by any other way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from turns import random_rotations

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import QuadraticCost, factorization, sensing
from dlnphase.costs.tasks import planted_task, regression_task
from dlnphase.critical import find_visits, refine_matrix
from dlnphase.critical.matrix import HostCost
from dlnphase.critical.weights import refine_weights
from dlnphase.distances import (
    completions,
    distance_to_minimum,
    distance_to_saddle,
    minimum_exponent,
    predicted_minimum,
    predicted_saddle,
    saddle_exponent,
)
from dlnphase.distances.critical import critical_matrices
from dlnphase.distances.facts import facts_of
from dlnphase.distances.kinds import saddle_constraint
from dlnphase.distances.nearest import nearest
from dlnphase.distances.representation import choose
from dlnphase.distances.ways import SharedDraws, uniform_ways
from dlnphase.dynamics import gradient_flow
from dlnphase.errors import InputError
from dlnphase.networks.chain import Network
from dlnphase.networks.krylov import sample
from dlnphase.networks.representation import initial_network
from dlnphase.networks.sampling import gaussian_network, hidden_dims, sigma_of
from gauntlet.cases import DISTANCE_CLASSES, case_of
from gauntlet.reference.costs import cost_of
from gauntlet.reference.distances import nearest_minimum

CPU = resolve_backend("cpu")
PAIR = planted_task("factorization", (2, 2), (3.0, 1.5), CPU).cost
FIVE = planted_task("factorization", (5, 5), (4.0, 3.2, 2.4, 1.6, 0.8), CPU).cost


def _full(cost: QuadraticCost, depth: int, width: int, gamma: float, members) -> Network:
    return gaussian_network(hidden_dims(depth, width, cost.shape), sigma_of(width, gamma), CPU, members=members)


def _wide(cost: QuadraticCost, depth: int, width: int, gamma: float, members=(0, 1, 2, 3)) -> Network:
    held = choose(depth, width, cost, CPU, seed=0, member=0)
    return initial_network(held, depth, width, cost.shape, sigma_of(width, gamma), CPU, seed=0, members=tuple(members))


def _certified(found, *, minimum: bool) -> None:
    if minimum:
        assert float((found.excess.abs() / found.initial_excess).max()) < 1e-16
        assert float(found.stationarity.max()) < 1e-5
    else:
        assert float((found.gradient_norm / found.gradient_scale).max()) < 1e-12
        assert float(found.cost_gradient_norm.min()) > 1e-3


# ---- constants and slopes ------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "lazy"), [(2, (0.7, 0.8)), (3, (0.7, 0.8)), (4, (0.8,))])
def test_constants_at_width_1e9(depth, lazy):
    """Within 1 % of theory: d_m for γ = 0.7 (where γ ≥ 1 − 1/L), 0.8 and 2; d_s for γ = 0.7, 0.8, 1.5, 2."""
    cost = PAIR if depth == 4 else FIVE
    for gamma in (0.7, 0.8, 1.5, 2.0):
        network = _wide(cost, depth, 10**9, gamma)
        saddle = distance_to_saddle(network, cost)
        _certified(saddle, minimum=False)
        ratio = float(saddle.distance.mean()) / predicted_saddle(cost, depth, 1e9, gamma)
        assert ratio == pytest.approx(1, abs=0.01), ("saddle", gamma)
        minimum = distance_to_minimum(network, cost)
        _certified(minimum, minimum=True)
        if gamma in (*lazy, 2.0):
            ratio = float((minimum.distance / predicted_minimum(network, cost, 1e9, gamma)).mean())
            assert ratio == pytest.approx(1, abs=0.01), ("minimum", gamma)


@pytest.mark.parametrize("gamma", [0.7, 1.3, 1.6])
def test_slopes_from_1e6_to_1e12_are_those_of_theory(gamma):
    """Within 0.01 for |γ − 1| ≥ 0.3. Singular values of 10 and 6: A_θ0 is then small beside the target at γ = 0.7."""
    cost = planted_task("factorization", (2, 2), (10.0, 6.0), CPU).cost
    widths = np.array([1e6, 1e9, 1e12])
    logs = []
    for width in widths:
        network = _wide(cost, 3, int(width), gamma)
        logs.append(
            [
                float(distance_to_minimum(network, cost).distance.log().mean()),
                float(distance_to_saddle(network, cost).distance.log().mean()),
            ]
        )
    minimum, saddle = np.polyfit(np.log(widths), np.array(logs), 1)[0]
    assert minimum == pytest.approx(minimum_exponent(gamma, 3), abs=0.01)
    assert saddle == pytest.approx(saddle_exponent(gamma), abs=0.01)


def test_below_1_minus_1_over_l_the_start_outgrows_the_target():
    """γ = 0.5 < 1 − 1/3: d_m ∝ w^(−γ/2), as ‖A_θ0‖ grows like w^((L−1−γL)/2)."""
    logs = []
    for width in (10**8, 10**11):
        network = _wide(PAIR, 3, width, 0.5)
        logs.append(float(distance_to_minimum(network, PAIR).distance.log().mean()))
    assert (logs[1] - logs[0]) / np.log(1e3) == pytest.approx(minimum_exponent(0.5, 3), abs=0.01)


@pytest.mark.parametrize("gamma", [0.75, 1.0, 1.5])
def test_full_networks_and_their_krylov_counterparts_have_the_same_distances(gamma):
    for width, members in ((50, range(8)), (150, range(6))):
        full = _full(PAIR, 3, width, gamma, members)
        reduced = sample(3, width, PAIR.shape, sigma_of(width, gamma), 9, CPU, seed=5, members=members)
        for measure in (distance_to_minimum, distance_to_saddle):
            a, b = (measure(n, PAIR).distance for n in (full, reduced))
            spread = float(((a.var() + b.var()) / len(a)).sqrt())
            assert abs(float(a.mean() - b.mean())) < 4 * spread + 2e-3 * float(a.mean()), (width, measure)


@pytest.mark.parametrize(("depth", "width"), [(2, 3000), (3, 600)])
def test_full_networks_beyond_what_dense_algebra_would_take(depth, width):
    """One full draw among the reduced ones; L = 3, w = 3000 was checked so by hand (four minutes)."""
    network = _full(PAIR, depth, width, 1.5, [0])
    reduced = sample(depth, width, PAIR.shape, sigma_of(width, 1.5), 9, CPU, members=range(8))
    for measure in (distance_to_minimum, distance_to_saddle):
        one, many = measure(network, PAIR).distance, measure(reduced, PAIR).distance
        assert abs(float(one[0] - many.mean())) < 4 * float(many.std()) + 2e-3 * float(many.mean())


# ---- nothing is nearer -----------------------------------------------------------------------------------


def _brute_saddle(network: Network, cost: QuadraticCost, starts: int, rng: np.random.Generator) -> float:
    """Least ‖θ − θ_0‖ over critical points that are no minima: a penalty method from random starts, by L-BFGS."""
    origin, dims = network.theta[0], network.dims
    unit = float(network.gradient(cost.gradient(network.product())).norm())
    size = float(origin.norm())
    best = np.inf
    for index in range(starts):
        noise = torch.as_tensor(rng.standard_normal(len(origin))) * size / len(origin) ** 0.5
        x = (origin * rng.uniform(0, 1) if index % 3 == 1 else origin + (0.3 if index % 3 else 1.0) * noise).numpy()
        for weight in (1e1, 1e2, 1e3, 1e4, 1e6, 1e8, 1e10):

            def penalised(z, weight=weight):
                t = torch.tensor(z, requires_grad=True)
                net = Network(t[None], dims)
                g, below, above = cost.gradient(net.product()), net.prefixes(), net.suffixes()
                gradient = sum(((above[k].mT @ g @ below[k].mT) ** 2).sum() for k in range(net.depth))
                value = 0.5 * ((t - origin) ** 2).sum() / size**2 + 0.5 * weight * gradient / unit**2
                value.backward()
                return value.item(), t.grad.numpy()

            x = minimize(penalised, x, jac=True, method="L-BFGS-B", options={"maxiter": 800, "ftol": 1e-15}).x
        point = Network(torch.as_tensor(x)[None], dims)
        g = cost.gradient(point.product())
        if float(g.norm()) > 0.05 and float(point.gradient(g).norm()) < 1e-4 * unit:
            best = min(best, float((point.theta[0] - origin).norm()))
    return best


@pytest.mark.parametrize(
    ("depth", "width", "gamma", "member"),
    [(2, 6, 0.75, 0), (3, 6, 1.5, 0), (3, 6, 1.5, 1), (4, 6, 0.75, 0), (4, 8, 1.0, 1)],
)
def test_brute_force_finds_no_nearer_saddle(depth, width, gamma, member):
    """Includes mixed splits, which win the cells of two dead modes here (5, 11 and 7 % nearer than uniform ones)."""
    network = _full(PAIR, depth, width, gamma, [member])
    found = float(distance_to_saddle(network, PAIR).distance)
    brute = _brute_saddle(network, PAIR, 6, np.random.default_rng(0))
    assert np.isfinite(brute)
    assert found <= brute * 1.01


@pytest.mark.parametrize(("depth", "gamma"), [(2, 1.5), (3, 0.75), (3, 2.0), (4, 1.0)])
def test_brute_force_finds_no_nearer_minimum(depth, gamma):
    """scipy's SLSQP on ½‖θ − θ_0‖² subject to A_θ = A*, from twelve random starts."""
    network = _full(PAIR, depth, 5, gamma, [0])
    origin, dims = network.theta[0], network.dims
    target = PAIR.minimizer.numpy().ravel()

    def gap(z):
        return Network(torch.as_tensor(z)[None], dims).product().numpy().ravel() - target

    def slope(z):
        net = Network(torch.as_tensor(z)[None].expand(4, -1), dims)
        return net.gradient(torch.eye(4, dtype=torch.float64).view(4, 2, 2)).numpy()

    rng = np.random.default_rng(1)
    best = np.inf
    for _ in range(12):
        start = origin.numpy() + rng.standard_normal(len(origin))
        done = minimize(
            lambda z: 0.5 * np.sum((z - origin.numpy()) ** 2),
            start,
            jac=lambda z: z - origin.numpy(),
            constraints={"type": "eq", "fun": gap, "jac": slope},
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-12},
        )
        if np.abs(gap(done.x)).max() < 1e-6:
            best = min(best, float(np.linalg.norm(done.x - origin.numpy())))
    found = distance_to_minimum(network, PAIR)
    _certified(found, minimum=True)
    assert np.isfinite(best)
    assert float(found.distance) <= best * (1 + 1e-5)


def test_brute_force_finds_no_nearer_minimum_where_the_alignment_has_several_maxima():
    """Four layers whose frames, aligned from either end, stop 5 % further away than others do."""
    case = case_of("four-layers:1:7", DISTANCE_CLASSES)
    target = case.data["target"]
    network = Network.from_weights([torch.as_tensor(w) for w in case.layers])
    found = distance_to_minimum(network, factorization(target, CPU))
    brute = nearest_minimum(case.layers, cost_of("factorization", {"target": target}), np.random.default_rng(0), 8)
    assert float(found.distance) <= brute * (1 + 1e-6) and brute < 3.1
    assert found.winner == ["balanced(least squares, drawn)"]


@pytest.mark.parametrize("gamma", [0.8, 1.2, 2.0])
def test_flow_ends_no_nearer_and_visits_no_nearer_saddle(gamma):
    """d_m ≤ distance to where gradient flow ends; d_s ≤ ‖θ_0‖ and ≤ the distance to any saddle the flow visits."""
    cost = planted_task("factorization", (3, 3), (4.0, 2.0, 1.0), CPU).cost
    network = _full(cost, 3, 40, gamma, [0])
    origin = network.theta[0].numpy()
    minimum, saddle = distance_to_minimum(network, cost), distance_to_saddle(network, cost)
    rows, layers = [], []
    for record in gradient_flow(network.clone(), cost, tol=1e-20):
        rows.append((record.time[0], record.step[0], record.excess[0], record.gradient_norm[0]))
        layers.append(record.weights(0))
    end = np.concatenate([w.ravel() for w in layers[-1]])
    assert float(minimum.distance) <= float(np.linalg.norm(end - origin)) * (1 + 1e-6)
    assert float(saddle.distance) <= float(network.theta.norm())
    host, seen = HostCost(cost), 0
    for visit in find_visits(*np.array(rows).T):
        weights = layers[visit.index]
        point = refine_matrix(weights[2] @ weights[1] @ weights[0], cost)
        if point.rank == 3:
            continue
        for critical in refine_weights(weights, point, host):
            seen += 1
            theta = np.concatenate([w.ravel() for w in critical.weights])
            assert float(saddle.distance) <= float(np.linalg.norm(theta - origin)) * 1.001
    assert seen >= (4 if gamma == 2.0 else 0)


@pytest.mark.parametrize("gamma", [0.75, 1.0, 1.5])
def test_distances_do_not_see_hidden_rotations(gamma):
    network = _full(FIVE, 3, 12, gamma, [0, 1])
    turned = network.rotate(random_rotations(network.dims, CPU, seed=3))
    for measure in (distance_to_minimum, distance_to_saddle):
        torch.testing.assert_close(measure(turned, FIVE).distance, measure(network, FIVE).distance, rtol=1e-5, atol=0)


def test_members_are_measured_independently():
    network = _full(FIVE, 3, 30, 0.9, [0, 1, 2])
    for measure in (distance_to_minimum, distance_to_saddle):
        together = measure(network, FIVE).distance
        alone = torch.cat([measure(network.select([i]), FIVE).distance for i in range(3)])
        torch.testing.assert_close(together, alone, rtol=2e-3, atol=0)


# ---- other costs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["completion", "sensing", "regression"])
@pytest.mark.parametrize("gamma", [0.75, 1.5])
def test_every_cost_has_its_certificates_and_constants(kind, gamma):
    noise = 0.3 if kind == "regression" else 0.0
    cost = planted_task(kind, (4, 5), (4.0, 2.0), CPU, noise=noise).cost
    network = _wide(cost, 2, 10**9, gamma, (0, 1))
    minimum, saddle = distance_to_minimum(network, cost), distance_to_saddle(network, cost)
    _certified(minimum, minimum=True)
    _certified(saddle, minimum=False)
    assert float(saddle.distance.mean()) == pytest.approx(predicted_saddle(cost, 2, 1e9, gamma), rel=0.01)
    predicted = predicted_minimum(network, cost, 1e9, gamma)
    assert float((minimum.distance / predicted).mean()) == pytest.approx(1, abs=0.02)


def test_unmeasured_inputs_are_left_free():
    """Regression whose data spans a plane of three inputs: moving A off that plane costs nothing and is not asked
    for."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((30, 2)) @ rng.standard_normal((2, 3))
    cost = regression_task(x, x @ rng.standard_normal((3, 2)), CPU).cost
    network = _full(cost, 3, 30, 1.0, [0])
    found = distance_to_minimum(network, cost)
    _certified(found, minimum=True)
    unseen = torch.linalg.svd(cost.operator)[2][2]
    free = found.network.product()[0] @ unseen
    assert float((free - cost.minimizer @ unseen).norm()) > 1e-3


def test_digits_regression():
    """Real data: 10 × 64, pixels that are never lit (Σ_xx is singular)."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    cost = regression_task(x / 16, np.eye(10)[y], CPU).cost
    for gamma in (0.7, 2.0):
        network = _wide(cost, 2, 10**9, gamma, (0,))
        minimum, saddle = distance_to_minimum(network, cost), distance_to_saddle(network, cost)
        _certified(minimum, minimum=True)
        _certified(saddle, minimum=False)
        assert float(minimum.distance) == pytest.approx(float(predicted_minimum(network, cost, 1e9, gamma)), rel=0.01)
        assert float(saddle.distance) == pytest.approx(predicted_saddle(cost, 2, 1e9, gamma), rel=0.01)


@pytest.mark.parametrize("kind", ["factorization", "completion", "sensing", "regression"])
def test_critical_matrices_are_critical(kind):
    """G = ∇C(A) has exactly the dead directions, and A vanishes on them."""
    cost = planted_task(kind, (4, 5), (4.0, 2.0, 1.0), CPU, noise=0.2).cost
    matrices = critical_matrices(cost)
    assert len(matrices) >= 3
    for m in matrices:
        g = cost.gradient(m.matrix[None])[0]
        inside = m.left @ (m.left.T @ g @ m.right) @ m.right.T
        assert float((g - inside).norm()) < 1e-10 * float(g.norm()), m.name
        assert int(torch.linalg.matrix_rank(g, rtol=1e-7)) == m.dead, m.name
        assert float((m.left.T @ m.matrix).norm() + (m.matrix @ m.right).norm()) < 1e-12, m.name


def test_a_layer_too_narrow_for_the_minimum_is_refused():
    with pytest.raises(InputError, match="width: a minimum of rank 5 does not fit through a layer of width 3"):
        distance_to_minimum(_full(FIVE, 3, 3, 1.0, [0]), FIVE)


def test_shared_draws_lead_to_the_same_distances():
    """Two γ of the same draws as one batch, whose deaths and alignments are found once: what each finds by itself."""
    cost = planted_task("factorization", (3, 3), (4.0, 2.0, 1.0), CPU).cost
    unit = sample(3, 10**6, (3, 3), 1.0, 9, CPU, members=[0, 1])
    alone = [unit.with_theta(unit.theta * 1e6 ** (-gamma / 2)) for gamma in (0.9, 1.05)]
    batch = unit.with_theta(torch.cat([network.theta for network in alone]))
    for measure in (distance_to_minimum, distance_to_saddle):
        together = measure(batch, cost, draws=[0, 1, 0, 1])
        expected = torch.cat([measure(network, cost).distance for network in alone])
        torch.testing.assert_close(together.distance, expected, rtol=1e-7, atol=0)
        assert together.select(slice(2, 4)).winner == together.winner[2:]


@pytest.mark.parametrize("gamma", [0.8, 1.1, 1.5])
def test_no_saddle_of_a_kind_is_nearer_than_the_bound_that_rules_it_out(gamma):
    cost = planted_task("factorization", (3, 3), (4.0, 2.0, 1.0), CPU).cost
    network = gaussian_network((3, 20, 20, 3), 20 ** (-gamma / 2), CPU, members=[0, 1])
    ways = uniform_ways(network, SharedDraws(network, range(2)), facts_of(cost, 3).saddles)
    assert len(ways) == 2 * len(facts_of(cost, 3).saddles)
    for way in ways:
        found = nearest(network, way.death.network, saddle_constraint(network, [way.matrix] * 2, way.death))
        assert bool((found.distance >= way.bound * (1 - 1e-9)).all())
        if way.is_exact:
            torch.testing.assert_close(found.distance, way.bound, rtol=1e-9, atol=0)


@pytest.mark.parametrize("seed", range(8))
def test_a_planted_matrix_that_fits_a_narrow_network_is_found_by_measurements(seed):
    """Six measurements of a 3 × 4 matrix of rank 1: an exact fit of rank 1 is told from round-off, at width 1 too."""
    rng = np.random.default_rng(seed)
    planted = 9.9 * np.outer(*(x / np.linalg.norm(x) for x in (rng.standard_normal(3), rng.standard_normal(4))))
    operators = rng.standard_normal((6, 3, 4)) / 6**0.5
    cost = sensing(operators, np.einsum("mij,ij->m", operators, planted), CPU)
    network = Network.from_weights([torch.as_tensor(0.1 * rng.standard_normal(s)) for s in ((1, 4), (3, 1))])
    found = distance_to_minimum(network, cost)
    a = found.network.product()[0].numpy()
    assert np.linalg.matrix_rank(a, 1e-9) == 1
    assert np.einsum("mij,ij->m", operators, a - planted) == pytest.approx(0.0, abs=1e-6)


def test_the_sparse_minimiser_has_the_same_bits_at_every_call():
    """Whatever lies in memory that was freed: there a driver of LAPACK looked for its pivots."""
    cost = planted_task("completion", (4, 4), (1.0,), CPU, observed=0.6).cost
    first = completions.reweighted(cost, 4)
    for size in range(1, 25):
        junk = torch.randint(-(2**31), 2**31 - 1, (size,), dtype=torch.int32)
        del junk
        assert torch.equal(completions.reweighted(cost, 4), first)

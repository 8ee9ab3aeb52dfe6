"""How long the flow stays at each plateau, and when each mode is learned."""

import numpy as np
import pytest
import torch
from following import CPU, follow, gaussian, random_target
from problems import (
    loss_gradient,
    orthonormal,
    product,
)
from scipy.integrate import solve_ivp

from dlnphase.costs.quadratic import factorization
from dlnphase.costs.tasks import planted_task
from dlnphase.dynamics import gradient_flow
from dlnphase.networks.chain import Network
from dlnphase.networks.sampling import gaussian_network, hidden_dims


def test_singular_values_are_learned_one_after_the_other():
    """Plateaus at ½Σ_{i>k} s_i² (docs/theory.md, section 5)."""
    values = (7.0, 4.0, 2.0, 1.0)
    cost = factorization(random_target((5, 4), values), CPU)
    for depth, sigma in ((2, 1e-9), (3, 1e-3)):
        network = gaussian(hidden_dims(depth, 8, (5, 4)), sigma)
        records = follow(network, cost, rtol=1e-3)
        assert records[-1].reasons == ["converged"]
        excess, slope = (np.array([getattr(r, n)[0] for r in records]) for n in ("excess", "gradient_norm"))
        for k in range(1, 4):
            plateau = 0.5 * sum(s**2 for s in values[k:])
            near = np.flatnonzero(np.abs(excess / plateau - 1) < 0.25)
            closest = near[slope[near].argmin()]
            assert near[0] < closest < near[-1], "a minimum of the gradient norm inside"
            assert excess[closest] == pytest.approx(plateau, rel=0.01)


# ---- the law of the plateaus ---------------------------------------------------------------------------------


def crossings(network, cost, levels, **options):
    """First time at which the excess of each member falls below each level, shape (B, len(levels)), and the reasons."""
    times = np.full((network.batch, len(levels)), np.nan)
    reasons, before = {}, {}
    for record in gradient_flow(network, cost, **options):
        for i, member in enumerate(record.members):
            time, excess = record.time[i], record.excess[i]
            for j, level in enumerate(levels):
                if np.isnan(times[member, j]) and excess < level:
                    then, high = before[member]
                    times[member, j] = then + (time - then) * (high - level) / (high - excess)
            before[member] = time, excess
            if record.reasons[i]:
                reasons[int(member)] = record.reasons[i]
    return times, [reasons[m] for m in range(network.batch)]


ALPHAS = np.array([1e-2, 1e-5, 1e-8])


@pytest.mark.parametrize("depth", [3, 4])
@pytest.mark.parametrize("task", ["factorization", "completion"])
def test_plateaus_last_alpha_to_the_minus_l_minus_two(task, depth):
    """The same draws at α and smaller: every dwell time scales with α^−(L−2), over 6 and 12 decades of time."""
    cost = planted_task(task, (4, 4), (3.0, 1.5), CPU, observed=0.9).cost
    dims = hidden_dims(depth, 6, (4, 4))
    draws = gaussian(dims, 1 / np.sqrt(6)).theta
    network = Network(torch.cat([draws * a for a in ALPHAS]), dims)
    total = float(cost.excess(torch.zeros(1, 4, 4, dtype=torch.float64)))
    times, reasons = crossings(network, cost, (0.6 * total, 0.02 * total), rtol=1e-3)
    assert reasons == ["converged"] * 3
    constant = times * ALPHAS[:, None] ** (depth - 2)
    np.testing.assert_allclose(constant[1], constant[2], rtol=3e-3)
    np.testing.assert_allclose(constant[0], constant[2], rtol=0.03)


def test_deep_plateaus_are_crossed_in_few_steps_and_last_as_long_as_they_should():
    """1e17 of time and more: no stage may bend A where learned modes hold it (docs/integrator.md)."""
    depth, scales = 8, (2e-3, 1e-3)
    cost = planted_task("completion", (4, 4), (3.0, 1.5), CPU, observed=0.9).cost
    dims = hidden_dims(depth, 6, (4, 4))
    draws = gaussian(dims, 1 / np.sqrt(6)).theta
    total = float(cost.excess(torch.zeros(1, 4, 4, dtype=torch.float64)))
    constants = []
    for scale in scales:
        records = follow(Network(draws * scale, dims), cost, rtol=1e-3)
        assert records[-1].reasons == ["converged"] and records[-1].step[0] < 400
        learned = next(r.time[0] for r in records if r.excess[0] < 0.02 * total)
        constants.append(learned * scale ** (depth - 2))
    assert constants[0] == pytest.approx(constants[1], rel=0.02)


def test_the_law_holds_for_repeated_singular_values():
    cost = factorization(random_target((3, 3), (2.0, 2.0, 0.5)), CPU)
    dims = hidden_dims(3, 6, (3, 3))
    draws = gaussian(dims, 1 / np.sqrt(6), seed=1).theta
    network = Network(torch.cat([draws * a for a in ALPHAS]), dims)
    times, reasons = crossings(network, cost, (3.0, 1.0, 0.06), rtol=1e-3)
    assert reasons == ["converged"] * 3
    constant = times * ALPHAS[:, None]
    np.testing.assert_allclose(constant[1], constant[2], rtol=3e-3)
    np.testing.assert_allclose(constant[0], constant[2], rtol=0.03)


def test_without_alignment_a_second_plateau_is_told_wrong_or_not_at_all():
    """The test above can fail: round-off of the learned mode drives the unlearned one in the frame of the start."""
    cost = planted_task("factorization", (4, 4), (3.0, 1.5), CPU).cost
    network = gaussian(hidden_dims(3, 6, (4, 4)), 1e-8 / np.sqrt(6))
    total = float(cost.excess(torch.zeros(1, 4, 4, dtype=torch.float64)))
    levels = (0.6 * total, 0.02 * total)
    right, _ = crossings(network, cost, levels, rtol=1e-3)
    wrong, reasons = crossings(network, cost, levels, rtol=1e-3, align_frames=False, max_steps=600)
    assert right[0] * 1e-8 == pytest.approx([0.697, 0.847], rel=0.01)
    assert wrong[0, 1] != pytest.approx(right[0, 1], rel=0.05)
    assert reasons != ["converged"], "a wrong time is not printed as if it were right"


# ---- several modes learned before anybody looks ----------------------------------------------------------------


def crossing(records, mode, level):
    """When a singular value of A passes a level, interpolated between records."""
    values = np.array([np.linalg.svd(r.A[0], compute_uv=False)[mode] for r in records])
    i = int(np.argmax(values > level))
    t0, t1 = (records[k].time[0] for k in (i - 1, i))
    return t0 + (t1 - t0) * (level - values[i - 1]) / (values[i] - values[i - 1])


@pytest.mark.parametrize("method", ["auto", "stiff"])
def test_waiting_beside_a_saddle_of_higher_rank_takes_its_time(method):
    """Two learned modes of comparable size: neither stands out alone, and the frame has to be aligned with both."""
    u, v = (orthonormal(np.random.default_rng(k), 4, 4) for k in (1, 2))
    goal = u @ np.diag([8.0, 7.0, 2.0, 1.0]) @ v.T
    start = np.diag(np.array([8.0, 7.0, 0, 0]) ** (1 / 3))
    layers = [start @ v.T, start.copy(), u @ start]
    rng = np.random.default_rng(3)
    layers = [w + 1e-3 * rng.normal(size=(4, 4)) for w in layers]

    def velocity(t, theta):
        ws = list(theta.reshape(3, 4, 4))
        return -np.concatenate([g.ravel() for g in loss_gradient(ws, lambda a: a - goal)])

    def third(t, theta):
        return np.linalg.svd(product(list(theta.reshape(3, 4, 4))), compute_uv=False)[2] - 1.0

    third.terminal = True
    theta = np.concatenate([w.ravel() for w in layers])
    oracle = solve_ivp(velocity, (0, 1e7), theta, "Radau", rtol=1e-8, atol=1e-12, events=third)
    network = Network.from_weights([torch.as_tensor(w) for w in layers])
    records = follow(network, factorization(goal, CPU), method=method)
    assert crossing(records, 2, 1.0) == pytest.approx(oracle.t_events[0][0], rel=2e-3)


def test_three_equal_modes_do_not_hurry_the_fourth():
    """The mild part hands over when all three are learned."""
    cost = planted_task("factorization", (4, 4), (5.0, 5.0, 5.0, 1.0), CPU, data_seed=1).cost
    network = gaussian_network(hidden_dims(3, 30, (4, 4)), 1e-5, CPU)
    tight = crossing(follow(network, cost, rtol=1e-5, method="stiff"), 3, 0.5)
    assert crossing(follow(network, cost), 3, 0.5) == pytest.approx(tight, rel=1e-3)


def test_the_tail_of_a_lazy_run_falls_as_it_should():
    """Stabilised steps may not let fast modes linger: their share of the cost is small, that of the tail is not."""
    cost = planted_task("factorization", (6, 6), (5.0, 4.0, 3.0, 2.0), CPU).cost
    network = gaussian_network(hidden_dims(3, 60, (6, 6)), 60**-0.35, CPU)
    exact = follow(network, cost, rtol=1e-8, method="explicit")
    times = [r.time[0] for r in exact if 1e-7 < r.excess[0] / exact[0].excess[0] < 0.5][::5]
    costs = {r.time[0]: r.excess[0] for r in exact}
    for record in follow(network, cost, output_times=times):
        if record.time[0] in times:
            assert record.excess[0] == pytest.approx(costs[record.time[0]], rel=0.15)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_balanced_mode_of_the_wrong_sign_is_left_undecided_by_round_off(seed):
    """W_l = σO_l with det(W_3 W_2 W_1) < 0, of a target with det > 0: no exact flow changes that sign.

    It stays at the saddle of the other modes. Floats of orthogonal matrices are balanced to round-off, which lets it go
    once layers have decayed to √round-off as 1/t: 1e7 and more. Until then the cost is that of the saddle.
    """
    rng = np.random.default_rng(seed)
    turns = [np.linalg.qr(rng.standard_normal((3, 3)))[0] for _ in range(3)]
    turns[0] *= -np.sign(np.linalg.det(turns[2] @ turns[1] @ turns[0]))
    network = Network.from_weights([CPU.tensor(0.5 * o) for o in turns])
    records = list(gradient_flow(network, factorization(np.diag([3.0, 2.0, 1.0]), CPU), max_steps=5000))
    end = records[-1]
    assert end.reasons == ["precision_floor"]
    assert end.time[0] > 1e7 and end.excess[0] == pytest.approx(0.5, abs=1e-6)
    assert np.linalg.svd(end.A[0], compute_uv=False)[2] < 1e-12

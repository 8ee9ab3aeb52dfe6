"""Krylov-reduced networks: which directions they keep, what they are exact for, and how an order is chosen."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import completion, factorization
from dlnphase.costs.tasks import planted_task
from dlnphase.dynamics import gradient_flow
from dlnphase.errors import InputError
from dlnphase.networks.chain import Network
from dlnphase.networks.krylov import project, reduced_dims, sample, truncate, unrevealed_square_norm
from dlnphase.networks.representation import initial_network
from dlnphase.networks.sampling import balanced_network, gaussian_network, hidden_dims
from dlnphase.setup.representation import choose_representation, represent

BACKEND = resolve_backend("cpu")


def gaussian(depth, width, shape, gamma=1.0, members=(0,), seed=0):
    dims = hidden_dims(depth, width, shape)
    return gaussian_network(dims, width ** (-gamma / 2), BACKEND, seed=seed, members=members)


def target(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def taylor(layers, goal, count):
    """Taylor coefficients of A(t) under the flow of ½‖A − goal‖², by power series in NumPy: an oracle of its own."""
    series = [[w] for w in layers]

    def product(x, y, k):
        return sum(x[i] @ y[k - i] for i in range(k + 1))

    def constant(n, k):
        return [np.eye(n)] + [np.zeros((n, n))] * k

    out = []
    for k in range(count):
        below = [constant(layers[0].shape[1], k)]
        for w in series:
            below.append([product(w, below[-1], j) for j in range(k + 1)])
        above = [constant(layers[-1].shape[0], k)]
        for w in reversed(series[1:]):
            above.append([product(above[-1], w, j) for j in range(k + 1)])
        above.reverse()
        slope = [a - goal * (j == 0) for j, a in enumerate(below[-1])]
        out.append(below[-1][k])
        for index, w in enumerate(series):
            right = [sum(slope[i] @ below[index][j - i].T for i in range(j + 1)) for j in range(k + 1)]
            w.append(-sum(above[index][i].T @ right[k - i] for i in range(k + 1)) / (k + 1))
    return out


def flow_oracle(layers, goal, times):
    """A(t) by SciPy's DOP853 on the flow of ½‖A − goal‖²; also the last layers."""
    shapes, cuts = [w.shape for w in layers], np.cumsum([w.size for w in layers])[:-1]

    def unpack(y):
        return [part.reshape(s) for part, s in zip(np.split(y, cuts), shapes, strict=True)]

    def velocity(_, y):
        ws = unpack(y)
        slope = np.linalg.multi_dot(ws[::-1]) - goal
        out = []
        for i in range(len(ws)):
            left = np.linalg.multi_dot([np.eye(goal.shape[0]), *ws[:i:-1], np.eye(ws[i].shape[0])])
            right = np.linalg.multi_dot([np.eye(ws[i].shape[1]), *ws[:i][::-1], np.eye(goal.shape[1])])
            out.append(-(left.T @ slope @ right.T).ravel())
        return np.concatenate(out)

    start = np.concatenate([w.ravel() for w in layers])
    solution = solve_ivp(velocity, (0, times[-1]), start, "DOP853", times, rtol=1e-10, atol=1e-13)
    return np.array([np.linalg.multi_dot(unpack(y)[::-1]) for y in solution.y.T]), unpack(solution.y[:, -1])


def arrays(network, member=0):
    return [w[member].numpy() for w in network.weights]


# ---- what a reduced network is exact for ----------------------------------------------------------


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_order_k_is_exact_for_the_first_2k_minus_1_derivatives(depth, order):
    shape = (2, 3)
    network = gaussian(depth, 90, shape)
    goal, count = target(shape), 2 * order + 3
    full = taylor(arrays(network), goal, count)
    reduced = taylor(arrays(project(network, order).network), goal, count)
    error = [np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in zip(full, reduced, strict=True)]
    assert max(error[: 2 * order]) < 1e-12
    if depth == 2:
        assert max(error) < 1e-12
    else:  # and not for many more: the promise is sharp to within one derivative
        assert error[2 * order + 1] > 1e-9


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_order_one_has_the_product_and_the_ntk(depth):
    network = gaussian(depth, 40, (3, 4), members=(0, 1))
    reduced = project(network, 1).network
    torch.testing.assert_close(reduced.product(), network.product(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(reduced.ntk(), network.ntk(), rtol=1e-12, atol=1e-13)


def test_two_layers_are_exact_at_the_sum_of_the_ends():
    network = gaussian(2, 50, (3, 4))
    projection = project(network, 1)
    assert projection.exact and projection.network.hidden == (7,)
    goal, times = 3 * target((3, 4)), np.linspace(0, 3, 31)
    full, last = flow_oracle(arrays(network), goal, times)
    reduced, reduced_last = flow_oracle(arrays(projection.network), goal, times)
    assert np.abs(full - reduced).max() < 1e-8
    # Projecting where the full flow ends gives where the projected flow ends.
    u = projection.bases[1][0].numpy()
    np.testing.assert_allclose(u.T @ last[0], reduced_last[0], atol=1e-8)
    np.testing.assert_allclose(last[1] @ u, reduced_last[1], atol=1e-8)


def test_projecting_then_flowing_is_flowing_then_projecting():
    network = gaussian(3, 40, (2, 2))
    goal, times = 3 * target((2, 2), 5), np.linspace(0, 2, 41)
    full, last = flow_oracle(arrays(network), goal, times)
    errors, leaks = [], []
    for order in (1, 2, 3, 4):
        projection = project(network, order)
        reduced, reduced_last = flow_oracle(arrays(projection.network), goal, times)
        errors.append(np.abs(full - reduced).max())
        u, v = (b[0].numpy() for b in projection.bases[1:3])
        moved = last[1] - arrays(network)[1]
        leaks.append(np.linalg.norm(moved - v @ (reduced_last[1] - arrays(projection.network)[1]) @ u.T))
    # A is twice as exact as the layers, as in any Galerkin projection: an order gains ≥ 10 here and ≥ 5 there.
    assert all(10 * b < a for a, b in pairwise(errors)), errors
    assert all(5 * b < a for a, b in pairwise(leaks)), leaks


def test_a_space_that_fills_the_width_is_the_full_network():
    network = gaussian(4, 12, (3, 4), members=(0, 1))
    projection = project(network, 3)
    assert projection.exact and projection.network.hidden == (12, 12, 12)
    for full, reduced in zip(network.weights, projection.lift(projection.network), strict=True):
        torch.testing.assert_close(reduced, full, rtol=0, atol=1e-13)
    assert reduced_dims((4, 12, 12, 12, 3), 3) == ((4, 12, 12, 12, 3), True)
    assert sample(4, 12, (3, 4), 0.3, 3, BACKEND).dims == (4, 12, 12, 12, 3)


# ---- bases ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "shape"), [(2, (3, 4)), (3, (3, 4)), (4, (4, 2)), (5, (2, 2))])
def test_bases_are_orthonormal_and_nested(depth, shape):
    network = gaussian(depth, 60, shape, members=(0, 1, 2))
    previous = None
    for order in (1, 2, 3):
        projection = project(network, order)
        assert projection.network.dims == reduced_dims(network.dims, order)[0]
        for u in projection.bases:
            torch.testing.assert_close(u.mT @ u, torch.eye(u.shape[2]).to(u).expand(3, -1, -1), rtol=0, atol=1e-13)
        if previous is not None:
            for u, v in zip(previous.bases, projection.bases, strict=True):
                torch.testing.assert_close(v[:, :, : u.shape[2]], u, rtol=0, atol=1e-12)
            cut = truncate(projection.network, previous.network.dims)
            torch.testing.assert_close(cut.theta, previous.network.theta, rtol=0, atol=1e-12)
        previous = projection


def test_sizes_at_the_default_task_stay_bound_by_call_overhead():
    dims = (10, 10**9, 10**9, 10**9, 10)
    assert [reduced_dims(dims, k)[0][1:-1] for k in (1, 2, 3, 4)] == [
        (20, 20, 20),
        (40, 40, 40),
        (70, 80, 70),
        (120, 140, 120),
    ]


def test_dependent_directions_are_dropped():
    balanced = balanced_network(np.diag([3.0, 2.0, 0.0, 0.0]), (4, 30, 30, 30, 4), BACKEND, rotation_seed=1)
    projection = project(balanced, 4)
    assert projection.exact and max(projection.network.hidden) == 2
    torch.testing.assert_close(projection.network.product(), balanced.product())
    nothing = Network(torch.zeros_like(balanced.theta), balanced.dims)
    assert project(nothing, 2).network.hidden == (1, 1, 1)


def test_members_of_different_rank_share_a_batch():
    low = balanced_network(np.diag([3.0, 0.0, 0.0]), (3, 20, 20, 3), BACKEND, rotation_seed=1)
    high = balanced_network(np.diag([3.0, 2.0, 1.0]), (3, 20, 20, 3), BACKEND, rotation_seed=2)
    both = Network(torch.cat([low.theta, high.theta]), low.dims)
    projection = project(both, 2)
    assert projection.network.hidden == (3, 3)
    for u in projection.bases:
        torch.testing.assert_close(u.mT @ u, torch.eye(3).to(u).expand(2, 3, 3), rtol=0, atol=1e-13)
    torch.testing.assert_close(projection.network.product(), both.product())


# ---- draws ------------------------------------------------------------------------------------------


def test_draws_are_nested_and_members_are_independent_of_each_other():
    arguments = {"depth": 4, "width": 500, "shape": (3, 4), "sigma": 0.05, "backend": BACKEND, "seed": 7}
    batch = sample(order=3, members=range(6), **arguments)
    single = sample(order=3, members=(4,), **arguments)
    assert torch.equal(batch.theta[4:5], single.theta)
    assert not torch.equal(batch.theta[4], batch.theta[3])
    lower = sample(order=2, members=range(6), **arguments)
    torch.testing.assert_close(truncate(batch, lower.dims).theta, lower.theta, rtol=0, atol=1e-14)
    torch.manual_seed(0)
    assert torch.equal(sample(order=3, members=(4,), **arguments).theta, single.theta)
    assert not torch.equal(sample(order=3, members=(4,), **{**arguments, "seed": 8}).theta, single.theta)
    rest = {key: value for key, value in arguments.items() if key != "backend"}
    norms = unrevealed_square_norm(order=3, members=range(6), **rest)
    assert norms[4] == unrevealed_square_norm(order=3, members=(4,), **rest)[0]


def test_width_costs_nothing():
    width, sigma = 10**12, 1e-6
    tracemalloc.start()
    network = sample(4, width, (10, 10), sigma, 3, BACKEND)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20
    assert torch.isfinite(network.theta).all()
    # α = 1: the columns of W_1 have length 1 and are orthogonal up to O(1/√w).
    first = network.weights[0][0]
    torch.testing.assert_close(first.T @ first, torch.eye(10).to(first), rtol=0, atol=1e-4)
    # ‖θ_0‖² = σ²·(2·10w + 2w²), with a relative spread of 1/w.
    rest = unrevealed_square_norm(4, width, (10, 10), sigma, 3)[0]
    expected = sigma**2 * (20.0 * width + 2.0 * float(width) ** 2)
    assert rest + float((network.theta**2).sum()) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"width": 0}, "width"),
        ({"width": 10**12 + 1}, "width"),
        ({"order": 0}, "krylov-order"),
        ({"order": 30}, "krylov-order"),
        ({"depth": 0}, "depth"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, named):
    settings = {"depth": 4, "width": 10**9, "shape": (10, 10), "sigma": 1e-9, "order": 2} | arguments
    with pytest.raises(InputError, match=f"^{named}: "):
        sample(backend=BACKEND, **settings)


# ---- the choice, and its promise --------------------------------------------------------------------


def chosen(depth, width, gamma, **options):
    task = planted_task("completion", (10, 10), (10.0, 6.0, 3.0), BACKEND)
    return choose_representation(depth, width, (10, 10), width ** (-gamma / 2), task.cost, BACKEND, **options)


def test_auto_takes_what_is_cheap_and_good_enough():
    assert chosen(4, 100, 2.0).kind == "full"
    assert chosen(2, 10**9, 2.0).hidden == (20,) and chosen(2, 10**9, 2.0).error == 0.0
    wide = chosen(4, 10**9, 2.0)
    assert (wide.kind, wide.order, wide.hidden, wide.exact) == ("krylov", 3, (70, 80, 70), False)
    assert 1e-4 < wide.error < 5e-3 and "order 3" in wide.in_words()
    coarse = chosen(4, 10**9, 2.0, tolerance=0.1)
    assert coarse.order == 2 and wide.error < coarse.error < 0.1
    lazy = chosen(4, 10**6, 0.75)
    assert max(lazy.hidden) <= 40 and lazy.error < 5e-3


def test_auto_takes_the_full_network_where_orders_are_too_large_to_be_compared():
    """600 × 600 at w = 2500: order 2 would need hidden sizes of 2400, and the full network fits in memory."""
    cost = factorization(np.eye(600), BACKEND)
    assert choose_representation(4, 2500, (600, 600), 0.02, cost, BACKEND).kind == "full"
    cases = ((2500, {"representation": "krylov"}, "expected full"), (10**8, {}, "smaller shape"))
    for width, options, instead in cases:
        with pytest.raises(InputError, match=r"^representation: no reduced network of 600x600") as refused:
            choose_representation(4, width, (600, 600), 0.02, cost, BACKEND, **options)
        assert instead in str(refused.value) and "krylov-order" not in str(refused.value)


def test_the_estimate_holds_in_single_precision_and_where_nothing_can_be_promised():
    single = resolve_backend("cpu", "float32")
    cost = planted_task("completion", (10, 10), (10.0, 6.0, 3.0), single).cost
    # α³ = 1e-27: squares of it are beyond single precision.
    small = choose_representation(4, 10**9, (10, 10), 10**-13.5, cost, single)
    assert small.order == 3 and small.error == pytest.approx(chosen(4, 10**9, 3.0).error, rel=0.05)
    deep = chosen(12, 10**12, 4.0, order=1)
    assert deep.error > 1 and "too coarse" in deep.in_words()


def test_what_is_asked_for_is_done_and_still_estimated():
    asked = chosen(4, 10**9, 2.0, order=4)
    assert (asked.order, asked.hidden) == (4, (120, 140, 120)) and 0 < asked.error < 1e-3
    assert chosen(4, 100, 2.0, representation="krylov").kind == "krylov"
    assert chosen(4, 100, 2.0, order=40).exact
    network = initial_network(asked, 4, 10**9, (10, 10), 1e-9, BACKEND, members=(0, 1))
    assert network.batch == 2 and network.hidden == asked.hidden
    with pytest.raises(InputError, match=r"needs about .* GiB"):
        chosen(4, 10**9, 2.0, representation="full")
    for options in ({"representation": "half"}, {"order": 0}, {"representation": "full", "order": 2}):
        with pytest.raises(InputError):
            chosen(4, 400, 2.0, **options)


def worst_disagreement(full, cost, reduced, radius):
    """Largest over t of the smallest ‖ΔA‖/max‖A‖ over times of the reduced flow within ``radius``·t of t."""
    checked = full[1::3]
    near = np.array([r.time[0] for r in checked])[:, None] * (1 + radius * np.linspace(-1, 1, 9))
    grid = np.unique(near)
    path = gradient_flow(reduced, cost, rtol=1e-4, tol=0, max_time=1.01 * grid[-1], output_times=grid.tolist())
    found = {r.time[0]: r.A[0] for r in path}
    assert set(grid) <= set(found)
    scale, worst = max(np.linalg.norm(r.A[0]) for r in full), 0.0
    for row, record in zip(near, checked, strict=True):  # bursts are as short as the window: look between its points
        spline = CubicSpline(row, [found[t] for t in row])
        between = spline(np.linspace(row[0], row[-1], 4001))
        worst = max(worst, np.linalg.norm(between - record.A[0], axis=(1, 2)).min() / scale)
    return worst


@pytest.mark.parametrize("gamma", [0.75, 1.0, 1.5, 2.0])
def test_the_projection_keeps_its_promise(gamma):
    cost = planted_task("completion", (10, 10), (10.0, 6.0, 3.0), BACKEND).cost
    network = gaussian(4, 400, (10, 10), gamma)
    reduced, how = represent(network, cost, representation="krylov")
    assert not how.exact and how.error <= 5e-3 and max(reduced.hidden) <= 80
    full = list(gradient_flow(network, cost, rtol=1e-4, tol=1e-2))
    assert worst_disagreement(full, cost, reduced, how.error) <= how.error
    # The measure can tell: one order less does not keep that promise.
    assert worst_disagreement(full, cost, project(network, how.order - 1).network, how.error) > how.error


def test_the_pilot_is_right_about_small_networks():
    # Estimated against measured by SciPy, on a path that holds several bursts.
    goal = np.diag([4.0, 2.0, 1.0])
    network = gaussian(3, 60, (3, 3), 1.4)
    times = np.linspace(0, 8, 1601)
    full, _ = flow_oracle(arrays(network), goal, times)
    cost = factorization(goal, BACKEND)
    for order in (1, 2, 3):
        reduced, how = represent(network, cost, order=order)
        spline = CubicSpline(times, flow_oracle(arrays(reduced), goal, times)[0])
        error = 0.0
        for t, a in zip(times[1:-10], full[1:-10], strict=False):
            near = t * np.linspace(1 - how.error, 1 + how.error, 41)
            error = max(error, np.linalg.norm(spline(near) - a, axis=(1, 2)).min() / np.linalg.norm(full[-1]))
        assert error <= how.error, order


def test_a_target_of_zero_and_a_cost_without_slope_need_no_pilot():
    cost = completion(np.zeros((3, 3)), np.eye(3) > 0, BACKEND)
    assert choose_representation(3, 10**6, (3, 3), 1e-3, cost, BACKEND).kind == "krylov"
    flat = Network(torch.zeros((1, 3 * 200 + 200 * 200 + 200 * 3), dtype=torch.float64), (3, 200, 200, 3))
    assert represent(flat, cost, representation="krylov")[0].hidden == (1, 1)

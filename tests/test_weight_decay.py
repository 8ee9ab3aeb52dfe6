"""Weight decay against closed forms, torch.optim, SciPy, automatic differentiation and a convex solver."""

import dataclasses

import numpy as np
import pytest
import torch
from problems import loss_gradient, nuclear_minimum, product, stated_cost
from scipy.integrate import solve_ivp

import dlnphase
from dlnphase.backend import resolve_backend
from dlnphase.cli.app import run
from dlnphase.costs.convex import cross_entropy
from dlnphase.costs.quadratic import completion, factorization, regression
from dlnphase.critical import HostCost, certify, refine_matrix, refine_weights
from dlnphase.critical.certify import rotations
from dlnphase.critical.decay import Decay
from dlnphase.critical.matrix import is_decayed_minimum
from dlnphase.dynamics import gradient_descent, gradient_flow
from dlnphase.dynamics.state import pack, unpack
from dlnphase.errors import InputError
from dlnphase.networks.chain import Network
from dlnphase.networks.sampling import balanced_network, gaussian_network
from dlnphase.plotting.sources import caption_lines, read_sources
from dlnphase.results.train import save_train
from dlnphase.settings import TrainSettings
from dlnphase.training.run import _going, prepare
from dlnphase.training.sentences import train_sentence

CPU = resolve_backend("cpu")


def train(**settings):
    return dlnphase.train(TrainSettings(**settings))


# ---- the flow ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.3, 1.7, 4.0])
def test_a_balanced_mode_of_two_layers_is_logistic(decay):
    """ȧ = 2a(s − λ − a): growth for λ < s, to s − λ, and decay beyond."""
    s, a0, times = 3.0, 0.02, [0.3, 1.0, 2.0, 5.0]
    network = balanced_network(np.diag([a0, 0.0]), (2, 4, 2), CPU)
    cost, k = factorization(np.diag([s, 0.0]), CPU), s - decay
    records = gradient_flow(network, cost, weight_decay=decay, tol=0.0, rtol=1e-7, max_time=5.0, output_times=times)
    found = {float(r.time[0]): float(r.A[0, 0, 0]) for r in records}
    for t in times:
        assert found[t] == pytest.approx(k / (1 + (k / a0 - 1) * np.exp(-2 * k * t)), rel=2e-6)


def test_flow_is_scipys_and_balancedness_decays():
    """Three layers and a completion: layers as of solve_ivp on the plain formulas, D_l ∝ e^(−2λt)."""
    decay, times = 0.4, [0.5, 2.0, 6.0]
    rng = np.random.default_rng(0)
    target, seen = rng.standard_normal((4, 3)) * 2, rng.random((4, 3)) < 0.8
    cost = completion(np.where(seen, target, np.nan), seen, CPU)
    network = gaussian_network((3, 5, 5, 4), 0.4, CPU, seed=1)
    start = [w[0].numpy() for w in network.weights]
    shapes, cuts = [w.shape for w in start], np.cumsum([w.size for w in start])[:-1]

    def layers(y):
        return [part.reshape(shape) for part, shape in zip(np.split(y, cuts), shapes, strict=True)]

    def slope(_, y):
        g = loss_gradient(layers(y), lambda a: np.where(seen, a - target, 0.0))
        return -np.concatenate([x.ravel() for x in g]) - decay * y

    y0 = np.concatenate([w.ravel() for w in start])
    exact = solve_ivp(slope, (0.0, times[-1]), y0, method="DOP853", t_eval=times, rtol=1e-11, atol=1e-13)
    before = [(a.T @ a - b @ b.T) for a, b in zip(start[1:], start[:-1], strict=True)]
    flow = gradient_flow(network, cost, weight_decay=decay, tol=0.0, rtol=1e-7, max_time=times[-1], output_times=times)
    place = {t: k for k, t in enumerate(times)}
    for record in flow:
        t, mine = float(record.time[0]), record.weights(0)
        square = sum(float(np.sum(w**2)) for w in mine)
        assert record.penalty[0] == pytest.approx(0.5 * decay * square, rel=1e-12)
        g = slope(0.0, np.concatenate([w.ravel() for w in mine]))
        assert record.gradient_norm[0] == pytest.approx(np.linalg.norm(g), rel=1e-9)
        for d, a, b in zip(before, mine[1:], mine[:-1], strict=True):
            assert np.abs(a.T @ a - b @ b.T - np.exp(-2 * decay * t) * d).max() < 2e-6 * np.abs(d).max()
        if t in place:
            for w, other in zip(mine, layers(exact.y[:, place[t]]), strict=True):
                assert np.abs(w - other).max() < 2e-6 * np.abs(other).max()


def test_a_start_leaves_the_origin_where_decay_lets_it():
    """A balanced start of size u stays at 0 unless u^(L−2)·s > λ."""
    s, u = 4.0, 0.1
    cost = factorization(np.diag([s, 1.0]), CPU)
    for depth in (3, 4):
        network = balanced_network(np.diag([u**depth, 0.0]), (2, *[3] * (depth - 1), 2), CPU)
        border = u ** (depth - 2) * s
        for share, grows in ((0.98, True), (1.02, False)):
            *_, end = gradient_flow(network, cost, weight_decay=share * border, tol=0.0, max_time=20 / border)
            assert (end.A[0, 0, 0] > 0.5 * s) == grows, (depth, share)


# ---- gradient descent --------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "steps"), [("completion", 1000), ("regression", 200)])
def test_every_step_is_that_of_sgd_with_weight_decay(task, steps):
    """To 1e-12 of the largest weight at every one of them."""
    network = gaussian_network((3, 5, 4), 0.3, CPU, seed=3)
    stated = stated_cost(task, network.shape, CPU)
    design, right = CPU.tensor(stated.design), CPU.tensor(stated.right)
    layers = [w[0].clone().requires_grad_() for w in network.weights]
    optimizer = torch.optim.SGD(layers, lr=0.02, weight_decay=0.3)
    options = {"lr": 0.02, "max_steps": steps, "tol": 0.0, "record_every": 1, "weight_decay": 0.3}
    for record in gradient_descent(network, stated.cost, **options):
        for mine, theirs in zip(record.weights(0), layers, strict=True):
            other = theirs.detach().numpy()
            assert np.abs(mine - other).max() <= 1e-12 * np.abs(other).max()
        optimizer.zero_grad()
        (0.5 * (design @ (layers[1] @ layers[0]).flatten() - right).square().sum()).backward()
        whole = [w.grad + 0.3 * w.detach() for w in layers]
        norm = np.sqrt(sum(float(g.square().sum()) for g in whole))
        assert record.gradient_norm[0] == pytest.approx(norm, rel=1e-8, abs=1e-13)
        square = sum(float(w.detach().square().sum()) for w in layers)
        assert record.penalty[0] == pytest.approx(0.15 * square, rel=1e-12)
        optimizer.step()
    assert record.step[0] == steps


# ---- ends: convex at L = 2 ---------------------------------------------------------------------------


def end_of(result):
    return result.trajectory.A[-1]


@pytest.mark.parametrize("dynamics", ["flow", "gd"])
def test_two_layers_end_at_soft_thresholded_modes(dynamics):
    result = train(
        task="factorization",
        shape=(5, 4),
        singular_values=(4.0, 2.0, 0.5),
        depth=2,
        width=20,
        weight_decay=0.8,
        dynamics=dynamics,
        tol=1e-12,
    )
    s = np.linalg.svd(end_of(result), compute_uv=False)
    assert s == pytest.approx([3.2, 1.2, 0.0, 0.0], abs=1e-5)
    assert (result.outcome.reason, result.outcome.rank, result.outcome.reached) == ("converged", 2, "decayed-minimum")
    assert result.outcome.reachable == pytest.approx(0.8 * 4.4 + 0.5 * (0.8**2 * 2 + 0.25), rel=1e-12)
    assert [m.decayed for m in result.theory.decay.modes] == pytest.approx([3.2, 1.2, 0.0])
    assert [m.measured for m in result.theory.decay.modes] == pytest.approx([3.2, 1.2, 0.0], abs=1e-5)
    assert "converged at" in train_sentence(result) and "to the least C + (λ/2)‖θ‖²" in train_sentence(result)


def test_a_completion_of_two_layers_ends_at_the_least_nuclear_norm():
    settings = TrainSettings(
        shape=(6, 5), singular_values=(5.0, 2.0), observed=0.7, depth=2, width=15, weight_decay=0.5, tol=1e-13
    )
    result = dlnphase.train(settings)
    cost = prepare(settings).task.cost
    mask, target = cost.operator.numpy(), cost.minimizer.numpy()
    a, least = nuclear_minimum(
        lambda x: mask * (x - target), lambda x: 0.5 * np.sum(mask * (x - target) ** 2), (6, 5), 0.5, 1.0
    )
    assert np.abs(end_of(result) - a).max() < 1e-6 * np.abs(a).max()
    assert result.outcome.reachable == pytest.approx(least, rel=1e-9)
    assert result.outcome.cost + result.outcome.penalty == pytest.approx(least, rel=1e-9)
    assert result.outcome.reached == "decayed-minimum"


# ---- ends: several minima at L ≥ 3 -------------------------------------------------------------------


def from_learned(tmp_path, depth, s, decay, **more):
    """A run that starts with one mode of size s learned, two channels wide."""
    layers = [np.zeros((2, 2)) for _ in range(depth)]
    for w in layers:
        w[0, 0] = s ** (1 / depth)
    target = tmp_path / "target.npy"
    np.save(target, np.diag([s, 0.0]))
    np.savez(tmp_path / "start.npz", **{f"W{k}": w for k, w in enumerate(layers, 1)})
    return train(target=str(target), init_weights=str(tmp_path / "start.npz"), weight_decay=decay, **more)


def bisected(low, high, above):
    """Where a property of a number begins to hold, to half a per cent."""
    assert not above(low) and above(high)
    while high > 1.005 * low:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if above(middle) else (middle, high)
    return 0.5 * (low + high)


@pytest.mark.parametrize("depth", [3, 4])
def test_bounds_of_decay_by_bisection_over_runs(depth, tmp_path):
    """λ_max: up to there a learned mode stays; λ_0: up to there it costs less than none. Theory sheet, section 11."""
    s = 3.0
    first = from_learned(tmp_path, depth, s, 0.1).theory.decay.modes[0]

    def gone(decay):
        return from_learned(tmp_path, depth, s, decay).outcome.rank == 0

    def dearer(decay):
        return from_learned(tmp_path, depth, s, decay).outcome.reachable > 0.5 * s**2

    assert bisected(0.9 * first.largest, 1.1 * first.largest, gone) == pytest.approx(first.largest, rel=0.01)
    assert bisected(0.9 * first.pays, 1.1 * first.pays, dearer) == pytest.approx(first.pays, rel=0.01)
    # The formulas once more, from the curve λ(u) = u^(L−2)(s − u^L) and the cost on it, on a fine grid.
    u = np.linspace(1e-3, s ** (1 / depth), 200_001)
    curve = u ** (depth - 2) * (s - u**depth)
    assert first.largest == pytest.approx(curve.max(), rel=1e-8)
    costs = 0.5 * (s - u**depth) ** 2 + 0.5 * curve * depth * u**2
    upper = np.arange(len(u)) > curve.argmax()
    assert first.pays == pytest.approx(curve[upper & (costs < 0.5 * s**2)].max(), rel=1e-4)
    assert first.decayed == pytest.approx(np.interp(0.1, curve[upper][::-1], (u[upper] ** depth)[::-1]), rel=1e-8)


def test_ranks_go_down_where_decay_outweighs_a_mode(tmp_path):
    """Two modes learned, λ above λ_max of the second: the path tells 2 → 1."""
    layers = [np.diag(np.array([5.0, 1.0]) ** (1 / 3)) for _ in range(3)]
    np.save(tmp_path / "target.npy", np.diag([5.0, 1.0]))
    np.savez(tmp_path / "start.npz", **{f"W{k}": w for k, w in enumerate(layers, 1)})
    result = train(target=str(tmp_path / "target.npy"), init_weights=str(tmp_path / "start.npz"), weight_decay=0.8)
    assert [m.largest > 0.8 for m in result.theory.decay.modes] == [True, False]
    assert (result.outcome.rank, result.outcome.reached) == (1, "decayed-minimum")
    assert end_of(result) == pytest.approx(np.diag([result.theory.decay.modes[0].decayed, 0.0]), abs=1e-3)


def test_a_slow_escape_is_never_taken_for_the_end(tmp_path):
    """Beside a local minimum of L = 4, above the barrier by little: what is minimised is within tol of it for long."""
    s, u, depth = 2.0, 5e-2, 4
    layers = [np.diag([1.0, u]) for _ in range(depth)]
    np.save(tmp_path / "target.npy", np.diag([4.0, s]))
    np.savez(tmp_path / "start.npz", **{f"W{k}": w for k, w in enumerate(layers, 1)})
    options = {"target": str(tmp_path / "target.npy"), "init_weights": str(tmp_path / "start.npz"), "tol": 1e-5}
    border = s * u ** (depth - 2)
    assert train(**options, weight_decay=0.9 * border).outcome.rank == 2
    assert train(**options, weight_decay=1.1 * border).outcome.rank == 1


# ---- critical points ---------------------------------------------------------------------------------


def costs():
    rng = np.random.default_rng(4)
    target, seen = 2 * rng.standard_normal((4, 3)), rng.random((4, 3)) < 0.8
    x, y = rng.standard_normal((20, 3)) * [3.0, 1.0, 0.3], rng.integers(0, 4, 20)
    return {
        "factorization": factorization(target, CPU),
        "completion": completion(np.where(seen, target, np.nan), seen, CPU),
        "regression": regression(x, x @ target.T + 0.1 * rng.standard_normal((20, 4)), CPU),
        "cross-entropy": cross_entropy(x, y, CPU, 4),
    }


COSTS = costs()


def dense_hessian(layers, cost, decay):
    """(gradient, Hessian) of C + (λ/2)‖θ‖² by automatic differentiation of the plain product."""
    dims = [w.shape for w in layers]
    sizes = [w.size for w in layers]

    def whole(theta):
        out = None
        for part, shape in zip(theta.split(sizes), dims, strict=True):
            out = part.view(shape) if out is None else part.view(shape) @ out
        return cost.value(out[None])[0] + 0.5 * decay * theta.square().sum()

    theta = torch.as_tensor(np.concatenate([w.ravel() for w in layers]))
    gradient = torch.autograd.functional.jacobian(whole, theta)
    return gradient.numpy(), torch.autograd.functional.hessian(whole, theta).numpy()


def balanced(a, rank, depth, width):
    """Balanced factors with room for further channels."""
    u, s, vt = np.linalg.svd(a)
    root = np.zeros((width, width))
    root[range(rank), range(rank)] = s[:rank] ** (1 / depth)
    left, right = np.zeros((a.shape[0], width)), np.zeros((width, a.shape[1]))
    left[:, :rank], right[:rank] = u[:, :rank] * s[:rank] ** (1 / depth), vt[:rank] * s[:rank, None] ** (1 / depth)
    return [right, *[root] * (depth - 2), left]


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("name", COSTS)
def test_refined_points_are_critical_and_told_by_their_hessian(name, depth):
    """Those of every rank, from ends of short flows: θ_c has no gradient, and its dense Hessian says what it is."""
    cost, decay = COSTS[name], 0.02
    host = HostCost(cost, Decay(decay, depth))
    found = set()
    for seed, size in ((0, 0.9), (1, 0.5)) if depth == 3 else ((0, 0.9),):
        network = gaussian_network((3, *[5] * (depth - 1), 4), size, CPU, seed=seed)
        *_, record = gradient_flow(network, cost, weight_decay=decay, tol=0.0, max_time=20.0)
        for rank in range(4):
            point = refine_matrix(record.A[0], host, rank=rank)
            if point.gradient_norm > 1e-12 or not (np.linalg.svd(point.A)[1][:rank] > 1e-6).all():
                continue
            visited, _ = refine_weights(record.weights(0), dataclasses.replace(point, converged=True), host)
            layers = visited.weights
            gradient, hessian = dense_hessian(layers, cost, decay)
            assert np.abs(gradient).max() < 1e-10
            assert visited.gradient_norm == pytest.approx(np.linalg.norm(gradient) / visited.unit, abs=1e-14)
            square = sum(np.sum(w**2) for w in layers)
            plain = float(cost.excess(torch.as_tensor(product(layers))[None])[0]) + 0.5 * decay * square
            assert host.objective(point.A, np.linalg.svd(point.A)[1][:rank]) == pytest.approx(plain, rel=1e-10)
            values = np.linalg.eigvalsh(hessian)
            minimum = is_decayed_minimum(visited.point, host, 5)
            assert minimum == (values[0] > -1e-8), (rank, values[0])
            certificate = certify(visited, host)
            told = certificate.curvature
            assert certificate.kind in (("local-minimum", "global-minimum") if minimum else ("strict-saddle",))
            assert told.negative_eigenvalues == (values < -1e-8).sum()
            assert told.zero_eigenvalues == (np.abs(values) <= 1e-8).sum() == rotations(rank, (5,) * (depth - 1))
            assert told.min_eigenvalue == pytest.approx(values[0], abs=1e-10)
            found.add((rank, minimum))
    assert any(minimum for _, minimum in found) and len({rank for rank, _ in found}) > 2
    assert depth > 2 or (0, False) in found


def test_the_inner_root_is_a_saddle():
    """One mode, L = 3: of the two roots of λ = u(s − u³) the larger is a minimum, the smaller has one way down."""
    s, decay = 3.0, 1.0
    cost, host = factorization(np.diag([s, 0.0]), CPU), HostCost(factorization(np.diag([s, 0.0]), CPU), Decay(1.0, 3))
    roots = np.roots([1.0, 0.0, 0.0, -s, decay])
    roots = sorted(float(r.real) for r in roots if abs(r.imag) < 1e-12 and r.real > 0)
    assert len(roots) == 2
    for u, minimum in zip(roots, (False, True), strict=True):
        point = refine_matrix(np.diag([u**3 * 1.001, 0.0]), host, rank=1)
        assert point.A[0, 0] == pytest.approx(u**3, rel=1e-10)
        least = np.linalg.eigvalsh(dense_hessian(balanced(point.A, 1, 3, 2), cost, decay)[1])
        assert (least[0] > -1e-9) == minimum == is_decayed_minimum(point, host, 2)
        assert minimum or (least < -1e-9).sum() == 1


# ---- networks that are held reduced -----------------------------------------------------------------


@pytest.mark.parametrize("dynamics", [{"dynamics": "flow", "rtol": 1e-6}, {"dynamics": "gd", "lr": 0.02}])
def test_a_reduced_network_is_the_full_one(dynamics, tmp_path):
    """w = 64, one start, L = 2, where the reduction is exact: costs, penalties, gradients and ends agree."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "start.npz", W1=0.05 * rng.standard_normal((64, 4)), W2=0.05 * rng.standard_normal((5, 64)))
    common = {
        "task": "factorization",
        "shape": (5, 4),
        "singular_values": (4.0, 2.0),
        "weight_decay": 0.5,
        "init_weights": str(tmp_path / "start.npz"),
        **dynamics,
    }
    full, reduced = (train(**common, representation=kind) for kind in ("full", "krylov"))
    assert (full.network.hidden, reduced.network.hidden) == ((64,), (9,))
    assert reduced.outcome.time == pytest.approx(full.outcome.time, rel=1e-3)
    first, last = full.trajectory, reduced.trajectory
    if dynamics["dynamics"] == "gd":
        assert (first.step == last.step).all()
        for name in ("excess", "penalty", "gradient_norm", "A"):
            a, b = getattr(first, name), getattr(last, name)
            assert np.abs(a - b).max() < 1e-10 * np.abs(a).max(), name
    assert last.penalty[0] == pytest.approx(first.penalty[0], rel=1e-12)
    assert last.gradient_norm[0] == pytest.approx(first.gradient_norm[0], rel=1e-12)
    assert end_of(reduced) == pytest.approx(end_of(full), abs=1e-4)
    moved = [r.outcome.evidence.parameter_movement for r in (full, reduced)]
    assert moved[1] == pytest.approx(moved[0], rel=1e-4)


def test_what_no_gradient_reaches_decays(tmp_path):
    """Three layers of w = 40 held at order 1: the full penalty, from the full flow, within what was promised."""
    rng = np.random.default_rng(1)
    shapes = {"W1": (40, 3), "W2": (40, 40), "W3": (3, 40)}
    np.savez(tmp_path / "start.npz", **{k: 40**-0.75 * rng.standard_normal(shape) for k, shape in shapes.items()})
    common = {
        "task": "factorization",
        "shape": (3, 3),
        "singular_values": (3.0, 1.0),
        "weight_decay": 0.1,
        "init_weights": str(tmp_path / "start.npz"),
        "rtol": 1e-5,
    }
    reduction = {"representation": "krylov", "krylov_order": 2}
    full, reduced = (train(**common, **kind) for kind in ({"representation": "full"}, reduction))
    assert reduced.network.hidden[0] < 40
    error = max(reduced.network.truncation_error, 1e-4)
    path, other = full.trajectory, reduced.trajectory
    inner = (path.t > 0) & (path.t < other.t[-1])
    seen = np.interp(path.t[inner], other.t, np.log(other.penalty))
    assert np.abs(seen - np.log(path.penalty[inner])).max() < 10 * error + 2e-2
    assert other.penalty[0] == pytest.approx(path.penalty[0], rel=1e-12)
    for name, result in (("full", full), ("reduced", reduced)):
        (tmp_path / name).mkdir()
        save_train(result, tmp_path / name)
    found = [dlnphase.detect_saddles(str(tmp_path / name)).visits for name in ("full", "reduced")]
    size = np.sqrt(sum(np.sum(w**2) for w in np.load(tmp_path / "start.npz").values()))
    for visits in found:
        assert [v.kind for v in visits] == ["local-minimum", "global-minimum"]
        assert visits[0].distance == pytest.approx(size, rel=1e-9)  # at t = 0, from the origin
    late = [v[-1].distance * np.exp(0.1 * v[-1].time.closest) for v in found]
    assert late[1] == pytest.approx(late[0], rel=0.02)


def test_any_width_ends():
    """w = 1e9: the origin holds a start of α^(L−2)·s_1 < λ, another leaves it."""
    common = {"task": "factorization", "shape": (3, 3), "singular_values": (4.0, 1.5), "depth": 3, "width": 10**9}
    held, left = train(**common, gamma=1.5, weight_decay=0.5), train(**common, gamma=1.05, weight_decay=0.5)
    assert (held.outcome.reason, held.outcome.rank, held.theory.decay.left) == ("converged", 0, False)
    assert held.theory.decay.leaves < 0.5 < left.theory.decay.leaves
    assert (left.outcome.reason, left.outcome.rank, left.theory.decay.left) == ("converged", 2, True)
    sizes = [m.decayed for m in left.theory.decay.modes]
    assert np.linalg.svd(end_of(left))[1][:2] == pytest.approx(sizes, rel=1e-3)
    assert "went to the origin" in train_sentence(held)


def test_a_budget_may_end_at_a_critical_point():
    """Told as that: with decay it may be a minimum."""
    settings = {"task": "factorization", "shape": (3, 3), "singular_values": (4.0, 1.5), "depth": 2, "width": 10}
    result = train(**settings, gamma=6.0, weight_decay=0.5, max_time=1.5)
    assert (result.outcome.reason, result.rank_transitions) == ("max_time", ())
    assert "stayed at a critical point of rank 0" in train_sentence(result)


# ---- a run -------------------------------------------------------------------------------------------


def test_several_starts_are_followed_at_once_and_each_ends_by_itself():
    settings = {"task": "factorization", "shape": (4, 3), "singular_values": (3.0, 1.0), "depth": 3, "width": 10}
    both = train(**settings, gamma=1.2, weight_decay=0.3, seeds=2)
    for k, member in enumerate(both.members):
        alone = train(**settings, gamma=1.2, weight_decay=0.3, seeds=(k, k + 1)).members[0]
        assert alone.outcome == member.outcome
    assert both.outcome.penalty == pytest.approx(np.mean([m.outcome.penalty for m in both.members]))
    assert both.theory.decay.modes[0].measured == pytest.approx(
        np.mean([m.theory.decay.modes[0].measured for m in both.members])
    )


def test_all_that_moves_in_a_run_goes_on_to_the_same_bits():
    """The ends among it: what was found of a minimum is part of the state."""
    settings = TrainSettings(
        task="factorization",
        shape=(3, 3),
        singular_values=(3.0, 1.0),
        depth=3,
        width=12,
        gamma=1.2,
        weight_decay=0.3,
        seeds=2,
    )
    prepared = prepare(settings)

    def follow(going, rounds):
        for records in rounds:
            for record in records:
                going.ends.end(record)
            going.recorder.feed(records)
            yield [(r.members.tolist(), r.time.tolist(), r.penalty.tolist(), list(r.reasons)) for r in records]

    going = _going(prepared)
    told, kept = [], []
    for seen in follow(going, going.walk.rounds()):
        told.append(seen)
        kept.append((pack(going.walk.state()), pack(going.ends.state())))
    ends = [unpack(state, torch.device("cpu"))["_ends"][0] for _, state in kept]
    found = [k for k, end in enumerate(ends) if end["minimum"] is not None]
    assert found and found[0] < len(told) - 2
    for k in (found[0] // 2, found[0] + 1):
        again = _going(prepared)
        again.walk.resume(unpack(kept[k][0], torch.device("cpu")))
        again.ends.resume(unpack(kept[k][1], torch.device("cpu")))
        assert list(follow(again, again.walk.rounds())) == told[k + 1 :]


def test_files_and_tables_hold_it(tmp_path, capsys):
    out = tmp_path / "run"
    options = ["train", "--task", "factorization", "--shape", "4x3", "--rank", "2", "-L", "3", "-w", "10", "-g", "1.2"]
    options += ["--weight-decay", "0.2"]
    assert run([*options, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "Weight decay, λ = 0.2" in shown and "λ_max" in shown
    assert "weight decay 0.2" in shown.splitlines()[0]
    caption = " ".join(caption_lines(read_sources([out])))
    assert "gradient flow, weight decay 0.2" in caption
    result = dlnphase.load(out)
    assert result.config.weight_decay == 0.2 and result.theory.decay.decay == 0.2
    assert result.trajectory.penalty is not None and "penalty" in result.columns()
    assert result.outcome.penalty == result.trajectory.penalty[-1]
    assert run([*options, "--out", str(out), "--resume"]) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--weight-decay", "-0.1"], "weight-decay: found -0.1"),
        (["--weight-decay", "0.1", "--noise-level", "0.1"], "noise-level: found beside --weight-decay"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(options, words, capsys):
    assert run(["train", *options]) == 2
    err = capsys.readouterr().err
    assert words in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "options", [{"tol": 1e-8}, {"tol": 0.0, "method": "stiff"}, {"tol": 0.0, "weight_decay": float("nan")}]
)
def test_a_flow_that_cannot_be_is_refused(options):
    network = Network(torch.ones(1, 8, dtype=torch.float64), (2, 2, 2))
    with pytest.raises(InputError):
        next(gradient_flow(network, factorization(np.eye(2), CPU), **({"weight_decay": 0.1} | options)))


@pytest.mark.parametrize(("depth", "decay", "gamma"), [(3, 0.3, 1.6), (2, 0.3, 2.5)])
def test_minima_that_a_deep_path_passes_are_no_saddles(tmp_path, depth, decay, gamma):
    """As many of the visits as detect-saddles certifies as local minima, from eigenvalues of the whole Hessian."""
    task = {"task": "factorization", "shape": "3x3", "singular_values": "5,2"}
    result = train(**task, depth=depth, width=20, gamma=gamma, weight_decay=decay, threads=1)
    save_train(result, tmp_path)
    visits = dlnphase.detect_saddles(str(tmp_path)).visits
    assert len(visits) > 1 and visits[-1].kind == "global-minimum"
    seen = result.outcome.evidence
    assert seen.saddles_visited == len(visits) - 1
    assert seen.minima_passed == [v.kind for v in visits].count("local-minimum")
    assert seen.minima_passed == (seen.saddles_visited if depth > 2 else 0)
    words = "critical point to critical point, past local minima" if depth > 2 else "saddle to saddle"
    assert words in train_sentence(result)

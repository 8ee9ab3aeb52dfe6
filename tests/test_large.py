"""Large matrices: products instead of dense matrices, the same answers, and no memory that grows like D²."""

import tracemalloc

import numpy as np
import pytest
import torch

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import completion
from dlnphase.costs.tasks import planted_matrix, planted_task
from dlnphase.critical import HostCost, is_stable, refine_matrix, refine_weights, visited, weights
from dlnphase.critical import matrix as refinement
from dlnphase.critical.manifold import Frame, LowRank, top_pair
from dlnphase.critical.steps import MEMORY
from dlnphase.dynamics import stable_step
from dlnphase.dynamics.descent import _cost_top
from dlnphase.dynamics.ends import End
from dlnphase.dynamics.stabilised import Chain, Vector
from dlnphase.dynamics.stabilised_flow import StabilisedFlow
from dlnphase.dynamics.step_control import Limits
from dlnphase.networks.chain import Network
from dlnphase.networks.krylov import sample
from dlnphase.networks.products import balanced, product
from dlnphase.training import modes

CPU = resolve_backend("cpu")


def half_seen(shape, values, share=0.6, seed=0):
    """A planted matrix and the cost of completing it from a share of its entries."""
    target = planted_matrix(shape, values, seed)
    seen = np.random.default_rng(seed + 1).random(shape) < share
    return target, HostCost(completion(target, seen, CPU))


def near(target, rank, size, seed=2):
    noise = np.random.default_rng(seed).standard_normal(target.shape)
    return LowRank.of(target, rank).matrix + size * noise / np.linalg.norm(noise)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_steps_from_products_find_the_points_that_eigenpairs_find(rank, monkeypatch):
    target, host = half_seen((20, 16), (9.0, 5.0, 2.5), share=0.9)
    a = near(refine_matrix(LowRank.of(target, rank).matrix, host, rank=rank).A, rank, 0.1)
    found = {}
    for dense in (10**9, 0):
        monkeypatch.setattr(refinement, "DENSE", dense)
        found[dense] = refine_matrix(a, host)
    for point in found.values():
        assert point.converged and point.rank == rank
    eigenpairs, products = found.values()
    # The minimum is one point, too: 90 % of 320 entries fix a matrix of rank 3, of 99 dimensions.
    assert np.linalg.norm(products.A - eigenpairs.A) < 1e-9 * np.linalg.norm(eigenpairs.A)
    assert products.next_mode == pytest.approx(eigenpairs.next_mode, rel=1e-9)


def test_descent_from_products_finds_what_descent_from_eigenpairs_finds(monkeypatch):
    target, host = half_seen((30, 25), (9.0, 5.0, 2.5))
    a = near(target, 2, 3.0)
    found = []
    for dense in (10**9, 0):
        monkeypatch.setattr(refinement, "DENSE", dense)
        point = refinement._refine_at(a, LowRank.of(a), host, 2, descend=True)
        found.append(point)
        assert point.gradient_norm < 1e-12
    assert np.linalg.norm(found[1].A - found[0].A) < 1e-9 * np.linalg.norm(found[0].A)


def test_products_with_the_hessian_are_second_derivatives_on_the_manifold():
    target, host = half_seen((9, 7), (5.0, 3.0, 1.0), share=0.8)
    point = LowRank.of(near(target, 3, 0.5), 2)
    frame, rng = Frame(point), np.random.default_rng(3)
    x = frame.coordinates(rng.standard_normal((9, 7)))
    assert np.linalg.norm(x) == pytest.approx(np.linalg.norm(frame.ambient(x)))
    assert frame.tangent(x) == pytest.approx(x)
    h = 1e-4  # the closest matrix of rank r is a retraction of second order
    values = [host.excess(frame.moved(t * x).matrix) for t in (-h, 0.0, h)]
    second = (values[0] - 2 * values[1] + values[2]) / h**2
    assert x @ frame.hessian(host, host.flat_gradient(point.matrix), x[None])[0] == pytest.approx(second, rel=1e-6)
    basis = frame.basis()
    assert len(basis) == frame.dimension == 2 * (9 + 7 - 2)
    assert basis @ basis.T == pytest.approx(np.eye(len(basis)), abs=1e-12)
    assert (x @ basis.T) @ basis == pytest.approx(x)


@pytest.mark.parametrize("kind", ["minimum", "saddle"])
def test_stability_is_told_alike_by_products_and_by_eigenpairs(kind, monkeypatch):
    shape, values = (20, 16), (6.0, 3.0, 1.5)
    target = planted_matrix(shape, values, 0)
    host = HostCost(completion(target, np.ones(shape, dtype=bool), CPU))
    u, s, vt = np.linalg.svd(target, full_matrices=False)
    keep = [0, 1] if kind == "minimum" else [0, 2]  # a mode left out that is larger than one kept: it can be swapped in
    point = refine_matrix((u[:, keep] * s[keep]) @ vt[keep], host)
    assert point.converged and point.rank == 2
    for dense in (10**9, 0):
        monkeypatch.setattr(refinement, "DENSE", dense)
        assert is_stable(point, host) == (kind == "minimum")


def test_refinement_of_a_large_matrix_takes_memory_of_its_size():
    shape = (150, 120)
    target, host = half_seen(shape, (9.0, 5.0, 2.5), share=0.3)
    a = near(target, 2, 0.05)  # of full rank: candidate ranks go up to 120, with 18 000 dimensions
    tracemalloc.start()
    point = refine_matrix(a, host)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert point.converged and point.rank == 2
    assert peak < MEMORY + 100 * a.nbytes  # a dense Hessian of rank 120 would take D² numbers, 2.6 GB


def test_the_top_pair_of_a_large_matrix_is_that_of_the_dense_decomposition():
    rng = np.random.default_rng(5)
    g = rng.standard_normal((220, 260)) + 3 * np.outer(rng.standard_normal(220), rng.standard_normal(260))
    u, s, vt = np.linalg.svd(g, full_matrices=False)
    size, left, right = top_pair(g)
    assert size == pytest.approx(s[0], rel=1e-13)
    assert np.outer(left, right) == pytest.approx(np.outer(u[:, 0], vt[0]), abs=1e-9)


def narrow_network(seed=6):
    """Hidden layers narrower than half of both ends, at one end more than at the other."""
    rng = np.random.default_rng(seed)
    return Network.from_weights([torch.as_tensor(rng.standard_normal(s)) for s in ((4, 12), (3, 4), (9, 3))])


def test_a_narrow_chain_knows_its_kernel_as_its_dense_one():
    network = narrow_network()
    target, _ = half_seen((9, 12), (3.0, 2.0))
    cost = completion(target, np.random.default_rng(7).random((9, 12)) < 0.7, CPU)
    chain = Chain(network, cost)
    theta = Vector(chain.array(network.theta[0]), network.dims)
    chain.slope(theta, chain.vectors(1)[1][0], 1.0)
    chain.measure(theta)
    k = network.ntk()[0]
    g = cost.gradient(network.product())[0]
    assert chain.velocity().ravel() == pytest.approx(-(k @ g.flatten()).numpy(), rel=1e-12)
    top = float(torch.linalg.eigvals(k @ cost.curvature()).real.max())
    assert chain.curvature() == pytest.approx(top, rel=0.05)


@pytest.mark.parametrize("layer", [0, 2])
def test_sizes_of_the_ends_of_a_narrow_layer_are_those_of_the_dense_inverse(layer):
    network, floor = narrow_network(), 1e-9
    _, host = half_seen((9, 12), (3.0, 2.0))
    chain = Chain(network, host.cost)
    w = network.weights[layer][0].numpy()
    w = w if layer == 0 else w.T
    end = End.of(chain, w, floor, 1e-300)
    inverse = np.linalg.inv(w.T @ w + floor * np.sum(w**2) * np.eye(w.shape[1]))
    inside = np.random.default_rng(8).standard_normal((w.shape[0], w.shape[0])) @ w
    for change in (inside, inside + np.random.default_rng(9).standard_normal(w.shape)):
        assert end.square(change) == pytest.approx(np.trace(change @ inverse @ change.T), rel=1e-5)
    assert 0 <= end.empty < 1e-6  # what it leaves for its shape alone does not count
    lost = w.copy()
    lost[1] = 0.0
    assert End.of(chain, lost, floor, 1e-300).empty == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("kind", ["factorization", "completion", "sensing", "regression"])
def test_the_curvature_that_sets_an_automatic_step_is_that_of_the_dense_hessian(kind):
    class Bare:
        """The same cost, nothing known of its structure."""

        def __init__(self, cost):
            self.shape, self.apply_curvature = cost.shape, cost.apply_curvature

    cost = planted_task(kind, (6, 5), (3.0, 1.0), CPU).cost
    zero = torch.zeros((1, 6, 5), dtype=torch.float64)
    top = float(torch.linalg.eigvalsh(cost.curvature(zero))[-1])
    assert cost.curvature_bound == pytest.approx(top, rel=1e-12)
    assert _cost_top(Bare(cost), zero, 0) == pytest.approx(top, rel=1e-2)


def test_an_automatic_step_for_a_large_matrix_asks_for_no_dense_hessian():
    """120 × 100: the dense Hessian of the cost has 1.44e8 numbers, more than a gigabyte."""
    _, host = half_seen((120, 100), (9.0, 5.0))
    rng = np.random.default_rng(4)
    network = Network.from_weights([torch.as_tensor(0.1 * rng.standard_normal(s)) for s in ((20, 100), (120, 20))])

    class NoMatrix:
        def __init__(self, cost):
            self._cost = cost

        def __getattr__(self, name):
            assert name != "curvature"
            return getattr(self._cost, name)

    lr, words = stable_step(network, NoMatrix(host.cost))
    assert lr > 0 and "λ_max" in words


def test_a_plateau_quieter_than_round_off_is_handed_over_at_once():
    """Deep networks: ‖∇𝓛‖ on the first plateau is α⁵ = 1e-15, and nothing explicit steps could keep clean."""
    cost = planted_task("factorization", (3, 3), (3.0, 2.0, 1.0), CPU).cost
    network = sample(6, 10**6, (3, 3), 1e-6, 1, CPU, seed=0, members=(0,))
    mild = StabilisedFlow(network, 0, cost, 1e-4, Limits.of(cost, network, 1e-8, None, 10**5, None))
    records = list(mild.run())
    assert mild.handover is not None and records[-1].excess[0] == pytest.approx(2.5, rel=1e-6)
    assert mild.evaluations < 1000  # 3500 more were spent before patience ended


def test_a_large_end_near_no_critical_point_is_told_after_a_few_ranks(monkeypatch):
    target, host = half_seen((12, 10), (9.0, 5.0))
    noise = 0.3 * np.random.default_rng(5).standard_normal(target.shape)
    enough = 2 * host.excess(target + noise)
    tried = []

    def found_nothing(a, host, *, rank):
        tried.append(rank)
        return refinement.judge_matrix(a, np.zeros_like(a), 0, host)

    monkeypatch.setattr(visited, "refine_matrix", found_nothing)
    told = visited._end(target + noise, host, enough)
    of_all = list(tried)
    assert len(of_all) > visited.TRIES and not told.converged
    tried.clear()
    monkeypatch.setattr(visited, "LARGE", 100)
    large = visited._end(target + noise, host, enough)
    assert tried == of_all[: visited.TRIES] and (large.rank, large.converged) == (told.rank, False)


def test_modes_of_large_matrices_are_timed_from_records_alone(monkeypatch):
    """Between two records of a rising mode that is turning, A itself is looked at only where that is cheap."""
    time = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    matrices = np.stack([np.diag([s, 0.1]) for s in (0.001, 0.002, 1.9, 2.0, 2.0)])
    values = np.linalg.svd(matrices, compute_uv=False)
    looked = modes.modes_of(time, values, 1, matrices)[0]
    monkeypatch.setattr(modes, "LARGE", 1)
    alone = modes.modes_of(time, values, 1, matrices)[0]
    assert alone == modes.modes_of(time, values, 1)[0] != looked
    assert 1 < alone.time < 2 and 1 < looked.time < 2


@pytest.mark.parametrize("rank", [1, 2])
def test_the_nearest_critical_weights_need_no_dense_tangent_kernel(monkeypatch, rank):
    """Products with the kernel find the points that its least-squares solution does, where layers are as at a start."""
    target, host = half_seen((7, 9), (9.0, 5.0))
    point = refine_matrix(near(target, rank, 1e-3), host, rank=rank)
    dims, rng = (9, 8, 8, 7), np.random.default_rng(3)
    u, s, vt = np.linalg.svd(point.A)
    frames = [vt[:rank].T, np.eye(8)[:, :rank], np.eye(8)[:, :rank], u[:, :rank]]
    layers = balanced(frames, s[:rank] ** (1 / 3))
    layers = [w + 0.05 * rng.standard_normal((m, n)) for w, n, m in zip(layers, dims[:-1], dims[1:], strict=True)]
    dense = refine_weights(layers, point, host)
    monkeypatch.setattr(weights, "KERNEL", 0)
    monkeypatch.setattr(weights.np, "kron", None)  # not formed
    for found, same in zip(refine_weights(layers, point, host), dense, strict=True):
        assert found.gradient_norm < 1e-12 and found.form == same.form
        assert found.distance == pytest.approx(same.distance, rel=1e-9)
    assert {found.form for found in dense} == {"minimal", "nearest"}


def test_layers_far_from_balanced_reach_a_large_goal_as_near_as_a_dense_solve_does(monkeypatch):
    """Where the first and the last layer say little of the kernel, products with it do not solve it: it is formed."""
    n, rng = 16, np.random.default_rng(3)
    goal, cores = np.diag(np.linspace(2, 1, n)), [rng.standard_normal((n, n)) / n**0.5 + np.eye(n) for _ in range(3)]
    cores.append(goal @ np.linalg.inv(product(cores)))
    cores = [w + 0.1 * np.linalg.norm(w, 2) / 3 * rng.standard_normal((n, n)) / n**0.5 for w in cores]
    moved = []
    for kernel, largest in ((weights.KERNEL, 0), (0, weights.LARGEST_KERNEL), (0, 0)):
        monkeypatch.setattr(weights, "KERNEL", kernel)
        monkeypatch.setattr(weights, "LARGEST_KERNEL", largest)
        reached = weights._refit(cores, goal)
        assert np.abs(product(reached) - goal).max() < 1e-12
        moved.append(np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(reached, cores, strict=True))))
    assert moved[1] == pytest.approx(moved[0], rel=0.01) and moved[2] > 10 * moved[0]

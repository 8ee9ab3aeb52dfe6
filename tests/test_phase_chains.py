"""Constraints on chains of layers against autograd; cheapest deaths against a general search."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from dlnphase.backend import resolve_backend, stream
from dlnphase.costs.quadratic import factorization
from dlnphase.distances.annihilation import bottom_subspace, kill
from dlnphase.distances.chains import Constraint, Term
from dlnphase.distances.critical import CriticalMatrix, critical_matrices
from dlnphase.distances.deaths import Death, gathered
from dlnphase.distances.nearest import nearest
from dlnphase.distances.predictions import kappa
from dlnphase.distances.ways import SharedDraws, mixed_ways
from dlnphase.networks.chain import Network
from dlnphase.networks.krylov import sample
from dlnphase.networks.sampling import gaussian_network

CPU = resolve_backend("cpu")
DIMS = (4, 6, 5, 7, 3)


def _random(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.as_tensor(rng.standard_normal(shape))


def _frame(rng: np.random.Generator, n: int, k: int) -> torch.Tensor:
    return torch.linalg.qr(_random(rng, 2, n, k))[0]


@pytest.fixture
def constraint() -> Constraint:
    """A right chain, a left chain, and a fit on part of the complement, for two members of four layers."""
    rng = stream(0, "search", 7)
    terms = [
        Term((0, 1), False, _frame(rng, 4, 2), None, None, _random(rng, 2, 10)),
        Term((3, 2), True, _frame(rng, 3, 1), None, None, _random(rng, 2, 5)),
        Term((0, 1, 2, 3), False, _frame(rng, 4, 2), _frame(rng, 3, 2).mT, _frame(rng, 4, 3), _random(rng, 2, 3)),
    ]
    return Constraint(terms, torch.ones(2, 3, dtype=torch.float64))


def _value(constraint: Constraint, theta: torch.Tensor) -> torch.Tensor:
    """c(θ) of one member, written out plainly."""
    w = Network(theta[None].expand(2, -1), DIMS).weights
    right = w[1] @ w[0] @ constraint.terms[0].start
    left = (constraint.terms[1].start.mT @ w[3] @ w[2]).mT
    fit = constraint.terms[2].end @ w[3] @ w[2] @ w[1] @ w[0] @ constraint.terms[2].start
    fit = torch.einsum("bdk,bd->bk", constraint.terms[2].basis, fit.flatten(1))
    out = torch.cat([right.flatten(1), left.flatten(1), fit], 1)
    return out - torch.cat([t.target for t in constraint.terms], 1)


def test_derivatives_of_chains_equal_autograd(constraint):
    network = gaussian_network(DIMS, 0.5, CPU, members=[0, 1])
    lin = constraint.at(network)
    rng = stream(1, "search", 7)
    v, multiplier = _random(rng, 2, network.theta.shape[1]), _random(rng, 2, 18)
    for member in range(2):
        theta = network.theta[member].clone().requires_grad_()

        def one(t, member=member):
            return _value(constraint, t)[member]

        jacobian = torch.autograd.functional.jacobian(one, theta)
        hessian = torch.autograd.functional.hessian(lambda t, one=one, m=member: one(t) @ multiplier[m], theta)
        torch.testing.assert_close(lin.value[member], one(theta).detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(lin.jvp(v)[member], jacobian @ v[member], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(lin.vjp(multiplier)[member], jacobian.T @ multiplier[member], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(lin.bend(multiplier)(v)[member], hessian @ v[member], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(lin.gram()[member], jacobian @ jacobian.T, rtol=1e-11, atol=1e-11)


def test_solving_with_the_gram_matrix_dense_and_iterative(constraint, monkeypatch):
    network = gaussian_network(DIMS, 0.5, CPU, members=[0, 1])
    r = _random(stream(2, "search", 7), 2, 18)
    dense = constraint.at(network).solve(r)
    gram = constraint.at(network).gram()
    torch.testing.assert_close(torch.einsum("bij,bj->bi", gram, dense), r, rtol=1e-8, atol=1e-8)
    monkeypatch.setattr("dlnphase.distances.chains.DENSE_LIMIT", 2)
    torch.testing.assert_close(constraint.at(network).solve(r), dense, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "orders", [((0,), (3, 2, 1)), ((0, 1), (3, 2)), ((0, 1, 2), (0,), (3,)), ((0, 1), (0,), (3, 2, 1))]
)
@pytest.mark.parametrize("fitted", [True, False])
def test_solving_by_groups_is_solving_with_the_whole_gram_matrix(orders, fitted):
    """Terms on disjoint layers, on shared ones, in short chains and long ones, starts that are not orthonormal."""
    rng = stream(8, "search", 7)
    terms = []
    for order in orders:
        flip = order[0] == 3
        start = _random(rng, 2, 3 if flip else 4, 2)
        size = DIMS[order[-1]] if flip else DIMS[order[-1] + 1]
        terms.append(Term(order, flip, start, None, None, torch.zeros(2, 2 * size, dtype=torch.float64)))
    if fitted:
        zero = torch.zeros(2, 4, dtype=torch.float64)
        terms.append(Term((0, 1, 2, 3), False, _frame(rng, 4, 2), _frame(rng, 3, 2).mT, None, zero))
    network = gaussian_network(DIMS, 0.5, CPU, members=[0, 1])
    lin = Constraint(terms, torch.ones(2, len(terms), dtype=torch.float64)).at(network)
    r = _random(rng, 2, lin.value.shape[1])
    x = lin.solve(r)
    # some of these chains have more equations than weights to meet them: only what JJᵀ reaches can be asked for
    reached = torch.einsum("bij,bj->bi", lin.gram(), x)
    again = torch.einsum("bij,bj->bi", lin.gram(), lin.solve(reached))
    torch.testing.assert_close(again, reached, rtol=1e-6, atol=1e-6)
    wanted = torch.linalg.pinv(lin.gram(), hermitian=True, rtol=1e-10) @ reached.unsqueeze(2)
    torch.testing.assert_close(lin.vjp(lin.solve(reached)), lin.vjp(wanted.squeeze(2)), rtol=1e-6, atol=1e-6)


def test_terms_that_begin_orthogonally_in_the_one_layer_they_share_do_not_meet():
    """As where some directions die in W_1 and others in W_2W_1: JJᵀ of the two is zero but for round-off."""
    rng = stream(15, "search", 7)
    frame, other = _frame(rng, 4, 3), _frame(rng, 3, 2)
    zero = torch.zeros(2, 20, dtype=torch.float64)
    terms = [
        Term((0,), False, frame[:, :, :1], None, None, zero[:, :6]),
        Term((0, 1), False, frame[:, :, 1:], None, None, zero[:, :10]),
        Term((3, 2), True, other, None, None, zero[:, :10]),
    ]
    network = gaussian_network(DIMS, 0.5, CPU, members=[0, 1])
    lin = Constraint(terms, torch.ones(2, 3, dtype=torch.float64)).at(network)
    assert lin.constraint.layout(4) == ([[0], [1], [2]], [])
    assert lin.constraint.select(torch.tensor([1])).layout(4) == ([[0], [1], [2]], [])
    assert float(lin.gram()[:, :6, 6:].abs().amax()) < 1e-14
    r = lin.jvp(_random(rng, 2, network.theta.shape[1]))
    torch.testing.assert_close(torch.einsum("bij,bj->bi", lin.gram(), lin.solve(r)), r, rtol=1e-9, atol=1e-9)
    terms[1] = Term((0, 1), False, frame[:, :, :2], None, None, zero[:, :10])
    assert Constraint(terms, torch.ones(2, 3, dtype=torch.float64)).layout(4) == ([[0, 1], [2]], [])


def test_repeated_equations_are_solved_in_least_squares():
    """The same equations twice: JJᵀ is singular, its projection is still that of the equations once."""
    rng = stream(3, "search", 7)
    term = Term((0, 1), False, _frame(rng, 4, 2), None, None, torch.zeros(2, 10, dtype=torch.float64))
    network = gaussian_network(DIMS, 0.5, CPU, members=[0, 1])
    once = Constraint([term], torch.ones(2, 1, dtype=torch.float64)).at(network)
    twice = Constraint([term, term], torch.ones(2, 2, dtype=torch.float64)).at(network)
    v = _random(rng, 2, network.theta.shape[1])
    torch.testing.assert_close(twice.project(v), once.project(v), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dead", [False, True])
def test_kill_equations_are_solved_whether_or_not_their_gram_matrix_is_singular(dead, monkeypatch):
    """W_2W_1V = 0 through a narrow layer: JJᵀ is singular once a direction is dead in W_1, and only then."""
    network = gaussian_network((4, 5, 8, 3), 0.5, CPU, members=[0, 1])
    v = _frame(stream(13, "search", 7), 4, 2)
    if dead:
        first = network.weights[0]
        first -= first @ v[:, :, :1] @ v[:, :, :1].mT
    decompositions = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda x: decompositions.append(x.shape[-1]) or eigh(x))
    term = Term((0, 1), False, v, None, None, torch.zeros(2, 16, dtype=torch.float64))
    lin = Constraint([term], torch.ones(2, 1, dtype=torch.float64)).at(network)
    r = lin.jvp(_random(stream(14, "search", 7), 2, network.theta.shape[1]))
    x = lin.solve(r)
    assert (8 in decompositions) == dead
    inverse = torch.linalg.pinv(lin.gram(), hermitian=True, rtol=1e-10)
    assert int(torch.linalg.matrix_rank(lin.gram(), hermitian=True)[0]) == (13 if dead else 16)
    torch.testing.assert_close(lin.vjp(x), lin.vjp((inverse @ r.unsqueeze(2)).squeeze(2)), rtol=1e-8, atol=1e-8)


def test_members_searched_apart_find_what_they_find_together(monkeypatch):
    network = gaussian_network((3, 4, 4, 2), 0.7, CPU, members=range(5))
    eye = torch.eye(3, dtype=torch.float64).expand(5, 3, 3)
    target = _random(stream(6, "search", 7), 1, 6).expand(5, 6)
    constraint = Constraint([Term((0, 1, 2), False, eye, None, None, target)], torch.ones(5, 1, dtype=torch.float64))
    whole = nearest(network, network, constraint)
    batches = []
    monkeypatch.setattr("dlnphase.distances.nearest.CACHED", 2 * network.theta.shape[1])
    select = Network.select
    monkeypatch.setattr(Network, "select", lambda self, m: batches.append(len(m)) or select(self, m))
    apart = nearest(network, network, constraint)
    assert max(batches) == 2
    torch.testing.assert_close(apart.distance, whole.distance, rtol=1e-10, atol=0)


def test_a_member_that_cannot_come_near_enough_is_left_where_it_is(constraint):
    origin = gaussian_network(DIMS, 0.5, CPU, members=[0, 1])
    alone = nearest(origin, origin, constraint)
    limit = torch.stack([alone.distance[0] * 0.5, alone.distance[1] * 1.001])
    found = nearest(origin, origin, constraint, to_beat=limit)
    assert found.steps[0] < alone.steps[0] and found.distance[0] >= alone.distance[0]
    torch.testing.assert_close(found.distance[1], alone.distance[1], rtol=1e-9, atol=0)


def test_nearest_point_of_a_linear_set():
    """c = W_1 V − T is linear in θ, so the distance is the norm of c."""
    network = gaussian_network((3, 4, 2), 1.0, CPU, members=[0])
    v = torch.linalg.qr(_random(stream(4, "search", 7), 1, 3, 2))[0]
    target = _random(stream(5, "search", 7), 1, 8)
    term = Term((0,), False, v, None, None, target)
    found = nearest(network, network, Constraint([term], torch.ones(1, 1, dtype=torch.float64)))
    gap = (network.weights[0] @ v).flatten(1) - target
    torch.testing.assert_close(found.distance, gap.norm(dim=1), rtol=1e-12, atol=0)


# ---- cheapest deaths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_kill_annihilates_and_costs_what_it_says(count):
    layers = [_random(stream(i, "search", 8), 2, *s) for i, s in enumerate([(9, 5), (8, 9), (7, 8)])][:count]
    v = _frame(stream(9, "search", 8), 5, 2)
    done = kill(layers, v)
    image = v
    for layer in done.layers:
        image = layer @ image
    assert float(image.abs().max()) < 1e-12
    moved = sum(((a - b) ** 2).sum((1, 2)) for a, b in zip(done.layers, layers, strict=True))
    torch.testing.assert_close(moved, done.squared, rtol=1e-11, atol=0)


@pytest.mark.parametrize(("count", "directions"), [(2, 1), (2, 2), (3, 1)])
def test_no_search_finds_a_cheaper_kill(count, directions):
    """Free choice of the images Y_1, …, Y_{k−1} by a general-purpose optimiser from many starts."""
    rng = stream(10, "search", 8)
    layers = [np.asarray(_random(rng, 5, 5)) for _ in range(count)]
    v = np.linalg.qr(rng.standard_normal((5, directions)))[0]

    def cost(flat: np.ndarray) -> float:
        images = [v, *flat.reshape(count - 1, 5, directions), np.zeros((5, directions))]
        return sum(
            float(np.sum(((images[j + 1] - layers[j] @ images[j]) @ np.linalg.pinv(images[j])) ** 2))
            for j in range(count)
        )

    best = min(minimize(cost, rng.standard_normal((count - 1) * 5 * directions), method="BFGS").fun for _ in range(12))
    found = float(kill([torch.as_tensor(w)[None] for w in layers], torch.as_tensor(v)[None]).squared)
    assert found <= best * (1 + 1e-5)
    assert found >= best * (1 - 1e-3)


def test_a_kill_in_wide_layers_costs_no_more_than_by_exact_sweeps():
    """Each subspace by a dense eigen-decomposition of its own problem, the others held, 100 times over."""
    rng = stream(14, "search", 8)
    layers = [rng.standard_normal((50, 50)) / 50**0.5 for _ in range(3)]
    v = np.linalg.qr(rng.standard_normal((50, 2)))[0]
    first = np.linalg.qr(layers[0] @ v)[0]
    second = np.linalg.qr(layers[1] @ first)[0]
    for _ in range(100):
        above, below = layers[1] - second @ (second.T @ layers[1]), layers[0] @ v
        first = np.linalg.eigh(above.T @ above - below @ below.T)[1][:, :2]
        below = layers[1] @ first
        second = np.linalg.eigh(layers[2].T @ layers[2] - below @ below.T)[1][:, :2]
    images = (layers[0] @ v, first), (layers[1] @ first, second), (layers[2] @ second, np.zeros((50, 2)))
    exact = sum(float(np.sum((x - frame @ (frame.T @ x)) ** 2)) for x, frame in images)
    tensors = [torch.as_tensor(w)[None] for w in layers]
    assert float(kill(tensors, torch.as_tensor(v)[None]).squared) <= exact * (1 + 5e-3)


def test_large_bottom_subspaces_equal_dense_ones(monkeypatch):
    rng = stream(11, "search", 8)
    above, below = _random(rng, 1, 300, 300) / 300**0.5, _random(rng, 1, 300, 2) / 300**0.5
    dense = bottom_subspace(above, below)
    monkeypatch.setattr("dlnphase.distances.annihilation.DENSE_EIGEN", 10)
    krylov = bottom_subspace(above, below)

    def value(e: torch.Tensor) -> float:
        return float(((above @ e) ** 2).sum() - ((below.mT @ e) ** 2).sum())

    assert value(krylov) == pytest.approx(value(dense), rel=1e-6)


@pytest.mark.parametrize(("count", "limit"), [(1, 1.0), (2, 1 / 2), (3, 1 / 3)])
def test_killing_one_direction_in_k_wide_layers_costs_one_kth(count, limit):
    """σ²w/k as w → ∞; the spread over draws is of order 1/√w, and 16 draws are averaged."""
    w = 100
    rng = stream(12, "search", count)
    v = torch.eye(w, dtype=torch.float64)[None, :, :1].expand(16, w, 1)
    squared = kill([_random(rng, 16, w, w) / w**0.5 for _ in range(count)], v).squared
    mean, sem = float(squared.mean()), float(squared.std() / 16**0.5)
    assert mean == pytest.approx(limit, abs=4 * sem + 1 / w)


@pytest.mark.parametrize("depth", [3, 4])
@pytest.mark.parametrize("width", [30, 10**6])
def test_mixed_splits_are_tried_in_narrow_layers_alone(depth, width):
    """In wide layers every direction costs the same, σ²w(1/k + 1/(L − k)): there a mixed split gains nothing."""
    cost = factorization(np.diag([2.0, 1.0]), CPU)
    matrix = next(m for m in critical_matrices(cost) if m.dead == 2)
    wide = width > 100
    if wide:
        network = sample(depth, width, (2, 2), width**-0.5, 5, CPU, seed=0, members=[0, 1])
    else:
        network = gaussian_network((2, *[width] * (depth - 1), 2), width**-0.5, CPU, members=[0, 1])
    assert bool(mixed_ways(network, matrix)) != wide


def _mixed(width: int, members: list[int]) -> tuple[Network, CriticalMatrix, list[Death]]:
    """Networks of three layers, A = 0, and deaths with 2 of 5 directions on the longer way on the right."""
    cost = factorization(np.diag([4.0, 3.2, 2.4, 1.6, 0.8]), CPU)
    matrix = next(m for m in critical_matrices(cost) if m.dead == 5)
    network = gaussian_network((5, width, width, 5), width**-0.5, CPU, members=members)
    ways = [way for way in mixed_ways(network, matrix) if way[0].right[0].shape[2] == 2]
    (first, every), (second, told) = ways  # the second where it is another than the first: SAME tells them apart
    assert every.all() and torch.equal(told, ((second.squared / first.squared - 1).abs() > 1e-6))
    return network, matrix, [first, second]


def test_no_search_finds_a_cheaper_mixed_death():
    """E, F and which directions take the longer way, all free at once, by autograd and L-BFGS: nothing is left."""
    network, matrix, (_, death) = _mixed(30, [2, 4, 6])  # at 4 and 6 plain sweeps need hundreds
    assert death.network.product().abs().amax() < 1e-12
    for member in range(3):
        w1, w2, w3 = (w[member] for w in network.weights)
        right, left, gamma = matrix.right, matrix.left, matrix.strengths
        _, e, f, _ = (space[member] for space in death.spaces)
        b = right.mT @ death.right[1][member]
        sizes, shapes = [e.numel(), f.numel(), b.numel()], [e.shape, f.shape, b.shape]

        def cost(flat, w1=w1, w2=w2, w3=w3, right=right, left=left, gamma=gamma, sizes=sizes, shapes=shapes):
            flat = torch.tensor(flat, requires_grad=True)
            parts = zip(flat.split(sizes), shapes, strict=True)
            e, f, b = (torch.linalg.qr(part.view(shape))[0] for part, shape in parts)
            p = torch.linalg.qr(b / gamma[:, None])[0]
            longer = torch.eye(5, dtype=b.dtype) - b @ b.mT
            out_e, out_f = (torch.eye(30, dtype=b.dtype) - x @ x.mT for x in (e, f))
            total = ((out_e @ w1 @ right @ longer) ** 2).sum() + ((w1 @ right @ b) ** 2).sum()
            total = total + ((w2 - out_f @ w2 @ out_e) ** 2).sum() + ((out_f @ w3.mT @ left @ p) ** 2).sum()
            total = total + ((w3.mT @ left @ (torch.eye(5, dtype=b.dtype) - p @ p.mT)) ** 2).sum()
            total.backward()
            return float(total.detach()), flat.grad.numpy()

        start = torch.cat([e.flatten(), f.flatten(), b.flatten()]).numpy()
        squared = float(death.squared[member])
        assert cost(start)[0] == pytest.approx(squared, rel=1e-12)
        nudged = start + 1e-4 * stream(16, "search", member).standard_normal(len(start))
        for begin in (start, nudged):
            found = minimize(cost, begin, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-14})
            assert found.fun >= squared * (1 - 1e-8)


def test_a_mixed_death_depends_neither_on_the_others_nor_on_the_scale():
    network, _, together = _mixed(30, [0, 1, 2, 3])
    for member in range(4):
        for whole, alone in zip(together, _mixed(30, [member])[2], strict=True):
            torch.testing.assert_close(alone.squared, whole.squared[[member]], rtol=1e-10, atol=0)
    scaled = network.with_theta(torch.cat([network.theta[:2], 0.3 * network.theta[:2]]))
    draws = SharedDraws(scaled, [7, 9, 7, 9])
    assert (draws.first, draws.rows) == ([0, 1, 0, 1], [0, 1, 0, 1])
    shared = gathered([(together[0], row) for row in draws.rows], draws.factor)
    torch.testing.assert_close(shared.squared[2:], 0.09 * shared.squared[:2], rtol=1e-12, atol=0)
    moved = ((shared.network.theta - scaled.theta) ** 2).sum(1)
    torch.testing.assert_close(moved, shared.squared, rtol=1e-10, atol=0)


def test_kappa_shares_the_layers_evenly():
    assert [kappa(depth) for depth in (2, 3, 4, 5)] == pytest.approx([2, 1.5, 1, 1 / 2 + 1 / 3])
    for depth in range(2, 9):
        assert kappa(depth) == pytest.approx(min(1 / k + 1 / (depth - k) for k in range(1, depth)))

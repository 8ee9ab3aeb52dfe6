"""One step at a time: tableaus, measured orders, and the linear solve of the stiff method."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from problems import TASKS, aligned_problem, stated_cost
from tolerances import assert_equal

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.dynamics.framed_cost import FramedCost
from dlnphase.dynamics.sizes import inverse_sizes, scaled_norm
from dlnphase.dynamics.span import Span
from dlnphase.dynamics.steppers import dormand_prince, rosenbrock
from dlnphase.dynamics.steppers.stiff_solver import Point, StiffSolver
from dlnphase.networks.chain import Network
from dlnphase.networks.sampling import gaussian_network

CPU = resolve_backend("cpu")


# ---- tableaus ------------------------------------------------------------------------------------------


def rosenbrock_tableau():
    """(α, Γ, b, b̂) of the method in its k_i form, from the transformed coefficients that the kernel uses."""
    inverse = np.eye(4) / rosenbrock.GAMMA - rosenbrock.C
    gammas = np.linalg.inv(inverse)
    b = rosenbrock.M @ gammas
    return rosenbrock.A @ gammas, gammas, b, b - rosenbrock.E @ gammas


def test_the_rosenbrock_tableau_is_one_of_order_three_for_any_matrix_in_place_of_the_jacobian():
    alpha, gammas, b, _ = rosenbrock_tableau()
    a, g = alpha.sum(1), gammas.sum(1)
    assert np.triu(alpha).max() == pytest.approx(0.0, abs=1e-15)
    np.testing.assert_allclose(np.diag(gammas), rosenbrock.GAMMA, rtol=1e-14)
    conditions = {
        "τ1": (b.sum(), 1),
        "τ2 α": (b @ a, 1 / 2),
        "τ2 γ": (b @ g, 0),
        "τ3 αα": (b @ a**2, 1 / 3),
        "τ3 α(α)": (b @ alpha @ a, 1 / 6),
        "τ3 α(γ)": (b @ alpha @ g, 0),
        "τ3 γ(α)": (b @ gammas @ a, 0),
        "τ3 γ(γ)": (b @ gammas @ g, 0),
    }
    for name, (found, expected) in conditions.items():
        assert found == pytest.approx(expected, abs=1e-14), name


def test_its_embedded_method_is_of_order_two_for_any_matrix():
    alpha, gammas, _, embedded = rosenbrock_tableau()
    assert embedded.sum() == pytest.approx(1, abs=1e-14)
    assert embedded @ alpha.sum(1) == pytest.approx(1 / 2, abs=1e-14)
    assert embedded @ gammas.sum(1) == pytest.approx(0, abs=1e-14)
    assert abs(embedded @ alpha.sum(1) ** 2 - 1 / 3) > 1e-3, "of order three the estimate would say nothing"
    assert rosenbrock.ORDER == 3 and rosenbrock.EMBEDDED_ORDER == 2


def test_it_is_stiffly_accurate_and_stable_at_infinity():
    alpha, gammas, b, embedded = rosenbrock_tableau()
    np.testing.assert_allclose(b, (alpha + gammas)[-1], atol=1e-14)
    assert alpha[-1].sum() == pytest.approx(1, abs=1e-14)
    beta = alpha + gammas
    at_infinity = 1 - b @ np.linalg.solve(beta, np.ones(4))
    assert at_infinity == pytest.approx(0, abs=1e-13)
    assert abs(1 - embedded @ np.linalg.solve(beta, np.ones(4))) < 1
    for z in (*-np.logspace(-3, 8, 200), *(1j * np.logspace(-3, 8, 200))):
        assert abs(1 + z * b @ np.linalg.solve(np.eye(4) - z * beta, np.ones(4))) <= 1 + 1e-12


# Rooted trees up to order five as nested tuples of their subtrees.
LEAF = ()
TREES = [
    LEAF,
    (LEAF,),
    *((LEAF,) * 2, ((LEAF,),)),
    *((LEAF,) * 3, (LEAF, (LEAF,)), ((LEAF,) * 2,), (((LEAF,),),)),
    *((LEAF,) * 4, (LEAF, LEAF, (LEAF,)), (LEAF, (LEAF, LEAF)), (LEAF, ((LEAF,),)), ((LEAF,), (LEAF,))),
    *(((LEAF,) * 3,), ((LEAF, (LEAF,)),), (((LEAF, LEAF),),), ((((LEAF,),),),)),
]


def order_of(tree):
    return 1 + sum(order_of(t) for t in tree)


def density(tree):
    return order_of(tree) * int(np.prod([density(t) for t in tree], initial=1))


def weight(tree, a):
    out = np.ones(len(a))
    for t in tree:
        out = out * (a @ weight(t, a))
    return out


def test_the_dormand_prince_tableau_meets_all_order_conditions():
    assert sorted(order_of(t) for t in TREES) == [1, 2, 3, 3, *[4] * 4, *[5] * 9]
    a = np.zeros((7, 7))
    for i, row in enumerate(dormand_prince.A):
        a[i, : len(row)] = row
    b = a[-1]
    embedded = b - np.array(dormand_prince.E)
    for tree in TREES:
        assert b @ weight(tree, a) == pytest.approx(1 / density(tree), abs=1e-15), tree
    defects = {n: max(abs(embedded @ weight(t, a) - 1 / density(t)) for t in TREES if order_of(t) == n) for n in (4, 5)}
    assert max(abs(embedded @ weight(t, a) - 1 / density(t)) for t in TREES if order_of(t) <= 4) < 1e-15
    assert defects[5] > 1e-4, "of order five the estimate would say nothing"
    assert (dormand_prince.ORDER, dormand_prince.EMBEDDED_ORDER, dormand_prince.STAGES) == (5, 4, 7)


# ---- measured order ---------------------------------------------------------------------------------------


def integrate(method, network, cost, span, steps, learned=None, framed=None):
    """A after fixed steps, and the largest error estimate."""
    framed = framed or FramedCost(cost, network.batch, network.theta)
    h = torch.full((network.batch,), span / steps, dtype=network.theta.dtype)
    largest = 0.0
    for _ in range(steps):
        scales = inverse_sizes(network)
        theta, error = method.step(Point(network, framed, learned), framed, h, scales, exact=True)
        network = network.with_theta(theta)
        largest = max(largest, float(error))
    return network.product()[0].numpy(), largest


def slope(counts, errors):
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("method", [rosenbrock, dormand_prince], ids=["rosenbrock", "dormand_prince"])
def test_measured_order_on_exact_problems(task, depth, method):
    problem = aligned_problem(task, depth, CPU, start=(0.3, 0.2, 0.1))
    span = 2.0
    counts = np.array([96, 192] if method is rosenbrock else [40, 80])
    runs = [integrate(method, problem.network, problem.cost, span, n) for n in counts]
    errors = [np.linalg.norm(a - problem.exact(span)) for a, _ in runs]
    assert errors[-1] > 1e-12, "round-off, not order"
    assert slope(counts, errors) == pytest.approx(method.ORDER, abs=0.3)
    # The estimate is the local error of the embedded method.
    assert slope(counts, [e for _, e in runs]) == pytest.approx(method.EMBEDDED_ORDER + 1, abs=0.3)


class WrongCurvature(FramedCost):
    """Right gradients, and a curvature that has nothing to do with them where a linear system is solved."""

    wrong: torch.Tensor

    def apply(self, v, a):
        return (self.wrong @ v.flatten(1).unsqueeze(-1)).view(v.shape)

    def times(self, k, a):
        return self.wrong @ k


@pytest.mark.parametrize("depth", [2, 4, 5])
@pytest.mark.parametrize("what", ["curvature", "bend", "both"])
def test_the_order_survives_any_matrix_in_place_of_the_jacobian(depth, what):
    problem = aligned_problem("sensing", depth, CPU, start=(0.3, 0.2, 0.1))
    learned = None
    if what != "curvature":
        learned = torch.tensor([[True, True, False]]), torch.tensor([[True, True, False]])
    framed: FramedCost = WrongCurvature(problem.cost, 1, problem.network.theta)
    if what == "bend":
        framed = FramedCost(problem.cost, 1, problem.network.theta)
    wrong = np.random.default_rng(0).standard_normal((20, 20))
    if isinstance(framed, WrongCurvature):
        framed.wrong = torch.as_tensor(wrong @ wrong.T / 20)
    counts = np.array([64, 128])
    exact = problem.exact(1.0)
    runs = [integrate(rosenbrock, problem.network, problem.cost, 1.0, n, learned, framed)[0] for n in counts]
    errors = [np.linalg.norm(a - exact) for a in runs]
    right, _ = integrate(rosenbrock, problem.network, problem.cost, 1.0, 64)
    assert np.abs(runs[0] - right).max() > 1e-9, "the wrong matrix was not used"
    assert slope(counts, errors) == pytest.approx(3, abs=0.3)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dims", [(3, 2), (3, 4, 2), (2, 4, 3, 4), (3, 2, 4, 3, 5)])
def test_a_stiff_step_is_that_of_the_textbook(task, dims):
    """(I + hγ𝓗) k_i = f(θ + h Σ_j α_ij k_j) − h𝓗 Σ_j γ_ij k_j with dense matrices, θ' = θ + h Σ_i b_i k_i."""
    network = gaussian_network(dims, 0.7, CPU, members=range(2))
    cost = stated_cost(task, network.shape, CPU).cost
    alpha, gammas, b, embedded = rosenbrock_tableau()
    framed = FramedCost(cost, 2, network.theta)
    sizes = torch.tensor([0.05, 3.0], dtype=torch.float64)
    scales = inverse_sizes(network)
    found, error = rosenbrock.step(Point(network, framed), framed, sizes, scales, exact=True)
    _, cheap = rosenbrock.step(Point(network, framed), framed, sizes, scales, exact=False)
    for member, h in enumerate(sizes.tolist()):
        one = network.select([member])
        j = jacobian(one)
        hessian = j.T @ cost.curvature().numpy() @ j
        theta = one.theta[0].numpy()
        k = np.zeros((4, theta.size))
        for i in range(4):
            at = one.with_theta(CPU.tensor(theta + h * alpha[i] @ k).unsqueeze(0))
            slope_here = -at.gradient(cost.gradient(at.product()))[0].numpy()
            right = slope_here - h * hessian @ (gammas[i, :i] @ k[:i])
            k[i] = np.linalg.solve(np.eye(theta.size) + h * rosenbrock.GAMMA * hessian, right)
        assert_equal(found[member], theta + h * b @ k, factor=10)
        difference = CPU.tensor(h * (b - embedded) @ k).unsqueeze(0)
        expected = float(scaled_norm(difference, dims, [s[member : member + 1] for s in scales]))
        assert float(error[member]) == pytest.approx(expected, rel=1e-9)
        assert float(cheap[member]) == pytest.approx(expected, rel=1e-5)


def test_the_scaled_norm_weighs_each_entry_by_the_sizes_of_its_directions():
    network = gaussian_network((2, 3, 4), 0.5, CPU)
    first, second = (w[0].numpy() for w in network.weights)
    sizes = [
        np.sqrt((first**2).sum(0)),
        np.sqrt((first**2).sum(1) + (second**2).sum(0)),
        np.sqrt((second**2).sum(1)),
    ]
    for found, expected in zip(inverse_sizes(network), sizes, strict=True):
        assert_equal(found[0], 1 / expected)
    total = sum((w**2 / np.outer(sizes[i + 1], sizes[i])).sum() for i, w in enumerate((first, second)))
    assert float(scaled_norm(network.theta, network.dims, inverse_sizes(network))) == pytest.approx(np.sqrt(total / 2))


@pytest.mark.parametrize("method", [rosenbrock, dormand_prince], ids=["rosenbrock", "dormand_prince"])
def test_steps_of_a_batch_are_steps_of_its_members(method):
    network = gaussian_network((3, 5, 4, 2), 0.5, CPU, members=range(4))
    cost = stated_cost("regression", (2, 3), CPU).cost
    h = torch.tensor([0.01, 0.03, 0.1, 1e4 if method is rosenbrock else 0.2], dtype=torch.float64)
    framed = FramedCost(cost, 4, network.theta)
    together = method.step(Point(network, framed), framed, h, inverse_sizes(network), exact=True)
    for i in range(4):
        one = network.select([i])
        framed = FramedCost(cost, 1, one.theta)
        alone = method.step(Point(one, framed), framed, h[i : i + 1], inverse_sizes(one), exact=True)
        for x, y in zip(together, alone, strict=True):
            scale = y[0].abs().max()
            assert_equal(x[i] / scale, y[0] / scale, factor=10)


def test_a_step_of_any_size_stays_at_a_minimum_and_at_the_origin():
    problem = aligned_problem("factorization", 3, CPU)
    origin = problem.network.with_theta(torch.zeros_like(problem.network.theta))
    end = aligned_problem("factorization", 3, CPU, start=(2.0, 1.2, 0.6)).network
    for network in (origin, end):
        framed = FramedCost(problem.cost, 1, network.theta)
        for size in (1e-3, 1.0, 1e6, 1e15):
            h = torch.tensor([size], dtype=torch.float64)
            theta, error = rosenbrock.step(Point(network, framed), framed, h, inverse_sizes(network), exact=True)
            assert_equal(theta + 1, network.theta + 1)
            assert float(error) < 1e-12


# ---- the solve ------------------------------------------------------------------------------------------


def jacobian(network):
    """J of one network, shape (D, P), column by column."""
    eye = torch.eye(network.theta.shape[1], dtype=torch.float64)
    return np.stack([network.jvp(e.unsqueeze(0))[0].flatten().numpy() for e in eye], 1)


def solved(solver, network, g, rest):
    """(I + c𝓗)⁻¹ (rest − c Jᵀg) from the dual that the solver returns."""
    return rest - network.gradient(solver(g, network.jvp(rest)))


def critical_point(depth, shape, k, seed=0, width=None):
    """A network of rank k in aligned axes, and a dense cost whose gradient is normal to the matrices of rank k."""
    rng = np.random.default_rng(seed)
    d_out, d_in = shape
    dims = (d_in, *[width or k] * (depth - 1), d_out)
    layers = [rng.standard_normal((b, a)) / np.sqrt(a) for a, b in pairwise(dims)]
    layers[0][:, k:] = 0
    layers[-1][k:] = 0
    network = Network.from_weights([CPU.tensor(w) for w in layers])
    g = np.zeros(shape)
    g[k:, k:] = rng.standard_normal((d_out - k, d_in - k))
    h = rng.standard_normal((d_out * d_in, d_out * d_in))
    h = h @ h.T / h.shape[0] + 0.3 * np.eye(h.shape[0])
    minimizer = network.product()[0].numpy() - np.linalg.solve(h, g.ravel()).reshape(shape)
    cost = QuadraticCost("own", "dense", CPU.tensor(h), CPU.tensor(minimizer))
    learned = torch.ones(1, k, dtype=torch.bool), torch.ones(1, k, dtype=torch.bool)
    return network, cost, learned


def loss_hessian(network, cost):
    """∇²𝓛 by autograd, shape (P, P)."""

    def loss(theta):
        return cost.excess(Network(theta.unsqueeze(0), network.dims).product())[0]

    return torch.autograd.functional.hessian(loss, network.theta[0])


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize(("shape", "k"), [((4, 3), 1), ((3, 5), 2), ((4, 4), 3)])
def test_at_a_critical_point_of_fixed_rank_the_matrix_is_the_whole_hessian(depth, shape, k):
    """With hidden layers of width k, A moves within the matrices of rank k: all its second derivatives that the
    cost gradient sees are the second fundamental form 2⟨G, Z A⁺ Z⟩."""
    network, cost, learned = critical_point(depth, shape, k)
    framed = FramedCost(cost, 1, network.theta)
    point = Point(network, framed, learned)
    assert float(point.slope.abs().max()) < 1e-13
    hessian = loss_hessian(network, cost)
    eye = torch.eye(len(hessian), dtype=torch.float64)
    nothing = torch.zeros(1, *shape, dtype=torch.float64)
    j = torch.as_tensor(jacobian(network))
    bend = StiffSolver(point, framed, torch.ones(1, 1, 1, dtype=torch.float64)).bend[0]
    assert_equal(j.T @ (cost.curvature() + bend) @ j, hessian, factor=10)
    assert float((j.T @ bend @ j).abs().max()) > 1e-2 * float(hessian.abs().max()), "Q makes no difference here"
    for c in (1e-3, 0.03, 0.3):
        solver = StiffSolver(point, framed, torch.full((1, 1, 1), c, dtype=torch.float64))
        matrix = eye + c * hessian
        for column in (0, 1, len(eye) - 1):
            found = solved(solver, network, nothing, eye[column : column + 1])[0]
            assert_equal(matrix @ found, eye[column], factor=float(torch.linalg.cond(matrix)) * float(found.norm()))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dims", [(3, 2), (3, 4, 2), (2, 4, 3, 4), (3, 2, 4, 3, 5)])
def test_the_solve_is_that_of_the_dense_matrix(task, dims):
    """(I + cJᵀHJ)⁻¹ (rest − cJᵀg), for steps as long as a plateau as well."""
    network = gaussian_network(dims, 0.7, CPU, members=range(2))
    cost = stated_cost(task, network.shape, CPU).cost
    framed = FramedCost(cost, 2, network.theta)
    point = Point(network, framed)
    rng = np.random.default_rng(0)
    g, rest = CPU.tensor(rng.standard_normal((2, *network.shape))), CPU.tensor(rng.standard_normal(network.theta.shape))
    for sizes in ((1e-4, 1.0), (50.0, 1e4)):
        c = torch.tensor(sizes, dtype=torch.float64).view(-1, 1, 1)
        solver = StiffSolver(point, framed, c)
        found = solved(solver, network, g, rest), -network.gradient(solver(g, None))
        for b in range(2):
            j = jacobian(network.select([b]))
            matrix = np.eye(j.shape[1]) + sizes[b] * j.T @ cost.curvature().numpy() @ j
            for image, start in zip(found, (rest[b].numpy(), 0.0), strict=True):
                right = start - sizes[b] * (j.T @ g[b].numpy().ravel())
                expected = np.linalg.solve(matrix, right)
                # What rounding of the right side alone does to the solution.
                error = np.abs(image[b].numpy() - expected).max()
                assert error < 1e-14 * (np.abs(right).max() + sizes[b] * np.abs(expected).max()) * j.shape[1]


def test_members_may_have_learned_different_directions():
    network, cost, _ = critical_point(3, (4, 3), 2, width=3)
    many = Network(network.theta.repeat(3, 1), network.dims)
    framed = FramedCost(cost, 3, many.theta)
    learned = torch.tensor([[True, True], [True, False], [False, False]])
    c = torch.ones(3, 1, 1, dtype=torch.float64)
    bends = StiffSolver(Point(many, framed, (learned, learned)), framed, c).bend
    for i, directions in enumerate(learned):
        one, pair = FramedCost(cost, 1, network.theta), directions.unsqueeze(0)
        alone = StiffSolver(Point(network, one, (pair, pair)), one, c[:1]).bend
        assert_equal(bends[i] + torch.eye(12), alone[0] + torch.eye(12))
    assert float(bends[2].abs().max()) == 0.0
    assert float(bends[0].abs().max()) > 0.1
    assert StiffSolver(Point(many, framed), framed, c).bend is None


def test_a_point_knows_its_slope_and_excess():
    network = gaussian_network((3, 4, 4, 2), 0.7, CPU, members=range(2))
    cost = stated_cost("sensing", (2, 3), CPU).cost
    expected = -network.gradient(cost.gradient(network.product()))
    point = Point(network, FramedCost(cost, 2, network.theta))
    assert_equal(point.slope, expected)
    assert_equal(point.gradient_norm(), expected.norm(dim=-1))
    assert_equal(point.excess, cost.excess(network.product()))


# ---- increments in function space ---------------------------------------------------------------------


@pytest.mark.parametrize("dims", [(3, 2), (3, 4, 2), (2, 4, 3, 4), (3, 2, 4, 3, 5), (1, 3, 2, 4, 3, 1)])
def test_a_span_moves_products_as_its_increments_move_layers(dims):
    """Two blocks: products at θ and their changes under a first increment; then a second increment in both."""
    network = gaussian_network(dims, 0.7, CPU, members=range(2))
    rng = np.random.default_rng(0)
    span = Span(network, network.prefixes(), network.suffixes(), 3)
    d_out, d_in = network.shape
    first, second = span.zero(), span.zero()
    first[:, :d_out, :d_in] = CPU.tensor(0.3 * rng.standard_normal((2, d_out, d_in)))
    if network.depth > 1:
        second[:, : 2 * d_out, : 2 * d_in] = CPU.tensor(0.3 * rng.standard_normal((2, 2 * d_out, 2 * d_in)))
    else:
        second[:, :d_out, :d_in] = CPU.tensor(0.3 * rng.standard_normal((2, d_out, d_in)))
    # By definition: δW_l = Σ_ab S_l,aᵀ Y_ab P_l,bᵀ with S_l,0, P_l,0 the products and S_l,1, P_l,1 their changes.
    delta = Network(network.gradient(first[:, :d_out, :d_in]), dims)
    moved = network.with_theta(network.theta + delta.theta)
    blocks = [
        (network.suffixes(), network.prefixes()),
        (
            [m - s for m, s in zip(moved.suffixes(), network.suffixes(), strict=True)],
            [m - p for m, p in zip(moved.prefixes(), network.prefixes(), strict=True)],
        ),
    ]
    for y, count in ((first, 1), (second, 2)):
        layers = [
            sum(
                blocks[a][0][i].mT @ y[:, a * d_out : (a + 1) * d_out, b * d_in : (b + 1) * d_in] @ blocks[b][1][i].mT
                for a in range(count)
                for b in range(count)
            )
            for i in range(network.depth)
        ]
        expected = Network.from_weights(layers)
        admitted = y[:, : count * d_out, : count * d_in]
        assert_equal(span.add_to(network.theta.clone(), admitted), network.theta + expected.theta)
        assert_equal(span.jvp(y), network.jvp(expected.theta), factor=10)
        scales = inverse_sizes(network)
        assert_equal(span.norm(admitted, scales), scaled_norm(expected.theta, dims, scales), factor=10)
        after = network.with_theta(network.theta + expected.theta)
        upper, lower, change = span.move(y)
        assert_equal(change, after.product() - network.product(), factor=10)
        for found, new, old in zip(upper, after.suffixes(), network.suffixes(), strict=False):
            assert_equal(found, new - old, factor=10)
        for found, new, old in zip(lower, after.prefixes()[1:], network.prefixes()[1:], strict=False):
            assert_equal(found, new - old, factor=10)
        assert (len(upper), len(lower)) == (network.depth - 1,) * 2
        span.admit(upper, lower)


def test_small_moves_keep_their_digits():
    """A change of 1e-30 of products of order one: any subtraction of products would give zero."""
    network = gaussian_network((3, 4, 4, 2), 0.7, CPU)
    span = Span(network, network.prefixes(), network.suffixes(), 1)
    y = span.zero()
    y[:] = 1e-30
    _, _, change = span.move(y)
    assert_equal(change, span.jvp(y), factor=10)
    assert float(change.abs().max()) > 1e-32

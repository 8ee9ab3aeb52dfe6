"""Explicit steps on plain matrices: against autograd, dense matrices, exact solutions and the promised stability."""

import numpy as np
import pytest
import torch
from problems import TASKS, LogCosh, aligned_problem, stated_cost

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import factorization
from dlnphase.costs.tasks import planted_task
from dlnphase.dynamics import gradient_flow
from dlnphase.dynamics.stabilised import DORMAND_PRINCE, Chain, Stepper, chain, cheapest, fitting, tableaux
from dlnphase.dynamics.stabilised_flow import StabilisedFlow
from dlnphase.networks.representation import initial_network
from dlnphase.networks.sampling import gaussian_network, sigma_of
from dlnphase.setup.representation import choose_representation

CPU = resolve_backend("cpu")
METHODS = (DORMAND_PRINCE, *tableaux())
SHAPES = [(3, 4), (3, 5, 4), (1, 6, 2), (4, 2, 5, 3), (3, 6, 5, 7, 2), (7, 4, 5, 2)]  # (d_in, hidden sizes, d_out)


@pytest.fixture(params=["numpy", "torch"])
def arrays(request, monkeypatch):
    """Small networks are NumPy arrays, large ones torch tensors: everything holds for both."""
    monkeypatch.setattr(chain, "NUMPY_UP_TO", 10**9 if request.param == "numpy" else -1)


def start(dims, task, seed=3):
    network = gaussian_network(dims, 0.6, CPU, seed=seed)
    shape = (dims[-1], dims[0])
    if task == "own":
        return network, LogCosh(0.5 * torch.ones(shape, dtype=torch.float64))
    return network, stated_cost(task, shape, CPU).cost


def point(network, cost):
    at = Chain(network, cost)
    return at, Stepper(at, at.array(network.theta[0]))


def loss(network, cost):
    return lambda theta: cost.excess(network.with_theta(theta[None]).product())[0]


@pytest.mark.parametrize("dims", SHAPES)
@pytest.mark.parametrize("task", [*TASKS, "own"])
def test_slopes_and_costs_are_those_of_autograd(task, dims, arrays):
    network, cost = start(dims, task)
    at, stepper = point(network, cost)
    gradient = torch.func.grad(loss(network, cost))(network.theta[0])
    np.testing.assert_allclose(at.tensor(stepper.slope.flat), -gradient, atol=1e-12)
    assert stepper.excess == pytest.approx(float(loss(network, cost)(network.theta[0])), rel=1e-12)
    _, (other, out) = at.vectors(2)
    other.flat[...] = 0.5 * stepper.theta.flat + 0.1
    expected = 0.3 * at.tensor(stepper.theta.flat) + 0.7 * at.tensor(other.flat)
    expected = expected - 0.2 * torch.func.grad(loss(network, cost))(at.tensor(other.flat))
    out.flat[...] = stepper.theta.flat
    at.recur(other, out, 0.2, 0.3)
    np.testing.assert_allclose(at.tensor(out.flat), expected, atol=1e-12)


def test_products_of_a_large_network_are_formed_from_its_fewer_ends(monkeypatch):
    for dims in SHAPES:
        network, cost = start(dims, "factorization")
        assert not Chain(network, cost).from_above
        with monkeypatch.context() as patch:
            patch.setattr(chain, "NUMPY_UP_TO", -1)
            assert Chain(network, cost).from_above == (2 * dims[-1] < dims[0])


@pytest.mark.parametrize("dims", SHAPES)
@pytest.mark.parametrize("task", [*TASKS, "own"])
def test_curvature_and_velocity_are_those_of_the_dense_jacobian(task, dims, arrays):
    network, cost = start(dims, task)
    at, stepper = point(network, cost)
    stepper.measure()
    theta = network.theta[0]
    jacobian = torch.func.jacrev(lambda t: network.with_theta(t[None]).product()[0].flatten())(theta)
    hessian = cost.curvature(network.product()).reshape(jacobian.shape[0], -1)
    largest = torch.linalg.eigvals(jacobian @ jacobian.T @ hessian).real.max()
    for _ in range(20):  # each call goes on from the last
        found = at.curvature()
    assert found == pytest.approx(float(largest), rel=0.02)
    velocity = -jacobian @ torch.func.grad(loss(network, cost))(theta)
    np.testing.assert_allclose(at.tensor(at.velocity()).flatten(), velocity, atol=1e-12)


def stability(method, z):
    """R(z): what one step of size 1 makes of y = 1 under y′ = z·y."""
    network = gaussian_network((1, 1), 1.0, CPU)
    cost = factorization(np.zeros((1, 1)), CPU)
    cost.operator.fill_(-z)
    _, stepper = point(network.with_theta(torch.ones((1, 1), dtype=torch.float64)), cost)
    stepper.attempt(method, 1.0)
    stepper.accept()
    return float(stepper.theta.flat[0]), float(stepper.error.flat[0])


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.stages}, order {m.order}")
def test_every_method_is_stable_where_it_says(method):
    z = -np.linspace(0.3, method.interval, 16 * method.stages)
    values = np.array([stability(method, x)[0] for x in z])
    assert abs(values).max() < 0.97
    assert abs(stability(method, -1.25 * method.interval)[0]) > 1  # and is not much longer than it says
    small = -np.array([0.02, 0.04])
    wrong = [abs(stability(method, x)[0] - np.exp(x)) for x in small]
    assert np.log2(wrong[1] / wrong[0]) == pytest.approx(method.order + 1, abs=0.3)
    estimated = [abs(stability(method, x)[1]) for x in small]
    assert np.log2(estimated[1] / estimated[0]) == pytest.approx(method.embedded_order + 1, abs=0.1)


def test_methods_cover_what_they_are_asked_for():
    intervals = np.array([m.interval for m in tableaux()])
    stages = np.array([m.stages for m in tableaux()])
    assert (np.diff(intervals) > 0).all() and (np.diff(stages) > 0).all()
    assert (intervals[3:] > 0.3 * stages[3:] ** 2).all()
    for stiffness in (0.0, 5.0, 30.0, intervals[-1]):
        assert cheapest(stiffness).interval >= stiffness
    assert cheapest(1.01 * intervals[-1]) is None
    assert fitting(1.0, None) is DORMAND_PRINCE and fitting(2.8, DORMAND_PRINCE) is DORMAND_PRINCE
    assert fitting(2.8, tableaux()[0]) is tableaux()[0] and fitting(3.2, DORMAND_PRINCE) is tableaux()[0]


@pytest.mark.parametrize("method", [METHODS[i] for i in (0, 1, 4, 16, -1)], ids=lambda m: m.stages)
@pytest.mark.parametrize("depth", [2, 4])
def test_the_order_of_convergence_is_the_declared_one(method, depth, arrays):
    """On a flow that is not linear, so that every condition counts."""
    problem = aligned_problem("sensing", depth, CPU)
    errors, counts = [], np.array([30, 60])
    for count in counts:
        _, stepper = point(problem.network, problem.cost)
        for _ in range(count):
            stepper.attempt(method, 1.0 / count)
            stepper.accept()
        network = problem.network.with_theta(stepper.chain.tensor(stepper.theta.flat)[None])
        errors.append(np.abs(network.product()[0].numpy() - problem.exact(1.0)).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(method.order, abs=0.3)


# ---- the mild part of a path -----------------------------------------------------------------------------


def wide(width, gamma):
    cost = planted_task("completion", (5, 5), (5.0, 2.0), CPU, observed=0.9).cost
    sigma = sigma_of(width, gamma)
    chosen = choose_representation(3, width, (5, 5), sigma, cost, CPU)
    return initial_network(chosen, 3, width, (5, 5), sigma, CPU), cost


@pytest.mark.parametrize(("width", "gamma", "mild_to_the_end"), [(50, 1.5, True), (10**7, 2.0, False)])
def test_a_path_that_is_not_mild_is_handed_over_and_stays_the_same(width, gamma, mild_to_the_end, monkeypatch):
    network, cost = wide(width, gamma)
    stiff = list(gradient_flow(network, cost, rtol=1e-5, method="stiff"))
    handed = []
    original = StabilisedFlow._hand_over
    monkeypatch.setattr(StabilisedFlow, "_hand_over", lambda self: (handed.append(self.time), original(self)))
    outputs = [record.time[0] for record in stiff[10:-1:30]]
    records = list(gradient_flow(network, cost, rtol=1e-5, output_times=outputs))
    assert bool(handed) is not mild_to_the_end
    assert records[-1].reasons == stiff[-1].reasons == ["converged"]
    assert [r.step[0] for r in records] == list(range(len(records)))
    assert (np.diff([r.time[0] for r in records]) > 0).all()
    assert (np.diff([r.evaluations[0] for r in records]) > 0).all()
    found = {r.time[0]: r.A[0] for r in records}
    for record in stiff[10:-1:30]:
        speed = np.linalg.norm(record.gradient_norm[0] ** 2 / cost.gradient(torch.as_tensor(record.A)))
        late = 1e-4 * record.time[0] * speed + 1e-4 * np.linalg.norm(record.A)
        assert np.linalg.norm(found[record.time[0]] - record.A[0]) < late


def test_bursts_are_dense_in_records():
    network, cost = wide(200, 2.0)
    a = np.array([r.A[0] for r in gradient_flow(network, cost)])
    moved = np.linalg.norm(np.diff(a, axis=0), axis=(1, 2)) / np.linalg.norm(a[-1])
    assert moved.max() < 0.2


def test_members_of_a_mild_batch_are_single_runs_bit_for_bit():
    cost = planted_task("factorization", (4, 4), (3.0, 1.0), CPU).cost
    batch = gaussian_network((4, 30, 30, 4), 0.05, CPU, members=(0, 1, 2))
    last = {}
    for record in gradient_flow(batch, cost):
        for i, member in enumerate(record.members):
            last[int(member)] = record.time[i], record.A[i]
    for member in range(3):
        alone = list(gradient_flow(batch.select([member]), cost))[-1]
        assert alone.time[0] == last[member][0]
        np.testing.assert_array_equal(alone.A[0], last[member][1])

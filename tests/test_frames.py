"""Rotated frames: a cost and a network turned together are the same cost and network."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import TASKS, stated_cost
from tolerances import assert_equal

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import factorization
from dlnphase.costs.tasks import planted_task
from dlnphase.dynamics import gradient_flow
from dlnphase.dynamics.framed_cost import FramedCost, turn_rows
from dlnphase.dynamics.frames import Frames, align, learned_directions
from dlnphase.dynamics.sizes import direction_weights, has_empty_ends
from dlnphase.networks.chain import Network
from dlnphase.networks.krylov import sample
from dlnphase.networks.sampling import balanced_network, gaussian_network

CPU = resolve_backend("cpu")


def unit(rng, batch, n, size):
    """Heads and tails of unit vectors close to the first axis (size ≪ 1) or anywhere (size of order one)."""
    tail = size * rng.standard_normal((batch, n - 1)) / max(np.sqrt(n - 1), 1)
    tail = tail / np.maximum(1.0, 1.2 * np.linalg.norm(tail, axis=1, keepdims=True))
    return CPU.tensor(np.sqrt(1 - (tail**2).sum(1))), CPU.tensor(tail)


def rotation(n, i, head, tail):
    """The rotation that turn_rows applies, from its action on the identity; checked against its definition below."""
    matrix = torch.eye(n, dtype=torch.float64)
    turn_rows(matrix, i, head, tail)
    return matrix


# ---- one rotation --------------------------------------------------------------------------------------


@given(st.integers(1, 7), st.integers(0, 5), st.sampled_from([1e-12, 1e-3, 1.0]), st.integers(0, 10**6))
def test_a_turn_is_the_direct_rotation_of_a_vector_to_an_axis(n, i, size, seed):
    i = min(i, n - 1)
    head, tail = unit(np.random.default_rng(seed), 1, n - i, size)
    o = rotation(n, i, head[0], tail[0]).numpy()
    x = np.concatenate([np.zeros(i), head.numpy(), tail[0].numpy()])
    assert_equal(o @ o.T, np.eye(n))
    assert np.linalg.det(o) == pytest.approx(1.0)
    assert_equal(o @ x, np.eye(n)[i])
    # Direct: vectors orthogonal to both x and the axis stay where they are.
    rng = np.random.default_rng(seed + 1)
    y = rng.standard_normal(n)
    plane = np.linalg.qr(np.stack([np.eye(n)[i], x], 1))[0] if np.abs(x[i + 1 :]).sum() > 1e-9 else np.eye(n)[:, [i]]
    y -= plane @ (plane.T @ y)
    if size == 1.0:
        assert_equal(1 + o @ y, 1 + y, factor=10)


def test_small_turns_leave_small_numbers_accurate():
    """Rows of sizes 1 and 1e-30, turned by 1e-25: the small row changes by what it should, to all its digits."""
    matrix = torch.tensor([[1.0, 2.0], [3e-30, -1e-30]], dtype=torch.float64)
    t = torch.tensor([1e-25], dtype=torch.float64)
    turn_rows(matrix, 0, torch.tensor(1.0, dtype=torch.float64), t)
    expected = [3e-30 - 1e-25 * 1.0, -1e-30 - 1e-25 * 2.0]
    assert matrix[1].tolist() == pytest.approx(expected, rel=1e-15)
    turn_rows(matrix, 0, torch.tensor(1.0, dtype=torch.float64), -t)
    assert matrix[1].tolist() == pytest.approx([3e-30, -1e-30], rel=1e-10)


# ---- costs ---------------------------------------------------------------------------------------------


class Plain:
    """A quadratic cost that hides behind the protocol, so that a frame must rotate back and forth."""

    def __init__(self, cost):
        self.cost, self.shape, self.minimum = cost, cost.shape, cost.minimum

    def __getattr__(self, name):
        return getattr(self.cost, name)

    @property
    def minimizer(self):
        raise AttributeError


def turned(cost, batch=2, count=8, size=0.5, seed=0, like=None):
    """A framed cost after many random turns."""
    rng = np.random.default_rng(seed)
    framed = FramedCost(cost, batch, torch.zeros(1, dtype=torch.float64) if like is None else like)
    for _ in range(count):
        for turn, n in ((framed.turn_output, cost.shape[0]), (framed.turn_input, cost.shape[1])):
            i = int(rng.integers(n))
            turn(i, *unit(rng, batch, n - i, size))
    return framed


@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("shape", [(3, 4), (4, 2), (1, 5), (5, 1)])
@pytest.mark.parametrize("task", TASKS)
def test_a_turned_cost_is_the_rotated_cost(task, shape, general):
    cost = stated_cost(task, shape, CPU).cost
    framed = turned(Plain(cost) if general else cost)
    left, right = framed.left, framed.right
    for o, n in ((left, shape[0]), (right, shape[1])):
        assert_equal(o @ o.mT, np.broadcast_to(np.eye(n), (2, n, n)))
    rng = np.random.default_rng(1)
    a, v = (CPU.tensor(rng.standard_normal((2, *shape))) for _ in range(2))
    back = left.mT @ a @ right
    assert_equal(framed.original(a), back)
    excess, g = framed.value_and_gradient(a)
    assert_equal(excess, cost.excess(back), factor=10)
    expected = left @ cost.gradient(back) @ right.mT
    assert_equal(g, expected, factor=10)
    assert_equal(framed.gradient(a), expected, factor=10)
    assert_equal(framed.moved_gradient(a, g, v), framed.gradient(a + v), factor=10)
    image = left @ cost.apply_curvature(left.mT @ v @ right) @ right.mT
    assert_equal(framed.apply(v, a), image, factor=10)
    columns = torch.stack([v.flatten(1), a.flatten(1)], -1)
    images = torch.stack([framed.apply(x, a).flatten(1) for x in (v, a)], -1)
    assert_equal(framed.times(columns, a), images, factor=10)
    one = framed.select(torch.tensor([1]))
    assert_equal(one.gradient(a[1:]), expected[1:], factor=10)


@pytest.mark.parametrize("task", TASKS)
def test_a_small_gradient_keeps_its_digits_in_a_turned_frame(task):
    """Near the minimum, −∇C is formed from A − Â_min in the frame: its error is that of rounding A itself."""
    cost = stated_cost(task, (3, 4), CPU).cost
    framed = turned(cost)
    step = 1e-10 * CPU.tensor(np.random.default_rng(3).standard_normal((2, 3, 4)))
    found = framed.gradient(framed.minimizer + step)
    assert float((found - framed.apply(step, step)).abs().max()) < 1e-14


def test_round_off_of_the_gradient_is_read_as_zero_once_it_is_measured():
    cost = factorization(np.diag([3.0, 1.0]), CPU)
    framed = FramedCost(cost, 1, torch.zeros(1, dtype=torch.float64))
    a = torch.tensor([[[3.0 + 1e-15, 1e-12], [0.0, 0.0]]], dtype=torch.float64)
    assert (framed.gradient(a) != 0).sum() == 3
    framed.measure_noise(a)
    g = framed.gradient(a)[0]
    assert g[0, 0] == 0 and g[0, 1] == 1e-12 and g[1, 1] == -1
    assert float(framed.noise) < 1e-13


# ---- networks ------------------------------------------------------------------------------------------


def graded(dims, sizes, seed=0, batch=2):
    """Networks of given layer singular values (the same in all layers), with random frames at every space."""
    rng = np.random.default_rng(seed)
    spaces = [[np.linalg.qr(rng.standard_normal((n, n)))[0] for n in dims] for _ in range(batch)]
    k = len(sizes)
    layers = [
        np.stack([(o[i + 1][:, :k] * np.array(sizes)) @ o[i][:, :k].T for o in spaces]) for i in range(len(dims) - 1)
    ]
    return Network.from_weights([CPU.tensor(w) for w in layers]), spaces


@pytest.mark.parametrize("dims", [(4, 6, 3), (4, 6, 5, 3), (3, 5, 6, 5, 4)])
def test_alignment_changes_coordinates_only(dims):
    cost = stated_cost("completion", (dims[-1], dims[0]), CPU).cost
    network = gaussian_network(dims, 0.3, CPU, members=(0, 1))
    start = network.clone()
    start.weights[0][:] += 3 * start.weights[0][:, :1] * start.weights[0][:, :, :1] / start.weights[0][:, :1, :1]
    network = start.clone()
    frames = Frames.identity(network, cost)
    before = cost.gradient(start.product())
    for _ in range(5):
        align(network, frames)
    for member in range(2):
        for found, expected in zip(frames.to_original(network, member), start.weights, strict=True):
            assert_equal(found, expected[member], factor=10)
    for o in (*frames.hidden, frames.cost.left, frames.cost.right):
        assert_equal(o @ o.mT, np.broadcast_to(np.eye(o.shape[-1]), o.shape))
    assert_equal(frames.cost.original(network.product()), start.product(), factor=10)
    assert_equal(frames.cost.original(frames.cost.gradient(network.product())), before, factor=10)
    for found, expected, o in zip(frames.balance, start.balancedness(), frames.hidden, strict=True):
        assert_equal(found, o @ expected @ o.mT, factor=10)


@pytest.mark.parametrize("dims", [(5, 7, 4), (5, 7, 6, 4)])
def test_directions_that_stand_out_become_the_first_axes(dims):
    network, spaces = graded(dims, (1.0, 1e-2, 1e-5))
    frames = Frames.identity(network, stated_cost("factorization", (dims[-1], dims[0]), CPU).cost)
    for _ in range(3):
        assert align(network, frames)
    turns = [frames.cost.right, *frames.hidden, frames.cost.left]
    for space, o in enumerate(turns):
        for member in range(2):
            # Axis k of the frame, seen from outside, is the k-th direction the layers were built from.
            for k in range(3):
                overlap = abs(float(o[member, k] @ CPU.tensor(spaces[member][space][:, k])))
                assert overlap == pytest.approx(1.0, abs=1e-9)
    for w in network.weights:
        diagonal = w.diagonal(dim1=-2, dim2=-1)[:, :3].abs()
        assert_equal(diagonal / CPU.tensor([1.0, 1e-2, 1e-5]), np.ones((2, 3)), factor=1e3)
    out, inp = learned_directions(network, frames)
    assert out[:, :2].tolist() == inp[:, :2].tolist() == [[True, False]] * 2


def test_sizes_of_directions():
    network = gaussian_network((3, 5, 4), 0.5, CPU, members=(0, 1))
    first, second = network.weights
    grams = [first.mT @ first, first @ first.mT + second.mT @ second, second @ second.mT]
    for found, gram in zip(direction_weights(network), grams, strict=True):
        assert_equal(found, gram.diagonal(dim1=-2, dim2=-1))


@pytest.mark.parametrize("dims", [(3, 4), (3, 5, 4), (4, 6, 6, 4)])
def test_a_network_without_a_leading_direction_stays_in_its_frame(dims):
    network = gaussian_network(dims, 0.0, CPU, members=(0, 1))
    frames = Frames.identity(network, stated_cost("factorization", (dims[-1], dims[0]), CPU).cost)
    assert not align(network, frames)
    assert learned_directions(network, frames) is None
    assert float(network.theta.abs().max()) == 0.0


def test_empty_ends_are_seen():
    assert not has_empty_ends(gaussian_network((3, 5, 4), 1e-9, CPU, members=(0, 1)))
    assert has_empty_ends(gaussian_network((3, 2, 4), 1.0, CPU))
    assert has_empty_ends(balanced_network(np.ones((3, 3)), (3, 5, 3), CPU, rotation_seed=0))


def test_balance_is_restored_where_round_off_has_tilted_two_layers():
    """A tilt of a learned direction between two layers is taken back; a rotation of both is not touched."""
    network, _ = graded((4, 6, 6, 4), (1.0, 1e-3), batch=1)
    frames = Frames.identity(network, stated_cost("factorization", (4, 4), CPU).cost)
    for _ in range(3):
        align(network, frames)
    clean = [d.clone() for d in network.balancedness()]
    network.weights[0][:, 1, 0] += 1e-9
    tilted = max(float((d - c).abs().max()) for d, c in zip(network.balancedness(), clean, strict=True))
    assert tilted > 5e-10
    align(network, frames)
    left = float(abs(network.balancedness()[0][0, 0, 1] - frames.balance[0][0, 0, 1]))
    assert left < float(frames.unresolved[0]) < 2e-15  # what is left below its round-off is not looked at


def test_restoring_balance_leaves_the_end_to_end_matrix_where_it_is():
    """Steps of a method tilt layers by their error, far above round-off; what it moved in A would be error too."""
    network, _ = graded((4, 6, 6, 4), (1.0, 0.1), batch=1)
    frames = Frames.identity(network, stated_cost("factorization", (4, 4), CPU).cost)

    def tilt():
        return abs(float(network.balancedness()[0][0, 0, 1] - frames.balance[0][0, 0, 1]))

    for _ in range(3):
        align(network, frames)
    network.weights[0][:, 1, 0] += 1e-5
    network.weights[1][:, 1, 0] -= 2e-5
    before, tilted = frames.cost.original(network.product()), tilt()
    for _ in range(4):  # spaces that touch disturb each other, by what their directions differ in size
        align(network, frames)
    assert tilted > 1e-5 and tilt() < 1e-3 * tilted
    assert float((frames.cost.original(network.product()) - before).abs().max()) < 1e-13


def test_round_off_of_exactly_low_rank_is_no_reason_to_restore_anything():
    network = balanced_network(np.outer([1.0, 2.0, -1.0], [0.5, 1.0, 1.0]), (3, 5, 5, 3), CPU, rotation_seed=0)
    frames = Frames.identity(network, factorization(np.eye(3), CPU))
    for _ in range(20):
        align(network, frames)
    for w in network.weights:
        assert np.linalg.svd(w[0].numpy())[1][1] < 1e-14


def test_numbers_too_small_to_square_do_not_blow_up():
    network, _ = graded((3, 4, 4, 3), (1.0, 1e-3))
    network.weights[0][:, :, 2] *= 1e-200
    network.weights[-1][:, 2] *= 1e-200
    frames = Frames.identity(network, factorization(np.eye(3), CPU))
    for _ in range(5):
        align(network, frames)
        assert bool(torch.isfinite(network.theta).all())
    assert float(network.theta.abs().max()) < 2


def test_frames_stay_orthogonal_over_hundreds_of_turns():
    """A leading mode whose directions wander, followed in the frame and outside of it: the same layers to round-off."""
    dims = (3, 6, 5, 4)
    rng = np.random.default_rng(0)
    network = gaussian_network(dims, 0.1, CPU, members=(0, 1))
    outside = network.clone()
    frames = Frames.identity(network, stated_cost("regression", (4, 3), CPU).cost)
    led, modes = 0, [rng.standard_normal(n) for n in dims]
    for _ in range(300):
        modes = [x + 0.05 * rng.standard_normal(len(x)) for x in modes]
        modes = [x / np.linalg.norm(x) for x in modes]
        steps = [CPU.tensor(np.outer(upper, lower)) for lower, upper in pairwise(modes)]
        turns = [frames.cost.right, *frames.hidden, frames.cost.left]
        for i, step in enumerate(steps):
            outside.weights[i][:] = 0.8 * outside.weights[i] + step
            network.weights[i][:] = 0.8 * network.weights[i] + turns[i + 1] @ step @ turns[i].mT
        # No flow: what it would conserve moves along.
        frames.balance = network.balancedness()
        led += align(network, frames)
    assert led > 200
    for o in (*frames.hidden, frames.cost.left, frames.cost.right):
        assert_equal(o @ o.mT, np.broadcast_to(np.eye(o.shape[-1]), o.shape))
        assert float((o - torch.eye(o.shape[-1], dtype=o.dtype)).abs().max()) > 0.1
    for member in range(2):
        for found, expected in zip(frames.to_original(network, member), outside.weights, strict=True):
            assert_equal(found, expected[member], factor=10)


def test_the_layers_told_at_the_end_of_a_long_run_are_those_of_the_matrix_told():
    cost = stated_cost("regression", (4, 3), CPU).cost
    network = gaussian_network((3, 6, 6, 4), 1e-4, CPU, members=(0, 1))
    start = network.balancedness()
    ended = 0
    for record in gradient_flow(network, cost, rtol=1e-3):
        for i, reason in enumerate(record.reasons):
            if reason:
                ended += 1
                assert reason == "converged" and record.step[i] > 50
                after = Network.from_weights([CPU.tensor(w) for w in record.weights(i)])
                assert_equal(after.product()[0], record.A[i], factor=10)
                for now, then in zip(after.balancedness(), start, strict=True):
                    assert float((now[0] - then[int(record.members[i])]).abs().max()) < 0.02
    assert ended == 2


def test_a_learned_direction_rests_where_the_rest_of_the_cost_does_not_pull_on_it():
    """Layers of a deep network couple it to the others by α², and axes of layers are not those of A."""
    cost = planted_task("completion", (5, 5), (3.0, 2.0, 1.0), CPU).cost
    network = sample(8, 10**6, (5, 5), 1e-6, 1, CPU, seed=0, members=(0,))
    gradient = np.array([r.gradient_norm[0] for r in gradient_flow(network, cost, max_steps=150)])
    after = gradient[np.argmax(gradient) :]
    assert (
        after.min() < 1e-18
    )  # α⁷·s is left where nothing else is; 1e-16 and more where ∇C rests at a number of its own

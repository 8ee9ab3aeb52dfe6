"""Networks: every formula against autograd or a product written out, for all shapes, dtypes and devices."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import TASKS, stated_cost
from tolerances import assert_equal

from dlnphase.backend import resolve_backend
from dlnphase.networks.batch import Batched
from dlnphase.networks.chain import Network, parameter_count, split

CPU = resolve_backend("cpu")
# L = 1 … 6; rows, columns and single entries; narrow, uneven and wide hidden layers; d_out < d_in and the reverse.
DIMS = [
    *((3, 2), (1, 1), (1, 4), (4, 1)),
    *((3, 5, 2), (2, 1, 3), (1, 6, 1)),
    *((4, 2, 6, 3), (2, 7, 3, 5)),
    *((3, 4, 4, 4, 2), (1, 3, 2, 3, 4)),
    (2, 3, 4, 3, 2, 4),
    (4, 3, 3, 3, 3, 3, 2),
]
IDS = ["x".join(map(str, d)) for d in DIMS]


def random_network(dims, backend=CPU, batch=3, seed=0):
    rng = np.random.default_rng(seed)
    layers = [rng.standard_normal((batch, b, a)) / np.sqrt(a) for a, b in pairwise(dims)]
    return Network.from_weights([backend.tensor(w) for w in layers])


def random_tensor(shape, backend=CPU, seed=1):
    return backend.tensor(np.random.default_rng(seed).standard_normal(shape))


def end_to_end(theta, dims):
    """A as a differentiable function of flat θ of shape (P,), by plain products."""
    out, start = None, 0
    for a, b in pairwise(dims):
        w = theta[start : start + a * b].reshape(b, a)
        out = w if out is None else w @ out
        start += a * b
    return out


def jacobian(network, member):
    """J of shape (D, P) by autograd."""
    theta = network.theta[member].detach().clone()
    full = torch.autograd.functional.jacobian(lambda x: end_to_end(x, network.dims), theta)
    return full.reshape(-1, theta.numel())


@pytest.mark.parametrize("dims", DIMS, ids=IDS)
def test_shapes(dims):
    net = random_network(dims)
    assert (net.depth, net.batch) == (len(dims) - 1, 3)
    assert net.shape == (dims[-1], dims[0]) and net.hidden == dims[1:-1]
    assert net.theta.shape[1] == parameter_count(dims) == sum(w[0].numel() for w in net.weights)
    assert [p.shape for p in net.prefixes()] == [(3, n, dims[0]) for n in dims]
    assert [s.shape for s in net.suffixes()] == [(3, dims[-1], n) for n in dims[1:]]


@pytest.mark.parametrize("dims", DIMS, ids=IDS)
def test_products_are_the_plain_products(dims, any_backend):
    net = random_network(dims, any_backend)
    for b in range(net.batch):
        layers = [w[b].cpu().numpy().astype(float) for w in net.weights]
        full = layers[0]
        assert_equal(net.prefixes()[0][b], np.eye(dims[0]), any_backend.dtype_name)
        for i, w in enumerate(layers):
            full = layers[0] if i == 0 else w @ full
            assert_equal(net.prefixes()[i + 1][b], full, any_backend.dtype_name)
            above = np.eye(dims[i + 1])
            for upper in layers[i + 1 :]:
                above = upper @ above
            assert_equal(net.suffixes()[i][b], above, any_backend.dtype_name)
        assert_equal(net.product()[b], full, any_backend.dtype_name)


@pytest.mark.parametrize("dims", DIMS, ids=IDS)
def test_derivatives_are_those_of_autograd(dims, any_backend):
    net, dtype = random_network(dims, any_backend), any_backend.dtype_name
    g = random_tensor((3, *net.shape), any_backend)
    v = random_tensor(net.theta.shape, any_backend)
    gradient, image, kernel = net.gradient(g), net.jvp(v), net.ntk()
    for b in range(net.batch):
        j = jacobian(net, b)
        assert_equal(gradient[b], j.T @ g[b].flatten(), dtype)
        assert_equal(image[b].flatten(), j @ v[b], dtype)
        assert_equal(kernel[b], j @ j.T, dtype)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dims", [(3, 2), (1, 4), (3, 5, 2), (2, 4, 3, 4), (3, 4, 4, 4, 2), (2, 3, 4, 3, 2, 4)])
def test_the_loss_gradient_is_that_of_autograd_for_every_task(dims, task, any_backend):
    net = random_network(dims, any_backend)
    stated = stated_cost(task, net.shape, any_backend)
    gradient = net.gradient(stated.cost.gradient(net.product()))
    design = any_backend.tensor(stated.design)
    right = any_backend.tensor(stated.right)
    for b in range(net.batch):
        theta = net.theta[b].clone().requires_grad_()
        loss = 0.5 * (design @ end_to_end(theta, dims).flatten() - right).square().sum()
        (expected,) = torch.autograd.grad(loss, theta)
        assert_equal(gradient[b], expected, any_backend.dtype_name)


@pytest.mark.parametrize("dims", DIMS, ids=IDS)
def test_the_ntk_is_a_sum_of_kronecker_products(dims):
    net = random_network(dims)
    for b in range(net.batch):
        total = sum(torch.kron(left[b], right[b].contiguous()) for left, right in net.ntk_factors())
        assert_equal(net.ntk()[b], total)


@pytest.mark.parametrize("dims", [d for d in DIMS if len(d) > 2])
def test_balancedness_is_what_it_says_and_no_gradient_changes_it(dims):
    net = random_network(dims)
    for d, (lower, upper) in zip(net.balancedness(), pairwise(net.weights), strict=True):
        for b in range(net.batch):
            lo, up = lower[b].numpy(), upper[b].numpy()
            assert_equal(d[b], up.T @ up - lo @ lo.T)
    slope = net.gradient(random_tensor((3, *net.shape)))

    def flat(theta):
        return tuple(Network(theta, dims).balancedness())

    _, rates = torch.autograd.functional.jvp(flat, net.theta, slope)
    scale = max(float(w.abs().max() * s.abs().max()) for w, s in zip(net.weights, split(slope, dims), strict=True))
    for rate in rates:
        assert float(rate.abs().max()) < 1e-13 * scale


# ---- symmetry -----------------------------------------------------------------------------------------


def rotations(dims, seed, batch=None):
    rng = np.random.default_rng(seed)
    return [CPU.tensor(np.linalg.qr(rng.standard_normal((*([batch] if batch else []), n, n)))[0]) for n in dims]


chains = st.lists(st.integers(1, 6), min_size=2, max_size=7).map(tuple)


@given(chains, st.integers(0, 10**6))
def test_rotating_hidden_spaces_changes_nothing_seen_from_outside(dims, seed):
    net = random_network(dims, seed=seed)
    turns = [None, *rotations(dims[1:-1], seed + 1), None]
    turned = net.rotate(turns)
    assert_equal(turned.product(), net.product())
    assert_equal(turned.ntk(), net.ntk())
    g = random_tensor((3, *net.shape), seed=seed + 2)
    assert_equal(turned.gradient(g), Network(net.gradient(g), dims).rotate(turns).theta)
    for d, expected, o in zip(turned.balancedness(), net.balancedness(), turns[1:-1], strict=True):
        scale = max(float(expected.abs().max()), 1.0)
        assert_equal(d / scale, o @ expected @ o.T / scale, factor=10)


@given(chains, st.integers(0, 10**6))
def test_rotating_the_ends_turns_the_product(dims, seed):
    net = random_network(dims, seed=seed)
    turns = rotations(dims, seed + 1, batch=3)
    assert_equal(net.rotate(turns).product(), turns[-1] @ net.product() @ turns[0].mT)


@given(chains, st.integers(0, 10**6), st.integers(1, 5))
def test_padding_hidden_spaces_with_zeros_embeds_a_network_in_a_wider_one(dims, seed, extra):
    net = random_network(dims, seed=seed)
    wide_dims = (dims[0], *(n + extra for n in dims[1:-1]), dims[-1])
    padded = [
        torch.nn.functional.pad(w, (0, wide_dims[i] - dims[i], 0, wide_dims[i + 1] - dims[i + 1]))
        for i, w in enumerate(net.weights)
    ]
    wide = Network.from_weights(padded)
    assert_equal(wide.product(), net.product())
    assert_equal(wide.ntk(), net.ntk())
    g = random_tensor((3, *net.shape), seed=seed)
    small = split(net.gradient(g), dims)
    for i, (large, w) in enumerate(zip(split(wide.gradient(g), wide_dims), small, strict=True)):
        inside = large[:, : dims[i + 1], : dims[i]]
        assert_equal(inside, w)
        assert float(large.square().sum()) == pytest.approx(float(inside.square().sum()), rel=1e-14, abs=1e-300)


@given(chains, st.integers(0, 10**6))
def test_jvp_and_gradient_are_adjoint(dims, seed):
    net = random_network(dims, seed=seed)
    g, v = random_tensor((3, *net.shape), seed=seed), random_tensor(net.theta.shape, seed=seed + 1)
    left, right = (g * net.jvp(v)).sum((-2, -1)), (net.gradient(g) * v).sum(-1)
    scale = net.gradient(g).norm(dim=-1) * v.norm(dim=-1) + 1e-30
    assert float(((left - right) / scale).abs().max()) < 1e-13


# ---- what a network is made of -------------------------------------------------------------------------


def test_layers_are_views_of_theta_row_by_row():
    theta = torch.arange(2.0 * 3 + 4 * 2).repeat(2, 1)
    net = Network(theta, (3, 2, 4))
    assert net.weights[0][1].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert net.weights[1][0].tolist() == [[6, 7], [8, 9], [10, 11], [12, 13]]
    theta[1, 0] = -1
    assert net.weights[0][1, 0, 0] == -1
    assert net.with_theta(theta + 1).weights[0][1, 0, 0] == 0


def test_from_weights_copies_and_takes_single_networks():
    layers = [torch.ones(2, 3), torch.ones(4, 2)]
    net = Network.from_weights(layers)
    assert (net.batch, net.dims) == (1, (3, 2, 4))
    layers[0][:] = 5
    assert float(net.weights[0].max()) == 1


def test_a_batch_is_its_members():
    net = random_network((3, 4, 2))
    some = net.select([2, 0])
    assert torch.equal(some.theta, net.theta[[2, 0]])
    torch.testing.assert_close(some.product(), net.product()[[2, 0]], rtol=1e-14, atol=1e-15)
    copy = net.clone()
    copy.theta.zero_()
    assert float(net.theta.abs().max()) > 0


@dataclass(frozen=True, slots=True)
class Told(Batched):
    """One field of every kind that a dataclass about a batch may have."""

    numbers: torch.Tensor
    host: np.ndarray
    names: list[str]
    spaces: list[torch.Tensor]
    network: Network
    inner: Batched | None
    word: str


def test_some_members_of_whatever_tells_about_a_batch():
    net = random_network((3, 4, 2))
    inner = Told(torch.arange(3), np.arange(3), ["a", "b", "c"], [], net, None, "inner")
    whole = Told(
        torch.arange(3) + 4, np.arange(3) + 7, ["d", "e", "f"], [torch.ones(3, 2), net.theta], net, inner, "abc"
    )
    some = whole.select(slice(1, 3))
    assert some.numbers.tolist() == [5, 6]
    assert some.host.tolist() == [8, 9]
    assert some.names == ["e", "f"]
    assert [x.shape[0] for x in some.spaces] == [2, 2]
    assert torch.equal(some.spaces[1], net.theta[1:3])
    assert torch.equal(some.network.theta, net.theta[1:3])
    assert some.word == "abc"
    assert (some.inner.names, some.inner.numbers.tolist(), some.inner.spaces) == (["b", "c"], [1, 2], [])
    assert whole.names == ["d", "e", "f"]
    assert whole.network.batch == 3


def test_layers_that_do_not_chain_are_refused():
    with pytest.raises(ValueError, match="do not chain"):
        Network.from_weights([torch.ones(2, 3), torch.ones(4, 3)])
    with pytest.raises(ValueError, match="do not chain"):
        Network.from_weights([torch.ones(2, 2, 3), torch.ones(1, 4, 2)])
    with pytest.raises(ValueError, match="need"):
        Network(torch.ones(2, 7), (3, 2))
    with pytest.raises(ValueError, match="need"):
        Network(torch.ones(6), (3, 2))
    with pytest.raises(ValueError, match="rotations for 3 spaces"):
        random_network((2, 3, 2)).rotate([None, None])

"""Initial weights: their law, their independence of each other, and balanced starts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from tolerances import assert_equal
from turns import random_rotations

from dlnphase.backend import resolve_backend
from dlnphase.errors import InputError
from dlnphase.networks.sampling import (
    alpha_of,
    balanced_network,
    gaussian_network,
    hidden_dims,
    sigma_of,
)

CPU = resolve_backend("cpu")


@given(st.floats(1, 1e12), st.floats(0, 4))
def test_scales(width, gamma):
    sigma, alpha = sigma_of(width, gamma), alpha_of(width, gamma)
    assert sigma**2 == pytest.approx(width**-gamma, rel=1e-10)
    assert alpha == pytest.approx(sigma * np.sqrt(width), rel=1e-10)


def test_dims():
    assert hidden_dims(4, 7, (2, 3)) == (3, 7, 7, 7, 2)
    assert hidden_dims(1, 7, (2, 3)) == (3, 2)


def test_entries_are_gaussian_of_the_size_asked_for():
    net = gaussian_network((5, 40, 30, 4), 0.02, CPU, members=range(20))
    for w in net.weights:
        assert kstest(w.numpy().ravel() / 0.02, "norm").pvalue > 1e-4
    # The test can tell a normal law from one with 10 % too large a scale.
    assert kstest(net.weights[1].numpy().ravel() / 0.018, "norm").pvalue < 1e-4


@pytest.mark.parametrize(("depth", "width", "gamma"), [(1, 1, 1.0), (2, 30, 1.5), (3, 12, 1.0), (4, 8, 0.75)])
def test_the_size_of_the_product_follows_the_width(depth, width, gamma):
    """Var A_ij = w^(L−1−γL), exactly at every width."""
    net = gaussian_network(hidden_dims(depth, width, (3, 2)), sigma_of(width, gamma), CPU, members=range(3000))
    squares = net.product().square().mean((-2, -1)).numpy() / width ** (depth - 1 - gamma * depth)
    assert squares.mean() == pytest.approx(1.0, abs=5 * squares.std() / np.sqrt(len(squares)))
    assert squares.std() / np.sqrt(len(squares)) < 0.05


def test_the_ntk_at_a_wide_start_is_a_multiple_of_the_identity():
    """K → L w^((1−γ)(L−1)) I as w → ∞, up to fluctuations of relative size O(1/√w)."""
    depth, width, gamma = 3, 2000, 0.8
    net = gaussian_network(hidden_dims(depth, width, (2, 3)), sigma_of(width, gamma), CPU)
    expected = depth * width ** ((1 - gamma) * (depth - 1))
    deviation = net.ntk()[0].numpy() / expected - np.eye(6)
    assert np.abs(deviation).max() < 5 / np.sqrt(width)


def test_members_do_not_depend_on_the_batch_they_are_drawn_in():
    dims = (3, 5, 2)
    together = gaussian_network(dims, 0.1, CPU, seed=4, members=range(6))
    for order in ((5, 0, 3), (2,), (1, 1)):
        some = gaussian_network(dims, 0.1, CPU, seed=4, members=order)
        assert torch.equal(some.theta, together.theta[list(order)])


def test_all_members_of_all_seeds_differ_and_scale_with_sigma():
    dims = (3, 5, 2)
    draws = torch.cat([gaussian_network(dims, 1.0, CPU, seed=s, members=range(20)).theta for s in range(5)])
    assert len(torch.unique(draws)) == draws.numel()
    correlation = np.corrcoef(draws.numpy()) - np.eye(100)
    assert np.abs(correlation).max() < 0.9
    small = gaussian_network(dims, 1e-30, CPU, seed=4, members=range(20))
    torch.testing.assert_close(small.theta * 1e30, draws[80:], rtol=1e-14, atol=0)


def test_the_same_start_in_single_precision():
    single = gaussian_network((3, 5, 2), 0.1, resolve_backend("cpu", "float32"), members=(0, 1))
    double = gaussian_network((3, 5, 2), 0.1, CPU, members=(0, 1))
    assert single.theta.dtype == torch.float32
    assert torch.equal(single.theta, double.theta.float())


# ---- balanced starts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [(3, 4), (3, 5, 4), (4, 3, 6, 3), (2, 4, 4, 4, 5), (1, 3, 2)])
@pytest.mark.parametrize("rotation_seed", [None, 0])
def test_balanced_factors(dims, rotation_seed, any_backend):
    rank = min(dims)
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((dims[-1], rank)) @ rng.standard_normal((rank, dims[0]))
    net = balanced_network(matrix, dims, any_backend, rotation_seed=rotation_seed)
    assert net.dims == dims
    assert_equal(net.product()[0], matrix, any_backend.dtype_name)
    for d in net.balancedness():
        assert_equal(d[0].cpu() + torch.eye(d.shape[-1]), np.eye(d.shape[-1]), any_backend.dtype_name)
    # The shortest factors: ‖θ‖² = L Σ s_i^(2/L).
    s = np.linalg.svd(matrix, compute_uv=False)[:rank]
    depth = len(dims) - 1
    shortest = depth * (s ** (2 / depth)).sum()
    assert float(net.theta.double().square().sum()) == pytest.approx(shortest, rel=1e-5)


def test_balanced_starts_differ_by_a_rotation_of_hidden_spaces():
    matrix = np.diag([2.0, 1.0])
    plain, one, two = (balanced_network(matrix, (2, 4, 4, 2), CPU, rotation_seed=s) for s in (None, 0, 1))
    assert not torch.equal(one.theta, two.theta) and not torch.equal(plain.theta, one.theta)
    assert_equal(one.ntk(), two.ntk())


def test_a_zero_matrix_has_zero_factors():
    assert float(balanced_network(np.zeros((3, 2)), (2, 4, 3), CPU).theta.abs().max()) == 0.0


def test_a_rank_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="rank 3 does not fit through a layer of width 2"):
        balanced_network(np.eye(3), (3, 4, 2, 3), CPU)


@pytest.mark.parametrize("ends", [False, True])
def test_random_rotations_are_orthogonal(ends, any_backend):
    dims = (3, 6, 1, 4)
    turns = random_rotations(dims, any_backend, seed=2, ends=ends)
    assert [o is None for o in turns] == [not ends, False, False, not ends]
    for n, o in zip(dims, turns, strict=True):
        if o is not None:
            assert_equal(o @ o.mT, np.eye(n), any_backend.dtype_name)
    again = random_rotations(dims, any_backend, seed=2, ends=ends)
    assert torch.equal(again[1], turns[1])
    assert not torch.equal(random_rotations(dims, any_backend, seed=3, ends=ends)[1], turns[1])

"""The law of sampled reduced networks against direct Gaussian draws, by Kolmogorov–Smirnov tests.

Every p-value of this file is compared with LEVEL / TESTS: the chance that a right sampler fails anywhere here is at
most LEVEL (Bonferroni). The draws are seeded, so the outcome does not change from run to run.
"""

from importlib import import_module

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import factorization
from dlnphase.networks.krylov import project, sample, unrevealed_square_norm
from dlnphase.networks.sampling import gaussian_network, hidden_dims

BACKEND = resolve_backend("cpu")
DICE = import_module("dlnphase.networks.krylov.sample")._Dice  # the package's ``sample`` is the function
DRAWS, WIDTH, SHAPE, ORDER = 1000, 64, (2, 3), 2
SIGMA = WIDTH**-0.625  # γ = 1.25
CHUNK = 25
LEVEL = 0.01
TESTS = 100  # at least as many as are made


def direct(depth, width=WIDTH):
    return gaussian_network(hidden_dims(depth, width, SHAPE), width**-0.625, BACKEND, seed=11, members=range(DRAWS))


def reduced(depth, width=WIDTH, order=ORDER):
    return sample(depth, width, SHAPE, width**-0.625, order, BACKEND, seed=12, members=range(DRAWS))


def square(x):
    return (x**2).sum((-2, -1))


def invariants(network):
    """Statistics of the full law that a reduced network of order ≥ 2 must have exactly."""
    w, a = network.weights, network.product()
    ntk = torch.linalg.eigvalsh(network.ntk())
    out = {
        "A[0, 0]": a[:, 0, 0],
        "A[1, 2]": a[:, 1, 2],
        "‖A‖²": square(a),
        "det A Aᵀ": torch.linalg.det(a @ a.mT),
        "tr K": ntk.sum(1),
        "‖W_1‖²": square(w[0]),
        "‖W_1‖_op": torch.linalg.matrix_norm(w[0], 2),
        "‖W_L‖_op": torch.linalg.matrix_norm(w[-1], 2),
        "W_1[·, 0]·W_1[·, 1]": (w[0][:, :, 0] * w[0][:, :, 1]).sum(1),
        "‖W_2ᵀW_2W_1‖²": square(w[1].mT @ w[1] @ w[0]),
        "‖W_{L−1}W_{L−1}ᵀW_Lᵀ‖²": square(w[-2] @ w[-2].mT @ w[-1].mT),
        "tr second derivative": second_derivative(network)[:, 0, 0],
    }
    out |= {f"eigenvalue {i} of K": ntk[:, i] for i in (0, 2, 5)}
    return {name: value.numpy() for name, value in out.items()}


def second_derivative(network):
    """d²A/dt² at t = 0 for ∇C = −1 constant: J times the derivative of the gradient, by differences of the NTK."""
    slope = torch.ones_like(network.product())
    step = network.gradient(slope)
    h = 1e-3

    def speed(sign):
        moved = network.with_theta(network.theta + sign * h * step)
        return moved.jvp(moved.gradient(slope))

    return (speed(1) - speed(-1)) / (2 * h)


def smallest_p(one, two):
    p = {name: ks_2samp(one[name], two[name], method="asymp").pvalue for name in one}
    return min(p.items(), key=lambda item: item[1])


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
def test_the_law_is_that_of_full_networks(depth):
    full, small = direct(depth), reduced(depth)
    one, two = invariants(full), invariants(small)
    one["‖θ‖²"] = (full.theta**2).sum(1).numpy()
    rest = unrevealed_square_norm(depth, WIDTH, SHAPE, SIGMA, ORDER, seed=12, members=range(DRAWS))
    two["‖θ‖²"] = (small.theta**2).sum(1).numpy() + rest
    name, p = smallest_p(one, two)
    assert p > LEVEL / TESTS, (name, p)


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_the_law_is_that_of_projected_networks(depth):
    """Inner layers, seen through what hidden rotations leave alone."""

    def spectra(network):
        out = {}
        for index, w in enumerate(network.weights[1:-1], start=2):
            values = torch.linalg.svdvals(w)
            out |= {f"‖Ŵ_{index}‖²": square(w), f"s_1 of Ŵ_{index}": values[:, 0], f"s_5 of Ŵ_{index}": values[:, 4]}
            out[f"last s of Ŵ_{index}"] = values[:, -1]
        return {key: value.numpy() for key, value in out.items()}

    name, p = smallest_p(spectra(project(direct(depth), ORDER).network), spectra(reduced(depth)))
    assert p > LEVEL / TESTS, (name, p)


def escape_times(network, share=0.7, step=0.04, steps=20):
    """When C first falls to a share of C at the origin, by classical Runge–Kutta with a fixed step, in float32."""
    if network.batch > CHUNK:  # what fits a cache is several times faster
        chunks = [network.select(slice(i, i + CHUNK)) for i in range(0, network.batch, CHUNK)]
        return np.concatenate([escape_times(chunk, share, step, steps) for chunk in chunks])
    network = network.with_theta(network.theta.float())
    cost = factorization(np.array([[3.0, 0.0, 0.0], [0.0, 1.5, 0.0]]), resolve_backend("cpu", "float32"))
    level = share * cost.excess(torch.zeros_like(network.product()))

    def velocity(theta):
        at = network.with_theta(theta)
        prefixes = at.prefixes()
        return -at.gradient(cost.gradient(prefixes[-1]), prefixes)

    theta = network.theta
    costs = [cost.excess(network.product())]
    for _ in range(steps):
        k1 = velocity(theta)
        k2 = velocity(theta + step / 2 * k1)
        k3 = velocity(theta + step / 2 * k2)
        k4 = velocity(theta + step * k3)
        theta = theta + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        costs.append(cost.excess(network.with_theta(theta).product()))
    path = torch.stack(costs)  # (steps + 1, draws)
    after = (path > level).sum(0).clamp(1, steps)
    high, low = path.gather(0, after[None] - 1)[0], path.gather(0, after[None])[0]
    return (step * (after - 1 + (high - level) / (high - low))).numpy()


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
def test_escape_times_have_the_law_of_full_networks(depth):
    full, small = escape_times(direct(depth)), escape_times(reduced(depth, order=3))
    assert np.std(full) > 0.05 * np.mean(full)  # a spread to speak of
    p = ks_2samp(full, small, method="asymp").pvalue
    assert p > LEVEL / TESTS, p


# ---- these tests can fail ---------------------------------------------------------------------------


def wrong_freedom(self, new, pushed, free):
    """χ_w in place of χ_{w−m}: forgets the directions that are known already."""
    return right_factor(self, new, pushed, WIDTH)


def wrong_meeting(self, target, up, count):
    """Gaussian entries where the other layer is known to be zero."""
    layer = target if up else target - 1
    weight = self.layers[layer] if up else self.layers[layer].mT
    grown = np.concatenate([weight, self._normal(weight.shape[1], count)], axis=2)
    self.layers[layer] = grown if up else grown.mT


right_factor = DICE._factor


@pytest.mark.parametrize(("name", "wrong"), [("_factor", wrong_freedom), ("_meet", wrong_meeting)])
def test_a_wrong_law_is_caught(monkeypatch, name, wrong):
    one = invariants(direct(4))
    monkeypatch.setattr(DICE, name, wrong)
    assert smallest_p(one, invariants(reduced(4)))[1] < LEVEL / TESTS

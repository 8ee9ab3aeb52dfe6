"""Escape rates on paths in closed form; the curvature that the bulk of the start leaves at the nearest saddle."""

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import factorization
from dlnphase.costs.tasks import planted_matrix
from dlnphase.critical import HostCost, refine_matrix, refine_weights
from dlnphase.critical.curvature import curvature_at
from dlnphase.critical.escape import escape_of, growth_time
from dlnphase.networks.sampling import gaussian_network

CPU = resolve_backend("cpu")


def mode_path(depth, s, start, count=400):
    """a(t) of ȧ = L a^(2−2/L) (s − a), by scipy at tight tolerance."""

    def slope(t, a):
        return depth * a ** (2 - 2 / depth) * (s - a)

    def grown(t, a):
        return a[0] - 0.9 * s

    grown.terminal = True
    solution = solve_ivp(slope, (0, 1e6), [start], rtol=1e-11, atol=1e-14 * s, events=grown, dense_output=True)
    times = np.linspace(0, solution.t[-1], count)
    return times, solution.sol(times)[0]


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("learned", [0, 1])
def test_the_rate_of_a_balanced_escape_is_the_next_mode(depth, learned):
    target = planted_matrix((5, 4), (6.0, 2.5, 1.0), 0)
    host = HostCost(factorization(target, CPU))
    u, s, vt = np.linalg.svd(target)
    critical = (u[:, :learned] * s[:learned]) @ vt[:learned]
    time, a = mode_path(depth, s[learned], 1e-3 * s[learned])
    matrices = critical + a[:, None, None] * np.outer(u[:, learned], vt[learned])
    escape = escape_of(time, matrices, refine_matrix(critical, host), host, depth)
    assert escape.rate == pytest.approx(s[learned], rel=1e-4)
    assert escape.alignment == pytest.approx(1.0)
    # A path that goes elsewhere is not aligned, and one that stays gives nothing.
    other = critical + a[:, None, None] * (np.outer(u[:, learned], vt[learned]) + np.outer(u[:, 3], vt[3]))
    assert escape_of(time, other, refine_matrix(critical, host), host, depth).alignment == pytest.approx(0.5**0.5)
    assert escape_of(time[:5], matrices[:5], refine_matrix(critical, host), host, depth) is None
    assert escape_of(time, matrices, refine_matrix(target, host), host, depth) is None


def test_a_clock_too_coarse_for_the_growth_gives_no_rate():
    target = planted_matrix((5, 4), (6.0, 2.5), 0)
    host = HostCost(factorization(target, CPU))
    u, s, vt = np.linalg.svd(target)
    time, a = mode_path(2, s[0], 1e-3)
    matrices = a[:, None, None] * np.outer(u[:, 0], vt[0])
    escape = escape_of(1e17 + time, matrices, refine_matrix(np.zeros((5, 4)), host), host, 2)
    assert escape.rate is None and escape.alignment == pytest.approx(1.0)


def test_tied_modes_may_leave_along_any_of_their_directions():
    target = planted_matrix((5, 4), (3.0, 3.0, 1.0), 0)
    host = HostCost(factorization(target, CPU))
    u, _, vt = np.linalg.svd(target)
    x = np.array([0.6, 0.8])
    time, a = mode_path(3, 3.0, 3e-3)
    matrices = a[:, None, None] * np.outer(u[:, :2] @ x, x @ vt[:2])
    escape = escape_of(time, matrices, refine_matrix(np.zeros((5, 4)), host), host, 3)
    assert escape.alignment == pytest.approx(1.0) and escape.rate == pytest.approx(3.0, rel=1e-4)


@pytest.mark.parametrize("depth", [3, 4])
def test_the_bulk_gives_the_nearest_saddle_its_curvature(depth):
    """At the origin: −s_1 ‖W_{L−1} ⋯ W_2‖, while the minimal point next to it has none."""
    target = planted_matrix((4, 4), (7.0, 4.0, 2.0, 1.0), 0)
    host = HostCost(factorization(target, CPU))
    network = gaussian_network((4, *[15] * (depth - 1), 4), 0.02, CPU)
    weights = [w[0].numpy() for w in network.weights]
    visited, nearest = refine_weights(weights, refine_matrix(network.product()[0].numpy(), host), host)
    bulk = weights[1]
    for w in weights[2:-1]:
        bulk = w @ bulk
    assert curvature_at(nearest.weights, host, 1e-9).min_eigenvalue == pytest.approx(-7 * np.linalg.norm(bulk, 2))
    assert curvature_at(visited.weights, host, 1e-9).min_eigenvalue == 0.0


@pytest.mark.parametrize("depth", [2, 3, 4, 10])
@pytest.mark.parametrize(("start", "end"), [(0.01, 0.1), (0.02, 0.999), (1e-9, 0.5), (1e-3, 1.001e-3)])
def test_the_growth_time_is_the_integral(depth, start, end):
    """Against adaptive quadrature of the integrand as it stands, in ln a."""

    def integrand(x):
        return np.exp(x * (2 / depth - 1)) / (depth * (1 - np.exp(x)))

    expected, _ = quad(integrand, np.log(start), np.log(end), epsabs=0, epsrel=1e-13)
    assert growth_time(start, end, depth) == pytest.approx(expected, rel=1e-12)

"""Thresholds that nothing else would notice: each test fails when its constant is ten times as large, or a tenth."""

import numpy as np
import pytest

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import factorization
from dlnphase.critical import HostCost, certify, refine_matrix, refine_weights
from dlnphase.critical.bottleneck import reaches
from dlnphase.critical.curvature import touched_frames
from dlnphase.critical.escape import _rate, growth_time
from dlnphase.critical.lanczos import KrylovSpace
from dlnphase.critical.manifold import LowRank, equal_leading
from dlnphase.critical.matrix import _possible
from dlnphase.detect.sparse import far_apart, followed
from dlnphase.detect.speed import speed_factor
from dlnphase.detect.trace import MemberTrace
from dlnphase.distances.exponents import _verdict
from dlnphase.distances.representation import choose

CPU = resolve_backend("cpu")


def falling(ratio, count, speed=2.0):
    """(t, C − C_min, ‖∇𝓛‖) of C = ½a² under ȧ = −speed·a with ‖∇𝓛‖ = a: a falls by ``ratio`` from record to record."""
    a = ratio ** -np.arange(count, dtype=float)
    return np.log(ratio) / speed * np.arange(count), a**2 / 2, a


def test_a_speed_is_told_from_eight_pairs_on():
    """ENOUGH trades a constant told early against one that two or three unlike steps make up."""
    assert speed_factor(*falling(1.1, 9)).value == pytest.approx(2.0, rel=0.01)
    assert speed_factor(*falling(1.1, 8)) is None


def test_a_speed_is_told_from_records_between_which_the_gradient_hardly_changes():
    """LITTLE: over a factor of 4 the trapezoid is off by 16 %, always to the same side, and nothing would show it."""
    assert speed_factor(*falling(4.0, 20)) is None
    assert speed_factor(*falling(1.15, 20)).value == pytest.approx(2.0, rel=0.01)


def test_a_speed_is_told_from_falls_of_the_cost_above_round_off():
    """CLEAR: dense records fall by 0.3 % each and count; falls of 0.03 % may be those of a path saved in few digits."""
    assert speed_factor(*falling(1.0015, 20)).value == pytest.approx(2.0, rel=0.01)
    assert speed_factor(*falling(1.00015, 20)) is None


def one_mode(a):
    """Two records of one weight a layer, L = 2, target 1: ȧ = 2a(1 − a), so that a/(1 − a) grows as e^(2t)."""
    a = np.asarray(a, dtype=float)
    time = 0.5 * np.log(a / (1 - a) * (1 - a[0]) / a[0])
    weights = [[np.array([[x]]), np.array([[x]])] for x in np.sqrt(a)]
    norm = np.sqrt(2 * a) * (1 - a)
    columns = time, np.arange(2), 0.5 * (1 - a) ** 2, norm, a[:, None, None]
    return MemberTrace(*columns, weights=lambda i: weights[i]), factorization(np.array([[1.0]]), CPU)


@pytest.mark.parametrize(("ratio", "apart"), [(1.4, False), (2.0, True)])
def test_records_are_far_apart_where_the_gradient_changes_by_half_of_its_logarithm(ratio, apart):
    """JUMP trades integrations against bursts that stay unseen: below, the trapezoid between two records tells all."""
    time, excess, norm = falling(ratio, 4)
    trace = MemberTrace(time, np.arange(4), excess, norm, np.zeros((4, 1, 1)))
    assert far_apart(trace).tolist() == [apart] * 3


@pytest.mark.parametrize(("fall", "filled"), [(5e-4, 0), (5e-3, 1)])
def test_stretches_on_which_the_cost_hardly_falls_are_not_followed(fall, filled):
    """QUIET: a burst costs more than a thousandth of what is left, and plateaus are long to integrate."""
    first = 0.3
    trace, cost = one_mode((first, 1 - (1 - first) * np.sqrt(1 - fall)))
    assert followed(trace, cost, np.array([True]), rtol=1e-6)[1:] == (filled, 0)


@pytest.mark.parametrize(("finite", "verdict"), [(0.01, "agrees"), (0.05, "differs")])
def test_a_slope_that_still_moves_much_with_the_width_has_no_distance_to_the_asymptote(finite, verdict):
    """SETTLED: what the last local slopes change by is allowed for, unless the asymptote has not set in."""
    assert _verdict(0.5, (0.499, 0.501), finite, 0.5 + 0.9 * finite, []) == verdict


@pytest.mark.parametrize(("size", "width", "full"), [(2, 64, True), (2, 65, False), (10, 100, True), (10, 150, False)])
def test_a_network_is_held_in_full_where_a_reduction_leaves_little_out(size, width, full):
    """FULL_BELOW and WORTHWHILE trade exact distances against the size of what is searched."""
    held = choose(3, width, factorization(np.diag(np.linspace(1.0, 2.0, size)), CPU), CPU, seed=0, member=0)
    assert (held.order is None) == full


def test_the_order_of_a_reduction_is_the_first_at_which_distances_stand_still():
    """TOLERANCE trades digits of a distance against the size of the network."""
    held = choose(3, 10**6, factorization(np.diag([3.0, 1.5]), CPU), CPU, seed=0, member=0)
    assert 3e-4 < held.error <= 2e-3 and max(held.hidden) < 40


# ---- critical points -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("late", "told"), [(1e8, True), (1e11, False)])
def test_a_growth_is_timed_where_the_clock_resolves_it(late, told):
    """RESOLVED trades rates of late escapes against ones made of the last digits of t."""
    amplitude = np.array([0.001, 0.02, 0.2])
    time = late + np.array([0.0, growth_time(0.001, 0.02, 2), growth_time(0.001, 0.2, 2)])
    rate = _rate(time, amplitude, 2, 1.0, 2, None)
    assert (rate == pytest.approx(1.0, rel=1e-6)) if told else rate is None


@pytest.mark.parametrize(("size", "touched"), [(1e-10, 2), (1e-14, 1)])
def test_what_layers_hold_beside_round_off_is_touched(size, touched):
    """TOUCHED: counted as free, a channel of size 1e-10 would have its curvature left out; 1e-14 is round-off."""
    layer = np.diag([1.0, size])
    assert touched_frames([layer, layer])[1].shape[1] == touched


@pytest.mark.parametrize(("beside", "count"), [(1e-11, 2), (1e-15, 1)])
def test_a_krylov_space_is_closed_by_round_off_alone(beside, count):
    """EXHAUSTED: a part of 1e-11 in another eigenvector leads on; beyond round-off there is noise to follow."""
    space = KrylovSpace(lambda x: np.array([1.0, 2.0, 3.0]) * x, np.array([1.0, beside, 0.0]), 3)
    assert list(space.grow())[-1] == count and space.closed


@pytest.mark.parametrize(("left", "kind"), [(1e-7, "strict-saddle"), (1e-10, "degenerate-saddle")])
def test_curvature_counts_above_the_round_off_of_a_certificate(left, kind):
    """ZERO_CURVATURE: the curvature along a mode of 1e-7 that is left, L = 2, is more than round-off of the Hessian."""
    host = HostCost(factorization(np.diag([1.0, left]), CPU))
    point = refine_matrix(np.diag([1.0, 0.0]), host, rank=1)
    visited, _ = refine_weights([np.eye(3, 2) * [1.0, 0.0], np.eye(2, 3) * [[1.0], [0.0]]], point, host)
    assert certify(visited, host).kind == kind


@pytest.mark.parametrize(("apart", "ties"), [(1e-7, 2), (1e-5, 1)])
def test_modes_that_refinement_cannot_tell_apart_are_tied(apart, ties):
    """TIE: which of two equal modes is learned next is not decided; of two that differ by 1e-5 it is the larger."""
    assert equal_leading(np.array([1.0, 1.0 - apart, 0.5])) == ties


@pytest.mark.parametrize(("mode", "ranks"), [(1e-12, [0, 1, 2]), (1e-14, [0, 1])])
def test_a_rank_is_looked_at_where_its_mode_is_more_than_round_off(mode, ranks):
    """EMPTY_MODE trades searches along round-off against critical points with a tiny mode."""
    host = HostCost(factorization(np.eye(2), CPU))
    assert _possible(LowRank.of(np.diag([1.0, mode])), host)[0] == ranks


@pytest.mark.parametrize(("mode", "rank"), [(1e-5, 2), (1e-7, 1)])
def test_modes_of_a_target_are_told_from_what_it_was_rounded_by(mode, rank):
    """DISTINCT: a mode of 1e-5 is there to be learned; one of 1e-7 may be the rounding of numbers in a file."""
    target = np.diag([1.0, mode])
    assert HostCost(factorization(target, CPU)).nearest_modes(target)[1] == rank


@pytest.mark.parametrize(("above", "least"), [(1e-10, True), (1e-8, False)])
def test_a_least_value_is_reached_to_round_off(above, least):
    """SAME_COST: a minimum is called global where its cost is the least one, and not where it is 1e-8 above it."""
    assert reaches(1.0 + above, 1.0) is least

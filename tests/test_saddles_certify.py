"""Critical points in parameter space and their certificates; the oracle is the dense Hessian of autograd."""

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import completion, factorization
from dlnphase.costs.tasks import planted_matrix, planted_task
from dlnphase.critical import HostCost, certify, find_visits, refine_matrix, refine_weights
from dlnphase.critical.curvature import curvature_at
from dlnphase.critical.hessian import hessian_vector_product, lanczos, smallest_eigenvalues
from dlnphase.dynamics.flow import gradient_flow
from dlnphase.networks.chain import Network
from dlnphase.networks.sampling import balanced_network, gaussian_network, hidden_dims

CPU = resolve_backend("cpu")
VALUES = (7.0, 4.0, 2.0, 1.0)
TASKS = [("factorization", VALUES), ("completion", VALUES[:2]), ("sensing", VALUES[:2]), ("regression", VALUES)]


def autograd_hessian(network, cost):
    def loss(theta):
        return cost.value(Network(theta[None], network.dims).product())[0]

    return torch.autograd.functional.hessian(loss, network.theta[0].clone(), vectorize=True).numpy()


def network_of(weights):
    return Network.from_weights([torch.as_tensor(w) for w in weights])


def spread(matrix, hidden, seed=1):
    """Balanced factors of a matrix in rotated hidden spaces, as host arrays."""
    net = balanced_network(matrix, (matrix.shape[1], *hidden, matrix.shape[0]), CPU, rotation_seed=seed)
    return [w[0].numpy().copy() for w in net.weights]


def kept(target, modes):
    u, s, vt = np.linalg.svd(target, full_matrices=False)
    return (u[:, modes] * s[modes]) @ vt[modes]


def certified(weights, cost, **options):
    host = HostCost(cost)
    product = weights[0]
    for w in weights[1:]:
        product = w @ product
    visited, nearest = refine_weights(weights, refine_matrix(product, host), host)
    return visited, nearest, certify(visited, host, **options)


def path_of(network, cost, **options):
    return [
        (float(r.time[0]), int(r.step[0]), float(r.excess[0]), float(r.gradient_norm[0]), r.weights(0))
        for r in gradient_flow(network, cost, **options)
    ]


@pytest.mark.parametrize(("kind", "values"), TASKS)
@pytest.mark.parametrize("hidden", [(), (3,), (6, 3), (3, 5, 4)])
def test_hessian_vector_products_are_those_of_autograd(kind, values, hidden):
    cost = planted_task(kind, (4, 5), values, CPU).cost
    network = gaussian_network((5, *hidden, 4), 0.7, CPU)
    expected = autograd_hessian(network, cost)
    eye = torch.eye(len(expected), dtype=torch.float64)
    assert np.allclose(
        hessian_vector_product(network, cost, eye).numpy(), expected, atol=1e-13 * np.abs(expected).max()
    )


@pytest.mark.parametrize("hidden", [(7,), (6, 5), (5, 6, 5)])
def test_lanczos_and_the_dense_matrix_agree_with_autograd(hidden):
    cost = planted_task("completion", (4, 5), (7.0, 4.0), CPU).cost
    network = gaussian_network((5, *hidden, 4), 0.5, CPU)
    values = np.linalg.eigvalsh(autograd_hessian(network, cost))
    for dense in (0, 10**6):
        pairs = smallest_eigenvalues(network, cost, 1e-9, dense=dense)
        assert pairs.smallest == pytest.approx(values[0], rel=1e-10)
        assert pairs.residual <= 1e-8 * np.abs(values).max()
        # A true eigenvalue lies within the residual of each that is reported; generic spectra are counted in full.
        assert pairs.negative == (values < -1e-9).sum()
    assert smallest_eigenvalues(network, cost, 1e-9, dense=10**6).complete


def test_lanczos_is_not_misled_by_null_spaces_or_multiplicity():
    rng = np.random.default_rng(0)
    q = ortho_group.rvs(300, random_state=rng)
    for values, expected in (
        ([-2.0] * 3 + [0.0] * 290 + [5.0] * 7, -2.0),
        ([0.0] * 299 + [3.0], 0.0),
        ([0.0] * 300, 0.0),
    ):
        matrix = (q * np.array(values)) @ q.T
        if not any(values):
            matrix[:] = 0.0
        found = lanczos(lambda x, m=matrix: m @ x, 300, 1e-9)
        assert found.smallest == pytest.approx(expected, abs=1e-12)
        assert found.residual < 1e-12
        assert found.negative <= sum(v < 0 for v in values)


@pytest.mark.parametrize("hidden", [(9,), (6, 7), (6, 5, 7)])
@pytest.mark.parametrize("modes", [[], [0], [0, 1], [1], [0, 2], [3], [1, 2, 3]])
def test_every_set_of_modes_is_named_and_counted_rightly(hidden, modes):
    """Greedy sets are degenerate for L ≥ 3; one with an unlearned mode above a learned one is strict."""
    target = planted_matrix((5, 4), VALUES, 0)
    cost = factorization(target, CPU)
    weights = spread(kept(target, modes), hidden)
    visited, nearest, certificate = certified(weights, cost)
    missed = [s for i, s in enumerate(VALUES) if i not in modes]
    greedy = modes == list(range(len(modes)))
    strict = len(hidden) == 1 or not greedy
    assert certificate.kind == ("strict-saddle" if strict else "degenerate-saddle")
    assert certificate.descent.order == (2 if strict else len(hidden) + 1)
    assert certificate.descent.ratio == pytest.approx(1, abs=0.01)
    assert certificate.descent.measured_order == pytest.approx(certificate.descent.order, abs=0.01)
    assert certificate.next_mode == pytest.approx(max(missed), rel=1e-12)
    assert visited.gradient_norm <= 1e-12 and nearest.distance <= visited.distance <= 1e-12
    assert visited.point.cost == pytest.approx(0.5 * sum(s**2 for s in missed), rel=1e-10)
    values = np.linalg.eigvalsh(autograd_hessian(network_of(weights), cost))
    curvature = certificate.curvature
    assert curvature.complete and curvature.residual < 1e-11
    assert curvature.min_eigenvalue == pytest.approx(values[0], abs=1e-11)
    assert curvature.negative_eigenvalues == (values < -curvature.threshold).sum()
    if len(hidden) == 1:
        assert curvature.min_eigenvalue == pytest.approx(-max(missed), rel=1e-6)


def test_a_critical_point_with_a_large_unused_layer_is_not_taken_for_the_origin():
    """W_1 = W_2 = 0 and any W_3 is critical; its curvature is −‖W_3‖ times the leading mode, not zero."""
    cost = factorization(planted_matrix((5, 4), VALUES, 0), CPU)
    weights = [np.zeros((6, 4)), np.zeros((6, 6)), np.random.default_rng(0).standard_normal((5, 6))]
    visited, _, certificate = certified(weights, cost)
    values = np.linalg.eigvalsh(autograd_hessian(network_of(weights), cost))
    assert visited.form == "nearest" and visited.distance < 1e-12
    assert certificate.kind == "strict-saddle" and certificate.descent.order == 2
    assert certificate.curvature.min_eigenvalue == pytest.approx(values[0], rel=1e-10)
    assert certificate.curvature.negative_eigenvalues == (values < -certificate.curvature.threshold).sum()


@pytest.mark.parametrize("hidden", [(8,), (6, 7), (5, 6, 5)])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_the_nearest_point_keeps_the_bulk_and_is_critical(hidden, rank):
    target = planted_matrix((5, 4), VALUES[:3], 0)
    cost = HostCost(factorization(target, CPU))
    rng = np.random.default_rng(rank)
    weights = [w + 0.02 * rng.standard_normal(w.shape) for w in spread(kept(target, list(range(rank))), hidden)]
    point = refine_matrix(np.linalg.multi_dot(weights[::-1]), cost)
    visited, nearest = refine_weights(weights, point, cost)
    assert visited.form == "minimal" and point.rank == rank
    for found in (visited, nearest):
        network = network_of(found.weights)
        gradient = network.gradient(cost.cost.gradient(network.product()))
        assert float(gradient.norm()) <= 1e-12 * found.unit
        s = np.linalg.svd(network.product()[0].numpy(), compute_uv=False)
        assert (s > 1e-10).sum() == rank
        moved = np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(found.weights, weights, strict=True)))
        assert found.distance == pytest.approx(moved)
    assert nearest.distance < visited.distance
    # Curvature of the bulk for L ≥ 3 is real and agrees with autograd, whichever channels it runs through.
    curvature = curvature_at(nearest.weights, cost, 1e-9)
    values = np.linalg.eigvalsh(autograd_hessian(network_of(nearest.weights), cost.cost))
    assert curvature.min_eigenvalue == pytest.approx(values[0], rel=1e-9)
    assert curvature.negative_eigenvalues == (values < -1e-9).sum()


def test_distances_at_initialisation_follow_the_theory():
    """L = 2, r modes, w → ∞: √(2r)·α from θ_0 to the nearest saddle (docs/theory.md, section 3)."""
    sigma, width = 1e-4, 4000
    cost = HostCost(factorization(planted_matrix((5, 4), VALUES, 0), CPU))
    network = gaussian_network((4, width, 5), sigma, CPU)
    weights = [w[0].numpy() for w in network.weights]
    _, nearest = refine_weights(weights, refine_matrix(weights[1] @ weights[0], cost), cost)
    assert nearest.distance == pytest.approx(np.sqrt(8) * sigma * np.sqrt(width), rel=0.02)


@pytest.mark.parametrize(("depth", "sigma"), [(2, 1e-6), (3, 1e-3), (4, 5e-3)])
def test_a_path_visits_every_rank_in_order_each_certified(depth, sigma):
    task = planted_task("factorization", (8, 6), VALUES, CPU)
    records = path_of(gaussian_network(hidden_dims(depth, 20, task.shape), sigma, CPU), task.cost)
    t, step, excess, norm = (np.array([r[i] for r in records]) for i in range(4))
    for threshold in (0.25, 1.0):
        assert len(find_visits(t, step, excess, norm, min_prominence=threshold)) == 5
    visits = find_visits(t, step, excess, norm)
    for rank, visit in enumerate(visits):
        visited, nearest, certificate = certified(records[visit.index][4], task.cost)
        point = visited.point
        assert point.converged and point.rank == rank
        assert point.cost == pytest.approx(0.5 * sum(s**2 for s in VALUES[rank:]), rel=1e-10, abs=1e-20)
        assert visited.gradient_norm <= 1e-12 and nearest.distance <= visited.distance
        if rank == 4:
            assert certificate.kind == "global-minimum" and certificate.curvature.min_eigenvalue > -1e-9
            continue
        assert certificate.next_mode == pytest.approx(VALUES[rank], rel=1e-10)
        assert certificate.descent.order == depth
        assert certificate.descent.obtained == pytest.approx(
            VALUES[rank] * certificate.descent.epsilon**depth, rel=0.01
        )
        if depth == 2:
            assert certificate.kind == "strict-saddle"
            assert certificate.curvature.min_eigenvalue == pytest.approx(-VALUES[rank], rel=1e-6)
            # One negative eigenvalue per unlearned mode and free channel.
            assert certificate.curvature.negative_eigenvalues == (4 - rank) * (20 - rank)
        else:
            assert certificate.kind == "degenerate-saddle"
            assert abs(certificate.curvature.min_eigenvalue) < 1e-9
            assert certificate.curvature.negative_eigenvalues == 0


def test_free_channels_are_counted_by_the_true_width():
    target = planted_matrix((5, 4), VALUES, 0)
    _, _, certificate = certified(spread(kept(target, [0]), (9,)), factorization(target, CPU), hidden=(10**9,))
    assert certificate.curvature.negative_eigenvalues == 3 * (10**9 - 1)


@pytest.mark.parametrize("hidden", [(6,), (5, 6)])
def test_equal_leading_modes_are_said(hidden):
    target = planted_matrix((5, 4), (5.0, 5.0, 1.0), 0)
    cost = factorization(target, CPU)
    _, _, certificate = certified(spread(np.zeros((5, 4)), hidden), cost)
    assert certificate.ties == 2 and "2 equal leading modes" in certificate.note
    visited, _, certificate = certified(spread(kept(target, [0]), hidden), cost)
    assert visited.point.rank == 1 and certificate.ties == 1
    # For L ≥ 3 an unlearned mode as large as a learned one is exactly at the border: still no negative curvature.
    assert certificate.kind == ("strict-saddle" if len(hidden) == 1 else "degenerate-saddle")


@pytest.mark.parametrize("hidden", [(2,), (2, 2), (2, 5, 3)])
def test_width_equal_to_the_rank(hidden):
    target = planted_matrix((5, 4), (5.0, 2.0), 0)
    cost = factorization(target, CPU)
    kinds = [certified(spread(kept(target, list(range(k))), hidden), cost)[2].kind for k in range(3)]
    saddle = "strict-saddle" if len(hidden) == 1 else "degenerate-saddle"
    assert kinds == [saddle, saddle, "global-minimum"]


@pytest.mark.parametrize("hidden", [(1,), (1, 1), (3, 1)])
def test_narrower_than_the_target(hidden):
    target = planted_matrix((5, 4), (5.0, 2.0), 0)
    cost = factorization(target, CPU)
    _, _, certificate = certified(spread(kept(target, [0]), hidden), cost)
    assert certificate.kind == "global-minimum" and "width 1 allows" in certificate.note
    _, _, certificate = certified(spread(kept(target, [1]), hidden), cost)
    assert certificate.kind == "strict-saddle"
    mask = np.ones((5, 4), bool)
    mask[0, 1] = False
    masked = completion(target, mask, CPU)
    point = refine_matrix(kept(target, [0]), masked)
    _, _, certificate = certified(spread(point.A, hidden), masked)
    assert certificate.kind == "local-minimum" and "the least cost at this width is not known" in certificate.note


@pytest.mark.parametrize("hidden", [(7,), (6, 6), (5, 6, 5)])
def test_a_row_that_is_never_observed_and_a_zero_target(hidden):
    target = planted_matrix((5, 4), (5.0, 2.0), 0)
    mask = np.ones((5, 4), bool)
    mask[2] = False
    cost = completion(target, mask, CPU)
    seen = np.where(mask, target, 0.0)
    kinds = [certified(spread(kept(seen, list(range(k))), hidden), cost)[2].kind for k in range(3)]
    saddle = "strict-saddle" if len(hidden) == 1 else "degenerate-saddle"
    assert kinds == [saddle, saddle, "global-minimum"]
    rng = np.random.default_rng(0)
    weights = [1e-3 * rng.standard_normal(w.shape) for w in spread(kept(seen, [0]), hidden)]
    visited, _, certificate = certified(weights, factorization(np.zeros((5, 4)), CPU))
    assert certificate.kind == "global-minimum" and visited.point.rank == 0


def test_a_point_between_two_saddles_is_not_critical():
    target = planted_matrix((5, 4), (5.0, 4.0), 0)
    weights = spread(0.7 * kept(target, [0]) + 0.6 * kept(target, [1]), (6, 6))
    _, _, certificate = certified(weights, factorization(target, CPU))
    assert certificate.kind == "not-critical" and certificate.curvature is None

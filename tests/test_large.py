"""Large matrices: products instead of dense matrices, the same answers, and no memory that grows like D²."""

import tracemalloc

import numpy as np
import pytest

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import completion
from dlnphase.costs.tasks import planted_matrix
from dlnphase.critical import HostCost, is_stable, refine_matrix
from dlnphase.critical import matrix as refinement
from dlnphase.critical.manifold import Frame, LowRank, top_pair
from dlnphase.critical.steps import MEMORY

CPU = resolve_backend("cpu")


def half_seen(shape, values, share=0.6, seed=0):
    """A planted matrix and the cost of completing it from a share of its entries."""
    target = planted_matrix(shape, values, seed)
    seen = np.random.default_rng(seed + 1).random(shape) < share
    return target, HostCost(completion(target, seen, CPU))


def near(target, rank, size, seed=2):
    noise = np.random.default_rng(seed).standard_normal(target.shape)
    return LowRank.of(target, rank).matrix + size * noise / np.linalg.norm(noise)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_steps_from_products_find_the_points_that_eigenpairs_find(rank, monkeypatch):
    target, host = half_seen((20, 16), (9.0, 5.0, 2.5), share=0.9)
    a = near(refine_matrix(LowRank.of(target, rank).matrix, host, rank=rank).A, rank, 0.1)
    found = {}
    for dense in (10**9, 0):
        monkeypatch.setattr(refinement, "DENSE", dense)
        found[dense] = refine_matrix(a, host)
    for point in found.values():
        assert point.converged and point.rank == rank
    eigenpairs, products = found.values()
    # The minimum is one point, too: 90 % of 320 entries fix a matrix of rank 3, of 99 dimensions.
    assert np.linalg.norm(products.A - eigenpairs.A) < 1e-9 * np.linalg.norm(eigenpairs.A)
    assert products.next_mode == pytest.approx(eigenpairs.next_mode, rel=1e-9)


def test_descent_from_products_finds_what_descent_from_eigenpairs_finds(monkeypatch):
    target, host = half_seen((30, 25), (9.0, 5.0, 2.5))
    a = near(target, 2, 3.0)
    found = []
    for dense in (10**9, 0):
        monkeypatch.setattr(refinement, "DENSE", dense)
        point = refinement._refine_at(a, LowRank.of(a), host, 2, descend=True)
        found.append(point)
        assert point.gradient_norm < 1e-12
    assert np.linalg.norm(found[1].A - found[0].A) < 1e-9 * np.linalg.norm(found[0].A)


def test_products_with_the_hessian_are_second_derivatives_on_the_manifold():
    target, host = half_seen((9, 7), (5.0, 3.0, 1.0), share=0.8)
    point = LowRank.of(near(target, 3, 0.5), 2)
    frame, rng = Frame(point), np.random.default_rng(3)
    x = frame.coordinates(rng.standard_normal((9, 7)))
    assert np.linalg.norm(x) == pytest.approx(np.linalg.norm(frame.ambient(x)))
    assert frame.tangent(x) == pytest.approx(x)
    h = 1e-4  # the closest matrix of rank r is a retraction of second order
    values = [host.excess(frame.moved(t * x).matrix) for t in (-h, 0.0, h)]
    second = (values[0] - 2 * values[1] + values[2]) / h**2
    assert x @ frame.hessian(host, host.flat_gradient(point.matrix), x[None])[0] == pytest.approx(second, rel=1e-6)
    basis = frame.basis()
    assert len(basis) == frame.dimension == 2 * (9 + 7 - 2)
    assert basis @ basis.T == pytest.approx(np.eye(len(basis)), abs=1e-12)
    assert (x @ basis.T) @ basis == pytest.approx(x)


@pytest.mark.parametrize("kind", ["minimum", "saddle"])
def test_stability_is_told_alike_by_products_and_by_eigenpairs(kind, monkeypatch):
    shape, values = (20, 16), (6.0, 3.0, 1.5)
    target = planted_matrix(shape, values, 0)
    host = HostCost(completion(target, np.ones(shape, dtype=bool), CPU))
    u, s, vt = np.linalg.svd(target, full_matrices=False)
    keep = [0, 1] if kind == "minimum" else [0, 2]  # a mode left out that is larger than one kept: it can be swapped in
    point = refine_matrix((u[:, keep] * s[keep]) @ vt[keep], host)
    assert point.converged and point.rank == 2
    for dense in (10**9, 0):
        monkeypatch.setattr(refinement, "DENSE", dense)
        assert is_stable(point, host) == (kind == "minimum")


def test_refinement_of_a_large_matrix_takes_memory_of_its_size():
    shape = (150, 120)
    target, host = half_seen(shape, (9.0, 5.0, 2.5), share=0.3)
    a = near(target, 2, 0.05)  # of full rank: candidate ranks go up to 120, with 18 000 dimensions
    tracemalloc.start()
    point = refine_matrix(a, host)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert point.converged and point.rank == 2
    assert peak < MEMORY + 100 * a.nbytes  # a dense Hessian of rank 120 would take D² numbers, 2.6 GB


def test_the_top_pair_of_a_large_matrix_is_that_of_the_dense_decomposition():
    rng = np.random.default_rng(5)
    g = rng.standard_normal((220, 260)) + 3 * np.outer(rng.standard_normal(220), rng.standard_normal(260))
    u, s, vt = np.linalg.svd(g, full_matrices=False)
    size, left, right = top_pair(g)
    assert size == pytest.approx(s[0], rel=1e-13)
    assert np.outer(left, right) == pytest.approx(np.outer(u[:, 0], vt[0]), abs=1e-9)

"""The greedy path: against closed forms, against paths of falling α, and against itself from other ε."""

import numpy as np
import pytest

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import completion, factorization
from dlnphase.costs.tasks import planted_matrix, planted_task
from dlnphase.critical import HostCost, find_visits, refine_matrix
from dlnphase.critical.greedy import greedy_path, opened
from dlnphase.dynamics.flow import gradient_flow
from dlnphase.errors import InputError
from dlnphase.networks.sampling import gaussian_network, hidden_dims

CPU = resolve_backend("cpu")
VALUES = (7.0, 4.0, 2.0, 1.0)


def followed(cost, depth, **options):
    points = []
    options = {"rtol": 5e-3, "check": False, **options}
    return list(greedy_path(cost, depth, points=points, **options)), points


def column(records, name):
    return np.array([getattr(r, name)[0] for r in records])


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_factorization_learns_its_modes_one_by_one(depth):
    target = planted_matrix((6, 5), VALUES, 0)
    records, points = followed(factorization(target, CPU), depth, check=depth == 3, rtol=1e-3)
    u, s, vt = np.linalg.svd(target)
    assert [p.point.rank for p in points] == [0, 1, 2, 3, 4]
    for k, p in enumerate(points):
        assert np.allclose(p.point.A, (u[:, :k] * s[:k]) @ vt[:k], atol=1e-12)
        assert p.point.cost == pytest.approx(0.5 * sum(v**2 for v in VALUES[k:]), rel=1e-10, abs=1e-24)
        assert p.ties == (1 if k < 4 else 0)
    assert all(p.independent is (True if depth == 3 else None) for p in points[1:])
    assert records[-1].reasons == ["converged"] and "rank 4 minimum" in records[-1].note
    assert [r.note.split()[1] for r in records if r.note] == ["1", "2", "3", "4"]
    # Records like those of any run: time, steps and cost go one way, layers multiply to A and never change shape.
    excess, time, step = (column(records, n) for n in ("excess", "time", "step"))
    assert (np.diff(time) >= 0).all() and (np.diff(step) >= 0).all() and (np.diff(excess) <= 1e-3 * excess[0]).all()
    shapes = {tuple(w.shape for w in r.weights(0)) for r in records[::50]}
    assert shapes == {((5, 5), *[(5, 5)] * (depth - 2), (6, 5))}
    visits = find_visits(time, step, excess, column(records, "gradient_norm"))
    assert [refine_matrix(records[v.index].A[0], factorization(target, CPU)).rank for v in visits] == [0, 1, 2, 3, 4]


def test_first_burst_is_the_closed_form():
    """L = 2: a(t) = s / (1 + (s/a_0 − 1) exp(−2st)) along the whole first orbit."""
    cost = factorization(planted_matrix((4, 3), (3.0, 1.0), 0), CPU)
    records, _ = followed(cost, 2, epsilon=1e-2, rtol=1e-5)
    end = next(i for i, r in enumerate(records) if r.note)
    a = np.array([np.linalg.svd(r.A[0], compute_uv=False)[0] for r in records[: end + 1]])
    time = column(records[: end + 1], "time")
    assert a[0] == pytest.approx(3.0 * 1e-4)
    assert np.abs(a - 3 / (1 + (3 / a[0] - 1) * np.exp(-6 * time))).max() < 1e-3


@pytest.mark.parametrize("kind", ["completion", "sensing", "regression"])
def test_the_opened_channel_is_the_steepest_and_its_orbit_does_not_depend_on_epsilon(kind):
    task = planted_task(kind, (6, 5), (7.0, 4.0, 2.0), CPU, observed=0.9)
    host = HostCost(task.cost)
    a, b = (followed(task.cost, 3, epsilon=e)[1] for e in (3e-2, 1e-2))
    assert [p.point.rank for p in a] == [p.point.rank for p in b]
    for one, other in zip(a[:-1], b[:-1], strict=True):
        assert np.allclose(one.point.A, other.point.A, atol=1e-9)
        size = 1e-3
        layers = opened(one.point, host, 3, size)
        drop = host.excess(one.point.A) - host.excess(layers[2] @ layers[1] @ layers[0])
        added = layers[2] @ layers[1] @ layers[0] - one.point.A
        assert drop == pytest.approx(one.point.next_mode * np.linalg.norm(added), rel=1e-4)


def test_paths_of_falling_scale_converge_to_it():
    task = planted_task("completion", (6, 6), (10.0, 5.0), CPU, observed=0.8)
    _, points = followed(task.cost, 3)
    host = HostCost(task.cost)
    gaps = []
    for sigma in (3e-2, 3e-3, 3e-4):
        network = gaussian_network(hidden_dims(3, 12, task.shape), sigma, CPU)
        records = list(gradient_flow(network, task.cost))
        visits = find_visits(*(column(records, n) for n in ("time", "step", "excess", "gradient_norm")))
        closest = {refine_matrix(records[v.index].A[0], host).rank: records[v.index].A[0] for v in visits}
        assert sorted(closest) == [0, 1, 2]
        gaps.append(np.linalg.norm(closest[1] - points[1].point.A) / np.linalg.norm(points[1].point.A))
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] and gaps[2] < 1e-2


def test_equal_modes_are_a_tie_and_said():
    records, points = followed(factorization(planted_matrix((5, 4), (5.0, 5.0, 1.0), 0), CPU), 3)
    assert [p.ties for p in points] == [2, 1, 1, 0]
    assert [p.point.rank for p in points] == [0, 1, 2, 3]
    assert [p.point.cost for p in points[:3]] == pytest.approx([25.5, 13.0, 0.5], rel=1e-10)
    assert "tie between 2 equal leading modes" in points[0].note
    assert records[-1].reasons == ["converged"]


def test_limits_of_the_task_and_of_the_network():
    zero = factorization(np.zeros((3, 4)), CPU)
    records, points = followed(zero, 3)
    assert len(records) == 1 and records[0].reasons == ["converged"] and points[0].point.next_mode == 0
    assert [w.shape for w in records[0].weights(0)] == [(3, 4), (3, 3), (3, 3)]
    target = planted_matrix((5, 4), (5.0, 3.0, 1.0), 0)
    _, points = followed(factorization(target, CPU), 3, width=2)
    assert [p.point.rank for p in points] == [0, 1, 2] and points[-1].point.cost == pytest.approx(0.5)
    mask = np.ones((5, 4), bool)
    mask[2] = False
    _, points = followed(completion(target, mask, CPU), 3)
    assert points[-1].point.next_mode == 0 and np.abs(points[-1].point.A[2]).max() < 1e-12
    records, _ = followed(factorization(target, CPU), 3, max_steps=60)
    assert records[-1].reasons == ["max_steps"] and records[-1].step[0] == 60
    records, _ = followed(factorization(target, CPU), 3, max_time=1.0)
    assert records[-1].reasons == ["max_time"] and records[-1].time[0] == pytest.approx(1.0)
    with pytest.raises(InputError, match="epsilon"):
        next(greedy_path(zero, 3, epsilon=2.0))
    with pytest.raises(InputError, match="depth"):
        next(greedy_path(zero, 1))


def test_an_orbit_whose_check_was_cut_by_the_budget_is_not_called_dependent():
    """From a smaller ε the same orbit takes longer: what is left of --max-time is not enough to tell."""
    cost = factorization(np.diag([3.0, 1.0]), CPU)
    records, points = followed(cost, 3)
    first = next(float(r.time[0]) for r in records if r.note)
    _, cut = followed(cost, 3, check=True, max_time=1.05 * first)
    assert [p.independent for p in cut[:2]] == [None, None] and "depends on epsilon" not in cut[1].note
    assert [p.point.rank for p in cut] == [p.point.rank for p in points][:2]

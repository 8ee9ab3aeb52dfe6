"""How long things take in flow time: dwell times against 50 digits, escape from the origin, batches."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import completion, factorization
from dlnphase.costs.tasks import planted_task
from dlnphase.dynamics import gradient_flow
from dlnphase.networks.chain import Network
from dlnphase.networks.krylov import sample

BACKEND = resolve_backend("cpu")
REFERENCE = json.loads((Path(__file__).parent / "reference" / "dwell_times.json").read_text())


def dwell_times(case, **options):
    """Times between half-way crossings of the singular values of A, nan where one never comes; and the last record."""
    start = Network.from_weights([BACKEND.tensor(np.array(w)) for w in case["start"]])
    cost = completion(np.array(case["target"]), np.array(case["observed"]) > 0, BACKEND)
    records = list(gradient_flow(start, cost, tol=1e-6, **options))
    times = np.array([r.time[0] for r in records])
    values = np.array([np.linalg.svd(r.A[0], compute_uv=False) for r in records])
    halves = np.linalg.svd(np.array(case["final_matrix"]), compute_uv=False)[: len(case["times"])] / 2
    crossings = []
    for k, half in enumerate(halves):
        i = int(np.argmax(values[:, k] > half))
        share = (half - values[i - 1, k]) / (values[i, k] - values[i - 1, k]) if i else np.nan
        crossings.append(times[i - 1] + share * (times[i] - times[i - 1]) if i else np.nan)
    return np.diff([0.0, *crossings]), records[-1]


@pytest.mark.parametrize("name", REFERENCE)
def test_dwell_times_agree_with_fifty_digits(name):
    case = REFERENCE[name]
    assert case["difference_between_runs"] < 1e-4  # the reference is known a hundred times better than is asked
    expected = np.diff([0.0, *case["times"]])
    found, last = dwell_times(case)
    np.testing.assert_allclose(found, expected, rtol=0.01)
    assert last.reasons == ["converged"]


@pytest.mark.parametrize("name", ["four layers, two modes", "three layers, completion"])
def test_without_alignment_they_do_not(name):
    case = REFERENCE[name]
    found, last = dwell_times(case, method="stiff", align_frames=False, rtol=1e-3, max_steps=1000)
    right = np.isfinite(found).all() and np.allclose(found, np.diff([0.0, *case["times"]]), rtol=0.01)
    assert not right
    assert last.reasons != ["converged"], "a wrong time is printed as if it were right"


def test_the_reference_reaches_far():
    assert {case["depth"] for case in REFERENCE.values()} == {3, 4}
    assert max(case["times"][-1] for case in REFERENCE.values()) > 1e19
    assert max(len(case["times"]) for case in REFERENCE.values()) == 3
    smallest = min(np.abs(np.array(case["start"])).min() for case in REFERENCE.values())
    assert smallest < 1e-10


# ---- escape from the origin -------------------------------------------------------------------------

WIDTHS = [10**k for k in range(2, 10)]


def escape_times(depth, gamma, members=8):
    """Mean time at which half of the cost is learned, for each of WIDTHS, in one batch of Krylov networks."""
    cost = factorization(np.diag([2.0, 0.0]), BACKEND)
    parts = [sample(depth, w, (2, 2), w ** (-gamma / 2), 3, BACKEND, members=range(members)) for w in WIDTHS]
    network = Network(torch.cat([p.theta for p in parts]), parts[0].dims)
    level = 0.5 * float(cost.excess(torch.zeros(1, 2, 2, dtype=torch.float64)))
    escaped = np.full(network.batch, np.nan)
    before = {}
    for record in gradient_flow(network, cost, rtol=1e-3, tol=0.2):
        for member, time, excess in zip(record.members, record.time, record.excess, strict=True):
            if np.isnan(escaped[member]) and excess <= level:
                last, high = before[member]
                escaped[member] = last + (time - last) * (high - level) / (high - excess)
            before[member] = time, excess
    return escaped.reshape(len(WIDTHS), members)


@pytest.mark.parametrize(("depth", "gamma"), [(3, 1.5), (3, 2.0), (4, 1.5), (4, 2.0), (5, 1.5)])
def test_escape_times_grow_as_a_power_of_the_width(depth, gamma):
    """T = n_0^(−(L−2)) / ((L−2)s_1) with n_0 ∝ α: T ∝ w^((γ−1)(L−2)/2) (docs/theory.md, section 4)."""
    expected = (gamma - 1) * (depth - 2) / 2
    slopes = np.polyfit(np.log(WIDTHS), np.log(escape_times(depth, gamma)).mean(1), 1)
    assert slopes[0] == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("gamma", [1.5, 2.0])
def test_escape_times_of_two_layers_grow_as_the_logarithm(gamma):
    """e^(s_1 T) ∝ 1/n_0 with n_0 ∝ α = w^((1−γ)/2), hence dT/d ln w = (γ−1) / (2 s_1), s_1 = 2."""
    times = escape_times(2, gamma).mean(1)
    slope, offset = np.polyfit(np.log(WIDTHS), times, 1)
    assert slope == pytest.approx((gamma - 1) / 4, rel=0.02)
    assert np.abs(times - offset - slope * np.log(WIDTHS)).max() < 0.01 * times.max()


# ---- batches ----------------------------------------------------------------------------------------


def test_a_member_of_a_batch_is_the_run_of_that_member_alone():
    cost = planted_task("completion", (5, 4), (3.0, 1.5), BACKEND).cost
    network = sample(3, 10**6, (5, 4), 1e-5, 2, BACKEND, members=range(24))

    def paths(start):
        out = {}
        for record in gradient_flow(start, cost, rtol=1e-3):
            for i, member in enumerate(record.members):
                out.setdefault(int(member), []).append(
                    (record.time[i], record.excess[i], record.A[i], record.reasons[i])
                )
        return out

    together = paths(network)
    assert sorted(together) == list(range(24))
    for member in (0, 5, 23):
        alone = paths(network.select([member]))[0]
        assert len(alone) == len(together[member])
        for one, two in zip(alone, together[member], strict=True):
            assert one[0] == pytest.approx(two[0], rel=1e-8) and one[3] == two[3]
            np.testing.assert_allclose(one[2], two[2], rtol=0, atol=1e-8)

"""The gauntlet: its reference against closed forms, its judge against faults put in, and a slice of its cases."""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gauntlet import certificates, distances, flows, integrators, intervals
from gauntlet.__main__ import main
from gauntlet.cases import CERTIFICATE_CLASSES, CLASSES, DISTANCE_CLASSES, case_of, rng_of
from gauntlet.reference.chain import Chain
from gauntlet.reference.costs import cost_of
from gauntlet.reference.critical import critical_near
from gauntlet.reference.distances import nearest_minimum, nearest_saddle
from gauntlet.reference.flow import follow, rotated
from gauntlet.table import write_page
from gauntlet.verdict import Verdict, append, read

REFERENCE = Path(flows.__file__).parent / "reference"
# Classes in which `make gauntlet` finds faults today; the rest has to stay without.
FAULTY: set[str] = set()
FAULTY_DISTANCES = {"four-layers", "noisy"}


def test_the_reference_imports_nothing_of_the_package():
    allowed = {"numpy", "scipy", "dataclasses", "itertools", "warnings", "collections", "__future__", "gauntlet"}
    for path in REFERENCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in allowed, f"{path.name}:{node.lineno} imports {name}"
                assert not name.startswith("gauntlet") or name.startswith("gauntlet.reference"), path.name


@pytest.mark.parametrize("name", ["noisy:3:0", "vectors:3:1", "deep:3:0", "ragged:3:2"])
def test_hessian_and_slope_are_derivatives_of_the_cost(name):
    case = case_of(name)
    cost = cost_of(case.task, case.data)
    chain = Chain([w.shape for w in case.layers], cost)
    theta = np.concatenate([w.ravel() for w in case.layers])
    rng = np.random.default_rng(0)
    v, h = rng.standard_normal(theta.size), 1e-5 * np.linalg.norm(theta) / np.sqrt(theta.size)

    def excess(x):
        return cost.excess(chain.product(x))

    numeric = (excess(theta + h * v) - excess(theta - h * v)) / (2 * h)
    assert -chain.slope(0.0, theta) @ v == pytest.approx(numeric, rel=1e-5)
    change = (chain.slope(0.0, theta + h * v) - chain.slope(0.0, theta - h * v)) / (2 * h)
    np.testing.assert_allclose(chain.jacobian(0.0, theta) @ v, change, rtol=0, atol=1e-6 * np.abs(change).max())


def test_excess_is_the_cost_less_its_minimum():
    case = case_of("noisy:0:3")
    cost = cost_of(case.task, case.data)
    a = np.random.default_rng(0).standard_normal(cost.shape)
    value = 0.5 * np.sum((cost.rows @ a.ravel() - cost.right) ** 2)
    assert cost.excess(a) + cost.minimum == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("explicit", [True, False])
def test_the_reference_flow_meets_the_logistic_mode(explicit):
    """L = 2: a(t) = s/(1 + (s/a_0 − 1) e^(−2st)), here from a_0 = 1e-6, so t at a level of ½(s − a)² is known."""
    s, a0 = 3.0, 1e-6
    cost = cost_of("factorization", {"target": np.array([[s]])})
    layers = rotated([np.array([[np.sqrt(a0)], [0.0]]), np.array([[np.sqrt(a0), 0.0]])], np.random.default_rng(0))
    levels = np.array([4.0, 1.0, 1e-3, 1e-8])
    a = s - np.sqrt(2 * levels)
    true = np.log((s / a0 - 1) / (s / a - 1)) / (2 * s)
    found = follow(layers, cost, levels, true, explicit=explicit)
    np.testing.assert_allclose(found.reached, true, rtol=1e-7)
    np.testing.assert_allclose(found.excess_at, levels, rtol=1e-6)
    np.testing.assert_allclose([float(m[0, 0]) for m in found.matrices], a, rtol=1e-7)


@pytest.mark.parametrize("explicit", [True, False])
def test_the_reference_sees_a_singular_value_pass_through_zero_within_a_step(explicit):
    """One layer: A = s − (s − a_0) e^(−t), from a_0 = −1 through 0 at ln 1.25, to half of s = 4 at ln 2.5."""
    cost = cost_of("factorization", {"target": np.array([[4.0]])})
    found = follow([np.array([[-1.0]])], cost, np.array([1e-6]), np.array([20.0]), explicit=explicit, rtol=1e-4)
    times, values = found.spectrum
    half = int(np.flatnonzero(values[:, 0] >= 2.0)[0])
    found_at = np.interp(2.0, values[half - 1 : half + 1, 0], times[half - 1 : half + 1])
    assert found_at == pytest.approx(np.log(2.5), rel=0.01)
    assert values[:, 0].min() < 0.3


def test_critical_matrices_of_a_factorization_are_its_truncations():
    target = np.diag([5.0, 3.0, 1.0])
    cost = cost_of("factorization", {"target": target})
    near = np.diag([4.9, 2.9, 0.05]) + 0.01
    np.testing.assert_allclose(critical_near(near, 2, cost), np.diag([5.0, 3.0, 0.0]), atol=1e-8)


@pytest.mark.parametrize("gap", [1e-8, 1e-5, 1e-2])
def test_a_mode_beside_one_of_nearly_its_size_is_a_critical_matrix_of_its_own(gap):
    """From a direction between the two the way to either is long and bent: no iteration is asked to find it."""
    cost = cost_of("factorization", {"target": np.diag([5.0, 5.0 - gap, 1.0])})
    between = np.array([0.93, 0.3, 0.2])
    point = critical_near(4.9 * np.outer(between, between), 1, cost)
    np.testing.assert_array_equal(point, np.diag([5.0, 0.0, 0.0]))


def test_critical_matrices_of_a_regression_are_those_of_eckart_and_young():
    """Inputs of very different variance: the rank-2 matrix is the whitened solution cut to two modes."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9, 4)) * np.array([3.0, 1.5, 1.0, 0.02])
    y = x @ rng.standard_normal((4, 4)) * np.array([5.0, 2.0, 1.0, 0.5])
    cost = cost_of("regression", {"X": x, "Y": y})
    root = np.linalg.cholesky(x.T @ x / 9)
    u, s, vt = np.linalg.svd(cost.solution.reshape(4, 4) @ root)
    true = (u[:, :2] * s[:2]) @ vt[:2] @ np.linalg.inv(root)
    slow = rng.standard_normal((4, 1)) * np.linalg.eigh(x.T @ x)[1][:, 0]  # as yet far from what it will be
    point = critical_near(true + 5 * slow + 1e-3 * rng.standard_normal((4, 4)), 2, cost)
    np.testing.assert_allclose(point, true, rtol=1e-6, atol=1e-6)


# ---- the judge sees what is put in ---------------------------------------------------------------------


def later(result):
    path = result.trajectory
    return replace(result, trajectory=replace(path, t=path.t * 1.08))


def earlier_end(result):
    path = result.trajectory
    t = np.where(path.excess < 1e-3 * path.excess[0], path.t * 0.9, path.t)
    return replace(result, trajectory=replace(path, t=np.maximum.accumulate(t)))


def other_matrix(result):
    path = result.trajectory
    return replace(result, trajectory=replace(path, A=path.A[:, ::-1]))


def other_label(result):
    rows = tuple(replace(row, from_rank=row.from_rank + 1, to_rank=row.to_rank + 1) for row in result.rank_transitions)
    return replace(result, rank_transitions=rows)


def other_burst(result):
    rows = tuple(replace(row, time=1.1 * row.time) for row in result.rank_transitions)
    return replace(result, rank_transitions=rows)


def other_rank(result):
    return replace(result, outcome=replace(result.outcome, rank=result.outcome.rank - 1))


def diverged(result):
    return replace(result, outcome=replace(result.outcome, reason="diverged"))


CASE = "tiny-start:1:0"


@pytest.fixture(scope="module")
def honest():
    return flows.run_package(case_of(CASE))


@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        (None, None),
        (later, "level"),
        (earlier_end, "level"),
        (other_matrix, "matrix"),
        (other_label, "label"),
        (other_burst, "burst"),
        (other_rank, "rank"),
        (diverged, "reason"),
    ],
)
def test_a_fault_put_in_is_found(honest, tamper, kind, monkeypatch):
    monkeypatch.setattr(flows, "run_package", lambda case: tamper(honest) if tamper else honest)
    verdict = flows.judge(CASE)
    assert verdict.status == ("fails" if kind else "agrees"), verdict
    assert kind is None or kind in {fault.split(":")[0] for fault in verdict.faults}, verdict.faults


@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_a_late_tail_of_an_integrator_is_found(factor, monkeypatch):
    real = integrators.told

    def told(tail, method, rtol):
        time, excess, reason = real(tail, method, rtol)
        return factor * time, excess, reason

    monkeypatch.setattr(integrators, "told", told)
    ((reason, off),) = integrators.judge(integrators.drawn(0, 3), ["auto"], 1e-4).values()
    assert reason == "converged" and off == pytest.approx(np.log(factor), abs=0.02)


@pytest.mark.parametrize(("a", "b", "s"), [(0.1, 0.3, 1.0), (1.0, -0.2, 2.0)])
def test_brute_force_meets_the_hyperbola(a, b, s):
    """One weight a layer, L = 2: the nearest minimum is on xy = s, a root of a quartic; the only saddle is 0."""
    cost = cost_of("factorization", {"target": np.array([[s]])})
    layers = [np.array([[a]]), np.array([[b]])]
    roots = np.roots([1.0, -a, 0.0, b * s, -s * s])
    real = roots[np.abs(roots.imag) < 1e-9].real
    true = min(np.hypot(x - a, s / x - b) for x in real)
    assert nearest_minimum(layers, cost, np.random.default_rng(0), 12) == pytest.approx(true, rel=1e-5)
    assert nearest_saddle(layers, cost, np.random.default_rng(0), 12) == pytest.approx(np.hypot(a, b), rel=1e-9)


@pytest.fixture(scope="module")
def measured():
    return distances.run_package(case_of("two-layers:1:0", DISTANCE_CLASSES))


def farther(which):
    """The point moved away from θ_0, and told truly: no minimum or saddle any more."""

    def tamper(found):
        case = case_of("two-layers:1:0", DISTANCE_CLASSES)
        theta0 = np.concatenate([w.ravel() for w in case.layers])
        theta = found[which].network.theta
        moved = theta + 0.05 * (theta - theta.new_tensor(theta0))
        network = found[which].network.with_theta(moved)
        changed = replace(found[which], distance=1.05 * found[which].distance, network=network)
        return tuple(changed if k == which else one for k, one in enumerate(found))

    return tamper


def misread(found):
    return (replace(found[0], distance=0.99 * found[0].distance), *found[1:])


def overrated(found):
    lower = found[2]
    return (*found[:2], replace(lower, saddle=1.1 * found[1].distance.numpy()))


def overruled(found):
    minimum = found[0].distance.numpy()
    assert minimum > found[1].distance.numpy()
    return (*found[:2], replace(found[2], minimum=minimum, nearer=("minimum",)))


@pytest.mark.parametrize(
    ("tamper", "kinds"),
    [
        (None, set()),
        (farther(0), {"minimum", "minimum point"}),
        (farther(1), {"saddle", "saddle point"}),
        (misread, {"minimum point"}),
        (overrated, {"saddle bound"}),
        (overruled, {"nearer"}),
    ],
)
def test_a_wrong_distance_is_found(measured, tamper, kinds, monkeypatch):
    monkeypatch.setattr(distances, "run_package", lambda case: tamper(measured) if tamper else measured)
    verdict = distances.judge("two-layers:1:0")
    assert {fault.split(":")[0] for fault in verdict.faults} == kinds, verdict.faults


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, None),
        ({"kind": "global-minimum"}, "kind"),
        ({"kind": "degenerate-saddle"}, "kind"),
        ({"negative": 1}, "count"),
        ({"min_eigenvalue": -1e-3}, "eigenvalue"),
        ({"rank": 2}, "rank"),
    ],
)
def test_a_wrong_certificate_is_found(change, kind, monkeypatch):
    case = case_of("two-layers:1:3", CERTIFICATE_CLASSES)
    weights, _ = certificates.placed(case, cost_of(case.task, case.data), rng_of("two-layers:1:31"))
    told = certificates.run_package(case, weights)
    assert told.kind == "strict-saddle" and told.negative > 1
    monkeypatch.setattr(certificates, "run_package", lambda case, weights: replace(told, **change))
    verdict = certificates.judge("two-layers:1:3")
    assert {fault.split(":")[0] for fault in verdict.faults} == ({kind} if kind else set()), verdict.faults


@pytest.mark.parametrize(("factor", "fails"), [(1.0, False), (0.6, True), (3.0, True)])
def test_intervals_that_hold_too_seldom_or_too_often_are_found(factor, fails):
    rng = np.random.default_rng(0)
    centres = rng.standard_normal(200)
    design = intervals.Design({}, 4, lambda part: part)
    parts = [(x, (x - 1.96 * factor, x + 1.96 * factor)) for x in centres]
    verdict = Verdict("interval", "x:0:0", "")
    intervals.compare(design, (0.0, None), parts, verdict)
    assert bool(verdict.faults) == fails, verdict


# ---- running, resuming, printing -----------------------------------------------------------------------


def test_a_run_goes_on_where_it_stopped_and_exits_1_on_a_fault(tmp_path, monkeypatch, capsys):
    from gauntlet import __main__ as command

    asked = []

    def judge(name):
        asked.append(name)
        return Verdict(
            "flow", name, "words", status="fails" if name.startswith("wide") else "agrees", faults=["level: x"]
        )

    monkeypatch.setitem(command.KINDS, "flow", (["lazy", "wide"], judge))
    out = tmp_path / "r.jsonl"
    argv = ["gauntlet", "flow", "--seed", "7", "--out", str(out), "-n"]
    monkeypatch.setattr("sys.argv", [*argv, "1"])
    assert main() == 0
    out.write_text(out.read_text() + '{"kind": "flo')  # a process killed in the middle of a line
    monkeypatch.setattr("sys.argv", [*argv, "2"])
    assert main() == 1
    assert asked == ["lazy:7:0", "wide:7:0"]
    assert [v.name for v in read(out)] == asked
    assert "python -m gauntlet flow --case wide:7:0" in capsys.readouterr().out


def test_results_are_read_as_written(tmp_path):
    one = Verdict("flow", "lazy:0:1", "w", "told", ["x: y"], {"late": 0.5}, (1.0, 2.0), "converged", "DOP853", "abc")
    append(tmp_path / "r", one)
    assert list(read(tmp_path / "r")) == [one]


def test_the_page_holds_what_was_measured_between_its_marks(tmp_path):
    page = tmp_path / "accuracy.md"
    kept = "## Noise: 1 cases\n\nas it was\n\n| a |\n"
    first = "## Jump: 2 cases\n\nas it was"
    stale = "## Flow: 9 cases\n\nstale"
    page.write_text(f"before\n<!-- measured -->\n{first}\n\n{stale}\n\n{kept}<!-- end -->\nafter\n")
    verdicts = [
        Verdict("flow", "lazy:4:0", "w", "agrees", [], {"late": 0.01}, commit="abc"),
        Verdict("flow", "lazy:4:1", "w", "fails", ["level: x"], {"late": 0.5}, commit="abc"),
        Verdict("flow", "wide:4:0", "w", "skipped", [], {"late": 7.0}, commit="abc"),
    ]
    write_page(verdicts, page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "stale" not in text
    assert first in text and kept in text and "Seeds 4; commits abc; written on 2" in text
    assert "| lazy | 2 | 1 | 0 | 0 | 1 | 50.0 % |" in text and "| wide | 1 | 0 | 0 | 1 | 0 | – |" in text
    assert "| 2 | 2.6e-01 | 4.5e-01 | 5.0e-01 | 5.0e-01 |" in text  # the skipped one counts for nothing
    assert "| level | 1 | `python -m gauntlet flow --case lazy:4:1` |" in text


@pytest.mark.parametrize("name", sorted(CERTIFICATE_CLASSES))
def test_slice_of_certificates(name):
    verdicts = [certificates.judge(f"{name}:1:{number}") for number in range(6)]
    assert [(v.command(), v.faults) for v in verdicts if v.faults] == []
    assert any(v.status == "agrees" for v in verdicts)


@pytest.mark.parametrize("name", sorted(set(DISTANCE_CLASSES) - FAULTY_DISTANCES))
def test_slice_of_distances(name):
    verdict = distances.judge(f"{name}:1:1")
    assert verdict.faults == [], verdict.command()


FOUND_ONCE = (
    *("noisy:3:0", "small-start:6:0", "near-equal:5:4", "tiny-start:1:5", "tiny-start:2:4", "vectors:11:21"),
    *("vectors:12:2", "vectors:12:17", "large-start:12:1", "ragged:12:14", "near-equal:11:38"),
    *("near-equal:12:17", "deep:62:8", "vectors:61:24", "balanced:61:40", "tiny-start:62:36"),
    *("bottleneck:62:33",),
)


@pytest.mark.parametrize("name", FOUND_ONCE)
def test_what_was_found_once_is_found_no_more(name):
    verdict = flows.judge(name)
    assert (verdict.status, verdict.faults) == ("agrees", []), verdict.command()


def test_a_saddle_whose_ends_keep_fewer_modes_than_mixed_ways_leave_them_is_found():
    """Rank 1 in W_1 and in W_3 and rank 3 in W_2 cost less than any split of the three modes of ∇C (2 % less)."""
    verdict = distances.judge("regression:52:5")
    assert verdict.faults == [], verdict.command()


def test_a_run_that_round_off_of_its_start_decides_says_so():
    """In 45 digits these floats stay at the saddle until t = 1.06e10."""
    verdict = flows.judge("orthogonal:62:15")
    assert (verdict.status, verdict.reason, verdict.faults) == ("told", "precision_floor", []), verdict.command()


@pytest.mark.parametrize("name", sorted(set(CLASSES) - FAULTY))
def test_slice(name):
    verdicts = [flows.judge(f"{name}:1:{number}") for number in range(1, 3)]
    assert [(v.command(), v.faults) for v in verdicts if v.status == "fails"] == []
    assert any(v.status == "agrees" for v in verdicts)

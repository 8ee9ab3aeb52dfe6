"""Enclosed flows: a closed form to 50 digits inside the tube, crippled provers caught, the checker, resumption."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import mpmath
import numpy as np
import pytest

from dlnphase.backend import resolve_backend
from dlnphase.cli.app import run
from dlnphase.costs.quadratic import completion, factorization
from dlnphase.critical import HostCost
from dlnphase.detect import proofs
from dlnphase.detect.flow import _arrays, _continued
from dlnphase.proofs import path as prover
from dlnphase.proofs.balls import exact, flint, middle, precision
from dlnphase.proofs.checking import NotProved
from dlnphase.proofs.curvature import eigenvalue_range, hessian, parting_rate
from dlnphase.proofs.path import prove_path, start_tube
from dlnphase.proofs.path_checking import check_end, check_steps, check_time
from dlnphase.proofs.quadratic import ball_cost
from dlnphase.proofs.series import FlowSeries
from dlnphase.proofs.taylor import TaylorStep
from dlnphase.proofs.theorem import conclude
from dlnphase.results.proof import ProofDocument, ProvedCost, load_proof
from dlnphase.results.provenance import Clock

CPU = resolve_backend("cpu")
TARGET = np.array([[1.5, 0.4], [-0.3, 0.8]])


def start(dims, size=0.2, seed=0):
    rng = np.random.default_rng(seed)
    return [size * rng.standard_normal((m, n)) for n, m in pairwise(dims)]


def setting(target=TARGET, mask=None):
    cost = factorization(target, CPU) if mask is None else completion(target, mask, CPU)
    ball = ball_cost(cost)
    return cost, ball, {"mask": ball.factor, "minimizer": ball.minimizer}


def of_file(tube):
    return {name.removeprefix("path_"): a for name, a in _arrays(tube).items()}


def elapsed(u, s):
    """t at which a balanced mode of L = 3, u' = u²(s − u³), is at u, up to a constant: a closed form."""
    return (-1 / u + u**2 / (2 * s) * mpmath.hyp2f1(mpmath.mpf(2) / 3, 1, mpmath.mpf(5) / 3, u**3 / s)) / s


@pytest.mark.parametrize("limbs", [1, 2])
def test_the_true_path_is_inside_the_tube_at_every_step(limbs):
    """Diagonal balanced layers: each mode has a closed form; u(t_i) lies in ũ_i ± R_i, told with 50 digits."""
    target, first = np.diag([2.0, 1.0]), np.diag([0.35, 0.25])
    _, ball, _ = setting(target)
    limit = {"max_steps": 15} if limbs == 2 else {}
    tube, end = prove_path([first] * 3, ball, tube=start_tube([first] * 3, limbs), **limit)
    assert tube.limbs == limbs and (end is not None or limbs == 2)
    with mpmath.workdps(50):
        t = mpmath.mpf(0)
        for i, (node, radius) in enumerate(zip(tube.nodes, tube.radii, strict=True)):
            t += mpmath.mpf(tube.steps[i - 1]) if i else 0
            for mode, s in enumerate((2, 1)):
                u = sum((mpmath.mpf(float(x)) for x in node[1][:, mode, mode]), mpmath.mpf(0))
                then = elapsed(mpmath.mpf(float(first[mode, mode])), s) + t
                tiny = mpmath.mpf(10) ** -48  # of the fifty digits
                assert elapsed(u - radius, s) - tiny <= then <= elapsed(u + radius, s) + tiny, (i, mode)
    assert tube.radii[-1] < (1e-9 if limbs == 1 else 1e-25)


def test_a_theorem_and_its_check():
    cost, ball, arrays = setting()
    weights = start((2, 2, 2), 1e-4)  # L = 2: a visit stands out where the start is this small
    tube, end = prove_path(weights, ball)
    theorem = conclude(tube, end, ball, HostCost(cost))
    assert [v.saddle.chart.rank for v in theorem.visits] == [0, 1] and not theorem.refused
    assert all(a.time[1] < b.time[0] for a, b in pairwise(theorem.visits))
    given = of_file(tube)
    check_steps(arrays, given, range(0, len(tube.steps), 6))  # parts can be checked by themselves
    check_end(arrays, given, end.distance)
    check_time(given, len(tube.steps), theorem.end_time)
    with pytest.raises(NotProved, match="distance"):
        check_end(arrays, given, end.distance * 0.9)
    with pytest.raises(NotProved, match="time"):
        check_time(given, len(tube.steps), (theorem.end_time[1], theorem.end_time[1] + 1))


def test_a_completion_of_depth_four_is_enclosed_and_checked():
    mask = np.array([[True, False, True], [True, True, True]])
    _, ball, arrays = setting(np.array([[1.0, 0.5, -0.2], [0.3, 0.9, 0.4]]), mask)
    tube, _ = prove_path(start((3, 3, 2, 3, 2), 0.6), ball, max_steps=4)
    check_steps(arrays, of_file(tube))
    assert len(tube.steps) == 4 and 0 < tube.radii[-1] < 1e-13


# ---- provers that lie are caught -----------------------------------------------------------------------------


def crippled(monkeypatch, steps=6):
    _, ball, arrays = setting()
    tube, _ = prove_path(start((2, 2, 2, 2), 0.7), ball, max_steps=steps)
    monkeypatch.undo()
    return arrays, of_file(tube)


def test_an_honest_prover_passes(monkeypatch):
    check_steps(*crippled(monkeypatch))


def test_without_rounding_a_prover_is_caught(monkeypatch):
    monkeypatch.setattr(prover, "norm_of", lambda layers: flint().arb(0))
    with pytest.raises(NotProved, match="step 0"):
        check_steps(*crippled(monkeypatch))


def test_a_polynomial_that_is_none_of_the_flow_lets_nothing_follow(monkeypatch):
    """Prover and checker take the same one; it is its defect that is bounded, by each in its own way."""
    arrays, honest = crippled(monkeypatch, steps=1)
    monkeypatch.setattr(FlowSeries, "_gradient", lambda self, j, cost: [0 * w for w in self.coefficients[0]])
    with pytest.raises(NotProved, match="step 0"):
        check_steps(arrays, honest)


def test_without_its_tail_a_prover_is_caught(monkeypatch):
    """A defect of nothing but its low coefficients, on steps where the rest matters."""
    guess = prover._first_guess
    monkeypatch.setattr(prover, "_first_guess", lambda *a: 4 * guess(*a))
    monkeypatch.setattr(TaylorStep, "defect", lambda self, h: 1e-18)
    with pytest.raises(NotProved, match="step 0"):
        check_steps(*crippled(monkeypatch))


@pytest.mark.parametrize(
    "rate",
    [
        lambda layers, reach, cost: -50.0,
        lambda layers, reach, cost: parting_rate(layers, 0.0, cost),
    ],
    ids=["no Hessian", "the Hessian at one point"],
)
def test_without_its_bound_of_the_hessian_a_prover_is_caught(rate, monkeypatch):
    monkeypatch.setattr(prover, "parting_rate", rate)
    with pytest.raises(NotProved, match="step"):
        check_steps(*crippled(monkeypatch))


def test_mutated_paths_are_not_verified(monkeypatch):
    """Nodes moved by more than their radius, radii and steps changed; larger radii at the end still follow."""
    arrays, given = crippled(monkeypatch, 2)
    rng = np.random.default_rng(1)
    for k in range(24):
        name = ["nodes", "radii", "steps"][k % 3]
        other = {n: a.copy() for n, a in given.items()}
        flat = other[name].reshape(-1)
        spot = int(rng.integers(flat.size))
        if name == "nodes":
            flat[spot] += rng.choice([-1, 1]) * max(1e-13, 3 * given["radii"][-1])
        elif name == "radii":
            flat[spot] = flat[spot] * rng.choice([0.0, 0.5, -1.0]) if spot else 1e-9
        else:
            flat[spot] *= 1 + rng.choice([-1, 1]) * 1e-6
        with pytest.raises(NotProved):
            check_steps(arrays, other)
    given["radii"][-1] *= 2
    check_steps(arrays, given)


# ---- the parts -------------------------------------------------------------------------------------------------


def test_bounds_of_eigenvalues_hold_and_are_tight():
    rng = np.random.default_rng(2)
    for n in (1, 3, 12):
        a = rng.standard_normal((n, n))
        s = a + a.T
        with mpmath.workdps(40):
            true = mpmath.eigsy(mpmath.matrix(s.tolist()), eigvals_only=True)
            low, high = eigenvalue_range(s, 0.0)
            assert low <= true[0] and true[n - 1] <= high
            assert true[0] - low < 1e-11 and high - true[n - 1] < 1e-11
        assert eigenvalue_range(s, 0.5)[0] <= low - 0.5


def test_the_hessian_is_that_of_autograd():
    import torch

    cost, ball, _ = setting()
    weights = start((2, 3, 2, 2), 0.8)
    shapes = [w.shape for w in weights]

    def loss(theta):
        parts = torch.split(theta, [m * n for m, n in shapes])
        a = torch.eye(2, dtype=torch.float64)
        for part, shape in zip(parts, shapes, strict=True):
            a = part.view(shape) @ a
        return cost.value(a[None])[0]

    theta = torch.tensor(np.concatenate([w.ravel() for w in weights]))
    matrix, error, _ = hessian(weights, ball)
    assert np.abs(torch.autograd.functional.hessian(loss, theta).numpy() - matrix).max() < 1e-13
    assert 0 < error < 1e-9
    # and over a ball the rate is never exceeded
    rng = np.random.default_rng(4)
    rate = parting_rate(weights, 0.1, ball)
    for _ in range(50):
        move = rng.standard_normal(theta.numel())
        there = theta + torch.tensor(0.1 * move / np.linalg.norm(move))
        assert -np.linalg.eigvalsh(torch.autograd.functional.hessian(loss, there).numpy())[0] <= rate


def test_the_polynomial_has_the_derivatives_of_the_flow():
    """c_1 = −∇𝓛 and 2c_2 = ∇²𝓛∇𝓛, by the floats of the Hessian."""
    _, ball, _ = setting()
    weights = start((2, 3, 2), 0.8)
    with precision(80):
        step = TaylorStep([exact(w) for w in weights], ball, 12)
    c1, c2 = (np.concatenate([middle(m).ravel() for m in step.coefficients[k]]) for k in (1, 2))
    a = weights[1] @ weights[0]
    slope = np.concatenate([(weights[1].T @ (a - TARGET)).ravel(), ((a - TARGET) @ weights[0].T).ravel()])
    assert np.allclose(c1, -slope, rtol=1e-13, atol=1e-15)
    assert np.allclose(2 * c2, -hessian(weights, ball)[0] @ c1, rtol=1e-12, atol=1e-14)


def test_a_proof_is_gone_on_with_where_it_ended():
    _, ball, _ = setting()
    weights = start((2, 2, 2, 2), 0.7)
    whole, _ = prove_path(weights, ball, max_steps=8)
    part, _ = prove_path(weights, ball, max_steps=3)
    left = ProofDocument(Clock().provenance(), ProvedCost("factorization", 0.0, 0.0), (), arrays=_arrays(part))
    tube = _continued(left, weights)
    assert len(tube.steps) == 3
    again, _ = prove_path(weights, ball, tube=tube, max_steps=8)
    assert again.steps == whole.steps and again.radii == whole.radii
    other = _continued(left, [w * 2 for w in weights])
    assert other.steps == []  # another start


def test_more_bits_are_taken_when_the_radius_asks_for_them(monkeypatch):
    monkeypatch.setattr(prover, "UNCERTAIN", 1e-17)
    _, ball, _ = setting()
    tube, _ = prove_path(start((2, 2, 2, 2), 0.7), ball, max_steps=12)
    assert tube.limbs == 2 and tube.radii[-1] < 1e-25


def test_what_is_no_flow_of_a_full_network_is_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    task = ["--task", "factorization", "--dim", "2", "--singular-values", "2,1", "--depth", "2", "-q"]
    assert run(["train", *task, "--width", "4", "--dynamics", "gd", "--out", "gd"]) == 0
    capfd.readouterr()
    assert run(["detect-saddles", "gd", "--prove", "path", "--out", "p"]) == 2
    assert "needs a run with dynamics flow, found gd" in capfd.readouterr().err
    assert not Path("p").exists()


def test_one_command_proves_a_flow_and_its_file_says_so(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    task = ["--task", "factorization", "--dim", "2", "--singular-values", "2,1", "--depth", "2", "-q"]
    assert run(["train", *task, "--width", "3", "--gamma", "17", "--representation", "full", "--out", "r"]) == 0
    assert run(["detect-saddles", "r", "--prove", "path", "--out", "p"]) == 0
    assert "The flow from its start: proved" in capfd.readouterr().out
    import dlnphase

    theorem = load_proof("p").theorem
    assert theorem.verdict == "proved" and [v.rank for v in theorem.visits] == [0, 1]
    assert theorem.end.verdict == "proved" and theorem.end.distance < 0.5
    recorded = dlnphase.load_detect("p").visits[1]
    assert theorem.visits[1].time[0] == pytest.approx(recorded.time.closest, rel=0.2)
    assert "converges to a global minimum" in Path("p/proof.md").read_text()


def test_an_interrupted_proof_is_saved_and_gone_on_with(tmp_path, monkeypatch, capfd):
    from dlnphase.detect.run import detect_saddles
    from dlnphase.results.detect import load_detect, save_detect
    from dlnphase.settings import DetectSettings

    monkeypatch.chdir(tmp_path)
    task = ["--task", "factorization", "--dim", "2", "--singular-values", "2,1", "--depth", "2", "-q"]
    assert run(["train", *task, "--width", "3", "--gamma", "4", "--representation", "full", "--out", "r"]) == 0
    settings, seen = DetectSettings(source=str(tmp_path / "r"), prove="path"), []
    whole = detect_saddles(settings)
    part = detect_saddles(settings, on_step=seen.append, should_stop=lambda: len(seen) >= 5)
    assert not part.complete and part.proof.theorem.reason == "interrupted" and len(seen) == 5
    assert part.proof.theorem.verdict == "refused" and not part.proof.theorem.visits
    Path("p").mkdir()
    save_detect(part, Path("p"))
    left = load_detect("p").proof
    seen.clear()
    again = detect_saddles(settings, on_step=seen.append, earlier=left)
    assert again.proof.theorem == whole.proof.theorem
    assert len(seen) == whole.proof.theorem.steps - 5
    assert run(["detect-saddles", "r", "--prove", "path", "--out", "p", "--resume"]) == 0
    assert "The flow from its start: proved" in capfd.readouterr().out
    assert load_detect("p").proof.theorem == whole.proof.theorem


def test_of_mutated_theorems_none_is_verified_whose_claim_does_not_follow(monkeypatch):
    """Claims on the flow that README shows; its steps are those of the file and are checked elsewhere."""
    monkeypatch.setattr(proofs, "check_steps", lambda cost, given, on_step: None)
    document = load_proof(Path(__file__).resolve().parent.parent / "docs" / "data" / "flow")
    truth = document.theorem
    assert proofs.check_proof(document, "p").verified
    rng = np.random.default_rng(6)
    verified = 0
    for _ in range(250):
        theorem = mutated_theorem(truth, rng)
        if not proofs.check_proof(replace(document, theorem=theorem, visits=()), "p").verified:
            continue
        verified += 1
        assert (theorem.steps, theorem.bits, theorem.radius) == (truth.steps, truth.bits, truth.radius)
        for claim, fact in zip(theorem.visits, truth.visits, strict=True):
            assert (claim.rank, claim.node) == (fact.rank, fact.node)
            assert claim.distance >= fact.distance * (1 - 1e-12) and claim.from_node >= fact.from_node * (1 - 1e-12)
            assert all(
                a[0] <= b[0] + 1e-12 and a[1] >= b[1] - 1e-12
                for a, b in ((claim.time, fact.time), (claim.cost, fact.cost), (claim.rate, fact.rate))
            )
        if theorem.end.verdict == "proved":
            assert theorem.end.distance >= truth.end.distance * (1 - 1e-4)
    assert 10 < verified < 150


def mutated_theorem(truth, rng):
    factor = float(rng.choice([0.0, 0.5, 0.999, 1.001, 2.0, -1.0, np.nan]))
    what = rng.choice(["visit", "end", "number"])
    if what == "number":
        name = str(rng.choice(["steps", "bits", "radius"]))
        old = getattr(truth, name)
        return replace(truth, **{name: type(old)(old * (2 if np.isnan(factor) else factor))})
    if what == "end":
        name = str(rng.choice(["distance", "time", "verdict"]))
        old = getattr(truth.end, name)
        new = "refused" if name == "verdict" else old * factor if name == "distance" else scaled(old, factor, rng)
        return replace(truth, end=replace(truth.end, **{name: new}))
    i = int(rng.integers(2))
    name = str(rng.choice(["rank", "node", "time", "distance", "cost", "rate", "from_node"]))
    old = getattr(truth.visits[i], name)
    if name in ("rank", "node"):
        new = old + int(rng.integers(-2, 3))
    else:
        new = scaled(old, factor, rng) if isinstance(old, tuple) else old * factor
    visits = list(truth.visits)
    visits[i] = replace(visits[i], **{name: new})
    return replace(truth, visits=tuple(visits))


def scaled(interval, factor, rng):
    ends = list(interval)
    ends[int(rng.integers(2))] *= factor
    return tuple(ends)


def test_the_line_of_a_proof_tells_radius_and_time_left(monkeypatch):
    from dlnphase.cli import proof_progress

    now = iter([100.0, 110.0, 120.0, 130.0, 140.0, 150.0])
    monkeypatch.setattr(proof_progress.time, "monotonic", lambda: next(now))
    line = proof_progress.TimeLeft()
    first, second = prover.Progress(10, 2.0, 1e-12, 0.5, 1, 20.0), prover.Progress(20, 6.0, 1e-11, 0.4, 1, 20.0)
    assert line.proved(first)[2] == "? left"
    words = line.proved(second)
    assert words[:2] == ["proof at t = 6 of about 20", "radius of the tube 1.0e-11"] and words[2] == "35 s left"
    assert line.proved(replace(first, limbs=2))[2] == "? left"  # begun again with more bits
    check = proof_progress.TimeLeft()
    assert check.checked(1, 4) == ["1 of 4 steps checked", "? left"]
    assert check.checked(2, 4) == ["2 of 4 steps checked", "20 s left"]

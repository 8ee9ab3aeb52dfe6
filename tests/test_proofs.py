"""Proved saddles: Eckart and Young inside the balls, negative controls, the checker and mutated certificates."""

import json
import sys
from dataclasses import replace
from itertools import combinations, pairwise

import mpmath
import numpy as np
import pytest

from dlnphase.backend import resolve_backend
from dlnphase.cli.app import run
from dlnphase.costs.quadratic import completion, factorization
from dlnphase.costs.tasks import planted_task
from dlnphase.critical import HostCost, MatrixPoint, refine_matrix
from dlnphase.detect.proofs import Prover, check_proof
from dlnphase.proofs.balls import Undecided, eigenvalue_bounds, exact, flint, interval, precision
from dlnphase.proofs.chart import prove_critical
from dlnphase.proofs.checking import NotProved, check_saddle
from dlnphase.proofs.quadratic import ball_cost
from dlnphase.proofs.saddle import prove_saddle
from dlnphase.results.proof import ProofDocument, load_proof, proof_files
from dlnphase.results.provenance import Clock

CPU = resolve_backend("cpu")
RNG = np.random.default_rng(5)


def point_at(a, rank, host):
    """A as refine_matrix would hand it over, claimed to be converged."""
    s = float(np.linalg.norm(host.gradient(a), 2))
    return MatrixPoint(a, rank, host.value(a), 0.0, host.scale, 0.0, 0.0, True, s)


def truncated(a, rank):
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


def greedy_point(host, rank, steps=400):
    """A critical matrix by projected gradient steps of unit length over the curvature, then refined."""
    a = np.zeros(host.shape)
    unit = np.eye(host.shape[0] * host.shape[1]).reshape(-1, *host.shape)
    stiff = float(np.linalg.eigvalsh(host.curvature(unit, a).reshape(len(unit), -1))[-1])
    for _ in range(steps):
        a = truncated(a - host.gradient(a) / stiff, rank)
    return refine_matrix(a, host, rank=rank)


def random_weights(shape, depth, width, size=0.1):
    dims = [shape[1], *[width] * (depth - 1), shape[0]]
    return [size * RNG.standard_normal((m, n)) for n, m in pairwise(dims)]


def claims_of(proof):
    given = {name: getattr(proof.chart, name) for name in ("rows", "X", "Y", "X_radius", "Y_radius")}
    given |= {"u": proof.pair[0], "v": proof.pair[1]}
    given |= {f"R{l}": r for l, r in enumerate(proof.frames, 1)} | {f"W{l}": w for l, w in enumerate(proof.weights, 1)}
    claim = {"rank": proof.chart.rank, "value": proof.cost, "rate": proof.rate, "distance": proof.distance}
    return given, claim


def cost_arrays(ball):
    return {ball.word: ball.factor, "minimizer": ball.minimizer}


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_eckart_and_young_lie_inside_the_balls(depth):
    """Costs ½Σ_{i>k}s_i² and rates s_{k+1} of the float target, its singular values taken with 40 digits."""
    target = RNG.standard_normal((5, 4)) @ np.diag([3.0, 1.5, 0.8, 0.3])
    cost = factorization(target, CPU)
    host, ball = HostCost(cost), ball_cost(cost)
    with mpmath.workdps(40):
        s = list(mpmath.svd_r(mpmath.matrix(target.tolist()), compute_uv=False))
        for k in range(4):
            weights = random_weights((5, 4), depth, 7)
            proof = prove_saddle(refine_matrix(truncated(target, k), host, rank=k), ball, host, weights, [7])
            value = sum((x**2 for x in s[k:]), mpmath.mpf(0)) / 2
            assert proof.cost[0] <= value <= proof.cost[1] and proof.cost[1] - proof.cost[0] < 1e-11
            assert proof.rate[0] <= s[k] <= proof.rate[1] and proof.rate[1] - proof.rate[0] < 1e-11
            given, claim = claims_of(proof)
            check_saddle(cost_arrays(ball), ball.minimum, given, **claim)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("completion", (6, 6)),
        ("completion", (10, 12)),
        ("completion", (20, 20)),
        ("sensing", (5, 4)),
        ("regression", (5, 6)),
    ],
)
def test_saddles_of_every_cost_are_proved_and_checked(kind, shape):
    task = planted_task(kind, shape, (5.0, 3.0, 1.0), CPU, measurements=30 if kind == "sensing" else None)
    host, ball = HostCost(task.cost), ball_cost(task.cost)
    for k in (0, 1, 2) if shape != (20, 20) else (1,):
        proof = prove_saddle(greedy_point(host, k), ball, host, random_weights(shape, 3, 6), [6, 6])
        given, claim = claims_of(proof)
        check_saddle(cost_arrays(ball), ball.minimum, given, **claim)
        # The critical point in weight space, by floats: its distance is no more than what is proved.
        assert proof.distance > 0 and proof.rate[0] > 0.1


# ---- negative controls -------------------------------------------------------------------------------------


def controls():
    """(A, rank, cost, why there is no such isolated saddle) of many kinds; nobody may accept one."""
    rng = np.random.default_rng(11)
    for i in range(50):
        q, _ = np.linalg.qr(rng.standard_normal((4, 4)))
        p, _ = np.linalg.qr(rng.standard_normal((4, 4)))
        twice = np.diag([3.0, 2.0, 2.0, 0.5])  # diagonal: exactly repeated as floats
        yield truncated(twice, 2), 2, twice, "a repeated value"
        target = q @ np.diag([4.0, 2.0, 1.0, 0.5]) @ p.T
        yield truncated(target, 1) + 0.3 * rng.standard_normal((4, 4)), 1, target, "a displaced centre"
        yield truncated(target, 1), 2, target, "a rank too high"
        yield target, 4, target, "∇C = 0"
        low = (q[:, :2] * [3.0, 1.0]) @ p[:, :2].T
        yield low, 3, np.round(low, 2) if i % 2 else low, "a rank above that of the point"


def test_two_hundred_and_fifty_negative_controls_are_refused():
    """A displaced centre may still lead to the true saddle: then the claim must be the true one."""
    refused, kinds = 0, set()
    for a, rank, target, why in controls():
        cost = factorization(target, CPU)
        host, ball = HostCost(cost), ball_cost(cost)
        try:
            proof = prove_saddle(point_at(a, rank, host), ball, host, None, [9])
        except Undecided:
            refused += 1
            kinds.add(why)
            continue
        s = np.linalg.svd(target, compute_uv=False)
        true = [0.5 * sum(x**2 for i, x in enumerate(s) if i not in kept) for kept in subsets(4, rank)]
        assert why in ("a displaced centre", "a rank above that of the point", "a rank too high"), why
        assert any(proof.cost[0] - 1e-12 <= c <= proof.cost[1] + 1e-12 for c in true), why
        assert proof.rate[0] > 0
    assert refused >= 200
    assert kinds == {
        "a repeated value",
        "a displaced centre",
        "a rank too high",
        "∇C = 0",
        "a rank above that of the point",
    }


def subsets(n, k):
    return combinations(range(n), k)


def test_a_continuum_of_a_completion_is_refused():
    """A row that nobody observed may be anything: critical matrices are not isolated."""
    target = RNG.standard_normal((4, 4))
    seen = np.ones((4, 4), dtype=bool)
    seen[:, 3] = False
    seen[3, :] = False
    ball = ball_cost(completion(target, seen, CPU))
    a = np.zeros((4, 4))
    a[:3, :3] = truncated(target[:3, :3], 1)
    a[3, :] = 0.7 * a[0, :]
    with precision(128), pytest.raises(Undecided, match="isolated"):
        prove_critical(a, 1, ball)


# ---- what is undecided -------------------------------------------------------------------------------------


def test_undecided_comparisons_are_not_taken_for_either_answer():
    """A ball around 0 is neither above nor below it, and a rate that may be 0 is refused."""
    arb = flint().arb
    wide = arb(0, 1e-3)
    assert not wide > 0 and not wide <= 0
    with precision(128):
        low, high = eigenvalue_bounds(exact(np.diag([-1.0, 0.0, 2.0])))
        assert interval(low)[0] <= -1 and interval(high)[1] >= 2
    target = np.diag([3.0, 1.0, 0.0])
    cost = factorization(target, CPU)
    host, ball = HostCost(cost), ball_cost(cost)
    with pytest.raises(Undecided, match="∇C = 0"):  # 2 modes are all there are: A = Â, G = 0 up to the box
        prove_saddle(point_at(target, 2, host), ball, host, None, [9])
    with pytest.raises(Undecided, match="free"):
        prove_saddle(point_at(truncated(target, 1), 1, host), ball, host, None, [1])


# ---- documents, the checker, mutations ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def document():
    """Ranks 0 and 1 of a 2 × 3 factorization, and its minimum."""
    target = np.array([[2.0, 0.3, 0.1], [-0.2, 0.9, 0.4]])
    cost = factorization(target, CPU)
    host, prover = HostCost(cost), Prover(cost)
    for k in (0, 1):
        point = refine_matrix(truncated(target, k), host, rank=k)
        assert prover.visit(0, point, random_weights((2, 3), 3, 3), [3, 3]).verdict == "proved"
    end = refine_matrix(target, host)
    near = [np.eye(3) * 1.1, np.eye(3), target / 1.1]
    assert prover.visit(0, end, near, [3, 3]).verdict == "proved"
    return prover.document(Clock().provenance())


def saved(document, directory):
    for name, data in proof_files(document).items():
        (directory / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return directory / "proof.yaml"


def test_a_document_survives_the_disk_and_is_verified(document, tmp_path, capfd):
    path = saved(document, tmp_path)
    checked = check_proof(load_proof(path), "proof.yaml")
    assert checked.verified and not checked.changed and len(checked.lines) == 3
    assert run(["detect-saddles", "--check", str(path)]) == 0
    assert "Verified" in capfd.readouterr().out
    assert run(["detect-saddles", "--check", str(path), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["verified"] is True


def test_a_changed_file_is_told_and_a_false_claim_is_not_verified(document, tmp_path, capfd):
    path = saved(document, tmp_path)
    text = path.read_text()
    wider = replace(document.visits[0].claim, distance=document.visits[0].claim.distance * 2)
    weak = replace(document, visits=(replace(document.visits[0], claim=wider), *document.visits[1:]))
    loose = check_proof(replace(load_proof(path), visits=weak.visits), "p")
    assert loose.verified and loose.changed  # weaker and still true: passes, and is told
    path.write_text(text.replace("rank: 1", "rank: 2"))
    assert run(["detect-saddles", "--check", str(path)]) == 1
    out = capfd.readouterr().out
    assert "NOT verified" in out and "changed since they were written" in out


def mutated(document, rng):
    """The document with one number changed somewhere: in a claim or in the arrays."""
    i = int(rng.integers(len(document.visits)))
    visit, what = document.visits[i], rng.choice(["claim", "claim", "array"])
    factor = float(rng.choice([0.0, 0.5, 0.999999, 1 + 1e-9, 1.1, -1.0, 3.0, np.nan, np.inf]))
    if what == "array":
        arrays = {k: a.copy() for k, a in document.arrays.items()}
        name = str(rng.choice(sorted(arrays)))
        if arrays[name].size:
            spot = int(rng.integers(arrays[name].size))
            flat = arrays[name].reshape(-1)
            old = flat[spot]
            if flat.dtype.kind == "i":
                flat[spot] = rng.integers(-1, 4)
                return replace(document, arrays=arrays)
            with np.errstate(all="ignore"):
                flat[spot] = old * factor if rng.random() < 0.5 and old else old + rng.standard_normal() * factor
        return replace(document, arrays=arrays)
    claim, least = visit.claim, document.cost.minimum
    key = str(rng.choice(["rank", "cost", "rate", "distance", "kind", "minimum"]))
    if key == "kind":
        kinds = [visit.kind, "saddle", "global-minimum"]
        visit = replace(visit, kind=str(rng.choice(kinds)))
    elif key == "minimum":
        return replace(document, cost=replace(document.cost, minimum=least + factor))
    elif key == "rank":
        claim = replace(claim, rank=int(rng.integers(-1, 4)))
    elif key == "distance":
        claim = replace(claim, distance=claim.distance * factor)
    else:
        ends = list(getattr(claim, key))
        ends[int(rng.integers(2))] *= factor
        claim = replace(claim, **{key: tuple(ends)})
    visits = list(document.visits)
    visits[i] = replace(visit, claim=claim)
    return replace(document, visits=tuple(visits))


def follows(document: ProofDocument):
    """Whether every claim is true of the arrays, by mpmath with 40 digits, and the path that leads there by floats."""
    target = document.arrays["cost_minimizer"]
    mask = document.arrays["cost_mask"]
    if not (mask == 1).all():
        return None  # no closed form
    with mpmath.workdps(40):
        s = list(mpmath.svd_r(mpmath.matrix(target.tolist()), compute_uv=False))
        for v in document.visits:
            c = v.claim
            given = {n.removeprefix(f"visit{v.visit}_"): a for n, a in document.arrays.items()}
            if v.kind == "global-minimum":
                if (c.rank, c.rate, c.cost) != (None, (0.0, 0.0), (document.cost.minimum,) * 2):
                    return False
                layers = [given[f"W{l}"] for l in (1, 2, 3)]
                miss = np.linalg.norm(layers[2] @ layers[1] @ layers[0] - target)
                steepest = np.sqrt(3) * max(np.linalg.norm(w) + c.distance for w in layers) ** 2
                if miss > steepest * c.distance * 1.0000001:
                    return False  # no minimum can be that near
                continue
            possible = [
                (
                    sum((s[i] ** 2 for i in range(2) if i not in kept), mpmath.mpf(0)) / 2 + document.cost.minimum,
                    max(s[i] for i in range(2) if i not in kept),
                )
                for kept in subsets(2, c.rank)
                if len(kept) < 2
            ]
            if not any(c.cost[0] <= x <= c.cost[1] and c.rate[0] <= r <= c.rate[1] for x, r in possible):
                return False
            if c.rank == 0:
                square = sum((mpmath.mpf(float(x)) ** 2 for l in (1, 2, 3) for x in given[f"W{l}"].flat), mpmath.mpf(0))
                if mpmath.sqrt(square) > c.distance:
                    return False
            elif not second_way(given, c.distance):
                return False
    return True


def second_way(given, distance):
    """‖θ − θ_c‖ of the critical point that frames and chart make, by floats, up to their round-off."""
    place = np.argsort(given["rows"])
    left = np.vstack([np.eye(1), given["X"]])[place]
    ends = [*(given[f"R{l}"] for l in (1, 2)), left]
    chain = [given["Y"], *(np.linalg.pinv(given[f"R{l}"]) for l in (1, 2))]
    total = sum(np.sum((e @ c - given[f"W{l}"]) ** 2) for l, (e, c) in enumerate(zip(ends, chain, strict=True), 1))
    return np.sqrt(total) <= distance * (1 + 1e-12)


def test_of_a_thousand_mutated_certificates_none_is_verified_whose_claim_does_not_follow(document):
    rng = np.random.default_rng(3)
    verified, judged = 0, 0
    for _ in range(1000):
        other = mutated(document, rng)
        checked = check_proof(other, "p")
        if checked.verified:
            truth = follows(other)
            verified += 1
            judged += truth is not None
            assert truth is not False
    assert 20 < verified < 600 and judged > 20


def test_a_box_that_holds_no_critical_matrix_is_not_verified(document):
    arrays = {k: a.copy() for k, a in document.arrays.items()}
    arrays["visit1_Y"] = arrays["visit1_Y"] + 1e-9
    given = {n.removeprefix("visit1_"): a for n, a in arrays.items() if n.startswith("visit1_")}
    cost = {n.removeprefix("cost_"): a for n, a in arrays.items() if n.startswith("cost_")}
    claim = document.visits[1].claim
    with pytest.raises(NotProved, match="Krawczyk"):
        check_saddle(cost, 0.0, given, rank=1, value=claim.cost, rate=claim.rate, distance=claim.distance)


def test_without_python_flint_there_is_one_line(tmp_path, monkeypatch, capfd, document):
    path = saved(document, tmp_path)
    monkeypatch.setitem(sys.modules, "flint", None)
    assert run(["detect-saddles", "--check", str(path)]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "python-flint" in err and "dlnphase[proof]" in err


def test_check_stands_alone(document, tmp_path, capfd):
    path = saved(document, tmp_path)
    assert run(["detect-saddles", "runs/first", "--check", str(path)]) == 2
    assert "expected the proof file alone" in capfd.readouterr().err
    assert run(["detect-saddles", "--check", str(path), "--out", "x"]) == 2
    (tmp_path / "proof.npz").unlink()
    assert run(["detect-saddles", "--check", str(path)]) == 2
    assert "missing beside it" in capfd.readouterr().err


def test_a_run_is_proved_by_one_command(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--task", "factorization", "--shape", "4x3", "--singular-values", "5,2.5,1", "--depth", "3"]
    assert run(["train", *small, "--width", "20", "--gamma", "2.5", "--out", "run", "-q"]) == 0
    assert run(["detect-saddles", "run", "--prove", "saddles", "--out", "found"]) == 0
    assert "Proved in ball arithmetic" in capfd.readouterr().out
    import dlnphase

    found = dlnphase.load_detect("found")
    assert [v.proof.verdict for v in found.visits] == ["proved"] * len(found.visits)
    assert [v.proof.rank for v in found.visits[:3]] == [0, 1, 2]
    for v in found.visits:
        assert v.proof.distance >= 0
    assert run(["detect-saddles", "--check", "found/proof.yaml"]) == 0

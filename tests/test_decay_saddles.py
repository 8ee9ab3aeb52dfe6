"""Critical points of C + (λ/2)‖θ‖² along paths: brute force, dense Hessians, a convex solver, torch.optim."""

from itertools import pairwise
from itertools import product as choices

import numpy as np
import pytest
import torch
from problems import loss_gradient, nuclear_minimum, product
from scipy.optimize import minimize, root

import dlnphase
from dlnphase.backend import resolve_backend
from dlnphase.cli.app import run
from dlnphase.costs.quadratic import completion, factorization
from dlnphase.critical import HostCost, certify, refine_matrix, refine_weights
from dlnphase.critical.certify import rotations
from dlnphase.critical.decay import Decay
from dlnphase.critical.decayed_modes import decayed_size, is_least_with_decay, largest_decay
from dlnphase.critical.greedy import greedy_path
from dlnphase.detect.sentences import detect_sentence
from dlnphase.detect.sources import balanced_gradient, read_source
from dlnphase.detect.speed import followed_speed
from dlnphase.dynamics import gradient_flow
from dlnphase.errors import InputError
from dlnphase.networks.sampling import gaussian_network
from dlnphase.results.detect import load_detect
from dlnphase.settings import DetectSettings, TrainSettings
from dlnphase.training.run import prepare

CPU = resolve_backend("cpu")
SIZES = (3.0, 1.5)


def train(**settings):
    return dlnphase.train(TrainSettings(**settings))


def detect(source, **settings):
    return dlnphase.detect_saddles(DetectSettings(source=str(source), **settings))


# ---- every critical point of a tiny network ----------------------------------------------------------


def found_by_brute_force(target, hidden, decay, starts):
    """Every end of SciPy's root finder on the plain gradient, one for each end-to-end matrix: layers and spectrum."""
    dims = [target.shape[1], *hidden, target.shape[0]]
    shapes = list(zip(dims[1:], dims[:-1], strict=True))
    sizes = [a * b for a, b in shapes]

    def layers(x):
        return [part.reshape(shape) for part, shape in zip(np.split(x, np.cumsum(sizes)[:-1]), shapes, strict=True)]

    def slope(x):
        return np.concatenate([g.ravel() for g in loss_gradient(layers(x), lambda a: a - target)]) + decay * x

    def whole(theta):
        out = None
        for part, shape in zip(theta.split(sizes), shapes, strict=True):
            out = part.view(shape) if out is None else part.view(shape) @ out
        return 0.5 * (out - torch.as_tensor(target)).square().sum() + 0.5 * decay * theta.square().sum()

    rng, found = np.random.default_rng(0), []
    for start in (rng.standard_normal(sum(sizes)) * size for size in rng.choice([0.05, 0.2, 0.6, 1.0, 1.5], starts)):
        end = root(slope, start, method="lm", options={"xtol": 1e-15, "ftol": 1e-15})
        ws = layers(end.x)
        if np.abs(slope(end.x)).max() > 1e-10 or any(np.abs(product(ws) - product(v)).max() < 1e-6 for v, *_ in found):
            continue
        theta = torch.as_tensor(end.x)
        hessian = torch.autograd.functional.hessian(whole, theta).numpy()
        found.append((ws, np.linalg.eigvalsh(hessian), float(whole(theta))))
    return found


def roots_of_a_mode(s, decay, depth):
    """All a ≥ 0 at which u̇ = u^(L−1)(s − u^L) − λu vanishes, u^L = a, by the roots of the polynomial."""
    coefficients = np.zeros(2 * depth - 1)
    coefficients[0] = -1.0  # of −u^(2L−2) + s·u^(L−2) − λ
    coefficients[depth] += s
    coefficients[-1] -= decay
    real = [r.real for r in np.roots(coefficients) if abs(r.imag) < 1e-9 and r.real > 1e-9]
    return [0.0, *(u**depth for u in real)]


@pytest.mark.parametrize(
    ("hidden", "decay", "starts"), [((3,), 0.7, 30), ((2,), 1.6, 20), ((2, 3), 0.5, 90), ((2, 1, 2), 0.4, 60)]
)
def test_all_critical_points_of_a_tiny_network_and_their_kinds(hidden, decay, starts):
    """Those of a factorization are all choices of a root for each mode; counts and kinds are the dense Hessian's."""
    depth, target = len(hidden) + 1, np.diag(SIZES)
    host = HostCost(factorization(target, CPU), Decay(decay, depth))
    found = found_by_brute_force(target, hidden, decay, starts)
    every = choices(*(roots_of_a_mode(s, decay, depth) for s in SIZES))
    expected = [a for a in every if np.count_nonzero(a) <= min(hidden)]
    reached = sorted(tuple(np.round(np.diag(product(ws)), 7) + 0.0) for ws, *_ in found)
    assert len(reached) == len(expected) and np.allclose(reached, sorted(expected), atol=1e-6)
    least = min(value for *_, value in found)
    for layers, values, value in found:
        point = refine_matrix(product(layers), host)
        visited, nearest = refine_weights(layers, point, host)
        certificate = certify(visited, host)
        curvature, threshold = certificate.curvature, certificate.curvature.threshold
        assert visited is nearest and visited.distance < 1e-7 and visited.gradient_norm < 1e-12
        assert curvature.negative_eigenvalues == (values < -1e-7).sum()
        assert curvature.zero_eigenvalues == (np.abs(values) < 1e-7).sum() == rotations(point.rank, hidden)
        assert curvature.min_eigenvalue == pytest.approx(values[0], abs=1e-7) and threshold < 1e-7
        assert curvature.residual < 1e-12
        if (values < -1e-7).any():
            assert certificate.kind == "strict-saddle" and certificate.descent.order == 2
            assert certificate.descent.ratio == pytest.approx(1, abs=0.01)
        else:
            assert certificate.kind == ("global-minimum" if value < least + 1e-9 else "local-minimum")
            assert certificate.descent is None


def test_the_least_of_weights_above_a_matrix_is_the_nearest_point():
    """Rotated and disturbed layers: the refined point is no farther than any rotation of hidden spaces makes it."""
    rng = np.random.default_rng(0)
    host = HostCost(factorization(np.diag([3.0, 1.5, 0.0]), CPU), Decay(0.3, 3))
    size = [decayed_size(s, 0.3, 3) for s in SIZES]
    frames = [np.eye(3)[:, :2], *(np.linalg.qr(rng.standard_normal((n, 2)))[0] for n in (5, 4)), np.eye(3)[:, :2]]
    layers = [
        frames[k + 1] * np.cbrt(size) @ frames[k].T + 0.1 * rng.standard_normal((n, m))
        for k, (n, m) in enumerate(((5, 3), (4, 5), (3, 4)))
    ]
    point = refine_matrix(product(layers), host, rank=2)
    visited, _ = refine_weights(layers, point, host)

    def distance(x):
        turns = [
            torch.linalg.matrix_exp(torch.as_tensor(a - a.T)).numpy()
            for a in (x[:25].reshape(5, 5), x[25:].reshape(4, 4))
        ]
        w1, w2, w3 = visited.weights
        turned = [turns[0] @ w1, turns[1] @ w2 @ turns[0].T, w3 @ turns[1].T]
        return sum(np.sum((a - b) ** 2) for a, b in zip(turned, layers, strict=True))

    best = minimize(distance, 0.3 * rng.standard_normal(41), method="BFGS", options={"maxiter": 200})
    assert distance(np.zeros(41)) == pytest.approx(visited.distance**2)
    assert visited.distance**2 == pytest.approx(best.fun, rel=1e-6)


def test_the_origin_is_told_as_the_least_where_decay_outweighs_the_cost():
    """By the bound of theory, beside what L-BFGS finds from many starts."""
    rng = np.random.default_rng(1)
    target, seen = 2 * rng.standard_normal((3, 3)), ~np.eye(3, dtype=bool)
    cost = completion(np.where(seen, target, np.nan), seen, CPU)
    most, s = 0.5 * np.sum((seen * target) ** 2), np.linalg.norm(seen * target, 2)
    border = most / (1.5 * (most / s) ** (2 / 3))

    def whole(x, decay):
        layers = x.reshape(3, 3, 3)
        g = loss_gradient(list(layers), lambda a: seen * (a - target))
        left = seen * (product(layers) - target)
        return 0.5 * np.sum(left**2) + 0.5 * decay * x @ x, np.ravel(g) + decay * x

    for decay, known in ((1.001 * border, True), (0.999 * border, False), (0.3 * border, False)):
        host = HostCost(cost, Decay(decay, 3))
        point = refine_matrix(np.zeros((3, 3)), host)
        assert is_least_with_decay(point, host, Decay(decay, 3), 3) == known
        starts = 1.5 * rng.standard_normal((10, 27))
        ends = [minimize(whole, x, (decay,), jac=True).fun for x in starts]
        assert min(ends) >= most * (1 - 1e-9) if known else decay > 0.5 * border or min(ends) < 0.9 * most


def test_zeros_that_no_rotation_explains_leave_the_kind_open():
    """Two equal modes, one learned: it may be any of a continuum, and a minimum is not claimed."""
    host = HostCost(factorization(2 * np.eye(2), CPU), Decay(0.3, 3))
    root = np.cbrt(decayed_size(2.0, 0.3, 3)) * np.diag([1.0, 0.0])
    point = refine_matrix(root @ root @ root, host, rank=1)
    certificate = certify(refine_weights([root] * 3, point, host)[0], host)
    assert certificate.curvature.negative_eigenvalues == 0
    assert certificate.curvature.zero_eigenvalues > rotations(1, (2, 2))
    assert certificate.kind == "uncertified" and "more zeros" in certificate.note


def test_nearness_is_told_in_units_of_what_a_mode_will_be():
    """s = 1 and λ = 0.9: the mode grows to 0.1, and at 0.1 the origin is as far as that."""
    host = HostCost(factorization(np.diag([1.0, 0.0]), CPU), Decay(0.9, 2))
    point = refine_matrix(np.diag([0.1, 0.0]), host, rank=0)
    assert point.nearness == pytest.approx(1.0) and not point.converged


# ---- runs of ours ------------------------------------------------------------------------------------


def test_a_run_of_two_layers_and_its_saddles_at_any_width(tmp_path):
    """w = 1e9, factorization: visits are those of the run, rank k has (s_k − λ)₊, and every count is in closed form."""
    width, decay, sizes = 10**9, 0.8, np.array([4.0, 2.0, 0.5])
    out = tmp_path / "run"
    command = ["train", "--task", "factorization", "--shape", "5x4", "--singular-values", "4,2,0.5", "-L", "2"]
    command += ["-w", "1e9", "-g", "1.5", "--weight-decay", "0.8", "--tol", "1e-12", "--out", str(out)]
    assert run(command) == 0
    result, found = dlnphase.load(out), detect(out, greedy=True)
    assert found.path.weight_decay == decay
    ranks = [v.rank for v in found.visits]
    assert ranks == [0, 1, 2] == [result.rank_transitions[0].from_rank, *(r.to_rank for r in result.rank_transitions)]
    assert found.transitions[0] == result.rank_transitions
    for visit in found.visits:
        left = np.maximum(sizes - decay, 0)[visit.rank :]
        learned = np.where(np.arange(3) < visit.rank, np.maximum(sizes - decay, 0), 0)
        assert visit.critical_point.singular_values[:3] == pytest.approx(learned, abs=1e-12)
        assert visit.critical_point.penalty == pytest.approx(decay * learned.sum())
        c = visit.curvature
        assert c.complete and c.negative_eigenvalues == (width - visit.rank) * (left > 0).sum()
        turns = visit.rank * (width - visit.rank) + visit.rank * (visit.rank - 1) // 2
        assert c.zero_eigenvalues == c.rotations == turns
        assert visit.greedy.same and visit.greedy.cost == pytest.approx(visit.critical_point.cost, rel=1e-12)
        if visit.rank < 2:
            assert visit.kind == "strict-saddle"
            assert visit.escape.predicted_rate == pytest.approx(left[0]) == pytest.approx(-c.min_eigenvalue)
            assert visit.escape.rate == pytest.approx(left[0], rel=1e-2)
            assert visit.escape.descent == pytest.approx(1, abs=0.01)
        else:
            assert visit.kind == "global-minimum" and visit.escape is None
    assert "2 strict saddles of rank 0, 1, then reaches a global minimum of rank 2" in detect_sentence(found)


def test_classes_that_lie_apart_have_a_certified_minimum_with_decay(tmp_path, capsys):
    """The refined end is the minimiser of cross-entropy plus λ times the nuclear norm, by a convex solver."""
    rng = np.random.default_rng(0)
    y = np.arange(30) % 3
    x = np.array([[6.0, 0, 0, 0], [0, 6, 0, 0], [-3, -3, 3, 0]])[y] + 0.3 * rng.standard_normal((30, 4))
    np.savez(tmp_path / "apart.npz", X=x, y=y)
    out, decay = tmp_path / "run", 0.05
    command = ["train", "--task", "classification", "--data", str(tmp_path / "apart.npz"), "-L", "2", "-w", "12"]
    assert run([*command, "-g", "4", "--weight-decay", "0.05", "--tol", "1e-13", "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert run(["detect-saddles", str(out), "--out", str(tmp_path / "saddles")]) == 0
    again = capsys.readouterr()
    for words in (*told, *again):
        assert "no minimum" not in words and "separable" not in words
    assert "all samples can be got right: it is weight decay that keeps A finite" in told.err
    found = load_detect(tmp_path / "saddles")

    def odds(a):
        z = x @ a.T
        p = np.exp(z - z.max(1, keepdims=True))
        return p / p.sum(1, keepdims=True)

    a, least = nuclear_minimum(
        lambda a: (odds(a) - np.eye(3)[y]).T @ x / 30,
        lambda a: -np.log(odds(a)[np.arange(30), y]).mean(),
        (3, 4),
        decay,
        1 / np.linalg.eigvalsh(x.T @ x / 30)[-1],
    )
    end, result = found.visits[-1], dlnphase.load(out)
    assert result.outcome.reached == "decayed-minimum" and result.outcome.margin is None
    assert result.outcome.reachable == pytest.approx(least, rel=1e-9)
    assert np.abs(result.trajectory.A[-1] - a).max() < 1e-6 * np.abs(a).max()
    assert np.abs(found.matrices["critical"][-1] - a).max() < 1e-6 * np.abs(a).max()
    assert end.critical_point.cost + end.critical_point.penalty == pytest.approx(least, rel=1e-9)
    assert (end.kind, end.note) == ("global-minimum", "")
    assert [v.kind for v in found.visits[:-1]] == ["strict-saddle"] * (len(found.visits) - 1) != []


def test_what_a_run_has_is_not_to_be_said_otherwise(tmp_path, capsys):
    out = tmp_path / "run"
    command = ["train", "--task", "factorization", "--shape", "3x3", "--rank", "1", "-L", "3", "-w", "8", "-g", "1.1"]
    assert run([*command, "--weight-decay", "0.2", "--out", str(out)]) == 0
    assert detect(out, weight_decay=0.2).visits[-1].kind == "global-minimum"
    for more, words in (
        (["--weight-decay", "0.3"], "weight-decay: found 0.3"),
        (["--weight-decay", "0"], "weight-decay: found 0,"),
        (["--prove", "saddles"], "prove: found with weight decay 0.2"),
    ):
        capsys.readouterr()
        assert run(["detect-saddles", str(out), "--out", str(tmp_path / "found"), *more]) == 2
        err = capsys.readouterr().err
        assert words in err and len(err.strip().splitlines()) == 1
    assert run(["detect-saddles", str(out), "--out", str(tmp_path / "found")]) == 0
    shown = capsys.readouterr().out
    assert "weight decay 0.2" in shown.splitlines()[0] and "rotations" in shown and "μ min" in shown


# ---- paths of other codes ----------------------------------------------------------------------------


def path_of_sgd(depth, size, decay, *, steps, every, lr=0.01, loss=1.0, recorder=None):
    """The layers of a plain loop of torch.optim.SGD with weight decay, on ``loss`` times ½‖A − diag(3, 1.5, 0.4)‖²."""
    rng, dims = torch.Generator().manual_seed(0), [3, *[6] * (depth - 1), 3]
    target = torch.diag(torch.tensor([3.0, 1.5, 0.4], dtype=torch.float64))
    layers = [
        (size * torch.randn(n, m, generator=rng, dtype=torch.float64)).requires_grad_() for m, n in pairwise(dims)
    ]
    optimizer, rows, times = torch.optim.SGD(layers, lr=lr, weight_decay=decay), [], []
    for step in range(steps + 1):
        if step % every == 0:
            rows.append([w.detach().numpy().copy() for w in layers])
            times.append(step * lr)
        optimizer.zero_grad()
        a = layers[0]
        for w in layers[1:]:
            a = w @ a
        (0.5 * loss * (a - target).square().sum()).backward()
        optimizer.step()
    return {"t": np.array(times)} | {f"W{k + 1}": np.stack([row[k] for row in rows]) for k in range(depth)}


@pytest.fixture(scope="module")
def target_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("target") / "target.npy"
    np.save(path, np.diag([3.0, 1.5, 0.4]))
    return str(path)


def test_a_deep_path_passes_a_local_minimum(target_file, tmp_path):
    """L = 3: above the barrier, past the minimum of rank 1, to the one of rank 2, which is the least."""
    np.savez(tmp_path / "path.npz", **path_of_sgd(3, 0.15, 0.25, steps=2500, every=10))
    found = detect(tmp_path / "path.npz", target=target_file, weight_decay=0.25, greedy=True)
    assert [(v.rank, v.kind) for v in found.visits] == [(1, "local-minimum"), (2, "global-minimum")]
    for visit in found.visits:
        sizes = [decayed_size(s, 0.25, 3) for s in (3.0, 1.5)[: visit.rank]]
        assert visit.critical_point.singular_values[: visit.rank] == pytest.approx(sizes, rel=1e-12)
        assert visit.critical_point.penalty == pytest.approx(0.375 * np.sum(np.cbrt(sizes) ** 2))
        c = visit.curvature
        assert (c.negative_eigenvalues, c.zero_eigenvalues) == (0, c.rotations) and visit.escape is None
    assert largest_decay(0.4, 3) < 0.25
    assert "passes 1 minimum of rank 1 without coming to rest, then reaches a global" in detect_sentence(found)
    assert [g.rank for g in found.greedy_path] == [0]


def test_a_shallow_path_in_every_form_it_may_come_in(target_file, tmp_path):
    """Weights, matrices alone, far apart, and a loss twice ours beside twice the decay: the same points and rates."""
    whole = path_of_sgd(2, 0.01, 0.7, steps=2000, every=10)
    twice = path_of_sgd(2, 0.01, 1.4, steps=2000, every=10, lr=0.005, loss=2.0)
    forms = {
        "weights": (whole, {"weight_decay": 0.7}),
        "matrices": ({"t": whole["t"], "A": whole["W2"] @ whole["W1"]}, {"weight_decay": 0.7, "depth": 2, "width": 6}),
        "apart": ({k: v[::25] for k, v in whole.items()}, {"weight_decay": 0.7}),
        "twice": (twice, {"weight_decay": 1.4, "loss_scale": 2.0}),
        "said": (
            whole | {"optimizer": np.array("SGD"), "not_flow": np.array("weight decay 0.7")},
            {"weight_decay": 0.7},
        ),
    }
    for name, (arrays, options) in forms.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        found = detect(tmp_path / f"{name}.npz", target=target_file, **options)
        assert [(v.rank, v.kind) for v in found.visits] == [(0, "strict-saddle"), (2, "global-minimum")], name
        first, last = found.visits
        assert first.curvature.negative_eigenvalues == 12 and first.curvature.min_eigenvalue == pytest.approx(-2.3)
        assert first.escape.rate == pytest.approx(2.3, rel=0.03) and first.escape.alignment > 0.99
        assert last.critical_point.singular_values == pytest.approx([2.3, 0.8, 0], abs=1e-12)
        assert found.path.weight_decay == 0.7 and found.path.strayed == 0 and found.path.not_flow == ""
        assert (found.path.followed > 0) == (name == "apart")
    settings = DetectSettings(source=str(tmp_path / "weights.npz"), target=target_file, weight_decay=0.7)
    trace = read_source(settings).traces[0]
    layers = [w[50] for w in (whole["W1"], whole["W2"])]
    slope = loss_gradient(layers, lambda a: a - np.diag([3.0, 1.5, 0.4]))
    norm = np.sqrt(sum(np.sum((g + 0.7 * w) ** 2) for g, w in zip(slope, layers, strict=True)))
    at = int(np.searchsorted(trace.time, 5.0 - 1e-9))
    assert trace.gradient_norm[at] == pytest.approx(norm, rel=1e-12)
    assert trace.penalty[at] == pytest.approx(0.35 * sum(np.sum(w**2) for w in layers), rel=1e-12)


def test_the_speed_of_a_path_with_decay_is_that_of_its_own_flow(target_file, tmp_path):
    """Records too far apart for a difference: the flow with decay leads from one to the next in the time between."""
    np.savez(tmp_path / "path.npz", **path_of_sgd(2, 0.01, 0.7, steps=1200, every=30))
    settings = DetectSettings(source=str(tmp_path / "path.npz"), target=target_file, weight_decay=0.7, between=False)
    source = read_source(settings)
    speed = followed_speed(source.traces[0], source.task.cost, rtol=1e-4, decay=0.7)
    assert speed is not None and speed.value == pytest.approx(1.0, abs=0.02)


def test_the_gradient_of_balanced_layers_has_the_decay_of_each():
    rng = np.random.default_rng(0)
    target, a = rng.standard_normal((2, 4, 3))
    cost = factorization(target, CPU)
    for depth in (2, 3, 4):
        u, s, vt = np.linalg.svd(a, full_matrices=False)
        roots = np.diag(s ** (1 / depth))
        layers = [roots @ vt, *[roots] * (depth - 2), u @ roots]
        slope = loss_gradient(layers, lambda x: x - target)
        norm = np.sqrt(sum(np.sum((g + 0.3 * w) ** 2) for g, w in zip(slope, layers, strict=True)))
        assert balanced_gradient(a[None], cost, depth, 0.3)[0] == pytest.approx(norm, rel=1e-12)


# ---- the greedy path ---------------------------------------------------------------------------------


def test_the_greedy_path_of_a_completion_ends_at_the_least_nuclear_norm():
    """L = 2: from the origin through strict saddles, each entered at rate s − λ, to the convex solver's matrix."""
    settings = TrainSettings(
        shape=(6, 5), singular_values=(5.0, 2.0), observed=0.7, depth=2, width=15, weight_decay=0.5, dynamics="greedy"
    )
    result = dlnphase.train(settings)
    cost = prepare(settings).task.cost
    mask, target = cost.operator.numpy(), cost.minimizer.numpy()
    a, least = nuclear_minimum(
        lambda x: mask * (x - target), lambda x: 0.5 * np.sum(mask * (x - target) ** 2), (6, 5), 0.5, 1.0
    )
    assert (result.outcome.reason, result.outcome.reached) == ("converged", "decayed-minimum")
    assert result.outcome.reachable == pytest.approx(least, rel=1e-9)
    points = []
    for record in greedy_path(cost, 2, weight_decay=0.5, points=points):
        assert record.penalty is not None
    assert np.abs(points[-1].point.A - a).max() < 1e-6 * np.abs(a).max()
    assert all(p.independent for p in points[1:]) and points[-1].point.next_mode == 0
    host = HostCost(cost, Decay(0.5, 2))
    values = [host.objective(p.point.A, np.linalg.svd(p.point.A)[1][: p.point.rank]) for p in points]
    assert (np.diff(values) < 0).all() and [p.point.rank for p in points] == list(range(len(points)))
    assert all(p.point.next_mode > 0.5 for p in points[:-1])


def test_the_greedy_path_of_deep_networks_is_held_at_the_origin(capsys, tmp_path):
    """The origin is a minimum at L ≥ 3: said, and no path is made up."""
    command = ["train", "--task", "factorization", "--shape", "3x3", "--rank", "2", "-L", "3", "--dynamics", "greedy"]
    assert run([*command, "--weight-decay", "0.1", "--out", str(tmp_path / "run")]) == 0
    told = capsys.readouterr()
    assert "the origin is a local minimum: a start of vanishing size stays there" in told.err
    assert "stayed at the origin, where weight decay holds it" in told.out.replace("\n", " ")
    result = dlnphase.load(tmp_path / "run")
    assert (result.outcome.reason, result.outcome.rank, len(result.trajectory.t)) == ("converged", 0, 1)
    assert result.rank_transitions == () and result.outcome.regime is None
    assert [v.kind for v in detect(tmp_path / "run").visits] == ["local-minimum"]


@pytest.mark.parametrize("decay", [-1.0, float("nan")])
def test_a_greedy_path_that_cannot_be_is_refused(decay):
    with pytest.raises(InputError, match="weight_decay"):
        next(greedy_path(factorization(np.eye(2), CPU), 2, weight_decay=decay))


# ---- a narrow network --------------------------------------------------------------------------------


def test_a_narrow_network_of_two_layers_has_its_own_minimum():
    """Width 1 below two modes that pay: the least of what one channel can, by the closed form and a dense Hessian."""
    host = HostCost(factorization(np.diag(SIZES), CPU), Decay(0.5, 2))
    for mode, kind in ((0, "global-minimum"), (1, "strict-saddle")):
        a = np.zeros((2, 2))
        a[mode, mode] = SIZES[mode] - 0.5
        point = refine_matrix(a, host, rank=1)
        half = np.sqrt(a[mode, mode]) * np.eye(2)[[mode]]
        certificate = certify(refine_weights([half, half.T], point, host)[0], host)
        assert (certificate.kind, certificate.curvature.zero_eigenvalues) == (kind, 0)
    network = gaussian_network((2, 1, 2), 0.3, CPU, seed=0)
    *_, record = gradient_flow(network, factorization(np.diag(SIZES), CPU), weight_decay=0.5, tol=0.0, max_time=30.0)
    assert record.A[0] == pytest.approx(np.diag([2.5, 0.0]), abs=1e-4)

"""detect-saddles: runs of ours, paths of a plain torch loop, bad sources, the command line."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from dlnphase.backend import resolve_backend
from dlnphase.cli.app import run
from dlnphase.costs.tasks import planted_matrix, planted_task
from dlnphase.detect.run import detect_saddles
from dlnphase.detect.sentences import detect_sentence
from dlnphase.detect.sources import balanced_gradient, read_source
from dlnphase.errors import InputError
from dlnphase.networks.sampling import balanced_network, gaussian_network
from dlnphase.results.detect import load_detect, save_detect
from dlnphase.results.train import save_train
from dlnphase.settings import DetectSettings, TrainSettings
from dlnphase.training.run import train

CPU = resolve_backend("cpu")
VALUES = (7.0, 4.0, 2.0)


def trained(directory, **settings):
    result = train(TrainSettings(**{"threads": 1, **settings}))
    directory.mkdir()
    save_train(result, directory)
    return result


@pytest.fixture(scope="module")
def completion_run(tmp_path_factory):
    """The default task of train at a small width."""
    directory = tmp_path_factory.mktemp("runs") / "completion"
    trained(directory, width=30, gamma=2.5)
    return directory


@pytest.fixture(scope="module")
def torch_path(tmp_path_factory):
    """Weights every 10 steps of plain gradient descent with autograd: (arrays, options of the task, start)."""
    target = planted_matrix((5, 4), VALUES, 0)
    network = gaussian_network((4, 8, 8, 5), 0.03, CPU)
    weights = [w[0].clone().requires_grad_() for w in network.weights]
    optimizer = torch.optim.SGD(weights, lr=0.01)
    y = torch.as_tensor(target)
    t, stored = [], []
    for step in range(4001):
        loss = 0.5 * ((weights[2] @ weights[1] @ weights[0] - y) ** 2).sum()
        if step % 10 == 0:
            t.append(step * 0.01)
            stored.append([w.detach().numpy().copy() for w in weights])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    directory = tmp_path_factory.mktemp("torch")
    np.save(directory / "target.npy", target)
    np.savez(directory / "start.npz", **{f"W{k}": w for k, w in enumerate(stored[0], 1)})
    arrays = {"t": np.array(t)} | {f"W{k + 1}": np.array([s[k] for s in stored]) for k in range(3)}
    np.savez(directory / "path.npz", **arrays)
    np.savez(directory / "matrices.npz", t=arrays["t"], A=arrays["W3"] @ arrays["W2"] @ arrays["W1"])
    return directory


def test_a_run_is_certified_visit_by_visit(completion_run):
    result = detect_saddles(DetectSettings(source=str(completion_run), greedy=True))
    assert [v.rank for v in result.visits] == [0, 1, 2, 3]
    assert [v.kind for v in result.visits] == ["degenerate-saddle"] * 3 + ["global-minimum"]
    for v in result.visits:
        assert v.critical_point.gradient_norm <= 1e-12 and v.critical_point.form == "minimal"
        assert v.curvature.negative_eigenvalues == 0 and v.curvature.complete
        assert 0 < v.nearest_distance <= v.distance
        assert v.time.enter <= v.time.closest <= v.time.exit
        assert sum(s > 1e-12 for s in v.critical_point.singular_values) == v.rank
        assert v.greedy.same and v.greedy.cost == pytest.approx(v.critical_point.cost, rel=1e-9, abs=1e-15)
        assert v.greedy.relative_difference < 1e-3 and v.greedy.distance < 1e-2
    for v in result.visits[:3]:
        assert v.escape.order == 4 and v.escape.descent == pytest.approx(1, abs=0.01)
        assert v.escape.rate == pytest.approx(v.escape.predicted_rate, rel=0.05)
        assert v.escape.alignment > 0.9
    assert result.visits[3].escape is None
    assert [(r.from_rank, r.to_rank) for r in result.transitions[0]] == [(0, 1), (1, 2), (2, 3)]
    assert "3 degenerate saddles of rank 0, 1, 2" in detect_sentence(result)
    assert "4 of 4 critical points are those of the greedy path" in detect_sentence(result)


@pytest.mark.parametrize("threshold", [0.25, 1.0, 2.0])
def test_the_threshold_does_not_matter_on_a_clear_path(completion_run, threshold):
    result = detect_saddles(DetectSettings(source=str(completion_run), min_prominence=threshold, certify=False))
    assert [v.rank for v in result.visits] == [0, 1, 2, 3]
    assert [v.kind for v in result.visits] == ["uncertified"] * 3 + ["global-minimum"]
    assert all(v.distance is None and v.curvature is None for v in result.visits)


def test_a_plain_torch_loop_gives_the_visits_of_our_own_run(torch_path, tmp_path):
    options = {"target": str(torch_path / "target.npy")}
    theirs = detect_saddles(DetectSettings(source=str(torch_path / "path.npz"), **options))
    trained(tmp_path / "ours", init_weights=str(torch_path / "start.npz"), **options)
    ours = detect_saddles(DetectSettings(source=str(tmp_path / "ours")))
    assert [v.rank for v in theirs.visits] == [v.rank for v in ours.visits] == [0, 1, 2, 3]
    for a, b in zip(theirs.visits, ours.visits, strict=True):
        assert (a.kind, a.critical_point.form) == (b.kind, b.critical_point.form)
        assert a.critical_point.cost == pytest.approx(b.critical_point.cost, rel=1e-9, abs=1e-20)
        assert a.distance == pytest.approx(b.distance, rel=0.05)
    for a, b in zip(theirs.transitions[0], ours.transitions[0], strict=True):
        assert a.time == pytest.approx(b.time, rel=0.05)
        assert (a.from_rank, a.to_rank) == (b.from_rank, b.to_rank)


def test_matrices_alone_tell_the_same_critical_points(torch_path):
    options = {"target": str(torch_path / "target.npy")}
    full = detect_saddles(DetectSettings(source=str(torch_path / "path.npz"), **options))
    only = detect_saddles(DetectSettings(source=str(torch_path / "matrices.npz"), depth=3, **options))
    assert [v.rank for v in only.visits] == [0, 1, 2, 3]
    for a, b in zip(full.visits, only.visits, strict=True):
        assert a.kind == b.kind and b.distance is None and b.critical_point.form == "matrix"
        assert a.critical_point.cost == pytest.approx(b.critical_point.cost, rel=1e-9, abs=1e-20)
    assert "no weights in the source" in only.notes[0]
    with pytest.raises(InputError, match=r"depth: .* holds only A"):
        detect_saddles(DetectSettings(source=str(torch_path / "matrices.npz"), **options))
    with pytest.raises(InputError, match="width: found 1"):
        detect_saddles(DetectSettings(source=str(torch_path / "matrices.npz"), depth=3, width=1, **options))


@pytest.mark.parametrize("hidden", [(6,), (4, 7), (5, 4, 6)])
def test_the_gradient_from_matrices_is_that_of_balanced_networks(hidden):
    task = planted_task("completion", (5, 4), VALUES, CPU, observed=0.8)
    rng = np.random.default_rng(0)
    a = rng.standard_normal((5, 4))
    network = balanced_network(a, (4, *hidden, 5), CPU, rotation_seed=0)
    expected = float(network.gradient(task.cost.gradient(network.product())).norm())
    assert balanced_gradient(a[None], task.cost, len(hidden) + 1)[0] == pytest.approx(expected, rel=1e-10)


def test_a_lazy_run_visits_no_saddle_and_says_so(tmp_path):
    trained(
        tmp_path / "lazy",
        task="factorization",
        shape=(8, 6),
        singular_values=(0.7, 0.4, 0.2, 0.1),
        depth=3,
        width=1000,
        gamma=0.7,
    )
    for threshold in (0.25, 0.5):
        result = detect_saddles(DetectSettings(source=str(tmp_path / "lazy"), min_prominence=threshold, greedy=True))
        assert [v.kind for v in result.visits] == ["global-minimum"]
        assert detect_sentence(result).startswith("No saddle is visited: the path goes straight to a global minimum")


def test_the_lazy_regime_at_any_width_visits_no_saddle(tmp_path):
    trained(tmp_path / "lazy", width=10**6, gamma=0.75)
    result = detect_saddles(DetectSettings(source=str(tmp_path / "lazy"), min_prominence=0.25))
    assert [(v.kind, v.rank) for v in result.visits] == [("global-minimum", 10)]
    assert "No saddle is visited" in detect_sentence(result) and "rank 10" in detect_sentence(result)


def test_paths_come_nearer_to_the_greedy_one_as_the_scale_falls(tmp_path):
    """Completion, L = 4: at each visited rank the difference falls with α = w^((1−γ)/2)."""
    differences = []
    for gamma in (1.5, 2.0, 2.5, 3.0):
        trained(tmp_path / f"{gamma}", shape=(8, 8), rank=2, width=60, gamma=gamma)
        result = detect_saddles(DetectSettings(source=str(tmp_path / f"{gamma}"), greedy=True, certify=False))
        assert all(v.greedy.same for v in result.visits if v.kind != "not-critical")
        differences.append({v.rank: v.greedy for v in result.visits if v.greedy is not None})
    assert sorted(differences[-1]) == [0, 1, 2]
    for rank in (0, 1):
        found = [d[rank] for d in differences if rank in d]
        assert len(found) >= 3
        assert all(a.relative_difference > 2 * b.relative_difference for a, b in pairwise(found))
        assert all(a.distance > 2 * b.distance for a, b in pairwise(found))


def test_a_reduced_network_is_certified_at_its_true_width(tmp_path):
    """L = 2, w = 10^6: strict, −s_{k+1}, a negative eigenvalue for each unlearned mode and free channel of all w."""
    values = (7.0, 4.0, 1.0)
    trained(
        tmp_path / "wide", task="factorization", shape=(5, 4), singular_values=values, depth=2, width=10**6, gamma=3.0
    )
    result = detect_saddles(DetectSettings(source=str(tmp_path / "wide"), min_prominence=0.25))
    assert [v.rank for v in result.visits] == [0, 1, 2, 3]
    for k, v in enumerate(result.visits[:3]):
        assert v.kind == "strict-saddle" and v.escape.order == 2
        assert v.curvature.min_eigenvalue == pytest.approx(-values[k], rel=1e-6)
        assert v.curvature.negative_eigenvalues == (3 - k) * (10**6 - k)
        assert v.escape.rate == pytest.approx(values[k], rel=0.05)


@pytest.mark.parametrize("depth", [2, 3])
def test_weights_of_ones_own_that_were_reduced_are_counted_at_their_true_sizes(depth, tmp_path):
    """Negative eigenvalues against a dense autograd Hessian of the full network at balanced factors of A_c.

    Critical points that factor the same matrix are carried into each other by changes of basis of the hidden spaces, a
    congruence of their Hessians.
    """
    hidden = (9,) * (depth - 1)
    layers = gaussian_network((2, *hidden, 3), 1e-3, CPU, seed=1).weights
    np.savez(tmp_path / "own.npz", **{f"W{k}": w[0].numpy() for k, w in enumerate(layers, 1)})
    target = torch.diag(torch.tensor([4.0, 0.5], dtype=torch.float64))
    target = torch.cat([target, torch.zeros(1, 2, dtype=torch.float64)])
    np.save(tmp_path / "target.npy", target.numpy())
    files = {"init_weights": str(tmp_path / "own.npz"), "target": str(tmp_path / "target.npy")}
    result = trained(tmp_path / "run", representation="krylov", krylov_order=1, **files)
    assert result.network.full_hidden == hidden and max(result.network.hidden) < 9
    found = detect_saddles(DetectSettings(source=str(tmp_path / "run")))
    assert [v.rank for v in found.visits] == [0, 1, 2]

    def loss(flat):
        parts = flat.split([w[0].numel() for w in layers])
        product = None
        for part, w in zip(parts, layers, strict=True):
            product = part.view(w[0].shape) if product is None else part.view(w[0].shape) @ product
        return 0.5 * (product - target).square().sum()

    for visit, a in zip(found.visits, found.matrices["critical"], strict=True):
        u, s, vt = np.linalg.svd(a, full_matrices=False)
        channels = np.zeros((9, 2))
        channels[:2] = np.diag(s ** (1 / depth))
        inner = np.pad(np.diag(s ** (1 / depth)), (0, 7))
        factors = [channels @ vt, *[inner] * (depth - 2), u @ channels.T]
        theta = torch.cat([torch.as_tensor(np.ascontiguousarray(f)).flatten() for f in factors])
        values = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, theta))
        assert visit.curvature.negative_eigenvalues == int((values < -1e-9).sum()) and visit.curvature.complete
    if depth == 2:
        assert found.visits[0].curvature.negative_eigenvalues == 18

    old = tmp_path / "run" / "run.yaml"  # a file written before the sizes were told: no more than a bound is known
    old.write_text("".join(line for line in old.read_text().splitlines(True) if "full_hidden" not in line))
    bounded = detect_saddles(DetectSettings(source=str(tmp_path / "run")))
    assert not any(v.curvature.complete for v in bounded.visits) and "at least so many" in bounded.notes[-1]


def test_an_exact_start_on_a_saddle_that_is_not_greedy_is_named(tmp_path):
    """L = 3, the second mode learned and the first not: strict, order 2."""
    target = planted_matrix((5, 4), VALUES, 0)
    u, s, vt = np.linalg.svd(target)
    network = balanced_network(s[1] * np.outer(u[:, 1], vt[1]), (4, 5, 5, 5), CPU, rotation_seed=1)
    rng = np.random.default_rng(0)
    arrays = {f"W{k}": w[0].numpy()[None] for k, w in enumerate(network.weights, 1)}
    drift = {k: np.concatenate([w, w + 1e-2 * rng.standard_normal(w.shape)]) for k, w in arrays.items()}
    np.savez(tmp_path / "path.npz", t=np.array([0.0, 1.0]), **drift)
    np.save(tmp_path / "target.npy", target)
    result = detect_saddles(DetectSettings(source=str(tmp_path / "path.npz"), target=str(tmp_path / "target.npy")))
    [visit] = [v for v in result.visits if v.time.closest == 0.0]
    assert (visit.rank, visit.kind, visit.escape.order) == (1, "strict-saddle", 2)
    assert visit.distance < 1e-12 and visit.curvature.negative_eigenvalues > 0
    still = {k: np.concatenate([w, w, w]) for k, w in arrays.items()}
    np.savez(tmp_path / "still.npz", t=np.arange(3.0), **still)
    result = detect_saddles(DetectSettings(source=str(tmp_path / "still.npz"), target=str(tmp_path / "target.npy")))
    assert [v.kind for v in result.visits] == ["strict-saddle"]


def test_digits_visits_are_certified(tmp_path):
    """The bundled images of digits, 8 x 8 averaged to 4 x 4, to ten classes; half of the way down."""
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16) / 16
    np.savez(tmp_path / "digits.npz", X=x, Y=np.eye(10)[y])
    trained(tmp_path / "run", data=str(tmp_path / "digits.npz"), depth=3, width=50, gamma=4.0, tol=0.45)
    result = detect_saddles(DetectSettings(source=str(tmp_path / "run")))
    saddles = [v for v in result.visits if v.kind.endswith("saddle")]
    assert [v.rank for v in saddles] == [0, 1, 2, 3]
    for v in saddles:
        assert v.kind == "degenerate-saddle" and v.critical_point.gradient_norm <= 1e-12
        assert v.escape.order == 3 and v.escape.descent == pytest.approx(1, abs=0.01)
        if v.rank:
            # Visits of regression are the reduced-rank least-squares fits.
            task = read_source(result.config).task
            assert v.critical_point.cost == pytest.approx(task.cost.minimum_at_rank(v.rank), rel=1e-10)


def test_several_members_are_judged_each(tmp_path):
    trained(tmp_path / "run", width=20, gamma=2.5, seeds=(0, 3), shape=(6, 6), rank=2)
    result = detect_saddles(DetectSettings(source=str(tmp_path / "run")))
    assert {v.member for v in result.visits} == {0, 3} and len(result.transitions) == 2
    assert [v.rank for v in result.visits if v.member == 3] == [0, 1, 2]
    assert detect_sentence(result).startswith("2 of 2 paths: ")


def test_results_survive_save_and_load_and_reproduce(completion_run, tmp_path):
    result = detect_saddles(DetectSettings(source=str(completion_run), greedy=True))
    tmp_path.joinpath("out").mkdir()
    save_detect(result, tmp_path / "out")
    again = load_detect(tmp_path / "out")
    assert again == result
    assert np.array_equal(again.matrices["critical"], result.matrices["critical"])
    assert again.matrices["greedy"].shape == (4, 10, 10)
    assert detect_saddles(again.config).visits == result.visits
    plain = DetectSettings(source=str(completion_run))
    for asked, done in ((1, 0), (4, 0), (5, 1), (6, 2)):  # four visits are refined, then judged one by one
        answers = iter([False] * asked + [True] * 9)
        stopped = detect_saddles(plain, should_stop=answers.__next__)
        assert len(stopped.visits) == done and not stopped.complete
        assert stopped.visits == detect_saddles(plain).visits[:done]


def test_the_command_line(completion_run, torch_path, tmp_path, capsys):
    out = tmp_path / "saddles"
    assert run(["detect-saddles", str(completion_run), "--out", str(out), "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert run(["detect-saddles", str(completion_run), "--out", str(out)]) == 2
    assert "already holds a result" in capsys.readouterr().err
    assert run(["detect-saddles", str(completion_run), "--out", str(out), "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["visits"][1]["kind"] == "degenerate-saddle"
    other = tmp_path / "other"
    assert run(["detect-saddles", "--config", str(out / "saddles.yaml"), "--out", str(other), "--greedy"]) == 0
    table = capsys.readouterr().out
    for word in ("degenerate-saddle", "global-minimum", "Beside the greedy path", "How the saddles are left"):
        assert word in table
    assert max(len(line) for line in table.splitlines() if not line.startswith("Saved in ")) <= 80
    options = ["--target", str(torch_path / "target.npy"), "--out", str(tmp_path / "theirs")]
    assert run(["detect-saddles", str(torch_path / "path.npz"), *options]) == 0
    assert (tmp_path / "theirs" / "saddles.yaml").exists()


def bad(arrays, **changes):
    return {**arrays, **changes}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"t": None}, "found no array t"),
        ({"t": np.zeros((3, 2))}, "one time per record"),
        ({"t": np.array([0.0, 2.0, 1.0])}, "above the one before"),
        ({"t": np.array([0.0, np.nan, 1.0])}, "not finite"),
        ({"t": np.arange(4.0)}, "has 3 records, t has 4"),
        ({"W2": None}, "without a gap"),
        ({"W2": np.zeros((3, 5, 9))}, "takes 9 inputs"),
        ({"W1": np.full((3, 6, 4), np.inf)}, "not finite"),
        ({"W1": np.zeros((3, 6, 5))}, "its matrices are 5x5, the task has 5x4"),
        ({"step": np.zeros(2)}, "step has shape"),
        ({"W1": None, "W2": None, "W3": None}, "neither W1, W2"),
        ({"W1": np.zeros((3, 6))}, "expected records x rows x columns"),
    ],
)
def test_bad_sources_are_one_line(change, words, tmp_path, capsys):
    arrays = {"t": np.arange(3.0), "W1": np.ones((3, 6, 4)), "W2": np.ones((3, 6, 6)), "W3": np.ones((3, 5, 6))}
    np.savez(tmp_path / "path.npz", **{k: v for k, v in bad(arrays, **change).items() if v is not None})
    np.save(tmp_path / "target.npy", planted_matrix((5, 4), VALUES, 0))
    options = ["--target", str(tmp_path / "target.npy"), "--out", str(tmp_path / "out")]
    assert run(["detect-saddles", str(tmp_path / "path.npz"), *options]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_source_needs_to_be_there_and_a_task_to_be_told(completion_run, torch_path, tmp_path, capsys):
    cases = [
        ([], "SOURCE: missing"),
        ([str(tmp_path / "none")], "no such file or directory"),
        ([str(tmp_path)], "expected a run directory"),
        ([str(torch_path / "target.npy")], "expected a run directory"),
        ([str(torch_path / "path.npz")], "does not say what it was trained on"),
        ([str(completion_run), "--rank", "9"], "rank: found 9, but the run"),
        ([str(completion_run), "--depth", "9"], "depth: found 9, but the run"),
        ([str(torch_path / "path.npz"), "--target", str(torch_path / "target.npy"), "-L", "9"], "depth: found 9, but"),
        ([str(completion_run), "--min-prominence", "-1"], "min-prominence"),
    ]
    for arguments, words in cases:
        assert run(["detect-saddles", *arguments, "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_visit_is_an_answer(tmp_path: Path) -> None:
    """The gradient norm falls by a hundredth on a path this short: no visit, and no failure."""
    save_train(
        train(TrainSettings(task="factorization", shape="4", rank=2, depth=3, width=30, max_time=1e-3)), tmp_path
    )
    result = detect_saddles(DetectSettings(source=str(tmp_path)))
    assert result.visits == () and "No visit" in detect_sentence(result)


def test_a_reduced_run_is_as_far_from_its_saddles_as_the_full_one(tmp_path):
    """What a reduced network lacks stays where it is: it counts on the way to a point that has nothing there."""
    rng, width = np.random.default_rng(0), 30
    layers = [rng.standard_normal(shape) / width for shape in ((width, 3), (width, width), (3, width))]
    np.savez(tmp_path / "start.npz", **{f"W{k}": w for k, w in enumerate(layers, 1)})
    common = {"task": "factorization", "shape": "3x3", "singular_values": "3,1"}
    found = {}
    for kind in ("full", "krylov"):
        trained(tmp_path / kind, **common, init_weights=str(tmp_path / "start.npz"), representation=kind)
        found[kind] = detect_saddles(str(tmp_path / kind)).visits
    assert len(found["full"]) == len(found["krylov"]) == 3
    for full, reduced in zip(found["full"], found["krylov"], strict=True):
        assert (full.rank, full.kind) == (reduced.rank, reduced.kind)
        assert reduced.distance == pytest.approx(full.distance, rel=0.01)
        assert reduced.nearest_distance == pytest.approx(full.nearest_distance, rel=0.02)
    assert found["krylov"][0].distance == pytest.approx(np.sqrt(sum(np.sum(w**2) for w in layers)), rel=2e-3)
    (tmp_path / "start.npz").unlink()  # the run tells what its reduced network lacks
    assert detect_saddles(str(tmp_path / "krylov")).visits == found["krylov"]
    old = tmp_path / "krylov" / "run.yaml"  # of before that was told: nobody knows, and the rest is told all the same
    old.write_text("".join(line for line in old.read_text().splitlines(True) if "lacking" not in line))
    gone = detect_saddles(str(tmp_path / "krylov")).visits
    assert [v.distance for v in gone] == [None] * 3
    assert [v.nearest_distance for v in gone] == [v.nearest_distance for v in found["krylov"]]


def test_the_distance_of_a_reduced_run_drawn_at_any_width_counts_all_of_it(tmp_path):
    """At t = 0 the saddle is the origin: ‖θ_0‖² is about σ²(2dw + w²) in law, to parts in a thousand at this width."""
    task = {"task": "factorization", "shape": "3x3", "singular_values": "3,1"}
    trained(tmp_path / "wide", **task, depth=3, width=10**6, gamma=2.2)
    first = detect_saddles(str(tmp_path / "wide")).visits[0]
    assert first.rank == 0 and first.time.closest == 0
    assert first.distance**2 == pytest.approx(1e6**-2.2 * (6e6 + 1e12), rel=1e-3)

"""Classification, robust and 1-bit completion, and a cost of one's own from the shell: train, detect, plot, refuse."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import yaml
from sklearn.linear_model import LogisticRegression

import dlnphase
from dlnphase.cli.app import run
from dlnphase.plotting.draw import draw
from dlnphase.settings import DetectSettings, PlotSettings, SweepSettings, TrainSettings, resolve
from dlnphase.training.answers import answers
from dlnphase.training.recording import MemberPath
from dlnphase.training.sentences import train_sentence

SMALL = ["-L", "2", "-w", "12", "-g", "3", "--rtol", "1e-3"]


def samples(seed=0, overlap=1.0, count=60):
    """Three classes in four dimensions: they overlap, or lie apart."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    centres = np.array([[2.0, 0, 0, 0], [0, 2, 0, 0], [-1, -1, 1, 0]]) * (1 if overlap else 6)
    return centres[y] + rng.standard_normal((count, 4)) * (overlap or 0.3), y


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same samples as .npz with numbers and with one column a class, and as text with words; some held out."""
    folder = tmp_path_factory.mktemp("data")
    x, y = samples()
    x_test, y_test = samples(1)
    np.savez(folder / "classes.npz", X=x, y=y + 3, X_test=x_test, y_test=y_test + 3)
    np.savez(folder / "columns.npz", X=x, Y=np.eye(3)[y])
    words = np.array(["cat", "dog", "hen"])[y]
    lines = [",".join([*map(repr, row.tolist()), word]) for row, word in zip(x, words, strict=True)]
    (folder / "table.csv").write_text("\n".join(["a,b,c,d,animal", *lines]) + "\n")
    np.savez(folder / "apart.npz", X=samples(overlap=0.0)[0], y=samples(overlap=0.0)[1])
    return folder


def train(files, name, *options):
    return dlnphase.train(
        TrainSettings(
            data=str(files / name),
            depth=2,
            width=12,
            gamma=3.0,
            rtol=1e-3,
            tol=1e-7,
            **dict(zip(*[iter(options)] * 2, strict=True)),
        )
    )


def test_a_classification_ends_where_scikit_learn_does(files):
    result = train(files, "classes.npz", "task", "classification")
    x, y = samples()
    model = LogisticRegression(C=1e12, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(x, y)
    assert result.task.cost == "cross-entropy" and result.task.attained and result.outcome.reason == "converged"
    share = np.exp(model.decision_function(x))
    loss = -np.log(share[np.arange(len(y)), y] / share.sum(1)).mean()
    assert result.task.minimum == pytest.approx(loss, rel=1e-6)
    assert result.outcome.accuracy == pytest.approx(model.score(x, y), abs=1e-12)
    assert result.outcome.test_accuracy == pytest.approx(model.score(*samples(1)), abs=1e-12)
    assert result.outcome.margin is None and result.outcome.rank == 2
    path = result.trajectory
    answer = (x @ path.A[-1].T).argmax(1)
    assert path.accuracy[-1] == pytest.approx(np.mean(answer == y)) and len(path.test_accuracy) == len(path.t)
    assert result.theory.plateaus[-1].test_accuracy == result.outcome.test_accuracy


def test_the_same_samples_in_other_files_are_the_same_task(files):
    runs = [
        train(files, name, *more)
        for name, more in {
            "classes.npz": ("task", "classification"),
            "columns.npz": ("task", "classification"),
            "table.csv": ("label_column", "animal"),
        }.items()
    ]
    for other in runs[1:]:
        assert other.config.task == "classification"
        np.testing.assert_allclose(other.trajectory.A[-1], runs[0].trajectory.A[-1], rtol=1e-12, atol=1e-14)
    assert "3 classes (cat, dog, hen)" in " ".join(runs[2].notes)
    assert "3 classes (3, 4, 5)" in " ".join(runs[0].notes)


@pytest.mark.parametrize("cost", ["squared", "logistic"])
def test_other_costs_of_classes(files, cost):
    result = train(files, "classes.npz", "task", "classification", "cost", cost)
    assert result.task.cost == cost and result.outcome.reason == "converged"
    assert result.outcome.accuracy > 0.75 and result.outcome.test_accuracy > 0.7
    if cost == "squared":
        x, y = samples()
        least, *_ = np.linalg.lstsq(x, np.eye(3)[y], rcond=None)
        assert result.outcome.accuracy == pytest.approx(np.mean((x @ least).argmax(1) == y))


def test_data_that_lie_apart_have_no_minimum_and_a_direction(files):
    result = train(files, "apart.npz", "task", "classification")
    o = result.outcome
    assert not result.task.attained and o.reason == "converged" and o.reached == "no-minimum" and o.accuracy == 1
    assert any("separable" in note for note in result.notes)
    x, y = samples(overlap=0.0)
    a = result.trajectory.A[-1]
    z = x @ a.T
    right = z[np.arange(len(y)), y]
    z[np.arange(len(y)), y] = -np.inf
    s = np.linalg.svd(a, compute_uv=False)
    assert o.margin == pytest.approx((right - z.max(1)).min() / s.sum(), rel=1e-12)
    assert 0.9 < o.alignment < 1  # it has gone a long way, and is not there
    words = train_sentence(result)
    assert "towards C = 0, which no finite A reaches" in words and "/2)" not in words
    assert f"no minimum exists: margin {o.margin:.3g} of the nuclear norm Σ s_i" in words
    early = dataclasses.replace(result, outcome=dataclasses.replace(o, accuracy=0.9, margin=-0.11))
    assert "not all answers are right yet, the worst has margin -0.11 of the nuclear norm" in train_sentence(early)


def test_the_direction_comes_nearer_to_that_of_largest_margin():
    """Two samples, two classes, L = 2: the largest margin over the nuclear norm has a closed form."""
    x = np.array([[1.0, 0.0], [-1.0, 0.0]])
    cost = dlnphase.cross_entropy(x, np.array([0, 1]), dlnphase.resolve_backend("cpu"))
    for size in (1.0, 6.0, 20.0):
        layers = [np.array([[1.0, 0.0]]) * size**0.5, np.array([[1.0], [-1.0]]) * (size / 2) ** 0.5]
        path = MemberPath(matrices={0: layers[1] @ layers[0]}, end=list(layers))
        found = answers(path, cost, None, 2)
        assert found["margin"] == pytest.approx(np.sqrt(2), rel=1e-12)  # of uvᵀ with u = (1, −1)/√2: 2/√2
        layers[0] = layers[0] + [[0.0, 0.3]]
        worse = answers(MemberPath(matrices={0: layers[1] @ layers[0]}, end=layers), cost, None, 2)
        assert worse["margin"] < found["margin"] and worse["alignment"] < found["alignment"]


def test_huber_recovers_at_its_saddle_what_gross_errors_hide_from_squares(tmp_path):
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((12, 2)))[0] for _ in range(2))
    a = (left * [14.0, 9.0]) @ right.T
    spoilt = a.copy()
    wrong = rng.permutation(a.size)[: round(0.05 * a.size)]
    spoilt.ravel()[wrong] += 10 * rng.choice([-1, 1], wrong.size)
    np.save(tmp_path / "spoilt.npy", spoilt)
    least = {}
    for cost in (None, "huber"):
        delta = {"huber_delta": 0.2} if cost else {}
        given = {"depth": 3, "width": 20, "gamma": 2.5, "rtol": 1e-3, "tol": 0.1, **delta}
        settings = TrainSettings(target=str(tmp_path / "spoilt.npy"), cost=cost, **given)
        path = dlnphase.train(settings).trajectory
        least[cost] = float((np.linalg.norm(path.A - a, axis=(1, 2)) / np.linalg.norm(a)).min())
    assert least["huber"] < 0.08 and least[None] > 0.3


def test_signs_of_entries_are_completed(tmp_path):
    settings = TrainSettings(
        cost="logistic",
        shape=(12, 12),
        rank=2,
        singular_values=(60.0, 50.0),
        depth=2,
        width=20,
        gamma=2.0,
        observed=0.7,
        rtol=1e-3,
        tol=0.05,
    )
    result = dlnphase.train(settings)
    assert result.task.cost == "logistic" and not result.task.attained and result.config.task == "completion"
    assert result.trajectory.test_accuracy.max() > 0.8  # of signs never seen
    assert "all entries can be got right" in " ".join(result.notes)


def test_a_run_is_loaded_repeated_analysed_and_drawn(files, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["train", "--task", "classification", "--data", str(files / "classes.npz"), *SMALL, "--tol", "1e-6"]
    assert run([*command, "--out", str(out), "-q"]) == 0
    told = yaml.safe_load((out / "run.yaml").read_text())
    assert told["task"]["cost"] == "cross-entropy" and told["config"]["cost"] == "cross-entropy"
    assert told["outcome"]["test_accuracy"] > 0.7
    assert "accuracy" in dlnphase.load(out).to_dataframe().columns
    assert run(["train", "--config", str(out / "run.yaml"), "--out", str(tmp_path / "again")]) == 0
    words = capsys.readouterr().out
    assert "% of those in the test" in words and "right in test" in words
    again = yaml.safe_load((tmp_path / "again" / "run.yaml").read_text())
    assert again["outcome"] == told["outcome"]
    assert run(["detect-saddles", str(out), "--out", str(tmp_path / "saddles"), "--greedy", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    kinds = [visit["kind"] for visit in found["visits"]]
    assert kinds[0] == "strict-saddle" and kinds[-1] == "global-minimum"
    assert all(visit["greedy"]["same"] for visit in found["visits"])
    told_right = [(v["critical_point"]["accuracy"], v["critical_point"]["test_accuracy"]) for v in found["visits"]]
    with np.load(files / "classes.npz") as data, np.load(tmp_path / "saddles" / "saddles.npz") as saved:
        sets = ((data["X"], data["y"] - 3), (data["X_test"], data["y_test"] - 3))
        counted = [[np.mean((x @ a.T).argmax(1) == y) if a.any() else 0.0 for x, y in sets] for a in saved["critical"]]
    np.testing.assert_allclose(told_right, counted)
    run(["detect-saddles", str(out), "--out", str(tmp_path / "told")])
    assert "right in test" in capsys.readouterr().out
    pages = [str(out), str(tmp_path / "saddles")]
    assert run(["plot", *pages, "--format", "html", "--out", str(tmp_path / "page"), "-q"]) == 0
    page = (tmp_path / "page" / "report.html").read_text()
    for share in (told["outcome"]["accuracy"], told["outcome"]["test_accuracy"], *told_right[0], *told_right[-1]):
        assert f"{100 * share:.2f} %" in page
    assert page.count("right answers in the test") >= 3  # at the visits, at the end, at the critical points
    assert (
        run(["plot", str(out), "--kind", "loss", "--format", "svg", "--format", "csv", "--out", str(tmp_path / "f")])
        == 0
    )
    assert "share wrong, test" in (tmp_path / "f" / "loss.svg").read_text()
    assert (tmp_path / "f" / "loss.csv").read_text().splitlines()[0].endswith("accuracy,test_accuracy")
    (drawn,), _ = draw(PlotSettings(source=str(out), kind="loss"))
    left, right = drawn.figure.axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("cost $C(A)$", "share wrong")
    path = dlnphase.load(out).trajectory
    curves = [line.get_ydata() for line in right.lines if line.get_gid() == "wrong"]
    for curve, share in zip(curves, (path.accuracy, path.test_accuracy), strict=True):
        np.testing.assert_array_equal(curve, 1 - share)
        assert right.get_ylim()[0] < curve.min() and curve.max() < right.get_ylim()[1]  # none is cut off
    assert run(["detect-saddles", str(out), "--out", str(tmp_path / "proof"), "--prove", "saddles"]) == 2
    assert "proofs need a squared cost" in capsys.readouterr().err


@pytest.mark.parametrize("dynamics", ["gd", "greedy"])
def test_other_dynamics_classify(files, dynamics):
    given = {"dynamics": dynamics, "depth": 2, "width": 12, "tol": 0.05, "max_steps": 3000}
    result = dlnphase.train(TrainSettings(data=str(files / "classes.npz"), task="classification", **given))
    assert result.outcome.reason == "converged" and result.outcome.test_accuracy > 0.7


def test_a_cost_of_ones_own_runs_from_the_shell(tmp_path, monkeypatch, capsys):
    (tmp_path / "mycost.py").write_text(
        "import torch\n\n\nclass Bowl:\n    shape = (3, 2)\n"
        "    goal = torch.tensor([[2.0, 0], [0, 1], [0, 0]]).double()\n"
        "\n    def value(self, a):\n        r = a - self.goal\n        return torch.log(torch.cosh(r)).sum((-2, -1))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert run(["train", "--cost", "mycost:Bowl", *SMALL, "--out", "own", "-q"]) == 0
    result = dlnphase.load(tmp_path / "own")
    assert result.task.cost == "Bowl" and result.task.kind == "own" and result.outcome.rank == 2
    np.testing.assert_allclose(result.trajectory.A[-1], [[2, 0], [0, 1], [0, 0]], atol=1e-3)
    assert run(["detect-saddles", "own", "--out", "saddles", "-q"]) == 0
    assert run(["train", "--cost", "mycost:Nothing", "--out", "none"]) == 2
    assert "has no Nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"task": "classification"}, "task: found classification without data"),
        ({"cost": "cross-entropy"}, "cost: found cross-entropy with task completion, expected it with classification"),
        ({"cost": "huber", "task": "sensing"}, "with task sensing"),
        ({"huber_delta": 1.0}, "huber-delta: found 1, expected only with cost huber"),
        ({"cost": "logistic", "noise": 0.1}, "noise: found 0.1 with cost logistic"),
        ({"cost": "mine:cost", "rank": 2}, "rank: found beside cost mine:cost"),
        ({"cost": "hinge"}, "cost: found hinge"),
        ({"label_column": "1"}, "label-column: found without data"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given, words):
    with pytest.raises(dlnphase.InputError, match=words):
        resolve(TrainSettings, flags=given)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"X": np.ones((4, 2))}, "expected classes y"),
        ({"y": np.ones(4)}, "expected inputs X"),
        ({"X": np.eye(4), "y": np.ones(4)}, "alone, expected at least two classes"),
        ({"X": np.eye(4), "y": np.arange(3)}, "expected a class for each of 4 rows"),
        ({"X": np.eye(4), "y": np.arange(4) + 0.5}, "holds float64"),
        ({"X": np.eye(4), "Y": np.full((4, 2), 0.5)}, "rows with a single 1"),
        (
            {"X": np.eye(4), "y": np.arange(4), "X_test": np.eye(4), "y_test": np.arange(4) + 1},
            "y_test has the class 4",
        ),
        ({"X": np.eye(4), "y": np.arange(4), "X_test": np.eye(3), "y_test": np.arange(3)}, "X_test has 3 columns"),
        ({"X": np.eye(4) * np.nan, "y": np.arange(4)}, "X"),
    ],
)
def test_files_that_make_no_sense_are_refused(arrays, words, tmp_path):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(dlnphase.InputError, match=words) as error:
        dlnphase.train(TrainSettings(data=str(tmp_path / "data.npz"), task="classification"))
    assert "data.npz" in str(error.value) and "\n" not in str(error.value)


def test_text_needs_the_column_of_labels(files):
    for column, words in {
        None: "without --label-column",
        "beast": "has columns 1 to 5",
        "1,2": "expected one column",
    }.items():
        with pytest.raises(dlnphase.InputError, match=words):
            dlnphase.train(TrainSettings(data=str(files / "table.csv"), task="classification", label_column=column))


def test_sweeps_measure_squared_costs_alone():
    with pytest.raises(dlnphase.InputError, match="cost"):
        resolve(SweepSettings, flags={"cost": "huber"})
    with pytest.raises(dlnphase.InputError, match="task"):
        resolve(SweepSettings, flags={"task": "classification"})


def test_paths_of_another_code_are_analysed_on_a_classification(files, tmp_path):
    """Descent on the cross-entropy in plain torch, handed over as layers."""
    x, y = (torch.as_tensor(v) for v in samples())
    torch.manual_seed(0)
    layers = [(0.01 * torch.randn(n, m, dtype=torch.float64)).requires_grad_() for n, m in ((6, 4), (3, 6))]
    kept = []
    for step in range(1500):
        loss = torch.nn.functional.cross_entropy(x @ (layers[1] @ layers[0]).T, y)
        grads = torch.autograd.grad(loss, layers)
        if step % 20 == 0:
            kept.append([w.detach().numpy().copy() for w in layers])
        layers = [(w - 0.3 * g).detach().requires_grad_() for w, g in zip(layers, grads, strict=True)]
    arrays = {f"W{k + 1}": np.stack([w[k] for w in kept]) for k in range(2)}
    np.savez(tmp_path / "path.npz", t=0.3 * 20 * np.arange(len(kept)), **arrays)
    found = dlnphase.detect_saddles(
        DetectSettings(source=str(tmp_path / "path.npz"), data=str(files / "classes.npz"), task="classification")
    )
    assert found.visits[0].kind == "strict-saddle"
    assert found.visits[-1].kind == "global-minimum" and found.visits[-1].rank == 2

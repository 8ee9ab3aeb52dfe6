"""Options that repeat what a file says: accepted when they agree, refused in one line that names both values."""

from __future__ import annotations

import numpy as np
import pytest

import dlnphase
from dlnphase.backend import resolve_backend
from dlnphase.cli.app import run
from dlnphase.errors import InputError
from dlnphase.results.train import save_train
from dlnphase.setup.build import build_start, build_task

FULL = np.diag([5.0, 3.0, 0.0])  # rank 2
GAPS = np.array([[1.0, np.nan], [2.0, 3.0], [4.0, 5.0]])
SETTINGS = {"train": dlnphase.TrainSettings, "sweep-gamma": dlnphase.SweepSettings}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    np.save(folder / "full.npy", FULL)
    np.savetxt(folder / "full.csv", FULL, delimiter=",")
    np.save(folder / "single.npy", FULL.astype(np.float32))
    np.save(folder / "gaps.npy", GAPS)
    np.savez(folder / "data.npz", X=rng.standard_normal((7, 3)), Y=rng.standard_normal((7, 2)))
    layers = {"W1": rng.standard_normal((4, 3)) / 9, "W2": rng.standard_normal((3, 4)) / 9}
    np.savez(folder / "weights.npz", **layers)
    steps = np.linspace(0, 1, 12)[:, None, None]
    np.savez(folder / "path.npz", t=steps[:, 0, 0], W1=layers["W1"] * (1 + steps), W2=layers["W2"] * (1 + steps))
    np.savez(folder / "matrices.npz", t=steps[:, 0, 0], A=layers["W2"] @ layers["W1"] * (1 + steps))
    for name in ("run", "data-run"):
        (folder / name).mkdir()
    task = {"target": str(folder / "full.npy"), "depth": 2, "width": 4}
    save_train(dlnphase.train(dlnphase.TrainSettings(**task, dynamics="gd", lr=0.01, max_steps=20)), folder / "run")
    data = {"data": str(folder / "data.npz"), "depth": 2, "width": 4}
    save_train(dlnphase.train(dlnphase.TrainSettings(**data, max_time=0.1)), folder / "data-run")
    return folder


# file → option → (values that agree, what another one is told)
TASKS = {
    ("target", "full.npy"): {
        "task": (["factorization"], ("completion", "full.npy has no gaps")),
        "shape": (["3x3", (3, 3)], ("2x3", r"shape: found 2x3, but .*full.npy has 3x3")),
        "dim": ([3, "3"], ("4", r"shape: found 4x4, but .*full.npy has 3x3")),
        "rank": ([2], (3, r"rank: found 3, but .*full.npy has 2")),
        "singular_values": (["5,3", "3,5"], ("5,4", r"singular-values: found 5,4, but .*full.npy has 5,3")),
        "noise": ([], (0.1, "noise: found beside target")),
        "measurements": ([], (9, "measurements: found beside target")),
    },
    ("target", "full.csv"): {"rank": ([2], (1, "has 2")), "singular_values": (["5,3"], ("5,3,1", "has 5,3"))},
    ("target", "single.npy"): {"rank": ([2], (1, "has 2"))},
    ("target", "gaps.npy"): {
        "task": (["completion"], ("factorization", "has 1 gap")),
        "shape": (["3x2"], ("2x3", r"shape: found 2x3, but .*gaps.npy has 3x2")),
        "rank": ([], (2, r"rank: found 2, but .*gaps.npy has gaps, which leave it open")),
        "singular_values": ([], ("2,1", "singular-values: found 2,1, but .* has gaps")),
    },
    ("data", "data.npz"): {
        "task": (["regression"], ("sensing", "task: found sensing beside data")),
        "shape": (["2x3"], ("3x2", r"shape: found 3x2, but .*data.npz has 2x3")),
        "measurements": ([7, "7"], (8, r"measurements: found 8, but .*data.npz has 7")),
        "rank": ([], (2, "rank: found beside data")),
        "observed": ([], (0.5, "observed: found beside data")),
    },
}
PAIRS = [(*file, name, *pair) for file, options in TASKS.items() for name, pair in options.items()]


@pytest.mark.parametrize("command", [*SETTINGS, "detect-saddles"])
@pytest.mark.parametrize(("kind", "file", "name", "agree", "other"), PAIRS, ids=lambda v: str(v)[:14])
def test_a_task_of_ones_own(files, command, kind, file, name, agree, other):
    more = {kind: str(files / file)}
    cls = SETTINGS.get(command, dlnphase.DetectSettings)
    if command == "detect-saddles":
        more["source"] = str(files / "path.npz")
    for value in agree:
        task, settings = build_task(cls(**more, **{name: value}), resolve_backend("cpu"))
        plain, _ = build_task(cls(**more), resolve_backend("cpu"))
        assert task.shape == plain.shape and task.cost.kind == plain.cost.kind == settings.task
        assert np.array_equal(task.cost.minimizer.numpy(), plain.cost.minimizer.numpy())
    value, words = other
    with pytest.raises(InputError, match=words) as caught:
        build_task(cls(**more, **{name: value}), resolve_backend("cpu"))
    assert "\n" not in str(caught.value)


STARTS = [
    ({"depth": 2, "width": 4}, ""),
    ({"depth": 3}, "depth: found 3, but init-weights .*weights.npz has 2 layers"),
    ({"width": 5}, "width: found 5, but init-weights .*weights.npz has 4"),
    ({"seeds": 1}, ""),
    ({"seeds": 2}, "seeds: found 2, but init-weights .*weights.npz holds 1"),
    ({"seeds": "3:4"}, "seeds: found 2, but init-weights"),
]


@pytest.mark.parametrize(("more", "words"), STARTS, ids=range(len(STARTS)))
def test_weights_of_ones_own(files, more, words):
    def start():
        settings = dlnphase.TrainSettings(
            init_weights=str(files / "weights.npz"), target=str(files / "full.npy"), shape=(3, 3), **more
        )
        backend = resolve_backend("cpu")
        return build_start(settings, build_task(settings, backend)[0].cost, backend, 0)

    if words:
        with pytest.raises(InputError, match=words):
            start()
    else:
        assert start().network.depth == 2


# source → options → words of the refusal, or none
SOURCES = [
    ("run", {"depth": 2, "width": 4, "task": "factorization", "shape": "3x3", "dim": 3, "rank": 2}, ""),
    ("run", {"singular_values": "5,3", "lr": 0.01, "loss_scale": 1.0}, ""),
    ("run", {"target": "full.npy"}, ""),
    ("run", {"shape": "2x3"}, "shape: found 2x3, but .* has 3x3"),
    ("run", {"dim": 4}, "shape: found 4x4, but .*full.npy has 3x3"),
    ("run", {"rank": 1}, "rank: found 1, but .*full.npy has 2"),
    ("run", {"lr": 0.02}, "lr: found 0.02, but the run .* has 0.01"),
    ("run", {"depth": 3}, "depth: found 3, but the run .* has 2"),
    ("run", {"noise": 0.5}, "noise: found 0.5, but the run"),
    ("data-run", {"shape": "2x3", "measurements": 7, "task": "regression"}, ""),
    ("data-run", {"measurements": 6}, "measurements: found 6, but .*data.npz has 7"),
    ("data-run", {"lr": 0.1}, "lr: found 0.1 beside the run"),
    ("path.npz", {"target": "full.npy", "depth": 2, "width": 4, "shape": "3x3"}, ""),
    ("path.npz", {"target": "full.npy", "depth": 3}, "depth: found 3, but .*path.npz has 2 layers"),
    ("path.npz", {"target": "full.npy", "width": 5}, "width: found 5, but .*path.npz has 4"),
    ("path.npz", {"target": "full.npy", "lr": 0.1}, "lr: found beside path.npz"),
    ("matrices.npz", {"target": "full.npy", "depth": 2, "shape": "3x3"}, ""),
]


@pytest.mark.parametrize(("source", "more", "words"), SOURCES, ids=range(len(SOURCES)))
def test_a_path_of_ones_own(files, source, more, words):
    more = {name: str(files / value) if name in ("target", "data") else value for name, value in more.items()}

    def read():
        return dlnphase.detect_saddles(dlnphase.DetectSettings(source=str(files / source), **more, certify=False))

    if words:
        with pytest.raises(InputError, match=words) as caught:
            read()
        assert "\n" not in str(caught.value)
    else:
        assert read().path.depth == 2


def test_the_commands_take_what_agrees_and_resume(files, tmp_path, capsys):
    target, out = str(files / "full.csv"), str(tmp_path / "run")
    line = ["train", "--target", target, "--shape", "3x3", "-L", "2", "-w", "4", "--quiet", "--out", out]
    assert run(line) == 0 and run([*line, "--resume"]) == 0
    assert run(["train", "--target", target, "--shape", "3x4", "--out", str(tmp_path / "no")]) == 2
    assert "--shape: found 3x4, but" in " ".join(capsys.readouterr().err.split())
    line = ["detect-saddles", out, "--shape", "3x3", "--rank", "2", "--quiet", "--out", str(tmp_path / "saddles")]
    assert run(line) == 0 and run([*line, "--resume"]) == 0
    line = ["detect-saddles", str(files / "path.npz"), "--target", target, "--dim", "3", "--quiet"]
    line += ["--out", str(tmp_path / "path")]
    assert run(line) == 0 and run([*line, "--resume"]) == 0

"""Damaged and hostile files: a command ends in a result or in one line, and runs nothing that is in them.

``DLNPHASE_MUTANTS=20000`` tries that many damaged files with whole commands.
"""

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import fuzzing
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dlnphase.cli import app
from dlnphase.errors import InputError, RunError
from dlnphase.results import dump_yaml, parse_yaml
from dlnphase.results.configfile import read_config
from dlnphase.results.detect import load_detect
from dlnphase.results.sweep import load_sweep
from dlnphase.results.train import load_train
from dlnphase.settings import DetectSettings, SweepSettings, TrainSettings, options, resolve
from dlnphase.setup.inputs import read_matrix, read_regression, read_weights

MUTANTS = int(os.environ.get("DLNPHASE_MUTANTS", "300"))
SMALL = ["train", *fuzzing.TASK, *fuzzing.TINY]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to bound memory")
def test_commands_on_damaged_files():
    """Exit code 0, 1 or 2, one line if not 0; no traceback, no hang, no more than 2 GiB, nothing executed."""
    done = subprocess.run(
        [sys.executable, fuzzing.__file__, "1,2", str(MUTANTS // 4)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["wrong"], "\n".join(found["wrong"][:5])
    assert not found["executed"]
    assert {"train 0", "train 2", "sweep-gamma 2", "detect-saddles 0", "plot 2"} <= set(found["codes"])
    print(found["codes"])


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    before = os.getcwd()
    folder = tmp_path_factory.mktemp("good")
    os.chdir(folder)
    try:
        found = fuzzing.Bench()
    finally:
        os.chdir(before)
    found.folder = folder
    return found


def answers(read):
    """Whether a reader took a file; InputError is the only other answer."""
    try:
        read()
    except InputError as error:
        assert str(error).strip()
        return False
    return True


def test_readers_of_results_on_damaged_files(bench, tmp_path):
    readers = {"run": load_train, "batch": load_train, "sweep": load_sweep, "saddles": load_detect}
    taken = 0
    for k in range(400):
        rng = np.random.default_rng([3, k])
        name = list(readers)[k % 4]
        (tmp_path / bench.mains[name]).write_bytes(bench.yaml(name, rng))
        taken += answers(lambda name=name: readers[name](tmp_path / bench.mains[name]))
    assert 5 < taken < 200


def test_configurations_on_damaged_files(bench, tmp_path):
    classes = {"run": TrainSettings, "batch": TrainSettings, "sweep": SweepSettings, "saddles": DetectSettings}
    configs = {name: bench.documents[name]["config"] for name in classes}
    texts = {name: yaml.safe_dump(config) for name, config in configs.items()}
    file, taken = tmp_path / "c.yaml", 0
    for k in range(1200):
        rng = np.random.default_rng([4, k])
        name = list(classes)[k % 4]
        kind = rng.integers(3)
        if kind == 0:
            file.write_bytes(fuzzing.damaged_document(configs[name], rng))
        elif kind == 1:
            file.write_bytes(fuzzing.damaged_text(texts[name], rng))
        else:
            file.write_bytes(fuzzing.damaged_bytes(texts[name].encode(), rng))
        taken += answers(lambda name=name: resolve(classes[name], config=read_config(file), where="c.yaml"))
    assert 10 < taken < 900


def test_readers_of_inputs_on_damaged_files(bench, tmp_path):
    readers = {"data": read_regression, "weights": read_weights, "target": read_matrix}
    file, taken = tmp_path / "i.npz", 0
    for k in range(1000):
        rng = np.random.default_rng([5, k])
        name = list(readers)[k % 3]
        file.write_bytes(fuzzing.damaged_arrays(bench.inputs[name], rng))
        taken += answers(lambda name=name: readers[name](file))
        saved = io.BytesIO()
        np.save(saved, bench.inputs["target"]["A"])
        (tmp_path / "i.npy").write_bytes(fuzzing.damaged_bytes(saved.getvalue(), rng))
        taken += answers(lambda: read_matrix(tmp_path / "i.npy"))
        (tmp_path / "i.csv").write_bytes(fuzzing.packed({}) if k == 0 else bench.csv(rng))
        taken += answers(lambda: read_matrix(tmp_path / "i.csv"))
    assert 100 < taken < 2000


WORDS = st.sampled_from(fuzzing.SCALARS) | st.text(max_size=12)
VALUES = st.recursive(
    st.sampled_from(fuzzing.VALUES) | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


GOOD = {
    "seed": [1, "7"],
    "dtype": ["float32"],
    "threads": [2],
    "shape": ["4x3", [6, 5]],
    "rank": [1, "2"],
    "noise": [0.1],
    "data_seed": [3],
    "tol": [1e-3, "0"],
    "rtol": ["1e-3"],
    "max_steps": ["1e3"],
    "depth": [2, "3"],
    "gammas": ["0.7:0.9:0.1", [1, 2.5]],
    "widths": ["10,1e3"],
    "min_prominence": [0.25],
    "certify": [False, "no"],
    "seeds": [2, "3:5"],
    "train": ["yes"],
    "max_time": [5, "inf"],
    "krylov_order": ["auto", 3],
}


@settings(max_examples=300)
@given(st.lists(WORDS | st.sampled_from(["\n", ": ", "- ", "  ", "[", "]", "{", "}", ", "]), max_size=30).map("".join))
def test_any_text_is_plain_yaml_or_told(text):
    try:
        value = parse_yaml(text, "f")
    except InputError as error:
        assert str(error).startswith("f:") and "\n" not in str(error)
    else:
        assert repr(parse_yaml(dump_yaml(value), "f")) == repr(value)


@settings(max_examples=300)
@pytest.mark.parametrize("cls", [TrainSettings, SweepSettings, DetectSettings])
@given(data=st.data())
def test_any_values_are_settings_or_told(cls, data):
    """Settings that are taken come back from their own YAML as they were."""
    keys = [name for name, row in options(cls).items() if not row.alias]  # where it is computed is not written
    good = {name: st.sampled_from(values) for name, values in GOOD.items() if name in keys}
    config = data.draw(st.fixed_dictionaries({}, optional=good))
    config |= data.draw(st.dictionaries(st.sampled_from(keys), VALUES, max_size=1))
    if cls is DetectSettings:
        config["source"] = "x.npz"
    try:
        taken = resolve(cls, config=config, where="c.yaml")
    except InputError:
        return
    assert cls.from_plain(parse_yaml(dump_yaml(taken.to_plain()), "c.yaml"), "c.yaml") == taken


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda cells: cells.append(cells[0]), "cells[4]: γ = 0.7, w = 40 is none of its cells, or there twice"),
        (lambda cells: cells[1].update(width=41), "cells[1]: γ = 0.7, w = 41 is none of its cells"),
        (lambda cells: cells[1]["distance_to_minimum"]["values"].append(1.0), "found 3 numbers, expected 2 finite"),
        (lambda cells: cells[2]["distance_to_saddle"].update(values=[1.0, 0.0]), "distance_to_saddle.values: found 2"),
        (lambda cells: cells[2]["distance_to_saddle"].update(values=[1.0, float("inf")]), "expected 2 finite ones"),
    ],
)
def test_cells_that_no_such_sweep_has(change, words, bench, tmp_path):
    document = yaml.safe_load(bench.texts["sweep"])
    change(document["cells"])
    (tmp_path / "sweep.yaml").write_text(yaml.dump(document, Dumper=fuzzing.Plain))
    with pytest.raises(InputError) as error:
        load_sweep(tmp_path)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("A", lambda a: a * 1e200, "A: entries of up to"),
        ("singular_values", lambda a: a * 1e200, "singular_values: entries of up to"),
        ("gradient_norm", lambda a: a * np.nan, "entries of gradient_norm are not finite"),
        ("t", lambda a: a[::-1], "t goes backwards"),
        ("excess", lambda a: a > 0, "excess holds bool"),
        ("member", lambda a: a.astype(float), "member holds float64"),
    ],
)
def test_trajectories_that_no_run_has(name, change, words, bench, tmp_path, capfd):
    arrays = bench.arrays["run"]
    (tmp_path / "run.yaml").write_text(bench.texts["run"])
    np.savez(tmp_path / "trajectory.npz", **arrays | {name: change(arrays[name])})
    for verb in ("plot", "detect-saddles"):
        assert words in told(capfd, verb, tmp_path, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            np.linalg.LinAlgError("SVD did not converge"),
            "the numbers left the range in which a decomposition converges",
        ),
        (
            torch.linalg.LinAlgError("linalg.eigh: failed"),
            "the numbers left the range in which a decomposition converges",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"), "not enough memory for these settings"),
        (MemoryError(), "not enough memory for these settings"),
        (OSError(5, "Input/output error", "x"), "Input/output error: x"),
    ],
)
def test_what_only_shows_on_the_way_is_one_line(error, words, here, monkeypatch, capfd):
    def fails(*args, **options):
        raise error

    monkeypatch.setattr("dlnphase.training.run.GradientFlow", fails)
    assert app.run([*SMALL, "--out", "a", "-q"]) == 1
    err = capfd.readouterr().err
    assert words in err and err.count("\n") == 1 and not Path("a").exists()


# ---- files made to do harm -------------------------------------------------------------------------------


class Payload:
    """Unpickled, it makes a file called ``hacked``."""

    def __reduce__(self):
        return (open, ("hacked", "w"))


YAML_PAYLOAD = "!!python/object/apply:builtins.open ['hacked', 'w']"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capfd, *args):
    """The one line of a command that must end with exit code 2."""
    code = app.run([str(a) for a in args])
    out, err = capfd.readouterr()
    assert code == 2 and out == "" and err.count("\n") == 1 and err.startswith("dlnphase: "), (code, out, err)
    return err


def test_nothing_in_a_file_is_ever_executed(here, bench, capfd):
    pickle.loads(pickle.dumps(Payload())).close()
    assert Path("hacked").exists()
    Path("hacked").unlink()
    yaml.unsafe_load(YAML_PAYLOAD).close()
    assert Path("hacked").exists()  # both payloads work where they are let
    Path("hacked").unlink()

    objects = np.empty((2, 2), dtype=object)
    objects[:] = Payload()
    for name, arrays in bench.inputs.items():
        for key in arrays:
            np.savez("p.npz", **arrays | {key: objects})
            if name in ("path", "matrices"):
                told(capfd, "detect-saddles", "p.npz", *fuzzing.TASK)
            else:
                option = {"weights": "--init-weights"}.get(name, f"--{name}")
                assert "p.npz" in told(capfd, "train", option, "p.npz")
    np.save("p.npy", objects, allow_pickle=True)
    assert "pickled objects" in told(capfd, "train", "--target", "p.npy")
    for legacy in (False, True):
        torch.save(
            {"0.weight": torch.zeros(2, 2), "1.weight": Payload()}, "p.pt", _use_new_zipfile_serialization=not legacy
        )
        assert "expected a torch state dict" in told(capfd, "train", "--init-weights", "p.pt")
    Path("p.pt").write_bytes(pickle.dumps(Payload()))
    assert "expected a torch state dict" in told(capfd, "train", "--init-weights", "p.pt")

    Path("c.yaml").write_text(f"width: {YAML_PAYLOAD}\n")
    for verb in ("train", "sweep-gamma", "detect-saddles", "plot"):
        assert "found the tag" in told(capfd, verb, "--config", "c.yaml")
    for name, main in bench.mains.items():
        text = bench.texts[name].replace("\nconfig:", f"\nnotes: {YAML_PAYLOAD}\nconfig:", 1)
        Path(name).mkdir()
        Path(name, main).write_text(text)
        assert "found the tag" in told(capfd, "plot", name)
    assert "found the tag" in told(capfd, "detect-saddles", "run")
    assert not Path("hacked").exists()


def test_a_yaml_bomb_is_refused_at_its_first_anchor(here, capfd):
    laughs = "a0: &a0 [lol, lol]\n" + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 12))
    Path("c.yaml").write_text(laughs)
    assert "line 1: found an anchor or alias" in told(capfd, "train", "--config", "c.yaml")
    Path("c.yaml").write_text("a: " + "[" * 200_000)
    assert "nested deeper than 40" in told(capfd, "train", "--config", "c.yaml")
    Path("c.yaml").write_text("width: " + "9" * 100_000)
    assert "c.yaml" in told(capfd, "train", "--config", "c.yaml")


def test_sizes_are_refused_before_they_are_allocated(here, capfd, tmp_path):
    """In a process that could not allocate them."""
    Path("giant.npy").write_bytes(fuzzing.npy_claiming((10**9, 10**6)))
    Path("negative.npy").write_bytes(fuzzing.npy_claiming((-1, 4)))
    Path("bomb.npz").write_bytes(fuzzing.zip_bomb("A.npy", 2**28))
    Path("giant.csv").write_bytes(b"1,2\n")
    os.truncate("giant.csv", 2**40)
    cases = {
        "giant.npy": "promises shape (1000000000, 1000000), more than the",
        "negative.npy": "promises shape (-1, 4)",
        "bomb.npz": "blows up from",
        "giant.csv": "expected at most 256 MiB",
    }
    code = (
        "import sys, fuzzing\nfrom dlnphase.cli import app\nimport dlnphase.training.run\nfuzzing.bound_memory()\n"
        "sys.exit(sum(app.run(['train', '--target', name]) != 2 for name in sys.argv[1:]))"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code, *cases], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stderr
    for line, words in zip(done.stderr.splitlines(), cases.values(), strict=True):
        assert words in line
    assert "GiB" in told(capfd, "train", "-w", "1e12", "--representation", "full")
    assert "GiB" in told(capfd, "train", "--dim", "1e6")
    grid = ["--gammas", "0:0.99999:0.00001", "--widths", "1:100000"]
    assert "expected at most 1000000 cells" in told(capfd, "sweep-gamma", *grid)
    assert not Path("runs").exists()


@pytest.mark.timeout(60)
def test_what_is_no_file_is_told_and_not_waited_for(here, bench, capfd):
    os.mkfifo("pipe")
    os.symlink("loop", "loop")
    made = {"pipe": "pipe", "zero": "/dev/zero", "folder": ".", "loop": "loop", "nothing": "nowhere", "long": "x" * 300}
    for what, target in made.items():
        for ending in ("npy", "npz", "csv", "pt", "yaml"):
            os.symlink(target, f"{what}.{ending}") if what != "long" else None
        name = "x" * 300 if what == "long" else what
        said = [
            told(capfd, "train", "--target", f"{name}.npy"),
            told(capfd, "train", "--target", f"{name}.csv"),
            told(capfd, "train", "--data", f"{name}.npz"),
            told(capfd, "train", "--init-weights", f"{name}.pt"),
            told(capfd, "train", "--config", f"{name}.yaml"),
            told(capfd, "detect-saddles", f"{name}.npz", *fuzzing.TASK),
            told(capfd, "plot", f"{name}.yaml"),
        ]
        assert all(name[:100] in line for line in said)
    for main, part in (("run.yaml", "trajectory.npz"), ("trajectory.npz", "run.yaml")):
        Path("copy").mkdir()
        os.mkfifo(f"copy/{main}")
        Path("copy", part).write_bytes((bench.folder / "run" / part).read_bytes())
        for verb in ("plot", "detect-saddles"):
            assert "found a pipe or a device, expected a file" in told(capfd, verb, "copy")
        assert "pipe" in told(capfd, *SMALL, "--out", "copy", "--resume")
        for path in Path("copy").iterdir():
            path.unlink()
        Path("copy").rmdir()
    assert "--out" in told(capfd, *SMALL, "--out", "loop")
    assert "File name too long" in told(capfd, *SMALL, "--out", "x" * 300)


def test_names_that_would_mislead_are_escaped(here, capfd):
    """Marks that turn the direction of writing, line breaks, and what rich takes for its own marks."""
    assert "\\u202e" in told(capfd, "train", "--target", "a\u202egnp.csv")
    assert "\\n" in told(capfd, "train", "--target", "a\nb.csv")
    Path("c.yaml").write_text('"wid\\u202eth": 3\n')
    assert "wid\\u202eth: unknown key" in told(capfd, "train", "--config", "c.yaml")
    assert "expected a .npy, .npz or .csv file" in told(capfd, "train", "--target", os.fsdecode(b"\xff.csv"))
    for out in ("x[/bold]", "[red]", "a b", "\u202e"):
        for mode in ([], ["--overwrite"], ["--resume"]):
            assert app.run([*SMALL, "--out", out, *mode]) == 0
            assert sorted(os.listdir(out)) == ["run.yaml", "trajectory.npz"]
            assert out in capfd.readouterr().out.replace("\n", "") or out == "\u202e"
        assert app.run(["plot", out, "--out", f"{out}/figures"]) == 0
        assert app.run(["detect-saddles", out, "--out", f"{out}/saddles"]) == 0
        capfd.readouterr()


def test_a_journal_made_by_hand_moves_nothing_out_of_its_directory(here):
    """Names with slashes are no names of a commit."""
    Path("run").mkdir()
    Path("precious").write_text("old")
    Path("run/evil.part").write_text("new")
    for name, part in (("../precious", "evil.part"), ("run.yaml", "../precious"), ("..", "evil.part")):
        Path("run/.dlnphase.journal").write_text(json.dumps({"main": name, "files": {name: part}}))
        with pytest.raises(RunError, match="cannot be put in place"):
            load_train("run")
        assert Path("precious").read_text() == "old" and Path("run/evil.part").read_text() == "new"
    for text in ("", "{", "[]", '{"main": 1}', '{"main": "a", "files": []}', "null", "\x00"):
        Path("run/.dlnphase.journal").write_text(text)
        with pytest.raises(RunError):
            load_train("run")

"""A run that dies after its path has ended is analysed later, to the same result bit for bit; nothing is run again."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import dlnphase.training.run as module
from dlnphase.training.keeping import PATH_FILE

SMALL = ["train", "--task", "factorization", "--shape", "4x3", "--singular-values", "3,1", "-L", "3", "-g", "3", "-q"]
RUNS = {
    "flow": ["-w", "20"],
    "reduced": ["-w", "1e6", "-g", "2"],
    "descent": ["-w", "20", "--dynamics", "gd", "--max-steps", "2000"],
    "batch": ["-w", "20", "--seeds", "3"],
    "single precision": ["-w", "20", "--dtype", "float32", "--tol", "1e-5"],
}


def result(folder):
    """What a run has left, without what tells when it was made."""
    document = yaml.safe_load(Path(folder, "run.yaml").read_text())
    del document["provenance"]
    return document, Path(folder, "trajectory.npz").read_bytes()


def dying(*_):
    raise MemoryError


@pytest.mark.parametrize(
    ("flags", "resume"), [(flags, ["--resume"] * (k % 2)) for k, flags in enumerate(RUNS.values())], ids=RUNS
)
def test_a_path_is_on_disk_before_it_is_analysed(run, monkeypatch, flags, resume):
    assert run(*SMALL, *flags, "--out", "whole")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(module, "_result", dying)
        assert run(*SMALL, *flags, "--out", "torn")[0] == 1
    assert sorted(p.name for p in Path("torn").iterdir()) == [PATH_FILE]
    with monkeypatch.context() as patch:
        patch.setattr(module, "_records", dying)  # nothing is run again
        assert run(*SMALL, *flags, "--out", "torn", *resume)[0] == 0
    assert result("torn") == result("whole")
    assert sorted(p.name for p in Path("torn").iterdir()) == ["run.yaml", "trajectory.npz"]


def test_a_kept_path_of_other_settings_is_not_taken_for_this_one(run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "_result", dying)
        run(*SMALL, "-w", "20", "--out", "a")
    before = Path("a", PATH_FILE).read_bytes()
    code, _, err = run(*SMALL, "-w", "21", "--out", "a")
    assert code == 2 and "other settings" in err and Path("a", PATH_FILE).read_bytes() == before
    code, _, err = run(*SMALL, "-w", "21", "--out", "a", "--resume")
    assert code == 2 and "  width: 20 there, 21 asked for" in err and Path("a", PATH_FILE).read_bytes() == before
    assert run(*SMALL, "-w", "21", "--out", "a", "--overwrite")[0] == 0
    assert sorted(p.name for p in Path("a").iterdir()) == ["run.yaml", "trajectory.npz"]


def test_a_disk_that_refuses_the_path_does_not_cost_the_result(run, monkeypatch):
    from dlnphase.errors import RunError

    def refuse(*_):
        raise RunError("path.npz: cannot be written (No space left on device)")

    monkeypatch.setattr("dlnphase.training.keeping.write_atomic", refuse)
    code, _, err = run(*[word for word in SMALL if word != "-q"], "-w", "20", "--out", "a")
    assert code == 0 and "not on disk while it is analysed" in err and Path("a/run.yaml").exists()


def test_a_process_that_is_killed_while_it_analyses_has_lost_nothing(run, tmp_path):
    code = (
        "import os, dlnphase.training.run as m, dlnphase.cli.app as app\n"
        "m._result = lambda *_: os.kill(os.getpid(), 9)\n"
        f"app.run({[*SMALL, '-w', '20', '--out', 'torn']})\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=300).returncode == -9
    assert run(*SMALL, "-w", "20", "--out", "torn", "--resume")[0] == 0
    assert run(*SMALL, "-w", "20", "--out", "whole")[0] == 0
    assert result("torn") == result("whole")

"""A run that dies goes on where it was, or is analysed where only that was missing: to the same result bit for bit."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import dlnphase.training.keeping as keeping
import dlnphase.training.run as module
from dlnphase.errors import RunError
from dlnphase.results.train import STATE_FILE
from dlnphase.settings import TrainSettings
from dlnphase.training.keeping import RECORDS_FILE, Keeper
from dlnphase.training.run import prepare

SMALL = ["train", "--task", "factorization", "--shape", "4x3", "--singular-values", "3,1", "-L", "3", "-g", "3"]
QUIET = [*SMALL, "-q"]
RUNS = {
    "flow": ["-w", "20"],
    "reduced": ["-w", "1e6", "-g", "2"],
    "completion": ["-w", "20", "--task", "completion", "--shape", "4x4"],
    "descent": ["-w", "20", "--dynamics", "gd", "--max-steps", "2000"],
    "narrow": ["-w", "1", "-g", "1", "--seeds", "2", "--task", "completion", "--shape", "4x4"],
    "batch": ["-w", "20", "--seeds", "3"],
    "batch of descents": ["-w", "20", "--dynamics", "gd", "--seeds", "3", "-g", "1", "--max-steps", "2000"],
    "single precision": ["-w", "20", "--dtype", "float32", "--tol", "1e-5"],
    "greedy": ["--dynamics", "greedy"],
    "looked at": ["-w", "20", "--record", "sharpness,weights"],
}
FILES = ["run.yaml", "trajectory.npz"]


def result(folder):
    """What a run has left, without what tells when it was made."""
    document = yaml.safe_load(Path(folder, "run.yaml").read_text())
    del document["provenance"]
    return document, [path.read_bytes() for path in sorted(Path(folder).glob("*.npz"))]


def files_of(flags):
    """What a run with these flags leaves."""
    return ["observed.npz", *FILES] if {"gd", "--record"} & set(flags) else FILES


def names(folder):
    return sorted(p.name for p in Path(folder).iterdir())


def dying(*_, **__):
    raise MemoryError


def dies_at(patch, number, every=4):
    """Let a run write its state every few rounds, whatever the time, and die in one of them; tells how many there were.

    Rounds are counted from where this process begins.
    """
    seen = SimpleNamespace(rounds=0)

    def between(self, going):
        seen.rounds += 1
        if seen.rounds == number:
            raise MemoryError
        if seen.rounds % every == 0:
            self.write(going)

    patch.setattr(Keeper, "between", between)
    return seen


@pytest.mark.parametrize("flags", RUNS.values(), ids=RUNS)
def test_a_run_that_dies_twice_goes_on_to_the_same_bits(run, monkeypatch, flags):
    with monkeypatch.context() as patch:
        seen = dies_at(patch, None, every=10**9)
        assert run(*QUIET, *flags, "--out", "whole")[0] == 0
    assert names("whole") == files_of(flags) and seen.rounds > 20
    for number, resume in ((seen.rounds // 3, []), (seen.rounds // 3, ["--resume"])):
        with monkeypatch.context() as patch:
            dies_at(patch, number)
            assert run(*QUIET, *flags, "--out", "torn", *resume)[0] == 1
        assert names("torn") == [STATE_FILE, RECORDS_FILE]
    assert run(*QUIET, *flags, "--out", "torn", "--resume")[0] == 0
    assert result("torn") == result("whole") and names("torn") == files_of(flags)


@pytest.mark.parametrize(
    ("flags", "resume"), [(flags, ["--resume"] * (k % 2)) for k, flags in enumerate(RUNS.values())], ids=RUNS
)
def test_a_run_is_on_disk_before_it_is_analysed(run, monkeypatch, flags, resume):
    assert run(*QUIET, *flags, "--out", "whole")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(module, "_result", dying)
        assert run(*QUIET, *flags, "--out", "torn")[0] == 1
    assert names("torn") == [STATE_FILE, RECORDS_FILE]
    with monkeypatch.context() as patch:
        patch.setattr(module, "_follow", dying)  # nothing is run again
        assert run(*QUIET, *flags, "--out", "torn", *resume)[0] == 0
    assert result("torn") == result("whole") and names("torn") == files_of(flags)


@pytest.fixture
def torn(run, monkeypatch):
    """A run that died in ``torn``."""
    with monkeypatch.context() as patch:
        dies_at(patch, 10)
        assert run(*QUIET, "-w", "20", "--out", "torn")[0] == 1
    return Path("torn")


def test_a_killed_run_is_neither_lost_nor_gone_on_with_unasked(run, torn):
    before = (torn / STATE_FILE).read_bytes()
    code, _, err = run(*QUIET, "-w", "20", "--out", "torn")
    assert code == 2 and "was killed" in err and "--resume goes on" in err and "--overwrite starts anew" in err
    assert err.count("\n") == 1 and (torn / STATE_FILE).read_bytes() == before
    code, _, err = run(*QUIET, "-w", "21", "--out", "torn")
    assert code == 2 and "other settings" in err
    code, _, err = run(*QUIET, "-w", "21", "--out", "torn", "--resume")
    assert code == 2 and "  width: 20 there, 21 asked for" in err and (torn / STATE_FILE).read_bytes() == before
    assert run(*QUIET, "-w", "21", "--out", "torn", "--overwrite")[0] == 0 and names("torn") == FILES


@pytest.mark.parametrize("name", ["descent", "batch"])
def test_resume_alone_takes_the_settings_from_what_is_there(run, monkeypatch, name):
    flags = RUNS[name]
    assert run(*QUIET, *flags, "--out", "whole")[0] == 0
    with monkeypatch.context() as patch:
        dies_at(patch, 10)
        assert run(*QUIET, *flags, "--out", "torn")[0] == 1
    code, _, err = run("train", "--out", "torn", "--resume", "--gamma", "2.5")
    assert code == 2 and "  gamma: " in err and "2.5 asked for\n" in err and "\n  --resume alone, " in err
    code, _, err = run("train", "--out", "torn", "--resume", "--threads", "2")  # no setting that counts as another run
    assert code == 2 and "was begun where threads = 1, and here threads = 2" in err
    assert run("train", "--out", "torn", "--resume", "-q")[0] == 0
    assert result("torn") == result("whole") and names("torn") == files_of(flags)
    code, _, err = run("train", "--out", "torn", "--resume")
    assert code == 0 and "nothing left to do" in err


def test_other_versions_would_go_on_with_other_numbers(run, torn, monkeypatch):
    monkeypatch.setattr("torch.__version__", "1.0")
    code, _, err = run(*QUIET, "-w", "20", "--out", "torn", "--resume")
    assert code == 2 and "and here torch = 1.0" in err and err.count("\n") == 1


def test_other_threads_would_go_on_with_other_numbers(run, torn):
    code, _, err = run(*QUIET, "-w", "20", "--out", "torn", "--resume", "--threads", "2")
    assert code == 2 and "was begun where threads = 1, and here threads = 2" in err


def test_a_file_that_changed_meanwhile_is_another_task(run, monkeypatch):
    np.savetxt("target.csv", np.diag([3.0, 1.0, 0.5]), delimiter=",")
    flags = ["train", "--target", "target.csv", "-L", "3", "-w", "20", "-q", "--out", "a"]
    with monkeypatch.context() as patch:
        dies_at(patch, 10)
        assert run(*flags)[0] == 1
    np.savetxt("target.csv", np.diag([3.0, 1.0, 0.25]), delimiter=",")
    code, _, err = run(*flags, "--resume")
    assert code == 2 and "another content of a file" in err


@pytest.mark.parametrize("name", [STATE_FILE, RECORDS_FILE])
def test_a_damaged_state_is_refused_in_one_line(run, torn, name):
    whole = (torn / name).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:200] + b"x" * 50 + whole[250:]):
        (torn / name).write_bytes(damaged)
        code, _, err = run(*QUIET, "-w", "20", "--out", "torn", "--resume")
        assert code == 2 and err.startswith("dlnphase: ") and err.count("\n") == 1, err
    assert run(*QUIET, "-w", "20", "--out", "torn", "--overwrite")[0] == 0 and names("torn") == FILES


def test_records_that_do_not_count_are_left_out(run, torn):
    """A process may die after the records are longer and before the state says so."""
    with (torn / RECORDS_FILE).open("ab") as stream:
        stream.write(b"half of a piece")
    code, _, err = run(*SMALL, "-w", "20", "--out", "torn", "--resume")
    assert code == 0 and "s of work and the step under way lost" in err
    assert run(*QUIET, "-w", "20", "--out", "whole")[0] == 0
    assert result("torn") == result("whole")


def test_an_interrupted_run_goes_on_where_it_was(run, monkeypatch):
    """Ctrl-C leaves a result that says so, and beside it all that is needed to go on."""
    from dlnphase.cli.interrupts import Interrupts

    rounds, real = SimpleNamespace(count=0, seen=0), Interrupts.requested

    def requested(self):
        rounds.count += 1
        self.seen += rounds.count == 12
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Interrupts, "requested", requested)
        code, _, err = run(*QUIET, "-w", "20", "--out", "torn")
    assert code == 130 and "--resume goes on from there" in err
    assert names("torn") == [*FILES[:1], STATE_FILE, RECORDS_FILE, *FILES[1:]]
    with monkeypatch.context() as patch:
        seen = dies_at(patch, None)
        code, _, err = run(*SMALL, "-w", "20", "--out", "torn", "--resume")
    assert code == 0 and "nothing lost" in err and names("torn") == FILES
    with monkeypatch.context() as patch:
        whole = dies_at(patch, None)
        assert run(*QUIET, "-w", "20", "--out", "whole")[0] == 0
    assert result("torn") == result("whole") and seen.rounds == whole.rounds - 12
    code, _, err = run(*SMALL, "-w", "20", "--out", "torn", "--resume")
    assert code == 0 and "nothing left to do" in err


def test_a_disk_that_refuses_the_state_does_not_cost_the_result(run, monkeypatch):
    def refuse(*_):
        raise RunError("state.npz: cannot be written (No space left on device)")

    monkeypatch.setattr(keeping, "write_atomic", refuse)
    dies_at(monkeypatch, None)
    code, _, err = run(*SMALL, "-w", "20", "--out", "a")
    assert code == 0 and err.count("not on disk while it is under way") == 1 and Path("a/run.yaml").exists()


def test_a_process_that_is_killed_loses_nothing_that_was_written(run, tmp_path):
    code = (
        "import os, sys, dlnphase.training.keeping as k, dlnphase.training.run as m, dlnphase.cli.app as app\n"
        "real, k.EVERY = k.Keeper.write, 0.0\n"
        "def write(self, *args, **named):\n"
        "    real(self, *args, **named)\n"
        "    os.kill(os.getpid(), 9)\n"
        "k.Keeper.write = write\n"
        f"app.run({[*QUIET, '-w', '20', '--out', 'torn']})\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=300).returncode == -9
    assert run(*QUIET, "-w", "20", "--out", "torn", "--resume")[0] == 0
    assert run(*QUIET, "-w", "20", "--out", "whole")[0] == 0
    assert result("torn") == result("whole")


# ---- when it is written ----------------------------------------------------------------------------------


def test_a_state_is_written_after_seconds_and_in_a_hundredth_of_the_time(tmp_path, monkeypatch):
    """By a clock that only moves when a round, or writing, takes its time."""
    settings = TrainSettings(task="factorization", shape="3x2", rank=1, depth=2, width=8, dynamics="gd")
    run = prepare(settings)
    now, written = SimpleNamespace(time=0.0), []
    keeper = Keeper(run, tmp_path, lambda _: None, clock=lambda: now.time)

    def write(*_):
        written.append(now.time)
        now.time += now.cost

    monkeypatch.setattr(keeper, "write", write)
    going = module._going(run)
    for now.cost in (0.001, 0.5):
        begun = now.time
        while now.time < begun + 300:
            now.time += 0.1
            keeper.between(going)
    quick, slow = [t for t in written if t < 300], [t for t in written if t >= 302]
    assert 2.0 <= quick[0] < 2.2 and np.allclose(np.diff(quick), 2.1, atol=0.11)
    assert (np.diff(slow) >= 100 * 0.5).all() and len(slow) >= 4

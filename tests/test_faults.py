"""Killed at any moment: files are whole, what was done is there, and ``--resume`` ends where an undisturbed run does.

Moments are drawn by a seeded generator, or are all the file operations of a command, one after the other. Nothing here
depends on how fast the machine is: the properties hold for every moment. ``DLNPHASE_KILLS=1000`` draws that many.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from dlnphase.results import to_document
from dlnphase.results.detect import load_detect
from dlnphase.results.outdir import PREVIOUS
from dlnphase.results.sweep import load_sweep
from dlnphase.results.train import load_train
from dlnphase.training.keeping import RECORDS_FILE, STATE_FILE

RANDOM_KILLS = int(os.environ.get("DLNPHASE_KILLS", "16"))
SIGNALS = {n: getattr(signal, n) for n in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")}
TASK = ["--task", "factorization", "--shape", "3x2", "--singular-values", "3,1", "-L", "2"]
GRID = "--gammas 0.7,1.5 --widths 40,60 --dim 2 -L 2 --seeds 2"


@dataclass(frozen=True)
class Command:
    """A command under test: its arguments, its files (the main one first), and how its result is read."""

    args: tuple[str, ...]
    files: tuple[str, ...]
    load: object
    operations: int = 1  # every how many file operations the exhaustive tests strike


COMMANDS = {
    "train": Command(("train", *TASK, "-w", "8", "-g", "3"), ("run.yaml", "trajectory.npz"), load_train, 2),
    "batch": Command(
        ("train", *TASK, "-w", "8", "-g", "3", "--seeds", "3"), ("run.yaml", "trajectory.npz"), load_train, 5
    ),
    "sweep": Command(
        ("sweep-gamma", *GRID.split(), "--jobs", "1"),
        ("sweep.yaml",),
        load_sweep,
        4,
    ),
    "detect": Command(("detect-saddles", "source"), ("saddles.yaml", "saddles.npz"), load_detect, 2),
}


def seeded(name, seed):
    """Options that make another result of a command."""
    return ["--min-prominence", str(0.5 + seed / 8)] if name == "detect" else ["--seed", str(seed)]


@pytest.fixture
def place(references, tmp_path):
    shutil.copytree(references["source"], tmp_path / "source")
    return tmp_path


def numbers(directory, command):
    """A result without when and where: its document, and the bytes of its arrays."""
    result = command.load(directory)
    document = {k: v for k, v in to_document(result).items() if k != "provenance"}
    document["config"].pop("source", None)
    arrays = np.load(directory / command.files[1], allow_pickle=False) if len(command.files) > 1 else {}
    return repr(document), {name: (arrays[name].shape, arrays[name].tobytes()) for name in arrays}


def is_whole(directory, command):
    """Whether a result is there; fails where one is there that is cut short, or beside parts of another."""
    main, *parts = command.files
    allowed = {main, *parts, PREVIOUS, STATE_FILE, RECORDS_FILE}
    assert {p.name for p in directory.iterdir() if not p.name.startswith(".")} <= allowed
    if (directory / main).exists():  # as any other program would see it
        document = yaml.safe_load((directory / main).read_text())
        for part in parts:
            with np.load(directory / part, allow_pickle=False) as arrays:
                assert agree(document, {name: arrays[name] for name in arrays})
    elif not any(p.name == ".dlnphase.journal" for p in directory.iterdir()):
        return False
    command.load(directory)
    return True


def agree(document, arrays):
    """Whether a main file and the arrays beside it tell of the same result."""
    if document["schema"].startswith("dlnphase/detect-saddles"):
        return list(arrays["member"]) == [visit["member"] for visit in document["visits"]]
    assert document["schema"].startswith("dlnphase/train")
    for k, member in enumerate(document["members"] or [document]):
        last = np.flatnonzero(arrays["member"] == k)[-1]
        if (arrays["t"][last], arrays["cost"][last]) != (member["outcome"]["time"], member["outcome"]["cost"]):
            return False
    return True


def tidy(directory, command):
    """Nothing but the result, hidden files included."""
    return {p.name for p in directory.iterdir()} == set(command.files)


def said_right(done, number, directory, command):
    """The exit code and the one line that go with a signal."""
    if number == signal.SIGKILL:
        assert done["code"] == -number or (done["code"] == 0 and tidy(directory, command))
        return
    if done["code"] == 0:  # it came after the end
        assert tidy(directory, command)
        return
    said = [line for line in done["err"].splitlines() if line.startswith("dlnphase: ")]
    assert done["code"] == 130 and len(said) == 1 and "interrupted" in said[0], done
    assert "Traceback" not in done["err"]
    assert not directory.exists() or not any(p.name.startswith(".") for p in directory.iterdir())
    if "before there was anything to save" in said[0]:
        assert not directory.exists()
    else:
        assert f"saved in {directory.name}" in said[0] and is_whole(directory, command)


def resumes(zygote, place, name, reference, *flags):
    """Going on (or anew, where nothing is there) ends where an undisturbed run does, and leaves nothing else behind."""
    command = COMMANDS[name]
    done = zygote(*command.args, *seeded(name, 0), "--out", "out", *flags, cwd=place)
    assert done["code"] == 0, done["err"]
    assert numbers(place / "out", command) == reference
    assert tidy(place / "out", command)


# ---- a new result --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM"])
def test_struck_before_any_file_operation(name, number, zygote, references, place):
    reference, undisturbed = references[name, 0]
    command, out = COMMANDS[name], place / "out"
    step = command.operations * (1 if number == "SIGKILL" else 3)
    for at in range(1, undisturbed["operations"] + 1, step):
        shutil.rmtree(out, ignore_errors=True)
        done = zygote(*command.args, *seeded(name, 0), "--out", "out", cwd=place, signal=SIGNALS[number], at=at)
        assert done["code"] != 0
        said_right(done, SIGNALS[number], out, command)
        there = out.exists() and is_whole(out, command)
        resumes(zygote, place, name, reference, *(["--resume"] if there or at % 2 else []))


def test_struck_at_random_moments(zygote, references, place):
    rng = np.random.default_rng(int(os.environ.get("DLNPHASE_KILLS_SEED", "20")))
    struck = dict.fromkeys(SIGNALS, 0)
    for _ in range(RANDOM_KILLS):
        name, number = rng.choice(list(COMMANDS)), rng.choice(list(SIGNALS))
        command, out = COMMANDS[name], place / "out"
        reference, undisturbed = references[name, 0]
        after = float(rng.uniform(0, 1.1)) * undisturbed["seconds"]
        shutil.rmtree(out, ignore_errors=True)
        done = zygote(*command.args, *seeded(name, 0), "--out", "out", cwd=place, signal=SIGNALS[number], after=after)
        said_right(done, SIGNALS[number], out, command)
        if out.exists():
            is_whole(out, command)
        struck[number] += done["code"] != 0
        resumes(zygote, place, name, reference, "--resume")
    print(f"{RANDOM_KILLS} moments, ended by: {struck}")


def test_figures_are_whole_or_not_there(zygote, references, place):
    """Of ``plot``, the quickest to do again, a single signal is enough; it saves all or nothing."""
    undisturbed = zygote("plot", "source", "--kind", "loss", "--out", "out", cwd=place)
    assert undisturbed["code"] == 0
    for number in ("SIGTERM", "SIGKILL"):
        for at in range(1, undisturbed["operations"] + 1, 12 if number == "SIGTERM" else 5):
            shutil.rmtree(place / "out", ignore_errors=True)
            flags = ["plot", "source", "--kind", "loss", "--out", "out"]
            done = zygote(*flags, cwd=place, signal=SIGNALS[number], at=at)
            assert done["code"] == (130 if number == "SIGTERM" else -9) and "Traceback" not in done["err"]
            there = {p.name for p in (place / "out").iterdir()} if (place / "out").exists() else set()
            assert "figures.yaml" not in there or "loss.png" in there
            if number == "SIGTERM":
                assert there in (set(), {"figures.yaml", "loss.png"}) and "interrupted" in done["err"]
            assert zygote(*flags, "--resume", cwd=place)["code"] == 0
            assert {p.name for p in (place / "out").iterdir()} == {"figures.yaml", "loss.png"}
            assert (place / "out" / "loss.png").read_bytes()[-8:-4] == b"IEND"


# ---- in the place of an old one ------------------------------------------------------------------------


def overwritten(place, name, references):
    """Which result is there after an ``--overwrite`` was struck: the old one whole, the new one, or part of the new
    one and the old one whole beside it."""
    command, out = COMMANDS[name], place / "out"
    assert is_whole(out, command)
    found = numbers(out, command)
    if found in (references[name, 0][0], references[name, 1][0]):
        return "old" if found == references[name, 1][0] else "new"
    assert numbers(out / PREVIOUS, command) == references[name, 1][0]
    return "part"


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM"])
def test_an_old_result_is_whole_until_the_new_one_is(name, number, zygote, references, place):
    reference, _ = references[name, 0]
    command, out = COMMANDS[name], place / "out"
    new = [*command.args, *seeded(name, 0), "--out", "out"]
    fresh = zygote(*command.args, *seeded(name, 1), "--out", "old", cwd=place)
    shutil.copytree(place / "old", out)
    operations = zygote(*new, "--overwrite", cwd=place)["operations"]
    assert fresh["code"] == 0 and tidy(out, command)
    step = command.operations * (1 if number == "SIGKILL" else 3)
    seen = set()
    for at in range(1, operations + 1, step):
        shutil.rmtree(out)
        shutil.copytree(place / "old", out)
        done = zygote(*new, "--overwrite", cwd=place, signal=SIGNALS[number], at=at)
        assert done["code"] == (-9 if number == "SIGKILL" else 130) and "Traceback" not in done["err"]
        seen.add(overwritten(place, name, references))
        go_on = "--overwrite" if overwritten(place, name, references) == "old" else "--resume"
        assert zygote(*new, go_on, cwd=place)["code"] == 0
        assert numbers(out, command) == reference and tidy(out, command)
        assert name != "sweep" or at > 1 or "old" in seen  # no cell yet: nothing to put in its place
    assert len(seen) > 1 and ("old" in seen or number != "SIGKILL")


# ---- the whole life of a process, start-up included ------------------------------------------------------


def started(folder, *args, **options):
    """``python -m dlnphase`` as a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "dlnphase", *args],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def listens(process):
    """Whether a process has its own handler for SIGTERM."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.M)[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_interrupted_while_it_starts(tmp_path):
    """Several at once, each told to stop at another moment of its start; an answer is due from the first handler on."""
    rng = np.random.default_rng(21)
    moments = rng.uniform(0, 2.5, 4)
    processes = []
    for k, _ in enumerate(moments):
        processes.append(started(tmp_path, *COMMANDS["train"].args, "--out", f"out{k}"))
        while not listens(processes[-1]):
            assert processes[-1].poll() is None
    waited = 0.0
    for k in np.argsort(moments):
        time.sleep(moments[k] - waited)
        waited = moments[k]
        processes[k].send_signal(signal.SIGTERM if k % 2 else signal.SIGINT)
    for k, process in enumerate(processes):
        _, err = process.communicate(timeout=120)
        said_right({"code": process.returncode, "err": err}, signal.SIGTERM, tmp_path / f"out{k}", COMMANDS["train"])


def test_nohup_goes_on_when_its_terminal_is_closed(tmp_path):
    process = started(
        tmp_path,
        *COMMANDS["train"].args,
        "--out",
        "out",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    while not listens(process):
        assert process.poll() is None
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0 and "interrupted" not in err and tidy(tmp_path / "out", COMMANDS["train"])


def test_the_handlers_are_there_before_anything_slow_is_imported():
    code = (
        "import sys, dlnphase.cli.app as app\n"
        "def started():\n"
        "    assert not {'torch', 'numpy', 'scipy', 'yaml'} & set(sys.modules); print('early')\n"
        "app.leave_at_once = started\n"
        "sys.argv = ['dlnphase', '--version']\n"
        "app.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("early\n"), done.stderr


def test_a_signal_to_the_whole_group_of_a_sweep_with_workers(zygote, references, place):
    """What a terminal or a batch system does: the workers get it as well, even while they start."""
    command = COMMANDS["sweep"]
    rng = np.random.default_rng(22)
    flags = [*command.args[:-1], "2", "--out", "out"]
    for number in (*["SIGINT"] * 3, "SIGTERM", "SIGKILL"):
        shutil.rmtree(place / "out", ignore_errors=True)
        after = float(rng.uniform(0.05, 0.5 if number == "SIGINT" else 3.0))  # workers start at a tenth of a second
        done = zygote(*flags, cwd=place, signal=SIGNALS[number], after=after, group=True)
        said_right(done, SIGNALS[number], place / "out", command)
        if (place / "out").exists():
            is_whole(place / "out", command)
    resumes(zygote, place, "sweep", references["sweep", 0][0], "--resume")


# ---- impatience ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train", "batch", "sweep", "detect"])
def test_further_signals_do_not_tear_what_the_first_one_saves(name, zygote, references, place):
    rng = np.random.default_rng(23)
    command, out = COMMANDS[name], place / "out"
    reference, undisturbed = references[name, 0]
    for _ in range(6):
        shutil.rmtree(out, ignore_errors=True)
        moments = sorted(rng.uniform(0, undisturbed["seconds"], 3).tolist())
        done = zygote(*command.args, *seeded(name, 0), "--out", "out", cwd=place, signal=signal.SIGINT, after=moments)
        said_right(done, signal.SIGINT, out, command)
        resumes(zygote, place, name, reference, "--resume")

"""A disk that is full or read-only, an output nobody can hear, and two processes that want one directory."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from test_faults import COMMANDS, is_whole, numbers, seeded, tidy
from zygote import NO_SPACE

from dlnphase.results.train import load_train

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
SMALL = COMMANDS["train"].args


def one_line(err):
    said = [line for line in err.splitlines() if line.startswith("dlnphase: ")]
    return len(said) == 1 and "Traceback" not in err


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("name", ["train", "sweep", "detect"])
def test_no_space_at_any_file_operation(name, lasting, zygote, references, tmp_path):
    """The old result stays, or the new one is there; one line says so, and the next command goes on."""
    command, out = COMMANDS[name], tmp_path / "out"
    shutil.copytree(references["source"], tmp_path / "source")
    new = [*command.args, *seeded(name, 0), "--out", "out", "--overwrite"]
    assert zygote(*command.args, *seeded(name, 1), "--out", "old", cwd=tmp_path)["code"] == 0
    shutil.copytree(tmp_path / "old", out)
    operations = zygote(*new, cwd=tmp_path)["operations"]
    codes = set()
    for at in range(1 + lasting, operations + 1, 2 * command.operations):
        shutil.rmtree(out)
        shutil.copytree(tmp_path / "old", out)
        done = zygote(*new, cwd=tmp_path, errno=NO_SPACE, at=at, lasting=lasting)
        codes.add(done["code"])
        assert done["code"] in (0, 1, 2) and is_whole(out, command), done
        assert one_line(done["err"]) if done["code"] else numbers(out, command) == references[name, 0][0]
        assert done["code"] == 0 or "No space left on device" in done["err"]
        found = numbers(out, command)
        whole = found in (references[name, 0][0], references[name, 1][0])
        assert whole or numbers(out / "kept-by-overwrite", command) == references[name, 1][0]
        go_on = "--overwrite" if found == references[name, 1][0] else "--resume"
        assert zygote(*new[:-1], go_on, cwd=tmp_path)["code"] == 0
        assert numbers(out, command) == references[name, 0][0] and tidy(out, command)
    assert 1 in codes


def mounted(folder, mount, *args):
    """``python args`` in a folder on a file system that only it sees."""
    shell = f'{mount} && cd "$0" && shift 0 && "$@"; code=$?; echo "code $code"; ls -A . out 2>/dev/null'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", shell, str(folder), sys.executable, *args],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=folder,
        timeout=120,
    )
    if "code " not in done.stdout or "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"mounts need more rights than these: {done.stderr.strip()}")
    return done


def test_a_disk_that_is_really_full(tmp_path):
    done = mounted(tmp_path, "mount -t tmpfs -o size=16k none .", "-m", "dlnphase", *SMALL, "--out", "out", "-q")
    assert "code 1\n" in done.stdout and one_line(done.stderr)
    assert "run.yaml: cannot be written (No space left on device)" in done.stderr
    assert ".part" not in done.stdout and "run.yaml" not in done.stdout


def test_a_read_only_disk_is_told_before_the_work_and_can_be_read(references, tmp_path):
    shutil.copytree(references["source"], tmp_path / "out")
    mount = "mount --bind . . && mount -o remount,ro,bind ."
    overwrite, new = ([*SMALL, "--out", "out", "--overwrite"], [*SMALL, "--out", "new"])
    commands = [overwrite, new, ["plot", "out", "--terminal"]]
    code = f"from dlnphase.cli import app\nprint('codes', [app.run(args) for args in {commands!r}])"
    done = mounted(tmp_path, mount, "-c", code)
    assert "codes [2, 2, 0]\n" in done.stdout, done
    said = done.stderr.splitlines()
    assert len(said) == 2 and all(line.startswith("dlnphase: --out: ") for line in said), said
    assert all("Read-only file system" in line for line in said)
    assert is_whole(tmp_path / "out", COMMANDS["train"]) and tidy(tmp_path / "out", COMMANDS["train"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_cannot_be_written_costs_no_result(tmp_path):
    """A log on a full disk, or a terminal that has gone away: the run ends and is saved all the same."""
    with open("/dev/full", "w") as full:
        for stream in ("stdout", "stderr"):
            others = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {stream: full}
            done = subprocess.run(
                [sys.executable, "-m", "dlnphase", *SMALL, "--out", stream],
                cwd=tmp_path,
                env=ENVIRONMENT,
                text=True,
                timeout=120,
                **others,
            )
            assert is_whole(tmp_path / stream, COMMANDS["train"]) and tidy(tmp_path / stream, COMMANDS["train"])
            assert done.returncode == (1 if stream == "stdout" else 0)
            if stream == "stdout":
                assert one_line(done.stderr) and "No space left on device" in done.stderr


def test_the_second_process_is_told_and_the_first_is_unharmed(zygote, tmp_path):
    first = subprocess.Popen(
        [sys.executable, "-m", "dlnphase", *SMALL, "--dynamics", "gd", "--lr", "1e-7", "--out", "out"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lock = tmp_path / "out" / ".dlnphase.lock"
        while not (lock.exists() and lock.read_text()):
            assert first.poll() is None
            time.sleep(0.02)
        before = {p.name for p in (tmp_path / "out").iterdir()}
        for flags in ([], ["--overwrite"], ["--resume"]):
            for name in ("train", "sweep"):
                done = zygote(*COMMANDS[name].args, "--out", "out", *flags, cwd=tmp_path)
                assert done["code"] == 2 and one_line(done["err"])
                assert f"--out: out is in use by another dlnphase (process {first.pid})" in done["err"]
        assert {p.name for p in (tmp_path / "out").iterdir()} == before and first.poll() is None
        first.send_signal(signal.SIGTERM)
        _, err = first.communicate(timeout=60)
    finally:
        first.kill()
        first.communicate()
    assert first.returncode == 130 and one_line(err) and "saved in out" in err
    assert load_train(tmp_path / "out").outcome.reason == "interrupted"
    assert yaml.safe_load((tmp_path / "out" / "run.yaml").read_text())["config"]["dynamics"] == "gd"

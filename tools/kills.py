"""Kill ``dlnphase train`` at random moments, go on with ``--resume``, and compare with undisturbed runs bit for bit.

    python tools/kills.py 200 [SEED]

Runs of every dynamics, single and in batches, take their turns. Each is begun anew and ended by ``kill -9`` at a moment
that is uniform over what an undisturbed run takes, gone on with (one in three is killed once more), until its result is
there. Told are the runs whose files differ in any number, which there should be none of, and what the kills cost: the
seconds of work between the last state that was written and the kill, as ``--resume`` tells them.

These runs take about a second, so their states are written up to twenty times a second, whatever that costs, instead
of every two seconds: what is to be seen is whether what is written is all that is needed.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from dlnphase.cli import app
from dlnphase.training import keeping, run

TASK = ("train", "--task", "completion", "--dim", "4", "--rank", "1", "-L", "3", "-w", "20", "-g", "2")
FAR = ("train", "--task", "factorization", "--dim", "3", "--rank", "2", "-L", "2", "-w", "20", "-g", "9")
RUNS: dict[str, tuple[str, ...]] = {
    "explicit and stabilised": (*TASK, "--rtol", "1e-7"),
    "stiff": (*FAR, "--rtol", "1e-6"),
    "reduced": (*TASK, "-w", "1e9", "-g", "1.2", "--rtol", "1e-6"),
    "descent": (*TASK, "--dynamics", "gd", "--max-steps", "4000"),
    "greedy": ("train", "--task", "completion", "--dim", "2", "--rank", "1", "-L", "2", "--dynamics", "greedy"),
    "batch": (*TASK, "--seeds", "5"),
    "batch, stiff": (*FAR, "--seeds", "3"),
    "batch, descent": (*TASK, "--dynamics", "gd", "--seeds", "3", "--max-steps", "2000"),
}
EVERY, SHARE = 0.05, 1.0  # seconds between two states here, and times what writing took
POLL = 0.002
LOST = re.compile(r"at most ([0-9.]+) s of work")


def train(arguments: Sequence[str], out: Path, kill_after: float = np.inf) -> tuple[int, str, float]:
    """(exit code, what it said, seconds) of a process of its own, which is killed after so many seconds."""
    said, start = out.with_suffix(".said"), time.monotonic()
    said.touch()  # a child may die before it opens it
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        code = 70
        with contextlib.suppress(BaseException):
            code = app.run([*arguments, "--out", str(out)])
        os._exit(code)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), said.read_text(), time.monotonic() - start
        if time.monotonic() - start > kill_after:
            os.kill(child, signal.SIGKILL)
            kill_after = np.inf
        time.sleep(POLL)


def numbers(folder: Path) -> tuple[str, bytes, set[str]]:
    """All that a run has left, but when and where it was made."""
    document = yaml.safe_load((folder / "run.yaml").read_text())
    del document["provenance"]
    return repr(document), (folder / "trajectory.npz").read_bytes(), {path.name for path in folder.iterdir()}


def main() -> int:
    """Draw the moments, and tell the count."""
    count, rng = int(sys.argv[1]), np.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    keeping.EVERY, keeping.SHARE = EVERY, SHARE
    run.prepare(run.TrainSettings())  # what is imported late is imported once
    kills, gone_on, lost, wrong = dict.fromkeys(RUNS, 0), 0, [], []
    with tempfile.TemporaryDirectory() as place:
        whole = {name: train(arguments, Path(place, name)) for name, arguments in RUNS.items()}
        number = 0
        while sum(kills.values()) < count:
            name, out = list(RUNS)[number % len(RUNS)], Path(place, str(number))
            flags: tuple[str, ...] = ()
            moments = rng.uniform(0, whole[name][2], size=2 if number % 3 == 0 else 1)
            for moment in (*moments, np.inf):
                code, said, _ = train((*RUNS[name], *flags), out, float(moment))
                kills[name] += code == -signal.SIGKILL
                gone_on += "going on after" in said or "analysing it" in said
                lost += [float(seconds) for seconds in LOST.findall(said)]
                flags = ("--resume",)
            if code != 0 or numbers(out) != numbers(Path(place, name)):
                wrong.append(f"{name}, run {number}, killed after {moments}: exit code {code}, {said}")
                print(wrong[-1], file=sys.stderr)
            number += 1
            print(f"{number} runs, {sum(kills.values())} kills, {len(wrong)} results differ", file=sys.stderr)
    print(f"{sum(kills.values())} kills: {', '.join(f'{n} {name}' for name, n in kills.items())}")
    print(f"{gone_on} processes found a state; {len(wrong)} of {number} results differ")
    print(f"seconds of work lost at most, as told: median {np.median(lost):.2f}, largest {max(lost):.2f}")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

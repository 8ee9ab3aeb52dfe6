"""Large and deep problems as commands: seconds of CPU and peak memory of each, one row a command.

``python -m bench.large`` runs all of them, which takes an hour or two; ``python -m bench.large deep-8 ratings`` those
named. A command that follows a run reads what that one left, so it is run after it.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RATINGS = (
    "train --task completion --shape 943x1682 --singular-values 1000,700,450,300,200 --observed 0.06305 "
    "--depth 3 --width 100 --gamma 1.5 --tol 1e-3"
)
COMMANDS = {
    "deep-6": "train -w 1e9 -g 1.5 -L 6",
    "deep-8": "train -w 1e6 -g 2 -L 8",
    "completion": "train --task completion --shape 200x200 --rank 3 --width 200",
    "completion-saddles": "detect-saddles {completion}",
    "ratings": RATINGS,
    "ratings-saddles": "detect-saddles {ratings}",
    "ratings-noise": f"{RATINGS} --noise 0.1 --max-time 0.25",
    "factorization": "train --task factorization --shape 600x600 --width 2500",
}


def measured(arguments: list[str]) -> tuple[int, float, float, float]:
    """(exit code, seconds, CPU seconds, peak MiB) of ``dlnphase`` with these arguments, in a process of its own.

    The peak is that of the largest child so far, so each command has a measuring process to itself.
    """
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "dlnphase", *arguments, "--quiet"], stdout=sys.stderr)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.returncode, time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**10


def main() -> None:
    """Run the commands named, all by default, and print a row for each as soon as it has ended."""
    parser = argparse.ArgumentParser(prog="python -m bench.large", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*COMMANDS, []], help=", ".join(COMMANDS))
    parser.add_argument("--one", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(*measured(options.one))
        return
    with tempfile.TemporaryDirectory() as folder:
        places = {name: str(Path(folder) / name) for name in COMMANDS}
        for name in options.names or COMMANDS:
            arguments = [*COMMANDS[name].format(**places).split(), "--out", places[name]]
            child = [sys.executable, "-m", "bench.large", "--one", *arguments]
            code, seconds, cpu, peak = subprocess.run(child, check=True, stdout=subprocess.PIPE).stdout.split()
            row = f"{float(cpu):.0f} s of CPU ({float(seconds):.0f} s), peak {float(peak):.0f} MiB"
            print(
                f"| `dlnphase {COMMANDS[name]}` | {row if int(code) == 0 else f'exit {int(code)}, {row}'} |", flush=True
            )


if __name__ == "__main__":
    main()

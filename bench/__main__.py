"""Measure the standing figures and print them as one Markdown table; ``--write`` puts it into docs/benchmarks.md.

Seconds are CPU seconds of one thread where the work is done in this process, and seconds on the wall for commands.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from bench.overhead import cell_overhead
from bench.recorder import recorder_overhead
from bench.sgd import STABILITY, Run, autograd_sgd, clock, extrapolated_sgd, sharpest
from dlnphase.backend import Backend, resolve_backend
from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.costs.tasks import planted_task
from dlnphase.dynamics import gradient_flow
from dlnphase.networks.chain import Network
from dlnphase.networks.representation import initial_network
from dlnphase.networks.sampling import gaussian_network, hidden_dims, sigma_of
from dlnphase.setup.representation import choose_representation, represent

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
SHAPE, DEPTH, GAMMA, TOL = (10, 10), 4, 2.0, 1e-8
REPEATS = 3  # runs of which the middle one counts
PROBE = 200  # steps of SGD that are measured where the rest is extrapolated

Row = tuple[str, str, str]  # what, figure, how it was taken


def follow(network: Network, cost: QuadraticCost) -> Run:
    """The flow to the minimum with the default settings."""
    started, matrix, steps = clock(), None, 0
    for record in gradient_flow(network, cost, tol=TOL):
        if record.reasons[0] is not None:
            assert record.reasons[0] == "converged", record.reasons
        matrix, steps = record.A[0], int(record.step.max())
    return Run(clock() - started, steps, torch.as_tensor(matrix))


def against_sgd(cost: QuadraticCost, backend: Backend, widths: list[int], measure_up_to: int) -> list[Row]:
    """Time to the minimum: autograd SGD over flow, from the same start."""
    rows = []
    for width in widths:
        start = gaussian_network(hidden_dims(DEPTH, width, SHAPE), sigma_of(width, GAMMA), backend)
        flows, (network, how) = [], represent(start, cost)
        for _ in range(REPEATS):
            started = clock()
            represent(start, cost)
            prepared = clock() - started
            flow = follow(network, cost)
            flows.append(replace(flow, seconds=prepared + flow.seconds))
        lr = STABILITY * 2 / sharpest(network, cost)
        if width <= measure_up_to:
            repeats = REPEATS if width <= 300 else 1
            sgd = middle([autograd_sgd(start, cost, lr, TOL, 10**7) for _ in range(repeats)])
        else:
            sgd = extrapolated_sgd(start, cost, lr, TOL, PROBE)
        flow = middle(flows)
        gap = float((sgd.matrix - flow.matrix).norm() / flow.matrix.norm())
        taken = "measured" if sgd.measured else f"extrapolated: time a step over {PROBE} steps × steps counted"
        seconds = flow.seconds
        rows.append(
            (
                f"autograd SGD / flow, w = {width}",
                f"{sgd.seconds / seconds:.3g}",
                f"SGD {sgd.seconds:.3g} s, {sgd.steps} steps ({taken}); flow {seconds:.3g} s, {flow.steps} steps, "
                f"{how.kind} {'×'.join(map(str, how.hidden))}; matrices reached differ by {gap:.0e}",
            )
        )
        report(rows[-1])
    return rows


def middle(runs: list[Run]) -> Run:
    """The one of median time."""
    return sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]


def drawn_run(width: int, gamma: float, cost: QuadraticCost, backend: Backend, members: range) -> Run:
    """Choose, draw and follow: what ``dlnphase train`` does, without files and screen."""
    started = clock()
    sigma = sigma_of(width, gamma)
    how = choose_representation(DEPTH, width, SHAPE, sigma, cost, backend, batch=len(members))
    network = initial_network(how, DEPTH, width, SHAPE, sigma, backend, members=members)
    flow = follow(network, cost)
    return Run(clock() - started, flow.steps, flow.matrix)


def widths_and_batches(cost: QuadraticCost, backend: Backend) -> list[Row]:
    """What width and batches cost."""
    narrow = drawn_run(10**3, GAMMA, cost, backend, range(1))
    wide = drawn_run(10**9, GAMMA, cost, backend, range(1))
    many = drawn_run(10**9, GAMMA, cost, backend, range(64))
    long = drawn_run(10**6, 3.0, cost, backend, range(1))
    rows = [
        (
            "the same without start-up, one thread: w = 1e9 / w = 1e3",
            f"{wide.seconds / narrow.seconds:.3g}",
            f"CPU: {wide.seconds:.3g} s ({wide.steps} steps) / {narrow.seconds:.3g} s ({narrow.steps} steps)",
        ),
        (
            "the same without start-up, one thread: 64 seeds / 1 seed",
            f"{many.seconds / wide.seconds:.3g}",
            f"CPU: {many.seconds:.3g} s / {wide.seconds:.3g} s",
        ),
        ("w = 1e6, γ = 3, flow time to 1e11", f"{long.seconds:.3g} s", f"{long.steps} steps"),
    ]
    for row in rows:
        report(row)
    return rows


def start_up(repeats: int = 7) -> list[Row]:
    """``dlnphase --help`` against ``import torch``, medians over fresh processes."""

    def median(command: list[str]) -> float:
        taken = []
        for _ in range(repeats):
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            taken.append(time.perf_counter() - started)
        return statistics.median(taken)

    help_, torch_ = median([sys.executable, "-m", "dlnphase", "--help"]), median([sys.executable, "-c", "import torch"])
    row = ("dlnphase --help / import torch", f"{help_ / torch_:.3g}", f"{help_:.3g} s / {torch_:.3g} s")
    report(row)
    return [row]


def command(*options: str) -> tuple[float, float]:
    """(seconds, peak MiB) of a whole ``dlnphase train`` in a process of its own, on as many threads as it takes."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'dlnphase', 'train', *sys.argv[1:]], check=True, stdout=2)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    free = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        arguments = [sys.executable, "-c", code, *options, "--quiet", "--out", f"{folder}/run"]
        done = subprocess.run(arguments, check=True, capture_output=True, text=True, env=free)
        seconds = time.perf_counter() - started
    return seconds, int(done.stdout.split()[-1]) / 2**10


def commands() -> list[Row]:
    """What width and batches cost someone who types the command."""
    narrow, wide = command("-w", "1e3", "-g", "2"), command("-w", "1e9", "-g", "2")
    many = command("-w", "1e9", "-g", "2", "--seeds", "64")
    rows = [
        (
            "dlnphase train -g 2: -w 1e9 / -w 1e3",
            f"{wide[0] / narrow[0]:.3g}",
            f"{wide[0]:.3g} s, peak {wide[1]:.0f} MiB / {narrow[0]:.3g} s, peak {narrow[1]:.0f} MiB",
        ),
        (
            "dlnphase train -g 2 -w 1e9: --seeds 64 / one seed",
            f"{many[0] / wide[0]:.3g}",
            f"{many[0]:.3g} s, peak {many[1]:.0f} MiB / {wide[0]:.3g} s",
        ),
    ]
    for row in rows:
        report(row)
    return rows


def report(row: Row) -> None:
    """One row, as soon as it is known."""
    print("  " + " | ".join(row), file=sys.stderr, flush=True)


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table, under a line that says when and on what they were taken."""
    lines = ["| figure | value | how |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    stamp = (
        f"Taken {datetime.date.today()} at commit {commit or 'unknown'} on {processor()} "
        f"({os.cpu_count()} cores; CPU seconds on {torch.get_num_threads()} thread, commands in seconds on the wall), "
        f"Python {platform.python_version()}, torch {torch.__version__}."
    )
    return "\n".join([stamp, "", *lines, ""])


def processor() -> str:
    """The name of the processor, as the system tells it."""
    try:
        found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()


def write(text: str) -> None:
    """Replace what stands between the markers of the page."""
    page = PAGE.read_text()
    marked = re.compile(r"(<!-- bench -->\n).*?(<!-- /bench -->)", re.DOTALL)
    if not marked.search(page):
        raise SystemExit(f"{PAGE}: found no <!-- bench --> … <!-- /bench --> markers")
    PAGE.write_text(marked.sub(lambda match: match.group(1) + text + match.group(2), page))


def main() -> None:
    """Measure everything, print the table, and write it into the page where asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--long", action="store_true", help="run SGD to the end at w = 1000 too (minutes to half an hour)"
    )
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    backend = resolve_backend("cpu", threads=1)
    cost = planted_task("completion", SHAPE, (10.0, 6.0, 3.0), backend).cost
    rows = against_sgd(cost, backend, [100, 300, 1000], 1000 if options.long else 300)
    rows += commands()
    rows += widths_and_batches(cost, backend)
    rows += start_up()
    rows += cell_overhead()
    rows += recorder_overhead()
    text = table(rows)
    print(text)
    if options.write:
        write(text)


if __name__ == "__main__":
    main()

"""What a cell of a sweep costs besides its work: in this process, in others (``--jobs``), on a Dask cluster.

``python -m bench.overhead`` prints the rows alone.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dlnphase.results.sweep import SweepFile
from dlnphase.settings import SweepSettings
from dlnphase.sweep.cells import Job, run_job
from dlnphase.sweep.executors import Outcome, run_dask, run_here, run_processes
from dlnphase.sweep.run import prepare, sweep_gamma

CELLS = 64
WORKERS = 2
SMALLEST = {"widths": (100,), "shape": (2, 2), "depth": 2, "seeds": 1, "jobs": 1}

Row = tuple[str, str, str]  # what, figure, how it was taken


def answer(job: Job) -> Job:
    """The trivial cell: it sends back what it was given."""
    return job


def cell_overhead() -> list[Row]:
    """Milliseconds a cell on every way of computing one, without its own work, and those of writing it down.

    The jobs are those of a real sweep of 64 cells, so that what is sent is what would be sent; only the work is left
    out. The start of workers and of a cluster is not in the figure and stands beside it.
    """
    settings = SweepSettings(gammas=tuple(0.5 + k / CELLS for k in range(CELLS)), **SMALLEST)
    task = prepare(settings).task
    jobs = [Job(settings, task, width, (gamma,)) for gamma, width in settings.cells]
    started = time.perf_counter()
    for job in jobs:
        run_job(job)
    work = time.perf_counter() - started
    rows = [
        _row(
            "in this process",
            run_here(answer, jobs, _never),
            f"{CELLS} trivial cells; the smallest real cell (2×2, L = 2, one start) takes {1e3 * work / CELLS:.3g} ms",
        ),
        _row(f"--jobs {WORKERS}", run_processes(answer, jobs, _never, WORKERS), f"{CELLS} trivial cells"),
        _dask_row(jobs),
        _saving_row(settings),
    ]
    return rows


def _row(name: str, outcomes: Iterator[Outcome], how: str) -> Row:
    """Time between the first result and the last, over the cells between them; time to the first beside it."""
    started = time.perf_counter()
    arrived = []
    for _, _, error in outcomes:
        assert error is None, error
        arrived.append(time.perf_counter())
    assert len(arrived) == CELLS
    each = (arrived[-1] - arrived[0]) / (CELLS - 1)
    row = (
        f"overhead of a cell, {name}",
        f"{1e3 * each:.3g} ms",
        f"{how}; the first after {arrived[0] - started:.2g} s",
    )
    report(row)
    return row


def _dask_row(jobs: list[Job]) -> Row:
    import distributed

    with distributed.LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        outcomes = run_dask(answer, jobs, _never, cluster.scheduler_address)
        return _row(f"Dask, {WORKERS} workers", outcomes, f"{CELLS} trivial cells on a cluster that is up")


def _saving_row(settings: SweepSettings) -> Row:
    """The file is written anew after every cell."""
    swept = sweep_gamma(settings)
    with tempfile.TemporaryDirectory() as folder:
        file = SweepFile(Path(folder))
        started = time.perf_counter()
        for count in range(1, CELLS + 1):
            file.save(replace(swept, cells=swept.cells[:count], exponents=(), critical_gamma=None, complete=False))
        each = (time.perf_counter() - started) / CELLS
        size = file.path.stat().st_size
    row = ("writing a cell down", f"{1e3 * each:.3g} ms", f"mean over a file that grows to {size / 2**10:.0f} KiB")
    report(row)
    return row


def _never() -> bool:
    return False


def report(row: Row) -> None:
    """One row, as soon as it is known."""
    print("  " + " | ".join(row), file=sys.stderr, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        from bench.overhead import cell_overhead as measure  # by its real name, which workers can import

        measure()

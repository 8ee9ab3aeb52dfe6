"""A Dask cluster by hand on this machine: the same file as without it, whoever dies."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from sweeping import FLAGS, LONG, LONG_CELLS, SMALL, never, spawn, troubled, wait_for_cells

from dlnphase.cli import app
from dlnphase.errors import RunError
from dlnphase.settings import SweepSettings
from dlnphase.sweep.cells import Job, run_job
from dlnphase.sweep.executors import run_dask
from dlnphase.sweep.run import prepare

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")


@pytest.fixture
def cluster(tmp_path):
    """``start("scheduler")`` and ``start("worker")`` as docs/cluster.md says; all are ended afterwards."""
    started = []

    def start(role):
        log = tmp_path / f"{role}-{len(started)}.log"
        address = ["--host", "127.0.0.1", "--port", "0"] if role == "scheduler" else [start.address, "--nthreads", "1"]
        command = [sys.executable, "-m", "dask", role, *address, "--no-dashboard"]
        command += ["--no-nanny", "--local-directory", str(tmp_path)] if role == "worker" else []
        with log.open("w") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=stream, cwd=tmp_path)
        started.append(process)
        if role == "scheduler":
            while not (found := re.search(r"Scheduler at:\s+(tcp://[\d.:]+)", log.read_text())):
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            start.address = found[1]
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The long sweep without a cluster."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert app.run([*LONG, "--out", str(out), "--jobs", "1"]) == 0
    return out


def text(out: Path) -> str:
    return (out / "sweep.yaml").read_text().partition("\ncells:")[2]


def test_interrupted_resumed_and_bereft_of_a_worker_it_ends_in_the_same_file(cluster, expected, tmp_path):
    cluster("scheduler")
    first = cluster("worker")
    out = tmp_path / "run"
    process = spawn(out, "--scheduler", cluster.address)
    wait_for_cells(out, 2, process)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130 and "--resume" in process.stderr.read()

    process = spawn(out, "--scheduler", cluster.address, "--resume")
    have = (out / "sweep.yaml").read_text().count("- gamma: ")
    assert have < LONG_CELLS - 4
    wait_for_cells(out, have + 2, process)
    first.kill()  # the cells it had go to the one that joins now
    cluster("worker")
    assert process.wait() == 0, process.stderr.read()
    assert text(out) == text(expected)


def test_a_scheduler_that_dies_fails_what_is_missing_and_a_later_resume_computes_it(cluster, expected, tmp_path):
    scheduler = cluster("scheduler")
    cluster("worker")
    out = tmp_path / "run"
    process = spawn(out, "--scheduler", cluster.address)
    wait_for_cells(out, 2, process)
    scheduler.kill()
    assert process.wait() == 1
    words = process.stderr.read()
    assert "the cluster gave it up (its scheduler is gone)" in words and "--resume tries these again" in words
    assert "Traceback" not in words and words.count("\n") == 1
    assert app.run([*LONG, "--out", str(out), "--resume", "--jobs", "1"]) == 0
    assert text(out) == text(expected)


def test_jobs_that_kill_their_workers_and_jobs_that_raise_fail_by_themselves():
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as local,
    ):
        address = local.scheduler_address
        assert list(run_dask(troubled, ["poison"], never, address)) == [
            (0, None, "its workers died one after the other")
        ]
        found = sorted(run_dask(troubled, ["a", "bad"], never, address))
    assert found == [(0, "a", None), (1, None, "ValueError: a bad job")]


def test_a_scheduler_that_is_not_there_is_told_in_one_line(run, monkeypatch):
    monkeypatch.setattr("dlnphase.sweep.executors.CONNECT_SECONDS", 1)
    code, out, err = run(*FLAGS, "--scheduler", "tcp://127.0.0.1:9", "--out", "here")
    assert code == 2 and out == ""
    assert err.startswith("dlnphase: --scheduler: no Dask scheduler answers at tcp://127.0.0.1:9")
    assert err.count("\n") == 1
    assert not Path("here").exists()


def test_without_dask_the_command_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)  # as if it were not installed
    code, _, err = run(*FLAGS, "--scheduler", "tcp://127.0.0.1:9", "--out", "here")
    assert code == 2 and err == "dlnphase: --scheduler: needs dask.distributed, install dlnphase[cluster]\n"


def test_a_worker_of_another_version_says_so():
    plan = prepare(SweepSettings(**SMALL))
    job = Job(plan.settings, plan.task, 100, (1.0,))
    assert run_job(job)[0].gamma == 1.0
    with pytest.raises(RunError, match=r"the sweep runs dlnphase 0\.0\.1 and this worker"):
        run_job(replace(job, version="0.0.1"))


def test_flags_of_a_cluster_are_no_part_of_the_result(run):
    assert "scheduler" not in SweepSettings(scheduler="tcp://x:1").to_plain()
    code, _, err = run(*LONG, "--scheduler", "tcp://x:1", "--jobs", "2")
    assert code == 2 and "expected one of them" in err

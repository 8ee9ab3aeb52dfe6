"""Run many jobs and yield what comes of each: in this process, in others, or on a Dask cluster.

Every way yields the same pairs, only in another order, and none raises for a job that fails. Workers that die are
replaced and their jobs run again; a job that takes its worker down ATTEMPTS times has failed.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_sharer
from types import TracebackType
from typing import Any, Protocol

from dlnphase.errors import InputError, describe
from dlnphase.settings.sweep import SweepSettings

SMALL = 12  # cells up to which other processes are not worth their start
ATTEMPTS = 3  # a worker may be killed for others' memory; a job that takes it down each time is at fault itself
POLL = 0.2  # seconds between two looks at whether to stop
CONNECT_SECONDS = 10  # until a scheduler that does not answer is given up: above what a loaded cluster takes

Hook = Callable[[type[BaseException], BaseException, TracebackType | None], Any]
Outcome = tuple[int, Any, str | None]  # number of the job, its value, or what went wrong


def jobs_of(settings: SweepSettings, cells: int, jobs: int | None = None) -> int:
    """How many processes a sweep of so many cells uses, in so many jobs (None: one a cell)."""
    most = max(1, cells if jobs is None else jobs)
    if settings.jobs is not None:
        return min(settings.jobs, most)
    if cells <= SMALL and not settings.train:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, most)


def warm_up(settings: SweepSettings) -> None:
    """Start what forks the workers, if the sweep is going to have any, while this process has other things to do."""
    if settings.scheduler is None and jobs_of(settings, len(settings.cells)) > 1:
        _ensure_server()


class Function(Protocol):
    """What every job is given to; a function at the top of a module, so that it can be pickled."""

    def __call__(self, job: Any, /) -> Any: ...


def run_here(function: Function, jobs: Sequence[Any], should_stop: Callable[[], bool]) -> Iterator[Outcome]:
    """One after the other in this process."""
    for index, job in enumerate(jobs):
        if should_stop():
            return
        try:
            yield index, function(job), None
        except Exception as error:
            yield index, None, describe(error)


def run_processes(
    function: Function, jobs: Sequence[Any], should_stop: Callable[[], bool], workers: int
) -> Iterator[Outcome]:
    """In worker processes of this machine, none of them a copy of this one; they die with this process.

    Every worker is a pool of its own: when one dies, it is known whose job it was, and no other job is tried again.
    """
    waiting = list(range(len(jobs)))[::-1]
    attempts = [0] * len(jobs)
    _ensure_server()
    idle = [_pool() for _ in range(min(workers, len(jobs)))]
    running: dict[Future[Any], tuple[int, ProcessPoolExecutor]] = {}
    before, sys.excepthook = sys.excepthook, _hook(sys.excepthook)
    try:
        while waiting or running:
            while waiting and idle:
                index, pool = waiting.pop(), idle.pop()
                with _deaf_children():
                    running[pool.submit(function, jobs[index])] = index, pool
            done, _ = wait(running, timeout=POLL, return_when=FIRST_COMPLETED)
            for future in done:
                index, pool = running.pop(future)
                error = future.exception()
                died = isinstance(error, BrokenProcessPool)
                if died:
                    _kill(pool)
                    attempts[index] += 1
                idle.append(_pool() if died else pool)
                if died and attempts[index] < ATTEMPTS:
                    waiting.append(index)
                elif died:
                    yield index, None, f"its process died {ATTEMPTS} times"
                elif error is not None:
                    yield index, None, describe(error)
                else:
                    yield index, future.result(), None
            if should_stop():
                return
    finally:
        for pool in [*idle, *(pool for _, pool in running.values())]:
            _kill(pool)
        sys.excepthook = before


def run_dask(
    function: Function, jobs: Sequence[Any], should_stop: Callable[[], bool], address: str
) -> Iterator[Outcome]:
    """On a Dask cluster: a job is a task, the scheduler moves the tasks of lost workers to others.

    Raises:
        InputError: when dask.distributed is not installed, or no scheduler answers at the address.
    """
    try:
        import distributed
    except ImportError:
        raise InputError("scheduler: needs dask.distributed, install dlnphase[cluster]") from None
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"scheduler: no Dask scheduler answers at {address} ({words})") from None
    token = f"{os.getpid()}-{time.time_ns()}"
    log = logging.getLogger("distributed.client")
    before = log.level
    try:
        log.setLevel(logging.CRITICAL)  # of a cluster that is lost it prints tracebacks; its jobs say so in words
        pending = {
            client.submit(function, job, key=f"dlnphase-{token}-{i}", pure=False, retries=0): i
            for i, job in enumerate(jobs)
        }
        while pending:
            # Cancelled: the scheduler is gone, and every job with it, as each of them says below.
            with contextlib.suppress(TimeoutError, CancelledError), client.as_current():
                distributed.wait(list(pending), timeout=POLL, return_when="FIRST_COMPLETED")
            for future in [f for f in pending if f.done()]:
                yield pending.pop(future), *_collect(future)
            if should_stop():
                client.cancel(list(pending), force=True)
                return
    finally:
        client.close(timeout=5)
        log.setLevel(before)


def _collect(future: Any) -> tuple[Any, str | None]:
    """The value of a Dask future, or what went wrong."""
    try:
        return future.result(), None
    except CancelledError:
        return None, "the cluster gave it up (its scheduler is gone)"
    except Exception as error:
        if type(error).__name__ == "KilledWorker":
            return None, "its workers died one after the other"
        return None, describe(error)


def _pool() -> ProcessPoolExecutor:
    """One worker, started with its first job."""
    context = multiprocessing.get_context("forkserver" if _forks() else "spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=_begin_worker)


def _forks() -> bool:
    """Whether workers are forked by a server, which macOS's libraries do not survive and Windows does not know."""
    return sys.platform == "linux"


def _ensure_server() -> None:
    """The process that forks the workers: it has loaded what they need, once for all, has run nothing and no threads.

    It ends when this process and all workers have ended.
    """
    if _forks():
        from multiprocessing import forkserver, resource_tracker

        multiprocessing.set_forkserver_preload(["dlnphase.sweep.cells"])
        resource_tracker.ensure_running()  # by itself, since it lets signals through again
        with _deaf_children():
            forkserver.ensure_running()


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes started in the body never hear Ctrl-C: it goes to the whole group of a terminal, and is the parent's.

    The parent hears it when the body is over.
    """
    if not hasattr(signal, "pthread_sigmask"):  # pragma: no cover - systems without POSIX signals
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _hook(before: Hook) -> Hook:
    """``sys.excepthook`` that says nothing of a worker that died before it had fetched its pipes.

    The thread of multiprocessing that hands them out goes on, but would print a traceback.
    """

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        handing = trace is not None and trace.tb_frame.f_code.co_filename == resource_sharer.__file__
        if not (handing and isinstance(error, (OSError, EOFError, multiprocessing.AuthenticationError))):
            before(kind, error, trace)

    return hook


def _kill(pool: ProcessPoolExecutor) -> None:
    """End a pool now, busy or not."""
    processes = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(timeout=5)


def _begin_worker() -> None:
    """Leave Ctrl-C to the process that has the results, do not outlive it, and say nothing of its death."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    owner = multiprocessing.parent_process()  # not the server that has forked this one

    def watch() -> None:
        if owner is not None:
            owner.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    say = traceback.print_exc

    def print_exc(*args: Any, **options: Any) -> None:
        """What multiprocessing calls when a worker fails: with the pipes of a dead owner it does, before it ends."""
        if owner is not None:
            owner.join(timeout=1)
        if owner is None or owner.is_alive():
            say(*args, **options)

    traceback.print_exc = print_exc

"""A process with everything imported that forks a ``dlnphase`` for every request: kills by the dozen without start-up.

A request is a line of JSON: ``args`` and ``cwd``; optionally ``signal`` with ``after`` (seconds from the fork, one or
several; to the whole ``group`` if wanted) or with ``at`` (the number of the file operation before which the process
sends it to itself), or ``errno`` with ``at`` (that operation fails, and so do all after it if ``lasting``). The answer
is the exit code, the output, how long it took, and how many file operations there were.
"""

import contextlib
import errno as codes
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

OPERATIONS = ("mkdir", "open", "replace", "rename", "link", "unlink", "rmdir", "fsync", "ftruncate")


class Operations:
    """Counts what a process does to files below a folder, and strikes at one of them."""

    def __init__(self, folder, strike, at, lasting=False):
        self.folder, self.strike, self.at, self.lasting, self.count = folder, strike, at, lasting, 0
        for name in OPERATIONS:
            setattr(os, name, self._counted(getattr(os, name)))
        self._fdopen, os.fdopen = os.fdopen, self._half_writer

    def tick(self):
        self.count += 1
        if self.count == self.at or (self.lasting and self.at is not None and self.count > self.at):
            self.strike()

    def _counted(self, real):
        def call(*args, **kwargs):
            path = args[0] if args else None
            ours = isinstance(path, int) or str(Path(os.fspath(path)).absolute()).startswith(self.folder)
            if ours and (real.__name__ != "open" or args[1] & (os.O_CREAT | os.O_TMPFILE)):
                self.tick()
            return real(*args, **kwargs)

        return call

    def _half_writer(self, descriptor, *args, **kwargs):
        stream = self._fdopen(descriptor, *args, **kwargs)
        write = stream.write

        class Half:
            def __enter__(inner):
                return inner

            def __exit__(inner, *error):
                stream.close()

            def __getattr__(inner, name):
                return getattr(stream, name)

            def write(inner, data):
                write(data[: len(data) // 2])
                stream.flush()
                self.tick()
                return write(data[len(data) // 2 :])

        return Half()


def serve():
    from dlnphase.cli import app

    warm_up(app)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    answer.write("ready\n")
    answer.flush()
    for line in sys.stdin:
        answer.write(json.dumps(one(json.loads(line))) + "\n")
        answer.flush()


def warm_up(app):
    """What a command imports when it needs it is imported once, here."""
    run = ["train", "--task", "factorization", "--shape", "2", "-L", "2", "-w", "8", "-g", "3", "-q"]
    with tempfile.TemporaryDirectory() as folder:
        sweep = ["--gammas", "0.7,1.5", "--widths", "40,60", "--dim", "2", "-L", "2", "--seeds", "2", "--jobs", "1"]
        assert app.run([*run, "--out", f"{folder}/a"]) == 0
        assert app.run(["detect-saddles", f"{folder}/a", "-q", "--out", f"{folder}/b"]) == 0
        assert app.run(["sweep-gamma", *sweep, "-q", "--train", "--out", f"{folder}/c"]) == 0
        assert app.run(["plot", f"{folder}/a", "-q", "--out", f"{folder}/d"]) == 0


def one(request):
    with tempfile.TemporaryDirectory() as folder:
        for name in ("out", "err"):
            Path(folder, name).touch()
        begun = time.monotonic()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        pid = os.fork()
        if pid == 0:
            child(request, folder, blocked)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if request.get("after") is not None:
            moments = request["after"] if isinstance(request["after"], list) else [request["after"]]
            for moment in moments:
                time.sleep(max(begun + moment - time.monotonic(), 0.0))
                with contextlib.suppress(ProcessLookupError):
                    (os.killpg if request.get("group") else os.kill)(pid, request["signal"])
        status = os.waitpid(pid, 0)[1]
        read = {name: Path(folder, name).read_text(errors="replace") for name in ("out", "err")}
        count = Path(folder, "count")
        return read | {
            "code": os.waitstatus_to_exitcode(status),
            "seconds": time.monotonic() - begun,
            "operations": int(count.read_text() or 0) if count.exists() else None,
        }


def child(request, folder, blocked):
    """Run the command as its own process would, from the first line of ``main`` on; never returns."""
    code = 99
    try:
        os.setpgid(0, 0)
        os.chdir(request["cwd"])
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        from dlnphase.cli import app
        from dlnphase.cli.interrupts import leave_at_once

        def strike():
            if "errno" in request:
                raise OSError(request["errno"], os.strerror(request["errno"]))
            os.kill(os.getpid(), request["signal"])

        operations = Operations(request["cwd"], strike, request.get("at"), request.get("lasting", False))
        leave_at_once()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        sys.argv = ["dlnphase", *request["args"]]
        try:
            app.main()
        except SystemExit as done:
            code = done.code
            Path(folder, "count").write_text(str(operations.count))
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


class Zygote:
    """The other end: starts the process, asks it, ends it."""

    def __init__(self, **environment):
        import subprocess

        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | environment,
        )
        assert self._process.stdout.readline() == "ready\n"

    def __call__(self, *args, cwd, **kill):
        """Run ``dlnphase args`` in ``cwd``; see the top of this file for the keywords and the answer."""
        self._process.stdin.write(json.dumps({"args": [str(a) for a in args], "cwd": str(cwd)} | kill) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


NO_SPACE = codes.ENOSPC

if __name__ == "__main__":
    serve()

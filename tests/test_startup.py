"""What a command may load: nobody waits for what it does not need, a library or a room of this package."""

import json
import os
import subprocess
import sys

import pytest

PROBE = """
import json, sys
from dlnphase.cli import app
code = app.run(sys.argv[1:])
json.dump([code, sorted(sys.modules)], sys.stderr)
"""
SWEEP = [
    "sweep-gamma",
    "--gammas",
    "0.7,1.5",
    "--widths",
    "100,1e4",
    "--dim",
    "2",
    "-L",
    "2",
    "--seeds",
    "2",
    "--jobs",
    "1",
]
TRAIN = ["train", "--task", "factorization", "--dim", "4", "--rank", "2", "-L", "2", "--out", "run"]
SMALL_SCIPY = {"_lib", "linalg"}  # linalg is needed; signal, stats, integrate, optimize, sparse cost up to a second
BELOW = {"backend", "costs", "critical", "dynamics", "errors", "findings", "networks", "observables"}
BELOW |= {"results", "settings"}
LEARNING = BELOW | {"setup", "cli"}
# command → packages besides numpy, PyYAML and what prints; packages of scipy; rooms of dlnphase
MAY_LOAD = {
    "train": ({"torch", "scipy"}, SMALL_SCIPY, LEARNING | {"training"}),
    "detect-saddles": ({"torch", "scipy"}, SMALL_SCIPY, LEARNING | {"training", "detect"}),
    "sweep-gamma": ({"torch", "scipy"}, SMALL_SCIPY | {"special"}, LEARNING | {"training", "sweep", "distances"}),
}
HEAVY = {"torch", "scipy", "matplotlib", "plotext", "pandas", "sklearn", "distributed", "mpmath", "flint", "IPython"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A directory with a run in it, and what was loaded to make it."""
    path = tmp_path_factory.mktemp("startup")
    return path, loaded(path, *TRAIN)


def loaded(cwd, *arguments):
    """The names of the modules that are loaded when a command has ended."""
    command = [sys.executable, "-c", PROBE, *arguments, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd)
    code, names = json.loads(done.stderr)
    assert code == 0, done.stderr
    return set(names)


def second_level(names, package):
    """The packages right below a package."""
    return {name.split(".")[1] for name in names if name.startswith(f"{package}.")}


@pytest.mark.parametrize("command", MAY_LOAD)
def test_a_command_loads_what_it_needs_and_no_more(folder, command):
    path, names = folder
    if command != "train":
        names = loaded(path, *([*SWEEP, "--out", "swept"] if command == "sweep-gamma" else [command, "run"]))
    packages, of_scipy, rooms = MAY_LOAD[command]
    assert HEAVY & {name.split(".")[0] for name in names} <= packages
    assert {name for name in second_level(names, "scipy") if is_package(names, f"scipy.{name}")} <= of_scipy
    assert second_level(names, "dlnphase") <= rooms


def is_package(names, name):
    """Whether anything below a module is loaded as well."""
    return any(other.startswith(f"{name}.") for other in names)


@pytest.mark.parametrize(("given", "stands"), [(None, "passive"), ("active", "active")])
def test_threads_that_wait_for_others_leave_the_core_unless_told(given, stands):
    """Where another process has a core, two threads that spin take a hundred times as long as one."""
    code = "import dlnphase.cli.app, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == [stands, "False"], "torch reads it when it is loaded"

"""What every test stands on: one thread, fixed hypothesis examples, and the grid of devices and dtypes.

torch's default dtype stays as it is (float32): a float64 result that passes through a default-made tensor
loses half its digits, and the tests see it.
"""

import pytest
import torch
from hypothesis import settings
from zygote import Zygote

from dlnphase.backend import Backend, resolve_backend
from dlnphase.cli import app, progress

torch.set_num_threads(1)
settings.register_profile("dlnphase", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("dlnphase")

DEVICES = ["cpu", *([pytest.param("cuda", marks=pytest.mark.cuda)] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    """cpu, and cuda where there is one."""
    return request.param


@pytest.fixture
def backend(device) -> Backend:
    """float64 on each device."""
    return resolve_backend(device, "float64")


@pytest.fixture(params=["float64", "float32"])
def any_backend(request, device) -> Backend:
    """Each dtype on each device."""
    return resolve_backend(device, request.param)


@pytest.fixture
def run(capfd, monkeypatch, tmp_path):
    """Run a command line in an empty directory; returns exit code, stdout, stderr, where no line comes by the clock."""
    monkeypatch.setattr(progress, "PLAIN_FIRST", float("inf"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)

    def call(*arguments):
        code = app.run([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="session")
def zygote():
    """One process that forks commands, for all tests that strike them: to load everything takes seconds."""
    process = Zygote(PYTHONHASHSEED="1")
    yield process
    process.close()


@pytest.fixture(scope="session")
def references(zygote, tmp_path_factory):
    """Of every command of test_faults: its undisturbed result, its time and its file operations, with seed 0 and 1."""
    from test_faults import COMMANDS, numbers, seeded

    folder = tmp_path_factory.mktemp("whole")
    zygote(*COMMANDS["train"].args, "--out", "source", cwd=folder)
    found = {"source": folder / "source"}
    for name, command in COMMANDS.items():
        for seed in (0, 1):
            done = zygote(*command.args, *seeded(name, seed), "--out", f"{name}{seed}", cwd=folder)
            assert done["code"] == 0, done["err"]
            found[name, seed] = numbers(folder / f"{name}{seed}", command), done
        assert found[name, 0][0] != found[name, 1][0]
    return found

"""What every test stands on: one thread, fixed hypothesis examples, and the grid of devices and dtypes.

torch's default dtype stays as it is (float32): a float64 result that passes through a default-made tensor
loses half its digits, and the tests see it.
"""

import pytest
import torch
from hypothesis import settings

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

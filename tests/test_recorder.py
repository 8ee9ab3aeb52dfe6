"""The recorder of other people's training: what it keeps, when it writes, what it refuses, what a kill leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import dlnphase
from dlnphase.detect.recorder import linear_layers
from dlnphase.errors import InputError
from dlnphase.results.files import read_npz


def _model(sizes=(5, 8, 8, 6), scale=0.3):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(n, m, bias=False, dtype=torch.float64) for n, m in pairwise(sizes)]
    model = torch.nn.Sequential(*layers)
    for layer in layers:
        torch.nn.init.normal_(layer.weight, std=scale)
    return model


def _train(model, target, recorder, optimizer, steps):
    x = torch.eye(target.shape[1], dtype=torch.float64)
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * ((model(x) - target.T) ** 2).sum()).backward()
        optimizer.step()
        recorder.step()


def test_records_are_log_spaced_and_hold_the_weights_of_their_step(tmp_path):
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    kept = {0: [w.detach().clone() for w in model.parameters()]}
    target = torch.ones(6, 5, dtype=torch.float64)
    with dlnphase.Recorder(model, tmp_path / "p.npz", optimizer=optimizer, per_decade=10) as recorder:
        for step in range(1, 501):
            _train(model, target, recorder, optimizer, 1)
            kept[step] = [w.detach().clone() for w in model.parameters()]
    with np.load(tmp_path / "p.npz") as arrays:
        steps = arrays["step"]
        assert list(steps[:5]) == [0, 1, 2, 3, 4] and steps[-1] == 500
        assert 20 <= len(steps) <= 32  # 10 to a factor of ten, and each of the first few
        assert np.allclose(arrays["t"], steps * 0.01)
        for row, step in enumerate(steps):
            for k, w in enumerate(kept[int(step)]):
                assert np.array_equal(arrays[f"W{k + 1}"][row], w.numpy())


def test_a_schedule_of_the_learning_rate_is_followed(tmp_path):
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = dlnphase.Recorder(model, tmp_path / "p.npz", optimizer=optimizer, per_decade=0)
    for rate in (0.1, 0.1, 0.01):
        optimizer.param_groups[0]["lr"] = rate
        recorder.step()
    recorder.close()
    assert np.allclose(np.load(tmp_path / "p.npz")["t"], [0, 0.1, 0.2, 0.21])


def test_the_product_alone(tmp_path):
    model = _model().to(torch.bfloat16)
    with dlnphase.Recorder(model, tmp_path / "p.npz", lr=0.1, product=True) as recorder:
        recorder.step()
    arrays = np.load(tmp_path / "p.npz")
    assert set(arrays) == {"t", "step", "A"} and arrays["A"].shape == (2, 6, 5) and arrays["A"].dtype == np.float32


def test_a_recording_goes_on_where_it_ended_and_is_never_overwritten(tmp_path):
    model, path = _model(), tmp_path / "p.npz"
    with dlnphase.Recorder(model, path, lr=0.1) as first:
        for _ in range(30):
            first.step()
    before = path.read_bytes()
    with pytest.raises(InputError, match="there already"):
        dlnphase.Recorder(model, path, lr=0.1)
    assert path.read_bytes() == before
    with dlnphase.Recorder(model, path, lr=0.1, append=True) as second:
        assert second.steps == 30
        for _ in range(30):
            second.step()
    steps = np.load(path)["step"]
    assert steps[-1] == 60 and (np.diff(steps) > 0).all()
    with pytest.raises(InputError, match="expected"):
        dlnphase.Recorder(_model((5, 7, 6)), path, lr=0.1, append=True)


REFUSED = [
    (torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2, bias=False)), "0 has a bias"),
    (torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False), torch.nn.ReLU()), "1 is a ReLU"),
    (torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False), torch.nn.Linear(5, 2, bias=False)), "in no order"),
    (torch.nn.Linear(3, 4, bias=False), "at least 2"),
    (torch.nn.Module(), "is a Module"),
    ("model", "found a str"),
]


@pytest.mark.parametrize(("model", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_other_networks_are_refused_by_name(tmp_path, model, words):
    with pytest.raises(InputError, match=words):
        dlnphase.Recorder(model, tmp_path / "p.npz", lr=0.1)


def test_tied_layers_and_rates_that_make_no_time_are_refused(tmp_path):
    a, t, b = (torch.nn.Linear(n, m, bias=False) for n, m in ((3, 4), (4, 4), (4, 2)))
    tied = torch.nn.Linear(4, 4, bias=False)
    tied.weight = t.weight
    for layers in ((a, t, t, b), (a, t, tied, b)):
        with pytest.raises(InputError, match="share one weight"):
            dlnphase.Recorder(torch.nn.Sequential(*layers), tmp_path / "p.npz", lr=0.1)
    for more in ({"lr": 0.0}, {"lr": -1.0}, {"lr": float("nan")}, {"lr": 0.1, "per_decade": -1}):
        with pytest.raises(InputError, match=r"lr: found|per_decade: found"):
            dlnphase.Recorder(torch.nn.Sequential(a, t, b), tmp_path / "p.npz", **more)
    assert not (tmp_path / "p.npz").exists()


def test_what_changes_nothing_may_stand_between_layers():
    parts = torch.nn.Linear(3, 4, bias=False), torch.nn.Identity(), torch.nn.Linear(4, 2, bias=False)
    assert [w.shape for w in linear_layers(torch.nn.Sequential(*parts))] == [(4, 3), (2, 4)]


def test_layers_of_a_module_list_are_the_models_own():
    layers = torch.nn.ModuleList([torch.nn.Linear(3, 4, bias=False), torch.nn.Linear(4, 2, bias=False)])
    found = linear_layers(layers)
    assert found[0] is layers[0].weight and found[1] is layers[1].weight


def test_a_callback_records_what_a_trainer_does(tmp_path):
    """The hooks in the order that Lightning calls them, two batches to an optimizer step."""
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    trainer = SimpleNamespace(optimizers=[optimizer], global_step=0)
    callback = dlnphase.lightning_callback(tmp_path / "p.npz", per_decade=0)
    callback.on_train_start(trainer, model)
    for batch in range(6):
        trainer.global_step += batch % 2
        callback.on_train_batch_end(trainer, model, None, None, batch)
    callback.on_train_end(trainer, model)
    assert list(np.load(tmp_path / "p.npz")["step"]) == [0, 1, 2, 3]


KILLED = """
import sys, torch, dlnphase
model = torch.nn.Sequential(torch.nn.Linear(20, 40, bias=False), torch.nn.Linear(40, 20, bias=False))
recorder = dlnphase.Recorder(model, sys.argv[1], lr=0.1, per_decade=0, save_every=0.0)
print("started", flush=True)
while True:
    recorder.step()
"""


def test_whatever_kills_it_leaves_a_whole_file(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(3):
        path = tmp_path / f"p{k}.npz"
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(float(rng.uniform(0.0, 0.2)))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        arrays = read_npz(path)
        assert len(arrays["t"]) == len(arrays["W1"]) == len(arrays["W2"]) >= 1

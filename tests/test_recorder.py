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
from dlnphase.detect.linear import linear_layers
from dlnphase.errors import InputError
from dlnphase.results.files import read_npz, write_rows


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


# ---- the optimizer, and the file ---------------------------------------------------------------------------


def _optimizers(model):
    first, *rest = model.parameters()
    groups = [{"params": [first], "lr": 0.1}, {"params": rest, "lr": 0.01}]
    return {
        "": torch.optim.SGD(model.parameters(), lr=0.1),
        "momentum 0.9": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        "weight decay 0.01": torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01),
        "steps of Adam": torch.optim.Adam(model.parameters(), lr=0.1),
        "groups of parameters with learning rates 0.01, 0.1": torch.optim.SGD(groups, lr=0.1),
        "W1 not among what the optimizer trains": torch.optim.SGD(rest, lr=0.1),
    }


def test_what_makes_a_path_another_than_the_flows_is_kept_and_told(tmp_path):
    np.save(tmp_path / "target.npy", np.ones((6, 5)))
    for k, words in enumerate(_optimizers(_model())):
        model, path = _model(), tmp_path / f"p{k}.npz"
        optimizer = _optimizers(model)[words]
        with dlnphase.Recorder(model, path, optimizer=optimizer) as recorder:
            _train(model, torch.ones(6, 5, dtype=torch.float64), recorder, optimizer, 3)
        found = dlnphase.load(path)
        assert found.optimizer == type(optimizer).__name__ and found.not_flow == words
        settings = dlnphase.DetectSettings(source=str(path), target=str(tmp_path / "target.npy"), between=False)
        told = [note for note in dlnphase.detect_saddles(settings).notes if "learning rate" in note and words in note]
        assert len([note for note in told if "not that of gradient flow" in note]) == bool(words)


def test_momentum_that_comes_later_is_kept_too(tmp_path):
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with dlnphase.Recorder(model, tmp_path / "p.npz", optimizer=optimizer) as recorder:
        optimizer.param_groups[0]["momentum"] = 0.5
        recorder.step()
    assert dlnphase.load(tmp_path / "p.npz").not_flow == "momentum 0.5"


def test_steps_that_take_no_time_are_no_records(tmp_path):
    """A warm-up from a rate of 0: times in the file increase."""
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with dlnphase.Recorder(model, tmp_path / "p.npz", optimizer=optimizer, per_decade=0) as recorder:
        for rate in (0.0, 0.0, 0.1, 0.0):
            optimizer.param_groups[0]["lr"] = rate
            recorder.step()
    assert list(dlnphase.load(tmp_path / "p.npz").step) == [0, 3]
    with pytest.raises(InputError, match="learning rate is nan"):
        optimizer.param_groups[0]["lr"] = float("nan")
        dlnphase.Recorder(model, tmp_path / "q.npz", optimizer=optimizer).step()


def test_a_step_after_the_end_is_an_error(tmp_path):
    recorder = dlnphase.Recorder(_model(), tmp_path / "p.npz", lr=0.1)
    recorder.close()
    with pytest.raises(InputError, match=r"step\(\) after close\(\)"):
        recorder.step()
    recorder.close()
    assert os.listdir(tmp_path) == ["p.npz"]


ENDED = """
import sys, torch, dlnphase
model = torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False), torch.nn.Linear(4, 2, bias=False))
recorder = dlnphase.Recorder(model, sys.argv[1], lr=0.1, per_decade=0)
for _ in range(7):
    recorder.step()
if sys.argv[2] == "raise":
    raise KeyError("training failed")
"""


@pytest.mark.parametrize("how", ["return", "raise"])
def test_the_end_of_the_program_writes_what_was_recorded(tmp_path, how):
    subprocess.run([sys.executable, "-c", ENDED, str(tmp_path / "p.npz"), how], capture_output=True)
    assert list(dlnphase.load(tmp_path / "p.npz").step) == list(range(8))
    assert os.listdir(tmp_path) == ["p.npz"]


def test_a_recorder_that_is_dropped_writes_what_was_recorded(tmp_path):
    recorder = dlnphase.Recorder(_model(), tmp_path / "p.npz", lr=0.1, per_decade=0)
    recorder.step()
    del recorder
    assert list(dlnphase.load(tmp_path / "p.npz").step) == [0, 1]
    dlnphase.Recorder(_model(), tmp_path / "q.npz", lr=0.1).close()


def _recorded(path, model, count, **more):
    """So many steps that each add one to every weight; the weights after each step."""
    with dlnphase.Recorder(model, path, lr=0.1, per_decade=0, **more) as recorder:
        for _ in range(count):
            with torch.no_grad():
                for w in model.parameters():
                    w += 1
            recorder.step()


@pytest.mark.parametrize("product", [False, True])
def test_resuming_from_an_earlier_checkpoint_drops_what_came_after(tmp_path, product):
    path, model = tmp_path / "p.npz", _model()
    start = {name: w.clone() for name, w in model.state_dict().items()}
    _recorded(path, model, 6, product=product)
    model.load_state_dict({name: w + 4 for name, w in start.items()})
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"not those of the last record, step 6; expected at=STEP"):
        _recorded(path, model, 1, product=product, append=True)
    with pytest.raises(InputError, match="not those of its record, step 3"):
        _recorded(path, model, 1, product=product, append=True, at=3)
    assert path.read_bytes() == before
    _recorded(path, model, 1, product=product, append=True, at=4)
    found = dlnphase.load(path)
    assert list(found.step) == [0, 1, 2, 3, 4, 5] and found.t == pytest.approx(found.step * 0.1)
    _recorded(path, model, 1, product=product, append=True)
    assert dlnphase.load(path).step[-1] == 6


def test_resuming_between_and_after_the_records(tmp_path):
    """A checkpoint of a step that was not recorded, and one of a step after all that a kill left."""
    path, model = tmp_path / "p.npz", _model()
    with dlnphase.Recorder(model, path, lr=0.1, per_decade=2) as recorder:
        for _ in range(40):
            recorder.step()
    kept = list(dlnphase.load(path).step)
    assert 20 not in kept
    with torch.no_grad():
        for w in model.parameters():
            w += 1
    _recorded(path, model, 1, append=True, at=20)
    found = dlnphase.load(path)
    assert list(found.step) == [*(k for k in kept if k < 20), 20, 21]
    assert found.t == pytest.approx(found.step * 0.1)
    _recorded(path, model, 1, append=True, at=30)
    assert list(dlnphase.load(path).step[-2:]) == [30, 31]
    with pytest.raises(InputError, match="at: found 3"):
        dlnphase.Recorder(model, path, lr=0.1, at=3)


@pytest.mark.parametrize("name", ["x" * 300 + ".npz", "no\0name.npz", "path", "p.npz/q.npz"])
def test_a_name_that_no_file_can_have_is_one_line(tmp_path, name):
    (tmp_path / "p.npz").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        dlnphase.Recorder(_model(), tmp_path / name, lr=0.1)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_what_a_kill_left_half_written_goes_with_the_next_recorder_of_the_file(tmp_path):
    for name in (".dlnphase-p.npz.abc123.part", ".dlnphase-p.npz.npz.abc123.part", ".dlnphase-q.npz.abc123.part"):
        (tmp_path / name).write_bytes(b"half")
    with dlnphase.Recorder(_model(), tmp_path / "p.npz", lr=0.1) as recorder:
        with pytest.raises(InputError, match="being written by another recorder"):
            dlnphase.Recorder(_model(), tmp_path / "p.npz", lr=0.1, append=True)
        recorder.step()
    left = {".dlnphase-p.npz.npz.abc123.part", ".dlnphase-q.npz.abc123.part", "p.npz"}
    assert set(os.listdir(tmp_path)) == left


def test_a_recording_opens_as_a_result(tmp_path):
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with dlnphase.Recorder(model, tmp_path / "p.npz", optimizer=optimizer) as recorder:
        _train(model, torch.ones(6, 5, dtype=torch.float64), recorder, optimizer, 20)
    found = dlnphase.load(tmp_path / "p.npz")
    assert [w.shape[1:] for w in found.layers] == [(8, 5), (8, 8), (6, 8)]
    last = model(torch.eye(5, dtype=torch.float64)).T.detach().numpy()
    assert found.A[-1] == pytest.approx(last, rel=1e-12) and found.t[-1] == pytest.approx(1.0)
    assert repr(found) == f"<Recording: 20 steps of SGD in {len(found.t)} records, 6×5, L = 3>"
    table = found.to_dataframe()
    assert list(table.columns) == ["t", "step", "s1", "s2", "s3", "s4", "s5"] and len(table) == len(found.t)
    assert table["s1"].iloc[-1] == pytest.approx(np.linalg.norm(last, 2))
    np.savez(tmp_path / "a.npz", t=found.t, A=found.A)
    assert dlnphase.load(tmp_path / "a.npz").layers is None
    for arrays in (
        {"t": found.t},
        {"t": found.t, "A": found.A[1:]},
        {"t": found.t, "W1": found.layers[1], "W2": found.A},
    ):
        np.savez(tmp_path / "bad.npz", **arrays)
        with pytest.raises(InputError, match="expected"):
            dlnphase.load(tmp_path / "bad.npz")


def test_a_fit_that_resumes_goes_on_with_its_file(tmp_path):
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for first, last in ((0, 6), (4, 8)):
        trainer = SimpleNamespace(optimizers=[optimizer], global_step=first)
        callback = dlnphase.lightning_callback(tmp_path / "p.npz", per_decade=0, append=True)
        with torch.no_grad():
            for w in model.parameters():
                w.fill_(float(first))
        callback.on_train_start(trainer, model)
        for step in range(first + 1, last + 1):
            with torch.no_grad():
                for w in model.parameters():
                    w.fill_(float(step))
            trainer.global_step = step
            callback.on_train_batch_end(trainer, model, None, None, step)
        callback.on_train_end(trainer, model)
    found = dlnphase.load(tmp_path / "p.npz")
    assert list(found.step) == list(range(9)) and list(found.layers[0][:, 0, 0]) == list(range(9))
    other = dlnphase.lightning_callback(tmp_path / "q.npz")
    other.on_train_start(SimpleNamespace(is_global_zero=False, optimizers=[optimizer], global_step=0), model)
    other.on_train_batch_end(SimpleNamespace(global_step=1), model, None, None, 0)
    assert not (tmp_path / "q.npz").exists()
    with pytest.raises(InputError, match="2 optimizers"):
        other.on_train_start(SimpleNamespace(optimizers=[optimizer] * 2, global_step=0), model)


def test_a_file_written_row_by_row_is_the_one_numpy_writes(tmp_path):
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((3, 4)).T for _ in range(5)]  # not contiguous
    mixed = [np.ones((2, 2), np.float32), np.full((2, 2), 0.1)]
    with (tmp_path / "p.npz").open("wb") as stream:
        write_rows(stream, {"t": np.arange(5.0), "W1": rows, "W2": mixed, "optimizer": np.array("SGD")})
    found = read_npz(tmp_path / "p.npz", words={"optimizer"})
    assert np.array_equal(found["W1"], np.stack(rows)) and np.array_equal(found["t"], np.arange(5.0))
    assert found["W2"].dtype == np.float64 and np.array_equal(found["W2"], np.stack(mixed))
    assert str(found["optimizer"]) == "SGD" and "optimizer" not in read_npz(tmp_path / "p.npz")


def test_one_that_is_closed_writes_no_more_over_what_another_one_wrote(tmp_path):
    model, path = _model(), tmp_path / "p.npz"
    first = dlnphase.Recorder(model, path, lr=0.1)
    first.close()
    second = dlnphase.Recorder(model, path, lr=0.1, append=True)
    for _ in range(3):
        second.step()
    second.save()
    with pytest.raises(InputError, match=r"save\(\) after close\(\)"):
        first.save()
    assert dlnphase.load(path).step.tolist() == [0, 1, 2, 3]
    second.close()


def test_numbers_of_numpy_and_torch_are_numbers(tmp_path):
    model, path = _model(), tmp_path / "p.npz"
    with dlnphase.Recorder(model, path, lr=np.float32(0.5), per_decade=np.int64(0)) as recorder:
        recorder.step()
        recorder.step()
    step = dlnphase.load(path).step[1]
    with dlnphase.Recorder(model, path, lr=torch.tensor(0.5), append=True, at=step) as recorder:
        assert (recorder.steps, recorder.time) == (1, 0.5)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"save_every": "a"}, "save_every: found a"),
        ({"save_every": float("nan")}, "save_every: found nan"),
        ({"save_every": -1}, "save_every: found -1"),
        ({"lr": "0.1"}, "lr: found 0.1"),
        ({"lr": None, "optimizer": "SGD"}, "optimizer: found a str"),
        ({"per_decade": 2.5}, "per_decade: found 2.5"),
        ({"max_bytes": 0}, "max_bytes: found 0"),
    ],
)
def test_settings_that_are_none_are_named(tmp_path, more, words):
    with pytest.raises(InputError, match=words):
        dlnphase.Recorder(_model(), tmp_path / "p.npz", **{"lr": 0.1, **more})
    assert not list(tmp_path.iterdir())


def test_a_path_in_the_home_folder_is_found_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    dlnphase.Recorder(_model(), "~/x.npz", lr=0.1).close()
    assert (tmp_path / "x.npz").is_file() and not (tmp_path / "~").exists()
    with pytest.raises(InputError, match="Recorder: path: ~nobody-of-that-name"):
        dlnphase.Recorder(_model(), "~nobody-of-that-name/x.npz", lr=0.1)


def test_a_path_that_is_none_is_one_line():
    with pytest.raises(InputError, match="path: found a NoneType"):
        dlnphase.Recorder(_model(), None, lr=0.1)


@pytest.mark.parametrize("per_decade", [0, 30])
@pytest.mark.parametrize("product", [False, True])
def test_records_never_take_more_than_they_may(tmp_path, per_decade, product):
    model = _model()
    one = 6 * 5 * 8 if product else (5 * 8 + 8 * 8 + 8 * 6) * 8
    path, most = tmp_path / "path.npz", 20 * one
    with (
        pytest.warns(UserWarning, match="every second one is dropped") as told,
        dlnphase.Recorder(model, path, lr=0.1, per_decade=per_decade, product=product, max_bytes=most) as recorder,
    ):
        for _ in range(3000):
            model[0].weight.data += 1.0
            recorder.step()
            assert len(recorder._log.rows) * one <= most
    assert len(told) == 1 and ("product=True" in str(told[0].message)) is not product
    found = read_npz(path)
    step = found["step"].astype(int)
    assert step[0] == 0 and step[-1] == 3000 and 8 <= len(step) <= 21  # one more at the end
    spaced = np.diff(step[1:-2]) if per_decade == 0 else np.diff(np.log(step[step > 100][:-2]))
    assert spaced.max() <= 2.1 * spaced.min()  # halved as a whole, not in one place
    if not product:
        steps_of_weights = np.rint(found["W1"][:, 0, 0] - found["W1"][0, 0, 0]).astype(int)
        assert np.array_equal(steps_of_weights, step)
    # Going on counts what is there already.
    dlnphase.Recorder(model, path, lr=0.1, product=product, append=True, max_bytes=10 * one).close()
    assert len(read_npz(path)["step"]) <= 10


def test_records_that_are_larger_than_they_may_be_are_the_first_and_the_last(tmp_path):
    model = _model()
    with pytest.warns(UserWarning), dlnphase.Recorder(model, tmp_path / "path.npz", lr=0.1, max_bytes=1) as recorder:
        for _ in range(100):
            recorder.step()
    step = read_npz(tmp_path / "path.npz")["step"].tolist()
    assert step[0] == 0 and step[-1] == 100 and len(step) <= 3

"""Somebody else's checkpoints: the same visits as from dense records, and nothing in a file is ever run."""

from __future__ import annotations

import dataclasses
import os
import pickle
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import dlnphase
from dlnphase.backend import resolve_backend
from dlnphase.cli.app import run
from dlnphase.detect.checkpoints import checkpoint_files, read_checkpoints
from dlnphase.detect.sentences import detect_sentence
from dlnphase.detect.sparse import least_between
from dlnphase.detect.speed import typical_speed
from dlnphase.errors import InputError
from dlnphase.networks.sampling import gaussian_network
from dlnphase.setup.inputs import read_weights
from dlnphase.setup.states import read_state

LR = 0.02


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A plain torch run: dense records, and checkpoints every 40 steps in several formats."""
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(1)
    left, right = (np.linalg.qr(rng.standard_normal((n, 2)))[0] for n in (5, 4))
    target = left @ np.diag([4.0, 1.8]) @ right.T
    np.save(folder / "target.npy", target)
    sizes = ((4, 8), (8, 8), (8, 5))
    model = torch.nn.Sequential(*(torch.nn.Linear(n, m, bias=False, dtype=torch.float64) for n, m in sizes))
    for layer in model:
        layer.weight.data = torch.as_tensor(0.03 * rng.standard_normal(layer.weight.shape))
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    goal, kept, times = torch.as_tensor(target).T, [], []
    for name in ("plain", "lightning", "safe"):
        (folder / name).mkdir()
    for step in range(1601):
        if step % 8 == 0:
            times.append(step * LR)
            kept.append([layer.weight.detach().numpy().copy() for layer in model])
        if step % 40 == 0:
            state = model.state_dict()
            torch.save({f"module._orig_mod.{k}": v for k, v in state.items()}, folder / "plain" / f"step-{step}.pt")
            whole = {"epoch": 1, "global_step": step, "state_dict": {f"model.{k}": v for k, v in state.items()}}
            torch.save(whole, folder / "lightning" / f"epoch=1-v{step % 7}-{step:06d}.ckpt")
            save_file(dict(state), folder / "safe" / f"weights_{step // 40}.safetensors")
        optimizer.zero_grad()
        (0.5 * ((model(torch.eye(4, dtype=torch.float64)) - goal) ** 2).sum()).backward()
        optimizer.step()
    layers = {f"W{k + 1}": np.stack([weights[k] for weights in kept]) for k in range(3)}
    np.savez(folder / "dense.npz", t=np.array(times), **layers)
    return folder


def _visits(folder, source, **more):
    settings = dlnphase.DetectSettings(source=source, target=str(folder / "target.npy"), **more)
    return dlnphase.detect_saddles(settings)


def test_checkpoints_of_every_format_tell_what_dense_records_tell(trained):
    dense = _visits(trained, str(trained / "dense.npz"))
    assert [v.rank for v in dense.visits] == [0, 1, 2]
    plain = sorted(str(p) for p in (trained / "plain").iterdir())
    for source, more in (
        (str(trained / "plain"), {"lr": LR}),
        (str(trained / "plain" / "*.pt"), {"lr": LR, "depth": 3, "width": 8}),
        (tuple(plain), {"lr": LR}),
        (str(trained / "lightning"), {"lr": LR}),
        (str(trained / "safe"), {"lr": LR, "every": 40}),
    ):
        found = _visits(trained, source, **more)
        assert [(v.rank, v.kind) for v in found.visits] == [(v.rank, v.kind) for v in dense.visits]
        assert found.path.records == 41 and found.path.spacing == pytest.approx((0.8, 0.8))
        for one, other in zip(found.transitions[0], dense.transitions[0], strict=True):
            assert one.time == pytest.approx(other.time, abs=0.4)
        for one, other in zip(found.visits, dense.visits, strict=True):
            assert one.critical_point.cost == pytest.approx(other.critical_point.cost, abs=1e-9)


def test_the_command_reads_checkpoints(trained, tmp_path, capsys):
    arguments = ["detect-saddles", str(trained / "plain"), "--lr", str(LR), "--target", str(trained / "target.npy")]
    assert run([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert "a visit shorter than that cannot be seen" in " ".join(capsys.readouterr().err.split())
    again = dlnphase.load(tmp_path / "out")
    assert [v.rank for v in again.visits] == [0, 1, 2] and again.config.lr == LR


def test_the_last_checkpoint_may_be_there_twice(trained, tmp_path):
    """Trainers keep ``last.ckpt`` beside the one of the same step."""
    for path in (trained / "lightning").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "last.ckpt").write_bytes(next((trained / "lightning").glob("*-001600.ckpt")).read_bytes())
    assert _visits(trained, str(tmp_path), lr=LR).path.records == 41


def test_times_may_come_from_a_file(trained, tmp_path):
    (tmp_path / "times.txt").write_text("\n".join(str(k * 0.8) for k in range(41)))
    one = _visits(trained, str(trained / "plain"), times=str(tmp_path / "times.txt"))
    two = _visits(trained, str(trained / "plain"), lr=LR)
    assert [v.time.closest for v in one.visits] == pytest.approx([v.time.closest for v in two.visits])


@pytest.mark.parametrize("bad", [0.8, 0.7, float("nan")], ids=["repeated", "decreasing", "no number"])
def test_times_that_do_not_increase_are_refused_by_their_place(trained, tmp_path, bad):
    times = np.arange(41) * 0.8
    times[2] = bad
    place = "not finite" if np.isnan(bad) else f"time number 3 is {bad} after 0.8"
    (tmp_path / "times.txt").write_text("\n".join(map(str, times)))
    with pytest.raises(InputError, match=rf"times: .*times.txt: .*{place}"):
        _visits(trained, str(trained / "plain"), times=str(tmp_path / "times.txt"))
    with np.load(trained / "dense.npz") as arrays:
        layers = {name: arrays[name][:41] for name in ("W1", "W2", "W3")}
    np.savez(tmp_path / "p.npz", t=times, **layers)
    with pytest.raises(InputError, match=rf"SOURCE: .*p.npz: t: .*{place}"):
        _visits(trained, str(tmp_path / "p.npz"))
    np.savez(tmp_path / "a.npz", t=times, A=layers["W3"] @ layers["W2"] @ layers["W1"])
    with pytest.raises(InputError, match=place):
        _visits(trained, str(tmp_path / "a.npz"), depth=3)


def test_a_loss_of_other_units_is_told_and_taken_in(trained):
    """The same weights with times three times too short: as if the loss were three times ours."""
    wrong = _visits(trained, str(trained / "dense.npz"), loss_scale=1 / 3)
    assert wrong.path.speed == pytest.approx(3.0, rel=0.02)
    [told] = [float(m[1]) for note in wrong.notes if (m := re.search(r"--loss-scale (\S+)\)", note))]
    assert told == pytest.approx(1.0, rel=0.02)
    right = _visits(trained, str(trained / "dense.npz"))
    assert right.path.speed == pytest.approx(1.0, rel=0.02) and not any("loss-scale" in note for note in right.notes)


def test_init_weights_come_from_the_same_files(trained):
    for name in ("plain/step-40.pt", "safe/weights_1.safetensors"):
        layers = read_weights(trained / name)
        assert [w.shape for w in layers] == [(1, 8, 4), (1, 8, 8), (1, 5, 8)]
    more = {"init_weights": str(trained / "plain" / "step-40.pt"), "target": str(trained / "target.npy")}
    run = dlnphase.train(dlnphase.TrainSettings(**more, depth=3, width=8, max_time=1.0))
    assert run.network.depth == 3
    with pytest.raises(InputError, match=r"depth: found 4, but .* has 3 layers"):
        dlnphase.train(dlnphase.TrainSettings(**more, depth=4))


# ---- what is refused ---------------------------------------------------------------------------------------


class _Hostile:
    def __reduce__(self):
        return os.system, (f"touch {_Hostile.canary}",)


def test_a_hostile_pickle_is_refused_and_never_run(tmp_path):
    _Hostile.canary = tmp_path / "canary"
    with (tmp_path / "step-1.pt").open("wb") as stream:
        pickle.dump({"0.weight": _Hostile()}, stream)
    torch.save({"state_dict": {"0.weight": torch.ones(2, 2)}, "hook": _Hostile()}, tmp_path / "step-2.pt")
    for name in ("step-1.pt", "step-2.pt"):
        with pytest.raises(InputError, match=r"torch\.save\(model\.state_dict\(\)"):
            read_state(tmp_path / name, "SOURCE")
    assert not (tmp_path / "canary").exists()


REFUSED = {
    "0.bias is a bias": {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(3), "1.weight": torch.ones(2, 3)},
    "1.weight of shape": {"0.weight": torch.ones(3, 2), "1.weight": torch.ones(3)},
    "0.weight has shape": {"0.weight": torch.ones(3, 2, 3, 3), "1.weight": torch.ones(2, 3)},
    "in no order": {"0.weight": torch.ones(3, 2), "1.weight": torch.ones(4, 5)},
    "at least 2": {"0.weight": torch.ones(3, 2)},
    "expected a torch state dict": [1, 2],
    "is no tensor": {"0.weight": 1.0},
}


@pytest.mark.parametrize("words", REFUSED)
def test_other_files_are_refused_in_words(tmp_path, words):
    torch.save(REFUSED[words], tmp_path / "w.pt")
    with pytest.raises(InputError, match=words):
        read_state(tmp_path / "w.pt", "SOURCE")


def test_a_format_that_sorts_names_does_not_change_the_order_of_layers(tmp_path):
    """Twelve square layers, which chain in any order: names sorted like words are 0, 1, 10, 11, 2, …"""
    layers = {f"{k}.weight": torch.full((3, 3), float(k)) for k in range(12)}
    save_file(layers, tmp_path / "w.safetensors")
    found = read_state(tmp_path / "w.safetensors", "SOURCE").layers
    assert [float(w[0, 0]) for _, w in found] == list(range(12))


def test_room_for_a_nonlinear_layer_is_refused_by_name(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False), torch.nn.ReLU(), torch.nn.Linear(4, 2, bias=False))
    torch.save(model.state_dict(), tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"between 0\.weight and 2\.weight"):
        read_state(tmp_path / "w.pt", "SOURCE")


@pytest.mark.parametrize("key", ["module", "net", "weights"])
def test_weights_under_other_keys_are_found(tmp_path, key):
    """DeepSpeed keeps them under ``module``, hand-written loops under any name."""
    layers = {"0.weight": torch.ones(3, 2), "1.weight": torch.ones(4, 3)}
    saved = {key: layers, "optimizer": None, "global_steps": 12, "lr": 0.1}
    torch.save(saved, tmp_path / "w.pt")
    state = read_state(tmp_path / "w.pt", "SOURCE")
    assert [name for name, _ in state.layers] == ["0.weight", "1.weight"] and state.step == 12
    torch.save({**saved, "ema": layers} if key != "module" else saved, tmp_path / "w.pt")
    if key != "module":
        with pytest.raises(InputError, match="is no tensor"):
            read_state(tmp_path / "w.pt", "SOURCE")


def test_a_tensor_that_claims_more_than_the_memory_is_refused_before_it_is_laid_out(tmp_path):
    huge = torch.zeros(1).expand(2**20, 2**20)
    torch.save({"0.weight": huge, "1.weight": torch.ones(2, 3)}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"0\.weight of shape .* blows up from 4 bytes"):
        read_state(tmp_path / "w.pt", "SOURCE")
    torch.save({"0.weight": torch.zeros(1).expand(3, 2), "1.weight": torch.ones(2, 3)}, tmp_path / "w.pt")
    assert [w.shape for _, w in read_state(tmp_path / "w.pt", "SOURCE").layers] == [(3, 2), (2, 3)]


def test_more_than_the_memory_is_refused(trained, monkeypatch):
    """Of one file before it is laid out, of many when they are together."""
    monkeypatch.setattr("dlnphase.setup.states.MAX_ARRAY_BYTES", 1000)
    with pytest.raises(InputError, match=r"its tensors need .* GiB, expected at most"):
        read_state(trained / "plain" / "step-0.pt", "SOURCE")
    monkeypatch.undo()
    monkeypatch.setattr("dlnphase.detect.checkpoints.MAX_ARRAY_BYTES", 5000)
    with pytest.raises(InputError, match=r"the first 5 of 41 checkpoints need"):
        _visits(trained, str(trained / "plain"), lr=LR)


def test_a_sparse_tensor_is_refused(tmp_path):
    torch.save({"0.weight": torch.eye(3).to_sparse(), "1.weight": torch.ones(2, 3)}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="expected a dense one"):
        read_state(tmp_path / "w.pt", "SOURCE")


def test_layers_are_found_in_any_order(tmp_path):
    first, second, third = torch.ones(3, 2), torch.ones(5, 3), torch.ones(4, 5)
    for order in ({"a.9": first, "a.10": second, "a.11": third}, {"a.10": second, "a.11": third, "a.9": first}):
        torch.save(order, tmp_path / "w.pt")
        state = read_state(tmp_path / "w.pt", "SOURCE")
        assert [w.shape for _, w in state.layers] == [(3, 2), (5, 3), (4, 5)] and state.single
    torch.save({"out": third, "mid": second, "in": first}, tmp_path / "w.pt")
    assert [name for name, _ in read_state(tmp_path / "w.pt", "SOURCE").layers] == ["in", "mid", "out"]


def test_a_number_that_is_none_is_told_by_its_file(trained, tmp_path):
    for step in (0, 40, 80):
        state = torch.load(trained / "plain" / f"step-{step}.pt", weights_only=True)
        if step == 40:
            next(iter(state.values()))[0, 0] = float("nan")
        torch.save(state, tmp_path / f"step-{step}.pt")
    with pytest.raises(InputError, match=r"step-40\.pt: 0\.weight"):
        _visits(trained, str(tmp_path), lr=LR)


OPTIONS = (
    ({}, "lr: missing"),
    ({"lr": LR, "depth": 4}, "depth: found 4, but .* has 3 layers"),
    ({"lr": LR, "width": 9}, "width: found 9, but .* has 8"),
    ({"lr": LR, "times": "t.txt"}, "times: found beside lr"),
    ({"times": "none.txt"}, "times: .*none.txt"),
)


@pytest.mark.parametrize(("more", "words"), OPTIONS, ids=[words for _, words in OPTIONS])
def test_options_that_do_not_fit_are_named(trained, more, words):
    with pytest.raises(InputError, match=words):
        _visits(trained, str(trained / "plain"), **more)


def test_steps_must_be_told_once(trained, tmp_path):
    with pytest.raises(InputError, match="every: found 2"):
        _visits(trained, str(trained / "lightning"), lr=LR, every=2)
    state = torch.load(trained / "plain" / "step-0.pt", weights_only=True)
    torch.save(state, tmp_path / "first.pt")
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(InputError, match="its name no number"):
        _visits(trained, str(tmp_path), lr=LR)
    (tmp_path / "first.pt").rename(tmp_path / "a1.pt")
    (tmp_path / "last.pt").rename(tmp_path / "b1.pt")
    with pytest.raises(InputError, match="one checkpoint"):  # twice the same
        _visits(trained, str(tmp_path), lr=LR)
    next(iter(state.values())).add_(1)
    torch.save(state, tmp_path / "b1.pt")
    with pytest.raises(InputError, match="both of step 1"):
        _visits(trained, str(tmp_path), lr=LR)
    with pytest.raises(InputError, match="one checkpoint"):
        _visits(trained, str(tmp_path / "a1.pt"), lr=LR)
    with pytest.raises(InputError, match="matches no file"):
        checkpoint_files((str(tmp_path / "none*.pt"),))


def test_a_run_takes_options_that_agree(tmp_path):
    settings = dlnphase.TrainSettings(task="factorization", shape=(3, 3), rank=1, depth=2, width=5)
    from dlnphase.results.train import save_train

    save_train(dlnphase.train(settings), tmp_path)
    same = dlnphase.DetectSettings(source=str(tmp_path), depth=2, width=5, task="factorization", dim=3)
    assert dlnphase.detect_saddles(same).path.depth == 2
    for more, words in (({"depth": 3}, "depth: found 3"), ({"task": "sensing"}, "task: found sensing")):
        with pytest.raises(InputError, match=words):
            dlnphase.detect_saddles(dlnphase.DetectSettings(source=str(tmp_path), **more))


def test_damaged_files_are_refused_without_a_traceback(trained, tmp_path):
    rng = np.random.default_rng(5)
    samples = [(trained / name).read_bytes() for name in ("plain/step-40.pt", "safe/weights_1.safetensors")]
    refused = 0
    for k in range(200):
        suffix = (".pt", ".safetensors")[k % 2]
        data = bytearray(samples[k % 2])
        if k % 5 == 0:
            data = data[: int(rng.integers(len(data)))]
        for _ in range(int(rng.integers(1, 6))):
            if data:
                data[int(rng.integers(min(len(data), 600 if k % 3 else len(data))))] = int(rng.integers(256))
        path = tmp_path / f"damaged{suffix}"
        path.write_bytes(bytes(data))
        try:
            read_weights(path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 400
    assert refused > 100


# ---- records far apart -------------------------------------------------------------------------------------


def test_bursts_that_no_record_caught_still_separate_visits(tmp_path):
    """L = 3, w = 40, s = (5, 3, 1.5), a record every 0.8: each burst is shorter than that."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((n, 3)))[0] for n in (6, 5))
    target = left @ np.diag([5.0, 3.0, 1.5]) @ right.T
    np.save(tmp_path / "target.npy", target)
    backend = resolve_backend("cpu")
    cost = dlnphase.factorization(target, backend)
    network = gaussian_network((5, 40, 40, 6), 0.02, backend, seed=0)
    times = np.arange(0.8, 24.0, 0.8)
    rows = [(0.0, [w[0].numpy() for w in network.weights])]
    for record in dlnphase.gradient_flow(network, cost, output_times=list(times), max_time=24.0, tol=0.0):
        if np.abs(times - record.time[0]).min() < 1e-12:
            rows.append((float(record.time[0]), record.weights(0)))
    layers = {f"W{k + 1}": np.stack([w[k] for _, w in rows]) for k in range(3)}
    np.savez(tmp_path / "p.npz", t=np.array([t for t, _ in rows]), **layers)
    found = _visits(tmp_path, str(tmp_path / "p.npz"))
    assert [v.rank for v in found.visits] == [0, 1, 2, 3]
    assert found.path.followed > 0 and found.path.strayed == 0
    # A path whose weights do not follow the flow is left as it is.
    layers["W2"] = layers["W2"][:, ::-1]
    np.savez(tmp_path / "q.npz", t=np.array([t for t, _ in rows]), **layers)
    assert _visits(tmp_path, str(tmp_path / "q.npz")).path.followed == 0


def test_the_mean_value_bound_holds_on_a_known_flow():
    """One balanced mode, L = 2: a(t) logistic, ‖∇𝓛‖² = 2a(s − a)²; records so sparse in the end that it is missed."""
    s, start = 2.0, 1e-4
    for count in (400, 40, 6):
        time = np.linspace(0, 8, count)
        a = s / (1 + (s / start - 1) * np.exp(-2 * s * time))
        fine = np.linspace(0, 8, 20 * count - 19)
        dense = s / (1 + (s / start - 1) * np.exp(-2 * s * fine))
        norm = np.sqrt(2 * dense) * (s - dense)
        least = least_between(time, 0.5 * (s - a) ** 2, np.sqrt(2 * a) * (s - a))
        largest = [norm[20 * k : 20 * k + 21].max() for k in range(count - 1)]
        assert (least <= np.array(largest) * (1 + 1e-6)).all()
    assert typical_speed(time, 0.5 * (s - a) ** 2, np.sqrt(2 * a) * (s - a)) is None


@pytest.fixture(scope="module")
def flowed(tmp_path_factory):
    """The flow of L = 3, w = 40, s = (5, 3, 1.5) recorded every 0.1: (folder, times, layers)."""
    folder = tmp_path_factory.mktemp("flowed")
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((n, 3)))[0] for n in (6, 5))
    target = left @ np.diag([5.0, 3.0, 1.5]) @ right.T
    np.save(folder / "target.npy", target)
    backend = resolve_backend("cpu")
    network = gaussian_network((5, 40, 40, 6), 0.02, backend, seed=0)
    times = np.round(np.arange(0.1, 24.0, 0.1), 10)
    rows = [(0.0, [w[0].numpy() for w in network.weights])]
    cost = dlnphase.factorization(target, backend)
    for record in dlnphase.gradient_flow(network, cost, output_times=list(times), max_time=24.0, tol=0.0):
        if np.abs(times - record.time[0]).min() < 1e-12:
            rows.append((float(record.time[0]), record.weights(0)))
    return folder, np.array([t for t, _ in rows]), [np.stack([w[k] for _, w in rows]) for k in range(3)]


def _every(flowed, spacing, folder, *, unit=1.0, matrices=False):
    """A file of this path with records so far apart, in other units of time."""
    _, times, layers = flowed
    rows = slice(None, None, round(spacing / 0.1))
    arrays = {f"W{k + 1}": w[rows] for k, w in enumerate(layers)}
    if matrices:
        arrays = {"A": arrays["W3"] @ arrays["W2"] @ arrays["W1"]}
    np.savez(folder / "p.npz", t=times[rows] * unit, **arrays)
    return str(folder / "p.npz")


@pytest.mark.parametrize("spacing", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("c", [3.0, 0.5])
def test_a_constant_speed_is_measured_where_records_lie_far_apart(flowed, tmp_path, spacing, c):
    found = _visits(flowed[0], _every(flowed, spacing, tmp_path, unit=1 / c))
    assert found.path.speed == pytest.approx(c, rel=0.01)
    low, high = found.path.speed_range
    assert low <= found.path.speed <= high and low == pytest.approx(c, rel=0.01) == high
    [told] = [note for note in found.notes if "times as fast" in note]
    assert f"--loss-scale {c:.3g}" in told
    assert [v.rank for v in found.visits] == [0, 1, 2, 3]  # whatever the units
    own = _visits(flowed[0], _every(flowed, spacing, tmp_path))
    assert own.path.speed == pytest.approx(1.0, rel=0.01) and not any("fast" in note for note in own.notes)


def test_a_speed_that_is_no_constant_is_not_told(flowed, tmp_path):
    """Times that are stretched more and more: no factor makes them those of the flow."""
    folder, times, layers = flowed
    arrays = {f"W{k + 1}": w[::5] for k, w in enumerate(layers)}
    np.savez(tmp_path / "p.npz", t=times[::5] * (1 + 0.02 * times[::5]), **arrays)
    found = _visits(folder, str(tmp_path / "p.npz"))
    assert found.path.speed is None and any("cannot be told" in note for note in found.notes)
    for name in arrays:  # a path that is none of the flow's
        arrays[name] = arrays[name][:, ::-1] if name == "W2" else arrays[name]
    np.savez(tmp_path / "q.npz", t=times[::5], **arrays)
    assert _visits(folder, str(tmp_path / "q.npz")).path.speed is None


@pytest.mark.parametrize(("matrices", "more"), [(True, {"depth": 3}), (False, {"between": False})])
def test_ranks_that_the_spacing_hides_are_named(flowed, tmp_path, matrices, more):
    """Without following the flow, records every 0.8 do not show the visit of rank 1; none is claimed."""
    found = _visits(flowed[0], _every(flowed, 0.8, tmp_path, matrices=matrices), **more)
    assert [v.rank for v in found.visits] == [0, 2, 3]
    first, second, third = found.visits
    assert re.search(r"\(rank 0\) and .*\(rank 2\) records are up to 0\.8 apart: a visit of rank 1", second.note)
    assert f"t = {first.time.closest:.4g} " in second.note and f"t = {second.time.closest:.4g} " in second.note
    assert "cannot be seen" not in first.note + third.note
    whole = _visits(flowed[0], _every(flowed, 0.8, tmp_path))
    assert [v.rank for v in whole.visits] == [0, 1, 2, 3] and not any(v.note for v in whole.visits)


def _saved(folder, names):
    """Checkpoints of two layers, one a name, each a little farther on."""
    folder.mkdir()
    for k, name in enumerate(names):
        grown = (1.0 + 0.1 * k) * torch.ones(2, 2, dtype=torch.float64)
        torch.save({"0.weight": grown, "1.weight": grown}, folder / name)
    return checkpoint_files((str(folder),))


@pytest.mark.parametrize(
    "names",
    [
        ("2024-12-01_run7_0_v2.pt", "2024-12-01_run7_100_v2.pt", "2024-12-01_run7_200_v2.pt"),
        ("epoch0_iter0.pt", "epoch0_iter100.pt", "epoch1_iter200.pt"),
    ],
)
def test_the_step_is_the_number_in_which_names_differ(tmp_path, names):
    stack = read_checkpoints(_saved(tmp_path / "c", names), dlnphase.DetectSettings(source="c", lr=0.5))
    assert stack.steps.tolist() == [0, 100, 200] and stack.times.tolist() == [0, 50, 100]
    assert np.allclose(stack.layers[0][1][:, 0, 0], [1.0, 1.1, 1.2]) and stack.notes == ()


def test_a_checkpoint_without_a_step_is_left_out_and_told(trained, tmp_path, capsys):
    for name in ("plain", "lightning"):
        folder = tmp_path / name
        shutil.copytree(trained / name, folder)
        shutil.copy(next((trained / "plain").iterdir()), folder / "best.pt")
        command = ["detect-saddles", str(folder), "--lr", str(LR), "--target", str(trained / "target.npy")]
        assert run([*command, "--out", str(tmp_path / f"out-{name}"), "--no-between"]) == 0
        assert "left out, since neither the file nor its name tells a step: best.pt" in capsys.readouterr().err
        assert dlnphase.load(tmp_path / f"out-{name}").path.records == 41
    files = _saved(tmp_path / "few", ["best.pt", "step-1.pt"])
    with pytest.raises(InputError, match=r"best\.pt holds no global_step.*step-100\.pt; rename it, or leave it out"):
        read_checkpoints(files, dlnphase.DetectSettings(source="c", lr=0.5))


def test_folders_that_are_checkpoints_each_are_read(tmp_path):
    """As Hugging Face's trainer writes them: weights beside the optimizer, the step in the name of the folder."""
    for step in (200, 1000, 100):
        folder = tmp_path / "out-3" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        grown = (1.0 + step / 1000) * torch.ones(2, 2, dtype=torch.float64)
        save_file({"model.0.weight": grown, "model.1.weight": grown.clone()}, folder / "model.safetensors")
        torch.save({"state": {}}, folder / "optimizer.pt")
    out, settings = tmp_path / "out-3", dlnphase.DetectSettings(source="c", lr=0.5)
    each = tuple(str(p) for p in out.iterdir())
    for source in ((str(out / "checkpoint-*"),), (str(out / "checkpoint-*" / "*.safetensors"),), (str(out),), each):
        stack = read_checkpoints(checkpoint_files(source), settings)
        assert stack.steps.tolist() == [100, 200, 1000] and stack.times.tolist() == [50, 100, 500]
        assert stack.layers[0][1][:, 0, 0].tolist() == [1.1, 1.2, 2.0]


def test_names_that_differ_in_several_numbers_are_refused(tmp_path):
    files = _saved(tmp_path / "c", ["epoch_0_loss_0.912.pt", "epoch_1_loss_0.544.pt", "epoch_2_loss_0.137.pt"])
    with pytest.raises(
        InputError, match=r"epoch_0_loss_0\.912\.pt and epoch_1_loss_0\.544\.pt differ in 2 numbers.*step-100"
    ):
        read_checkpoints(files, dlnphase.DetectSettings(source="c", lr=0.5))


def test_parameters_saved_by_themselves_are_read(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False), torch.nn.Linear(4, 2, bias=False))
    torch.save(dict(model.named_parameters()), tmp_path / "w.pt")
    state = read_state(tmp_path / "w.pt", "SOURCE")
    for (_, found), layer in zip(state.layers, model, strict=True):
        assert np.array_equal(found, layer.weight.detach().double().numpy())


def test_a_target_that_is_made_up_is_told_as_such(trained, tmp_path, capsys):
    given = [str(trained / "plain"), "--lr", str(LR)]
    planted = ["--task", "factorization", "--shape", "5x4", "--data-seed", "3"]
    words = "the target is planted (data-seed 3), not taken from your run"
    assert run(["detect-saddles", *given, *planted, "--no-certify", "--out", str(tmp_path / "planted")]) == 0
    assert words in " ".join("".join(capsys.readouterr()).split())
    assert sum(words in note for note in dlnphase.load(tmp_path / "planted").notes) == 1
    own = dlnphase.DetectSettings(
        source=str(trained / "plain"), lr=LR, target=str(trained / "target.npy"), certify=False
    )
    assert not any("planted" in note for note in dlnphase.detect_saddles(own).notes)
    assert not dataclasses.replace(own, observed=0.9).planted  # held-out entries are drawn, the target is the user's


@pytest.mark.parametrize(("count", "words"), [(0, "0 visits"), (1, "1 visit"), (2, "2 visits")])
def test_visits_are_counted_in_words(trained, count, words):
    found = dlnphase.detect_saddles(
        dlnphase.DetectSettings(source=str(trained / "dense.npz"), target=str(trained / "target.npy"), certify=False)
    )
    cut = dataclasses.replace(found, visits=found.visits[:count], complete=False)
    assert detect_sentence(cut) == f"Interrupted after {words}."

"""Devices, dtypes and random streams."""

import numpy as np
import pytest
import torch

from dlnphase.backend import STREAMS, Backend, resolve_backend, stream
from dlnphase.costs.quadratic import factorization
from dlnphase.costs.tasks import planted_task
from dlnphase.errors import InputError
from dlnphase.networks.sampling import gaussian_network


def test_words_become_devices_and_dtypes():
    assert resolve_backend("cpu").device == torch.device("cpu")
    assert resolve_backend("cpu", "float32").dtype == torch.float32
    assert resolve_backend("cpu").dtype == torch.float64
    assert resolve_backend("cpu", "float32").dtype_name == "float32"
    assert resolve_backend("auto").device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_tensors_land_on_the_device_in_the_dtype(any_backend):
    tensor = any_backend.tensor(np.arange(3))
    assert tensor.dtype == any_backend.dtype
    assert tensor.device.type == any_backend.device.type


def test_a_cost_keeps_its_numbers_when_the_users_array_changes(backend):
    target = np.eye(3)
    cost = factorization(target, backend)
    target[:] = 7.0
    assert torch.equal(cost.minimizer, torch.eye(3, dtype=backend.dtype, device=backend.device))


@pytest.mark.parametrize("word", ["gpu", "", "cuda:", "cuda:x", "cuda:-1", "CPU", "cpu:0", "mps"])
def test_unknown_devices_are_refused_by_name(word):
    with pytest.raises(InputError, match="device: found"):
        resolve_backend(word)


def test_a_cuda_device_that_is_not_there_is_refused():
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    with pytest.raises(InputError, match=rf"is not there, this machine has {count}"):
        resolve_backend(f"cuda:{count}")


@pytest.mark.parametrize(("dtype", "threads", "word"), [("float16", None, "dtype"), ("float64", 0, "threads")])
def test_unknown_dtypes_and_thread_counts_are_refused(dtype, threads, word):
    with pytest.raises(InputError, match=f"{word}: found"):
        resolve_backend("cpu", dtype, threads)


def test_threads_are_set():
    before = torch.get_num_threads()
    try:
        resolve_backend("cpu", threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ---- streams -----------------------------------------------------------------------------------------


def draws(*args, count=64):
    return stream(*args).standard_normal(count)


def test_a_stream_is_its_seed_purpose_and_path():
    np.testing.assert_array_equal(draws(3, "weights", 1), draws(3, "weights", 1))


def test_all_streams_differ_and_none_is_another_one_shifted():
    keys = [(seed, purpose, *path) for seed in (0, 1, 2) for purpose in STREAMS for path in ((), (0,), (1,), (0, 0))]
    seen = np.concatenate([draws(*key, count=200) for key in keys])
    assert len(np.unique(seen)) == seen.size


def test_the_numbers_of_the_streams_are_part_of_every_result():
    fixed = {"weights": 0, "task": 1, "noise": 2, "lanczos": 3, "search": 4, "bootstrap": 5}
    assert {name: STREAMS[name] for name in fixed} == fixed
    assert len(set(STREAMS.values())) == len(STREAMS)
    # Raw words of PCG64, whose stream NumPy promises to keep.
    sequence = np.random.SeedSequence(7, spawn_key=(0, 2))
    assert stream(7, "weights", 2).bit_generator.random_raw() == np.random.PCG64(sequence).random_raw()
    children = np.random.SeedSequence(7).spawn(2)[1].spawn(4)[3]
    assert stream(7, "task", 3).bit_generator.random_raw() == np.random.PCG64(children).random_raw()


def test_global_seeds_are_irrelevant_and_left_alone(backend):
    def everything():
        network = gaussian_network((3, 4, 2), 0.1, backend, seed=5, members=(0, 3))
        task = planted_task("completion", (4, 3), (2.0, 1.0), backend, noise=0.1, data_seed=5)
        return [*network.weights, task.cost.operator, task.cost.minimizer]

    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    first = everything()
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(2)
    states = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    second = everything()
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one, two)
    np.testing.assert_array_equal(np.random.get_state()[1], states[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[1])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cpu_and_cuda_start_from_the_same_numbers():
    nets = [gaussian_network((3, 9, 2), 0.1, resolve_backend(d), seed=5, members=(0, 1)) for d in ("cpu", "cuda")]
    assert torch.equal(nets[0].theta, nets[1].theta.cpu())


def test_a_backend_is_a_value():
    assert resolve_backend("cpu") == Backend(torch.device("cpu"), torch.float64)

"""One list of runs on every device and in both precisions: what the numbers owe to the machine is round-off."""

import numpy as np
import pytest
import torch

from dlnphase.dynamics.stabilised import chain
from dlnphase.settings import TrainSettings
from dlnphase.training.run import train

# Runs whose waits are short enough that round-off is not amplified into shifts of time.
CASES = {
    "narrow, mild": {"task": "factorization", "shape": "4x3", "rank": 2, "depth": 3, "width": 20, "gamma": 1.5},
    "two layers, exact Krylov": {"task": "completion", "dim": 4, "rank": 2, "depth": 2, "width": 10**5, "gamma": 1.2},
    "handed over": {"task": "factorization", "dim": 3, "rank": 2, "depth": 3, "width": 10**6, "gamma": 2.0},
    "regression": {"task": "regression", "shape": "3x5", "rank": 2, "depth": 4, "width": 12, "gamma": 1.3},
    "sensing": {"task": "sensing", "dim": 3, "rank": 1, "depth": 3, "width": 15, "gamma": 1.5},
    "lazy": {"task": "factorization", "dim": 4, "depth": 3, "width": 40, "gamma": 0.6},
    "a batch": {"task": "factorization", "dim": 3, "rank": 2, "depth": 3, "width": 15, "gamma": 1.5, "seeds": 3},
    "descent": {"task": "factorization", "dim": 3, "rank": 2, "depth": 3, "width": 15, "gamma": 1.5, "dynamics": "gd"},
}
# Of times and matrices. Steps are chosen from error estimates that hold round-off, so what two machines share is the
# path to the accuracy asked for, not the steps.
OPTIONS = {"float64": {"rtol": 1e-7}, "float32": {"rtol": 1e-4, "tol": 1e-6}}
AGREE = {"float64": 1e-5, "float32": 1e-2}


def follow(case, dtype="float64", **machine):
    settings = CASES[case] | OPTIONS[dtype]
    if settings.get("dynamics") == "gd":
        del settings["rtol"]
    return train(TrainSettings(**settings, dtype=dtype, **machine))


def assert_same(one, two, tolerance):
    assert one.outcome.reason == two.outcome.reason == "converged"
    assert [t.to_rank for t in one.rank_transitions] == [t.to_rank for t in two.rank_transitions]
    for a, b in zip(one.rank_transitions, two.rank_transitions, strict=True):
        assert a.time == pytest.approx(b.time, rel=tolerance)
    ends = [result.trajectory.A[-1] for result in (one, two)]
    assert np.abs(ends[0] - ends[1]).max() < 10 * tolerance * np.abs(ends[0]).max()


@pytest.mark.parametrize("case", CASES)
def test_single_precision_agrees_with_double(case):
    assert_same(follow(case, device="cpu"), follow(case, "float32", device="cpu"), AGREE["float32"])


@pytest.mark.parametrize("case", CASES)
def test_arrays_of_both_kinds_walk_the_same_path(case, monkeypatch):
    """On a GPU mild paths are walked on torch tensors; here on the CPU's, beside NumPy's arrays."""
    numpy = follow(case, device="cpu")
    monkeypatch.setattr(chain, "NUMPY_UP_TO", -1)
    assert_same(numpy, follow(case, device="cpu"), AGREE["float64"])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", AGREE)
@pytest.mark.parametrize("case", CASES)
def test_cpu_and_cuda_agree(case, dtype):
    assert_same(follow(case, dtype, device="cpu"), follow(case, dtype, device="cuda"), AGREE[dtype])

"""Jumps of the rank under noise: a path made with known ones, and a noisy run beside what its modes say."""

import numpy as np
import pytest
import torch

import dlnphase
from dlnphase import TrainSettings
from dlnphase.backend import resolve_backend
from dlnphase.costs.tasks import planted_task
from dlnphase.dynamics.schedule import Schedule
from dlnphase.dynamics.updates import Update
from dlnphase.setup.resolved import Algorithm
from dlnphase.training.basins import Quiet, basin_jumps
from dlnphase.training.recording import MemberPath

MODES, DECAY, SIZE = (4.0, 1.1, 1.0), 0.4, 4  # barriers of the last two are at u(s − u³) = λ: u³ = 0.06 and 0.08
RUN = {
    "task": "factorization",
    "shape": "3x3",
    "singular_values": (4.0, 2.0, 1.0),
    "depth": 3,
    "width": 6,
    "gamma": 0.0,
    "lr": 0.02,
}


def quiet():
    cost = planted_task("factorization", (SIZE, SIZE), MODES, resolve_backend("cpu")).cost
    return cost, Quiet(cost, Algorithm(Update(), Schedule.of(0.02), 1), DECAY, 3, SIZE)


def path_of(sizes, cost, seed=0):
    """A path of a record a unit of time with these sizes of the target's modes, and noise of 0.01 on A."""
    u, _, vt = np.linalg.svd(-cost.gradient(torch.zeros(1, SIZE, SIZE, dtype=torch.float64)).numpy()[0])
    noise = 0.01 * np.random.default_rng(seed).standard_normal((len(sizes), SIZE, SIZE))
    a = np.stack([(u * np.pad(s, (0, SIZE - len(s)))) @ vt for s in sizes]) + noise
    its = MemberPath()
    its.rows = [(float(t), t, t, 0.0, 0.0, 0.0) for t in range(len(a))]
    its.matrices = dict(enumerate(a))
    x, s, y = np.linalg.svd(a[0])
    root = np.diag(s ** (1 / 3))
    its.start = [root @ y, root, x @ root]
    return its


@pytest.mark.parametrize(
    ("changes", "jumps"),
    [
        ([], []),
        ([(137, 2)], [(3, 2, 137)]),
        ([(201, 2), (333, 1)], [(3, 2, 201), (2, 1, 333)]),
        ([(150, 2), (290, 3)], [(3, 2, 150), (2, 3, 290)]),  # and back, much later than 10/λ = 25
        ([(150, 2), (170, 3)], []),  # and back, sooner
    ],
)
def test_jumps_of_a_made_path_are_told_at_their_times(changes, jumps):
    cost, still = quiet()
    ranks = np.full(400, 3)
    for time, rank in changes:
        ranks[time:] = rank
    sizes = [np.array([3.8, 0.8, 0.6]) * (np.arange(3) < rank) for rank in ranks]
    (told,) = basin_jumps([path_of(sizes, cost)], still)
    assert [(j.from_rank, j.to_rank) for j in told] == [(a, b) for a, b, _ in jumps]
    assert all(j.time == time - 0.5 for j, (_, _, time) in zip(told, jumps, strict=True))


def test_jumps_down_are_those_of_the_starts_that_end_below_where_no_noise_takes_them():
    decayed = {**RUN, "weight_decay": 0.44, "max_steps": 3000, "seeds": 5}
    result = dlnphase.train(TrainSettings(**decayed, dynamics="sgd", label_noise=1.0))
    quiet_ends = [m.outcome.rank for m in dlnphase.train(TrainSettings(**decayed, dynamics="gd")).members]
    told = result.distributions
    assert told.jumps_by == "basins" and not told.dwells
    ends = [m.outcome for m in result.members]
    lower = sum(end.rank < rank for end, rank in zip(ends, quiet_ends, strict=True) if end.reason != "diverged")
    assert told.down.starts == lower and 0 < lower < 5
    assert told.up.starts == 0


def test_without_decay_jumps_under_noise_are_not_told():
    told = dlnphase.train(TrainSettings(**RUN, dynamics="sgd", label_noise=0.5, max_steps=300, seeds=2)).distributions
    assert (told.jumps_by, told.up, told.down, told.jumps, told.dwells) == (None, None, None, (), ())
    assert sum(e.ended.starts for e in told.ends) == 2

"""check_cost: what is right passes, and each mistake is named."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import dlnphase
from dlnphase import TrainSettings
from dlnphase.backend import resolve_backend
from dlnphase.costs.tasks import DRAWS, Task, planted_task
from dlnphase.errors import InputError
from dlnphase.training.run import prepare

CPU = resolve_backend("cpu")


class LogCosh:
    """Σ log cosh of the residuals: right in everything."""

    shape, minimum = (3, 2), 0.0
    target = torch.arange(6, dtype=torch.float64).reshape(3, 2) / 5

    def excess(self, a):
        r = (a - self.target).abs()
        return (r + torch.log1p(torch.exp(-2 * r)) - np.log(2)).sum((-2, -1))

    def gradient(self, a):
        return torch.tanh(a - self.target)

    def apply_curvature(self, v, a):
        return (1 - torch.tanh(a - self.target) ** 2) * v

    def curvature(self, a):
        return torch.diag_embed((1 - torch.tanh(a - self.target) ** 2).flatten(1))

    def minimum_at_rank(self, rank):
        return None


@pytest.mark.parametrize("kind", DRAWS)
def test_the_costs_of_this_project_pass(kind):
    dlnphase.check_cost(planted_task(kind, (4, 3), (3.0, 1.0), CPU, noise=0.1).cost)


def test_a_cost_that_is_right_passes():
    dlnphase.check_cost(LogCosh())


R = LogCosh()
MISTAKES = {
    "gradient() is wrong": {"gradient": lambda a: -R.gradient(a)},
    "too large by a factor of 2": {"gradient": lambda a: 2 * R.gradient(a), "apply_curvature": lambda v, a: 2 * v},
    "apply_curvature() is not the derivative": {"apply_curvature": lambda v, a: v},
    "give different Hessians": {"curvature": lambda a: torch.eye(6, dtype=a.dtype)},
    "below 0": {"excess": lambda a: R.excess(a) - 1e3},
    "not convex": {"excess": lambda a: R.excess(a) - 3 * a.square().sum((-2, -1))},
    "excess() of 4 matrices gives ()": {"excess": lambda a: R.excess(a).sum()},
    "gives torch.float32": {"gradient": lambda a: R.gradient(a).float()},
    "not finite": {"gradient": lambda a: R.gradient(a) / 0.0},
    "gradient() raises IndexError": {"gradient": lambda a: R.gradient(a)[9]},
    "alone than in a batch": {"excess": lambda a: R.excess(a) / len(a)},
    "changes the matrices": {"gradient": lambda a: R.gradient(a.add_(1.0))},
    "is missing": {"excess": None},
    "shape is (3,)": {"shape": (3,)},
}


@pytest.mark.parametrize("words", MISTAKES)
def test_each_mistake_is_named(words):
    cost = LogCosh()
    for name, value in MISTAKES[words].items():
        setattr(cost, name, value)
    with pytest.raises(dlnphase.InputError) as error:
        dlnphase.check_cost(cost)
    assert words in str(error.value) and all(line.startswith("cost: ") for line in str(error.value).splitlines())


@pytest.mark.parametrize("wrong", [lambda g: -g, lambda g: g * torch.tensor([1.0, -1.0])], ids=["all", "a column"])
def test_a_run_on_a_cost_with_a_wrong_gradient_diverges_and_points_here(wrong):
    class Wrong(LogCosh):
        minimizer, kind, unique = LogCosh.target, "own", True

        def gradient(self, a):
            return wrong(super().gradient(a))

    settings = TrainSettings(task="factorization", shape=(3, 2), rank=2, width=5, depth=2, gamma=1.0)
    outcome = dlnphase.train(replace(prepare(settings), task=Task(Wrong()))).outcome
    assert outcome.reason == "diverged" and outcome.excess > outcome.initial_cost
    assert "dlnphase.check_cost" in outcome.advice
    with pytest.raises(InputError, match="gradient"):
        dlnphase.check_cost(Wrong())

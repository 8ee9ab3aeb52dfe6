"""Small costs other than quadratic ones, each beside its value by torch's own functions on an autograd graph."""

import numpy as np
import torch
from torch.nn import functional as F

from dlnphase.backend import resolve_backend
from dlnphase.costs.convex import (
    cross_entropy,
    huber_completion,
    huber_regression,
    logistic_regression,
    one_bit_completion,
)

CPU = resolve_backend("cpu")
RNG = np.random.default_rng(7)
X, WORDS = RNG.standard_normal((30, 4)), RNG.integers(0, 3, 30)
Y = X @ RNG.standard_normal((4, 3)) + 0.1 * RNG.standard_normal((30, 3))
Y[4] += 20
MASK = RNG.random((4, 5)) < 0.8
TARGET = RNG.standard_normal((4, 2)) @ RNG.standard_normal((2, 5))
DELTA = 0.4


def _predict(a):
    return torch.as_tensor(X) @ a.mT


def _cross(a):
    return torch.stack([F.cross_entropy(z, torch.as_tensor(WORDS)) for z in _predict(a)])


def _against_rest(a):
    right = F.one_hot(torch.as_tensor(WORDS), 3).double()
    return torch.stack([F.binary_cross_entropy_with_logits(z, right, reduction="sum") / 30 for z in _predict(a)])


def _two_classes(a):
    right = torch.as_tensor((WORDS > 0)[:, None]).double()
    return torch.stack([F.binary_cross_entropy_with_logits(z, right, reduction="sum") / 30 for z in _predict(a)])


def _bits(a):
    right = (torch.as_tensor(TARGET) > 0).double()[MASK]
    return torch.stack([F.binary_cross_entropy_with_logits(z[MASK], right, reduction="sum") for z in a])


def _huber(a):
    goal = torch.as_tensor(TARGET)[MASK]
    return torch.stack([F.huber_loss(z[MASK], goal, delta=DELTA, reduction="sum") for z in a])


def _huber_samples(a):
    return torch.stack([F.huber_loss(z, torch.as_tensor(Y), delta=DELTA, reduction="sum") / 30 for z in _predict(a)])


# name → (the cost, the oracle of its value)
COSTS = {
    "cross-entropy": (cross_entropy(X, WORDS, CPU), _cross),
    "logistic": (logistic_regression(X, WORDS, CPU), _against_rest),
    "two classes": (logistic_regression(X, (WORDS > 0).astype(int), CPU), _two_classes),
    "one bit": (one_bit_completion(np.sign(TARGET), MASK, CPU), _bits),
    "huber": (huber_completion(TARGET, MASK, DELTA, CPU), _huber),
    "huber regression": (huber_regression(X, Y, DELTA, CPU), _huber_samples),
}

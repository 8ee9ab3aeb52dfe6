"""From settings to a discrete algorithm: how it updates, where its noise comes from, how far it steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dlnphase.costs.interface import ConvexCost, parts_of
from dlnphase.dynamics import Draws, Schedule, Update, learned_size, stable_step, updates
from dlnphase.networks.chain import Network
from dlnphase.settings.dynamics import ROWS, DynamicsSettings


def build_update(settings: DynamicsSettings) -> Update:
    """The rule of a discrete algorithm."""
    rule: Callable[..., Update] = getattr(updates, ROWS[settings.dynamics].rule)
    return rule() if settings.momentum is None else rule(settings.momentum)


def build_draws(settings: DynamicsSettings, cost: ConvexCost, members: np.ndarray, seed: int) -> Draws | None:
    """The noise of its gradients; None where they are those of the whole cost.

    Raises:
        InputError: for noise of a cost that does not say what it is a sum of, or that does not fit it.
    """
    if not settings.noisy:
        return None
    observations = parts_of(cost, "label-noise: found" if settings.batch_size is None else "batch-size: found")
    draws = Draws(
        observations, members, batch_size=settings.batch_size, label_noise=settings.label_noise or 0.0, seed=seed
    )
    return None if draws.batch_size is None and not draws.label_noise else draws


def choose_step(
    settings: DynamicsSettings, update: Update, draws: Draws | None, network: Network, cost: ConvexCost, seed: int
) -> tuple[Schedule, str]:
    """η, and why it is this in words; "" where the user gave it.

    Heavy ball steps by (1 − β) of what gradient descent would, which moves it as fast; with batches of B of n, no batch
    is steeper than the whole by more than a factor, which divides the step.
    """
    if settings.lr is not None and not isinstance(settings.lr, str):
        return Schedule.of(settings.lr), ""
    lr, words = _own_step(settings, update, draws, network, cost, seed)
    return Schedule.of(lr), words


def _own_step(
    settings: DynamicsSettings, update: Update, draws: Draws | None, network: Network, cost: ConvexCost, seed: int
) -> tuple[float, str]:
    """The step where none is given."""
    own = update.step(lambda: learned_size(cost, cost.like.new_zeros((1, *cost.shape))) ** (1 / network.depth))
    if own is not None:
        return own
    lr, words = stable_step(network, cost, seed=seed, weight_decay=settings.weight_decay)
    steeper = 1.0 if draws is None else draws.steeper
    if steeper > 1:
        lr, words = lr / steeper, f"{words}; a batch may be {steeper:.4g} times as steep, so η = {lr / steeper:.4g}"
    share = 1 - (settings.momentum or 0.0)
    if share < 1:
        lr, words = lr * share, f"{words}; times 1 − β, η = {lr * share:.4g}"
    return lr, words

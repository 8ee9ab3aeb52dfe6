"""The noise of stochastic gradients: which observations a step sees, and what is added to their labels.

Each step takes B of the n observations, all sets of B alike and whatever the steps before it took, and weighs each by
n/B; and it adds N(0, σ²) to every label, anew. Both leave the gradient unbiased. Draws are made in blocks of steps,
each block from a stream of its own: a run that goes on at any step needs to know nothing but its number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlnphase.backend import stream
from dlnphase.costs.observations import Observations
from dlnphase.dynamics.schedule import Changing, Schedule
from dlnphase.dynamics.state import Fixed, Room, State
from dlnphase.errors import InputError
from dlnphase.networks.batch import Batched

BLOCK = 1 << 14  # numbers in a block: a generator is set up once for all its steps


@dataclass(slots=True, init=False, eq=False, repr=False)
class Draws(State, Batched):
    """Stochastic gradients of a batch of networks, each with streams of its own.

    Attributes:
        members: numbers of the networks; network k draws the same whatever the others are.
    """

    observations: Fixed[Observations]
    seed: Fixed[int]
    batch_size: Fixed[Schedule | None]
    label_noise: Fixed[float]
    members: np.ndarray
    _number: Room[int]
    _weights: Room[Tensor | None]
    _noise: Room[Tensor | None]

    def __init__(
        self,
        observations: Observations,
        members: np.ndarray,
        *,
        batch_size: Changing | None = None,
        label_noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Of these networks.

        Args:
            observations: of the cost.
            batch_size: B, at most as many as there are, or pairs (step, B); None: all, without drawing.
            label_noise: σ ≥ 0.

        Raises:
            InputError: for a batch larger than the data, or noise on labels that are no numbers.
        """
        sizes = None if batch_size is None else Schedule.of(batch_size)
        for size in () if sizes is None else sizes.values:
            if not 1 <= size <= observations.count:
                raise InputError(
                    f"batch-size: found {size}, but training sees {observations.count} {observations.what}; expected "
                    f"from 1 to {observations.count}"
                )
        if label_noise and not observations.linear:
            raise InputError(
                f"label-noise: found {label_noise:g} with a cost whose gradient is not linear in the labels: noise in "
                "them would change the cost as well; expected a squared cost"
            )
        self.observations, self.members = observations, np.asarray(members)
        self.batch_size = None if sizes is None or set(sizes.values) == {observations.count} else sizes
        self.label_noise, self.seed = label_noise, seed
        self._number, self._weights, self._noise = -1, None, None

    @property
    def steeper(self) -> float:
        """How many times as steep as the whole cost one batch may be."""
        if self.batch_size is None:
            return 1.0
        return min(self.observations.count / min(self.batch_size.values), self.observations.seen.steepness)

    def gradient(self, a: Tensor, step: int) -> Tensor:
        """The stochastic ∇C at A, shape (B, d_out, d_in), of the step with this number."""
        size = max(1, BLOCK // (self.observations.count + self.observations.labels))
        number, place = divmod(step, size)
        if number != self._number:
            self._draw(number, size, a)
        weights = None if self._weights is None else self._weights[:, place]
        noise = None if self._noise is None else self._noise[:, place]
        return self.observations.gradient(a, weights, noise)

    def _draw(self, number: int, size: int, like: Tensor) -> None:
        def tensor(blocks: list[np.ndarray]) -> Tensor:
            return torch.as_tensor(np.stack(blocks)).to(like.device, like.dtype)

        self._number, members = number, [int(k) for k in self.members]
        if self.batch_size is not None:
            generators = (stream(self.seed, "batches", k, number) for k in members)
            sizes = self.batch_size.along(number * size + np.arange(size))
            self._weights = tensor([self._chosen(rng, sizes) for rng in generators])
        if self.label_noise:
            generators = (stream(self.seed, "label-noise", k, number) for k in members)
            labels = self.observations.labels
            self._noise = tensor([self.label_noise * rng.standard_normal((size, labels)) for rng in generators])

    def _chosen(self, rng: np.random.Generator, sizes: np.ndarray) -> np.ndarray:
        """n/B at B places of each row, else 0, for a B of each row; shape (rows, n)."""
        count = self.observations.count
        out, keys = np.zeros((len(sizes), count)), rng.random((len(sizes), count))
        for batch in np.unique(sizes):
            rows = np.flatnonzero(sizes == batch)
            places = keys[rows].argpartition(batch - 1, axis=1)[:, :batch]
            out[rows[:, None], places] = count / batch
        return out

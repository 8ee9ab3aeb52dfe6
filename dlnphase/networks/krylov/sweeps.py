"""Which hidden directions a Krylov-reduced network keeps.

Gradients move W_l only through the products below it, P_{l+1} = W_l ⋯ W_1, and above it,
S_l = W_L ⋯ W_{l+1}: the flow lives on the column spaces p_l of P_{l+1}(t) and s_l of S_lᵀ(t) in hidden space l.
Since W_l(t) = W_l(0) + ∫(columns of S_lᵀ)(rows of P_lᵀ), differentiating m times at t = 0 gives

    p_l^(m) = W_l p_{l-1}^(m) + s_l^(m−1),      s_l^(m) = W_{l+1}ᵀ s_{l+1}^(m) + p_l^(m−1),

p_0 and s_L being the whole input and output spaces: words in the layers that start at an end of the network, walk up
(W) and down (Wᵀ), and turn round at most m times inside it. *Order* k keeps p_l^(k−1) + s_l^(k−1) in every
hidden space, one upward and one downward sweep through the layers per order. Counting words by turns
instead of by length is what the time derivatives ask for, and gives smaller spaces at equal accuracy.

A reduced network of order k has the A(0) and the NTK of the full one, and the first 2k−1 time derivatives
of A. L = 2 is closed at order 1 with d_in + d_out dimensions; any L is closed, hence exact, where the spaces fill w.

**From few directions.** Where ∇C = A − A* and A* has few modes, p_0 may be the r inputs of A* and s_L its r outputs
(:class:`SweepStart`). Gradients send what arrives at an end back by Aᵀ or A, so words turn round at the ends as they do
inside. The ends themselves are kept whole, but of A(0) only what the words meet: the rest, of size α^L, is dropped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from dlnphase.errors import InputError

SIZE_LIMIT = 2048  # hidden size above which a reduced network is refused: sizes grow geometrically with the order
V = TypeVar("V")  # vectors of one space: an array, or only their number


@dataclass(frozen=True, eq=False)
class SweepStart:
    """The directions of both ends that sweeps start from, where these are not all.

    Attributes:
        inputs, outputs: orthonormal columns, shapes (d_in, r) and (d_out, r).
    """

    inputs: np.ndarray
    outputs: np.ndarray

    @property
    def count(self) -> int:
        """r."""
        return self.inputs.shape[1]


class Sweep(ABC, Generic[V]):
    """The sweeps, over any way of holding vectors.

    Spaces are numbered 0 … L, layers 0 … L−1 (layer l maps space l to space l+1).

    Args:
        dims: full sizes (n_0, …, n_L).
        start: where sweeps start; None: in the whole ends.
    """

    def __init__(self, dims: Sequence[int], start: SweepStart | None = None) -> None:
        self.dims, self.start = tuple(dims), start
        self.depth = len(dims) - 1
        self.order = 0
        # Images found in the last order, per space: by W from below (True) and by Wᵀ from above (False).
        self.images: dict[bool, list[V | None]] = {up: [None] * (self.depth + 1) for up in (True, False)}

    @abstractmethod
    def fresh(self, space: int, up: bool, vectors: list[V]) -> V | None:
        """An orthonormal basis of what the vectors add to those already pushed out of a space in that direction."""

    @abstractmethod
    def push(self, space: int, up: bool, vectors: V) -> V:
        """Apply the layer above (W) or below (Wᵀ) to fresh vectors of a space, keep what is new, return the images."""

    @abstractmethod
    def ends(self, space: int) -> V:
        """The directions of the input or the output space that sweeps start from."""

    @abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """Sizes (n_0, …, n_L) kept so far."""

    def run(self, order: int) -> None:
        """Go on to the given order, or stop earlier where the spaces are closed."""
        while self.order < order and not (self.order and self.closed()):
            self.order += 1
            found: dict[bool, list[V | None]] = {}
            for up in (True, False):
                found[up] = [None] * (self.depth + 1)
                for space in self._walk(up):
                    fresh = self._pending(space, up, found[up][space])
                    if fresh is not None:
                        target = space + 1 if up else space - 1
                        found[up][target] = self.push(space, up, fresh)
                        if 0 < target < self.depth and self.sizes()[target] > SIZE_LIMIT:
                            raise InputError(
                                f"krylov-order: order {self.order} needs a hidden size of {self.sizes()[target]}, "
                                f"the largest is {SIZE_LIMIT}: lower it"
                            )
            self.images = found

    def closed(self) -> bool:
        """Whether nothing is left whose image could be outside: the reduced network is exact."""
        if self.sizes() == self.dims:
            return True
        if self.start is not None:
            return False
        up = (self._pending(space, True, None) for space in range(1, self.depth - 1))
        down = (self._pending(space, False, None) for space in range(self.depth - 1, 1, -1))
        return all(vectors is None for vectors in (*up, *down))

    def _walk(self, up: bool) -> range:
        """The spaces that a sweep leaves, in turn; it enters an end only where it did not start in all of it."""
        last = int(self.start is not None)
        return range(self.depth - 1 + last) if up else range(self.depth, 1 - last, -1)

    def _pending(self, space: int, up: bool, arrived: V | None) -> V | None:
        """What is to be pushed out of a space: what just arrived there and what turned round there an order ago."""
        if space in (0, self.depth) and (self.order == 1 or self.start is None):
            return self.ends(space) if self.order == 1 else None
        vectors = [v for v in (arrived, self.images[not up][space]) if v is not None]
        return self.fresh(space, up, vectors) if vectors else None


class Count(Sweep[int]):
    """The sweeps in generic position, with numbers of vectors alone."""

    def __init__(self, dims: Sequence[int], start: SweepStart | None = None) -> None:
        super().__init__(dims, start)
        self.kept = [self.dims[0], *([0] * (self.depth - 1)), self.dims[-1]]
        self.pushed = {up: [0] * (self.depth + 1) for up in (True, False)}

    def fresh(self, space: int, up: bool, vectors: list[int]) -> int | None:
        """As many as came, while the space has directions that were not pushed."""
        return min(sum(vectors), self.kept[space] - self.pushed[up][space]) or None

    def push(self, space: int, up: bool, vectors: int) -> int:
        """As many images, of which the space beyond keeps what it has room for."""
        self.pushed[up][space] += vectors
        target = space + 1 if up else space - 1
        self.kept[target] += min(vectors, self.dims[target] - self.kept[target])
        return vectors

    def ends(self, space: int) -> int:
        """How many there are."""
        return self.dims[space] if self.start is None else self.start.count

    def sizes(self) -> tuple[int, ...]:
        """Directions kept per space."""
        return tuple(self.kept)

    def unrevealed(self) -> int:
        """Entries of the full layers, in bases completing the kept ones, that are neither kept nor known to be zero."""
        total = 0
        for layer in range(self.depth):
            columns, rows = self.pushed[True][layer], self.pushed[False][layer + 1]
            total += (self.dims[layer + 1] - rows) * (self.dims[layer] - columns)
            total -= (self.kept[layer + 1] - rows) * (self.kept[layer] - columns)
        return total


def reduced_dims(dims: Sequence[int], order: int, start: SweepStart | None = None) -> tuple[tuple[int, ...], bool]:
    """Sizes (n_0, …, n_L) of the reduced network of that order, and whether it is exact.

    Args:
        dims: full sizes as Python integers of any size.
        start: where sweeps start; None: in the whole ends.

    Raises:
        InputError: when a hidden space would need more than SIZE_LIMIT directions.
    """
    count = Count(dims, start)
    count.run(order)
    return count.sizes(), count.closed()

"""Krylov-reduced Gaussian networks drawn directly in law, at any width.

A Gaussian layer is revealed only where the sweeps apply it (Householder dice, Lu 2021, arXiv 2101.07464). Applied to
b fresh vectors X, orthogonal to those it was applied to before, W has on the m directions already kept in
the target space the entries already drawn there, and outside them the R factor of a (w − m) × b Gaussian matrix
on b new directions: σχ_{w−m}, σχ_{w−m−1}, … on the diagonal, N(0, σ²) above it. Seen from the new directions,
W has that factor on X, zero on the vectors it was applied to before, and is Gaussian on the rest; the other layer
that meets them is zero where it was already applied from its other side, and Gaussian on the rest.
All of it is exact for every w: where a space is full, nothing new is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from dlnphase.backend import Backend, stream
from dlnphase.errors import InputError
from dlnphase.networks.chain import Network
from dlnphase.networks.krylov.sweeps import Count, Sweep, SweepStart, reduced_dims
from dlnphase.networks.sampling import hidden_dims

# A member's streams are (member, _LAYERS) and (member, _REST, order); (member,) is the full representation's.
_LAYERS, _REST = 1, 2


def sample(
    depth: int,
    width: int,
    shape: tuple[int, int],
    sigma: float,
    order: int,
    backend: Backend,
    *,
    seed: int = 0,
    members: Sequence[int] = (0,),
    start: SweepStart | None = None,
) -> Network:
    """Krylov-reduced networks of i.i.d. N(0, σ²) layers, exact in law, without forming a width × width matrix.

    In law this is ``project`` of a full Gaussian network at the same order, up to rotations of the hidden spaces.
    Where the spaces fill the width, it is the full network itself. Cost and memory do not depend on the width.

    Args:
        depth: L.
        width: w, from 1 to 1e12.
        shape: (d_out, d_in).
        sigma: standard deviation σ of every entry of the full network.
        order: at least 1; the network of order k is the leading block of that of order k+1 from the same seed.
        members: member k is the same whatever the others are.
        start: where sweeps start; None: in the whole ends.

    Raises:
        InputError: for a width or an order out of range.
    """
    _check_order(order)
    dims = hidden_dims(depth, width, shape)
    reduced_dims(dims, order, start)  # refuses what is too large before anything is drawn
    dice = _Dice(dims, [stream(seed, "weights", member, _LAYERS) for member in members], start)
    dice.run(order)
    return Network.from_weights([backend.tensor(sigma * layer) for layer in dice.layers])


def unrevealed_square_norm(
    depth: int,
    width: int,
    shape: tuple[int, int],
    sigma: float,
    order: int,
    *,
    seed: int = 0,
    members: Sequence[int] = (0,),
    start: SweepStart | None = None,
) -> np.ndarray:
    """‖θ_0‖² of the full networks minus ‖θ̂_0‖² of their reductions by ``sample``, shape (len(members),).

    The entries not revealed are independent N(0, σ²) given the revealed ones, so this is σ²χ² with as many
    degrees of freedom, drawn from a stream of its own: the same for the same arguments, whoever asks first.
    """
    _check_order(order)
    count = Count(hidden_dims(depth, width, shape), start)
    count.run(order)
    freedom, out = count.unrevealed(), np.zeros(len(members))
    if freedom:
        for row, member in enumerate(members):
            out[row] = stream(seed, "weights", member, _REST, order).chisquare(float(freedom))
    return sigma**2 * out


class _Dice(Sweep[np.ndarray]):
    """Layers of unit variance on the coordinates kept so far, one stream a member.

    Vectors are coordinate arrays (B, n, b); those stored before a space grew are shorter than it is now.
    """

    def __init__(self, dims: Sequence[int], streams: Sequence[np.random.Generator], start: SweepStart | None) -> None:
        super().__init__(dims, start)
        self.streams = streams
        kept = [self.dims[0], *([0] * (self.depth - 1)), self.dims[-1]]
        if self.depth == 1:
            self.layers = [self._normal(*self.dims[::-1])]
        else:
            self.layers = [np.zeros((len(streams), above, below)) for below, above in pairwise(kept)]
        nothing = [np.zeros((len(streams), n, 0)) for n in kept]
        self.pushed = {up: list(nothing) for up in (True, False)}

    def sizes(self) -> tuple[int, ...]:
        """Directions kept per space."""
        return (self.dims[0], *(layer.shape[1] for layer in self.layers))

    def ends(self, space: int) -> np.ndarray:
        """Orthonormal columns (B, n, r): the identity where an end is taken whole."""
        if self.start is None:
            columns = np.eye(self.dims[space])
        else:
            columns = self.start.outputs if space else self.start.inputs
        return np.broadcast_to(columns, (len(self.streams), *columns.shape))

    def fresh(self, space: int, up: bool, vectors: list[np.ndarray]) -> np.ndarray | None:
        """An orthonormal basis (B, n, r) of what the vectors add to those already pushed; None where it is nothing."""
        n = self.sizes()[space]
        known = _grown(self.pushed[up][space], n)
        joined = np.concatenate([_grown(v, n) for v in vectors], axis=2)
        count = min(joined.shape[2], n - known.shape[2])  # in generic position: the law has no dependent vectors
        if not count:
            return None
        q = np.linalg.qr(np.concatenate([known, joined], axis=2))[0]
        return q[:, :, known.shape[2] : known.shape[2] + count]

    def push(self, space: int, up: bool, vectors: np.ndarray) -> np.ndarray:
        """The images of vectors (B, n, b): what the layer was seen to do so far, and what it is drawn to do besides."""
        target, layer = (space + 1, space) if up else (space - 1, space - 1)
        kept = self.sizes()[target]
        free = self.dims[target] - kept
        known = _grown(self.pushed[up][space], vectors.shape[1])
        pushed = np.concatenate([known, vectors], axis=2)
        self.pushed[up][space] = pushed
        weight = self.layers[layer] if up else self.layers[layer].mT
        images = weight @ vectors
        factor = self._factor(min(vectors.shape[2], free), vectors.shape[2], free)
        if factor.shape[1]:
            noise = self._normal(factor.shape[1], vectors.shape[1])
            new = factor @ vectors.mT + noise - (noise @ pushed) @ pushed.mT
            grown = np.concatenate([weight, new], axis=1)
            self.layers[layer] = grown if up else grown.mT
            self._meet(target, up, factor.shape[1])
        return np.concatenate([images, factor], axis=1)

    def _meet(self, target: int, up: bool, count: int) -> None:
        """Extend the layer on the other side of a space that grew."""
        layer, beyond = (target, target + 1) if up else (target - 1, target - 1)
        weight = self.layers[layer] if up else self.layers[layer].mT
        known = _grown(self.pushed[not up][beyond], weight.shape[1])
        noise = self._normal(weight.shape[1], count)
        grown = np.concatenate([weight, noise - known @ (known.mT @ noise)], axis=2)
        self.layers[layer] = grown if up else grown.mT

    def _factor(self, new: int, pushed: int, free: int) -> np.ndarray:
        """First ``new`` rows of the R factor of a Gaussian (free × pushed) matrix, shape (B, new, pushed)."""
        factor = np.triu(self._normal(new, pushed), 1)
        diagonal = np.arange(min(new, pushed))
        for row, rng in enumerate(self.streams):
            factor[row, diagonal, diagonal] = np.sqrt(rng.chisquare((free - diagonal).astype(float)))
        return factor

    def _normal(self, rows: int, columns: int) -> np.ndarray:
        return np.stack([rng.standard_normal((rows, columns)) for rng in self.streams])


def _grown(vectors: np.ndarray, n: int) -> np.ndarray:
    """Coordinates in a space that has n by now."""
    return np.pad(vectors, ((0, 0), (0, n - vectors.shape[1]), (0, 0)))


def _check_order(order: int) -> None:
    if order < 1:
        raise InputError(f"krylov-order: found {order}, expected an integer of at least 1")

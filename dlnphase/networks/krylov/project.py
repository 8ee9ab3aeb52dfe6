"""The Krylov reduction of given networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlnphase.errors import InputError
from dlnphase.networks.chain import Network
from dlnphase.networks.krylov.sweeps import Sweep, SweepStart


@dataclass(frozen=True)
class Projection:
    """A reduced network and the bases it lives on.

    Attributes:
        network: layers Ŵ_l = U_lᵀ W_l U_{l−1}.
        bases: U_0, …, U_L with orthonormal columns, shapes (B, full n_l, reduced n_l); U_0 and U_L are identities.
        exact: the spaces are closed, so the reduced network has the dynamics of the full one.
    """

    network: Network
    bases: list[Tensor]
    exact: bool

    def lift(self, network: Network) -> list[Tensor]:
        """Layers U_l W_l U_{l−1}ᵀ of a reduced network of this shape in the full spaces, without what was dropped."""
        return [u @ w @ v.mT for w, u, v in zip(network.weights, self.bases[1:], self.bases[:-1], strict=True)]


def project(network: Network, order: int, start: SweepStart | None = None) -> Projection:
    """Reduce given networks to the hidden directions that gradients reach first (see ``sweeps``).

    Bases of order k are the leading columns of those of order k+1. Directions are dropped where they are dependent to
    round-off in every member, so a space stops growing when it is exhausted.

    Args:
        network: B full networks.
        order: at least 1.
        start: where sweeps start; None: in the whole ends.

    Raises:
        InputError: for an order below 1, or one that needs hidden sizes above SIZE_LIMIT.
    """
    return Projector(network, start).to(order)


class Projector:
    """Projections of the same networks at rising orders, each going on from the one before."""

    def __init__(self, network: Network, start: SweepStart | None = None) -> None:
        self.walk = _Walk(network, start)

    def to(self, order: int) -> Projection:
        """As ``project``; the order may not fall from call to call."""
        walk, network = self.walk, self.walk.network
        if order < max(1, walk.order):
            raise InputError(f"krylov-order: found {order}, expected an integer of at least {max(1, walk.order)}")
        walk.run(order)
        bases = list(walk.bases)
        for space in range(1, network.depth):
            if not bases[space].shape[2]:  # nothing reaches this space: keep one direction so that the layers chain
                bases[space] = walk.identity(space)[:, :, :1]
        reduced = [u.mT @ w @ v for w, u, v in zip(network.weights, bases[1:], bases[:-1], strict=True)]
        return Projection(Network.from_weights(reduced), bases, walk.closed())


def truncate(network: Network, dims: tuple[int, ...]) -> Network:
    """The leading blocks of the layers: a reduced network at a lower order, whose sizes are ``dims``."""
    return Network.from_weights(
        [w[:, :rows, :columns] for w, rows, columns in zip(network.weights, dims[1:], dims[:-1], strict=True)]
    )


class _Walk(Sweep[Tensor]):
    """The sweeps on given layers; vectors are (B, n, b) in the full spaces."""

    def __init__(self, network: Network, start: SweepStart | None) -> None:
        super().__init__(network.dims, start)
        self.network = network
        nothing = [network.theta.new_zeros((network.batch, n, 0)) for n in network.dims]
        self.pushed = {up: list(nothing) for up in (True, False)}
        self.bases = list(nothing)
        for end in (0, self.depth):
            self.bases[end] = self.identity(end)

    def identity(self, space: int) -> Tensor:
        """(B, n, n) identities of a space."""
        like = self.network.theta
        return torch.eye(self.dims[space], dtype=like.dtype, device=like.device).repeat(self.network.batch, 1, 1)

    def ends(self, space: int) -> Tensor:
        """Orthonormal columns (B, n, r): the identity where an end is taken whole."""
        if self.start is None:
            return self.bases[space]
        columns, like = self.start.outputs if space else self.start.inputs, self.network.theta
        return torch.as_tensor(columns, dtype=like.dtype, device=like.device).repeat(self.network.batch, 1, 1)

    def sizes(self) -> tuple[int, ...]:
        """Directions kept per space."""
        return tuple(u.shape[2] for u in self.bases)

    def fresh(self, space: int, up: bool, vectors: list[Tensor]) -> Tensor | None:
        """An orthonormal basis (B, n, r) of what the vectors add to those already pushed; None where it is nothing."""
        # Each vector counts relative to its own length, unless it is round-off: words differ in scale, not importance.
        joined = torch.cat(vectors, 2)
        lengths = torch.linalg.vector_norm(joined, dim=1, keepdim=True)
        floor = lengths.amax(2, keepdim=True) * (joined.shape[1] * torch.finfo(joined.dtype).eps)
        joined = torch.where(lengths > floor, joined / lengths.clamp_min(torch.finfo(joined.dtype).tiny), 0.0)
        new = _new_directions(self.pushed[up][space], joined)
        return new if new.shape[2] else None

    def push(self, space: int, up: bool, vectors: Tensor) -> Tensor:
        """The images of vectors (B, n, b) under the layer; the space beyond keeps what is new of them."""
        self.pushed[up][space] = torch.cat([self.pushed[up][space], vectors], 2)
        target = space + 1 if up else space - 1
        weights = self.network.weights
        images = (weights[space] if up else weights[space - 1].mT) @ vectors
        self.bases[target] = torch.cat([self.bases[target], _new_directions(self.bases[target], images)], 2)
        return images


def _new_directions(basis: Tensor, vectors: Tensor) -> Tensor:
    """An orthonormal basis (B, n, r) of what vectors (B, n, b) add to the span of an orthonormal basis (B, n, m).

    The number r is the largest numerical rank in the batch; members of lower rank get arbitrary further
    directions, which is harmless: a larger space is never a worse one.
    """
    room = basis.shape[1] - basis.shape[2]
    residual = vectors
    for _ in range(2):  # once is not enough in floating point
        residual = residual - basis @ (basis.mT @ residual)
    left, values, _ = torch.linalg.svd(residual, full_matrices=False)
    scale = torch.linalg.matrix_norm(vectors) * (vectors.shape[1] * torch.finfo(vectors.dtype).eps)
    count = min(room, int((values > scale[:, None]).sum(1).max()) if values.numel() else 0)
    if not count:
        return basis[:, :, :0]
    if basis.shape[0] == 1:  # all of them new: cleaned once more they only need each other
        new = left[:, :, :count]
        return torch.linalg.qr(new - basis @ (basis.mT @ new))[0]
    # A Householder QR is orthonormal to round-off even where a member's columns are dependent.
    q = torch.linalg.qr(torch.cat([basis, left[:, :, :count]], 2))[0]
    return q[:, :, basis.shape[2] :]

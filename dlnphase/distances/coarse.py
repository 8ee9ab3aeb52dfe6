"""The same search in fewer dimensions first.

The hidden spaces of a Krylov-reduced network are nested: its leading blocks are the network reduced to a lower order,
and what is nearest there lies within the truncation error of what is nearest in the whole. So candidates compete where
they are cheap, and only those that come close to the best are followed into the whole network, from where they were
found. Whatever is told has been attained in the whole network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlnphase.networks.chain import Network


@dataclass(frozen=True)
class Coarse:
    """A reduction of lower order.

    Attributes:
        hidden: its hidden sizes.
        error: relative change of distances from there to the whole network.
    """

    hidden: tuple[int, ...]
    error: float


def leading(network: Network, hidden: Sequence[int]) -> Network:
    """The leading blocks of all layers, for hidden sizes no larger than those of the network."""
    dims = (network.dims[0], *hidden, network.dims[-1])
    blocks = [w[:, :above, :below] for w, below, above in zip(network.weights, dims, dims[1:], strict=False)]
    return Network.from_weights(blocks)


def embed(network: Network, theta: Tensor, hidden: Sequence[int]) -> Network:
    """The network with its leading blocks replaced by those of θ, shape (B, P) of :func:`leading`."""
    out = network.clone()
    part = Network(theta, (network.dims[0], *hidden, network.dims[-1]))
    for whole, block in zip(out.weights, part.weights, strict=True):
        whole[:, : block.shape[1], : block.shape[2]] = block
    return out


def distinct(draws: Sequence[int]) -> tuple[list[int], Tensor]:
    """The first member of each draw, and for every member the place of its draw among those.

    Args:
        draws: members of equal number have the same weights up to a factor.
    """
    place: dict[int, int] = {}
    rows = [place.setdefault(draw, len(place)) for draw in draws]
    return [rows.index(i) for i in range(len(place))], torch.tensor(rows)

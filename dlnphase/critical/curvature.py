"""The lower end of the Hessian's spectrum at a critical point, channels that carry nothing split off exactly.

Let hidden space l have k_l directions that W_l or W_{l+1} touch and f_l = n_l − k_l that neither does. Rotations of
the free directions are a symmetry, so the Hessian splits (derived; checked against dense autograd Hessians):

- on the touched directions it is the Hessian of the network compressed to hidden sizes k_l;
- each free direction h of space l carries one copy of the block that couples W_{l+1}h with hᵀW_l through
  M_l = (W_L ⋯ W_{l+2})ᵀ G (W_{l-1} ⋯ W_1)ᵀ, whose eigenvalues are ± the singular values of M_l;
- everything else is zero.

With weight decay λ every eigenvalue is λ more. Critical points are balanced and the learned modes of G have size
λ s^(2/L−1), so that singular values λ of M_l belong to the learned channels: turning them into free ones is a symmetry
of the hidden space, at eigenvalue zero.

At a minimal critical point of depth ≥ 3 every M_l vanishes and only the r learned channels are left to look at: a
network of any width is certified at the price of one of width r, and multiplicities are counted, not estimated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from dlnphase.critical.hessian import DENSE, hessian_vector_product, smallest_eigenvalues
from dlnphase.critical.hostcost import HostCost
from dlnphase.networks.chain import Network, split
from dlnphase.networks.products import Layers, around_layers, product

TOUCHED = 1e-12  # directions with less than this of the largest layer's norm carry nothing


@dataclass(frozen=True)
class Curvature:
    """Lower end of the Hessian's spectrum at θ_c.

    Attributes:
        min_eigenvalue: the smallest eigenvalue.
        negative_eigenvalues: how many are below −threshold, free channels included.
        complete: whether that is all of them; if not, there are at least so many.
        residual: ‖Hv − λv‖ of the smallest eigenpair in the full network, where it can be written down there.
        threshold: eigenvalues above −threshold count as zero.
        direction: layers of the unit eigenvector in the full network, or None where there is no room for it.
        zero_eigenvalues: with weight decay, how many are within the threshold of zero, where all were counted.
    """

    min_eigenvalue: float
    negative_eigenvalues: int
    complete: bool
    residual: float
    threshold: float
    direction: Layers | None
    zero_eigenvalues: int | None = None


def curvature_at(
    weights: Layers, cost: HostCost, threshold: float, *, hidden: Sequence[int] | None = None, dense: int = DENSE
) -> Curvature:
    """Smallest eigenvalue of the Hessian of 𝓛, weight decay included, at these weights; the number of negative ones.

    Args:
        weights: W_1, …, W_L of a critical point.
        threshold: eigenvalues above minus this are zero.
        hidden: true hidden sizes, where the weights given are those of a reduced network; free channels count by them.
        dense: parameters up to which the compressed Hessian is diagonalised in full.
    """
    frames = touched_frames(weights)
    compressed = Network.of_arrays([frames[i + 1].T @ w @ frames[i] for i, w in enumerate(weights)])
    sizes = list(hidden) if hidden is not None else [w.shape[0] for w in weights[:-1]]
    decay = cost.decay.rate if cost.decay is not None else 0.0
    smallest, vector, negative, zero, complete, residual = decay, None, 0, 0, True, 0.0
    if compressed.theta.shape[1]:
        pairs = smallest_eigenvalues(compressed, cost.cost, threshold + decay, dense=dense)
        smallest, negative, complete, residual = pairs.smallest + decay, pairs.negative, pairs.complete, pairs.residual
        zero = 0 if pairs.values is None else int((np.abs(pairs.values + decay) <= threshold).sum())
        parts = split(torch.as_tensor(pairs.vector)[None], compressed.dims)
        vector = [frames[i + 1] @ part[0].numpy() @ frames[i].T for i, part in enumerate(parts)]
    for space, (m_left, m_values, m_right) in enumerate(_free_blocks(weights, cost), start=1):
        free = sizes[space - 1] - frames[space].shape[1]
        below = int((decay - m_values < -threshold).sum())
        negative += free * below
        zero += free * int((np.abs(decay - m_values) <= threshold).sum())
        if free > 0 and (below or decay) and decay - m_values[0] < smallest:
            smallest = decay - float(m_values[0])
            vector = _free_direction(weights, frames, space, m_left, m_right)
    if vector is None and smallest == decay:
        vector = _unit_anywhere(weights)
    if vector is not None:
        residual = max(residual, _residual(weights, cost, vector, smallest))
    counted = zero if decay and complete else None
    return Curvature(smallest, negative, complete, residual, threshold, vector, counted)


def touched_frames(weights: Layers) -> Layers:
    """Orthonormal bases (n_l, k_l) of the directions that a layer touches, for all spaces; the ends are kept whole."""
    size = max((float(np.linalg.norm(w, 2)) for w in weights), default=0.0)
    frames = [np.eye(weights[0].shape[1])]
    for lower, upper in pairwise(weights):
        u, s, _ = np.linalg.svd(np.hstack([lower, upper.T]), full_matrices=False)
        frames.append(u[:, s > TOUCHED * size])
    return [*frames, np.eye(weights[-1].shape[0])]


def _free_blocks(weights: Layers, cost: HostCost) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(top left vector, singular values, top right vector) of M_l for l = 1, …, L − 1."""
    g, (below, above) = cost.gradient(product(weights)), around_layers(weights)
    out = []
    for left, right in zip(above[1:], below[:-1], strict=True):  # W_L ⋯ W_{l+2} and W_{l-1} ⋯ W_1
        q_left, r_left = np.linalg.qr(left.T)
        q_right, r_right = np.linalg.qr(right)
        u, s, vt = np.linalg.svd(r_left @ g @ r_right.T)
        out.append((q_left @ u[:, 0], s, q_right @ vt[0]))
    return out


def _free_direction(weights: Layers, frames: Layers, space: int, left: np.ndarray, right: np.ndarray) -> Layers | None:
    """The unit direction that opens one free channel of a hidden space: W_{l+1} along a hᵀ, W_l along −h bᵀ."""
    n, k = frames[space].shape
    if k >= n:
        return None  # the reduced network has no free channel although the true one has
    h = free_channel(frames[space])
    out = [np.zeros_like(w) for w in weights]
    out[space] = np.outer(left, h) / np.sqrt(2)
    out[space - 1] = -np.outer(h, right) / np.sqrt(2)
    return out


def free_channel(frame: np.ndarray) -> np.ndarray:
    """A unit vector orthogonal to the k < n columns of an (n, k) frame."""
    n, k = frame.shape
    if k == 0:
        return np.eye(n)[0]
    index = int(np.argmin(np.sum(frame**2, axis=1)))  # the axis that the frame covers least
    h = np.eye(n)[index]
    for _ in range(2):
        h = h - frame @ (frame.T @ h)
        h /= np.linalg.norm(h)
    return h


def _unit_anywhere(weights: Layers) -> Layers:
    size = sum(w.size for w in weights)
    return [np.full(w.shape, size**-0.5) for w in weights]


def _residual(weights: Layers, cost: HostCost, direction: Layers, value: float) -> float:
    network = Network.of_arrays(weights)
    v = torch.cat([torch.as_tensor(np.ascontiguousarray(d)).flatten() for d in direction])[None]
    decay = cost.decay.rate if cost.decay is not None else 0.0
    return float(torch.linalg.norm(hessian_vector_product(network, cost.cost, v) + (decay - value) * v))

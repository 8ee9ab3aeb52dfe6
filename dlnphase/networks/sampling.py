"""Initial weights.

θ_0 has i.i.d. N(0, σ²) entries with σ² = w^(−γ). The ``full`` representation draws them all; the
``krylov`` one (``dlnphase.networks.krylov``) draws only what gradients can ever touch, with the same law.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlnphase.backend import Backend, stream
from dlnphase.errors import InputError
from dlnphase.networks.chain import Network, parameter_count
from dlnphase.networks.products import balanced

# Widths are sampled as floating-point numbers of entries: above, w and w + 1 draw the same network to 1e-12.
WIDTH_LIMIT = 10**12


def sigma_of(width: float, gamma: float) -> float:
    """σ = w^(−γ/2), the standard deviation of every initial weight."""
    return float(width) ** (-gamma / 2)


def alpha_of(width: float, gamma: float) -> float:
    """α = σ√w = w^((1−γ)/2), the size of one layer seen by a unit vector."""
    return float(width) ** ((1 - gamma) / 2)


def hidden_dims(depth: int, width: int, shape: tuple[int, int]) -> tuple[int, ...]:
    """(d_in, w, …, w, d_out) as Python integers for a network of that depth; shape is (d_out, d_in).

    Raises:
        InputError: for a depth below 1 or a width outside 1 … 1e12.
    """
    if depth < 1:
        raise InputError(f"depth: found {depth}, expected an integer of at least 1")
    if not 1 <= width <= WIDTH_LIMIT:
        raise InputError(f"width: found {width}, expected an integer from 1 to {WIDTH_LIMIT:.0e}")
    return (int(shape[1]), *([int(width)] * (depth - 1)), int(shape[0]))


def gaussian_network(
    dims: Sequence[int], sigma: float, backend: Backend, *, seed: int = 0, members: Sequence[int] = (0,)
) -> Network:
    """Full networks with i.i.d. N(0, σ²) entries, one per member, each from its own stream.

    Args:
        dims: (n_0, …, n_L).
        sigma: standard deviation σ of the entries.
        members: which members of the endless batch of this seed; member k is the same whatever the others are.
    """
    count = parameter_count(dims)
    draws = np.empty((len(members), count))
    for row, member in enumerate(members):
        stream(seed, "weights", member).standard_normal(out=draws[row])
    draws *= sigma
    return Network(backend.tensor(draws), dims)


def balanced_network(
    matrix: np.ndarray, dims: Sequence[int], backend: Backend, *, rotation_seed: int | None = None
) -> Network:
    """Balanced factors of a matrix: W_L = U S^(1/L) E, …, W_1 = E S^(1/L) Vᵀ with A = matrix and all D_l = 0.

    Args:
        matrix: (d_out, d_in); its rank may not exceed the smallest hidden size.
        rotation_seed: rotate the hidden spaces at random by this seed; None leaves the modes on the first axes.
    """
    u, s, vt = np.linalg.svd(np.asarray(matrix, dtype=float), full_matrices=False)
    rank = int((s > s[0] * 1e-14).sum()) if s.size and s[0] > 0 else 0
    smallest = min(dims)
    if rank > smallest:
        raise InputError(f"width: a matrix of rank {rank} does not fit through a layer of width {smallest}")
    depth = len(dims) - 1
    frames = [vt[:rank].T]
    for index, n in enumerate(dims[1:-1]):
        frame = np.eye(n, rank)
        if rotation_seed is not None:
            frame = np.linalg.qr(stream(rotation_seed, "weights", 1, index).standard_normal((n, rank)))[0]
        frames.append(frame)
    frames.append(u[:, :rank])
    return Network.from_weights([backend.tensor(w) for w in balanced(frames, s[:rank] ** (1 / depth))])

"""Dead directions: the smallest change of k consecutive layers after which they annihilate m given directions.

M_k ⋯ M_1 V = 0 holds iff subspaces E_1, …, E_{k−1} of dimension m exist with M_1 V ⊂ E_1, M_j E_{j−1} ⊂ E_j and
M_k E_{k−1} = 0. For given E the cheapest change is a projection, of squared size

    ‖M_1V‖² − ‖E_1ᵀM_1V‖² + Σ_j (‖M_jE_{j−1}‖² − ‖E_jᵀM_jE_{j−1}‖²) + ‖M_kE_{k−1}‖².

For k = 2 its minimum is ‖M_1V‖² plus the m smallest eigenvalues of M_2ᵀM_2 − M_1VVᵀM_1ᵀ: exact. For k > 2 the E_j are
optimised one after the other until nothing moves (derived for this project): the first sweeps exactly; in wide layers
the later ones by one Rayleigh–Ritz step over E_j, its residual and its last move (Knyazev 2001), since the problem of
each E_j changes with its neighbours anyway.

For i.i.d. N(0, σ²) layers of width w and one direction the minimum tends to σ²w/k: sharing the work among k layers is k
times cheaper than killing in one (k = 2: the smallest eigenvalue of M − yyᵀ, M Marchenko–Pastur, y a random unit
vector, is −1/2; k = 3, 4: measured).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DENSE_EIGEN = 400  # above this hidden size, eigenvectors come from a block Krylov space
BLOCKS = 24  # of that space: more cost products with a layer, and digits come at a geometric rate
SWEEPS, SWEEP_TOLERANCE = 100, 3e-5  # it starts a search and ranks candidates: 400 and 1e-7 changed no distance
LEAST = 40  # sweeps before a small gain is taken for the end: after ten there may be a plateau
EXACT_SWEEPS = 3  # without these (and EXACT_BELOW) saddles of four layers were found up to 9 % farther
EXACT_BELOW = 40  # hidden size up to which eigenvectors cost no more than a Rayleigh–Ritz step


@dataclass(frozen=True)
class Kill:
    """Layers that annihilate the given directions, and how far they are.

    Attributes:
        layers: changed M_1, …, M_k, each (B, n_j, n_{j−1}).
        frames: orthonormal bases of V, E_1, …, E_{k−1}, each (B, n_j, m).
        squared: squared size of the change, shape (B,).
    """

    layers: list[Tensor]
    frames: list[Tensor]
    squared: Tensor


def kill(layers: Sequence[Tensor], directions: Tensor) -> Kill:
    """Cheapest change of M_1, …, M_k with M_k ⋯ M_1 V = 0.

    Args:
        layers: M_1, …, M_k, shapes (B, n_j, n_{j−1}).
        directions: V, shape (B, n_0, m), orthonormal columns.
    """
    frames = [directions]
    current = directions
    for layer in layers[:-1]:
        current = torch.linalg.qr(layer @ current)[0]
        frames.append(current)
    k = len(layers)
    moves: list[Tensor | None] = [None] * k
    previous: Tensor | None = None
    for sweep in range(1 if k <= 2 else SWEEPS):
        for j in range(1, k):
            above, below = layers[j], layers[j - 1] @ frames[j - 1]
            if j + 1 < k:
                above = above - frames[j + 1] @ (frames[j + 1].mT @ above)
            if sweep < EXACT_SWEEPS or below.shape[1] <= max(EXACT_BELOW, 3 * below.shape[2]):
                frames[j] = bottom_subspace(above, below)
            else:
                frames[j], moves[j] = _lowered(above, below, frames[j], moves[j])
        squared = _cost(layers, frames)
        if previous is not None and sweep >= LEAST and bool(((previous - squared) <= SWEEP_TOLERANCE * squared).all()):
            break
        previous = squared
    out = []
    for j in range(k):
        image = layers[j] @ frames[j]
        if j + 1 < k:
            image = image - frames[j + 1] @ (frames[j + 1].mT @ image)
        out.append(layers[j] - image @ frames[j].mT)
    return Kill(out, frames, _cost(layers, frames))


def _cost(layers: Sequence[Tensor], frames: Sequence[Tensor]) -> Tensor:
    total = torch.zeros_like(layers[0][:, 0, 0])
    for j, layer in enumerate(layers):
        image = layer @ frames[j]
        if j + 1 < len(layers):
            image = image - frames[j + 1] @ (frames[j + 1].mT @ image)
        total = total + (image**2).sum((1, 2))
    return total


def _lowered(above: Tensor, below: Tensor, frame: Tensor, move: Tensor | None) -> tuple[Tensor, Tensor]:
    """A frame with a lower trace of FᵀHF, H = aboveᵀabove − below·belowᵀ, and how it moved, both (B, n, m).

    Args:
        above, below: as in :func:`bottom_subspace`.
        frame: where to begin.
        move: how it moved the last time.
    """
    image = above.mT @ (above @ frame) - below @ (below.mT @ frame)
    directions = [frame, image - frame @ (frame.mT @ image), *([] if move is None else [move])]
    basis = torch.linalg.qr(torch.cat(directions, 2))[0]
    small_above, small_below = above @ basis, basis.mT @ below
    values = small_above.mT @ small_above - small_below @ small_below.mT
    new = basis @ torch.linalg.eigh(values)[1][:, :, : frame.shape[2]]
    return new, new - frame @ (frame.mT @ new)


def bottom_subspace(above: Tensor, below: Tensor) -> Tensor:
    """Eigenvectors of aboveᵀabove − below·belowᵀ for its m smallest eigenvalues, shape (B, n, m).

    Args:
        above: (B, p, n).
        below: (B, n, m).
    """
    n, m = below.shape[1], below.shape[2]
    if m >= n:
        return torch.eye(n, dtype=below.dtype, device=below.device).expand(below.shape[0], n, n)
    if n <= max(DENSE_EIGEN, BLOCKS * m):
        matrix = above.mT @ above - below @ below.mT
        return torch.linalg.eigh(matrix)[1][:, :, :m]
    # The wanted vectors are (AᵀA − λ)⁻¹·below: a block Krylov space of AᵀA on below holds them to a geometric error.
    basis = torch.linalg.qr(below)[0]
    block = basis
    for _ in range(BLOCKS - 1):
        block = above.mT @ (above @ block)
        for _ in range(2):
            block = block - basis @ (basis.mT @ block)
        block = torch.linalg.qr(block)[0]
        basis = torch.cat([basis, block], 2)
    small_above, small_below = above @ basis, basis.mT @ below
    matrix = small_above.mT @ small_above - small_below @ small_below.mT
    return basis @ torch.linalg.eigh(matrix)[1][:, :, :m]

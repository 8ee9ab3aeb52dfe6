"""Where the search for a nearest minimum begins when θ_0 itself is no good start.

For small initialisations the nearest global minimum is θ_0 with balanced factors of a minimiser laid over it, the
hidden spaces of the factors being turned towards θ_0 (an orthogonal Procrustes problem per hidden space).
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlnphase.networks.chain import Network

SWEEPS = 40
SWEEP_TOLERANCE = 1e-9


def balanced_start(network: Network, matrix: Tensor, *, backward: bool = False) -> Network:
    """θ_0 with its part along aligned frames replaced by balanced factors of a matrix.

    W_l' = (1 − Π_l) W_l (1 − Π_{l−1}) + X_l S^{1/L} X_{l−1}ᵀ, Π_l = X_l X_lᵀ, for matrix = U S Vᵀ, X_0 = V, X_L = U and
    hidden frames X_l that maximise Σ_l ⟨W_l, X_l S^{1/L} X_{l−1}ᵀ⟩ locally.

    Args:
        network: θ_0, B members.
        matrix: (d_out, d_in), or (B, d_out, d_in); of more modes than fit through the narrowest layer the leading ones.
        backward: begin the alignment from the output instead of the input.
    """
    if matrix.ndim == 2:
        matrix = matrix.expand(network.batch, *matrix.shape)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    rank = int((s > 1e-12 * s.amax().clamp_min(torch.finfo(s.dtype).tiny)).sum(1).amax())
    rank = min(max(rank, 1), *network.dims)  # modes at round-off may be more than a narrow layer lets through
    u, s, v = u[:, :, :rank], s[:, :rank], vh[:, :rank].mT
    root = s ** (1 / network.depth)
    frames = align_frames(network, v, u, root, backward=backward)
    return overlay(network, frames, root)


def overlay(network: Network, frames: list[Tensor], root: Tensor) -> Network:
    """W_l' = (1 − Π_l) W_l (1 − Π_{l−1}) + X_l diag(root) X_{l−1}ᵀ."""
    out = []
    for index, layer in enumerate(network.weights):
        below, above = frames[index], frames[index + 1]
        rest = layer - (layer @ below) @ below.mT
        rest = rest - above @ (above.mT @ rest)
        out.append(rest + (above * root.unsqueeze(1)) @ below.mT)
    return Network.from_weights(out)


def align_frames(
    network: Network, first: Tensor, last: Tensor, root: Tensor, *, backward: bool = False, sweeps: int = SWEEPS
) -> list[Tensor]:
    """Orthonormal frames X_0 = first, X_1, …, X_L = last with ⟨W_l, X_l diag(root) X_{l−1}ᵀ⟩ summed over l at a local
    maximum.

    Args:
        first, last: (B, d_in, k) and (B, d_out, k) with orthonormal columns.
        root: (B, k), weights of the columns.
    """
    w, depth = network.weights, network.depth
    frames: list[Tensor] = [first] + [first] * (depth - 1) + [last]
    if backward:
        for index in range(depth - 1, 0, -1):
            frames[index] = polar(w[index].mT @ frames[index + 1])
    else:
        for index in range(1, depth):
            frames[index] = polar(w[index - 1] @ frames[index - 1])
    weight = root.unsqueeze(1)
    previous: Tensor | None = None
    for _ in range(sweeps):
        gain = torch.zeros_like(root[:, 0])
        for index in range(1, depth):
            pull = (w[index - 1] @ (frames[index - 1] * weight) + w[index].mT @ (frames[index + 1] * weight)) * 1.0
            frames[index] = polar(pull)
            gain = gain + (pull * frames[index]).sum((1, 2))
        if previous is not None and bool(((gain - previous).abs() <= SWEEP_TOLERANCE * gain.abs()).all()):
            break
        previous = gain
    return frames


def polar(x: Tensor) -> Tensor:
    """The nearest matrix with orthonormal columns, shape (B, n, k) with n ≥ k."""
    q, r = torch.linalg.qr(x)
    u, _, vh = torch.linalg.svd(r)
    return q @ (u @ vh)

"""Where the search for a nearest minimum begins when θ_0 itself is no good start.

For small initialisations the nearest global minimum is θ_0 with balanced factors of a minimiser laid over it, the
hidden spaces of the factors being turned towards θ_0 (an orthogonal Procrustes problem per hidden space).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlnphase.backend import stream
from dlnphase.networks.chain import Network

DRAWS = 8  # frames drawn where the alignment may have several maxima
HIGHER = 1e-6  # relative gain of an alignment that is another one
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
    u, root, v = _factors(network, matrix)
    frames, _ = align_frames(network, carried(network, v, u, backward=backward), root)
    return overlay(network, frames, root)


def drawn_start(network: Network, matrix: Tensor) -> tuple[Network, Tensor]:
    """As :func:`balanced_start`, from the best of several random frames: three layers and more have local maxima.

    Returns (start, whether its frames are aligned better than those from both ends, boolean (B,)).
    """
    u, root, v = _factors(network, matrix)
    best, highest = align_frames(network, carried(network, v, u), root)
    _, other = align_frames(network, carried(network, v, u, backward=True), root)
    before = torch.maximum(highest, other)
    rng = stream(0, "search")
    for _ in range(DRAWS):
        hidden = [torch.as_tensor(rng.standard_normal((n, root.shape[1]))).to(u) for n in network.hidden]
        drawn = [v, *(polar(x).expand(len(u), -1, -1) for x in hidden), u]
        frames, gain = align_frames(network, drawn, root)
        better = (gain > highest).view(-1, 1, 1)
        best = [torch.where(better, new, old) for new, old in zip(frames, best, strict=True)]
        highest = torch.maximum(highest, gain)
    return overlay(network, best, root), highest > before + HIGHER * before.abs()


def _factors(network: Network, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(U, S^{1/L}, V) of the modes of a matrix that fit through the network, for every member."""
    if matrix.ndim == 2:
        matrix = matrix.expand(network.batch, *matrix.shape)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    rank = int((s > 1e-12 * s.amax().clamp_min(torch.finfo(s.dtype).tiny)).sum(1).amax())
    rank = min(max(rank, 1), *network.dims)  # modes at round-off may be more than a narrow layer lets through
    return u[:, :, :rank], s[:, :rank] ** (1 / network.depth), vh[:, :rank].mT


def carried(network: Network, first: Tensor, last: Tensor, *, backward: bool = False) -> list[Tensor]:
    """Frames of all spaces: those that θ_0 carries the input's to, layer by layer, or back from the output's.

    Args:
        first, last: (B, d_in, k) and (B, d_out, k) with orthonormal columns.
    """
    w, depth = network.weights, network.depth
    frames: list[Tensor] = [first] + [first] * (depth - 1) + [last]
    if backward:
        for index in range(depth - 1, 0, -1):
            frames[index] = polar(w[index].mT @ frames[index + 1])
    else:
        for index in range(1, depth):
            frames[index] = polar(w[index - 1] @ frames[index - 1])
    return frames


def overlay(network: Network, frames: list[Tensor], root: Tensor) -> Network:
    """W_l' = (1 − Π_l) W_l (1 − Π_{l−1}) + X_l diag(root) X_{l−1}ᵀ."""
    out = []
    for index, layer in enumerate(network.weights):
        below, above = frames[index], frames[index + 1]
        rest = layer - (layer @ below) @ below.mT
        rest = rest - above @ (above.mT @ rest)
        out.append(rest + (above * root.unsqueeze(1)) @ below.mT)
    return Network.from_weights(out)


def align_frames(network: Network, begin: Sequence[Tensor], root: Tensor) -> tuple[list[Tensor], Tensor]:
    """Orthonormal hidden frames X_1, …, X_{L−1} with ⟨W_l, X_l diag(root) X_{l−1}ᵀ⟩ summed over l at a local maximum.

    Args:
        begin: X_0, …, X_L, each (B, n_l, k) with orthonormal columns; the ends stay.
        root: (B, k), weights of the columns.

    Returns (frames, that sum of shape (B,)).
    """
    w, depth, frames = network.weights, network.depth, list(begin)
    weight = root.unsqueeze(1)
    previous: Tensor | None = None
    for _ in range(SWEEPS):
        gain = torch.zeros_like(root[:, 0])
        for index in range(1, depth):
            pull = w[index - 1] @ (frames[index - 1] * weight) + w[index].mT @ (frames[index + 1] * weight)
            frames[index] = polar(pull)
            gain = gain + (pull * frames[index]).sum((1, 2))
        if previous is not None and bool(((gain - previous).abs() <= SWEEP_TOLERANCE * gain.abs()).all()):
            break
        previous = gain
    ends = zip(w, frames[1:], frames[:-1], strict=True)
    total = sum(((above * weight) * (layer @ below)).sum((1, 2)) for layer, above, below in ends)
    assert isinstance(total, Tensor)
    return frames, total


def polar(x: Tensor) -> Tensor:
    """The nearest matrix with orthonormal columns, shape (B, n, k) with n ≥ k."""
    q, r = torch.linalg.qr(x)
    u, _, vh = torch.linalg.svd(r)
    return q @ (u @ vh)

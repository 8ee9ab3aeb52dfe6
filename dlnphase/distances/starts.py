"""Where the search for a nearest minimum begins when θ_0 itself is no good start.

For small initialisations the nearest global minimum is θ_0 with balanced factors of a minimiser laid over it, the
hidden spaces of the factors being turned towards θ_0 (an orthogonal Procrustes problem per hidden space).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from dlnphase.backend import stream
from dlnphase.networks.batch import Batched
from dlnphase.networks.chain import Network
from dlnphase.networks.products import balanced

DRAWS = 8  # frames drawn where the alignment may have several maxima
HIGHER = 1e-6  # relative difference of the gain of an alignment that is another one
SWEEPS = 40  # of an alignment, at most; the search goes on from wherever it stands
SWEEP_TOLERANCE = 1e-9  # … which is over when its gain stands still: below HIGHER, so that maxima are told apart


@dataclass(frozen=True)
class Aligned(Batched):
    """Balanced factors of a matrix = U S Vᵀ, turned towards each member of a batch.

    Attributes:
        frames: X_0 = V, X_1, …, X_{L−1}, X_L = U, each (B, n_l, k) with orthonormal columns, for which
            Σ_l ⟨W_l, X_l S^{1/L} X_{l−1}ᵀ⟩ is a local maximum.
        root: S^{1/L}, shape (B, k).
        other: where the frames are others than those told before them: aligned better or worse, boolean (B,).
    """

    frames: list[Tensor]
    root: Tensor
    other: Tensor

    def start(self, network: Network) -> Network:
        """θ_0 with its part along the frames replaced by the factors: :func:`overlay`."""
        return overlay(network, self.frames, self.root)


def distinct(draws: Sequence[int]) -> tuple[list[int], Tensor]:
    """The first member of each draw, and for every member the place of its draw among those.

    Args:
        draws: members of equal number have the same weights up to a factor.
    """
    place: dict[int, int] = {}
    rows = [place.setdefault(draw, len(place)) for draw in draws]
    return [rows.index(i) for i in range(len(place))], torch.tensor(rows)


def aligned_factors(network: Network, matrix: Tensor, draws: Sequence[int]) -> list[Aligned]:
    """Balanced factors of a matrix, aligned with θ_0 from the input, and, as three layers and more have local maxima,
    from the output and from the best of several random frames.

    Args:
        network: θ_0, B members.
        matrix: (d_out, d_in); of more modes than fit through the narrowest layer the leading ones.
        draws: members of equal number have the same weights up to a factor: alignment does not depend on that.
    """
    firsts, rows = distinct(draws)
    part = network.select(firsts)
    u, root, v = factors(part, matrix.expand(part.batch, *matrix.shape))
    begin = [carried(part, v, u)]
    if network.depth > 2:
        rng = stream(0, "search")
        begin.append(carried(part, v, u, backward=True))
        for _ in range(DRAWS):
            hidden = [torch.as_tensor(rng.standard_normal((n, root.shape[1]))).to(u) for n in network.hidden]
            begin.append([v, *(polar(x).expand(len(u), -1, -1) for x in hidden), u])
    frames, gain = align_frames(part, [torch.stack(each, 1) for each in zip(*begin, strict=True)], root)
    every = torch.ones_like(gain[:, 0], dtype=torch.bool)
    chosen = [(torch.zeros_like(every, dtype=torch.long), every)]
    if network.depth > 2:
        forward, backward = gain[:, 0], gain[:, 1]
        chosen.append((torch.ones_like(chosen[0][0]), (backward - forward).abs() > HIGHER * forward.abs()))
        before, (highest, best) = gain[:, :2].amax(1), gain[:, 2:].max(1)
        chosen.append((best + 2, highest > before + HIGHER * before.abs()))
    return [Aligned([f[rows, which[rows]] for f in frames], root[rows], new[rows]) for which, new in chosen]


def factors(network: Network, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(U, S^{1/L}, V) of the modes that fit through the network, for a matrix a member."""
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
    for layer, factor, below, above in zip(network.weights, balanced(frames, root), frames, frames[1:], strict=False):
        rest = layer - (layer @ below) @ below.mT
        out.append(rest - above @ (above.mT @ rest) + factor)
    return Network.from_weights(out)


def align_frames(network: Network, begin: Sequence[Tensor], root: Tensor) -> tuple[list[Tensor], Tensor]:
    """Orthonormal hidden frames X_1, …, X_{L−1} with ⟨W_l, X_l diag(root) X_{l−1}ᵀ⟩ summed over l at a local maximum.

    Args:
        begin: X_0, …, X_L, each (B, m, n_l, k) with orthonormal columns, m starts a member; the ends stay.
        root: (B, k), weights of the columns.

    Returns (frames, that sum of shape (B, m)).
    """
    w, depth, frames = network.weights, network.depth, list(begin)
    weight = root[:, None, None]
    previous: Tensor | None = None
    for _ in range(SWEEPS):
        gain = torch.zeros_like(frames[0][:, :, 0, 0])
        for index in range(1, depth):
            pull = _applied(w[index - 1], frames[index - 1] * weight)
            pull = pull + _applied(w[index].mT, frames[index + 1] * weight)
            frames[index] = polar(pull)
            gain = gain + (pull * frames[index]).sum((2, 3))
        if previous is not None and bool(((gain - previous).abs() <= SWEEP_TOLERANCE * gain.abs()).all()):
            break
        previous = gain
    ends = zip(w, frames[1:], frames[:-1], strict=True)
    parts = (((above * weight) * _applied(layer, below)).sum((2, 3)) for layer, above, below in ends)
    return frames, reduce(torch.add, parts)


def _applied(layer: Tensor, frames: Tensor) -> Tensor:
    """A layer (B, n, n') times frames (B, m, n', k), as one product a member."""
    batch, count, rows, columns = frames.shape
    flat = layer @ frames.transpose(1, 2).reshape(batch, rows, count * columns)
    return flat.view(batch, -1, count, columns).transpose(1, 2)


def polar(x: Tensor) -> Tensor:
    """The nearest matrix with orthonormal columns, shape (…, n, k) with n ≥ k."""
    q, r = torch.linalg.qr(x)
    u, _, vh = torch.linalg.svd(r)
    return q @ (u @ vh)

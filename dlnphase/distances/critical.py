"""Critical points of the loss seen in matrix space: what is kept, and which directions have to be dead.

A critical point θ that is no minimum has G = ∇C(A) ≠ 0, G Aᵀ = 0, Aᵀ G = 0 (in the sense of column and row spaces) and,
in the networks considered here, U_Rᵀ W_L ⋯ W_a = 0 and W_b ⋯ W_1 V_R = 0 for some a > b, where U_R and V_R span the
column and row space of G. A :class:`CriticalMatrix` is one such A. Which there are depends on the cost:

- factorization and regression: A keeps a subset of the modes of Â Σ^{1/2} (reduced-rank regression), Σ = 1 for the
  former;
- completion and sensing: A = 0, minima of C at fixed rank, and critical pairs found by the conjugate cost
  (:mod:`dlnphase.distances.conjugate`).  These need not be all of them, so the distances are upper bounds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlnphase.backend import stream
from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.costs.round_off import indistinct
from dlnphase.distances.completions import fixed_rank_point, is_minimiser
from dlnphase.distances.conjugate import LARGEST, critical_pairs, same

DRAWN = 4  # matrices from which minima of a given rank are looked for, beside Â
FAINT = 1e-6  # singular values of ∇C below this, over the largest, are left by the search for a critical point


@dataclass(frozen=True, eq=False)
class CriticalMatrix:
    """One critical matrix of a cost.

    Attributes:
        name: for people, such as ``modes 1, 2 kept``.
        matrix: A, shape (d_out, d_in).
        left, right: U_R (d_out, m) and V_R (d_in, m), singular vectors of ∇C(A): directions that have to be dead.
        strengths: the singular values that go with them, shape (m,), largest 1.
        left_kept, right_kept: bases of what is fitted beside them, (d_out, p) and (d_in, q).
        basis: orthonormal columns over (p·q) entries of U_cᵀ A V_c that are fixed; None where all are.
        strongest: largest kept singular value, 0 when nothing is kept (for bounds).
    """

    name: str
    matrix: Tensor
    left: Tensor
    right: Tensor
    strengths: Tensor
    left_kept: Tensor
    right_kept: Tensor
    basis: Tensor | None
    strongest: float

    @property
    def dead(self) -> int:
        """m, the rank of ∇C there."""
        return self.left.shape[1]

    @property
    def signature(self) -> tuple[int, ...]:
        """Candidates with the same signature can be searched in one batch."""
        size = -1 if self.basis is None else self.basis.shape[1]
        return (self.dead, self.left_kept.shape[1], self.right_kept.shape[1], size)


def critical_matrices(cost: QuadraticCost, *, limit: int = 32) -> list[CriticalMatrix]:
    """Critical matrices of a cost that may be nearest to some initialisation, most of them dead first.

    Args:
        limit: at most this many single modes and this many leading groups (or this many of each rank of ∇C) are listed.
    """
    coordinates = cost.hessian.modes(cost.resolution)
    return _general(cost, limit) if coordinates is None else _mode_subsets(cost, *coordinates, limit)


def _mode_subsets(cost: QuadraticCost, measured: Tensor, root: Tensor, limit: int) -> list[CriticalMatrix]:
    """Every single mode removed, and the m strongest modes removed for every m.

    Args:
        measured, root: (d_in, m) and (m,), coordinates A·measured·root in which Eckart and Young's theorem holds.
    """
    inverse = 1 / root
    u, s, vh = torch.linalg.svd(cost.minimizer @ measured * root, full_matrices=False)
    rank = int((s > indistinct(cost.resolution) * s[0]).sum()) if float(s[0]) > 0 else 0
    sets = [tuple(range(m)) for m in range(rank, 1, -1)][:limit]
    sets += [(i,) for i in range(rank - 1, -1, -1)][:limit]
    out = []
    for removed in sets:
        index = list(removed)
        rest = [i for i in range(rank) if i not in removed]
        matrix = (u[:, rest] * s[rest]) @ (vh[rest] * inverse) @ measured.T
        gradient = (u[:, index] * s[index]) @ (vh[index] * root) @ measured.T
        left, strengths, right = _leading(gradient, len(index))
        right_kept = measured @ _complement(measured.T @ right)
        strongest = float(torch.linalg.matrix_norm(matrix, 2)) if rest else 0.0
        name = "all modes dead" if not rest else f"mode{'s' if len(index) > 1 else ''} {_words(index)} dead"
        out.append(CriticalMatrix(name, matrix, left, right, strengths, _complement(left), right_kept, None, strongest))
    return out


def _general(cost: QuadraticCost, limit: int) -> list[CriticalMatrix]:
    """A = 0, minima of C at fixed rank, and critical pairs of the conjugate cost, at most ``limit`` of each rank of
    ∇C."""
    zero = torch.zeros_like(cost.minimizer)
    found = [zero]
    for rank in range(1, min(cost.shape)):
        points = [fixed_rank_point(cost, rank, start=start) for start in _starts(cost, rank)]
        minima = [is_minimiser(cost, point) for point in points]
        found += [point for point, least in zip(points, minima, strict=True) if not least]
        if any(minima):
            break  # minima of C at higher ranks are minima; other critical points of theirs are left to the pairs
    found += [torch.as_tensor(pair.matrix).to(zero) for pair in critical_pairs(cost)]
    out: list[CriticalMatrix] = []
    gradients: list[np.ndarray] = []
    for point in found:
        gradient = cost.gradient(point[None])[0]
        seen = gradient.detach().cpu().numpy()
        if any(same(seen, other) for other in gradients):
            continue
        matrix = _critical_matrix(cost, point, gradient)
        if matrix is not None:
            gradients.append(seen)
            out.append(matrix)
    out.sort(key=lambda m: -m.dead)
    counts: Counter[int] = Counter()
    kept = []
    for candidate in out:
        counts[candidate.dead] += 1
        if counts[candidate.dead] <= limit:
            kept.append(candidate)
    return kept


def _starts(cost: QuadraticCost, rank: int) -> list[Tensor]:
    """Where minima at fixed rank are looked for: Â, and drawn matrices of its size, since there may be several."""
    a = cost.minimizer
    if a.numel() > LARGEST:
        return [a]
    drawn = stream(0, "search", rank).standard_normal((DRAWN, *cost.shape))
    scale = float(a.norm()) / a.numel() ** 0.5
    return [a, *(scale * torch.as_tensor(x).to(a) for x in drawn)]


def _critical_matrix(cost: QuadraticCost, point: Tensor, gradient: Tensor) -> CriticalMatrix | None:
    """The structure of a critical point, or None of a point that does not vanish where ∇C is not 0, and so is none."""
    spectrum = torch.linalg.svdvals(gradient)
    left, strengths, right = _leading(gradient, int((spectrum > FAINT * spectrum[0]).sum()))
    # Only the exact structure is kept: A has to vanish on the dead directions.
    matrix = point - left @ (left.mT @ point)
    matrix = matrix - (matrix @ right) @ right.mT
    if float((matrix - point).norm()) > FAINT * float(point.norm()):
        return None
    left_kept, right_kept = _complement(left), _complement(right)
    sizes = torch.linalg.svdvals(matrix)
    rank = int((sizes > indistinct(cost.resolution) * sizes[0]).sum()) if float(sizes[0]) > 0 else 0
    dead = left.shape[1]
    return CriticalMatrix(
        "rank 0" if rank == 0 else f"rank {rank}, {dead} direction{'s' if dead > 1 else ''} dead",
        matrix,
        left,
        right,
        strengths,
        left_kept,
        right_kept,
        _reduced_basis(cost, left_kept, right_kept),
        float(sizes[0]),
    )


def _reduced_basis(cost: QuadraticCost, left: Tensor, right: Tensor) -> Tensor | None:
    """Orthonormal basis of the measured functionals seen by X ↦ U_c X V_cᵀ, shape (p·q, k); None for all."""
    measured = cost.measured()
    size = left.shape[1] * right.shape[1]
    if measured is None or size == 0:
        return None
    d_out, d_in = cost.shape
    seen = left.mT @ measured.T.reshape(-1, d_out, d_in) @ right
    u, s, _ = torch.linalg.svd(seen.flatten(1).T, full_matrices=False)
    rank = int((s > indistinct(cost.resolution)).sum())
    return None if rank == size else u[:, :rank].contiguous()


def _leading(matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The leading singular vectors and relative singular values of a matrix."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :count], s[:count] / s[0], vh[:count].mT


def _complement(frame: Tensor) -> Tensor:
    """Orthonormal basis of the orthogonal complement of orthonormal columns."""
    return torch.linalg.qr(frame, mode="complete")[0][:, frame.shape[1] :]


def _words(indices: list[int]) -> str:
    if len(indices) > 2 and indices == list(range(indices[0], indices[-1] + 1)):
        return f"{indices[0] + 1}–{indices[-1] + 1}"
    return ", ".join(str(i + 1) for i in indices)

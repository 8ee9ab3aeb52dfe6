"""Solutions of (JJᵀ)x = r for stacked equations on chains of layers, by what the chains share.

Equations on disjoint layers do not meet in JJᵀ, and those of one chain of at most two layers M_2M_1Y have there

    X ↦ M_2M_2ᵀ X S + X G,   S = Y_1ᵀY_1, G = Y_2ᵀY_2, Y_2 = M_1Y_1,

a Sylvester operator. In the eigenvectors of G against S it falls apart into c systems (M_2M_2ᵀ + μ_j)x_j = r_j: c·n³
where Cholesky's factorisation of the whole takes (nc)³. What runs through all layers is eliminated last, by its Schur
complement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

RIDGES = (1e-14, 1e-12, 1e-10)  # the least that makes a singular gram matrix definite: more would blur the projection
INVERTED = 32  # equations up to which the inverse is formed: it is asked for several times


class Inverse(Protocol):
    """(JJᵀ)⁻¹ of some of the equations."""

    def __call__(self, r: Tensor) -> Tensor:
        """x for columns r of shape (B, m, k)."""
        ...


class Cholesky:
    """A factorised gram matrix: least squares where equations repeat each other, NaN where even a ridge fails.

    Args:
        gram: shape (B, m, m).
        diagonal: sizes against which a pivot counts as zero, shape (B, m); those of ``gram`` itself where not given.
    """

    def __init__(self, gram: Tensor, diagonal: Tensor | None = None) -> None:
        diagonal = gram.diagonal(dim1=1, dim2=2) if diagonal is None else diagonal
        self.scale = torch.where(diagonal > 0, diagonal, 1.0).rsqrt().unsqueeze(2)
        scaled = gram * self.scale * self.scale.mT
        self.factor, info = torch.linalg.cholesky_ex(scaled)
        self.inverse: Tensor | None = None
        if bool((info > 0).any()):
            self._repair(scaled, info)
        elif gram.shape[1] <= INVERTED:
            self.inverse = torch.cholesky_inverse(self.factor)

    def _repair(self, scaled: Tensor, info: Tensor) -> None:
        """Equations that repeat each other (but agree): a ridge at round-off picks the least-squares solution."""
        eye = torch.eye(scaled.shape[1], dtype=scaled.dtype, device=scaled.device)
        for ridge in RIDGES:
            bad = info > 0
            again, info_again = torch.linalg.cholesky_ex(scaled[bad] + ridge * eye)
            self.factor[bad], info = again, info.clone()
            info[bad] = info_again
            if not bool((info > 0).any()):
                break
        self.factor = torch.where((info > 0)[:, None, None], eye * torch.nan, self.factor)

    def __call__(self, r: Tensor) -> Tensor:
        """x for columns r of shape (B, m, k)."""
        scaled = self.scale * r
        x = torch.cholesky_solve(scaled, self.factor) if self.inverse is None else self.inverse @ scaled
        return x * self.scale


class Sylvester:
    """The inverse of X ↦ K X S + X G on row-major X of shape (n, c), K and G positive semidefinite, S definite.

    Args:
        k: shape (B, n, n), or None for the equations of a single layer, X ↦ X S (G is not asked for then).
        s, g: shape (B, c, c).
    """

    def __init__(self, k: Tensor | None, s: Tensor, g: Tensor) -> None:
        self.columns = s.shape[1]
        self.left: Tensor | None = None
        self.factors: Tensor | None = None
        root, self.failed = torch.linalg.cholesky_ex(s)  # S = C Cᵀ
        root = torch.where(
            (self.failed > 0)[:, None, None], torch.eye(self.columns, dtype=s.dtype, device=s.device), root
        )
        if k is None:
            eye = torch.eye(self.columns, dtype=s.dtype, device=s.device).expand_as(s)
            self.right = torch.linalg.solve_triangular(root.mT, eye, upper=True)
            return
        self.failed = self.failed + (~torch.isfinite(k.sum((1, 2)) + g.sum((1, 2)))).int()
        good = (self.failed == 0)[:, None, None]
        half = torch.linalg.solve_triangular(root, torch.where(good, g, 0.0), upper=False)
        mu, vectors = torch.linalg.eigh(torch.linalg.solve_triangular(root, half.mT, upper=False))
        self.right = torch.linalg.solve_triangular(root.mT, vectors, upper=True)
        mu, k = mu.clamp_min(0), torch.where(good, k, 0.0)
        # ‖K‖_∞ ≥ λ_max: where every μ_j is above the floor below, nothing is singular and no eigenvectors are needed.
        floor = torch.finfo(s.dtype).eps * k.shape[1] * (k.abs().sum(2).amax(1) + mu.amax(1))
        if bool((mu.amin(1) > floor).all()):
            shifted = k.unsqueeze(1) + torch.diag_embed(mu.unsqueeze(2).expand(-1, -1, k.shape[1]))
            self.factors, info = torch.linalg.cholesky_ex(shifted)
            if not bool(info.any()):
                return
            self.factors = None
        lam, self.left = torch.linalg.eigh(k)
        total = lam.clamp_min(0).unsqueeze(2) + mu.unsqueeze(1)
        floor = torch.finfo(s.dtype).eps * k.shape[1] * total.amax((1, 2))
        self.inverse = torch.where(total > floor[:, None, None], 1 / total, 0.0)  # least squares where some repeat

    def __call__(self, r: Tensor) -> Tensor:
        """x for columns r of shape (B, n·c, k)."""
        batch, size, count = r.shape
        x = r.mT.reshape(batch, count, size // self.columns, self.columns)
        right = self.right.unsqueeze(1)
        if self.factors is not None:
            x = torch.cholesky_solve((x @ right).permute(0, 3, 2, 1), self.factors).permute(0, 3, 2, 1) @ right.mT
        elif self.left is None:
            x = x @ (right @ right.mT)
        else:
            left = self.left.unsqueeze(1)
            x = left @ (self.inverse.unsqueeze(1) * (left.mT @ x @ right)) @ right.mT
        x = x.reshape(batch, count, size).mT
        return torch.where((self.failed > 0)[:, None, None], torch.nan, x) if bool(self.failed.any()) else x


@dataclass(frozen=True)
class Bordered:
    """Independent groups of equations, and further ones (the border) that meet all of them.

    Attributes:
        groups: rows and inverses of the groups.
        border: rows of the border, empty where there is none.
        crossed: (JJᵀ)⁻¹ of each group on its columns against the border, shape (B, m_group, m_border).
        last: inverse of the Schur complement of the border.
    """

    groups: Sequence[tuple[Tensor | slice, Inverse]]
    border: Tensor | slice
    crossed: Sequence[Tensor]
    last: Inverse | None

    def __call__(self, r: Tensor) -> Tensor:
        """x for columns r of shape (B, m, k)."""
        out = torch.empty_like(r)
        if self.last is None:
            for rows, inverse in self.groups:
                out[:, rows] = inverse(r[:, rows])
            return out
        # x_border = S⁻¹(r_border − Σ Cᵀ(K⁻¹r)), with K⁻¹C at hand: Cᵀ(K⁻¹r) = (K⁻¹C)ᵀr.
        rest = r[:, self.border]
        for (rows, _), crossed in zip(self.groups, self.crossed, strict=True):
            rest = rest - crossed.mT @ r[:, rows]
        last = self.last(rest)
        out[:, self.border] = last
        for (rows, inverse), crossed in zip(self.groups, self.crossed, strict=True):
            out[:, rows] = inverse(r[:, rows]) - crossed @ last
        return out

"""One linear solve that holds every fast direction of gradient flow: (I + c 𝓗)⁻¹ for 𝓗 ≈ the Hessian of 𝓛.

Everything fast lives in the space of the end-to-end matrix, 𝓗 = Jᵀ(H + Q)J, so that the inverse costs a solve
of the size of the NTK K = JJᵀ:

    (I + c 𝓗)⁻¹ = I − c Jᵀ (I + c (H + Q) K)⁻¹ (H + Q) J.

JᵀHJ is the Gauss–Newton part. Q is the curvature of the learned part of A, A_k = U_k Σ V_kᵀ: moving its singular
spaces by Z changes A to second order by Z A_k⁺ Z, against which the residual G = ∇C pulls,

    ⟨Z, QZ⟩ = 2⟨G, Z A_k⁺ Z⟩   (the second fundamental form of matrices of rank k).

Without Q a method is stable at plateau-long steps only if singular values are well apart; as Q acts through J it
leaves the symmetries of the network flat, which the exact outer coupling of two layers alone would not.

Columns are scaled by what damps them before the matrix is factored: c K runs from 0 on unlearned entries to 1e20.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlnphase.dynamics.framed_cost import FramedCost
from dlnphase.networks.chain import Network, kronecker_sum


ALIGNED = 2.0  # size of the layers along a mode, relative to the mode, up to which they are its factors


class Point:
    """Everything a step needs at θ: products, end-to-end matrix, cost gradient, NTK.

    Args:
        learned: which leading output and input directions have been learned, boolean (B, k) each; None: none.
    """

    def __init__(self, network: Network, cost: FramedCost, learned: tuple[Tensor, Tensor] | None = None) -> None:
        self.network = network
        self.learned = learned
        self.prefixes = network.prefixes()
        self.suffixes = network.suffixes()
        self.a = self.prefixes[-1]
        self.excess, self.g = cost.value_and_gradient(self.a)
        self._slope: Tensor | None = None
        self._factors: list[tuple[Tensor, Tensor]] | None = None

    @property
    def slope(self) -> Tensor:
        """−∇𝓛, flat, shape (B, P)."""
        if self._slope is None:
            self._slope = self.network.gradient(self.g, self.prefixes, self.suffixes).neg_()
        return self._slope

    @property
    def factors(self) -> list[tuple[Tensor, Tensor]]:
        """The pairs whose Kronecker products add up to the NTK."""
        if self._factors is None:
            self._factors = self.network.ntk_factors(self.prefixes, self.suffixes)
        return self._factors

    def gradient_norm(self) -> Tensor:
        """‖∇𝓛‖ = √⟨∇C, K ∇C⟩, shape (B,)."""
        total = sum(((left @ self.g) * (self.g @ right)).sum((-2, -1)) for left, right in self.factors)
        assert isinstance(total, Tensor)
        return total.clamp_min(0.0).sqrt()


class StiffSolver:
    """(I + c 𝓗)⁻¹ at a point, factored for one c per member, shape (B, 1, 1)."""

    def __init__(self, point: Point, cost: FramedCost, c: Tensor) -> None:
        self.point, self.cost, self.c = point, cost, c
        k = kronecker_sum(point.factors)
        self.bend = _rank_curvature(point)
        self.column = (1.0 + c * k.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)).reciprocal_()
        matrix = cost.times(k, point.a)
        if self.bend is not None:
            matrix = matrix + self.bend @ k
        matrix = matrix * (c * self.column)
        self.column = self.column.squeeze(-2)
        matrix.diagonal(dim1=-2, dim2=-1).add_(self.column)
        self.lu, self.pivots = torch.linalg.lu_factor_ex(matrix)[:2]

    def __call__(self, g: Tensor, z: Tensor | None) -> Tensor:
        """The dual X of a right side: (I + c𝓗)⁻¹ (r − c Jᵀg) = r − JᵀX, shape (B, d_out, d_in).

        Fast directions of Jᵀg are damped before Jᵀ is applied: formed first and damped by subtraction, the
        round-off of c·Jᵀg would stay behind.

        Args:
            g: (B, d_out, d_in).
            z: J r, (B, d_out, d_in); None where r = 0.
        """
        if z is not None:
            g = g + self.cost.apply(z, self.point.a)
            if self.bend is not None:
                g = g + (self.bend @ z.flatten(1).unsqueeze(-1)).view(z.shape)
        y = torch.linalg.lu_solve(self.lu, self.pivots, g.flatten(1).unsqueeze(-1)).squeeze(-1)
        return (y * self.column).view(g.shape) * self.c


def _rank_curvature(point: Point) -> Tensor | None:
    """Q on row-major entries, shape (B, D, D), or None where nothing has been learned yet.

    The frame is aligned, so that U_k and V_k are first axes; a direction counts as learned when it has grown to a
    fraction of the largest.
    """
    if point.learned is None:
        return None
    d_out, d_in = point.network.shape
    out, inp = point.learned
    size = max(out.shape[1], inp.shape[1])
    k = min(size, d_out, d_in)
    both = out[:, :k] & inp[:, :k]
    both = both & _carried(point, _inverse(point.a, both), k)
    if not bool(both.any()):
        return None
    t = torch.zeros_like(point.a)
    t[:, :k, :k] = _inverse(point.a, both)
    g = point.g.clone()
    g[:, :k] *= ~both.unsqueeze(-1)
    g[:, :, :k] *= ~both.unsqueeze(-2)
    # (QZ)_ij = Σ_ab (G_ib T_aj + T_ib G_aj) Z_ab with T = (A_k⁺)ᵀ
    q = torch.einsum("nib,naj->nijab", g, t)
    q = q + torch.einsum("nib,naj->nijab", t, g)
    return q.reshape(point.a.shape[0], d_out * d_in, d_out * d_in)


def _inverse(a: Tensor, axes: Tensor) -> Tensor:
    """(A_k⁺)ᵀ on the chosen ones of the first k axes, shape (B, k, k), zero on the others."""
    k = axes.shape[-1]
    chosen = axes.unsqueeze(-1) & axes.unsqueeze(-2)
    block = torch.where(chosen, a[:, :k, :k], torch.eye(k, dtype=a.dtype, device=a.device))
    return torch.linalg.inv_ex(block)[0].mT * chosen


def _carried(point: Point, t: Tensor, k: int) -> Tensor:
    """Which axes carry a mode of A as large as their layers allow, boolean (B, k).

    Layers are written off as the factors of A_k: moving W_L by δ_L and what is below by δ changes A by δ_L δ, and
    δ_L P A_k⁺ W_L δ stands for it, P the product below. P A_k⁺ W_L is the projection on the hidden directions of
    what was learned, of norm one where layers are aligned. Where they are large and their product is small, as at
    the end of a run whose target lacks rank, it is no such thing: it grows as A_k⁺ does, and Q, of size |G|/s,
    would hold the path where the gradient is not zero.
    """
    tops = ((point.suffixes[-2], point.prefixes[-2]), (point.suffixes[0], point.prefixes[1]))
    inverse = t.diagonal(dim1=-2, dim2=-1).abs()
    good = torch.ones_like(inverse, dtype=torch.bool)
    for above, below in tops:
        size = torch.linalg.vector_norm(above[:, :k], dim=-1) * torch.linalg.vector_norm(below[..., :k], dim=-2)
        good &= inverse * size < ALIGNED
    return good

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

from functools import reduce

import torch
from torch import Tensor

from dlnphase.dynamics.framed_cost import FramedCost
from dlnphase.networks.chain import Network, kronecker_sum

SEEN = 100.0  # a step's error of A may be so many times rtol of the root of what is left of the cost
FELT = 500.0  # and what it adds to ∇𝓛 so many times rtol of ‖∇𝓛‖
# Both are needed and neither is fine: from 1 to 1000 round-offs, and from 20 to 86 degrees, tests see no difference.
ROUND_OFFS = 100.0  # of A, below which an error is none
OBLIQUE = 3.0  # ‖·‖_F² beyond its rank, up to which the projection on learned hidden directions is one: 60 degrees


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
        return self.slope_of(self.g)

    def slope_of(self, g: Tensor) -> Tensor:
        """‖Jᵀ g‖ = √⟨g, K g⟩, shape (B,)."""
        terms = (((left @ g) * (g @ right)).sum((-2, -1)) for left, right in self.factors)
        return reduce(torch.add, terms).clamp_min(0.0).sqrt()


def seen(point: Point, cost: FramedCost, change: Tensor) -> Tensor:
    """An error of A beside what is left of the cost, √(½⟨δA, H δA⟩ / (C − C_reachable)), over SEEN; shape (B,).

    Errors that are small beside layers can be large beside the distance to the minimum: at the end of a run, and all
    along one whose target is small, they would be the cost that is told. Round-off of A is no error of the step.

    Or what it adds to ∇𝓛 beside ‖∇𝓛‖, over FELT, where that is more: along fast directions an error that hardly costs
    anything can drown the gradient of a plateau, whose lulls and bursts are what is told of a path.
    """
    info = torch.finfo(change.dtype)
    least = ROUND_OFFS * info.eps * torch.linalg.vector_norm(point.a, dim=(-2, -1)) + info.tiny**0.5
    pull = cost.apply(change, point.a)
    lost = (0.5 * (change * pull).sum((-2, -1))).clamp_min(0.0).sqrt()
    left = torch.maximum(point.excess - cost.out_of_reach, ROUND_OFFS * info.eps * point.excess)
    real = (lost - least).clamp_min(0.0)
    felt = point.slope_of(cost.resolved(pull)) / point.gradient_norm().clamp_min(info.tiny)
    felt = felt * real / lost.clamp_min(info.tiny)
    return torch.maximum(real / torch.maximum(left.sqrt(), least) / SEEN, felt / FELT)


class StiffSolver:
    """(I + c 𝓗)⁻¹ at a point, factored for one c per member, shape (B, 1, 1)."""

    def __init__(self, point: Point, cost: FramedCost, c: Tensor) -> None:
        self.point, self.cost, self.c = point, cost, c
        k = kronecker_sum(point.factors)
        self.bend = _rank_curvature(point)
        self.whole = None if self.bend is None else cost.bent(self.bend)
        self.column = (1.0 + c * k.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)).reciprocal_()
        if self.whole is not None:
            matrix = self.whole @ k
        else:
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
        if z is not None and self.whole is not None:
            g = g + (self.whole @ z.flatten(1).unsqueeze(-1)).view(z.shape)
        elif z is not None:
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
    t = torch.zeros_like(point.a)
    t[:, :k, :k] = _inverse(point, both)
    g = point.g.clone()
    g[:, :k] *= ~both.unsqueeze(-1)
    g[:, :, :k] *= ~both.unsqueeze(-2)
    # (QZ)_ij = Σ_ab (G_ib T_aj + T_ib G_aj) Z_ab with T = (A_k⁺)ᵀ
    half = torch.einsum("nib,naj->nijab", g, t).reshape(point.a.shape[0], d_out * d_in, d_out * d_in)
    return half + half.mT


def _inverse(point: Point, axes: Tensor) -> Tensor:
    """(A_m⁺)ᵀ of the largest modes on some of the first k axes, boolean (B, k), that their layers carry; (B, k, k).

    Layers are written off as the factors of A_k: moving W_L by δ_L and what is below by δ changes A by δ_L δ, and
    δ_L P A_k⁺ W_L δ stands for it, P the product below. P A_k⁺ W_L is the projection on the hidden directions of
    what was learned, of norm one where layers are aligned. Where they are large and their product is small, as at
    the end of a run whose target lacks rank, it is no such thing: it grows as A_k⁺ does, and Q, of size |G|/s,
    would hold the path where the gradient is not zero.
    """
    k = axes.shape[-1]
    chosen = axes.unsqueeze(-1) & axes.unsqueeze(-2)
    block = point.a[:, :k, :k]
    eye = torch.eye(k, dtype=block.dtype, device=block.device)
    # Exact for small entries of a graded block, as the one by singular values is not.
    inverse = torch.linalg.inv_ex(torch.where(chosen, block, eye))[0].mT * chosen
    u, s, vt = torch.linalg.svd((block * chosen).nan_to_num(0.0, 0.0, 0.0))
    carried = s > 0
    rank = torch.arange(1, k + 1, device=s.device)
    for above, below in zip(point.suffixes[:-1], point.prefixes[1:-1], strict=True):
        left, right = (u.mT @ above[:, :k]) / s.unsqueeze(-1), (vt @ below[..., :k].mT) / s.unsqueeze(-1)
        terms = (left @ left.mT) * (right @ right.mT) * (s.unsqueeze(-1) * s.unsqueeze(-2))
        square = terms.cumsum(-1).cumsum(-2).diagonal(dim1=-2, dim2=-1)  # ‖P A_m⁺ W‖_F² for the m largest modes
        carried = carried & (square - rank < OBLIQUE)
    count = (carried * rank).amax(-1, keepdim=True)
    carried = rank <= count
    whole = carried.sum(-1) == axes.sum(-1)
    if bool(whole.all()):
        return inverse
    part = (u * torch.where(carried, 1 / s, 0.0).unsqueeze(-2)) @ vt
    return torch.where(whole.view(-1, 1, 1), inverse, part)

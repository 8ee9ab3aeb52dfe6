"""A cost seen from a rotated frame: Â = O_L A O_0ᵀ, one frame per member."""

from __future__ import annotations

import torch
from torch import Tensor

from dlnphase.costs import Cost, QuadraticCost


class FramedCost:
    """What the flow asks of a cost, in the frame of each member.

    A quadratic cost is rotated once per change of frame, H → (O_L⊗O_0) H (O_L⊗O_0)ᵀ and its minimiser along,
    so that entries of Â − Â_min are formed without mixing large and small ones. Any other convex cost is
    evaluated in its own frame and rotated back at every call.

    Args:
        cost: the cost in the original frame.
        left: O_L, shape (B, d_out, d_out).
        right: O_0, shape (B, d_in, d_in).
    """

    def __init__(self, cost: Cost, left: Tensor, right: Tensor) -> None:
        self.cost = cost
        self.left = left
        self.right = right
        self.operator: Tensor | None = None
        self.structure = "general"
        if isinstance(cost, QuadraticCost):
            self.minimizer = left @ cost.minimizer @ right.mT
            self._rotate_operator(cost)

    def _rotate_operator(self, cost: QuadraticCost) -> None:
        if cost.structure == "mask" and bool((cost.operator == 1).all()):
            self.structure = "identity"
        elif cost.structure == "right":
            self.structure = "right"
            self.operator = self.right @ cost.operator @ self.right.mT
        else:
            self.structure = "dense"
            d_out, d_in = cost.shape
            h = cost.curvature().view(d_out, d_in, d_out * d_in)
            batch = self.left.shape[0]
            half = (self.left @ h.reshape(d_out, -1)).view(batch, d_out, d_in, -1)
            half = torch.matmul(self.right.unsqueeze(1), half)
            h = half.reshape(batch, d_out * d_in, d_out, d_in).permute(0, 2, 3, 1)
            half = (self.left @ h.reshape(batch, d_out, -1)).view(batch, d_out, d_in, -1)
            half = torch.matmul(self.right.unsqueeze(1), half)
            self.operator = half.reshape(batch, d_out * d_in, d_out * d_in)

    def original(self, a: Tensor) -> Tensor:
        """A = O_Lᵀ Â O_0."""
        return self.left.mT @ a @ self.right

    def value_and_gradient(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """(C − C_min of shape (B,), O_L ∇C O_0ᵀ of shape (B, d_out, d_in))."""
        if self.structure == "general":
            plain = self.original(a)
            return self.cost.excess(plain), self.left @ self.cost.gradient(plain) @ self.right.mT
        residual = a - self.minimizer
        g = self.apply(residual, a)
        return 0.5 * (residual * g).sum((-2, -1)), g

    def gradient(self, a: Tensor) -> Tensor:
        """O_L ∇C O_0ᵀ."""
        if self.structure == "general":
            return self.left @ self.cost.gradient(self.original(a)) @ self.right.mT
        return self.apply(a - self.minimizer, a)

    def apply(self, v: Tensor, a: Tensor) -> Tensor:
        """The Hessian of the cost at Â applied to V."""
        if self.structure == "identity":
            return v
        if self.structure == "right":
            assert self.operator is not None
            return v @ self.operator
        if self.structure == "dense":
            assert self.operator is not None
            return (self.operator @ v.flatten(1).unsqueeze(-1)).view(v.shape)
        plain = self.cost.apply_curvature(self.original(v), self.original(a))
        return self.left @ plain @ self.right.mT

    def times(self, k: Tensor, a: Tensor) -> Tensor:
        """H K for K of shape (B, D, D)."""
        if self.structure == "identity":
            return k
        if self.structure == "right":
            assert self.operator is not None
            batch, size, _ = k.shape
            d_in = self.operator.shape[-1]
            return torch.matmul(self.operator.unsqueeze(1), k.view(batch, -1, d_in, size)).view(batch, size, size)
        if self.structure == "dense":
            assert self.operator is not None
            return self.operator @ k
        batch, size, _ = k.shape
        columns = k.mT.reshape(batch, size, *self.cost.shape)
        out = torch.stack([self.apply(columns[:, j], a) for j in range(size)], 1)
        return out.reshape(batch, size, size).mT

"""A cost seen from a rotated frame: Â = O_L A O_0ᵀ, one frame per member."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dlnphase.costs.quadratic import Cost, QuadraticCost
from dlnphase.dynamics.state import Fixed, State
from dlnphase.networks.batch import Batched

NOISE = 8.0  # round-offs of one entry of ∇C that add up before it is read as zero


def turn_rows(matrix: Tensor, i: int, head: Tensor, tail: Tensor) -> None:
    """Rotate rows i, i+1, … of a batch of matrices, in place, by the direct rotation that maps x to axis i.

    x = (head, tail) is a unit vector on those rows with head ≥ 0: row i becomes xᵀ times the rows, the others are
    pushed back along x. Small tails give small changes, accurate relatively.

    Args:
        matrix: (…, n, m).
        head: (…), tail: (…, n − i − 1).
    """
    first, others = matrix[..., i, :], matrix[..., i + 1 :, :]
    z = (tail.unsqueeze(-2) @ others).squeeze(-2)
    pushed = first + z / (1.0 + head).unsqueeze(-1)
    new_first = head.unsqueeze(-1) * first + z
    others.addcmul_(tail.unsqueeze(-1), pushed.unsqueeze(-2), value=-1)
    matrix[..., i, :] = new_first


def _in_double(head: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    """The unit vector (head, tail) in double precision, of length 1 to that."""
    if tail.dtype == torch.float64:
        return head, tail
    tail = tail.double()
    return (1.0 - tail.square().sum(-1)).clamp_min(0.0).sqrt(), tail


@dataclass(slots=True, init=False, eq=False, repr=False)
class FramedCost(State, Batched):
    """What the flow asks of a cost, in the frame of each member.

    A quadratic cost turns with the frame: H → (O_L⊗O_0) H (O_L⊗O_0)ᵀ and its minimiser along, one small
    rotation after the other, so that entries of Â − Â_min are formed without mixing large and small ones. Both are
    kept in double precision: H turned often in single precision loses its zeros, and far along what it does not see
    a cost of that round-off, of either sign, is told for what is left.
    Any other convex cost is evaluated in its own frame and rotated back at every call.

    Args:
        cost: the cost in the original frame.
        batch: number of members B.
        like: a tensor of the dtype and on the device of the networks.
        out_of_reach: C_reachable − C_min, the least excess cost that the network's narrowest layer allows.
    """

    cost: Fixed[Cost]
    out_of_reach: Fixed[float]
    structure: Fixed[str]
    left: Tensor
    right: Tensor
    operator: Tensor
    minimizer: Tensor | None
    noise: Tensor | None

    def __init__(self, cost: Cost, batch: int, like: Tensor, out_of_reach: float = 0.0) -> None:
        self.cost, self.out_of_reach = cost, out_of_reach
        d_out, d_in = cost.shape
        self.left = torch.eye(d_out, dtype=like.dtype, device=like.device).repeat(batch, 1, 1)
        self.right = torch.eye(d_in, dtype=like.dtype, device=like.device).repeat(batch, 1, 1)
        self.operator = self.left.new_empty((batch, 0))  # of a form that needs one
        self.minimizer = self.noise = None
        self.structure = "general"
        if isinstance(cost, QuadraticCost):
            self.minimizer = cost.minimizer.double().repeat(batch, 1, 1)
            if cost.hessian.is_identity:
                self.structure = "identity"
            elif cost.hessian.of_inputs:
                self.structure = "right"
                self.operator = cost.hessian.numbers.double().repeat(batch, 1, 1)
            else:
                self.structure = "dense"
                self.operator = cost.curvature().double().repeat(batch, 1, 1)

    def turn_output(self, i: int, head: Tensor, tail: Tensor) -> None:
        """The output frame has been turned, see :func:`turn_rows`."""
        turn_rows(self.left, i, head, tail)
        head, tail = _in_double(head, tail)
        if self.minimizer is not None:
            turn_rows(self.minimizer, i, head, tail)
        if self.structure == "dense":
            d_out = self.cost.shape[0]
            self._turn_operator(lambda h: turn_rows(h.view(h.shape[0], d_out, -1), i, head, tail))

    def turn_input(self, i: int, head: Tensor, tail: Tensor) -> None:
        """The input frame has been turned."""
        turn_rows(self.right, i, head, tail)
        head, tail = _in_double(head, tail)
        if self.minimizer is not None:
            turn_rows(self.minimizer.mT, i, head, tail)
        if self.structure == "right":
            turn_rows(self.operator, i, head, tail)
            turn_rows(self.operator.mT, i, head, tail)
        if self.structure == "dense":
            d_out, d_in = self.cost.shape
            heads, tails = head.unsqueeze(1), tail.unsqueeze(1)
            self._turn_operator(lambda h: turn_rows(h.view(h.shape[0], d_out, d_in, -1), i, heads, tails))

    def _turn_operator(self, turn: Callable[[Tensor], None]) -> None:
        """Turn the rows of the symmetric matrix H, then its columns."""
        turn(self.operator)
        self.operator = self.operator.mT.contiguous()
        turn(self.operator)

    def original(self, a: Tensor) -> Tensor:
        """A = O_Lᵀ Â O_0."""
        return self.left.mT @ a @ self.right

    def measure_noise(self, a: Tensor) -> None:
        """Bound the round-off of ∇C, NOISE·ε·max |H|(|Â| + |Â_min|), and from now on read entries below that as 0.

        A learned direction rests where ∇C is below what its numbers can resolve. That rest is multiplied by steps
        as long as a plateau; unfiltered, it makes learned layers wander and closes the door on plateaus of 1e15.
        """
        if self.minimizer is not None:
            eps = torch.finfo(a.dtype).eps
            bound = self._apply(a.abs() + self.minimizer.abs(), absolute=True)
            self.noise = (NOISE * eps * bound.amax((-2, -1), keepdim=True)).to(a.dtype)

    def value_and_gradient(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """(C − C_min of shape (B,), O_L ∇C O_0ᵀ of shape (B, d_out, d_in))."""
        if self.minimizer is None:
            plain = self.original(a)
            return self.cost.excess(plain), self.left @ self.cost.gradient(plain) @ self.right.mT
        residual = a - self.minimizer
        g = self._apply(residual)
        return (0.5 * (residual * g).sum((-2, -1))).to(a.dtype), self.resolved(g.to(a.dtype))

    def gradient(self, a: Tensor) -> Tensor:
        """O_L ∇C O_0ᵀ."""
        if self.minimizer is None:
            return self.left @ self.cost.gradient(self.original(a)) @ self.right.mT
        return self.resolved(self._apply(a - self.minimizer).to(a.dtype))

    def moved_gradient(self, a: Tensor, g: Tensor, change: Tensor) -> Tensor:
        """∇C at Â + ΔÂ, given g = ∇C at Â: for a quadratic cost g + H ΔÂ, as accurate as ΔÂ is."""
        if self.minimizer is not None:
            return g + self._apply(change)
        return self.gradient(a + change)

    def apply(self, v: Tensor, a: Tensor) -> Tensor:
        """The Hessian of the cost at Â applied to V."""
        if self.minimizer is not None:
            return self._apply(v)
        plain = self.cost.apply_curvature(self.original(v), self.original(a))
        return self.left @ plain @ self.right.mT

    def resolved(self, g: Tensor) -> Tensor:
        """G without the entries that round-off of ∇C could make, once that has been measured."""
        return g if self.noise is None else torch.where(g.abs() > self.noise, g, 0.0)

    def _apply(self, v: Tensor, absolute: bool = False) -> Tensor:
        """H V, or |H| V for bounds, in the dtype of V."""
        if self.structure == "identity":
            return v
        operator = self.operator.abs() if absolute else self.operator
        if self.structure == "right":
            return (v.to(operator.dtype) @ operator).to(v.dtype)
        return (operator @ v.to(operator.dtype).flatten(1).unsqueeze(-1)).view(v.shape).to(v.dtype)

    def bent(self, bend: Tensor) -> Tensor | None:
        """H + Q for Q of shape (B, D, D), where H is a matrix of that shape; None where it is none."""
        return self.operator.to(bend.dtype) + bend if self.operator is not None and self.structure == "dense" else None

    def times(self, k: Tensor, a: Tensor) -> Tensor:
        """H K for K of shape (B, D, m)."""
        if self.structure == "identity":
            return k
        batch, _, columns = k.shape
        if self.structure == "right":
            d_in = self.operator.shape[-1]
            operator = self.operator.to(k.dtype)
            return torch.matmul(operator.unsqueeze(1), k.reshape(batch, -1, d_in, columns)).view(k.shape)
        if self.structure == "dense":
            return self.operator.to(k.dtype) @ k
        plain = self.original(a)
        turned = self.left.mT.unsqueeze(1) @ k.mT.reshape(batch, columns, *self.cost.shape) @ self.right.unsqueeze(1)
        images = [self.cost.apply_curvature(v, at.expand(v.shape)) for v, at in zip(turned, plain, strict=True)]
        back = self.left.unsqueeze(1) @ torch.stack(images) @ self.right.mT.unsqueeze(1)
        return back.flatten(2).mT

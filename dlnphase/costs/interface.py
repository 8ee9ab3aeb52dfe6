"""What the rest of the package asks of a convex cost on the end-to-end matrix.

:class:`Cost` is the least that dynamics and certificates need: any object that has it can be followed.
:class:`ConvexCost` answers everything else that commands ask (what is known of the minimum, which answers are right):
nobody asks what kind a cost is. The costs of this package derive from it.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from dlnphase.backend import Backend
from dlnphase.costs.observations import Observations
from dlnphase.errors import InputError


@runtime_checkable
class Cost(Protocol):
    """What dynamics, distances and certificates ask of a convex cost on (d_out, d_in) matrices.

    ``minimum`` is min C over all matrices. A is batched, shape (B, d_out, d_in).
    """

    shape: tuple[int, int]
    minimum: float

    def excess(self, a: Tensor) -> Tensor:
        """C(A) − C_min ≥ 0, shape (B,)."""
        ...

    def gradient(self, a: Tensor) -> Tensor:
        """∇C(A), shape (B, d_out, d_in)."""
        ...

    def curvature(self, a: Tensor) -> Tensor:
        """Hessian of C on row-major entries of A, shape (D, D) or (B, D, D), D = d_out·d_in."""
        ...

    def apply_curvature(self, v: Tensor, a: Tensor) -> Tensor:
        """Hessian of C at A applied to V, shape (B, d_out, d_in)."""
        ...

    def minimum_at_rank(self, rank: int) -> float | None:
        """min C over matrices of at most this rank, or None where no closed form is known."""
        ...


class ConvexCost:
    """A convex cost that answers whatever a command asks; derived classes say value, gradient and Hessian product.

    Attributes:
        kind: factorization, completion, sensing, regression, classification: the task shown to users.
        name: the cost shown to users, as ``--cost`` names it.
        shape: (d_out, d_in).
        minimum: inf C over all matrices.
        minimizer: Â with C(Â) = inf C, shape (d_out, d_in); None where ``attained`` is False or none is known.
        attained: whether a minimum exists; False: ‖A‖ → ∞ as C → inf C.
        resolution: relative precision of the numbers it was given in.
        by_products: whether the Hessian is worth its products alone: a D × D matrix of it would cost as many of them.
        like: any tensor on the device and in the dtype of the cost.
    """

    kind: str
    name: str = "squared"
    shape: tuple[int, int]
    minimum: float
    minimizer: Tensor | None
    attained: bool = True
    by_products: bool = False
    resolution: float
    like: Tensor

    def to(self, backend: Backend) -> ConvexCost:
        """The same cost on another device or in another dtype."""
        raise NotImplementedError

    @property
    def unique(self) -> bool:
        """Whether there is one minimiser and no other."""
        raise NotImplementedError

    def value(self, a: Tensor) -> Tensor:
        """C(A), shape (B,)."""
        raise NotImplementedError

    def excess(self, a: Tensor) -> Tensor:
        """C(A) − inf C, shape (B,)."""
        return self.value(a) - self.minimum

    def gradient(self, a: Tensor) -> Tensor:
        """∇C(A), shape (B, d_out, d_in)."""
        raise NotImplementedError

    def apply_curvature(self, v: Tensor, a: Tensor) -> Tensor:
        """Hessian of C at A applied to V, shape (B, d_out, d_in)."""
        raise NotImplementedError

    def curvature(self, a: Tensor) -> Tensor:
        """Hessian of C on row-major entries, shape (B, D, D), from its products with the unit matrices."""
        size = self.shape[0] * self.shape[1]
        unit = torch.eye(size, dtype=a.dtype, device=a.device).view(size, *self.shape)
        images = [self.apply_curvature(unit, one.expand(size, *self.shape)) for one in a]
        return torch.stack([image.flatten(1).mT for image in images])

    @property
    def curvature_bound(self) -> float | None:
        """An upper bound of the Hessian, wherever A is; None where none is known."""
        return None

    @property
    def observations(self) -> Observations | None:
        """The entries, samples or measurements that C is a sum over; None where they are not known."""
        return None

    @property
    def metric(self) -> Tensor | None:
        """Σ, shape (d_in, d_in), such that A√Σ are coordinates in which no input is slow; None: A itself is."""
        return None

    def minimum_at_rank(self, rank: int) -> float | None:
        """inf C over matrices of at most this rank; None where no closed form is known."""
        return self.minimum if rank >= min(self.shape) else None

    def unseen(self, v: Tensor) -> Tensor | None:
        """The part of matrices V along which C never changes, whatever A is; None where that is not known."""
        return None

    def accuracy(self, a: Tensor) -> Tensor | None:
        """The share of answers that A gives right, shape (B,); None for a cost that has no right and wrong."""
        return None

    def margin(self, a: Tensor) -> Tensor | None:
        """By how much the worst answer of A is right (negative: wrong), shape (B,); None as for ``accuracy``."""
        return None

    def separation(self, a: Tensor) -> Tensor | None:
        """Where it is positive, C(cA) → 0 as c → ∞, and no minimum exists; shape (B,). None where that cannot be."""
        return None

    def numbers(self) -> dict[str, Tensor]:
        """The numbers that have to fit into a dtype, and whose squares have to, by the words that name them."""
        return {"the gradient at A = 0": self.gradient(self.like.new_zeros((1, *self.shape)))}


def parts_of(cost: ConvexCost, found: str) -> Observations:
    """What a cost is a sum over; InputError, which says what was found with it, where it does not tell."""
    if cost.observations is None:
        raise InputError(
            f"{found} with a {cost.name} cost of {cost.kind} that does not say which entries, samples or measurements "
            "it is a sum of; expected a task of this package"
        )
    return cost.observations

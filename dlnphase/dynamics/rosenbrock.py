"""ROS34PW2: a third-order, L-stable, stiffly accurate Rosenbrock W-method with four stages.

Rang and Angermann, BIT 45 (2005) 761–787. A W-method keeps its order whatever matrix stands in for the
Jacobian; here it is the Gauss–Newton part −JᵀHJ, which holds every fast direction of the flow and whose
inverse costs one solve of the size of the end-to-end matrix:

    (I + c JᵀHJ)⁻¹ = I − c Jᵀ (I + c H K)⁻¹ H J,      K = J Jᵀ (the NTK).

The columns of I + c H K are scaled before it is factored: learned directions have c K up to 1e16, unlearned
ones down to 0, and without the scaling the solution along the former drowns in the round-off of the latter.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dlnphase.dynamics.framed_cost import FramedCost
from dlnphase.network import Network

ORDER = 3
EMBEDDED_ORDER = 2
GAMMA = 4.3586652150845900e-01
# k_i form of the paper; the kernel uses the transformed stages u = Γ k, which need no product with the Jacobian.
_ALPHA = np.array(
    [
        [0.0, 0.0, 0.0, 0.0],
        [8.7173304301691801e-01, 0.0, 0.0, 0.0],
        [8.4457060015369423e-01, -1.1299064236484185e-01, 0.0, 0.0],
        [0.0, 0.0, 1.0, 0.0],
    ]
)
_GAMMAS = np.array(
    [
        [GAMMA, 0.0, 0.0, 0.0],
        [-8.7173304301691801e-01, GAMMA, 0.0, 0.0],
        [-9.0338057013044082e-01, 5.4180672388095326e-02, GAMMA, 0.0],
        [2.4212380706095346e-01, -1.2232505839045147e00, 5.4526025533510214e-01, GAMMA],
    ]
)
_B = np.array([2.4212380706095346e-01, -1.2232505839045147e00, 1.5452602553351020e00, GAMMA])
_B_EMBEDDED = np.array([3.7810903145819369e-01, -9.6042292212423178e-02, 0.5, 2.1793326075422950e-01])
_INVERSE = np.linalg.inv(_GAMMAS)
A = _ALPHA @ _INVERSE
C = np.diag(np.diag(_INVERSE)) - _INVERSE
M = _B @ _INVERSE
E = (_B - _B_EMBEDDED) @ _INVERSE
STAGES = 4


class Point:
    """Everything a step needs at θ: products, end-to-end matrix, cost gradient, −∇𝓛."""

    __slots__ = ("network", "prefixes", "suffixes", "a", "excess", "g", "slope")

    def __init__(self, network: Network, cost: FramedCost) -> None:
        self.network = network
        self.prefixes = network.prefixes()
        self.suffixes = network.suffixes()
        self.a = self.prefixes[-1]
        self.excess, self.g = cost.value_and_gradient(self.a)
        self.slope = network.gradient(self.g, self.prefixes, self.suffixes).neg_()


def slope_at(network: Network, cost: FramedCost) -> Tensor:
    """−∇𝓛(θ), flat, shape (B, P)."""
    prefixes, suffixes = network.prefixes(), network.suffixes()
    return network.gradient(cost.gradient(prefixes[-1]), prefixes, suffixes).neg_()


class GaussNewtonSolver:
    """(I + c JᵀHJ)⁻¹ at a point, for one step size c per member, shape (B, 1, 1)."""

    def __init__(self, point: Point, cost: FramedCost, c: Tensor) -> None:
        self.point, self.cost, self.c = point, cost, c
        k = point.network.ntk(point.prefixes, point.suffixes)
        diagonal = k.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)
        column = (1.0 + c * diagonal).reciprocal_()
        matrix = cost.times(k, point.a) * (c * column)
        self.column = column.squeeze(-2)
        matrix.diagonal(dim1=-2, dim2=-1).add_(self.column)
        self.lu, self.pivots = torch.linalg.lu_factor_ex(matrix)[:2]

    def dual(self, g: Tensor) -> Tensor:
        """(I + c H K)⁻¹ g for g of shape (B, d_out, d_in)."""
        y = torch.linalg.lu_solve(self.lu, self.pivots, g.flatten(1).unsqueeze(-1)).squeeze(-1)
        return (y * self.column).view(g.shape)

    def stage(self, g: Tensor, rest: Tensor | None, gh: Tensor) -> Tensor:
        """(I + c JᵀHJ)⁻¹ (rest − γh Jᵀg) for g of shape (B, d_out, d_in) and flat rest of shape (B, P).

        Fast directions of Jᵀg are damped before Jᵀ is applied: formed first and damped by subtraction, the round-off
        of h·Jᵀg would stay behind, and h reaches 1e20.
        """
        p = self.point
        dual = g * gh
        if rest is not None:
            image = self.cost.apply(p.network.jvp(rest, p.prefixes, p.suffixes), p.a)
            dual = torch.addcmul(dual, image, self.c)
        out = p.network.gradient(self.dual(dual), p.prefixes, p.suffixes)
        return out.neg_() if rest is None else rest - out


def step(point: Point, cost: FramedCost, h: Tensor) -> tuple[Tensor, Tensor]:
    """One step of size h (shape (B,)) from a point.

    Returns (θ at t + h, estimated error of it), both flat (B, P).
    """
    network = point.network
    theta = network.theta
    c = (GAMMA * h).view(-1, 1, 1)
    gh = c.squeeze(-1)
    solver = GaussNewtonSolver(point, cost, c)
    stages = [solver.stage(point.g, None, c)]
    for i in range(1, STAGES):
        at = network.with_theta(_combine(theta, A[i], stages))
        prefixes, suffixes = at.prefixes(), at.suffixes()
        g = cost.gradient(prefixes[-1])
        bend = network.gradient(g, point.prefixes, point.suffixes) - at.gradient(g, prefixes, suffixes)
        # C_ij/h · u_j · γh = C_ij γ u_j: the coupling needs no step size.
        rest = torch.addcmul(_combine(None, C[i] * GAMMA, stages), bend, gh)
        stages.append(solver.stage(g, rest, c))
    return _combine(theta, M, stages), _combine(None, E, stages)


def _combine(base: Tensor | None, coefficients: np.ndarray, stages: list[Tensor]) -> Tensor:
    out = base
    for c, u in zip(coefficients, stages, strict=False):
        if c != 0.0:
            out = u * float(c) if out is None else torch.add(out, u, alpha=float(c))
    assert out is not None
    return out

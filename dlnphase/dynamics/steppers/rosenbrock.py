"""ROS34PW2: a third-order, L-stable, stiffly accurate Rosenbrock W-method with four stages.

Rang and Angermann, BIT 45 (2005) 761–787. A W-method keeps its order whatever matrix stands in for the
Jacobian; ``dlnphase.dynamics.steppers.stiff_solver`` provides one that holds every fast direction of the flow.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dlnphase.dynamics.framed_cost import FramedCost
from dlnphase.dynamics.sizes import scaled_norm, with_grown_ends
from dlnphase.dynamics.span import Span
from dlnphase.dynamics.steppers.stiff_solver import Point, StiffSolver, seen

ORDER, EMBEDDED_ORDER, STAGES = 3, 2, 4  # of the method
GAMMA = 4.3586652150845900e-01  # the root of γ³ − 3γ² + 3γ/2 − 1/6 that makes it L-stable
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
SETTLED_FROM = 5  # layers from which plateaus are so long that a stage may not bend A where it is held
STAGE_ROUNDS, RESULT_ROUNDS = 1, 2  # of the damping by c K H / (1 + c K H) ~ h, which keep the order of the method
# C_ij/h · u_j · γh = C_ij γ u_j: the coupling needs no step size.
_SHIFT_AND_COUPLING = [np.stack([A[i, :i], GAMMA * C[i, :i]]) for i in range(STAGES)]
_SOLUTION_AND_ERROR = np.stack([M, E])


def step(
    point: Point, cost: FramedCost, h: Tensor, scales: list[Tensor], exact: bool = False, growing: bool = False
) -> tuple[Tensor, Tensor]:
    """One step of size h (shape (B,)) from a point.

    Args:
        scales: 1/r of the directions of every space, see :func:`dlnphase.dynamics.sizes.inverse_sizes`.
        exact: measure the error on the layers themselves. Its measure in function space is cheaper, but
            made of terms that may cancel: good down to about 1e-7.
        growing: end directions may be empty, see :func:`dlnphase.dynamics.sizes.with_grown_ends`.

    Returns (θ at t + h, flat (B, P); the size of its estimated error relative to r, shape (B,)).
    """
    network = point.network
    d_out, d_in = network.shape
    c = (GAMMA * h).view(-1, 1, 1)
    solver = StiffSolver(point, cost, c)
    held = _held(point) if network.depth >= SETTLED_FROM else None
    span = Span(network, point.prefixes, point.suffixes, STAGES)
    stages = torch.stack([span.zero() for _ in range(STAGES)])
    stages[0, :, :d_out, :d_in] = -solver(point.g, None)
    for i in range(1, STAGES):
        shift, y = _combine(stages[:i], _SHIFT_AND_COUPLING[i])
        if held is not None:
            _settle(shift, span, solver, held, STAGE_ROUNDS)
        upper, lower, change = span.move(shift)
        span.admit(upper, lower)
        g = cost.moved_gradient(point.a, point.g, change)
        # J_0ᵀg − J_iᵀg = −ΔS_iᵀ g P_iᵀ − S_0ᵀ g ΔP_iᵀ with P_i = P_0 + ΔP_i.
        pull = g * c
        rows, columns = slice(i * d_out, (i + 1) * d_out), slice(i * d_in, (i + 1) * d_in)
        y[:, rows, :d_in] -= pull
        y[:, :d_out, columns] -= pull
        y[:, rows, columns] -= pull
        y[:, :d_out, :d_in] -= solver(g, span.jvp(y))
        stages[i] = y
    solution, error = _combine(stages, _SOLUTION_AND_ERROR)
    if held is not None:
        _settle(solution, span, solver, held, RESULT_ROUNDS)
    new = span.add_to(network.theta.clone(), solution)
    size = None if exact or growing else span.norm(error, scales)
    if size is None:
        wrong = span.add_to(torch.zeros_like(new), error)
        if growing:
            scales = with_grown_ends(scales, network.with_theta(new), wrong)
        size = scaled_norm(wrong, network.dims, scales)
    return new, torch.maximum(size, seen(point, cost, span.jvp(error)))


def _held(point: Point) -> Tensor | None:
    """1 on the entries of A that learned directions hold, else 0, (B, d_out, d_in); None where nothing is learned."""
    if point.learned is None:
        return None
    out, inp = point.learned
    held = torch.zeros_like(point.a)
    held[:, : out.shape[1]] += out.unsqueeze(-1)
    held[:, :, : inp.shape[1]] += inp.unsqueeze(-2)
    return held.clamp_max_(1.0)


def _settle(y: Tensor, span: Span, solver: StiffSolver, held: Tensor, rounds: int) -> None:
    """Take back, in place, what an increment 𝕐 bends the held entries of A by beyond first order.

    The matrix of a step knows the fast directions where it starts. Its stages move layers along tangents, of which the
    products bend A: where learned directions hold it, ∇C answers at once, and times a step as long as a plateau that
    tilts hidden directions, along which the next stage bends A more (docs/integrator.md). The exact flow stays where A
    is held, and so does an increment once the solve has led it back.

    Each round damps what is taken back by c K H / (1 + c K H), 1 where the flow is fast and of order h where it is not.

    Args:
        held: see :func:`_held`.
        rounds: at least 1.
    """
    d_out, d_in = held.shape[1:]
    bent, nothing = (span.change(y) - span.jvp(y)) * held, torch.zeros_like(held)
    back = solver(nothing, bent)
    for _ in range(rounds - 1):
        x = span.zero()
        x[:, :d_out, :d_in] = back
        back = solver(nothing, span.jvp(x) * held)
    y[:, :d_out, :d_in] -= back


def _combine(stages: Tensor, coefficients: np.ndarray) -> Tensor:
    """Rows of coefficients (r, i) times stages (i, B, …): shape (r, B, …)."""
    weights = torch.as_tensor(coefficients, dtype=stages.dtype, device=stages.device)
    return (weights @ stages.flatten(1)).view(len(coefficients), *stages.shape[1:])

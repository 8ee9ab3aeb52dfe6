"""Minimisers of a cost, and critical points of it at fixed rank, in matrix space.

Where the cost leaves directions unmeasured its minimisers are many. Small initialisations want one of small
Schatten-2/L quasi-norm, since d_m² → L Σ_i s_i^(2/L); which one is a non-convex question, so several are tried.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlnphase.costs import QuadraticCost

EXACT = 1e-20  # C − C_min below this, over its value at A = 0, is an exact fit


def schatten(matrix: Tensor, depth: int) -> Tensor:
    """√(L Σ_i s_i^(2/L)): norm of balanced factors of a matrix over depth layers, shape of the leading dimensions."""
    return (depth * (torch.linalg.svdvals(matrix) ** (2 / depth)).sum(-1)).sqrt()


def minimisers(cost: QuadraticCost, depth: int) -> list[tuple[str, Tensor]]:
    """Named minimisers of the cost, nearest guess first: the only one where it is unique; else several."""
    if cost.unique or cost.structure == "right":
        # For a regression the least-norm minimiser projects every other one, so all its singular values are smallest.
        return [("least squares", cost.minimizer)]
    out = [("least squares", cost.minimizer)]
    sparse = reweighted(cost, depth)
    out.append(("low Schatten norm", sparse))
    for rank in range(1, min(cost.shape)):
        fit = fixed_rank_point(cost, rank)
        scale = float(cost.excess(torch.zeros_like(fit)))
        if float(cost.excess(fit)) <= EXACT * scale:
            out.append((f"rank {rank}", fit))
            break
    return out


def reweighted(cost: QuadraticCost, depth: int, steps: int = 300) -> Tensor:
    """A minimiser of small Schatten-2/L quasi-norm, by iteratively reweighted least squares from the least-norm one.

    Each step minimises tr(A W Aᵀ) over the minimisers of the cost, W = (AᵀA + ε²)^(1/L − 1), with ε falling
    (Mohan, Fazel 2012). Shape (d_out, d_in).
    """
    h = cost.curvature()
    values, vectors = torch.linalg.eigh(h)
    free = vectors[:, values <= 1e-10 * values[-1]]
    a = cost.minimizer.clone()
    d_out, d_in = cost.shape
    top = torch.linalg.svdvals(a)[0]
    eye_in = torch.eye(d_in, dtype=a.dtype, device=a.device)
    eye_out = torch.eye(d_out, dtype=a.dtype, device=a.device)
    for k in range(steps):
        epsilon = top * max(0.95**k, 1e-7)
        lam, vec = torch.linalg.eigh(a.mT @ a + epsilon**2 * eye_in)
        weight = (vec * lam.clamp_min(epsilon**2) ** (1 / depth - 1)) @ vec.mT
        weight = weight / weight.diagonal().mean()
        # minimise tr(A W Aᵀ) over A = Â + free·z
        full = torch.kron(eye_out, weight)
        normal = free.T @ full @ free
        z = torch.linalg.lstsq(normal, -(free.T @ full @ cost.minimizer.flatten())).solution
        new = cost.minimizer + (free @ z).view(d_out, d_in)
        if float((new - a).norm()) <= 1e-13 * float(a.norm()) and epsilon <= 1e-6 * top:
            return new
        a = new
    return a


def fixed_rank_point(cost: QuadraticCost, rank: int, *, start: Tensor | None = None, steps: int = 400) -> Tensor:
    """A critical point of C among matrices of rank at most ``rank``: a local minimum near the truncated least-squares
    matrix.

    Levenberg–Marquardt with the exact Hessian on balanced factors A = XYᵀ. Shape (d_out, d_in).
    """
    d_out, d_in = cost.shape
    guess = cost.minimizer if start is None else start
    u, s, vh = torch.linalg.svd(guess, full_matrices=False)
    x = u[:, :rank] * s[:rank].sqrt()
    y = vh[:rank].mT * s[:rank].sqrt()
    h = cost.curvature()
    value = float(cost.excess((x @ y.mT)[None]))
    damping = 1e-3 * float(s[0])
    eye_k = torch.eye(rank, dtype=x.dtype, device=x.device)
    for _ in range(steps):
        a = x @ y.mT
        g = cost.gradient(a[None])[0]
        gradient = torch.cat([(g @ y).flatten(), (g.mT @ x).flatten()])
        scale = float(g.norm()) * float(torch.cat([x, y]).norm())
        if float(gradient.norm()) <= 1e-15 * max(scale, 1e-300) or value == 0.0:
            break
        jac_x = torch.einsum("ij,kl->ikjl", torch.eye(d_out, dtype=x.dtype, device=x.device), y)
        jac_y = torch.einsum("ij,kl->kijl", torch.eye(d_in, dtype=x.dtype, device=x.device), x)
        jac = torch.cat([jac_x.reshape(d_out * d_in, -1), jac_y.reshape(d_out * d_in, -1)], 1)
        hessian = jac.T @ h @ jac
        cross = torch.einsum("ij,kl->ikjl", g, eye_k).reshape(d_out * rank, d_in * rank)
        hessian[: d_out * rank, d_out * rank :] += cross
        hessian[d_out * rank :, : d_out * rank] += cross.T
        lam, vec = torch.linalg.eigh(hessian)
        accepted = False
        for _ in range(30):
            # |λ| makes every step a descent step; the damping bounds it.
            step = -vec @ ((vec.T @ gradient) / (lam.abs() + damping).clamp_min(1e-14 * float(lam.abs().amax())))
            new_x, new_y = x + step[: d_out * rank].view_as(x), y + step[d_out * rank :].view_as(y)
            new_value = float(cost.excess((new_x @ new_y.mT)[None]))
            if new_value < value:
                accepted = True
                break
            damping = max(4 * damping, 1e-12 * float(lam.abs().amax()))
        if not accepted:
            break
        x, y, value = new_x, new_y, new_value
        damping /= 8
    return x @ y.mT

"""Minimisers of a cost, and critical points of it at fixed rank, in matrix space.

Where the cost leaves directions unmeasured its minimisers are many. Small initialisations want one of small
Schatten-2/L quasi-norm, since d_m² → L Σ_i s_i^(2/L); which one is a non-convex question, so several are tried.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.costs.round_off import exact_fit, indistinct


def schatten(matrix: Tensor, depth: int) -> Tensor:
    """√(L Σ_i s_i^(2/L)): norm of balanced factors of a matrix over depth layers, shape of the leading dimensions."""
    return (depth * (torch.linalg.svdvals(matrix) ** (2 / depth)).sum(-1)).sqrt()


def minimisers(cost: QuadraticCost, depth: int) -> list[tuple[str, Tensor]]:
    """Named minimisers of the cost, nearest guess first: the only one where it is unique; else several."""
    if cost.settled:
        return [("least squares", cost.minimizer)]
    out = [("least squares", cost.minimizer)]
    sparse = reweighted(cost, depth)
    out.append(("low Schatten norm", sparse))
    for rank in range(1, min(cost.shape)):
        fits = [fixed_rank_point(cost, rank, start=start) for start in (cost.minimizer, sparse)]
        exact = [fit for fit in fits if is_minimiser(cost, fit)]
        if exact:
            out.append((f"rank {rank}", min(exact, key=lambda fit: float(schatten(fit, depth)))))
            break
    return out


def is_minimiser(cost: QuadraticCost, a: Tensor) -> bool:
    """Whether C(A) − C_min is round-off, of what H sees of A − Â alone: the image of what it does not see is noise."""
    seen = cost.hessian.projection(cost.resolution)((a - cost.minimizer).detach().cpu().numpy())
    excess = cost.excess((cost.minimizer + torch.as_tensor(seen).to(a))[None])
    return bool(excess <= exact_fit(cost.resolution) * cost.excess(torch.zeros_like(a)[None]))


def reweighted(cost: QuadraticCost, depth: int, steps: int = 300) -> Tensor:
    """A minimiser of small Schatten-2/L quasi-norm, by iteratively reweighted least squares from the least-norm one.

    Each step minimises tr(A W Aᵀ) over the minimisers of the cost, W = (AᵀA + ε²)^(1/L − 1), with ε falling
    (Mohan, Fazel 2012). Shape (d_out, d_in).
    """
    h = cost.curvature()
    values, vectors = torch.linalg.eigh(h)
    free = vectors[:, values <= indistinct(cost.resolution) * values[-1]]
    a = cost.minimizer.clone()
    d_out, d_in = cost.shape
    top = torch.linalg.svdvals(a)[0]
    eye_in = torch.eye(d_in, dtype=a.dtype, device=a.device)
    eye_out = torch.eye(d_out, dtype=a.dtype, device=a.device)
    # The driver that torch takes by itself reads pivots that were never set: other bits at every call.
    driver = "gelsd" if a.device.type == "cpu" else "gels"
    for k in range(steps):
        epsilon = top * max(0.95**k, 1e-7)
        lam, vec = torch.linalg.eigh(a.mT @ a + epsilon**2 * eye_in)
        weight = (vec * lam.clamp_min(epsilon**2) ** (1 / depth - 1)) @ vec.mT
        weight = weight / weight.diagonal().mean()
        # minimise tr(A W Aᵀ) over A = Â + free·z
        full = torch.kron(eye_out, weight)
        normal = free.T @ full @ free
        z = torch.linalg.lstsq(normal, -(free.T @ full @ cost.minimizer.flatten()), driver=driver).solution
        new = cost.minimizer + (free @ z).view(d_out, d_in)
        if float((new - a).norm()) <= 1e-13 * float(a.norm()) and epsilon <= 1e-6 * top:
            return new
        a = new
    return a


def fixed_rank_point(cost: QuadraticCost, rank: int, *, start: Tensor | None = None, steps: int = 400) -> Tensor:
    """A critical point of C among matrices of rank at most ``rank``: a local minimum near the least-squares matrix.

    Levenberg–Marquardt with the exact Hessian on balanced factors A = XYᵀ, then Newton steps until the gradient stands
    at round-off. Shape (d_out, d_in).
    """
    guess = cost.minimizer if start is None else start
    u, s, vh = torch.linalg.svd(guess, full_matrices=False)
    z = torch.cat([(u[:, :rank] * s[:rank].sqrt()).flatten(), (vh[:rank].mT * s[:rank].sqrt()).flatten()])
    factors = _Factors(cost, rank)
    value = factors.value(z)
    damping = 1e-3 * float(s[0])
    for _ in range(steps):
        gradient, hessian = factors.derivatives(z)
        lam, vec = torch.linalg.eigh(hessian)
        top = float(lam.abs().amax())
        if float(gradient.norm()) <= 1e-9 * top * float(z.norm()) or value == 0.0:
            break
        # |λ| makes every step a descent step; the damping bounds it.
        accepted = False
        for _ in range(30):
            new = z - vec @ ((vec.T @ gradient) / (lam.abs() + damping).clamp_min(1e-14 * top))
            new_value = factors.value(new)
            if new_value < value:
                accepted = True
                break
            damping = max(4 * damping, 1e-12 * top)
        if not accepted:
            break
        z, value = new, new_value
        damping /= 8
    return factors.matrix(_newton(factors, z))


def _newton(factors: _Factors, z: Tensor) -> Tensor:
    """Newton steps while the gradient falls; rotations of the factors are the null space of the Hessian."""
    gradient, hessian = factors.derivatives(z)
    for _ in range(20):
        new = z - torch.linalg.pinv(hessian, rtol=1e-9, hermitian=True) @ gradient
        new_gradient, new_hessian = factors.derivatives(new)
        if not float(new_gradient.norm()) < float(gradient.norm()):
            break
        z, gradient, hessian = new, new_gradient, new_hessian
    return z


class _Factors:
    """C(XYᵀ) − C_min as a function of z = (X, Y), with its gradient and Hessian."""

    def __init__(self, cost: QuadraticCost, rank: int) -> None:
        self.cost, self.rank = cost, rank
        self.h = cost.curvature()
        like = cost.minimizer
        self.eyes = [torch.eye(n, dtype=like.dtype, device=like.device) for n in (*cost.shape, rank)]

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """X (d_out, rank) and Y (d_in, rank) of z."""
        d_out, d_in = self.cost.shape
        return z[: d_out * self.rank].view(d_out, -1), z[d_out * self.rank :].view(d_in, -1)

    def matrix(self, z: Tensor) -> Tensor:
        """XYᵀ, shape (d_out, d_in)."""
        x, y = self.split(z)
        return x @ y.mT

    def value(self, z: Tensor) -> float:
        """C(XYᵀ) − C_min."""
        return float(self.cost.excess(self.matrix(z)[None]))

    def derivatives(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient and Hessian in z: JᵀHJ of the Gauss–Newton part, and ∇C in the blocks that mix X and Y."""
        x, y = self.split(z)
        d_out, d_in = self.cost.shape
        g = self.cost.gradient((x @ y.mT)[None])[0]
        gradient = torch.cat([(g @ y).flatten(), (g.mT @ x).flatten()])
        jac_x = torch.einsum("ij,kl->ikjl", self.eyes[0], y)
        jac_y = torch.einsum("ij,kl->kijl", self.eyes[1], x)
        jac = torch.cat([jac_x.reshape(d_out * d_in, -1), jac_y.reshape(d_out * d_in, -1)], 1)
        hessian = jac.T @ self.h @ jac
        cross = torch.einsum("ij,kl->ikjl", g, self.eyes[2]).reshape(d_out * self.rank, d_in * self.rank)
        hessian[: d_out * self.rank, d_out * self.rank :] += cross
        hessian[d_out * self.rank :, : d_out * self.rank] += cross.T
        return gradient, hessian

"""Saddles of any kind near a small network, by descent from many starts.

In layers that are hardly wider than the matrix is large, the nearest saddle need not be of a kind that
:mod:`dlnphase.distances.saddle` lists: directions may die in other layers, or whole layers vanish. There

    ½‖θ − θ_0‖²/‖θ_0‖² + ½μ‖∇𝓛(θ)‖²/u²,   u the natural size of the gradient,

is minimised by Levenberg–Marquardt steps for growing μ, and Newton steps of least norm on ∇𝓛 = 0 bring the end onto the
critical set. The Hessian of 𝓛 is formed, so this is for hundreds of parameters. Ends that are minima are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlnphase.backend import stream
from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.critical.hessian import hessian_vector_product
from dlnphase.networks.chain import Network

PENALTIES = (1.0, 1e1, 1e2, 1e3, 1e4, 1e6, 1e8, 1e10)  # of ‖∇𝓛‖²: firmer by degrees, so that a start turns slowly
FIRM = 2  # penalties left out where a start is already of its kind
STEPS = 8  # at each penalty
NEWTON = 12  # steps at most; what has not reached CRITICAL by then is left out
NULL_DIRECTION = 1e-5  # eigenvalues of the Hessian below this, over the largest, are tangent to the critical set
CRITICAL = 1e-12  # ‖∇𝓛‖ in natural units
NO_MINIMUM = 1e-4  # ‖∇C‖ over that at A = 0
NOISES = (0.1, 0.3, 0.6, 1.0)  # of random starts, in sizes of the network: nearby saddles, and those behind them
STARTS_EACH = 3  # random starts of each size of noise around either centre
SHRUNK = (0.0, 0.3, 0.6, 0.9)  # parts to which a mode, or a hidden unit, is shrunk in a start
CHUNK = 16_000_000  # numbers in the directions of one batch of Hessians


def descend(network: Network, cost: QuadraticCost, known: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest saddle reached for each member, and its distance (inf where none was reached), shapes (B, P), (B,).

    Args:
        network: θ_0.
        known: the nearest saddle known, shape (B, P): one centre of the starts, θ_0 being the other.
        scale: natural size of the gradient, shape (B,).
    """
    starts, thinned = _starts(network, known), _thinned(network)
    count = len(starts) + len(thinned)
    many = network.with_theta(network.theta.repeat(count, 1))
    ends = [_penalised(network, cost, starts, scale, PENALTIES)]
    if thinned:
        ends.append(_penalised(network, cost, thinned, scale, PENALTIES[FIRM:]))
    points = _critical(many.with_theta(torch.cat(ends)), cost)
    slope = cost.gradient(points.product())
    level = NO_MINIMUM * float(cost.gradient(torch.zeros_like(cost.minimizer)[None]).norm())
    found = points.gradient(slope).norm(dim=1) <= CRITICAL * scale.repeat(count)
    found &= slope.flatten(1).norm(dim=1) > level
    distance = torch.where(found, (points.theta - many.theta).norm(dim=1), torch.inf).view(count, -1)
    best, winner = distance.min(0)
    rows = winner * network.batch + torch.arange(network.batch, device=winner.device)
    return points.theta[rows], best


def _starts(network: Network, known: Tensor) -> list[Tensor]:
    origin = network.theta
    size = origin.norm(dim=1, keepdim=True) / origin.shape[1] ** 0.5
    rng = stream(0, "search", origin.shape[1])
    starts = [known, *(factor * origin for factor in SHRUNK)]
    for noise in NOISES:
        for _ in range(STARTS_EACH):
            # the same directions for every member: a member's answer does not depend on the others
            turn = torch.as_tensor(rng.standard_normal(origin.shape[1])).to(origin) * size * noise
            starts += [known + turn, origin + turn]
    return starts


def _thinned(network: Network) -> list[Tensor]:
    """θ_0 with both end layers cut to i and j modes, fewer together than ∇C has: kinds that have mixed ways lack.

    Where a mode of a layer between them would cost more than one of an end, that end gives up one more. Searched from
    a firm penalty on: a soft one would lead back to θ_0 before it leads to what is near.
    """
    if network.depth < 3:
        return []  # W_2ᵀ∇C = 0 and ∇C W_1ᵀ = 0 leave no choice
    below, above = network.weights[0], network.weights[-1]
    most = min(network.shape)
    out = []
    for i in range(1, most):
        for j in range(1, most - i):
            out.append(Network.from_weights([_cut(below, i), *network.weights[1:-1], _cut(above, j)]).theta)
    return out


def _cut(w: Tensor, rank: int) -> Tensor:
    u, s, vt = torch.linalg.svd(w, full_matrices=False)
    return (u[:, :, :rank] * s[:, None, :rank]) @ vt[:, :rank]


def _penalised(
    network: Network, cost: QuadraticCost, starts: list[Tensor], scale: Tensor, penalties: Sequence[float]
) -> Tensor:
    """Ends of the descents of every member from each of its starts, one start after the other, shape (n·B, P)."""
    origin, scale = network.theta.repeat(len(starts), 1), scale.repeat(len(starts))
    span = (origin**2).sum(1)
    point = network.with_theta(torch.cat(starts))
    eye = torch.eye(origin.shape[1], dtype=origin.dtype, device=origin.device)
    for penalty in penalties:
        weight = penalty / scale**2

        def value(net: Network, weight: Tensor = weight) -> tuple[Tensor, Tensor]:
            g = net.gradient(cost.gradient(net.product()))
            return ((net.theta - origin) ** 2).sum(1) / span + weight * (g**2).sum(1), g

        damping = torch.zeros_like(span)
        now, g = value(point)
        for _ in range(STEPS):
            h = hessian(point, cost)
            pull = (point.theta - origin) / span[:, None] + weight[:, None] * (h @ g[:, :, None])[:, :, 0]
            normal = weight[:, None, None] * (h @ h) + (1 / span + damping)[:, None, None] * eye
            factor, info = torch.linalg.cholesky_ex(normal)
            step = torch.cholesky_solve(pull[:, :, None], factor)[:, :, 0]
            trial = point.with_theta(point.theta - torch.where((info == 0)[:, None], step, 0.0))
            new, slope = value(trial)
            better = new < now
            point = point.with_theta(torch.where(better[:, None], trial.theta, point.theta))
            quiet = bool(((now - new)[better] <= 1e-9 * now[better]).all()) and bool(better.any())
            now, g = torch.where(better, new, now), torch.where(better[:, None], slope, g)
            damping = torch.where(better, damping / 10, (10 * damping).clamp_min(0.1 / span))
            if quiet:
                break
    return point.theta


def _critical(point: Network, cost: QuadraticCost) -> Network:
    """Newton steps of least norm on ∇𝓛 = 0, kept while they help."""
    g = point.gradient(cost.gradient(point.product()))
    for _ in range(NEWTON):
        values, vectors = torch.linalg.eigh(hessian(point, cost))
        bound = NULL_DIRECTION * values.abs().amax(1, keepdim=True)
        inverse = torch.where(values.abs() > bound, 1 / values, 0.0)
        step = (vectors @ (inverse * (vectors.mT @ g[:, :, None])[:, :, 0])[:, :, None])[:, :, 0]
        trial = point.with_theta(point.theta - torch.nan_to_num(step))
        slope = trial.gradient(cost.gradient(trial.product()))
        better = slope.norm(dim=1) < g.norm(dim=1)
        if not bool(better.any()):
            break
        point = point.with_theta(torch.where(better[:, None], trial.theta, point.theta))
        g = torch.where(better[:, None], slope, g)
    return point


def hessian(network: Network, cost: QuadraticCost) -> Tensor:
    """∇²𝓛, shape (B, P, P)."""
    batch, size = network.theta.shape
    each = max(1, CHUNK // size**2)
    if batch > each:
        pieces = torch.arange(batch, device=network.theta.device).split(each)
        return torch.cat([hessian(network.select(piece), cost) for piece in pieces])
    many = network.with_theta(network.theta.repeat_interleave(size, 0))
    directions = torch.eye(size, dtype=many.theta.dtype, device=many.theta.device).repeat(batch, 1)
    return hessian_vector_product(many, cost, directions).view(batch, size, size)

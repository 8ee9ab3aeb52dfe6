"""The point of a constraint set nearest to where a network starts.

min ½‖θ − θ_0‖² subject to c(θ) = 0, by a truncated Newton method on the set itself: the step solves
(I − P M P) p = −P(θ − θ_0) by conjugate gradients, with P the projection on the tangent space and M the Hessian
of ⟨λ, c⟩ at the least-squares multipliers λ; Gauss–Newton steps bring θ + τp back onto the set; τ is halved until
the distance falls. Every iterate is on the set, so every value is attained: an upper bound on the true distance.

Source of the method: Nocedal, Wright 2006, Numerical Optimization, chapters 7 and 18; Gabay 1982 (Newton on manifolds).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from dlnphase.distances.chains import Constraint, Linearization
from dlnphase.networks.chain import Network

FEASIBLE = 1e-9  # a term whose residual, over its scale, is below this is satisfied
RESTORED = 1e-14  # … and below this needs no further step
ROUGH = 1e-2  # stationarity of a rough search …
ROUGHLY_RESTORED = 1e-10  # … and the residual that will do there
RESTORE_STEPS = 40  # at most: what is not on the set by then is no point of it
CONTRACTION = 0.1  # a factorisation is kept while residuals shrink by this
HALVINGS = 20  # of a step, at most: by then what it gains is round-off
GAIN = 5.0  # a search may gain this share of the square of its stationarity, where the curvature is 1/10
WORTHWHILE = 2**15  # parameters of finished members that are left out: fewer cost less than what is set up anew
CACHED = 2**18  # parameters searched together on a CPU: more leave its cache, and all wait for the slowest member


@dataclass(frozen=True)
class Nearest:
    """What the search found, member by member.

    Attributes:
        theta: the point, shape (B, P).
        distance: ‖θ − θ_0‖, shape (B,); inf where no start reached the set.
        residual: constraint residual over its scale, shape (B,).
        stationarity: ‖P(θ − θ_0)‖ / ‖θ − θ_0‖, 0 at a stationary point of the distance, shape (B,).
        steps: Newton steps taken, shape (B,).
    """

    theta: Tensor
    distance: Tensor
    residual: Tensor
    stationarity: Tensor
    steps: Tensor


def restore(
    network: Network, constraint: Constraint, factor: Linearization | None = None, restored: float = RESTORED
) -> tuple[Network, Tensor]:
    """Gauss–Newton steps of least norm onto the set; returns the network and residuals (B,).

    Members that need far more steps than the others take them by themselves.

    Args:
        factor: a linearisation nearby whose factorised JJᵀ serves until it converges too slowly, for the same members.
        restored: a residual below this needs no further step.
    """
    lin = constraint.at(network)
    residual = lin.residual()
    factor = lin if factor is None else factor
    for _ in range(RESTORE_STEPS):
        moving = ~(residual <= restored)
        left = int(moving.sum())
        if not left:
            break
        if _few(left, network.theta):
            part, residual[moving] = restore(network.select(moving), constraint.select(moving), None, restored)
            theta = network.theta.clone()
            theta[moving] = part.theta
            return network.with_theta(theta), residual
        step = lin.vjp(factor.solve(lin.value))
        moving &= torch.isfinite(step.sum(1) + residual)
        trial = network.theta - step
        if not bool(moving.all()):
            trial = torch.where(moving[:, None], trial, network.theta)
        new = constraint.at(network.with_theta(trial))
        new_residual = new.residual()
        better = moving & (new_residual < residual)
        if factor is not lin and not bool((new_residual <= CONTRACTION * residual)[moving].all()):
            factor = lin  # the borrowed factorisation is too far away: take this one and try again
            continue
        # Far from the set a step may overshoot: it is let through while it at least stays finite and not much worse.
        wild = moving & (new_residual < 4 * residual) & (residual > 1e-6)
        take = better | wild
        if not bool(take.any()):
            break
        stalled = bool((residual[take] < FEASIBLE).all()) and bool((new_residual[take] > 0.3 * residual[take]).all())
        quick = bool((new_residual[take] <= CONTRACTION * residual[take]).all())
        if bool((take | ~moving).all()):  # what does not move is the same in both
            network, lin, residual = network.with_theta(trial), new, new_residual
        else:
            network = network.with_theta(torch.where(take[:, None], trial, network.theta))
            lin = constraint.at(network)
            residual = lin.residual()
        if stalled:
            break
        factor = factor if quick else lin
    return network, residual


def _few(left: int, theta: Tensor) -> bool:
    """Whether so few of the members of θ (B, P) are left that the others are better left out."""
    return 2 * left <= len(theta) and (len(theta) - left) * theta.shape[1] >= WORTHWHILE


def nearest(
    origin: Network,
    start: Network,
    constraint: Constraint,
    *,
    tol: float = 1e-7,
    max_steps: int = 60,
    to_beat: Tensor | None = None,
) -> Nearest:
    """A local minimiser of ‖θ − θ_0‖ on the set {c = 0}, from one start per member.

    Args:
        origin: θ_0, B members.
        start: where to search from, B members of the same shape; need not be on the set.
        constraint: the set.
        tol: stop at stationarity ≤ tol.
        max_steps: Newton steps at most; what was reached is returned with its stationarity.
        to_beat: shape (B,); members that are roughly there and can no longer come nearer than this are left there.
    """
    together = max(1, CACHED // origin.theta.shape[1])
    if origin.theta.device.type == "cpu" and origin.batch > together:
        found = []
        for part in torch.arange(origin.batch).split(together):
            some = origin.select(part), start.select(part), constraint.select(part)
            limit = None if to_beat is None else to_beat[part]
            found.append(nearest(*some, tol=tol, max_steps=max_steps, to_beat=limit))
        return Nearest(*(torch.cat([getattr(f, field.name) for f in found]) for field in fields(Nearest)))
    restored = ROUGHLY_RESTORED if tol >= ROUGH else RESTORED
    there, residual = restore(start, constraint, None, restored)
    theta = there.theta.clone()
    distance = (theta - origin.theta).norm(dim=1)
    distance = torch.where(residual <= FEASIBLE, distance, torch.inf)
    stationarity = torch.full_like(distance, torch.inf)
    steps = torch.zeros_like(distance, dtype=torch.long)
    active = torch.nonzero(torch.isfinite(distance)).flatten()
    for _ in range(max_steps + 1):
        if not len(active):
            break
        here = origin.with_theta(theta[active])
        lin = constraint.select(active).at(here)
        delta = here.theta - origin.theta[active]
        multiplier = lin.solve(lin.jvp(delta))
        gradient = lin.project(delta - lin.vjp(multiplier))
        size = delta.norm(dim=1)
        stationarity[active] = gradient.norm(dim=1) / size.clamp_min(torch.finfo(size.dtype).tiny)
        open_ = (stationarity[active] > tol) & (steps[active] < max_steps)
        if to_beat is not None:
            near = distance[active] * (1 - GAIN * stationarity[active] ** 2) <= to_beat[active]
            open_ &= near | (stationarity[active] > ROUGH)  # far from where it leads a search says little of it
        if not bool(open_.all()):
            active = active[open_]
            continue
        direction = _newton_direction(lin, multiplier, gradient, stationarity[active])
        longest = size / direction.norm(dim=1).clamp_min(torch.finfo(size.dtype).tiny)
        direction = direction * longest.clamp_max(1.0)[:, None]  # a step longer than the distance itself leads astray
        moved = _line_search(origin, theta, active, lin, direction, gradient, constraint, distance, residual, restored)
        steps[active] += 1
        active = active[moved]
    return Nearest(theta, distance, residual, stationarity, steps)


def _newton_direction(lin: Linearization, multiplier: Tensor, gradient: Tensor, stationarity: Tensor) -> Tensor:
    """Truncated conjugate gradients on (I − P M P) p = −g; stops at negative curvature.

    Members need very different numbers of steps: those that are done are left out whenever that halves the work.
    """
    goal = gradient.norm(dim=1) * stationarity.sqrt().clamp(1e-4, 0.3)
    out = torch.zeros_like(gradient)
    rows = torch.arange(len(gradient), device=gradient.device)
    bend = lin.bend(multiplier)
    p, r = out, -gradient
    d = r
    rho = (r * r).sum(1)
    running = torch.ones_like(rho, dtype=torch.bool)
    for count in range(80):
        hd = d - lin.project(bend(d))
        curvature = (d * hd).sum(1)
        negative = running & (curvature <= 1e-10 * (d * d).sum(1))
        if count == 0:
            p = torch.where(negative[:, None], r, p)
        running = running & ~negative
        step = torch.where(running, rho / torch.where(curvature > 0, curvature, 1.0), 0.0)[:, None]
        p = torch.addcmul(p, step, d)
        r = torch.addcmul(r, step, hd, value=-1)
        new = (r * r).sum(1)
        running = running & (new.sqrt() > goal)
        left = int(running.sum())
        if not left:
            break
        d = torch.addcmul(r, torch.where(running, new / rho.clamp_min(1e-300), 0.0)[:, None], d)
        rho = torch.where(running, new, rho)
        if _few(left, p):
            out[rows] = p
            lin, rows, multiplier = lin.select(running), rows[running], multiplier[running]
            p, r, d, rho, goal = (x[running] for x in (p, r, d, rho, goal))
            bend, running = lin.bend(multiplier), torch.ones_like(rho, dtype=torch.bool)
    out[rows] = p
    return out


def _line_search(
    origin: Network,
    theta: Tensor,
    active: Tensor,
    lin: Linearization,
    direction: Tensor,
    gradient: Tensor,
    constraint: Constraint,
    distance: Tensor,
    residual: Tensor,
    restored: float,
) -> Tensor:
    """Halve τ until the restored θ + τp is nearer; writes into theta, distance, residual; returns who moved."""
    slope = (gradient * direction).sum(1)
    moved = torch.zeros_like(active, dtype=torch.bool)
    waiting = torch.arange(len(active), device=active.device)
    tau = torch.ones_like(slope)
    for _ in range(HALVINGS):
        members = active[waiting]
        trial = origin.with_theta(theta[members] + tau[waiting, None] * direction[waiting])
        factor = lin if len(waiting) == len(active) else None
        network, miss = restore(trial, constraint.select(members), factor, restored)
        new = (network.theta - origin.theta[members]).norm(dim=1)
        old = distance[members]
        drop = 0.5 * (new**2 - old**2)
        good = (miss <= FEASIBLE) & (drop <= 1e-4 * tau[waiting] * slope[waiting]) & (new < old)
        if bool(good.any()):
            chosen = members[good]
            theta[chosen] = network.theta[good]
            distance[chosen] = new[good]
            residual[chosen] = miss[good]
            # A gain at round-off is the end, not a step.
            moved[waiting[good]] = (old[good] - new[good]) > 1e-13 * old[good]
        waiting = waiting[~good]
        if not len(waiting):
            break
        tau[waiting] *= 0.5
    return moved

"""Gradient descent θ ← θ − η∇𝓛(θ) and its relatives: discrete algorithms at a stated step, with and without noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlnphase.backend import stream
from dlnphase.costs.quadratic import Cost, QuadraticCost
from dlnphase.dynamics.draws import Draws
from dlnphase.dynamics.records import Record, Walk
from dlnphase.dynamics.schedule import Changing, Schedule
from dlnphase.dynamics.state import Fixed, Room, State
from dlnphase.dynamics.step_control import DIVERGED, check_decay, excess_at_zero, excess_out_of_reach, yardstick
from dlnphase.dynamics.updates import Update
from dlnphase.errors import InputError
from dlnphase.networks.chain import Network

RECORD_CHANGE = 0.02  # record when the excess cost or the gradient norm changed by this fraction …
RECORD_STRETCH = 1.05  # … or the step count grew by this factor
NOISY_STRETCH = 1.005  # with noise, which always changes something, by this one alone
# Share of the largest stable step that `lr auto` takes: what curvature may still grow by against the number of steps.
STABILITY_MARGIN = 0.5
POWER_STEPS = 30  # power steps for the largest curvature: an estimate from below, which the margin makes up for


def gradient_descent(
    network: Network,
    cost: Cost,
    *,
    lr: Changing | Schedule,
    max_steps: int,
    tol: float = 1e-8,
    record_every: int | None = None,
    weight_decay: float = 0.0,
    update: Update | None = None,
    draws: Draws | None = None,
) -> Iterator[Record]:
    """Run gradient descent, or a relative of it, on a batch of networks with a stated step.

    Args:
        network: where to start; not modified.
        lr: step η, or pairs (step, η) of one that changes, the first at step 0; record times are the sums of the η so
            far (with momentum β of η/(1 − β), see :meth:`Update.pace`).
        max_steps: steps before reason ``max_steps``.
        tol: stop when C − C_min is at most tol times its value at the start, or at A = 0 where that is less; 0 = never.
            C_min is the minimum over matrices that fit through the narrowest layer, where that is known.
        record_every: record every so many steps; None records when something changed by 2 %, or the step
            count grew by 5 % (with noise: by 0.5 %).
        weight_decay: λ of C(A_θ) + (λ/2)‖θ‖², θ ← θ − η(∇𝓛 + λθ). What can be reached is not known beforehand then:
            ``tol`` has to be 0, and whoever receives the records ends the members.
        update: what a gradient does; None: the plain step.
        draws: where gradients are stochastic. What is recorded, and ``tol``, is of the whole cost; nothing is looked at
            between two records then.

    Members that end leave the batch. The last state is always recorded: each state is evaluated before
    the step that leaves it.

    Raises:
        InputError: for a step that is not a positive number, or ``tol`` beside weight decay.
    """
    descent = GradientDescent(
        network,
        cost,
        lr=lr,
        max_steps=max_steps,
        tol=tol,
        record_every=record_every,
        weight_decay=weight_decay,
        update=update,
        draws=draws,
    )
    yield from descent.records()


@dataclass(slots=True, init=False, eq=False, repr=False)
class GradientDescent(Walk):
    """Gradient descent as a walk, a round a step; arguments as for :func:`gradient_descent`.

    Attributes:
        network, members: under way, at the step of this number.
        memory: of the update, see :class:`Update`.
        reasons: why some of them end there.
        first: their excess cost at the start.
        thresholds: the excess cost above ``offset`` at which each has converged; known with ``first``.
        seen_excess, seen_norm, seen_step: of the last record.
    """

    cost: Fixed[Cost]
    lr: Fixed[Schedule]
    max_steps: Fixed[int]
    tol: Fixed[float]
    record_every: Fixed[int | None]
    decay: Fixed[float]
    offset: Fixed[float]
    at_zero: Fixed[float]
    update: Fixed[Update]
    draws: Draws | None
    network: Network
    memory: list[Tensor]
    gradient: Room[Tensor]
    products: Room[tuple[list[Tensor], list[Tensor]]]
    members: np.ndarray
    reasons: list[str | None]
    told: bool
    step: int
    first: np.ndarray | None
    thresholds: Room[np.ndarray]
    seen_excess: np.ndarray
    seen_norm: np.ndarray
    seen_step: int

    def __init__(
        self,
        network: Network,
        cost: Cost,
        *,
        lr: Changing | Schedule,
        max_steps: int,
        tol: float = 1e-8,
        record_every: int | None = None,
        weight_decay: float = 0.0,
        update: Update | None = None,
        draws: Draws | None = None,
    ) -> None:
        check_decay(weight_decay, tol)
        self.lr = Schedule.of(lr)
        for value in self.lr.values:
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"lr: found {value}, expected a positive number")
        self.cost, self.max_steps, self.tol, self.record_every = cost, max_steps, tol, record_every
        self.decay = weight_decay
        self.offset, self.at_zero = excess_out_of_reach(cost, network), excess_at_zero(cost, network)
        self.network, self.members = network.clone(), np.arange(network.batch)
        self.update, self.draws = Update() if update is None else update, draws
        self.memory = self.update.memory(self.network.theta)
        self.first, self.told, self.step, self.seen_step = None, False, 0, 0
        self.reasons = [None] * network.batch
        self.seen_excess = self.seen_norm = np.full(network.batch, np.inf)

    @torch.no_grad()  # as a decorator: inside, grad mode would stay off in the caller between two records
    def rounds(self) -> Iterator[list[Record]]:
        """The record of each step, where there is one."""
        while self._remain():
            if self.told:
                self.network, self.step = self._moved(), self.step + 1
            self.told = True
            yield self._look()

    @torch.no_grad()
    def resume(self, state: dict[str, Any]) -> None:
        """Stand at that step, with the gradient there."""
        State.resume(self, state)
        if self.first is not None:
            self.thresholds = self._thresholds(self.first)
        self._evaluate()

    def _remain(self) -> bool:
        """Let those leave the batch that ended with the last record; whether any is left."""
        keep = np.array([r is None for r in self.reasons])
        if keep.any() and not keep.all():
            index = torch.as_tensor(np.flatnonzero(keep), device=self.network.theta.device)
            self.network, self.memory = self.network.select(index), [part[index] for part in self.memory]
            if self.draws is None:
                self.gradient = self.gradient[index]
            else:
                self.draws = self.draws.select(np.flatnonzero(keep))
                prefixes, suffixes = self.products
                self.products = [p[index] for p in prefixes], [s[index] for s in suffixes]
            self.members, self.reasons = self.members[keep], [None] * len(index)
            if self.first is not None:
                self.first, self.thresholds = self.first[keep], self.thresholds[keep]
            self.seen_excess, self.seen_norm = self.seen_excess[keep], self.seen_norm[keep]
        return bool(keep.any())

    def _moved(self) -> Network:
        net = self.network
        if self.draws is not None:
            self._differentiate(self.draws.gradient(self.products[0][-1], self.step))
        lr = self.lr.at(self.step)
        theta = self.update.moved(net, self.gradient, self.memory, step=self.step, lr=lr, decay=self.decay)
        return net.with_theta(theta)

    def _evaluate(self) -> Tensor:
        """A; products, and without noise the gradient, are kept for the step from there."""
        self.products = self.network.prefixes(), self.network.suffixes()
        a = self.products[0][-1]
        if self.draws is None:
            self._differentiate(self.cost.gradient(a))
        return a

    def _differentiate(self, slope: Tensor) -> None:
        """The gradient for this ∇C."""
        self.gradient = self.network.gradient(slope, *self.products)
        if self.decay and self.update.coupled:
            self.gradient.add_(self.network.theta, alpha=self.decay)

    def _norm(self) -> np.ndarray:
        """‖∇𝓛‖ of the whole cost, weight decay included."""
        whole = self.gradient
        if self.decay and not self.update.coupled:
            whole = whole.add(self.network.theta, alpha=self.decay)
        return torch.linalg.vector_norm(whole, dim=-1).cpu().numpy().astype(float)

    def _look(self) -> list[Record]:
        """The record of where the members stand, if there is one to tell."""
        a, step = self._evaluate(), self.step
        if self.draws is not None:
            if not self._due_by_count():
                return []
            self._differentiate(self.cost.gradient(a))
        excess, norm = self.cost.excess(a).cpu().numpy().astype(float), self._norm()
        if self.first is None:
            self.first = np.maximum(excess, np.finfo(float).tiny)
            self.thresholds = self._thresholds(self.first)
        penalty = self._penalty()
        self.reasons = self._reasons(excess, self.first)
        if not (self._due(excess, norm) or any(self.reasons)):
            return []
        self.seen_excess, self.seen_norm, self.seen_step = excess, norm, step
        time = self.lr.total(step, self.update.pace)
        return [_record(self.network, self.members, step, time, excess, norm, a, self.reasons, penalty)]

    def _penalty(self) -> np.ndarray | None:
        """(λ/2)‖θ‖²; None without weight decay."""
        if not self.decay:
            return None
        return 0.5 * self.decay * self.network.theta.square().sum(-1).cpu().numpy().astype(float)

    def _reasons(self, excess: np.ndarray, first: np.ndarray) -> list[str | None]:
        """Why members end here, if they do."""
        above = excess - self.offset
        out = np.full(len(above), "max_steps" if self.step >= self.max_steps else None, dtype=object)
        out[above <= self.thresholds] = "converged"
        out[~np.isfinite(above) | (above > DIVERGED * first)] = "diverged"
        return list(out)

    def _thresholds(self, first: np.ndarray) -> np.ndarray:
        """The excess cost above ``offset`` at which each member has converged."""
        tol, offset, zero = self.tol, self.offset, self.at_zero - self.offset
        return np.array([tol * yardstick(f - offset, zero) if tol > 0 else -np.inf for f in first])

    def _due_by_count(self) -> bool:
        """Whether a step with noise is to be recorded, whatever has changed."""
        if self.record_every is not None:
            return self.step % self.record_every == 0 or self.step >= self.max_steps
        return self.step == 0 or self.step >= min(NOISY_STRETCH * self.seen_step, self.max_steps)

    def _due(self, excess: np.ndarray, norm: np.ndarray) -> bool:
        """Whether this step is to be recorded."""
        if self.draws is not None:
            return True
        if self.record_every is not None:
            return self.step % self.record_every == 0
        with np.errstate(invalid="ignore", divide="ignore"):
            moved = (abs(excess - self.seen_excess) > RECORD_CHANGE * excess) | (
                abs(norm - self.seen_norm) > RECORD_CHANGE * norm
            )
        return self.step == 0 or self.step >= RECORD_STRETCH * self.seen_step or bool(moved.any())


def _record(
    net: Network,
    members: np.ndarray,
    step: int,
    time: float,
    excess: np.ndarray,
    norm: np.ndarray,
    a: torch.Tensor,
    reasons: list[str | None],
    penalty: np.ndarray | None,
) -> Record:
    count = len(members)
    return Record(
        members=members,
        time=np.full(count, time),
        step=np.full(count, step, dtype=np.int64),
        evaluations=np.full(count, step + 1, dtype=np.int64),
        excess=excess,
        gradient_norm=norm,
        A=a.cpu().numpy().astype(float),
        reasons=reasons,
        weights=lambda i: [w[i].cpu().numpy().copy() for w in net.weights],
        penalty=penalty,
    )


def stable_step(network: Network, cost: Cost, *, seed: int = 0, weight_decay: float = 0.0) -> tuple[float, str]:
    """A step at which gradient descent is stable from this start to the minimum, and the reason in words.

    The limit is 2/λ_max. Two curvatures bound λ_max along the path: the Gauss–Newton part JᵀHJ measured at
    the start (power iteration, all members), and λ_H·L·s^(2−2/L) at a balanced network that has learned a
    minimiser of top singular value s (docs/theory.md, section 4), λ_H the top curvature of the cost; s of a completion
    is corrected for the entries that are not observed. A cost without a minimiser has s = 2(C(0) − inf C)/‖∇C(0)‖, that
    of a factorization of one mode; how far it will go is not known then. The step is half the limit of the larger one.
    Weight decay keeps what is learned smaller, and adds λ to every curvature.
    """
    at_start = _gauss_newton_top(network, cost, seed)
    d_out, d_in = cost.shape
    zero = torch.zeros((1, d_out, d_in), dtype=network.theta.dtype, device=network.theta.device)
    top = getattr(cost, "curvature_bound", None)
    if top is None:
        top = _cost_top(cost, zero, seed)
    minimizer = getattr(cost, "minimizer", None)
    slope = float(torch.linalg.matrix_norm(cost.gradient(zero)[0], 2))
    learned = 0.0
    if minimizer is not None or slope > 0:
        s = learned_size(cost, zero)
        learned = top * network.depth * s ** (2 - 2 / network.depth)
        if isinstance(cost, QuadraticCost) and cost.hessian.seen is not None and network.depth > 1:
            # Filled with zeros, a matrix seen on a fraction p shows s = p·s*; what is learned has p·L·s*^(2−2/L).
            seen = float((cost.apply_curvature(torch.ones_like(zero), zero) > 0).double().mean())
            learned *= seen ** (2 / network.depth - 1)
    curvature = max(at_start, learned) + weight_decay
    if not (np.isfinite(curvature) and curvature > 0):
        raise InputError("lr: the curvature at the start is not a positive number, give --lr a value")
    lr = STABILITY_MARGIN * 2 / curvature
    where = "at the start" if at_start >= learned else "once the target is learned"
    return lr, f"η = {lr:.4g}, half the stability limit 2/λ_max for λ_max = {curvature:.4g} {where}"


def learned_size(cost: Cost, zero: Tensor) -> float:
    """The largest singular value of what will be learned.

    Without a minimiser, the size at which the slope at A = 0 would have used up the cost twice.

    Args:
        zero: A = 0, shape (1, d_out, d_in).
    """
    minimizer = getattr(cost, "minimizer", None)
    if minimizer is not None:
        return float(torch.linalg.svdvals(minimizer)[0])
    return 2 * float(cost.excess(zero)) / float(torch.linalg.matrix_norm(cost.gradient(zero)[0], 2))


def _cost_top(cost: Cost, at: torch.Tensor, seed: int) -> float:
    """Largest eigenvalue of the Hessian of C at one matrix (1, d_out, d_in), by power iteration."""
    x = torch.as_tensor(stream(seed, "lanczos").standard_normal(tuple(at.shape)), dtype=at.dtype, device=at.device)
    top = 0.0
    for _ in range(POWER_STEPS):
        x = cost.apply_curvature(x / torch.linalg.vector_norm(x), at)
        top = float(torch.linalg.vector_norm(x))
        if top == 0.0:
            break
    return top


def _gauss_newton_top(network: Network, cost: Cost, seed: int) -> float:
    """Largest eigenvalue of JᵀHJ over the batch, by power iteration in function space (H K there)."""
    prefixes, suffixes = network.prefixes(), network.suffixes()
    a = prefixes[-1]
    rng = stream(seed, "lanczos")
    x = torch.as_tensor(rng.standard_normal(tuple(a.shape)), dtype=a.dtype, device=a.device)
    top = torch.zeros(a.shape[0], dtype=a.dtype, device=a.device)
    for _ in range(POWER_STEPS):
        x = cost.apply_curvature(network.jvp(network.gradient(x, prefixes, suffixes), prefixes, suffixes), a)
        top = torch.linalg.vector_norm(x, dim=(-2, -1))
        x = x / top.clamp_min(torch.finfo(x.dtype).tiny).view(-1, 1, 1)
    return float(top.max())

"""Three layers: some of the dead directions take the longer way on the right, the others on the left.

Of the pairs of directions that have to die, some die on the right in W_2W_1 and on the left in W_3, the others on the
right in W_1 and on the left in W_3W_2. The middle spaces E (right) and F (left) that are best for given directions are
found exactly, each with the other held; which directions take the longer way is turned in between.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dlnphase.distances.annihilation import bottom_subspace
from dlnphase.distances.critical import CriticalMatrix
from dlnphase.distances.deaths import Death, sides
from dlnphase.networks.batch import Batched
from dlnphase.networks.chain import Network

ROUNDS = 400  # of three sweeps; most members need fewer than twenty
FARTHEST = 100.0  # of an extrapolation, in steps; without any (1) the same deaths take up to twice the time
TOLERANCE = 1e-9  # a member stands still when a sweep lowers its cost by less than this share
TURNS = 4  # steps of b for each of E and F, which cost far more


def mixed_death(network: Network, matrices: list[CriticalMatrix], first: Tensor) -> Death:
    """Some right directions die in W_2W_1 (their left partners in W_3), the others in W_1 (and W_3W_2).

    Every member goes on until it stands still: what it comes to does not depend on the others.

    Args:
        network: B members of three layers.
        first: shape (B, m, count), orthonormal columns in the basis of the right directions: those that start on the
            longer way on the right.
    """
    right, left = sides(matrices)
    gamma = torch.stack([m.strengths for m in matrices])
    w1, w2, w3 = network.weights
    short = torch.linalg.qr(first, mode="complete")[0][:, :, first.shape[2] :]  # b: right directions with k = 1
    middle = _stationary(_Middle.begin(w2, w1 @ right, w3.mT @ left, gamma, short))
    e, f, short = middle.e, middle.f, middle.short
    long_, partner = _partners(short, gamma)
    v_long, v_short = right @ long_, right @ short
    u_long = left @ partner
    u_short = left @ torch.linalg.qr(partner, mode="complete")[0][:, :, partner.shape[2] :]
    image, pull = w1 @ v_long, w3.mT @ u_long
    new1 = w1 - (image - e @ (e.mT @ image)) @ v_long.mT - (w1 @ v_short) @ v_short.mT
    new2 = w2 - (w2 @ e) @ e.mT
    new2 = new2 - f @ (f.mT @ new2)
    new3 = w3 - u_long @ (pull - f @ (f.mT @ pull)).mT - u_short @ (u_short.mT @ w3)
    dead = Network.from_weights([new1, new2, new3])
    squared = ((dead.theta - network.theta) ** 2).sum(1)
    return Death(dead, squared, (2, 1), [v_long, v_short], [u_short, u_long], [right, e, f, left])


@dataclass(frozen=True)
class _Middle(Batched):
    """What the search for E, F and b turns over, for some members.

    Attributes:
        w2: the middle layer.
        image, pull: W_1 V_R and W_3ᵀ U_R.
        gamma: strengths of the modes, shape (B, m).
        e, f, short: orthonormal bases of E and F, and b.
        squared: what the death costs with them, shape (B,).
    """

    w2: Tensor
    image: Tensor
    pull: Tensor
    gamma: Tensor
    e: Tensor
    f: Tensor
    short: Tensor
    squared: Tensor

    @classmethod
    def begin(cls, w2: Tensor, image: Tensor, pull: Tensor, gamma: Tensor, short: Tensor) -> _Middle:
        """With each of E and F as if the other were empty."""
        long_, partner = _partners(short, gamma)
        e, f = bottom_subspace(w2, image @ long_), bottom_subspace(w2.mT, pull @ partner)
        return cls(w2, image, pull, gamma, e, f, short, torch.full_like(gamma[:, 0], torch.inf))

    def swept(self) -> _Middle:
        """After an exact step for F, one for E, and a turn of b."""
        long_, partner = _partners(self.short, self.gamma)
        f = bottom_subspace((self.w2 - (self.w2 @ self.e) @ self.e.mT).mT, self.pull @ partner)
        e = bottom_subspace(self.w2 - f @ (f.mT @ self.w2), self.image @ long_)
        short = _turn(self.short, self.gamma, e.mT @ self.image, f.mT @ self.pull)
        squared = _cost(self.w2, e, f, self.image, self.pull, *_partners(short, self.gamma))
        return replace(self, e=e, f=f, short=short, squared=squared)

    def beyond(self, first: _Middle, second: _Middle) -> _Middle:
        """Where the sweeps from here to ``first`` to ``second`` are heading: E and b extrapolated along both.

        The step is that of Varadhan and Roland (2008, SQUAREM, their third), in bases turned to those here.
        """
        bases = (self.e, self.short)
        ones, twos = (
            [_turned(there, base) for there, base in zip((m.e, m.short), bases, strict=True)] for m in (first, second)
        )
        steps = [one - base for one, base in zip(ones, bases, strict=True)]
        bends = [two - 2 * one + base for one, two, base in zip(ones, twos, bases, strict=True)]
        ratio = _square(*steps) / _square(*bends).clamp_min(torch.finfo(self.e.dtype).tiny)
        alpha = -ratio.sqrt().clamp(1.0, FARTHEST)[:, None, None]
        e, short = (
            torch.linalg.qr(base - 2 * alpha * step + alpha**2 * bent)[0]
            for base, step, bent in zip(bases, steps, bends, strict=True)
        )
        return replace(second, e=e, short=short)


def _stationary(here: _Middle) -> _Middle:
    """E, F and b at which no sweep lowers the cost any more, member by member."""
    out = replace(here, e=here.e.clone(), f=here.f.clone(), short=here.short.clone())
    moving = torch.arange(len(here.squared), device=here.squared.device)
    for _ in range(ROUNDS):
        first = here.swept()
        second = first.swept()
        onward = here.beyond(first, second).swept()
        better = onward.squared < second.squared
        here = replace(
            second,
            **{
                name: torch.where(better[:, None, None], getattr(onward, name), getattr(second, name))
                for name in ("e", "f", "short")
            },
            squared=torch.where(better, onward.squared, second.squared),
        )
        out.e[moving], out.f[moving], out.short[moving] = here.e, here.f, here.short
        goes_on = first.squared - here.squared > TOLERANCE * here.squared
        if not bool(goes_on.all()):
            moving, here = moving[goes_on], here.select(goes_on)
        if not len(moving):
            break
    return out


def _square(first: Tensor, second: Tensor) -> Tensor:
    """‖first‖² + ‖second‖², member by member, shape (B,)."""
    return (first**2).sum((1, 2)) + (second**2).sum((1, 2))


def _turned(basis: Tensor, towards: Tensor) -> Tensor:
    """The orthonormal basis of a subspace that is nearest to another basis."""
    u, _, vh = torch.linalg.svd(basis.mT @ towards)
    return basis @ (u @ vh)


def _partners(short: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Right directions with k = 2 (the complement of b) and left ones dying in W_3W_2 (orth Γ⁻¹b), in the bases V_R,
    U_R."""
    long_ = torch.linalg.qr(short, mode="complete")[0][:, :, short.shape[2] :]
    return long_, torch.linalg.qr(short / gamma.unsqueeze(2))[0]


def _turn(short: Tensor, gamma: Tensor, right: Tensor, left: Tensor) -> Tensor:
    """Gradient ascent on the subspace b: tr(Π_c LᵀL) − tr(bᵀRᵀR b), Π_c the projection on Γ⁻¹b, bᵀb = 1."""
    h1 = right.mT @ right
    inverse = 1 / gamma.unsqueeze(2)
    k = (left.mT @ left) * inverse * inverse.mT
    n = torch.diag_embed(gamma**-2)

    def gain(b: Tensor) -> tuple[Tensor, Tensor]:
        s = torch.linalg.inv(b.mT @ n @ b)
        kb = b.mT @ k @ b
        value = (s * kb.mT).sum((1, 2)) - (b * (h1 @ b)).sum((1, 2))
        gradient = k @ b @ s - n @ b @ s @ kb @ s - h1 @ b
        return value, gradient - b @ (b.mT @ gradient)

    value, slope = gain(short)
    rate = 1 / (h1.diagonal(dim1=1, dim2=2).amax(1) + (left**2).sum((1, 2)) + torch.finfo(h1.dtype).tiny)
    for _ in range(TURNS):
        trial = torch.linalg.qr(short + rate[:, None, None] * slope)[0]
        new, new_slope = gain(trial)
        better = new > value
        short = torch.where(better[:, None, None], trial, short)
        slope = torch.where(better[:, None, None], new_slope, slope)
        value = torch.where(better, new, value)
        rate = torch.where(better, 1.5 * rate, 0.3 * rate)
    return short


def _cost(w2: Tensor, e: Tensor, f: Tensor, image: Tensor, pull: Tensor, long_: Tensor, partner: Tensor) -> Tensor:
    def square(x: Tensor) -> Tensor:
        return (x**2).sum((1, 2))

    ends = square(image) - square(e.mT @ image @ long_) + square(pull) - square(f.mT @ pull @ partner)
    return ends + square(w2 @ e) + square(f.mT @ w2) - square(f.mT @ w2 @ e)

"""How a gradient becomes a step: plain, heavy ball, Muon, Adam. Each is a value; what it remembers stands in the walk.

Rules whose ``coupled`` is True get ∇𝓛 + λθ for a weight decay of λ, as ``torch.optim.SGD`` and ``torch.optim.Adam`` do.
What a reduced network lacks is driven by no gradient; :meth:`Update.left` tells what becomes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dlnphase.dynamics.schedule import Schedule
from dlnphase.networks.chain import Network, split

KNOWN = 100.0  # times the round-off of a decomposition that a singular value has to exceed


@dataclass(frozen=True)
class Update:
    """θ ← θ − ηg, what the others derive from.

    Attributes:
        coupled: whether weight decay is part of the gradient that it gets.
        flows: whether it follows gradient flow as η → 0.
    """

    coupled: ClassVar[bool] = True
    flows: ClassVar[bool] = True

    def memory(self, theta: Tensor) -> list[Tensor]:
        """What it remembers before the first step, tensors with the batch in front."""
        return []

    def moved(
        self, network: Network, gradient: Tensor, memory: list[Tensor], *, step: int, lr: float, decay: float
    ) -> Tensor:
        """θ after a step, shape (B, P).

        Args:
            gradient: flat, shape (B, P); not modified.
            memory: brought up to date.
            step: steps before this one.
            lr, decay: η and λ.
        """
        return network.theta.sub(gradient, alpha=lr)

    def pace(self, lr: float) -> float:
        """The time of gradient flow that a step stands for as η → 0; η where there is no such flow."""
        return lr

    def growth(self, rate: float, lr: float) -> float | None:
        """The rate, in its time, of what gradient flow lets grow at this one; None: the same as η → 0."""
        return None

    def left(self, lr: Schedule, decay: float, steps: np.ndarray) -> np.ndarray:
        """The share that is left after so many steps of a weight that no gradient reaches."""
        counts = lr.counts(np.asarray(steps, dtype=float))
        shares = [(1 - value * decay) ** count for value, count in zip(lr.values, counts, strict=True)]
        return np.asarray(np.prod(shares, axis=0))

    def step(self, size: Callable[[], float]) -> tuple[float, str] | None:
        """η where none is given, and why in words; None: what is stable for the plain step.

        Args:
            size: of a layer that has learned the largest mode.
        """
        return None

    def needs_full(self, depth: int) -> str:
        """Why reduced networks of this depth would not move as full ones do; "" where they do."""
        return ""


@dataclass(frozen=True)
class HeavyBall(Update):
    """v ← βv + g, θ ← θ − ηv (Polyak 1964, in the convention of ``torch.optim.SGD(momentum=β)``).

    Attributes:
        momentum: 0 ≤ β < 1.
    """

    momentum: float

    def memory(self, theta: Tensor) -> list[Tensor]:
        """v = 0."""
        return [torch.zeros_like(theta)]

    def moved(
        self, network: Network, gradient: Tensor, memory: list[Tensor], *, step: int, lr: float, decay: float
    ) -> Tensor:
        """θ − ηv."""
        memory[0].mul_(self.momentum).add_(gradient)
        return network.theta.sub(memory[0], alpha=lr)

    def pace(self, lr: float) -> float:
        """η/(1 − β)."""
        return lr / (1 - self.momentum)

    def growth(self, rate: float, lr: float) -> float:
        """ln z·(1 − β)/η for the larger root of z² − (1 + β + η·rate)z + β: the flow's for η·rate ≪ (1 − β)² alone."""
        half = (1 + self.momentum + lr * rate) / 2
        return float(np.log(half + np.sqrt(half * half - self.momentum))) / self.pace(lr)

    def left(self, lr: Schedule, decay: float, steps: np.ndarray) -> np.ndarray:
        """u_k of u ← u − η(βv + λu), v ← βv + λu with u_0 = 1, v_0 = 0."""
        once, index = np.unique(np.asarray(steps, dtype=np.int64), return_inverse=True)
        turns = [np.array([[1 - value * decay, -value * self.momentum], [decay, self.momentum]]) for value in lr.values]
        left = []
        for counts in zip(*lr.counts(once), strict=True):
            state = np.array([1.0, 0.0])
            for turn, count in zip(turns, counts, strict=True):
                state = np.linalg.matrix_power(turn, int(count)) @ state
            left.append(state[0])
        return np.array(left)[index]


@dataclass(frozen=True)
class Muon(Update):
    """v ← βv + g, W_l ← (1 − ηλ)W_l − η·polar(v_l): every direction of every layer moves by η (Jordan et al. 2024).

    polar(UΣVᵀ) = UVᵀ over the singular values that are not round-off, exactly, where the published one is a polynomial
    of it; no Nesterov step, no factor for the shape of a layer. Weight decay does not pass through the polar factor.

    Attributes:
        momentum: 0 ≤ β < 1.
    """

    coupled: ClassVar[bool] = False
    flows: ClassVar[bool] = False
    momentum: float
    share: ClassVar[float] = 0.01  # of the size of a layer that has learned the largest mode, its step by default

    def memory(self, theta: Tensor) -> list[Tensor]:
        """v = 0."""
        return [torch.zeros_like(theta)]

    def moved(
        self, network: Network, gradient: Tensor, memory: list[Tensor], *, step: int, lr: float, decay: float
    ) -> Tensor:
        """The polar factor of each layer's v."""
        memory[0].mul_(self.momentum).add_(gradient)
        turn = torch.cat([polar(v).flatten(1) for v in split(memory[0], network.dims)], 1)
        return (network.theta * (1 - lr * decay)).sub_(turn, alpha=lr)

    def step(self, size: Callable[[], float]) -> tuple[float, str]:
        """A share of the size of such a layer."""
        layer = size()
        lr = self.share * layer
        return lr, f"η = {lr:.4g}, {self.share:g} of the size {layer:.4g} of a layer that has learned the largest mode"

    def needs_full(self, depth: int) -> str:
        """Beyond two layers hidden spaces are cut off, and what is cut off would move as fast as everything else."""
        if depth < 3:
            return ""
        return f"muon moves all directions of a layer alike, also those that a reduced network of depth {depth} drops"


@dataclass(frozen=True)
class Adam(Update):
    """θ ← θ − η·m̂/(√v̂ + ε), entry by entry (Kingma, Ba 2015), in the convention of ``torch.optim.Adam``.

    Attributes:
        momentum: β_1, 0 ≤ β_1 < 1.
    """

    flows: ClassVar[bool] = False
    momentum: float
    second: ClassVar[float] = 0.999  # β_2 and ε as torch has them
    epsilon: ClassVar[float] = 1e-8
    usual: ClassVar[float] = 1e-3

    def memory(self, theta: Tensor) -> list[Tensor]:
        """m = v = 0."""
        return [torch.zeros_like(theta), torch.zeros_like(theta)]

    def moved(
        self, network: Network, gradient: Tensor, memory: list[Tensor], *, step: int, lr: float, decay: float
    ) -> Tensor:
        """θ − η·m̂/(√v̂ + ε)."""
        first, second = memory
        first.lerp_(gradient, 1 - self.momentum)
        second.mul_(self.second).addcmul_(gradient, gradient, value=1 - self.second)
        unbias = (1 - self.second ** (step + 1)) ** 0.5
        size = (second.sqrt() / unbias).add_(self.epsilon)
        return network.theta.addcdiv(first, size, value=-lr / (1 - self.momentum ** (step + 1)))

    def step(self, size: Callable[[], float]) -> tuple[float, str]:
        """As torch has it."""
        return self.usual, f"η = {self.usual:g}, as is usual for Adam"

    def needs_full(self, depth: int) -> str:
        """Entries have no meaning in a reduced network."""
        return "adam scales each weight by itself, which depends on the axes of the hidden spaces" if depth > 1 else ""


def plain(momentum: float) -> Update:
    """The plain step, or heavy ball."""
    return HeavyBall(momentum) if momentum else Update()


def polar(matrix: Tensor) -> Tensor:
    """UVᵀ of a singular value decomposition UΣVᵀ, without singular values at round-off; shape (B, m, n).

    Products of layers leave round-off above that of the decomposition alone. A direction is taken where it is known
    to a hundredth; any other would move a whole η a step, at random.
    """
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    kept = s > KNOWN * max(matrix.shape[-2:]) * torch.finfo(s.dtype).eps * s[..., :1]
    return (u * kept.unsqueeze(-2)) @ vt

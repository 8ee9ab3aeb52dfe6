"""Where the stages of one step live: increments of a chain of matrices, written in function space.

Every stage of a step that starts at θ is a sum of terms S_lᵀ Y P_lᵀ in layer l, with the *same* small matrix Y
in all layers and the products S_l (above) and P_l (below) taken at θ or at an earlier stage. With
ΔS_{l,i}, ΔP_{l,i} the change of the products at stage i and

    𝕊_l = [S_l; ΔS_{l,1}; ΔS_{l,2}; …],      ℙ_l = [P_l, ΔP_{l,1}, ΔP_{l,2}, …],

an increment is one matrix 𝕐 of shape (m·d_out, m·d_in) for m blocks, δW_l = 𝕊_lᵀ 𝕐 ℙ_lᵀ. Stages are combined
and products moved without touching a hidden × hidden matrix except to multiply by it, and changes of products
come out small where they are small: nothing is subtracted that was rounded at the size of the whole.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlnphase.networks.chain import Network, split

CANCELLED = 1e-12  # share of its terms below which a sum of squares in function space is round-off


class Span:
    """Increments of a network in the span of products at its start and its stages.

    Args:
        network: θ.
        prefixes, suffixes: its products, see :class:`~dlnphase.networks.chain.Network`.
        blocks: how many blocks m there is room for.

    Block 0 holds the products at θ. In the first layer P_1 = 1, in the last S_L = 1, and neither ever changes. Beside
    the blocks are kept S_l𝕊_lᵀ and ℙ_lᵀP_l, with S_l and P_l at θ: all that an increment needs to be seen in A.
    """

    def __init__(self, network: Network, prefixes: list[Tensor], suffixes: list[Tensor], blocks: int) -> None:
        self.network, self.prefixes, self.suffixes, self.blocks = network, prefixes, suffixes, blocks
        d_out, d_in = network.shape
        batch, depth = network.batch, network.depth
        new = network.theta.new_empty
        self._above = [new((batch, blocks * d_out, n)) for n in network.hidden]
        self._below = [new((batch, n, blocks * d_in)) for n in network.hidden]
        self._left = [new((batch, d_out, blocks * d_out)) for _ in range(depth - 1)]
        self._right = [new((batch, blocks * d_in, d_in)) for _ in range(depth - 1)]
        self._admit(0, suffixes[:-1], prefixes[1:-1])

    def zero(self) -> Tensor:
        """The increment 0: 𝕐 of shape (B, m·d_out, m·d_in)."""
        d_out, d_in = self.network.shape
        return self.network.theta.new_zeros((self.network.batch, self.blocks * d_out, self.blocks * d_in))

    def move(self, y: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Change of all products under an increment 𝕐 (of the blocks admitted so far).

        Returns (ΔS_l for all layers but the last, ΔP_l for all layers but the first, ΔA of shape (B, d_out, d_in)).
        """
        weights, depth = self.network.weights, self.network.depth
        lower, right, a = self._upwards(y)
        if depth == 1:
            return [], [], a
        change = right[-1][:, : self.network.shape[0]]
        upper = [change]
        for layer in range(depth - 2, 0, -1):
            moved = (self.suffixes[layer] + change) @ self.above[layer].mT
            change = torch.baddbmm(change @ weights[layer], moved, right[layer - 1])
            upper.append(change)
        return upper[::-1], lower, a

    def change(self, y: Tensor) -> Tensor:
        """ΔA alone, at half the cost of :meth:`move`."""
        return self._upwards(y)[2]

    def _upwards(self, y: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """ΔP_l of all layers but the first, 𝕐ℙ_lᵀ, and ΔA."""
        weights, depth = self.network.weights, self.network.depth
        d_out, d_in = self.network.shape
        if depth == 1:
            return [], [], y[:, :d_out, :d_in]
        y = y[:, : self.filled * d_out, : self.filled * d_in]
        right = [y @ below.mT for below in self.below]
        change = self.above[0].mT @ y[:, :, :d_in]
        lower = [change]
        for layer in range(1, depth - 1):
            moved = right[layer - 1] @ (self.prefixes[layer] + change)
            change = torch.baddbmm(weights[layer] @ change, self.above[layer].mT, moved)
            lower.append(change)
        return lower, right, torch.baddbmm(weights[-1] @ change, right[-1][:, :d_out], self.prefixes[-2] + change)

    def admit(self, upper: list[Tensor], lower: list[Tensor]) -> None:
        """Store the changes of products at a stage as the next block."""
        self._admit(self.filled, upper, lower)

    def _admit(self, block: int, upper: list[Tensor], lower: list[Tensor]) -> None:
        d_out, d_in = self.network.shape
        rows, columns = slice(block * d_out, (block + 1) * d_out), slice(block * d_in, (block + 1) * d_in)
        for above, left, change, s in zip(self._above, self._left, upper, self.suffixes[:-1], strict=True):
            above[:, rows] = change
            left[:, :, rows] = s @ change.mT
        for below, right, change, p in zip(self._below, self._right, lower, self.prefixes[1:-1], strict=True):
            below[:, :, columns] = change
            right[:, columns] = change.mT @ p
        self.filled = block + 1
        self.above = [above[:, : self.filled * d_out] for above in self._above]  # 𝕊_l of all layers but the last
        self.below = [below[:, :, : self.filled * d_in] for below in self._below]  # ℙ_l of all layers but the first

    def jvp(self, y: Tensor) -> Tensor:
        """J 𝕐: change of A to first order at θ, shape (B, d_out, d_in)."""
        depth = self.network.depth
        d_out, d_in = self.network.shape
        if depth == 1:
            return y[:, :d_out, :d_in]
        m_out, m_in = self.filled * d_out, self.filled * d_in
        y = y[:, :m_out, :m_in]
        left, right = [each[:, :, :m_out] for each in self._left], [each[:, :m_in] for each in self._right]
        total = torch.baddbmm(left[0] @ y[:, :, :d_in], y[:, :d_out], right[-1])
        for layer in range(1, depth - 1):
            total.baddbmm_(left[layer] @ y, right[layer - 1])
        return total

    def add_to(self, theta: Tensor, y: Tensor) -> Tensor:
        """θ' + δθ for flat parameters θ' of shape (B, P), in place."""
        depth = self.network.depth
        d_out, d_in = self.network.shape
        parts = split(theta, self.network.dims)
        if depth == 1:
            parts[0].add_(y[:, :d_out, :d_in])
            return theta
        parts[0].baddbmm_(self.above[0].mT, y[:, :, :d_in])
        for layer in range(1, depth - 1):
            parts[layer].baddbmm_(self.above[layer].mT, y @ self.below[layer - 1].mT)
        parts[-1].baddbmm_(y[:, :d_out], self.below[-1].mT)
        return theta

    def norm(self, y: Tensor, scales: list[Tensor]) -> Tensor | None:
        """√(1/L Σ_l Σ_ij δW_l[i,j]² / (r_i r_j)) for the sizes r of the directions of every space, shape (B,).

        Measured in function space, from the Gram matrices of 𝕊 and ℙ; None where its terms cancel so far that
        round-off would decide.

        Args:
            scales: 1/r of the spaces 0, …, L, each (B, n_l).
        """
        depth = self.network.depth
        d_out, d_in = self.network.shape
        if depth == 1:
            scaled = y[:, :d_out, :d_in].square() * scales[1].unsqueeze(-1) * scales[0].unsqueeze(-2)
            return scaled.sum((-2, -1)).sqrt()
        first, last = y[:, :, :d_in], y[:, :d_out]
        left = [(above * scales[i + 1].unsqueeze(-2)) @ above.mT for i, above in enumerate(self.above)]
        right = [below.mT @ (below * scales[i + 1].unsqueeze(-1)) for i, below in enumerate(self.below)]
        products = [(left[0] @ first) * (first * scales[0].unsqueeze(-2))]
        products += [(left[i] @ y) * (y @ right[i - 1]) for i in range(1, depth - 1)]
        products.append((last * scales[-1].unsqueeze(-1)) * (last @ right[-1]))
        flat = torch.cat([p.flatten(1) for p in products], 1)
        total = flat.sum(-1)
        if bool((total < CANCELLED * flat.abs().sum(-1)).any()):
            return None
        return (total / depth).sqrt()

"""θ̇ = −∇𝓛(θ) for a deep linear network and a masked quadratic cost, in NumPy: values, slopes and the exact Jacobian.

It is written for solvers that know nothing of networks, and shares no code with the package that it is compared with.
Any floating type goes through it; the dense Jacobian is in double precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Chain:
    """𝓛(W_1, …, W_L) = ½‖M ∘ (U W_L ⋯ W_1 Vᵀ − Y)‖²: U and V are 1 unless the network has been turned.

    Attributes:
        dims: (d_in, n_1, …, d_out).
        mask, target: M and Y, (d_out, d_in).
        left, right: orthogonal U, (d_out, d_out), and V, (d_in, d_in).
    """

    dims: tuple[int, ...]
    mask: Array
    target: Array
    left: Array
    right: Array

    @classmethod
    def plain(cls, dims: Sequence[int], mask: Array, target: Array) -> Chain:
        """The chain that has not been turned."""
        return cls(tuple(dims), mask, target, np.eye(dims[-1]), np.eye(dims[0]))

    @property
    def size(self) -> int:
        """P, the number of weights."""
        return sum(a * b for a, b in pairwise(self.dims))

    def layers(self, theta: Array) -> list[Array]:
        """Views of a flat θ as W_1, …, W_L."""
        out, start = [], 0
        for below, above in pairwise(self.dims):
            out.append(theta[start : start + above * below].reshape(above, below))
            start += above * below
        return out

    def matrix(self, theta: Array) -> Array:
        """A = U W_L ⋯ W_1 Vᵀ."""
        product, *rest = self.layers(theta)
        for layer in rest:
            product = layer @ product
        return self.left @ product @ self.right.T

    def excess(self, theta: Array) -> float:
        """𝓛(θ); the planted target makes its minimum 0."""
        gap = self.mask * (self.matrix(theta) - self.target)
        return 0.5 * float(np.vdot(gap, gap))

    def slope(self, theta: Array) -> Array:
        """−∇𝓛(θ), flat."""
        layers = self.layers(theta)
        below = _below(layers)
        product = layers[-1] @ below[-1] if below else layers[-1]
        residual = self.mask * (self.left @ product @ self.right.T - self.target)
        above = self.left.T @ residual @ self.right  # turned back before small rows meet large ones
        parts = []
        for index in range(len(layers) - 1, 0, -1):
            parts.append(above @ below[index - 1].T)
            above = layers[index].T @ above
        parts.append(above)
        return -np.concatenate([part.ravel() for part in reversed(parts)])

    def factors(self, theta: Array) -> tuple[list[Array], list[Array], Array]:
        """(S_1, …, S_L), (P_1, …, P_L) with dA = Σ S_l dW_l P_l in the frame of the layers, and ∇C in that frame."""
        layers = self.layers(theta)
        prefixes = [np.eye(self.dims[0], dtype=theta.dtype), *_below(layers)]
        suffixes = [np.eye(self.dims[-1], dtype=theta.dtype)]
        for layer in reversed(layers[1:]):
            suffixes.append(suffixes[-1] @ layer)
        product = layers[-1] @ prefixes[-1]
        residual = self.mask * (self.left @ product @ self.right.T - self.target)
        return suffixes[::-1], prefixes, self.left.T @ residual @ self.right

    def tangent(self, theta: Array) -> Array:
        """What C sees of dA = J dθ: the rows of J at the entries of the mask, (#observed, P)."""
        suffixes, prefixes, _ = self.factors(theta)
        observed = np.flatnonzero(self.mask.ravel())
        parts = [
            np.einsum("ia,bj->ijab", self.left @ s, p @ self.right.T).reshape(self.mask.size, -1)[observed]
            for s, p in zip(suffixes, prefixes, strict=True)
        ]
        return np.concatenate(parts, 1)

    def jacobian(self, theta: Array) -> Array:
        """∂θ̇/∂θ = −∇²𝓛(θ), (P, P): what J carries, and what the residual bends between every two layers."""
        theta = np.asarray(theta, dtype=float)
        tangent = self.tangent(theta)
        hessian = tangent.T @ tangent
        suffixes, prefixes, pull = self.factors(theta)
        layers, starts = self.layers(theta), np.cumsum([0, *(a * b for a, b in pairwise(self.dims))])
        for low in range(len(layers) - 1):
            between = np.eye(self.dims[low + 1])  # W_{high−1} ⋯ W_{low+1}
            for high in range(low + 1, len(layers)):
                bend = suffixes[high].T @ pull @ prefixes[low].T
                block = np.einsum("ab,cd->acdb", bend, between)
                block = block.reshape(starts[high + 1] - starts[high], starts[low + 1] - starts[low])
                rows, columns = slice(starts[high], starts[high + 1]), slice(starts[low], starts[low + 1])
                hessian[rows, columns] += block
                hessian[columns, rows] += block.T
                between = layers[high] @ between
        return -hessian

    def jacobian_times(self, theta: Array, direction: Array) -> Array:
        """−∇²𝓛(θ) v, at the price of a few gradients."""
        layers, moves = self.layers(theta), self.layers(direction)
        low, d_low = [np.eye(self.dims[0])], [np.zeros((self.dims[0],) * 2)]
        for layer, move in zip(layers, moves, strict=True):
            d_low.append(move @ low[-1] + layer @ d_low[-1])
            low.append(layer @ low[-1])
        turned = self.left @ low.pop() @ self.right.T, self.left @ d_low.pop() @ self.right.T
        above = self.left.T @ (self.mask * (turned[0] - self.target)) @ self.right
        d_above = self.left.T @ (self.mask * turned[1]) @ self.right
        parts = []
        for layer, move, p, d_p in zip(reversed(layers), reversed(moves), low[::-1], d_low[::-1], strict=True):
            parts.append(d_above @ p.T + above @ d_p.T)
            d_above = layer.T @ d_above + move.T @ above
            above = layer.T @ above
        return -np.concatenate([part.ravel() for part in reversed(parts)])


def _below(layers: Sequence[Array]) -> list[Array]:
    """W_1, W_2 W_1, …, W_{L−1} ⋯ W_1."""
    out: list[Array] = []
    for layer in layers[:-1]:
        out.append(layer @ out[-1] if out else layer)
    return out

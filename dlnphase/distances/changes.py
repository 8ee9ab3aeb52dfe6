"""How far straight products of layers can move when the layers move by a given distance in all.

A change of a product of n layers is a sum over the non-empty sets S of changed layers: what is not changed enters by
its norm c_S, what is by ‖δ_l‖, and Σ_S c_S Π_{l∈S}‖δ_l‖ with Σ‖δ_l‖² = d² is at most
Σ_k (Σ_{|S|=k} c_S²)^½ (C(n, k)(d²/n)^k)^½, by Cauchy–Schwarz and by Maclaurin's inequality for the elementary
symmetric functions of the ‖δ_l‖².
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb, log, sqrt

import numpy as np

from dlnphase.distances.enclosures import Enclosed, up
from dlnphase.networks.chain import Network
from dlnphase.networks.products import products_below

FAILURE = 1e-12  # probability that some bound on the norm of a layer that is not held fails, over a whole cell
HALVINGS = 80  # of a bracket: more than a double can tell apart


class NormBounds:
    """θ_0 seen by its norms: upper bounds of layers and straight products, and least singular values from below.

    Args:
        network: B members in double precision, depth at least 2; straight products of a reduced one are exact.
        width, sigma: of the full network; layers that a reduced one does not hold are bounded in probability,
            ‖W‖_op ≤ σ(2√w + t) with probability 1 − e^(−t²/2) (Davidson and Szarek 2001).
        full: whether the full network is held.

    Attributes:
        norm: ‖W_l‖_op at most, per layer, each of shape (B,).
        below, above: W_l ⋯ W_1 and (W_L ⋯ W_l)ᵀ, L−1 of each.
        below_norm, above_norm: their norms at most, preceded by 1 for the empty product.
        ends: ‖W_1‖_F and ‖W_L‖_F at most.
        probability: that every bound holds.
    """

    def __init__(self, network: Network, width: int, sigma: float, full: bool) -> None:
        self.depth, self.batch = network.depth, network.batch
        self.shape = network.shape
        layers = [Enclosed.exact(w.double().cpu().numpy()) for w in network.weights]
        self.below, self.above = products_below(layers[:-1]), products_below([w.transposed() for w in layers[:0:-1]])
        held = [0, self.depth - 1]
        self.norm = [np.zeros(self.batch)] * self.depth
        failures = sqrt(2 * log(max(1, self.depth - 2) * self.batch / FAILURE))
        for index, layer in enumerate(layers):
            if full or index in held:
                self.norm[index] = layer.singular_values()[1]
            else:
                self.norm[index] = up(np.full(self.batch, sigma * (2 * sqrt(width) + failures)))
        self.probability = 1.0 if full or self.depth == 2 else 1.0 - FAILURE
        self.last = layers[-1]
        self.ends = [layers[0].frobenius, layers[-1].frobenius]
        self.narrow = min(width, *network.dims[1:-1])
        # ‖W_l ⋯ W_1‖ and ‖W_L ⋯ W_{L−l+1}‖ for l = 0 … L−1
        one = np.ones(self.batch)
        self.below_norm = [one, *(p.singular_values()[1] for p in self.below)]
        self.above_norm = [one, *(p.singular_values()[1] for p in self.above)]

    def product(self) -> Enclosed:
        """A_θ0, shape (B, d_out, d_in)."""
        return self.last @ self.below[-1]

    def least(self, side: str) -> np.ndarray:
        """σ_min of W_{L−1} ⋯ W_1 (``below``) or W_L ⋯ W_2 (``above``) on the whole outer space, from below."""
        product = getattr(self, side)[-1]
        outer = self.shape[1] if side == "below" else self.shape[0]
        return product.singular_values()[0] if self.narrow >= outer else np.zeros(self.batch)

    def run(self, first: int, last: int) -> np.ndarray:
        """An upper bound of ‖W_last ⋯ W_first‖ by the norms of its layers (numbered from 0; 1 where empty)."""
        out = np.ones(self.batch)
        for index in range(first, last + 1):
            out = up(out * self.norm[index])
        return out


def expansion(
    bottoms: Sequence[np.ndarray], tops: Sequence[np.ndarray], chain: NormBounds, first: int
) -> list[np.ndarray]:
    """Σ_{|S|=k} c_S² for k = 1 … n over sets S of n neighbouring layers.

    c_S is the norm of what is not changed: ``bottoms`` below the lowest changed layer, ``tops`` above the highest, the
    layers between by their own norms. Shapes (B,).
    """
    count = len(bottoms)
    gaps = np.zeros((count, count, chain.batch))  # squared norms of what lies between two changed layers
    for low in range(count):
        between = np.ones(chain.batch)
        for high in range(low + 1, count):
            gaps[low, high] = between**2
            between = up(between * chain.norm[first + high])
    ending, above = np.stack(bottoms) ** 2, np.stack(tops) ** 2
    sums = []
    for _ in range(count):  # sets of k layers by their highest one
        sums.append(up((ending * above).sum(0)))
        ending = up(np.einsum("lb,lhb->hb", ending, gaps))
    return sums


def series(sums: Sequence[np.ndarray], distance: np.ndarray, start: int) -> np.ndarray:
    """Σ_{k ≥ start} (sums_k · C(n, k)(d²/n)^k)^½, a bound of the change by sets of at least ``start`` layers."""
    n = len(sums)
    total = np.zeros_like(distance)
    for k in range(start, n + 1):
        total = total + np.sqrt(sums[k - 1] * comb(n, k)) * (distance / sqrt(n)) ** k
    return up(total)


def root(reach: np.ndarray, grows: Callable[[np.ndarray], np.ndarray], guess: np.ndarray) -> np.ndarray:
    """The largest distance found whose growing bound stays below ``reach``: a lower bound of the true root."""
    low, high = np.zeros_like(reach), guess
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        inside = grows(middle) < reach
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return low

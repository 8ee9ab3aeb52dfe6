"""Products of the layers W_1, …, W_L of a chain, whatever holds them: arrays, stacks of arrays, or tensors.

Nothing here multiplies with an identity. Layer l has shape (…, n_l, n_{l−1}), and what is returned the same leading
dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray, torch.Tensor, or whatever else knows @
Layers = list[np.ndarray]  # W_1, …, W_L on the host, each (n_l, n_{l−1})


def product(layers: Iterable[Array]) -> Array:
    """A = W_L ⋯ W_1, multiplied from the input on."""
    return reduce(lambda lower, w: w @ lower, layers)


def products_below(layers: Iterable[Array]) -> list[Array]:
    """W_1, W_2W_1, …, W_L ⋯ W_1; none for no layer."""
    return list(accumulate(layers, lambda lower, w: w @ lower))


def products_above(layers: Sequence[Array]) -> list[Array]:
    """W_L ⋯ W_1, …, W_LW_{L−1}, W_L: multiplied from the output on; none for no layer."""
    return list(accumulate(reversed(layers), lambda upper, w: upper @ w))[::-1]


def around_layers(layers: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The products below each layer, P_l = W_{l−1} ⋯ W_1, and above it, S_l = W_L ⋯ W_{l+1}, l = 1 … L, of matrices."""
    first, last = np.eye(layers[0].shape[1]), np.eye(layers[-1].shape[0])
    return [first, *products_below(layers[:-1])], [*products_above(layers[1:]), last]


def balanced(frames: Sequence[Array], root: Array) -> list[Array]:
    """Balanced factors X_l diag(root) X_{l−1}ᵀ of A = X_L diag(root)^L X_0ᵀ (docs/theory.md, section 4).

    Args:
        frames: X_0, …, X_L, each (…, n_l, k) with orthonormal columns.
        root: S^{1/L}, shape (…, k).
    """
    return [(upper * root[..., None, :]) @ lower.mT for lower, upper in pairwise(frames)]

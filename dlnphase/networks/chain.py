"""A batch of deep linear networks and everything one chain of matrices can answer.

All B members share one shape. The parameters are one flat tensor θ of shape (B, P); the layers are
views into it, so that dynamics can add steps with one operation and layers cost nothing to name.
Notation: W_l has shape (n_l, n_{l-1}), A = W_L ⋯ W_1 has shape (d_out, d_in), D = d_out·d_in.
Matrices in function space are vectorised row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, reduce
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from dlnphase.networks.products import product, products_above, products_below


class Network:
    """B deep linear networks θ = (W_1, …, W_L) of the same shape.

    Args:
        theta: flat parameters, shape (B, P); row b holds W_1, …, W_L of member b, each row by row.
        dims: (n_0, n_1, …, n_L) = (d_in, hidden sizes, d_out).
    """

    __slots__ = ("dims", "theta", "weights")

    def __init__(self, theta: Tensor, dims: Sequence[int]) -> None:
        self.dims = tuple(int(n) for n in dims)
        if theta.ndim != 2 or theta.shape[1] != parameter_count(self.dims):
            raise ValueError(
                f"theta has shape {tuple(theta.shape)}, dims {self.dims} need (B, {parameter_count(self.dims)})"
            )
        self.theta = theta
        self.weights = split(theta, self.dims)

    @classmethod
    def from_weights(cls, weights: Sequence[Tensor]) -> Network:
        """Copy layers of shapes (B, n_l, n_{l-1}), or (n_l, n_{l-1}) for one network, into a network."""
        layers = [w if w.ndim == 3 else w.unsqueeze(0) for w in weights]
        for lower, upper in pairwise(layers):
            if upper.shape[2] != lower.shape[1] or upper.shape[0] != lower.shape[0]:
                raise ValueError(f"layers do not chain: {tuple(upper.shape)} after {tuple(lower.shape)}")
        dims = (layers[0].shape[2], *(w.shape[1] for w in layers))
        return cls(torch.cat([w.flatten(1) for w in layers], 1), dims)

    @classmethod
    def of_arrays(cls, weights: Sequence[np.ndarray]) -> Network:
        """The same from arrays, on the CPU in float64."""
        return cls.from_weights([torch.as_tensor(w, dtype=torch.float64) for w in weights])

    # ---- shape -----------------------------------------------------------------------------
    @property
    def depth(self) -> int:
        """Number of layers L."""
        return len(self.dims) - 1

    @property
    def batch(self) -> int:
        """Number of members B."""
        return self.theta.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in), the shape of the end-to-end matrix."""
        return self.dims[-1], self.dims[0]

    @property
    def hidden(self) -> tuple[int, ...]:
        """Hidden sizes (n_1, …, n_{L-1})."""
        return self.dims[1:-1]

    # ---- a new network of the same shape ---------------------------------------------------
    def with_theta(self, theta: Tensor) -> Network:
        """The same shape with other parameters (not copied)."""
        return Network(theta, self.dims)

    def select(self, members: Tensor | slice | list[int]) -> Network:
        """Some members of the batch, as a network of its own."""
        return Network(self.theta[members], self.dims)

    def clone(self) -> Network:
        """A copy that shares no memory."""
        return Network(self.theta.clone(), self.dims)

    # ---- products --------------------------------------------------------------------------
    def prefixes(self) -> list[Tensor]:
        """Products below each layer: P_l = W_{l-1} ⋯ W_1 for l = 1, …, L+1.

        Returns L+1 tensors of shapes (B, n_{l-1}, d_in); P_1 is the identity and the last is A.
        """
        return [_identity(self.theta, self.dims[0]), *products_below(self.weights)]

    def suffixes(self) -> list[Tensor]:
        """Products above each layer: S_l = W_L ⋯ W_{l+1} for l = 1, …, L, each (B, d_out, n_l); S_L is the identity."""
        return [*products_above(self.weights[1:]), _identity(self.theta, self.dims[-1])]

    def product(self) -> Tensor:
        """End-to-end matrix A = W_L ⋯ W_1, shape (B, d_out, d_in), multiplied from its narrower end."""
        return product(self.weights) if self.dims[0] <= self.dims[-1] else reduce(torch.matmul, reversed(self.weights))

    # ---- derivatives -----------------------------------------------------------------------
    def gradient(self, g: Tensor, prefixes: list[Tensor] | None = None, suffixes: list[Tensor] | None = None) -> Tensor:
        """Jᵀg: the gradient of the loss for ∇C(A) = g, flat, shape (B, P).

        ∂𝓛/∂W_l = S_lᵀ g P_lᵀ (docs/theory.md, section 1).

        Args:
            g: shape (B, d_out, d_in).
            prefixes, suffixes: of this network, if at hand.
        """
        out = torch.empty((g.shape[0], self.theta.shape[1]), dtype=g.dtype, device=g.device)
        p = self.prefixes() if prefixes is None else prefixes
        s = self.suffixes() if suffixes is None else suffixes
        depth = self.depth
        parts = split(out, self.dims)
        if depth == 1:
            parts[0].copy_(g)
            return out
        # The first layer has P_1 = 1 and the last S_L = 1: no product with an identity is formed.
        parts[0].baddbmm_(s[0].mT, g, beta=0)
        for layer in range(1, depth - 1):
            if self.dims[0] <= self.dims[-1]:
                parts[layer].baddbmm_(s[layer].mT @ g, p[layer].mT, beta=0)
            else:
                parts[layer].baddbmm_(s[layer].mT, g @ p[layer].mT, beta=0)
        parts[-1].baddbmm_(g, p[depth - 1].mT, beta=0)
        return out

    def jvp(self, v: Tensor, prefixes: list[Tensor] | None = None, suffixes: list[Tensor] | None = None) -> Tensor:
        """Jv = Σ_l S_l V_l P_l, shape (B, d_out, d_in), for flat directions v of shape (B, P)."""
        p = self.prefixes() if prefixes is None else prefixes
        s = self.suffixes() if suffixes is None else suffixes
        parts = split(v, self.dims)
        if self.depth == 1:
            return parts[0]
        total = s[0] @ parts[0] + parts[-1] @ p[self.depth - 1]
        for layer in range(1, self.depth - 1):
            total = total + s[layer] @ (parts[layer] @ p[layer])
        return total

    def ntk_factors(
        self, prefixes: list[Tensor] | None = None, suffixes: list[Tensor] | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Pairs (S_l S_lᵀ, P_lᵀ P_l) of shapes (B, d_out, d_out) and (B, d_in, d_in): K = Σ_l (first ⊗ second)."""
        p = self.prefixes() if prefixes is None else prefixes
        s = self.suffixes() if suffixes is None else suffixes
        return [(s[i] @ s[i].mT, p[i].mT @ p[i]) for i in range(self.depth)]

    def ntk(self, prefixes: list[Tensor] | None = None, suffixes: list[Tensor] | None = None) -> Tensor:
        """Neural tangent kernel K = J Jᵀ on the entries of A in row-major order, shape (B, D, D)."""
        return kronecker_sum(self.ntk_factors(prefixes, suffixes))

    def balancedness(self) -> list[Tensor]:
        """D_l = W_{l+1}ᵀ W_{l+1} − W_l W_lᵀ for l = 1, …, L−1: conserved by gradient flow."""
        w = self.weights
        return [w[i + 1].mT @ w[i + 1] - w[i] @ w[i].mT for i in range(self.depth - 1)]

    # ---- symmetry --------------------------------------------------------------------------
    def rotate(self, rotations: Sequence[Tensor | None]) -> Network:
        """W_l → O_l W_l O_{l-1}ᵀ.

        Args:
            rotations: O_0, …, O_L of shapes (B, n_l, n_l) or (n_l, n_l); ``None`` is the identity.
                Rotating only hidden spaces (O_0 = O_L = None) leaves A unchanged.
        """
        if len(rotations) != self.depth + 1:
            raise ValueError(f"{len(rotations)} rotations for {self.depth + 1} spaces")
        out = []
        for i, layer in enumerate(self.weights):
            below, above = rotations[i], rotations[i + 1]
            rotated = layer if below is None else layer @ below.mT
            out.append(rotated if above is None else above @ rotated)
        return Network.from_weights(out)


def kronecker_sum(factors: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Σ_l left_l ⊗ right_l for pairs of shapes (B, m, m) and (B, n, n): matrices on row-major entries, (B, mn, mn)."""
    left = torch.stack([a for a, _ in factors], 1)
    right = torch.stack([b for _, b in factors], 1)
    batch, _, m, _ = left.shape
    n = right.shape[-1]
    total = left.flatten(2).mT @ right.flatten(2)
    return total.view(batch, m, m, n, n).permute(0, 1, 3, 2, 4).reshape(batch, m * n, m * n)


def parameter_count(dims: Sequence[int]) -> int:
    """P = Σ_l n_l n_{l-1}."""
    return sum(a * b for a, b in zip(dims[1:], dims[:-1], strict=True))


def split(theta: Tensor, dims: Sequence[int]) -> tuple[Tensor, ...]:
    """Views of a flat (B, P) tensor as layers of shapes (B, n_l, n_{l-1})."""
    batch, shapes, sizes = theta.shape[:-1], *_shapes(tuple(dims))
    parts = torch.split_with_sizes(theta, sizes, -1)  # in C++, where Tensor.split is Python
    return tuple(part.view(*batch, *shape) for part, shape in zip(parts, shapes, strict=True))


@lru_cache(256)
def _shapes(dims: tuple[int, ...]) -> tuple[list[tuple[int, int]], list[int]]:
    """Shapes and sizes of the layers."""
    shapes = list(zip(dims[1:], dims[:-1], strict=True))
    return shapes, [rows * columns for rows, columns in shapes]


def _identity(like: Tensor, n: int) -> Tensor:
    return _eye(n, like.dtype, like.device).expand(like.shape[0], n, n)


@lru_cache(64)
def _eye(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Made once; whoever gets it only reads."""
    return torch.eye(n, dtype=dtype, device=device)


__all__ = ["Network", "kronecker_sum", "parameter_count", "split"]

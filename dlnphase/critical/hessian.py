"""The Hessian of 𝓛(θ) = C(W_L ⋯ W_1), applied in closed form.

With P_l, S_l the products below and above layer l, dots for derivatives along the direction v = (V_1, …, V_L),
and G = ∇C(A):

    Ṗ_{l+1} = V_l P_l + W_l Ṗ_l,   Ṡ_{l-1} = Ṡ_l W_l + S_l V_l,   Ȧ = Ṗ_{L+1},   Ġ = H_C(Ȧ)
    (Hv)_l = S_lᵀ Ġ P_lᵀ + Ṡ_lᵀ G P_lᵀ + S_lᵀ G Ṗ_lᵀ

at about four times the price of a gradient (derived by differentiating the gradient of docs/theory.md, section 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlnphase.backend import stream
from dlnphase.costs.quadratic import Cost
from dlnphase.critical.lanczos import KrylovSpace
from dlnphase.networks.chain import Network, split

DENSE = 1200  # parameters up to which all eigenvalues are computed, from the columns of the matrix
MAX_LANCZOS = 400  # vectors of a basis: more find eigenvalues nearer to zero, and each is made orthogonal to all
SETTLED = 1e-12  # a Ritz pair with a residual below this, relative to ‖H‖, has converged
MEMORY = 1 << 30  # bytes that a Lanczos basis may take


def hessian_vector_product(network: Network, cost: Cost, v: Tensor) -> Tensor:
    """Hv for flat directions v of shape (B, P); a network of one member serves any number of directions."""
    n = v.shape[0]
    below, above = network.prefixes(), network.suffixes()
    a = below[-1]
    g = cost.gradient(a)
    below_dot, above_dot = moving_products(network, v, below, above)
    g_dot = cost.apply_curvature(below_dot[-1], a.expand(n, *a.shape[1:]))
    out = []
    for layer in range(network.depth):
        s, p, s_dot, p_dot = above[layer], below[layer], above_dot[layer], below_dot[layer]
        # The outermost products are the identity, and do not move.
        last, first = layer == network.depth - 1, layer == 0
        turned = g_dot if last else s.mT @ g_dot + s_dot.mT @ g
        term = turned if first else turned @ p.mT + (g if last else s.mT @ g) @ p_dot.mT
        out.append(term.flatten(1))
    return torch.cat(out, 1)


def moving_products(
    network: Network, v: Tensor, below: list[Tensor], above: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Derivatives of the products below and above each layer along flat directions v: Ṗ_1 … Ṗ_{L+1} and Ṡ_1 … Ṡ_L."""
    w, n, parts = network.weights, v.shape[0], split(v, network.dims)
    below_dot = [torch.zeros((n, *below[0].shape[1:]), dtype=v.dtype, device=v.device)]
    for layer in range(network.depth):
        below_dot.append(parts[layer] @ below[layer] + w[layer] @ below_dot[layer])
    above_dot = [torch.zeros((n, *above[-1].shape[1:]), dtype=v.dtype, device=v.device)]
    for layer in range(network.depth - 1, 0, -1):
        above_dot.append(above_dot[-1] @ w[layer] + above[layer] @ parts[layer])
    above_dot.reverse()
    return below_dot, above_dot


@dataclass(frozen=True)
class Eigenpairs:
    """The lower end of a symmetric spectrum.

    Attributes:
        smallest: smallest eigenvalue found.
        vector: its unit eigenvector, shape (P,).
        negative: eigenvalues found below −threshold.
        complete: whether those are all there are.
        residual: largest ‖Hv − λv‖ of the eigenpairs used; a true eigenvalue lies within this of each λ.
        largest: ‖H‖, about: the unit that zero is told in.
        values: all eigenvalues in increasing order, where ``complete``.
    """

    smallest: float
    vector: np.ndarray
    negative: int
    complete: bool
    residual: float
    largest: float
    values: np.ndarray | None = None


def smallest_eigenvalues(network: Network, cost: Cost, threshold: float, *, dense: int = DENSE) -> Eigenpairs:
    """Smallest eigenvalue of the Hessian at a network of one member, and how many lie below −threshold.

    Up to ``dense`` parameters from all columns of the matrix; above, by matrix-free Lanczos, which cannot see
    the multiplicity of an eigenvalue: its count is a lower bound.
    """
    size = network.theta.shape[1]
    if size > dense:
        return lanczos(hessian_operator(network, cost), size, threshold)
    matrix, values, vectors = all_eigenpairs(network, cost)
    negative = int((values < -threshold).sum())
    used = max(negative, 1)
    residual = np.linalg.norm(matrix @ vectors[:, :used] - vectors[:, :used] * values[:used], axis=0).max()
    largest = float(np.abs(values).max())
    return Eigenpairs(float(values[0]), vectors[:, 0], negative, True, float(residual), largest, values)


def all_eigenpairs(network: Network, cost: Cost) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The Hessian at a network of one member, (P, P), its eigenvalues, ascending, and eigenvectors as columns."""
    eye = torch.eye(network.theta.shape[1], dtype=network.theta.dtype, device=network.theta.device)
    matrix = hessian_vector_product(network, cost, eye).cpu().numpy()
    return (matrix, *np.linalg.eigh((matrix + matrix.T) / 2))


def hessian_operator(network: Network, cost: Cost) -> Callable[[np.ndarray], np.ndarray]:
    """x ↦ Hx on host arrays (P,) at a network of one member."""

    def apply(x: np.ndarray) -> np.ndarray:
        v = torch.as_tensor(x.reshape(1, -1)).to(network.theta)
        return hessian_vector_product(network, cost, v)[0].cpu().numpy().astype(float)

    return apply


def krylov_space(apply: Callable[[np.ndarray], np.ndarray], start: np.ndarray) -> KrylovSpace:
    """The Krylov space of a start, with as much room as a search for eigenvalues is worth."""
    return KrylovSpace(apply, start, int(min(start.size, MAX_LANCZOS, max(MEMORY // (8 * start.size), 20))))


def lanczos(apply: Callable[[np.ndarray], np.ndarray], size: int, threshold: float) -> Eigenpairs:
    """Smallest eigenvalues of a symmetric operator by Lanczos with full reorthogonalisation.

    The Hessians of this project vanish on huge subspaces, so the iteration starts inside the range of the operator and
    ends when it has exhausted it (where restarted methods break down); where nothing lies below zero, zero is then
    the smallest eigenvalue.
    """
    rng = stream(0, "lanczos")
    first = apply(rng.standard_normal(size))
    if float(np.linalg.norm(first)) == 0.0:
        start = rng.standard_normal(size)
        return Eigenpairs(0.0, start / np.linalg.norm(start), 0, True, 0.0, 0.0)
    space = krylov_space(apply, first)
    for _ in space.grow():
        if _settled(space, threshold):
            break
    values, small, _ = space.ritz()
    negative = int((values < -threshold).sum())
    vectors = small[:, : max(negative, 1)].T @ space.basis
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    residual = max(float(np.linalg.norm(apply(v) - t * v)) for v, t in zip(vectors, values, strict=False))
    if values[0] > 0:  # the range is positive; the null space is the lower end
        vector = rng.standard_normal(size)
        vector -= space.basis.T @ (space.basis @ vector)
        vector /= np.linalg.norm(vector)
        value = float(vector @ apply(vector))
        return Eigenpairs(value, vector, 0, False, float(np.linalg.norm(apply(vector) - value * vector)), space.largest)
    return Eigenpairs(float(values[0]), vectors[0], negative, False, residual, space.largest)


def _settled(space: KrylovSpace, threshold: float) -> bool:
    """Whether the smallest Ritz pair and all negative ones have converged."""
    values, _, residuals = space.ritz()
    used = max(int((values < -threshold).sum()), 1)
    return bool((residuals[:used] <= SETTLED * space.largest).all())

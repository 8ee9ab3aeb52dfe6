"""A chain of matrices on one flat vector: its product, and gradient and Hessian of C(W_L⋯W_1), in plain NumPy."""

from __future__ import annotations

import numpy as np

from gauntlet.reference.costs import Quadratic


class Chain:
    """The loss of one architecture.

    Args:
        shapes: (n_l, n_{l-1}) of W_1 … W_L.
        cost: C.
    """

    def __init__(self, shapes: list[tuple[int, int]], cost: Quadratic) -> None:
        self.shapes, self.cost = shapes, cost
        self.cuts = np.concatenate([[0], np.cumsum([n * m for n, m in shapes])])
        self.size = int(self.cuts[-1])

    def layers(self, theta: np.ndarray) -> list[np.ndarray]:
        """Views of the layers in the flat vector."""
        return [theta[a:b].reshape(s) for a, b, s in zip(self.cuts, self.cuts[1:], self.shapes, strict=False)]

    def product(self, theta: np.ndarray) -> np.ndarray:
        """A = W_L⋯W_1."""
        first, *rest = self.layers(theta)
        for w in rest:
            first = w @ first
        return first

    def sides(self, layers: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """P_l = W_{l-1}⋯W_1 and S_l = W_L⋯W_{l+1} of every layer, identities at the ends."""
        before = [np.eye(layers[0].shape[1])]
        for w in layers[:-1]:
            before.append(w @ before[-1])
        after = [np.eye(layers[-1].shape[0])]
        for w in layers[:0:-1]:
            after.append(after[-1] @ w)
        return before, after[::-1]

    def slope(self, t: float, theta: np.ndarray) -> np.ndarray:
        """−∇𝓛(θ); the signature of an ODE solver."""
        layers = self.layers(theta)
        before = layers[0]
        prefix = [before]
        for w in layers[1:]:
            before = w @ before
            prefix.append(before)
        out = np.empty_like(theta)
        back = -self.cost.gradient(prefix[-1])
        for l in range(len(layers) - 1, 0, -1):
            out[self.cuts[l] : self.cuts[l + 1]] = (back @ prefix[l - 1].T).ravel()
            back = layers[l].T @ back
        out[: self.cuts[1]] = back.ravel()
        return out

    def hessian(self, theta: np.ndarray) -> np.ndarray:
        """∇²𝓛(θ), shape (P, P): JᵀHJ, and for layers l < m the term ⟨∇C, S_m δ_m M δ_l P_l⟩."""
        layers = self.layers(theta)
        before, after = self.sides(layers)
        jacobian = self.matrix_jacobian(theta)
        out = jacobian.T @ self.cost.hessian @ jacobian
        gradient = self.cost.gradient(layers[-1] @ before[-1])
        for l in range(len(layers)):
            middle = np.eye(layers[l].shape[0])
            for m in range(l + 1, len(layers)):
                q = after[m].T @ gradient @ before[l].T
                rows, columns = layers[m].size, layers[l].size
                block = np.einsum("in,jk->ijkn", q, middle).reshape(rows, columns)
                a, b = slice(*self.cuts[m : m + 2]), slice(*self.cuts[l : l + 2])
                out[a, b] += block
                out[b, a] += block.T
                middle = layers[m] @ middle
        return out

    def matrix_jacobian(self, theta: np.ndarray) -> np.ndarray:
        """J = ∂vec A/∂θ, shape (D, P), entries of A row by row."""
        before, after = self.sides(self.layers(theta))
        return np.concatenate([np.kron(s, p.T) for s, p in zip(after, before, strict=True)], axis=1)

    def jacobian(self, t: float, theta: np.ndarray) -> np.ndarray:
        """−∇²𝓛(θ): of the slope."""
        return -self.hessian(theta)

"""Weight decay in function space: what (λ/2)‖θ‖² costs a matrix, and its derivatives among matrices of one rank.

Of all weights that make A the balanced ones are the smallest, (λ/2)‖θ‖² = (λL/2)·Σ s_i^(2/L) for the singular values s
of A. Critical points of C(A_θ) + (λ/2)‖θ‖² are balanced (D_l decays as e^(−2λt) along the flow and so vanishes where it
rests), so that among matrices of one rank they are the critical points of

    F(A) = C(A) + (λL/2)·Σ s_i^(2/L),        UᵀG V = −λ S^(2/L−1),  U_⊥ᵀG V = 0,  UᵀG V_⊥ = 0.

The gradient of the second part is U f(S) Vᵀ with f(s) = λ s^(2/L−1), a tangent; its Hessian follows from how singular
values and vectors turn (derived; checked against finite differences and automatic differentiation).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EQUAL = 1e-7  # singular values closer than this, relatively, have the derivative for their difference quotient


@dataclass(frozen=True)
class Decay:
    """Weight decay of a network.

    Attributes:
        rate: λ, positive.
        depth: L.
    """

    rate: float
    depth: int

    def value(self, s: np.ndarray) -> float:
        """(λL/2)·Σ s_i^(2/L): what the smallest weights of these singular values cost."""
        return 0.5 * self.rate * self.depth * float(np.sum(np.asarray(s) ** (2 / self.depth)))

    def slope(self, s: np.ndarray) -> np.ndarray:
        """f(s) = λ s^(2/L−1), its derivatives by them."""
        return np.asarray(self.rate * s ** (2 / self.depth - 1))

    @property
    def first(self) -> float:
        """What a new mode costs per size while it is small: λ at L = 2; for L ≥ 3 that is not linear, and 0 here."""
        return self.rate if self.depth == 2 else 0.0

    def turned(self, s: np.ndarray, m: np.ndarray) -> np.ndarray:
        """The derivative of U f(S) Vᵀ as U (S + εM) Vᵀ moves, in the coordinates of M, shape (…, r, r)."""
        f = self.slope(s)
        sums, gaps = s[:, None] + s, s[:, None] - s
        near = np.abs(gaps) <= EQUAL * sums
        middle = (2 / self.depth - 1) * self.rate * (0.5 * sums) ** (2 / self.depth - 2)
        even = np.where(near, middle, (f[:, None] - f) / np.where(near, 1.0, gaps))
        odd = (f[:, None] + f) / sums
        flipped = np.swapaxes(m, -1, -2)
        return 0.5 * (even * (m + flipped) + odd * (m - flipped))

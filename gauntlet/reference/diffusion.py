"""A diffusion on a line, dx = f(x) dt + b(x) dW in the sense of Itô: its stationary law and mean first-passage times.

By quadrature of the Fokker–Planck equation (Gardiner, Handbook of Stochastic Methods, section 5.2). With
ψ(x) = exp ∫ 2f/b², where no flux passes the ends,

    p(x) ∝ ψ(x)/b(x)²,
    T(x → a > x) = ∫_x^a dy/ψ(y) ∫_low^y 2ψ(z)/b(z)² dz,
    T(x → a < x) = ∫_a^x dy/ψ(y) ∫_y^high 2ψ(z)/b(z)² dz.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.integrate import cumulative_simpson

POINTS = 40_001


class Diffusion:
    """The diffusion on an interval wide enough for its ends not to matter.

    Args:
        drift, spread: f and b, on arrays.
        low, high: ends of the interval.
        points: of the grid on it.
    """

    def __init__(
        self,
        drift: Callable[[np.ndarray], np.ndarray],
        spread: Callable[[np.ndarray], np.ndarray],
        low: float,
        high: float,
        points: int = POINTS,
    ) -> None:
        self.x = np.linspace(low, high, points)
        square = spread(self.x) ** 2
        log_psi = self._integral(2 * drift(self.x) / square)
        self.psi = np.exp(log_psi - log_psi.max())
        self.speed = 2 * self.psi / square

    def stationary(self) -> np.ndarray:
        """The distribution function on the grid ``x``."""
        inner = self._integral(self.speed)
        return inner / inner[-1]

    def mean(self, value: Callable[[np.ndarray], np.ndarray]) -> float:
        """The stationary mean of a function."""
        whole = self._integral(self.speed)[-1]
        return float(self._integral(value(self.x) * self.speed)[-1] / whole)

    def quantile(self, share: float) -> float:
        """Where the stationary distribution function has this value."""
        below = self.stationary()
        kept = np.concatenate([[True], np.diff(below) > 0])
        return float(np.interp(share, below[kept], self.x[kept]))

    def passage(self, start: float, end: float) -> float:
        """The mean time until a path from ``start`` first is at ``end``."""
        # From the end that the path comes from: a difference of two integrals would cancel.
        inner = self._integral(self.speed) if end > start else self._integral(self.speed[::-1])[::-1]
        between = (self.x >= min(start, end)) & (self.x <= max(start, end))
        outer = np.zeros_like(inner)
        outer[between] = inner[between] / self.psi[between]
        first, last = np.flatnonzero(between)[[0, -1]]
        total = self._integral(outer[first : last + 1])
        grid = self.x[first : last + 1]
        edges = (min(start, end), grid[0], grid[-1], max(start, end))
        rest = outer[first] * (edges[1] - edges[0]) + outer[last] * (edges[3] - edges[2])
        return float(total[-1] + rest)

    def _integral(self, values: np.ndarray) -> np.ndarray:
        return cumulative_simpson(values, dx=self.x[1] - self.x[0], initial=0)

"""Dwell times of tiny deep linear networks to many digits: writes dwell_times.json beside this file.

An oracle that shares nothing with the package: numbers of at least 50 digits, and a linearly implicit Euler method
with the exact Hessian, extrapolated to order 8 (Deuflhard; Hairer and Wanner, Solving ODEs II, IV.9). 50 digits make
any frame good enough, and an implicit method steps over plateaus of 1e20. The tolerance is *absolute* and far below
the smallest weight, so that modes of size 1e-10 are resolved beside learned ones of size 1. Each case is run twice,
the second time with a tolerance a thousand times smaller; the largest relative difference of the times is in the file.

Two number systems: mpmath with 50 digits, and, ten times faster, Python integers over 2^BITS (96 digits after the
point). Cases of two modes are run in both, which must agree; cases of three modes in integers alone.

    python tests/reference/make_dwell_times.py [CASE …]      (minutes a case)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mpmath
import numpy as np

FILE = Path(__file__).with_name("dwell_times.json")
ORDER = 8
DIGITS = 50
BITS = 320

# name: depth, size, singular values of the target, size of the starting entries, unobserved entries, seed
CASES = {
    "three layers, two modes": (3, 2, (3.0, 1.0), 1e-10, 0, 1),
    "three layers, three modes": (3, 3, (3.0, 2.0, 1.0), 1e-8, 0, 2),
    "four layers, two modes": (4, 2, (2.0, 1.0), 1e-10, 0, 3),
    "four layers, three modes": (4, 3, (3.0, 2.0, 1.0), 1e-6, 0, 4),
    "three layers, completion": (3, 3, (3.0, 1.5), 1e-7, 1, 5),
}


class Multiple:
    """mpmath numbers in object arrays."""

    name = f"mpmath, {DIGITS} digits"

    def exact(self, array: np.ndarray | float) -> np.ndarray:
        """Floats without rounding."""
        return np.vectorize(lambda x: mpmath.mpf(float(x)), otypes=[object])(array)

    def dot(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Matrix product."""
        return a @ b

    def times(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Product entry by entry."""
        return a * b

    def over(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Quotient entry by entry."""
        return a / b

    def ratio(self, a: np.ndarray, p: int, q: int) -> np.ndarray:
        """a·p/q for integers p, q."""
        return a * p / q

    def floats(self, a: np.ndarray) -> np.ndarray:
        """Rounded to floats."""
        return np.vectorize(float, otypes=[float])(a)


class Fixed(Multiple):
    """Python integers x standing for x / 2^BITS, in object arrays."""

    name = f"integers over 2^{BITS}"

    def exact(self, array: np.ndarray | float) -> np.ndarray:
        def convert(x: float) -> int:
            p, q = float(x).as_integer_ratio()
            return (p << BITS) // q

        return np.vectorize(convert, otypes=[object])(array)

    def dot(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b) >> BITS

    def times(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a * b) >> BITS

    def over(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a << BITS) // b

    def ratio(self, a: np.ndarray, p: int, q: int) -> np.ndarray:
        return a * p // q

    def floats(self, a: np.ndarray) -> np.ndarray:
        return np.vectorize(lambda x: x / (1 << BITS), otypes=[float])(a)


class Flow:
    """θ' = −∇½‖M ∘ (W_L ⋯ W_1 − A*)‖² for square layers of one size, θ flat, in a number system."""

    def __init__(self, numbers: Multiple, depth: int, size: int, target: np.ndarray, mask: np.ndarray) -> None:
        self.numbers, self.depth, self.size = numbers, depth, size
        self.target, self.mask = numbers.exact(target), numbers.exact(mask)
        self.one, self.zero = numbers.exact(np.eye(size)), numbers.exact(np.zeros((size, size)))

    def layers(self, theta: np.ndarray) -> np.ndarray:
        return theta.reshape(self.depth, self.size, self.size)

    def products(self, theta: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """W_{i−1} ⋯ W_1 for i = 1 … L+1 and W_L ⋯ W_{i+1} for i = 1 … L."""
        dot, below, above = self.numbers.dot, [self.one], [self.one]
        layers = self.layers(theta)
        for w in layers:
            below.append(dot(w, below[-1]))
        for w in layers[:0:-1]:
            above.append(dot(above[-1], w))
        return below, above[::-1]

    def residual(self, matrix: np.ndarray) -> np.ndarray:
        return self.numbers.times(self.mask, matrix - self.target)

    def velocity(self, theta: np.ndarray) -> np.ndarray:
        dot = self.numbers.dot
        below, above = self.products(theta)
        slope = self.residual(below[-1])
        return -np.stack([dot(dot(above[i].T, slope), below[i].T) for i in range(self.depth)]).ravel()

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """∂velocity/∂θ, column by column, by the product rule."""
        dot, depth, zero = self.numbers.dot, self.depth, self.zero
        below, above = self.products(theta)
        slope = self.residual(below[-1])
        layers, columns = self.layers(theta), []
        for moved in range(depth):
            for index in range(self.size**2):
                step = zero.copy()
                step.flat[index] = self.one[0, 0]
                d_below, d_above = [zero] * (moved + 1), [zero] * (depth - moved)
                d_below.append(dot(step, below[moved]))
                for w in layers[moved + 1 :]:
                    d_below.append(dot(w, d_below[-1]))
                if moved:
                    d_above.append(dot(above[moved], step))
                    for w in layers[moved - 1 : 0 : -1]:
                        d_above.append(dot(d_above[-1], w))
                d_above.reverse()
                d_slope = self.numbers.times(self.mask, d_below[-1])
                column = [
                    dot(dot(d_above[i].T, slope), below[i].T)
                    + dot(above[i].T, dot(d_slope, below[i].T) + dot(slope, d_below[i].T))
                    for i in range(depth)
                ]
                columns.append(-np.stack(column).ravel())
        return np.stack(columns, axis=1)


def factorize(numbers: Multiple, matrix: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """LU with row exchanges."""
    lu, order = matrix.copy(), list(range(len(matrix)))
    for k in range(len(lu)):
        pivot = max(range(k, len(lu)), key=lambda i: abs(lu[i, k]))
        if pivot != k:
            lu[[k, pivot]] = lu[[pivot, k]]
            order[k], order[pivot] = order[pivot], order[k]
        lu[k + 1 :, k] = numbers.over(lu[k + 1 :, k], lu[k, k])
        lu[k + 1 :, k + 1 :] -= numbers.times(lu[k + 1 :, k, None], lu[None, k, k + 1 :])
    return lu, order


def solve(numbers: Multiple, factors: tuple[np.ndarray, list[int]], right: np.ndarray) -> np.ndarray:
    """x with LU x = right."""
    lu, order = factors
    x = right[order]
    for i in range(1, len(x)):
        x[i] -= numbers.dot(lu[i, :i], x[:i])
    for i in range(len(x) - 1, -1, -1):
        if i + 1 < len(x):
            x[i] -= numbers.dot(lu[i, i + 1 :], x[i + 1 :])
        x[i] = numbers.over(x[i], lu[i, i])
    return x


def extrapolated_step(flow: Flow, theta: np.ndarray, jacobian: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, float]:
    """One step of order ORDER from 1, 2, …, ORDER linearly implicit Euler substeps, and its error estimate."""
    numbers = flow.numbers
    identity = numbers.exact(np.eye(len(theta)))
    row: list[np.ndarray] = []
    error = 0.0
    for j in range(1, ORDER + 1):
        small = numbers.ratio(h, 1, j)
        factors, y = factorize(numbers, identity - numbers.times(small, jacobian)), theta
        for _ in range(j):
            y = y + solve(numbers, factors, numbers.times(small, flow.velocity(y)))
        new = [y]
        for k, lower in enumerate(row, start=1):  # Aitken–Neville in 1/n
            new.append(new[-1] + numbers.ratio(new[-1] - lower, j - k, k))
        if j > 1:
            error = float(np.abs(numbers.floats(new[-1] - new[-2])).max())
        row = new
    return row[-1], error


Path_ = list[tuple[float, np.ndarray, np.ndarray]]


def integrate(flow: Flow, theta: np.ndarray, tolerance: float) -> Path_:
    """Times, end-to-end matrices and their velocities until the excess cost is 1e-6 of its first value."""
    numbers = flow.numbers
    t, h, first, out = numbers.exact(0.0), None, None, []
    for count in range(100_000):
        velocity = flow.velocity(theta)
        below, above = flow.products(theta)
        excess = float((numbers.floats(flow.residual(below[-1])) ** 2).sum() / 2)
        first = excess if first is None else first
        layers = flow.layers(velocity)
        moving = sum(numbers.dot(numbers.dot(above[i], layers[i]), below[i]) for i in range(flow.depth))
        out.append((float(numbers.floats(t)), numbers.floats(below[-1]), numbers.floats(moving)))
        if count % 50 == 0:
            print(f"    step {count}: t = {out[-1][0]:.6g}, excess {excess / first:.3g}", file=sys.stderr, flush=True)
        if excess < 1e-6 * first:
            return out
        if h is None:
            speed = np.abs(numbers.floats(velocity)).max()
            h = numbers.exact(0.01 * np.abs(numbers.floats(theta)).max() / speed)
        jacobian = flow.jacobian(theta)
        while True:
            new, error = extrapolated_step(flow, theta, jacobian, h)
            factor = min(4.0, max(0.2, 0.9 * (tolerance / max(error, 1e-60)) ** (1 / ORDER)))
            taken, h = h, numbers.times(h, numbers.exact(factor))
            if error <= tolerance:
                break
        t, theta = t + taken, new
    raise RuntimeError("too many steps")


def crossings(path: Path_, modes: int) -> list[float]:
    """When singular value k of A first passes half of what it ends at, by cubic interpolation within a step."""
    times = np.array([t for t, _, _ in path])
    values = np.array([np.linalg.svd(a, compute_uv=False) for _, a, _ in path])
    slopes = []
    for _, a, d in path:
        u, _, vt = np.linalg.svd(a)
        slopes.append(np.diag(u.T @ d @ vt.T))
    out = []
    for k in range(modes):
        half = values[-1, k] / 2
        i = int(np.argmax(values[:, k] > half))
        t0, t1, s0, s1, d0, d1 = times[i - 1], times[i], values[i - 1, k], values[i, k], slopes[i - 1][k], slopes[i][k]
        h, low, high = t1 - t0, 0.0, 1.0
        for _ in range(60):  # bisection on the Hermite cubic
            x = (low + high) / 2
            s = (
                (1 + 2 * x) * (1 - x) ** 2 * s0
                + x * (1 - x) ** 2 * h * d0
                + x**2 * (3 - 2 * x) * s1
                + x**2 * (x - 1) * h * d1
            )
            low, high = (x, high) if s < half else (low, x)
        out.append(t0 + h * low)
    return out


def make(name: str) -> dict:
    depth, size, singular_values, scale, unobserved, seed = CASES[name]
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.standard_normal((size, size)))[0] for _ in range(2))
    modes = len(singular_values)
    target = (u[:, :modes] * singular_values) @ v[:, :modes].T
    mask = np.ones(size * size)
    mask[rng.permutation(size * size)[:unobserved]] = 0.0
    mask = mask.reshape(size, size)
    start = scale * rng.standard_normal((depth, size, size))
    mpmath.mp.dps = DIGITS
    runs = [(Fixed(), 1e-4 * scale), (Fixed(), 1e-7 * scale)]
    if size == 2:
        runs.insert(0, (Multiple(), 1e-4 * scale))
    found = []
    for numbers, tolerance in runs:
        print(f"{name}: {numbers.name}, tolerance {tolerance:.1e}", file=sys.stderr, flush=True)
        flow = Flow(numbers, depth, size, target, mask)
        path = integrate(flow, numbers.exact(start).ravel(), tolerance)
        found.append(crossings(path, modes))
    difference = max(abs(a / b - 1) for other in found[:-1] for a, b in zip(other, found[-1], strict=True))
    print(f"  {found[-1]}, runs differ by {difference:.1e}", file=sys.stderr, flush=True)
    return {
        "depth": depth,
        "start": start.tolist(),
        "target": target.tolist(),
        "observed": mask.astype(int).tolist(),
        "numbers": [numbers.name for numbers, _ in runs],
        "steps": len(path),
        "times": found[-1],
        "final_matrix": path[-1][1].tolist(),
        "difference_between_runs": difference,
    }


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        found = make(case)
        known = json.loads(FILE.read_text()) if FILE.exists() else {}
        known[case] = found
        FILE.write_text(json.dumps({name: known[name] for name in CASES if name in known}, indent=1) + "\n")

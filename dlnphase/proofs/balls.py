"""Matrices of balls (midpoint ± radius, rounded outward) over python-flint, and the few bounds that proofs need.

A NumPy array of float64 is taken as exact: every float is a dyadic number. What goes back to floats is rounded so that
the statement stays true: lower ends down, upper ends up. An undecided comparison of balls is False, never a guess.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from dlnphase.errors import InputError

PRECISION = 128  # bits of a midpoint: enough that round-off never decides, few enough to be quick
UP = 1 + 2.0**-40  # covers the rounding of eight thousand float operations on numbers of one sign
SLACK = 1 + 2.0**-17  # claims are written a little larger, so that another way of computing them stays below

Ball = Any  # flint.arb
Balls = Any  # flint.arb_mat
Interval = tuple[float, float]  # lower and upper end


class Undecided(Exception):
    """A comparison of balls that does not decide, or a claim that is false: the proof is refused, in these words."""


def flint() -> Any:
    """The module python-flint.

    Raises:
        InputError: when it is not installed.
    """
    try:
        import flint as module
    except ImportError:
        raise InputError(
            "prove: needs python-flint, which is not installed; pip install 'dlnphase[proof]' brings it"
        ) from None
    return module


@contextlib.contextmanager
def precision(bits: int) -> Iterator[None]:
    """Run the body with midpoints of so many bits."""
    ctx = flint().ctx
    before = ctx.prec
    ctx.prec = bits
    try:
        yield
    finally:
        ctx.prec = before


def exact(array: np.ndarray) -> Balls:
    """A matrix of floats (n, m) as balls of radius zero."""
    array = np.asarray(array, dtype=float)
    return flint().arb_mat(*array.shape, array.ravel().tolist())


def around(middle: np.ndarray, radius: np.ndarray) -> Balls:
    """Balls with these float midpoints and radii, both (n, m)."""
    arb = flint().arb
    pairs = zip(np.ravel(middle).tolist(), np.ravel(radius).tolist(), strict=True)
    return flint().arb_mat(*middle.shape, [arb(m, r) for m, r in pairs])


def upper(ball: Ball) -> float:
    """A float that no number of the ball exceeds; infinite where there is none."""
    end = ball.upper()
    value = float(end)
    if not math.isfinite(value):
        return math.inf
    return value if end <= value else math.nextafter(value, math.inf)


def lower(ball: Ball) -> float:
    """A float that no number of the ball is below; −∞ where there is none."""
    end = ball.lower()
    value = float(end)
    if not math.isfinite(value):
        return -math.inf
    return value if end >= value else math.nextafter(value, -math.inf)


def interval(ball: Ball) -> Interval:
    """A closed interval of floats that contains the ball."""
    return lower(ball), upper(ball)


def middle(matrix: Balls) -> np.ndarray:
    """Midpoints rounded to floats, (n, m)."""
    return np.array([float(x.mid()) for x in matrix.entries()]).reshape(matrix.nrows(), matrix.ncols())


def radii(matrix: Balls, about: np.ndarray) -> np.ndarray:
    """Floats r with |x − about| ≤ r for every x of the balls, (n, m)."""
    flat = np.ravel(about).tolist()
    out = [upper(abs(x - m)) for x, m in zip(matrix.entries(), flat, strict=True)]
    return np.array(out).reshape(about.shape)


def stacked(rows: list[Balls]) -> Balls:
    """Matrices of equal numbers of columns, one above the other."""
    kept = [r for r in rows if r.nrows()]
    entries = [x for r in kept for x in r.entries()]
    return flint().arb_mat(sum(r.nrows() for r in kept), rows[0].ncols(), entries)


def identity(n: int) -> Balls:
    """The identity, (n, n)."""
    return exact(np.eye(n))


def inner(a: Balls, b: Balls) -> Ball:
    """⟨A, B⟩ of two matrices of one shape."""
    size = a.nrows() * a.ncols()
    mat = flint().arb_mat
    return (mat(1, size, a.entries()) * mat(size, 1, b.entries()))[0, 0] if size else flint().arb(0)


def norm_square(matrix: Balls) -> Ball:
    """‖·‖_F². (A ball around 0 raised to a power is NaN in python-flint: products alone.)"""
    square = flint().arb(0)
    for x in matrix.entries():
        square += x * x
    return square


def root(ball: Ball) -> Ball:
    """The square root of what is known not to be negative, though its ball may reach below 0."""
    return ball.nonnegative_part().sqrt()


def norm(matrix: Balls) -> Ball:
    """Frobenius norm."""
    return root(norm_square(matrix))


def norm_of(layers: list[Balls]) -> Ball:
    """‖θ‖ of weights."""
    return root(sum((norm_square(w) for w in layers), flint().arb(0)))


def eigenvalue_bounds(symmetric: Balls) -> tuple[Ball, Ball]:
    """(lower, upper) bounds of all eigenvalues of every symmetric matrix within the balls.

    With V the float eigenvectors of the midpoint, B = VᵀSV and N = VᵀV: for x = Vy, xᵀSx = yᵀBy ≥ β‖y‖² and
    ‖x‖² = yᵀNy, where Gershgorin bounds B and N. V is invertible when N > 0.

    Raises:
        Undecided: when the float eigenvectors are no basis.
    """
    v = exact(np.linalg.eigh(middle(symmetric))[1])
    low, high = _gershgorin(v.transpose() * (symmetric * v))
    least, most = _gershgorin(v.transpose() * v)
    if not least > 0:
        raise Undecided("precision: eigenvectors in floats are no basis")
    return low / (most if low >= 0 else least), high / (least if high >= 0 else most)


def _gershgorin(matrix: Balls) -> tuple[Ball, Ball]:
    n = matrix.nrows()
    rows = matrix.table()
    low, high = None, None
    for i in range(n):
        rest = sum((abs(rows[i][j]).upper() for j in range(n) if j != i), flint().arb(0))
        down, up = (rows[i][i] - rest).lower(), (rows[i][i] + rest).upper()
        low = down if low is None else low.min(down)
        high = up if high is None else high.max(up)
    return low, high


def operator_norm(matrix: Balls) -> Ball:
    """An upper bound of the largest singular value."""
    tall = matrix.nrows() >= matrix.ncols()
    gram = matrix.transpose() * matrix if tall else matrix * matrix.transpose()
    return eigenvalue_bounds(gram)[1].max(flint().arb(0)).sqrt().upper()

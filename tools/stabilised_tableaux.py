"""Compute the coefficients of the stabilised Runge–Kutta methods and write dlnphase/dynamics/stabilised/tableaux.json.

A method of s stages and order 4 is stable for h·ρ up to about 0.35 s². Its stability polynomial

    R(z) = P(z)·w(z),   deg P = s − 4,  deg w = 4,  R(z) = e^z + O(z⁵)

stays below DAMPING on as long an interval [−ℓ, 0] as possible (Abdulle, SIAM J. Sci. Comput. 23 (2002) 2042–2055, whose
construction this follows; van der Houwen and Sommeijer 1980 for the idea). Three steps:

1. The longest interval. For a given ℓ the polynomial of least maximum is a linear programme in Chebyshev coefficients
   (Ketcheson and Ahmadia, CAMCoS 7 (2012) 247–271); ℓ is found by bisection. P takes the s − 4 real roots, w is what is
   left of e^z/P: so the order is exact, whatever the programme's own accuracy.
2. P as a three-term recurrence, which keeps round-off at bay at any s: the Jacobi matrix with the roots of P as
   eigenvalues and w² at the roots as weights gives polynomials orthogonal on them, the last of which is P.
3. w as four more stages. Their ten coefficients meet the eight conditions of order 4 of the whole method, found from
   the elementary weights of rooted trees that the recurrence leaves behind. The error estimate combines these stages
   and the slope at the new point so that all trees of order up to 3 cancel. The two free coefficients are spent on an
   estimate that is close to a multiple of h⁴y⁗: one that weighs trees otherwise can miss an error.

Run ``python tools/stabilised_tableaux.py`` (half a minute).
"""

from __future__ import annotations

import json
from math import factorial
from pathlib import Path

import numpy as np
from numpy.polynomial import chebyshev
from numpy.polynomial import polynomial as power
from scipy.optimize import least_squares, linprog

PAGE = Path(__file__).resolve().parent.parent / "dlnphase" / "dynamics" / "stabilised" / "tableaux.json"
STAGES = (*range(5, 21), 22, 24, 26, 28, 31, 34, 37, 40, 44, 48, 53, 58, 64)
DAMPING = 0.95  # |R| on the stable interval away from 0
FREE = 0.3  # |z| below which R follows e^z and is not bounded by DAMPING
MARGIN = 0.99  # of ℓ that is used: between the points of the grid R is a little larger
ESTIMATE = 0.0025  # terms of order 4 of the estimate over those of the flow: rtol then means what it means elsewhere
DENSITY = 12  # points of the grid per stage
TRIES = 40
SMALL, WORTH = 0.1, 30.0  # what small coefficients are worth, and an estimate parallel to h⁴y⁗

# Rooted trees up to order 4: τ, [τ], [ττ], [[τ]], [τττ], [τ[τ]], [[ττ]], [[[τ]]]; Hairer, Nørsett, Wanner II.2.
INVERSE_DENSITY = np.array([1, 1 / 2, 1 / 3, 1 / 6, 1 / 4, 1 / 8, 1 / 12, 1 / 24])
SYMMETRY = np.array([1, 1, 2, 1, 6, 1, 2, 1])
FOURTH = (INVERSE_DENSITY / SYMMETRY)[4:]  # shares of the trees of order 4 in h⁴y⁗/24
FOURTH = FOURTH / np.linalg.norm(FOURTH)


def slope(u: np.ndarray) -> np.ndarray:
    """Elementary weights of h·f(Y) for all trees, from those of Y."""
    a, b, c, d = u[:4]
    return np.array([1.0, a, a * a, b, a**3, a * b, c, d], dtype=u.dtype)


def least_maximum(stages: int, interval: float) -> tuple[float, np.ndarray]:
    """(max |R|, Chebyshev coefficients of R on x = 1 + 2z/ℓ) of the best polynomial on [−ℓ, −FREE]."""
    k = np.arange(stages + 1.0)
    angle = np.linspace(0, np.pi, DENSITY * stages + 1)
    angle = angle[(np.cos(angle) - 1) * interval / 2 <= -FREE]
    values = np.cos(np.outer(angle, k))
    derivatives = np.ones((5, stages + 1))  # d^j R/dz^j at 0
    for j in range(1, 5):
        derivatives[j] = derivatives[j - 1] * (k * k - (j - 1) ** 2) / (2 * j - 1) * 2 / interval
    bound = -np.ones((len(angle), 1))
    found = linprog(
        np.append(np.zeros(stages + 1), 1.0),
        A_ub=np.vstack([np.hstack([values, bound]), np.hstack([-values, bound])]),
        b_ub=np.zeros(2 * len(angle)),
        A_eq=np.hstack([derivatives, np.zeros((5, 1))]),
        b_eq=np.ones(5),
        bounds=[(None, None)] * (stages + 1) + [(0, None)],
        method="highs",
    )
    return (found.x[-1], found.x[:-1]) if found.status == 0 else (np.inf, np.zeros(stages + 1))


def roots(stages: int) -> tuple[float, np.ndarray]:
    """(ℓ, real roots of R in (−ℓ, 0), ascending) for the longest interval."""
    low, high = 0.2 * stages**2, 0.42 * stages**2
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if least_maximum(stages, middle)[0] <= DAMPING else (low, middle)
    z = (chebyshev.chebroots(least_maximum(stages, low)[1]) - 1) * low / 2
    real = np.sort(z[abs(z.imag) < 1e-6 * abs(z)].real)
    if len(real) != stages - 4:
        raise RuntimeError(f"{stages} stages: found {len(real)} real roots")
    return low, real


def remaining_factor(real: np.ndarray) -> np.ndarray:
    """w = e^z/P up to z⁴, P = Π(1 − z/r)."""
    p = np.array([1.0], dtype=np.longdouble)
    for r in real:
        p = power.polymul(p, np.array([1, -1 / np.longdouble(r)]))[:5]
    p = np.concatenate([p, np.zeros(5)])[:5]
    w = np.zeros(5, dtype=np.longdouble)
    for k in range(5):
        w[k] = 1 / np.longdouble(factorial(k)) - sum(p[j] * w[k - j] for j in range(1, k + 1))
    return w


def recurrence(real: np.ndarray, w: np.ndarray) -> list[tuple[float, float]]:
    """(μ, κ) of Y_{j+1} = μ h f(Y_j) + (1 − κ) Y_j + κ Y_{j−1}, whose last stage has stability polynomial P."""
    x = real.astype(np.longdouble)
    vectors = [abs(power.polyval(x, w))]
    vectors[0] /= np.sqrt((vectors[0] ** 2).sum())
    out, off, ratio_before = [], np.longdouble(0), np.longdouble(1)
    for j in range(len(x)):  # Lanczos, with full reorthogonalisation
        v = x * vectors[-1]
        diagonal = (v * vectors[-1]).sum()
        ratio = -diagonal - (off**2 / ratio_before if j else 0)
        out.append((float(1 / ratio), float(-(off**2) / (ratio * ratio_before)) if j else 0.0))
        for _ in range(2):
            for u in vectors:
                v = v - (u * v).sum() * u
        off, ratio_before = np.sqrt((v * v).sum()), ratio
        vectors.append(v / off if j < len(x) - 1 else v)
    return out


def weights_after(steps: list[tuple[float, float]]) -> np.ndarray:
    """Elementary weights of the last stage of a recurrence."""
    now = before = np.zeros(8)
    for mu, kappa in steps:
        now, before = mu * slope(now) + (1 - kappa) * now + kappa * before, now
    return now


def finish(start: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(elementary weights of the four slopes, of the new point) for coefficients x = (a21, a31, a32, a41, …, b4)."""
    k = [slope(start)]
    for row in (x[:1], x[1:3], x[3:6]):
        k.append(slope(start + sum(a * d for a, d in zip(row, k, strict=True))))
    return np.array(k), start + x[6:] @ np.array(k)


def estimate_of(start: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Combination of the four slopes and the slope at the new point in which all trees of order up to 3 cancel.

    Returns its coefficients and what it leaves of the four trees of order 4, in units of their share of the flow's own
    term of order 4: a multiple of (1, 1, 1, 1) estimates h⁴y⁗.
    """
    k, new = finish(start, x)
    k = np.vstack([k, slope(new)])
    e = np.linalg.svd(k[:, :4].T)[2][-1]
    left = (e @ k)[4:] / SYMMETRY[4:]
    sign = np.sign(left @ FOURTH)
    return sign * e / np.linalg.norm(left), sign * left / np.linalg.norm(left)


def finishing_stages(start: np.ndarray, guess: np.ndarray | None) -> np.ndarray:
    """A solution of the eight order conditions in ten unknowns: small, with an error estimate that sees all trees."""
    rng, best = np.random.default_rng(0), (np.inf, np.zeros(10))
    rest = 1 - start[0]

    def residual(x: np.ndarray) -> np.ndarray:
        return (finish(start, x)[1] - INVERSE_DENSITY) / INVERSE_DENSITY

    def wish(x: np.ndarray) -> np.ndarray:
        return np.concatenate([1e3 * residual(x), estimate_of(start, x)[1] - FOURTH, SMALL * x])

    for attempt in range(TRIES):
        c = rest * rng.uniform(0.2, 1.2, 3)
        first = np.array([c[0], c[1] / 2, c[1] / 2, *[c[2] / 3] * 3, *[rest / 4] * 4])
        first += 0.4 * rest * rng.normal(size=10)
        x = least_squares(wish, guess if guess is not None and attempt == 0 else first, max_nfev=600).x
        for _ in range(20):  # Newton, least change
            jacobian = np.array([(residual(x + 1e-6 * e) - residual(x - 1e-6 * e)) / 2e-6 for e in np.eye(10)]).T
            x = x - np.linalg.pinv(jacobian) @ residual(x)
        price = abs(x).sum() - WORTH * float(estimate_of(start, x)[1] @ FOURTH)
        if abs(residual(x)).max() < 1e-13 and price < best[0]:
            best = price, x
    if best[0] == np.inf:
        raise RuntimeError("no solution of the order conditions")
    return best[1]


def main() -> None:
    methods, guess = [], None
    for stages in STAGES:
        interval, real = roots(stages)
        steps = recurrence(real, remaining_factor(real))
        start = weights_after(steps)
        guess = finishing_stages(start, guess)
        a21, a31, a32, a41, a42, a43, *b = guess.tolist()
        methods.append(
            {
                "stages": stages,
                "interval": round(MARGIN * interval, 6),
                "recurrence": steps,
                "a": [[a21], [a31, a32], [a41, a42, a43]],
                "b": b,
                "error": (ESTIMATE * estimate_of(start, guess)[0]).tolist(),
            }
        )
        cosine = estimate_of(start, guess)[1] @ FOURTH
        size = abs(guess).sum()
        print(
            f"{stages:3d} stages: stable to {interval:9.3f} = {interval / stages**2:.4f} s², coefficients {size:.2f}, "
            f"estimate parallel to h⁴y⁗ to {cosine:.4f}",
            flush=True,
        )
    PAGE.write_text("[\n" + ",\n".join(json.dumps(m) for m in methods) + "\n]\n")


if __name__ == "__main__":
    main()

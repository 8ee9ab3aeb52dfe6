"""Distances by brute force: least squares with a vanishing pull towards θ_0, from many starts, on small networks.

A point is only counted when it satisfies its equations: of a minimum C(A) = C_min, of a saddle ∇𝓛 = 0 with ∇C(A) ≠ 0.
So every distance found here is attained; the true one may be smaller still.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.optimize import least_squares

from gauntlet.reference.chain import Chain
from gauntlet.reference.costs import Quadratic

PULLS = (1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3)  # weight of the pull towards θ_0, one after the other
FITS = 1e-9  # relative residual of an equation that holds
AWAY = 1e-4  # relative ‖∇C‖ from which a critical point is no minimum

Vector = np.ndarray
Equations = Callable[[Vector], tuple[Vector, Vector]]  # values and their Jacobian


def chain_of(layers: list[np.ndarray], cost: Quadratic) -> tuple[Chain, Vector]:
    """The loss of these layers, and them as one vector."""
    return Chain([w.shape for w in layers], cost), np.concatenate([w.ravel() for w in layers])


def nearest_minimum(layers: list[np.ndarray], cost: Quadratic, rng: np.random.Generator, starts: int) -> float:
    """The smallest distance from θ_0 to a θ with C(A_θ) = C_min that was found; inf when there was none."""
    chain, theta0 = chain_of(layers, cost)
    values, vectors = np.linalg.eigh(cost.hessian)
    basis = vectors[:, values > 1e-10 * values[-1]]
    scale = float(np.linalg.norm(basis.T @ cost.solution)) + float(np.linalg.norm(chain.product(theta0)))

    def equations(theta: Vector) -> tuple[Vector, Vector]:
        a = chain.product(theta)
        return basis.T @ (a.ravel() - cost.solution) / scale, basis.T @ chain.matrix_jacobian(theta) / scale

    best = np.inf
    for start in _minimum_starts(chain, theta0, rng, starts):
        theta = pulled(equations, theta0, start)
        if np.abs(equations(theta)[0]).max() <= FITS:
            best = min(best, float(np.linalg.norm(theta - theta0)))
    return best


def nearest_saddle(layers: list[np.ndarray], cost: Quadratic, rng: np.random.Generator, starts: int) -> float:
    """The smallest distance from θ_0 to a θ with ∇𝓛(θ) = 0 and ∇C(A_θ) ≠ 0 that was found; inf when there was none."""
    chain, theta0 = chain_of(layers, cost)
    size = float(np.linalg.norm(cost.gradient(np.zeros(cost.shape))))
    unit = gradient_unit(chain, theta0)

    def equations(theta: Vector) -> tuple[Vector, Vector]:
        return -chain.slope(0.0, theta) / unit, chain.hessian(theta) / unit

    best = np.inf
    for start in _saddle_starts(chain, theta0, rng, starts):
        theta = pulled(equations, theta0, start)
        away = float(np.linalg.norm(cost.gradient(chain.product(theta))))
        if np.linalg.norm(equations(theta)[0]) <= FITS and away > AWAY * size:
            best = min(best, float(np.linalg.norm(theta - theta0)))
    return best


def gradient_unit(chain: Chain, theta: Vector) -> float:
    """What ‖∇𝓛‖ would be if nothing cancelled: (Σ_l ‖S_l‖²‖P_l‖²)^½ ‖∇C‖."""
    before, after = chain.sides(chain.layers(theta))
    products = sum(float(np.linalg.norm(s) ** 2 * np.linalg.norm(p) ** 2) for s, p in zip(after, before, strict=True))
    slope = max(
        float(np.linalg.norm(chain.cost.gradient(chain.product(theta)))),
        float(np.linalg.norm(chain.cost.gradient(np.zeros(chain.cost.shape)))),
    )
    return float(np.sqrt(products)) * slope


def pulled(equations: Equations, theta0: Vector, start: Vector) -> Vector:
    """A solution of the equations near θ_0: the pull is loosened step by step, then let go."""
    size = float(np.linalg.norm(theta0)) or 1.0
    eye, theta = np.eye(theta0.size), start
    for pull in PULLS:

        def residual(x: Vector, pull: float = pull) -> Vector:
            return np.concatenate([pull * (x - theta0) / size, equations(x)[0]])

        def jacobian(x: Vector, pull: float = pull) -> Vector:
            return np.concatenate([pull * eye / size, equations(x)[1]])

        theta = least_squares(residual, theta, jacobian, method="lm", max_nfev=40).x
    for _ in range(60):  # Gauss–Newton by least-norm steps stays near
        values, slopes = equations(theta)
        if np.linalg.norm(values) <= 1e-3 * FITS:
            break
        theta = theta - np.linalg.lstsq(slopes, values, rcond=1e-6)[0]
    return theta


def _minimum_starts(chain: Chain, theta0: Vector, rng: np.random.Generator, count: int) -> Iterator[Vector]:
    yield theta0
    target = chain.cost.solution.reshape(chain.cost.shape)
    for k in range(count):
        if k % 2:
            yield theta0 + float(np.linalg.norm(theta0)) * rng.uniform(0.1, 1.0) * _direction(rng, theta0.size)
        else:
            yield _balanced(chain, target, theta0, rng, laid_over=bool(k % 4))


def _balanced(chain: Chain, a: np.ndarray, theta0: Vector, rng: np.random.Generator, *, laid_over: bool) -> Vector:
    """Balanced factors of A in random bases, or in the directions that θ_0 itself sends its singular vectors to."""
    depth = len(chain.shapes)
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    k = min(len(s), *(n for n, _ in chain.shapes[:-1]))
    root = s[:k] ** (1 / depth)
    frames = [vt[:k].T]
    layers = chain.layers(theta0)
    for w in layers[:-1]:
        guess = w @ frames[-1] if laid_over else rng.standard_normal((w.shape[0], k))
        frames.append(np.linalg.qr(guess + 1e-12 * rng.standard_normal(guess.shape))[0][:, :k])
    frames.append(u[:, :k])
    factors = [(frames[l + 1] * root) @ frames[l].T for l in range(depth)]
    kept = [w - (f_out @ (f_out.T @ w)) for w, f_out in zip(layers, frames[1:], strict=True)]
    return np.concatenate([(f + r * laid_over).ravel() for f, r in zip(factors, kept, strict=True)])


def _saddle_starts(chain: Chain, theta0: Vector, rng: np.random.Generator, count: int) -> Iterator[Vector]:
    """θ_0 with one or more pairs of directions cut off: u on the left in one layer, v on the right in another."""
    d_out, d_in = chain.cost.shape
    depth = len(chain.shapes)
    spectra = [chain.cost.gradient(chain.product(theta0)), chain.cost.gradient(np.zeros(chain.cost.shape))]
    for k in range(count):
        layers = [w.copy() for w in chain.layers(theta0.copy())]
        u, _, vt = np.linalg.svd(spectra[k % 2])
        modes = rng.permutation(min(d_out, d_in))[: int(rng.integers(1, min(d_out, d_in), endpoint=True))]
        for mode in modes:
            left, right = (u[:, mode], vt[mode]) if k % 3 else (_direction(rng, d_out), _direction(rng, d_in))
            b, a = sorted(rng.choice(depth, size=2, replace=False))
            for w in layers[:a:-1]:
                left = left @ w
            layers[a] -= np.outer(left, left @ layers[a]) / max(float(left @ left), 1e-300)
            for w in layers[:b]:
                right = w @ right
            layers[b] -= np.outer(layers[b] @ right, right) / max(float(right @ right), 1e-300)
        start = np.concatenate([w.ravel() for w in layers])
        noise = (0.0, 0.05, 0.3)[k % 3] * float(np.linalg.norm(theta0))
        yield start + noise * _direction(rng, start.size)


def _direction(rng: np.random.Generator, size: int) -> Vector:
    x = rng.standard_normal(size)
    return x / np.linalg.norm(x)

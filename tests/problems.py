"""Dynamics with known answers: starts, costs and A(t) as an exact function of time.

A balanced start whose modes lie on the singular vectors of the target keeps them there, and each mode
follows ȧ = L a^(2−2/L) λ (s − a), where λ is the curvature of the cost along the mode (1 for factorization).
For each of the four tasks there is a basis in which the modes do not talk to each other:
    factorization  any singular vectors (λ = 1)
    completion     the coordinate axes, diagonal entries observed, any others observed as zeros (λ = 1)
    sensing        measurements √λ_i u_i v_iᵀ, and more of them along the other u_i v_jᵀ
    regression     Σ_xx = V diag(λ) Vᵀ
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq

from dlnphase.backend import Backend
from dlnphase.costs.quadratic import QuadraticCost, completion, factorization, regression, sensing
from dlnphase.networks.chain import Network

TASKS = ("factorization", "completion", "sensing", "regression")


# ---- one mode ------------------------------------------------------------------------------------


def mode_two_layers(t, a0, s, rate=1.0):
    """L = 2: a(t) = s / (1 + (s/a_0 − 1) e^(−2st))."""
    return s / (1 + (s / a0 - 1) * np.exp(-2 * s * rate * np.asarray(t)))


def time_four_layers(a, a0, s, rate=1.0):
    """L = 4, u = √a: 2t = F(u) − F(u_0), F(u) = (1/s)(−1/u + artanh(u/√s)/√s)."""

    def f(u):
        return (-1 / u + np.arctanh(u / np.sqrt(s)) / np.sqrt(s)) / s

    return (f(np.sqrt(a)) - f(np.sqrt(a0))) / (2 * rate)


def time_any_depth(x, x0, s, depth, rate=1.0):
    """t between two values of x = log(a/(s − a)), where ẋ = L s λ a^(1−2/L) holds without any cancellation."""

    def slowness(x):
        return (s / (1 + np.exp(-x))) ** (2 / depth - 1)

    value, _ = quad(slowness, x0, x, epsabs=0, epsrel=1e-12, limit=500)
    return value / (depth * s * rate)


def mode(t, a0, s, depth, rate=1.0):
    """a(t) of one balanced aligned mode of any depth; t a number, 0 < a_0 < s."""
    if depth == 1:
        return s + (a0 - s) * np.exp(-rate * t)
    low = np.log(a0 / (s - a0))
    fastest = depth * s ** (2 - 2 / depth) * rate
    x = brentq(lambda x: time_any_depth(x, low, s, depth, rate) - t, low, low + fastest * t + 1e-9, xtol=1e-12)
    return s / (1 + np.exp(-x))


# ---- networks of such modes ------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """A start, a cost and the exact A(t)."""

    name: str
    network: Network
    cost: QuadraticCost
    exact: Callable[[float], np.ndarray]
    times: tuple[float, ...]


def orthonormal(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((n, k)))[0]


def aligned_problem(
    task: str,
    depth: int,
    backend: Backend,
    *,
    start=(0.02, 0.05, 0.01),
    values=(2.0, 1.2, 0.6),
    shape=(4, 5),
    width=5,
    seed=0,
) -> Problem:
    """A balanced aligned start of given mode sizes towards given singular values; see the head of this file."""
    rng = np.random.default_rng(seed)
    start, values = np.array(start), np.array(values)
    k, (d_out, d_in) = len(values), shape
    rates = np.ones(k)
    if task == "completion":
        u, v = np.eye(d_out)[:, rng.permutation(d_out)], np.eye(d_in)[:, rng.permutation(d_in)]
    else:
        u, v = orthonormal(rng, d_out, d_out), orthonormal(rng, d_in, d_in)
    target = (u[:, :k] * values) @ v[:, :k].T
    if task == "factorization":
        cost = factorization(target, backend)
    elif task == "completion":
        seen = (target != 0) | (rng.random(shape) < 0.5)
        cost = completion(np.where(seen, target, np.nan), seen, backend)
    elif task == "sensing":
        rates = np.array([0.7, 1.0, 1.5, 1.2])[:k]
        pairs = [(i, i, np.sqrt(rates[i])) for i in range(k)] + [(0, 1, 0.8), (2, 0, 1.1), (1, d_in - 1, 0.5)]
        operators = np.stack([c * np.outer(u[:, i], v[:, j]) for i, j, c in pairs])
        cost = sensing(operators, np.einsum("mij,ij->m", operators, target), backend)
    else:
        weights = np.array([0.7, 1.0, 1.5, 1.2, 0.9, 0.4, 1.1])[:d_in]
        rates = weights[:k]
        x = np.sqrt(d_in) * (v * np.sqrt(weights)).T
        cost = regression(x, x @ target.T, backend)
    hidden = [u[:, :k] if depth == 1 else None, *(orthonormal(rng, width, k) for _ in range(depth - 1))][1:]
    frames = [v[:, :k], *hidden, u[:, :k]]
    root = start ** (1 / depth)
    layers = [(frames[i + 1] * root) @ frames[i].T for i in range(depth)]

    def exact(t: float) -> np.ndarray:
        sizes = [mode(t, a, s, depth, r) for a, s, r in zip(start, values, rates, strict=True)]
        return (u[:, :k] * np.array(sizes)) @ v[:, :k].T

    network = Network.from_weights([backend.tensor(w) for w in layers])
    return Problem(f"{task}-L{depth}", network, cost, exact, (0.3, 1.0, 2.5, 6.0))


# ---- flows without a closed form: SciPy on the plain formulas ----------------------------------------


def loss_gradient(layers: list[np.ndarray], cost_gradient: Callable[[np.ndarray], np.ndarray]) -> list[np.ndarray]:
    """∂𝓛/∂W_l = (W_L⋯W_{l+1})ᵀ ∇C(A) (W_{l−1}⋯W_1)ᵀ in plain NumPy, each product from scratch."""

    def chain(ws, n):
        out = np.eye(n)
        for w in ws:
            out = w @ out
        return out

    g = cost_gradient(chain(layers, layers[0].shape[1]))
    return [
        chain(layers[i + 1 :], w.shape[0]).T @ g @ chain(layers[:i], layers[0].shape[1]).T for i, w in enumerate(layers)
    ]


def scipy_flow(layers, cost_gradient, times, *, method="Radau", rtol=1e-10, atol=1e-13) -> list[list[np.ndarray]]:
    """Layers at the given times under gradient flow, by scipy.integrate.solve_ivp."""
    shapes = [w.shape for w in layers]
    cuts = np.cumsum([w.size for w in layers])[:-1]

    def unflat(y):
        return [part.reshape(shape) for part, shape in zip(np.split(y, cuts), shapes, strict=True)]

    def slope(_, y):
        return -np.concatenate([g.ravel() for g in loss_gradient(unflat(y), cost_gradient)])

    y0 = np.concatenate([w.ravel() for w in layers])
    done = solve_ivp(slope, (0.0, times[-1]), y0, method=method, t_eval=times, rtol=rtol, atol=atol)
    assert done.success, done.message
    return [unflat(y) for y in done.y.T]


def product(layers: list[np.ndarray]) -> np.ndarray:
    out = layers[0]
    for w in layers[1:]:
        out = w @ out
    return out


# ---- costs written out from their definitions -------------------------------------------------------


@dataclass(frozen=True)
class Stated:
    """A cost of the package beside its definition on plain arrays."""

    cost: QuadraticCost
    value: Callable[[np.ndarray], float]
    gradient: Callable[[np.ndarray], np.ndarray]
    design: np.ndarray  # rows x and right sides y of ½‖x·vec A − y‖²
    right: np.ndarray


def stated_cost(
    task: str, shape: tuple[int, int], backend: Backend, seed: int = 0, noise: float = 0.3, keep: bool = False
) -> Stated:
    """A noisy cost of each kind, with value and gradient summed term by term from the definition."""
    rng = np.random.default_rng(seed)
    d_out, d_in = shape
    target = rng.standard_normal((d_out, 2)) @ rng.standard_normal((2, d_in))
    target = target + noise * rng.standard_normal(shape)
    if task == "factorization":
        rows = np.eye(target.size).reshape(-1, *shape)
        cost, right = factorization(target, backend), target.ravel()
    elif task == "completion":
        seen = rng.random(shape) < 0.7
        seen[0, 0] = True
        rows = np.eye(target.size).reshape(-1, *shape)[seen.ravel()]
        cost, right = completion(np.where(seen, target, np.nan), seen, backend), target[seen]
    elif task == "sensing":
        count = target.size + 3
        rows = rng.standard_normal((count, *shape)) / np.sqrt(count)
        right = np.array([(b * target).sum() for b in rows]) + noise * rng.standard_normal(count)
        cost = sensing(rows, right, backend, keep=keep)
    else:
        count = 3 * d_in
        x = rng.standard_normal((count, d_in)) * rng.uniform(0.5, 1.5, d_in)
        y = x @ target.T + noise * rng.standard_normal((count, d_out))
        cost = regression(x, y, backend, keep=keep)
        rows = np.stack([np.outer(np.eye(d_out)[i], x[n]) for n in range(count) for i in range(d_out)])
        rows, right = rows / np.sqrt(count), y.ravel() / np.sqrt(count)

    def value(a):
        return sum(0.5 * (float((b * a).sum()) - y) ** 2 for b, y in zip(rows, right, strict=True))

    def gradient(a):
        return np.einsum("mij,m->ij", rows, np.einsum("mij,ij->m", rows, a) - right)

    return Stated(cost, value, gradient, rows.reshape(len(rows), -1), right)


class LogCosh:
    """Σ log cosh(A − A*): convex, not quadratic, known to the package by its protocol alone."""

    def __init__(self, target):
        self.target, self.shape, self.minimum = target, tuple(target.shape), 0.0

    def excess(self, a):
        r = (a - self.target).abs()
        return (r + torch.log1p(torch.exp(-2 * r)) - np.log(2)).sum((-2, -1))

    def gradient(self, a):
        return torch.tanh(a - self.target)

    def curvature(self, a):
        return torch.diag_embed((1 - torch.tanh(a - self.target) ** 2).flatten(1))

    def apply_curvature(self, v, a):
        return (1 - torch.tanh(a - self.target) ** 2) * v

    def minimum_at_rank(self, rank):
        return None


# ---- convex problems -----------------------------------------------------------------------------------


def nuclear_minimum(gradient, value, shape, decay, step):
    """min C(A) + λ‖A‖_*, by accelerated proximal gradient with restarts; sharing nothing with the package."""
    a, b, t = np.zeros(shape), np.zeros(shape), 1.0
    for _ in range(20_000):
        u, s, vt = np.linalg.svd(b - step * gradient(b), full_matrices=False)
        new = (u * np.maximum(s - step * decay, 0.0)) @ vt
        if np.sum((b - new) * (new - a)) > 0:
            t = 1.0
        later = (1 + np.sqrt(1 + 4 * t * t)) / 2
        done = np.abs(new - a).max() < 1e-15
        a, b, t = new, new + (t - 1) / later * (new - a), later
        if done:
            break
    return a, value(a) + decay * np.linalg.svd(a, compute_uv=False).sum()

"""Gradient flow by SciPy's solvers on the plain formulas: when each level of the excess cost is reached.

DOP853 as long as its step is not bound by stability (a budget of evaluations), then LSODA, then Radau with the exact
Jacobian. A second opinion starts from the same network with its hidden layers rotated and with LSODA: the same flow
with other round-off, so that where the two agree, neither method nor round-off decides.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
from scipy.integrate import DOP853, LSODA, Radau
from scipy.optimize import brentq

from gauntlet.reference.chain import Chain
from gauntlet.reference.costs import Quadratic

RTOL = 1e-11
EXPLICIT = 4_000  # evaluations of DOP853 before the rest goes to an implicit method
IMPLICIT = 40_000  # steps of the implicit method before the reference gives up
WORK = 4e9  # about the floating-point operations it may spend on factorisations
CHANGED = 0.1  # relative change of a singular value of A in one step beyond which the step is looked into …
PARTS = 16  # … at so many places
BEYOND = 3.0  # a level not reached by so many times the time asked about is not waited for


@dataclass
class Reference:
    """What the reference found.

    Attributes:
        reached: time at which each level was reached, inf where it was not.
        matrices: A at those times, or None.
        excess_at, matrices_at: excess cost and A at each of the times asked about, NaN, None where it was not got to.
        maxima: times of the local maxima of ‖∇𝓛‖.
        lulls: local minima of ‖∇𝓛‖ between, (time, decades below the lower of its two shoulders, A).
        spectrum: (t, singular values of A) at the start, after every step and within long ones, shapes (T,) and
            (T, min d).
        work: "DOP853", "DOP853+LSODA", …
        failed: why it could not go on, or "".
    """

    reached: np.ndarray
    matrices: list[np.ndarray | None]
    excess_at: np.ndarray
    matrices_at: list[np.ndarray | None] = field(default_factory=list)
    maxima: list[float] = field(default_factory=list)
    lulls: list[tuple[float, float, np.ndarray]] = field(default_factory=list)
    spectrum: tuple[np.ndarray, np.ndarray] | None = None
    work: str = ""
    failed: str = ""


def rotated(layers: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """The same network in other orthonormal bases of its hidden layers."""
    turns = [np.linalg.qr(rng.standard_normal((w.shape[0], w.shape[0])))[0] for w in layers[:-1]]
    turns = [np.eye(layers[0].shape[1]), *turns, np.eye(layers[-1].shape[0])]
    return [b @ w @ a.T for w, a, b in zip(layers, turns, turns[1:], strict=False)]


def follow(
    layers: list[np.ndarray],
    cost: Quadratic,
    levels: np.ndarray,
    times: np.ndarray,
    *,
    offset: float = 0.0,
    explicit: bool = True,
    rtol: float = RTOL,
) -> Reference:
    """Follow the flow until every level is reached and every time is passed.

    Args:
        layers: the start.
        levels: values of C − C_min − offset, falling.
        times: increasing.
        explicit: begin with DOP853; otherwise LSODA from the start, or Radau where that gives up.
    """
    chain = Chain([w.shape for w in layers], cost)
    theta = np.concatenate([w.ravel() for w in layers])
    out = Reference(np.full(len(levels), np.inf), [None] * len(levels), np.full(len(times), np.nan))
    walk = _Walk(chain, theta, np.asarray(levels), np.asarray(times), offset, out)
    atol = 1e-12 * float(np.sqrt(np.mean(theta**2)))
    end = BEYOND * float(times[-1])
    with np.errstate(over="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of LSODA, which fails aloud as well
        t = 0.0
        for method in (DOP853, LSODA, Radau) if explicit else (LSODA, Radau):
            if walk.done or t >= end:
                break
            more = {} if method is DOP853 else {"jac": chain.jacobian}
            solver = method(chain.slope, t, theta, end, rtol=rtol, atol=atol, **more)
            out.work += f"{'+' if out.work else ''}{method.__name__}"
            out.failed = _go(solver, walk, _budget(method, chain.size))
            t, theta = solver.t, solver.y.copy()
    walk.finish()
    return out


def _budget(method: type, size: int) -> int:
    """Steps a method may take; an implicit one pays for factorisations."""
    if method is DOP853:
        return EXPLICIT // 12
    factorisations = 3.0 if method is Radau else 0.05
    return min(3000 if method is Radau else IMPLICIT, 200 + int(WORK / (factorisations * size**3 + 1e4)))


def _go(solver: DOP853 | LSODA | Radau, walk: _Walk, budget: int) -> str:
    """Step until all is noted, the end, or a failure; why it stopped short, or ""."""
    for _ in range(budget):
        if walk.done or solver.status == "finished":
            return ""
        message = solver.step()
        if solver.status == "failed":
            return f"{type(solver).__name__}: {message}"
        walk.passed(solver)
    return "" if walk.done or solver.status == "finished" else f"{type(solver).__name__} needs over {budget} steps"


class _Walk:
    """Looks at every step a solver takes and notes what was asked for."""

    def __init__(
        self, chain: Chain, theta: np.ndarray, levels: np.ndarray, times: np.ndarray, offset: float, out: Reference
    ) -> None:
        self.chain, self.levels, self.times, self.offset, self.out = chain, levels, times, offset, out
        self.next_level, self.next_time, self.time = 0, 0, 0.0
        self.track: list[tuple[float, float]] = []
        self.matrices: list[np.ndarray] = []
        self.spectrum = [(0.0, _values(chain.product(theta)))]

    @property
    def done(self) -> bool:
        """Whether nothing is left to be noted."""
        return self.next_level >= len(self.levels) and self.next_time >= len(self.times)

    def excess(self, theta: np.ndarray) -> float:
        """C − C_min − offset."""
        return self.chain.cost.excess(self.chain.product(theta)) - self.offset

    def passed(self, solver: DOP853 | LSODA | Radau) -> None:
        """One accepted step from solver.t_old to solver.t."""
        before, now = solver.t_old, solver.t
        self.time = now
        self.track.append((now, float(np.log(np.maximum(np.linalg.norm(self.chain.slope(0.0, solver.y)), 1e-300)))))
        a = self.chain.product(solver.y)
        self.matrices.append(a)
        self._look_into(solver, a)
        value = self.chain.cost.excess(a) - self.offset
        crosses = self.next_level < len(self.levels) and value <= self.levels[self.next_level]
        lands = self.next_time < len(self.times) and self.times[self.next_time] <= now
        if not (crosses or lands):
            return
        between = solver.dense_output()
        while self.next_time < len(self.times) and self.times[self.next_time] <= now:
            a = self.chain.product(between(self.times[self.next_time]))
            self.out.matrices_at.append(a)
            self.out.excess_at[self.next_time] = self.chain.cost.excess(a) - self.offset
            self.next_time += 1
        while self.next_level < len(self.levels) and value <= self.levels[self.next_level]:
            level = self.levels[self.next_level]
            t = self._root(between, level, before, now)
            self.out.reached[self.next_level] = t
            self.out.matrices[self.next_level] = self.chain.product(between(t))
            self.next_level += 1

    def _look_into(self, solver: DOP853 | LSODA | Radau, a: np.ndarray) -> None:
        """Singular values at the end of a step; where one changes much, within the step as well."""
        last, now = self.spectrum[-1][1], _values(a)
        if np.any(np.abs(now - last) > CHANGED * np.minimum(now, last)):
            between = solver.dense_output()
            for t in np.linspace(solver.t_old, solver.t, PARTS + 1)[1:-1]:
                self.spectrum.append((float(t), _values(self.chain.product(between(t)))))
        self.spectrum.append((solver.t, now))

    def _root(self, between, level: float, before: float, now: float) -> float:
        def gap(t: float) -> float:
            return self.excess(between(t)) - level

        if gap(before) <= 0:
            return before
        return now if gap(now) >= 0 else float(brentq(gap, before, now, xtol=1e-300, rtol=1e-12))

    def finish(self) -> None:
        """Extrema of ‖∇𝓛‖ along the steps taken."""
        if len(self.track) < 3:
            return
        t, g = np.array(self.track).T
        times, values = zip(*self.spectrum, strict=True)
        self.out.spectrum = (np.array(times), np.array(values))
        peaks = [i for i in range(1, len(g) - 1) if g[i] >= g[i - 1] and g[i] > g[i + 1]]
        self.out.maxima = [_vertex(t, g, i) for i in peaks]
        for left, right in zip([0, *peaks], [*peaks, len(g) - 1], strict=True):
            if right <= left:
                continue
            low = left + int(np.argmin(g[left : right + 1]))
            shoulder = min(g[left] if left else np.inf, g[right] if right < len(g) - 1 else np.inf)
            depth = (shoulder - g[low]) / np.log(10) if np.isfinite(shoulder) else np.inf
            self.out.lulls.append((float(t[low]), float(depth), self.matrices[low]))


def _values(a: np.ndarray) -> np.ndarray:
    return np.linalg.svd(a, compute_uv=False)


def _vertex(t: np.ndarray, g: np.ndarray, i: int) -> float:
    a, b, _ = np.polyfit(t[i - 1 : i + 2] - t[i], g[i - 1 : i + 2] - g[i], 2)
    return float(t[i] - b / (2 * a)) if a < 0 else float(t[i])

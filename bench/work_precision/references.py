"""What solvers are measured against: the same flow by two integrators that share no code, in frames that are turned.

Products of layers carry round-off of 10^−16 times the learned modes, and an unlearned mode lives on terms of size
α^(L−1): at α = 10^−6 nothing of it is left in double precision. So a reference turns the spaces, again and again, to
axes along which layers are graded, where small numbers are stored as small numbers. One of the two also computes
slopes in extended precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.integrate
import scipy.linalg
import scipy.optimize
import scipy.sparse.linalg
import scipy.special

from bench.work_precision.equation import Chain
from bench.work_precision.problems import Problem

Array = np.ndarray
Solve = Callable[[Array], Array]
STAGES = 5
LARGEST_DENSE = 1000  # weights up to which Newton's matrix is factored
SLACK = 1e-13  # relative change of weights at which Newton's iteration ends
FLOOR = 1e-9  # and from which on it may end because it falls no more: that is round-off
TURN_EVERY = 10.0  # frames are turned whenever the time since the last crossing has grown by this
FIRST_TURN = 0.3


@dataclass(frozen=True)
class Crossing:
    """Where the path passes a level: the time, and A there."""

    time: float
    matrix: Array


def turned(chain: Chain, theta: Array) -> tuple[Chain, Array]:
    """The same network in spaces whose axes are the directions of its layers, from large to small."""
    layers = chain.layers(theta)
    product = np.linalg.multi_dot([layer.astype(float) for layer in reversed(layers)])
    left, _, right = np.linalg.svd(product)
    kind = theta.dtype
    below, out = _orthonormal(right.T, kind), []
    new_right = chain.right @ below
    for layer in layers[:-1]:
        rest = layer @ below
        above = _orthonormal(np.linalg.qr(rest.astype(float), "complete")[0], kind)
        out.append(above.T @ rest)
        below = above
    left = _orthonormal(left, kind)
    out.append(left.T @ (layers[-1] @ below))
    chain = replace(chain, left=chain.left @ left, right=new_right)
    return chain, np.concatenate([layer.ravel() for layer in out])


def _orthonormal(matrix: Array, kind: np.dtype) -> Array:
    """The nearest orthogonal matrix to an almost orthogonal one, to the precision of that type."""
    matrix = matrix.astype(kind)
    return 0.5 * matrix @ (3 * np.eye(len(matrix), dtype=kind) - matrix.T @ matrix)


# ---- the first: Radau IIA of order 9, slopes in extended precision ---------------------------------


class RadauIIA:
    """The collocation method at the STAGES right Radau points, its Newton iteration and its estimate of errors."""

    def __init__(self, floor: float, stages: int = STAGES) -> None:
        self.floor = floor
        inner = scipy.special.roots_jacobi(stages - 1, 1, 0)[0]
        self.nodes = c = np.append((inner + 1) / 2, 1.0)
        powers = c[:, None] ** np.arange(stages)  # of the monomials that are collocated
        a = (c[:, None] * powers / np.arange(1, stages + 1)) @ np.linalg.inv(powers)
        self.inverse = np.linalg.inv(a)
        values, vectors = np.linalg.eig(self.inverse)
        kept = [k for k, value in enumerate(values) if value.imag >= 0]  # one of each conjugate pair
        self.values, self.vectors, self.rows = values[kept], vectors[:, kept], np.linalg.inv(vectors)[kept]
        self.real = float(values[np.argmin(abs(values.imag))].real)
        moments = 1 / np.arange(1.0, stages + 1)
        moments[0] -= 1 / self.real
        self.estimate = (np.linalg.solve(powers.T, moments) - a[-1]) @ self.inverse

    def step(
        self, chain: Chain, theta: Array, slope: Array, h: float, solves: list[Solve]
    ) -> tuple[Array, Array] | None:
        """(the move over the step, its estimated error), or None where Newton's iteration does not settle."""
        stages = np.zeros((len(self.nodes), len(theta)), dtype=theta.dtype)
        size, before = _sizes(chain, theta, self.floor), math.inf
        for _ in range(25):
            slopes = np.stack([chain.slope(theta + z) for z in stages])
            rest = slopes - (self.inverse @ stages) / h
            change = np.zeros(stages.shape)
            for value, row, vector, solve in zip(self.values, self.rows, self.vectors.T, solves, strict=True):
                mixed = row @ rest if value.imag else row.real @ rest
                solved = solve(mixed.astype(complex if value.imag else float))
                change += (1 if value.imag == 0 else 2) * np.outer(vector, solved).real
            stages = stages + change
            moved = float(np.max(np.abs(change) / size))
            if moved < SLACK or (moved < FLOOR and moved > before / 2):
                error = slope / (self.real / h) + self.estimate @ stages
                return stages[-1], solves[self._real](np.asarray(error * (self.real / h), dtype=float))
            if not moved < 2 * before:
                return None
            before = moved
        return None

    @property
    def _real(self) -> int:
        return int(np.argmin(abs(self.values.imag)))


def _sizes(chain: Chain, theta: Array, floor: float) -> Array:
    """What each weight counts by: the root mean square of its row or its column in its layer, the smaller one."""
    out = []
    for layer in chain.layers(np.asarray(theta, dtype=float)):
        rows, columns = (np.sqrt((layer**2).mean(axis, keepdims=True)) for axis in (1, 0))
        out.append(np.minimum(rows, columns).ravel())
    return np.maximum(np.concatenate(out), floor)


def newton_solves(chain: Chain, theta: Array, shifts: Array) -> list[Solve]:
    """For each shift λ, the solution of (λ − ∂θ̇/∂θ) x = b."""
    theta = np.asarray(theta, dtype=float)
    chain = replace(chain, left=chain.left.astype(float), right=chain.right.astype(float))
    if chain.size <= LARGEST_DENSE:
        jacobian = chain.jacobian(theta)
        return [_direct(jacobian, shift) for shift in shifts]
    tangent = chain.tangent(theta)
    gram = tangent @ tangent.T
    return [_krylov(chain, theta, tangent, gram, shift) for shift in shifts]


def _direct(jacobian: Array, shift: complex) -> Solve:
    matrix = -jacobian.astype(complex if shift.imag else float)
    matrix[np.diag_indices_from(matrix)] += shift if shift.imag else shift.real
    factors = scipy.linalg.lu_factor(matrix, overwrite_a=True, check_finite=False)
    return lambda b: scipy.linalg.lu_solve(factors, b, check_finite=False)


def _krylov(chain: Chain, theta: Array, tangent: Array, gram: Array, shift: complex) -> Solve:
    """GMRES with the exact product, preconditioned by the part of the Jacobian that J carries (Woodbury)."""
    shift = shift if shift.imag else shift.real
    small = scipy.linalg.lu_factor(shift * np.eye(len(gram)) + gram)

    def product(x: Array) -> Array:
        pushed = chain.jacobian_times(theta, x.real)
        return shift * x - (pushed + 1j * chain.jacobian_times(theta, x.imag) if np.iscomplexobj(x) else pushed)

    def guess(b: Array) -> Array:
        return (b - tangent.T @ scipy.linalg.lu_solve(small, tangent @ b)) / shift

    kind = complex if np.iscomplexobj(shift) else float
    shape = (chain.size, chain.size)
    operator = scipy.sparse.linalg.LinearOperator(shape, product, dtype=kind)
    preconditioner = scipy.sparse.linalg.LinearOperator(shape, guess, dtype=kind)

    def solve(b: Array) -> Array:
        if not np.any(b):
            return b
        return scipy.sparse.linalg.gmres(operator, b, rtol=1e-5, restart=60, maxiter=3, M=preconditioner)[0]

    return solve


def crossings(problem: Problem, tol: float, kind: type = np.longdouble) -> list[Crossing]:
    """The crossings of the problem's levels by RadauIIA with this tolerance of its estimate."""
    method, chain, theta = RadauIIA(problem.typical / 100), problem.chain, problem.theta.astype(kind)
    levels, out = list(problem.levels), []
    time, crossed, turn = kind(0), kind(0), math.inf
    h = 1e-2 / problem.alpha**2
    while levels:
        if float(time - crossed) >= turn:
            chain, theta = turned(chain, theta)
            turn = max(turn * TURN_EVERY, float(time - crossed) * TURN_EVERY**0.5)
        slope = chain.slope(theta)
        moved = method.step(chain, theta, slope, h, newton_solves(chain, theta, method.values / h))
        if moved is None:
            h /= 4
            continue
        error = float(np.max(np.abs(moved[1]) / _sizes(chain, theta, method.floor))) / tol
        if error > 1:
            h *= max(0.2, 0.9 * error ** (-1 / (STAGES + 1)))
            continue
        if chain.excess(theta + moved[0]) < levels[0]:
            spent, theta = _aim(method, chain, theta, slope, h, levels.pop(0))
            time = time + kind(spent)
            out.append(Crossing(float(time), chain.matrix(theta).astype(float)))
            crossed, turn = time, FIRST_TURN
            h = spent / 4
            continue
        time, theta = time + kind(h), theta + moved[0]
        h *= min(4.0, 0.9 * max(error, 1e-9) ** (-1 / (STAGES + 1)))
        if turn < math.inf:
            h = min(h, max(turn, float(time - crossed) * TURN_EVERY))
    return out


def _aim(method: RadauIIA, chain: Chain, theta: Array, slope: Array, h: float, level: float) -> tuple[float, Array]:
    """The step of at most h after which 𝓛 is the level, and θ there."""
    ends = [(0.0, math.log(chain.excess(theta) / level)), (h, None)]

    def after(step: float) -> Array:
        moved = method.step(chain, theta, slope, step, newton_solves(chain, theta, method.values / step))
        assert moved is not None, step
        return theta + moved[0]

    def above(step: float) -> float:
        return math.log(chain.excess(after(step)) / level) if step else ends[0][1]

    step = scipy.optimize.brentq(above, 0.0, h, xtol=1e-14 * h, rtol=1e-13)
    return step, after(step)


# ---- the second: SciPy's Radau, or CVODE where P × P systems are out of reach -----------------------


def crossings_again(problem: Problem, rtol: float) -> list[Crossing]:
    """The crossings by a general solver in double precision, started anew whenever the frames are turned."""
    chain, theta = problem.chain, problem.theta
    levels, out = list(problem.levels), []
    crossed, since, room = np.longdouble(0), 0.0, math.inf  # time since the last crossing; how long this frame is kept
    first: float | None = None
    while levels:
        piece = _dense_piece if chain.size <= LARGEST_DENSE else _krylov_piece
        spent, theta, first = piece(chain, theta, problem.typical, rtol, levels[0], room, first)
        since += spent
        if spent < room:
            levels.pop(0)
            crossed, since, first = crossed + np.longdouble(since), 0.0, None
            out.append(Crossing(float(crossed), chain.matrix(theta)))
        room = max(FIRST_TURN, (TURN_EVERY - 1) * since)
        chain, theta = turned(chain, theta)
    return out


Piece = tuple[float, Array, float | None]  # time spent, θ then, the last step


def _dense_piece(
    chain: Chain, theta: Array, typical: float, rtol: float, level: float, room: float, first: float | None
) -> Piece:
    """Follow SciPy's Radau until the level is passed, or for that time."""
    solver = scipy.integrate.Radau(
        lambda t, y: chain.slope(y),
        0.0,
        theta,
        room,
        rtol=rtol,
        atol=rtol * typical,
        jac=lambda t, y: chain.jacobian(y),
        first_step=None if first is None else min(first, room),
    )
    while solver.status == "running":
        last = solver.h_abs
        words = solver.step()
        if solver.status == "failed":
            raise RuntimeError(f"the second reference gave up: {words}")
        if chain.excess(solver.y) < level:
            break
    else:
        return room, solver.y, last
    inside = solver.dense_output()
    t = _root(lambda t: math.log(chain.excess(inside(t)) / level), solver.t_old, solver.t)
    return t, inside(t), None


def _krylov_piece(
    chain: Chain, theta: Array, typical: float, rtol: float, level: float, room: float, first: float | None
) -> Piece:
    """The same by CVODE with GMRES."""
    from sksundae.cvode import CVODE, CVODEJacTimes

    def slope(t: float, y: Array, out: Array) -> None:
        out[:] = chain.slope(y)

    def times(t: float, y: Array, slope: Array, v: Array, out: Array) -> None:
        out[:] = chain.jacobian_times(y, v)

    solver = CVODE(
        slope,
        rtol=rtol,
        atol=rtol * typical,
        max_num_steps=10**8,
        linsolver="gmres",
        krylov_dim=60,
        jactimes=CVODEJacTimes(setupfn=None, solvefn=times),
        first_step=1e-4 if first is None else first,
    )
    solver.init_step(0.0, theta)
    end, stop, before, state = min(room, 1e13), None if room == math.inf else room, 0.0, theta
    while True:
        here = solver.step(end, method="onestep", tstop=stop)
        if not here.success:
            raise RuntimeError(f"the second reference gave up: {here.message}")
        t, state = float(here.t), np.array(here.y)
        if chain.excess(state) < level:

            def there(at: float) -> Array:
                return np.array(solver.step(at, method="normal").y)

            t = _root(lambda at: math.log(chain.excess(there(at)) / level), before, t)
            return t, there(t), None
        if t >= room:
            return room, state, t - before
        before = t


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    return scipy.optimize.brentq(function, low, high, xtol=1e-15 * max(high, 1e-30), rtol=1e-14)

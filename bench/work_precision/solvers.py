"""Who takes the steps: dlnphase's methods, SciPy's and SUNDIALS', each as an iterator over its own steps.

All get the analytic Jacobian where they use one, the same start, and tolerances rtol and, for those that need it,
atol = rtol times the typical entry of the start: small weights decide the waiting times, so they count relatively.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.integrate

from bench.work_precision.problems import DEPTH, Problem
from dlnphase.dynamics import gradient_flow
from dlnphase.dynamics.records import Record

OURS = ("auto", "stiff", "stabilised", "explicit")
SCIPY = ("Radau", "BDF", "LSODA", "DOP853")
SUNDIALS = ("CVODE", "CVODE-GMRES")
METHODS = OURS + SCIPY + SUNDIALS
DENSE = ("Radau", "BDF", "LSODA", "CVODE")  # who holds a P × P Jacobian
KRYLOV_DIM = 30  # of CVODE's GMRES
HORIZON = 1e3  # CVODE takes a bound of time, for its first step and its least: this times the scale of waits, α^(2 − L)

State = Callable[[], np.ndarray]
Step = tuple[float, float, State]  # time, 𝓛, and how to get θ there


class GaveUp(Exception):
    """A solver that ended by itself, with its words."""


def steps(problem: Problem, method: str, rtol: float) -> Iterator[Step]:
    """The accepted steps of one solver, from the start on, without end."""
    if method in OURS:
        return _ours(problem, method, rtol)
    if method in SCIPY:
        return _scipy(problem, method, rtol)
    return _cvode(problem, rtol, iterative=method == "CVODE-GMRES")


def _ours(problem: Problem, method: str, rtol: float) -> Iterator[Step]:
    for record in gradient_flow(problem.network, problem.cost, rtol=rtol, method=method, tol=0, max_steps=10**9):
        yield float(record.time[0]), float(record.excess[0]), partial(_flat, record)
        if record.reasons[0] is not None:
            raise GaveUp(record.reasons[0])


def _flat(record: Record) -> np.ndarray:
    return np.concatenate([layer.ravel() for layer in record.weights(0)])


def _scipy(problem: Problem, method: str, rtol: float) -> Iterator[Step]:
    chain = problem.chain
    given: dict[str, Any] = {"rtol": rtol, "atol": rtol * problem.typical}
    if method in DENSE:
        given["jac"] = lambda t, theta: chain.jacobian(theta)
    solver = getattr(scipy.integrate, method)(lambda t, y: chain.slope(y), 0.0, problem.theta, math.inf, **given)
    while True:
        yield solver.t, chain.excess(solver.y), solver.y.copy
        words = solver.step()
        if solver.status == "failed":
            raise GaveUp(words or "failed")


def _cvode(problem: Problem, rtol: float, iterative: bool) -> Iterator[Step]:
    from sksundae.cvode import CVODE, CVODEJacTimes

    chain = problem.chain

    def slope(t: float, y: np.ndarray, out: np.ndarray) -> None:
        out[:] = chain.slope(y)

    def jacobian(t: float, y: np.ndarray, slope: np.ndarray, out: np.ndarray) -> None:
        out[:] = chain.jacobian(y)

    def times(t: float, y: np.ndarray, slope: np.ndarray, v: np.ndarray, out: np.ndarray) -> None:
        out[:] = chain.jacobian_times(y, v)

    given: dict[str, Any] = {"rtol": rtol, "atol": rtol * problem.typical, "max_num_steps": 10**8}
    if iterative:
        jactimes = CVODEJacTimes(setupfn=None, solvefn=times)
        given |= {"linsolver": "gmres", "krylov_dim": KRYLOV_DIM, "jactimes": jactimes}
    else:
        given |= {"linsolver": "lapackdense", "jacfn": jacobian}
    solver = CVODE(slope, **given)
    here = solver.init_step(0.0, problem.theta)
    theta, t, end = problem.theta, 0.0, HORIZON / problem.alpha ** (DEPTH - 2)
    while True:
        yield t, chain.excess(theta), theta.copy
        here = solver.step(end, method="onestep")
        if not here.success:
            raise GaveUp(here.message)
        t, theta = float(here.t), np.asarray(here.y)


@dataclass(frozen=True)
class Walked:
    """What one run did.

    Attributes:
        seconds: CPU time of its steps.
        steps: how many they were.
        brackets: for each level that was passed, time and θ at the last step above it.
        failure: why it ended before the last level, or None.
    """

    seconds: float
    steps: int
    brackets: list[tuple[float, np.ndarray]]
    failure: str | None


def walk(problem: Problem, method: str, rtol: float, limit: float) -> Walked:
    """Follow a solver down to the last level, or until it has used ``limit`` seconds of CPU.

    The clock stands still while the state of a step is put aside: only what the solver itself does is counted.
    """
    levels, brackets = list(problem.levels), []
    used, count, failure = 0.0, -1, None
    before: tuple[float, np.ndarray] | None = None
    iterator = steps(problem, method, rtol)
    while levels:
        started = time.process_time()
        try:
            t, excess, state = next(iterator)
        except GaveUp as why:
            failure = str(why)
            break
        except (ArithmeticError, ValueError, RuntimeError) as why:
            failure = f"{type(why).__name__}: {why}"
            break
        finally:
            used += time.process_time() - started
        count += 1
        if not math.isfinite(excess):
            failure = "left the floating-point range"
            break
        while levels and excess < levels[0]:
            assert before is not None
            brackets.append(before)
            levels.pop(0)
        before = t, state()
        if used > limit:
            failure = "time"
            break
    return Walked(used, count, brackets, None if not levels else failure)

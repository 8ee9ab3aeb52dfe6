"""Where a path meets the noise in its data, and what it learns after that.

Data y = M vec A* + e with A* of rank k and e of standard deviation σ cost, at the best matrix of rank k,

    σ²/2 · (n − p)   ± σ²·√((n − p)/2),

n the numbers that training sees and p how many directions of the manifold of matrices of rank k they can see: to first
order in σ over the smallest mode of A*, the residual is the projection of e on the n − p others, so twice the cost over
σ² is χ² with n − p degrees of freedom. Factorization: n − p = (d_out − k)(d_in − k). From the first rank on at which
the cost is no more than that and two standard deviations, noise alone explains what is left (the discrepancy principle
of Morozov 1966), and every mode after it fits noise.

Where σ is not known, what is left of a matrix at each rank is compared with what is left of Gaussian noise there: the
shares of the largest singular value and of the lower half of them in its square, by a Monte Carlo test of 199 draws (in
the manner of parallel analysis, Horn 1965). That measures σ and says that noise could look like this; it does not say
that it is noise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dlnphase.backend import stream
from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.costs.round_off import indistinct
from dlnphase.critical import HostCost
from dlnphase.findings import Noise, NoiseFloor
from dlnphase.training.recording import MemberPath, cost_values

DEVIATIONS = 2.0  # above its mean that the cost of noise may lie
DRAWS, REJECTED = 199, 0.05  # of the Monte Carlo test, and the share of them below which it is no noise
POWER = (
    0.95  # a largest singular value with this share of the square is what noise itself may have: nothing can be told
)
LARGEST = 2e7  # n·p, numbers in the tangent space, above which p is that of a mask in general position
SOUGHT = 10_000  # numbers that training sees above which noise of unknown size is not looked for
FLOOR_MEANS = ("time", "cost", "expected", "spread")
HALF = 0.5  # of its size at the end, from which on a mode is learned


@dataclass(frozen=True)
class Question:
    """What is known of the noise.

    Attributes:
        level: σ, or None to look for it.
        source: given or planted; measured where it is looked for.
        numbers: n.
        weight: of each squared residual in the cost, times two (1/N for a regression on N samples, else 1).
        seed: of the Monte Carlo test.
    """

    level: float | None
    source: str
    numbers: int
    weight: float = 1.0
    seed: int = 0


def noise_on(
    path: MemberPath,
    visited: Mapping[int, int],
    spectra: np.ndarray,
    rank: int,
    question: Question,
    cost: QuadraticCost,
    test: QuadraticCost | None,
) -> Noise | None:
    """Where a path meets the noise; None where σ is not known and nothing that looks like noise was left.

    Args:
        visited: record numbers of the critical points it visited, by rank.
        spectra: singular values of A at the records that hold it, in order.
        rank: at the end.
    """
    host = HostCost(cost)
    kept = sorted(path.matrices)
    places = _places(path, visited, np.array(kept), spectra, rank)
    if question.level is None:
        found = _sought(path, places, rank, question, host)
        if found is None:
            return None
        looks_like_it, level, chance = found
    else:
        looks_like_it, level, chance = None, question.level, None
    floors, met = [], None
    time, costs = path.column(0), path.column(3) + cost.minimum
    for k, record in places.items():
        matrix = path.matrices[record]
        left = question.numbers - _seen_directions(matrix, k, question.numbers, host)
        unit = question.weight * level**2
        expected, spread = 0.5 * unit * left, unit * float(np.sqrt(left / 2))
        held = None if test is None else float(cost_values(test, matrix[None])[0])
        floors.append(NoiseFloor(k, float(time[record]), float(costs[record]), expected, spread, held))
        # Where σ was measured, it is the cost at that rank: to compare the two would tell nothing.
        explained = costs[record] <= expected + DEVIATIONS * spread if looks_like_it is None else k == looks_like_it
        if met is None and explained:
            met = floors[-1]
    when = None if met is None else _first_below(time, costs, max(met.cost, met.expected + DEVIATIONS * met.spread))
    return Noise(level, question.source, None if met is None else met.rank, when, chance, tuple(floors))


def _places(
    path: MemberPath, visited: Mapping[int, int], kept: np.ndarray, spectra: np.ndarray, rank: int
) -> dict[int, int]:
    """The record at which a path had learned k modes and no more, by k: a visit, else the one of least gradient."""
    learned = (spectra[:, :rank] >= HALF * spectra[-1, :rank]).sum(1)
    gradient = path.column(4)[kept]
    out: dict[int, int] = {}
    last = -1
    for k in range(rank + 1):
        there = kept[learned == k]
        record = visited.get(k)
        if record is None and k == rank:
            record = int(kept[-1])
        if (record is None or record not in path.matrices) and there.size:
            record = int(there[np.argmin(gradient[learned == k])])
        if record is not None and record in path.matrices and record > last:
            out[k] = last = record
    return out


def _seen_directions(a: np.ndarray, rank: int, numbers: int, host: HostCost) -> int:
    """p: how many directions of the tangent space at A, truncated to this rank, the data sees."""
    size = rank * (sum(a.shape) - rank)
    if rank == 0 or host.cost.unique or float(size) * a.size > LARGEST:
        return min(size, numbers)
    basis = _tangent(a, rank)
    seen = host.curvature(basis, a).reshape(size, -1)
    values = np.linalg.eigvalsh(basis.reshape(size, -1) @ seen.T)
    return int((values > indistinct(host.resolution) * max(values[-1], 0.0)).sum())


def _tangent(a: np.ndarray, rank: int) -> np.ndarray:
    """An orthonormal basis of the tangent space at A, truncated to this rank: u_i v_jᵀ with i or j among its modes."""
    u, _, vt = np.linalg.svd(a)
    i, j = np.nonzero(np.minimum(*np.ogrid[: a.shape[0], : a.shape[1]]) < rank)
    return np.asarray(u.T[i][:, :, None] * vt[j][:, None, :])


def _first_below(time: np.ndarray, costs: np.ndarray, level: float) -> float:
    """When the cost first passes a level, between records as an exponential."""
    first = int(np.flatnonzero(costs <= level)[0])
    if first == 0:
        return float(time[0])
    above, below = float(costs[first - 1]), max(float(costs[first]), np.finfo(float).tiny)
    part = np.log(above / level) / np.log(above / below)
    return float(time[first - 1] + part * (time[first] - time[first - 1]))


# ---- noise of unknown size -----------------------------------------------------------------------------


def _sought(
    path: MemberPath, places: Mapping[int, int], rank: int, question: Question, host: HostCost
) -> tuple[int, float, float] | None:
    """The first rank where what is left may be noise, σ as measured there, and the chance to look less like noise."""
    operator = getattr(host.cost, "operator", None)
    if operator is None or question.numbers > SOUGHT:
        return None
    mask = operator.numpy() > 0
    for k, record in places.items():
        if k >= rank and path.reason == "converged":
            return None  # no mode comes after it: the data are fitted
        matrix = path.matrices[record]
        size = k * (sum(matrix.shape) - k)
        if size >= question.numbers or float(size) * question.numbers > LARGEST:
            return None
        _, s, vt = np.linalg.svd(_tangent(matrix, k)[:, mask], full_matrices=False)
        basis = vt[s > indistinct(host.resolution) * s.max(initial=0.0)]
        left = question.numbers - len(basis)
        residual = host.gradient(matrix)[mask]
        rng = stream(question.seed, "null", k)
        drawn = rng.standard_normal((DRAWS, question.numbers))
        both = np.concatenate([residual[None], drawn])
        both = both - (both @ basis.T) @ basis
        shares = _shares(both, mask)
        if left < 1 or np.quantile(shares[1:, 0], 1 - REJECTED) > POWER:
            return None
        chance = _chance(shares)
        if chance > REJECTED:
            return k, float(np.sqrt((both[0] ** 2).sum() / left)), chance
    return None


def _shares(numbers: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Shares in the square of each matrix, given by its numbers on the mask: of its largest mode, of its lower half."""
    filled = np.zeros((len(numbers), *mask.shape))
    filled[:, mask] = numbers
    squares = np.linalg.svd(filled, compute_uv=False) ** 2
    whole = np.maximum(squares.sum(1), np.finfo(float).tiny)
    return np.stack([squares[:, 0], squares[:, squares.shape[1] // 2 :].sum(1)], 1) / whole[:, None]


def _chance(shares: np.ndarray) -> float:
    """How much of the noise (all rows but the first) lies further out than the first row, in the worse of its shares.

    Two sides of each, and the worse of two: four times the smaller part.
    """
    above = (1 + (shares[1:] >= shares[0]).sum(0)) / len(shares)
    below = (1 + (shares[1:] <= shares[0]).sum(0)) / len(shares)
    return float(min(4 * np.minimum(above, below).min(), 1.0))


# ---- several members ----------------------------------------------------------------------------------


def mean_noise(members: Sequence[Noise | None]) -> Noise | None:
    """Means over the members that met it; the rank is the commonest, a floor the mean over those that were there."""
    there = [noise for noise in members if noise is not None]
    if not there:
        return None
    floors = []
    for k in sorted({floor.rank for noise in there for floor in noise.floors}):
        rows = [floor for noise in there for floor in noise.floors if floor.rank == k]
        means = {name: float(np.mean([getattr(row, name) for row in rows])) for name in FLOOR_MEANS}
        tests = [row.test_cost for row in rows if row.test_cost is not None]
        floors.append(NoiseFloor(k, **means, test_cost=float(np.mean(tests)) if tests else None))
    times = [noise.time for noise in there if noise.time is not None]
    chances = [noise.chance for noise in there if noise.chance is not None]
    return Noise(
        float(np.mean([noise.level for noise in there])),
        there[0].source,
        Counter(noise.rank for noise in there).most_common(1)[0][0],
        float(np.mean(times)) if times else None,
        float(np.mean(chances)) if chances else None,
        tuple(floors),
    )

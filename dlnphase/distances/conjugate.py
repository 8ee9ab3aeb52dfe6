"""Critical pairs (A, G): matrices A with G = ∇C(A) ≠ 0 of a given rank, G Aᵀ = 0 and Aᵀ G = 0.

For a quadratic cost G = H(A − Â), so A = Â + H⁺G + N with N in the kernel of H, and the pairs whose G has rank m are
the critical points of the conjugate

    φ(B) = ½⟨B, H⁺B⟩ + ⟨B, Â⟩   on   {B in the range of H : rank B = m},

since ∇φ = A up to the kernel and the tangent space at B = U Γ Vᵀ is {U Xᵀ + Y Vᵀ} (derived). Few dead directions are
few unknowns here, where the search among matrices A of fixed rank has many. A positive definite H always has a pair of
rank 1: φ is negative somewhere near 0 and grows at infinity, so it has a minimum among matrices of rank at most 1.

The search alternates exact steps for the two factors of B with a penalty on what leaves the range of H, and ends with
Levenberg–Marquardt steps on the equations themselves. Which critical point is found depends on the start; there are
several starts, and no claim that the list is complete.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dlnphase.backend import stream
from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.costs.round_off import indistinct

PENALTY = 100.0  # on what leaves the range of H, in units of H⁺
SWEEPS = 3  # of alternating steps, before the equations are solved
LARGEST = 400  # entries of a matrix up to which pairs are searched by iteration
STARTS = 8  # of each rank
BEYOND = 1  # ranks of ∇C searched above the least one found
TRIPLES = 2  # singular triples of each block of a mask
EVALUATIONS = 60  # of the equations, from one start
EMPTY = 1e-4  # a direction of G below this, relative to the strongest, makes it a point of lower rank
SAME = 1e-6  # pairs whose G are closer than this, relatively, are one


@dataclass(frozen=True, eq=False)
class CriticalPair:
    """A and G = ∇C(A), both of shape (d_out, d_in), and the rank of G."""

    matrix: np.ndarray
    gradient: np.ndarray
    rank: int


class Conjugate:
    """φ of one cost, in units in which Â and the largest eigenvalue of H are 1.

    Args:
        cost: quadratic, with Â ≠ 0.
    """

    def __init__(self, cost: QuadraticCost) -> None:
        self.shape = cost.shape
        self.round_off = indistinct(cost.resolution)
        values, vectors = np.linalg.eigh(cost.curvature().detach().cpu().double().numpy())
        seen = values > self.round_off * values[-1]
        target = cost.minimizer.detach().cpu().double().numpy()
        self.unit = float(np.linalg.norm(target))
        self.strength = float(values[-1])
        inverse = np.where(seen, self.strength / np.where(seen, values, 1.0), 0.0)
        self.inverse = (vectors * inverse) @ vectors.T
        self.kernel = vectors[:, ~seen]
        self.outside = self.kernel @ self.kernel.T
        self.target = target / self.unit

    def alternate(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Factors X, Y of B after descent of φ from a start Y, shape (d_in, m)."""
        d_out, d_in = self.shape
        x = np.zeros((d_out, y.shape[1]))
        bowl = (self.inverse + PENALTY * self.outside).reshape(d_out, d_in, d_out, d_in)
        for _ in range(SWEEPS):
            x = np.linalg.qr(_half_step(bowl, self.target, np.linalg.qr(y)[0]))[0]
            y = _half_step(bowl.transpose(1, 0, 3, 2), self.target.T, x)
        return x, y

    def complete(self, b: np.ndarray, rank: int) -> np.ndarray:
        """A = Â + H⁺B + N for the N of the kernel that makes UᵀA and AV smallest."""
        a = self.target + (self.inverse @ b.ravel()).reshape(self.shape)
        if not self.kernel.shape[1]:
            return a
        u, _, vt = np.linalg.svd(b, full_matrices=False)
        u, v = u[:, :rank], vt[:rank].T
        free = self.kernel.T.reshape(-1, *self.shape)
        sides = np.concatenate([(u.T @ free).reshape(len(free), -1), (free @ v).reshape(len(free), -1)], 1)
        goal = np.concatenate([(u.T @ a).ravel(), (a @ v).ravel()])
        z = np.linalg.lstsq(sides.T, -goal, rcond=self.round_off**0.5)[0]
        return a + (self.kernel @ z).reshape(self.shape)

    def solve(self, x: np.ndarray, y: np.ndarray) -> CriticalPair | None:
        """The pair that Levenberg–Marquardt reaches from factors of B, or None where it reaches none of this rank."""
        rank = x.shape[1]
        size = np.sqrt(max(np.linalg.norm(y), np.finfo(float).tiny))
        x, y = x * size, y / size
        a = self.complete(x @ y.T, rank)
        z = self.kernel.T @ (a - self.target).ravel()
        start = np.concatenate([x.ravel(), y.ravel(), z])

        def parts(t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            first, second, rest = np.split(t, [x.size, x.size + y.size])
            return first.reshape(x.shape), second.reshape(y.shape), rest

        from scipy.optimize import least_squares  # takes a while to load, and many costs need none of it

        found = least_squares(
            lambda t: self._equations(*parts(t))[0],
            start,
            jac=lambda t: self._equations(*parts(t))[1],
            method="lm",
            xtol=1e-15,
            ftol=1e-15,
            gtol=1e-15,
            max_nfev=EVALUATIONS,
        )
        x, y, _ = parts(found.x)
        return self.judge(x @ y.T, rank)

    def judge(self, b: np.ndarray, rank: int) -> CriticalPair | None:
        """The pair of a given B, or None where no A goes with it or its rank is lower."""
        s = np.linalg.svd(b, compute_uv=False)
        if s[0] < EMPTY**2 or s[rank - 1] < EMPTY * s[0]:
            return None
        b = b - (self.outside @ b.ravel()).reshape(self.shape)
        a = self.complete(b, rank)
        scale = np.linalg.norm(a) * np.linalg.norm(b)
        miss = max(np.linalg.norm(a @ b.T), np.linalg.norm(a.T @ b))
        if miss > self.round_off * max(scale, s[0]):
            return None
        return CriticalPair(a * self.unit, b * self.unit * self.strength, rank)

    def _equations(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(A Y, AᵀX, Kᵀ vec B) and its derivatives in (X, Y, z), A = Â + H⁺B + Kz, B = X Yᵀ."""
        (d_out, d_in), m = self.shape, x.shape[1]
        b = x @ y.T
        a = self.target + (self.inverse @ b.ravel() + self.kernel @ z).reshape(self.shape)
        eye_out, eye_in, eye = np.eye(d_out), np.eye(d_in), np.eye(m)
        by_x = np.einsum("ik,jc->ijkc", eye_out, y).reshape(b.size, -1)
        by_y = np.einsum("jk,ic->ijkc", eye_in, x).reshape(b.size, -1)
        moves = np.concatenate([self.inverse @ by_x, self.inverse @ by_y, self.kernel], 1).reshape(d_out, d_in, -1)
        first = np.einsum("ijn,jc->icn", moves, y).reshape(d_out * m, -1)
        second = np.einsum("ijn,ic->jcn", moves, x).reshape(d_in * m, -1)
        first[:, x.size : x.size + y.size] += np.einsum("ik,cd->ickd", a, eye).reshape(d_out * m, -1)
        second[:, : x.size] += np.einsum("kj,cd->jckd", a, eye).reshape(d_in * m, -1)
        third = np.concatenate([self.kernel.T @ by_x, self.kernel.T @ by_y, np.zeros((len(z), len(z)))], 1)
        value = np.concatenate([(a @ y).ravel(), (a.T @ x).ravel(), self.kernel.T @ b.ravel()])
        return value, np.concatenate([first, second, third])


def critical_pairs(cost: QuadraticCost) -> list[CriticalPair]:
    """Critical pairs of the least ranks of ∇C, from several starts: leading modes of Â, then random ones.

    For a mask, pairs of rank 1 are also read off its blocks (:func:`block_pairs`), which is all that is done where the
    matrix has more than LARGEST entries.
    """
    if not bool(cost.minimizer.any()):
        return []
    conjugate = Conjugate(cost)
    found = [] if cost.hessian.seen is None else block_pairs(cost, conjugate, cost.hessian.seen.cpu().numpy())
    if conjugate.target.size > LARGEST:
        return found
    start = cost.gradient(torch.zeros_like(cost.minimizer)[None])[0].cpu().double().numpy()
    spectrum = np.linalg.svd(start, compute_uv=False)
    modes = np.linalg.svd(conjugate.target)[2].T
    for rank in range(1, int((spectrum > conjugate.round_off * spectrum[0]).sum())):
        if found and rank > min(pair.rank for pair in found) + BEYOND:
            break  # the more directions die the farther the saddle, up to A = 0
        rng = stream(0, "search", rank)
        for index in range(STARTS):
            leading = index < STARTS // 2 and index + rank <= min(cost.shape)
            first = modes[:, index : index + rank] if leading else rng.standard_normal((cost.shape[1], rank))
            pair = conjugate.solve(*conjugate.alternate(first))
            if pair is not None and not any(same(pair.gradient, other.gradient) for other in found):
                found.append(pair)
    return found


def block_pairs(cost: QuadraticCost, conjugate: Conjugate, mask: np.ndarray) -> list[CriticalPair]:
    """For a mask: ∇C = −s u vᵀ with (u, s, v) a singular triple of a block of rows × columns that is wholly observed.

    Blocks: each row with all its columns, and every further row observed there; each column likewise.

    Args:
        mask: which entries are observed, (d_out, d_in).
    """
    pairs = [(mask[:, columns].all(1), columns) for columns in mask] + [(rows, mask[rows].all(0)) for rows in mask.T]
    blocks = {(rows.tobytes(), columns.tobytes()): (rows, columns) for rows, columns in pairs}
    found: list[CriticalPair] = []
    for rows, columns in blocks.values():
        if not rows.any() or not columns.any():
            continue
        # where the mask is weighted, singular triples are no longer critical: the judge refuses them
        u, s, vt = np.linalg.svd(conjugate.target[np.ix_(rows, columns)], full_matrices=False)
        for k in range(min(TRIPLES, len(s))):
            b = np.zeros(cost.shape)
            b[np.ix_(rows, columns)] = -s[k] * np.outer(u[:, k], vt[k])
            pair = conjugate.judge(b, 1)
            if pair is not None and not any(same(pair.gradient, other.gradient) for other in found):
                found.append(pair)
    return found


def same(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two gradients are one."""
    return bool(np.linalg.norm(first - second) <= SAME * np.linalg.norm(first))


def _half_step(bowl: np.ndarray, target: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The X that minimises ½⟨XYᵀ, bowl XYᵀ⟩ + ⟨XYᵀ, Â⟩."""
    rows, m = bowl.shape[0], y.shape[1]
    normal = np.einsum("ijkl,jc,ld->ickd", bowl, y, y, optimize=True).reshape(rows * m, -1)
    return np.linalg.lstsq(normal, -(target @ y).ravel(), rcond=None)[0].reshape(rows, m)

"""Quadratic costs, written out from their definitions: ½‖M vec(A) − b‖² with the rows M of every measurement.

With Â a least-squares solution, C(A) − C_min = ½‖M vec(A − Â)‖², which loses no digits near the minimum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class Quadratic:
    """One cost on (d_out, d_in) matrices.

    Attributes:
        rows: M, shape (m, D), D = d_out·d_in, entries row by row.
        right: b, shape (m,).
        hessian: MᵀM, shape (D, D).
        solution: Â of least norm, shape (D,).
        shape: (d_out, d_in).
        minimum: C_min.
    """

    rows: np.ndarray
    right: np.ndarray
    hessian: np.ndarray
    solution: np.ndarray
    shape: tuple[int, int]
    minimum: float

    @classmethod
    def of_rows(cls, rows: np.ndarray, right: np.ndarray, shape: tuple[int, int]) -> Quadratic:
        """From measurement rows (m, D) and their values (m,)."""
        solution, *_ = np.linalg.lstsq(rows, right, rcond=len(right) * EPS)
        minimum = 0.5 * float(np.sum((rows @ solution - right) ** 2))
        return cls(rows, right, rows.T @ rows, solution, shape, minimum)

    def excess(self, a: np.ndarray) -> float:
        """C(A) − C_min."""
        r = a.ravel() - self.solution
        return 0.5 * float(r @ (self.hessian @ r))

    def gradient(self, a: np.ndarray) -> np.ndarray:
        """∇C(A), shape (d_out, d_in)."""
        return (self.hessian @ (a.ravel() - self.solution)).reshape(self.shape)

    def whitening(self) -> np.ndarray | None:
        """Σ^½ where C = ½‖(A − Â)Σ^½‖² + C_min, shape (d_in, d_in); None for other costs.

        B = AΣ^½ has the rank of A as far as the data sees it, and a cost without slow directions.
        """
        d_out, d_in = self.shape
        blocks = self.hessian.reshape(d_out, d_in, d_out, d_in)
        sigma = blocks[0, :, 0, :]
        if not np.allclose(self.hessian, np.kron(np.eye(d_out), sigma), rtol=1e-12, atol=1e-14 * np.abs(sigma).max()):
            return None
        values, vectors = np.linalg.eigh(sigma)
        return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T

    def least_excess(self, rank: int) -> float | None:
        """min C − C_min over matrices of at most this rank (Eckart–Young, whitened); None without a closed form."""
        if rank >= min(self.shape):
            return 0.0
        root = self.whitening()
        if root is None:
            return None
        s = np.linalg.svd(self.solution.reshape(self.shape) @ root, compute_uv=False)
        return 0.5 * float(np.sum(s[rank:] ** 2))


def cost_of(kind: str, data: dict[str, np.ndarray]) -> Quadratic:
    """The cost of a task on its arrays.

    Args:
        kind: factorization or completion (``target``, NaN where nothing is seen), sensing (``operators``, ``values``),
            regression (``X``, ``Y``).
    """
    if kind in ("factorization", "completion"):
        target = data["target"]
        seen = ~np.isnan(target.ravel())
        return Quadratic.of_rows(np.eye(target.size)[seen], target.ravel()[seen], target.shape)
    if kind == "sensing":
        b = data["operators"]
        return Quadratic.of_rows(b.reshape(len(b), -1), data["values"], b.shape[1:])
    x, y = data["X"], data["Y"]
    n, d_in = x.shape
    d_out = y.shape[1]
    rows = np.zeros((d_out, n, d_out, d_in))
    for i in range(d_out):
        rows[i, :, i, :] = x
    return Quadratic.of_rows(rows.reshape(-1, d_out * d_in) / np.sqrt(n), y.T.ravel() / np.sqrt(n), (d_out, d_in))

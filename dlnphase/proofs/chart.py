"""An exact critical matrix of rank k near a float one: Krawczyk's test in a chart without gauge.

After a permutation of the rows that puts k pivots first, A = [1; X]·Y with X of shape (d_out − k, k) and Y of
shape (k, d_in). The unknowns z = (X, Y) have F(z) = (GYᵀ below the pivots, [1; X]ᵀG), G = ∇C(A), as the gradient of C
in the chart. A zero with rank Y = k is critical on the matrices of rank k: the top of GYᵀ is −Xᵀ times its bottom. With
a float matrix M near F'(z)⁻¹,

    K(Z) = z − M F(z) + (1 − M F'(Z))(Z − z)  inside of Z

proves that there is one zero of F in Z, and only one (Krawczyk 1969).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import qr

from dlnphase.proofs.balls import Balls, Undecided, around, exact, flint, identity, middle, norm, radii, stacked, upper
from dlnphase.proofs.quadratic import BallCost

TRIES = 8  # widenings of the box before the proof is given up
NEWTON = 4  # steps in floats towards the zero before


@dataclass(frozen=True)
class Chart:
    """A box around one critical matrix of rank k.

    Attributes:
        rows: the permutation of the rows of A, pivots first, (d_out,).
        X, Y: midpoints, (d_out − k, k) and (k, d_in).
        X_radius, Y_radius: of the box in which there is one zero, and only one.
    """

    rows: np.ndarray
    X: np.ndarray
    Y: np.ndarray
    X_radius: np.ndarray
    Y_radius: np.ndarray

    @property
    def rank(self) -> int:
        """k."""
        return self.Y.shape[0]

    def balls(self) -> tuple[Balls, Balls]:
        """The left factor [1; X] with its rows in the order of A, and Y."""
        left = stacked([identity(self.rank), around(self.X, self.X_radius)]) if self.rank else None
        back = np.argsort(self.rows)
        if left is None:
            return flint().arb_mat(len(self.rows), 0), flint().arb_mat(0, self.Y.shape[1])
        table = left.table()
        return flint().arb_mat([table[i] for i in back]), around(self.Y, self.Y_radius)

    def matrix(self) -> Balls:
        """A."""
        left, right = self.balls()
        return left * right if self.rank else exact(np.zeros((len(self.rows), self.Y.shape[1])))


def prove_critical(a: np.ndarray, rank: int, cost: BallCost) -> Chart:
    """A box that holds one critical matrix of this rank near A.

    Args:
        a: float matrix near it, (d_out, d_in).
        rank: k; rank 0 is the zero matrix, critical without a computation.

    Raises:
        Undecided: with the reason, when the test fails.
    """
    d_out, d_in = a.shape
    if rank == 0:
        none = np.zeros((d_out, 0))
        return Chart(np.arange(d_out), none, np.zeros((0, d_in)), none, np.zeros((0, d_in)))
    if rank > min(a.shape):
        raise Undecided(f"rank: {rank} is more than a {d_out}×{d_in} matrix can have")
    rows, x, y = _coordinates(a, rank)
    z = np.concatenate([x.ravel(), y.ravel()])
    for _ in range(NEWTON):
        f, jacobian = _system(*_unpack(exact(z[:, None]), x.shape, y.shape), rows, cost)
        preconditioner = _inverse(middle(jacobian))
        step = preconditioner @ middle(f).ravel()
        if not np.abs(step).max(initial=0.0) <= 0.1 * np.abs(z).max():
            raise Undecided("no critical matrix of this rank is near")
        z = z - step
    shapes = (x.shape, y.shape)
    f, _ = _system(*_unpack(exact(z[:, None]), *shapes), rows, cost)
    radius = _krawczyk(z, exact(preconditioner), f, shapes, rows, cost)
    middles, widths = (
        [part.reshape(m.shape) for part, m in zip(np.split(v, [x.size]), (x, y), strict=True)] for v in (z, radius)
    )
    chart = Chart(rows, *middles, *widths)
    _check_rank(chart)
    return chart


def _coordinates(a: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, X, Y) of the truncation of A to this rank, with well conditioned pivots."""
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    _, _, rows = qr(u[:, :rank].T, pivoting=True)
    top, below = u[rows[:rank], :rank], u[rows[rank:], :rank]
    x = np.linalg.solve(top.T, below.T).T
    return np.asarray(rows), x, (top * s[:rank]) @ vt[:rank]


def _inverse(jacobian: np.ndarray) -> np.ndarray:
    try:
        inverse = np.linalg.inv(jacobian)
    except np.linalg.LinAlgError:
        inverse = np.full_like(jacobian, np.nan)
    if not np.isfinite(inverse).all():
        raise Undecided("continuum: the critical matrices of this rank are not isolated, or the rank is too high")
    return inverse


def _krawczyk(
    z: np.ndarray, m: Balls, f: Balls, shapes: tuple[tuple[int, int], tuple[int, int]], rows: np.ndarray, cost: BallCost
) -> np.ndarray:
    """Radii of a box around z that passes the test."""
    centre = exact(z[:, None])
    shift = m * f
    radius = 2 * np.array([upper(abs(x)) for x in shift.entries()]) + np.finfo(float).eps * np.abs(z).max()
    for _ in range(TRIES):
        box = around(z[:, None], radius[:, None])
        _, jacobian = _system(*_unpack(box, *shapes), rows, cost)
        image = centre - shift + (identity(len(z)) - m * jacobian) * (box - centre)
        reach = radii(image, z[:, None]).ravel()
        if (reach < radius).all():
            return radius
        if not np.isfinite(reach).all() or reach.max() > 0.1 * np.abs(z).max():
            break
        radius = 2 * np.maximum(reach, radius)
    raise Undecided("continuum: the critical matrices of this rank are not isolated, or the rank is too high")


def _unpack(z: Balls, x_shape: tuple[int, int], y_shape: tuple[int, int]) -> tuple[Balls, Balls]:
    entries = z.entries()
    split = x_shape[0] * x_shape[1]
    return flint().arb_mat(*x_shape, entries[:split]), flint().arb_mat(*y_shape, entries[split:])


def _system(x: Balls, y: Balls, rows: np.ndarray, cost: BallCost) -> tuple[Balls, Balls]:
    """F and F' at (X, Y): F = Tᵀg and F' = (FT)ᵀ(FT) + the cross term, T = ∂vec A/∂z."""
    k, d_in, d_out = y.nrows(), y.ncols(), len(rows)
    left = stacked([identity(k), x]).table()
    right = y.table()
    zero = flint().arb(0)
    count = (d_out - k) * k + k * d_in
    offset = (d_out - k) * k
    tangent = [[zero] * count for _ in range(d_out * d_in)]
    for i, row in enumerate(rows.tolist()):
        for c in range(d_in):
            line = tangent[row * d_in + c]
            for b in range(k):
                if i >= k:
                    line[(i - k) * k + b] = right[b][c]
                line[offset + b * d_in + c] = left[i][b]
    t = flint().arb_mat(tangent)
    ordered = flint().arb_mat([left[i] for i in np.argsort(rows).tolist()])
    g = cost.gradient(ordered * y)
    measured = cost.measure(t)
    jacobian = (measured.transpose() * measured).table()
    for i in range(k, d_out):
        for b in range(k):
            for c in range(d_in):
                p, q = (i - k) * k + b, offset + b * d_in + c
                jacobian[p][q] += g[int(rows[i]), c]
                jacobian[q][p] += g[int(rows[i]), c]
    f = t.transpose() * flint().arb_mat(d_out * d_in, 1, g.entries())
    return f, flint().arb_mat(jacobian)


def _check_rank(chart: Chart) -> None:
    """Y has rank k: ‖1 − Y Y⁺‖ < 1 for a float Y⁺."""
    _, y = chart.balls()
    defect = identity(chart.rank) - y * exact(np.linalg.pinv(chart.Y))
    if not norm(defect) < 1:
        raise Undecided("rank: Y is not certain to have full rank")

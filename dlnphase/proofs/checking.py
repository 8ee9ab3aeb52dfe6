"""The checker: claims of a proof file derived again, from the numbers in the file, at a higher precision.

Nothing here is shared with the provers but the formulas: own balls, own assembly, own tests (pivots of Cholesky where
the provers use Gershgorin's circles). What does not follow is a :class:`NotProved` that says what and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlnphase.proofs.balls import flint, precision

BITS = 256  # the provers work with 128
SHARPEN = 3  # contractions of a box before its claims are compared

Arrays = Mapping[str, np.ndarray]


class NotProved(Exception):
    """A claim that does not follow from the numbers in the file."""


def check_saddle(
    cost: Arrays,
    minimum: float,
    given: Arrays,
    *,
    rank: int,
    value: Sequence[float],
    rate: Sequence[float],
    distance: float | None,
) -> None:
    """Derive the claims on one saddle again.

    Args:
        cost: ``mask``, ``right`` or ``dense`` (the factor of the cost), and ``minimizer``.
        minimum: C_min.
        given: ``rows``, ``X``, ``Y``, ``X_radius``, ``Y_radius``, ``u``, ``v``; with a distance also R1, … and W1, …
        rank, value, rate, distance: what is claimed.

    Raises:
        NotProved: naming the first claim that does not follow.
    """
    with precision(BITS):
        form = _Quadratic(cost)
        box = _Box(given, rank, form.shape)
        for _ in range(SHARPEN if rank else 0):
            box = box.contracted(form)
        if rank and not _positive(box.right * box.right.transpose()):
            raise NotProved(f"rank {rank}: the factor Y is not certain to have full rank")
        a = box.matrix()
        lowest = form.excess(a) + minimum
        if not (value[0] <= lowest and lowest <= value[1]):
            raise NotProved(f"the cost {_words(lowest)} is not certain to lie in [{value[0]!r}, {value[1]!r}]")
        _check_rate(form.gradient(a), given, rate)
        if distance is not None:
            _check_distance(box, given, rank, distance)


def check_minimum(cost: Arrays, given: Arrays, *, distance: float) -> None:
    """Derive the claim that a global minimum is within ``distance`` of W1, …, WL, around V1, …, VL.

    Raises:
        NotProved: when it does not follow.
    """
    with precision(BITS):
        arb = flint().arb
        form = _Quadratic(cost)
        recorded, near = _layers(given, "W"), _layers(given, "V")
        kernel, residual, norms = _linear_part(near, form)
        try:
            inverse = _exact(np.linalg.inv(_mid(kernel)))
        except np.linalg.LinAlgError:
            raise NotProved("the constraint is singular") from None
        size2 = _largest(inverse.transpose() * kernel * inverse)
        defect = _frobenius(kernel * inverse - _exact(np.eye(kernel.nrows())))
        eta = _frobenius(residual).upper()
        rho = eta * 3 / 2 + arb(2) ** -62
        reach = (size2.sqrt() * rho).upper()
        q = defect + form.size() * _row_sum([c + reach for c in norms]) * size2 * rho
        if not (q < 1 and eta <= (1 - q) * rho):
            raise NotProved("no global minimum is certain near the weights V")
        moved = sum((_square(a - b) for a, b in zip(recorded, near, strict=True)), arb(0))
        if not moved.nonnegative_part().sqrt() + reach <= distance:
            raise NotProved(f"the distance {distance!r} to a global minimum does not follow")


def _check_rate(g: Any, given: Arrays, rate: Sequence[float]) -> None:
    u, v = _exact(given["u"][None]), _exact(given["v"][:, None])
    if not 0 < rate[0] <= rate[1]:  # the upper end is squared below
        raise NotProved(f"the rate is claimed to lie in [{rate[0]!r}, {rate[1]!r}], expected an interval above 0")
    falls = -(u * g * v)[0, 0]
    if not falls >= rate[0] * _frobenius(u) * _frobenius(v):
        raise NotProved(f"the rate is not certain to be at least {rate[0]!r}")
    n = g.ncols()
    top = flint().arb(rate[1]) * rate[1]
    if not _positive(_exact(np.eye(n)) * top - g.transpose() * g):
        raise NotProved(f"the rate is not certain to be at most {rate[1]!r}")


def _check_distance(box: _Box, given: Arrays, rank: int, distance: float) -> None:
    recorded = _layers(given, "W")
    sizes = [w.nrows() for w in recorded[:-1]]
    if min(sizes) <= rank:
        raise NotProved(f"rank {rank}: no hidden channel is free")
    if rank == 0:
        square = sum((_square(w) for w in recorded), flint().arb(0))
    else:
        frames = _layers(given, "R")
        if len(frames) != len(recorded) - 1:
            raise NotProved(f"found {len(frames)} frames, expected {len(recorded) - 1}")
        chain = [box.right, *(_left_inverse(r) for r in frames)]
        heads = [*frames, box.left]
        parts = [h * c - w for h, c, w in zip(heads, chain, recorded, strict=True)]
        square = sum((_square(p) for p in parts), flint().arb(0))
    if not square.nonnegative_part().sqrt() <= distance:
        raise NotProved(f"the distance {distance!r} to a critical point does not follow")


def _left_inverse(r: Any) -> Any:
    gram = r.transpose() * r
    if not _positive(gram):
        raise NotProved("a frame is not certain to have full rank")
    return gram.solve(r.transpose())


class _Quadratic:
    """C − C_min = ½‖F vec(A − Â)‖² from the arrays of a file."""

    def __init__(self, arrays: Arrays) -> None:
        self.kind = next((k for k in ("mask", "right", "dense") if k in arrays), "")
        if not self.kind or "minimizer" not in arrays or arrays["minimizer"].ndim != 2:
            raise NotProved("the cost is missing from the file")
        self.centre = _exact(arrays["minimizer"])
        self.shape = (self.centre.nrows(), self.centre.ncols())
        factor = np.asarray(arrays[self.kind], dtype=float)
        d_out, d_in = self.shape
        rows = {"mask": (d_out, d_in), "right": (d_in, factor.shape[-1]), "dense": (len(factor), d_out * d_in)}
        if factor.shape != rows[self.kind] or not np.isfinite(factor).all():
            raise NotProved("the cost has numbers of the wrong shape, or not finite ones")
        if self.kind == "mask" and (factor < 0).any():
            raise NotProved("the mask has negative entries")
        if self.kind == "mask":
            self.hessian = [flint().arb(m) for m in factor.ravel().tolist()]
        f = _exact(factor)
        self.f = f
        self.small = f * f.transpose() if self.kind == "right" else None

    def apply(self, d: Any) -> Any:
        """H(D)."""
        if self.kind == "mask":
            entries = [h * x for h, x in zip(self.hessian, d.entries(), strict=True)]
            return flint().arb_mat(*self.shape, entries)
        if self.kind == "right":
            return d * self.small
        column = flint().arb_mat(self.f.ncols(), 1, d.entries())
        return flint().arb_mat(*self.shape, (self.f.transpose() * (self.f * column)).entries())

    def gradient(self, a: Any) -> Any:
        """∇C(A)."""
        return self.apply(a - self.centre)

    def excess(self, a: Any) -> Any:
        """C(A) − C_min."""
        d = a - self.centre
        return sum((x * y for x, y in zip(d.entries(), self.apply(d).entries(), strict=True)), flint().arb(0)) / 2

    def measure(self, d: Any) -> list[Any]:
        """F vec D as a list."""
        if self.kind == "mask":
            return [h.sqrt() * x for h, x in zip(self.hessian, d.entries(), strict=True) if not h.is_zero()]
        if self.kind == "right":
            return list((d * self.f).entries())
        return list((self.f * flint().arb_mat(self.f.ncols(), 1, d.entries())).entries())

    def size(self) -> Any:
        """An upper bound of ‖F‖."""
        if self.kind == "mask":
            return flint().arb(float(max(float(h.upper()) for h in self.hessian))).sqrt().upper()
        gram = self.f * self.f.transpose() if self.kind == "dense" else self.f.transpose() * self.f
        return _largest(gram).sqrt().upper()


class _Box:
    """A = [1; X]Y with its rows permuted back, for X and Y in balls."""

    def __init__(self, given: Arrays, rank: int, shape: tuple[int, int], parts: tuple[Any, Any] | None = None) -> None:
        self.given, self.rank, self.shape = given, rank, shape
        d_out, d_in = shape
        rows = np.asarray(given["rows"])
        if sorted(rows.tolist()) != list(range(d_out)):
            raise NotProved("rows: expected a permutation of the rows of A")
        if given["X"].shape != (d_out - rank, rank) or given["Y"].shape != (rank, d_in):
            raise NotProved(f"rank {rank}: X and Y have other shapes than a matrix of that rank needs")
        self.rows = [int(i) for i in rows]
        if parts is None:
            parts = _balls(given["X"], given["X_radius"]), _balls(given["Y"], given["Y_radius"])
        self.x, self.right = parts
        zero, one = flint().arb(0), flint().arb(1)
        table: list[list[Any]] = [[] for _ in range(d_out)]
        for place, row in enumerate(self.rows):
            unit = [one if b == place else zero for b in range(rank)]
            table[row] = unit if place < rank else [self.x[place - rank, b] for b in range(rank)]
        self.left = flint().arb_mat(table) if rank else flint().arb_mat(d_out, 0)

    def matrix(self) -> Any:
        """A."""
        return self.left * self.right if self.rank else _exact(np.zeros(self.shape))

    def _gradient(self, form: _Quadratic) -> list[Any]:
        """F: G·Yᵀ in the rows below the pivots, then [1; X]ᵀG."""
        g = form.gradient(self.matrix())
        below = (g * self.right.transpose()).table()
        out = [x for row in self.rows[self.rank :] for x in below[row]]
        return out + list((self.left.transpose() * g).entries())

    def _jacobian(self, form: _Quadratic) -> Any:
        """F' column by column: one unknown is moved at a time."""
        mat, zero, one = flint().arb_mat, flint().arb(0), flint().arb(1)
        d_out, d_in, k = *self.shape, self.rank
        g = form.gradient(self.matrix())
        columns = []
        for place in range(k, d_out):
            for b in range(k):
                move = mat(d_out, k, [zero] * (d_out * k))
                move[self.rows[place], b] = one
                dg = form.apply(move * self.right)
                below = (dg * self.right.transpose()).table()
                top = self.left.transpose() * dg + move.transpose() * g
                columns.append([x for r in self.rows[k:] for x in below[r]] + list(top.entries()))
        for b in range(k):
            for c in range(d_in):
                move = mat(k, d_in, [zero] * (k * d_in))
                move[b, c] = one
                dg = form.apply(self.left * move)
                below = (dg * self.right.transpose() + g * move.transpose()).table()
                top = self.left.transpose() * dg
                columns.append([x for r in self.rows[k:] for x in below[r]] + list(top.entries()))
        return mat(columns).transpose()

    def _unknowns(self) -> list[Any]:
        return list(self.x.entries()) + list(self.right.entries())

    def contracted(self, form: _Quadratic) -> _Box:
        """The image of the box under Krawczyk's operator; NotProved when it does not lie inside."""
        mat = flint().arb_mat
        box = self._unknowns()
        centre = [x.mid() for x in box]
        count, split = len(box), self.x.nrows() * self.x.ncols()
        at = _Box(self.given, self.rank, self.shape, self._parts(centre, split))
        try:
            inverse = at._jacobian(form).inv().mid()
        except ZeroDivisionError:
            raise NotProved("the system of the critical matrix is singular") from None
        middle = mat(count, 1, centre)
        spread = mat(count, 1, [x - c for x, c in zip(box, centre, strict=True)])
        defect = _exact(np.eye(count)) - inverse * self._jacobian(form)
        image = (middle - inverse * mat(count, 1, at._gradient(form)) + defect * spread).entries()
        if not all(x.contains_interior(y) for x, y in zip(box, image, strict=True)):
            raise NotProved("Krawczyk's test fails: no critical matrix is certain in the box")
        return _Box(self.given, self.rank, self.shape, self._parts(image, split))

    def _parts(self, unknowns: list[Any], split: int) -> tuple[Any, Any]:
        k, (d_out, d_in) = self.rank, self.shape
        return flint().arb_mat(d_out - k, k, unknowns[:split]), flint().arb_mat(k, d_in, unknowns[split:])


def _linear_part(layers: list[Any], form: _Quadratic) -> tuple[Any, Any, list[Any]]:
    """(F J Jᵀ Fᵀ, r, upper bounds of ‖W_l‖), the first by its action on each row of F."""
    below, above = _beside(layers)
    pairs = [(s * s.transpose(), p.transpose() * p) for s, p in zip(above[1:], below, strict=False)]
    d_out, d_in = form.shape
    columns = []
    for i in range(d_out):
        for j in range(d_in):
            unit = np.zeros(form.shape)
            unit[i, j] = 1.0
            image = None
            for s, p in pairs:
                term = s * _exact(unit) * p
                image = term if image is None else image + term
            columns.append(form.measure(image))
    half = flint().arb_mat(columns).table()  # row (i, j): F K e_ij, so that F K Fᵀ = F applied to the columns
    rows = [form.measure(flint().arb_mat(d_out, d_in, [line[m] for line in half])) for m in range(len(half[0]))]
    residual = flint().arb_mat([form.measure(below[-1] - form.centre)])
    return flint().arb_mat(rows), residual, [_frobenius(w).upper() for w in layers]


def _beside(layers: list[Any]) -> tuple[list[Any], list[Any]]:
    """W_l ⋯ W_1 and W_L ⋯ W_{l+1} for l = 0, …, L."""
    below = [_exact(np.eye(layers[0].ncols()))]
    for w in layers:
        below.append(w * below[-1])
    above = [_exact(np.eye(layers[-1].nrows()))]
    for w in reversed(layers):
        above.append(above[-1] * w)
    return below, above[::-1]


def _all_but_one(c: list[Any]) -> Any:
    """(Σ_l Π_{j≠l} c_j²)^½."""
    square = flint().arb(0)
    for l in range(len(c)):
        term = flint().arb(1)
        for j, x in enumerate(c):
            term *= 1 if j == l else x
        square += term * term
    return square.sqrt()


def _row_sum(c: list[Any]) -> Any:
    """The largest row sum of Π_{l≠i,j} c_l."""
    best = flint().arb(0)
    for i in range(len(c)):
        total = flint().arb(0)
        for j in range(len(c)):
            if j != i:
                term = flint().arb(1)
                for l, x in enumerate(c):
                    term *= 1 if l in (i, j) else x
                total += term
        best = best.max(total.upper())
    return best


def _layers(given: Arrays, letter: str) -> list[Any]:
    out: list[Any] = []
    while f"{letter}{len(out) + 1}" in given:
        out.append(_exact(given[f"{letter}{len(out) + 1}"]))
    return out


def _exact(array: np.ndarray) -> Any:
    array = np.asarray(array, dtype=float)
    if not np.isfinite(array).all():
        raise NotProved("the file holds numbers that are not finite")
    return flint().arb_mat(*array.shape, array.ravel().tolist())


def _balls(middle: np.ndarray, radius: np.ndarray) -> Any:
    if middle.shape != radius.shape or not np.isfinite(radius).all() or (radius < 0).any():
        raise NotProved("radii: expected one of at least 0 per unknown")
    arb = flint().arb
    pairs = zip(middle.ravel().tolist(), radius.ravel().tolist(), strict=True)
    return flint().arb_mat(*middle.shape, [arb(m, r) for m, r in pairs])


def _mid(matrix: Any) -> np.ndarray:
    return np.array([[float(x.mid()) for x in row] for row in matrix.table()])


def _square(matrix: Any) -> Any:
    total = flint().arb(0)
    for x in matrix.entries():
        total += x * x
    return total


def _frobenius(matrix: Any) -> Any:
    return _square(matrix).nonnegative_part().sqrt()


def _positive(matrix: Any) -> bool:
    """Whether every symmetric matrix in the balls is positive definite: all pivots of LDLᵀ are."""
    a = matrix.table()
    n = len(a)
    for k in range(n):
        if not a[k][k] > 0:
            return False
        for i in range(k + 1, n):
            ratio = a[i][k] / a[k][k]
            for j in range(k + 1, i + 1):
                a[i][j] = a[i][j] - ratio * a[j][k]
    return True


def _largest(symmetric: Any, loose: float = 1.01) -> Any:
    """A number that no eigenvalue exceeds, a little above the largest one."""
    guess = float(np.linalg.eigvalsh(_mid(symmetric))[-1]) * loose
    bound = flint().arb(max(guess, 2.0**-500))
    if not _positive(_exact(np.eye(symmetric.nrows())) * bound - symmetric):
        raise NotProved("an eigenvalue is not certain to be bounded")
    return bound


def _words(ball: Any) -> str:
    return str(ball.str(8, radius=False))

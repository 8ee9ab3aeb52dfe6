"""The checker of enclosed paths: every step derived again from the nodes in the file, each by itself.

Own defect (polynomials of full degree, no norms of tails), own Hessian (column by column, in balls) with Gershgorin's
circles; twice the bits of the prover. The polynomial whose defect is bounded proves nothing, whatever it is: it is
made like the prover's, at these bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from dlnphase.proofs.balls import flint, precision
from dlnphase.proofs.checking import (
    Arrays,
    NotProved,
    _all_but_one,
    _beside,
    _exact,
    _frobenius,
    _largest,
    _linear_part,
    _mid,
    _positive,
    _Quadratic,
    _row_sum,
    _square,
)
from dlnphase.proofs.series import FlowSeries

TIGHT = 1 + 1e-9  # above the largest eigenvalue, where the prover's bound is to be met


class PathFile:
    """A path's arrays: ``dims``, ``nodes`` (T + 1, limbs, P), ``steps`` (T,), ``radii`` (T + 1,).

    Raises:
        NotProved: when they do not fit.
    """

    def __init__(self, given: Arrays) -> None:
        self.dims = [int(n) for n in given["dims"]]
        self.nodes, self.steps, self.radii = (np.asarray(given[n], dtype=float) for n in ("nodes", "steps", "radii"))
        count = sum(a * b for a, b in pairwise(self.dims))
        limbs = self.nodes.shape[1] if self.nodes.ndim == 3 else 0
        if len(self.dims) < 3 or self.nodes.shape != (len(self.steps) + 1, limbs, count) or not limbs:
            raise NotProved("the nodes have another shape than the network")
        if self.radii.shape != (len(self.steps) + 1,) or self.radii[0] != 0:
            raise NotProved("the radii do not begin with 0 at the exact start")
        if not (np.isfinite(self.radii).all() and (self.radii >= 0).all() and (self.steps > 0).all()):
            raise NotProved("radii or steps are negative or not finite")
        self.bits = 2 * 53 * limbs + 64

    def layers(self, node: int, limb: int | None = None) -> list[Any]:
        """θ̃_i, exact; or one limb of it."""
        rows = self.nodes[node] if limb is None else self.nodes[node, limb : limb + 1]
        out, at = [], 0
        for n, m in pairwise(self.dims):
            total = _exact(np.zeros((m, n)))
            for row in rows:
                total += _exact(row[at : at + n * m].reshape(m, n))
            out.append(total)
            at += n * m
        return out

    def told(self) -> tuple[int, int, float]:
        """Steps, bits of a node, radius at the end."""
        return len(self.steps), 53 * self.nodes.shape[1], float(self.radii[-1])

    def leading(self, node: int) -> dict[str, np.ndarray]:
        """W1, …, WL: the leading floats of a node."""
        out, at = {}, 0
        for l, (n, m) in enumerate(pairwise(self.dims), 1):
            out[f"W{l}"] = self.nodes[node, 0, at : at + n * m].reshape(m, n)
            at += n * m
        return out

    def check_distance(self, node: int, from_node: float, distance: float) -> None:
        """That a point within ``from_node`` of the leading floats is within ``distance`` of the flow at the node.

        Raises:
            NotProved: when it does not follow.
        """
        with precision(self.bits):
            pairs = zip(self.layers(node), self.layers(node, 0), strict=True)
            rest = _theta([a - b for a, b in pairs])
            if not flint().arb(from_node) + rest + float(self.radii[node]) <= distance:
                raise NotProved(f"the distance {distance!r} from the flow at node {node} does not follow")


def check_steps(
    cost: Arrays,
    given: Arrays,
    steps: Sequence[int] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> None:
    """Derive ‖θ(t_{i+1}) − θ̃_{i+1}‖ ≤ R_{i+1} from ‖θ(t_i) − θ̃_i‖ ≤ R_i, for each of the steps (all of them).

    Args:
        steps: numbers of the steps.
        on_step: called after each with (how many are done, how many there are).

    Raises:
        NotProved: naming the first step where it does not follow.
    """
    path = PathFile(given)
    with precision(path.bits):
        form = _Quadratic(cost)
        if form.shape != (path.dims[-1], path.dims[0]):
            raise NotProved("the network has another shape than the cost")
        wanted = range(len(path.steps)) if steps is None else steps
        for done, i in enumerate(wanted, 1):
            if not _after(path, i, form) <= float(path.radii[i + 1]):
                raise NotProved(f"step {i}: the radius {float(path.radii[i + 1])!r} does not follow")
            if on_step is not None:
                on_step(done, len(wanted))


def check_end(cost: Arrays, given: Arrays, distance: float) -> None:
    """Derive that the flow converges to a global minimum within ``distance`` of the last node's leading floats.

    Raises:
        NotProved: when it does not follow.
    """
    path = PathFile(given)
    with precision(path.bits):
        form = _Quadratic(cost)
        last = len(path.steps)
        near = path.layers(last, 0)
        radius = (_theta([a - b for a, b in zip(path.layers(last), near, strict=True)]) + path.radii[last]).upper()
        kernel, residual, norms = _linear_part(near, form)
        least = flint().arb(float(np.linalg.eigvalsh(_mid(kernel))[0]) * (1 - 1e-9))
        if not (least > 0 and _positive(kernel - _exact(np.eye(kernel.nrows())) * least)):
            raise NotProved("the end: the constraint is not certain to be regular")
        sigma, f = least.sqrt(), form.size()
        start = (_frobenius(residual) + f * _all_but_one([c + radius for c in norms]) * radius).upper()
        rho = (2 * start / sigma).upper()
        ball = (rho + radius).upper()
        kappa = sigma - f * _row_sum([c + ball for c in norms]) * ball
        if not (kappa > 0 and start < kappa * rho):
            raise NotProved("the end: the flow is not certain to converge from there")
        if not start / kappa + radius <= distance:
            raise NotProved(f"the distance {distance!r} to the minimum at the end does not follow")


def check_time(given: Arrays, node: int, time: Sequence[float]) -> None:
    """That t_i lies in [a, b].

    Raises:
        NotProved: when it does not.
    """
    path = PathFile(given)
    if not 0 <= node <= len(path.steps):
        raise NotProved(f"node {node}: there is none")
    with precision(path.bits):
        total = sum((flint().arb(h) for h in path.steps[:node].tolist()), flint().arb(0))
        if not (time[0] <= total and total <= time[1]):
            raise NotProved(f"the time of node {node} is not certain to lie in [{time[0]!r}, {time[1]!r}]")


def _after(path: PathFile, i: int, form: _Quadratic) -> Any:
    """A bound on ‖θ(t_{i+1}) − θ̃_{i+1}‖."""
    arb = flint().arb
    h, radius, limbs = float(path.steps[i]), float(path.radii[i]), path.nodes.shape[1]
    flow = _Flow(path.layers(i), form, order=18 + 53 * limbs // 6)
    defect = flow.defect(h)
    centre = [_exact(_mid(m)) for m in flow.at(arb(h) / 2)]
    off = _theta([a - b for a, b in zip(flow.at(arb(h) / 2), centre, strict=True)])
    width = (2 * (arb(radius) + defect * h) + arb(2) ** -900).upper()
    for _ in range(4):
        reach = (flow.movement(h) + off + width).upper()
        mu = _parting(centre, form, reach)
        grown = (mu * h).exp().upper()
        most = grown.max(arb(1))
        if most * (arb(radius) + defect * h) < width:
            gain = ((mu * h).expm1() / mu).upper() if not mu.contains(0) else h * most
            jump = _theta([a - b for a, b in zip(flow.at(arb(h)), path.layers(i + 1), strict=True)])
            return (grown * radius + gain * defect + jump).upper()
        width = (4 * width).upper()
    raise NotProved(f"step {i}: the tube does not close")


class _Flow:
    """A polynomial near the flow, entry by entry in arb_poly; its coefficients are exact."""

    def __init__(self, start: list[Any], form: _Quadratic, order: int) -> None:
        poly, self.form, self.theta = flint().arb_poly, form, []
        for terms in zip(*FlowSeries(start, form, order).coefficients, strict=True):  # of one layer
            tables = [m.table() for m in terms]
            rows, columns = range(terms[0].nrows()), range(terms[0].ncols())
            self.theta.append([[poly([t[i][j] for t in tables]) for j in columns] for i in rows])

    def _gradient(self, theta: list[Any]) -> list[Any]:
        """∇𝓛 in polynomials of full degree."""
        depth = len(theta)
        below = [None]
        for w in theta:
            below.append(w if below[-1] is None else _times(w, below[-1]))
        above: list[Any] = [None]
        for w in reversed(theta[1:]):
            above.append(w if above[-1] is None else _times(above[-1], w))
        above.reverse()
        g = self._slope(below[-1])
        out = []
        for l in range(depth):
            q = g if above[l] is None else _times(_flip(above[l]), g)
            out.append(q if below[l] is None else _times(q, _flip(below[l])))
        return out

    def _slope(self, a: Any) -> Any:
        """H(A − Â), coefficient by coefficient."""
        poly, mat = flint().arb_poly, flint().arb_mat
        d_out, d_in = self.form.shape
        if self.form.kind == "mask":
            rows = self.form.centre.table()
            return [
                [(a[i][j] - poly([rows[i][j]])) * self.form.hessian[i * d_in + j] for j in range(d_in)]
                for i in range(d_out)
            ]
        length = max(x.length() for row in a for x in row)
        parts = []
        for c in range(length):
            one = mat([[x[c] for x in row] for row in a])
            parts.append(self.form.apply(one - self.form.centre if c == 0 else one).table())
        return [[poly([part[i][j] for part in parts]) for j in range(d_in)] for i in range(d_out)]

    def defect(self, h: float) -> Any:
        """sup ‖θ̃' + ∇𝓛(θ̃)‖ over [0, h]."""
        step, square = flint().arb(h), flint().arb(0)
        for w, g in zip(self.theta, self._gradient(self.theta), strict=True):
            for rw, rg in zip(w, g, strict=True):
                for x, y in zip(rw, rg, strict=True):
                    largest = flint().arb_poly([abs(c).upper() for c in (x.derivative() + y).coeffs()])(step)
                    square += largest * largest
        return square.nonnegative_part().sqrt().upper()

    def movement(self, h: float) -> Any:
        """Σ_j ‖c_j‖h^j(1 − 2^(−j))."""
        total, arb = flint().arb(0), flint().arb
        power = arb(1)
        for j in range(1, max(x.length() for w in self.theta for row in w for x in row)):
            power *= h
            square = sum((x[j] * x[j] for w in self.theta for row in w for x in row), arb(0))
            total += square.nonnegative_part().sqrt() * power * (1 - arb(2) ** -j)
        return total.upper()

    def at(self, tau: Any) -> list[Any]:
        """θ̃(τ)."""
        return [flint().arb_mat([[x(tau) for x in row] for row in w]) for w in self.theta]


def _parting(layers: list[Any], form: _Quadratic, reach: Any) -> Any:
    """An upper bound of −λ_min of the Hessian within ``reach``."""
    hessian, slope = _hessian(layers, form)
    vectors = _exact(np.linalg.eigh(_mid(hessian))[1])
    least = _circles(vectors.transpose() * hessian * vectors)[0]
    down, up = _circles(vectors.transpose() * vectors)
    if not down > 0:
        raise NotProved("the eigenvectors are no basis")
    lowest = least / (up if least >= 0 else down)
    c = []
    for w in layers:
        gram = w.transpose() * w if w.nrows() >= w.ncols() else w * w.transpose()
        c.append((_largest(gram, TIGHT).sqrt() + reach).upper())
    depth, f = len(c), form.size()
    first, most = _all_but_one(c), c[0]
    for x in c[1:]:
        most = most.max(x)
    third = depth * (depth - 1) * (depth - 2) / flint().arb(depth) ** 1 / flint().arb(depth).sqrt()
    for _ in range(depth - 3):
        third *= most
    size = f * f
    bend = 3 * size * first * _row_sum(c) + (slope + size * first * reach) * third
    return (-lowest + bend * reach).upper()


def _hessian(layers: list[Any], form: _Quadratic) -> tuple[Any, Any]:
    """(∇²𝓛, ‖∇C‖), a column for each entry of each layer."""
    depth = len(layers)
    below, above = _beside(layers)
    g = form.gradient(below[-1])
    columns = []
    for l, w in enumerate(layers):
        for a in range(w.nrows()):
            for b in range(w.ncols()):
                unit = np.zeros((w.nrows(), w.ncols()))
                unit[a, b] = 1.0
                move = _exact(unit)
                dg = form.apply(above[l + 1] * move * below[l])
                column: list[Any] = []
                under = {l + 1: move * below[l]}  # derivatives of W_k ⋯ W_1 for k > l
                for k in range(l + 1, depth):
                    under[k + 1] = layers[k] * under[k]
                over = {l: above[l + 1] * move}  # and of W_L ⋯ W_{k+1} for k ≤ l
                for k in range(l - 1, -1, -1):
                    over[k] = over[k + 1] * layers[k]
                for k in range(depth):
                    term = above[k + 1].transpose() * dg * below[k].transpose()
                    if k > l:
                        term += above[k + 1].transpose() * g * under[k].transpose()
                    if k < l:
                        term += over[k + 1].transpose() * g * below[k].transpose()
                    column += list(term.entries())
                columns.append(column)
    return flint().arb_mat(columns), _frobenius(g).upper()


def _circles(matrix: Any) -> tuple[Any, Any]:
    low: Any = None
    high: Any = None
    for i, row in enumerate(matrix.table()):
        rest = sum((abs(x).upper() for j, x in enumerate(row) if j != i), flint().arb(0))
        down, up = (row[i] - rest).lower(), (row[i] + rest).upper()
        low, high = (down, up) if low is None else (low.min(down), high.max(up))
    return low, high


def _times(a: Any, b: Any) -> Any:
    out = []
    columns = list(zip(*b, strict=True))
    for row in a:
        line = []
        for column in columns:
            total = row[0] * column[0]
            for x, y in zip(row[1:], column[1:], strict=True):
                total += x * y
            line.append(total)
        out.append(line)
    return out


def _flip(a: Any) -> Any:
    return [list(row) for row in zip(*a, strict=True)]


def _theta(layers: list[Any]) -> Any:
    return sum((_square(m) for m in layers), flint().arb(0)).nonnegative_part().sqrt().upper()

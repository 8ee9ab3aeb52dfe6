"""One network as plain matrices, for methods that call little but its slope, and call that a thousand times.

A call of a tensor library costs more than the arithmetic of matrices this small. On the CPU small networks are
therefore NumPy arrays here, which are quicker to call; large ones and other devices stay torch tensors. The code is
one: both know ``@``, ``.T``, ``matmul(…, out=…)`` and arithmetic in place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from scipy.linalg import get_blas_funcs

from dlnphase.costs.quadratic import Cost, QuadraticCost
from dlnphase.dynamics.state import Fixed, Room, State
from dlnphase.networks.chain import Network, parameter_count
from dlnphase.networks.products import products_above, products_below

NUMPY_UP_TO = 150_000  # parameters; beyond, arithmetic outweighs calls
FEWER = 2  # times as many inputs as outputs from which products are formed from the outputs
POWER_ITERATIONS = 30  # at most, where the estimated curvature goes on changing; CURVATURE_MARGIN makes up for the rest
POWER_CHANGE = 0.02  # relative change of the estimated curvature at which the iteration ends

Array = Any  # numpy.ndarray or torch.Tensor


@dataclass(slots=True, init=False, eq=False, repr=False)
class Vector(State):
    """A point or a direction in parameter space: flat, and the layers as views into it."""

    flat: Array
    layers: Fixed[list[Array]]

    def __init__(self, flat: Array, dims: tuple[int, ...]) -> None:
        self.flat = flat
        self.layers = []
        start = 0
        for rows, columns in zip(dims[1:], dims[:-1], strict=True):
            self.layers.append(flat[start : start + rows * columns].reshape(rows, columns))
            start += rows * columns

    def resume(self, state: dict[str, Any]) -> None:
        """Hold these numbers, in the place in memory that is its own."""
        self.flat[...] = state["flat"]


class Factor:
    """MᵀM for a product M of layers, (n, d): as a matrix, or as M itself where that is the less work."""

    __slots__ = ("_gram", "_thin")

    def __init__(self, m: Array) -> None:
        self._thin = m if 2 * m.shape[0] < m.shape[1] else None
        self._gram = m.T @ m if self._thin is None else None

    def into(self, x: Array) -> Array:
        """The first half of X MᵀM."""
        return x if self._thin is None else x @ self._thin.T

    def out_of(self, x: Array) -> Array:
        """The second half."""
        return x @ (self._gram if self._thin is None else self._thin)


@dataclass(slots=True, init=False, eq=False, repr=False)
class Chain(State):
    """The slope −∇𝓛 − λθ of networks of one shape, on arrays of one kind.

    Args:
        network: B = 1; says shape, dtype and device.
        cost: any convex cost; quadratic ones are evaluated without going through torch.
        decay: weight decay λ.

    After a call of :meth:`slope` the attributes ``a`` (A, shape (d_out, d_in)), ``g`` (∇C at A) and ``below`` (the
    products W_l⋯W_1) belong to the point of that call, until the next one. Large networks of few outputs are multiplied
    from that end instead: a slope of 784 → 10 costs 10 columns of products then, not 784.
    """

    dims: Fixed[tuple[int, ...]]
    depth: Fixed[int]
    cost: Fixed[Cost]
    decay: Fixed[float]
    size: Fixed[int]
    numpy: Fixed[bool]
    from_above: Fixed[bool]
    xp: Fixed[ModuleType]
    matmul: Fixed[Callable[..., Array]]
    quadratic: Fixed[bool]
    _product: Fixed[Callable[[Array, Array], Array]]
    _like: Fixed[torch.Tensor]
    _gemm: Fixed[Callable[..., Array]]
    _axpy: Fixed[Callable[..., Array]]
    _dot: Fixed[Callable[..., Array]]
    _operator: Fixed[Array]
    _minimizer: Fixed[Array]
    _below: Room[list[Array]]
    _back: Room[list[Array]]
    below: Room[list[Array]]
    above: Room[list[Array]]
    a: Room[Array]
    g: Room[Array]
    _above: Room[list[Factor | None]]
    _grams: Room[list[Factor | None]]
    _direction: Array

    def __init__(self, network: Network, cost: Cost, decay: float = 0.0) -> None:
        theta = network.theta
        self.dims, self.depth, self.cost, self.decay = network.dims, network.depth, cost, decay
        self.size = parameter_count(network.dims)
        self.numpy = theta.device.type == "cpu" and self.size <= NUMPY_UP_TO
        self.from_above = not self.numpy and FEWER * network.shape[0] < network.shape[1] and self.depth > 1
        self.xp: ModuleType = np if self.numpy else torch
        self._like = theta
        if self.numpy:
            self._gemm, self._axpy = get_blas_funcs(("gemm", "axpy"), dtype=self.array(theta).dtype)
        self.matmul, self._dot = self.xp.matmul, self.xp.dot
        self.quadratic = isinstance(cost, QuadraticCost)
        if isinstance(cost, QuadraticCost):
            self._product = cost.hessian.product
            self._operator, self._minimizer = self.array(cost.operator), self.array(cost.minimizer)
        self.below, self.above = [], []
        d_out, d_in = network.shape
        new = theta.new_empty
        self._below = [self.array(new((n, d_in))) for n in network.dims[1:]]
        self._back = [self.array(new((n, d_in))) for n in network.dims[:-1]]
        self._direction = self.array(torch.ones_like(theta[0, 0]).expand(d_out, d_in).contiguous())

    def array(self, values: torch.Tensor) -> Array:
        """A tensor as an array of the kind used here; shares memory where it can."""
        return values.detach().numpy() if self.numpy else values.detach()

    def tensor(self, values: Array) -> torch.Tensor:
        """The way back."""
        return torch.from_numpy(values) if self.numpy else values

    def constants(self, values: list[float]) -> Array:
        """Coefficients as an array, shape (n,)."""
        return self.array(torch.tensor(values, dtype=self._like.dtype, device=self._like.device))

    def vectors(self, count: int) -> tuple[Array, list[Vector]]:
        """Room for some vectors: as rows of one array, shape (count, P), and one by one."""
        block = self.array(self._like.new_empty((count, self.size)))
        return block, [Vector(block[i], self.dims) for i in range(count)]

    def square(self, values: Array) -> float:
        """‖values‖²."""
        flat = values.reshape(-1)
        return float(self._dot(flat, flat))

    def slope(self, at: Vector, out: Vector, factor: float) -> None:
        """out ← −factor·(∇𝓛 + λθ)(at)."""
        x = self._cost_slope(at, factor)
        layers, into, below, matmul = at.layers, out.layers, self.below, self.matmul
        if self.from_above:
            for l in range(self.depth - 1):
                matmul(self.above[l].T, x, out=into[l])
                x = x @ layers[l].T
            into[-1][...] = x
        else:
            for l in range(self.depth - 1, 0, -1):
                matmul(x, below[l - 1].T, out=into[l])
                x = matmul(layers[l].T, x, out=self._back[l])
            into[0][...] = x
        if self.decay:
            self._add(at.flat, out.flat, -factor * self.decay)

    def recur(self, at: Vector, before: Vector, factor: float, kappa: float) -> None:
        """before ← κ·before + (1 − κ)·at − factor·(∇𝓛 + λθ)(at): one stage of a three-term recurrence."""
        x = self._cost_slope(at, factor)
        layers, into, below, accumulate = at.layers, before.layers, self.below, self._accumulate
        if self.from_above:
            for l in range(self.depth - 1):
                accumulate(into[l], self.above[l].T, x.T, kappa)
                x = x @ layers[l].T
        else:
            for l in range(self.depth - 1, 0, -1):
                accumulate(into[l], x, below[l - 1], kappa)
                x = self.matmul(layers[l].T, x, out=self._back[l])
        last = into[-1 if self.from_above else 0]
        last *= kappa
        last += x
        self._add(at.flat, before.flat, 1 - kappa - factor * self.decay)

    def size_of(self, values: Array) -> float:
        """Frobenius norm."""
        return self.square(values) ** 0.5

    def _cost_slope(self, at: Vector, factor: float) -> Array:
        """−factor·∇C at A; forms the products below each layer, or above, on the way."""
        if self.from_above:
            self.above = products_above(at.layers[1:])
            self.a = self.above[0] @ at.layers[0]
            self.g = self._cost_gradient(self.a)
            return self.g * -factor
        below = self._below
        below[0] = lower = at.layers[0]
        for w, room in zip(at.layers[1:], below[1:], strict=True):
            lower = self.matmul(w, lower, out=room)
        self.below, self.a = below, lower
        self.g = self._cost_gradient(lower)
        return self.g * -factor

    def _accumulate(self, out: Array, left: Array, right: Array, kappa: float) -> None:
        """out ← κ·out + left·rightᵀ, in place."""
        if self.numpy:  # BLAS knows columns, NumPy rows: outᵀ ← κ·outᵀ + right·leftᵀ
            self._gemm(1.0, right.T, left.T, beta=kappa, c=out.T, trans_a=1, overwrite_c=1)
        else:
            out.addmm_(left, right.T, beta=kappa)

    def _add(self, values: Array, out: Array, factor: float) -> None:
        """out ← out + factor·values, in place."""
        if self.numpy:
            self._axpy(values, out, a=factor)
        else:
            out.add_(values, alpha=factor)

    def excess(self) -> float:
        """C − C_min at the point of the last slope."""
        if not self.quadratic:
            return float(self.cost.excess(self.tensor(self.a)[None])[0])
        return 0.5 * float(((self.a - self._minimizer) * self.g).sum())

    def penalty(self, at: Vector) -> float:
        """(λ/2)‖θ‖²."""
        return 0.5 * self.decay * self.square(at.flat) if self.decay else 0.0

    def combine(self, coefficients: Array, rows: Array, out: Array) -> None:
        """out ← Σ_i c_i rows_i for coefficients (m,), rows (m, P)."""
        if self.numpy:
            np.dot(coefficients, rows, out=out)  # matmul is slow for a single row
        else:
            torch.mv(rows.T, coefficients, out=out)

    def measure(self, at: Vector) -> None:
        """Form the factors of the NTK, S_lS_lᵀ and P_lᵀP_l of the products above and below each layer.

        ``at`` is the point of the last slope; :meth:`curvature` and :meth:`velocity` then hold there.
        """
        self._above = [None] * self.depth  # None: the identity
        s = None
        for l in range(self.depth - 1, 0, -1):
            s = at.layers[l] if s is None else s @ at.layers[l]
            self._above[l - 1] = Factor(s.T)
        products = products_below(at.layers[:-1]) if self.from_above else self.below[:-1]
        self._grams = [None, *(Factor(p) for p in products)]

    def curvature(self) -> float:
        """Largest eigenvalue of the Gauss–Newton matrix JᵀHJ + λ at the point measured last, by power iteration.

        It runs on d_out × d_in matrices, X → K H(X), and starts from where the last one ended.
        """
        x, value = self._direction, 0.0
        for _ in range(POWER_ITERATIONS):
            image = self._kernel(self._apply(x))
            norm = self.size_of(image)
            if not 0 < norm < float("inf"):
                return self.decay + norm
            x, before, value = image / norm, value, norm
            if abs(value - before) < POWER_CHANGE * value:
                break
        self._direction = x
        return self.decay + value

    def velocity(self) -> Array:
        """Ȧ = −K ∇C − λL A at the point measured last, shape (d_out, d_in)."""
        moved = -self._kernel(self.g)
        return moved - self.decay * self.depth * self.a if self.decay else moved

    def _kernel(self, x: Array) -> Array:
        """K x = Σ_l S_lS_lᵀ x P_lᵀP_l, the NTK on (d_out, d_in) matrices."""
        total = None
        for above, below in zip(self._above, self._grams, strict=True):
            term = x if above is None else above.into(x.T).T
            if below is not None:
                term = below.out_of(below.into(term))
            if above is not None:
                term = above.out_of(term.T).T
            total = term if total is None else total + term
        return total

    def _cost_gradient(self, a: Array) -> Array:
        if not self.quadratic:
            return self.array(self.cost.gradient(self.tensor(a)[None])[0])
        return self._apply(a - self._minimizer)

    def _apply(self, v: Array) -> Array:
        """The Hessian of the cost at the point of the last slope."""
        if self.quadratic:
            return self._product(self._operator, v)
        return self.array(self.cost.apply_curvature(self.tensor(v)[None], self.tensor(self.a)[None])[0])

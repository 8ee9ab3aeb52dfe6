"""Full or reduced, and at which order: decided by what truncation costs in accuracy and width in time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from dlnphase.backend import Backend
from dlnphase.costs.quadratic import Cost, QuadraticCost
from dlnphase.errors import InputError
from dlnphase.networks.chain import Network, parameter_count
from dlnphase.networks.krylov.project import Projection, Projector, project
from dlnphase.networks.krylov.sample import sample
from dlnphase.networks.krylov.sweeps import SIZE_LIMIT, SweepStart, reduced_dims
from dlnphase.networks.representation import Representation
from dlnphase.networks.sampling import hidden_dims
from dlnphase.setup.pilot import SAFETY, disagreement

REPRESENTATIONS = ("auto", "full", "krylov")
TOLERANCE = 5e-3  # ε that auto promises for the whole path where it can (see the text of ``pilot``)
FULL_WIDTH = 150  # hidden sizes up to this cost little more than the calls that handle them
WORTHWHILE = 1.5  # a reduction pays when it divides the width by at least this
AUTO_SIZE = 400  # auto looks no further than this hidden size
PILOT_PARAMETERS = 150_000  # a pair of orders with more parameters than this is extrapolated instead of run
PILOT_MODES = 400_000  # the same for orders that start from few modes, most of whose parameters are in the ends
ORDER_GAIN = 10.0  # by which each order divides the error at least, measured 15 to 50
COPIES = 16  # θ-sized arrays that a run keeps alive
DROPPED = 1e-5  # ‖A(0)‖_F over that of the target, up to which what few directions leave out of A(0) may be dropped
PILOT_DROPPED = 1e-4  # to which a pilot may magnify it


def choose_representation(
    depth: int,
    width: int,
    shape: tuple[int, int],
    sigma: float,
    cost: Cost,
    backend: Backend,
    *,
    representation: str = "auto",
    order: int | None = None,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    member: int = 0,
    batch: int = 1,
    weight_decay: float = 0.0,
    whole: bool = False,
) -> Representation:
    """Decide how to hold i.i.d. N(0, σ²) networks of this shape.

    ``auto`` takes the full network where it is as cheap (narrow, or no order is much smaller and good enough), else the
    lowest order whose promise is within ``tolerance``, else the best order it can afford, with its honest ε.

    Where A is too large for that, and the target of a factorization has few modes beside which the start is nothing,
    sweeps start from these modes alone.

    Args:
        depth, width, shape, sigma: as in ``sample``.
        cost: what the network will be trained on; the pilot runs on it.
        representation: ``auto``, ``full`` or ``krylov``.
        order: Krylov order, or None for auto; ``auto`` with an order given means ``krylov``.
        tolerance: ε wanted.
        seed, member: the draw the pilot runs on; other members of the batch have the same law.
        batch: how many networks will be held at once.
        weight_decay: λ that they will be trained with.
        whole: start sweeps in the whole ends in any case.

    Raises:
        InputError: for an unknown word, a width or an order out of range, or full networks that do not fit in memory.
    """
    dims = hidden_dims(depth, width, shape)
    _check_words(representation, order)
    if representation == "full":
        require_memory(dims, backend, batch)
        return Representation(None, dims[1:-1], 0.0, True)

    with np.errstate(over="ignore"):  # ‖A(0)‖_F in law; inf is no small start
        at_start = float(np.float64(sigma) ** depth * width ** ((depth - 1) / 2) * (shape[0] * shape[1]) ** 0.5)
    few, dropped = (None, 0.0) if whole else few_modes(dims, cost, at_start)

    def reduced(k: int) -> Network:
        return sample(depth, width, shape, sigma, k, backend, seed=seed, members=(member,), start=few)

    orders = _Orders(dims, reduced, cost, weight_decay, few, dropped)
    return _choose(orders, representation, order, tolerance, _affordable(dims, backend, batch))


def represent(
    network: Network,
    cost: Cost,
    *,
    representation: str = "auto",
    order: int | None = None,
    tolerance: float = TOLERANCE,
    weight_decay: float = 0.0,
    whole: bool = False,
) -> tuple[Network, Representation]:
    """Hold given networks (a user's weights) in the representation asked for, by projection.

    Args:
        network: B full networks; the pilot runs on the first.
        representation, order, tolerance, weight_decay, whole: as in ``choose_representation``.
    """
    _check_words(representation, order)
    if representation == "full" or network.depth == 1:
        return network, Representation(None, network.hidden, 0.0, True)
    at_start = float(torch.linalg.vector_norm(network.product(), dim=(-2, -1)).max())
    few, dropped = (None, 0.0) if whole else few_modes(network.dims, cost, at_start)
    projector = Projector(network.select([0]), few)
    held: dict[int, Projection] = {}

    def reduced(k: int) -> Network:
        if k not in held:
            held[k] = projector.to(k)
        return held[k].network

    orders = _Orders(network.dims, reduced, cost, weight_decay, few, dropped)
    chosen = _choose(orders, representation, order, tolerance, affordable=True)
    if chosen.order is None:
        return network, chosen
    known = held.get(chosen.order) if network.batch == 1 else None
    projection = known or project(network, chosen.order, few)
    return projection.network, replace(chosen, hidden=projection.network.hidden, exact=projection.exact)


def require_memory(dims: Sequence[int], backend: Backend, batch: int = 1) -> None:
    """Refuse full networks that this machine cannot hold.

    Raises:
        InputError: says how much memory they would need.
    """
    if not _affordable(dims, backend, batch):
        need = memory_needed(dims, backend, batch)
        raise InputError(
            f"representation: a full network of width {max(dims)} needs about {need / 2**30:.3g} GiB, "
            f"this machine has {_memory() / 2**30:.3g}; expected auto or krylov at this width"
        )


def memory_needed(dims: Sequence[int], backend: Backend, batch: int = 1) -> int:
    """Bytes that a run of full networks keeps alive, about."""
    return COPIES * batch * parameter_count(dims) * (4 if backend.dtype_name == "float32" else 8)


def _affordable(dims: Sequence[int], backend: Backend, batch: int) -> bool:
    return memory_needed(dims, backend, batch) <= 0.8 * _memory()


def _memory() -> int:
    """Bytes of memory on this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _check_words(representation: str, order: int | None) -> None:
    if representation not in REPRESENTATIONS:
        raise InputError(f"representation: found {representation}, expected one of {', '.join(REPRESENTATIONS)}")
    if order is not None and order < 1:
        raise InputError(f"krylov-order: found {order}, expected an integer of at least 1")
    if order is not None and representation == "full":
        raise InputError(f"krylov-order: found {order} with representation full, expected krylov or auto")


@dataclass(frozen=True)
class _Orders:
    """The reduced networks that there are to choose from, and how far two of them disagree.

    Attributes:
        dims: of the full network.
        network: the reduced one of an order.
        cost, weight_decay: what it will be trained on.
        start: where sweeps start.
        dropped: ‖A(0)‖_F over that of the target, of which reduced networks may lack all; 0.0: they lack nothing.
    """

    dims: tuple[int, ...]
    network: Callable[[int], Network]
    cost: Cost
    weight_decay: float
    start: SweepStart | None
    dropped: float

    def sizes(self, order: int) -> tuple[tuple[int, ...], bool]:
        """As :func:`dlnphase.networks.krylov.sweeps.reduced_dims`."""
        return reduced_dims(self.dims, order, self.start)

    def error(self, order: int) -> float:
        """The ε of an order, measured against the next."""
        largest = (PILOT_DROPPED / self.dropped) ** (1 / (len(self.dims) - 1)) if self.dropped else float("inf")
        pair = self.network(order), self.network(order + 1)
        return SAFETY * disagreement(*pair, self.cost, self.weight_decay, largest) + self.dropped


def few_modes(dims: tuple[int, ...], cost: Cost, at_start: float) -> tuple[SweepStart | None, float]:
    """The modes of a target that sweeps may start from alone, and ‖A(0)‖_F over ‖A*‖_F; else None and 0.0.

    They are enough where ∇C = A − A*, whose modes but those of A* are of the size of A(0) until words reach them.
    They are taken where order 1 is not all there is to the whole ends and order 2 of these is out of the question.

    Args:
        at_start: ‖A(0)‖_F.
    """
    nothing = None, 0.0
    if not (len(dims) > 2 and isinstance(cost, QuadraticCost) and cost.hessian.is_identity):
        return nothing
    target = cost.minimizer.double().reshape(cost.shape).cpu().numpy()
    size = float(np.linalg.norm(target))
    if at_start > DROPPED * size or _is_exact(dims) or _within(dims, AUTO_SIZE):
        return nothing
    left, values, right = np.linalg.svd(target)
    count = int((values > values[0] * max(target.shape) * np.finfo(float).eps).sum())
    if count < 1 or not 2 * count * WORTHWHILE <= min(target.shape):
        return nothing
    return SweepStart(right[:count].T.copy(), left[:, :count].copy()), at_start / size


def _is_exact(dims: tuple[int, ...]) -> bool:
    """Whether order 1 of the whole ends is all there is to networks of these sizes; False where it is too large."""
    try:
        return reduced_dims(dims, 1)[1]
    except InputError:
        return False


def _within(dims: tuple[int, ...], limit: int, start: SweepStart | None = None) -> bool:
    """Whether order 2, against which order 1 is measured, has hidden sizes up to a limit."""
    try:
        return max(reduced_dims(dims, 2, start)[0][1:-1]) <= limit
    except InputError:
        return False


def _choose(
    orders: _Orders, representation: str, order: int | None, tolerance: float, affordable: bool
) -> Representation:
    dims = orders.dims
    width = max(dims[1:-1], default=0)
    full = Representation(None, dims[1:-1], 0.0, True)
    if len(dims) == 2:
        return full
    if order is not None:
        return _estimate(orders, order)[-1]
    if representation == "auto" and affordable and width <= FULL_WIDTH:
        sizes, exact = orders.sizes(1)
        if not (exact and max(sizes[1:-1]) * WORTHWHILE <= width):
            return full
    if not _within(dims, SIZE_LIMIT, orders.start):
        if representation == "auto" and affordable:
            return full
        instead = "full" if affordable else "a smaller shape: the full network does not fit in memory"
        raise InputError(
            f"representation: no reduced network of {dims[-1]}x{dims[0]} and width {width} can be checked against the "
            f"next order, whose hidden sizes are above {SIZE_LIMIT}; expected {instead}"
        )
    candidates = _estimate(orders, None, tolerance)
    good = [c for c in candidates if c.error is not None and c.error <= tolerance]
    chosen = good[0] if good else candidates[-1]
    pointless = max(chosen.hidden) * WORTHWHILE > width or (not good and width <= AUTO_SIZE)
    return full if representation == "auto" and affordable and pointless else chosen


def _estimate(orders: _Orders, last: int | None, tolerance: float = 0.0) -> list[Representation]:
    """Representations of orders 1, 2, … with their ε, up to ``last`` or the first that is good enough."""
    out: list[Representation] = []
    known: float | None = None  # ε of the order before
    k = 0
    while last is None or k < last:
        k += 1
        sizes, exact = orders.sizes(k)
        hidden = sizes[1:-1]
        if last is None and out and max(hidden) > AUTO_SIZE:
            break
        if exact:
            out.append(Representation(k if last is None else last, hidden, 0.0, True, start=orders.start))
            break
        if last is not None and k < last and _measurable(orders, k + 1):
            continue  # the next order will be measured itself
        if known is None or _measurable(orders, k):
            known, extrapolated = orders.error(k), False
        else:
            known, extrapolated = known / ORDER_GAIN, True
        out.append(Representation(k, hidden, known, False, extrapolated, orders.start))
        if last is None and known <= tolerance:
            break
    return out


def _measurable(orders: _Orders, k: int) -> bool:
    """Whether a pilot on orders k and k+1 is cheap."""
    limit = PILOT_PARAMETERS if orders.start is None else PILOT_MODES
    return parameter_count(orders.sizes(k + 1)[0]) <= limit

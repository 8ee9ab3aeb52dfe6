"""Full or reduced, and at which order: decided by what truncation costs in accuracy and width in time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dlnphase.backend import Backend
from dlnphase.costs.quadratic import Cost
from dlnphase.errors import InputError
from dlnphase.networks.chain import Network, parameter_count
from dlnphase.networks.krylov.project import Projection, Projector, project
from dlnphase.networks.krylov.sample import sample
from dlnphase.networks.krylov.sweeps import SIZE_LIMIT, reduced_dims
from dlnphase.networks.representation import Representation
from dlnphase.networks.sampling import hidden_dims
from dlnphase.setup.pilot import SAFETY, disagreement

REPRESENTATIONS = ("auto", "full", "krylov")
TOLERANCE = 5e-3  # ε that auto promises for the whole path where it can (see the text of ``pilot``)
FULL_WIDTH = 150  # hidden sizes up to this cost little more than the calls that handle them
WORTHWHILE = 1.5  # a reduction pays when it divides the width by at least this
AUTO_SIZE = 400  # auto looks no further than this hidden size
PILOT_PARAMETERS = 150_000  # a pair of orders with more parameters than this is extrapolated instead of run
ORDER_GAIN = 10.0  # by which each order divides the error at least, measured 15 to 50
COPIES = 16  # θ-sized arrays that a run keeps alive


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
) -> Representation:
    """Decide how to hold i.i.d. N(0, σ²) networks of this shape.

    ``auto`` takes the full network where it is as cheap (narrow, or no order is much smaller and good enough), else the
    lowest order whose promise is within ``tolerance``, else the best order it can afford, with its honest ε.

    Args:
        depth, width, shape, sigma: as in ``sample``.
        cost: what the network will be trained on; the pilot runs on it.
        representation: ``auto``, ``full`` or ``krylov``.
        order: Krylov order, or None for auto; ``auto`` with an order given means ``krylov``.
        tolerance: ε wanted.
        seed, member: the draw the pilot runs on; other members of the batch have the same law.
        batch: how many networks will be held at once.
        weight_decay: λ that they will be trained with.

    Raises:
        InputError: for an unknown word, a width or an order out of range, or full networks that do not fit in memory.
    """
    dims = hidden_dims(depth, width, shape)
    _check_words(representation, order)
    if representation == "full":
        require_memory(dims, backend, batch)
        return Representation(None, dims[1:-1], 0.0, True)

    def reduced(k: int) -> Network:
        return sample(depth, width, shape, sigma, k, backend, seed=seed, members=(member,))

    measure = _Measure(cost, weight_decay)
    return _choose(dims, reduced, measure, representation, order, tolerance, _affordable(dims, backend, batch))


def represent(
    network: Network,
    cost: Cost,
    *,
    representation: str = "auto",
    order: int | None = None,
    tolerance: float = TOLERANCE,
    weight_decay: float = 0.0,
) -> tuple[Network, Representation]:
    """Hold given networks (a user's weights) in the representation asked for, by projection.

    Args:
        network: B full networks; the pilot runs on the first.
        representation, order, tolerance, weight_decay: as in ``choose_representation``.
    """
    _check_words(representation, order)
    if representation == "full" or network.depth == 1:
        return network, Representation(None, network.hidden, 0.0, True)
    projector = Projector(network.select([0]))
    held: dict[int, Projection] = {}

    def reduced(k: int) -> Network:
        if k not in held:
            held[k] = projector.to(k)
        return held[k].network

    measure = _Measure(cost, weight_decay)
    chosen = _choose(network.dims, reduced, measure, representation, order, tolerance, affordable=True)
    if chosen.order is None:
        return network, chosen
    known = held.get(chosen.order) if network.batch == 1 else None
    projection = known or project(network, chosen.order)
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
class _Measure:
    """How far two orders disagree on what they will be trained on."""

    cost: Cost
    weight_decay: float

    def __call__(self, coarse: Network, fine: Network) -> float:
        return disagreement(coarse, fine, self.cost, self.weight_decay)


def _choose(
    dims: tuple[int, ...],
    reduced: Callable[[int], Network],
    measure: _Measure,
    representation: str,
    order: int | None,
    tolerance: float,
    affordable: bool,
) -> Representation:
    width = max(dims[1:-1], default=0)
    full = Representation(None, dims[1:-1], 0.0, True)
    if len(dims) == 2:
        return full
    if order is not None:
        return _estimate(dims, reduced, measure, order)[-1]
    if representation == "auto" and affordable and width <= FULL_WIDTH:
        sizes, exact = reduced_dims(dims, 1)
        if not (exact and max(sizes[1:-1]) * WORTHWHILE <= width):
            return full
    if not _comparable(dims):
        if representation == "auto" and affordable:
            return full
        instead = "full" if affordable else "a smaller shape: the full network does not fit in memory"
        raise InputError(
            f"representation: no reduced network of {dims[-1]}x{dims[0]} and width {width} can be checked against the "
            f"next order, whose hidden sizes are above {SIZE_LIMIT}; expected {instead}"
        )
    candidates = _estimate(dims, reduced, measure, None, tolerance)
    good = [c for c in candidates if c.error is not None and c.error <= tolerance]
    chosen = good[0] if good else candidates[-1]
    pointless = max(chosen.hidden) * WORTHWHILE > width or (not good and width <= AUTO_SIZE)
    return full if representation == "auto" and affordable and pointless else chosen


def _estimate(
    dims: tuple[int, ...],
    reduced: Callable[[int], Network],
    measure: _Measure,
    last: int | None,
    tolerance: float = 0.0,
) -> list[Representation]:
    """Representations of orders 1, 2, … with their ε, up to ``last`` or the first that is good enough."""
    out: list[Representation] = []
    known: float | None = None  # ε of the order before
    k = 0
    while last is None or k < last:
        k += 1
        sizes, exact = reduced_dims(dims, k)
        hidden = sizes[1:-1]
        if last is None and out and max(hidden) > AUTO_SIZE:
            break
        if exact:
            out.append(Representation(k if last is None else last, hidden, 0.0, True))
            break
        if last is not None and k < last and _measurable(dims, k + 1):
            continue  # the next order will be measured itself
        if known is None or _measurable(dims, k):
            known, extrapolated = SAFETY * measure(reduced(k), reduced(k + 1)), False
        else:
            known, extrapolated = known / ORDER_GAIN, True
        out.append(Representation(k, hidden, known, False, extrapolated))
        if last is None and known <= tolerance:
            break
    return out


def _comparable(dims: tuple[int, ...]) -> bool:
    """Whether orders 1 and 2, from which every estimate starts, are within what a reduced network may hold."""
    try:
        reduced_dims(dims, 2)
    except InputError:
        return False
    return True


def _measurable(dims: tuple[int, ...], k: int) -> bool:
    """Whether a pilot on orders k and k+1 is cheap."""
    return parameter_count(reduced_dims(dims, k + 1)[0]) <= PILOT_PARAMETERS

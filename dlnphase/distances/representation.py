"""How the network of a distance is held: full where it is narrow, else Krylov-reduced to an order found by a pilot.

The nearest saddle needs the resolvent of W_2ᵀW_2 on a vector, so a distance converges geometrically with the order. The
pilot follows the cheapest death of all directions (exact at every order) of one draw until it stands still.
"""

from __future__ import annotations

from dataclasses import dataclass

from dlnphase.backend import Backend
from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.distances.deaths import uniform_death
from dlnphase.distances.facts import facts_of
from dlnphase.networks.krylov import reduced_dims, sample
from dlnphase.networks.representation import Representation
from dlnphase.networks.sampling import hidden_dims

TOLERANCE = 2e-3  # relative change of a distance at the last order: digits against the third power of the size
LARGEST = 200  # hidden sizes that the pilot may reach
LARGEST_FULL = 600  # widths up to which a full network stands in where a reduction is too coarse
POOR = 0.02  # change at the last order from which a full network of LARGEST_FULL is worth its time
FULL_BELOW = 64  # widths that are always held in full: there is little to leave out, and full is exact
WORTHWHILE = 0.7  # a reduction that keeps more than this fraction of the width is not made


@dataclass(frozen=True)
class Held(Representation):
    """How networks are held whose distances are asked for: the change from the order before is always known."""

    error: float


def choose(
    depth: int, width: int, cost: QuadraticCost, backend: Backend, *, seed: int, member: int, order: int | None = None
) -> Held:
    """The cheapest way to hold networks of this width whose distances are right to TOLERANCE.

    Args:
        order: take this one instead.
        seed, member: the draw the pilot follows.
    """
    dims = hidden_dims(depth, width, cost.shape)
    matrices = facts_of(cost, depth).saddles[:1]
    full = Held(None, dims[1:-1], 0.0, True)
    if order is None and width <= FULL_BELOW:
        return full
    best: Held | None = None
    last: float | None = None
    for k in [order] if order is not None else range(1, LARGEST):
        sizes, closed = reduced_dims(dims, k)
        hidden = sizes[1:-1]
        if order is None and max(hidden) >= WORTHWHILE * width:
            return full if width <= LARGEST_FULL or best is None else best
        if closed or not matrices:
            return Held(k, hidden, 0.0, closed)
        if best is not None and max(hidden) > LARGEST:
            return full if best.error > POOR and width <= LARGEST_FULL else best
        network = sample(depth, width, cost.shape, width**-0.5, k, backend, seed=seed, members=[member])
        distance = float(uniform_death(network, matrices, depth // 2).squared) ** 0.5
        error = 1.0 if last is None else abs(distance / last - 1)
        best, last = Held(k, hidden, error, False), distance
        if error <= TOLERANCE:
            break
    return full if best is None else best

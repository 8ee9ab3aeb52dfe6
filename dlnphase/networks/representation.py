"""How networks are held, full or reduced, and drawn so. Which order is enough is decided by what is asked of them:
setup/representation.py decides it for paths, distances/representation.py for distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dlnphase.backend import Backend
from dlnphase.networks.chain import Network
from dlnphase.networks.krylov.sample import sample
from dlnphase.networks.krylov.sweeps import SweepStart
from dlnphase.networks.sampling import gaussian_network, hidden_dims


@dataclass(frozen=True)
class Representation:
    """How a network of width w is held, and what that costs in accuracy.

    Attributes:
        order: Krylov order, None for a full network.
        hidden: hidden sizes of the network that is run.
        error: what it promises: of a path ε, each A(t) of the full network is met by the reduced one at a time within
            ε·t, up to ε·max‖A‖_F; of a distance its relative change from the order before (1 where there is none). 0.0
            where the representation is exact. None where no estimate was made.
        exact: nothing is truncated.
        extrapolated: the estimate is carried on from a lower order by a factor ORDER_GAIN an order.
        start: the few directions of the ends that sweeps start from; None: all.
    """

    order: int | None
    hidden: tuple[int, ...]
    error: float | None
    exact: bool
    extrapolated: bool = False
    start: SweepStart | None = None

    @property
    def kind(self) -> str:
        """``full`` or ``krylov``."""
        return "full" if self.order is None else "krylov"

    def in_words(self) -> str:
        """One line for people."""
        sizes = "×".join(str(n) for n in self.hidden) or "none"
        if self.order is None:
            return f"full, hidden sizes {sizes}"
        order = f"{self.order}" if self.start is None else f"{self.order} of the target's {self.start.count} modes"
        if self.exact:
            return f"Krylov order {order}, hidden sizes {sizes}, exact"
        how = "extrapolated" if self.extrapolated else "measured"
        if self.error is None or not self.error < 1:
            return f"Krylov order {order}, hidden sizes {sizes}, too coarse to promise anything ({how})"
        return f"Krylov order {order}, hidden sizes {sizes}, times and matrices within {self.error:.1e} ({how})"


def initial_network(
    how: Representation,
    depth: int,
    width: int,
    shape: tuple[int, int],
    sigma: float,
    backend: Backend,
    *,
    seed: int = 0,
    members: Sequence[int] = (0,),
) -> Network:
    """Draw i.i.d. N(0, σ²) networks as they are to be held, one a member; shape is (d_out, d_in)."""
    if how.order is None:
        return gaussian_network(hidden_dims(depth, width, shape), sigma, backend, seed=seed, members=members)
    return sample(depth, width, shape, sigma, how.order, backend, seed=seed, members=members, start=how.start)

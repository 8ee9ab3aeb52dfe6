"""Networks reduced to the hidden directions that gradients reach: sampled at any width, or projected.

The flow lives on the column spaces of the products below and above each layer. What these are at the start is
known from a few sweeps; the rest of a layer never moves, and is never drawn.

Enters: depth, width (up to 1e12), shape of A, an order (rounds of sweeps), a seed; or layers that
are given.
Leaves: a :class:`~dlnphase.networks.chain.Network` with few hidden directions that moves as the full one does,
with the same law; for given layers also the projections that were used; and the norm of what was left out.
A target of few modes starts its sweeps from these alone (``SweepStart``), whatever the size of A.

Open

- `sweeps.py` for which directions are kept at an order, and how many;
- `sample.py` for drawing the reduced network directly in law (Householder dice), whatever the width;
- `project.py` for reducing given layers, and for cutting a reduction to a lower order.

Keep

- Orders are nested: the leading blocks of one are the network of the order below (tests/test_krylov.py); the
  pilot of setup/pilot.py rests on it.
- The law is that of a full draw reduced afterwards (tests/test_krylov_law.py, by Kolmogorov–Smirnov tests).
- Which order is enough is not decided here, but in setup/representation.py and distances/representation.py.
- What is not revealed has a norm that is known (``unrevealed_square_norm``): results tell of the full network.
"""

from dlnphase.networks.krylov.project import Projection, project, truncate
from dlnphase.networks.krylov.sample import sample, unrevealed_square_norm
from dlnphase.networks.krylov.sweeps import SweepStart, reduced_dims

__all__ = [
    "Projection",
    "SweepStart",
    "project",
    "reduced_dims",
    "sample",
    "truncate",
    "unrevealed_square_norm",
]

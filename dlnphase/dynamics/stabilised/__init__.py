"""Explicit steps for flows that are mildly stiff: one network as plain matrices, and methods that walk it.

A call of a tensor library costs more than the arithmetic of matrices this small, and a stabilised method calls
little but its slope, and that a thousand times. So a network is a handful of plain matrices here, the one
exception to the batch.

Enters: the layers of one member and a cost; a step size; the tolerance.
Leaves: the layers after a step, and its estimated error. What they are used for is for
dynamics/stabilised_flow.py to say.

Open

- `chain.py` for one network as plain matrices: its slope, what lasts between two slopes, the largest curvature;
  a slope that is computed by other means (a fused kernel, a GPU) goes there, beside ``Network.gradient`` of
  networks/chain.py;
- `stepper.py` for Runge–Kutta methods from their tableaux: Dormand–Prince, and stabilised ones of order 4 whose
  s slopes carry a step of 0.35 s²/ρ.

Keep

- Arrays of NumPy on the CPU while networks are small, of torch else: both walk the same path
  (tests/test_devices.py).
- Stability is as long as promised and the order as stated, for every tableau (tests/test_stabilised.py).
- The slope is that of automatic differentiation, to round-off (tests/test_stabilised.py).
- No frames here: a path whose small modes could drown in large ones is handed over before they do.
"""

from dlnphase.dynamics.stabilised.chain import Chain, Vector
from dlnphase.dynamics.stabilised.stepper import DORMAND_PRINCE, Stepper, Tableau, cheapest, fitting, tableaux

__all__ = ["DORMAND_PRINCE", "Chain", "Stepper", "Tableau", "Vector", "cheapest", "fitting", "tableaux"]

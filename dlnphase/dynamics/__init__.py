"""How a network moves. Each dynamics is a walk that yields a record of every recorded step.

Enters: a batch of networks (:class:`~dlnphase.networks.chain.Network`) and a convex cost on A; tolerances and
budgets.
Leaves: :class:`~dlnphase.dynamics.records.Record` objects, one round after the other: times, A, cost, ‖∇𝓛‖, why
members end, and a way to get their layers. Between two rounds a walk is a value that can be saved.

Open

- `records.py` for what a record and a walk are, `state.py` for how a walk is saved and goes on;
- `flow.py` for gradient flow, its two parts and the table of its methods; `stabilised_flow.py` for the first part of
  a path, without frames; `framed_flow.py` for what goes on as a batch: time, frames, reasons to stop; steppers/ and
  stabilised/ for what takes one step;
- `step_control.py` for how the next step size is found and when a run is over; `clocks.py` for times of a
  batch;
- `frames.py`, `framed_cost.py`, `span.py`, `ends.py` for small components beside large ones: frames in which
  they are small numbers, and the yardstick of errors;
- `descent.py` for discrete algorithms, `updates.py` for what one makes of a gradient (a class each), `draws.py`
  for the noise of gradients;
- `threads.py` for parts of a batch on threads of their own.

Keep

- Data enters through the cost alone; automatic differentiation is in tests alone, as the oracle
  (tests/test_descent.py).
- A walk declares every attribute, and resumed anywhere it goes on to the same bits: a new one is a line in
  tests/test_state.py.
- A batch is its members: each has its own time and step, and leaves when it is done (tests/test_flow_ends.py).
- Errors are measured beside the size of what they are errors of; small modes never drown in large ones
  (tests/test_frames.py, tests/test_flow_plateaus.py). The order of a method is measured
  (tests/test_integrators.py).
- Who runs, records or stops is not known here: reasons are words of training/reasons.py.
"""

from dlnphase.dynamics.descent import GradientDescent, gradient_descent, learned_size, stable_step
from dlnphase.dynamics.draws import Draws
from dlnphase.dynamics.flow import LARGEST_SOLVE, GradientFlow, gradient_flow
from dlnphase.dynamics.records import Dynamics, Record, Walk
from dlnphase.dynamics.schedule import Schedule
from dlnphase.dynamics.updates import Adam, HeavyBall, Muon, Update

__all__ = [
    "LARGEST_SOLVE",
    "Adam",
    "Draws",
    "Dynamics",
    "GradientDescent",
    "GradientFlow",
    "HeavyBall",
    "Muon",
    "Record",
    "Schedule",
    "Update",
    "Walk",
    "gradient_descent",
    "gradient_flow",
    "learned_size",
    "stable_step",
]

"""How a network moves. Each dynamics is a generator of :class:`~dlnphase.dynamics.records.Record`."""

from dlnphase.dynamics.descent import gradient_descent, stable_step
from dlnphase.dynamics.flow import LARGEST_SOLVE, gradient_flow
from dlnphase.dynamics.records import REASONS, Dynamics, Record

__all__ = [
    "LARGEST_SOLVE",
    "REASONS",
    "Dynamics",
    "Record",
    "gradient_descent",
    "gradient_flow",
    "stable_step",
]

"""How a network moves. Each dynamics is a walk, or a generator of its :class:`~dlnphase.dynamics.records.Record`."""

from dlnphase.dynamics.descent import GradientDescent, gradient_descent, stable_step
from dlnphase.dynamics.flow import LARGEST_SOLVE, GradientFlow, gradient_flow
from dlnphase.dynamics.records import REASONS, Dynamics, Record, Walk

__all__ = [
    "LARGEST_SOLVE",
    "REASONS",
    "Dynamics",
    "GradientDescent",
    "GradientFlow",
    "Record",
    "Walk",
    "gradient_descent",
    "gradient_flow",
    "stable_step",
]

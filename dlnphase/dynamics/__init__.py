"""How a network moves. Each dynamics is a walk, or a generator of its :class:`~dlnphase.dynamics.records.Record`."""

from dlnphase.dynamics.descent import GradientDescent, gradient_descent, learned_size, stable_step
from dlnphase.dynamics.draws import Draws
from dlnphase.dynamics.flow import LARGEST_SOLVE, GradientFlow, gradient_flow
from dlnphase.dynamics.records import REASONS, Dynamics, Record, Walk
from dlnphase.dynamics.schedule import Schedule
from dlnphase.dynamics.updates import Adam, HeavyBall, Muon, Update

__all__ = [
    "LARGEST_SOLVE",
    "REASONS",
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

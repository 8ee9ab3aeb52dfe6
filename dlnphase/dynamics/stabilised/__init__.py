"""Explicit steps for flows that are mildly stiff: plain chains of matrices, and methods that walk them."""

from dlnphase.dynamics.stabilised.chain import Chain, Vector
from dlnphase.dynamics.stabilised.stepper import DORMAND_PRINCE, Stepper, Tableau, cheapest, fitting, tableaux

__all__ = ["DORMAND_PRINCE", "Chain", "Stepper", "Tableau", "Vector", "cheapest", "fitting", "tableaux"]

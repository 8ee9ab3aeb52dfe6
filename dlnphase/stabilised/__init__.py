"""Floor 1: explicit steps for flows that are mildly stiff: plain chains of matrices, and methods that walk them."""

from dlnphase.stabilised.chain import Chain, Vector
from dlnphase.stabilised.stepper import DORMAND_PRINCE, Stepper, Tableau, cheapest, fitting, tableaux

__all__ = ["DORMAND_PRINCE", "Chain", "Stepper", "Tableau", "Vector", "cheapest", "fitting", "tableaux"]

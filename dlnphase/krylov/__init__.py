"""Floor 1: networks reduced to the hidden directions that gradients reach: sampled at any width, or projected."""

from dlnphase.krylov.choice import Representation, choose_representation, initial_network, represent, require_memory
from dlnphase.krylov.project import Projection, project, truncate
from dlnphase.krylov.sample import WIDTH_LIMIT, sample, unrevealed_square_norm
from dlnphase.krylov.sweeps import reduced_dims

__all__ = [
    "WIDTH_LIMIT",
    "Projection",
    "Representation",
    "choose_representation",
    "initial_network",
    "project",
    "reduced_dims",
    "represent",
    "require_memory",
    "sample",
    "truncate",
    "unrevealed_square_norm",
]

"""Networks reduced to the hidden directions that gradients reach: sampled at any width, or projected."""

from dlnphase.networks.krylov.project import Projection, project, truncate
from dlnphase.networks.krylov.sample import WIDTH_LIMIT, sample, unrevealed_square_norm
from dlnphase.networks.krylov.sweeps import reduced_dims

__all__ = [
    "WIDTH_LIMIT",
    "Projection",
    "project",
    "reduced_dims",
    "sample",
    "truncate",
    "unrevealed_square_norm",
]

"""Distances from an initialisation to minima and saddles, their scaling exponents and the critical γ."""

from dlnphase.distances.crossing import crossing_point, crossings
from dlnphase.distances.exponents import fit_exponent, measured_regime
from dlnphase.distances.minimum import MinimumDistance, distance_to_minimum
from dlnphase.distances.predictions import (
    GAMMA_CRITICAL,
    kappa,
    least_rank,
    minimum_claim,
    minimum_exponent,
    predicted_minimum,
    predicted_regime,
    predicted_saddle,
    saddle_claim,
    saddle_exponent,
)
from dlnphase.distances.saddle import SaddleDistance, distance_to_saddle
from dlnphase.findings import Crossing, Exponent, LocalSlope

__all__ = [
    "GAMMA_CRITICAL",
    "Crossing",
    "Exponent",
    "LocalSlope",
    "MinimumDistance",
    "SaddleDistance",
    "crossing_point",
    "crossings",
    "distance_to_minimum",
    "distance_to_saddle",
    "fit_exponent",
    "kappa",
    "least_rank",
    "measured_regime",
    "minimum_claim",
    "minimum_exponent",
    "predicted_minimum",
    "predicted_regime",
    "predicted_saddle",
    "saddle_claim",
    "saddle_exponent",
]

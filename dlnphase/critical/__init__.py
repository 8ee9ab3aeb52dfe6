"""Visits along a path, refinement to a critical point, certificates."""

from dlnphase.critical.certify import KINDS, Certificate, Descent, certify
from dlnphase.critical.hostcost import HostCost
from dlnphase.critical.matrix import MatrixPoint, is_stable, merge_same, refine_matrix
from dlnphase.critical.visits import (
    MIN_PROMINENCE,
    Visit,
    WeightKeeper,
    find_visits,
    rank_transitions,
    transition_times,
)
from dlnphase.critical.weights import ParameterPoint, minimal_point, nearest_point, refine_weights
from dlnphase.findings import RankTransition

__all__ = [
    "KINDS",
    "MIN_PROMINENCE",
    "Certificate",
    "Descent",
    "HostCost",
    "MatrixPoint",
    "ParameterPoint",
    "RankTransition",
    "Visit",
    "WeightKeeper",
    "certify",
    "find_visits",
    "is_stable",
    "merge_same",
    "minimal_point",
    "nearest_point",
    "rank_transitions",
    "refine_matrix",
    "refine_weights",
    "transition_times",
]

"""Floor 2: visits along a path, refinement to a critical point, certificates."""

from dlnphase.saddles.matrix import HostCost, MatrixPoint, refine_matrix
from dlnphase.saddles.visits import (
    MIN_PROMINENCE,
    RankTransition,
    Visit,
    WeightKeeper,
    find_visits,
    rank_transitions,
    transition_times,
)

__all__ = [
    "MIN_PROMINENCE",
    "HostCost",
    "MatrixPoint",
    "RankTransition",
    "Visit",
    "WeightKeeper",
    "find_visits",
    "rank_transitions",
    "refine_matrix",
    "transition_times",
]

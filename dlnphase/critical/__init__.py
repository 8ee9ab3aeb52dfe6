"""Visits along a path, refinement to a critical point, certificates, and the greedy path.

Enters: records of a path (times, A, ‖∇𝓛‖), layers at its visits, and a cost.
Leaves: which critical points were visited, each with its rank and cost, what kind it is with everything the
statement rests on, how it was left; the critical points of the limit α → 0; what is measured along a path
besides A.

Open

- `visits.py`, `peaks.py` for where a path lingers; `visited.py` for which critical points those are: one
  decision for all;
- `matrix.py`, `manifold.py`, `hostcost.py` for a critical matrix at fixed rank; `weights.py` for a critical
  point of the loss near given layers; `steps.py` and `lanczos.py` for Newton steps;
- `certify.py`, `curvature.py`, `hessian.py` for what kind of point it is; `escape.py` for how it was left;
- `greedy.py` for the path of α → 0; `sparsity.py` for the end;
- `decay.py`, `decayed_modes.py`, `bottleneck.py` for weight decay and narrow layers;
- `observables.py` for what can be looked at along a path, `sharpness.py` for the upper end of the Hessian,
  `learning_coefficient.py` for that.

Keep

- A certificate says what it rests on and is uncertified where it cannot be decided; the oracle is the dense
  Hessian of automatic differentiation (tests/test_saddles_certify.py).
- Work grows with products, not with D²: what forms a D × D matrix asks the cost whether it may
  (tests/test_large.py).
- A visit, its rank and its kind are the same for a run of ours and the same path of another code
  (tests/test_visited.py).
- Thresholds come from round-off of the dtype (costs/round_off.py) or have a test that fails without them
  (tests/test_thresholds.py).
"""

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

"""Distances from an initialisation to minima and saddles, their scaling exponents and the critical γ.

Enters: a batch of networks (:class:`~dlnphase.networks.chain.Network`) and a quadratic cost.
Leaves: d_m and d_s of each member, as attained values with what certifies them (bounds from above); bounds from
below; slopes against width with their intervals; what theory says.

Open

- `minimum.py` and `saddle.py` for the two distances; `nearest.py` for the point of a constraint set nearest to
  θ_0;
- `chains.py`, `gram.py` for the constraints, linearised, and their normal equations; `starts.py` for where the
  search begins;
- `critical.py`, `conjugate.py`, `completions.py` for the critical matrices that a saddle may have;
- `kinds.py`, `deaths.py`, `annihilation.py`, `ways.py` for the layers in which its dead directions die;
  `any_saddle.py` for saddles of no listed kind, near small networks;
- `lower.py`, `changes.py`, `enclosures.py` for proved bounds from below;
- `exponents.py`, `crossing.py`, `predictions.py` for what distances say together, and what theory says;
- `representation.py` for how the network is held, `facts.py` for what depends on the cost alone.

Keep

- An attained distance is an upper bound and is never called more; who is nearer is decided by bounds from both
  sides (tests/test_lower_bounds.py), with every rounding counted.
- What depends on the cost alone is found once (`facts.py`), what on the draw alone once per draw.
- Constraints are linearised by hand and checked by automatic differentiation in tests/test_phase_chains.py;
  nothing nearer is found by a general search (tests/test_phase_distances.py, tests/test_critical_pairs.py).
- Constants and slopes are those of docs/theory.md; estimators are judged on data of known answer
  (tests/test_phase_exponents.py).
"""

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

"""What the two distances need to know of a cost alone, found once for all cells of a sweep."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torch import Tensor

from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.distances.completions import minimisers
from dlnphase.distances.critical import CriticalMatrix, critical_matrices


@dataclass(frozen=True, eq=False)
class CostFacts:
    """Facts of a cost, on its device and in its dtype.

    Attributes:
        measured: orthonormal columns over row-major entries that the cost measures, (D, m); None where it is all.
        minimisers: named minimisers, for networks of the depth asked for.
        saddles: critical matrices that are no minima, most dead directions first.
    """

    measured: Tensor | None
    minimisers: list[tuple[str, Tensor]]
    saddles: list[CriticalMatrix]


_known: dict[str, CostFacts] = {}


def facts_of(cost: QuadraticCost, depth: int) -> CostFacts:
    """The facts of a cost for networks of a depth; kept for the cost asked about last, told by its numbers."""
    digest = hashlib.sha256()
    for tensor in (cost.operator, cost.minimizer):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype} {array.shape} {tensor.device}".encode() + array.tobytes())
    key = f"{cost.hessian.word} {cost.resolution} {depth} {digest.hexdigest()}"
    if key not in _known:
        facts = CostFacts(cost.measured(), minimisers(cost, depth), critical_matrices(cost))
        _known.clear()
        _known[key] = facts
    return _known[key]

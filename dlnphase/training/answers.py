"""How many answers a path gets right, and where it goes when no minimum exists.

On data that can all be got right C falls to 0 only as ‖A‖ → ∞, and A goes on in a direction. The margin that is told
is that of the worst answer of A over (Σ s_i^(2/L))^(L/2), s its singular values: up to a constant the margin of unit
weights that make A at the least ‖θ‖ (balanced ones, ‖θ‖² = L·Σ s_i^(2/L)). Gradient flow ends in a direction of θ that
is a critical point of the largest such margin, and θ/‖θ‖ and −∇𝓛/‖∇𝓛‖ become one (Lyu and Li 2020; Ji and Telgarsky
2020): their cosine says how far it has come.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dlnphase.costs.accuracy import accuracy
from dlnphase.costs.interface import ConvexCost
from dlnphase.networks.chain import Network
from dlnphase.training.recording import MemberPath


def answers(
    path: MemberPath, cost: ConvexCost, test: ConvexCost | None, depth: int, *, decayed: bool = False
) -> dict[str, Any]:
    """Accuracies at the end of a path, and of a cost without a minimum its margin and direction, for the outcome.

    With weight decay (``decayed``) there is a minimum, and no direction to go on in.
    """
    end = path.matrices[max(path.matrices)]
    out: dict[str, Any] = {"accuracy": accuracy(cost, end), "test_accuracy": accuracy(test, end)}
    if cost.attained or decayed:
        return out
    a = torch.as_tensor(end, dtype=cost.like.dtype, device=cost.like.device)[None]
    margin = cost.margin(a)
    if margin is not None:
        s = np.linalg.svd(end, compute_uv=False)
        out["margin"] = float(margin[0]) / float(np.sum(s ** (2 / depth)) ** (depth / 2)) if s[0] > 0 else 0.0
    if path.end is not None:
        layers = [torch.as_tensor(w, dtype=cost.like.dtype, device=cost.like.device) for w in path.end]
        network = Network.from_weights(layers)
        theta, slope = network.theta[0].double(), -network.gradient(cost.gradient(network.product()))[0].double()
        size = float(torch.linalg.vector_norm(theta) * torch.linalg.vector_norm(slope))
        out["alignment"] = float(theta @ slope) / size if size > 0 else 0.0
    return out

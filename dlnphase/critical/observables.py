"""What is measured along a path besides A, by the names of the table in ``dlnphase/observables.py``.

Every observable takes the networks of one start at some of its records, as a batch, and gives arrays with these records
in front. Formulas are closed: products below and above each layer, and products with the Hessian.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlnphase.costs.interface import ConvexCost, parts_of
from dlnphase.critical.hessian import moving_products
from dlnphase.critical.sharpness import SpectrumEnds, spectrum_ends
from dlnphase.networks.chain import Network
from dlnphase.networks.kernels import Factors, relative_change, relative_size

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Scene:
    """What an observable looks at.

    Attributes:
        networks: of one start at R of its records, on the CPU in float64.
        first: the network at the start of the path, of one member.
        cost: likewise on the CPU in float64.
        decay: weight decay λ of 𝓛(θ) = C(A_θ) + (λ/2)‖θ‖².
    """

    networks: Network
    first: Network
    cost: ConvexCost
    decay: float = 0.0

    def gradient(self) -> Tensor:
        """∇𝓛 of each network, flat, shape (R, P)."""
        net = self.networks
        prefixes = net.prefixes()
        return net.gradient(self.cost.gradient(prefixes[-1]), prefixes) + self.decay * net.theta


def _layers(scene: Scene) -> Arrays:
    return {"layer_singular_values": _stacked([torch.linalg.svdvals(w) for w in scene.networks.weights])}


def _products(scene: Scene) -> Arrays:
    below, above = scene.networks.prefixes()[1:], scene.networks.suffixes()[:-1]
    values = _stacked([torch.linalg.svdvals(p) for p in (*below, *above[::-1], below[-1])])
    return {"product_singular_values": values.reshape(len(values), 2, len(below), -1)}


def _norms(scene: Scene) -> Arrays:
    return {"layer_norms": torch.stack([torch.linalg.matrix_norm(w) for w in scene.networks.weights], 1).numpy()}


def _balance(scene: Scene) -> Arrays:
    apart = [torch.linalg.matrix_norm(d) for d in scene.networks.balancedness()]
    return {"balancedness": torch.stack(apart, 1).numpy()}


def _sharpness(scene: Scene) -> Arrays:
    return {"sharpness": np.array([e.largest for e in _ends(scene, both=False)]) + scene.decay}


def _hessian(scene: Scene) -> Arrays:
    ends = _ends(scene, both=True)
    out = {
        "hessian_extremes": np.array([(e.smallest, e.largest) for e in ends]) + scene.decay,
        "hessian_residual": np.array([e.residual for e in ends]),
    }
    values = [e.values for e in ends if e.values is not None]
    return out | ({"hessian_eigenvalues": np.stack(values) + scene.decay} if values else {})


def _ends(scene: Scene, *, both: bool) -> list[SpectrumEnds]:
    """The ends of the spectrum without weight decay at each network, each search begun from the one before it."""
    out: list[SpectrumEnds] = []
    for k in range(scene.networks.batch):
        near = out[-1].vector if out else None
        out.append(spectrum_ends(scene.networks.select([k]), scene.cost, near=near, both=both))
    return out


def _ntk(scene: Scene) -> Arrays:
    net = scene.networks
    factors = net.ntk_factors()
    traces = [[m.diagonal(dim1=-2, dim2=-1).sum(-1) for m in pair] for pair in factors]
    trace = torch.stack([left * right for left, right in traces]).sum(0)
    return {
        "ntk_trace": trace.numpy(),
        "ntk_change": relative_change(scene.first.ntk_factors(), factors).numpy(),
        "ntk_rate": relative_size(_ntk_velocity(net, -scene.gradient()), factors).numpy(),
    }


def _ntk_velocity(network: Network, velocity: Tensor) -> Factors:
    """K̇ = Σ_l (Ṡ_l S_lᵀ + S_l Ṡ_lᵀ) ⊗ P_lᵀP_l + S_l S_lᵀ ⊗ (Ṗ_lᵀP_l + P_lᵀṖ_l) while θ moves with this velocity."""
    below, above = network.prefixes(), network.suffixes()
    below_dot, above_dot = moving_products(network, velocity, below, above)
    out = []
    for p, s, p_dot, s_dot in zip(below[:-1], above, below_dot[:-1], above_dot, strict=True):
        left, right = s_dot @ s.mT, p_dot.mT @ p
        out += [(left + left.mT, p.mT @ p), (s @ s.mT, right + right.mT)]
    return out


def _covariance(scene: Scene) -> Arrays:
    net, parts = scene.networks, parts_of(scene.cost, "record: found covariance")
    return {"gradient_covariance": parts.gradient_covariance(net.product(), net.ntk_factors()).numpy()}


def _weights(scene: Scene) -> Arrays:
    return {f"W{k}": w.numpy() for k, w in enumerate(scene.networks.weights, 1)}


def _stacked(parts: list[Tensor]) -> np.ndarray:
    """Lists of R × m_l numbers as one array (R, L, max m_l), NaN behind those of a layer that has fewer."""
    out = np.full((len(parts[0]), len(parts), max(part.shape[1] for part in parts)), np.nan)
    for k, part in enumerate(parts):
        out[:, k, : part.shape[1]] = part.numpy()
    return out


# By the names of the table in dlnphase/observables.py; from networks to arrays, records in front.
MEASURES: dict[str, Callable[[Scene], Arrays]] = {
    "layers": _layers,
    "products": _products,
    "norms": _norms,
    "balance": _balance,
    "sharpness": _sharpness,
    "hessian": _hessian,
    "ntk": _ntk,
    "covariance": _covariance,
    "weights": _weights,
}


def observe(scene: Scene, names: tuple[str, ...]) -> Arrays:
    """The arrays of some observables, each with the networks of the scene in front."""
    with torch.no_grad():
        return {key: array for name in names for key, array in MEASURES[name](scene).items()}

"""The upper end of the Hessian's spectrum, and the step up to which gradient descent is stable there.

Along an eigenvector of curvature λ gradient descent multiplies x by 1 − ηλ, which stays bounded up to λ = 2/η; with
heavy ball, x_{k+1} = x_k − ηλx_k + β(x_k − x_{k−1}), the roots of z² − (1 + β − ηλ)z + β leave the unit disc at
λ = 2(1 + β)/η (Polyak 1964). Full-batch gradient descent at a large step sharpens until its largest eigenvalue meets
that and then goes on beside it: the edge of stability (Cohen, Kaur, Li, Kolter, Talwalkar 2021, arXiv 2103.00065).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlnphase.backend import stream
from dlnphase.costs.quadratic import Cost
from dlnphase.critical.hessian import all_eigenpairs, hessian_operator, krylov_space
from dlnphase.networks.chain import Network

SMALL = 200  # parameters up to which all eigenvalues are computed
FRESH = 0.3  # of a unit vector: what is new beside the eigenvector found last, so that another one can come up
SETTLED = 1e-4  # residual of an eigenpair that counts as found, relative to ‖H‖: the value itself is far better


def stability_limit(lr: float, momentum: float = 0.0) -> float:
    """Largest curvature at which (heavy-ball) gradient descent of step η is stable: 2(1 + β)/η."""
    return 2 * (1 + momentum) / lr


@dataclass(frozen=True)
class SpectrumEnds:
    """The ends of the Hessian's spectrum at one network.

    Attributes:
        smallest, largest: eigenvalues.
        vector: unit eigenvector of the largest, shape (P,).
        residual: the larger ‖Hv − λv‖ of the two: a true eigenvalue lies within this of each.
        values: all of them, ascending, where the network is small; else None.
    """

    smallest: float
    largest: float
    vector: np.ndarray
    residual: float
    values: np.ndarray | None = None


def spectrum_ends(
    network: Network, cost: Cost, *, near: np.ndarray | None = None, both: bool = True, small: int = SMALL
) -> SpectrumEnds:
    """The ends of the spectrum of ∇²𝓛 at a network of one member.

    Args:
        near: the eigenvector of the largest eigenvalue at a network close by, to begin with.
        both: whether the smallest is wanted too; if not, it is told as far as it came up.
        small: parameters up to which the Hessian is formed and all eigenvalues are told.
    """
    size = network.theta.shape[1]
    if size <= small:
        matrix, values, vectors = all_eigenpairs(network, cost)
        pair = vectors[:, [0, -1]]
        residual = float(np.linalg.norm(matrix @ pair - pair * values[[0, -1]], axis=0).max())
        return SpectrumEnds(float(values[0]), float(values[-1]), vectors[:, -1], residual, values)
    fresh = stream(0, "lanczos").standard_normal(size)
    fresh /= np.linalg.norm(fresh)
    start = fresh if near is None else near + FRESH * fresh
    space = krylov_space(hessian_operator(network, cost), start)
    used = [0, -1] if both else [-1]
    for _ in space.grow():
        if space.ritz()[2][used].max() <= SETTLED * space.largest:
            break
    values, vectors, residuals = space.ritz()
    top = vectors[:, -1] @ space.basis
    return SpectrumEnds(float(values[0]), float(values[-1]), top / np.linalg.norm(top), float(residuals[used].max()))

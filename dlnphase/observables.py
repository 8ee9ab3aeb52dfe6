"""What can be looked at along a path besides A: one table, plain values that settings, results and figures read.

What each measures stands in ``critical/observables.py``, under the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Array:
    """An array of observed.npz, records in front.

    Attributes:
        words: shape of one record, and what it is: L layers, P parameters, d the least of d_out and d_in, m the most
            that a layer has; NaN stands where there are fewer.
        label: of its panel in the figure; "" where it is not drawn.
        signed: whether it may be of either sign, and belongs on a linear axis.
        layers: whether the first axis counts layers, which get a colour each.
        faint: whether its lines are many.
    """

    words: str
    label: str = ""
    signed: bool = False
    layers: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Observable:
    """One row of the table.

    Attributes:
        words: what it is, in one line.
        arrays: what it gives, by name; the layers themselves, W1 … WL, are told by their names alone.
        whole: whether it needs every layer as it is: a network of L ≥ 3 that is held reduced lacks what lies outside
            its Krylov spaces, in all layers but the first and the last.
        parts: whether it needs to know which entries, samples or measurements the cost is a sum of.
    """

    words: str
    arrays: Mapping[str, Array] = field(default_factory=dict)
    whole: bool = False
    parts: bool = False


OBSERVABLES = {
    "layers": Observable(
        "singular values of each layer",
        {
            "layer_singular_values": Array(
                "(L, m): singular values of each layer, largest first", "singular values of $W_l$", layers=True
            )
        },
        whole=True,
    ),
    "products": Observable(
        "singular values of W_l ⋯ W_1 and of W_L ⋯ W_(L−l+1) for each l",
        {
            "product_singular_values": Array(
                "(2, L, d): those of W_l ⋯ W_1 and of W_L ⋯ W_(L−l+1), l = 1 … L",
                "of $W_l\\cdots W_1$, $W_L\\cdots W_{L-l+1}$",
            )
        },
    ),
    "norms": Observable(
        "Frobenius norm of each layer",
        {"layer_norms": Array("(L,): ‖W_l‖_F", "$\\|W_l\\|_F$", layers=True)},
        whole=True,
    ),
    "balance": Observable(
        "‖W_(l+1)ᵀW_(l+1) − W_lW_lᵀ‖_F, which gradient flow conserves",
        {"balancedness": Array("(L − 1,): ‖W_(l+1)ᵀW_(l+1) − W_lW_lᵀ‖_F", "$\\|D_l\\|_F$", layers=True)},
        whole=True,
    ),
    "sharpness": Observable(
        "largest eigenvalue of the Hessian of the loss in the weights",
        {
            "sharpness": Array(
                "(): largest eigenvalue of ∇²𝓛, weight decay included", "largest eigenvalue of $\\nabla^2\\mathcal{L}$"
            )
        },
    ),
    "hessian": Observable(
        "both ends of that Hessian's spectrum, all of it where the network is small",
        {
            "hessian_extremes": Array(
                "(2,): smallest and largest eigenvalue of ∇²𝓛, weight decay included",
                "ends of $\\nabla^2\\mathcal{L}$",
                signed=True,
            ),
            "hessian_residual": Array("(): the larger ‖Hv − λv‖ of those two"),
            "hessian_eigenvalues": Array(
                "(P,): all of them, ascending; only where P is at most 200",
                "eigenvalues of $\\nabla^2\\mathcal{L}$",
                signed=True,
                faint=True,
            ),
        },
    ),
    "ntk": Observable(
        "tangent kernel: trace, change since the start, rate of change along −∇𝓛",
        {
            "ntk_trace": Array("(): tr K of the tangent kernel K", "$\\mathrm{tr}\\,K$"),
            "ntk_change": Array("(): ‖K − K_0‖_F/‖K_0‖_F", "$\\|K-K_0\\|/\\|K_0\\|$"),
            "ntk_rate": Array(
                "(): ‖dK/dt‖_F/‖K‖_F while θ moves along −∇𝓛, whatever the dynamics", "$\\|\\dot K\\|/\\|K\\|$"
            ),
        },
    ),
    "covariance": Observable(
        "trace of the covariance of gradients, each of one entry or sample",
        {
            "gradient_covariance": Array(
                "(): n Σ_i ‖∇_θ ℓ_i‖² − ‖∇_θ C‖² of C = Σ ℓ_i over n entries, samples or measurements",
                "tr of gradient covariance",
            )
        },
        parts=True,
    ),
    "weights": Observable("the layers themselves"),
}
ARRAYS = {name: array for row in OBSERVABLES.values() for name, array in row.arrays.items()}

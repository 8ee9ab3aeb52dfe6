"""The learning coefficient λ of deep linear networks (real log canonical threshold), in closed form.

For samples of a network with widths n_0, …, n_L whose matrix has rank r, seen through inputs of full-rank covariance,
the volume of {θ: ‖A_θ − A‖² < ε} shrinks like ε^λ·(log 1/ε)^(m−1). Aoyagi (2024), Consideration on the learning
efficiency of multiple-layered neural networks with linear units, Neural Networks 172, gives λ and m for every depth;
L = 2 is reduced-rank regression (Aoyagi, Watanabe 2005). With M_i = n_i − r and Σ the ℓ + 1 spaces of least M for which

    Σ_{i∈Σ} M_i ≥ ℓ·max_{i∈Σ} M_i   and   Σ_{i∈Σ} M_i < ℓ·min_{i∉Σ} M_i,

    M = ⌈Σ_{i∈Σ} M_i/ℓ⌉,   a = Σ_{i∈Σ} M_i − (M − 1)ℓ,   m = a(ℓ − a) + 1,
    λ = (r(n_0 + n_L) − r²)/2 + a(ℓ − a)/(4ℓ) − (ℓ − 1)/(4ℓ)·(Σ_{i∈Σ} M_i)² + ½·Σ_{i<j∈Σ} M_i M_j

That is the least over all θ with this matrix. It is taken where layers carry r modes and nothing else, the point that
small starts come near: every other θ with the same matrix is moved there by rotations and rescalings of the hidden
spaces, and λ can only fall in a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction


def learning_coefficient(dims: Sequence[int], rank: int) -> tuple[Fraction, int]:
    """λ and its multiplicity m, exactly.

    Args:
        dims: widths (n_0, …, n_L) of inputs, hidden spaces and outputs, L ≥ 1.
        rank: r of the matrix, from 0 to the least width.

    Raises:
        ValueError: for a rank that these widths do not allow, or fewer than two widths.
    """
    if len(dims) < 2 or not 0 <= rank <= min(dims):
        raise ValueError(f"rank {rank} of widths {tuple(dims)}")
    room = sorted(int(n) - rank for n in dims)
    # How far the largest of the first ℓ + 1 stays below their sum over ℓ never grows with ℓ: the last ℓ is the set.
    last = max(k for k in range(1, len(room)) if sum(room[: k + 1]) >= k * room[k])
    chosen = room[: last + 1]
    total = sum(chosen)
    a = total - (-(-total // last) - 1) * last
    pairs = total**2 - sum(m * m for m in chosen)
    value = (
        Fraction(rank * (int(dims[0]) + int(dims[-1])) - rank**2, 2)
        + Fraction(a * (last - a), 4 * last)
        - Fraction((last - 1) * total**2, 4 * last)
        + Fraction(pairs, 4)
    )
    return value, a * (last - a) + 1

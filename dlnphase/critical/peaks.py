"""Peaks of a sequence and their topographic prominence, in one pass."""

from __future__ import annotations

import numpy as np


def peaks(values: np.ndarray, min_prominence: float) -> tuple[np.ndarray, np.ndarray]:
    """Local maxima that stand out, in order.

    A plateau counts once, at its middle; the two ends of the sequence are no peaks. The prominence of a peak is its
    height above the higher of its two bases, the least values on either side up to where the sequence rises above it.

    Args:
        values: shape (T,).
        min_prominence: peaks that stand out by less are left out.

    Returns:
        Their indices and their prominences.
    """
    edges = np.flatnonzero(np.diff(values)) + 1  # where runs of equal values begin
    first, last = np.concatenate([[0], edges]), np.concatenate([edges, [len(values)]]) - 1
    runs = values[first]
    rising = np.diff(runs) > 0
    tops = np.flatnonzero(rising[:-1] & ~rising[1:]) + 1
    bottoms = np.flatnonzero(~rising[:-1] & rising[1:]) + 1
    turns = np.sort(np.concatenate([[0], tops, bottoms, [len(runs) - 1]]))  # between them the sequence is monotone
    bases = np.maximum(_left_base(runs[turns]), _left_base(runs[turns][::-1])[::-1])
    prominence = (runs[turns] - bases)[np.isin(turns, tops)]
    kept = prominence >= min_prominence
    return ((first + last) // 2)[tops][kept], prominence[kept]


def _left_base(values: np.ndarray) -> np.ndarray:
    """The least value to the left of each, back to the nearest larger one (itself included)."""
    out = np.empty(len(values))
    higher: list[tuple[float, float]] = []  # (value, least since the one before), values falling
    for i, value in enumerate(values.tolist()):
        least = value
        while higher and higher[-1][0] <= value:
            least = min(least, higher.pop()[1])
        higher.append((value, least))
        out[i] = least
    return out

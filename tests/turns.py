"""Random rotations of the spaces between layers, under which nothing that is measured may change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dlnphase.backend import Backend, stream


def random_rotations(
    dims: Sequence[int], backend: Backend, *, seed: int = 0, ends: bool = False
) -> list[torch.Tensor | None]:
    """Haar-random rotations O_0, …, O_L of the hidden spaces (and of the ends, if asked), each (n_l, n_l)."""
    rng = stream(seed, "search")
    out: list[torch.Tensor | None] = []
    for index, n in enumerate(dims):
        if index in (0, len(dims) - 1) and not ends:
            out.append(None)
            continue
        q, r = np.linalg.qr(rng.standard_normal((n, n)))
        out.append(backend.tensor(q * np.where(np.diag(r) < 0, -1.0, 1.0)))
    return out

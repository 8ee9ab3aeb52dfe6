"""A recorded path: the .npz that ``dlnphase.Recorder`` writes, or anybody's with the same arrays."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from dlnphase.errors import InputError
from dlnphase.findings import counted
from dlnphase.results.files import read_npz
from dlnphase.results.tabular import Tabular

WORDS = frozenset({"optimizer", "not_flow"})  # arrays that hold text


@dataclass(frozen=True, repr=False)
class Recording(Tabular):
    """A path by its records.

    Attributes:
        t: times, (T,).
        step: training steps, (T,).
        A: end-to-end matrices W_L ⋯ W_1, (T, d_out, d_in).
        layers: W_1, …, W_L, each (T, n_l, n_{l-1}); None where only the matrices were kept.
        optimizer: what trained it, such as ``SGD``; "" where nobody says.
        not_flow: why its path is not that of gradient flow, such as ``momentum 0.9``; "" where nothing speaks against.
    """

    t: np.ndarray
    step: np.ndarray
    A: np.ndarray
    layers: tuple[np.ndarray, ...] | None
    optimizer: str = ""
    not_flow: str = ""

    def headline(self) -> str:
        """``1000 steps of SGD in 93 records, 6×5, L = 3``."""
        rows, columns = self.A.shape[1:]
        depth = f", L = {len(self.layers)}" if self.layers is not None else ""
        steps = counted(int(self.step[-1]), "step") + (f" of {self.optimizer}" if self.optimizer else "")
        return f"{steps} in {counted(len(self.t), 'record')}, {rows}×{columns}{depth}"

    def columns(self) -> dict[str, np.ndarray]:
        """A row per record: t, step and the singular values s1, s2, … of A."""
        values = np.linalg.svd(self.A.astype(float), compute_uv=False)
        return {"t": self.t, "step": self.step, **{f"s{k + 1}": values[:, k] for k in range(values.shape[1])}}


def load_recording(source: Path | str, what: str = "") -> Recording:
    """Read a recorded path.

    Args:
        what: who asks, for messages.

    Raises:
        InputError: when it cannot be read, or holds no such arrays.
    """
    path = Path(source)
    where = f"{what}: {path}" if what else str(path)
    arrays = read_npz(path, what, words=WORDS)
    names = sorted((n for n in arrays if re.fullmatch(r"W[1-9][0-9]{0,3}", n)), key=lambda n: int(n[1:]))
    if "t" not in arrays or not (names or "A" in arrays) or "member" in arrays:
        found = ", ".join(list(arrays)[:6]) or "nothing"
        raise InputError(
            f"{where}: found {found}; expected the directory of a result, or the arrays of a recorded path: t and "
            "W1 … WL, or t and A"
        )
    t = arrays["t"]
    step = arrays.get("step", np.arange(t.size))
    stacks = [arrays[name] for name in names] or [arrays["A"]]
    fits = all(a.shape[1] == b.shape[2] for a, b in pairwise(stacks) if a.ndim == b.ndim == 3)
    if t.ndim != 1 or not t.size or step.shape != t.shape or not fits:
        raise InputError(f"{where}: t, step and layers do not fit together, expected a record for each time")
    if any(stack.ndim != 3 or len(stack) != t.size for stack in stacks):
        raise InputError(f"{where}: expected {t.size} records x rows x columns like t, found {stacks[0].shape}")
    matrices = stacks[0]
    for stack in stacks[1:]:
        matrices = stack @ matrices
    return Recording(t, step, matrices, tuple(stacks) if names else None, *_words(arrays))


def _words(arrays: dict[str, np.ndarray]) -> tuple[str, str]:
    """What a recorder says of the optimizer."""
    optimizer, not_flow = (str(arrays[name]) if name in arrays else "" for name in ("optimizer", "not_flow"))
    return optimizer, not_flow

"""What was looked at along a path besides A: observed.npz, as a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dlnphase.errors import InputError
from dlnphase.observables import ARRAYS
from dlnphase.results.files import read_npz
from dlnphase.results.tabular import Tabular

OBSERVED_FILE = "observed.npz"
HEAD = ("member", "t", "step")


@dataclass(frozen=True, repr=False)
class Observed(Tabular):
    """Some records of a path, R rows; with several members their rows follow each other.

    Attributes:
        member: which initialisation a row belongs to, shape (R,).
        t, step: time and steps, shape (R,).
        values: by name, each of shape (R, …): the arrays of :data:`dlnphase.observables.ARRAYS`, and ``W1`` … ``WL``.
    """

    member: np.ndarray
    t: np.ndarray
    step: np.ndarray
    values: Mapping[str, np.ndarray] = field(default_factory=dict)

    def headline(self) -> str:
        """``sharpness, layer_norms at 42 records``."""
        return f"{', '.join(self.values)} at {len(self.t)} records"

    def columns(self) -> dict[str, np.ndarray]:
        """A row per record: member, t, step and every number of the arrays with at most one axis more."""
        out = {name: getattr(self, name) for name in HEAD}
        for name, values in self.values.items():
            if values.ndim == 1:
                out[name] = values
            elif values.ndim == 2:
                out |= {f"{name}_{k + 1}": column for k, column in enumerate(values.T)}
        return out

    def rows_of(self, member: int) -> np.ndarray:
        """Indices of the rows of one member, in order of time."""
        return np.flatnonzero(self.member == member)

    def arrays(self) -> dict[str, np.ndarray]:
        """What observed.npz holds, by name."""
        return {name: getattr(self, name) for name in HEAD} | dict(self.values)

    @classmethod
    def joined(cls, parts: Sequence[Observed]) -> Observed:
        """The rows of several members after each other."""
        head = {name: np.concatenate([getattr(part, name) for part in parts]) for name in HEAD}
        return cls(**head, values={n: np.concatenate([part.values[n] for part in parts]) for n in parts[0].values})

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], where: str) -> Observed:
        """Check and assemble; InputError naming the array that is missing or of the wrong shape."""
        for name in HEAD:
            if name not in arrays:
                raise InputError(f"{where}: {name} is missing, expected what dlnphase looked at along a path")
        rows = len(arrays["t"]) if arrays["t"].ndim == 1 else -1
        for name, array in arrays.items():
            scalar = name in HEAD or (name in ARRAYS and ARRAYS[name].words.startswith("():"))
            if array.ndim == 0 or len(array) != rows or (scalar and array.ndim != 1):
                raise InputError(f"{where}: {name} has shape {array.shape}, expected {rows} records in front")
            if array.dtype.kind not in ("iu" if name in ("member", "step") else "f"):
                raise InputError(f"{where}: {name} holds {array.dtype}, expected numbers of its own kind")
        values = {name: array for name, array in arrays.items() if name not in HEAD}
        return cls(arrays["member"], arrays["t"], arrays["step"], values)


def read_observed(directory: Path, files: Mapping[str, str]) -> Observed | None:
    """What was looked at, of a result with these files in this directory; None where it is not there."""
    path = directory / files.get("observed", OBSERVED_FILE)
    return Observed.from_arrays(read_npz(path), str(path)) if "observed" in files and path.exists() else None

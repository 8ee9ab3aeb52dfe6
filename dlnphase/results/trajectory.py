"""What a run recorded: trajectory.npz, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dlnphase.errors import InputError
from dlnphase.results.files import in_range


@dataclass(frozen=True, repr=False)
class Trajectory:
    """What was recorded, T rows; with several members their rows follow each other.

    Attributes:
        member: which initialisation a row belongs to, shape (T,).
        t, step: time and accepted steps, shape (T,).
        cost, excess: C(A) and C(A) − C_min, shape (T,).
        test_cost: cost on what training does not see, shape (T,); NaN where there is none.
        gradient_norm: ‖∇𝓛(θ)‖, shape (T,).
        singular_values: of A, largest first, shape (T, min(d_out, d_in)).
        A: end-to-end matrices, shape (T, d_out, d_in).
        weights: layers at some of the rows, each of shape (V, n_l, n_{l-1}).
        weights_index: the rows the weights belong to, shape (V,).
        accuracy, test_accuracy: shares of right answers, shape (T,); None for a cost that knows none.
        penalty: (λ/2)‖θ‖², shape (T,); None without weight decay.
        between: the largest ‖∇𝓛‖ of the records after each row that were let go because their matrices take too much
            room, 0 where there is none, shape (T,); None where every record is a row.
    """

    member: np.ndarray
    t: np.ndarray
    step: np.ndarray
    cost: np.ndarray
    excess: np.ndarray
    test_cost: np.ndarray
    gradient_norm: np.ndarray
    singular_values: np.ndarray
    A: np.ndarray
    weights: tuple[np.ndarray, ...]
    weights_index: np.ndarray
    accuracy: np.ndarray | None = None
    test_accuracy: np.ndarray | None = None
    penalty: np.ndarray | None = None
    between: np.ndarray | None = None

    SHARES: ClassVar[tuple[str, ...]] = ("accuracy", "test_accuracy")
    OPTIONAL: ClassVar[tuple[str, ...]] = (*SHARES, "penalty", "between")
    ROWS: ClassVar[tuple[str, ...]] = ("member", "t", "step", "cost", "excess", "test_cost", "gradient_norm")

    def __repr__(self) -> str:
        starts = len(np.unique(self.member))
        last = f", t up to {self.t.max():.4g}" if self.t.size else ""
        kept = f"{len(self.weights)} layers at {len(self.weights_index)} of them"
        shape = "×".join(map(str, self.A.shape[1:]))
        return f"<Trajectory: {len(self.t)} records of {starts} start{'s' * (starts != 1)}{last}, A {shape}, {kept}>"

    def arrays(self) -> dict[str, np.ndarray]:
        """What trajectory.npz holds, by name."""
        out = {name: getattr(self, name) for name in (*self.ROWS, "singular_values", "A", "weights_index")}
        out |= {name: values for name in self.OPTIONAL if (values := getattr(self, name)) is not None}
        return out | {f"W{k}": layer for k, layer in enumerate(self.weights, 1)}

    def rows_of(self, member: int) -> np.ndarray:
        """Indices of the rows of one member, in order of time."""
        return np.flatnonzero(self.member == member)

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], where: str) -> Trajectory:
        """Check and assemble; InputError naming the array that is missing or of the wrong shape."""
        for name in (*cls.ROWS, "singular_values", "A", "weights_index", "W1", "W2"):
            if name not in arrays:
                raise InputError(f"{where}: {name} is missing, expected a trajectory of dlnphase")
        rows = arrays["t"].shape[0] if arrays["t"].ndim == 1 else -1
        d_out, d_in = arrays["A"].shape[-2:] if arrays["A"].ndim == 3 else (0, 0)
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(cls.ROWS, (rows,))
        shapes |= {"A": (rows, d_out, d_in), "singular_values": (rows, min(d_out, d_in))}
        shapes |= {name: (rows,) for name in cls.OPTIONAL if name in arrays}
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise InputError(f"{where}: {name} has shape {arrays[name].shape}, expected {shape}")
            if arrays[name].dtype.kind not in ("iu" if name in ("member", "step") else "f"):
                raise InputError(f"{where}: {name} holds {arrays[name].dtype}, expected numbers of its own kind")
            if name != "test_cost" and not np.isfinite(arrays[name]).all():
                raise InputError(f"{where}: entries of {name} are not finite numbers")
        in_range(arrays["A"], f"{where}: A")
        in_range(arrays["singular_values"], f"{where}: singular_values")
        for member in np.unique(arrays["member"]):
            if (np.diff(arrays["t"][arrays["member"] == member]) < 0).any():
                raise InputError(f"{where}: t goes backwards, expected times in increasing order")
        index = arrays["weights_index"]
        count = sum(1 for k in range(1, len(arrays) + 1) if f"W{k}" in arrays)
        weights = tuple(arrays[f"W{k}"] for k in range(1, count + 1) if f"W{k}" in arrays)
        if len(weights) != count or any(w.ndim != 3 or len(w) != len(index) for w in weights):
            raise InputError(f"{where}: W1 … W{count} do not hold {len(index)} networks each")
        if (
            index.ndim != 1
            or index.dtype.kind not in "iu"
            or (len(index) and not (0 <= index.min() <= index.max() < rows))
        ):
            raise InputError(f"{where}: weights_index does not point into the {rows} rows")
        values = {name: arrays[name] for name in (*cls.ROWS, "singular_values", "A", *cls.OPTIONAL) if name in arrays}
        return cls(**values, weights=weights, weights_index=index)

"""Samples with classes from a user's file: an .npz, or text with a column of labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dlnphase.errors import InputError
from dlnphase.results.files import in_range, read_npz
from dlnphase.results.matrixfile import read_matrix_text
from dlnphase.setup.inputs import TEXT, array_names, own_precision


@dataclass(frozen=True)
class Labelled:
    """Samples and their classes.

    Attributes:
        x, y: inputs (N, d_in) and classes 0 … k − 1 (N,).
        classes: what the file calls them.
        test: the same of held-out samples, or None.
        columns: names of the inputs, or ().
        notes: what was left out of the file.
    """

    x: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]
    test: tuple[np.ndarray, np.ndarray] | None = None
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_labelled(
    path: str | Path, *, label_column: str | None = None, header: bool | None = None, index_column: str | None = None
) -> Labelled:
    """Samples with classes.

    An .npz holds ``X`` (N × d_in) and ``y`` (or ``Y``): a class each (N,), or one column a class with a single 1 in
    each row (N × k); ``X_test`` and ``y_test`` (or ``Y_test``) if there are any. Text has a sample a line, and the
    label in the column that ``label_column`` says; any words will do as labels. Columns that only number or name the
    samples are left out, those of ``index_column`` or what is told from the file.

    Raises:
        InputError: when something is missing, does not fit, or there are fewer than two classes.
    """
    path = Path(path)
    where = f"data: {path}"
    if path.suffix.lower() in TEXT:
        return _from_text(path, where, label_column, header, index_column)
    for name, value in (("label-column", label_column), ("header", header), ("index-column", index_column)):
        if value is not None:
            raise InputError(f"{name}: found beside {path.name}, expected only with {', '.join(TEXT)}")
    arrays = read_npz(path, "data")
    x = _inputs(arrays, "X", where)
    raw = _raw(arrays, ("y", "Y"), where, len(x))
    names = np.unique(raw)
    if "X_test" not in arrays and "y_test" not in arrays and "Y_test" not in arrays:
        test = None
    else:
        x_test = _inputs(arrays, "X_test", where)
        if x_test.shape[1] != x.shape[1]:
            raise InputError(f"{where}: X_test has {x_test.shape[1]} columns and X has {x.shape[1]}, expected as many")
        test = (x_test, _classes(_raw(arrays, ("y_test", "Y_test"), where, len(x_test)), names, where))
    return Labelled(x, _classes(raw, names, where), tuple(str(n) for n in names), test)


def _from_text(
    path: Path, where: str, label_column: str | None, header: bool | None, index_column: str | None
) -> Labelled:
    if label_column is None:
        raise InputError(f"{where}: found text without --label-column, expected the column that holds the classes")
    if "," in label_column or label_column == "none":
        raise InputError(f"label-column: found {label_column}, expected one column")
    table = read_matrix_text(path, where, header=header, index_column=index_column, label_column=label_column)
    if np.isnan(table.values).any():
        row, column = np.argwhere(np.isnan(table.values))[0]
        raise InputError(f"{where}: sample {row + 1} has a gap in input {column + 1}, expected a number")
    in_range(table.values, where)
    names = np.unique(np.array(table.rows))
    if all(name.lstrip("+-").isdecimal() for name in names):
        names = names[np.argsort(names.astype(int))]
    index = {str(name): k for k, name in enumerate(names)}
    if len(names) < 2:
        raise InputError(f"{where}: column {label_column} holds {names[0]} alone, expected at least two classes")
    y = np.array([index[row] for row in table.rows])
    return Labelled(table.values, y, tuple(str(n) for n in names), columns=table.columns, notes=table.notes)


def _inputs(arrays: dict[str, np.ndarray], name: str, where: str) -> np.ndarray:
    if name not in arrays:
        raise InputError(f"{where}: found {array_names(arrays)}, expected inputs {name} (N x d_in)")
    x = arrays[name]
    if x.ndim != 2 or 0 in x.shape or x.dtype.kind not in "fiub":
        raise InputError(f"{where}: {name} holds {x.dtype} of shape {x.shape}, expected numbers N x d_in")
    in_range(x, f"{where}: {name}")
    return own_precision(x)


def _raw(arrays: dict[str, np.ndarray], names: tuple[str, str], where: str, count: int) -> np.ndarray:
    """Labels as the file has them, shape (N,): whole numbers or words."""
    there = [name for name in names if name in arrays]
    if len(there) != 1:
        found = " and ".join(there) or array_names(arrays)
        raise InputError(f"{where}: found {found}, expected classes {names[0]} (or {names[1]})")
    name, y = there[0], arrays[there[0]]
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and y.dtype.kind in "fiub":
        if not (np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all()):
            raise InputError(
                f"{where}: {name} has shape {y.shape}, expected whole numbers (N), or rows with a single 1"
            )
        y = y.argmax(1)
    if y.ndim == 1 and y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.round(y)).all():
        y = y.astype(np.int64)
    if y.ndim != 1 or y.dtype.kind not in "iubU" or len(y) != count:
        raise InputError(
            f"{where}: {name} holds {y.dtype} of shape {y.shape}, expected a class for each of {count} rows"
        )
    return y


def _classes(raw: np.ndarray, names: np.ndarray, where: str) -> np.ndarray:
    """Numbers of the classes among ``names``."""
    if len(names) < 2:
        raise InputError(f"{where}: y holds {names[0]} alone, expected at least two classes")
    strange = np.setdiff1d(raw, names)
    if strange.size:
        raise InputError(f"{where}: y_test has the class {strange[0]}, which y has not")
    return np.searchsorted(names, raw)

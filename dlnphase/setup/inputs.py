"""The user's files: a matrix, data for a regression, initial weights. Nothing is ever unpickled.

Every problem is one InputError that names the file, says what was found and what is expected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from dlnphase.errors import InputError
from dlnphase.findings import counted
from dlnphase.results.files import MAX_ARRAY_BYTES, check_npy_header, first_line, in_range, numeric, read_npz
from dlnphase.results.matrixfile import MatrixTable, read_matrix_text
from dlnphase.results.yamlfile import regular_file
from dlnphase.setup.states import read_state

TEXT = (".csv", ".tsv", ".txt")  # suffixes of a matrix as text


def read_matrix(
    path: str | Path, option: str = "target", *, header: bool | None = None, index_column: str | None = None
) -> MatrixTable:
    """A matrix of shape (d_out, d_in) from .npy, .npz or .csv; NaN marks entries that are not observed.

    An .npz must hold one matrix, or one called ``A``, ``target`` or ``matrix``. A text file may have names of columns
    and labels of rows (:mod:`dlnphase.results.matrixfile`); empty cells (or ``nan``, ``NA``, ``?``) are not observed;
    comma, semicolon, tab or blanks separate. Numbers stay in float16 or float32 where they were saved so.

    Args:
        header, index_column: of a text file, as of the settings; None tells it from the file.

    Raises:
        InputError: when it cannot be read, is not a matrix of real numbers, or holds no number at all.
    """
    path = Path(path)
    where = f"{option}: {path}"
    suffix = path.suffix.lower()
    regular_file(path, where)
    if suffix in TEXT:
        table = read_matrix_text(path, where, header=header, index_column=index_column)
    elif header is not None or index_column is not None:
        name = "header" if header is not None else "index-column"
        raise InputError(f"{name}: found beside {path.name}, expected only with {', '.join(TEXT)}")
    elif suffix == ".npy":
        table = MatrixTable(_read_npy(path, where))
    elif suffix == ".npz":
        table = MatrixTable(_only_matrix(read_npz(path, option), where))
    else:
        sheet = " (save the sheet as CSV)" if suffix in (".xlsx", ".xls", ".ods") else ""
        raise InputError(f"{where}: found the suffix {suffix or '(none)'}, expected .npy, .npz or .csv{sheet}")
    return replace(table, values=_check_matrix(table.values, where))


def read_regression(path: str | Path, option: str = "data") -> dict[str, np.ndarray]:
    """Inputs X (N, d_in) and outputs Y (N, d_out) from an .npz, with ``X_test`` and ``Y_test`` if they are there.

    Numbers stay in float16 or float32 where they were saved so.

    Raises:
        InputError: when X or Y is missing, lengths differ, or a number is not finite.
    """
    path = Path(path)
    where = f"{option}: {path}"
    if path.suffix.lower() in TEXT:
        raise InputError(
            f"{where}: found text, which is read for classification (--label-column) alone, expected an .npz with X "
            "(N x d_in) and Y (N x d_out) for a regression"
        )
    arrays = read_npz(path, option)
    for name in ("X", "Y"):
        if name not in arrays:
            raise InputError(f"{where}: found {array_names(arrays)}, expected arrays X (N x d_in) and Y (N x d_out)")
    if ("X_test" in arrays) != ("Y_test" in arrays):
        raise InputError(f"{where}: found only one of X_test and Y_test, expected both or none")
    names = [name for name in ("X", "Y", "X_test", "Y_test") if name in arrays]
    out: dict[str, np.ndarray] = {name: own_precision(arrays[name]) for name in names}
    for name, array in out.items():
        if array.ndim == 1:
            array = out[name] = array[:, None]
        if array.ndim != 2 or 0 in array.shape:
            raise InputError(f"{where}: {name} has shape {array.shape}, expected two dimensions, none of them empty")
        in_range(array, f"{where}: {name}")
    for x, y in (("X", "Y"), ("X_test", "Y_test")):
        if x in out and len(out[x]) != len(out[y]):
            raise InputError(
                f"{where}: {x} has {counted(len(out[x]), 'row')} and {y} has {len(out[y])}, expected as many"
            )
    if "X_test" in out and (out["X_test"].shape[1] != out["X"].shape[1] or out["Y_test"].shape[1] != out["Y"].shape[1]):
        raise InputError(f"{where}: X_test and Y_test have other columns than X and Y, expected the same")
    return out


def read_weights(path: str | Path, option: str = "init-weights") -> list[np.ndarray]:
    """Layers W_1, …, W_L, each of shape (B, n_l, n_{l-1}), from an .npz or a checkpoint.

    An .npz holds ``W1`` … ``WL``, matrices or batches of them. Any other file is a state dict, a checkpoint that holds
    one, or safetensors (:func:`dlnphase.setup.states.read_state`).

    Raises:
        InputError: when layers are missing, do not chain, or hold anything but finite numbers.
    """
    path = Path(path)
    where = f"{option}: {path}"
    regular_file(path, where)
    if path.suffix.lower() == ".npz":
        named = _numbered_layers(read_npz(path, option), where)
    else:
        named = list(read_state(path, where).layers)
    return _check_chain(named, where)


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} EiB"


# ---- matrices --------------------------------------------------------------------------------------


def _read_npy(path: Path, where: str) -> np.ndarray:
    try:
        size = path.stat().st_size
        if size > MAX_ARRAY_BYTES:
            raise InputError(f"{where}: found {_size(size)}, expected at most {_size(MAX_ARRAY_BYTES)}")
        with path.open("rb") as stream:
            check_npy_header(stream, size, where)
        return np.load(path, allow_pickle=False)
    except InputError:
        raise
    except Exception as error:  # NumPy raises many kinds for a damaged file
        raise InputError(f"{where}: not a readable .npy file of plain numbers ({first_line(error)})") from None


def _only_matrix(arrays: Mapping[str, np.ndarray], where: str) -> np.ndarray:
    for name in ("A", "target", "matrix"):
        if name in arrays:
            return arrays[name]
    if len(arrays) != 1:
        raise InputError(
            f"{where}: found {array_names(arrays)}, expected one matrix, or one called A, target or matrix"
        )
    return next(iter(arrays.values()))


def _check_matrix(matrix: np.ndarray, where: str) -> np.ndarray:
    numeric(matrix, where)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(f"{where}: found an array of shape {matrix.shape}, expected a matrix d_out x d_in")
    matrix = own_precision(matrix)
    if np.isinf(matrix).any():
        infinite = counted(int(np.isinf(matrix).sum()), "entry")
        raise InputError(f"{where}: {infinite} not finite, expected numbers or NaN for gaps")
    if np.isnan(matrix).all():
        raise InputError(f"{where}: every entry is NaN or empty, expected at least one number")
    in_range(matrix[~np.isnan(matrix)], where)
    return matrix


def own_precision(array: np.ndarray) -> np.ndarray:
    """Numbers in the floating type they were saved in, which tells how far they can be trusted; others in float64."""
    return array if array.dtype in (np.float16, np.float32) else array.astype(float)


# ---- weights ---------------------------------------------------------------------------------------


def _numbered_layers(arrays: Mapping[str, np.ndarray], where: str) -> list[tuple[str, np.ndarray]]:
    numbered = {}
    for name, array in arrays.items():
        if match := re.fullmatch(r"W([1-9][0-9]{0,3})", name):
            numbered[int(match[1])] = (name, array)
    count = len(numbered)
    if not count or sorted(numbered) != list(range(1, count + 1)):
        raise InputError(f"{where}: found {array_names(arrays)}, expected W1, W2, … WL without a gap")
    return [numbered[k] for k in range(1, count + 1)]


def _check_chain(named: list[tuple[str, np.ndarray]], where: str) -> list[np.ndarray]:
    if len(named) < 2:
        raise InputError(f"{where}: found {len(named)} layer, expected at least 2")
    layers: list[np.ndarray] = []
    for name, array in named:
        layer = array.astype(float)
        if layer.ndim == 2:
            layer = layer[None]
        if layer.ndim != 3 or 0 in layer.shape:
            raise InputError(f"{where}: {name} has shape {array.shape}, expected n_l x n_(l-1), or a batch of these")
        in_range(layer, f"{where}: {name}")
        if layers and layer.shape[2] != layers[-1].shape[1]:
            raise InputError(
                f"{where}: {name} takes {layer.shape[2]} inputs, the layer below gives {layers[-1].shape[1]}"
            )
        if layers and layer.shape[0] != layers[0].shape[0]:
            raise InputError(f"{where}: {name} holds {layer.shape[0]} networks, the first layer {layers[0].shape[0]}")
        layers.append(layer)
    return layers


def array_names(arrays: Mapping[str, np.ndarray]) -> str:
    """The first names of what a file holds, for a message."""
    listed = ", ".join(list(arrays)[:6])
    return (listed or "no array") + (", …" if len(arrays) > 6 else "")

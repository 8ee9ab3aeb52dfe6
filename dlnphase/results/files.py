"""Arrays as .npz files that are never unpickled, and a bound on what a user's file may claim to hold."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from dlnphase.errors import InputError
from dlnphase.findings import counted
from dlnphase.results.yamlfile import regular_file

MAX_ARRAY_BYTES = 8 * 2**30  # arrays of a user's file beyond this are refused before they are read
BOMB_BYTES, BOMB_RATIO = 64 * 2**20, 200  # unpacked size, and growth on the way there, that are taken for an attack
LARGEST = 1e150  # entries beyond this have squares that no float holds


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as an .npz file; the same arrays give the same bytes."""
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"{name}: arrays of objects cannot be written")
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **dict(arrays))
    return buffer.getvalue()


def write_rows(stream: IO[bytes], arrays: Mapping[str, np.ndarray | Sequence[np.ndarray]]) -> None:
    """Write an .npz whose arrays may be given as lists of their rows, without putting those together in memory first.

    Args:
        stream: a binary file that can seek.
        arrays: by name; the rows of a list have one shape.
    """
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, value in arrays.items():
            rows = [value] if isinstance(value, np.ndarray) else value
            dtype = np.result_type(*{row.dtype for row in rows})
            shape = value.shape if isinstance(value, np.ndarray) else (len(rows), *rows[0].shape)
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                np.lib.format.write_array_header_1_0(out, header)
                for row in rows:
                    out.write(np.ascontiguousarray(row, dtype).reshape(-1).view(np.uint8).data)


def read_npz(path: Path, what: str = "", *, words: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Numeric arrays of an .npz file, by name; pickled objects are refused, never executed.

    Args:
        what: the option that named the file, for error messages.
        words: arrays to keep that hold one text each; others of that kind are left out.

    Raises:
        InputError: when it is missing, damaged, too large, or holds anything but numbers.
    """
    name = f"{what}: {path}" if what else str(path)
    regular_file(path, name)
    try:
        _check_sizes(path, name)
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError(f"{name}: found a single array, expected an .npz file of named arrays")
            arrays = {key: archive[key] for key in archive.files}
            arrays = {key: array for key, array in arrays.items() if key in words or not _is_text(array)}
    except InputError:
        raise
    except Exception as error:  # NumPy and zipfile raise many kinds for a damaged file
        raise InputError(f"{name}: not a readable .npz file of plain arrays ({first_line(error)})") from None
    for key, array in arrays.items():
        if not (key in words and _is_text(array)):
            numeric(array, f"{name}: {key}")
    return arrays


def _check_sizes(path: Path, name: str) -> None:
    """Refuse archives that claim more than MAX_ARRAY_BYTES, or blow up when unpacked, before anything is unpacked."""
    with zipfile.ZipFile(path) as archive:
        claimed = sum(member.file_size for member in archive.infolist())
        if claimed > MAX_ARRAY_BYTES:
            limit = MAX_ARRAY_BYTES // 2**30
            raise InputError(f"{name}: its arrays claim {claimed / 2**30:.3g} GiB, expected at most {limit} GiB")
        for member in archive.infolist():
            if member.file_size > max(BOMB_BYTES, BOMB_RATIO * member.compress_size):
                raise InputError(
                    f"{name}: {member.filename} blows up from {member.compress_size / 2**10:.0f} KiB to "
                    f"{member.file_size / 2**20:.0f} MiB, expected at most {BOMB_RATIO} times as much"
                )
            if member.filename.endswith(".npy"):
                with archive.open(member) as stream:
                    check_npy_header(stream, member.file_size, f"{name}: {member.filename}")


def check_npy_header(stream: Any, size: int, name: str) -> None:
    """Refuse an .npy stream whose header promises more data than the file holds (it would be allocated first)."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise InputError(f"{name}: found pickled objects, expected an array of numbers")
    count = 1
    for n in shape:
        count *= int(n)
    if any(n < 0 for n in shape) or count * dtype.itemsize > size:
        raise InputError(f"{name}: the header promises shape {shape}, more than the {size} bytes of the file")


def numeric(array: np.ndarray, name: str) -> np.ndarray:
    """The array itself if it holds real numbers; InputError otherwise."""
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name}: found an array of {array.dtype}, expected real numbers")
    return array


def _is_text(array: np.ndarray) -> bool:
    return array.dtype.kind == "U" and array.ndim == 0


def in_range(array: np.ndarray, name: str) -> np.ndarray:
    """The array itself if its entries are finite and can be squared; InputError otherwise."""
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise InputError(f"{name}: {counted(bad, 'entry')} not finite, expected numbers")
    largest = float(np.abs(array).max(initial=0.0))
    if largest > LARGEST:
        raise InputError(f"{name}: entries of up to {largest:.3g}, expected at most {LARGEST:g}")
    return array


def first_line(error: BaseException) -> str:
    """The first line of what an error says, as far as a message has room for it."""
    text = str(error).strip().splitlines()
    return text[0][:120] if text else type(error).__name__

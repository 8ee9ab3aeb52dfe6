"""Files that are never seen half-written, and arrays that are never unpickled.

A file is written under a temporary name in its own directory, flushed to the disk and renamed. A set of files that
belong together is committed with its main file last: the old main file goes first and the new one comes last, so that
no reader, and no kill at any moment, ever meets a main file beside parts of another run.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dlnphase.errors import InputError, RunError

MAX_ARRAY_BYTES = 8 * 2**30  # arrays of a user's file beyond this are refused before they are read


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write one file so that readers see the old one or the new one, never a part.

    Raises:
        RunError: when the disk is full, or the directory cannot be written; what was there stays.
    """
    commit(path.parent, {path.name: data}, main=path.name)


def commit(directory: Path, files: Mapping[str, str | bytes], *, main: str) -> None:
    """Write a set of files as one: all under temporary names first, then renamed, the main one last.

    Args:
        files: name → content.
        main: the file by which readers tell that a result is there.

    Raises:
        RunError: when one of them cannot be written; then none of the old ones is touched.
    """
    staged: dict[str, str] = {}
    try:
        for name, data in files.items():
            staged[name] = _stage(directory, name, data.encode() if isinstance(data, str) else data)
        if len(staged) > 1:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(directory / main)
        for name in sorted(staged, key=lambda n: n == main):
            os.replace(staged[name], directory / name)
            del staged[name]
        _sync_directory(directory)
    except OSError as error:
        why = error.strerror or error
        raise RunError(f"{directory / main}: cannot be written ({why}); what was there is kept") from error
    finally:
        for temporary in staged.values():
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _stage(directory: Path, name: str, data: bytes) -> str:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=directory)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return temporary


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_directory(directory: Path) -> None:
    """Make the renames last through a power cut, where the system allows it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as an .npz file; the same arrays give the same bytes."""
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"{name}: arrays of objects cannot be written")
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **dict(arrays))
    return buffer.getvalue()


def read_npz(path: Path, what: str = "") -> dict[str, np.ndarray]:
    """Numeric arrays of an .npz file, by name; pickled objects are refused, never executed.

    Args:
        what: the option that named the file, for error messages.

    Raises:
        InputError: when it is missing, damaged, too large, or holds anything but numbers.
    """
    name = f"{what}: {path}" if what else str(path)
    if not path.exists():
        raise InputError(f"{name}: no such file")
    try:
        _check_sizes(path, name)
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError(f"{name}: found a single array, expected an .npz file of named arrays")
            arrays = {key: archive[key] for key in archive.files}
    except InputError:
        raise
    except Exception as error:  # NumPy and zipfile raise many kinds for a damaged file
        raise InputError(f"{name}: not a readable .npz file of plain arrays ({_first_line(error)})") from None
    for key, array in arrays.items():
        numeric(array, f"{name}: {key}")
    return arrays


def _check_sizes(path: Path, name: str) -> None:
    """Refuse archives whose members claim more than MAX_ARRAY_BYTES before anything is unpacked."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.file_size > MAX_ARRAY_BYTES:
                claimed, limit = member.file_size / 2**30, MAX_ARRAY_BYTES // 2**30
                raise InputError(f"{name}: {member.filename} claims {claimed:.0f} GiB, expected at most {limit} GiB")
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


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:120] if text else type(error).__name__

"""Where numbers live (device, dtype, threads) and where randomness comes from.

Every random draw is made by a NumPy generator on the CPU in float64 and only then moved,
so that a CPU and a CUDA run start from the same numbers. Global seeds are never read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch

from dlnphase.errors import InputError

DTYPES = {"float64": torch.float64, "float32": torch.float32}

# One stream per purpose. The numbers are part of every result ever written: append, never renumber.
STREAMS = {
    "weights": 0,
    "task": 1,
    "noise": 2,
    "lanczos": 3,
    "search": 4,
    "bootstrap": 5,
    "held-out": 6,
    "null": 7,
    "batches": 8,
    "label-noise": 9,
}


@dataclass(frozen=True)
class Backend:
    """A device and a dtype, resolved once and handed down.

    Attributes:
        device: torch device all tensors of a run live on.
        dtype: torch floating dtype of a run.
    """

    device: torch.device
    dtype: torch.dtype

    @property
    def dtype_name(self) -> str:
        """``float64`` or ``float32``."""
        return str(self.dtype).removeprefix("torch.")

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """Move a host array onto the device in the run's dtype."""
        return torch.as_tensor(np.asarray(array), dtype=self.dtype).to(self.device)


class Movable:
    """Of a frozen dataclass that holds tensors: the same elsewhere."""

    def to(self, backend: Backend) -> Self:
        """The same on another device and in another dtype; whole numbers stay whole."""
        moved = {
            name: v.to(backend.device, backend.dtype if v.is_floating_point() else v.dtype)
            for name, v in vars(self).items()
            if isinstance(v, torch.Tensor)
        }
        return replace(self, **moved)  # type: ignore[type-var]  # every dataclass that is Movable


def resolve_backend(device: str = "auto", dtype: str = "float64", threads: int | None = None) -> Backend:
    """Turn the user's words into a backend.

    Args:
        device: ``auto`` (CUDA if usable), ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``float64`` or ``float32``.
        threads: CPU threads torch may use; ``None`` leaves torch's choice.

    Raises:
        InputError: for an unknown name, or a CUDA device that is not there.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype: found {dtype}, expected one of {', '.join(DTYPES)}")
    if threads is not None:
        if threads < 1:
            raise InputError(f"threads: found {threads}, expected an integer of at least 1")
        torch.set_num_threads(threads)
    return Backend(_resolve_device(device), DTYPES[dtype])


def _resolve_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind != "cuda" or (":" in name and not index.isdigit()):
        raise InputError(f"device: found {name}, expected auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = int(index) if index else 0
    if number >= count:
        raise InputError(f"device: {name} is not there, this machine has {count} usable CUDA device(s)")
    return torch.device("cuda", number)


def stream(seed: int, purpose: str, *path: int) -> np.random.Generator:
    """An independent random generator for one purpose.

    Args:
        seed: the user's seed, an integer of at least 0.
        purpose: a key of ``STREAMS``.
        path: further coordinates (a member of a batch, a restart, …); each path is its own stream.

    Children are spawned from one ``numpy.random.SeedSequence``, so streams of neighbouring seeds,
    members or purposes do not overlap.
    """
    return np.random.Generator(
        np.random.PCG64(np.random.SeedSequence(entropy=seed, spawn_key=(STREAMS[purpose], *path)))
    )

"""State dicts of other people's networks: read without running anything, their linear layers found and put in order.

A file may be a plain state dict (``torch.save(model.state_dict(), …)``), a checkpoint that holds one beside other
things (Lightning's, or a dictionary with ``model_state_dict``), or safetensors. Nothing but tensors and plain values is
ever loaded; what would need more is refused with the line that exports it safely.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlnphase.errors import InputError
from dlnphase.results.files import BOMB_BYTES, BOMB_RATIO, MAX_ARRAY_BYTES
from dlnphase.results.yamlfile import regular_file

PREFIXES = ("module.", "_orig_mod.", "model.")  # of data parallelism, of compilation, of a wrapping module
HOLDERS = ("state_dict", "model_state_dict", "model", "module")  # keys of a checkpoint that hold the weights
STEPS = ("global_step", "global_steps", "step", "iteration")  # keys of a checkpoint that hold the training step
Tensors = tuple[dict[str, torch.Tensor], int | None]  # by name, and the training step told beside them
EXPORT = "torch.save(model.state_dict(), 'weights.pt')"


@dataclass(frozen=True)
class StateFile:
    """What one file holds.

    Attributes:
        layers: (name, weight of shape (n_l, n_{l-1}), float64), in the order of the network.
        step: the training step that the file tells, or None.
        single: whether every layer was saved in single precision or less.
    """

    layers: tuple[tuple[str, np.ndarray], ...]
    step: int | None
    single: bool


def read_state(path: str | Path, where: str) -> StateFile:
    """The linear layers of a state dict or checkpoint.

    Args:
        path: the file; by its suffix safetensors, else what torch saves.
        where: option and file, for messages.

    Raises:
        InputError: when it cannot be read safely, or holds anything but bias-free linear layers that follow each other.
    """
    path = Path(path)
    regular_file(path, where)
    tensors, step = READERS.get(path.suffix.lower(), _torch)(path, where)
    named = [(_stripped(name), tensor) for name, tensor in tensors.items()]
    single = all(tensor.dtype != torch.float64 for _, tensor in named)
    _check_memory(named, where)
    weights = [(name, _weight(name, tensor, where)) for name, tensor in named]
    return StateFile(tuple(in_order(weights, where)), step, single)


def in_order(named: Sequence[tuple[str, np.ndarray]], where: str) -> list[tuple[str, np.ndarray]]:
    """Layers so that each takes what the one before gives: by the numbers in their names, else as saved, else reversed.

    Some formats sort names like words (0, 1, 10, 2), so that numbers come first where names differ in them alone.

    Raises:
        InputError: where no order of the three makes them follow each other, or numbers are left out between them: what
            has no weights (a nonlinearity) may stand there.
    """
    if len(named) < 2:
        raise InputError(f"{where}: found {len(named)} layer, expected at least 2")
    orders = (*_by_number(named, where), list(named), list(reversed(named)))
    for order in orders:
        if all(upper.shape[1] == lower.shape[0] for (_, lower), (_, upper) in pairwise(order)):
            return order
    (below, lower), (name, upper) = next(
        (pair for pair in pairwise(named) if pair[1][1].shape[1] != pair[0][1].shape[0]), (named[0], named[1])
    )
    raise InputError(
        f"{where}: {name} takes {upper.shape[1]} inputs, {below} gives {lower.shape[0]}: "
        "these layers follow each other in no order"
    )


def _by_number(named: Sequence[tuple[str, np.ndarray]], where: str) -> list[list[tuple[str, np.ndarray]]]:
    """The order of the one number in which the names differ, if it is all they differ in."""
    parts = [re.split(r"(\d{1,18})", name) for name, _ in named]
    if len({len(p) for p in parts}) > 1:
        return []
    differ = [k for k in range(len(parts[0])) if len({p[k] for p in parts}) > 1]
    if len(differ) != 1 or differ[0] % 2 == 0:
        return []
    numbers = [int(p[differ[0]]) for p in parts]
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    for low, high in pairwise(order):
        if numbers[high] != numbers[low] + 1:
            raise InputError(
                f"{where}: nothing is saved between {named[low][0]} and {named[high][0]}, where a nonlinear layer may "
                "stand; expected layers numbered one after the other"
            )
    return [[named[k] for k in order]]


def _is_state(value: Any) -> bool:
    """Whether a value of a checkpoint is a state dict."""
    return isinstance(value, Mapping) and bool(value) and all(isinstance(w, torch.Tensor) for w in value.values())


def _stripped(name: str) -> str:
    while True:
        prefix = next((p for p in PREFIXES if name.startswith(p)), None)
        if prefix is None or name == prefix:
            return name
        name = name.removeprefix(prefix)


def _check_memory(named: Sequence[tuple[str, torch.Tensor]], where: str) -> None:
    """Refuse what would fill the memory before it is laid out: one number may stand for a tensor of any size."""
    for name, tensor in named:
        claimed = tensor.numel() * tensor.element_size()
        held = tensor.untyped_storage().nbytes() if tensor.layout == torch.strided else claimed
        if claimed > max(BOMB_BYTES, BOMB_RATIO * held):
            raise InputError(
                f"{where}: {name} of shape {tuple(tensor.shape)} blows up from {held} bytes to "
                f"{claimed / 2**20:.3g} MiB, expected at most {BOMB_RATIO} times as much"
            )
    needed = 8 * sum(tensor.numel() for _, tensor in named)
    if needed > MAX_ARRAY_BYTES:
        raise InputError(
            f"{where}: its tensors need {needed / 2**30:.3g} GiB, expected at most {MAX_ARRAY_BYTES // 2**30} GiB"
        )


def _weight(name: str, tensor: torch.Tensor, where: str) -> np.ndarray:
    """A layer as float64; everything that makes the network another kind is refused by name."""
    if tensor.layout != torch.strided:
        raise InputError(f"{where}: {name} is a tensor of layout {tensor.layout}, expected a dense one")
    if tensor.ndim == 2 and tensor.dtype.is_floating_point and min(tensor.shape) > 0:
        return tensor.detach().to(torch.float64).numpy()
    shape = tuple(tensor.shape)
    if tensor.ndim == 1 and name.split(".")[-1].startswith("bias"):
        raise InputError(f"{where}: {name} is a bias of shape {shape}, expected linear layers without bias")
    if tensor.ndim < 2:
        raise InputError(
            f"{where}: {name} of shape {shape} belongs to a normalisation or another nonlinear layer, "
            "expected the weight matrices of linear layers alone"
        )
    raise InputError(f"{where}: {name} has shape {shape} and type {tensor.dtype}, expected a real matrix n_l x n_(l-1)")


def _torch(path: Path, where: str) -> Tensors:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it talks of pickle protocols, which say nothing to the user
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or unsafe file
        kind = type(error).__name__
        found = "holds more than tensors" if kind == "UnpicklingError" else f"damaged ({kind})"
        raise InputError(
            f"{where}: {found}, expected a torch state dict, which alone is safe to load: {EXPORT} writes one"
        ) from None
    return _unwrapped(loaded, where)


def _safetensors(path: Path, where: str) -> Tensors:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise InputError(f"{where}: this format needs the package safetensors: pip install safetensors") from None
    try:
        tensors = load_file(path)
    except Exception as error:  # its own kinds, and those of the file system
        raise InputError(f"{where}: not a readable safetensors file ({type(error).__name__})") from None
    return dict(tensors), None


def _unwrapped(loaded: Any, where: str) -> Tensors:
    step = None
    if isinstance(loaded, Mapping):
        holder = next((k for k in HOLDERS if isinstance(loaded.get(k), Mapping)), None)
        if holder is None:  # a name of somebody's own, where only one value can be meant
            states = [k for k, value in loaded.items() if _is_state(value)]
            holder = states[0] if len(states) == 1 else None
        if holder is not None:
            told = next((loaded[k] for k in STEPS if k in loaded), None)
            told = told.item() if isinstance(told, torch.Tensor) and told.numel() == 1 else told
            step = int(told) if isinstance(told, int) and not isinstance(told, bool) and told >= 0 else None
            loaded = loaded[holder]
    if not isinstance(loaded, Mapping) or not loaded:
        raise InputError(f"{where}: found a {type(loaded).__name__}, expected a torch state dict: {EXPORT}")
    for name, tensor in loaded.items():
        if not isinstance(tensor, torch.Tensor):
            raise InputError(f"{where}: {name} is no tensor, expected the weight matrices of linear layers: {EXPORT}")
    return {str(name): tensor for name, tensor in loaded.items()}, step


# What reads a file, by how its name ends.
READERS: dict[str, Callable[[Path, str], Tensors]] = {
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin"), _torch),
    ".safetensors": _safetensors,
}
SUFFIXES = tuple(READERS)

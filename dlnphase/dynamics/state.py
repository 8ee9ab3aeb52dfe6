"""The state of something under way as a value: saved as plain arrays, and gone on with to the same bits.

What moves (:class:`State`) is a dataclass with slots, so that every attribute is declared: a field is part of the state
unless its type says that it is ``Fixed`` (set up from the settings) or ``Room`` (worked out anew before it is used).
Nothing is pickled: :func:`pack` writes a tree of plain values and arrays as JSON beside one array per type of numbers.

Bits depend on how an array lies in memory, since sums are taken in that order: strides are kept with the numbers.
"""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

import numpy as np
import torch

from dlnphase.errors import InputError
from dlnphase.networks.chain import Network

T = TypeVar("T")
APART = object()
Fixed = Annotated[T, APART]  # what the settings decide: set up again, never saved
Room = Annotated[T, APART]  # holds nothing between two rounds that would not be worked out again
TREE = "tree"
KINDS = ("float64", "float32", "int64", "bool")


class State:
    """Of a dataclass with slots: its fields as plain values, and the way back."""

    __slots__ = ()

    def state(self) -> dict[str, Any]:
        """Every field that is part of the state; arrays are not copied, so :func:`pack` it before anything moves."""
        return {name: _plain(getattr(self, name)) for name in state_fields(type(self))}

    def resume(self, state: dict[str, Any]) -> None:
        """Take over a state of the same class, set up from the same settings.

        Raises:
            InputError: for the state of another version.
        """
        names = state_fields(type(self))
        if set(state) != set(names):
            odd = sorted(set(state) ^ set(names))
            raise InputError(f"found {type(self).__name__} of another version of dlnphase ({', '.join(odd)})")
        for name in names:
            there, value = getattr(self, name), state[name]
            if isinstance(there, State):
                there.resume(value)
            elif isinstance(there, list) and any(isinstance(each, State) for each in there):
                for each, its in zip(there, value, strict=True):
                    each.resume(its)
            else:
                setattr(self, name, Network(value["theta"], value["dims"]) if isinstance(there, Network) else value)


_known: dict[type[State], tuple[str, ...]] = {}  # asked at every round, of every part


def state_fields(cls: type[State]) -> tuple[str, ...]:
    """The fields of a class that are part of its state."""
    if cls not in _known:
        hints = get_type_hints(cls, include_extras=True)
        _known[cls] = tuple(name for name, hint in hints.items() if APART not in getattr(hint, "__metadata__", ()))
    return _known[cls]


def _plain(value: Any) -> Any:
    if isinstance(value, State):
        return value.state()
    if isinstance(value, Network):
        return {"dims": list(value.dims), "theta": value.theta}
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v) for v in value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value


# ---- as arrays -----------------------------------------------------------------------------------------


def pack(tree: Any) -> dict[str, np.ndarray]:
    """A tree of dictionaries, lists, tuples, numbers, words, arrays and tensors as a few plain arrays.

    Raises:
        TypeError: for anything else, and for arrays of other kinds of numbers than KINDS.
    """
    parts: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    sizes = dict.fromkeys(KINDS, 0)
    text = json.dumps(_written(tree, parts, sizes))
    arrays = {kind: np.concatenate(values) for kind, values in parts.items() if values}
    return arrays | {TREE: np.frombuffer(text.encode(), dtype=np.uint8)}


def unpack(arrays: dict[str, np.ndarray], device: torch.device) -> Any:
    """The tree again; tensors on this device.

    Raises:
        InputError: when these are no arrays of :func:`pack`.
    """
    try:
        return _read(json.loads(arrays[TREE].tobytes()), arrays, device)
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        raise InputError(f"found no state of dlnphase ({type(error).__name__})") from None


def _written(value: Any, parts: dict[str, list[np.ndarray]], sizes: dict[str, int]) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, dict):
        return {"dict": [[key, _written(v, parts, sizes)] for key, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_written(v, parts, sizes) for v in value]}
    if isinstance(value, torch.Tensor):
        strides = list(value.contiguous().stride() if _overlaps(value) else value.stride())
        host = value.detach().cpu().contiguous().numpy()
        what: dict[str, Any] = {"tensor": strides}
    elif isinstance(value, (np.ndarray, np.generic)):
        host = np.asarray(value)
        axes = [int(k) for k in np.argsort([-s for s in host.strides], kind="stable")]
        host, what = host.transpose(axes), {"array": axes, "scalar": isinstance(value, np.generic)}
    else:
        raise TypeError(f"{type(value).__name__}: no plain value")
    kind = str(host.dtype)
    if kind not in parts:
        raise TypeError(f"array of {kind}: expected one of {', '.join(KINDS)}")
    start, sizes[kind] = sizes[kind], sizes[kind] + host.size
    parts[kind].append(host.reshape(-1).copy())
    return {"kind": kind, "start": start, "shape": list(host.shape), **what}


def _overlaps(tensor: torch.Tensor) -> bool:
    """Whether some numbers of a tensor share their place in memory."""
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))


def _read(node: Any, arrays: dict[str, np.ndarray], device: torch.device) -> Any:
    if not isinstance(node, dict):
        return node
    if "dict" in node:
        return {key: _read(v, arrays, device) for key, v in node["dict"]}
    if "list" in node:
        return [_read(v, arrays, device) for v in node["list"]]
    if "tuple" in node:
        return tuple(_read(v, arrays, device) for v in node["tuple"])
    shape, start = tuple(node["shape"]), node["start"]
    values = arrays[node["kind"]][start : start + int(np.prod(shape, dtype=np.int64))].reshape(shape)
    if "tensor" in node:
        host = torch.from_numpy(values.copy())
        return torch.empty_strided(shape, node["tensor"], dtype=host.dtype, device=device).copy_(host)
    values = values.copy().transpose(np.argsort(node["array"]))
    return values[()] if node["scalar"] else values

"""Frozen dataclasses ⇄ plain Python (what YAML and JSON hold), checked against the type hints.

Understood in hints: bool, int, float, str, None, ``X | None``, Literal, tuple[X, ...], tuple[X, Y], list[X],
dict[str, X], dataclasses of these, and Any. A class with ``to_plain()`` and ``from_plain(data, where)`` speaks for
itself (settings do). Fields whose metadata says ``{"yaml": False}`` stay in memory only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import types
import typing
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np

from dlnphase.errors import InputError

T = TypeVar("T")


def memory_only(default: Any = None) -> Any:
    """A dataclass field that is not written to YAML (arrays, which live in the npz file)."""
    return dataclasses.field(default=default, metadata={"yaml": False}, compare=False, repr=False)


def encode(value: Any) -> Any:
    """Dicts, lists, strings, numbers, booleans and None; NumPy scalars and arrays become plain numbers and lists."""
    if hasattr(value, "to_plain"):
        return value.to_plain()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f for f in dataclasses.fields(value) if f.metadata.get("yaml", True)]
        return {f.name: encode(getattr(value, f.name)) for f in fields}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} cannot be written to a result")


def json_ready(value: Any) -> Any:
    """The same with NaN and infinities as null, which is all that JSON allows."""
    if isinstance(value, dict):
        return {k: json_ready(v) for k, v in value.items()}
    if isinstance(value, list):
        return [json_ready(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def decode(hint: type[T], data: Any, where: str) -> T:
    """Rebuild a value of the hinted type.

    Args:
        where: the file and key, for error messages.

    Raises:
        InputError: naming the key, what was found and what is expected.
    """
    return typing.cast(T, _decode(hint, data, where))


def _decode(hint: Any, data: Any, where: str) -> Any:
    if hint is Any:
        return data
    if hasattr(hint, "from_plain"):
        return hint.from_plain(data, where)
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(hint, data, where)
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _decode_union(args, data, where)
    if origin is Literal:
        return data if data in args else _wrong(where, data, " or ".join(map(repr, args)))
    if origin in (tuple, list):
        return _decode_list(origin, args, data, where)
    if origin is dict:
        if not isinstance(data, dict):
            return _wrong(where, data, "a mapping")
        return {str(k): _decode(args[1], v, f"{where}.{k}") for k, v in data.items()}
    return _decode_scalar(hint, data, where)


def _decode_scalar(hint: Any, data: Any, where: str) -> Any:
    number = isinstance(data, (int, float)) and not isinstance(data, bool)
    if hint is type(None):
        return None if data is None else _wrong(where, data, "nothing")
    if hint is bool:
        return data if isinstance(data, bool) else _wrong(where, data, "true or false")
    if hint is int:
        return data if number and isinstance(data, int) else _wrong(where, data, "an integer")
    if hint is float:
        return _float(data, where) if number else _wrong(where, data, "a number")
    if hint is str:
        return data if isinstance(data, str) else _wrong(where, data, "a word")
    raise TypeError(f"{where}: no rule for the type {hint!r}")


def _float(data: int | float, where: str) -> float:
    try:
        return float(data)
    except OverflowError:
        return _wrong(where, data, "a number that float64 can hold")


def _decode_union(args: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and type(None) in args:
        return None
    *others, last = (a for a in args if a is not type(None))
    for choice in others:
        with contextlib.suppress(InputError):
            return _decode(choice, data, where)
    return _decode(last, data, where)


def _decode_list(origin: Any, args: tuple[Any, ...], data: Any, where: str) -> Any:
    if not isinstance(data, list):
        return _wrong(where, data, "a list")
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        if len(data) != len(args):
            return _wrong(where, data, f"a list of {len(args)}")
        return tuple(_decode(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, data, strict=True)))
    return origin(_decode(args[0], v, f"{where}[{i}]") for i, v in enumerate(data))


def _decode_dataclass(cls: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        return _wrong(where, data, "a mapping")
    hints = type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.metadata.get("yaml", True)}
    for key in data:
        if key not in fields:
            raise InputError(f"{where}.{key}: unknown key, expected one of {', '.join(fields)}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _decode(hints[name], data[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"{where}.{name}: missing")
    return cls(**values)


@functools.cache
def type_hints(cls: type) -> dict[str, Any]:
    """Type hints of a dataclass, resolved once."""
    return typing.get_type_hints(cls)


def _wrong(where: str, data: Any, expected: str) -> Any:
    found = repr(data)
    raise InputError(f"{where}: found {found if len(found) <= 60 else found[:57] + '...'}, expected {expected}")

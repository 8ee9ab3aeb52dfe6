"""Parsers of single settings: from a flag's text, a YAML value or a Python value to the value of a setting.

A parser is called with any of the three and returns the value, or raises ValueError; ``expected`` says in words what
it accepts. Parsing a parsed value gives it back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from pathlib import Path
from typing import Any

MAX_ITEMS = 100_000  # a list setting longer than this is a typing error


@dataclass(frozen=True)
class Parser:
    """What a setting accepts.

    Attributes:
        convert: text, YAML value or Python value → value; ValueError or TypeError when it does not fit.
        expected: in words, for error messages and the reference.
        metavar: how the value is called in ``--help``.
        plain: value → what YAML holds.
        is_path: a file that relative names are looked up for beside the configuration that names them.
        choices: the words it accepts, if any: the shell completes them, and a misspelt one is told.
    """

    convert: Callable[[Any], Any]
    expected: str
    metavar: str
    plain: Callable[[Any], Any] = lambda value: list(value) if isinstance(value, tuple) else value
    is_path: bool = False
    choices: tuple[str, ...] = ()


def integer(minimum: int = 0, maximum: int = 2**63 - 1) -> Parser:
    """An integer; ``1e6`` is one."""

    def convert(value: Any) -> int:
        number = _integer(value)
        if not minimum <= number <= maximum:
            raise ValueError
        return number

    power = len(str(maximum)) - 1
    largest = f"1e{power}" if power > 5 and maximum == 10**power else str(maximum)
    # A bound that is nothing but what a machine counts to is not worth a word.
    bounds = f"of at least {minimum}" if maximum in (2**31, 2**63 - 1) else f"from {minimum} to {largest}"
    return Parser(convert, f"an integer {bounds}", "INT")


def number(minimum: float = -math.inf, *, positive: bool = False, below: float = math.inf) -> Parser:
    """A finite number within bounds."""

    def convert(value: Any) -> float:
        result = _float(value)
        if not math.isfinite(result) or result < minimum or result > below or (positive and result <= 0):
            raise ValueError
        return result

    words = "a finite number"
    if positive:
        words = "a finite number above 0"
    elif minimum > -math.inf:
        words = f"a finite number of at least {minimum:g}"
    return Parser(convert, words + (f" and at most {below:g}" if below < math.inf else ""), "FLOAT")


def optional(inner: Parser, *words: str) -> Parser:
    """The inner value, or None for any of the words (``none`` always)."""
    words = ("none", *words)

    def convert(value: Any) -> Any:
        if value is None or (isinstance(value, str) and value.lower() in words):
            return None
        if isinstance(value, float) and math.isinf(value) and "inf" in words:
            return None
        return inner.convert(value)

    return Parser(
        convert,
        f"{inner.expected}, or {words[-1]}",
        inner.metavar,
        lambda value: None if value is None else inner.plain(value),
        inner.is_path,
        inner.choices,
    )


def auto_or(inner: Parser) -> Parser:
    """The word ``auto``, or the inner value."""

    def convert(value: Any) -> Any:
        return "auto" if value == "auto" else inner.convert(value)

    plain = lambda value: value if value == "auto" else inner.plain(value)  # noqa: E731
    words = ("auto", *inner.choices)
    return Parser(convert, f"auto or {inner.expected}", f"auto|{inner.metavar}", plain, choices=words)


def changing(inner: Parser, example: str) -> Parser:
    """A value, or ``0.1,500:0.01``: one from the start and others from given steps on, as pairs (step, value)."""

    def convert(value: Any) -> Any:
        listed = isinstance(value, (list, tuple)) or (isinstance(value, str) and ("," in value or ":" in value))
        if not listed:
            return inner.convert(value)
        pairs = [_pair(item, k, inner) for k, item in enumerate(value.split(",") if isinstance(value, str) else value)]
        steps = [step for step, _ in pairs]
        if not steps or steps[0] != 0 or any(a >= b for a, b in pairwise(steps)):
            raise ValueError
        return tuple(pairs) if len(pairs) > 1 else pairs[0][1]

    def plain(value: Any) -> Any:
        if not isinstance(value, tuple):
            return inner.plain(value)
        return ",".join(f"{step}:{inner.plain(number)}" if step else str(inner.plain(number)) for step, number in value)

    expected = f"{inner.expected}, or one and STEP:VALUE for later steps, such as {example}"
    return Parser(convert, expected, f"{inner.metavar}|LIST", plain, choices=inner.choices)


def _pair(item: Any, place: int, inner: Parser) -> tuple[int, Any]:
    """(step, value) of an entry of such a list; the first may leave the step out, which is 0."""
    parts = item.split(":") if isinstance(item, str) else item if isinstance(item, (list, tuple)) else [item]
    if len(parts) == 1 and place == 0:
        parts = [0, parts[0]]
    step, value = parts
    if _integer(step) < 0:
        raise ValueError
    return _integer(step), inner.convert(value)


def choice(*names: str) -> Parser:
    """One of some words."""

    def convert(value: Any) -> str:
        if not isinstance(value, str) or value not in names:
            raise ValueError
        return value

    return Parser(convert, f"one of {', '.join(names)}", "|".join(names), choices=names)


def words(*names: str) -> Parser:
    """One or more of some words: a list, or a text with commas; each once, in the order given."""

    def convert(value: Any) -> tuple[str, ...]:
        given = [value] if isinstance(value, str) else list(value)
        if not all(isinstance(entry, str) for entry in given):
            raise ValueError
        out = tuple(dict.fromkeys(word.strip().lower() for entry in given for word in entry.split(",")))
        if not out or any(word not in names for word in out):
            raise ValueError
        return out

    return Parser(convert, f"one or more of {', '.join(names)}", "|".join(names), choices=names)


def boolean() -> Parser:
    """True or false."""

    def convert(value: Any) -> bool:
        if isinstance(value, bool):
            return value
        return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}[str(value).lower()]

    return Parser(convert, "true or false", "BOOL")


def text(expected: str = "a word", metavar: str = "TEXT") -> Parser:
    """Any text without control characters."""

    def convert(value: Any) -> str:
        if not isinstance(value, str) or not value or not value.isprintable():
            raise ValueError
        return value

    return Parser(convert, expected, metavar)


def columns() -> Parser:
    """Columns of a table: by name or number, as a text, a number, or a list of these; or ``none``."""

    def convert(value: Any) -> str:
        words = value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(word, bool) or not isinstance(word, (str, int)) for word in words):
            raise ValueError
        out = ",".join(map(str, words))
        if not out.strip() or not out.isprintable():
            raise ValueError
        return out

    return Parser(convert, "numbers (from 1) or names of columns with commas between, or none", "COLUMNS")


def path(expected: str = "a file") -> Parser:
    """A file name; kept absolute, so that a saved configuration works from anywhere."""

    def convert(value: Any) -> str:
        if not isinstance(value, (str, Path)) or not str(value).strip() or "\0" in str(value):
            raise ValueError
        str(value).encode()  # a name that is no UTF-8 could not be written into a result (UnicodeError is a ValueError)
        return str(Path(value).expanduser().absolute())

    return Parser(convert, expected, "FILE", is_path=True)


def paths(expected: str = "files", metavar: str = "FILE", *, listed: bool = False) -> Parser:
    """One file name, or several as a tuple (with ``listed`` also one); kept absolute like :func:`path`."""
    one = path(expected)

    def convert(value: Any) -> str | tuple[str, ...]:
        given = [value] if isinstance(value, (str, Path)) else list(value)
        if not given:
            raise ValueError
        names = tuple(one.convert(name) for name in given)
        return names[0] if len(names) == 1 and not listed else names

    return Parser(convert, expected, metavar, is_path=True)


def shape() -> Parser:
    """``10x8``, [10, 8] or one number for a square: d_out × d_in."""

    def convert(value: Any) -> tuple[int, int]:
        parts = value.lower().replace("×", "x").split("x") if isinstance(value, str) else value
        parts = [parts] if isinstance(parts, (int, float)) else list(parts)
        sizes = [_integer(part) for part in parts]
        if len(sizes) == 1:
            sizes *= 2
        if len(sizes) != 2 or min(sizes) < 1 or max(sizes) > 2**31:
            raise ValueError
        return (sizes[0], sizes[1])

    return Parser(convert, "d_out x d_in such as 10x8", "SHAPE")


def numbers(*, positive: bool = False, minimum: float = -math.inf, unique: bool = True) -> Parser:
    """A list of finite numbers: ``0.7,0.8``, ``0.7:2.0:0.1`` (both ends included), mixtures, or a YAML list."""

    def convert(value: Any) -> tuple[float, ...]:
        out = tuple(float(item) for item in _items(value))
        if any(not math.isfinite(v) or v < minimum or (positive and v <= 0) for v in out):
            raise ValueError
        if unique and len(set(out)) != len(out):
            raise ValueError
        return out

    sign = " above 0" if positive else f" of at least {minimum:g}" if minimum > -math.inf else ""
    words = f"numbers{sign} such as 0.7,0.8 or 0.7:2.0:0.1"
    return Parser(convert, words + (", each once" if unique else ""), "LIST")


def integers(minimum: int = 0) -> Parser:
    """A list of integers: ``1e2,1e4``, ``1:5``, ``10:50:10`` (both ends included), or a YAML list; each once."""

    def convert(value: Any) -> tuple[int, ...]:
        out = tuple(_integer(item) for item in _items(value))
        if min(out) < minimum or max(out) > 2**63 - 1 or len(set(out)) != len(out):
            raise ValueError
        return out

    return Parser(convert, f"integers of at least {minimum} such as 1e2,1e4 or 10:50:10, each once", "LIST")


def members() -> Parser:
    """How many initialisations (64 is members 0 … 63), or which (``10:19``, ``3,5``, or a YAML list)."""
    listed = integers()

    def convert(value: Any) -> tuple[int, ...]:
        if isinstance(value, (list, tuple)) or (isinstance(value, str) and ("," in value or ":" in value)):
            return listed.convert(value)
        count = _integer(value)
        if not 1 <= count <= MAX_ITEMS:
            raise ValueError
        return tuple(range(count))

    def plain(value: tuple[int, ...]) -> Any:
        return len(value) if value == tuple(range(len(value))) else list(value)

    return Parser(convert, "a number of members of at least 1, or a list such as 10:19 or 3,5", "N|LIST", plain)


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, (int, Decimal)):
        if value != int(value):
            raise ValueError
        return int(value)
    if isinstance(value, float) or hasattr(value, "__index__"):
        if not math.isfinite(value) or value != int(value):
            raise ValueError
        return int(value)
    return _integer(_decimal(value))


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        value = value.item() if hasattr(value, "item") and not isinstance(value, bool) else None
        if not isinstance(value, (int, float)):
            raise ValueError
    if isinstance(value, str) and "_" in value:
        raise ValueError
    try:
        return float(value)
    except OverflowError:
        raise ValueError from None


def _decimal(value: Any) -> Decimal:
    if not isinstance(value, str) or "_" in value or len(value) > 40:
        raise ValueError
    try:
        result = Decimal(value.strip())
    except InvalidOperation:
        raise ValueError from None
    if not result.is_finite() or result.adjusted() > 300:
        raise ValueError
    return result


def _items(value: Any) -> list[Any]:
    """The items of a list setting, ranges unrolled in decimal arithmetic so that nothing drifts."""
    if isinstance(value, str):
        out: list[Any] = []
        for part in value.split(","):
            out.extend(_unroll(part) if ":" in part else [_decimal(part)])
    elif isinstance(value, Iterable):
        out = [item for entry in value for item in (_items(entry) if isinstance(entry, str) else [entry])]
    else:
        out = [value]
    for item in out:
        if isinstance(item, bool) or not (isinstance(item, (int, float, Decimal)) or hasattr(item, "__float__")):
            raise ValueError
    if not 1 <= len(out) <= MAX_ITEMS:
        raise ValueError
    return out


def _unroll(words: str) -> list[Decimal]:
    parts = [_decimal(part) for part in words.split(":")]
    if len(parts) == 2:
        parts.append(Decimal(1))
    if len(parts) != 3 or parts[2] == 0:
        raise ValueError
    start, stop, step = parts
    count = (stop - start) / step
    if count < 0 or count > MAX_ITEMS or count != int(count):
        raise ValueError  # a step that misses the stop would leave an end out
    return [start + step * k for k in range(int(count) + 1)]

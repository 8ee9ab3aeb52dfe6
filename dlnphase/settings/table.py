"""Settings as one table: a frozen dataclass whose fields carry their parser, help, panel and flag.

Flags, ``--config`` files, error messages, the ``config:`` block of results and the reference in the docs are all read
off that table:

    @dataclass(frozen=True, kw_only=True)
    class MySettings(MachineSettings):
        widths: tuple[int, ...] = option((100,), integers(1), "hidden widths", panel="Sweep", short="-w")

Whatever way a value comes in (flag, YAML, Python), it is parsed and checked the same, in ``__post_init__``.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeVar

from dlnphase.errors import InputError
from dlnphase.settings.parse import Parser

S = TypeVar("S", bound="Settings")

ALIKE = 0.7  # how much of two words agrees (difflib's ratio) from which one may be the other misspelt: not gpu and cpu


@dataclass(frozen=True)
class Option:
    """The row of one setting.

    Attributes:
        parser: what it accepts.
        help: one line for people.
        panel: under which heading ``--help`` shows it; "" for that of its class.
        short: a one-letter flag such as ``-L``, or "".
        default_words: how the default is told when it depends on other settings, or "".
        replaces: settings of a lower layer (a configuration file) that giving this one makes void.
        alias: a second name for another setting; never written to results.
        identity: whether it decides the numbers; ``--resume`` compares these alone.
        positional: an argument of the command instead of a flag.
        repeatable: may be given several times; the parser gets the list.
    """

    parser: Parser
    help: str
    panel: str = ""
    short: str = ""
    default_words: str = ""
    replaces: tuple[str, ...] = ()
    alias: bool = False
    identity: bool = True
    positional: bool = False
    repeatable: bool = False


def option(parser: Parser, help: str, *, default: Any = None, **rest: Any) -> Any:
    """A dataclass field that is a setting; the arguments are those of :class:`Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(parser, help, **rest)})


def again(cls: type[Settings], name: str, **changes: Any) -> Any:
    """The setting of that name of another class, but for these changes of its row (:class:`Option`)."""
    row = dataclasses.replace(options(cls)[name], **changes)
    return dataclasses.field(default=default_of(cls, name), metadata={"option": row})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of the settings of every command.

    Subclasses override :meth:`_settle` to fill in what depends on other settings and to check them together.

    Attributes:
        NAMED_BY_CONTENT: whether files that settings name count by what they hold in the name of the default directory.
        RETIRED: keys that never had an effect and are no longer settings; files that hold them are read without them.
    """

    NAMED_BY_CONTENT: ClassVar[bool] = True
    RETIRED: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, *, panel: str = "", **rest: Any) -> None:
        """Put the settings that a class adds under a heading of ``--help``, but for those that name another."""
        super().__init_subclass__(**rest)
        for field in vars(cls).values():
            row = field.metadata.get("option") if isinstance(field, dataclasses.Field) else None
            if row is not None and not row.panel:
                field.metadata = MappingProxyType({"option": dataclasses.replace(row, panel=panel)})

    def __new__(cls, **given: Any) -> Self:
        """Refuse a name that is no setting with the words of a configuration."""
        for key in given:
            if key not in options(cls):
                raise InputError(f"{key}: unknown key{_suggest(key, list(options(cls)))}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name, row in options(type(self)).items():
            self._set(name, parse_value(row, name, getattr(self, name), default_of(type(self), name)))
        self._settle()

    def _settle(self) -> None:
        """Fill in derived defaults and check settings against each other; raises InputError."""

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def _replaced(cls, name: str, merged: Mapping[str, Any]) -> tuple[str, ...]:
        """What a setting makes void of those merged so far: what its row says."""
        return options(cls)[name].replaces

    def slug(self) -> str:
        """A short readable name, the first part of the default output directory."""
        raise NotImplementedError

    def to_plain(self) -> dict[str, Any]:
        """Every setting as plain Python, in order: the ``config:`` block of a result."""
        rows = options(type(self))
        return {n: _plain(row.parser, getattr(self, n)) for n, row in rows.items() if not row.alias}

    def identity(self) -> dict[str, Any]:
        """The settings that decide the numbers (no device, threads or number of jobs)."""
        rows, plain = options(type(self)), self.to_plain()
        return {name: value for name, value in plain.items() if rows[name].identity}

    @classmethod
    def from_plain(cls: type[S], data: Any, where: str) -> S:
        """Settings from plain Python; InputError naming the key of anything unknown or wrong."""
        return resolve(cls, config=data, where=where)


def options(cls: type[Settings]) -> dict[str, Option]:
    """The table of a settings class: name → row, in order."""
    return {f.name: f.metadata["option"] for f in dataclasses.fields(cls) if "option" in f.metadata}


def default_of(cls: type[Settings], name: str) -> Any:
    """The default of a setting."""
    return next(f.default for f in dataclasses.fields(cls) if f.name == name)


def default_words(cls: type[Settings], name: str) -> str:
    """The default of a setting in words; "" for a setting that is off unless given."""
    row, default = options(cls)[name], default_of(cls, name)
    if row.default_words or default is None:
        return row.default_words
    plain = _plain(row.parser, default)
    if isinstance(plain, list):
        return ("x" if row.parser.metavar == "SHAPE" else ",").join(f"{v:g}" for v in plain)
    return f"{plain:g}" if isinstance(plain, float) else str(plain)


def parse_value(row: Option, where: str, value: Any, default: Any = dataclasses.MISSING) -> Any:
    """One value through its parser; a default passes as it is.

    Raises:
        InputError: ``where: found …, expected …``.
    """
    if value is default or (value is None and default is None):
        return value
    try:
        return row.parser.convert(value)
    except (ValueError, TypeError, KeyError, OverflowError, ArithmeticError):
        guess = _nearest(value, row.parser.choices)
        hint = f"; did you mean {guess}?" if guess else ""
        raise InputError(f"{where}: found {_shown(value)}, expected {row.parser.expected}{hint}") from None


def _shown(value: Any) -> str:
    """A value as it was typed, without the marks of Python; what could not be seen is told in words."""
    if isinstance(value, str):
        text = value if value.strip() == value else repr(value)
    elif value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, (list, tuple)):
        text = ", ".join(map(_shown, value))
    else:
        text = repr(value)
    return (text if len(text) <= 60 else text[:57] + "...") or "an empty text"


def _nearest(value: Any, choices: tuple[str, ...]) -> str | None:
    """The word that a misspelt one was meant to be; of several, for the first that is none of the choices."""
    given = [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else []
    words = [word.strip() for entry in given if isinstance(entry, str) for word in entry.split(",")]
    wrong = next((word for word in words if word not in choices), None)
    return next(iter(difflib.get_close_matches(wrong.lower(), choices, 1, ALIKE)), None) if wrong else None


def resolve(
    cls: type[S],
    *,
    config: Mapping[str, Any] | None = None,
    flags: Mapping[str, Any] | None = None,
    where: str = "config",
    base: Path | None = None,
) -> S:
    """Settings from a configuration, overridden by flags.

    Args:
        config: plain values by key, or None.
        flags: values of the flags that were given, by key.
        where: the configuration's name, for messages.
        base: directory that relative file names of the configuration belong to.

    Raises:
        InputError: naming the key or flag.
    """
    rows = options(cls)
    if config is not None and not isinstance(config, Mapping):
        raise InputError(f"{where}: found {type(config).__name__}, expected settings as key: value lines")
    merged: dict[str, Any] = {}
    for layer, label in ((config or {}, f"{where}: {{}}"), (flags or {}, "--{}")):
        given = {}
        for key, value in layer.items():
            if layer is config and key in cls.RETIRED:
                continue
            if key not in rows:
                raise InputError(f"{label.format(key)}: unknown key{_suggest(str(key), list(rows))}")
            row = rows[key]
            if base is not None and layer is config and row.parser.is_path and isinstance(value, str):
                value = str(base / Path(value).expanduser())
            elif base is not None and layer is config and row.parser.is_path and isinstance(value, list):
                value = [str(base / Path(v).expanduser()) if isinstance(v, str) else v for v in value]
            given[key] = parse_value(
                row, label.format(key.replace("_", "-") if layer is flags else key), value, default_of(cls, key)
            )
        for key, value in given.items():
            if value != merged.get(key):  # what says the same again replaces nothing
                for void in cls._replaced(key, merged):
                    merged.pop(void, None)
        merged.update(given)
    return cls(**merged)


def _plain(parser: Parser, value: Any) -> Any:
    return None if value is None else parser.plain(value)


def _suggest(key: str, names: list[str]) -> str:
    close = difflib.get_close_matches(key.replace("-", "_"), names, 1)
    return f", did you mean {close[0]}?" if close else f", expected one of {', '.join(names)}"

"""YAML in and out: plain Python types alone, nothing executed, every float exact.

Reading is stricter than YAML: no tags, no anchors or aliases, no merge keys, no duplicate keys, bounded
nesting. Words follow YAML 1.2's core schema, so ``1e-8`` is a number and ``no`` a string. Writing quotes
whatever any YAML reader could take for something else, and puts short lists on one line.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml

from dlnphase.errors import InputError
from dlnphase.results.journal import settle

MAX_BYTES = 256 * 2**20  # a file whose values would take gigabytes is refused before it is read
MAX_DEPTH = 40  # of lists in lists: results have eight levels, and a hostile file must not exhaust the stack
FLOW_WIDTH = 110  # mappings of plain values, and lists of lists, that fit in so many characters stay on one line

_CLoader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_INT = re.compile(r"[-+]?[0-9]+")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def _scalar(event: Any) -> Any:
    """The value of a scalar by the core schema of YAML 1.2; quoted, it is a string."""
    text: str = event.value
    if not event.implicit[0]:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)  # plain decimals: 010 is ten, not eight
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _problem(text: str, place: Any) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, text, place.start_mark)


class _Builder:
    """Values from parser events, one after the other: nothing is held but the values themselves."""

    _NO_KEY = object()

    def __init__(self) -> None:
        self.root: Any = None
        self._open: list[Any] = []  # lists and mappings under way …
        self._keys: list[Any] = []  # … and the key that waits for its value in each

    def feed(self, event: Any) -> None:
        """Take in one event; YAMLError for anything but plain YAML."""
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _problem("found an anchor or alias", event)
        if getattr(event, "tag", None) is not None:
            raise _problem(f"found the tag {event.tag!r}", event)
        if isinstance(event, yaml.ScalarEvent):
            self._add(_scalar(event), event)
        elif isinstance(event, yaml.CollectionStartEvent):
            value: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
            self._add(value, event)
            if len(self._open) >= MAX_DEPTH:
                raise _problem(f"nested deeper than {MAX_DEPTH}", event)
            self._open.append(value)
            self._keys.append(self._NO_KEY)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
            self._keys.pop()

    def _add(self, value: Any, event: Any) -> None:
        if not self._open:
            self.root = value
        elif isinstance(self._open[-1], list):
            self._open[-1].append(value)
        elif self._keys[-1] is not self._NO_KEY:
            self._open[-1][self._keys[-1]] = value
            self._keys[-1] = self._NO_KEY
        elif not isinstance(value, str):
            found = type(value).__name__ if isinstance(value, (dict, list)) else repr(value)
            raise _problem(f"found the key {found} that is not a word", event)
        elif value in self._open[-1]:
            raise _problem(f"found the key {value!r} twice", event)
        else:
            self._keys[-1] = value


class _Dumper(yaml.SafeDumper):
    """Plain types; strings quoted for readers of YAML 1.1 and of 1.2 alike; no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write what stands twice twice: the reader refuses anchors."""
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{_FLOAT.pattern})$"), list("-+0123456789."))


def _represent_text(dumper: yaml.SafeDumper, data: str) -> yaml.Node:
    # Line breaks that only some readers know (U+0085, U+2028, …) survive in double quotes alone.
    style = None if all(c.isprintable() or c == "\n" for c in data) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)


def _represent_sequence(dumper: yaml.SafeDumper, data: Any) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=_fits(data))


def _represent_mapping(dumper: yaml.SafeDumper, data: Any) -> yaml.Node:
    flow = all(not isinstance(v, dict) for v in data.values()) and _fits(data)
    return dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=flow)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_sequence)
_Dumper.add_representer(tuple, _represent_sequence)
_Dumper.add_representer(dict, _represent_mapping)


def _fits(data: Any) -> bool:
    """Whether to write it in brackets: a list of plain values always, anything else without mappings if it is short."""
    if isinstance(data, (list, tuple)):
        if any(isinstance(v, dict) for v in data):
            return False
        if not any(isinstance(v, (list, tuple)) for v in data):
            return True
    return len(repr(data)) <= FLOW_WIDTH


def dump_yaml(data: Any) -> str:
    """YAML text of dicts, lists, strings, numbers, booleans and None; keys keep their order, floats are exact."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False)


def parse_yaml(text: str, name: str) -> Any:
    """The value of YAML text.

    Args:
        name: of the file, for error messages.

    Raises:
        InputError: for anything but plain YAML: bad syntax, tags, anchors, aliases, duplicate keys, deep nesting.
    """
    try:
        builder, documents = _Builder(), 0
        for event in yaml.parse(text, Loader=_CLoader):
            documents += isinstance(event, yaml.DocumentStartEvent)
            if documents > 1:
                raise _problem("found a second document", event)
            builder.feed(event)
        return builder.root
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}:" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{name}:{where} {problem}, expected plain YAML") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: {str(error).splitlines()[0]}, expected plain YAML") from None


def read_yaml(path: Path) -> Any:
    """The value of a YAML file; InputError when it cannot be read or is not plain YAML."""
    settle(path.parent)  # it may be a result whose process died while it put the files in place
    return parse_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """A UTF-8 text file of bounded size; InputError when it cannot be read."""
    size = regular_file(path, str(path))
    try:
        if size > MAX_BYTES:
            raise InputError(f"{path}: found {size / 2**20:.0f} MiB, expected at most {MAX_BYTES // 2**20} MiB")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8, expected a text file") from None
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def regular_file(path: Path, name: str) -> int:
    """The size of a file in bytes, if it is one: a pipe or a device may never end.

    Args:
        name: what to call it in error messages.

    Raises:
        InputError: when it is missing, or no regular file.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{name}: no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{name}: found a directory, expected a file")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{name}: found a pipe or a device, expected a file")
    return status.st_size

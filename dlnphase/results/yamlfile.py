"""YAML in and out: plain Python types alone, nothing executed, every float exact.

Reading is stricter than YAML: no tags, no anchors or aliases, no merge keys, no duplicate keys, bounded
nesting. Words follow YAML 1.2's core schema, so ``1e-8`` is a number and ``no`` a string. Writing quotes
whatever any YAML reader could take for something else, and puts short lists on one line.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from dlnphase.errors import InputError

MAX_BYTES = 256 * 2**20
MAX_DEPTH = 40
FLOW_WIDTH = 110  # mappings of plain values, and lists of lists, that fit in so many characters stay on one line

_CLoader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_INT = re.compile(r"[-+]?[0-9]+")


class _Loader(_CLoader):
    """Scalars by the core schema of YAML 1.2."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(f"(?:{_INT.pattern})$"), list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{_FLOAT.pattern})$"), list("-+0123456789."))


def _integer(loader: Any, node: Any) -> int:
    return int(node.value)


def _problem(text: str, place: Any) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, text, place.start_mark)


def _mapping(loader: Any, node: Any) -> dict[Any, Any]:
    out: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise _problem(f"found the key {key!r} that is not a word", key_node)
        if key in out:
            raise _problem(f"found the key {key!r} twice", key_node)
        out[key] = loader.construct_object(value_node, deep=True)
    return out


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)  # plain decimals: 010 is ten, not eight
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


class _Dumper(yaml.SafeDumper):
    """Plain types; strings quoted for readers of YAML 1.1 and of 1.2 alike; no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
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
        _scan(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}:" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{name}:{where} {problem}, expected plain YAML") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: {str(error).splitlines()[0]}, expected plain YAML") from None


def read_yaml(path: Path) -> Any:
    """The value of a YAML file; InputError when it cannot be read or is not plain YAML."""
    return parse_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """A UTF-8 text file of bounded size; InputError when it cannot be read."""
    try:
        if path.is_dir():
            raise InputError(f"{path}: found a directory, expected a file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{path}: found {size / 2**20:.0f} MiB, expected at most {MAX_BYTES // 2**20} MiB")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8, expected a text file") from None
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _scan(text: str) -> None:
    """Refuse tags, anchors and aliases, and nesting beyond MAX_DEPTH, before anything is built."""
    depth = 0
    for event in yaml.parse(text, Loader=_CLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _problem("found an anchor or alias", event)
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise _problem(f"found the tag {tag!r}", event)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _problem(f"nested deeper than {MAX_DEPTH}", event)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1

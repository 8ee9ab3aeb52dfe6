"""The schemas that this version writes, one per kind of result; it reads these and every older version of them.

On raising one, see "Raising the version of a schema" in docs/architecture.md.
"""

from __future__ import annotations

from typing import Any

from dlnphase.errors import InputError
from dlnphase.results.schema import split_schema

SCHEMAS = ("dlnphase/train@1", "dlnphase/sweep-gamma@1", "dlnphase/detect-saddles@1", "dlnphase/plot@1")


def current_schema(schema: Any, where: str) -> str:
    """The schema that a file with this ``schema`` line is brought up to.

    Args:
        where: the file, for the message.

    Raises:
        InputError: when no kind of result has that name.
    """
    name, _ = split_schema(schema, where)
    for current in SCHEMAS:
        if split_schema(current, where)[0] == name:
            return current
    known = ", ".join(split_schema(s, where)[0] for s in SCHEMAS)
    raise InputError(f"{where}: found a result of {name}, expected one of {known}")

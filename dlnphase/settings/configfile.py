"""``--config``: settings from a YAML file, or from the ``config:`` block of a result, which reproduces its run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlnphase.errors import InputError
from dlnphase.results.yamlfile import read_yaml


def read_config(path: Path) -> dict[str, Any]:
    """The settings a file holds, as plain values.

    Raises:
        InputError: when it cannot be read or holds anything but ``key: value`` lines.
    """
    data = read_yaml(path)
    if data is None:
        return {}
    if isinstance(data, Mapping) and "schema" in data:
        data = data.get("config")
    if not isinstance(data, dict):
        raise InputError(f"{path}: found no settings, expected key: value lines (or a result file of dlnphase)")
    return data

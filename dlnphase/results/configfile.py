"""``--config``: settings from a YAML file, or from the ``config:`` block of a result, which reproduces its run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlnphase.errors import InputError
from dlnphase.results.schema import load_document
from dlnphase.results.versions import current_schema
from dlnphase.results.yamlfile import read_yaml


def read_config(path: Path) -> dict[str, Any]:
    """The settings a file holds, as plain values.

    Raises:
        InputError: when it cannot be read, holds anything but ``key: value`` lines, or is a result of a newer version.
    """
    data = read_yaml(path)
    if data is None:
        return {}
    if isinstance(data, Mapping) and "schema" in data:
        # As for any reading of a result: older versions are brought up to date, newer ones refused.
        data = load_document(path, current_schema(data["schema"], str(path))).get("config")
    if not isinstance(data, dict):
        raise InputError(f"{path}: found no settings, expected key: value lines (or a result file of dlnphase)")
    return data

"""The numbers of a figure as one long, tidy table: a row for each thing measured, a column for each property of it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dlnphase.plotting.sources import ResultSource


@dataclass(frozen=True)
class FigureData:
    """A table of numbers and words.

    Attributes:
        columns: their names.
        rows: values in that order; None and NaN are left empty, numbers keep every digit.
    """

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]

    def csv(self) -> str:
        """Comma-separated values (RFC 4180), the names of the columns first, one line a row."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_cell(value) for value in row] for row in self.rows)
        return stream.getvalue()


def data_of(sources: Iterable[tuple[ResultSource, Iterable[Sequence[Any]]]], *columns: str) -> FigureData:
    """One table of several sources: ``source`` and ``label`` before the columns of each.

    Args:
        sources: each source with its rows, all of the same columns.
        columns: their names.
    """
    rows = [(source.name, source.label, *row) for source, its in sources for row in its]
    return FigureData(("source", "label", *columns), rows)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (int, str)):
        return str(value)
    return repr(float(value))

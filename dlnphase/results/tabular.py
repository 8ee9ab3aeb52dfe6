"""Results in a notebook: one line as their repr, a table as their display, a data frame where pandas is installed."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dlnphase.errors import InputError
from dlnphase.results.cells import number

if TYPE_CHECKING:
    import pandas


class Tabular:
    """A result that is a table.

    A subclass says its columns (:meth:`columns`), the rows a notebook shows (:meth:`display_rows`) and one line of
    words (:meth:`headline`).
    """

    def columns(self) -> dict[str, np.ndarray]:
        """The result as columns of one length, by name."""
        raise NotImplementedError

    def display_rows(self) -> list[dict[str, Any]]:
        """The rows of the table that a notebook shows; by default those of :meth:`columns`."""
        columns = self.columns()
        count = len(next(iter(columns.values()), []))
        return [{name: column[k] for name, column in columns.items()} for k in range(count)]

    def headline(self) -> str:
        """What it is, in one line."""
        raise NotImplementedError

    def to_dataframe(self) -> pandas.DataFrame:
        """The columns as a pandas data frame.

        Raises:
            InputError: where pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise InputError("to_dataframe needs the package pandas: pip install pandas") from None
        return pandas.DataFrame(self.columns())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.headline()}>"

    def _repr_html_(self) -> str:
        rows = self.display_rows()
        head = f"<p>{html.escape(self.headline())}</p>"
        if not rows:
            return head
        names = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
        body = "".join(f"<tr>{''.join(f'<td>{_shown(v)}</td>' for v in row.values())}</tr>" for row in rows)
        return f"{head}<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"


def columns_of(rows: list[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Rows with the same keys as columns; None among numbers becomes NaN."""
    if not rows:
        return {}
    out = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if any(v is None for v in values) and all(v is None or isinstance(v, (int, float)) for v in values):
            values = [np.nan if v is None else v for v in values]
        out[name] = np.array(values)
    return out


def _shown(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return number(float(value))
    return html.escape(str(value))

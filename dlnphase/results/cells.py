"""The cells of tables that people read, the same on the terminal, on the page of everything and in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlnphase.results.detect import DetectResult, VisitInfo

MISSING = "–"


def number(value: float | None, digits: int = 4) -> str:
    """A number of so many digits; a dash where there is none."""
    return MISSING if value is None or value != value else f"{value:.{digits}g}"


def percent(share: float | None) -> str:
    """A share in percent; a dash for none."""
    return MISSING if share is None else f"{100 * share:.2f} %"


def told(value: Any) -> str:
    """A count, or a word; a dash for none."""
    return MISSING if value is None else str(value)


def visit_names(result: DetectResult) -> list[str]:
    """The heads of the columns that tell visits apart."""
    return ["start", "rank"] if len(result.path.members) > 1 else ["rank"]


def visit_cells(result: DetectResult, visit: VisitInfo) -> list[str]:
    """The cells below them."""
    return [str(visit.member), str(visit.rank)] if len(result.path.members) > 1 else [str(visit.rank)]

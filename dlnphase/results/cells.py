"""The cells of tables that people read, the same on the terminal, on the page of everything and in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlnphase.results.detect import DetectResult, VisitInfo

MISSING = "–"
ROUND_OFF = 1e-20  # of the largest cost of a table: an exact fit is shown as 0


def number(value: float | None, digits: int = 4) -> str:
    """A number of so many digits; a dash where there is none."""
    return MISSING if value is None or value != value else f"{value:.{digits}g}"


def cost(value: float | None, largest: float, digits: int) -> str:
    """A cost of a table whose largest one is known: what an exact fit leaves of it is 0."""
    return "0" if value is not None and abs(value) < ROUND_OFF * max(largest, 1e-300) else number(value, digits)


def largest_cost(result: DetectResult) -> float:
    """Of those on the path at its visits; 1 where none is above 0."""
    return max((v.cost for v in result.visits), default=1.0) or 1.0


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

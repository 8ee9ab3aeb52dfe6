"""Why members end: one table of what dynamics, and whoever judges their records, may write as a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlnphase.training.run import Run


@dataclass(frozen=True)
class Reason:
    """A reason to end.

    Attributes:
        meaning: in the reference of results.
        words: the beginning of a sentence; ``{they}`` and ``{were}`` stand for one start or several.
        advice: what to do about it in one line, or "".
        fails: whether a run that ends so has failed; a budget that ran out is an answer.
    """

    meaning: str
    words: str
    advice: Callable[[Run], str]
    fails: bool = False


def _too_large(run: Run) -> str:
    if run.descent is not None:
        lr = max(run.descent.lr.values)
        return f"the step η = {lr:g} is too large: try --lr auto, or --lr {lr / 4:.2g}"
    from dlnphase.costs.quadratic import QuadraticCost  # words about a result need no torch

    if not isinstance(run.task.cost, QuadraticCost):
        return "a flow never climbs: dlnphase.check_cost tells whether the gradient is that of the cost"
    return f"numbers overflowed on the way: try {_precision(run)}a start of smaller scale (larger --gamma)"


def _drowned(run: Run) -> str:
    cause = "round-off, of learned modes or of layers balanced to the last digit, decides what comes next"
    return f"{cause}: try {_precision(run)}a smaller --gamma"


def _late(run: Run) -> str:
    if run.settings.max_time is None:
        return "the wait is longer than any time a float holds: try a start of larger scale (smaller --gamma)"
    return f"the time budget --max-time {run.settings.max_time:g} ran out: raise it to see more"


def _precision(run: Run) -> str:
    return "" if run.settings.dtype == "float64" else "--dtype float64, or "


# Of several members the first of these reasons is told: a batch is not over while one can go on; then the worst first.
REASONS = {
    "interrupted": Reason("asked to stop", "{they} {were} interrupted", lambda run: "--resume goes on from there"),
    "diverged": Reason(
        "numbers out of range, a cost far above the start, or steps too small to count",
        "{they} diverged",
        _too_large,
        True,
    ),
    "precision_floor": Reason(
        "the cost stood still for very many steps: round-off", "{they} met the floor of this precision", _drowned, True
    ),
    "max_steps": Reason(
        "`--max-steps` ran out",
        "The step budget ran out",
        lambda run: f"the step budget --max-steps {run.settings.max_steps} ran out: raise it to see more",
    ),
    "max_time": Reason(
        "`--max-time` ran out, or the largest time that a float holds", "The time budget ran out", _late
    ),
    "converged": Reason("the goal of `--tol` is met", "{they} converged", lambda run: ""),
}

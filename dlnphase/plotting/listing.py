"""One line for every result: what tells it from the others, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlnphase.plotting.sources import ResultSource, said, settings_words
from dlnphase.results.detect import DetectResult
from dlnphase.results.train import TrainResult
from dlnphase.results.underway import Unfinished


@dataclass(frozen=True)
class Line:
    """A result in the listing.

    Attributes:
        name: its directory.
        command: that made it.
        settings: those in which it differs from the others of its kind, or all of them for a single one.
        outcome: how it ended, in a few words.
        started: when, as its provenance says.
    """

    name: str
    command: str
    settings: str
    outcome: str
    started: str


def overview(sources: Sequence[ResultSource]) -> list[Line]:
    """The listing, in the order of the sources."""
    lines = []
    for s in sources:
        told = s.label if s.label and s.label != s.name else settings_words(s)
        lines.append(Line(s.name, s.kind, told, outcome_words(s.result), s.result.provenance.started))
    return lines


def unfinished_lines(runs: Sequence[Unfinished]) -> list[Line]:
    """The same for runs that have no result yet."""
    return [Line(r.directory.name or str(r.directory), "train", said(r.settings), _torn(r), "") for r in runs]


def _torn(run: Unfinished) -> str:
    """What became of a run without a result, and how it goes on."""
    work = "" if run.seconds is None else f" after {run.seconds:.3g} s of work"
    if run.process is not None:
        return f"under way{work} (process {run.process})"
    return f"killed {run.when}{work}; dlnphase train --out {_short(run.directory)} --resume goes on"


def _short(path: Path) -> str:
    """A path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) and path != here else str(path)


def outcome_words(result: Any) -> str:
    """How a result ended: regime, ranks and reason of a run; visits; cells and the critical γ."""
    if isinstance(result, TrainResult):
        return _run_words(result)
    if isinstance(result, DetectResult):
        ranks = ", ".join(str(v.rank) for v in result.visits if v.member == result.visits[0].member)
        starts = f" (first of {len(result.path.members)} starts)" if len(result.path.members) > 1 else ""
        return f"visits at rank {ranks}{starts}" if result.visits else "no visit"
    done = f"{len(result.cells)} of {len(result.config.cells)} cells"
    critical = result.critical_gamma
    found = f"{done}, critical γ {critical.estimate:.4f}" if critical is not None else done
    return f"{found}, {len(result.failed)} failed" if result.failed else found


def _run_words(result: TrainResult) -> str:
    outcome, rows = result.outcome, result.rank_transitions
    ranks = " → ".join(str(r) for r in [rows[0].from_rank, *(row.to_rank for row in rows)]) if rows else ""
    words = [outcome.regime or "regime not told", f"rank {ranks or outcome.rank}"]
    words.append(f"{outcome.reason.replace('_', ' ')} at t = {outcome.time:.4g}")
    words.append(f"cost {outcome.cost:.3g}" + ("" if outcome.test_cost is None else f", test {outcome.test_cost:.3g}"))
    return ", ".join(words)

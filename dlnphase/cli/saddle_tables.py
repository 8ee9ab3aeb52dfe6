"""Tables of ``dlnphase detect-saddles`` on the terminal."""

from __future__ import annotations

import sys
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dlnphase.cli.console import stdout_console
from dlnphase.cli.tables import SHARES, explain, new_table, number, percent, show
from dlnphase.detect.sentences import detect_sentence, visits_in_words
from dlnphase.findings import counted
from dlnphase.results.detect import DetectResult, VisitInfo

if TYPE_CHECKING:
    from dlnphase.detect.proofs import Checked

KIND_STYLE = {
    "strict-saddle": "magenta",
    "degenerate-saddle": "yellow",
    "global-minimum": "green",
    "local-minimum": "green",
    "not-critical": "dim",
    "uncertified": "dim",
}


def print_detect(console: Console, result: DetectResult, directory: Path) -> None:
    """Headline, visits, certificates, escapes, the comparison with the greedy path, one sentence, where it is saved."""
    path, task = result.path, result.task
    what = f"{task.words} {task.shape[0]}×{task.shape[1]}, L = {path.depth}"
    if path.weight_decay:
        what += f", weight decay {path.weight_decay:g}"
    console.print(Text(f"{what}: {visits_in_words(result)} on {counted(path.records, 'record')}", style="bold"))
    if result.visits:
        tables = (_visits, _certificates, _decayed, _answers, _escapes, _greedy, _proofs, _theorem)
        for table in (make(result) for make in tables):
            if table is not None:
                show(console, table)
    console.print("\n" + detect_sentence(result))
    for note in dict.fromkeys(v.note for v in result.visits if v.note):
        console.print(Text(f"Note: {note}.", style="dim"))
    files = ", ".join(("saddles.yaml", *result.files.values()))
    console.print(Text(f"Saved in {directory} ({files})", style="dim"), soft_wrap=True)


def print_checked(checked: Checked, source: str, *, json: bool, quiet: bool) -> None:
    """What the checker found: a line per claim, whether the files were changed, the verdict."""
    if json:
        sys.stdout.write(dumps({"proof": source, **asdict(checked)}, ensure_ascii=False) + "\n")
    elif not quiet:
        console = stdout_console()
        for line in checked.lines:
            console.print(Text(line), soft_wrap=True)
        if checked.changed:
            console.print(Text("The files were changed since they were written.", style="yellow"))
        console.print(Text(checked.words, style="bold"), soft_wrap=True)


def _table(title: str, result: DetectResult, *columns: str) -> Table:
    table = new_table(title)
    if len(result.path.members) > 1:
        table.add_column("start", justify="right", no_wrap=True)
    table.add_column("rank", justify="right", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _first(result: DetectResult, visit: VisitInfo) -> list[str]:
    return [*([str(visit.member)] if len(result.path.members) > 1 else []), str(visit.rank)]


def _zero(value: float, unit: float) -> str:
    """Round-off of an exact fit is shown as 0."""
    return "0" if abs(value) < 1e-20 * unit else number(value, 6)


def _unit(result: DetectResult) -> float:
    return max((v.cost for v in result.visits), default=1.0) or 1.0


def _visits(result: DetectResult) -> Table:
    table = _table("Visits", result, "enter", "closest", "exit", "decades", "cost", "distance", "nearest")
    for v in result.visits:
        table.add_row(
            *_first(result, v),
            *(number(t) for t in (v.time.enter, v.time.closest, v.time.exit)),
            f"{v.prominence:.1f}",
            _zero(v.cost, _unit(result)),
            number(v.distance if v.distance is not None else v.matrix_distance, 3),
            number(v.nearest_distance, 3),
        )
    explain(
        table,
        "enter, closest, exit: times; decades: powers of ten by which ‖∇𝓛‖ sinks; cost: on the path at its closest; "
        "distance: from there to the critical point in parameter space; nearest: to the nearest one found",
    )
    return table


def _certificates(result: DetectResult) -> Table:
    table = _table("Critical points", result)
    table.add_column("kind", no_wrap=True)
    decay = result.path.weight_decay > 0
    symbol, what = ("μ", "C + (λ/2)‖θ‖²") if decay else ("λ", "𝓛")  # λ is the weight decay
    for name in ("cost", "‖∇𝓛‖", f"{symbol} min", f"{symbol} < 0", "order", "descent"):
        table.add_column(name, justify="right", no_wrap=True)
    for v in result.visits:
        c, e = v.curvature, v.escape
        table.add_row(
            *_first(result, v),
            Text(v.kind, style=KIND_STYLE.get(v.kind, "")),
            _zero(v.critical_point.cost, _unit(result)),
            f"{v.critical_point.gradient_norm:.0e}",
            "–" if c is None else number(c.least),
            "–" if c is None else f"{'' if c.complete else '≥ '}{c.negative_eigenvalues}",
            "–" if e is None or e.order is None else str(e.order),
            "–" if e is None or e.descent is None else f"{e.descent:.4f}",
        )
    explain(
        table,
        f"{symbol}: eigenvalues of the Hessian of {what}, the least and how many are below zero; order: the power of a "
        "step off the point with which the cost falls; descent: the fall obtained over the fall predicted",
    )
    return table


def _decayed(result: DetectResult) -> Table | None:
    """What is minimised at the critical points of a path with weight decay, and whose zero eigenvalues are."""
    if not result.path.weight_decay:
        return None
    what = "C + (λ/2)‖θ‖²"
    table = _table("Weight decay", result, what, "(λ/2)‖θ‖²", "μ = 0", "rotations")
    for v in result.visits:
        point, c = v.critical_point, v.curvature
        whole = None if point.penalty is None else point.cost + point.penalty
        counts = ("–", "–") if c is None else (_count(c.zero_eigenvalues), _count(c.rotations))
        table.add_row(*_first(result, v), number(whole, 6), number(point.penalty, 6), *counts)
    explain(
        table,
        "μ = 0: eigenvalues that are zero; rotations: how many are, since turning hidden spaces changes nothing. Where "
        "there are no more of them and none is negative, the point is a minimum",
    )
    return table


def _count(value: int | None) -> str:
    return "–" if value is None else str(value)


def _answers(result: DetectResult) -> Table | None:
    """What the critical points would answer, where the cost is one of classes."""
    points = [v.critical_point for v in result.visits]
    told = [name for name in SHARES if any(getattr(point, name) is not None for point in points)]
    if not told:
        return None
    table = _table("Answers of the critical points", result, *(SHARES[name] for name in told))
    for v, point in zip(result.visits, points, strict=True):
        table.add_row(*_first(result, v), *(percent(getattr(point, name)) for name in told))
    explain(table, "right: the share of samples whose own class alone has the largest answer; at A = 0 none has")
    return table


def _escapes(result: DetectResult) -> Table | None:
    """How each saddle is left: the growth of the next mode beside ‖∇C‖, and the direction."""
    left = [(v, e) for v in result.visits if (e := v.escape) is not None and e.alignment is not None]
    if not left:
        return None
    rate = "s = ‖∇C‖ − λ" if result.path.weight_decay else "s = ‖∇C‖"
    table = _table("How the saddles are left", result, "rate on the path", rate, "aligned with its top pair")
    less = ", less weight decay" if result.path.weight_decay else ""
    for v, escape in left:
        aligned = f"{escape.alignment:.4f}"
        table.add_row(*_first(result, v), number(escape.rate), number(escape.predicted_rate), aligned)
    explain(
        table,
        f"s: the rate that theory gives the next mode, the largest singular value of −∇C there{less}; aligned: the "
        "share of the way out that lies along the pair of singular vectors that belongs to it",
    )
    return table


def _greedy(result: DetectResult) -> Table | None:
    if not any(v.greedy is not None for v in result.visits):
        return None
    table = _table("Beside the greedy path (α → 0)", result, "cost", "greedy", "difference", "distance")
    table.add_column("same point", no_wrap=True)
    unit = _unit(result)
    for v in result.visits:
        g = v.greedy
        if g is None:
            table.add_row(*_first(result, v), _zero(v.cost, unit), "–", "–", "–", "–")
            continue
        table.add_row(
            *_first(result, v), _zero(v.cost, unit), _zero(g.cost, unit), number(g.relative_difference, 2),
            number(g.distance, 2), "yes" if g.same else "no",
        )  # fmt: skip
    explain(
        table,
        "greedy: cost of the saddle of that rank in the limit of vanishing initial weights; difference: of the costs, "
        "over that of the origin; distance: of the matrices, over the norm of the last one",
    )
    return table


def _proofs(result: DetectResult) -> Table | None:
    if not any(v.proof is not None for v in result.visits):
        return None
    table = _table("Proved in ball arithmetic", result)
    table.add_column("verdict", no_wrap=True)
    for name in ("cost", "s = ‖∇C‖", "distance"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("reason")
    for v in result.visits:
        p = v.proof
        if p is None or p.cost is None or p.rate is None:
            verdict, reason = ("–", "") if p is None else (p.verdict, p.reason)
            table.add_row(*_first(result, v), verdict, "–", "–", "–", reason)
            continue
        cost = _zero(p.cost[1], _unit(result))
        table.add_row(*_first(result, v), p.verdict, cost, number(p.rate[1], 6), number(p.distance, 3), p.reason)
    explain(table, "An exact critical point lies within the distance, and is no minimum (where s = 0, a global one).")
    return table


def _theorem(result: DetectResult) -> Table | None:
    theorem = result.proof.theorem if result.proof is not None else None
    if theorem is None:
        return None
    table = new_table("The flow from its start: " + theorem.verdict)
    table.add_column("", no_wrap=True)
    for name in ("time", "within"):
        table.add_column(name, justify="right", no_wrap=True)
    for v in theorem.visits:
        table.add_row(f"saddle of rank {v.rank}", number(v.time[0], 6), number(v.distance, 3))
    end = theorem.end
    if end.verdict == "proved" and end.time is not None:
        table.add_row("converges to a global minimum", number(end.time[0], 6), number(end.distance, 3))
    steps = f"{counted(theorem.steps, 'step')} with {theorem.bits} bits"
    words = f"{steps}; radius of the tube at the end {theorem.radius:.1e}."
    explain(table, words + (f" Refused: {theorem.reason}." if theorem.reason else ""))
    return table

"""Tables of ``dlnphase detect-saddles`` on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dlnphase.cli.console import stdout_console
from dlnphase.cli.tables import SHARES, new_table, show
from dlnphase.detect.sentences import detect_sentence, visits_in_words
from dlnphase.findings import counted
from dlnphase.results.cells import MISSING, cost, largest_cost, number, percent, told, visit_cells, visit_names
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


def _table(
    title: str,
    result: DetectResult,
    names: Sequence[str],
    rows: Iterable[tuple[VisitInfo, Sequence[Any]]],
    words: str,
    **columns: Sequence[str],
) -> Table | None:
    """A row for each of some visits; None where there are none."""
    cells = [[*visit_cells(result, visit), *row] for visit, row in rows]
    return new_table(title, [*visit_names(result), *names], cells, words, **columns) if cells else None


def _visits(result: DetectResult) -> Table | None:
    unit, rows = largest_cost(result), []
    for v in result.visits:
        times = [number(t) for t in (v.time.enter, v.time.closest, v.time.exit)]
        distance = number(v.distance if v.distance is not None else v.matrix_distance, 3)
        rows.append(
            (v, [*times, f"{v.prominence:.1f}", cost(v.cost, unit, 6), distance, number(v.nearest_distance, 3)])
        )
    names = ("enter", "closest", "exit", "decades", "cost", "distance", "nearest")
    words = (
        "enter, closest, exit: times; decades: powers of ten by which ‖∇𝓛‖ sinks; cost: on the path at its closest; "
        "distance: from there to the critical point in parameter space; nearest: to the nearest one found"
    )
    return _table("Visits", result, names, rows, words)


def _certificates(result: DetectResult) -> Table | None:
    decay = result.path.weight_decay > 0
    symbol, what = ("μ", "C + (λ/2)‖θ‖²") if decay else ("λ", "𝓛")  # λ is the weight decay
    rows = []
    for v in result.visits:
        c, e = v.curvature, v.escape
        kind, point = Text(v.kind, style=KIND_STYLE.get(v.kind, "")), v.critical_point
        cells = [kind, cost(point.cost, largest_cost(result), 6), f"{point.gradient_norm:.0e}"]
        cells += [
            number(None if c is None else c.least),
            told(c and f"{'' if c.complete else '≥ '}{c.negative_eigenvalues}"),
        ]
        cells += [told(e and e.order), MISSING if e is None or e.descent is None else f"{e.descent:.4f}"]
        rows.append((v, cells))
    names = ("kind", "cost", "‖∇𝓛‖", f"{symbol} min", f"{symbol} < 0", "order", "descent")
    words = (
        f"{symbol}: eigenvalues of the Hessian of {what}, the least and how many are below zero; order: the power of a "
        "step off the point with which the cost falls; descent: the fall obtained over the fall predicted"
    )
    return _table("Critical points", result, names, rows, words, left=("kind",))


def _decayed(result: DetectResult) -> Table | None:
    """What is minimised at the critical points of a path with weight decay, and whose zero eigenvalues are."""
    rows = []
    for v in result.visits if result.path.weight_decay else ():
        point, c = v.critical_point, v.curvature
        whole = None if point.penalty is None else point.cost + point.penalty
        counts = (told(c and c.zero_eigenvalues), told(c and c.rotations))
        rows.append((v, (number(whole, 6), number(point.penalty, 6), *counts)))
    words = (
        "μ = 0: eigenvalues that are zero; rotations: how many are, since turning hidden spaces changes nothing. Where "
        "there are no more of them and none is negative, the point is a minimum"
    )
    return _table("Weight decay", result, ("C + (λ/2)‖θ‖²", "(λ/2)‖θ‖²", "μ = 0", "rotations"), rows, words)


def _answers(result: DetectResult) -> Table | None:
    """What the critical points would answer, where the cost is one of classes."""
    points = [(v, v.critical_point) for v in result.visits]
    known = [name for name in SHARES if any(getattr(point, name) is not None for _, point in points)]
    rows = [(v, [percent(getattr(point, name)) for name in known]) for v, point in points if known]
    words = "right: the share of samples whose own class alone has the largest answer; at A = 0 none has"
    return _table("Answers of the critical points", result, [SHARES[name] for name in known], rows, words)


def _escapes(result: DetectResult) -> Table | None:
    """How each saddle is left: the growth of the next mode beside ‖∇C‖, and the direction."""
    rows = [
        (v, (number(e.rate), number(e.predicted_rate), f"{e.alignment:.4f}"))
        for v in result.visits
        if (e := v.escape) is not None and e.alignment is not None
    ]
    rate = "s = ‖∇C‖ − λ" if result.path.weight_decay else "s = ‖∇C‖"
    less = ", less weight decay" if result.path.weight_decay else ""
    words = (
        f"s: the rate that theory gives the next mode, the largest singular value of −∇C there{less}; aligned: the "
        "share of the way out that lies along the pair of singular vectors that belongs to it"
    )
    names = ("rate on the path", rate, "aligned with its top pair")
    return _table("How the saddles are left", result, names, rows, words)


def _greedy(result: DetectResult) -> Table | None:
    unit, rows = largest_cost(result), []
    for v in result.visits if any(v.greedy is not None for v in result.visits) else ():
        g, greedy = v.greedy, [MISSING] * 4
        if g is not None:
            apart = number(g.relative_difference, 2), number(g.distance, 2)
            greedy = [cost(g.cost, unit, 6), *apart, "yes" if g.same else "no"]
        rows.append((v, [cost(v.cost, unit, 6), *greedy]))
    names = ("cost", "greedy", "difference", "distance", "same point")
    words = (
        "greedy: cost of the saddle of that rank in the limit of vanishing initial weights; difference: of the costs, "
        "over that of the origin; distance: of the matrices, over the norm of the last one"
    )
    return _table("Beside the greedy path (α → 0)", result, names, rows, words, left=("same point",))


def _proofs(result: DetectResult) -> Table | None:
    rows = []
    for v in result.visits if any(v.proof is not None for v in result.visits) else ():
        p, numbers = v.proof, [MISSING] * 3
        if p is not None and p.cost is not None and p.rate is not None:
            numbers = [cost(p.cost[1], largest_cost(result), 6), number(p.rate[1], 6), number(p.distance, 3)]
        rows.append((v, [told(p and p.verdict), *numbers, p.reason if p is not None else ""]))
    names = ("verdict", "cost", "s = ‖∇C‖", "distance", "reason")
    words = "An exact critical point lies within the distance, and is no minimum (where s = 0, a global one)."
    return _table("Proved in ball arithmetic", result, names, rows, words, left=("verdict",), fold=("reason",))


def _theorem(result: DetectResult) -> Table | None:
    theorem = result.proof.theorem if result.proof is not None else None
    if theorem is None:
        return None
    rows = [(f"saddle of rank {v.rank}", number(v.time[0], 6), number(v.distance, 3)) for v in theorem.visits]
    end = theorem.end
    if end.verdict == "proved" and end.time is not None:
        rows.append(("converges to a global minimum", number(end.time[0], 6), number(end.distance, 3)))
    words = f"{counted(theorem.steps, 'step')} with {theorem.bits} bits; radius of the tube at the end "
    words += f"{theorem.radius:.1e}." + (f" Refused: {theorem.reason}." if theorem.reason else "")
    title = "The flow from its start: " + theorem.verdict
    return new_table(title, ("", "time", "within"), rows, words, left=("",))

"""The phase table of ``dlnphase sweep-gamma`` on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dlnphase.cli.tables import REGIME_STYLE, new_table, regime_text, show
from dlnphase.findings import DecayTheory, Exponent, counted
from dlnphase.results.cells import MISSING, number, told
from dlnphase.results.sweep import Cell, MinimumCell, SaddleCell, SweepResult
from dlnphase.sweep.run import sweep_sentence

MAX_MODES = 5  # columns of modes under weight decay
WIDE = 96  # columns from which the phase table has room for the ranks seen
DISTANCES = ("to the minimum", "theory", "to the saddle", "theory")  # heads of four columns
BOUND = {"at least": "≥ ", "at most": "≤ "}  # theory that is a bound
MARKS = {"agrees": ("✓", "green"), "drifts": ("↗", "yellow"), "differs": ("✗", "red"), "open": ("", "")}
LEGEND = {
    "agrees": "✓ theory lies in the interval, widened by the last change where that is at most 0.02",
    "drifts": "↗ it does not, but the slopes between neighbouring widths approach it as w grows",
    "differs": "✗ neither: the slope differs from theory at these widths",
}


LAST_CHANGE = "(last change): between the slopes of the two widest pairs of widths, a measure of how far the limit is"


def print_sweep(console: Console, result: SweepResult, directory: Path) -> None:
    """Headline, phase table, distances at the widest network, dynamics if followed, one sentence, where it is saved."""
    console.print(Text(_headline(result), style="bold"))
    if result.exponents:
        console.print()
        console.print(_phases(result, console.width >= WIDE))
        console.print(Text(_legend(result), style="dim"))
        if any(row.distance_to_minimum.finite_width is not None for row in result.exponents):
            console.print(Text(LAST_CHANGE, style="dim"))
    widest = [c for c in result.cells if c.width == max(result.config.widths)]
    if widest:
        show(console, _distances(widest))
    if any(c.reasons is not None for c in widest):
        show(console, _dynamics(widest))
    decayed = [(c, c.decay) for c in widest if c.decay is not None]
    if decayed:
        show(console, _decayed(decayed, result.config.depth))
    console.print("\n" + sweep_sentence(result))
    for note in result.notes:
        console.print(Text(f"Note: {note}.", style="dim"))
    console.print(Text(f"Saved in {directory} (sweep.yaml)", style="dim"), soft_wrap=True)


def _headline(result: SweepResult) -> str:
    task, config = result.task, result.config
    widths = config.widths
    span = f"w = {widths[0]:g}" if len(widths) == 1 else f"w = {widths[0]:g} … {widths[-1]:g}"
    starts = f"{counted(len(config.seeds), 'start')} per cell"
    return f"{task.kind} {task.shape[0]}×{task.shape[1]}, L = {config.depth}, {span}, {starts}"


def _phases(result: SweepResult, wide: bool) -> Table:
    followed = wide and any(c.reasons is not None for c in result.cells)
    rows = []
    for row in result.exponents:
        cells = [Text(f"{row.gamma:g}", style=REGIME_STYLE[row.regime]), regime_text(row.regime)]
        for exponent in (row.distance_to_minimum, row.distance_to_saddle):
            cells += [Text(_slope(exponent, wide)), _theory(exponent)]
        if followed:
            cells.append(Text(_ranks([c for c in result.cells if c.gamma == row.gamma])))
        rows.append(cells)
    names = ("γ", "regime", *DISTANCES, *(("ranks seen",) if followed else ()))
    title = "Slopes d log(distance) / d log(width) ± 95 % of the draws (last change)"
    return new_table(title, names, rows, left=("regime",), fold=("ranks seen",))


def _slope(exponent: Exponent, wide: bool) -> str:
    """The slope, half the interval of the draws, and in brackets how much the slope still changes with the width."""
    out = _signed(exponent.slope)
    if exponent.ci95 is not None:
        out += f" ± {_error((exponent.ci95[1] - exponent.ci95[0]) / 2)}"
    if exponent.finite_width is None:
        return out
    return f"{out}{' ' if wide else chr(10)}({_error(exponent.finite_width)})"


def _error(value: float) -> str:
    """Three decimals, or one digit where those would be zeros."""
    return f"{value:.3f}" if value >= 5e-4 else f"{max(value, 1e-9):.0e}".replace("e-0", "e-")


def _theory(exponent: Exponent) -> Text:
    if exponent.predicted is None:
        return Text(MISSING, style="dim")
    mark, style = MARKS[exponent.verdict]
    return Text(_signed(exponent.predicted) + " ") + Text(mark, style=style)


def _signed(value: float) -> str:
    """Three decimals, and no minus sign before a zero."""
    return f"{value:.3f}" if abs(value) >= 5e-4 else "0.000"


def _legend(result: SweepResult) -> str:
    seen = {e.verdict for row in result.exponents for e in (row.distance_to_minimum, row.distance_to_saddle)}
    return "; ".join(words for verdict, words in LEGEND.items() if verdict in seen)


def _ranks(cells: list[Cell]) -> str:
    """Ranks gone through at the widest network that was followed."""
    followed = [c for c in cells if c.rank_transitions is not None]
    return _path(followed[-1]) if followed else MISSING


def _path(cell: Cell) -> str:
    """The transitions that most starts made, as a chain; without any, the rank that came all at once."""
    rows = [t for t in cell.rank_transitions or () if 2 * t.starts >= cell.seeds]
    if not rows:
        return MISSING if cell.matrix_rank is None else f"all {cell.matrix_rank.mean:.2g}"
    return "→".join(str(r) for r in [rows[0].from_rank, *(t.to_rank for t in rows)])


def _distances(cells: list[Cell]) -> Table:
    rows = []
    for cell in cells:
        m, s = cell.distance_to_minimum, cell.distance_to_saddle
        found = max(s.found, key=lambda name: s.found[name])
        several = f" ({s.found[found]}/{cell.seeds})" if s.found[found] < cell.seeds else ""
        measured = (number(m.mean), _claimed(m), number(s.mean), _claimed(s))
        rows.append((f"{cell.gamma:g}", *measured, told(cell.nearer and cell.nearer.verdict), found + several))
    words = "nearest saddle: which modes of the target are dead there, that is, carried by no weight at all"
    bounds = any(BOUND.get(claim) for c in cells for claim in (c.distance_to_minimum.claim, c.distance_to_saddle.claim))
    words += "; ≥, ≤: theory bounds the limit of wide networks" if bounds else ""
    sure = [c.nearer.probability for c in cells if c.nearer is not None and c.nearer.probability < 1]
    words += f"; proved nearer: with probability {_almost_one(min(sure))}" if sure else ""
    title = f"Distances at w = {cells[0].width:g}, mean over the starts"
    names = ("γ", *DISTANCES, "proved nearer", "nearest saddle")
    table = new_table(title, names, rows, words, fold=("proved nearer", "nearest saddle"))
    table.columns[names.index("proved nearer")].min_width = len("undecided")
    return table


def _almost_one(probability: float) -> str:
    """1 − p in the form 1 − 1e-12, which more digits of p would not show."""
    return f"1 − {1 - probability:.0e}"


def _claimed(cell: MinimumCell | SaddleCell) -> str:
    """Theory's number, marked where it is a bound on the limit and not the limit."""
    return BOUND.get(cell.claim, "") + number(cell.predicted)


def _dynamics(cells: list[Cell]) -> Table:
    rows = []
    for cell in (cell for cell in cells if cell.reasons is not None):
        values = (cell.escape_time, cell.parameter_movement, cell.ntk_change, cell.nuclear_norm, cell.test_cost)
        numbers = (number(None if v is None else v.mean, 2) for v in values)
        rows.append((f"{cell.gamma:g}", regime_text(cell.regime_seen), _path(cell), *numbers))
    words = (
        "seen: the regime the paths tell; escape: time out of rank 0; moved, NTK: relative change of θ and of the "
        "tangent kernel; nuclear, test: nuclear norm of A and test cost at the end"
    )
    names = ("γ", "seen", "ranks", "escape", "moved", "NTK", "nuclear", "test")
    title = f"Gradient flow at w = {cells[0].width:g}, mean over the starts"
    return new_table(title, names, rows, words, left=("seen",), fold=("ranks",))


def _decayed(cells: list[tuple[Cell, DecayTheory]], depth: int) -> Table:
    """What weight decay leaves: a column per mode of a factorization, theory above, a row per γ below."""
    cell, theory = cells[0]
    modes, deep = theory.modes[:MAX_MODES], depth > 2
    title = f"Weight decay, λ = {theory.decay:g}, at w = {cell.width:g}, mean over the starts"
    names = ("γ", "leaves while λ <", "left", *(f"mode of {mode.size:.4g}" for mode in modes))
    table = new_table(title, names, ())
    if modes:
        rows = (("λ_0", "pays"), ("λ_max", "largest")) if deep else ()
        for name, key in (*rows, ("decayed", "decayed")):
            table.add_row(name, "", "", *(number(getattr(mode, key)) for mode in modes), end_section=key == "decayed")
    for cell, theory in cells:
        left = sum(rank > 0 for rank in cell.matrix_rank.values) if cell.matrix_rank is not None else 0
        ends = [number(mode.measured) for mode in theory.modes[:MAX_MODES]]
        table.add_row(f"{cell.gamma:g}", number(theory.leaves, 3), f"{left}/{cell.seeds}", *ends)
    bound = "s_1·α^(L−2), to a factor of order 1" if deep else "s_1"
    words = f"leaves while λ <: up to which a start leaves the origin, {bound}; left: starts that end with a mode"
    if modes:
        words += "; decayed: size of the mode at the minimum that has it, below it the sizes at the end"
        words += "; up to λ_0 it costs less than no mode, above λ_max there is none" if deep else ""
    if len(theory.modes) > MAX_MODES:
        words += f"; the first {MAX_MODES} of {len(theory.modes)} modes"
    table.caption = words
    return table

"""Tables of results on the terminal, and the one JSON document of ``--json``."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dlnphase.findings import DecayTheory, ModeSpread, Noise, NoiseFloor
from dlnphase.results.cells import MISSING, cost, number, percent
from dlnphase.results.train import Spread, TrainResult
from dlnphase.training.sentences import train_sentence

REGIME_STYLE = {"lazy": "cyan", "mean-field": "yellow", "saddle-to-saddle": "magenta"}
MAX_SIZES = 4  # singular values shown per row
SHARES = {"accuracy": "right", "test_accuracy": "right in test"}  # of answers: field → head of its column
MAX_MODES = 10  # rows of the table of modes
STARTS = ("± time", "starts")  # heads of the columns that tell how several starts vary


def print_json(result: Any) -> None:
    """One JSON document on stdout; NaN and infinities become null."""
    from dlnphase.results import json_ready, to_document

    sys.stdout.write(json.dumps(json_ready(to_document(result)), ensure_ascii=False, allow_nan=False) + "\n")


def new_table(
    title: str,
    names: Sequence[str],
    rows: Iterable[Sequence[Any]],
    words: str = "",
    *,
    left: Collection[str] = (),
    fold: Collection[str] = (),
) -> Table:
    """A table in the style of this project.

    Args:
        names: heads of its columns.
        rows: their cells: texts, or rich's.
        words: a line or two below it, for whoever meets its words for the first time; :func:`show` prints them.
        left: columns whose cells stand at the left instead of the right.
        fold: columns of longer texts, also at the left, which take as many lines as they need.
    """
    style: dict[str, Any] = {"title_justify": "left", "title_style": "bold", "box": box.SIMPLE_HEAD}
    table = Table(title=title, caption=words or None, show_edge=False, pad_edge=False, padding=(0, 1), **style)
    for name in names:
        if name in fold:
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, justify="left" if name in left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def first_modes(rows: Sequence[Sequence[str]], last: int) -> list[Sequence[str]]:
    """At most MAX_MODES rows, and below them the number of the last one that is left out."""
    return [*rows[:MAX_MODES], *([[f"… {last}"]] if len(rows) > MAX_MODES else [])]


def show(console: Console, table: Table) -> None:
    """A table after an empty line, and what explains it as wide as the terminal, not as narrow as the table."""
    words, table.caption = table.caption, None
    console.print()
    console.print(table)
    if words:
        console.print(Text(str(words), style="dim"))


def regime_text(regime: str | None) -> Text:
    """The regime in its colour."""
    return Text(regime or "not told", style=REGIME_STYLE.get(regime or "", "dim"))


def print_train(console: Console, result: TrainResult, directory: Path) -> None:
    """Headline, rank transitions, theory beside measurement, one sentence, where it is saved."""
    console.print(_headline(result))
    if result.rank_transitions:
        show(console, _transitions(result))
    if result.distributions is not None:
        from dlnphase.cli.start_tables import dwell_table, jump_table

        if result.distributions.dwells:
            show(console, dwell_table(result.distributions))
        show(console, jump_table(result.distributions))
    if result.modes:
        show(console, _modes(result))
    if result.noise is not None:
        show(console, _noise(result, result.noise))
    if any(p.predicted is not None or p.accuracy is not None or result.task.name_it for p in result.theory.plateaus):
        show(console, _plateaus(result))
    if result.theory.predictions:
        show(console, _predictions(result))
    if result.theory.decay is not None:
        show(console, _decay(result, result.theory.decay))
    console.print("\n" + train_sentence(result))
    files = ", ".join(("run.yaml", *result.files.values()))
    console.print(Text(f"Saved in {directory} ({files})", style="dim"), soft_wrap=True)


def _headline(result: TrainResult) -> Text:
    network, task, outcome = result.network, result.task, result.outcome
    if network.width is None:
        start = f"weights from a file, σ = {network.sigma:.4g}"
    elif network.gamma is None:
        start = "the limit α → 0"
    else:
        start = f"w = {network.width:.6g}, γ = {network.gamma:g}, σ = {network.sigma:.4g}"
    if result.config.weight_decay:
        start += f", weight decay {result.config.weight_decay:g}"
    words = f"{task.words} {task.shape[0]}×{task.shape[1]}, L = {network.depth}, {start}: "
    return Text(words, style="bold") + regime_text(outcome.regime)


def _transitions(result: TrainResult) -> Table:
    several = bool(result.spread)
    rows = []
    for i, row in enumerate(result.rank_transitions):
        cells = [f"{row.from_rank} → {row.to_rank}", number(row.time), number(row.dwell), str(row.step)]
        cells += [f"{number(row.cost_before)} → {number(row.cost_after, 3)}", f"{row.prominence:.1f}"]
        if several:
            cells += _over_starts(result.spread[i], result)
        else:
            shown = row.singular_values[: min(row.to_rank, MAX_SIZES)]
            cells.append(", ".join(number(s, 3) for s in shown) + (", …" if row.to_rank > MAX_SIZES else ""))
        rows.append(cells)
    names = ("rank", "time", "dwell", "step", "cost", "decades", *(STARTS if several else ("modes then",)))
    words = "time: of the steepest fall; dwell: the wait at the saddle before; decades: powers of ten by which ‖∇𝓛‖ "
    words += "sinks at that saddle" + ("" if several else "; modes then: singular values of A after it")
    title = "Rank transitions" + _over(result)
    return new_table(title, names, rows, words, left=("rank", "cost"), fold=("modes then",))


def _over_starts(spread: Spread | ModeSpread, result: TrainResult) -> list[str]:
    """How a time varies over the starts, and how many of them it is of: the cells below STARTS."""
    return [number(spread.time_std, 2), f"{spread.members}/{len(result.members)}"]


def _modes(result: TrainResult) -> Table:
    several, noise = bool(result.mode_spread), result.noise
    met = noise.rank if noise is not None else None
    doubt = "?" if noise is not None and noise.source == "measured" else ""
    rows = []
    for i, mode in enumerate(result.modes):
        cells = [str(mode.mode), number(mode.size), number(mode.time), number(mode.rise, 3), number(mode.separation, 2)]
        cells += _over_starts(result.mode_spread[i], result) if several else []
        cells += [f"noise{doubt}" if mode.mode > met else "signal"] if met is not None else []
        rows.append(cells)
    names = ("mode", "size", "half of it at", "10–90 % rise", "apart", *(STARTS if several else ()))
    names += ("fits",) if met is not None else ()
    words = "apart: time since the mode learned before it, over the mean of their rises; above 1 one by one"
    words += "; fits: below, where the noise begins" if met is not None else "."
    return new_table("Modes" + _over(result), names, first_modes(rows, len(rows)), words)


def _noise(result: TrainResult, noise: Noise) -> Table:
    """Rank by rank: the cost of the path, the cost that noise alone leaves, the test cost."""
    tested = any(floor.test_cost is not None for floor in noise.floors)
    rows = []
    for floor in noise.floors:
        cells = [str(floor.rank), number(floor.time), number(floor.cost), _left_by_noise(noise, floor)]
        cells += [number(floor.test_cost)] if tested else []
        mark = "" if noise.rank is None or floor.rank < noise.rank else "after it"
        rows.append([*cells, "← the noise" if floor.rank == noise.rank else mark])
    words = "noise alone: cost that noise of this σ leaves at the best matrix of that rank, ± its standard deviation"
    if noise.source == "measured":
        words += (
            "; ← the noise: the least rank at which what is left looks like noise; σ is not known: it is what is left "
            "there, so that this row holds no comparison"
        )
    else:
        words += "; ← the noise: the least rank at which it explains the cost"
    if any(floor.spread == 0 for floor in noise.floors):
        words += f"; {MISSING}: a matrix of that rank can fit any data there, noise leaves nothing"
    names = ("rank", "time", "cost", "noise alone", *(("test cost",) if tested else ()), "")
    title = f"Noise, σ = {noise.level:.4g} ({noise.source})" + _over(result)
    return new_table(title, names, first_modes(rows, noise.floors[-1].rank), words, left=("",))


def _left_by_noise(noise: Noise, floor: NoiseFloor) -> str:
    """The cost that noise alone leaves at a rank, where that is a number to compare with."""
    if noise.source == "measured" and floor.rank == noise.rank:
        return "σ from here"
    return f"{number(floor.expected, 3)} ± {number(floor.spread, 2)}" if floor.spread else MISSING


def _plateaus(result: TrainResult) -> Table:
    shown, unit = result.theory.plateaus, result.outcome.initial_cost
    columns = {
        "rank": [str(p.rank) for p in shown],
        "measured": [number(p.measured, 6) for p in shown],
        "at the critical point": [cost(p.refined, unit, 6) for p in shown],
        "theory": [cost(p.predicted, unit, 6) for p in shown],
    }
    if result.task.name_it:  # beside a cost that is not squared, what it is good for
        del columns["theory"]
        columns["test cost"] = [number(p.test_cost) for p in shown]
    for shares, name in SHARES.items():
        columns[name] = [percent(getattr(p, shares)) for p in shown]
    columns["λ"] = [number(p.learning_coefficient, 6) for p in shown]
    seen = {name: cells for name, cells in columns.items() if any(cell != MISSING for cell in cells)}
    learned = "λ: learning coefficient of a network of these widths that computes a matrix of that rank (Aoyagi)"
    rows = zip(*seen.values(), strict=True)
    return new_table("Cost at the visits" + _over(result), tuple(seen), rows, learned if "λ" in seen else "")


def _decay(result: TrainResult, decay: DecayTheory) -> Table:
    """Mode by mode: what weight decay leaves of it, in theory and at the end."""
    title = f"Weight decay, λ = {decay.decay:g}" + _over(result)
    deep = result.network.depth > 2
    leaves = f"leaves the origin while λ < {'about ' * deep}{number(decay.leaves, 3)}"
    leaves = f"a start {'of this size ' * deep}{leaves}, {'s_1·α^(L−2)' if deep else 's_1'}"
    if not decay.modes:
        words = leaves + "; s_1: largest singular value of −∇C at A = 0"
        row = (number(decay.leaves), "yes" if decay.left else "no")
        return new_table(title, ("leaves the origin while λ <", "left"), [row], words)
    rows = []
    for mode in decay.modes:
        bounds = [number(mode.pays), number(mode.largest)] if deep else []
        rows.append([str(mode.mode), number(mode.size), *bounds, number(mode.decayed), number(mode.measured)])
    names = ("mode", "size", *(("λ_0", "λ_max") if deep else ()), "decayed", "at the end")
    words = "decayed: size of the mode at the minimum that has it, "
    if not deep:
        words += "(s − λ)₊ of its size s in the target"
    else:
        words += "0 for λ above λ_max; up to λ_0 it costs less than no mode at all"
    return new_table(title, names, first_modes(rows, len(rows)), f"{words}; {leaves}")


def _over(result: TrainResult) -> str:
    """In a title: over how many starts the numbers are means."""
    return f" (mean over {len(result.members)} starts)" if result.members else ""


def _predictions(result: TrainResult) -> Table:
    shown = result.theory.predictions.values()
    rows = [(p.formula, number(p.predicted), number(p.measured)) for p in shown]
    words = {
        "α": "α = w^((1−γ)/2): scale of the initial weights",
        "s_1": "s_1: largest singular value of −∇C at A = 0",
        "K": "K: neural tangent kernel, whose eigenvalues are rates of learning",
        "θ": "θ: all weights",
        "s_i": "s_i: singular values of A",
    }
    formulas = " ".join(p.formula for p in shown)
    explained = "; ".join(meaning for sign, meaning in words.items() if sign in formulas)
    return new_table("Theory" + _over(result), ("", "predicted", "measured"), rows, explained, fold=("",))

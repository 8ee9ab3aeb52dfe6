"""The tables of the page: what the terminal shows of a result, in words and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dlnphase.findings import Exponent, StartShare
from dlnphase.plotting.timeline import members_of
from dlnphase.results import cells
from dlnphase.results.cells import MISSING, percent, told, visit_cells, visit_names
from dlnphase.results.detect import CurvatureInfo, DetectResult
from dlnphase.results.sweep import SweepResult
from dlnphase.results.train import Theory, TrainResult

SHARES = {"accuracy": "right answers", "test_accuracy": "right answers in the test"}  # field → head of its column
CELL_WORDS = (
    "d_m, d_s: measured to points that were found, means over the starts. at least: proved, the least over the starts. "
    "nearer: proved for every start, or undecided."
)
VERDICTS = {"agrees": "theory is met", "drifts": "still approaches theory", "differs": "differs", "open": MISSING}


@dataclass(frozen=True)
class Table:
    """A titled table of texts; ``words`` under it say what its columns mean."""

    title: str
    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    words: str = ""


def number(value: float | None, digits: int = 4) -> str:
    """A number for a cell, with signs of minus as wide as those of plus; a dash where there is none."""
    return cells.number(value, digits).replace("-", "−")


def _with_answers(
    names: Sequence[str], rows: list[list[str]], points: Sequence[Any]
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows, with the shares of right answers of the points they are of, where any has some."""
    known = [name for name in SHARES if any(getattr(point, name) is not None for point in points)]
    shares = ([percent(getattr(point, name)) for name in known] for point in points)
    return [*names, *(SHARES[name] for name in known)], [[*row, *more] for row, more in zip(rows, shares, strict=True)]


def tables_of(result: Any) -> list[Table]:
    """The tables of a result of any kind; those with no row are left out."""
    if isinstance(result, TrainResult):
        made = [_transitions(result), _dwells(result), _jumps(result), _modes(result), _noise(result), _members(result)]
        made += [_plateaus(result), _predictions(result), _outcome(result)]
    elif isinstance(result, DetectResult):
        made = [_visits(result), _certificates(result), _escapes(result), _greedy(result)]
    else:
        made = [_critical(result), _exponents(result), _cells(result), _failures(result)]
    return [table for table in made if table.rows]


def _cost(value: float | None, unit: float, digits: int = 5) -> str:
    return cells.cost(value, unit, digits).replace("-", "−")


def _transitions(result: TrainResult) -> Table:
    several = bool(result.spread)
    last = ("± time", "starts") if several else ("singular values then",)
    columns = ("rank", "time", "dwell", "step", "cost before", "cost after", "decades", *last)
    words = "decades: how far the gradient norm falls at the visit that is left. dwell: time since the jump before."
    words += f" Means over the {len(result.members)} starts." if several else ""
    rows = []
    for k, row in enumerate(result.rank_transitions):
        its = [f"{row.from_rank} → {row.to_rank}", number(row.time), number(row.dwell), str(row.step)]
        its += [number(row.cost_before), number(row.cost_after), f"{row.prominence:.1f}"]
        if several:
            spread = result.spread[k]
            its += [number(spread.time_std, 2), f"{spread.members} of {len(result.members)}"]
        else:
            its.append(", ".join(number(s, 3) for s in row.singular_values[: row.to_rank]))
        rows.append(its)
    return Table("Rank transitions", columns, rows, words)


def _dwells(result: TrainResult) -> Table:
    rows = [
        [str(d.rank), str(d.count), str(d.starts)]
        + [number(t) for t in (d.minimum, d.q10, d.q25, d.median, d.q75, d.q90, d.maximum, d.mean, d.std)]
        for d in (result.distributions.dwells if result.distributions else ())
    ]
    names = ("rank", "stays", "starts", "least", "10 %", "25 %", "median", "75 %", "90 %", "longest", "mean", "± std")
    return Table("Dwell times", names, rows, "Stays that ended with a jump; quantiles over them.")


def _jumps(result: TrainResult) -> Table:
    seen = result.distributions
    if seen is None:
        return Table("Jumps and ends", [])
    rows = [[f"{j.from_rank} → {j.to_rank}", str(j.jumps), *_share(j.made)] for j in seen.jumps]
    for name, share in (("any up", seen.up), ("any down", seen.down)):
        rows.append([name, *(("not told", MISSING, MISSING, MISSING) if share is None else (MISSING, *_share(share)))])
    rows += [[f"end at {e.rank}", MISSING, *_share(e.ended)] for e in seen.ends]
    words = "95 % interval: of the probability behind the share (Wilson)."
    return Table("Jumps and ends", ("rank", "jumps", "starts", "share", "95 % interval"), rows, words)


def _share(share: StartShare) -> list[str]:
    return [f"{share.starts} of {share.of}", percent(share.share), " … ".join(percent(end) for end in share.ci95)]


def _modes(result: TrainResult) -> Table:
    rows = [
        [str(m.mode), number(m.size), number(m.time), number(m.rise, 3), number(m.separation, 3)] for m in result.modes
    ]
    words = (
        "time: when the singular value first passes half of its size at the end. rise: from 10 to 90 % of it. "
        "separation: time since the mode before over the mean of the two rises; above 1 they come one after the other."
    )
    return Table("Modes", ["mode", "size at the end", "time", "rise", "separation"], rows, words)


def _noise(result: TrainResult) -> Table:
    noise = result.noise
    if noise is None:
        return Table("Noise", [], [])
    rows = []
    for floor in noise.floors:
        alone = f"{number(floor.expected, 3)} ± {number(floor.spread, 2)}"
        mark = "noise begins" if floor.rank == noise.rank else ""
        rows.append([str(floor.rank), number(floor.time), number(floor.cost), alone, number(floor.test_cost), mark])
    title = f"Noise, σ = {noise.level:.4g} ({noise.source})"
    return Table(title, ["rank", "time", "cost", "noise alone", "test cost", ""], rows)


def _members(result: TrainResult) -> Table:
    rows = []
    for m in result.members:
        o, jumps = m.outcome, [f"{t.from_rank}→{t.to_rank} at {number(t.time, 3)}" for t in m.rank_transitions]
        end = (o.reason.replace("_", " "), o.regime or "not told", number(o.time), str(o.rank))
        rows.append([str(m.member), *end, number(o.cost), number(o.test_cost), ", ".join(jumps) or MISSING])
    names = ("start", "ended", "regime", "time", "rank", "cost", "test cost", "transitions")
    return Table("Starts", *_with_answers(names, rows, [m.outcome for m in result.members]))


def _first_theory(result: TrainResult) -> Theory:
    """The theory of the run; of several starts that of the first that has a path."""
    return (members_of(result)[0][0] if result.trajectory is not None else result).theory


def _plateaus(result: TrainResult) -> Table:
    shown = _first_theory(result).plateaus
    unit = max((p.measured for p in shown), default=1.0)
    costs = [[_cost(c, unit) for c in (p.measured, p.refined, p.predicted)] for p in shown]
    rows = [[str(p.rank), *its, number(p.learning_coefficient, 6)] for p, its in zip(shown, costs, strict=True)]
    title = "Cost at the visits" + (" of the first start" if result.members else "")
    names = ("rank", "measured", "at the critical point", "theory: least cost of that rank", "λ")
    words = "λ: learning coefficient of a network of these widths that computes a matrix of that rank (Aoyagi 2024)."
    known = any(p.learning_coefficient is not None for p in shown)
    return Table(title, *_with_answers(names, rows, shown), words if known else "")


def _predictions(result: TrainResult) -> Table:
    shown = _first_theory(result).predictions.values()
    rows = [[p.formula, number(p.predicted), number(p.measured)] for p in shown]
    title = "Theory beside measurement" + (" (first start)" if result.members else "")
    return Table(title, ["quantity", "predicted", "measured"], rows)


def _outcome(result: TrainResult) -> Table:
    o, e = result.outcome, result.outcome.evidence
    rows = [
        ["ended", o.reason.replace("_", " ")],
        ["regime", o.regime or "not told"],
        ["saddles visited, the clearest in decades", f"{e.saddles_visited}, {number(e.prominence, 3)}"],
        *([["of them local minima, passed", str(e.minima_passed)]] if e.minima_passed else []),
        ["movement of the weights, of themselves", number(e.parameter_movement)],
        ["change of the tangent kernel, of itself", number(e.ntk_change)],
        ["time, steps, evaluations", f"{number(o.time)}, {o.steps}, {o.evaluations}"],
        ["cost, at the start and at the end", f"{number(o.initial_cost)}, {number(o.cost)}"],
        ["test cost, at the start and at the end", f"{number(o.initial_test_cost)}, {number(o.test_cost)}"],
        ["rank of the end", str(o.rank)],
    ]
    shares = [(words, getattr(o, name)) for name, words in SHARES.items()]
    rows += [[f"{words} at the end", percent(share)] for words, share in shares if share is not None]
    rows += [["advice", o.advice]] if o.advice else []
    return Table("Outcome, and what the regime was told from", ["", "measured"], rows)


def _visits(result: DetectResult) -> Table:
    rows = []
    for v in result.visits:
        times = [number(t) for t in (v.time.enter, v.time.closest, v.time.exit)]
        distances = [number(d, 3) for d in (v.distance, v.nearest_distance, v.matrix_distance)]
        cost = _cost(v.cost, cells.largest_cost(result))
        rows.append([*visit_cells(result, v), *times, f"{v.prominence:.1f}", cost, *distances])
    names = ("enter", "closest", "exit", "decades", "cost", "‖θ − θ_c‖", "nearest found", "‖A − A_c‖")
    words = " ".join(dict.fromkeys(f"{v.note[0].upper()}{v.note[1:]}." for v in result.visits if v.note))
    return Table("Visits", [*visit_names(result), *names], rows, words)


def _certificates(result: DetectResult) -> Table:
    rows = []
    for v in result.visits:
        c, e, point = v.curvature, v.escape, v.critical_point
        its = [*visit_cells(result, v), v.kind.replace("-", " "), _cost(point.cost, cells.largest_cost(result))]
        its += [number(point.gradient_norm, 1), number(None if c is None else c.least)]
        its += [told(c and f"{'' if c.complete else '≥ '}{c.negative_eigenvalues}")]
        its += [_zeros(c)] if result.path.weight_decay else []
        descent = number(None if e is None else e.descent, 5)
        rows.append([*its, number(None if c is None else c.residual, 1), told(e and e.order), descent])
    zeros = ("zero, by rotations",) if result.path.weight_decay else ()
    names = ["kind", "cost", "‖∇𝓛‖", "smallest eigenvalue", "negative", *zeros]
    names += ["residual", "order of descent", "descent"]
    words = (
        "Certified to round-off: the refined point's gradient, the smallest eigenvalue of its Hessian with its "
        "residual ‖Hv − λv‖, and a descent that was made: its decrease over the one predicted to leading order."
    )
    points = [v.critical_point for v in result.visits]
    columns, rows = _with_answers([*visit_names(result), *names], rows, points)
    return Table("Certificates of the critical points", columns, rows, words)


def _zeros(c: CurvatureInfo | None) -> str:
    return MISSING if c is None or c.zero_eigenvalues is None else f"{c.zero_eigenvalues}, {c.rotations}"


def _escapes(result: DetectResult) -> Table:
    rows = [
        [*visit_cells(result, v), number(v.escape.rate), number(v.escape.predicted_rate), number(v.escape.alignment)]
        for v in result.visits
        if v.escape is not None and v.escape.alignment is not None
    ]
    less = " − λ" if result.path.weight_decay else ""
    names = ("rate on the path", f"theory: ‖∇C(A_c)‖{less}", "alignment with its top singular pair")
    return Table("How the saddles are left", [*visit_names(result), *names], rows)


def _greedy(result: DetectResult) -> Table:
    rows = []
    for v, g in ((v, v.greedy) for v in result.visits if v.greedy is not None):
        costs = [_cost(cost, cells.largest_cost(result)) for cost in (v.cost, g.cost)]
        apart = [number(g.relative_difference, 2), number(g.distance, 2), "yes" if g.same else "no"]
        rows.append([*visit_cells(result, v), *costs, *apart])
    names = ("cost", "greedy", "difference", "distance", "same point")
    return Table("Beside the greedy path, α → 0", [*visit_names(result), *names], rows)


def _interval(ci95: tuple[float, float] | None, digits: int = 4) -> str:
    return MISSING if ci95 is None else f"{number(ci95[0], digits)} … {number(ci95[1], digits)}"


def _critical(result: SweepResult) -> Table:
    c = result.critical_gamma
    rows = [] if c is None else [[number(c.estimate, 5), _interval(c.ci95, 5), number(c.predicted)]]
    return Table("Critical γ", ["measured", "95 % interval", "theory"], rows)


def _exponents(result: SweepResult) -> Table:
    def its(e: Exponent) -> list[str]:
        return [number(e.slope, 3), _interval(e.ci95, 3), number(e.predicted, 3), VERDICTS[e.verdict]]

    rows = [
        [number(e.gamma), e.regime, *its(e.distance_to_minimum), *its(e.distance_to_saddle)] for e in result.exponents
    ]
    columns = ["γ", "regime"]
    for name in ("d_m", "d_s"):
        columns += [f"slope of {name}", "95 % interval", "theory", "verdict"]
    return Table("Slopes d log(distance) / d log(width)", columns, rows, "d_m: nearest minimum; d_s: nearest saddle.")


def _cells(result: SweepResult) -> Table:
    rows = []
    followed = any(c.reasons is not None for c in result.cells)
    for c in result.cells:
        row = [number(c.gamma), f"{c.width:.4g}", str(c.seeds)]
        for part in (c.distance_to_minimum, c.distance_to_saddle):
            row += [number(part.mean), number(part.sem, 2), number(part.lower), number(part.predicted)]
        row.append(told(c.nearer and c.nearer.verdict))
        if followed:
            chain = [f"{t.from_rank}→{t.to_rank} ({t.starts})" for t in c.rank_transitions or ()]
            row += [c.regime_seen or MISSING, ", ".join(chain) or MISSING]
        rows.append(row)
    distance = ["± s.e.", "at least", "theory"]
    columns = ["γ", "width", "starts", "d_m", *distance, "d_s", *distance, "nearer"]
    return Table("Cells", [*columns, *(["seen", "transitions (starts)"] if followed else [])], rows, CELL_WORDS)


def _failures(result: SweepResult) -> Table:
    rows = [[number(f.gamma), f"{f.width:.4g}", f.error] for f in result.failed]
    return Table("Cells that failed", ["γ", "width", "what it said"], rows)

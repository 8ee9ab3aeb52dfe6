"""Verdicts as tables: one row a class, and the quantiles of each error."""

from __future__ import annotations

import datetime
import os
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gauntlet.verdict import STATUSES, Verdict

WORDS = ("noise", "jump")  # kinds of which each case is one design, told in words
QUANTILES = (0.5, 0.9, 0.99, 1.0)
MEANINGS = {
    "late": "time of a level of the cost, abs log(t / t_ref)",
    "late_end": "the same below the tolerance of the run, at its last record",
    "burst": "time of a rank transition, relative",
    "mode": "time at which a mode passes half its size, abs log(t / t_ref)",
    "matrix": "A at equal cost, ‖A − A_ref‖_F over its largest",
    "minimum_above": "d_m above the nearest found by brute force, relative",
    "minimum_below": "d_m below it",
    "minimum_lower": "its bound from below over it",
    "saddle_lower": "bound of d_s from below over the nearest found",
    "saddle_above": "d_s above the nearest found by brute force, relative",
    "saddle_below": "d_s below it",
    "eigenvalue": "smallest eigenvalue of the Hessian, over the largest",
    "coverage": "share of 95 % intervals that hold the truth",
    "stationary": "mean, deviation, quantiles of a noisy mode against quadrature, relative",
    "passage": "mean first-passage time of a noisy mode against quadrature, relative",
    "chance": "least p of a case, corrected: reduced networks against full ones under noise",
    "reference_spread": "two references against each other, abs log(t_1 / t_2)",
}


def table(verdicts: Sequence[Verdict]) -> str:
    """What became of the cases of each class, as a Markdown table, and the quantiles below it."""
    return "\n\n".join([counts(verdicts), quantiles(verdicts)])


def counts(verdicts: Sequence[Verdict]) -> str:
    """Cases by class and status, with the share that fails among those judged."""
    lines = ["| class | cases | agrees | told | skipped | fails | share that fails |", "|---|---|---|---|---|---|---|"]
    groups = list(dict.fromkeys(v.group for v in verdicts))
    for group in [*groups, "all"]:
        of = [v for v in verdicts if group in ("all", v.group)]
        n = Counter(v.status for v in of)
        judged = len(of) - n["skipped"]
        share = f"{100 * n['fails'] / judged:.1f} %" if judged else "–"
        numbers = " | ".join(str(n[status]) for status in STATUSES)
        lines.append(f"| {group} | {len(of)} | {numbers} | {share} |")
    return "\n".join(lines)


def quantiles(verdicts: Sequence[Verdict]) -> str:
    """Quantiles of each error over the cases that were judged."""
    names = list(dict.fromkeys(name for v in verdicts for name in v.numbers if name in MEANINGS))
    lines = ["| error | cases | median | 90 % | 99 % | largest |", "|---|---|---|---|---|---|"]
    for name in names:
        values = [v.numbers[name] for v in verdicts if v.status != "skipped" and name in v.numbers]
        values = [x for x in values if np.isfinite(x)]
        if values:
            cells = " | ".join(f"{np.quantile(values, q):.1e}" for q in QUANTILES)
            lines.append(f"| {MEANINGS[name]} | {len(values)} | {cells} |")
    return "\n".join(lines)


def by_class(verdicts: Sequence[Verdict], name: str) -> str:
    """Quantiles of one error by class."""
    lines = ["| class | cases | median | 90 % | 99 % | largest |", "|---|---|---|---|---|---|"]
    for group in dict.fromkeys(v.group for v in verdicts):
        of = [v for v in verdicts if v.group == group and v.status != "skipped"]
        values = [v.numbers[name] for v in of if np.isfinite(v.numbers.get(name, np.nan))]
        if values:
            cells = " | ".join(f"{np.quantile(values, q):.1e}" for q in QUANTILES)
            lines.append(f"| {group} | {len(values)} | {cells} |")
    return "\n".join(lines)


def faults(verdicts: Sequence[Verdict]) -> str:
    """How often each kind of fault was found."""
    n = Counter(kind for v in verdicts for kind in {fault.split(":")[0] for fault in v.faults})
    lines = ["| fault | cases | one of them |", "|---|---|---|"]
    for kind, count in n.most_common():
        one = next(v for v in verdicts if any(f.startswith(kind + ":") for f in v.faults))
        lines.append(f"| {kind} | {count} | `{one.command()}` |")
    return "\n".join(lines) if n else "None."


def write_page(verdicts: Sequence[Verdict], path: Path) -> None:
    """Put the distributions between the marks of docs/accuracy.md; what stands around them is written by hand.

    Sections of kinds that none of these verdicts has stay as they are.
    """
    head, rest = path.read_text().split("<!-- measured -->\n", 1)
    old, tail = rest.split("<!-- end -->", 1)
    sections = {part.split(":")[0].lower(): part.strip() for part in f"\n{old}".split("\n## ")[1:]}
    for kind in dict.fromkeys(v.kind for v in verdicts):
        sections[kind] = _section(kind, [v for v in verdicts if v.kind == kind])
    parts = [f"## {section}" for section in sections.values()]
    path.write_text(head + "<!-- measured -->\n" + "\n\n".join(parts) + "\n<!-- end -->" + tail)


def _section(kind: str, of: Sequence[Verdict]) -> str:
    """What was measured of one kind, from its heading on."""
    parts = [f"{kind.capitalize()}: {len(of)} cases", _source(of), counts(of)]
    if kind in WORDS:
        parts += ["| case | what was seen |\n|---|---|\n" + "\n".join(f"| {v.group} | {v.words} |" for v in of)]
    else:
        parts += ["Errors over all classes:", quantiles(of)]
    if kind == "flow":
        parts += ["Time of a level of the cost, by class:", by_class(of, "late")]
    if kind == "interval":
        parts += ["The share of 200 intervals that hold the truth, by class:", by_class(of, "coverage")]
    return "\n\n".join([*parts, "What was found wrong without a word:", faults(of)])


def _source(verdicts: Sequence[Verdict]) -> str:
    seeds = sorted({v.name.split(":")[1] for v in verdicts}, key=int)
    commits = list(dict.fromkeys(v.commit for v in verdicts if v.commit))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, one used; Python {platform.python_version()}"
    written = f"written on {datetime.datetime.now(datetime.UTC).date()}; {machine}"
    return f"Seeds {', '.join(seeds)}; commits {', '.join(commits) or 'not told'}; {written}."

"""Figure and tables of docs/work-precision.md, from docs/data/work-precision.json alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bench.work_precision.problems import DIMS, SCALES
from bench.work_precision.solvers import METHODS, OURS
from dlnphase.plotting.style import LOOKS, legend_of_all, letters, new_figure, save, style

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
PAGE = DOCS / "work-precision.md"
MEASURES = {"dwell": "error of dwell times", "matrix": "error of A"}
TARGETS = (1e-2, 1e-4, 1e-6)
LOOK = {  # colour, marker; the package's filled on solid lines, others' open on dashed ones
    "auto": ("#0072B2", "o"),
    "stiff": ("#009E73", "s"),
    "stabilised": ("#56B4E9", "^"),
    "explicit": ("#7F7F7F", "D"),
    "Radau": ("#D55E00", "v"),
    "BDF": ("#E69F00", "P"),
    "LSODA": ("#CC79A7", "X"),
    "DOP853": ("#8C6D1F", "d"),
    "CVODE": ("#222222", "<"),
    "CVODE-GMRES": ("#7A3B8F", ">"),
}
COUNTS = {size: sum(a * b for a, b in zip(dims[1:], dims[:-1], strict=True)) for size, dims in DIMS.items()}

Entry = dict[str, Any]


def cases(known: Entry) -> list[tuple[str, float]]:
    """The networks and scales that the file holds."""
    return [(size, alpha) for size in DIMS for alpha in SCALES if f"{size} {alpha:g}" in known["references"]]


def of(known: Entry, size: str, alpha: float) -> list[Entry]:
    """The runs of one case."""
    return [entry for entry in known["runs"] if (entry["size"], entry["alpha"]) == (size, alpha)]


def draw(known: Entry, measure: str) -> bytes:
    """One panel a case: errors over CPU time, a line a solver, and below the grey what the references cannot tell."""
    look, panels = LOOKS["screen"], cases(known)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with style(look):
        figure, axes = new_figure(look, rows, columns, height=0.85, sharex=True, sharey=True)
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        for index, ((size, alpha), ax) in enumerate(zip(panels, axes, strict=False)):
            for method in METHODS:
                entries = [e for e in of(known, size, alpha) if e["method"] == method and measure in e]
                if entries:
                    points = [(e["seconds"], e[measure]) for e in entries]
                    colour, marker = LOOK[method]
                    ours = method in OURS
                    ax.plot(
                        *zip(*points, strict=True),
                        color=colour,
                        marker=marker,
                        markersize=6.5 if ours else 5.5,
                        linestyle="-" if ours else (0, (4, 2)),
                        linewidth=2.0 if ours else 1.2,
                        markerfacecolor=colour if ours else "white",
                        zorder=3 if ours else 2,
                        label=f"dlnphase {method}" if ours else method,
                    )
            ax.set(xscale="log", yscale="log", ylim=(1e-11, 20), xlim=(0.02, 6))
            floor = known["references"][f"{size} {alpha:g}"]["apart"][measure]
            ax.axhspan(1e-11, max(floor, 1e-11), color="#DDDDDD", zorder=0)
            ax.grid(which="major", color="#EEEEEE", linewidth=0.8, zorder=0)
            ax.set_axisbelow(True)
            ax.set_title(f"{size}, P = {COUNTS[size]}, α = {alpha:g}")
            if index % columns == 0:
                ax.set_ylabel(MEASURES[measure])
            if index + columns >= len(panels):
                ax.set_xlabel("CPU seconds")
                ax.tick_params(labelbottom=True)
        letters(axes[: len(panels)])
        legend_of_all(figure, axes[: len(panels)])
    return save(figure, Path("work-precision.png"), look, f"Work and precision: {MEASURES[measure]}")


def quickest(entries: list[Entry], measure: str, target: float) -> Entry | None:
    """The run of least CPU time whose error is at most the target."""
    good = [entry for entry in entries if entry.get(measure, 1e9) <= target]
    return min(good, key=lambda entry: entry["seconds"]) if good else None


def ahead(known: Entry, measure: str) -> str:
    """Who reaches an error first: dlnphase's best method beside the best of the others."""
    lines = [
        "| network | α | error at most | dlnphase | CPU s | others | CPU s | others / dlnphase |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size, alpha in cases(known):
        entries, floor = of(known, size, alpha), known["references"][f"{size} {alpha:g}"]["apart"][measure]
        for target in (target for target in TARGETS if target > floor):
            here = quickest([e for e in entries if e["method"] in OURS], measure, target)
            there = quickest([e for e in entries if e["method"] not in OURS], measure, target)
            ratio = f"{there['seconds'] / here['seconds']:.2g}" if here and there else "–"
            cells = [*_cells(here), *_cells(there), ratio]
            lines.append(f"| {size} | {alpha:g} | {target:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(entry: Entry | None) -> tuple[str, str]:
    return ("none", "–") if entry is None else (f"{entry['method']} ({entry['rtol']:g})", f"{entry['seconds']:.2g}")


def omitted(known: Entry) -> str:
    """Every run that has no point in the figure, with how it ended."""
    lines = ["| network | α | solver | rtol | what happened |", "|---|---|---|---|---|"]
    for size, alpha in cases(known):
        for entry in of(known, size, alpha):
            if "failure" in entry:
                lines.append(f"| {size} | {alpha:g} | {entry['method']} | {entry['rtol']:g} | {_words(entry)} |")
    return "\n".join(lines)


def _words(entry: Entry) -> str:
    if entry["failure"] == "memory":
        return f"not started: a Jacobian of {entry['bytes'] / 1e9:.2f} GB, and its factors as much again or more"
    where = f"{entry['passed']} of 4 levels passed in {entry['steps']} steps"
    how = "stopped at the limit of CPU time" if entry["failure"] == "time" else entry["failure"].strip(". ")
    return f"{how}; {where}"


def floors(known: Entry) -> str:
    """How far the two references are apart."""
    lines = ["| network | α | dwell times | A |", "|---|---|---|---|"]
    for size, alpha in cases(known):
        apart = known["references"][f"{size} {alpha:g}"]["apart"]
        lines.append(f"| {size} | {alpha:g} | {apart['dwell']:.1e} | {apart['matrix']:.1e} |")
    return "\n".join(lines)


def write_page(known: Entry) -> None:
    """Draw both figures, and put the tables between their markers in the page."""
    for measure in MEASURES:
        (DOCS / "images" / f"work-precision-{measure}.png").write_bytes(draw(known, measure))
    text = PAGE.read_text()
    tables = {name: ahead(known, name) for name in MEASURES} | {"floors": floors(known), "omitted": omitted(known)}
    for name, table in tables.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not marked.search(text):
            raise SystemExit(f"{PAGE.name}: found no <!-- {name} --> markers")
        text = marked.sub(lambda match, table=table: f"{match.group(1)}{table}\n{match.group(2)}", text)
    PAGE.write_text(text)

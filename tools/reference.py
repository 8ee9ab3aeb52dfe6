"""The reference pages of the documentation, written from the code: ``python tools/reference.py [--check]``.

docs/reference-commands.md comes from the commands and their settings tables, docs/reference-results.md from the result
dataclasses and their docstrings. A key without a description is an error; ``--check`` only compares.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import typer

import dlnphase
from dlnphase import settings as S
from dlnphase.cli.app import COMMANDS, build_app
from dlnphase.observables import ARRAYS
from dlnphase.results.codec import type_hints
from dlnphase.results.detect import DetectResult
from dlnphase.results.plot import PlotResult
from dlnphase.results.proof import ProofDocument
from dlnphase.results.provenance import Provenance
from dlnphase.results.sweep import SweepResult
from dlnphase.results.train import TrainResult, Trajectory
from dlnphase.settings.table import Settings, default_words, options
from dlnphase.training.reasons import REASONS

DOCS = Path(__file__).resolve().parent.parent / "docs"
SETTINGS: dict[str, type[Settings]] = {
    "train": S.TrainSettings,
    "sweep-gamma": S.SweepSettings,
    "detect-saddles": S.DetectSettings,
    "plot": S.PlotSettings,
}
RESULTS = {
    "train": ("run.yaml", TrainResult),
    "sweep-gamma": ("sweep.yaml", SweepResult),
    "detect-saddles": ("saddles.yaml", DetectResult),
    "detect-saddles --prove": ("proof.yaml", ProofDocument),
    "plot": ("figures.yaml", PlotResult),
}
# Keys whose class tells about them in one sentence together, or whose name means the same everywhere.
ANYWHERE = {
    "config": "every setting, resolved; the file is a valid --config",
    "provenance": "what made the result",
    "notes": "lines for the reader, as they were shown",
    "files": "the arrays that belong to it, beside this file",
    "complete": "false while something is missing (interrupted)",
    "task": "what it was trained on",
    "member": "number of the initialisation",
    "rank_transitions": "one row per jump from one visit to the next, in order",
    "outcome": "how it ended",
    "theory": "what theory says, beside what was measured",
    "gamma": "γ",
    "width": "w",
    "greedy_path": "the critical points of the greedy path, with --greedy",
    "transitions": "the rank transitions of each initialisation",
}
HERE = {
    "Provenance.dlnphase": "version of dlnphase (and, below, of what it stands on)",
    "TrainResult.network": "what was trained",
    "TrainResult.members": "each initialisation of several",
    "TrainResult.spread": "how each transition varies over several initialisations",
    "TrainResult.modes": "when each mode of A is learned, whether or not the saddle before it was visited",
    "TrainResult.mode_spread": "how each mode varies over several initialisations",
    "TrainResult.distributions": "dwell times, jumps and ranks at the end over several initialisations; null for one",
    "EndShare.rank": "at the end",
    "TrainResult.sharpness": "how curved the loss was along the path, beside the step; null without a step",
    "EndShare.ended": "how many of those that did not diverge ended there",
    "TrainResult.noise": "where the path meets the noise in its data; null where none is known or was found",
    "Member.noise": "where its path meets the noise",
    "Member.modes": "when each mode of A is learned",
    "ModeSpread.mode": "number of the mode",
    "ModeSpread.members": "how many initialisations learned it on the way",
    "ModeSpread.time_mean": "mean of its time; null where no start learned it on the way",
    "ModeSpread.time_std": "standard deviation of its time",
    "ModeSpread.time_min": "earliest",
    "ModeSpread.time_max": "latest",
    "ModeSpread.size_std": "standard deviation of its final size",
    "TrainResult.sparsity": "rank, nuclear norm and zero rows, columns and neurons of the network that was reached",
    "TaskInfo.kind": "completion, factorization, sensing or regression",
    "TaskInfo.shape": "d_out, d_in",
    "TaskInfo.minimum": "C_min",
    "TaskInfo.unique": "whether C has one minimiser",
    "TaskInfo.top_gradient": "‖∇C(0)‖_op, the rate at which the origin is left",
    "Plateau.rank": "of the visit",
    "Plateau.predicted": "the least cost at that rank, where a closed form is known",
    "Plateau.refined": "the cost at the critical point the visit refines to",
    "Plateau.measured": "the cost on the path at its closest",
    "Prediction.formula": "where the number comes from",
    "Prediction.predicted": "by theory",
    "Prediction.measured": "on this run; null where it cannot be told",
    "Spread.from_rank": "before the transition",
    "Spread.to_rank": "after it",
    "Spread.members": "how many initialisations made it",
    "Spread.time_mean": "mean of its time",
    "Spread.time_std": "standard deviation of its time over the initialisations",
    "Spread.time_min": "earliest",
    "Spread.time_max": "latest",
    "Spread.dwell_mean": "mean of the dwell before it",
    "Spread.dwell_std": "standard deviation of that",
    "TimeSpan.enter": "first record at which ‖∇𝓛‖ is below half the prominence",
    "TimeSpan.closest": "where ‖∇𝓛‖ is least",
    "TimeSpan.exit": "last record of the visit",
    "CriticalPoint.cost": "C there",
    "CriticalPoint.gradient_norm": "‖∇𝓛‖ there, in natural units: at round-off",
    "CriticalPoint.rank": "of its matrix, exactly",
    "CriticalPoint.singular_values": "of its matrix",
    "CriticalPoint.form": "minimal, nearest or matrix: what is in the channels it does not use",
    "CurvatureInfo.min_eigenvalue": "of the Hessian of 𝓛",
    "CurvatureInfo.negative_eigenvalues": "how many are below zero",
    "CurvatureInfo.residual": "‖Hv − λv‖ of the eigenvalue",
    "CurvatureInfo.complete": "whether all negative ones were counted",
    "GreedyStep.rank": "of the critical point",
    "GreedyStep.cost": "C there",
    "GreedyStep.singular_values": "of its matrix",
    "GreedyStep.note": "a word on it, or empty",
    "Measured.mean": "over the starts",
    "Measured.sem": "standard error; null with one start",
    "Measured.values": "of every start",
    "CellTransition.from_rank": "before",
    "CellTransition.to_rank": "after",
    "CellTransition.time": "mean over the starts that made it",
    "CellTransition.starts": "how many made it",
    "Failure.error": "what it said",
    "LocalSlope.widths": "two neighbouring widths",
    "LocalSlope.slope": "between them",
    "LocalSlope.ci95": "95 % interval of the draws, or null",
    "SweepResult.cells": "one per γ and width",
    "SweepResult.exponents": "one per γ: slopes over width",
    "SweepResult.critical_gamma": "where the curves of different widths cross",
    "SweepResult.failed": "cells that failed",
    "CriticalGamma.estimate": "γ where the curves of the two widest networks cross",
    "CriticalGamma.ci95": "95 % interval, the error of interpolation included, or null",
    "CriticalGamma.bracket": "what interpolation between the γ of the grid leaves by itself, or null",
    "CriticalGamma.predicted": "1",
    "CriticalGamma.crossings": "of every pair of neighbouring widths",
    "Crossing.widths": "the pair",
    "Crossing.estimate": "γ where their curves cross",
    "Crossing.ci95": "95 % interval, the error of interpolation included, or null",
    "GammaExponents.gamma": "γ",
    "Cell.gamma": "γ of the cell",
    "Cell.width": "w of the cell",
    "Cell.distance_to_minimum": "d_m, from θ_0 to the nearest global minimum",
    "Cell.distance_to_saddle": "d_s, from θ_0 to the nearest saddle",
    "Cell.regime_seen": "regime of the dynamics, most common over the starts; it and all below only with --train",
    "Cell.parameter_movement": "‖θ_end − θ_0‖/‖θ_0‖",
    "Cell.matrix_rank": "rank of the end-to-end matrix reached",
    "Cell.nuclear_norm": "of the end-to-end matrix reached",
    "Cell.final_cost": "C at the end",
    "Cell.test_cost": "test cost at the end",
    "GammaExponents.regime": "what the measured slopes say",
    "VisitInfo.critical_point": "what the visit refines to",
    "VisitInfo.curvature": "of 𝓛 at the critical point; null with --no-certify",
    "VisitInfo.kind": "strict-saddle, degenerate-saddle, global-minimum, not-critical, or uncertified (--no-certify)",
    "VisitInfo.escape": "how the saddle is left; null at a minimum",
    "VisitInfo.greedy": "the greedy path's point of the same rank, with --greedy",
    "VisitInfo.cost": "C on the path at its closest",
    "VisitInfo.gradient_norm": "‖∇𝓛‖ on the path at its closest",
    "NetworkInfo.depth": "L",
    "NetworkInfo.width": "w; null for weights from a file",
    "NetworkInfo.gamma": "γ; null for weights from a file and in the limit α → 0",
    "NetworkInfo.sigma": "standard deviation of the entries of every layer",
    "NetworkInfo.alpha": "σ√w, the size of one layer",
    "NetworkInfo.krylov_order": "of a reduced network: the rounds of the reduction",
    "NetworkInfo.krylov_modes": "of a network reduced from few modes of the target: how many; null: from all",
    "NetworkInfo.truncation_error": "of a reduced network: the estimated relative error of A(t)",
    "Outcome.time": "at the end",
    "Outcome.steps": "accepted, to the end",
    "Outcome.evaluations": "of the gradient, to the end",
    "Outcome.cost": "C at the end",
    "Outcome.test_cost": "at the end",
    "Outcome.excess": "C − C_min at the end",
    "Outcome.initial_cost": "C at the start",
    "Outcome.initial_test_cost": "at the start",
    "RankTransition.from_rank": "rank of the critical point visited before",
    "RankTransition.to_rank": "rank of the critical point visited after",
    "RankTransition.cost_before": "C at the closest record of the visit before",
    "RankTransition.cost_after": "C at the closest record of the visit after",
    "DetectResult.path": "the path that was looked at",
    "DetectResult.visits": "one per visit, in order",
    "PlotResult.figures": "what was drawn",
    "FigureInfo.kind": "of the figure",
    "FigureInfo.files": "beside figures.yaml",
    "FigureInfo.sources": "results it shows",
    "FigureInfo.caption": "the small print under it",
}

COMMANDS_INTRODUCTION = """\
Written from the code by `tools/reference.py`. Every flag is also a key of `--config` files, with `_` for `-`; those
of the last table of each command are not (they say where output goes). `python -m dlnphase` is the same as `dlnphase`.

`dlnphase --version` prints the version; `--help` on any command prints this page's tables. `--install-completion` and
`--show-completion` set up the shell.

Exit codes: 0 done · 1 the run failed, what was done is saved · 2 bad usage or input, in one line · 130 interrupted,
what was done is saved.
"""
KEY_TABLE = ("| key | type | |", "|---|---|---|")
RESULTS_INTRODUCTION = """\
Written from the code by `tools/reference.py`. Each file starts with its `schema`, a name and a version; a file of a
newer version is refused, one of an older version is brought up to date as it is read. `config` holds the settings of
the command by the names of [its flags](reference-commands.md), so that every result is itself a `--config`. Lists of
records are written `name[]`.
"""


def commands_page() -> str:
    """docs/reference-commands.md."""
    group: Any = typer.main.get_command(build_app())
    out = ["# Commands", "", COMMANDS_INTRODUCTION]
    assert {m.rpartition(".")[2].replace("_", "-") for m in COMMANDS} == set(SETTINGS) == set(group.commands)
    for name, cls in SETTINGS.items():
        command = group.commands[name]
        example = re.sub(r"^Example:\s+", "", command.epilog or "")
        out += [f"## dlnphase {name}", "", command.help.strip(), "", f"Example: `{example}`", ""]
        for panel, params in _panels(command, cls).items():
            out += [f"### {name}: {panel}", "", "| option | accepts | default | |", "|---|---|---|---|"]
            out += [_option_row(p, cls) for p in params] + [""]
    return "\n".join(out)


def results_page() -> str:
    """docs/reference-results.md; LookupError for a key nobody described."""
    out = ["# Result files", "", RESULTS_INTRODUCTION]
    for name, (file, cls) in RESULTS.items():
        out += [f"## {file}", "", f"Of `dlnphase {name}`, schema `{cls.SCHEMA}`.", "", *KEY_TABLE]
        out += [f"| `{key}` | {kind} | {_cell(words)} |" for key, kind, words in keys_of(cls)] + [""]
    out += ["## Reasons", "", "What `outcome.reason` may be; of several starts the worst is told, here the first.", ""]
    out += ["| `reason` | |", "|---|---|", *(f"| `{name}` | {row.meaning} |" for name, row in REASONS.items()), ""]
    out += ["## provenance", "", "In every file.", "", *KEY_TABLE]
    out += [f"| `provenance.{key}` | {kind} | {_cell(words)} |" for key, kind, words in keys_of(Provenance)] + [""]
    out += [
        "## trajectory.npz",
        "",
        "Of `dlnphase train`: T records, those of several members after each other.",
        "",
        "| array | |",
        "|---|---|",
    ]
    arrays = [f.name for f in dataclasses.fields(Trajectory) if f.name != "weights"]
    out += [f"| `{a}` | {_cell(_described(Trajectory, a))} |" for a in arrays]
    out += [f"| `W1` … `WL` | {_cell(_described(Trajectory, 'weights'))} |", ""]
    out += [
        "## observed.npz",
        "",
        "Of `dlnphase train` with `--record`, or with a step, and of `dlnphase detect-saddles` with `--record`: R "
        "records of the path, those of several members after each other. `member`, `t` and `step` have shape (R,); of "
        "the others the shape of one record is told.",
        "",
        "| array | |",
        "|---|---|",
    ]
    out += [f"| `{name}` | {_cell(array.words)} |" for name, array in ARRAYS.items()]
    out += ["| `W1` … `WL` | (n_l, n_(l−1)): the layers, with `--record weights` |", ""]
    out += [
        "## saddles.npz",
        "",
        "Of `dlnphase detect-saddles`: V visits.",
        "",
        "| array | |",
        "|---|---|",
        "| `member` | which initialisation a visit belongs to, shape (V,) |",
        "| `closest` | A of the path where it is closest, shape (V, d_out, d_in) |",
        "| `critical` | A of the critical point, shape (V, d_out, d_in) |",
        "| `greedy` | A of the critical points of the greedy path, shape (G, d_out, d_in) |",
        "",
    ]
    return "\n".join(out)


def keys_of(cls: Any, prefix: str = "", seen: dict[Any, str] | None = None) -> list[tuple[str, str, str]]:
    """(dotted key, type, description) of every key of a result class, nested ones after their parent.

    A mapping of the same kind as one before (``seen``: class → key) points to it.
    """
    rows: list[tuple[str, str, str]] = []
    seen = {} if seen is None else seen
    hints = type_hints(cls)
    for field in dataclasses.fields(cls):
        if not field.metadata.get("yaml", True):
            continue
        inner, many, words = _unwrap(hints[field.name])
        key = f"{prefix}{field.name}" + ("[]" if many else "")
        nested = dataclasses.is_dataclass(inner) and not issubclass(typing.cast(type, inner), Settings)
        told = _described(cls, field.name)
        if nested and inner is Provenance and prefix == "":
            told += "; its keys are [below](#provenance)"
        elif nested and inner in seen:
            told += f"; its keys are those of `{seen[inner]}`"
        rows.append((key, words, told))
        if nested and inner not in seen and inner is not Provenance:
            seen[inner] = key
            rows += keys_of(inner, key + ".", seen)
    return rows


def _described(cls: Any, name: str) -> str:
    if f"{cls.__name__}.{name}" in HERE:
        return HERE[f"{cls.__name__}.{name}"]
    found = attribute_words(cls).get(name) or ANYWHERE.get(name)
    if not found:
        raise LookupError(f"{cls.__module__}.{cls.__name__}.{name}: describe this key in the docstring's Attributes")
    return found


def attribute_words(cls: Any) -> dict[str, str]:
    """Descriptions in the Attributes section of a docstring: ``a, b: words`` gives the words to both."""
    doc = inspect.cleandoc(cls.__doc__ or "")
    if "Attributes:\n" not in doc:
        return {}
    out: dict[str, str] = {}
    current: list[str] = []
    for line in doc.split("Attributes:\n", 1)[1].splitlines():
        if line.strip() and not line.startswith("    "):
            break
        head = re.match(r"    (\w+(?:, \w+)*): (.*)", line)
        if head:
            current, words = head[1].split(", "), head[2]
            out |= dict.fromkeys(current, words)
        elif current and line.strip():
            for name in current:
                out[name] += " " + line.strip()
    # ``x: …; y: …`` on one line tells of two.
    for words in list(out.values()):
        for part in words.split("; ")[1:]:
            tail = re.match(r"(\w+(?:, \w+)*): (.*)", part)
            for name in tail[1].split(", ") if tail else ():
                out.setdefault(name, tail[2])  # type: ignore[index]
    return out


def _unwrap(hint: Any) -> tuple[Any, bool, str]:
    """The dataclass inside a hint (or the hint), whether it is in a list, and the type in words."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner, many, words = _unwrap(next(a for a in args if a is not type(None)))
        return inner, many, f"{words} or null"
    if origin in (tuple, list) and dataclasses.is_dataclass(args[0]):
        return args[0], True, "list"
    if origin in (tuple, list):
        inner, many, words = _unwrap(args[0])
        return inner, dataclasses.is_dataclass(inner), f"list of {words}s" if not many else "list of lists"
    if origin is dict:
        inner, _, words = _unwrap(args[1])
        return inner if dataclasses.is_dataclass(inner) else hint, False, f"mapping of {words}s"
    if dataclasses.is_dataclass(hint):
        return hint, False, "mapping"
    names = {float: "number", int: "integer", str: "word", bool: "boolean", Any: "value"}
    return hint, False, names.get(hint, "value")


def _panels(command: Any, cls: type[Settings]) -> dict[str, list[Any]]:
    """Parameters of a command by heading, in order; the argument first."""
    panels: dict[str, list[Any]] = {}
    table = options(cls)
    for param in command.params:
        if param.name == "help":
            continue
        panel = table[param.name].panel if param.name in table else "Output"
        panels.setdefault("Argument" if param.param_type_name == "argument" else panel, []).append(param)
    return dict(sorted(panels.items(), key=lambda item: (item[0] != "Argument", item[0] in ("Machine", "Output"))))


def _option_row(param: Any, cls: type[Settings]) -> str:
    row = options(cls).get(param.name)
    flags = ", ".join(f"`{o}`" for o in [*param.opts, *param.secondary_opts] if o.startswith("-"))
    if row is None:
        words = re.sub(r"\s*\[dim\].*\[/dim\]", "", param.help).replace("\\[", "[")
        default = "`runs/<command>-<settings>-<hash>`" if param.name == "out" else ""
        return f"| {flags} | {'' if param.is_flag else _cell(param.metavar or '')} | {default} | {_cell(words)} |"
    default = default_words(cls, param.name)
    if row.positional:
        flags = f"`{param.name.upper()}{'…' if row.repeatable else ''}`"
    return f"| {flags} | {_cell(row.parser.expected)} | {_cell(default)} | {_cell(row.help)} |"


def _cell(text: str) -> str:
    text = text.replace("``", "`").replace("None ", "null ").rstrip()
    text = text[:-1] if text.endswith(".") else text
    return text.replace("|", "\\|").replace("<", "&lt;")


PYTHON_SECTIONS = {
    "The four verbs": lambda name: name in ("train", "sweep_gamma", "detect_saddles", "plot"),
    "Settings": lambda name: name.endswith("Settings"),
    "Results": lambda name: name.endswith(("Result", "Trajectory", "Recording")) or name.startswith(("load", "save")),
    "Errors": lambda name: name.endswith("Error"),
    "Parts: networks, costs, dynamics, distances": lambda name: True,
}


def python_page() -> str:
    """docs/reference-python.md: every public name, to be filled in from its docstring when the pages are built."""
    lines = ["# Python", "", "Every name of `import dlnphase`, with its docstring.", ""]
    left = [name for name in dlnphase.__all__ if not name.startswith("__")]
    for title, belongs in PYTHON_SECTIONS.items():
        names = [name for name in left if belongs(name)]
        left = [name for name in left if name not in names]
        lines += [f"## {title}", ""]
        for name in names:
            value = getattr(dlnphase, name)
            lines += [f"::: {value.__module__}.{value.__qualname__}", ""]
    return "\n".join(lines)


PAGES = {
    "reference-commands.md": commands_page,
    "reference-results.md": results_page,
    "reference-python.md": python_page,
}


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check say which are out of date."""
    stale = []
    for name, page in PAGES.items():
        text = page().rstrip() + "\n"
        path = DOCS / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in arguments:
                path.write_text(text, encoding="utf-8")
    if "--check" in arguments and stale:
        sys.stderr.write(f"out of date: {', '.join(stale)} (run: python tools/reference.py)\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

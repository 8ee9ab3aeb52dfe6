"""What figures are drawn from: results on disk, told apart by their schema, with labels and captions.

A source is a directory of ``train``, ``sweep-gamma`` or ``detect-saddles``, or one of their YAML files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dlnphase.errors import InputError
from dlnphase.findings import counted
from dlnphase.results import read_yaml, settle
from dlnphase.results.detect import SADDLES_FILE, DetectResult, load_detect
from dlnphase.results.outdir import PREVIOUS
from dlnphase.results.schema import split_schema
from dlnphase.results.sweep import SWEEP_FILE, load_sweep
from dlnphase.results.train import RUN_FILE, STATE_FILE, TrainResult, load_train

T = TypeVar("T")
READERS: dict[str, Callable[[Path], Any]] = {
    "dlnphase/train": load_train,
    "dlnphase/detect-saddles": load_detect,
    "dlnphase/sweep-gamma": load_sweep,
}
MANY = 4  # sources from which a caption tells what they share
FILES = (RUN_FILE, SWEEP_FILE, SADDLES_FILE)
# settings that tell runs apart, and how a label writes them
_SHOWN = {
    "task": "{}",
    "depth": "L = {}",
    "width": "w = {:.4g}",
    "gamma": "γ = {:g}",
    "dynamics": "{}",
    "seeds": "{} starts",
    "seed": "seed {}",
    "rank": "rank {}",
    "observed": "{:g} observed",
    "noise": "noise {:g}",
    "data_seed": "data seed {}",
    "rtol": "rtol {:g}",
    "lr": "η = {}",
    "weight_decay": "weight decay {:g}",
    "momentum": "β = {:g}",
    "batch_size": "batches of {}",
    "label_noise": "label noise {:g}",
}
OF_SOME = ("rtol", "lr")  # settings that flow or steps alone have


@dataclass(frozen=True)
class ResultSource:
    """One result and where it came from.

    Attributes:
        path: of its YAML file.
        kind: ``train``, ``sweep-gamma`` or ``detect-saddles``.
        result: as loaded.
        label: what tells it from the other sources; "" for a single one.
    """

    path: Path
    kind: str
    result: Any
    label: str = ""

    @property
    def name(self) -> str:
        """A short name: its directory."""
        return self.path.parent.name or str(self.path.parent)


def read_sources(paths: Sequence[Path | str]) -> list[ResultSource]:
    """Read all, in order.

    Raises:
        InputError: one line for a path that is missing, foreign or damaged.
    """
    sources = [source for path in paths for source in _read(Path(path))]
    return labelled(sources)


def labelled(sources: Sequence[ResultSource]) -> list[ResultSource]:
    """The same sources with labels that tell those of one kind apart."""
    out = []
    for source in sources:
        peers = [s for s in sources if s.kind == source.kind]
        out.append(ResultSource(source.path, source.kind, source.result, _label(source, peers)))
    return out


def runs_of(sources: Sequence[ResultSource], *, need: str = "") -> list[ResultSource]:
    """The runs of train among them; with ``need`` (a figure's name) each must have its trajectory.

    Raises:
        InputError: when a trajectory is missing.
    """
    runs = [s for s in sources if s.kind == "train"]
    for source in runs if need else []:
        result: TrainResult = source.result
        if result.trajectory is None:
            name = result.files.get("trajectory", "trajectory.npz")
            raise InputError(f"SOURCE: {source.path.parent}: {name} is missing, which the figure {need} draws")
        if not len(result.trajectory.t):
            raise InputError(f"SOURCE: {source.path.parent}: the trajectory holds no record, nothing to draw")
    return runs


def detections_of(sources: Sequence[ResultSource]) -> list[ResultSource]:
    """The results of detect-saddles among them."""
    return [s for s in sources if s.kind == "detect-saddles"]


def sweeps_of(sources: Sequence[ResultSource]) -> list[ResultSource]:
    """The sweeps among them."""
    return [s for s in sources if s.kind == "sweep-gamma"]


def needed(found: list[T], words: str) -> list[T]:
    """What was found for a figure; InputError with these words where that is nothing."""
    if not found:
        raise InputError(words)
    return found


def caption_lines(sources: Sequence[ResultSource], *, panels: bool = False) -> list[str]:
    """Settings and version, for the caption of a figure drawn from these sources (one panel each, or all in one)."""
    words = [settings_words(source) for source in sources]
    if len(sources) > MANY and not panels:
        words = _together(sources, words)
    if panels and len(sources) > 1:
        words = [f"({letter}) {line}" for letter, line in zip("abcdefghijklmnopqrstuvwxyz", words, strict=False)]
    return [*dict.fromkeys(words), made_by(sources)]


def _together(sources: Sequence[ResultSource], words: Sequence[str]) -> list[str]:
    """One line for each kind of source: what its settings share, and the labels that tell them apart."""
    lines = []
    for kind in dict.fromkeys(s.kind for s in sources):
        parts = [w.split(", ") for s, w in zip(sources, words, strict=True) if s.kind == kind]
        shared = [part for part in parts[0] if all(part in other for other in parts)]
        labels = [s.label for s in sources if s.kind == kind and s.label]
        differ = f" ({'; '.join(labels)})" if labels else ""
        lines.append(f"{len(parts)} × {', '.join(shared)}{differ}" if len(parts) > 1 else ", ".join(shared))
    return lines


def made_by(sources: Sequence[ResultSource]) -> str:
    """Versions of the program that computed the sources."""
    makers = dict.fromkeys(
        f"dlnphase {p.dlnphase}{f' ({p.git})' if p.git else ''}, {p.dtype} on {p.device}"
        for p in (s.result.provenance for s in sources)
    )
    names = ", ".join(dict.fromkeys(s.name for s in sources))
    return f"{'; '.join(makers)} – drawn from {names if len(names) < 100 else f'{len(sources)} results'}"


def settings_words(source: ResultSource) -> str:
    """The settings that decided the numbers, in words."""
    result = source.result
    if isinstance(result, TrainResult):
        return _train_words(result)
    if isinstance(result, DetectResult):
        return _detect_words(result)
    return _sweep_words(result)


def task_words(config: Any, shape: tuple[int, int], kind: str) -> str:
    """``completion 10×10 of rank 3, 80 % observed``."""
    words = f"{kind} {shape[0]}×{shape[1]}"
    if getattr(config, "target", None) or getattr(config, "data", None):
        return f"{words} of {Path(config.target or config.data).name}"
    if getattr(config, "rank", None):
        words += f" of rank {config.rank}"
    if getattr(config, "observed", None):
        words += f", {100 * config.observed:.3g} % observed"
    if getattr(config, "noise", None):
        words += f", noise {config.noise:g}"
    return words


def _train_words(result: TrainResult) -> str:
    config, network = result.config, result.network
    words = [task_words(config, result.task.shape, result.task.words), f"L = {network.depth}"]
    if network.gamma is not None and network.width is not None:
        scale = f"(σ = {network.sigma:.3g}, α = {network.alpha:.3g})"
        words += [f"w = {network.width:.6g}", f"γ = {network.gamma:g} {scale}"]
    elif config.dynamics == "greedy":
        words.append("the limit α → 0")
    else:
        words.append(f"weights from a file (σ = {network.sigma:.3g})")
    words.append(config.in_words())
    if config.weight_decay:
        words.append(f"weight decay {config.weight_decay:g}")
    words.append(f"seed {config.seed}" + (f", {len(config.seeds)} starts" if len(config.seeds) > 1 else ""))
    if network.representation == "krylov":
        words.append(f"Krylov order {network.krylov_order}")
    if result.outcome.reason != "converged":
        words.append(f"ended: {result.outcome.reason.replace('_', ' ')}")
    return ", ".join(words)


def _detect_words(result: DetectResult) -> str:
    path, config = result.path, result.config
    words = [task_words(config, result.task.shape, result.task.words), f"L = {path.depth}"]
    words += [f"weight decay {path.weight_decay:g}"] if path.weight_decay else []
    words.append(f"{counted(path.records, 'record')} of {Path(config.sources[0]).name}")
    words.append(f"visits of at least {config.min_prominence:g} decades")
    return ", ".join(words)


def _sweep_words(result: Any) -> str:
    config = result.config
    shape = tuple(config.shape) if config.shape else (0, 0)
    widths = [float(w) for w in config.widths]
    span = f"{len(widths)} widths {min(widths):.3g} … {max(widths):.3g}" if len(widths) > 1 else f"w = {widths[0]:.3g}"
    seeds = len(config.seeds) if isinstance(config.seeds, tuple) else config.seeds
    gammas = f"{len(config.gammas)} values of γ" if len(config.gammas) > 1 else f"γ = {config.gammas[0]:g}"
    task = task_words(config, shape, config.task or "task") if config.shape else str(config.task)
    decay = f", weight decay {config.weight_decay:g} in what is followed" if config.weight_decay else ""
    return f"{task}, L = {config.depth}, {span}, {gammas}, {counted(seeds, 'start')} per cell{decay}"


def _read(path: Path) -> list[ResultSource]:
    if not os.path.exists(path):
        raise InputError(f"SOURCE: {path}: no such file or directory")
    if path.is_dir():
        settle(path)
    files = results_in(path) if path.is_dir() else [path]
    if not files:
        torn = unfinished_in([path])
        hint = f"; the run in {torn[0]} is unfinished: dlnphase train --out {torn[0]} --resume" if torn else ""
        raise InputError(f"SOURCE: {path}: found none of {', '.join(FILES)}, expected a result of dlnphase{hint}")
    return [_load(file) for file in files]


def results_in(directory: Path) -> list[Path]:
    """The result files of a directory, or of the directories in it, however deep, where it holds none itself."""
    own = [directory / name for name in FILES if (directory / name).exists()]
    if own:
        return own
    found = (path for name in FILES for path in directory.rglob(name) if PREVIOUS not in path.parts)
    return sorted(found)


def unfinished_in(paths: Sequence[Path | str]) -> list[Path]:
    """Directories at or below these that hold what was kept of a run, and no result: killed, or under way."""
    found = (state.parent for path in paths for state in sorted(Path(path).rglob(STATE_FILE)))
    return [place for place in found if PREVIOUS not in place.parts and not (place / RUN_FILE).exists()]


def _load(path: Path) -> ResultSource:
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"SOURCE: {path}: expected a result directory, or one of {', '.join(FILES)}")
    data = read_yaml(path)
    name, _ = split_schema(data.get("schema") if isinstance(data, dict) else None, f"SOURCE: {path}")
    if name not in READERS:
        raise InputError(f"SOURCE: {path}: found {name}, expected one of {', '.join(READERS)}")
    return ResultSource(path.absolute(), name.removeprefix("dlnphase/"), READERS[name](path))


def _label(source: ResultSource, peers: Sequence[ResultSource]) -> str:
    """The settings in which the peers differ; their directory where that does not tell them apart."""
    if len(peers) < 2:
        return ""
    mine = _words_of(source, peers)
    return mine if [_words_of(p, peers) for p in peers].count(mine) == 1 and mine else source.name


def _words_of(source: ResultSource, peers: Sequence[ResultSource]) -> str:
    plain = [_plain(p) for p in peers]
    return said(_plain(source), [key for key in _SHOWN if _differs(key, plain)])


def _differs(key: str, plain: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a setting tells these apart; one that is off is like none, and what one dynamics alone has tells none."""
    values = {str(p.get(key) or None) for p in plain}
    return len(values - {"None"} if key in OF_SOME else values) > 1


def said(plain: Mapping[str, Any], keys: Iterable[str] = tuple(_SHOWN)) -> str:
    """Those of these settings that are set, as a label writes them."""
    words = []
    for key in keys:
        value = plain.get(key)
        if value is None:
            continue
        try:
            words.append(_SHOWN[key].format(len(value) if isinstance(value, list) else value))
        except (ValueError, TypeError):
            words.append(f"{key} {value}")
        words[-1] = "1 start" if words[-1] == "1 starts" else words[-1]
    return ", ".join(words)


def _plain(source: ResultSource) -> dict[str, Any]:
    plain: dict[str, Any] = source.result.config.to_plain()
    if plain.get("dynamics") == "greedy":
        return {**plain, "width": None, "gamma": None, "seed": None, "dynamics": "greedy, α → 0"}
    return plain

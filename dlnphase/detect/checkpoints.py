"""A path from a folder of checkpoints: which files, in what order, at what times.

A checkpoint is a file, or a folder of its own with one file of weights, as Hugging Face's trainer writes them. Its step
is what it says itself (``global_step``), else the number in its name, or in that of its folder; its time is
step × lr × loss scale, or what ``--times`` says: gradient descent with learning rate η on a loss that is c times ours
moves in one step as far as our flow in time η·c.
"""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dlnphase.detect.trace import increasing
from dlnphase.errors import InputError
from dlnphase.results.files import MAX_ARRAY_BYTES, in_range
from dlnphase.results.yamlfile import read_text, regular_file
from dlnphase.settings.detect import DetectSettings
from dlnphase.setup.states import SUFFIXES, StateFile, read_state

LABELLED = re.compile(r"(?:step|iter|iteration)[=_-]?(\d{1,15})", re.IGNORECASE)
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # of a folder that is one checkpoint


@dataclass(frozen=True)
class Stack:
    """What the checkpoints of one training run hold, in the order of training.

    Attributes:
        layers: W1, W2, … by name, of shape (T, n_l, n_{l-1}).
        times, steps: shape (T,).
        notes: what was left out.
    """

    layers: list[tuple[str, np.ndarray]]
    times: np.ndarray
    steps: np.ndarray
    notes: tuple[str, ...] = ()


def checkpoint_files(sources: tuple[str, ...]) -> list[Path]:
    """The files meant by a folder, a pattern, or names; none where a single source is no such thing.

    Raises:
        InputError: for a pattern that matches nothing, or one file where several are needed.
    """
    found: list[Path] = []
    for source in sources:
        path = Path(source)
        if os.path.isdir(path):
            found += _in_folder(path)
        elif os.path.exists(path):
            found += [path] if path.suffix.lower() in SUFFIXES else []
        elif glob.has_magic(source):
            matches = [Path(p) for p in glob.glob(source)]
            if not matches:
                raise InputError(f"SOURCE: {source}: the pattern matches no file")
            found += [file for match in matches for file in (_in_folder(match) if match.is_dir() else [match])]
    found = list(dict.fromkeys(found))
    names = dict(zip(found, _names(found), strict=True))
    return sorted(found, key=lambda p: ([int(n) for n in re.findall(r"\d{1,18}", names[p])], names[p]))


def _in_folder(path: Path) -> list[Path]:
    """The checkpoints in a folder; its weights alone where it is one itself; those of the folders in it."""
    if own := [path / name for name in WEIGHTS if (path / name).exists()]:
        return own[:1]
    files = [p for p in path.iterdir() if p.suffix.lower() in SUFFIXES]
    inside = [p / name for p in path.iterdir() if p.is_dir() for name in WEIGHTS if (p / name).exists()]
    return files or list({p.parent: p for p in reversed(inside)}.values())


def _names(files: list[Path]) -> list[str]:
    """What tells checkpoints apart: their names, or those of their folders where all files have the same one."""
    same = len(files) > 1 and len({p.name for p in files}) == 1
    return [p.resolve().parent.name if same else p.name for p in files]


def read_checkpoints(files: list[Path], settings: DetectSettings) -> Stack:
    """Layers, times and steps, in the order of training.

    Raises:
        InputError: naming the file that cannot be used, or the option that is missing.
    """
    files, states, notes = _with_steps(files, _read(files))
    steps = _steps(files, states, settings.every)
    order = np.argsort(steps, kind="stable")
    steps, files, states = steps[order], [files[i] for i in order], [states[i] for i in order]
    again = np.flatnonzero(np.diff(steps) == 0) + 1
    for k in again:
        if not all(np.array_equal(a, b) for (_, a), (_, b) in zip(states[k - 1].layers, states[k].layers, strict=True)):
            raise InputError(f"SOURCE: {files[k - 1].name} and {files[k].name} are both of step {steps[k]:.0f}")
    once = [k for k in range(len(files)) if k not in set(again)]  # last.ckpt says again what the last one says
    steps, files, states = steps[once], [files[k] for k in once], [states[k] for k in once]
    if len(files) < 2:
        raise InputError(f"SOURCE: {files[0]} is one checkpoint, expected several of one training run")
    layers = [
        (f"W{index + 1}", np.stack([state.layers[index][1] for state in states]).astype(_kept(states)))
        for index in range(len(states[0].layers))
    ]
    return Stack(layers, _times(steps, settings), steps, notes)


def _read(files: list[Path]) -> list[StateFile]:
    """What each file holds, all of the same layers."""
    if len(files) < 2:
        raise InputError(f"SOURCE: {files[0]} is one checkpoint, expected several of one training run")
    states: list[StateFile] = []
    needed = 0
    for path in files:
        states.append(read_state(path, f"SOURCE: {path}"))
        needed += sum(weight.nbytes for _, weight in states[-1].layers)
        if needed > MAX_ARRAY_BYTES:
            raise InputError(
                f"SOURCE: the first {len(states)} of {len(files)} checkpoints need {needed / 2**30:.3g} GiB, expected "
                f"at most {MAX_ARRAY_BYTES // 2**30} GiB; take fewer"
            )
    for path, state in zip(files, states, strict=True):
        for name, weight in state.layers:
            in_range(weight, f"SOURCE: {path}: {name}")
        shapes = [w.shape for _, w in state.layers]
        wanted = [w.shape for _, w in states[0].layers]
        if shapes != wanted:
            raise InputError(
                f"SOURCE: {path} has layers {_shapes(shapes)}, expected {_shapes(wanted)} like {files[0].name}"
            )
    return states


def _with_steps(files: list[Path], states: list[StateFile]) -> tuple[list[Path], list[StateFile], tuple[str, ...]]:
    """Those whose step can be known, and a note on the others (``best.pt``); all where too few would be left."""
    names = _names(files)
    told = [state.step is not None or bool(re.search(r"\d", name)) for state, name in zip(states, names, strict=True)]
    if all(told) or sum(told) < 2:
        return files, states, ()
    left = ", ".join(path.name for path, known in zip(files, told, strict=True) if not known)
    kept = [(path, state) for path, state, known in zip(files, states, told, strict=True) if known]
    note = f"left out, since neither the file nor its name tells a step: {left}"
    return [path for path, _ in kept], [state for _, state in kept], (note,)


def _kept(states: list[StateFile]) -> type[np.floating]:
    """Single precision stays so: whoever reads the numbers should know what they are worth."""
    return np.float32 if all(state.single for state in states) else np.float64


def _shapes(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in shapes)


def _steps(files: list[Path], states: list[StateFile], every: int | None) -> np.ndarray:
    told = [state.step for state in states]
    if all(step is not None for step in told):
        if every is not None:
            raise InputError(f"every: found {every}, but the checkpoints hold their own steps; drop it")
        return np.array(told, dtype=float)
    return np.array(_numbers(files), dtype=float) * (every or 1)


def _numbers(files: list[Path]) -> list[int]:
    """The steps in names: the number after ``step`` or ``iter``, else the one in which they differ."""
    names = _names(files)
    found = [LABELLED.findall(name) for name in names]
    if not all(found):
        found = [re.findall(r"\d{1,15}", name) for name in names]
        missing = next((path for path, digits in zip(files, found, strict=True) if not digits), None)
        if missing is not None:
            raise InputError(
                f"SOURCE: {missing} holds no global_step and its name no number, expected names like step-100.pt; "
                "rename it, or leave it out"
            )
    numbers = [[int(d) for d in digits] for digits in found]
    if len({len(n) for n in numbers}) > 1:  # names of several kinds: only the end is in all of them
        return [n[-1] for n in numbers]
    differ = [k for k in range(len(numbers[0])) if len({n[k] for n in numbers}) > 1]
    if len(differ) > 1:
        raise InputError(
            f"SOURCE: {names[0]} and {names[1]} differ in {len(differ)} numbers, expected names like "
            "step-100.pt, in which one number is the step"
        )
    return [n[differ[0] if differ else -1] for n in numbers]


def _times(steps: np.ndarray, settings: DetectSettings) -> np.ndarray:
    if settings.times is not None:
        return read_times(settings.times, len(steps)) * settings.loss_scale
    if settings.lr is None:
        raise InputError(
            "lr: missing, expected the learning rate of the checkpoints' training (time = step x lr), or --times FILE"
        )
    return steps * settings.lr * settings.loss_scale


def read_times(path: str | Path, count: int) -> np.ndarray:
    """Times from an .npy, or from text with one number to a line.

    Raises:
        InputError: when it cannot be read, or does not hold ``count`` increasing numbers.
    """
    path = Path(path)
    where = f"times: {path}"
    regular_file(path, where)
    try:
        if path.suffix.lower() == ".npy":
            times = np.load(path, allow_pickle=False)
        else:
            times = np.array([float(word) for word in read_text(path).replace(",", " ").split()])
    except InputError:
        raise
    except Exception as error:  # NumPy raises many kinds for a damaged file
        raise InputError(f"{where}: expected one number per checkpoint ({type(error).__name__})") from None
    if times.ndim != 1 or times.dtype.kind not in "fiu" or len(times) != count:
        raise InputError(f"{where}: found {times.dtype} of shape {times.shape}, expected {count} numbers")
    in_range(times, where)
    return increasing(times.astype(float), where)

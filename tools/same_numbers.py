"""Whether a change leaves every number of 60 seeded commands as it was.

    python tools/same_numbers.py run FOLDER            before the change, and after it into another folder
    python tools/same_numbers.py compare BEFORE AFTER

Every value of the YAML files and every array beside them is compared; what differs is printed with its place, its two
values and their relative difference, the largest first. Where and when a result was made is not compared.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dlnphase.cli import app

SHOWN = 60
TRAIN = """
--dim 4 -w 20
--dim 4 -w 20 -g 2 --seed 1
--dim 3 --rank 1 -L 2 -w 3 -g 1.5
--dim 3 --rank 2 -L 4 -w 12 -g 2.5 --seed 2
--dim 4 --rank 2 -L 6 -w 8 -g 1.2
--shape 1x4 --singular-values 2 -L 3 -w 6 -g 1.5
--shape 5x2 --singular-values 3,1 -L 3 -w 10 -g 2
--shape 4x4 --singular-values 1 -L 3 -w 4 -g 1
--shape 4x4 --singular-values 2,2,1 -L 2 -w 9 -g 2
--shape 4x4 --singular-values 3,2,1 -L 3 -w 2 -g 1.5
--dim 4 -w 1000 -g 0.5
--dim 4 -w 1e6 -g 1.5
--dim 3 --rank 2 -w 1e9 -g 1.2 -L 4
--dim 4 -w 1e12 -g 0 -L 2
--dim 4 -w 30 -g -0.5 -L 2
--dim 4 -w 30 -g 2 --seeds 4
--dim 3 -w 1e6 -g 1.5 --seeds 3
--task completion --dim 4 --rank 1 -w 20 -g 2
--task completion --shape 5x4 --rank 2 -w 20 -g 1.5 --seed 3
--task completion --shape 6x6 --rank 2 -w 1e6 -g 1.2 -L 2
--task completion --dim 4 --rank 1 -w 20 -g 2 --seeds 3
--task sensing --shape 3x4 --rank 1 --measurements 8 -w 15 -g 2
--task sensing --shape 3x3 --rank 2 --measurements 12 -w 1e6 -g 1.5 -L 2
--task regression --data many.npz -w 15 -g 2
--task regression --data few.npz -w 20 -g 1.5
--task regression --data many.npz -w 1e6 -g 1.2
--dim 4 -w 20 -g 2 --dtype float32
--dim 3 --rank 2 -w 20 -g 2 --dynamics gd --max-steps 3000
--dim 3 --rank 2 -w 20 -g 2 --dynamics gd --lr 0.05 --max-steps 2000 --seeds 2
--task completion --dim 4 --rank 1 -w 20 -g 2 --dynamics gd --max-steps 3000
--dim 3 --rank 2 -L 2 --dynamics greedy
--task completion --dim 3 --rank 1 -L 2 --dynamics greedy
--dim 3 --rank 2 -w 20 -g 2 --rtol 1e-8
--dim 3 --rank 2 -w 300 -g 1.5 --representation full
--task classification --data classes.npz -w 12 -g 1.5 --max-time 30
--dim 3 --rank 2 -w 12 -g 1.5 --weight-decay 0.01
--dim 3 --rank 2 -w 1e6 -g 1.5 -L 2 --weight-decay 0.1
--task completion --shape 5x4 --rank 2 -w 20 -g 1.5 --cost huber
--task completion --shape 5x4 --rank 2 -w 20 -g 1.5 --cost logistic --max-time 1e4
--dim 4 -w 20 -g 2 --max-time 3
"""
SWEEP = """
--dim 4 --gammas 0.5,1.5 --widths 10,100 --seeds 4
--dim 4 --gammas 0.75,1,1.25 --widths 1e3,1e6,1e9 --seeds 3
--dim 3 --rank 1 -L 3 --gammas 0.5,1.5 --widths 6,1e4 --seeds 4
--dim 3 --rank 2 -L 4 --gammas 0.9,1.4 --widths 1e6,1e9 --seeds 2
--dim 3 --gammas 0.5,1.5 --widths 10,30 --seeds 2 --train
--task completion --shape 4x4 --rank 1 --gammas 0.5,1.5 --widths 10,1e4 --seeds 3
--task sensing --shape 2x3 --rank 1 --measurements 5 -L 2 --gammas 0.5,1.5 --widths 6,100,1e4 --seeds 4
--task regression --data many.npz --gammas 0.5,1.5 --widths 8,1e4 --seeds 3
--task factorization --shape 2x5 --singular-values 3,1 --gammas -0.5,2.5 --widths 8,1e4 --seeds 2
--dim 4 --gammas 1.0 --widths 100 --seeds 2
"""
DETECT = (0, 3, 5, 8, 15, 17, 20, 21, 24, 27)  # of the runs above, whose saddles are detected


def commands() -> Iterator[tuple[str, list[str]]]:
    """(name of the folder of its result, arguments) of each command, a run before the detections of it."""
    train, sweep = (text.strip().splitlines() for text in (TRAIN, SWEEP))
    for number, line in enumerate(train):
        yield f"train-{number:02d}", ["train", *shlex.split(line)]
    for number, line in enumerate(sweep):
        yield f"sweep-{number:02d}", ["sweep-gamma", *shlex.split(line)]
    for number in DETECT:
        yield f"detect-{number:02d}", ["detect-saddles", f"train-{number:02d}"]


def _data() -> None:
    """The files that commands read: noisy samples, fewer samples than inputs, and classes, here."""
    rng = np.random.default_rng(0)
    for name, d_out, d_in, samples, noise in (("many", 2, 4, 30, 0.1), ("few", 3, 5, 4, 0.0)):
        x, a = rng.standard_normal((samples, d_in)), rng.standard_normal((d_out, d_in))
        np.savez(f"{name}.npz", X=x, Y=x @ a.T + noise * rng.standard_normal((samples, d_out)))
    x, centres = rng.standard_normal((60, 4)), 0.7 * rng.standard_normal((3, 4))
    y = np.arange(60) % 3
    np.savez("classes.npz", X=x + centres[y], y=y)


def run(folder: Path) -> int:
    """Run them all below a folder, which has to be new."""
    folder.mkdir(parents=True)
    with contextlib.chdir(folder):
        _data()
        for name, arguments in commands():
            said, start = io.StringIO(), time.process_time()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                code = app.run([*arguments, "--out", name])
            Path(name).mkdir(exist_ok=True)
            Path(name, "said.txt").write_text(said.getvalue())
            print(f"{name}  {time.process_time() - start:6.1f} s  exit {code}  {shlex.join(arguments)}", flush=True)
    return 0


def compare(before: Path, after: Path) -> int:
    """Print what differs; exit code 1 where something does."""
    found: list[tuple[float, str]] = []
    compared = 0
    for name, _ in commands():
        one, two = dict(_values(before / name)), dict(_values(after / name))
        compared += len(one.keys() | two.keys())
        for key in sorted(one.keys() | two.keys()):
            size = _apart(one.get(key), two.get(key))
            if size:
                found.append((size, f"{size:9.1e}  {name}  {key}: {_short(one.get(key))} → {_short(two.get(key))}"))
    for _, line in sorted(found, reverse=True)[:SHOWN]:
        print(line)
    print(f"{len(found)} of {compared} values of {sum(1 for _ in commands())} commands differ")
    return 1 if found else 0


def _values(folder: Path) -> Iterator[tuple[str, Any]]:
    """All values of the YAML files and arrays of a result."""
    for path in sorted(folder.glob("*.yaml")):
        document = yaml.safe_load(path.read_text())
        document.pop("provenance", None)
        yield from _leaves(document, path.name)
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            for name in arrays.files:
                yield f"{path.name}/{name}", arrays[name]


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, f"{place}/{key}")
    elif isinstance(value, list):
        for key, part in enumerate(value):
            yield from _leaves(part, f"{place}/{key}")
    else:
        yield place, value


def _apart(one: Any, two: Any) -> float:
    """The relative difference of two values; ∞ where they are no numbers, or not of one shape."""
    if one is None and two is None:
        return 0.0
    try:
        a, b = np.asarray(one, dtype=float), np.asarray(two, dtype=float)
    except (TypeError, ValueError):
        same = Path(str(one)).name == Path(str(two)).name  # results stand in other folders
        return 0.0 if same else np.inf
    if a.shape != b.shape or one is None or two is None:
        return np.inf
    if np.array_equal(a, b, equal_nan=True):
        return 0.0
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return np.inf
    largest = float(max(np.nanmax(np.abs(a)), np.nanmax(np.abs(b))))
    return float(np.nanmax(np.abs(np.where(np.isfinite(a), a - b, 0.0)))) / largest


def _short(value: Any) -> str:
    return f"array {value.shape}" if isinstance(value, np.ndarray) and value.ndim else str(value)[:60]


def main() -> int:
    """Which of the two is asked for."""
    match sys.argv[1:]:
        case ["run", folder]:
            return run(Path(folder))
        case ["compare", before, after]:
            return compare(Path(before), Path(after))
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main())

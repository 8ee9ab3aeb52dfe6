"""Every figure of the gallery, from the configuration files beside this one: ``make gallery``.

Each step is a command line, printed before it runs, so that any of it can be repeated by hand. Results go to
runs/gallery, pictures to docs/images. What is there already is not computed again; delete runs/gallery to start anew.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from dlnphase.cli.app import run
from dlnphase.results import npz_bytes, write_atomic

ROOT = Path(__file__).resolve().parent.parent
HERE, RUNS, IMAGES = ROOT / "gallery", ROOT / "runs" / "gallery", ROOT / "docs" / "images"
GAMMAS_OF_CONVERGENCE = ("1.5", "2", "2.5", "3", "3.5", "4")  # at w = 100: α from 0.3 down to 0.001
CHANGES = {  # what changes the path of gallery/change.yaml
    "flow": (),
    "little-decay": ("--weight-decay", "0.05"),
    "decay": ("--weight-decay", "0.3"),
    "gd": ("--dynamics", "gd"),
    "large-step": ("--dynamics", "gd", "--lr", "0.11", "--max-steps", "400"),
    "momentum": ("--dynamics", "gd", "--momentum", "0.9"),
    "slow-momentum": ("--dynamics", "gd", "--momentum", "0.9", "--lr", "0.0003"),
    "batches": ("--dynamics", "sgd", "--batch-size", "12"),
    "muon": ("--dynamics", "muon", "--max-steps", "600"),
    "adam": ("--dynamics", "adam", "--lr", "0.002", "--max-steps", "3000"),
}
REGIMES = {"lazy": "0.7", "mean-field": "1", "saddle-to-saddle": "2"}


def main() -> int:
    """Make everything; returns the number of commands that failed."""
    start, failures = time.perf_counter(), 0
    RUNS.mkdir(parents=True, exist_ok=True)
    write_digits(RUNS / "digits.npz")
    for line in computations():
        failures += step([*line, "--resume", "--quiet"])
    for name, line in figures():
        out = RUNS / "figures" / name
        failed = step([*line, "--variant", "screen", "--out", str(out), "--overwrite", "--quiet"])
        failures += failed
        if not failed:
            for picture in sorted(out.glob("*.png")):
                write_atomic(IMAGES / f"{name}-{picture.name}", picture.read_bytes())
    print(f"{failures} failed, {time.perf_counter() - start:.0f} s; pictures are in {IMAGES.relative_to(ROOT)}")
    return failures


def computations() -> list[list[str]]:
    """The command lines that compute."""
    lines = [train("paper", "paper"), train("greedy", "greedy")]
    lines.append(["detect-saddles", at("paper"), "--greedy", "--out", at("paper-saddles")])
    lines += [train("regimes", f"regime-{name}", "--gamma", gamma) for name, gamma in REGIMES.items()]
    lines += [train("paper", f"alpha-{gamma}", "--gamma", gamma) for gamma in GAMMAS_OF_CONVERGENCE]
    lines.append(train("paper", "spread", "--seeds", "64"))
    lines.append(["sweep-gamma", "--config", str(HERE / "phase.yaml"), "--out", at("phase")])
    lines.append(train("digits", "digits"))
    lines += [train("change", f"change-{name}", *flags) for name, flags in CHANGES.items()]
    lines.append(train("jumps", "jumps", "--seeds", "4"))
    return lines


def figures() -> list[tuple[str, list[str]]]:
    """Name and command line of each figure."""
    alphas = [at(f"alpha-{gamma}") for gamma in GAMMAS_OF_CONVERGENCE]
    modes = ["--kind", "singular-values", "--layout", "panels"]
    changes = {
        "decay": ["flow", "little-decay", "decay"],
        "batches": ["gd", "batches"],
        "muon": ["gd", "muon", "adam"],
    }
    return [
        ("paper", ["plot", at("paper"), "--kind", "loss", "--kind", "singular-values", "--kind", "rank"]),
        ("paper", ["plot", at("paper"), at("greedy"), at("paper-saddles"), "--kind", "path"]),
        ("paper", ["plot", at("paper-saddles"), "--kind", "saddles"]),
        ("regimes", ["plot", *(at(f"regime-{n}") for n in REGIMES), "--kind", "loss", "--layout", "panels"]),
        ("alpha", ["plot", *alphas, at("paper-saddles"), "--kind", "convergence"]),
        ("spread", ["plot", at("spread"), "--kind", "loss", "--kind", "rank"]),
        ("phase", ["plot", at("phase"), "--kind", "all"]),
        *((f"change-{name}", ["plot", *(at(f"change-{n}") for n in of), *modes]) for name, of in changes.items()),
        (
            "change-momentum",
            ["plot", *(at(f"change-{n}") for n in ("flow", "momentum", "slow-momentum")), "--kind", "loss"],
        ),
        ("change-step", ["plot", at("change-gd"), at("change-large-step"), "--kind", "sharpness"]),
        ("jumps", ["plot", at("jumps"), "--kind", "singular-values", "--time", "linear"]),
        ("digits", ["plot", at("digits"), "--kind", "loss", "--kind", "singular-values", "--time", "log"]),
    ]


def train(config: str, out: str, *flags: str) -> list[str]:
    """A command line of train."""
    return ["train", "--config", str(HERE / f"{config}.yaml"), *flags, "--out", at(out)]


def at(name: str) -> str:
    """Where a result of the gallery lies."""
    return str(RUNS / name)


def step(line: list[str]) -> bool:
    """Run one command line, printed first; whether it failed."""
    print("dlnphase", " ".join(part.replace(f"{ROOT}/", "") for part in line), flush=True)
    return run(line) != 0


def write_digits(path: Path) -> None:
    """The digits that come with scikit-learn: every fifth image is for testing."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = images / 16.0 - (images / 16.0).mean(0)
    y = np.eye(10)[labels] - np.eye(10)[labels].mean(0)
    test = np.arange(len(x)) % 5 == 0
    write_atomic(path, npz_bytes({"X": x[~test], "Y": y[~test], "X_test": x[test], "Y_test": y[test]}))


if __name__ == "__main__":
    sys.exit(min(main(), 1))

"""Settings of how a network is followed, and when to stop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dlnphase.errors import InputError
from dlnphase.settings.parse import auto_or, changing, choice, integer, number, optional
from dlnphase.settings.table import Settings, option


@dataclass(frozen=True)
class DynamicsKind:
    """A dynamics.

    Attributes:
        words: in captions.
        rule: what makes its update in dynamics/updates.py; "" where it is no discrete algorithm.
        momentum: β where none is given; None where it takes none.
        noisy: whether it takes batches and label noise.
        steps: at most so many where none are given.
        floor: why its cost may stay up where steps run out, or "".
    """

    words: str
    rule: str = ""
    momentum: float | None = None
    noisy: bool = False
    steps: int = 100_000
    floor: str = ""


ROWS = {
    "flow": DynamicsKind("gradient flow"),
    "gd": DynamicsKind("gradient descent", "plain", 0.0, steps=1_000_000),
    "sgd": DynamicsKind("stochastic gradient descent", "plain", 0.0, noisy=True, steps=1_000_000),
    "muon": DynamicsKind("Muon", "Muon", 0.95, noisy=True, floor="steps of one size keep it above a floor"),
    "adam": DynamicsKind("Adam", "Adam", 0.9, noisy=True),
    "greedy": DynamicsKind("greedy path"),
}
DYNAMICS_NAMES = tuple(ROWS)
CONTINUOUS = tuple(name for name, row in ROWS.items() if not row.rule)
DISCRETE = tuple(name for name, row in ROWS.items() if row.rule)
NOISY = tuple(name for name, row in ROWS.items() if row.noisy)
MOMENTA = {name: row.momentum for name, row in ROWS.items() if row.momentum is not None}


def _changes(value: Any) -> str:
    """A number, or one that changes: ``0.1, 0.01 from step 500``."""
    if not isinstance(value, tuple):
        return str(value)
    return ", ".join(f"{number:g} from step {step}" if step else f"{number:g}" for step, number in value)


@dataclass(frozen=True, kw_only=True)
class DynamicsSettings(Settings, panel="Dynamics"):
    """How the network is followed, and when to stop."""

    dynamics: str = option(
        choice(*DYNAMICS_NAMES),
        "gradient flow, a discrete algorithm, or the greedy path of the limit alpha -> 0",
        replaces=("rtol", "max_time", "lr", "max_steps", "momentum", "batch_size", "label_noise"),
        default="flow",
    )
    rtol: float | None = option(
        number(positive=True, below=0.1), "flow: relative error allowed per step", default_words="1e-4"
    )
    max_time: float | None = option(
        optional(number(positive=True), "inf"), "flow: stop at this time", default_words="no limit"
    )
    lr: float | str | tuple[tuple[int, float], ...] | None = option(
        auto_or(changing(number(positive=True), "0.1,500:0.01")),
        "size of a step; auto takes one from the curvature, or from the size of the target",
        default_words="auto",
    )
    momentum: float | None = option(
        number(0.0, below=1.0),
        "gd, sgd: heavy ball; muon: of what it takes the polar factor; adam: beta_1",
        default_words=", ".join(f"{name} {momentum:g}" for name, momentum in MOMENTA.items()),
    )
    batch_size: int | tuple[tuple[int, int], ...] | None = option(
        changing(integer(1), "10,500:40"),
        f"{', '.join(NOISY)}: entries, samples or measurements a step, drawn anew each time",
        default_words="all",
    )
    label_noise: float | None = option(
        number(0.0),
        f"{', '.join(NOISY)}: standard deviation of noise added to every label, anew each step",
        default_words="0",
    )
    max_steps: int | None = option(
        integer(1, 10**12), "stop after so many steps", default_words="gd and sgd 1e6, others and with label noise 1e5"
    )
    tol: float = option(
        number(0.0, below=1.0),
        "stop at this share of C - C_min at the start, or at A = 0 if that is less; 0 = never",
        default=1e-8,
    )

    weight_decay: float = option(
        number(0.0), "add (lambda/2)|theta|^2 to the cost: the flow, or each step, shrinks all weights", default=0.0
    )

    @property
    def noisy(self) -> bool:
        """Whether gradients are stochastic."""
        return self.batch_size is not None or bool(self.label_noise)

    def in_words(self) -> str:
        """The dynamics, for captions."""
        words = [ROWS[self.dynamics].words]
        words += [f"β = {self.momentum:g}"] if self.momentum else []
        words += [f"η = {_changes(self.lr)}"] if isinstance(self.lr, tuple) else []
        words += [f"batches of {_changes(self.batch_size)}"] if self.batch_size is not None else []
        words += [f"label noise {self.label_noise:g}"] if self.label_noise else []
        return ", ".join(words)

    def _settle(self) -> None:
        super()._settle()
        defaults: dict[str, tuple[Any, Iterable[str]]] = {
            "rtol": (1e-4, CONTINUOUS),
            "max_time": (None, CONTINUOUS),
            "lr": ("auto", DISCRETE),
            "momentum": (MOMENTA.get(self.dynamics), MOMENTA),
            "batch_size": (None, NOISY),
            "label_noise": (0.0, NOISY),
        }
        for name, (default, where) in defaults.items():
            value = getattr(self, name)
            if value is not None and self.dynamics not in where:
                there = f"found with dynamics {self.dynamics}, expected only with {' or '.join(where)}"
                raise InputError(f"{name.replace('_', '-')}: {there}")
            if value is None and self.dynamics in where:
                self._set(name, default)
        if self.momentum is not None and self.momentum >= 1:
            raise InputError(f"momentum: found {self.momentum:g}, expected below 1")
        if self.max_steps is None:
            # Label noise keeps a run that learns from converging: it lasts until they are spent.
            self._set("max_steps", 100_000 if self.label_noise else ROWS[self.dynamics].steps)

"""Settings of how a network is followed, and when to stop."""

from __future__ import annotations

from dataclasses import dataclass

from dlnphase.errors import InputError
from dlnphase.settings.parse import auto_or, choice, integer, number, optional
from dlnphase.settings.table import Settings, option

DYNAMICS_NAMES = ("flow", "gd", "greedy")


@dataclass(frozen=True, kw_only=True)
class DynamicsSettings(Settings):
    """How the network is followed, and when to stop."""

    dynamics: str = option(
        "flow",
        choice(*DYNAMICS_NAMES),
        "gradient flow, gradient descent, or the greedy path of the limit alpha -> 0",
        panel="Dynamics",
        replaces=("rtol", "max_time", "lr", "max_steps"),
    )
    rtol: float | None = option(
        None,
        number(positive=True, below=0.1),
        "flow: relative error allowed per step",
        panel="Dynamics",
        default_words="1e-4",
    )
    max_time: float | None = option(
        None,
        optional(number(positive=True), "inf"),
        "flow: stop at this time",
        panel="Dynamics",
        default_words="no limit",
    )
    lr: float | str | None = option(
        None,
        auto_or(number(positive=True)),
        "gd: step size; auto takes a stable one from the curvature",
        panel="Dynamics",
        default_words="auto",
    )
    max_steps: int | None = option(
        None, integer(1, 10**12), "stop after so many steps", panel="Dynamics", default_words="flow 1e5, gd 1e6"
    )
    tol: float = option(
        1e-8,
        number(0.0, below=1.0),
        "stop at this share of C - C_min at the start, or at A = 0 if that is less; 0 = never",
        panel="Dynamics",
    )

    weight_decay: float = option(
        0.0,
        number(0.0),
        "add (lambda/2)|theta|^2 to the cost: the flow, or each step, shrinks all weights",
        panel="Dynamics",
    )

    def _settle(self) -> None:
        super()._settle()
        if self.weight_decay and self.dynamics == "greedy":
            raise InputError("weight-decay: found with dynamics greedy, expected only with flow or gd")
        defaults = {"rtol": (1e-4, "flow", "greedy"), "lr": ("auto", "gd"), "max_time": (None, "flow", "greedy")}
        for name, (default, *where) in defaults.items():
            value = getattr(self, name)
            if value is not None and self.dynamics not in where:
                raise InputError(
                    f"{name.replace('_', '-')}: found with dynamics {self.dynamics}, expected only with {where[0]}"
                )
            if value is None and self.dynamics in where:
                self._set(name, default)
        if self.max_steps is None:
            self._set("max_steps", 1_000_000 if self.dynamics == "gd" else 100_000)

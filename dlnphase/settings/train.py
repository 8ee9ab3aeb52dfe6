"""Settings of ``dlnphase train``."""

from __future__ import annotations

from dataclasses import dataclass

from dlnphase.errors import InputError
from dlnphase.observables import OBSERVABLES
from dlnphase.settings.common import MachineSettings, NetworkSettings
from dlnphase.settings.costs import CostSettings
from dlnphase.settings.dynamics import DynamicsSettings
from dlnphase.settings.parse import number, optional, words
from dlnphase.settings.table import option


@dataclass(frozen=True, kw_only=True)
class TrainSettings(MachineSettings, DynamicsSettings, CostSettings, NetworkSettings, panel="Dynamics"):
    """One network, from initialisation to the minimum: network, task, dynamics, machine."""

    noise_level: float | None = option(
        number(positive=True),
        "standard deviation of the noise in your data, to tell the modes that fit it; nothing is added",
        panel="Task",
        default_words="--noise, else looked for in a matrix of your own",
    )

    record: tuple[str, ...] | None = option(
        optional(words(*OBSERVABLES)),
        "also look at these at a few dozen records of the path (repeatable): observed.npz",
        repeatable=True,
        default_words="none; sharpness beside steps",
    )

    def _settle(self) -> None:
        super()._settle()
        if self.record and self.dynamics == "greedy":
            raise InputError("record: found with dynamics greedy, expected only with a path in time or steps")
        if self.noise and self.noise_level is not None:
            raise InputError("noise-level: found beside noise, which plants noise of a known level; drop one")

        if self.weight_decay and self.noise_level is not None:
            raise InputError(
                "noise-level: found beside weight-decay, whose part of the cost cannot be told from noise; drop one"
            )

    def slug(self) -> str:
        """A short readable name: ``train-completion-10x10-L4-w100-g2``, ``train-ratings-L4-w100-g2-seed1``."""
        words = ["train", self.task_words()]
        if self.shape is not None:
            words.append(f"{self.shape[0]}x{self.shape[1]}")
        if self.init_weights is not None:
            words.append("weights")
        elif self.dynamics == "greedy":
            words.append(f"L{self.depth}")
        else:
            words += [f"L{self.depth}", f"w{self.width:.12g}", f"g{self.gamma:g}"]
        if self.dynamics != "flow":
            words.append(self.dynamics)
        if self.seed:
            words.append(f"seed{self.seed}")
        if len(self.seeds) > 1:
            words.append(f"{len(self.seeds)}starts")
        return "-".join(words)

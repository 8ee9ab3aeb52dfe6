"""Settings of ``dlnphase train``."""

from __future__ import annotations

from dataclasses import dataclass

from dlnphase.settings.common import DynamicsSettings, MachineSettings, NetworkSettings, TaskSettings


@dataclass(frozen=True, kw_only=True)
class TrainSettings(MachineSettings, DynamicsSettings, TaskSettings, NetworkSettings):
    """One network, from initialisation to the minimum: network, task, dynamics, machine."""

    def slug(self) -> str:
        """A short name for the default output directory: ``train-completion-10x10-L4-w100-g2``."""
        words = ["train", self.task or ("regression" if self.data else "target")]
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
        return "-".join(words)

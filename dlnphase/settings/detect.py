"""Settings of ``dlnphase detect-saddles``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlnphase.errors import InputError
from dlnphase.observables import OBSERVABLES
from dlnphase.settings.common import MachineSettings, name_words
from dlnphase.settings.costs import CostSettings
from dlnphase.settings.parse import boolean, choice, integer, number, optional, path, paths, words
from dlnphase.settings.table import option, options

_TASK = tuple(options(CostSettings))


@dataclass(frozen=True, kw_only=True)
class DetectSettings(MachineSettings, CostSettings, panel="Saddles"):
    """Which path to look at, what it was trained on, and what to say about its visits.

    A run of ``dlnphase train`` brings its own task and network; a path of another code needs its task by options.
    The time of another code's record is taken times ``loss_scale``: gradient descent on a loss c times ours moves c
    times as fast.
    """

    source: str | tuple[str, ...] | None = option(
        paths("a run directory, an .npz file or checkpoints", "SOURCE"),
        "a run directory; an .npz of any other code: t, and W1…WL (T x n_l x n_(l-1)) or A (T x d_out x d_in); or "
        "checkpoints of one training run: a folder, a quoted pattern, or several .pt, .pth, .ckpt, .safetensors files",
        positional=True,
        repeatable=True,
    )
    lr: float | None = option(number(positive=True), "checkpoints: learning rate; their time is step x lr")
    times: str | None = option(path("an .npy, or text with a number per line"), "checkpoints: their times")
    every: int | None = option(integer(1), "checkpoints: training steps per number in their names", default_words="1")
    loss_scale: float = option(
        number(positive=True), "how many times ours the loss is that SOURCE was trained on", default=1.0
    )
    weight_decay: float | None = option(
        number(0.0),
        "lambda: the points of C + (lambda/2)|theta|^2, of a SOURCE trained with weight decay (divided by loss-scale)",
        default_words="that of a run, else 0",
    )
    between: bool | None = option(
        boolean(), "follow the flow from each record with weights to the next", default_words="where they lie far apart"
    )
    min_prominence: float = option(
        number(positive=True, below=100.0), "decades of the gradient norm by which a visit stands out", default=0.5
    )
    certify: bool = option(boolean(), "refine in parameter space, curvature and descent", default=True)
    greedy: bool = option(boolean(), "compare each visit with the greedy path of alpha -> 0", default=False)
    record: tuple[str, ...] | None = option(
        optional(words(*OBSERVABLES)),
        "also look at these along a path of weights (repeatable), as train does: observed.npz",
        repeatable=True,
        default_words="none",
    )
    depth: int | None = option(integer(2, 1000), "number of layers L, where SOURCE holds only A", short="-L")
    width: int | None = option(
        integer(1, 10**15),
        "hidden width w, where SOURCE holds only A",
        short="-w",
        default_words="the smaller of d_out and d_in",
    )
    prove: str | None = option(
        choice("saddles", "path"),
        "prove in ball arithmetic (needs python-flint) each visit, or also the flow from its start to the minimum: "
        "proof.yaml, proof.npz, proof.md",
        panel="Proofs",
    )
    check: str | None = option(
        path("a proof.yaml"),
        "derive every claim of a proof file again, without SOURCE: exit code 0 if all follow, 1 if not",
        panel="Proofs",
    )

    def _settle(self) -> None:
        if self.check is not None:
            if self.source is not None or self.prove is not None or self.has_task:
                raise InputError("check: found beside SOURCE, prove or a task, expected the proof file alone")
            return
        if self.source is None:
            raise InputError("SOURCE: missing, expected a run directory, an .npz file or checkpoints")
        if self.times is not None and (self.lr is not None or self.every is not None):
            raise InputError("times: found beside lr or every, which make times of steps; drop one")
        if self.has_task and not self.is_run:
            super()._settle()

    @property
    def sources(self) -> tuple[str, ...]:
        """The names given, at least one."""
        return (self.source,) if isinstance(self.source, str) else self.source or ()

    @property
    def is_run(self) -> bool:
        """Whether SOURCE is a run of ours, which brings its own task."""
        path = Path(self.sources[0])
        return len(self.sources) == 1 and (path.name == "run.yaml" or os.path.exists(path / "run.yaml"))

    @property
    def given_task(self) -> dict[str, Any]:
        """The task options that are given, by name."""
        return {name: getattr(self, name) for name in _TASK if getattr(self, name) is not None}

    @property
    def has_task(self) -> bool:
        """Whether any task option is given."""
        return bool(self.given_task)

    @property
    def planted(self) -> bool:
        """Whether the task of another code's path is made up by us from ``data_seed``, with no file of the user's."""
        return not self.is_run and self.data_seed is not None and self.target is None and self.data is None

    def slug(self) -> str:
        """A short name for the default output directory: ``detect-saddles-first``."""
        source = Path(self.sources[0])
        if len(self.sources) > 1 or set(source.name) & set("*?["):
            source = source.parent  # of checkpoints, their folder
        stem = source.stem if source.suffix in (".npz", ".yaml") else source.name
        if source.name == "run.yaml":
            stem = source.parent.name
        return "detect-saddles-" + (name_words(stem) or "path")

"""Settings of ``dlnphase detect-saddles``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dlnphase.errors import InputError
from dlnphase.settings.common import MachineSettings, TaskSettings, name_words
from dlnphase.settings.parse import boolean, choice, integer, number, path
from dlnphase.settings.table import option, options

_TASK = tuple(options(TaskSettings))


@dataclass(frozen=True, kw_only=True)
class DetectSettings(MachineSettings, TaskSettings):
    """Which path to look at, what it was trained on, and what to say about its visits.

    A run of ``dlnphase train`` brings its own task and network; an .npz of another code needs its task by options.
    """

    source: str | None = option(
        None,
        path("a run directory or an .npz file"),
        "a run directory, or an .npz of any other code: t, and W1…WL (T x n_l x n_(l-1)) or A (T x d_out x d_in)",
        panel="Saddles",
        positional=True,
    )
    min_prominence: float = option(
        0.5,
        number(positive=True, below=100.0),
        "decades of the gradient norm by which a visit stands out",
        panel="Saddles",
    )
    certify: bool = option(True, boolean(), "refine in parameter space, curvature and descent", panel="Saddles")
    greedy: bool = option(False, boolean(), "compare each visit with the greedy path of alpha -> 0", panel="Saddles")
    depth: int | None = option(
        None,
        integer(2, 1000),
        "number of layers L, where SOURCE holds only A",
        panel="Saddles",
        short="-L",
    )
    width: int | None = option(
        None,
        integer(1, 10**15),
        "hidden width w, where SOURCE holds only A",
        panel="Saddles",
        short="-w",
        default_words="the smaller of d_out and d_in",
    )
    prove: str | None = option(
        None,
        choice("saddles"),
        "prove each visit in ball arithmetic (needs python-flint): proof.yaml, proof.npz, proof.md",
        panel="Proofs",
    )
    check: str | None = option(
        None,
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
            raise InputError("SOURCE: missing, expected a run directory or an .npz file")
        if self.has_task:
            super()._settle()

    @property
    def has_task(self) -> bool:
        """Whether any task option is given."""
        return any(getattr(self, name) is not None for name in _TASK)

    def slug(self) -> str:
        """A short name for the default output directory: ``detect-saddles-first``."""
        assert self.source is not None
        source = Path(self.source)
        stem = source.stem if source.suffix in (".npz", ".yaml") else source.name
        if source.name == "run.yaml":
            stem = source.parent.name
        return "detect-saddles-" + (name_words(stem) or "path")

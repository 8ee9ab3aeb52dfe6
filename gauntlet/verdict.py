"""What became of one case, and how it is kept: one JSON object a line, appended as the cases are done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

STATUSES = ("agrees", "told", "skipped", "fails")


@dataclass
class Verdict:
    """What became of one case.

    Attributes:
        kind: what was judged: flow, …
        name: of the case, ``class:seed:number``.
        words: what was drawn.
        status: ``agrees``; ``fails``: wrong without a word; ``told``: stopped short or in doubt, and says so;
            ``skipped``: beyond the reference, or beyond the time a case may take.
        faults: one line each, beginning with what is off.
        numbers: errors measured, by name.
        seconds: CPU seconds of the package and of the reference.
        reason: what the package gave as the end of its run.
        reference: by which methods the reference worked, or why it could not.
        commit: of the package.
    """

    kind: str
    name: str
    words: str
    status: str = "agrees"
    faults: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    seconds: tuple[float, float] = (0.0, 0.0)
    reason: str = ""
    reference: str = ""
    commit: str = ""

    @property
    def group(self) -> str:
        """The class of the case."""
        return self.name.split(":")[0]

    def command(self) -> str:
        """What to type to see this case again."""
        return f"python -m gauntlet {self.kind} --case {self.name}"


def append(path: Path, verdict: Verdict) -> None:
    """Add one line to a results file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cut = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    with path.open("a") as file:
        file.write("\n" if cut else "")
        file.write(json.dumps(asdict(verdict)) + "\n")


def read(path: Path) -> Iterator[Verdict]:
    """The verdicts of a results file; a last line cut short by a killed process is passed over."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue
        values["seconds"] = tuple(values["seconds"])
        yield Verdict(**values)

"""The sample output in README.md, from a run: ``python tools/sample.py`` writes it anew."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCK = re.compile(r"(```\n\$ dlnphase train\n)(.*?)(```\n)", re.S)


def output() -> str:
    """What ``dlnphase train`` prints off a terminal, 80 columns wide, without the line that says where it is saved."""
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "dlnphase", "train"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    return "\n".join(line for line in lines if not line.startswith("Saved in ")) + "\n"


def shown() -> str:
    """What README.md shows."""
    found = BLOCK.search(README.read_text(encoding="utf-8"))
    assert found is not None
    return found[2]


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    README.write_text(BLOCK.sub(lambda found: found[1] + output() + found[3], text), encoding="utf-8")

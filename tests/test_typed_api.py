"""The file that the type checker reads as a user's: it runs, names all that is public, and is read strictly."""

import re
import tomllib
from pathlib import Path

import typed_api

import dlnphase

ROOT = Path(__file__).resolve().parent.parent


def test_it_runs(tmp_path):
    assert [(r.from_rank, r.to_rank) for r in typed_api.one_run(tmp_path).rank_transitions] == [(0, 1), (1, 2)]
    assert len(typed_api.one_sweep().cells) == 4
    assert 0 <= typed_api.by_hand() < 1e-5
    assert len(typed_api.other_names()) == 19


def test_every_public_name_is_used():
    used = set(re.findall(r"\bdlnphase\.(\w+)", (ROOT / "tests" / "typed_api.py").read_text()))
    assert set(dlnphase.__all__) <= used


def test_lint_reads_it():
    mypy = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert "tests/typed_api.py" in mypy["files"]
    (rules,) = (row for row in mypy["overrides"] if row["module"] == "typed_api")
    assert mypy["strict"] and rules["warn_return_any"]

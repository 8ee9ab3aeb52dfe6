"""What the terminal shows of results that are there, and the live line of a run on a real (pseudo) terminal."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import dlnphase
from dlnphase.findings import counted

EXAMPLES = Path(__file__).resolve().parent / "data" / "schemas"


@pytest.fixture
def here(run, tmp_path):
    """The current directory, with the examples in it; their sources absolute, as files that nobody moved have them."""
    for folder in EXAMPLES.iterdir():
        shutil.copytree(folder, tmp_path / folder.name)
    for file in tmp_path.glob("*/*.yaml"):
        file.write_text(file.read_text().replace("../", f"{tmp_path}/"))
    return tmp_path


def resumed(run, command, folder, *flags):
    """What a finished result shows when it is asked for once more."""
    (file,) = Path(folder).glob("*.yaml")
    before = file.read_bytes()
    code, out, err = run(command, "--config", file, "--out", folder, "--resume", *flags)
    assert code == 0 and file.read_bytes() == before
    return out, err


def test_a_sweep_with_dynamics_shows_them(run, here):
    sweep = dlnphase.load_sweep("sweep-gamma-train@1")
    out, err = resumed(run, "sweep-gamma", "sweep-gamma-train@1")
    assert "nothing left to do" in err
    table = out[out.index("escape") :]
    for cell in sweep.cells:
        (row,) = re.findall(rf"^ *{cell.gamma:g} .*$", table, re.M)
        assert cell.regime_seen in row and f"{cell.ntk_change.mean:.2g}" in row


def test_a_detection_shows_its_certificates_and_the_greedy_path(run, here):
    out, _ = resumed(run, "detect-saddles", "detect-saddles@1")
    found = dlnphase.load_detect("detect-saddles@1")
    assert "Beside the greedy path" in out and "How the saddles are left" in out
    for visit in found.visits:
        assert visit.kind in out
    assert f"{found.visits[0].escape.alignment:.4f}" in out


def test_visits_without_a_certificate_or_a_greedy_point_leave_gaps(run, here):
    found = dlnphase.load_detect("detect-saddles@1")
    first, second, last = found.visits
    bare = (replace(first, escape=None, note="too short"), replace(second, greedy=None), replace(last, curvature=None))
    bare = tuple(replace(v, escape=None) for v in bare)
    dlnphase.save_detect(replace(found, visits=bare), Path("detect-saddles@1"))
    out, _ = resumed(run, "detect-saddles", "detect-saddles@1")
    assert "How the saddles are left" not in out and "Note: too short." in out
    assert re.search(r"^ +1 .*–.*–.*–", out[out.index("Beside the greedy") :], re.M)
    none = replace(found, visits=(), greedy_path=())
    dlnphase.save_detect(none, Path("detect-saddles@1"))
    out, _ = resumed(run, "detect-saddles", "detect-saddles@1")
    assert "0 visits" in out and "greedy" not in out


def known(shown, stored):
    """What is shown, down to the keys that a file from before others has."""
    if isinstance(stored, dict) and isinstance(shown, dict):
        return {key: known(shown[key], value) for key, value in stored.items()}
    if isinstance(stored, list) and isinstance(shown, list) and len(stored) == len(shown):
        return [known(one, other) for one, other in zip(shown, stored, strict=True)]
    return shown


def test_a_finished_run_is_shown_as_json_and_a_quiet_one_not_at_all(run, here):
    out, _ = resumed(run, "train", "train@1", "--json")
    stored, shown = json.loads(json.dumps(yaml.safe_load(Path("train@1/run.yaml").read_text()))), json.loads(out)
    assert known(shown, stored) == stored
    assert not any(shown[key] for key in shown.keys() - stored)  # keys that are younger than the file have nothing
    assert resumed(run, "sweep-gamma", "sweep-gamma@1", "-q") == ("", "")


def test_figures_that_are_there_are_shown_and_lost_ones_drawn_again(run, here):
    code, out, _ = run("plot", "train@1", "--kind", "loss", "--out", "figures")
    assert code == 0 and out == "figures/loss.png\n"
    drawn = Path("figures/loss.png").stat().st_mtime_ns
    code, out, _ = run("plot", "train@1", "--kind", "loss", "--out", "figures", "--resume")
    assert code == 0 and out == "figures/loss.png\n" and Path("figures/loss.png").stat().st_mtime_ns == drawn
    Path("figures/loss.png").unlink()
    code, out, _ = run("plot", "train@1", "--kind", "loss", "--out", "figures", "--resume", "-q")
    assert (code, out) == (0, "") and Path("figures/loss.png").exists()
    code, out, err = run("plot", "train@1", "--kind", "rank", "--out", "figures", "--resume")
    assert code == 2 and "kind" in err
    code, _, err = run("plot", "train@1", "--terminal", "--json")
    assert code == 2 and "json: found beside --terminal" in err


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo-terminals")
def test_a_run_on_a_terminal_has_a_live_line_that_goes_again(tmp_path):
    """Drawn on stderr alone; stdout, which is no terminal, gets plain text."""
    parent, child = os.openpty()
    command = [sys.executable, "-m", "dlnphase", "train", "--dynamics", "gd", "--lr", "1e-3", "--max-steps", "5000"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    for name in ("NO_COLOR", "FORCE_COLOR", "CI"):
        environment.pop(name, None)
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=child, env=environment)
    os.close(child)
    seen = b""
    while True:
        ready, _, _ = select.select([parent], [], [], 60)
        assert ready, "no line within a minute"
        try:
            piece = os.read(parent, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
    out, _ = process.communicate(timeout=60)
    os.close(parent)
    assert process.returncode == 0, seen
    words = seen.decode()
    assert words.startswith("\r\x1b[2Kloading PyTorch\r\x1b[2Kpreparing the task")  # nobody looks at a blank line
    assert re.search(r"t = [\d.e+-]+", words) and words.count("\x1b[2K") > 2
    assert words.endswith("\r\x1b[2K") and all(len(line) < 80 for line in words.split("\r\x1b[2K"))
    assert b"\x1b" not in out and b"Saved in" in out


def sections(out):
    """What is shown, by the first line of each part."""
    return {part.splitlines()[0].strip(): part for part in re.split(r"\n\s*\n", out) if part.strip()}


def test_several_starts_keep_the_table_of_theory_with_means(run, here):
    result = dlnphase.load_train("train-seeds@1")
    settings = replace(result.config, dtype="float64")
    fresh = dlnphase.train(settings)
    for name, told in fresh.theory.predictions.items():
        each = [m.theory.predictions[name] for m in fresh.members if name in m.theory.predictions]
        assert told.predicted == pytest.approx(sum(p.predicted for p in each) / len(each))
        assert told.measured == pytest.approx(sum(p.measured for p in each) / len(each))
    ranks = {p.rank for m in fresh.members for p in m.theory.plateaus}
    assert {p.rank for p in fresh.theory.plateaus} == ranks and "ntk_at_start" in fresh.theory.predictions
    for plateau in fresh.theory.plateaus:
        each = [p.measured for m in fresh.members for p in m.theory.plateaus if p.rank == plateau.rank]
        assert plateau.measured == pytest.approx(sum(each) / len(each))
    Path("fresh").mkdir()
    dlnphase.save_train(fresh, Path("fresh"))
    out, _ = resumed(run, "train", "fresh")
    parts = sections(out)
    title = f"Theory (mean over {len(fresh.members)} starts)"
    assert title in parts and "mean eigenvalue of K" in parts[title]


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_explain_their_words_below_them(run, here, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = [
        (resumed(run, "train", "train@1")[0], "Rank transitions", ("dwell", "decades", "modes then")),
        (resumed(run, "train", "train@1")[0], "Theory", ("K", "θ")),
        (resumed(run, "detect-saddles", "detect-saddles@1")[0], "Visits", ("decades", "distance", "nearest")),
        (resumed(run, "detect-saddles", "detect-saddles@1")[0], "Critical points", ("λ", "order", "descent")),
        (resumed(run, "detect-saddles", "detect-saddles@1")[0], "How the saddles are left", ("s", "aligned")),
        (resumed(run, "sweep-gamma", "sweep-gamma-train@1")[0], "Distances at w", ("nearest saddle", "dead")),
        (resumed(run, "sweep-gamma", "sweep-gamma-train@1")[0], "Gradient flow", ("escape", "moved, NTK")),
    ]
    for out, title, words in shown:
        (part,) = [text for name, text in sections(out).items() if name.startswith(title)]
        below = " ".join(part.rpartition("─\n")[2].split())
        for word in words:
            assert re.search(rf"(^|\W){re.escape(word)}( there)?(:|, that is| = )", below), (title, word, below)
        assert max(map(len, out.splitlines())) <= columns


@pytest.mark.parametrize(
    ("count", "word", "expected"),
    [(1, "step", "1 step"), (0, "record", "0 records"), (2, "entry", "2 entries"), (1, "entry", "1 entry")],
)
def test_one_of_a_thing_is_not_several(count, word, expected):
    assert counted(count, word) == expected

"""Every shell and Python example of README and docs runs as it stands."""

import contextlib
import io
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from dlnphase.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def examples(page):
    return [(kind, body) for kind, body in BLOCK.findall(page.read_text()) if kind in ("sh", "python", "yaml")]


@pytest.mark.parametrize("page", [p for p in PAGES if examples(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch, capsys):
    """In order, in one empty directory that has the files of docs/ where a clone has them."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("*.png", "*.svg", "*.pdf"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mycost", raising=False)  # another test's module of that name
    namespace = {"__name__": "example"}
    for kind, body in examples(page):
        if kind == "yaml":
            name = re.match(r"# (\S+\.yaml)\n", body)
            if name:
                Path(name[1]).write_text(body)
        elif kind == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(body, str(page), "exec"), namespace)
        else:
            for line in body.replace("\\\n", " ").splitlines():
                run_line(line, monkeypatch, capsys)


def run_line(line, monkeypatch, capsys):
    words = shlex.split(line, comments=True)
    if not words:
        return
    if words[0] == "dlnphase":
        code = app.run(words[1:])
        out, err = capsys.readouterr()
        assert code == 0, f"{line}\n{out}\n{err}"
    elif words[0] == "python":
        monkeypatch.setattr("sys.argv", words[1:])
        runpy.run_path(words[1], run_name="__main__")
    else:
        raise AssertionError(f"an example that no test can run: {line}")


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page}: {target}"


def test_pages_name_no_machine():
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(work|root|home|tmp)/", page.read_text()), page


NUMBER = re.compile(r"(?<![\w.^])\d+(?:\.\d+)?(?:e[+-]\d+)?(?![\w^])")
SAME = 0.05  # relative: what another method of integration, or another machine, may change in a sample


def test_the_sample_in_readme_is_what_the_command_prints():
    """Word for word, and number for number; ``python tools/sample.py`` writes it anew."""
    tool = runpy.run_path(str(ROOT / "tools" / "sample.py"))
    shown, printed = tool["shown"](), tool["output"]()
    assert re.sub(r"[\s─]+", " ", NUMBER.sub("#", shown)) == re.sub(r"[\s─]+", " ", NUMBER.sub("#", printed))
    numbers = [[float(n) for n in NUMBER.findall(text)] for text in (shown, printed)]
    for here, there in zip(*numbers, strict=True):
        if max(abs(here), abs(there)) > 1e-5:  # below, a residue of where the path was stopped
            assert here == pytest.approx(there, rel=SAME)
    assert len(numbers[0]) > 30


def test_no_page_promises_a_time():
    """How long something takes depends on the machine: pages tell ratios, but for the table of measured figures."""
    for page in PAGES:
        if page.name in ("benchmarks.md", "accuracy.md"):
            continue
        found = re.search(r"\b\d[\d.]* ?(ms|µs|minutes|seconds|hours)\b|\b(micro|milli)seconds\b", page.read_text())
        assert found is None, f"{page.name}: {found[0]}"

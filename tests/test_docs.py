"""Every shell and Python example of README and docs runs as it stands."""

import contextlib
import io
import re
import runpy
import shlex
import shutil
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

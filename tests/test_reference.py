"""The reference pages: every command, option and YAML key is there, and they are what the code says today."""

import importlib.util
import re
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
import typer
import yaml

from dlnphase.cli.app import build_app, run

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def _tool():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = _tool()


def test_the_pages_are_those_of_the_code():
    """Run ``python tools/reference.py`` when this fails."""
    for name, page in reference.PAGES.items():
        assert (DOCS / name).read_text(encoding="utf-8") == page().rstrip() + "\n", name


def test_every_command_and_option_is_documented():
    text = (DOCS / "reference-commands.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## dlnphase (\S+)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    commands = typer.main.get_command(build_app()).commands
    assert set(sections) == set(commands)
    for name, command in commands.items():
        for param in command.params:
            for flag in [*param.opts, *param.secondary_opts]:
                if flag.startswith("-") and flag not in ("--help", "-h"):
                    assert f"`{flag}`" in sections[name], f"{name} {flag}"
        rows = [line for line in sections[name].splitlines() if line.startswith("| `")]
        assert all(line.rstrip(" |").rpartition("|")[2].strip() for line in rows), "an option without a word"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One file of every sort, as the commands write them."""
    root = tmp_path_factory.mktemp("files")
    small = ["--task", "factorization", "--dim", "3", "--depth", "2", "-q"]
    grid = "--gammas 0.8,1.2 --widths 20,40 --seeds 2 --train --jobs 1"
    lines = [
        ["train", *small, "--width", "12", "--rank", "2", "--seeds", "2", "--out", f"{root}/train"],
        ["sweep-gamma", *small, *grid.split(), "--out", f"{root}/sweep-gamma"],
        ["detect-saddles", f"{root}/train", "--greedy", "-q", "--out", f"{root}/detect-saddles"],
        ["plot", f"{root}/train", "--kind", "rank", "-q", "--out", f"{root}/plot"],
    ]
    for line in lines:
        assert run(line) == 0, line
    return root


@pytest.mark.parametrize("command", ["train", "sweep-gamma", "detect-saddles", "plot"])
def test_every_yaml_key_of_a_real_file_is_documented(files, command):
    name, cls = reference.RESULTS[command]
    text = (DOCS / "reference-results.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]
    section += re.search(r"^## provenance\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]
    known = {key.split(".")[-1].removesuffix("[]") for key in re.findall(r"^\| `([^`]+)` \|", section, re.M)}
    data = yaml.safe_load((files / command / name).read_text(encoding="utf-8"))
    assert data.pop("schema") == cls.SCHEMA and f"`{cls.SCHEMA}`" in section
    flags = (DOCS / "reference-commands.md").read_text(encoding="utf-8")
    for key in data.pop("config"):
        assert f"`--{key.replace('_', '-')}`" in flags or f"`{key.upper()}" in flags, key
    # keys that are data, not names: what the mapping is keyed by is said in words
    free = {"files", "predictions", "found_from", "found", "reasons"}
    missing = {".".join(path) for path in _paths(data, free) if path[-1] not in known}
    assert not missing


def _paths(data, free, path=()):
    if isinstance(data, dict):
        for key, value in data.items():
            if path and path[-1] in free:
                yield from _paths(value, free, (*path[:-1], "*"))
            else:
                yield (*path, key)
                yield from _paths(value, free, (*path, key))
    elif isinstance(data, list):
        for value in data:
            yield from _paths(value, free, path)


def test_a_key_without_a_description_is_an_error():
    @dataclass(frozen=True)
    class Undescribed:
        """A result.

        Attributes:
            told: words.
        """

        told: int
        untold: int

    assert [f.name for f in fields(Undescribed)] == ["told", "untold"]
    assert reference.attribute_words(Undescribed) == {"told": "words."}
    reference.type_hints.cache_clear()
    with pytest.raises(LookupError, match="untold"):
        reference.keys_of(Undescribed)


def test_pages_are_all_in_the_navigation():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = re.findall(r"[\w-]+\.md", str(config["nav"]))
    assert sorted(listed) == sorted(p.name for p in DOCS.glob("*.md"))

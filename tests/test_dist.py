"""What is released: the wheel holds the package and nothing else, the sdist all that its tests need."""

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import dlnphase

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOLDERS = ("bench", "dlnphase", "docs", "gallery", "gauntlet", "tests", "tools")
FILES = (
    *("CHANGELOG.md", "CITATION.cff", "LICENSE", "MANIFEST.in", "Makefile", "README.md", "constraints.txt"),
    *("mkdocs.yml", "pyproject.toml", "setup.cfg"),
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The files that belong to the project, in a place of their own: what lies about in a checkout is not released."""
    copy = tmp_path_factory.mktemp("source") / "copy"
    copy.mkdir()
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, copy / file)
    return copy


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    """The folder of the two archives, made as ``make dist`` makes them."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def _files(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_the_wheel_holds_the_package_and_its_licence_alone(source, built):
    (wheel,) = built.glob("*.whl")
    assert wheel.name == f"dlnphase-{dlnphase.__version__}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"dlnphase-{dlnphase.__version__}.dist-info/"
    package = {f"dlnphase/{name}" for name in _files(source / "dlnphase")}
    assert "dlnphase/py.typed" in package
    assert {n for n in names if not n.startswith(info)} == package
    assert info + "licenses/LICENSE" in names
    assert b"dlnphase = dlnphase.cli.app:main" in zipfile.ZipFile(wheel).read(info + "entry_points.txt")


def test_the_metadata_say_what_pyproject_says(built):
    (wheel,) = built.glob("*.whl")
    info = f"dlnphase-{dlnphase.__version__}.dist-info/METADATA"
    found = email.message_from_bytes(zipfile.ZipFile(wheel).read(info))
    assert (found["Name"], found["Version"]) == ("dlnphase", dlnphase.__version__)
    assert (found["Requires-Python"], found["License-Expression"]) == (PROJECT["requires-python"], "MIT")
    plain = [r for r in found.get_all("Requires-Dist") if "extra ==" not in r]
    assert sorted(re.match(r"[\w-]+", r)[0] for r in plain) == sorted(
        re.match(r"[\w-]+", r)[0].lower() for r in PROJECT["dependencies"]
    )
    assert found.get_payload().startswith("# dlnphase")


def test_the_wheel_runs_from_an_empty_directory(built, tmp_path):
    """Unpacked in front of everything else, with nothing of the checkout beside it."""
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "unpacked")
    (tmp_path / "empty").mkdir()
    code = (
        "import sys, dlnphase\n"
        "assert dlnphase.__file__.startswith(sys.argv.pop(1)), dlnphase.__file__\n"
        "from dlnphase.cli.app import main\nmain()"
    )
    flags = ["train", "--task", "factorization", "--dim", "2", "--rank", "1", "-L", "2", "-w", "8", "--out", "run"]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "unpacked"), *flags],
        cwd=tmp_path / "empty",
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "unpacked")},
    )
    assert done.returncode == 0 and "0 → 1" in done.stdout, done.stderr
    assert _files(tmp_path / "empty") == {"run/run.yaml", "run/trajectory.npz"}
    assert yaml.safe_load((tmp_path / "empty/run/run.yaml").read_text())["provenance"]["git"] is None


def test_the_sdist_can_be_tested(source, built):
    (archive,) = built.glob("*.tar.gz")
    top = f"dlnphase-{dlnphase.__version__}/"
    with tarfile.open(archive) as opened:
        names = {n.name.removeprefix(top) for n in opened.getmembers() if n.isfile()}

    def ours(all_names):
        return {name for name in all_names if not name.startswith("dlnphase.egg-info/")}

    assert ours(names) - {"PKG-INFO"} == ours(_files(source))


# ---- what says the same in two places ------------------------------------------------------------------


def test_the_version_is_one():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == dlnphase.__version__
    first = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)[1]
    assert first in ("Unreleased", dlnphase.__version__)


def test_the_supported_versions_of_python_are_the_same_everywhere():
    classified = re.findall(r":: Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert PROJECT["requires-python"] == f">={classified[0]}"
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tools["mypy"]["python_version"] == classified[0]
    assert tools["ruff"]["target-version"] == "py" + classified[0].replace(".", "")
    workflow = ROOT / ".github" / "workflows" / "ci.yml"
    if workflow.exists():  # not in an sdist
        assert yaml.safe_load(workflow.read_text())["jobs"]["check"]["strategy"]["matrix"]["python"] == classified
    assert f"Python {classified[0]} or newer" in (ROOT / "README.md").read_text()


def test_every_pin_is_exact():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines and all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    pinned = {re.split("==", line)[0].lower().replace("_", "-") for line in lines}
    extras = [r for rows in PROJECT["optional-dependencies"].values() for r in rows]
    wanted = {re.match(r"[\w-]+", r)[0].lower() for r in [*PROJECT["dependencies"], *extras]} - {"dlnphase"}
    assert wanted <= pinned

"""Files of every schema version that was ever written: read, drawn, run again; newer and unknown ones refused."""

import re
import shutil
from dataclasses import make_dataclass
from pathlib import Path

import pytest
import yaml

import dlnphase
from dlnphase.cli import app
from dlnphase.errors import InputError
from dlnphase.results import UPGRADES, decode, load_document
from dlnphase.results.configfile import read_config
from dlnphase.results.plot import PlotResult, load_plot
from dlnphase.results.schema import split_schema
from dlnphase.results.versions import SCHEMAS
from dlnphase.settings.parse import number
from dlnphase.settings.table import option

EXAMPLES = Path(__file__).resolve().parent / "data" / "schemas"
CLASSES = {
    "dlnphase/train": dlnphase.TrainResult,
    "dlnphase/sweep-gamma": dlnphase.SweepResult,
    "dlnphase/detect-saddles": dlnphase.DetectResult,
    "dlnphase/plot": PlotResult,
}
READERS = {
    "dlnphase/train": dlnphase.load_train,
    "dlnphase/sweep-gamma": dlnphase.load_sweep,
    "dlnphase/detect-saddles": dlnphase.load_detect,
    "dlnphase/plot": load_plot,
}
FILES = sorted(EXAMPLES.glob("*/*.yaml"))
BY_NAME = {f.parent.name: f for f in FILES}


def schema_of(file):
    return split_schema(yaml.safe_load(file.read_text())["schema"], str(file))


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """A copy of the examples, in the current directory: they name each other by relative paths."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    monkeypatch.chdir(tmp_path / "examples")
    return tmp_path / "examples"


def run(capfd, *arguments):
    code = app.run([str(a) for a in arguments])
    return code, *capfd.readouterr()


def test_there_is_an_example_of_every_version():
    wanted = {(name, v) for name, newest in (split_schema(s, "") for s in SCHEMAS) for v in range(1, newest + 1)}
    assert {schema_of(f) for f in FILES} == wanted
    assert {cls.SCHEMA for cls in CLASSES.values()} == set(SCHEMAS)


def test_the_examples_are_old():
    """They stand for files in the hands of users: whoever writes one anew tests nothing."""
    assert all(yaml.safe_load(f.read_text())["provenance"]["dlnphase"] == "0.1.0" for f in FILES if "@1" in str(f))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.parent.name)
def test_todays_reader_loads_it(file):
    name, _ = schema_of(file)
    result = READERS[name](file.parent)
    assert type(result) is CLASSES[name] and READERS[name](file) is not None
    if name == "dlnphase/train":
        assert result.outcome.reason == "converged" and len(result.trajectory.t) == len(result.trajectory.A) > 10
        assert (result.rank_transitions[0].from_rank, result.rank_transitions[0].to_rank) == (0, 1)
    elif name == "dlnphase/sweep-gamma":
        assert len(result.cells) == len(result.config.cells) and result.complete
    elif name == "dlnphase/detect-saddles":
        assert [v.rank for v in result.visits] == [0, 1, 2] and result.matrices["critical"].shape == (3, 3, 2)


@pytest.mark.parametrize(
    "name", ["train@1", "train-seeds@1", "sweep-gamma@1", "sweep-gamma-train@1", "detect-saddles@1"]
)
def test_plot_draws_it(name, examples, capfd):
    code, _, err = run(capfd, "plot", name, "--out", "figures")
    assert code == 0, err
    assert list(Path("figures").glob("*.png"))


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_it_is_a_configuration(name, examples, capfd):
    file = examples / name / BY_NAME[name].name
    command = schema_of(file)[0].removeprefix("dlnphase/")
    # The examples were made coarsely, to be small; an integrator of another day may skip a visit at such steps.
    finer = ["--rtol", "1e-4"] if command == "train" else []
    code, _, err = run(capfd, command, "--config", file, "--out", "again", *finer)
    assert code == 0, err
    old, new = (yaml.safe_load(f.read_text()) for f in (file, Path("again") / file.name))
    for document in (old, new):
        document["config"].pop("source", None)  # relative there, absolute here
        document["config"].pop("rtol", None)
        for retired in type(READERS[schema_of(file)[0]](file).config).RETIRED:
            document["config"].pop(retired, None)
    assert {**new["config"], **old["config"]} == new["config"]  # what the file said holds; newer keys have defaults
    if command == "train":
        ranks = [[(r["from_rank"], r["to_rank"]) for r in d["rank_transitions"]] for d in (old, new)]
        assert ranks[0] == ranks[1]


def test_an_old_run_is_a_source_of_detect_saddles(examples, capfd):
    for name in ("train@1", "train-seeds@1"):
        code, _, err = run(capfd, "detect-saddles", name, "--out", f"found-{name}", "-q")
        assert code == 0, err
    found = dlnphase.load_detect("found-train@1")
    assert [v.rank for v in found.visits] == [0, 1, 2]


def test_an_old_sweep_is_resumed(examples, capfd):
    file = examples / "sweep-gamma@1" / "sweep.yaml"
    document = yaml.safe_load(file.read_text())
    document["cells"], document["complete"] = document["cells"][:2], False
    file.write_text(yaml.safe_dump(document))
    code, _, err = run(capfd, "sweep-gamma", "--config", file, "--out", file.parent, "--resume", "-q", "--jobs", "1")
    assert code == 0, err
    assert len(dlnphase.load_sweep(file).cells) == 6


# ---- newer and unknown -----------------------------------------------------------------------------------


def _refused(capfd, *arguments):
    code, out, err = run(capfd, *arguments)
    assert code == 2 and out == "" and err.count("\n") == 1 and err.startswith("dlnphase: "), (code, out, err)
    return err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda name: f"{name}@2", "newer dlnphase"),
        (lambda name: "dlnphase/dream@1", "found a result of dlnphase/dream, expected"),
        (lambda name: name, "found no schema line"),
    ],
)
@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_newer_and_unknown_ones_are_refused_in_one_line(name, change, words, examples, capfd):
    file = examples / name / BY_NAME[name].name
    schema = schema_of(file)[0]
    text = re.sub(r"\Aschema: .*", f"schema: {change(schema)}", file.read_text())
    file.write_text(text)
    with pytest.raises(InputError, match=words):
        READERS[schema](file.parent)
    command = schema.removeprefix("dlnphase/")
    assert words in _refused(capfd, command, "--config", file, "--out", "again")
    if command != "plot":
        _refused(capfd, "plot", name, "--out", "again")
        resumed = _refused(
            capfd, command, *(["train@1"] if command == "detect-saddles" else []), "--out", name, "--resume"
        )
        assert "schema" in resumed or "newer" in resumed or "dream" in resumed
    if command == "train":
        assert words in _refused(capfd, "detect-saddles", name, "--out", "again")
    assert file.read_text() == text and not Path("again").exists()


# ---- raising a version -----------------------------------------------------------------------------------


def test_an_upgrade_is_applied_to_results_and_configurations_alike(examples, monkeypatch):
    def rename(data):
        config = dict(data["config"])
        config["rtol"] = config.pop("rtol") * 10
        return {**data, "config": config}

    monkeypatch.setitem(UPGRADES, ("dlnphase/train", 1), rename)
    monkeypatch.setattr("dlnphase.results.versions.SCHEMAS", ("dlnphase/train@2", *SCHEMAS[1:]))
    monkeypatch.setattr(dlnphase.TrainResult, "SCHEMA", "dlnphase/train@2")
    file = examples / "train@1" / "run.yaml"
    assert dlnphase.load_train(file).config.rtol == pytest.approx(0.1)
    assert read_config(file)["rtol"] == pytest.approx(0.1)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_a_file_from_before_an_optional_key_is_read(name, examples):
    """A new setting with a default, and a new key with a default in the result, need no new version."""
    file = examples / name / BY_NAME[name].name
    schema, version = schema_of(file)
    cls = CLASSES[schema]
    data = load_document(file, f"{schema}@{version}")
    settings = type(READERS[schema](file).config)
    newer_settings = make_dataclass(
        "Newer",
        [("patience", float, option(number(), "a new one", default=3.0))],
        bases=(settings,),
        frozen=True,
        kw_only=True,
    )
    assert newer_settings.from_plain(data["config"], "f").patience == 3.0
    newer = make_dataclass("NewerResult", [("patience", float, 3.0)], bases=(cls,), frozen=True)
    result = decode(newer, data, "f")
    assert result.patience == 3.0 and result.config == READERS[schema](file).config
    with pytest.raises(InputError, match="patience"):  # and the other way round: an older version says which key
        decode(cls, {**data, "patience": 3.0}, "f")

"""Where results go without ``--out``: runs that differ get different directories, the same run again is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from dlnphase.results.naming import default_name
from dlnphase.settings import DetectSettings, PlotSettings, SweepSettings, TrainSettings

SMALL = ["train", "--task", "factorization", "--shape", "3x2", "-L", "2", "-w", "5", "--max-steps", "5", "-q"]


def directories():
    return {str(p) for p in Path("runs").iterdir()}


def test_runs_that_differ_in_anything_get_directories_of_their_own(run):
    for words in ("", "--seed 1", "--tol 1e-6", "--noise 0.1", "--dtype float32", "--threads 2"):
        flags = words.split()
        before = len(directories()) if Path("runs").exists() else 0
        assert run(*SMALL, *flags)[0] == 0, flags
        assert len(directories()) == before + 1, flags
        code, _, err = run(*SMALL, *flags)
        assert code == 2 and "already holds a result" in err
    assert all(Path(name).name.startswith("train-factorization-3x2-L2-w5-g2-") for name in directories())


def test_a_file_whose_content_changes_is_another_input(run):
    for name, content in (("a.csv", "1,2\n3,4\n"), ("b.csv", "1,2\n3,4\n"), ("a.csv", "1,2\n3,5\n")):
        Path(name).write_text(content)
        assert run("train", "--target", name, "-L", "2", "-w", "5", "--max-steps", "5", "-q")[0] == 0
    assert len(directories()) == 3 and sum("train-a-" in name for name in directories()) == 2
    assert sum("train-b-" in name for name in directories()) == 1


def test_the_source_of_a_detection_counts_by_what_it_holds(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    np.savez(folder / "one.npz", A=np.eye(2)[None], t=np.zeros(1))
    settings = DetectSettings(source=str(folder))
    first = default_name(settings)
    assert first == default_name(settings) and first.startswith("detect-saddles-checkpoints-")
    (folder / ".hidden").write_text("x")
    assert default_name(settings) == first
    (folder / "two.npz").write_bytes(b"1")
    second = default_name(settings)
    (folder / "two.npz").write_bytes(b"2")
    assert len({first, second, default_name(settings)}) == 3


@pytest.mark.parametrize("cls", [TrainSettings, SweepSettings])
def test_every_setting_that_decides_numbers_is_in_the_name(cls):
    """Whatever differs in the ``config:`` of the result differs in the name; nothing else does."""
    changes = [{"seed": 1}, {"tol": 1e-7}, {"depth": 5}, {"noise": 0.5}, {"data_seed": 2}, {"rank": 2}, {"seeds": (4,)}]
    changes += [{"dtype": "float32"}, {"device": "cpu"}, {"threads": 3}, {"shape": (4, 3)}]
    names = {default_name(cls(**change)) for change in changes} | {default_name(cls())}
    assert len(names) == len(changes) + 1
    assert default_name(cls()) == default_name(cls(seed=0)) == default_name(cls.from_plain(cls().to_plain(), "file"))


def test_how_many_processes_compute_a_sweep_is_no_other_sweep():
    assert default_name(SweepSettings(jobs=2)) == default_name(SweepSettings())


def test_figures_are_drawn_over_by_the_same_command_alone(run):
    run(*SMALL, "--out", "a")
    assert run("plot", "a", "--kind", "loss", "-q")[0] == 0
    (where,) = list(Path("runs").iterdir())
    (where / "loss.png").write_bytes(b"")
    assert run("plot", "a", "--kind", "loss", "-q")[0] == 0 and (where / "loss.png").stat().st_size > 0
    assert run("plot", "a", "--kind", "rank", "-q")[0] == 0 and len(list(Path("runs").iterdir())) == 2
    assert run("plot", "a", "--kind", "loss", "--out", "figures", "-q")[0] == 0
    assert run("plot", "a", "--kind", "loss", "--out", "figures", "-q")[0] == 0
    before = Path("figures/figures.yaml").read_bytes()
    code, _, err = run("plot", "a", "--kind", "rank", "--out", "figures", "-q")
    assert code == 2 and "already holds a result" in err and Path("figures/figures.yaml").read_bytes() == before


def test_a_name_says_which_seed_and_how_many_starts():
    assert "-seed7-" in default_name(TrainSettings(seed=7)) and "-8starts-" in default_name(TrainSettings(seeds=8))
    assert PlotSettings(source="runs/first").slug() in default_name(PlotSettings(source="runs/first"))
    assert json.dumps(TrainSettings().to_plain())  # what the name is made from is plain

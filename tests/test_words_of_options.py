"""Options as a user meets them: help that fits, values that complete, messages that name what was typed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dlnphase.settings import DetectSettings, PlotSettings, SweepSettings, TrainSettings, options

CLASSES = (TrainSettings, SweepSettings, DetectSettings, PlotSettings)
COMMANDS = dict(zip(("train", "sweep-gamma", "detect-saddles", "plot"), CLASSES, strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_breaks_no_word_at_80_columns_and_shows_no_types_of_flags(run, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(command, "--help")
    assert code == 0 and "<bool>" not in out and "<list" not in out
    assert max(map(len, out.splitlines())) <= 80
    shown = {word.strip("[](),:;") for line in out.splitlines() for word in line.strip("│ ").split()}
    for name, row in options(COMMANDS[command]).items():
        flag = [] if row.positional else [f"--{name.replace('_', '-')}"]
        for word in [*row.help.split(), *row.parser.choices, *flag]:
            word = word.strip("[](),:;")
            assert word in shown or any(word in s.split("|") for s in shown), (name, word)


def test_plot_offers_only_what_it_uses(run):
    out = run("plot", "--help")[1]
    assert not re.search(r"--(seed|device|dtype|threads)\b", out)


def complete(words, count):
    """What bash is offered for the last of some words."""
    environment = {
        **os.environ,
        "_DLNPHASE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(count),
    }
    code = "import sys; sys.argv[0] = 'dlnphase'; from dlnphase.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("train --task ", {"completion", "factorization", "sensing", "regression"}),
        ("train --task c", {"completion"}),
        ("train --dtype float3", {"float32"}),
        ("train --lr ", {"auto"}),
        ("plot --kind s", {"singular-values", "saddles"}),
        ("plot --kind loss,ra", {"loss,rank"}),
    ],
)
def test_values_complete_like_options(words, offered):
    found = complete(f"dlnphase {words}", words.count(" ") + 1)
    assert offered <= set(found) and len(found) < 12
    assert all(word.split(",")[-1].startswith(words.split(" ")[-1].split(",")[-1]) for word in found)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --task completoin", "--task: found completoin, expected one of .*; did you mean completion\\?"),
        ("train --dynamics flwo", "--dynamics: found flwo, .*; did you mean flow\\?"),
        ("train --dynamics GD", "--dynamics: found GD, .*; did you mean gd\\?"),
        ("plot x --kind loss,rnak", "--kind: found loss,rnak, .*; did you mean rank\\?"),
        ("train --device gpu", "--device: found gpu, expected auto, cpu, cuda or cuda:N"),
        ("train --lr 0.1", "--lr: found with --dynamics flow, .*"),
        ("train --rank 4 --shape 5x3", "--rank: found 4, expected at most 3 for --shape 5x3"),
        (
            "train --target a.csv --data-seed 2",
            "--data-seed: found beside --target, which is a task of its own; drop one",
        ),
        ("train --config my.yaml", "my.yaml: rank: found 4, expected at most 3 for --shape 5x3"),
        ("train --config my.yaml --rank 5", "--rank: found 5, expected at most 3 for --shape 5x3"),
        ("train --config no.yaml", "no.yaml: tol: found false, expected a finite number .*"),
        ("train --seeds 2 --dynamics greedy", "--seeds: found 2 with --dynamics greedy, .*"),
        ("train --gama 2", "No such option: --gama, did you mean --gamma\\? .*"),
        ("trian", "No such command trian. Did you mean train\\? .*"),
        ("train --width", "Option --width requires an argument"),
        ("train --gamma", "Option --gamma requires an argument"),
    ],
)
def test_a_message_names_the_option_as_it_was_typed(run, line, message):
    Path("my.yaml").write_text("rank: 4\nshape: 5x3\n")
    Path("no.yaml").write_text("tol: false\n")
    code, out, err = run(*line.split())
    assert code == 2 and out == ""
    assert re.fullmatch(f"dlnphase: {message}\n", err), err


def test_an_empty_value_is_told_in_words(run):
    assert "--task: found an empty text, expected one of" in run("train", "--task", "")[2]
    assert "--task: found ' completion', expected" in run("train", "--task", " completion")[2]

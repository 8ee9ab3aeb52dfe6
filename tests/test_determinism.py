"""The same command twice gives the same numbers, bit for bit: in other processes, by other numbers of workers."""

import pytest
from test_faults import COMMANDS, numbers
from zygote import Zygote

SWEEP = COMMANDS["sweep"].args[:-2]


@pytest.fixture(scope="module")
def zygotes(zygote):
    """Two processes that hash strings differently, so that no set or dictionary has the same order by luck."""
    other = Zygote(PYTHONHASHSEED="2")
    yield zygote, other
    other.close()


@pytest.mark.parametrize(
    ("name", "one", "two"),
    [
        ("train", ["train"], None),
        ("train", ["train", "--dynamics", "gd", "-L", "2", "-w", "12", "--dim", "4", "--rank", "2"], None),
        ("train", ["train", "--task", "sensing", "--shape", "4x3", "--rank", "1", "--noise", "0.01"], None),
        ("train", ["train", "--seeds", "3", "--width", "1e6", "--dim", "4", "--rank", "1"], None),
        ("sweep", [*SWEEP, "--train", "--jobs", "1"], [*SWEEP, "--train", "--jobs", "2"]),
        ("detect", ["detect-saddles", "source", "--greedy"], None),
    ],
    ids=["figure", "gd", "sensing", "starts", "workers", "detect"],
)
def test_the_same_command_gives_the_same_bits(name, one, two, zygotes, tmp_path):
    command, found = COMMANDS[name], []
    for k, (zygote, args) in enumerate(zip(zygotes, (one, two or one), strict=True)):
        if name == "detect":
            assert zygote(*COMMANDS["train"].args, "--out", "source", "--overwrite", cwd=tmp_path)["code"] == 0
        done = zygote(*args, "--out", str(k), cwd=tmp_path)
        assert done["code"] == 0, done["err"]
        found.append(numbers(tmp_path / str(k), command))
    assert found[0] == found[1]

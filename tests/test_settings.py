"""Settings: one table behind flags, YAML and Python."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlnphase.errors import InputError
from dlnphase.results import dump_yaml, parse_yaml
from dlnphase.settings import SweepSettings, TrainSettings, default_words, options, resolve
from dlnphase.settings.common import TASK_NAMES
from dlnphase.settings.dynamics import DYNAMICS_NAMES
from dlnphase.settings.parse import integer, integers, members, number, numbers, shape
from dlnphase.setup.resolved import GaussianStart, Planted


@pytest.mark.parametrize(
    ("parser", "text", "value"),
    [
        (integer(), "1e6", 1_000_000),
        (integer(), "2.5e3", 2500),
        (integer(), 1e6, 1_000_000),
        (number(), "1e-8", 1e-8),
        (shape(), "10x8", (10, 8)),
        (shape(), [10, 8], (10, 8)),
        (shape(), "6", (6, 6)),
        (numbers(), "0.7,0.8,1.0", (0.7, 0.8, 1.0)),
        (numbers(), "0.7:2.0:0.1", (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0)),
        (numbers(), "1:0.7:-0.1", (1.0, 0.9, 0.8, 0.7)),
        (numbers(), ["0.5:0.7:0.1", 2], (0.5, 0.6, 0.7, 2.0)),
        (integers(1), "1e2,1e4,1e6,1e9", (100, 10_000, 1_000_000, 1_000_000_000)),
        (integers(), "3:5", (3, 4, 5)),
        (members(), "4", (0, 1, 2, 3)),
        (members(), "10:12", (10, 11, 12)),
        (members(), [3, 5], (3, 5)),
    ],
)
def test_parsers_take_text_yaml_and_python(parser, text, value):
    assert parser.convert(text) == value
    assert parser.convert(parser.plain(value)) == value


@pytest.mark.parametrize(
    "text", ["0.7:2.0:0.3", "1:2:0", "1:2:-1", "1,1", "", "a", "1:1e9:1e-9", "nan", "inf,1", "1e999"]
)
def test_lists_that_make_no_sense_are_refused(text):
    with pytest.raises((ValueError, ArithmeticError)):
        numbers().convert(text)


@pytest.mark.parametrize("value", ["1.5", "nan", "inf", "1e400", True, None, "1_000", "9" * 100, [1], "0x10"])
def test_integers_are_integers(value):
    with pytest.raises((ValueError, TypeError)):
        integer().convert(value)


@given(st.integers(-50, 50), st.integers(0, 60), st.integers(1, 9), st.integers(1, 3))
def test_ranges_include_both_ends_and_do_not_drift(start, count, step, digits):
    scale = 10**digits
    stop = start + count * step
    text = f"{start / scale}:{stop / scale}:{step / scale}"
    assert numbers().convert(text) == tuple((start + k * step) / scale for k in range(count + 1))


def test_a_configuration_survives_yaml_and_comes_back_equal():
    for settings in (
        TrainSettings(),
        TrainSettings(depth=3, width=10**9, gamma=0.75, seeds=(3, 5), task="sensing", shape=(8, 6), rank=2),
        TrainSettings(dynamics="gd", lr=0.01, tol=0.0, singular_values=(7, 4, 2, 1)),
    ):
        text = dump_yaml(settings.to_plain())
        assert TrainSettings.from_plain(parse_yaml(text, "run.yaml"), "run.yaml") == settings


def test_flags_win_over_the_configuration_and_void_what_they_replace():
    config = TrainSettings(singular_values=(5.0, 2.0)).to_plain()
    assert resolve(TrainSettings, config=config).rank == 2
    changed = resolve(TrainSettings, config=config, flags={"rank": "3", "width": "1e3"})
    assert (changed.rank, changed.singular_values, changed.width) == (3, None, 1000)
    other = resolve(TrainSettings, config=config, flags={"task": "factorization"})
    assert (other.task, other.observed) == ("factorization", None)
    assert resolve(TrainSettings, config=config, flags={"dynamics": "gd"}).rtol is None


def test_a_flag_that_says_what_the_configuration_says_replaces_nothing():
    config = TrainSettings(observed=0.5, rank=2, dynamics="flow", rtol=1e-5).to_plain()
    same = {"task": "completion", "rank": "2", "shape": "10x10", "dynamics": "flow"}
    assert resolve(TrainSettings, config=config, flags=same) == resolve(TrainSettings, config=config)
    config = TrainSettings(singular_values=(5.0, 2.0)).to_plain()
    assert resolve(TrainSettings, config=config, flags={"rank": "2"}).singular_values == (5.0, 2.0)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"gamma": "nan"}, "--gamma: found nan, expected a finite number"),
        ({"width": "0"}, "--width: found 0, expected an integer from 1 to 1e12"),
        ({"rank": "4", "shape": "5x3"}, "rank: found 4, expected at most 3 for shape 5x3"),
        ({"widht": "3"}, "--widht: unknown key, did you mean width?"),
        ({"observed": "0"}, "--observed: found 0"),
        ({"observed": "0.5", "task": "regression"}, "observed: found 0.5 with task regression"),
        ({"lr": "0.1"}, "lr: found with dynamics flow, expected only with gd or sgd or muon or adam"),
        ({"target": "a.csv", "noise": "2"}, "noise: found beside target"),
        ({"target": "a.csv", "data": "b.npz"}, "target: found beside data"),
        ({"init_weights": "w.npz", "gamma": "3"}, "gamma: found beside init-weights"),
        ({"dim": "3", "shape": "4x4"}, "dim: found 3 beside shape 4x4"),
        ({"singular_values": "3,1", "rank": "3"}, "singular-values: found 2 beside rank 3"),
        ({"device": "gpu"}, "--device: found gpu, expected auto, cpu, cuda or cuda:N"),
        ({"seeds": "0"}, "--seeds: found 0"),
        ({"tol": "1"}, None),
        ({"tol": "1.5"}, "--tol: found 1.5"),
    ],
)
def test_what_cannot_work_is_named(flags, words):
    if words is None:
        resolve(TrainSettings, flags=flags)
        return
    with pytest.raises(InputError) as error:
        resolve(TrainSettings, flags=flags)
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "config", [[1], "a", {"depth": "deep"}, {"depth": True}, {"gamma": math.nan}, {"x": 1}, {"tol": None}]
)
def test_a_configuration_file_is_checked_key_by_key(config):
    with pytest.raises(InputError, match=r"^my\.yaml"):
        resolve(TrainSettings, config=config, where="my.yaml")


def test_python_values_are_checked_like_flags():
    with pytest.raises(InputError, match="gamma: found nan"):
        TrainSettings(gamma=math.nan)
    with pytest.raises(InputError, match="width: found -1"):
        TrainSettings(width=-1)


def test_every_option_is_told_in_one_line():
    for name, row in options(TrainSettings).items():
        assert row.help and "\n" not in row.help and len(row.help) < 100, name
        assert row.parser.expected and row.panel, name
        assert default_words(TrainSettings, name) or name in {"dim", "target", "data", "init_weights"}, name


def test_the_names_of_the_settings_are_those_of_the_floors_below():
    from dlnphase.backend import DTYPES
    from dlnphase.costs.tasks import DRAWS
    from dlnphase.setup.representation import REPRESENTATIONS

    rows = options(TrainSettings)
    assert set(TASK_NAMES) == set(DRAWS)
    assert set(rows["dtype"].parser.metavar.split("|")) == set(DTYPES)
    assert set(rows["representation"].parser.metavar.split("|")) == set(REPRESENTATIONS)
    assert set(rows["dynamics"].parser.metavar.split("|")) == set(DYNAMICS_NAMES)


def test_a_misspelt_keyword_is_told_like_a_misspelt_key():
    with pytest.raises(InputError, match="depht: unknown key, did you mean depth"):
        TrainSettings(depht=3)


def test_settings_are_resolved_without_an_open_value(tmp_path):
    given = TrainSettings(task="sensing", shape=(3, 4), rank=2, noise=0.1, width=20)
    assert Planted.of(given) == Planted("sensing", (3, 4), (10.0, 5.0), 1.0, given.measurements, 0.1, 0)
    assert Planted.of(TrainSettings()).observed == 0.8 and Planted.of(TrainSettings()).measurements is None
    assert GaussianStart.of(given) == GaussianStart(4, 20, 2.0)
    with pytest.raises(InputError, match="shape: missing, expected a value"):
        Planted.of(TrainSettings(target=str(tmp_path / "own.npy"), task="completion"))
    with pytest.raises(InputError, match="depth: missing"):
        GaussianStart.of(TrainSettings(init_weights=str(tmp_path / "own.npz")))


def test_a_list_or_a_sweep_longer_than_anybody_means_is_refused():
    """MAX_ITEMS and MAX_CELLS trade what may be asked for against a typing error that would take all memory."""
    assert len(TrainSettings(seeds=100_000).seeds) == 100_000
    with pytest.raises(InputError, match="seeds"):
        TrainSettings(seeds=100_001)
    assert len(SweepSettings(gammas="0.001:1:0.001", widths="1001:2000").gammas) == 1000
    with pytest.raises(InputError, match="at most 1000000 cells"):
        SweepSettings(gammas="0.001:1:0.001", widths="1000:2000")

"""What is told while a run is under way: nothing goes back, nothing is cut, nothing is blank."""

import re
import sys

import numpy as np
import pytest
from rich.cells import cell_len

from dlnphase.cli import progress
from dlnphase.cli.progress import _fitting
from dlnphase.settings import TrainSettings
from dlnphase.training.run import prepare, train
from dlnphase.training.status import Status, duration


def lines(settings):
    """(words, members done) after every record of a run, on a clock that ticks once per record."""
    run = prepare(settings)
    out = []
    status = Status(run, clock=lambda: float(len(out)))

    def on_record(record):
        status.feed(record)
        out.append((status.words(), int(status._done.sum())))

    train(run, on_record=on_record)
    assert status.over
    return out


@pytest.fixture(scope="module")
def batch():
    return lines(TrainSettings(task="factorization", shape=(4, 3), singular_values=(3, 1), depth=3, width=20, seeds=6))


def test_the_time_of_a_batch_never_goes_back_and_members_are_counted(batch):
    times, counts = [], []
    for words, done in batch:
        (t,) = re.findall(r"furthest: t = ([\d.e+-]+)", " · ".join(words))
        times.append(float(t))
        counts.append(done)
        assert words[0].startswith(f"{done} of 6 done")
    assert np.all(np.diff(times) >= 0) and np.all(np.diff(counts) >= 0) and counts[-1] == 6


def test_the_time_left_of_a_batch_is_told_and_comes_to_nothing(batch):
    """In seconds of a clock that ticks at every record; an estimate from the decades of cost that are gone."""
    unit = {"s": 1, "min": 60}
    told = [re.search(r"(\d+) (s|min) left", words[0]) for words, _ in batch]
    left = [int(t[1]) * unit[t[2]] if t else None for t in told]
    assert left[0] is None and left[-1] is None and left[-2] <= 3  # nothing is foretold at first, nothing left at last
    for k in range(len(batch) // 2, len(batch) * 9 // 10):
        assert (len(batch) - k) / 3 < left[k] < (len(batch) - k) * 3, k


def test_one_network_says_where_it_is_and_what_it_waits_for():
    told = {words[1] for words, _ in lines(TrainSettings(shape=(4, 3), rank=2, width=20, gamma=3.0, depth=3))}
    assert {"at rank 0, waiting for mode 1", "at rank 1, waiting for mode 2", "learning mode 1"} <= told


@pytest.mark.parametrize("width", [10, 40, 79, 119])
def test_parts_that_do_not_fit_are_left_out_whole(width, batch):
    for words, _ in batch[:: len(batch) // 20]:
        line = _fitting(words, width)
        assert cell_len(line) <= width
        whole = line.split(" · ")
        assert whole == words[: len(whole)] or (len(whole) == 1 and cell_len(words[0]) > width)


def test_durations_have_units_that_suit():
    assert [duration(s) for s in (0.2, 99, 101, 7200)] == ["0 s", "99 s", "2 min", "2.0 h"]


class Notebook:
    """What IPython is to a kernel: a shell, and displays that are updated in place."""

    def __init__(self, kernel):
        self.kernel, self.display, self.shown = kernel, self, []

    def get_ipython(self):
        return self

    def __call__(self, data, *, raw, display_id):
        assert raw and display_id
        return self

    def update(self, data, *, raw):
        self.shown.append(data["text/plain"])


@pytest.mark.parametrize("kernel", [object(), None])
def test_a_notebook_is_told_and_a_terminal_is_not(monkeypatch, kernel):
    ipython = Notebook(kernel)
    ipython.display = type("module", (), {"display": staticmethod(ipython)})
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    train(TrainSettings(task="factorization", shape=(3, 2), rank=1, depth=2, width=8, seeds=2))
    assert bool(ipython.shown) == (kernel is not None)
    if kernel is not None:
        assert ipython.shown[-1].startswith("2 of 2 done")
    seen = []
    before = len(ipython.shown)
    train(TrainSettings(task="factorization", shape=(3, 2), rank=1, depth=2, width=8), on_record=seen.append)
    assert seen and len(ipython.shown) == before  # a consumer of one's own takes its place


def test_words_that_take_long_are_asked_for_seldom(monkeypatch):
    """Singular values of a large matrix take as long as steps do: a fiftieth of the time may go into them."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    line, asked = progress.LiveLine(), []

    def words():
        asked.append(now[0])
        now[0] += 3.0
        return ["learning mode 1"]

    while now[0] < 1000:
        line.update(words)
        now[0] += 1.0
    assert 6 <= len(asked) <= 8 and min(np.diff(asked)) >= 150

"""Figures of the width of a column: nothing lies over anything else; what a path lacks takes no label from the rest."""

import dataclasses

import pytest

import dlnphase
from dlnphase.plotting.draw import draw
from dlnphase.plotting.timeline import stages_of
from dlnphase.settings.plot import PlotSettings

SMALL = {"task": "factorization", "shape": (5, 4), "singular_values": (6.0, 3.0, 1.0), "depth": 3, "width": 30}


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    folder = tmp_path_factory.mktemp("five")
    dlnphase.save_train(dlnphase.train(dlnphase.TrainSettings(**SMALL, gamma=3.0, seeds=5)), folder)
    return folder


@pytest.mark.parametrize("size", ["3.25x2.4", "2.6x2.2", "5.5x3.6"])
@pytest.mark.parametrize("kind", ["loss", "singular-values", "rank"])
def test_labels_and_legends_of_a_small_picture_keep_apart(five, kind, size):
    (drawn,), _ = draw(PlotSettings(source=str(five), kind=kind, size=size, caption="file"))
    figure = drawn.figure
    figure.draw_without_rendering()
    names = [ax.yaxis.label.get_window_extent() for ax in figure.axes if ax.get_ylabel()]
    assert not any(a.overlaps(b) for k, a in enumerate(names) for b in names[:k])
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes)]
    boxes = [legend.get_window_extent() for legend in legends if legend is not None]
    texts = [t.get_window_extent() for ax in figure.axes for t in ax.texts if t.get_visible() and t.get_text()]
    assert not any(text.overlaps(box) for text in texts for box in boxes)


def test_a_path_whose_end_is_near_no_critical_point_keeps_its_other_plateaus(five):
    run = dlnphase.load_train(five)
    whole = [(s.rank, s.level) for s in stages_of(run)]
    assert [rank for rank, _ in whole] == [0, 1, 2, 3]

    def cut(member, keep):
        return dataclasses.replace(
            member, theory=dataclasses.replace(member.theory, plateaus=member.theory.plateaus[:keep])
        )

    open_end = dataclasses.replace(run, members=tuple(cut(m, 3) for m in run.members))
    assert [(s.rank, s.level) for s in stages_of(open_end)] == [*whole[:3], (3, 0.0)]
    assert stages_of(dataclasses.replace(run, members=tuple(cut(m, 2) for m in run.members))) == []

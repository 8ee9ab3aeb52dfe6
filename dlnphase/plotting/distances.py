"""Distances from the initialisation to its nearest minimum and saddle against width, with the predicted lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlnphase.errors import InputError
from dlnphase.plotting.data import FigureData, data_of
from dlnphase.plotting.sources import ResultSource, caption_lines, sweeps_of
from dlnphase.plotting.style import MARKERS, THEORY, Look, captioned, letters, new_figure, ordered_colours
from dlnphase.plotting.timeline import Arrangement
from dlnphase.results.sweep import SweepResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELLED = 8  # more values of γ than this are told by a colour bar, not by a legend
WORDS = "Bars: standard error over the starts (smaller than its marker where none is seen). Dashed: as w → ∞."
BARS: dict[str, Any] = {"linewidth": 0.8, "markersize": 3.0, "elinewidth": 1.1, "capsize": 3.0, "capthick": 1.1}
NAMES = {"distance_to_minimum": "$d_m$, to the nearest minimum", "distance_to_saddle": "$d_s$, to the nearest saddle"}


def figure(sources: Sequence[ResultSource], look: Look, arrangement: Arrangement | None = None) -> Figure:
    """One row of two panels (to the minimum, to the saddle) for each sweep.

    Raises:
        InputError: for a sweep without cells.
    """
    sweeps = checked_sweeps(sources, "distances")
    fig, axes = new_figure(look, len(sweeps), 2, height=1.05)
    for k, source in enumerate(sweeps):
        for ax, name in zip(axes[2 * k : 2 * k + 2], NAMES, strict=True):
            draw(ax, source.result, name)
            ax.set_title(f"{NAMES[name]}{f' ({source.label})' if source.label else ''}")
        axes[2 * k].set_ylabel(r"distance from $\theta_0$")
        _legend(fig, axes[2 * k : 2 * k + 2], source.result)
    letters(axes)
    captioned(fig, look, [*caption_lines(sweeps), WORDS])
    return fig


def data(sources: Sequence[ResultSource]) -> FigureData:
    """A row for every cell and kind of distance: mean and standard error over the starts, and what theory says."""
    rows = []
    for source in checked_sweeps(sources, "distances"):
        its = [
            (cell.gamma, cell.width, name, part.mean, part.sem, part.lower, part.predicted)
            for cell in source.result.cells
            for name, part in ((name, getattr(cell, name)) for name in NAMES)
        ]
        rows.append((source, its))
    return data_of(rows, "gamma", "width", "quantity", "mean", "sem", "lower", "predicted")


def checked_sweeps(sources: Sequence[ResultSource], kind: str) -> list[ResultSource]:
    """The sweeps among the sources, each with at least one cell."""
    sweeps = sweeps_of(sources)
    for source in sweeps:
        if not source.result.cells:
            raise InputError(f"SOURCE: {source.path}: the sweep holds no cell yet, nothing to draw as {kind}")
    return sweeps


def draw(axes: Axes, result: SweepResult, name: str) -> None:
    """One kind of distance: measured points joined by lines, predicted values dashed, one colour per γ."""
    gammas = sorted({c.gamma for c in result.cells})
    for k, (gamma, colour) in enumerate(zip(gammas, ordered_colours(len(gammas)), strict=True)):
        cells = sorted((c for c in result.cells if c.gamma == gamma), key=lambda c: c.width)
        widths = np.array([c.width for c in cells], dtype=float)
        parts = [getattr(c, name) for c in cells]
        mean = np.array([p.mean for p in parts])
        sem = np.array([p.sem or 0.0 for p in parts])
        look = {**BARS, "color": colour, "marker": MARKERS[k % len(MARKERS)], "label": rf"$\gamma = {gamma:g}$"}
        axes.errorbar(widths, mean, yerr=np.minimum(sem, 0.999 * mean), **look, gid=f"gamma{gamma:g}")
        known = [(w, p.predicted) for w, p in zip(widths, parts, strict=True) if p.predicted is not None]
        if known:
            axes.plot(*np.array(known).T, **{**THEORY, "linewidth": 0.7}, gid=f"predicted{gamma:g}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("width $w$")


def _legend(fig: Figure, axes: Sequence[Axes], result: SweepResult) -> None:
    gammas = sorted({c.gamma for c in result.cells})
    if len(gammas) <= LABELLED:
        axes[1].plot([], [], **THEORY, label=r"theory, $w\to\infty$")
        axes[1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    edges = np.concatenate([[1.5 * gammas[0] - 0.5 * gammas[1]], (np.array(gammas[1:]) + np.array(gammas[:-1])) / 2])
    edges = np.append(edges, 1.5 * gammas[-1] - 0.5 * gammas[-2])
    colours = ListedColormap(ordered_colours(len(gammas)))
    bar = fig.colorbar(ScalarMappable(BoundaryNorm(edges, len(gammas)), colours), ax=list(axes), ticks=gammas, pad=0.02)
    bar.set_ticklabels([f"{g:g}" for g in gammas])
    bar.set_label(r"$\gamma$")
    bar.ax.minorticks_off()

"""Scaling exponents of the two distances against γ, with their intervals and the theory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlnphase.findings import Exponent
from dlnphase.plotting.data import FigureData, data_of
from dlnphase.plotting.distances import checked_sweeps
from dlnphase.plotting.sources import ResultSource, caption_lines, needed
from dlnphase.plotting.style import FAINT, THEORY, Look, captioned, legend_of_all, letters, marker_style, new_figure
from dlnphase.plotting.timeline import Arrangement
from dlnphase.results.sweep import SweepResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BARS = "Bars: 95 % of the draws; grey: by how much the slope still changes with the width at the widest networks."
NAMES = {
    "distance_to_minimum": r"$\mathrm{d}\log d_m / \mathrm{d}\log w$",
    "distance_to_saddle": r"$\mathrm{d}\log d_s / \mathrm{d}\log w$",
}


def figure(sources: Sequence[ResultSource], look: Look, arrangement: Arrangement | None = None) -> Figure:
    """The slopes, and under them what they miss theory by; several sweeps over each other.

    Raises:
        InputError: when no sweep has an exponent (it takes two widths).
    """
    sweeps = with_slopes(sources)
    fig, axes = new_figure(look, 2, 2, height=0.9, sharex="col", height_ratios=(2, 1))
    for ax, below, name in zip(axes[:2], axes[2:], NAMES, strict=True):
        for k, source in enumerate(sweeps):
            draw(ax, source.result, name, k, source.label)
            draw_difference(below, source.result, name, k)
        ax.set_title(NAMES[name])
        below.set_xlabel(r"$\gamma$")
        below.axhline(0, **THEORY)
        for panel in (ax, below):
            panel.axvline(1, color=FAINT, linewidth=0.8, zorder=0)
    axes[0].set_ylabel("slope")
    axes[2].set_ylabel("slope − theory")
    legend_of_all(fig, axes[:2])
    letters(axes)
    captioned(fig, look, [*caption_lines(sweeps), *_critical_words(sweeps), BARS])
    return fig


def data(sources: Sequence[ResultSource]) -> FigureData:
    """A row for every γ and kind of distance: the slope with its interval, that of the two widest, and theory."""
    rows = []
    for source in with_slopes(sources):
        its = [
            (e.gamma, name, part.slope, *(part.ci95 or (None, None)), part.local[-1].slope, part.predicted)
            for e in source.result.exponents
            for name, part in ((name, getattr(e, name)) for name in NAMES)
        ]
        rows.append((source, its))
    return data_of(rows, "gamma", "quantity", "slope", "ci95_low", "ci95_high", "two_widest", "predicted")


def with_slopes(sources: Sequence[ResultSource]) -> list[ResultSource]:
    """The sweeps that have slopes; InputError where none has."""
    sweeps = [s for s in checked_sweeps(sources, "exponents") if s.result.exponents]
    return needed(sweeps, "kind: the figure exponents has nothing to draw, a slope takes two finished widths")


def _slopes(result: SweepResult, name: str) -> tuple[np.ndarray, list[Exponent], np.ndarray, np.ndarray]:
    """γ (G,), the exponents, their slopes (G,) and how far their intervals reach below and above, (2, G)."""
    rows = sorted(result.exponents, key=lambda e: e.gamma)
    parts = [getattr(e, name) for e in rows]
    slopes = np.array([p.slope for p in parts])
    bounds = np.array([p.ci95 or (p.slope, p.slope) for p in parts])
    errors = np.stack([np.maximum(slopes - bounds[:, 0], 0), np.maximum(bounds[:, 1] - slopes, 0)])
    return np.array([e.gamma for e in rows]), parts, slopes, errors


def draw_difference(axes: Axes, result: SweepResult, name: str, position: int = 0) -> None:
    """What the slopes miss theory by, with intervals that can be seen; nothing where theory is silent."""
    gammas, parts, slopes, errors = _slopes(result, name)
    known = np.array([p.predicted is not None for p in parts])
    if known.any():
        theory = np.array([p.predicted for p in parts if p.predicted is not None])
        look = {**marker_style(position), "markersize": 2.5, "linestyle": "none", "capsize": 3, "elinewidth": 1.1}
        axes.errorbar(gammas[known], slopes[known] - theory, yerr=errors[:, known], **look, gid="difference")
        _last_change(axes, gammas[known], slopes[known] - theory, [p for p in parts if p.predicted is not None])


def draw(axes: Axes, result: SweepResult, name: str, position: int = 0, label: str = "") -> None:
    """The slopes over all widths, those of the two widest as rings, and theory."""
    from matplotlib import rcParams

    gammas, parts, slopes, errors = _slopes(result, name)
    look: dict[str, Any] = {**marker_style(position), "linestyle": "none"}
    prefix = f"{label}: " if label else ""
    bars: dict[str, Any] = {"capsize": 2, "elinewidth": 0.9, "label": f"{prefix}all widths"}
    axes.errorbar(gammas, slopes, yerr=errors, **look, **bars, gid="slope")
    _last_change(axes, gammas, slopes, parts)
    widest = [p.local[-1] for p in parts if len(p.local) > 1]
    if len(widest) == len(parts):
        ring: dict[str, Any] = {"markerfacecolor": "none", "markersize": 1.9 * float(rcParams["lines.markersize"])}
        axes.plot(gammas, [w.slope for w in widest], **look, **ring, label=f"{prefix}two widest", gid="widest")
    known = [(g, p.predicted) for g, p in zip(gammas, parts, strict=True) if p.predicted is not None]
    if known:
        name_once = None if any(line.get_gid() == "predicted" for line in axes.lines) else r"theory, $w\to\infty$"
        axes.plot(*np.array(known).T, **THEORY, label=name_once, gid="predicted")


def _last_change(axes: Axes, gammas: np.ndarray, values: np.ndarray, parts: list[Exponent]) -> None:
    """Grey bars behind: how far the asymptote is, as the last change of the slope tells; none with two widths."""
    finite = np.array([p.finite_width or 0.0 for p in parts])
    if finite.any():
        look: dict[str, Any] = {"marker": "none", "linestyle": "none", "elinewidth": 5.0, "alpha": 0.6, "zorder": 0}
        axes.errorbar(gammas, values, yerr=finite, ecolor=FAINT, gid="finite-width", **look)


def _critical_words(sweeps: Sequence[ResultSource]) -> list[str]:
    words = []
    for source in sweeps:
        critical = source.result.critical_gamma
        if critical is not None:
            interval = f" [{critical.ci95[0]:.4f}, {critical.ci95[1]:.4f}]" if critical.ci95 else ""
            words.append(f"Critical γ: {critical.estimate:.4f}{interval} (theory {critical.predicted:g}).")
    return list(dict.fromkeys(words))

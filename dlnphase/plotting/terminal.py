"""The main figures drawn with characters, by plotext."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dlnphase.errors import InputError, RunError
from dlnphase.plotting.distances import checked_sweeps
from dlnphase.plotting.draw import choose_kinds
from dlnphase.plotting.phase import ratio_table
from dlnphase.plotting.plane import plane_of, visited
from dlnphase.plotting.rank import staircase
from dlnphase.plotting.sources import Source, read_sources, runs_of, settings_words
from dlnphase.plotting.timeaxis import burst_clock, choose_axis
from dlnphase.plotting.timeline import FLOOR, members_of
from dlnphase.settings.plot import PlotSettings

HEIGHT, MIN_WIDTH, MAX_WIDTH = 18, 40, 120
MARKERS = ("braille", "*", "o", "x", "+", "#")
MAX_CURVES = 6

Forward = Callable[[np.ndarray], np.ndarray]
Curve = tuple[np.ndarray, np.ndarray, str]  # times, values, label


def terminal_figures(settings: PlotSettings, *, width: int, colour: bool) -> list[str]:
    """The figures as text.

    Args:
        settings: what to draw; formats and variant do not matter.
        width: columns of the terminal.
        colour: whether colours (escape sequences) may be used.

    Raises:
        InputError: for sources that cannot be read, or kinds that the terminal cannot show.
        RunError: when plotext is not installed.
    """
    try:
        import plotext
    except ImportError:
        raise RunError("--terminal: plotext is not installed; install it with: pip install 'plotext>=5.3,<6'") from None
    assert settings.source
    sources = read_sources(settings.source)
    kinds, asked = choose_kinds(settings.kind, sources)
    unknown = [k for k in kinds if k not in _DRAW]
    if asked and unknown:
        raise InputError(f"kind: found {unknown[0]}, but the terminal can show {', '.join(_DRAW)}")
    out = []
    for kind in kinds:
        if kind in _DRAW:
            plotext.clear_figure()
            plotext.theme("pro" if colour else "clear")
            plotext.plot_size(max(MIN_WIDTH, min(width, MAX_WIDTH)), HEIGHT)
            words = _DRAW[kind](plotext, sources, settings)
            text = plotext.build()
            out.append((text if colour else plotext.uncolorize(text)).rstrip() + "\n" + "\n".join(words) + "\n")
    return out


def _curve(plt: Any, x: np.ndarray, y: np.ndarray, index: int, label: str) -> None:
    keep = np.isfinite(x) & np.isfinite(y)
    marker = MARKERS[index % len(MARKERS)]
    plt.plot([float(v) for v in x[keep]], [float(v) for v in y[keep]], label=label or None, marker=marker)


def _times(run: Source, settings: PlotSettings) -> tuple[Forward, str, list[tuple[float, str]]]:
    """The time axis of one run as numbers: how to get them, how they are called, their ticks."""
    result = run.result
    kind = choose_axis([result], settings.time)
    if kind == "bursts":
        clock = burst_clock(result)
        assert clock is not None
        ticks = [(float(clock.forward(np.array(t))), f"{t:.3g}") for t in clock.bursts]
        return clock.forward, "t, stretched around each burst", ticks
    if kind == "log":
        return lambda t: np.log10(np.maximum(t, 1e-300)), "log10 t", []
    return lambda t: t, "t", []


def _over_time(
    plt: Any, sources: Sequence[Source], settings: PlotSettings, title: str, curves: Callable[[Source], list[Curve]]
) -> list[str]:
    runs = runs_of(sources, need=title)
    several = len(runs) > 1
    forward, words, ticks = _times(runs[0], settings)
    if several:
        kind = choose_axis([r.result for r in runs], settings.time)
        forward, words = (lambda t: np.log10(np.maximum(t, 1e-300)), "log10 t") if kind == "log" else (lambda t: t, "t")
        ticks = []
    index = 0
    for run in runs:
        for t, y, label in curves(run)[: 1 if several else MAX_CURVES]:
            start = t > 0 if words == "log10 t" else t >= 0
            _curve(plt, forward(t[start]), y[start], index, run.label if several else label)
            index += 1
    if ticks:
        plt.xticks([x for x, _ in ticks], [name for _, name in ticks])
    plt.title(title)
    plt.xlabel(words)
    many = [f"(the first of {len(members_of(r.result))} starts)" if r.result.members else "" for r in runs]
    return [f"{settings_words(run)} {note}".rstrip() for run, note in zip(runs, many, strict=True)]


def _loss(plt: Any, sources: Sequence[Source], settings: PlotSettings) -> list[str]:
    def curves(run: Source) -> list[Curve]:
        path = run.result.trajectory
        _, rows = members_of(run.result)[0]
        floor = FLOOR * float(np.nanmax(path.cost))
        out = [(path.t[rows], np.log10(np.maximum(path.cost[rows], floor)), "training")]
        if np.isfinite(path.test_cost[rows]).any():
            out.append((path.t[rows], np.log10(np.maximum(path.test_cost[rows], floor)), "test"))
        return out

    return _over_time(plt, sources, settings, "log10 cost", curves)


def _spectrum(plt: Any, sources: Sequence[Source], settings: PlotSettings) -> list[str]:
    def curves(run: Source) -> list[Curve]:
        path = run.result.trajectory
        _, rows = members_of(run.result)[0]
        count = max(run.result.outcome.rank, 1)
        return [(path.t[rows], path.singular_values[rows, i], f"s{i + 1}") for i in range(count)]

    return _over_time(plt, sources, settings, "singular values of A", curves)


def _rank(plt: Any, sources: Sequence[Source], settings: PlotSettings) -> list[str]:
    def curves(run: Source) -> list[Curve]:
        path = run.result.trajectory
        member, rows = members_of(run.result)[0]
        t, rank = staircase(member, float(path.t[rows[-1]]))
        return [(np.repeat(t, 2)[1:], np.repeat(rank, 2)[:-1].astype(float), "rank")]

    return _over_time(plt, sources, settings, "rank of the critical points visited", curves)


def _path(plt: Any, sources: Sequence[Source], settings: PlotSettings) -> list[str]:
    runs = runs_of(sources, need="path")
    if not runs:
        raise InputError("kind: the terminal draws path from runs of train alone")
    first = runs[0].result
    run, rows = members_of(first)[0]
    index, _ = visited(first, run, rows)
    plane = plane_of(first.trajectory.A[index if len(index) else rows[[0, -1]]], first.trajectory.A[rows])
    for k, source in enumerate(runs):
        _, rows = members_of(source.result)[0]
        xy = plane.project(source.result.trajectory.A[rows])
        _curve(plt, xy[:, 0], xy[:, 1], k, source.label)
    plt.title("path of A on the plane of its saddles")
    plt.xlabel("along first to last visit")
    return [settings_words(source) for source in runs]


def _distances(plt: Any, sources: Sequence[Source], settings: PlotSettings) -> list[str]:
    source = checked_sweeps(sources, "distances")[0]
    for k, (name, words) in enumerate((("distance_to_minimum", "d_m"), ("distance_to_saddle", "d_s"))):
        for gamma in sorted({c.gamma for c in source.result.cells})[:: max(1, len(source.result.config.gammas) // 3)]:
            cells = sorted((c for c in source.result.cells if c.gamma == gamma), key=lambda c: c.width)
            x = np.log10([float(c.width) for c in cells])
            _curve(plt, x, np.log10([getattr(c, name).mean for c in cells]), k, f"{words}, gamma = {gamma:g}")
    plt.title("log10 distance")
    plt.xlabel("log10 width")
    return [settings_words(source)]


def _exponents(plt: Any, sources: Sequence[Source], settings: PlotSettings) -> list[str]:
    source = checked_sweeps(sources, "exponents")[0]
    rows = sorted(source.result.exponents, key=lambda e: e.gamma)
    if not rows:
        raise InputError("kind: the figure exponents has nothing to draw, a slope takes two finished widths")
    x = np.array([e.gamma for e in rows])
    for k, (name, words) in enumerate((("distance_to_minimum", "d_m"), ("distance_to_saddle", "d_s"))):
        _curve(plt, x, np.array([getattr(e, name).slope for e in rows]), k, f"slope of {words}")
        theory = np.array([np.nan if (p := getattr(e, name).predicted) is None else p for e in rows])
        _curve(plt, x, theory, k + 2, f"theory, {words}")
    plt.title("d log distance / d log width")
    plt.xlabel("gamma")
    return [settings_words(source)]


def _phase(plt: Any, sources: Sequence[Source], settings: PlotSettings) -> list[str]:
    source = checked_sweeps(sources, "phase")[0]
    gammas, widths, table = ratio_table(source.result)
    for k, width in enumerate(widths[:MAX_CURVES]):
        _curve(plt, np.array(gammas), table[k], k, f"w = {width:.0e}")
    plt.title("log10(d_m / d_s): curves cross at the critical gamma")
    plt.xlabel("gamma")
    critical = source.result.critical_gamma
    words = [f"crossing at gamma = {critical.estimate:.4f}, theory {critical.predicted:g}"] if critical else []
    return [settings_words(source), *words]


_DRAW: dict[str, Callable[[Any, Sequence[Source], PlotSettings], list[str]]] = {
    "loss": _loss,
    "singular-values": _spectrum,
    "rank": _rank,
    "path": _path,
    "distances": _distances,
    "exponents": _exponents,
    "phase": _phase,
}

"""The main figures drawn with characters, by plotext."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from dlnphase.errors import InputError, RunError
from dlnphase.plotting.distances import checked_sweeps
from dlnphase.plotting.draw import choose_kinds
from dlnphase.plotting.exponents import with_slopes
from dlnphase.plotting.phase import ratio_table
from dlnphase.plotting.plane import plane_of_run
from dlnphase.plotting.rank import staircase
from dlnphase.plotting.sources import ResultSource, read_sources, runs_of, settings_words
from dlnphase.plotting.timeaxis import burst_clock, choose_axis
from dlnphase.plotting.timeline import FLOOR, LOG_WORDS, members_of
from dlnphase.settings.plot import PlotSettings

# Rows and columns of a drawing, whatever the terminal; labels at the left axis.
HEIGHT, MIN_WIDTH, MAX_WIDTH, TICKS = 18, 40, 120, 7
MARKERS = ("*", "o", "x", "+", "#", "@")
NUMBERS, ROWS = 6, 5  # columns of the numbers at the left, rows of title, frame and names
MAX_CURVES = len(MARKERS)

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
    sources = read_sources(settings.sources)
    kinds, asked = choose_kinds(settings.kind, sources)
    unknown = [k for k in kinds if k not in _DRAW]
    if asked and unknown:
        raise InputError(f"kind: found {unknown[0]}, but the terminal can show {', '.join(_DRAW)}")
    columns = max(MIN_WIDTH, min(width, MAX_WIDTH))
    out = []
    for kind in kinds:
        if kind in _DRAW:
            plotext.clear_figure()
            plotext.theme("pro" if colour else "clear")
            plotext.plot_size(columns, HEIGHT)
            canvas = Canvas(plotext, columns)
            words = _DRAW[kind](canvas, sources, settings)
            canvas.draw()
            text = plotext.build()
            out.append((text if colour else plotext.uncolorize(text)).rstrip() + "\n" + "\n".join(words) + "\n")
    return out


class Canvas:
    """The curves of one figure. Where several lie over each other, the columns go to them in turn, so that all show.

    Args:
        plt: plotext, or what stands for it.
        columns: of the terminal.
    """

    def __init__(self, plt: Any, columns: int) -> None:
        self.plt = plt
        self._curves: list[Curve] = []
        self._grid = (columns - NUMBERS - 2, HEIGHT - ROWS)

    def curve(self, x: np.ndarray, y: np.ndarray, label: str) -> None:
        """One more; points that are not finite are left out."""
        keep = np.isfinite(x) & np.isfinite(y)
        self._curves.append((np.asarray(x, float)[keep], np.asarray(y, float)[keep], label))

    def draw(self) -> None:
        """Hand all of them to plotext: a single one as a fine line, several cell by cell."""
        curves = [c for c in self._curves if len(c[0])]
        if len(curves) == 1:
            x, y, label = curves[0]
            self.plt.plot(x.tolist(), y.tolist(), label=label or None, marker="braille")
            return
        for (x, y, label), marker in zip(self._shared(curves), MARKERS * len(curves), strict=False):
            self.plt.scatter(x.tolist(), y.tolist(), label=label or None, marker=marker)

    def _shared(self, curves: Sequence[Curve]) -> list[Curve]:
        every = np.concatenate([np.stack([x, y], 1) for x, y, _ in curves])
        low, high = every.min(0), every.max(0)
        unit = np.where(high > low, high - low, 1.0) / (np.array(self._grid) - 1)
        owners: dict[tuple[int, int], list[int]] = {}
        for k, (x, y, _) in enumerate(curves):
            for cell in cells_of((np.stack([x, y], 1) - low) / unit):
                owners.setdefault(cell, []).append(k)
        won: list[list[tuple[int, int]]] = [[] for _ in curves]
        for cell, its in owners.items():
            won[its[cell[0] % len(its)]].append(cell)
        ticks = np.linspace(low[1], high[1], TICKS).tolist()  # numbers as wide as they are counted with
        near_zero = 1e-3 * (high[1] - low[1])
        self.plt.yticks(ticks, [f"{v if abs(v) > near_zero else 0:{NUMBERS}.3g}"[:NUMBERS] for v in ticks])
        points = [low + unit * np.array(cells).reshape(-1, 2) for cells in won]
        return [(p[:, 0], p[:, 1], label) for p, (_, _, label) in zip(points, curves, strict=True)]


def cells_of(track: np.ndarray) -> list[tuple[int, int]]:
    """The cells that a polyline (T, 2), in units of cells, runs through: each once, in order."""
    out: dict[tuple[int, int], None] = {}
    for a, b in pairwise(track) if len(track) > 1 else [(track[0], track[0])]:
        steps = int(np.ceil(np.abs(b - a).max())) + 1
        for point in np.rint(np.linspace(a, b, steps + 1)).astype(int).tolist():
            out[(point[0], point[1])] = None
    return list(out)


def _times(runs: Sequence[ResultSource], settings: PlotSettings) -> tuple[Forward, str, list[tuple[float, str]]]:
    """The time axis of runs as numbers: how to get them, how they are called, their ticks."""
    kind = choose_axis([run.result for run in runs], settings.time)
    if kind == "bursts" and (clock := burst_clock(runs[0].result)) is not None:
        ticks = [(float(clock.forward(np.array(t))), f"{t:.3g}") for t in clock.bursts]
        return clock.forward, "t, stretched around each burst", ticks
    if kind == "log":
        return lambda t: np.log10(np.maximum(t, 1e-300)), "log10 t", []
    return lambda t: t, "t", []


def _over_time(
    canvas: Canvas,
    sources: Sequence[ResultSource],
    settings: PlotSettings,
    title: str,
    curves: Callable[[ResultSource], list[Curve]],
) -> list[str]:
    runs = runs_of(sources, need=title)
    several = len(runs) > 1
    forward, words, ticks = _times(runs, settings)
    for run in runs:
        for t, y, label in curves(run)[: 1 if several else MAX_CURVES]:
            start = t > 0 if words == "log10 t" else t >= 0
            canvas.curve(forward(t[start]), y[start], run.label if several else label)
    if ticks:
        canvas.plt.xticks([x for x, _ in ticks], [name for _, name in ticks])
    canvas.plt.title(title)
    canvas.plt.xlabel(words)
    many = [f"(the first of {len(members_of(r.result))} starts)" if r.result.members else "" for r in runs]
    told = [LOG_WORDS] if settings.time == "bursts" and words == "log10 t" else []
    return [*(f"{settings_words(run)} {note}".rstrip() for run, note in zip(runs, many, strict=True)), *told]


def _loss(canvas: Canvas, sources: Sequence[ResultSource], settings: PlotSettings) -> list[str]:
    def curves(run: ResultSource) -> list[Curve]:
        path = run.result.path
        _, rows = members_of(run.result)[0]
        floor = FLOOR * float(np.nanmax(path.cost))
        out = [(path.t[rows], np.log10(np.maximum(path.cost[rows], floor)), "training")]
        if np.isfinite(path.test_cost[rows]).any():
            out.append((path.t[rows], np.log10(np.maximum(path.test_cost[rows], floor)), "test"))
        return out

    return _over_time(canvas, sources, settings, "log10 cost", curves)


def _spectrum(canvas: Canvas, sources: Sequence[ResultSource], settings: PlotSettings) -> list[str]:
    def curves(run: ResultSource) -> list[Curve]:
        path = run.result.path
        _, rows = members_of(run.result)[0]
        count = max(run.result.outcome.rank, 1)
        return [(path.t[rows], path.singular_values[rows, i], f"s{i + 1}") for i in range(count)]

    return _over_time(canvas, sources, settings, "singular values of A", curves)


def _rank(canvas: Canvas, sources: Sequence[ResultSource], settings: PlotSettings) -> list[str]:
    def curves(run: ResultSource) -> list[Curve]:
        path = run.result.path
        member, rows = members_of(run.result)[0]
        t, rank = staircase(member, float(path.t[rows[-1]]))
        return [(np.repeat(t, 2)[1:], np.repeat(rank, 2)[:-1].astype(float), "rank")]

    return _over_time(canvas, sources, settings, "rank of the critical points visited", curves)


def _path(canvas: Canvas, sources: Sequence[ResultSource], settings: PlotSettings) -> list[str]:
    runs = runs_of(sources, need="path")
    if not runs:
        raise InputError("kind: the terminal draws path from runs of train alone")
    plane = plane_of_run(runs[0].result)
    for source in runs:
        _, rows = members_of(source.result)[0]
        xy = plane.project(source.result.path.A[rows])
        canvas.curve(xy[:, 0], xy[:, 1], source.label)
    canvas.plt.title("path of A on the plane of its saddles")
    canvas.plt.xlabel("along first to last visit")
    return [settings_words(source) for source in runs]


def _distances(canvas: Canvas, sources: Sequence[ResultSource], settings: PlotSettings) -> list[str]:
    source = checked_sweeps(sources, "distances")[0]
    for name, words in (("distance_to_minimum", "d_m"), ("distance_to_saddle", "d_s")):
        for gamma in sorted({c.gamma for c in source.result.cells})[:: max(1, len(source.result.config.gammas) // 3)]:
            cells = sorted((c for c in source.result.cells if c.gamma == gamma), key=lambda c: c.width)
            x = np.log10([float(c.width) for c in cells])
            canvas.curve(x, np.log10([getattr(c, name).mean for c in cells]), f"{words}, gamma = {gamma:g}")
    canvas.plt.title("log10 distance")
    canvas.plt.xlabel("log10 width")
    return [settings_words(source)]


def _exponents(canvas: Canvas, sources: Sequence[ResultSource], settings: PlotSettings) -> list[str]:
    source = with_slopes(sources)[0]
    rows = sorted(source.result.exponents, key=lambda e: e.gamma)
    x = np.array([e.gamma for e in rows])
    for name, words in (("distance_to_minimum", "d_m"), ("distance_to_saddle", "d_s")):
        canvas.curve(x, np.array([getattr(e, name).slope for e in rows]), f"slope of {words}")
        theory = np.array([np.nan if (p := getattr(e, name).predicted) is None else p for e in rows])
        canvas.curve(x, theory, f"theory, {words}")
    canvas.plt.title("d log distance / d log width")
    canvas.plt.xlabel("gamma")
    return [settings_words(source)]


def _phase(canvas: Canvas, sources: Sequence[ResultSource], settings: PlotSettings) -> list[str]:
    source = checked_sweeps(sources, "phase")[0]
    gammas, widths, table = ratio_table(source.result)
    for k, width in enumerate(widths[:MAX_CURVES]):
        canvas.curve(np.array(gammas), table[k], f"w = {width:.0e}")
    canvas.plt.title("log10(d_m / d_s): curves cross at the critical gamma")
    canvas.plt.xlabel("gamma")
    critical = source.result.critical_gamma
    words = [f"crossing at gamma = {critical.estimate:.4f}, theory {critical.predicted:g}"] if critical else []
    return [settings_words(source), *words]


_DRAW: dict[str, Callable[[Canvas, Sequence[ResultSource], PlotSettings], list[str]]] = {
    "loss": _loss,
    "singular-values": _spectrum,
    "rank": _rank,
    "path": _path,
    "distances": _distances,
    "exponents": _exponents,
    "phase": _phase,
}

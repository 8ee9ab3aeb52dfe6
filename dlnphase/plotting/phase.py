"""The phase diagram: log₁₀(d_m/d_s) over γ and width, the curves that cross, and the regimes seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlnphase.findings import counted
from dlnphase.plotting.data import FigureData, data_of
from dlnphase.plotting.distances import checked_sweeps
from dlnphase.plotting.sources import ResultSource, caption_lines
from dlnphase.plotting.style import DIVERGING, MARKERS, THEORY, Look, captioned, letters, new_figure, ordered_colours
from dlnphase.plotting.timeaxis import power_of_ten
from dlnphase.plotting.timeline import Arrangement
from dlnphase.results.sweep import SweepResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# what the dynamics were seen to do in a cell: marker, and how the caption writes it
REGIMES = {"lazy": ("o", "○"), "mean-field": ("s", "□"), "saddle-to-saddle": ("^", "△")}
PROVED = {"minimum": "m", "saddle": "s"}  # which of the two is proved to be nearer
LETTER: dict[str, Any] = {"xytext": (0, -2), "textcoords": "offset points", "ha": "center", "va": "top"}
LETTER |= {"fontsize": "xx-small"}
LETTER |= {"bbox": {"boxstyle": "circle,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}}
SIGN: dict[str, Any] = {"color": "black", "markerfacecolor": "white", "markersize": 5, "linestyle": "none"}
RATIO = r"$\log_{10}(d_m/d_s)$"


def figure(sources: Sequence[ResultSource], look: Look, arrangement: Arrangement | None = None) -> Figure:
    """Two panels for each sweep: the map over (γ, w), and the curves against γ whose crossing is γ_c."""
    sweeps = checked_sweeps(sources, "phase")
    fig, axes = new_figure(look, len(sweeps), 2, height=1.1)
    for k, source in enumerate(sweeps):
        left, right = axes[2 * k : 2 * k + 2]
        mesh = draw_map(left, source.result)
        fig.colorbar(mesh, ax=left, pad=0.02)
        draw_curves(right, source.result)
        left.set_title(f"{RATIO}  {source.label}".rstrip())
        right.set_title(source.label)
    letters(axes)
    captioned(fig, look, [*caption_lines(sweeps), *_words(sweeps)])
    return fig


def data(sources: Sequence[ResultSource]) -> FigureData:
    """A row for every cell: log₁₀(d_m/d_s) of the means, and what the dynamics were seen to do."""
    rows = []
    for source in checked_sweeps(sources, "phase"):
        gammas, widths, table = ratio_table(source.result)
        its = [
            (
                c.gamma,
                c.width,
                float(table[widths.index(c.width), gammas.index(c.gamma)]),
                None if c.nearer is None else c.nearer.verdict,
                c.regime_seen,
            )
            for c in source.result.cells
        ]
        rows.append((source, its))
    return data_of(rows, "gamma", "width", "log10_ratio", "nearer", "regime_seen")


def ratio_table(result: SweepResult) -> tuple[list[float], list[int], np.ndarray]:
    """γ and widths ascending, and log₁₀(d_m/d_s) of the means, shape (widths, γ); NaN where a cell is missing."""
    gammas = sorted({c.gamma for c in result.cells})
    widths = sorted({c.width for c in result.cells})
    table = np.full((len(widths), len(gammas)), np.nan)
    for cell in result.cells:
        value = np.log10(cell.distance_to_minimum.mean / cell.distance_to_saddle.mean)
        table[widths.index(cell.width), gammas.index(cell.gamma)] = value
    return gammas, widths, table


def draw_map(axes: Axes, result: SweepResult) -> Any:
    """The map; cells are centred on their values, missing cells stay hatched."""
    gammas, widths, table = ratio_table(result)
    bound = float(np.nanmax(np.abs(table))) or 1.0
    axes.set_facecolor("#DDDDDD")
    edges = _edges(np.array(gammas)), np.arange(len(widths) + 1)
    colours: dict[str, Any] = {"cmap": DIVERGING, "vmin": -bound, "vmax": bound, "edgecolors": "white"}
    mesh = axes.pcolormesh(*edges, np.ma.masked_invalid(table), **colours, linewidth=0.4, gid="map")
    nearer = np.ma.masked_invalid(np.where(table < 0, 0.0, np.nan))  # the sign survives grey print as hatching
    hatched: dict[str, Any] = {"facecolor": "none", "edgecolor": "#555555", "hatch": "////", "linewidth": 0.0}
    axes.pcolor(*edges, nearer, **hatched, alpha=0.0 if nearer.mask.all() else None, gid="lazy")
    axes.set_yticks(np.arange(len(widths)) + 0.5, [power_of_ten(float(w)) for w in widths])
    axes.set_xlabel(r"$\gamma$")
    axes.set_ylabel("width $w$")
    if gammas[0] <= 1 <= gammas[-1]:
        axes.axvline(1, **THEORY)
    for cell in result.cells:
        if cell.nearer is not None and cell.nearer.verdict in PROVED:
            verdict, top = cell.nearer.verdict, (cell.gamma, widths.index(cell.width) + 1)
            axes.annotate(PROVED[verdict], top, **LETTER, gid=f"proved-{verdict}")
        if cell.regime_seen in REGIMES:
            sign = {**SIGN, "marker": REGIMES[cell.regime_seen][0]}
            axes.plot(cell.gamma, widths.index(cell.width) + 0.5, **sign, gid=f"seen-{cell.regime_seen}")
    return mesh


def draw_curves(axes: Axes, result: SweepResult) -> None:
    """log₁₀(d_m/d_s) against γ, one curve per width; the crossing of the two widest with its interval."""
    gammas, widths, table = ratio_table(result)
    for k, (width, colour) in enumerate(zip(widths, ordered_colours(len(widths)), strict=True)):
        name, marker = f"$w$ = {power_of_ten(float(width))}", MARKERS[k % len(MARKERS)]
        axes.plot(gammas, table[k], color=colour, marker=marker, linewidth=0.9, label=name, gid=f"width{width}")
    critical = result.critical_gamma
    if critical is not None:
        if critical.ci95:
            axes.axvspan(*critical.ci95, color="#56B4E9", alpha=0.35, linewidth=0)
        found, told = f"crossing at {critical.estimate:.3f}", rf"theory: $\gamma_c = {critical.predicted:g}$"
        axes.axvline(critical.estimate, color="#0072B2", linewidth=1.2, label=found, gid="crossing")
        axes.axvline(critical.predicted, **THEORY, label=told, gid="theory")
    axes.set_xlabel(r"$\gamma$")
    axes.set_ylabel(RATIO)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def _edges(values: np.ndarray) -> np.ndarray:
    """Borders of cells centred on these values."""
    if len(values) == 1:
        return np.array([values[0] - 0.05, values[0] + 0.05])
    middle = (values[1:] + values[:-1]) / 2
    return np.concatenate([[2 * values[0] - middle[0]], middle, [2 * values[-1] - middle[-1]]])


def _words(sweeps: Sequence[ResultSource]) -> list[str]:
    words = ["Hatched, orange (below 0): the minimum is nearer, lazy; purple (above 0): the saddle is nearer."]
    seen = {c.regime_seen for s in sweeps for c in s.result.cells}
    if seen & set(REGIMES):
        signs = ", ".join(f"{marker[1]} {regime}" for regime, marker in REGIMES.items() if regime in seen)
        words.append(f"What the dynamics did: {signs}.")
    verdicts = {c.nearer.verdict for s in sweeps for c in s.result.cells if c.nearer is not None}
    if verdicts:
        words.append("m, s: the minimum, the saddle is proved to be nearer for every start; no letter: undecided.")
    missing = sum(len(s.result.config.cells) - len(s.result.cells) for s in sweeps)
    if missing:
        words.append(f"Missing (grey): {counted(missing, 'cell')}.")
    return words

"""The path in matrix space, projected on the plane of the saddles it visits, with the greedy path over it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from dlnphase.errors import InputError
from dlnphase.plotting.data import FigureData, data_of
from dlnphase.plotting.plane import Plane, plane_of, plane_of_run, visited
from dlnphase.plotting.sources import ResultSource, caption_lines, detections_of, runs_of
from dlnphase.plotting.style import THEORY, Look, captioned, legend_above, line_style, marker_style, new_figure
from dlnphase.plotting.timeline import Arrangement, members_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK = {"linestyle": "none", "color": "black", "zorder": 5}
WIDE = {"linewidth": 2.4, "alpha": 0.75}  # so that the greedy path, drawn over it, leaves its rims to see


def figure(sources: Sequence[ResultSource], look: Look, arrangement: Arrangement | None = None) -> Figure:
    """Every run and every detect-saddles result among the sources, on one plane: that of the first one's visits.

    A run of ``--dynamics greedy``, and the greedy points of detect-saddles, are drawn as theory.

    Raises:
        InputError: for matrices of different shapes, or nothing that holds matrices.
    """
    runs, shown = _shown(sources)
    plane, everything = _plane(runs, shown)
    fig, (axes,) = new_figure(look, height=1.12)
    position = 0
    for source in runs:
        if source.result.config.dynamics == "greedy":
            _draw_greedy_run(axes, source, plane)
        else:
            _draw_run(axes, source, plane, position)
            position += 1
    for source in shown:
        _draw_detection(axes, source, plane)
    axes.set_xlabel(r"$\langle A - A_0, E_1\rangle$, along first $\to$ last visit")
    axes.set_ylabel(r"$\langle A - A_0, E_2\rangle$, across")
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.14)
    legend_above(axes, 3)
    captioned(fig, look, [*caption_lines([*runs, *shown]), plane_words(plane, everything)])
    return fig


def data(sources: Sequence[ResultSource]) -> FigureData:
    """Coordinates in the plane of every record (``path``), of the visits, of critical points and of greedy ones."""
    runs, shown = _shown(sources)
    plane, _ = _plane(runs, shown)
    rows: list[tuple[ResultSource, list[tuple[Any, ...]]]] = []
    for source in runs:
        path, its = source.result.path, []
        for number, (run, of) in enumerate(members_of(source.result)):
            t, xy = path.t[of].tolist(), plane.project(path.A[of]).tolist()
            its += [(number, "path", time, None, *point) for time, point in zip(t, xy, strict=True)]
            index, ranks = visited(source.result, run, of)
            points = zip(path.t[index].tolist(), ranks, plane.project(path.A[index]).tolist(), strict=True)
            its += [(number, "visit", time, rank, *point) for time, rank, point in points]
        rows.append((source, its))
    for source in shown:
        matrices, visits = source.result.matrices, source.result.visits
        critical = zip(visits, plane.project(matrices["critical"]).tolist(), strict=True)
        its = [(v.member, "critical", v.time.closest, v.rank, *point) for v, point in critical]
        greedy = zip(source.result.greedy_path, plane.project(matrices["greedy"]).tolist(), strict=False)
        its += [(None, "greedy", None, step.rank, *point) for step, point in greedy]
        rows.append((source, its))
    return data_of(rows, "member", "series", "t", "rank", "along", "across")


def _shown(sources: Sequence[ResultSource]) -> tuple[list[ResultSource], list[ResultSource]]:
    """The runs and the detections that a path is drawn from."""
    runs = runs_of(sources, need="path")
    shown = [s for s in detections_of(sources) if s.result.matrices is not None]
    if not runs and not shown:
        raise InputError("kind: the figure path needs a run of train, or a detect-saddles result with its saddles.npz")
    _same_shape([*runs, *shown])
    return runs, shown


def plane_words(plane: Plane, matrices: np.ndarray) -> str:
    """What the axes of the plane are, and how much of the path it holds."""
    return (
        "A₀: the first visit. E₁: the direction from there to the last visit; E₂: at right angles to it, in the plane "
        f"of the two main directions of the visits (‖E₁‖_F = ‖E₂‖_F = 1). The plane holds "
        f"{100 * plane.share(matrices):.3g} % of the squared distances from A₀."
    )


def _same_shape(sources: Sequence[ResultSource]) -> None:
    shapes = {tuple(s.result.task.shape) for s in sources}
    if len(shapes) > 1:
        raise InputError(f"SOURCE: found matrices of shapes {sorted(shapes)}, expected one shape for the figure path")


def _plane(runs: Sequence[ResultSource], shown: Sequence[ResultSource]) -> tuple[Plane, np.ndarray]:
    """The plane of the visits of the first run (not the greedy one, if there is another), and all matrices drawn."""
    matrices = [s.result.path.A for s in runs] + [s.result.matrices["closest"] for s in shown]
    everything = np.concatenate(matrices)
    own = [s for s in runs if s.result.config.dynamics != "greedy"] or list(runs)
    if not own:
        first = shown[0].result.matrices
        return plane_of(first["critical"][first["member"] == first["member"][0]], first["closest"]), everything
    return plane_of_run(own[0].result), everything


def _draw_run(axes: Axes, source: ResultSource, plane: Plane, position: int) -> None:
    result = source.result
    members = members_of(result)
    look = line_style(position)
    points, ranks = [], []
    for k, (run, rows) in enumerate(members):
        xy = plane.project(result.path.A[rows])
        style = {**look, **WIDE} if len(members) == 1 else {"color": look["color"], "linewidth": 0.5, "alpha": 0.4}
        name = source.label or "path" if len(members) == 1 else f"{source.label} {len(members)} starts".strip()
        axes.plot(*xy.T, **style, label=name if k == 0 else None, gid="path")
        index, its_ranks = visited(result, run, rows)
        points.append(plane.project(result.path.A[index]))
        ranks += its_ranks
        if not len(index):
            axes.plot(*xy[:1].T, **{**marker_style(position), "markerfacecolor": "white"}, linestyle="none")
            axes.plot(*xy[-1:].T, **marker_style(position), linestyle="none", gid="end")
    track = plane.project(result.path.A[members[0][1]])
    _draw_visits(axes, np.concatenate(points), ranks, track, position, few=len(members) == 1)


def _draw_visits(
    axes: Axes, xy: np.ndarray, ranks: Sequence[int], track: np.ndarray, position: int, *, few: bool
) -> None:
    if not len(xy):
        return
    size = {"markersize": 7} if few else {"markersize": 3, "alpha": 0.6}
    look = {**marker_style(position), "markerfacecolor": "white", "linestyle": "none", "zorder": 4, **size}
    axes.plot(*xy.T, **look, label="closest to a critical point" if position == 0 else None, gid="visits")
    if position == 0:
        for rank in sorted(set(ranks)):
            where = np.mean([p for p, r in zip(xy, ranks, strict=True) if r == rank], axis=0)
            x, y = free_direction(where, track)
            across = "center" if abs(x) < 0.5 else "right" if x < 0 else "left"
            up = "center" if abs(y) < 0.5 else "top" if y < 0 else "bottom"
            beside: dict[str, Any] = {"xytext": (9 * x, 9 * y), "textcoords": "offset points", "ha": across, "va": up}
            axes.annotate(f"rank {rank}", where, **beside, fontsize="small", gid="rank")


def free_direction(where: np.ndarray, track: np.ndarray) -> np.ndarray:
    """The one of eight directions from a point in which the track (T, 2) keeps furthest away; a unit vector."""
    angles = np.arange(8) * np.pi / 4
    directions = np.stack([np.cos(angles), np.sin(angles)], 1)
    fine = np.linspace(0, 1, 20)[:, None]
    dense = np.concatenate([a + fine * (b - a) for a, b in pairwise(track)]) if len(track) > 1 else track
    reach = 0.12 * float(np.ptp(dense, axis=0).max() or 1.0)
    probes = where + reach * directions
    room = np.linalg.norm(probes[:, None] - dense[None], axis=2).min(1)
    return np.asarray(directions[int(np.argmax(room))])


def _draw_greedy_run(axes: Axes, source: ResultSource, plane: Plane) -> None:
    xy = plane.project(source.result.path.A)
    axes.plot(*xy.T, **THEORY, label=r"greedy path, $\alpha \to 0$", gid="greedy")


def _draw_detection(axes: Axes, source: ResultSource, plane: Plane) -> None:
    matrices = source.result.matrices
    critical = plane.project(matrices["critical"])
    square: dict[str, Any] = {**BLACK, "marker": "s", "markerfacecolor": "none", "markersize": 11}
    axes.plot(*critical.T, **square, label="critical points", gid="critical")
    if len(matrices["greedy"]):
        greedy = plane.project(matrices["greedy"])
        cross: dict[str, Any] = {**BLACK, "marker": "x", "markersize": 4}
        axes.plot(*greedy.T, **cross, label=r"those of the greedy path", gid="greedy")

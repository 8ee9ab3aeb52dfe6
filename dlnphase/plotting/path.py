"""The path in matrix space, projected on the plane of the saddles it visits, with the greedy path over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlnphase.errors import InputError
from dlnphase.plotting.plane import Plane, plane_of, visited
from dlnphase.plotting.sources import Source, caption_lines, detections_of, runs_of
from dlnphase.plotting.style import THEORY, Look, captioned, legend_above, line_style, marker_style, new_figure
from dlnphase.plotting.timeline import Arrangement, members_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figure(sources: Sequence[Source], look: Look, arrangement: Arrangement | None = None) -> Figure:
    """Every run and every detect-saddles result among the sources, on one plane: that of the first one's visits.

    A run of ``--dynamics greedy``, and the greedy points of detect-saddles, are drawn as theory.

    Raises:
        InputError: for matrices of different shapes, or nothing that holds matrices.
    """
    runs = runs_of(sources, need="path")
    shown = [s for s in detections_of(sources) if s.result.matrices is not None]
    if not runs and not shown:
        raise InputError("kind: the figure path needs a run of train, or a detect-saddles result with its saddles.npz")
    _same_shape([*runs, *shown])
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
    axes.margins(0.09)
    legend_above(axes, 2)
    share = f"The plane holds {100 * plane.share(everything):.3g} % of the squared distances from its origin."
    captioned(fig, look, [*caption_lines([*runs, *shown]), share])
    return fig


def _same_shape(sources: Sequence[Source]) -> None:
    shapes = {tuple(s.result.task.shape) for s in sources}
    if len(shapes) > 1:
        raise InputError(f"SOURCE: found matrices of shapes {sorted(shapes)}, expected one shape for the figure path")


def _plane(runs: Sequence[Source], shown: Sequence[Source]) -> tuple[Plane, np.ndarray]:
    """The plane of the visits of the first run (not the greedy one, if there is another), and all matrices drawn."""
    matrices = [s.result.trajectory.A for s in runs] + [s.result.matrices["closest"] for s in shown]
    everything = np.concatenate(matrices)
    own = [s for s in runs if s.result.config.dynamics != "greedy"] or list(runs)
    if not own:
        first = shown[0].result.matrices
        return plane_of(first["critical"][first["member"] == first["member"][0]], first["closest"]), everything
    result = own[0].result
    run, rows = members_of(result)[0]
    index, _ = visited(result, run, rows)
    path = result.trajectory.A
    return plane_of(path[index] if len(index) else path[rows[[0, -1]]], path[rows]), everything


def _draw_run(axes: Axes, source: Source, plane: Plane, position: int) -> None:
    result = source.result
    members = members_of(result)
    look = line_style(position)
    points, ranks = [], []
    for k, (run, rows) in enumerate(members):
        xy = plane.project(result.trajectory.A[rows])
        style = look if len(members) == 1 else {"color": look["color"], "linewidth": 0.5, "alpha": 0.4}
        name = source.label or "path" if len(members) == 1 else f"{source.label} {len(members)} starts".strip()
        axes.plot(*xy.T, **style, label=name if k == 0 else None, gid="path")
        index, its_ranks = visited(result, run, rows)
        points.append(plane.project(result.trajectory.A[index]))
        ranks += its_ranks
        if not len(index):
            axes.plot(*xy[:1].T, **{**marker_style(position), "markerfacecolor": "white"}, linestyle="none")
            axes.plot(*xy[-1:].T, **marker_style(position), linestyle="none", gid="end")
    _draw_visits(axes, np.concatenate(points), ranks, position, few=len(members) == 1)


def _draw_visits(axes: Axes, xy: np.ndarray, ranks: Sequence[int], position: int, *, few: bool) -> None:
    if not len(xy):
        return
    size = {} if few else {"markersize": 3, "alpha": 0.6}
    look = {**marker_style(position), "markerfacecolor": "white", "linestyle": "none", "zorder": 4, **size}
    axes.plot(*xy.T, **look, label="closest to a critical point" if position == 0 else None, gid="visits")
    if position == 0:
        for rank in sorted(set(ranks)):
            where = np.mean([p for p, r in zip(xy, ranks, strict=True) if r == rank], axis=0)
            axes.annotate(
                f"rank {rank}", where, xytext=(-6 if rank == min(ranks) else 6, 4), textcoords="offset points",
                ha="right" if rank == min(ranks) else "left", va="bottom", fontsize="small", gid="rank",
            )  # fmt: skip


def _draw_greedy_run(axes: Axes, source: Source, plane: Plane) -> None:
    xy = plane.project(source.result.trajectory.A)
    axes.plot(*xy.T, **THEORY, label=r"greedy path, $\alpha \to 0$", gid="greedy")


def _draw_detection(axes: Axes, source: Source, plane: Plane) -> None:
    matrices = source.result.matrices
    critical = plane.project(matrices["critical"])
    axes.plot(
        *critical.T, linestyle="none", marker="+", color="black", markersize=9, zorder=5, label="critical points",
        gid="critical",
    )  # fmt: skip
    if len(matrices["greedy"]):
        greedy = plane.project(matrices["greedy"])
        axes.plot(
            *greedy.T, linestyle="none", marker="x", color="black", markersize=6, zorder=5,
            label=r"those of the greedy path", gid="greedy",
        )  # fmt: skip

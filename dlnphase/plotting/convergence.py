"""Convergence to the greedy path: how near each path passes by the critical points of α → 0, against α."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlnphase.errors import InputError
from dlnphase.plotting.data import FigureData, data_of
from dlnphase.plotting.sources import ResultSource, caption_lines, detections_of, runs_of
from dlnphase.plotting.style import THEORY, Look, captioned, legend_above, letters, line_style, marker_style, new_figure
from dlnphase.plotting.timeline import Arrangement, members_of
from dlnphase.results.detect import DetectResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figure(sources: Sequence[ResultSource], look: Look, arrangement: Arrangement | None = None) -> Figure:
    """Runs of several sizes of initialisation, beside one ``detect-saddles --greedy``, which knows the greedy path.

    The saddles of the greedy path are those refined to round-off; its end is left out, where every path ends within
    its tolerance.

    Raises:
        InputError: without a greedy path, or without a run of the same shape beside it.
    """
    runs, known = _shown(sources)
    detected: DetectResult = known.result
    fig, (left, right) = new_figure(look, 1, 2, height=1.0)
    _draw_approach(left, runs, detected)
    _draw_costs(right, runs, detected)
    for ax in (left, right):
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel(r"$\alpha = \sigma\sqrt{w}$")
        legend_above(ax, 2)
    letters((left, right))
    captioned(fig, look, caption_lines([*runs, known]))
    return fig


def shows(sources: Sequence[ResultSource]) -> bool:
    """Whether there are two runs, and a detection beside them."""
    return len(runs_of(sources)) > 1 and bool(detections_of(sources))


def data(sources: Sequence[ResultSource]) -> FigureData:
    """A row for every start and saddle of the greedy path: α, the least distance, the cost of its plateau there."""
    runs, known = _shown(sources)
    points, ranks, costs, unit = saddles_of(known.result)
    rows: list[tuple[ResultSource, list[tuple[Any, ...]]]] = []
    for source in runs:
        alphas, table = approach([source], points, unit)
        its = []
        for number, (run, _) in enumerate(members_of(source.result)):
            plateaus = {p.rank: p.measured for p in run.theory.plateaus}
            for rank, distance, cost in zip(ranks, table[number].tolist(), costs, strict=True):
                its.append((number, float(alphas[number]), rank, distance, plateaus.get(rank), cost))
        rows.append((source, its))
    return data_of(rows, "member", "alpha", "rank", "distance", "plateau_cost", "greedy_cost")


def _shown(sources: Sequence[ResultSource]) -> tuple[list[ResultSource], ResultSource]:
    """The runs that are no greedy path, and the one detection that knows it."""
    runs = [s for s in runs_of(sources, need="convergence") if s.result.config.dynamics != "greedy"]
    known = [s for s in detections_of(sources) if s.result.matrices is not None and len(s.result.matrices["greedy"])]
    if not runs or len(known) != 1:
        raise InputError(
            "kind: the figure convergence needs runs of train beside one detect-saddles --greedy, "
            f"found {len(runs)} and {len(known)}"
        )
    if any(tuple(s.result.task.shape) != tuple(known[0].result.task.shape) for s in runs):
        raise InputError(f"SOURCE: found runs of another shape than {known[0].name}, expected the same task")
    return runs, known[0]


def saddles_of(detected: DetectResult) -> tuple[np.ndarray, list[int], list[float], float]:
    """Matrices, ranks and costs of the saddles on the greedy path, and the norm of the last matrix (its end)."""
    steps, matrices = detected.greedy_path, detected.arrays["greedy"]
    first = max(steps[0].cost - detected.task.minimum, 1e-300)
    kept = [k for k, s in enumerate(steps) if s.cost - detected.task.minimum > 1e-9 * first]
    unit = float(np.linalg.norm(matrices[-1])) or 1.0
    return matrices[kept], [steps[k].rank for k in kept], [steps[k].cost for k in kept], unit


def approach(runs: Sequence[ResultSource], points: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """α of every start (N,), and its least distance to each point over ``unit``, (N, K)."""
    alphas, distances = [], []
    for source in runs:
        path = source.result.path
        for _, rows in members_of(source.result):
            flat = path.A[rows].reshape(len(rows), -1)
            distances.append([float(np.linalg.norm(flat - p.ravel(), axis=1).min()) / unit for p in points])
            alphas.append(source.result.network.alpha)
    return np.array(alphas), np.array(distances)


def _draw_approach(axes: Axes, runs: Sequence[ResultSource], detected: DetectResult) -> None:
    points, ranks, _, unit = saddles_of(detected)
    alphas, table = approach(runs, points, unit)
    order = np.argsort(alphas)
    for k, rank in enumerate(ranks):
        axes.plot(alphas, table[:, k], linestyle="none", **marker_style(k), label=f"rank {rank}", gid=f"rank{rank}")
        axes.plot(alphas[order], table[order, k], linewidth=0.6, **line_style(k))
    theory = sorted(
        (n.alpha, start_norm(n.width, n.alpha, n.depth, s.result.task.shape) / unit)
        for s in runs
        if (n := s.result.network).width is not None
    )
    if ranks[0] == 0 and theory:
        name = r"theory, rank 0: $\sqrt{d_{out}d_{in}/w}\,\alpha^L$"
        axes.plot(*np.array(theory).T, **THEORY, label=name, gid="theory")
    axes.set_ylabel(r"$\min_t\,\|A(t) - A_k^{\mathrm{greedy}}\|_F\,/\,\|A_{\mathrm{end}}\|_F$")


def start_norm(width: int, alpha: float, depth: int, shape: tuple[int, int]) -> float:
    """√E‖A_0‖_F² = √(d_out·d_in·w^(L−1)·σ^(2L)) = √(d_out·d_in/w)·α^L: exact for Gaussian layers."""
    return float(np.sqrt(shape[0] * shape[1] / width)) * alpha**depth


def _draw_costs(axes: Axes, runs: Sequence[ResultSource], detected: DetectResult) -> None:
    _, ranks, costs, _ = saddles_of(detected)
    rows = [
        (source.result.network.alpha, {p.rank: p.measured for p in run.theory.plateaus})
        for source in runs
        for run, _ in members_of(source.result)
    ]
    for k, (rank, cost) in enumerate(zip(ranks, costs, strict=True)):
        known = [(alpha, row[rank]) for alpha, row in rows if rank in row]
        if known:
            axes.plot(*np.array(known).T, linestyle="none", **marker_style(k), label=f"rank {rank}", gid=f"cost{rank}")
        axes.axhline(cost, **{**THEORY, "linewidth": 0.8}, label="greedy path" if k == 0 else None, gid="greedy")
    axes.set_ylabel("cost of the plateau")

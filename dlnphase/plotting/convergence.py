"""Convergence to the greedy path: how near each path passes by the critical points of α → 0, against α."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlnphase.errors import InputError
from dlnphase.plotting.plane import visited
from dlnphase.plotting.sources import Source, caption_lines, runs_of
from dlnphase.plotting.style import THEORY, Look, captioned, legend_above, line_style, marker_style, new_figure
from dlnphase.plotting.timeline import Arrangement, members_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(sources: Sequence[Source], look: Look, arrangement: Arrangement | None = None) -> Figure:
    """Runs of several sizes of initialisation, and one of ``--dynamics greedy``.

    Raises:
        InputError: without a greedy run, or without a run beside it.
    """
    runs = runs_of(sources, need="convergence")
    greedy = [s for s in runs if s.result.config.dynamics == "greedy"]
    others = [s for s in runs if s.result.config.dynamics != "greedy"]
    if len(greedy) != 1 or not others:
        raise InputError(
            f"kind: the figure convergence needs runs of train beside one of --dynamics greedy, "
            f"found {len(others)} and {len(greedy)}"
        )
    points, ranks = greedy_points(greedy[0])
    alphas, table = approach(others, points)
    fig, (near, whole) = new_figure(look, 1, 2, height=1.0)
    for k, rank in enumerate(ranks):
        if k == 0:
            continue  # every small start is at the origin
        near.plot(alphas, table[:, k], linestyle="none", **marker_style(k - 1), label=f"rank {rank}", gid=f"rank{rank}")
        order = np.argsort(alphas)
        near.plot(alphas[order], table[order, k], linewidth=0.6, **line_style(k - 1))
    near.set_xscale("log")
    near.set_yscale("log")
    near.set_xlabel(r"$\alpha = \sigma\sqrt{w}$")
    near.set_ylabel(r"$\min_t\,\|A(t) - A_k^{\mathrm{greedy}}\|_F\,/\,\|A_{\mathrm{end}}\|_F$")
    legend_above(near)
    costs = plateau_costs(others)
    for k, rank in enumerate(ranks[:-1]):
        known = [(a, row[rank]) for a, row in zip(alphas, costs, strict=True) if rank in row]
        if known:
            whole.plot(*np.array(known).T, linestyle="none", **marker_style(k), label=f"rank {rank}", gid=f"cost{rank}")
        exact = greedy[0].result.theory.plateaus[k].refined
        whole.axhline(exact, **{**THEORY, "linewidth": 0.8}, label="greedy path" if k == 0 else None, gid="greedy")
    whole.set_xscale("log")
    whole.set_yscale("log")
    whole.set_xlabel(r"$\alpha = \sigma\sqrt{w}$")
    whole.set_ylabel("cost of the plateau")
    legend_above(whole)
    last = f"At rank {ranks[-1]}, where the paths end, the distance is bounded by their tolerance."
    captioned(fig, look, [*caption_lines(runs), last])
    return fig


def greedy_points(source: Source) -> tuple[np.ndarray, list[int]]:
    """The critical matrices (K, d_out, d_in) of a greedy run, and their ranks."""
    run, rows = members_of(source.result)[0]
    index, ranks = visited(source.result, run, rows)
    return source.result.trajectory.A[index], ranks


def approach(runs: Sequence[Source], points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """α of every start (N,), and its least distance to each point over the norm of the last one, (N, K)."""
    alphas, rows_out = [], []
    unit = float(np.linalg.norm(points[-1])) or 1.0
    for source in runs:
        path = source.result.trajectory
        for _, rows in members_of(source.result):
            flat = path.A[rows].reshape(len(rows), -1)
            rows_out.append([float(np.linalg.norm(flat - p.ravel(), axis=1).min()) / unit for p in points])
            alphas.append(source.result.network.alpha)
    return np.array(alphas), np.array(rows_out)


def plateau_costs(runs: Sequence[Source]) -> list[dict[int, float]]:
    """Cost of the visit of each rank, for every start."""
    out = []
    for source in runs:
        for run, _ in members_of(source.result):
            out.append({p.rank: p.measured for p in run.theory.plateaus})
    return out

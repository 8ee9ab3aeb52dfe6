"""Runs side by side: how far apart A is at equal times, and in which angle; of the weights too, where they are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dlnphase.errors import InputError
from dlnphase.plotting.data import FigureData, data_of
from dlnphase.plotting.sources import ResultSource, caption_lines, runs_of
from dlnphase.plotting.style import FAINT, Look, captioned, legend_of_all, letters, line_style, new_figure
from dlnphase.plotting.timeaxis import apply_axis, choose_axis
from dlnphase.plotting.timeline import Arrangement, axis_words, logarithmic
from dlnphase.results.train import TrainResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAME = 1e-13  # relative distances up to this are round-off, and no reason to draw an axis further down
WORDS = (
    "Distances and angles at equal times: of the first run at its records, of the others on the straight line between "
    "two of theirs; grey: what a line past one of their records misses it by, more than that leaves open."
)


@dataclass(frozen=True)
class Apart:
    """One path beside another, at N times of the first.

    Attributes:
        member: of both.
        what: ``A``, or ``weights``.
        t: times, (N,).
        distance: ‖x − y‖, (N,).
        size: the largest ‖x‖ of the first path.
        angle: between x and y, in degrees, (N,); NaN where one is 0.
        open: what straight lines past one record of y miss it by, nearby: more than those between two, (N,).
    """

    member: int
    what: str
    t: np.ndarray
    distance: np.ndarray
    size: float
    angle: np.ndarray
    open: np.ndarray


def figure(sources: Sequence[ResultSource], look: Look, arrangement: Arrangement) -> Figure:
    """Relative distance at the left and angle at the right, every run beside the first."""
    runs = _needed(sources)
    fig, axes = new_figure(look, 1, 2)
    kind = choose_axis([s.result for s in runs], arrangement.time)
    shares = []
    for position, source in enumerate(runs[1:]):
        for apart in compare(runs[0].result, source.result):
            style = line_style(2 * position + (apart.what != "A"))
            words = "$A$" if apart.what == "A" else "weights"
            label = f"{words}: {source.label or source.name}"
            share, left = (np.where(x > 0, x, np.nan) / apart.size for x in (apart.distance, apart.open))
            axes[0].plot(apart.t, share, **style, label=label, gid="distance")
            axes[0].plot(apart.t, left, color=FAINT, linewidth=0.6, gid="open")
            axes[1].plot(apart.t, apart.angle, **style, label=label, gid="angle")
            shares.append(share)
    told = np.concatenate(shares)
    logarithmic(axes[0], told[told > SAME] if (told > SAME).any() else told)
    first = runs[0].label or runs[0].name
    axes[0].set_ylabel("distance, of the largest norm")
    axes[1].set_ylabel("angle in degrees")
    for ax in axes:
        apply_axis(ax, kind, [s.result for s in runs])
    letters(axes)
    legend_of_all(fig, axes)
    lines = [*caption_lines(runs), f"Beside {first}. {WORDS}"]
    captioned(fig, look, [*lines, *axis_words([ax.get_xscale() for ax in axes], [arrangement.time])])
    return fig


def data(sources: Sequence[ResultSource]) -> FigureData:
    """Every time of the first run within both, of every other run beside it."""
    runs = _needed(sources)
    rows: list[tuple[ResultSource, list[tuple[Any, ...]]]] = []
    for source in runs[1:]:
        its = [
            (apart.member, apart.what, *row)
            for apart in compare(runs[0].result, source.result)
            for row in zip(*(x.tolist() for x in (apart.t, apart.distance, apart.angle, apart.open)), strict=True)
        ]
        rows.append((source, its))
    return data_of(rows, "member", "quantity", "t", "distance", "angle", "open")


def _needed(sources: Sequence[ResultSource]) -> list[ResultSource]:
    """At least two runs of one shape, the first the one that the others stand beside."""
    runs = runs_of(sources, need="difference")
    if len(runs) < 2:
        raise InputError("kind: difference shows a run beside others, found fewer than two")
    for source in runs[1:]:
        (here, there) = (s.result.path.A.shape[1:] for s in (runs[0], source))
        if here != there or not any(True for _ in compare(runs[0].result, source.result)):
            raise InputError(
                f"SOURCE: {source.path.parent}: found A of {there[0]}x{there[1]} or no time in common, expected a run "
                f"like the first, {here[0]}x{here[1]}, with a start of the same number"
            )
    return runs


def shows(sources: Sequence[ResultSource]) -> bool:
    """Whether there are two runs with matrices of one shape."""
    shapes = {s.result.path.A.shape[1:] for s in runs_of(sources) if s.result.trajectory is not None}
    return len(runs_of(sources)) > 1 and len(shapes) == 1


def compare(first: TrainResult, second: TrainResult) -> Iterator[Apart]:
    """Of the starts that both runs have: A, then the weights where both have kept them in one shape."""
    for (member, t, x), (_, s, y) in _paired(_matrices(first), _matrices(second)):
        yield _apart(member, "A", t, x, s, y)
    if first.observed is not None and second.observed is not None:
        for (member, t, x), (_, s, y) in _paired(_weights(first), _weights(second)):
            yield _apart(member, "weights", t, x, s, y)


Path = tuple[int, np.ndarray, np.ndarray]  # member, times (T,), points (T, N)


def _matrices(result: TrainResult) -> list[Path]:
    path = result.path
    members = dict.fromkeys(path.member.tolist())
    return [(m, path.t[r], path.A[r].reshape(len(r), -1)) for m in members if len(r := path.rows_of(m))]


def _weights(result: TrainResult) -> list[Path]:
    seen = result.observed
    if seen is None or "W1" not in seen.values:
        return []
    layers = [w.reshape(len(w), -1) for name, w in seen.values.items() if name.startswith("W")]
    theta = np.concatenate(layers, axis=1)
    return [(m, seen.t[seen.rows_of(m)], theta[seen.rows_of(m)]) for m in dict.fromkeys(seen.member.tolist())]


def _paired(first: Sequence[Path], second: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Paths of the same start, of the same number of entries, with a time in common."""
    other = {path[0]: path for path in second}
    for path in first:
        beside = other.get(path[0])
        if beside is not None and path[2].shape[1] == beside[2].shape[1] and path[1][0] <= beside[1][-1]:
            yield path, beside


def _apart(member: int, what: str, t: np.ndarray, x: np.ndarray, s: np.ndarray, y: np.ndarray) -> Apart:
    """x at its times within those of y, beside y on its chords there."""
    within = (t >= s[0]) & (t <= s[-1])
    size = float(np.linalg.norm(x, axis=1).max())
    t, x = t[within], x[within]
    beside = chord(t, s, y)
    lengths = np.linalg.norm(x, axis=1), np.linalg.norm(beside, axis=1)
    distance = np.linalg.norm(x - beside, axis=1)
    # From the chord and the lengths: an arc cosine would lose half the digits of a small angle.
    with np.errstate(divide="ignore", invalid="ignore"):
        one, two = x / lengths[0][:, None], beside / lengths[1][:, None]
    angle = 2 * np.arctan2(np.linalg.norm(one - two, axis=1), np.linalg.norm(one + two, axis=1))
    return Apart(member, what, t, distance, size, np.degrees(angle), _open(t, s, y))


def chord(t: np.ndarray, s: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Points (N, K) at times t on the straight lines between y (T, K) at increasing times s."""
    left = np.searchsorted(s, t, side="right").clip(1, max(len(s) - 1, 1)) - 1
    right = np.minimum(left + 1, len(s) - 1)
    step = s[right] - s[left]
    share = np.divide(t - s[left], step, out=np.zeros_like(t), where=step > 0)[:, None]
    return (1 - share) * y[left] + share * y[right]


def _open(t: np.ndarray, s: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What the chord from the record before to the one behind misses each record of y by; 0 at a record itself.

    Of a smooth path the chords between neighbours miss a quarter of that.
    """
    if len(s) < 3:
        return np.zeros(len(t))
    step = s[2:] - s[:-2]
    share = np.divide(s[1:-1] - s[:-2], step, out=np.zeros_like(step), where=step > 0)[:, None]
    middle = (1 - share) * y[:-2] + share * y[2:]
    missed = np.linalg.norm(y[1:-1] - middle, axis=1)
    return np.where(np.isin(t, s), 0.0, np.interp(t, s[1:-1], missed))

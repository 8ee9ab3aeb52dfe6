"""The time axis: linear, logarithmic, or rescaled around the bursts so that every one of them is seen.

Plateaus can last 10¹⁰ times longer than the bursts between them. On the rescaled axis each burst k has its own
stretch, x = c_k ± g(asinh(|t − t_k|/τ_k)): linear within τ_k of the burst, logarithmic in |t − t_k| beyond, with τ_k
the time in which the cost makes the middle 80 % of its fall. g leaves what is near a burst as it is and gives the
decades further out less room (the same to all), so that long plateaus do not push the bursts together. Near a saddle
modes grow as powers of the time that is left, so they are straight lines there. The data keep their own times; only
the axis is bent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from dlnphase.results.train import Member, TrainResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NARROW = 1 / 200  # a burst below this share of the axis cannot be seen on a linear one
SHORT = 1 / 30  # a plateau below this share of the axis has no room for its label
DONE_EARLY = 0.1  # bursts that are all over by this share of the time leave a linear axis to the tail
NEAR, ROOM = 3.0, 7.0  # of the rescaled axis: what counts as near a burst, and the most that one side of it takes
BURST, END, BETWEEN = 0, 1, 2  # what a labelled time is, those that matter most first
GREY = "#777777"
EARLY = 0.03  # a cost that is done with half its decades this early asks for a logarithmic axis


@dataclass(frozen=True)
class BurstClock:
    """The rescaled time of one path.

    Attributes:
        bursts: t_k, ascending, shape (K,), K ≥ 1.
        widths: τ_k > 0, shape (K,).
    """

    bursts: np.ndarray
    widths: np.ndarray
    _share: float = field(init=False)
    _joints: np.ndarray = field(init=False)
    _centres: np.ndarray = field(init=False)
    _borders: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        joints = (self.bursts[1:] + self.bursts[:-1]) / 2
        gaps = np.concatenate([[self.bursts[0]], self.bursts[1:] - joints, joints - self.bursts[:-1]])
        widths = np.concatenate([self.widths[:1], self.widths[1:], self.widths[:-1]])
        longest = float(np.arcsinh(gaps / widths).max())
        share = min(1.0, (ROOM - NEAR) / max(longest - NEAR, 1e-9))
        object.__setattr__(self, "_share", share)
        object.__setattr__(self, "_joints", joints)
        sides = self._bent(np.arcsinh(gaps / widths))
        count = len(self.bursts)
        steps = sides[1:count] + sides[count:]
        object.__setattr__(self, "_centres", sides[0] + np.concatenate([[0.0], np.cumsum(steps)]))
        object.__setattr__(self, "_borders", self.forward(joints))

    def forward(self, time: np.ndarray) -> np.ndarray:
        """t → x."""
        time = np.asarray(time, dtype=float)
        k = np.searchsorted(self._joints, time)
        return self._centres[k] + self._bent(np.arcsinh((time - self.bursts[k]) / self.widths[k]))

    def inverse(self, x: np.ndarray) -> np.ndarray:
        """x → t."""
        x = np.asarray(x, dtype=float)
        k = np.searchsorted(self._borders, x)
        away = x - self._centres[k]
        straight = np.where(np.abs(away) <= NEAR, away, np.sign(away) * (NEAR + (np.abs(away) - NEAR) / self._share))
        return self.bursts[k] + self.widths[k] * np.sinh(np.clip(straight, -300, 300))

    def _bent(self, a: np.ndarray) -> np.ndarray:
        far = np.abs(a) - NEAR
        return np.where(far <= 0, a, np.sign(a) * (NEAR + self._share * far))

    def minor_ticks(self, start: float, end: float) -> np.ndarray:
        """Times at 1, 10², 10⁴, … widths from each burst, within its stretch."""
        edges = np.concatenate([[start], self._joints, [end]])
        out = []
        for k, (burst, width) in enumerate(zip(self.bursts, self.widths, strict=True)):
            for power in range(0, 40, 2):
                for t in (burst - width * 10.0**power, burst + width * 10.0**power):
                    if edges[k] < t < edges[k + 1]:
                        out.append(t)
        return np.array(sorted(out))


def burst_clock(result: TrainResult, member: Member | None = None) -> BurstClock | None:
    """The clock of one path of a run, or of its starts together; None for a path without transitions.

    Of several starts it is that of the ranks which most of them went through: t_k their mean times, τ_k what holds the
    duration of the burst and all of their times, so that the starts stay apart; None where no more than half agree.
    """
    if member is None and result.members:
        return _clock_of_starts(result)
    rows = (member or result).rank_transitions
    if not rows:
        return None
    path = result.path
    of = path.rows_of(member.member if member is not None else int(path.member[0]))
    t, cost = path.t[of].astype(float), path.cost[of].astype(float)
    bursts = np.array([row.time for row in rows])
    edges = np.concatenate([[t[0]], (bursts[1:] + bursts[:-1]) / 2, [t[-1]]])
    widths = [
        _fall_time(t, cost, row.cost_before, row.cost_after, edges[k], edges[k + 1]) for k, row in enumerate(rows)
    ]
    return BurstClock(bursts, np.array(widths))


def _clock_of_starts(result: TrainResult) -> BurstClock | None:
    ways = [
        (m.rank_transitions[0].from_rank, *(r.to_rank for r in m.rank_transitions))
        for m in result.members
        if m.rank_transitions
    ]
    (common, count), *_ = Counter(ways).most_common(1) or [((), 0)]
    if 2 * count <= len(result.members):
        return None
    alike = [m for m in result.members if tuple(r.to_rank for r in m.rank_transitions) == common[1:]]
    clocks = [clock for m in alike if (clock := burst_clock(result, m)) is not None]
    bursts = np.array([c.bursts for c in clocks])
    reach = np.abs(bursts - bursts.mean(0)).max(0)
    return BurstClock(bursts.mean(0), np.maximum(reach, np.mean([c.widths for c in clocks], axis=0)))


def choose_axis(runs: Sequence[TrainResult], wanted: str = "auto") -> str:
    """``linear``, ``log`` or ``bursts`` for runs that share one axis.

    ``bursts`` needs a single run with a clock (:func:`burst_clock`); elsewhere log stands in for it.
    """
    single = len(runs) == 1 and burst_clock(runs[0]) is not None
    if wanted == "bursts" and not single:
        return "log"
    if wanted != "auto":
        return wanted
    clocks = [clock for run in runs for clock in _clocks(run)]
    if clocks:
        end = max(float(run.path.t.max()) for run in runs)
        hidden = min(float(np.diff(c.bursts, prepend=0.0).min()) for c in clocks) < SHORT * end
        early = max(float(c.bursts.max()) for c in clocks) < DONE_EARLY * end
        thin = min(float(c.widths.min()) for c in clocks) < NARROW * end
        if single and (hidden or early or thin):
            return "bursts"
        return "log" if hidden or early else "linear"
    return "log" if any(_early(run) for run in runs) else "linear"


def _clocks(run: TrainResult) -> list[BurstClock]:
    """The clock of a run; those of its starts where they have none together."""
    together = burst_clock(run)
    found = [together] if together is not None else [burst_clock(run, m) for m in run.members]
    return [clock for clock in found if clock is not None]


def apply_axis(axes: Axes, kind: str, runs: Sequence[TrainResult], *, label: bool = True) -> None:
    """Scale, limits, ticks and label of the time axis."""
    ends = [float(r.path.t.max()) for r in runs]
    end = max(ends) or 1.0
    if kind == "log":
        axes.set_xscale("log")
        axes.set_xlim(min(_first_time(runs), end / 10), end)  # a single record has no time before it
        words = "time $t$"
    elif kind == "bursts" and (clock := burst_clock(runs[0])) is not None:
        _bend(axes, clock, end)
        words = "time $t$, stretched around bursts"
    else:
        axes.set_xlim(0, end)
        words = "time $t$"
    if label:
        axes.set_xlabel(words)


def _bend(axes: Axes, clock: BurstClock, end: float) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter

    start = 0.0
    axes.set_xscale("function", functions=(clock.forward, clock.inverse))
    axes.set_xlim(start, end)
    ticks = labelled_times(clock, end)
    axes.xaxis.set_major_locator(FixedLocator([t for t, _ in ticks]))
    axes.xaxis.set_major_formatter(FixedFormatter([short(t) for t, _ in ticks]))
    for tick, (_, weight) in zip(axes.xaxis.get_major_ticks(), ticks, strict=True):
        tick.label1.set_gid(f"time{weight}")  # tidy drops those that matter least where they collide
        if weight > BURST:
            tick.label1.set_color(GREY)
            tick.tick1line.set_color(GREY)
    axes.xaxis.set_minor_locator(FixedLocator([float(t) for t in clock.minor_ticks(start, end)]))
    axes.xaxis.set_minor_formatter(NullFormatter())


def labelled_times(clock: BurstClock, end: float) -> list[tuple[float, int]]:
    """Times worth a label on the rescaled axis, ascending, with their weight: bursts, the two ends, round ones between.

    Between two of these stands the roundest time of the middle half of the way on the page.
    """
    fixed = sorted({0.0: END, float(end): END, **{float(t): BURST for t in clock.bursts}}.items())
    out = list(fixed)
    for (low, _), (high, _) in pairwise(fixed):
        a, b = clock.forward(np.array([low, high]))
        first, last = clock.inverse(np.array([a + (b - a) / 4, b - (b - a) / 4]))
        time = _roundest(float(first), float(last))
        if low < time < high:
            out.append((time, BETWEEN))
    return sorted(out)


def _roundest(low: float, high: float) -> float:
    """The number in [low, high] with the fewest digits."""
    if not low < high:
        return low
    power = np.floor(np.log10(high))
    while True:
        for step in (5, 2, 1):
            unit = step * 10.0**power
            if np.ceil(low / unit) * unit <= high:
                return float(np.ceil(low / unit) * unit)
        power -= 1


def short(value: float) -> str:
    """A number for a tick: 6.52, 7.13×10¹⁰."""
    if value == 0:
        return "0"
    power = int(np.floor(np.log10(abs(value))))
    if -3 <= power < 4:
        return f"{value:.3g}" if power < 3 else f"{value:.0f}"
    front = f"{value / 10.0**power:.2f}"
    return rf"$10^{{{power}}}$" if front == "1.00" else rf"${front}\!\times\!10^{{{power}}}$"


def power_of_ten(value: float) -> str:
    """A width for a label: powers of ten as such, however small, so that 10² stands beside 10⁴."""
    power = round(float(np.log10(value))) if value >= 10 else 0
    return f"$10^{{{power}}}$" if power and value == 10.0**power else short(value)


def _members(run: TrainResult) -> Sequence[TrainResult | Member]:
    return run.members or (run,)


def _fall_time(t: np.ndarray, cost: np.ndarray, before: float, after: float, start: float, end: float) -> float:
    """Time from 10 % to 90 % of the fall of the cost within [start, end]; never below what the times resolve."""
    inside = (t >= start) & (t <= end)
    times, fall = t[inside], (before - cost[inside]) / max(before - after, 1e-300)
    resolved = 64 * np.finfo(float).eps * max(float(end), 1e-300)
    if len(times) < 2:
        return max((end - start) * 1e-3, resolved)
    fall = np.maximum.accumulate(fall)
    low, high = np.interp([0.1, 0.9], fall, times)
    return max(float(high - low), resolved)


def _early(run: TrainResult) -> bool:
    """Whether half the decades of the cost are gone in the first few per cent of the time."""
    path = run.path
    rows = path.rows_of(int(path.member[0]))
    t, excess = path.t[rows], np.maximum(path.excess[rows], 1e-300)
    if len(t) < 3 or excess[0] <= excess[-1]:
        return False
    middle = np.sqrt(excess[0] * excess[-1])
    return bool(t[np.argmax(excess <= middle)] < EARLY * t[-1])


def _first_time(runs: Sequence[TrainResult]) -> float:
    """Where a logarithmic axis begins: well before the first burst, or where the cost begins to move."""
    starts = []
    for run in runs:
        path = run.path
        times = [row.time for m in _members(run) for row in m.rank_transitions]
        positive = path.t[path.t > 0]
        if times:
            starts.append(min(times) / 30)
        elif len(positive):
            moved = path.t[(path.t > 0) & (path.excess < 0.99 * path.excess[0])]
            starts.append(float(moved.min()) / 3 if len(moved) else float(positive.min()))
    return min(starts) if starts else 1e-3

"""What is found along a path and over widths, as plain values: results hold them, and load neither torch nor scipy."""

from __future__ import annotations

from dataclasses import dataclass


def counted(count: int, word: str) -> str:
    """``1 step``, ``3 steps``, ``1 entry``, ``2 entries``: a number of things in words."""
    if count == 1:
        return f"1 {word}"
    return f"{count} {word.removesuffix('y')}ies" if word.endswith("ry") else f"{count} {word}s"


@dataclass(frozen=True)
class RankTransition:
    """From one visit to the next.

    Attributes:
        from_rank, to_rank: ranks of the critical points visited before and after.
        time: when −dC/dt is largest, interpolated between records.
        step: of the record nearest to that.
        dwell: time since the transition before this one, or since the start.
        cost_before, cost_after: C(A) at the closest records of the two visits.
        singular_values: of A at the visit after, largest first.
        prominence: of the visit left, in decades.
    """

    from_rank: int
    to_rank: int
    time: float
    step: int
    dwell: float
    cost_before: float
    cost_after: float
    singular_values: list[float]
    prominence: float


@dataclass(frozen=True)
class TimedLimit:
    """A limit of a step that changed.

    Attributes:
        time: from which on it held.
        limit: the curvature at which that step becomes unstable.
    """

    time: float
    limit: float


@dataclass(frozen=True)
class Sharpness:
    """The largest eigenvalue of the Hessian of the loss in the weights along a path, beside the step.

    Attributes:
        start, end: at the start and at the end; of several starts their means.
        largest: at any of the records looked at.
        limit: at which the step becomes unstable, of the last step's size; None for dynamics without such a limit.
        formula: of it, ``2/η`` or with momentum ``2(1 + β)/η``.
        above: share of the records looked at with a sharpness of at least the limit then.
        verdict: ``stable`` (always below it), ``edge-of-stability`` (it came up to the limit, and the path went on),
            ``catapult`` (above it in the beginning alone), ``unstable`` (the run diverged); None without a limit.
        limits: of a step that changed, each limit with the time from which on it held; else none.
    """

    start: float
    largest: float
    end: float
    limit: float | None = None
    formula: str = ""
    above: float = 0.0
    verdict: str | None = None
    limits: tuple[TimedLimit, ...] = ()


@dataclass(frozen=True)
class Dwells:
    """How long several starts stayed at a rank before they jumped away from it.

    Attributes:
        rank: of the critical point: a saddle, or with weight decay maybe a local minimum that is passed.
        count: stays that ended with a jump, of each start as many as there were; where it stays in the end is none.
        starts: how many starts they are of.
        mean, std: of the time, the latter 0 for a single stay.
        minimum, q10, q25, median, q75, q90, maximum: the time that no stay, a tenth, a quarter, … is shorter than.
    """

    rank: int
    count: int
    starts: int
    mean: float
    std: float
    minimum: float
    q10: float
    q25: float
    median: float
    q75: float
    q90: float
    maximum: float


@dataclass(frozen=True)
class StartShare:
    """The share of the starts that did something.

    Attributes:
        starts, of: how many did, out of how many.
        share: their quotient.
        ci95: 95 % interval of the probability behind it (Wilson 1927).
    """

    starts: int
    of: int
    share: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class RankJump:
    """A path's change from the basin of one rank to that of another, at a time."""

    from_rank: int
    to_rank: int
    time: float


@dataclass(frozen=True)
class JumpShare:
    """The starts that jumped from one rank to another.

    Attributes:
        from_rank, to_rank: before and after.
        jumps: how often it happened, all starts together.
        made: by how many starts.
        median_time: of these jumps; None in a file of before that was told.
    """

    from_rank: int
    to_rank: int
    jumps: int
    made: StartShare
    median_time: float | None = None


@dataclass(frozen=True)
class EndShare:
    """The starts that ended at a rank: ``ended`` counts them among those that did not diverge."""

    rank: int
    ended: StartShare


@dataclass(frozen=True)
class Distributions:
    """What several starts of a run or a cell did, as distributions.

    Attributes:
        starts: how many they are.
        dwells: per rank that was left, ascending; none under noise.
        jumps: per pair of ranks, ascending.
        up, down: the starts that jumped to a higher, to a lower rank at least once; None where jumps are not told.
        ends: per rank at the end, ascending.
        jumps_by: what jumps were told from: ``visits`` of critical points; under noise, which hides these, ``basins``
            with weight decay (the minimum that the descent goes to without noise), else None: not told.
    """

    starts: int
    dwells: tuple[Dwells, ...]
    jumps: tuple[JumpShare, ...]
    up: StartShare | None
    down: StartShare | None
    ends: tuple[EndShare, ...]
    jumps_by: str | None = "visits"


@dataclass(frozen=True)
class Mode:
    """One singular value of A as it is learned, whether or not the saddle before it was visited.

    Attributes:
        mode: number, 1 for the largest at the end.
        size: at the end of the path.
        time: when it first passes half of that, interpolated between records; None if it was larger from the start.
        rise: from 10 to 90 % of its size, around that; None if it began above 10 %.
        separation: time since the mode learned just before it over the mean of their rises, or the one that is known:
            above 1 they come one after the other, far below 1 together; None for the first one, and without any rise.
    """

    mode: int
    size: float
    time: float | None
    rise: float | None
    separation: float | None


@dataclass(frozen=True)
class ModeSpread:
    """A mode over several members: how many learned it, and mean, standard deviation and range of its time."""

    mode: int
    members: int
    time_mean: float | None
    time_std: float | None
    time_min: float | None
    time_max: float | None
    size_std: float


@dataclass(frozen=True)
class NoiseFloor:
    """A path at the record where it has learned so many modes and no more, beside noise alone.

    Attributes:
        rank: k.
        time: of that record, a visit where there was one.
        cost: C(A) there.
        expected, spread: mean and standard deviation of the cost that noise alone leaves at the best matrix of rank k.
        test_cost: there, or None.
    """

    rank: int
    time: float
    cost: float
    expected: float
    spread: float
    test_cost: float | None = None


@dataclass(frozen=True)
class Noise:
    """Where a path meets the noise in its data.

    Attributes:
        level: standard deviation σ.
        source: ``given`` (noise_level), ``planted`` (noise) or ``measured``.
        rank: the least at which noise alone explains the cost that is left, within two standard deviations: the modes
            after it fit noise. None where the cost stayed above it, and where that is not decided.
            Modes that are learned together are told late.
        time: when the cost first came down to it.
        chance: measured: of noise, to look as unlike noise as what was left; above 0.05.
        floors: rank by rank, as far as the path learned one mode after the other.
    """

    level: float
    source: str
    rank: int | None
    time: float | None
    chance: float | None
    floors: tuple[NoiseFloor, ...]

    @property
    def skipped(self) -> int | None:
        """The first rank told at which a matrix fits any data, where the cost was below the floor before it only there.

        A large start learns many modes at once: the rank at which noise would have explained the cost lies between the
        two, and nothing decides which it was.
        """
        known = [floor for floor in self.floors if floor.expected > 0]
        beyond = [floor for floor in self.floors if floor.expected == 0]
        if self.rank is not None or not known or not beyond or beyond[-1].cost > known[-1].expected:
            return None
        return beyond[0].rank


@dataclass(frozen=True)
class DecayedMode:
    """A mode of a factorization under weight decay λ.

    Attributes:
        mode: its number, the largest first.
        size: s, its singular value in the target.
        pays: λ_0, up to which it costs less learned than left at zero.
        largest: λ_max, up to which there is a minimum with it.
        decayed: its size at that minimum, 0 where there is none.
        measured: its size at the end of the run, uᵀAv for its singular vectors.
    """

    mode: int
    size: float
    pays: float
    largest: float
    decayed: float
    measured: float


@dataclass(frozen=True)
class DecayTheory:
    """What theory says of weight decay, beside what came of it.

    Attributes:
        decay: λ.
        leaves: largest λ at which the start leaves the origin: ‖∇C(0)‖_op for L = 2, and for L ≥ 3 times α^(L−2), to a
            factor of order 1 that the draw sets.
        left: whether it did: whether the end has a mode; of several starts whether most have.
        modes: of a factorization, else none; of several starts ``measured`` is the mean.
    """

    decay: float
    leaves: float
    left: bool
    modes: tuple[DecayedMode, ...] = ()


@dataclass(frozen=True)
class Norms:
    """How sparse one matrix is.

    Attributes:
        rank: number of modes: of the critical point a path's end is near, else of singular values above 1e-6 of the
            largest; of a nuclear-norm minimiser, above what its gap leaves open as well.
        nuclear: Σσ_i.
        schatten: (Σσ_i^(2/L))^(L/2).
    """

    rank: int
    nuclear: float
    schatten: float


@dataclass(frozen=True)
class Sparsity:
    """The matrix reached beside the planted one and the nuclear-norm minimiser of the same data.

    Attributes:
        exponent: 2/L, of the quasi-norm.
        reached, planted, nuclear_minimizer: None where there is no such matrix; of several paths the mean, and the
            commonest rank.
        nuclear_gap: certified relative duality gap of the minimiser.
        words: one sentence.
    """

    exponent: float
    reached: Norms
    planted: Norms | None
    nuclear_minimizer: Norms | None
    nuclear_gap: float | None
    words: str


@dataclass(frozen=True)
class Crossing:
    """Where the curves of two widths cross.

    Attributes:
        estimate: γ.
        ci95: 95 % interval over the starts, the error of interpolation included; None with one start.
        bracket: what interpolation between the γ of the grid leaves by itself.
    """

    widths: tuple[int, int]
    estimate: float
    ci95: tuple[float, float] | None
    bracket: tuple[float, float] | None = None


@dataclass(frozen=True)
class LocalSlope:
    """The slope between two neighbouring widths."""

    widths: tuple[int, int]
    slope: float
    ci95: tuple[float, float] | None


@dataclass(frozen=True)
class Exponent:
    """One slope.

    Attributes:
        slope: d log(distance) / d log(width), mean over the starts, a width w weighing √w.
        ci95: 95 % interval of the sampling error alone (Student's t over the starts); None with one start.
        predicted: as w → ∞, or None.
        local: slopes between neighbouring widths, narrowest first.
        verdict: ``agrees`` (theory lies in the interval, widened by ``finite_width`` where that is at most 0.02),
            ``drifts`` (it does not, but the local slopes approach it as w grows: the power law has not set in),
            ``differs``, or ``open`` where theory says nothing.
        finite_width: by how much the local slope still changed between the two widest pairs of widths, which measures
            the distance from the asymptote; None with fewer than three widths.
    """

    slope: float
    ci95: tuple[float, float] | None
    predicted: float | None
    local: tuple[LocalSlope, ...]
    verdict: str
    finite_width: float | None = None

"""Follow one network, or many initialisations of it, from the start to the minimum.

result = train(TrainSettings(depth=4, width=100, gamma=2.0))
for row in result.rank_transitions:
    print(row.from_rank, row.to_rank, row.time)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dlnphase.backend import Backend
from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.costs.tasks import Task
from dlnphase.critical.decay import Decay
from dlnphase.critical.greedy import HELD, GreedyPath, GreedyPoint
from dlnphase.critical.hostcost import HostCost
from dlnphase.critical.sparsity import end_of_path
from dlnphase.critical.visited import LARGE
from dlnphase.dynamics import LARGEST_SOLVE, GradientDescent, GradientFlow, Record, Walk
from dlnphase.dynamics.step_control import FIRST_STEP, SMALLEST_STEP
from dlnphase.errors import InputError
from dlnphase.findings import RankJump, Sharpness, Sparsity
from dlnphase.networks.chain import split
from dlnphase.results import Clock
from dlnphase.results.observed import OBSERVED_FILE, Observed
from dlnphase.results.train import COMPLETED_FILES, TRAJECTORY_FILE, Member, Outcome, TrainResult
from dlnphase.settings import TrainSettings
from dlnphase.setup.build import Start, build_backend, build_limit, build_start, build_task, task_info, thread_limit
from dlnphase.setup.descending import build_draws, build_update, choose_step
from dlnphase.setup.resolved import Algorithm, Continuous, settled
from dlnphase.training.analysis import Context, analyse
from dlnphase.training.basins import Quiet, basin_jumps
from dlnphase.training.combining import combine
from dlnphase.training.completed import completed_by
from dlnphase.training.decayed import DecayedEnds, Unreached
from dlnphase.training.distributions import distributions_of
from dlnphase.training.ends import Ends
from dlnphase.training.keeping import Keeper, SavedRun, UnderWay
from dlnphase.training.modes import mean_modes
from dlnphase.training.narrow import NarrowEnds
from dlnphase.training.noise import Question, mean_noise
from dlnphase.training.notebook import in_notebook, notebook_progress
from dlnphase.training.observing import Observer, needs_parts, observed, refuse_lacking, refuse_partless, sharpness_of
from dlnphase.training.reasons import REASONS
from dlnphase.training.recording import MemberPath, PathRecorder, assemble


@dataclass(frozen=True)
class Run:
    """A run that is set up and has not begun: everything that can be refused has been checked.

    Attributes:
        settings: resolved.
        backend, task, start: what it works on.
        method: how it is followed.
        notes: lines for people about choices that were made.
        points: the critical points of a greedy path, filled in as it reaches them.
    """

    settings: TrainSettings
    backend: Backend
    task: Task
    start: Start
    method: Continuous | Algorithm
    notes: tuple[str, ...]
    points: list[GreedyPoint] = field(default_factory=list)

    @property
    def descent(self) -> Algorithm | None:
        """The discrete algorithm; None for a path in time."""
        return self.method if isinstance(self.method, Algorithm) else None


def prepare(settings: TrainSettings) -> Run:
    """Read files, draw the start, choose the step; InputError for whatever cannot work."""
    with thread_limit(settings.threads):
        return _prepare(settings)


def _prepare(settings: TrainSettings) -> Run:
    backend = build_backend(settings)
    task, settings = build_task(settings, backend, keep=settings.noisy or needs_parts(settings.record or ()))
    update = None if settings.dynamics in ("flow", "greedy") else build_update(settings)
    if settings.dynamics == "greedy":
        start = build_limit(settings, task.cost, backend)
    else:
        start = build_start(
            settings, task.cost, backend, settings.seed, weight_decay=settings.weight_decay, update=update
        )
    if settings.dynamics == "flow" and settings.init_weights is not None:
        _check_times(settings.init_weights, start, task)
    refuse_lacking(settings.record or (), start.info)
    refuse_partless(settings.record or (), task.cost)
    notes = [*start.notes, *task.notes]
    if settings.dynamics == "greedy" and settings.weight_decay and start.info.depth > 2:
        notes.append(HELD)
    if update is None:
        method: Continuous | Algorithm = Continuous.of(settings)
    else:
        draws = build_draws(settings, task.cost, start.members, settings.seed)
        lr, words = choose_step(settings, update, draws, start.network, task.cost, settings.seed)
        notes += [f"step {words}"] if words else []
        method = Algorithm(update, lr, settled(settings.max_steps, "max-steps"))
    if task.shape[0] * task.shape[1] > LARGE:
        notes.append(f"d_out·d_in is above {LARGE}: times of modes are interpolated between records of singular values")
    if settings.dynamics == "flow" and task.shape[0] * task.shape[1] > LARGEST_SOLVE:
        notes.append(f"d_out·d_in is above {LARGEST_SOLVE}: the flow takes explicit steps alone, many on long plateaus")
    return Run(settings, backend, task, start, method, tuple(notes))


def _check_times(path: str, start: Start, task: Task) -> None:
    """Refuse layers whose sizes are so unlike that the time in which they move is none that the flow can tell."""
    network = start.network
    moves = split(network.gradient(task.cost.gradient(network.product())), network.dims)
    # By way of largest entries: squares of what is compared here may leave the range of numbers.
    sizes = [float(w.abs().max()) for w in network.weights]
    rates = [float(g.abs().max()) / s for g, s in zip(moves, sizes, strict=True) if s > 0]
    if max(rates, default=0.0) * SMALLEST_STEP > FIRST_STEP:
        told = ", ".join(f"W{k} of {s:.1e}" for k, s in enumerate(sizes, 1))
        raise InputError(
            f"init-weights: {path}: entries of up to {told} move in a time of {1 / max(rates):.1e}, expected at least "
            f"{SMALLEST_STEP:g}; the same matrix with layers of like sizes moves in times that can be told"
        )


def train(
    settings: TrainSettings | Run | None = None,
    *,
    on_record: Callable[[Record], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    keeper: Keeper | None = None,
    kept: SavedRun | None = None,
) -> TrainResult:
    """Follow the dynamics from initialisation to the minimum.

    Args:
        settings: what to run (the defaults are the paper's figure), or a run that is already prepared.
        on_record: called with every record, as it comes; in a notebook, by default, a line under the cell.
        should_stop: asked after every record; True ends the run with reason ``interrupted``.
        keeper: writes the run to disk every so often, and at its end before it is analysed.
        kept: where the keeper's run was when its process ended; it goes on from there.

    Returns:
        The result, with its trajectory; a run that diverged or was interrupted has all that was done until then.

    Raises:
        InputError: for settings or files that cannot work; nothing has been run then.
    """
    run = settings if isinstance(settings, Run) else prepare(settings or TrainSettings())
    if on_record is None and in_notebook():
        on_record = notebook_progress(run)
    with thread_limit(run.settings.threads, run.start.network.theta.numel()):
        clock = Clock(run.backend, before=0.0 if kept is None else kept.seconds)
        return _result(run, _recorded(run, on_record, should_stop, keeper, kept), clock)


def _recorded(
    run: Run,
    on_record: Callable[[Record], None] | None,
    should_stop: Callable[[], bool] | None,
    keeper: Keeper | None,
    kept: SavedRun | None,
) -> UnderWay:
    """The run itself: its records, up to its end or to where it was interrupted."""
    going = _going(run)
    if keeper is not None and kept is not None:
        keeper.resume(kept, going)
        if kept.over:
            return going
    try:
        with np.errstate(over="ignore", invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            over = _follow(going, on_record, should_stop, keeper)
            if keeper is not None and going.recorder.begun:
                keeper.write(going, over=over, stopped=True)
    except KeyboardInterrupt:
        if not going.recorder.begun:
            raise  # there is nothing to make a result of
    going.recorder.stop("interrupted")
    return going


def _going(run: Run) -> UnderWay:
    """A run at its start."""
    settings, network = run.settings, run.start.network
    tol = 0.0 if settings.dynamics == "greedy" else settings.tol  # a greedy path knows its width
    ends: Ends
    if settings.weight_decay:
        info = run.start.info
        decay, width = Decay(settings.weight_decay, info.depth), min(info.full_hidden or info.hidden)
        if run.descent is not None and not run.descent.update.coupled:
            tol = 0.0  # what it shrinks is not what it steps against: it settles at no minimum of the sum
        ends = DecayedEnds(run.task.cost, decay, width, tol, _unreached(run))
    else:
        ends = NarrowEnds(network, run.task.cost, tol)
    return UnderWay(_walk(run), PathRecorder(network.batch), ends, Observer(network, wanted=bool(_looked_at(settings))))


def _looked_at(settings: TrainSettings) -> tuple[str, ...]:
    """The observables of a run: those asked for, and the sharpness beside every step η."""
    always = () if settings.lr is None else ("sharpness",)
    return tuple(dict.fromkeys((*(settings.record or ()), *always)))


def _unreached(run: Run) -> Unreached:
    """What the networks of a run with weight decay lack, as they are held."""
    held = run.start.network.theta.double().square().sum(1).cpu().numpy()
    reduced = run.start.info.representation != "full"
    lacking = np.maximum(run.start.square_norm - held, 0.0) if reduced else np.zeros(len(held))
    return Unreached(lacking, run.settings.weight_decay, run.descent)


def _follow(
    going: UnderWay,
    on_record: Callable[[Record], None] | None,
    should_stop: Callable[[], bool] | None,
    keeper: Keeper | None,
) -> bool:
    """Round by round, to the end (True) or to where it was asked to stop."""
    for records in going.walk.rounds():
        for record in records:
            going.ends.end(record)
        going.recorder.feed(records)
        going.observer.feed(records)
        if on_record is not None:
            for record in records:
                on_record(record)
        if records and should_stop is not None and should_stop():
            return False
        if keeper is not None:
            keeper.between(going)
    return True


def _walk(run: Run) -> Walk:
    """The dynamics that the settings name."""
    s, network, cost, method = run.settings, run.start.network, run.task.cost, run.method
    tol = 0.0 if s.weight_decay else s.tol  # with weight decay it is told from outside when a member is there
    if isinstance(method, Algorithm):
        draws = build_draws(s, cost, run.start.members, s.seed)
        return GradientDescent(network, cost, **vars(method), tol=tol, weight_decay=s.weight_decay, draws=draws)
    limits: dict[str, Any] = {**vars(method), "tol": tol}
    if s.dynamics == "flow":
        return GradientFlow(network, cost, **limits, weight_decay=s.weight_decay)
    return GreedyPath(
        cost, run.start.info.depth, points=run.points, width=s.width, **limits, weight_decay=s.weight_decay
    )


def _result(run: Run, going: UnderWay, clock: Clock) -> TrainResult:
    recorder = going.recorder
    cost, test = run.task.cost, run.task.test
    rtol = run.settings.rtol if run.settings.dynamics == "flow" else None
    unreached = _unreached(run) if run.settings.weight_decay else None
    context = Context(
        cost,
        test,
        run.start.info,
        task_info(cost),
        run.settings.tol,
        rtol,
        _noise_question(run),
        unreached,
        descent=run.descent,
    )
    seen = [i for i, path in enumerate(recorder.paths) if path.rows]
    if not seen:
        raise InputError("the first numbers of this run are already not finite: the start or the task is out of range")
    numbers = run.start.members
    analyses = [analyse(recorder.paths[i], int(numbers[i]), float(run.start.square_norm[i]), context) for i in seen]
    members = [replace(a.member, outcome=_advised(a.member.outcome, run)) for a in analyses]
    outcome, rows, theory, spread = combine(members)
    missing: tuple[str, ...] = ()
    if len(seen) < len(recorder.paths):  # members begin one after the other, and those that did may have ended
        missing = (f"{len(recorder.paths) - len(seen)} of {len(recorder.paths)} starts had not begun",)
        outcome = replace(outcome, reason="interrupted")
    advice = (*missing, REASONS[outcome.reason].advice(run))
    outcome = replace(outcome, advice="; ".join(words for words in advice if words))
    paths = [recorder.paths[i] for i in seen]
    spectra = [a.singular_values for a in analyses]
    decayed = unreached is not None
    trajectory = assemble(paths, numbers[seen], [a.visits for a in analyses], spectra, cost, test, decayed=decayed)
    modes, mode_spread = mean_modes([m.modes for m in members]) if len(members) > 1 else (members[0].modes, ())
    noise = mean_noise([m.noise for m in members])
    looked_at = _looked_back(run, going, seen)
    own = run.settings.target is not None and run.settings.task == "completion"
    completed = completed_by(paths, members, noise, run.task) if own else {}
    return TrainResult(
        config=run.settings,
        provenance=clock.provenance(),
        network=run.start.info,
        task=context.task,
        outcome=outcome,
        rank_transitions=rows,
        theory=theory,
        members=tuple(members) if len(members) > 1 else (),
        spread=spread,
        modes=modes,
        mode_spread=mode_spread,
        sparsity=_sparsity(run, paths, members, None if decayed else context.host),
        noise=noise,
        distributions=distributions_of(members, noisy=run.settings.noisy, basins=_basins(run, paths)),
        notes=run.notes + missing + tuple(p.note for p in run.points if p.ties > 1 or p.independent is False),
        files={"trajectory": TRAJECTORY_FILE}
        | ({} if looked_at is None else {"observed": OBSERVED_FILE})
        | {part: COMPLETED_FILES[part] for part in completed},
        trajectory=trajectory,
        observed=looked_at,
        sharpness=_sharpness(run, looked_at, outcome.reason),
        **completed,
    )


def _basins(run: Run, paths: Sequence[MemberPath]) -> list[tuple[RankJump, ...]] | None:
    """Jumps of noisy starts between the minima that weight decay leaves; None where they cannot be told."""
    s, info, descent = run.settings, run.start.info, run.descent
    if len(paths) < 2 or not (s.noisy and s.weight_decay) or descent is None or not descent.update.flows:
        return None
    width = min(info.full_hidden or info.hidden)
    return basin_jumps(paths, Quiet(run.task.cost, descent, s.weight_decay, info.depth, width))


def _looked_back(run: Run, going: UnderWay, seen: Sequence[int]) -> Observed | None:
    """What the observables say of the members that have begun; None where none was asked for."""
    names = _looked_at(run.settings)
    if not names:
        return None
    numbers, decay, paths = run.start.members, run.settings.weight_decay, going.recorder.paths
    parts = [observed(going.observer.members[i], paths[i], int(numbers[i]), names, run.task.cost, decay) for i in seen]
    there = [part for part in parts if part is not None]
    return Observed.joined(there) if there else None


def _sharpness(run: Run, looked_at: Observed | None, reason: str) -> Sharpness | None:
    """The sharpness beside the step; None without one."""
    if looked_at is None or run.descent is None:
        return None
    return sharpness_of(looked_at, reason, run.descent.lr, run.settings.momentum if run.descent.update.flows else None)


def _noise_question(run: Run) -> Question | None:
    """What is known of the noise in the data; None where none is known of and no matrix of a user's may hold some."""
    s, task = run.settings, run.task
    if not task.numbers or s.weight_decay:  # what decay takes from learned modes costs what noise would explain
        return None
    if s.noise_level is not None:
        return Question(s.noise_level, "given", task.numbers, task.weight)
    if s.noise:
        return Question(s.noise, "planted", task.numbers, task.weight)
    return Question(None, "measured", task.numbers, seed=s.data_seed or 0) if s.target is not None else None


def _sparsity(
    run: Run, paths: Sequence[MemberPath], members: Sequence[Member], host: HostCost | None
) -> Sparsity | None:
    """How sparse the ends are, where the data leaves a choice of minimum and the width lets them come to one."""
    cost = run.task.cost
    if not isinstance(cost, QuadraticCost):
        return None  # the least nuclear norm is looked for under linear equations
    if cost.unique or any(m.outcome.reached not in (None, "global-minimum") for m in members):
        return None
    ends = np.stack([path.matrices[max(path.matrices)] for path in paths])
    return end_of_path(ends, cost, run.start.info.depth, target=run.task.target, host=host)


def _advised(outcome: Outcome, run: Run) -> Outcome:
    return replace(outcome, advice=REASONS[outcome.reason].advice(run))


def failed(result: TrainResult) -> bool:
    """Whether the run failed (exit code 1); a budget that ran out is an answer, not a failure."""
    return REASONS[result.outcome.reason].fails


__all__ = ["Member", "Run", "TrainResult", "TrainSettings", "failed", "prepare", "train"]

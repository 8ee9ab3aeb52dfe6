"""A result in a few sentences: the path its starts took, when its modes were learned, how it ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from dlnphase.findings import Mode, counted
from dlnphase.results.train import Member, TrainResult
from dlnphase.settings.dynamics import ROWS
from dlnphase.training.reasons import REASONS

SEPARATE = 1.0  # modes further apart than this, in units of their rise, come one after the other
LISTED, WAYS = 5, 3  # times, and ways that several starts took, that are told one by one


def train_sentence(result: TrainResult) -> str:
    """What happened, in words; the same for the terminal, notebooks and captions."""
    sparse = f" {result.sparsity.words}" if result.sparsity is not None and _fits(result) else ""
    end = f"{_ending(result)}{_answers(result)}{_test(result)}"
    return f"{_story(result)}{_modes(result)} {end}{_sharpness(result)}{_noise(result)}{sparse}"


# ---- the path ----------------------------------------------------------------------------------------


def _story(result: TrainResult) -> str:
    """The visits: of one network, or the paths that several took, each with how many took it."""
    members = result.members or (Member(0, result.outcome, result.rank_transitions, result.theory, result.modes),)
    paths: dict[tuple[str | None, tuple[int, ...]], list[Member]] = {}
    for member in members:
        paths.setdefault((member.outcome.regime, _ranks(member)), []).append(member)
    groups = sorted(paths.values(), key=len, reverse=True)
    if len(members) == 1:
        return f"The network {_deed(members)}."
    told = [f"{len(groups[0])} of {len(members)} starts {_deed(groups[0])}"]
    told += [f"{len(group)} {_deed(group)}" for group in groups[1:WAYS]]
    rest = sum(len(group) for group in groups[WAYS:])
    told += [f"{rest} took other ways"] if rest else []
    return "; ".join(told) + "."


def _ranks(member: Member) -> tuple[int, ...]:
    rows = member.rank_transitions
    return (rows[0].from_rank, *(row.to_rank for row in rows)) if rows else ()


def _deed(members: Sequence[Member]) -> str:
    """What starts that took the same path did, in a verb; numbers are means over them."""
    regime, ranks = members[0].outcome.regime, _ranks(members[0])
    if members[0].theory.decay is not None and not ranks and all(_at_origin(m) for m in members):
        if all(m.outcome.steps == 0 for m in members):
            return "stayed at the origin, where weight decay holds it"
        return "went to the origin: every mode decays faster than it is learned"
    change = float(np.mean([m.outcome.evidence.ntk_change for m in members]))
    if regime == "saddle-to-saddle" and ranks:
        dwells = np.mean([[row.dwell for row in m.rank_transitions] for m in members], axis=0)
        longest = int(np.argmax(dwells))
        path = " → ".join(str(r) for r in ranks)
        passed = any(m.outcome.evidence.minima_passed for m in members)
        kind = "critical point" if passed else "saddle"
        past = ", past local minima" if passed else ""
        return (
            f"went from {kind} to {kind}{past}: rank {path}, waiting longest at rank {ranks[longest]} "
            f"(for {dwells[longest]:.4g} of time)"
        )
    if regime == "saddle-to-saddle":
        where = "a saddle" if members[0].theory.decay is None else "a critical point"  # it may be a minimum with decay
        left = [p.rank for p in members[0].theory.plateaus]
        if left and left[-1] != members[0].outcome.rank:
            return f"left {where} of rank {left[-1]} and came near no other critical point"
        return f"stayed at {where} of rank {members[0].outcome.rank}"
    if regime == "lazy":
        return f"hardly moved (NTK changed by {change:.2g} of itself): no saddle visited"
    if regime == "mean-field":
        return f"learned features (NTK changed by {change:.2g} of itself) without visiting a saddle"
    return "made no transition that could be told yet"


def _at_origin(member: Member) -> bool:
    """Whether a start has converged to A = 0."""
    return member.outcome.rank == 0 and member.outcome.reason == "converged"


# ---- the modes ---------------------------------------------------------------------------------------


def _modes(result: TrainResult) -> str:
    """When the modes were learned, in groups of those that came together; nothing where none rose from below half."""
    modes = sorted((m for m in result.modes if m.time is not None), key=lambda m: m.time or 0.0)
    if not modes:
        return ""
    groups: list[list[Mode]] = []
    for mode in modes:
        if groups and mode.separation is not None and mode.separation < SEPARATE:
            groups[-1].append(mode)
        else:
            groups.append([mode])
    times = [f"{group[0].time:.4g}" if len(group) == 1 else _between(group) for group in groups]
    when = ", ".join(times[:LISTED]) + (f", … {times[-1]}" if len(times) > LISTED else "")
    mean, whose = (" on average", "Their") if result.members else ("", "Its")
    if len(modes) == 1:
        return f" {whose} mode passed half its size at t = {when}{mean}."
    how = {1: "together", len(modes): "one by one"}.get(len(groups), f"in {len(groups)} groups")
    return f" {whose} {len(modes)} modes came {how}, passing half their size at t = {when}{mean}."


def _between(group: Sequence[Mode]) -> str:
    return f"{group[0].time:.4g} to {group[-1].time:.4g} ({len(group)} modes)"


# ---- the end -----------------------------------------------------------------------------------------


def _ending(result: TrainResult) -> str:
    outcome = result.outcome
    reasons = Counter(m.outcome.reason for m in result.members)
    if len(reasons) > 1:
        counts = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in reasons.most_common())
        return f"The starts ended differently ({counts}), at t = {outcome.time:.4g} on average."
    steps = f"t = {outcome.time:.4g} ({counted(outcome.steps, 'step')})"
    they = "They" if result.members else "It"
    if outcome.reason == "converged" and outcome.minimised is not None:
        return f"{they} converged at {steps}, at rank {outcome.rank}, {_decayed_goal(result, *outcome.minimised)}"
    if outcome.reason == "converged":
        least = result.task.minimum if outcome.reachable is None else outcome.reachable
        relative = (outcome.cost - least) / max(outcome.initial_cost - least, 1e-300)
        where = f"{steps}, at rank {outcome.rank}, {_goal(result)}"
        return f"{they} converged at {where} within {relative:.1e} of its start."
    relative = outcome.excess / max(outcome.initial_cost - result.task.minimum, 1e-300)
    words = REASONS[outcome.reason].words.format(they=they, were="were" if result.members else "was")
    return f"{words} at {steps}, the cost at {relative:.1e} of its start{_floor(result)}."


def _floor(result: TrainResult) -> str:
    """Why more steps would not help, where noise or steps of one size keep the cost up."""
    config = result.config
    if result.outcome.reason != "max_steps":
        return ""
    if config.label_noise or (config.batch_size is not None and result.task.minimum > 0):
        return "; at a fixed step, noise in the gradient keeps it above a floor"
    floor = ROWS[config.dynamics].floor
    return f"; {floor}" if floor else ""


def _decayed_goal(result: TrainResult, first: float, last: float) -> str:
    """What a run with weight decay converged to, and how near; ``first`` and ``last`` are what is minimised."""
    outcome, several = result.outcome, bool(result.members)
    least = outcome.reachable or 0.0
    above, start = last - least, max(first - least, 1e-300)
    what = "C + (λ/2)‖θ‖²"
    if outcome.reached == "decayed-minimum":
        goal = f"to the least {what}, {least:.4g}"
    elif outcome.reached == "decayed-local-minimum":
        goal = f"to {'minima' if several else 'a minimum'} of {what}, {least:.4g}, not known to be the least"
    else:
        goal = f"to minima of {what}, {least:.4g} on average"
    mean = " on average" if several else ""
    return f"{goal}, within {above / start:.1e} of its start (C = {outcome.cost:.4g}{mean})."


def _fits(result: TrainResult) -> bool:
    """Whether all starts reached the minimum of the cost; of files older than that was told, all that converged did."""
    outcome = result.outcome
    return outcome.reason == "converged" and (outcome.reachable is None or outcome.reached == "global-minimum")


def _goal(result: TrainResult) -> str:
    """What a run converged to."""
    outcome, minimum = result.outcome, result.task.minimum
    width = min(result.network.full_hidden or result.network.hidden)
    if outcome.reached == "width-minimum":
        least = f"to the least cost that width {width} allows, {outcome.reachable:.4g}"
        return f"{least} (at any width it is {minimum:.4g}),"
    if outcome.reached == "local-minimum":
        several = "minima" if result.members else "a minimum"
        return (
            f"to {several} of the network at cost {outcome.reachable:.4g}: width {width} keeps it above the minimum "
            f"of the cost ({minimum:.4g}), and the least cost at this width is not known;"
        )
    if outcome.reached == "no-minimum":
        return f"towards C = {minimum:.4g}, which no finite A reaches (A goes on growing),"
    reached = Counter(m.outcome.reached for m in result.members)
    if len(reached) > 1:
        told = [(count, (kind or "point").replace("-", " ")) for kind, count in reached.most_common()]
        counts = ", ".join(f"{count} to a {kind}" for count, kind in told)
        return f"{counts} (width {width} keeps some above the minimum of the cost),"
    return "to the minimum of the cost" + (f" (it is {minimum:.4g})" if minimum > 0 else "")


def _answers(result: TrainResult) -> str:
    """Shares of right answers, and of data without a minimum the margin and how far the direction has come."""
    o = result.outcome
    if o.accuracy is None:
        return ""
    mean = " on average" if result.members else ""
    words = f" {100 * o.accuracy:.2f} % of the answers in training are right{mean}"
    words += f", {100 * o.test_accuracy:.2f} % of those in the test" if o.test_accuracy is not None else ""
    if o.margin is None:
        return words + "."
    depth = result.network.depth
    norm = "the nuclear norm Σ s_i" if depth == 2 else f"(Σ s_i^(2/{depth}))^({depth}/2)"
    words += ". The data can be got right entirely, so no minimum exists: "
    yet = "" if o.accuracy == 1 else "not all answers are right yet, the worst has "
    words += f"{yet}margin {o.margin:.3g} of {norm}"
    if o.alignment is None:
        return words + "."
    return f"{words}; cos(θ, −∇𝓛) = {o.alignment:.3f}, which is 1 in the direction of largest margin."


def _test(result: TrainResult) -> str:
    outcome = result.outcome
    if outcome.test_cost is None or not outcome.initial_test_cost or outcome.reason != "converged":
        return ""
    ratio = outcome.test_cost / outcome.initial_test_cost
    if outcome.accuracy is not None:
        return f" Test cost {outcome.test_cost:.4g}, {ratio:.2g} of its start."
    if result.task.kind != "completion" or not _fits(result):
        return f" Test cost {outcome.test_cost:.4g}, {ratio:.2g} of its start."
    if result.config.target is not None:
        return f" Test cost on the entries held out: {outcome.test_cost:.4g}, {ratio:.2g} of its start."
    if result.noise is not None:
        return f" Test cost on the entries it never saw: {outcome.test_cost:.4g}, {ratio:.2g} of its start."
    if ratio < 1e-3:
        return f" The entries it never saw are recovered (test cost {ratio:.1e} of its start)."
    return f" The entries it never saw are not recovered (test cost {ratio:.2g} of its start): another exact fit."


def _sharpness(result: TrainResult) -> str:
    """How sharp the path was beside its step."""
    seen = result.sharpness
    if seen is None:
        return ""
    mean = " on average" if result.members else ""
    words = f" Sharpness {seen.end:.3g} at the end{mean}, {seen.largest:.3g} at most"
    if seen.limit is None or seen.verdict is None:
        return words + "."
    share = f", at or above it in {100 * seen.above:.2g} % of the records looked at" if seen.above else ""
    first, last = (f"{seen.limits[0].limit:.3g} at first and ", " at the end") if seen.limits else ("", "")
    return f"{words} · {seen.formula} = {first}{seen.limit:.3g}{last}: {seen.verdict.replace('-', ' ')}{share}."


# ---- the noise ---------------------------------------------------------------------------------------


def _noise(result: TrainResult) -> str:
    """Where the cost met the noise, how many modes came after, and where the test cost was least."""
    noise = result.noise
    if noise is None:
        return ""
    level = f"σ = {noise.level:.4g}, {noise.source}"
    if noise.rank is None:
        rank = noise.skipped
        if rank is not None:
            return (
                f" Whether the cost passed that of the noise ({level}) is not decided: it was next told at rank "
                f"{rank}, where a matrix can fit any data."
            )
        return f" The cost stayed above that of the noise ({level})."
    if noise.rank == 0 and noise.source == "measured":
        return (
            f" No mode stands out of the data, which might as well be noise of σ = {noise.level:.4g}: which of the "
            "modes fit noise cannot be told."
        )
    floor = next((f for f in noise.floors if f.rank == noise.rank), None)
    after = sum(mode.mode > noise.rank for mode in result.modes)
    mean = " on average" if result.members else ""
    out = f" At rank {noise.rank}"
    if noise.time is not None:
        out += f", from t = {noise.time:.4g}{mean},"
    if noise.source == "measured":
        out += f" what was left cannot be told from noise of σ = {noise.level:.4g} (measured, in what was left)"
    elif floor is not None:
        out += (
            f" noise alone explains the cost that was left: {floor.cost:.4g}, of noise ({level}) {floor.expected:.3g}"
        )
        out += f" ± {floor.spread:.2g}" if floor.spread else ""
    if after:
        what = "what may be noise" if noise.source == "measured" else "noise"
        out += f"; {'the mode after that fits' if after == 1 else f'the {after} modes after that fit'} {what}"
        if floor is not None and result.config.dynamics == "flow" and not result.members:
            out += f" (--max-time {floor.time:.4g} ends the path before {'it' if after == 1 else 'them'})"
        out += f"; {_kept(result, noise.rank, 'it' if after == 1 else 'them')}"
    tested = [f for f in noise.floors if f.test_cost is not None]
    best = min(tested, key=lambda f: f.test_cost or 0.0, default=None)
    if best is not None and result.outcome.test_cost and best.test_cost is not None:
        out += f". The test cost was least at rank {best.rank} ({best.test_cost:.4g}, at t = {best.time:.4g})"
    return out + "."


def _kept(result: TrainResult, rank: int, them: str) -> str:
    """Which of what was saved holds the modes that fit noise."""
    files = result.files
    saved = f" and {files['completed']} hold" if "completed" in files else " holds"
    without = f", {files['completed_at_noise']} (rank {rank}) does not" if "completed_at_noise" in files else ""
    return f"the end of the run{saved} {them} too{without}"

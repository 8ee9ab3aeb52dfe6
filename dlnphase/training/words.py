"""A result in one or two sentences."""

from __future__ import annotations

from dlnphase.results.train import TrainResult


def train_sentence(result: TrainResult) -> str:
    """What happened, in words; the same for the terminal, notebooks and captions."""
    outcome, rows = result.outcome, result.rank_transitions
    count = len(result.members) or 1
    who = "The network" if count == 1 else f"On average over {count} starts, the network"
    steps = f"t = {outcome.time:.4g} ({outcome.steps} steps)"
    if outcome.regime == "saddle-to-saddle" and rows:
        ranks = " → ".join(str(r) for r in [rows[0].from_rank, *(row.to_rank for row in rows)])
        longest = max(rows, key=lambda row: row.dwell)
        story = (
            f"{who} went from saddle to saddle: rank {ranks}, waiting longest at rank {longest.from_rank} "
            f"(for {longest.dwell:.4g} of time)"
        )
    elif outcome.regime == "saddle-to-saddle":
        story = f"{who} is still at a saddle of rank {outcome.rank}"
    elif outcome.regime == "lazy":
        change = outcome.evidence.ntk_change
        story = (
            f"{who} learned all modes at once and hardly moved "
            f"(its NTK changed by {change:.2g} of itself): no saddle visited"
        )
    elif outcome.regime == "mean-field":
        change = outcome.evidence.ntk_change
        story = f"{who} learned features (its NTK changed by {change:.2g} of itself) without visiting a saddle"
    else:
        story = f"{who} made no transition that could be told yet"
    sparse = f" {result.sparsity.words}" if result.sparsity is not None and outcome.reason == "converged" else ""
    return f"{story}. {_ending(result, steps)}{_test(result)}{sparse}"


def _ending(result: TrainResult, steps: str) -> str:
    outcome = result.outcome
    relative = outcome.excess / max(outcome.initial_cost - result.task.minimum, 1e-300)
    if outcome.reason == "converged":
        minimum = f" (it is {result.task.minimum:.4g})" if result.task.minimum > 0 else ""
        what = f"to the minimum of the cost{minimum} within {relative:.1e} of its start"
        return f"It converged at {steps}, at rank {outcome.rank}, {what}."
    words = {
        "max_time": "The time budget ran out",
        "max_steps": "The step budget ran out",
        "diverged": "It diverged",
        "precision_floor": "It met the floor of this precision",
        "interrupted": "It was interrupted",
    }[outcome.reason]
    return f"{words} at {steps}, the cost at {relative:.1e} of its start."


def _test(result: TrainResult) -> str:
    outcome = result.outcome
    if outcome.test_cost is None or not outcome.initial_test_cost or outcome.reason != "converged":
        return ""
    ratio = outcome.test_cost / outcome.initial_test_cost
    if result.task.kind != "completion":
        return f" Test cost {outcome.test_cost:.4g}, {ratio:.2g} of its start."
    if ratio < 1e-3:
        return f" The entries it never saw are recovered (test cost {ratio:.1e} of its start)."
    return f" The entries it never saw are not recovered (test cost {ratio:.2g} of its start): another exact fit."

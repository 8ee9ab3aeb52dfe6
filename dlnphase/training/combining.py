"""Several members of a run as one: means over them, and how each transition varies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from dlnphase.critical import RankTransition
from dlnphase.findings import DecayTheory
from dlnphase.results.train import Member, Outcome, Spread, Theory
from dlnphase.training.reasons import REASONS

R = TypeVar("R")
V = TypeVar("V")


def combine(members: Sequence[Member]) -> tuple[Outcome, tuple[RankTransition, ...], Theory, tuple[Spread, ...]]:
    """Means over members, and how each transition varies."""
    if len(members) == 1:
        only = members[0]
        return only.outcome, only.rank_transitions, only.theory, ()
    groups: dict[tuple[int, int], list[RankTransition]] = {}
    for member in members:
        for row in member.rank_transitions:
            groups.setdefault((row.from_rank, row.to_rank), []).append(row)
    ordered = sorted(groups.items(), key=lambda item: item[0])
    return (
        _mean_outcome([m.outcome for m in members]),
        tuple(_mean_transition(rows) for _, rows in ordered),
        _mean_theory([m.theory for m in members]),
        tuple(_spread(rows) for _, rows in ordered),
    )


def _means(rows: Sequence[R], **told: Any) -> R:
    """A dataclass with the means of its numbers over several, each over those that have it; whole ones are rounded.

    What is no number is that of the first, but for what is told.
    """
    out: dict[str, Any] = {}
    for name in (f.name for f in fields(rows[0])):  # type: ignore[arg-type]  # of dataclasses
        numbers = [v for v in (getattr(row, name) for row in rows) if isinstance(v, (int, float))]
        if numbers:
            mean = float(np.mean(numbers))
            out[name] = mean if isinstance(numbers[0], float) else round(mean)
    return replace(rows[0], **(out | told))  # type: ignore[type-var]


def _common(values: Sequence[V]) -> V:
    return Counter(values).most_common(1)[0][0]


def _mean_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    rank = _common([o.rank for o in outcomes])
    return _means(
        outcomes,
        reason=next(r for r in REASONS if any(o.reason == r for o in outcomes)),
        regime=_common([o.regime for o in outcomes]),
        rank=rank,
        learning_coefficient=next(o.learning_coefficient for o in outcomes if o.rank == rank),
        reached=outcomes[0].reached if len({o.reached for o in outcomes}) == 1 else None,
        evidence=_means([o.evidence for o in outcomes]),
    )


def _mean_theory(theories: Sequence[Theory]) -> Theory:
    """Means of what is predicted and of what was measured, each over the members that it applies to."""
    plateaus = []
    for rank in sorted({p.rank for t in theories for p in t.plateaus}):
        seen = [p for t in theories for p in t.plateaus if p.rank == rank]
        plateaus.append(_means(seen, learning_coefficient=seen[0].learning_coefficient))  # of the rank alone
    names = dict.fromkeys(name for t in theories for name in t.predictions)
    predictions = {name: _means([t.predictions[name] for t in theories if name in t.predictions]) for name in names}
    return Theory(theories[0].regime, tuple(plateaus), predictions, _mean_decay([t.decay for t in theories]))


def _mean_decay(decays: Sequence[DecayTheory | None]) -> DecayTheory | None:
    """What several starts with weight decay came to: sizes of modes are means over them."""
    told = [d for d in decays if d is not None]
    if not told:
        return None
    modes = tuple(
        replace(rows[0], measured=float(np.mean([row.measured for row in rows])))
        for rows in zip(*(d.modes for d in told), strict=True)
    )
    return replace(told[0], left=_common([d.left for d in told]), modes=modes)


def _mean_transition(rows: Sequence[RankTransition]) -> RankTransition:
    return _means(rows, singular_values=[float(s) for s in np.mean([r.singular_values for r in rows], axis=0)])


def _spread(rows: Sequence[RankTransition]) -> Spread:
    time, dwell = np.array([r.time for r in rows]), np.array([r.dwell for r in rows])
    several = len(rows) > 1
    return Spread(
        rows[0].from_rank,
        rows[0].to_rank,
        len(rows),
        float(time.mean()),
        float(time.std(ddof=1)) if several else 0.0,
        float(time.min()),
        float(time.max()),
        float(dwell.mean()),
        float(dwell.std(ddof=1)) if several else 0.0,
    )

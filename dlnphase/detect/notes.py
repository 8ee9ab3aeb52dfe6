"""What a reader of visits should know about the path they were found on."""

from __future__ import annotations

import numpy as np

from dlnphase.critical.greedy import GreedyPoint
from dlnphase.detect.trace import PathSource
from dlnphase.results.detect import PathInfo, VisitInfo


def notes_on(source: PathSource, greedy: list[GreedyPoint]) -> tuple[str, ...]:
    """The notes of a result, a line each."""
    info = source.info
    out = list(source.task.notes)
    if info.origin == "matrices":
        out.append(f"no weights in the source: ‖∇𝓛‖ is {info.gradient}; kinds are those of balanced factors of A")
    if source.settings.planted:
        out.append(
            f"the target is planted (data-seed {source.settings.data_seed}), not taken from your run; --target FILE or "
            "--data FILE gives what it was trained on"
        )
    out += _time_words(info, source.settings.loss_scale)
    if not source.true_sizes:
        out.append("the run does not tell the sizes of the network it reduced: eigenvalues below 0: at least so many")
    if info.spacing is not None:
        low, high = info.spacing
        words = f"{low:.3g}" if high <= low * (1 + 1e-9) else f"{low:.3g} to {high:.3g}"
        filled = (
            f"; the flow was followed on {info.followed} stretch{'es' * (info.followed != 1)}" if info.followed else ""
        )
        out.append(f"records are {words} of time apart: a visit shorter than that cannot be seen{filled}")
    if info.strayed:
        out.append(
            f"on {info.strayed} stretch{'es' * (info.strayed != 1)} the flow from a record does not lead to the next: "
            "this path is not gradient flow there (large steps, noise, or another --loss-scale)"
        )
    if info.reason not in (None, "converged"):
        out.append(f"the run ended as {info.reason}: its last visit may be the place where it was stopped")
    out += [f"greedy path: {g.note}" for g in greedy if g.ties > 1]
    return tuple(out)


def _time_words(info: PathInfo, loss_scale: float) -> list[str]:
    """Whether its times are those of our gradient flow, where anything speaks against it."""
    out = []
    if info.not_flow:
        hint = "; --weight-decay takes that of it in" if "weight decay" in info.not_flow else ""
        out.append(
            f"recorded with {info.optimizer} ({info.not_flow}): its time is steps × learning rate, and the path is not "
            f"that of gradient flow{hint}"
        )
    if info.speed is not None and info.speed_range is not None and not info.ours:
        c, (low, high) = info.speed, info.speed_range
        out.append(
            f"the path goes {c:.3g} times as fast as −∇𝓛 (from {low:.4g} to {high:.4g} along it): the loss it followed "
            f"is {c:.3g} times ours, or its times are not step × learning rate; multiplied by {c:.3g} they are those "
            f"of our gradient flow (--loss-scale {c * loss_scale:.3g})"
        )
    elif info.speed is None and info.origin == "weights" and not info.not_flow:
        out.append(
            "whether its times are those of our gradient flow cannot be told: no constant factor between its speed and "
            "−∇𝓛 is seen at this spacing"
        )
    return out


def unseen_ranks(before: VisitInfo | None, visit: VisitInfo, time: np.ndarray) -> str:
    """What may have been visited between two visits of a path with these times, where ranks are left out; else ""."""
    if before is None or before.member != visit.member or "not-critical" in (before.kind, visit.kind):
        return ""
    between = range(before.rank + 1, visit.rank)
    if not between:
        return ""
    first, last = before.time.closest, visit.time.closest
    apart = float(np.diff(time[(time >= first) & (time <= last)]).max())
    ranks = f"rank {between[0]}" if len(between) == 1 else f"ranks {between[0]} to {between[-1]}"
    return (
        f"between t = {first:.4g} (rank {before.rank}) and t = {last:.4g} (rank {visit.rank}) records are up to "
        f"{apart:.3g} apart: a visit of {ranks} shorter than that cannot be seen there"
    )

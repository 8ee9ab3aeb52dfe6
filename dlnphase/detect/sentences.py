"""What was found along a path, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from dlnphase.findings import counted
from dlnphase.results.detect import DetectResult, VisitInfo


def detect_sentence(result: DetectResult) -> str:
    """One sentence (or two) in words."""
    if not result.complete:
        return f"Interrupted after {visits_in_words(result)}."
    parts = [_member_sentence(result, member) for member in result.path.members]
    if len(parts) == 1:
        return parts[0]
    common = max(set(parts), key=parts.count)
    return f"{parts.count(common)} of {len(parts)} paths: {common}"


def visits_in_words(result: DetectResult) -> str:
    """``1 visit``, ``3 visits``."""
    return f"{counted(len(result.visits), 'visit')}"


def _member_sentence(result: DetectResult, member: int) -> str:
    visits = [v for v in result.visits if v.member == member]
    saddles = [v for v in visits if v.kind in ("strict-saddle", "degenerate-saddle")]
    minima = [v for v in visits if v.kind in ("global-minimum", "local-minimum")]
    end = f"a {minima[-1].kind.replace('-', ' ')} of rank {minima[-1].rank}" if minima else "no minimum"
    if not visits:
        return "No visit: the gradient falls or rises all along without a clear minimum; no saddle is visited."
    passed = minima[:-1]  # with weight decay a path may pass a minimum above the barrier around it
    if not saddles and not passed:
        others = [v for v in visits if v.kind == "uncertified"]
        if others:
            return f"{len(others)} critical point(s) visited that were not certified; the path ends at {end}."
        return f"No saddle is visited: the path goes straight to {end}."
    told = []
    if saddles:
        kinds = sorted({v.kind.removesuffix("-saddle") for v in saddles})
        told.append("visits " + _ranked(saddles, " and ".join(kinds) + " saddle"))
    if passed:
        told.append(f"passes {_ranked(passed, 'minimum')} without coming to rest")
    words = f"The path {' and '.join(told)}"
    words += f", then reaches {end}." if minima else "; it has not reached a minimum."
    compared = [v for v in visits if v.greedy is not None]
    if compared:
        same = sum(v.greedy.same for v in compared)  # type: ignore[union-attr]
        words += f" {same} of {len(compared)} critical points are those of the greedy path of α → 0."
    return words


def _ranked(visits: Sequence[VisitInfo], name: str) -> str:
    """``2 strict saddles of rank 0, 1``."""
    plural = name if len(visits) == 1 else "minima" if name == "minimum" else f"{name}s"
    return f"{len(visits)} {plural} of rank {', '.join(str(v.rank) for v in visits)}"

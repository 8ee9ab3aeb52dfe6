"""Proofs of the visits of a path, gathered in one document; and that document checked again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.critical import HostCost, MatrixPoint
from dlnphase.detect.flow import prove_flow
from dlnphase.detect.trace import PathSource
from dlnphase.errors import InputError
from dlnphase.networks.products import Layers
from dlnphase.proofs.balls import Undecided, flint
from dlnphase.proofs.checking import NotProved, check_minimum, check_saddle
from dlnphase.proofs.minimum import prove_minimum
from dlnphase.proofs.path import Progress
from dlnphase.proofs.path_checking import PathFile, check_end, check_steps, check_time
from dlnphase.proofs.quadratic import ball_cost
from dlnphase.proofs.saddle import SaddleProof, prove_saddle
from dlnphase.results.proof import ProofDocument, ProofInfo, ProvedCost, ProvedPath, VisitProof, checksums
from dlnphase.results.provenance import Provenance


class Prover:
    """Proves one visit after the other, and keeps what a checker needs.

    Args:
        cost: that the path was trained on.

    Raises:
        InputError: when python-flint is missing, or the cost is not quadratic.
    """

    def __init__(self, cost: QuadraticCost) -> None:
        flint()
        self._cost = ball_cost(cost)
        self._host = HostCost(cost)
        self._kind = cost.kind
        self._visits: list[VisitProof] = []
        self._theorem: ProvedPath | None = None
        factor, minimizer = self._cost.factor, self._cost.minimizer
        self._arrays: dict[str, np.ndarray] = {f"cost_{self._cost.word}": factor, "cost_minimizer": minimizer}

    def visit(self, member: int, point: MatrixPoint, weights: Layers | None, hidden: Sequence[int]) -> ProofInfo:
        """Prove what a visit is: a saddle where ∇C ≠ 0, a global minimum elsewhere."""
        number = len(self._visits)
        kind = "global-minimum" if point.converged and point.next_mode == 0 else "saddle"
        try:
            if kind == "saddle":
                claim = self._saddle(number, point, weights, hidden)
            else:
                claim = self._minimum(number, weights)
        except Undecided as reason:
            claim = ProofInfo("refused", str(reason))
        self._visits.append(VisitProof(number, member, kind, claim))
        return claim

    def path(
        self,
        source: PathSource,
        *,
        before: ProofDocument | None = None,
        on_step: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> bool:
        """Prove the flow of the source from its start; False when stopped on the way.

        Raises:
            InputError: when the source is no gradient flow of a full network.
        """
        flow = prove_flow(source, self._cost, before=before, on_step=on_step, should_stop=should_stop)
        self._theorem = flow.claims
        self._arrays |= flow.arrays
        for i, v in enumerate(flow.theorem.visits if flow.theorem is not None else ()):
            arrays = saddle_arrays(f"path{i}_", v.saddle)
            self._arrays |= {n: a for n, a in arrays.items() if not n.startswith(f"path{i}_W")}
        return flow.theorem is not None or flow.claims.reason != "interrupted"

    def document(self, provenance: Provenance) -> ProofDocument:
        """Everything so far."""
        cost = ProvedCost(self._kind, self._cost.minimum, self._cost.difference)
        return ProofDocument(provenance, cost, tuple(self._visits), self._theorem, arrays=dict(self._arrays))

    def _saddle(self, number: int, point: MatrixPoint, weights: Layers | None, hidden: Sequence[int]) -> ProofInfo:
        sizes = hidden if weights is None else [w.shape[0] for w in weights[:-1]]
        proof = prove_saddle(point, self._cost, self._host, weights, sizes)
        self._arrays |= saddle_arrays(f"visit{number}_", proof)
        return ProofInfo("proved", "", proof.chart.rank, proof.cost, proof.rate, proof.distance)

    def _minimum(self, number: int, weights: Layers | None) -> ProofInfo:
        if weights is None:
            raise Undecided("the source holds no weights there, from which a minimum could be reached")
        proof = prove_minimum(weights, self._cost)
        least = self._cost.minimum
        for letter, layers in (("W", proof.weights), ("V", proof.near)):
            self._arrays |= {f"visit{number}_{letter}{l}": w for l, w in enumerate(layers, 1)}
        return ProofInfo("proved", "", None, (least, least), (0.0, 0.0), proof.distance)


def saddle_arrays(prefix: str, proof: SaddleProof) -> dict[str, np.ndarray]:
    """The numbers that the claims on a saddle rest on, by name."""
    chart = proof.chart
    arrays = {name: getattr(chart, name) for name in ("rows", "X", "Y", "X_radius", "Y_radius")}
    arrays |= {"u": proof.pair[0], "v": proof.pair[1]}
    arrays |= {f"R{l}": r for l, r in enumerate(proof.frames, 1) if chart.rank}
    arrays |= {f"W{l}": w for l, w in enumerate(proof.weights, 1)}
    return {prefix + name: array for name, array in arrays.items()}


@dataclass(frozen=True)
class Checked:
    """What the checker found.

    Attributes:
        verified: whether every claim that is made follows, and at least one is made.
        lines: one per claim, in words.
        changed: whether the files are not those that were written.
    """

    verified: bool
    lines: tuple[str, ...]
    changed: bool

    @property
    def words(self) -> str:
        """The verdict."""
        if self.verified:
            return "Verified: every claim follows from the numbers in the files."
        return "NOT verified: not every claim follows, or none is made."


def check_proof(document: ProofDocument, where: str, on_step: Callable[[int, int], None] | None = None) -> Checked:
    """Derive every claim of a proof file again.

    Args:
        where: its name, for messages.
        on_step: called after each step of a path with (how many are checked, how many there are).

    Raises:
        InputError: when the arrays are missing, or python-flint is.
    """
    flint()
    if document.arrays is None:
        raise InputError(f"{where}: {document.files.get('arrays')} is missing beside it")
    lines, good, claims = list[str](), True, 0
    for visit in document.visits:
        if visit.claim.verdict != "proved":
            lines.append(f"visit {visit.visit}: refused when it was written ({visit.claim.reason}); nothing is claimed")
            continue
        found, follows = _verdict(f"visit {visit.visit}", partial(_check_visit, visit, document))
        lines, good, claims = lines + found, good and follows, claims + 1
    theorem = document.theorem
    if theorem is not None and (theorem.visits or theorem.end.verdict == "proved"):
        found, follows = _verdict("path", partial(_check_path, theorem, document, on_step))
        lines, good, claims = lines + found, good and follows, claims + 1
    changed = checksums(replace(document, sha256={})) != document.sha256
    return Checked(good and claims > 0, tuple(lines), changed)


def _verdict(of: str, check: Callable[[], list[str]]) -> tuple[list[str], bool]:
    """The lines of a claim that was checked, and whether it follows."""
    try:
        return [f"{of}: verified, {line}" for line in check()], True
    except NotProved as why:
        return [f"{of}: NOT verified, {why}"], False
    except (KeyError, ValueError, IndexError, TypeError, ZeroDivisionError) as error:
        return [f"{of}: NOT verified, the numbers it rests on are missing or do not fit ({error})"], False


def _check_path(theorem: ProvedPath, document: ProofDocument, on_step: Callable[[int, int], None] | None) -> list[str]:
    """What follows of a path whose every claim does."""
    arrays, lines = document.arrays or {}, []
    cost, given = _part(arrays, "cost_"), _part(arrays, "path_")
    path = PathFile(given)
    if (theorem.steps, theorem.bits, theorem.radius) != path.told():
        raise NotProved("steps, bits or radius are not those of the nodes")
    check_steps(cost, given, on_step=on_step)
    rank, node, least = -1, -1, document.cost.minimum
    for i, v in enumerate(theorem.visits):
        if not (v.rank > rank and v.node > node):
            raise NotProved("the visits are not in the order of rising rank and time")
        rank, node = v.rank, v.node
        check_time(given, v.node, v.time)
        own = _part(arrays, f"path{i}_") | path.leading(v.node)
        check_saddle(cost, least, own, rank=v.rank, value=v.cost, rate=v.rate, distance=v.from_node)
        path.check_distance(v.node, v.from_node, v.distance)
        lines.append(f"a saddle of rank {v.rank} within {v.distance:.4g} at t = {v.time[0]:.6g}")
    end = theorem.end
    if end.verdict == "proved":
        if end.distance is None or end.time is None:
            raise NotProved("an end is claimed without its numbers")
        check_time(given, len(path.steps), end.time)
        check_end(cost, given, end.distance)
        lines.append(f"it converges to a global minimum within {end.distance:.4g}")
    elif theorem.verdict == "proved":
        raise NotProved("the theorem is claimed without an end")
    return lines


def _part(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def _check_visit(visit: VisitProof, document: ProofDocument) -> list[str]:
    """What follows of a visit whose claim does, a line of it."""
    arrays, claim = document.arrays or {}, visit.claim
    cost, given = _part(arrays, "cost_"), _part(arrays, f"visit{visit.visit}_")
    least = document.cost.minimum
    if visit.kind == "global-minimum":
        if claim.rank is not None or claim.distance is None:
            raise NotProved("a rank is claimed of a global minimum, or no distance")
        if claim.cost != (least, least) or claim.rate != (0.0, 0.0):
            raise NotProved("another cost or rate is claimed than a global minimum has")
        check_minimum(cost, given, distance=claim.distance)
        return [f"a global minimum within {claim.distance:.4g}"]
    if visit.kind != "saddle" or claim.rank is None or claim.cost is None or claim.rate is None:
        raise NotProved(f"found a claim of kind {visit.kind!r} without its numbers")
    check_saddle(cost, least, given, rank=claim.rank, value=claim.cost, rate=claim.rate, distance=claim.distance)
    near = "" if claim.distance is None else f", within {claim.distance:.4g}"
    return [f"a saddle of rank {claim.rank}{near}"]

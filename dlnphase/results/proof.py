"""Proof files: proof.yaml (claims), proof.npz (the numbers they rest on), proof.md (the same in words).

A proof file stands by itself: ``dlnphase detect-saddles --check proof.yaml`` needs nothing else.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from dlnphase.findings import counted
from dlnphase.results.codec import encode, memory_only
from dlnphase.results.files import npz_bytes
from dlnphase.results.provenance import Provenance
from dlnphase.results.reading import at_hand, load_with_arrays, main_file
from dlnphase.results.schema import result_text

PROOF_FILE, ARRAYS_FILE, WORDS_FILE = "proof.yaml", "proof.npz", "proof.md"
PARTS = {"proof": PROOF_FILE, "proof_arrays": ARRAYS_FILE, "proof_words": WORDS_FILE}


@dataclass(frozen=True)
class ProofInfo:
    """What was proved of a visit, by ball arithmetic.

    Attributes:
        verdict: ``proved`` or ``refused``.
        reason: why it was refused, or empty.
        rank: of the critical matrix, exactly; null for a global minimum, whose rank is not claimed.
        cost: encloses C there.
        rate: encloses s = ‖∇C‖_op there; [0, 0] at a global minimum.
        distance: an upper bound on the distance from the recorded weights to a critical point; null without weights.
    """

    verdict: str
    reason: str = ""
    rank: int | None = None
    cost: tuple[float, float] | None = None
    rate: tuple[float, float] | None = None
    distance: float | None = None


@dataclass(frozen=True)
class VisitProof:
    """What is proved of one visit.

    Attributes:
        visit: its number in saddles.yaml, from 0.
        member: which initialisation.
        kind: ``saddle``, or ``global-minimum``.
        claim: verdict and numbers.
    """

    visit: int
    member: int
    kind: str
    claim: ProofInfo


@dataclass(frozen=True)
class ProvedCost:
    """The cost that the claims are about; its numbers are in proof.npz.

    Attributes:
        kind: factorization, completion, sensing or regression.
        minimum: C_min.
        difference: how far its Hessian is from the one that training used, relatively: round-off.
    """

    kind: str
    minimum: float
    difference: float


@dataclass(frozen=True)
class ProvedVisit:
    """A visit of the flow itself.

    Attributes:
        rank: of the critical matrix, exactly.
        time: encloses a time t at which the flow is that near.
        distance: an upper bound on ‖θ(t) − θ_c‖.
        node: number of the node at t.
        cost: encloses C(A_c).
        rate: encloses s = ‖∇C(A_c)‖_op, which is above 0: no local minimum.
        from_node: an upper bound on the distance from the node's leading floats to θ_c.
    """

    rank: int
    time: tuple[float, float]
    distance: float
    node: int
    cost: tuple[float, float]
    rate: tuple[float, float]
    from_node: float


@dataclass(frozen=True)
class ProvedEnd:
    """Where the flow ends.

    Attributes:
        verdict: ``proved``: it converges to a global minimum; or ``refused``.
        reason: why it was refused, or empty.
        distance: an upper bound on the distance from the last node to that minimum.
        time: encloses the time of the last node.
    """

    verdict: str
    reason: str = ""
    distance: float | None = None
    time: tuple[float, float] | None = None


@dataclass(frozen=True)
class ProvedPath:
    """The theorem on the gradient flow from one exact start.

    Attributes:
        verdict: ``proved`` when every visit seen and the end are proved, else ``refused``.
        reason: why, or empty.
        member: which initialisation.
        visits: in the order of time, the ranks rise.
        end: where it ends.
        steps, bits, radius: steps taken, bits of a node, and the radius of the tube at its end.
    """

    verdict: str
    reason: str
    member: int
    visits: tuple[ProvedVisit, ...] = ()
    end: ProvedEnd = ProvedEnd("refused")
    steps: int = 0
    bits: int = 53
    radius: float = 0.0


@dataclass(frozen=True)
class ProofDocument:
    """Claims with everything a checker needs.

    Attributes:
        cost: which cost they are about.
        visits: the claims, one per visit.
        theorem: on the flow from its start, with ``--prove path``; null without.
        sha256: of the claims and of the arrays, as they were written.
    """

    SCHEMA: ClassVar[str] = "dlnphase/proof@1"

    provenance: Provenance
    cost: ProvedCost
    visits: tuple[VisitProof, ...]
    theorem: ProvedPath | None = None
    sha256: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=lambda: {"arrays": ARRAYS_FILE})
    arrays: dict[str, np.ndarray] | None = memory_only()


def proof_files(document: ProofDocument) -> dict[str, str | bytes]:
    """The three files of a proof by name, with their checksums."""
    arrays = at_hand(document.arrays, ARRAYS_FILE, PROOF_FILE)
    sealed = replace(document, sha256=checksums(document))
    return {PROOF_FILE: result_text(sealed), ARRAYS_FILE: npz_bytes(arrays), WORDS_FILE: proof_words(sealed)}


def checksums(document: ProofDocument) -> dict[str, str]:
    """SHA-256 of the claims and of the arrays."""
    claims = {k: v for k, v in encode(document).items() if k not in ("sha256", "files")}
    total = hashlib.sha256()
    for name, array in sorted((document.arrays or {}).items()):
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    text = json.dumps(claims, sort_keys=True, ensure_ascii=False)
    return {"claims": hashlib.sha256(text.encode()).hexdigest(), "arrays": total.hexdigest()}


def load_proof(source: Path | str) -> ProofDocument:
    """Read a proof: its directory, or its proof.yaml with the arrays beside it.

    Raises:
        InputError: when it is no proof file, or a file is damaged.
    """
    return load_with_arrays(main_file(source, PROOF_FILE), ProofDocument, "arrays", ARRAYS_FILE, _unchecked)


def _unchecked(arrays: dict[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    return arrays  # the checker trusts none of them


def proof_words(document: ProofDocument) -> str:
    """The page in words."""
    basis = (
        f"C is the {document.cost.kind} cost whose numbers stand in {ARRAYS_FILE}, taken as exact; every statement "
        "below was derived in ball arithmetic with outward rounding."
    )
    out = ["# What is proved", "", basis, ""]
    for v in document.visits:
        c = v.claim
        if c.verdict != "proved":
            out.append(f"- Visit {v.visit} (start {v.member}): refused; {c.reason}.")
            continue
        near = "" if c.distance is None else f", at most {c.distance:.4g} from the recorded weights"
        if v.kind == "global-minimum":
            out.append(f"- Visit {v.visit} (start {v.member}): there is a global minimum of the loss{near}.")
            continue
        bounds = ""
        if c.cost is not None and c.rate is not None:
            bounds = f", with C in [{c.cost[0]!r}, {c.cost[1]!r}] and ‖∇C‖ in [{c.rate[0]!r}, {c.rate[1]!r}]"
        out.append(
            f"- Visit {v.visit} (start {v.member}): there is a critical matrix of C of rank exactly {c.rank}{bounds}. "
            f"It belongs to a critical point of the loss that is no local minimum (in networks with more than {c.rank} "
            f"channels){near}."
        )
    if document.theorem is not None:
        out += ["", *_path_words(document.theorem)]
    out += ["", "Check it: `dlnphase detect-saddles --check proof.yaml`", ""]
    return "\n".join(out)


def _path_words(theorem: ProvedPath) -> list[str]:
    """The theorem on the path."""
    basis = (
        f"Gradient flow dθ/dt = −∇𝓛(θ) from the exact start in {ARRAYS_FILE} (start {theorem.member}); enclosed in "
        f"{counted(theorem.steps, 'step')} with {theorem.bits} bits, radius {theorem.radius:.2g} at the end."
    )
    out = ["## The path", "", basis, ""]
    for v in theorem.visits:
        out.append(
            f"- At a time t in [{v.time[0]!r}, {v.time[1]!r}] the flow is at most {v.distance:.4g} from a critical "
            f"point of rank exactly {v.rank}, with C in [{v.cost[0]!r}, {v.cost[1]!r}], that is no local minimum."
        )
    end = theorem.end
    if end.verdict == "proved" and end.time is not None and end.distance is not None:
        out.append(
            f"- The flow converges to a global minimum of the loss, at most {end.distance:.4g} from where it is at a "
            f"time in [{end.time[0]!r}, {end.time[1]!r}]."
        )
    else:
        out.append(f"- The end: refused; {end.reason}.")
    if theorem.verdict != "proved" and theorem.reason:
        out.append(f"- Refused: {theorem.reason}.")
    return out

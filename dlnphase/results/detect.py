"""The result of ``dlnphase detect-saddles``: saddles.yaml and saddles.npz, as values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from dlnphase.errors import InputError
from dlnphase.findings import RankTransition
from dlnphase.results.codec import memory_only
from dlnphase.results.files import npz_bytes
from dlnphase.results.journal import commit
from dlnphase.results.observed import Observed, read_observed
from dlnphase.results.proof import PROOF_FILE, ProofDocument, ProofInfo, load_proof, proof_files
from dlnphase.results.provenance import Provenance
from dlnphase.results.reading import at_hand, load_with_arrays, main_file
from dlnphase.results.schema import result_text
from dlnphase.results.tabular import Tabular, columns_of
from dlnphase.results.train import TaskInfo
from dlnphase.settings.detect import DetectSettings

SADDLES_FILE = "saddles.yaml"
MATRICES_FILE = "saddles.npz"
SAME_SPEED = 0.05  # speeds beside the flow that differ by no more are not told apart
MATRICES = {"matrices": MATRICES_FILE}


@dataclass(frozen=True)
class TimeSpan:
    """Times at which a path enters a visit, is closest, and leaves."""

    enter: float
    closest: float
    exit: float


@dataclass(frozen=True)
class CriticalPoint:
    """The refined critical point: C, ‖∇𝓛‖ in natural units, exact rank, singular values of its matrix.

    ``form`` is ``minimal`` (nothing in the unused channels), ``nearest`` (the path's own unused channels kept), or
    ``matrix`` where the source holds no weights there.

    Attributes:
        accuracy, test_accuracy: shares of right answers, of a cost that knows them.
        penalty: (λ/2)‖θ_c‖² = (λL/2)·Σ s_i^(2/L); None without weight decay.
    """

    cost: float
    gradient_norm: float
    rank: int
    singular_values: tuple[float, ...]
    form: str
    accuracy: float | None = None
    test_accuracy: float | None = None
    penalty: float | None = None


@dataclass(frozen=True)
class CurvatureInfo:
    """Smallest Hessian eigenvalue, how many are negative (``complete``: all of them counted), residual ‖Hv − λv‖.

    Attributes:
        zero_eigenvalues: with weight decay, how many are zero to round-off; None without and where not all are counted.
        rotations: how many of them rotations of the hidden spaces explain; None without weight decay.
    """

    min_eigenvalue: float
    negative_eigenvalues: int
    residual: float
    complete: bool
    zero_eigenvalues: int | None = None
    rotations: int | None = None

    @property
    def least(self) -> float:
        """The smallest eigenvalue, 0 where it is that to round-off; without weight decay there always are zeros."""
        return 0.0 if self.negative_eigenvalues == 0 and self.zero_eigenvalues != 0 else self.min_eigenvalue


@dataclass(frozen=True)
class EscapeInfo:
    """How a saddle is left.

    Attributes:
        order: of the descent: 2 or L.
        rate: s as measured on the path (s_{k+1} in theory), in the time of our flow where the path is known to go c
            times as fast; None where the path does not resolve it.
        predicted_rate: s = ‖∇C(A_c)‖_op; with weight decay s − λ at L = 2, and at L ≥ 3 minus the least eigenvalue of
            the Hessian, since no new mode grows from nothing there.
        alignment: of the path with the top singular pair of −∇C(A_c) as it leaves; None where it does not leave.
        descent: decrease of the cost obtained over the decrease predicted to leading order.
        epsilon: size of the new channel (or step) it was obtained with.
        decrease: of the cost, obtained.
    """

    order: int | None
    rate: float | None
    predicted_rate: float
    alignment: float | None
    descent: float | None
    epsilon: float | None
    decrease: float | None


@dataclass(frozen=True)
class GreedyInfo:
    """The greedy path's critical point of the same rank.

    Attributes:
        cost: its C.
        relative_difference: |C(path's closest) − C(greedy)| over C − C_min at the origin.
        distance: ‖A(path's closest) − A(greedy)‖_F over the norm of the greedy path's last matrix.
        same: whether the refined critical matrix is the greedy one.
    """

    cost: float
    relative_difference: float
    distance: float
    same: bool


@dataclass(frozen=True)
class VisitInfo:
    """One visit.

    Attributes:
        member: which initialisation of the source.
        rank: of the critical point.
        time: enter, closest, exit.
        cost, gradient_norm: C and ‖∇𝓛‖ on the path at its closest.
        prominence: decades of ‖∇𝓛‖.
        distance: ‖θ − θ_c‖ from the path's closest point to the critical point; None where there are no weights.
        nearest_distance: the same to the nearest critical point found (an upper bound on that to the critical set).
        matrix_distance: ‖A − A_c‖_F.
        critical_point, curvature, kind, escape, greedy: see there; None where not asked for or not applicable.
        note: what a reader should know, or "".
        proof: what was proved of it, with --prove; null without.
    """

    member: int
    rank: int
    time: TimeSpan
    cost: float
    gradient_norm: float
    prominence: float
    distance: float | None
    nearest_distance: float | None
    matrix_distance: float
    critical_point: CriticalPoint
    curvature: CurvatureInfo | None
    kind: str
    escape: EscapeInfo | None
    greedy: GreedyInfo | None
    note: str = ""
    proof: ProofInfo | None = None


@dataclass(frozen=True)
class GreedyStep:
    """A critical point of the greedy path: rank, C, singular values, and a word on it."""

    rank: int
    cost: float
    singular_values: tuple[float, ...]
    note: str


@dataclass(frozen=True)
class PathInfo:
    """The path that was looked at.

    Attributes:
        origin: ``dlnphase train``, ``weights`` or ``matrices``.
        records: number of records.
        members: initialisations.
        depth: L.
        hidden: hidden sizes that channels are counted by.
        gradient: where ‖∇𝓛‖ comes from.
        reason: why the run ended, or None for another code's path.
        spacing: least and largest time between two records of another code's path.
        speed: c in dC/dt = −c‖∇𝓛‖² as measured on weights of another code; None where no constant is seen.
        speed_range: where a tenth and nine tenths of what was measured of it along the path lie.
        followed: stretches between two records that were filled in by the flow from the first to the second.
        strayed: stretches on which that flow did not lead to the second record, and which were left as they are.
        optimizer: what trained it, as a Recorder tells; "" where nobody does.
        weight_decay: λ of C + (λ/2)‖θ‖², whose critical points are told; 0 without.
        not_flow: why, as a Recorder tells, its path is not that of gradient flow in the time steps × learning rate.
    """

    origin: str
    records: int
    members: tuple[int, ...]
    depth: int
    hidden: tuple[int, ...]
    gradient: str
    reason: str | None = None
    spacing: tuple[float, float] | None = None
    speed: float | None = None
    speed_range: tuple[float, float] | None = None
    followed: int = 0
    strayed: int = 0
    optimizer: str = ""
    not_flow: str = ""
    weight_decay: float = 0.0

    @property
    def ours(self) -> bool:
        """Whether its time is that of our gradient flow, as far as that was measured."""
        return self.speed is None or abs(self.speed - 1) <= SAME_SPEED


@dataclass(frozen=True, repr=False)
class DetectResult(Tabular):
    """Everything ``dlnphase detect-saddles`` found."""

    SCHEMA: ClassVar[str] = "dlnphase/detect-saddles@1"

    config: DetectSettings
    provenance: Provenance
    task: TaskInfo
    path: PathInfo
    visits: tuple[VisitInfo, ...]
    transitions: tuple[tuple[RankTransition, ...], ...]
    greedy_path: tuple[GreedyStep, ...] = ()
    complete: bool = True
    notes: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=lambda: dict(MATRICES))
    matrices: dict[str, np.ndarray] | None = memory_only()
    observed: Observed | None = memory_only()
    proof: ProofDocument | None = memory_only()

    def headline(self) -> str:
        """``factorization 8×6, L = 3, visits at rank 0, 1, 2``."""
        (rows, columns), first = self.task.shape, self.path.members[0] if self.path.members else 0
        ranks = ", ".join(str(v.rank) for v in self.visits if v.member == first)
        seen = f"visits at rank {ranks}" if ranks else "no visit"
        more = f" (first of {len(self.path.members)} paths)" if len(self.path.members) > 1 else ""
        return f"{self.task.words} {rows}×{columns}, L = {self.path.depth}, {seen}{more}"

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The matrices of saddles.npz; InputError where it is not there."""
        return at_hand(self.matrices, self.files.get("matrices", MATRICES_FILE), SADDLES_FILE)

    def columns(self) -> dict[str, np.ndarray]:
        """A row per visit: member, rank, kind, times, cost, gradient_norm, prominence, distances."""
        own = ("gradient_norm", "prominence", "distance", "matrix_distance")
        return columns_of(
            [
                {"member": v.member, "rank": v.rank, "kind": v.kind, **vars(v.time)}
                | {"cost": v.cost, "critical_cost": v.critical_point.cost}
                | {name: getattr(v, name) for name in own}
                for v in self.visits
            ]
        )


def save_detect(result: DetectResult, directory: Path) -> None:
    """Write saddles.yaml and saddles.npz as one; RunError when the disk refuses.

    saddles.npz holds ``member`` (V,), ``closest`` and ``critical`` (V, d_out, d_in), and ``greedy`` (G, d_out, d_in);
    observed.npz is written where the path was looked at.
    """
    files: dict[str, str | bytes] = {SADDLES_FILE: result_text(result)}
    if result.matrices is not None:
        files[result.files["matrices"]] = npz_bytes(result.matrices)
    if result.observed is not None:
        files[result.files["observed"]] = npz_bytes(result.observed.arrays())
    if result.proof is not None:
        files |= proof_files(result.proof)
    commit(directory, files, main=SADDLES_FILE)


def load_detect(source: Path | str) -> DetectResult:
    """Read a result: its directory, or its saddles.yaml; with the matrices and the proof where their files are there.

    Raises:
        InputError: when it is not a result of detect-saddles, or a file is damaged.
    """
    path = main_file(source, SADDLES_FILE)
    result = load_with_arrays(path, DetectResult, "matrices", MATRICES_FILE, _checked)
    result = replace(result, observed=read_observed(path.parent, result.files))
    if "proof" in result.files and (path.parent / PROOF_FILE).exists():
        return replace(result, proof=load_proof(path.parent))
    return result


def _checked(arrays: dict[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    for key, dimensions in (("critical", 3), ("closest", 3), ("greedy", 3), ("member", 1)):
        if key not in arrays or arrays[key].ndim != dimensions:
            raise InputError(f"{where}: {key} is missing or of the wrong shape")
    return arrays

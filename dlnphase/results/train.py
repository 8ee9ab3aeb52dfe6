"""The result of ``dlnphase train``: run.yaml and trajectory.npz, as values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dlnphase.findings import DecayTheory, Distributions, Mode, ModeSpread, Noise, RankTransition, Sharpness, Sparsity
from dlnphase.results.codec import memory_only
from dlnphase.results.files import npz_bytes
from dlnphase.results.journal import commit
from dlnphase.results.matrixfile import MatrixTable
from dlnphase.results.observed import Observed, read_observed
from dlnphase.results.provenance import Provenance
from dlnphase.results.reading import at_hand, load_with_arrays, main_file
from dlnphase.results.schema import result_text
from dlnphase.results.tabular import Tabular
from dlnphase.results.trajectory import Trajectory as Trajectory
from dlnphase.settings import TrainSettings

RUN_FILE = "run.yaml"
STATE_FILE = "state.npz"  # of a run that is under way, or was killed
TRAJECTORY_FILE = "trajectory.npz"
COMPLETED_FILES = {"completed": "completed.csv", "completed_at_noise": "completed-at-noise.csv"}


@dataclass(frozen=True)
class NetworkInfo:
    """What was trained.

    Attributes:
        depth, width, gamma: L, w, γ; width and gamma are None for weights from a file.
        sigma, alpha: standard deviation of the entries, and σ√w; from a file: measured on the weights, per layer of
            the mean hidden width.
        representation: ``full`` or ``krylov``.
        hidden: sizes of the hidden layers as computed with.
        krylov_order, truncation_error: of a reduced network: the order, and the estimated relative error of A(t).
        krylov_modes: of a network reduced from few modes of the target: how many; None: from all of both ends.
        full_hidden: sizes of the hidden layers of the network itself, reduced or not; None in files older than this.
        lacking: of a reduced network, by start: the norm of the weights of the full one at the start that it does not
            hold, which without weight decay never move. None for a full one, and in files older than this.
    """

    depth: int
    width: int | None
    gamma: float | None
    sigma: float
    alpha: float
    representation: str
    hidden: tuple[int, ...]
    krylov_order: int | None = None
    truncation_error: float | None = None
    full_hidden: tuple[int, ...] | None = None
    krylov_modes: int | None = None
    lacking: tuple[float, ...] | None = None


@dataclass(frozen=True)
class TaskInfo:
    """What it was trained on.

    Attributes:
        kind: of the task.
        shape: (d_out, d_in).
        minimum: inf C over all matrices.
        unique: whether there is one minimiser and no other.
        top_gradient: ‖∇C(0)‖_op.
        cost: as `--cost` names it, or the name of the user's own.
        attained: whether a minimum exists.
    """

    kind: str
    shape: tuple[int, int]
    minimum: float
    unique: bool
    top_gradient: float
    cost: str = "squared"
    attained: bool = True

    @property
    def name_it(self) -> bool:
        """Whether the cost is another than the squared one, which needs no word."""
        return self.cost != "squared"

    @property
    def words(self) -> str:
        """``completion``, ``completion (huber)``."""
        return f"{self.kind} ({self.cost})" if self.name_it else self.kind


@dataclass(frozen=True)
class Regime:
    """The numbers the regime was told from.

    Attributes:
        saddles_visited: visits, before the end, of critical points that are no minima of the cost.
        prominence: of the clearest of them, in decades of ‖∇𝓛‖ (0 when there is none).
        parameter_movement: ‖θ_end − θ_0‖ / ‖θ_0‖.
        ntk_change: ‖K_end − K_0‖_F / ‖K_0‖_F.
        minima_passed: how many of those visited are local minima of C + (λ/2)‖θ‖², which a deep path with weight decay
            may pass above the barrier around them; 0 without.
    """

    saddles_visited: int
    prominence: float
    parameter_movement: float
    ntk_change: float
    minima_passed: int = 0


@dataclass(frozen=True)
class Outcome:
    """How it ended.

    Attributes:
        reason: why it ended, a word of the table "Reasons".
        regime: lazy, mean-field or saddle-to-saddle, from ``evidence`` alone; None when the path is too short to tell.
        time, steps, evaluations: at the end.
        cost, test_cost, excess: C, test cost and C − C_min at the end.
        initial_cost, initial_test_cost: at the start.
        rank: of the critical point the end is near, or the numerical rank where there is none.
        evidence: what the regime was told from.
        advice: what to do about a run that did not converge, or "".
        reached: of a converged run: ``global-minimum``, of the cost; ``width-minimum``, the least cost that the
            narrowest layer allows, above it; ``local-minimum``, a minimum of the network whose narrowest layer keeps it
            above that of the cost, where the least cost at this width is not known; with weight decay
            ``decayed-minimum``, the least of C + (λ/2)‖θ‖², or ``decayed-local-minimum``, a minimum of it that is not
            known to be the least. Of several members: of all of them.
        reachable: the cost there, or C + (λ/2)‖θ‖², that ``tol`` was measured above; of several members their mean.
        accuracy, test_accuracy: shares of right answers at the end, of a cost that knows them.
        margin: where no minimum exists: that of the worst answer over (Σ s_i^(2/L))^(L/2).
        alignment: there, the cosine between θ and −∇𝓛, which goes to 1.
        penalty, initial_penalty: (λ/2)‖θ‖² at the end and at the start; None without weight decay.
        learning_coefficient: of the rank of the end, as that of a plateau.
    """

    reason: str
    regime: str | None
    time: float
    steps: int
    evaluations: int
    cost: float
    test_cost: float | None
    excess: float
    initial_cost: float
    initial_test_cost: float | None
    rank: int
    evidence: Regime
    advice: str = ""
    reached: str | None = None
    reachable: float | None = None
    accuracy: float | None = None
    test_accuracy: float | None = None
    margin: float | None = None
    alignment: float | None = None
    penalty: float | None = None
    initial_penalty: float | None = None
    learning_coefficient: float | None = None

    @property
    def minimised(self) -> tuple[float, float] | None:
        """C + (λ/2)‖θ‖² at the start and at the end; None without weight decay."""
        if self.penalty is None or self.initial_penalty is None:
            return None
        return self.initial_cost + self.initial_penalty, self.cost + self.penalty

    def headline(self) -> str:
        """``saddle-to-saddle, rank 3, converged at t = 33.09``."""
        end = f"{self.reason.replace('_', ' ')} at t = {self.time:.4g}"
        return f"{self.regime or 'regime not told'}, rank {self.rank}, {end}"


@dataclass(frozen=True)
class Plateau:
    """The cost at a visit: as predicted (min C at that rank, where a closed form is known), refined, and measured.

    Attributes:
        rank: of the critical point.
        predicted, refined, measured: the cost, as above.
        test_cost: at the visit, or None.
        accuracy, test_accuracy: shares of right answers there, of a cost that knows them.
        learning_coefficient: λ of a network of these widths that computes a matrix of this rank (Aoyagi 2024); None for
            a cost that does not tell every matrix from every other.
    """

    rank: int
    predicted: float | None
    refined: float
    measured: float
    test_cost: float | None = None
    accuracy: float | None = None
    test_accuracy: float | None = None
    learning_coefficient: float | None = None


@dataclass(frozen=True)
class Prediction:
    """A number of the theory beside the measured one; ``formula`` says where it comes from."""

    formula: str
    predicted: float
    measured: float | None


@dataclass(frozen=True)
class Theory:
    """What theory says for these settings, beside what was measured.

    Attributes:
        regime: what γ says as w → ∞; None for weights from a file.
        plateaus: one per visit, in order; of several members, one per rank, the mean over those that visited it.
        predictions: by name: escape_time, growth_rate, movement, ntk_at_start; only those that apply, and of several
            members their means.
        decay: of weight decay, or None.
    """

    regime: str | None
    plateaus: tuple[Plateau, ...] = ()
    predictions: dict[str, Prediction] = field(default_factory=dict)
    decay: DecayTheory | None = None


@dataclass(frozen=True, repr=False)
class Member:
    """One initialisation of several."""

    def __repr__(self) -> str:
        return f"<Member {self.member}: {self.outcome.headline()}>"

    member: int
    outcome: Outcome
    rank_transitions: tuple[RankTransition, ...]
    theory: Theory
    modes: tuple[Mode, ...] = ()
    noise: Noise | None = None


@dataclass(frozen=True)
class Spread:
    """A transition over several members: how many made it, and mean, standard deviation and range of its time."""

    from_rank: int
    to_rank: int
    members: int
    time_mean: float
    time_std: float
    time_min: float
    time_max: float
    dwell_mean: float
    dwell_std: float


@dataclass(frozen=True, repr=False)
class TrainResult(Tabular):
    """Everything ``dlnphase train`` found.

    With several members ``outcome``, ``rank_transitions`` and ``modes`` hold means over the members (``reason`` the
    worst one, ``regime`` the most common), ``spread`` and ``mode_spread`` how they vary, ``distributions`` what
    shares of them did what and for how long, and ``members`` each of them.
    Of a user's matrix with gaps, ``completed`` holds what training saw as given, the rest as in A at the end (the
    mean of the members). ``completed_at_noise`` is the same of A where the path met the noise, before it fitted any.
    ``observed`` is what was looked at along the path (``record``).
    """

    SCHEMA: ClassVar[str] = "dlnphase/train@1"

    config: TrainSettings
    provenance: Provenance
    network: NetworkInfo
    task: TaskInfo
    outcome: Outcome
    rank_transitions: tuple[RankTransition, ...]
    theory: Theory
    members: tuple[Member, ...] = ()
    spread: tuple[Spread, ...] = ()
    modes: tuple[Mode, ...] = ()
    mode_spread: tuple[ModeSpread, ...] = ()
    notes: tuple[str, ...] = ()
    sparsity: Sparsity | None = None
    noise: Noise | None = None
    distributions: Distributions | None = None
    sharpness: Sharpness | None = None
    files: dict[str, str] = field(default_factory=lambda: {"trajectory": TRAJECTORY_FILE})
    trajectory: Trajectory | None = memory_only()
    completed: MatrixTable | None = memory_only()
    completed_at_noise: MatrixTable | None = memory_only()
    observed: Observed | None = memory_only()

    def headline(self) -> str:
        """``completion 10×10, L = 4, saddle-to-saddle, rank 3, converged at t = 33.09``."""
        o, (rows, columns) = self.outcome, self.task.shape
        starts = f"{len(self.members)} starts, " if self.members else ""
        return f"{self.task.words} {rows}×{columns}, L = {self.network.depth}, {starts}{o.headline()}"

    @property
    def path(self) -> Trajectory:
        """The trajectory; InputError where its file is not there."""
        return at_hand(self.trajectory, self.files.get("trajectory", TRAJECTORY_FILE), RUN_FILE)

    def columns(self) -> dict[str, np.ndarray]:
        """The trajectory, a row per record: member, t, step, costs, gradient_norm, singular_value_1, ….

        Raises:
            InputError: where the trajectory is not at hand.
        """
        path = self.path
        out = {name: getattr(path, name) for name in Trajectory.ROWS}
        out |= {name: values for name in Trajectory.OPTIONAL if (values := getattr(path, name)) is not None}
        return out | {f"singular_value_{k + 1}": s for k, s in enumerate(path.singular_values.T)}

    def display_rows(self) -> list[dict[str, Any]]:
        """The rank transitions; the modes, where there was none."""
        rows: tuple[Any, ...] = self.rank_transitions
        names: tuple[str, ...] = ("from_rank", "to_rank", "time", "dwell", "cost_before", "cost_after", "prominence")
        if not rows:
            rows, names = self.modes, ("mode", "size", "time", "rise", "separation")
        return [{name: getattr(row, name) for name in names} for row in rows]


def save_train(result: TrainResult, directory: Path) -> None:
    """Write run.yaml and the arrays and matrices that belong to it as one; RunError when the disk refuses."""
    files: dict[str, str | bytes] = {RUN_FILE: result_text(result)}
    if result.trajectory is not None:
        files[result.files["trajectory"]] = npz_bytes(result.trajectory.arrays())
    if result.observed is not None:
        files[result.files["observed"]] = npz_bytes(result.observed.arrays())
    for part in COMPLETED_FILES:
        table: MatrixTable | None = getattr(result, part)
        if table is not None:
            files[result.files[part]] = table.csv()
    commit(directory, files, main=RUN_FILE)


def load_train(source: Path | str) -> TrainResult:
    """Read a run: its directory, or its run.yaml; with the trajectory and the completed matrices that are there.

    Raises:
        InputError: when it is not a run of dlnphase, or a file is damaged.
    """
    path = main_file(source, RUN_FILE)
    return load_with_arrays(path, TrainResult, "trajectory", TRAJECTORY_FILE, Trajectory.from_arrays, _with_parts)


def _with_parts(result: TrainResult, directory: Path) -> TrainResult:
    """With what was looked at along the path and the completed matrices, as far as they lie in its directory."""
    result = replace(result, observed=read_observed(directory, result.files))
    there = [(part, directory / name) for part, name in result.files.items() if part in COMPLETED_FILES]
    tables: dict[str, Any] = {part: MatrixTable.read(file, result.task.shape) for part, file in there if file.exists()}
    return replace(result, **tables)

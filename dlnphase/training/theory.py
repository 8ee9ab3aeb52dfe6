"""What theory says about one run, beside what was measured (docs/theory.md, sections 3 and 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dlnphase.findings import RankTransition
from dlnphase.networks.chain import Network
from dlnphase.results.train import NetworkInfo, Prediction, TaskInfo
from dlnphase.training.recording import MemberPath

MIN_POINTS = 5  # records a fitted rate needs
GROWTH_FROM, GROWTH_TO = 3.0, 0.1  # the rate of escape is fitted between 3 × the least and a tenth of the largest ‖∇𝓛‖


def predict(
    path: MemberPath,
    rows: Sequence[RankTransition],
    movement: float,
    network: NetworkInfo,
    task: TaskInfo,
    decay: float = 0.0,
    growth: Callable[[float], float | None] | None = None,
) -> tuple[str | None, dict[str, Prediction]]:
    """The regime that γ predicts as w → ∞, and the predictions that apply to this run.

    Args:
        path: of one member.
        rows: its rank transitions.
        movement: ‖θ_end − θ_0‖.
        decay: weight decay λ.
        growth: of a discrete algorithm, see :meth:`dlnphase.dynamics.Update.growth`.

    Weights from a file have no γ, and get the predictions that need none.
    """
    out: dict[str, Prediction] = {}
    gamma, width, depth = network.gamma, network.width, network.depth
    if rows and rows[0].from_rank == 0:
        out |= _escape(path, rows[0], network, task, decay, growth)
    if gamma is None or width is None:
        return None, out
    scale = float(width) ** ((1 - gamma) * (depth - 1))
    if path.start is not None:
        found = _mean_eigenvalue(path.start) if network.krylov_modes is None else None  # of few modes K is a part
        out["ntk_at_start"] = Prediction("mean eigenvalue of K at t = 0: L·w^((1−γ)(L−1))", depth * scale, found)
    if path.end is None or path.reason != "converged" or decay:
        pass  # how far θ moves is predicted for the whole way, and where nothing but learning moves it
    elif gamma > 1:
        s = np.linalg.svd(path.matrices[max(path.matrices)], compute_uv=False)
        learned = float(np.sqrt(depth * np.sum(s ** (2 / depth))))
        out["movement"] = Prediction("‖θ_end − θ_0‖ as α → 0: √(L·Σ s_i^(2/L)) at the end", learned, movement)
    elif gamma < 1 and task.kind in ("factorization", "completion"):
        missing = float(np.sqrt(2 * path.rows[0][3]))
        out["movement"] = Prediction(
            "‖θ_end − θ_0‖ as w → ∞: ‖A* − A_0‖ / √(L·w^((1−γ)(L−1)))",
            missing / float(np.sqrt(depth * scale)),
            movement,
        )
    regime = "saddle-to-saddle" if gamma > 1 else "mean-field" if gamma == 1 else "lazy"
    return regime, out


def _escape(
    path: MemberPath,
    row: RankTransition,
    network: NetworkInfo,
    task: TaskInfo,
    decay: float,
    growth: Callable[[float], float | None] | None,
) -> dict[str, Prediction]:
    """How the path leaves the origin: exponentially at rate s_1 for L = 2, after α^(−(L−2))/((L−2)s_1) for L ≥ 3.

    With weight decay at rate s_1 − λ for L = 2; for L ≥ 3 the size n of a layer obeys ṅ = s_1·n^(L−1) − λn, so that
    n^(−(L−2)) − s_1/λ grows by e^((L−2)λt) and reaches −s_1/λ after −ln(1 − λα^(−(L−2))/s_1)/((L−2)λ), if ever.
    Momentum leaves at a rate of its own, and nothing is said of times then.
    """
    depth, alpha, top = network.depth, network.alpha, task.top_gradient
    if top <= 0 or alpha <= 0:
        return {}
    own = None if growth is None else growth(top - decay)
    if own is not None:
        rate = _growth_rate(path, row.time) if depth == 2 else None
        words = "rate of escape from the origin: ln z·(1−β)/η, z² = (1 + β + η(s_1 − λ))z − β, s_1 = ‖∇C(0)‖_op"
        return {} if rate is None else {"growth_rate": Prediction(words, own, rate)}
    if depth > 2 and decay:
        held = decay * alpha ** -(depth - 2) / top
        if held >= 1:
            return {}
        time = -float(np.log1p(-held)) / ((depth - 2) * decay)
        words = "escape from the origin: −ln(1 − λ·α^(−(L−2))/s_1) / ((L−2)·λ), to a factor of order 1 set by the draw"
        return {"escape_time": Prediction(words, time, row.time)}
    if depth > 2:
        time = alpha ** -(depth - 2) / ((depth - 2) * top)
        words = "escape from the origin: α^(−(L−2)) / ((L−2)·s_1), to a factor of order 1 set by the draw"
        return {"escape_time": Prediction(words, time, row.time)}
    out = {}
    # The growing half of two random vectors of size α: a_0 = α²/2, and a(t) passes s/2 at ln(s/a_0 − 1)/(2s).
    start = alpha**2 / 2
    top -= decay
    if top > 2 * start:
        words = "escape from the origin: ln(2s_1/α² − 1) / (2s_1)"
        if decay:
            words = "escape from the origin: ln(2(s_1 − λ)/α² − 1) / (2(s_1 − λ))"
        out["escape_time"] = Prediction(words, float(np.log(top / start - 1) / (2 * top)), row.time)
    rate = _growth_rate(path, row.time)
    if rate is not None:
        words = f"rate of escape from the origin: {'s_1 − λ, ' if decay else ''}s_1 = ‖∇C(0)‖_op"
        out["growth_rate"] = Prediction(words, top, rate)
    return out


def _growth_rate(path: MemberPath, until: float) -> float | None:
    """d ln‖∇𝓛‖/dt on the clean part of the way out of the origin, by least squares; None where there is none."""
    time, gradient = path.column(0), path.column(4)
    part = time <= until
    time, gradient = time[part], gradient[part]
    clean = (gradient > GROWTH_FROM * gradient.min()) & (gradient < GROWTH_TO * gradient.max())
    if clean.sum() < MIN_POINTS:
        return None
    return float(np.polyfit(time[clean], np.log(gradient[clean]), 1)[0])


def _mean_eigenvalue(layers: Sequence[np.ndarray]) -> float:
    """tr K / D at some weights."""
    network = Network.of_arrays(layers)
    traces = [
        float(left.diagonal(dim1=1, dim2=2).sum() * right.diagonal(dim1=1, dim2=2).sum())
        for left, right in network.ntk_factors()
    ]
    return sum(traces) / (network.shape[0] * network.shape[1])

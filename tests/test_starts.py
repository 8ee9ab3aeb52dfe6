"""Distributions over several starts against scipy and counts by hand; the learning coefficient of every rank."""

from __future__ import annotations

import csv
import io
import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binomtest

import dlnphase
from dlnphase.critical.learning_coefficient import learning_coefficient
from dlnphase.plotting.draw import draw
from dlnphase.plotting.sources import read_sources
from dlnphase.plotting.starts import data
from dlnphase.results.train import load_train, save_train
from dlnphase.settings import PlotSettings, TrainSettings
from dlnphase.training.distributions import distributions_of, share_of

SMALL = {"task": "factorization", "shape": (4, 3), "singular_values": (3.0, 1.0), "depth": 3, "width": 20, "gamma": 3.0}


@pytest.fixture(scope="module")
def several():
    return dlnphase.train(TrainSettings(**SMALL, seeds=7))


# ---- shares ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [1, 2, 7, 64, 1000])
def test_the_interval_of_a_share_is_that_of_wilson(of):
    for count in {0, 1, of // 3, of - 1, of}:
        share = share_of(count, of)
        exact = binomtest(count, of).proportion_ci(0.95, method="wilson")
        assert (share.starts, share.of, share.share) == (count, of, count / of)
        np.testing.assert_allclose(share.ci95, (exact.low, exact.high), atol=1e-12)
        assert 0 <= share.ci95[0] <= share.share <= share.ci95[1] <= 1


def made_up(several):
    """Six starts: two climb, one falls back and climbs again, one falls and stays, one stays at 0, one diverges."""
    row, member = several.members[0].rank_transitions[0], several.members[0]

    def start(number, ranks, dwells, reason="converged"):
        pairs = zip(itertools.pairwise(ranks), dwells, strict=True)
        rows = tuple(replace(row, from_rank=a, to_rank=b, dwell=t) for (a, b), t in pairs)
        outcome = replace(member.outcome, rank=ranks[-1], reason=reason)
        return replace(member, member=number, rank_transitions=rows, outcome=outcome)

    return [
        start(0, [0, 1, 2], [1.0, 5.0]),
        start(1, [0, 1, 2], [2.0, 7.0]),
        start(2, [0, 1, 0, 1, 2], [3.0, 1.0, 10.0, 2.0]),
        start(3, [0, 1, 0], [4.0, 3.0], "max_steps"),
        start(4, [0], []),
        start(5, [0, 1], [6.0], "diverged"),
    ]


def test_jumps_up_and_down_are_counted_by_start_and_by_jump(several):
    told = distributions_of(made_up(several))
    assert told.starts == 6
    assert {(j.from_rank, j.to_rank): (j.jumps, j.made.starts, j.made.of) for j in told.jumps} == {
        (0, 1): (6, 5, 6),
        (1, 0): (2, 2, 6),
        (1, 2): (3, 3, 6),
    }
    assert (told.up.starts, told.down.starts, told.up.of) == (5, 2, 6)
    # the start that diverged ended nowhere
    assert {e.rank: (e.ended.starts, e.ended.of) for e in told.ends} == {0: (2, 5), 2: (3, 5)}
    origin, first = told.dwells
    times = [1.0, 2.0, 3.0, 10.0, 4.0, 6.0]
    assert (origin.rank, origin.count, origin.starts) == (0, 6, 5)
    assert origin.mean == pytest.approx(np.mean(times)) and origin.std == pytest.approx(np.std(times, ddof=1))
    assert (origin.minimum, origin.median, origin.maximum) == (1.0, 3.5, 10.0)
    for name, q in (("q10", 0.1), ("q25", 0.25), ("q75", 0.75), ("q90", 0.9)):
        assert getattr(origin, name) == pytest.approx(np.quantile(times, q))
    assert (first.rank, first.count, first.starts) == (1, 5, 4)


def test_one_start_has_no_distribution(several):
    assert distributions_of(several.members[:1]) is None
    assert dlnphase.train(TrainSettings(**SMALL)).distributions is None


def test_a_run_of_several_starts_tells_and_keeps_them(several, tmp_path):
    told = several.distributions
    assert [d.rank for d in told.dwells] == [0, 1]
    for dwell in told.dwells:
        times = [r.dwell for m in several.members for r in m.rank_transitions if r.from_rank == dwell.rank]
        assert dwell.count == len(times) == 7 and dwell.median == pytest.approx(np.median(times))
    assert (told.up.share, told.down.share, told.down.ci95[0]) == (1.0, 0.0, 0.0)
    save_train(several, tmp_path)
    assert load_train(tmp_path).distributions == told


def test_the_terminal_and_the_figure_show_them(several, tmp_path, run):
    save_train(several, tmp_path)
    code, out, _ = run("train", "--config", tmp_path / "run.yaml", "--out", tmp_path, "--resume")
    assert code == 0 and "Dwell times over 7 starts" in out and "any down" in out and "0/7" in out
    (drawn,), _ = draw(PlotSettings(source=(tmp_path,), kind=("starts",)))
    points = [line for ax in drawn.figure.axes for line in ax.lines if line.get_gid() == "dwell"]
    stays = sorted(r.dwell for m in several.members for r in m.rank_transitions)
    assert sorted(np.concatenate([p.get_xdata() for p in points])) == stays
    rows = list(csv.DictReader(io.StringIO(data(read_sources([tmp_path])).csv())))
    assert sorted(float(r["dwell"]) for r in rows if r["series"] == "dwell") == stays
    assert [(r["to_rank"], r["share"]) for r in rows if r["series"] == "end"] == [("2", "1.0")]


def test_the_figure_of_starts_needs_some(tmp_path, run):
    (tmp_path / "one").mkdir()
    save_train(dlnphase.train(TrainSettings(**SMALL)), tmp_path / "one")
    code, _, err = run("plot", tmp_path / "one", "--kind", "starts", "--out", tmp_path / "f")
    assert code == 2 and "--seeds" in err and err.count("\n") == 1
    code, _, err = run("plot", tmp_path / "one", "--kind", "all", "--out", tmp_path / "all")
    assert code == 0 and "starts" not in err and not (tmp_path / "all" / "starts.png").exists()


def test_a_sweep_that_follows_its_cells_carries_them():
    sweep = dlnphase.sweep_gamma(
        dlnphase.SweepSettings(gammas=(2.5,), widths=(30,), shape=(3, 2), seeds=3, train=True, jobs=1)
    )
    (cell,) = sweep.cells
    told = cell.distributions
    assert told.starts == 3 and {(t.from_rank, t.to_rank): t.starts for t in cell.rank_transitions} == {
        (j.from_rank, j.to_rank): j.made.starts for j in told.jumps
    }
    assert "distributions" in cell.to_plain()


# ---- the learning coefficient --------------------------------------------------------------------------


def test_the_learning_coefficient_of_five_widths_of_five():
    """The values that are told of widths 5-5-5-5-5."""
    assert [float(learning_coefficient((5,) * 5, r)[0]) for r in range(6)] == [8, 9.5, 11, 12, 12.5, 12.5]


def reduced_rank_regression(inputs, hidden, outputs, rank):
    """Aoyagi and Watanabe 2005, the four cases of L = 2."""
    m, h, n, r = inputs, hidden, outputs, rank
    if n + r <= m + h and m + r <= n + h and h + r <= m + n:
        eighths = -((h + r) ** 2) - m**2 - n**2 + 2 * (h + r) * m + 2 * (h + r) * n + 2 * m * n
        return (Fraction(eighths, 8), 1) if (m + h + n + r) % 2 == 0 else (Fraction(eighths + 1, 8), 2)
    if m + h < n + r:
        return Fraction(h * m - h * r + n * r, 2), 1
    if n + h < m + r:
        return Fraction(h * n - h * r + m * r, 2), 1
    return Fraction(m * n, 2), 1


def test_two_layers_are_reduced_rank_regression():
    for dims in itertools.product(range(1, 8), repeat=3):
        for rank in range(min(dims) + 1):
            assert learning_coefficient(dims, rank) == reduced_rank_regression(*dims, rank), (dims, rank)


def test_the_norm_of_a_chain_of_gaussian_layers_on_a_vector_is_known():
    """With d_in = 1 and Gaussian weights ‖A‖² is a product of independent χ² of n_1, …, n_L degrees of freedom.

    P(χ²_n < ε) ~ ε^(n/2), and factors with the same least exponent add one logarithm each: λ = min n_l/2, m the number
    of layers with it. The same backwards.
    """
    rng = np.random.default_rng(3)
    for _ in range(500):
        sizes = rng.integers(1, 8, rng.integers(1, 7)).tolist()
        expected = (Fraction(min(sizes), 2), sizes.count(min(sizes)))
        assert learning_coefficient([1, *sizes], 0) == expected == learning_coefficient([*sizes[::-1], 1], 0)


def test_at_a_smooth_point_it_is_half_the_codimension_and_never_above():
    rng = np.random.default_rng(4)
    for _ in range(500):
        dims = rng.integers(1, 9, rng.integers(2, 7)).tolist()
        top = min(dims)
        values = [learning_coefficient(dims, r)[0] for r in range(top + 1)]
        # matrices of rank r near one of this rank are a manifold of r(d_out + d_in − r) dimensions
        smooth = [Fraction(r * (dims[0] + dims[-1] - r), 2) for r in range(top + 1)]
        assert all(v >= s for v, s in zip(values, smooth, strict=True)) and values[-1] == smooth[-1]
        assert all(v <= Fraction(dims[0] * dims[-1], 2) for v in values)
        assert all(a <= b for a, b in itertools.pairwise(values))


@pytest.mark.parametrize("rank", [-1, 4])
def test_a_rank_that_the_widths_do_not_allow_has_none(rank):
    with pytest.raises(ValueError, match="rank"):
        learning_coefficient((5, 3, 5), rank)


def test_runs_tell_it_of_every_rank_where_the_cost_tells_all_matrices_apart(several, run, tmp_path):
    dims = (3, 20, 20, 4)
    for plateau in several.theory.plateaus:
        assert plateau.learning_coefficient == float(learning_coefficient(dims, plateau.rank)[0])
    assert several.outcome.learning_coefficient == float(learning_coefficient(dims, 2)[0])
    wide = dlnphase.train(TrainSettings(**SMALL | {"width": 10**6}))
    assert wide.network.representation == "krylov"
    assert wide.outcome.learning_coefficient == float(learning_coefficient((3, 10**6, 10**6, 4), 2)[0])
    partial = dlnphase.train(TrainSettings(**SMALL | {"task": "completion", "observed": 0.7}))
    assert partial.outcome.learning_coefficient is None

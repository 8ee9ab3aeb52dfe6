"""Reductions that start from the few modes of a target, where A is too large to start from all of both ends."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from dlnphase import TrainSettings, train
from dlnphase.backend import resolve_backend
from dlnphase.costs.quadratic import completion, factorization
from dlnphase.errors import InputError
from dlnphase.networks.krylov import SweepStart, project, reduced_dims, sample, unrevealed_square_norm
from dlnphase.networks.sampling import gaussian_network, hidden_dims
from dlnphase.observables import OBSERVABLES
from dlnphase.setup.build import _needs_ends
from dlnphase.setup.representation import choose_representation, few_modes
from dlnphase.training.observing import refuse_lacking

BACKEND = resolve_backend("cpu")
SHAPE, WIDTH, SIGMA = (7, 6), 40, 0.015
SEEDS = tuple(range(400))


def modes(shape, sizes, seed=3):
    """(target, its modes) of these singular values in general position."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.standard_normal((n, len(sizes))))[0] for n in shape)
    return left @ np.diag(sizes) @ right.T, SweepStart(right, left)


def flow(layers, goal, times):
    """A(t) under the flow of ½‖A − goal‖² by SciPy: an oracle of its own."""
    shapes, cuts = [w.shape for w in layers], np.cumsum([w.size for w in layers])[:-1]

    def product(ws):
        out = ws[0]
        for w in ws[1:]:
            out = w @ out
        return out

    def split(y):
        return [part.reshape(shape) for part, shape in zip(np.split(y, cuts), shapes, strict=True)]

    def slope(_, y):
        w1, w2, w3 = split(y)
        g = goal - w3 @ w2 @ w1
        parts = (w2.T @ w3.T @ g, w3.T @ g @ w1.T, g @ w1.T @ w2.T)
        return np.concatenate([part.ravel() for part in parts])

    start = np.concatenate([w.ravel() for w in layers])
    path = solve_ivp(slope, (0, times[-1]), start, t_eval=times, method="DOP853", rtol=1e-10, atol=1e-14)
    return np.stack([product(split(y)) for y in path.y.T])


def test_each_order_brings_the_path_nearer_through_two_bursts():
    goal, start = modes(SHAPE, (3.0, 2.0))
    network = gaussian_network(hidden_dims(3, WIDTH, SHAPE), SIGMA, BACKEND)
    times = np.linspace(0, 12, 61)
    whole = flow([w[0].numpy() for w in network.weights], goal, times)
    assert np.linalg.norm(whole[-1] - goal) < 0.05 and np.linalg.norm(whole[0]) < 2e-3
    errors = []
    for order in (1, 2, 3):
        reduced = project(network, order, start).network
        assert reduced.dims == reduced_dims(network.dims, order, start)[0]
        path = flow([w[0].numpy() for w in reduced.weights], goal, times)
        errors.append(np.abs(path - whole).max() / 3)
    assert max(reduced.dims[1:-1]) < WIDTH
    print(errors)
    assert errors[0] > 10 * errors[1] > 0 and errors[1] < 0.05 and errors[2] < 1e-3


def invariants(network, start):
    """What rotations of hidden spaces leave alone: A and layers on the modes, and the sizes of layers, (B, …)."""
    w1, w2, w3 = (w.numpy() for w in network.weights)
    on = w1 @ start.inputs
    below = start.outputs.T @ w3
    return np.stack(
        [
            (on**2).sum((1, 2)),
            ((w2 @ on) ** 2).sum((1, 2)),
            ((below @ w2 @ on) ** 2).sum((1, 2)),
            ((w1.transpose(0, 2, 1) @ on) ** 2).sum((1, 2)),
            ((w3 @ w2 @ on) ** 2).sum((1, 2)),
            ((w1.transpose(0, 2, 1) @ w2.transpose(0, 2, 1) @ below.transpose(0, 2, 1)) ** 2).sum((1, 2)),
            (w1**2).sum((1, 2)),
            (w2**2).sum((1, 2)),
            (w3**2).sum((1, 2)),
        ]
    )


def test_drawn_directly_they_have_the_law_of_projected_ones():
    _, start = modes(SHAPE, (3.0, 2.0))
    drawn = sample(3, WIDTH, SHAPE, 1.0, 2, BACKEND, seed=1, members=SEEDS, start=start)
    full = gaussian_network(hidden_dims(3, WIDTH, SHAPE), 1.0, BACKEND, seed=2, members=SEEDS)
    projected = project(full, 2, start).network
    assert drawn.dims == projected.dims and max(drawn.dims[1:-1]) < WIDTH
    one, two = np.log(invariants(drawn, start)), np.log(invariants(projected, start))
    apart = (one.mean(1) - two.mean(1)) / np.sqrt((one.var(1) + two.var(1)) / len(SEEDS))
    assert np.abs(apart).max() < 4
    spread = one.std(1) / two.std(1)
    assert spread.min() > 0.8 and spread.max() < 1.25
    rest = unrevealed_square_norm(3, WIDTH, SHAPE, 1.0, 2, seed=1, members=SEEDS, start=start)
    norm = drawn.theta.square().sum(1).numpy() + rest
    parameters = full.theta.shape[1]
    assert abs(norm.mean() - parameters) < 4 * np.sqrt(2 * parameters / len(SEEDS))


def test_auto_starts_from_modes_where_whole_ends_are_out_of_the_question():
    goal, _ = modes((150, 140), (3.0, 2.0))
    cost = factorization(goal, BACKEND)
    small = choose_representation(3, 600, goal.shape, 5e-4, cost, BACKEND)
    assert (small.kind, small.start.count, small.exact) == ("krylov", 2, False) and max(small.hidden) < 100
    assert small.error <= 5e-3 and "of the target's 2 modes" in small.in_words()
    assert choose_representation(3, 600, goal.shape, 5e-4, cost, BACKEND, whole=True).hidden == (290, 290)


def test_modes_are_enough_where_nothing_else_is_learned():
    goal, _ = modes((150, 140), (3.0, 2.0))
    dims = (140, 600, 600, 150)
    start, dropped = few_modes(dims, factorization(goal, BACKEND), 1e-5)
    assert np.allclose(start.outputs @ start.outputs.T @ goal @ start.inputs @ start.inputs.T, goal)
    assert dropped == pytest.approx(1e-5 / np.sqrt(13))
    # No few of them: A(0) is to be unlearned, ∇C is not A − A*, the target has many, order 1 is exact, or cheap.
    gaps = completion(goal, np.abs(goal) < 0.1, BACKEND)
    others = (
        (dims, factorization(goal, BACKEND), 1e-3),
        (dims, gaps, 1e-5),
        (dims, factorization(goal + np.eye(150, 140), BACKEND), 1e-5),
        ((140, 600, 150), factorization(goal, BACKEND), 1e-5),
        ((40, 600, 600, 50), factorization(goal[:50, :40], BACKEND), 1e-5),
    )
    assert all(few_modes(*other) == (None, 0.0) for other in others)


@pytest.mark.parametrize("order", [1, 2])
def test_orders_are_nested_and_ends_are_whole(order):
    _, start = modes(SHAPE, (3.0, 2.0))
    network = gaussian_network(hidden_dims(4, 60, SHAPE), 1.0, BACKEND)
    low, high = project(network, order, start), project(network, order + 1, start)
    for one, two in zip(low.bases, high.bases, strict=True):
        assert np.allclose(one.numpy(), two[:, :, : one.shape[2]].numpy())
    assert low.network.shape == SHAPE and not low.exact


def test_a_run_tells_what_its_modes_tell_and_nothing_of_the_kernel_it_holds_a_part_of():
    run = train(
        TrainSettings(task="factorization", shape=(150, 140), singular_values=(3.0, 2.0), depth=3, width=600, gamma=2.4)
    )
    network, outcome = run.network, run.outcome
    assert (network.krylov_modes, outcome.reason, outcome.rank) == (2, "converged", 2)
    assert [row.to_rank for row in run.rank_transitions] == [1, 2]
    assert run.theory.predictions["ntk_at_start"].measured is None and np.isnan(outcome.evidence.ntk_change)
    assert outcome.regime == "saddle-to-saddle"
    for name in OBSERVABLES.keys() - {"weights"}:
        with pytest.raises(InputError, match="lacks what its layers do"):
            refuse_lacking([name], replace(network, depth=2))
    refuse_lacking(["weights"], network)


@pytest.mark.parametrize(
    "more",
    [
        {"dynamics": "gd"},
        {"dynamics": "sgd", "batch_size": 20},
        {"weight_decay": 0.1},
        {"record": "products"},
        {"tol": 1e-12},
        {"tol": 0.0},
    ],
    ids=lambda more: " ".join(f"{name}={value}" for name, value in more.items()),
)
def test_few_modes_stand_for_the_ends_along_a_flow_of_the_whole_cost_alone(more):
    assert not _needs_ends(TrainSettings(task="factorization"))
    assert _needs_ends(TrainSettings(task="factorization", **more))


def test_ends_that_no_order_of_them_can_hold_are_what_few_modes_are_for():
    cost = factorization(np.diag([3.0, 2.0] + [0.0] * 1098), BACKEND)
    start, dropped = few_modes((1100, 2500, 2500, 1100), cost, 1e-9)
    assert start.count == 2 and 0 < dropped < 1e-9

"""Discrete algorithms against torch.optim, formulas, laws of their noise, and each other."""

import dataclasses

import numpy as np
import pytest
import torch
from problems import TASKS, loss_gradient, stated_cost
from scipy.linalg import svd
from scipy.stats import chisquare, kstest

import dlnphase
from dlnphase.backend import resolve_backend
from dlnphase.cli.app import run
from dlnphase.costs.convex import cross_entropy, huber_completion, logistic_regression
from dlnphase.costs.quadratic import QuadraticCost, completion, factorization, regression, sensing
from dlnphase.dynamics import Adam, Draws, HeavyBall, Muon, Schedule, Update, gradient_descent, gradient_flow
from dlnphase.errors import InputError
from dlnphase.networks.chain import Network
from dlnphase.networks.sampling import balanced_network, gaussian_network
from dlnphase.settings import TrainSettings

CPU = resolve_backend("cpu")
SMALL = {"task": "completion", "shape": "4x3", "rank": 2, "depth": 3, "width": 8, "gamma": 1.5}


def train(**settings):
    return dlnphase.train(TrainSettings(**settings))


def layers_of(network):
    return [w[0].clone().requires_grad_() for w in network.weights]


def product(layers):
    a = layers[0]
    for w in layers[1:]:
        a = w @ a
    return a


# ---- step by step ------------------------------------------------------------------------------------


class PlainMuon(torch.optim.Optimizer):
    """v ← βv + g, W ← (1 − ηλ)W − η·UVᵀ for v = USVᵀ, over singular values above 100·n·eps of the largest."""

    def __init__(self, layers, lr, momentum, weight_decay):
        super().__init__(layers, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for w in group["params"]:
                v = self.state[w].setdefault("v", np.zeros(w.shape))
                v *= group["momentum"]
                v += w.grad.numpy()
                w *= 1 - group["lr"] * group["weight_decay"]
                u, sizes, vt = svd(v)
                rank = int((sizes > 100 * max(v.shape) * np.finfo(float).eps * sizes[0]).sum())
                w -= group["lr"] * torch.as_tensor(u[:, :rank] @ vt[:rank])


RULES = {
    "gd": (Update(), lambda p: torch.optim.SGD(p, lr=0.01, foreach=False), 0.0),
    "gd with decay": (Update(), lambda p: torch.optim.SGD(p, lr=0.01, weight_decay=0.2, foreach=False), 0.2),
    "momentum": (HeavyBall(0.9), lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, foreach=False), 0.0),
    "momentum with decay": (HeavyBall(0.9), lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.2), 0.2),
    "adam": (Adam(0.9), lambda p: torch.optim.Adam(p, lr=0.01, foreach=False), 0.0),
    "adam with decay": (Adam(0.8), lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.999), weight_decay=0.2), 0.2),
    "muon": (Muon(0.9), lambda p: PlainMuon(p, 0.01, 0.9, 0.0), 0.0),
    "muon with decay": (Muon(0.5), lambda p: PlainMuon(p, 0.01, 0.5, 0.2), 0.2),
}


def classified():
    """Softmax cross-entropy of nine samples in three classes, and its gradient written out."""
    rng = np.random.default_rng(7)
    x, labels = rng.standard_normal((9, 3)), np.arange(9) % 3

    def gradient(a):
        shares = np.exp(x @ a.T)
        return (shares / shares.sum(1, keepdims=True) - np.eye(3)[labels]).T @ x / 9

    return cross_entropy(x, labels, CPU), gradient


@pytest.mark.parametrize("task", [*TASKS, "classification"])
@pytest.mark.parametrize("rule", RULES)
def test_every_step_is_that_of_the_optimiser_written_out(task, rule):
    """1000 steps, each to 1e-12 of the largest weight, from the weights where the one before it ended.

    Gradients are plain products with the gradient of the sum written out, momenta the optimiser's own.
    """
    update, optimiser, decay = RULES[rule]
    network = gaussian_network((3, 3, 3, 3), 0.5, CPU, seed=3)
    if task == "classification":
        cost, slope = classified()
    else:
        stated = stated_cost(task, network.shape, CPU)
        cost, slope = stated.cost, stated.gradient
    layers = layers_of(network)
    optimiser, seen = optimiser(layers), 0
    options = {"lr": 0.01, "max_steps": 1000, "tol": 0, "record_every": 1, "weight_decay": decay, "update": update}
    for record in gradient_descent(network, cost, **options):
        mine = record.weights(0)
        for w, theirs in zip(mine, layers, strict=True):
            other = theirs.detach().numpy()
            assert np.abs(w - other).max() <= 1e-12 * np.abs(other).max()
            theirs.data.copy_(torch.as_tensor(w))
        gradients = loss_gradient(mine, slope)
        for w, g in zip(layers, gradients, strict=True):
            w.grad = torch.as_tensor(g)
        whole = np.sqrt(sum(np.sum((g + decay * w) ** 2) for w, g in zip(mine, gradients, strict=True)))
        assert record.gradient_norm[0] == pytest.approx(whole, rel=1e-9)
        optimiser.step()
        seen += 1
    assert seen == 1001 and record.reasons == ["max_steps"]
    assert record.time[0] == pytest.approx(10 / (1 - 0.9) if isinstance(update, HeavyBall) else 10)


def observed(task, backend=CPU):
    """A cost that keeps its data, beside terms of the sum that it is: rows x, right sides y, and groups of them."""
    stated, rng = stated_cost(task, (3, 4), backend), np.random.default_rng(5)
    if task == "sensing":
        rows = stated.design.reshape(-1, 3, 4)
        return sensing(rows, stated.right, backend, keep=True), stated, np.arange(len(rows))
    if task == "regression":
        x, y = rng.standard_normal((7, 4)), rng.standard_normal((7, 3))
        design = np.stack([np.outer(np.eye(3)[i], x[n]).ravel() for n in range(7) for i in range(3)]) / np.sqrt(7)
        stated = dataclasses.replace(stated, design=design, right=y.ravel() / np.sqrt(7))
        return regression(x, y, backend, keep=True), stated, np.repeat(np.arange(7), 3)
    return stated.cost, stated, np.arange(len(stated.right))


@pytest.mark.parametrize("task", TASKS)
def test_a_batch_is_a_sum_over_some_observations_and_all_come_alike(task):
    """Of B = 2: each gradient is n/B times that of two terms, and pairs are uniform over many steps."""
    cost, stated, group = observed(task)
    count = group.max() + 1
    a = torch.as_tensor(np.random.default_rng(1).standard_normal((1, 3, 4)))
    residual = stated.design @ a.numpy().ravel() - stated.right
    terms = np.stack([(residual[group == i] @ stated.design[group == i]) for i in range(count)])
    np.testing.assert_allclose(terms.sum(0), cost.gradient(a).flatten(), rtol=1e-9, atol=1e-12)
    pairs = [(i, j) for i in range(count) for j in range(i)]
    sums = np.stack([count / 2 * (terms[i] + terms[j]) for i, j in pairs])
    draws, hits = Draws(cost.observations, np.array([0]), batch_size=2, seed=4), np.zeros(len(pairs))
    for step in range(40 * len(pairs)):
        distance = np.abs(sums - draws.gradient(a, step).numpy().ravel()).max(1)
        hits[int(distance.argmin())] += 1
        assert distance.min() <= 1e-12 * np.abs(sums).max()
    assert chisquare(hits).pvalue > 1e-3


@pytest.mark.parametrize("task", TASKS)
def test_noise_of_labels_has_the_covariance_of_its_design(task):
    """G − ∇C = −Σ ε_i x_i with ε of N(0, σ²) on every label (weighed as it is in the cost): whitened, it is normal."""
    cost, stated, _ = observed(task)
    a, sigma = torch.zeros((1, 3, 4), dtype=torch.float64), 0.7
    scale = np.sqrt(7) if task == "regression" else 1.0  # rows and right sides there are divided by √N
    draws = Draws(cost.observations, np.array([3]), label_noise=sigma, seed=1)
    exact = cost.gradient(a)
    off = np.stack([(draws.gradient(a, k) - exact).numpy().ravel() for k in range(800)])
    values, vectors = np.linalg.eigh(sigma**2 * stated.design.T @ stated.design / scale**2)
    kept = values > 1e-12
    assert np.abs(off @ vectors[:, ~kept]).max(initial=0) < 1e-12
    assert kstest((off @ vectors[:, kept] / np.sqrt(values[kept])).ravel(), "norm").pvalue > 1e-3


def test_members_draw_by_their_numbers_and_blocks_do_not_show():
    cost = factorization(np.eye(3), CPU)
    a = torch.zeros((3, 3, 3), dtype=torch.float64)
    options = {"batch_size": 4, "label_noise": 0.5, "seed": 2}
    several = Draws(cost.observations, np.array([5, 1, 7]), **options)
    alone = Draws(cost.observations, np.array([1]), **options)
    for step in (0, 1, 5000, 5001, 3):
        g = several.gradient(a, step)
        assert torch.equal(g[1:2], alone.gradient(a[:1], step)) and not torch.equal(g[0], g[1])
        assert torch.equal(several.select(np.array([1])).gradient(a[:1], step), g[1:2])
    assert not torch.equal(alone.gradient(a[:1], 0), alone.gradient(a[:1], 1))


@pytest.mark.parametrize("task", [*TASKS, "classification"])
def test_stochastic_steps_use_each_draw_once_and_at_its_step(task):
    """1000 steps of sgd with batches, label noise, momentum and decay: torch.optim.SGD on ⟨G_k, A⟩, G_k drawn apart.

    Each to 1e-12 of the largest weight, from the weights where the one before it ended.
    """
    cost, noise = observed(task)[0] if task in TASKS else classified()[0], {"batch_size": 3, "seed": 9}
    noise |= {"label_noise": 0.3} if task in TASKS else {}  # labels of classes have none
    d_out, d_in = cost.shape
    network = gaussian_network((d_in, 5, d_out), 0.4, CPU, seed=2)
    layers = layers_of(network)
    optimiser = torch.optim.SGD(layers, lr=0.01, momentum=0.8, weight_decay=0.1, foreach=False)
    other = Draws(cost.observations, np.array([0]), **noise)
    records = gradient_descent(
        network,
        cost,
        lr=0.01,
        max_steps=1000,
        tol=0,
        record_every=1,
        weight_decay=0.1,
        update=HeavyBall(0.8),
        draws=Draws(cost.observations, np.array([0]), **noise),
    )
    for k, record in enumerate(records):
        for mine, theirs in zip(record.weights(0), layers, strict=True):
            expected = theirs.detach().numpy()
            assert np.abs(mine - expected).max() <= 1e-12 * np.abs(expected).max()
            theirs.data.copy_(torch.as_tensor(mine))
        optimiser.zero_grad()
        a = product(layers)
        (other.gradient(a.detach()[None], k)[0] * a).sum().backward()
        optimiser.step()
    assert k == 1000


# ---- what has no noise -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "rule"),
    [*((task, "plain") for task in (*TASKS, "classification")), ("completion", "decay"), ("completion", "momentum")],
)
def test_sgd_without_noise_is_gradient_descent_bit_for_bit(task, rule, tmp_path):
    """With no noise asked for, and with batches of everything beside labels without noise."""
    extra = {"plain": {}, "decay": {"weight_decay": 0.1}, "momentum": {"momentum": 0.9}}[rule]
    common = {**SMALL, **extra, "task": task, "seeds": 2, "max_steps": 60, "lr": 0.01, "threads": 1}
    count = {"completion": 10, "factorization": 12, "sensing": 10, "regression": 30, "classification": 9}[task]
    if task == "classification":
        rng = np.random.default_rng(0)
        np.savez(tmp_path / "data.npz", X=rng.standard_normal((9, 3)), y=np.arange(9) % 4)
        common = {k: v for k, v in common.items() if k not in ("shape", "rank")} | {"data": str(tmp_path / "data.npz")}
    plain = train(dynamics="gd", **common).trajectory
    for noise in ({}, {"batch_size": count, "label_noise": 0.0}):
        other = train(dynamics="sgd", **common, **noise).trajectory
        for name in ("t", "step", "excess", "gradient_norm", "A"):
            assert getattr(plain, name).tobytes() == getattr(other, name).tobytes(), name


def test_heavy_ball_leaves_the_origin_at_the_root_of_its_recursion():
    """L = 2: z² − (1 + β + ηs)z + β."""
    s, lr = 2.0, 0.03
    for beta in (0.5, 0.9):
        network = balanced_network(np.diag([1e-16, 0.0]), (2, 3, 2), CPU)
        records = gradient_descent(
            network,
            factorization(np.diag([s, 0.5]), CPU),
            lr=lr,
            max_steps=61,
            tol=0,
            record_every=1,
            update=HeavyBall(beta),
        )
        a = {int(r.step[0]): float(r.A[0, 0, 0]) for r in records}
        root = max(np.roots([1, -(1 + beta + lr * s), beta]))
        assert np.sqrt(a[61] / a[60]) == pytest.approx(root, rel=1e-6)
        rate = HeavyBall(beta).growth(s, lr)
        assert np.exp(rate * lr / (1 - beta)) == pytest.approx(root, rel=1e-12)


def test_heavy_ball_becomes_the_flow_in_its_time():
    """At time ηk/(1 − β) it is O(η) away from the flow."""
    network = balanced_network(np.diag([0.05, 0.02]), (2, 3, 2), CPU)
    cost = factorization(np.diag([2.0, 1.0]), CPU)
    there = [r.A[0] for r in gradient_flow(network, cost, output_times=[2.0], max_time=2.0, rtol=1e-9)][-1]
    errors = []
    for lr in (2e-3, 1e-3, 5e-4):
        steps = round(2.0 * 0.2 / lr)
        record = list(gradient_descent(network, cost, lr=lr, max_steps=steps, tol=0, update=HeavyBall(0.8)))[-1]
        assert record.time[0] == pytest.approx(2.0)
        errors.append(np.abs(record.A[0] - there).max())
    np.testing.assert_allclose(np.array(errors[:-1]) / errors[1:], 2, rtol=0.15)


def test_what_no_gradient_reaches_decays_as_the_rule_says():
    """Weights of a full network that see no gradient, against the share told of them."""
    cost = factorization(np.zeros((2, 2)), CPU)
    weights = [torch.zeros((1, 3, 2)), torch.zeros((1, 3, 3)), torch.zeros((1, 2, 3))]
    weights[1][0, 1, 2] = 1.0
    network = Network.from_weights([w.double() for w in weights])
    for update in (Update(), HeavyBall(0.7), HeavyBall(0.95), Muon(0.9)):
        for lr in (Schedule.of(0.3), Schedule.of([(0, 0.3), (7, 0.1), (20, 0.25)])):
            records = gradient_descent(
                network, cost, lr=lr, max_steps=40, tol=0, record_every=1, weight_decay=0.5, update=update
            )
            left = np.array([record.weights(0)[1][1, 2] for record in records])
            np.testing.assert_allclose(update.left(lr, 0.5, np.arange(41)), left, rtol=1e-12, atol=1e-15)


def test_muon_leaves_directions_alone_that_are_round_off():
    """Gradients of cross-entropy have rank k − 1 = 2: at the first step no layer of 3 × 3 moves along a third way."""
    cost, _ = classified()
    for seed in range(40):
        network = gaussian_network((3, 3, 3, 3), 0.5, CPU, seed=seed)
        first, second = gradient_descent(network, cost, lr=0.01, max_steps=1, tol=0, update=Muon(0.9), record_every=1)
        for before, after in zip(first.weights(0), second.weights(0), strict=True):
            np.testing.assert_allclose(np.linalg.svd(after - before)[1], [0.01, 0.01, 0], rtol=1e-9, atol=1e-15)


def test_muon_lets_all_modes_grow_at_one_rate():
    """Each mode of a balanced aligned start grows by η a step in every layer, however large its target is."""
    network = balanced_network(np.diag([0.01, 0.0025]), (2, 2, 2), CPU)
    cost = factorization(np.diag([9.0, 1.0]), CPU)
    records = list(gradient_descent(network, cost, lr=0.01, max_steps=50, tol=0, record_every=50, update=Muon(0.9)))
    np.testing.assert_allclose(np.diag(records[-1].A[0]), [(0.1 + 0.5) ** 2, (0.05 + 0.5) ** 2], rtol=1e-12)


# ---- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--dynamics gd --batch-size 3", "--batch-size: found with --dynamics gd, expected only with sgd"),
        ("--momentum 0.5", "--momentum: found with --dynamics flow, expected only with gd or sgd or muon or adam"),
        ("--dynamics gd --momentum 1", "--momentum: found 1, expected below 1"),
        ("--dynamics sgd --batch-size 81", "--batch-size: found 81, but training sees 80 entries; expected"),
        ("--dynamics adam --representation krylov", "--representation: found krylov, but adam scales each weight by"),
        ("--dynamics muon --krylov-order 2", "--representation: found krylov, but muon moves all directions"),
        ("--dynamics sgd --cost logistic --label-noise 1", "--label-noise: found 1 with a cost whose gradient is not"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words, told, tmp_path, capsys):
    assert run(["train", *words.split(), "--out", str(tmp_path / "run")]) == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_a_cost_of_unknown_samples_is_refused():
    x = np.random.default_rng(0).standard_normal((9, 3))
    assert regression(x, x[:, :2], CPU).observations is None
    weighed = QuadraticCost("completion", "mask", torch.tensor([[2.0, 1.0]]), torch.ones(1, 2))
    assert weighed.observations is None
    seen = completion(np.array([[1.0, np.nan]]), np.array([[True, False]]), CPU).observations
    assert seen.count == 1 and seen.what == "entries"


@pytest.mark.parametrize("make", ["cross-entropy", "logistic", "huber"])
def test_batches_of_other_costs_are_unbiased(make):
    """Over all single observations: their mean is the whole gradient."""
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((6, 3)), np.array([0, 1, 2, 0, 1, 2])
    if make == "huber":
        cost = huber_completion(rng.standard_normal((3, 3)), rng.random((3, 3)) < 0.7, 0.5, CPU)
    else:
        cost = {"cross-entropy": cross_entropy, "logistic": logistic_regression}[make](x, y, CPU)
    seen = cost.observations
    a = torch.as_tensor(rng.standard_normal((1, 3, 3))).expand(seen.count, 3, 3)
    each = seen.gradient(a, seen.count * torch.eye(seen.count, dtype=torch.float64), None)
    np.testing.assert_allclose(each.mean(0), cost.gradient(a[:1])[0], rtol=1e-12, atol=1e-14)
    with pytest.raises(InputError, match="not linear in the labels"):
        Draws(seen, np.array([0]), label_noise=0.1)

"""What is looked at along a path against dense automatic derivatives and linear algebra; the edge of stability."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from convex_problems import COSTS, DELTA, MASK, TARGET, WORDS, X
from problems import stated_cost
from torch.nn import functional as F

import dlnphase
from dlnphase.backend import resolve_backend
from dlnphase.critical.observables import MEASURES, Scene, observe
from dlnphase.critical.sharpness import spectrum_ends, stability_limit
from dlnphase.dynamics.draws import Draws
from dlnphase.dynamics.records import Record
from dlnphase.dynamics.state import pack, unpack
from dlnphase.errors import InputError
from dlnphase.findings import Sharpness
from dlnphase.networks.chain import Network
from dlnphase.networks.sampling import gaussian_network
from dlnphase.observables import ARRAYS, OBSERVABLES
from dlnphase.results.observed import Observed
from dlnphase.results.train import load_train, save_train
from dlnphase.settings import TrainSettings
from dlnphase.training.observing import Observer, refuse_partless, sharpness_of
from dlnphase.training.sentences import train_sentence

CPU = resolve_backend("cpu")
DIMS = (4, 6, 5, 3)
TASKS = ("factorization", "completion", "sensing", "regression")


def networks(count=3, dims=DIMS, sigma=0.6, seed=2):
    return gaussian_network(dims, sigma, CPU, seed=seed, members=range(count))


def autograd_hessian(network, cost):
    def loss(theta):
        return cost.value(Network(theta[None], network.dims).product())[0]

    return torch.autograd.functional.hessian(loss, network.theta[0].clone(), vectorize=True).numpy()


def dense_kernel(theta, dims):
    """K on the entries of A, from the Jacobian that autograd makes."""
    jacobian = torch.autograd.functional.jacobian(lambda x: Network(x[None], dims).product().flatten(), theta)
    return jacobian @ jacobian.T


# ---- the Hessian --------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("small", [0, 10**6])
def test_the_ends_of_the_spectrum_are_those_of_the_dense_hessian(task, small):
    cost = stated_cost(task, (3, 4), CPU).cost
    for k in range(3):
        network = networks().select([k])
        values = np.linalg.eigvalsh(autograd_hessian(network, cost))
        ends = spectrum_ends(network, cost, small=small)
        np.testing.assert_allclose((ends.smallest, ends.largest), values[[0, -1]], atol=1e-6 * values[-1])
        assert np.linalg.norm(ends.vector) == pytest.approx(1)
        top = ends.vector @ autograd_hessian(network, cost) @ ends.vector
        assert top == pytest.approx(values[-1], rel=1e-6)
        assert (ends.values is None) == (small == 0)
        if ends.values is not None:
            np.testing.assert_allclose(ends.values, values, atol=1e-10 * values[-1])


def test_a_search_that_begins_at_another_eigenvector_still_finds_the_largest():
    """Between two records another eigenvalue may have become the largest."""
    cost, network = stated_cost("factorization", (3, 4), CPU).cost, networks(1)
    values, vectors = np.linalg.eigh(autograd_hessian(network, cost))
    for other in (-2, -5, 0):
        ends = spectrum_ends(network, cost, near=vectors[:, other].copy(), both=False, small=0)
        assert ends.largest == pytest.approx(values[-1], rel=1e-6)


def test_where_the_hessian_vanishes_so_do_both_ends():
    cost = stated_cost("factorization", (3, 4), CPU).cost
    network = networks(1).with_theta(torch.zeros_like(networks(1).theta))
    ends = spectrum_ends(network, cost, small=0)
    assert (ends.smallest, ends.largest, ends.residual) == (0, 0, 0)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_at_the_limit_a_step_of_heavy_ball_neither_grows_nor_decays(momentum):
    limit = stability_limit(0.3, momentum)
    for factor, grows in ((0.999, False), (1.001, True)):
        z = np.roots([1, -(1 + momentum - 0.3 * factor * limit), momentum])
        assert (np.abs(z).max() > 1) == grows


# ---- every observable ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene():
    cost = stated_cost("completion", (3, 4), CPU).cost
    return Scene(networks(), networks(1, seed=5), cost, decay=0.1)


def test_layers_products_norms_and_balance_are_those_of_numpy(scene):
    seen = observe(scene, ("layers", "products", "norms", "balance", "weights"))
    for k in range(3):
        layers = [w[k].numpy() for w in scene.networks.weights]
        for got, w in zip(seen["layer_singular_values"][k], layers, strict=True):
            np.testing.assert_allclose(got[: min(w.shape)], np.linalg.svd(w, compute_uv=False))
            assert np.isnan(got[min(w.shape) :]).all()
        up, down = np.eye(4), np.eye(3)
        for step in range(3):
            up, down = layers[step] @ up, down @ layers[2 - step]
            for side, matrix in enumerate((up, down)):
                got = seen["product_singular_values"][k, side, step]
                values = np.linalg.svd(matrix, compute_uv=False)
                np.testing.assert_allclose(got[: len(values)], values, atol=1e-12)
        np.testing.assert_allclose(seen["layer_norms"][k], [np.linalg.norm(w) for w in layers])
        apart = [np.linalg.norm(b.T @ b - a @ a.T) for a, b in itertools.pairwise(layers)]
        np.testing.assert_allclose(seen["balancedness"][k], apart)
        np.testing.assert_array_equal(seen["W2"][k], layers[1])


def test_the_kernel_and_its_rate_are_those_of_autograd(scene):
    seen = observe(scene, ("ntk",))
    first = dense_kernel(scene.first.theta[0], DIMS)
    for k in range(3):
        theta = scene.networks.theta[k].clone()
        kernel = dense_kernel(theta, DIMS)
        assert seen["ntk_trace"][k] == pytest.approx(float(kernel.trace()))
        change = torch.linalg.matrix_norm(kernel - first) / torch.linalg.matrix_norm(first)
        assert seen["ntk_change"][k] == pytest.approx(float(change))
        at = theta.requires_grad_()
        loss = scene.cost.value(Network(at[None], DIMS).product())[0] + 0.05 * at.square().sum()
        (slope,) = torch.autograd.grad(loss, at)
        h = 1e-5 / float(slope.norm())
        ahead, behind = (dense_kernel((theta - side * h * slope).detach(), DIMS) for side in (1, -1))
        rate = torch.linalg.matrix_norm(ahead - behind) / (2 * h) / torch.linalg.matrix_norm(kernel)
        assert seen["ntk_rate"][k] == pytest.approx(float(rate), rel=1e-6)


def each_loss(task):
    """A cost, and the losses ℓ_i of its observations as a function of A, written out from the definition."""
    if task in COSTS:
        cost = COSTS[task][0]
        words = torch.as_tensor(WORDS)
        if task == "cross-entropy":
            return cost, lambda a: F.cross_entropy(torch.as_tensor(X) @ a.mT, words, reduction="none") / len(X)
        goal, mask = torch.as_tensor(TARGET)[MASK], torch.as_tensor(MASK)
        return cost, lambda a: F.huber_loss(a[mask], goal, delta=DELTA, reduction="none")
    stated = stated_cost(task, (3, 4), CPU, keep=True)
    group = 3 if task == "regression" else 1  # numbers of one sample
    rows, right = torch.as_tensor(stated.design), torch.as_tensor(stated.right)
    return stated.cost, lambda a: 0.5 * (rows @ a.flatten() - right).square().view(-1, group).sum(1)


@pytest.mark.parametrize("task", [*TASKS, "cross-entropy", "huber"])
def test_the_covariance_of_gradients_is_that_of_autograds_one_by_one(task):
    cost, losses = each_loss(task)
    dims = (cost.shape[1], 6, 5, cost.shape[0])
    scene = Scene(networks(dims=dims), networks(1, dims=dims), cost)
    got = observe(scene, ("covariance",))["gradient_covariance"]
    for k in range(3):
        theta = scene.networks.theta[k].clone().requires_grad_()
        parts = losses(Network(theta[None], dims).product()[0])
        gradients = torch.stack([len(parts) * torch.autograd.grad(p, theta, retain_graph=True)[0] for p in parts])
        assert got[k] == pytest.approx(float(gradients.var(0, correction=0).sum()), rel=1e-10)


def test_the_covariance_is_that_of_the_batches_a_run_draws():
    """Batches of B without replacement have (n − B)/(B(n − 1)) of it; 4,000 of them tell it to some per cent."""
    cost, network, size = stated_cost("completion", (3, 4), CPU).cost, networks(1), 3
    (whole,) = observe(Scene(network, network, cost), ("covariance",))["gradient_covariance"]
    draws = Draws(cost.observations, np.array([0]), batch_size=size)
    found = torch.stack([network.gradient(draws.gradient(network.product(), k))[0] for k in range(4000)])
    count = cost.observations.count
    assert float(found.var(0).sum()) == pytest.approx(whole * (count - size) / (size * (count - 1)), rel=0.05)


def test_weight_decay_adds_to_every_curvature(scene):
    seen = observe(scene, ("sharpness", "hessian"))
    for k in range(3):
        values = np.linalg.eigvalsh(autograd_hessian(scene.networks.select([k]), scene.cost)) + 0.1
        assert seen["sharpness"][k] == pytest.approx(values[-1])
        np.testing.assert_allclose(seen["hessian_extremes"][k], values[[0, -1]], atol=1e-10)
        np.testing.assert_allclose(seen["hessian_eigenvalues"][k], values, atol=1e-10)


def test_every_name_is_an_option_and_every_array_is_described(scene):
    assert tuple(MEASURES) == tuple(OBSERVABLES)
    seen = observe(scene, tuple(OBSERVABLES))
    assert {name for name in seen if not name.startswith("W")} == set(ARRAYS)
    assert all(len(array) == 3 for array in seen.values())


# ---- which records are kept ----------------------------------------------------------------------------


def record(step, finite=True):
    theta = np.full(1, float(step))
    a = np.full((1, 1, 1), 1.0 if finite else np.nan)
    return Record(
        np.array([0]), theta, np.array([step]), np.array([step]), theta, theta, a, [None], lambda i: [theta, theta]
    )


def test_few_records_are_kept_of_many_early_ones_and_both_parities_among_them():
    observer = Observer(networks(1), wanted=True)
    for step in range(20_000):
        observer.feed([record(step)])
    (kept,) = observer.members
    steps = np.array([row[2] for row in kept.rows])
    assert (np.diff(steps) > 0).all() and steps[0] == 0 and 30 < len(steps) < 120
    assert all(layers[0][0] == step for layers, step in zip(kept.layers, steps, strict=True))
    assert (steps < 100).sum() > 10  # the beginning, however long the rest
    late = steps[steps > 5000]
    assert np.diff(late).max() < 2 * 729 and 0.3 < (late % 2).mean() < 0.7


def test_records_that_tell_nothing_new_are_passed_over_and_what_is_kept_can_be_resumed():
    observer, again = Observer(networks(1), wanted=True), Observer(networks(1), wanted=True)
    for step in (0, 1, 1, 2):
        observer.feed([record(step)])
    observer.feed([record(3, finite=False)])
    assert [row[2] for row in observer.members[0].rows] == [0, 1, 2]
    again.resume(unpack(pack(observer.state()), torch.device("cpu")))
    for each in (observer, again):
        for step in range(4, 300):
            each.feed([record(step)])
    assert again.members[0].rows == observer.members[0].rows
    np.testing.assert_array_equal(again.members[0].layers, observer.members[0].layers)
    idle = Observer(networks(2), wanted=False)
    idle.feed([record(0)])
    assert idle.members == []


# ---- runs ---------------------------------------------------------------------------------------------

DEEP = {"task": "factorization", "shape": (4, 4), "singular_values": (4.0, 2.0), "depth": 3, "width": 8, "gamma": 2.0}
LIMIT = 2 / (3 * 4 ** (4 / 3))  # 2/λ_max once the larger mode is learned: λ_max = L·s^(2 − 2/L)


def test_a_small_step_is_stable_and_ends_at_the_curvature_of_what_was_learned():
    result = dlnphase.train(TrainSettings(**DEEP, dynamics="gd", lr=0.6 * LIMIT))
    seen = result.sharpness
    assert (seen.verdict, seen.above, seen.formula) == ("stable", 0.0, "2/η")
    assert seen.limit == pytest.approx(2 / (0.6 * LIMIT))
    assert seen.end == pytest.approx(2 / LIMIT, rel=0.01) and seen.largest >= seen.end > seen.start
    assert "stable" in train_sentence(result)


def test_a_step_just_beyond_the_limit_is_at_the_edge_of_stability():
    """Beyond it gradient descent cannot stay at the minimum: it swings between two sides, one of them sharper."""
    result = dlnphase.train(TrainSettings(**DEEP, dynamics="gd", lr=1.02 * LIMIT, max_steps=3000))
    seen = result.sharpness
    assert result.outcome.reason == "max_steps" and seen.verdict == "edge-of-stability"
    assert 0.2 < seen.above < 0.8 and "edge of stability" in train_sentence(result)
    assert "left a saddle of rank 0" in train_sentence(result)  # and did not stay at one of the rank of its end
    late = result.observed.values["sharpness"][-10:]
    assert late.min() < seen.limit < late.max()


def test_momentum_moves_the_limit_and_muon_has_none():
    """Heavy ball stays at a curvature between 2/η and 2(1 + β)/η; at the same step plain descent cannot."""
    result = dlnphase.train(TrainSettings(**DEEP, dynamics="gd", momentum=0.5, lr=1.2 * LIMIT, max_steps=5000))
    seen = result.sharpness
    assert result.outcome.reason == "converged" and seen.formula == "2(1 + β)/η"
    assert seen.limit == pytest.approx(3 / (1.2 * LIMIT))
    assert seen.end == pytest.approx(2 / LIMIT, rel=0.01) and 2 / (1.2 * LIMIT) < seen.end < seen.limit
    muon = dlnphase.train(TrainSettings(**DEEP, dynamics="muon", max_steps=50))
    assert muon.sharpness.limit is None and muon.sharpness.verdict is None
    assert train_sentence(muon).count("Sharpness") == 1


def test_a_run_that_diverges_was_unstable():
    result = dlnphase.train(TrainSettings(**DEEP, dynamics="gd", lr=4 * LIMIT, max_steps=3000))
    assert result.outcome.reason == "diverged" and result.sharpness.verdict == "unstable"


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1, 2, 3], "stable"),
        ([1, 5, 3], "edge-of-stability"),
        ([5, 5, 5], "edge-of-stability"),
        ([6, 5, 3, 3], "catapult"),
        ([6, 3, 5, 3], "edge-of-stability"),
    ],
)
def test_verdicts(values, verdict):
    seen = Observed(
        np.zeros(len(values), int),
        np.arange(len(values)),
        np.arange(len(values)),
        {"sharpness": np.array(values, float)},
    )
    told = sharpness_of(seen, "converged", lr=0.5)
    assert (told.limit, told.verdict) == (4.0, verdict)
    assert sharpness_of(seen, "diverged", lr=0.5).verdict == "unstable"
    assert sharpness_of(seen, "converged", lr=0.5, momentum=None) == Sharpness(values[0], max(values), values[-1])
    assert sharpness_of(seen, "converged", lr=0.5, momentum=0.5).limit == 6.0


def test_a_flow_looks_at_what_it_is_asked_to_and_keeps_its_layers_balanced(tmp_path):
    settings = TrainSettings(**DEEP, record="balance,sharpness,weights,norms", seeds=2)
    result = dlnphase.train(settings)
    seen = result.observed
    assert result.sharpness is None and set(np.unique(seen.member)) == {0, 1}
    for member in (0, 1):
        rows = seen.rows_of(member)
        apart = seen.values["balancedness"][rows]
        np.testing.assert_allclose(apart, apart[:1] * np.ones_like(apart), rtol=1e-3)
        path = result.trajectory
        assert (seen.t[rows][0], seen.t[rows][-1]) == (0.0, path.t[path.rows_of(member)[-1]])
    sizes = [np.linalg.norm(seen.values[f"W{k}"], axis=(1, 2)) for k in (1, 2, 3)]
    np.testing.assert_allclose(np.stack(sizes, 1), seen.values["layer_norms"])
    plain = dlnphase.train(TrainSettings(**DEEP, seeds=2))
    np.testing.assert_array_equal(plain.trajectory.A, result.trajectory.A)  # looking changes nothing
    save_train(result, tmp_path)
    again = load_train(tmp_path)
    assert again.files["observed"] == "observed.npz" and again.config.record == settings.record
    for name, array in seen.arrays().items():
        np.testing.assert_array_equal(again.observed.arrays()[name], array)
    np.savez(tmp_path / "observed.npz", **seen.arrays() | {"sharpness": seen.values["sharpness"][:-1]})
    with pytest.raises(InputError, match=r"observed.npz: sharpness has shape"):
        load_train(tmp_path)


def test_a_reduced_network_refuses_what_it_does_not_hold(run, tmp_path):
    wide = ["train", "--task", "factorization", "--dim", "3", "--width", "1e6", "--depth"]
    code, _, err = run(*wide, "3", "--record", "ntk,balance", "--out", tmp_path / "a")
    assert code == 2 and err.count("\n") == 1 and "balance" in err and "full" in err and not (tmp_path / "a").exists()
    code, _, err = run(*wide, "3", "--record", "ntk,hesian", "--out", tmp_path / "a")
    assert code == 2 and "did you mean hessian" in err
    code, _, err = run("train", "--dynamics", "greedy", "--record", "ntk", "--out", tmp_path / "a")
    assert code == 2 and "greedy" in err


def test_a_reduced_network_of_two_layers_tells_what_the_full_one_does(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "start.npz", W1=0.3 * rng.standard_normal((40, 4)), W2=0.3 * rng.standard_normal((3, 40)))
    told = [
        dlnphase.train(
            TrainSettings(
                task="factorization",
                shape=(3, 4),
                rank=2,
                init_weights=str(tmp_path / "start.npz"),
                representation=kind,
                krylov_order=order,
                record=("layers", "products", "norms", "balance", "hessian", "ntk"),
                max_steps=40,
            )
        ).observed
        for kind, order in (("full", None), ("krylov", 1))
    ]
    full, reduced = told
    np.testing.assert_allclose(full.t[:3], reduced.t[:3], rtol=1e-6)
    for name in ("layer_norms", "balancedness", "hessian_extremes", "ntk_trace", "ntk_rate"):
        np.testing.assert_allclose(full.values[name][:3], reduced.values[name][:3], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(
        full.values["layer_singular_values"][:3], reduced.values["layer_singular_values"][:3], rtol=1e-5
    )


# ---- paths of other codes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Gradient descent by autograd on a completion: an .npz of every step, another of A alone, and checkpoints."""
    folder = tmp_path_factory.mktemp("foreign")
    rng = np.random.default_rng(3)
    target = rng.standard_normal((3, 2)) @ rng.standard_normal((2, 4))
    target[0, 1] = np.nan
    np.save(folder / "target.npy", target)
    y, seen = torch.as_tensor(np.nan_to_num(target)), torch.as_tensor(~np.isnan(target))
    layers = [torch.as_tensor(0.3 * rng.standard_normal(s)).requires_grad_() for s in ((5, 4), (5, 5), (3, 5))]
    kept = []
    for step in range(900):
        kept.append([w.detach().numpy().copy() for w in layers])
        if step % 100 == 0:
            torch.save({f"{k}.weight": w.detach().clone() for k, w in enumerate(layers)}, folder / f"step_{step}.pt")
        loss = 0.5 * (seen * (layers[2] @ layers[1] @ layers[0] - y)).square().sum()
        for w, g in zip(layers, torch.autograd.grad(loss, layers), strict=True):
            w.data -= 0.01 * g
    stacks = [np.stack(parts) for parts in zip(*kept, strict=True)]
    t = 0.01 * np.arange(900)
    np.savez(folder / "path.npz", t=t, **{f"W{k}": w for k, w in enumerate(stacks, 1)})
    np.savez(folder / "matrices.npz", t=t, A=stacks[2] @ stacks[1] @ stacks[0])
    return folder, stacks, y, seen


def test_a_path_of_another_code_is_looked_at_as_ours_are(run, foreign, tmp_path):
    folder, stacks, y, seen = foreign
    flags = ["--target", folder / "target.npy", "--no-certify"]
    flags += ["--record", "norms,sharpness,ntk", "--record", "covariance"]
    code, out, err = run("detect-saddles", folder / "path.npz", *flags, "--out", tmp_path / "a")
    assert code == 0, err
    assert "observed.npz" in out
    result = dlnphase.load(tmp_path / "a")
    found = result.observed
    assert result.files["observed"] == "observed.npz" and set(found.values) == {
        "layer_norms",
        "sharpness",
        "ntk_trace",
        "ntk_change",
        "ntk_rate",
        "gradient_covariance",
    }
    assert found.step[0] == 0 and found.step[-1] == 899 and 50 < len(found.step) < 120
    assert (np.diff(found.step) > 0).all() and set(found.step % 2) == {0, 1}
    np.testing.assert_allclose(found.t, 0.01 * found.step)
    norms = np.stack([np.linalg.norm(w[found.step], axis=(1, 2)) for w in stacks], 1)
    np.testing.assert_allclose(found.values["layer_norms"], norms)
    for row in (0, 20, -1):
        theta = torch.cat([torch.as_tensor(w[found.step[row]]).flatten() for w in stacks])

        def losses(x):
            a, b, c = (part.view(s) for part, s in zip(x.split([20, 25, 15]), ((5, 4), (5, 5), (3, 5)), strict=True))
            return 0.5 * (c @ b @ a - y)[seen].square()

        hessian = torch.autograd.functional.hessian(lambda x: losses(x).sum(), theta, vectorize=True)
        assert found.values["sharpness"][row] == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-6)
        each = 11 * torch.autograd.functional.jacobian(losses, theta)
        assert found.values["gradient_covariance"][row] == pytest.approx(float(each.var(0, correction=0).sum()))
    code, _, err = run("plot", tmp_path / "a", "--kind", "observed", "--out", tmp_path / "figures")
    assert code == 0, err
    assert (tmp_path / "figures" / "observed.png").stat().st_size > 10_000


def test_checkpoints_are_looked_at_one_by_one(run, foreign, tmp_path):
    folder, stacks, _, _ = foreign
    flags = ["--lr", "0.01", "--target", folder / "target.npy", "--no-certify", "--no-between", "--record", "weights"]
    code, _, err = run("detect-saddles", folder, *flags, "--out", tmp_path / "a")
    assert code == 0, err
    found = dlnphase.load(tmp_path / "a").observed
    np.testing.assert_array_equal(found.step, np.arange(0, 900, 100))
    np.testing.assert_array_equal(found.values["W2"], stacks[1][::100])


def test_what_a_path_cannot_tell_is_refused(run, foreign, tmp_path):
    folder, *_ = foreign
    task = ["--target", folder / "target.npy"]
    code, out, err = run("detect-saddles", folder / "matrices.npz", *task, "-L", 3, "--record", "ntk")
    assert code == 2 and out == "" and err.count("\n") == 1 and "record: found ntk with matrices alone" in err
    save_train(dlnphase.train(TrainSettings(**DEEP, max_steps=5)), tmp_path)
    code, _, err = run("detect-saddles", tmp_path, "--record", "ntk")
    assert code == 2 and err.count("\n") == 1 and "dlnphase train --record" in err
    sums = stated_cost("sensing", (3, 4), CPU).cost  # which keeps no measurements
    with pytest.raises(InputError, match="record: found covariance"):
        refuse_partless(("ntk", "covariance"), sums)
    refuse_partless(("ntk",), sums)

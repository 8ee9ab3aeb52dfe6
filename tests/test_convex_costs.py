"""Cross-entropy, logistic, Huber: derivatives against torch's own, minima against SciPy's, digits by mpmath."""

from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from convex_problems import COSTS, CPU, MASK, TARGET, WORDS, X
from scipy.optimize import minimize

import dlnphase
from dlnphase.backend import resolve_backend
from dlnphase.costs.convex import cross_entropy, huber_completion, logistic_regression, one_bit_completion
from dlnphase.costs.own import OwnCost, load_cost
from dlnphase.critical.hessian import hessian_vector_product
from dlnphase.networks.chain import Network
from dlnphase.settings import costs as settings

NAMES = tuple(COSTS)


def test_every_cost_that_commands_offer_has_an_oracle_here():
    assert set(settings.COSTS) - {"squared"} == {cost.name for cost, _ in COSTS.values()}


def matrices(cost, count=3, size=1.0, seed=0):
    return torch.as_tensor(size * np.random.default_rng(seed).standard_normal((count, *cost.shape)))


@pytest.mark.parametrize("name", NAMES)
def test_value_and_derivatives_are_those_of_autograd(name):
    cost, oracle = COSTS[name]
    a, v = matrices(cost), matrices(cost, seed=1)
    at = a.clone().requires_grad_()
    value = oracle(at)
    (gradient,) = torch.autograd.grad(value.sum(), at, create_graph=True)
    (image,) = torch.autograd.grad((gradient * v).sum(), at)
    close = {"rtol": 1e-13, "atol": 1e-14}
    torch.testing.assert_close(cost.value(a), value.detach(), **close)
    torch.testing.assert_close(cost.gradient(a), gradient.detach(), **close)
    torch.testing.assert_close(cost.apply_curvature(v, a), image, **close)
    one = a[:1].expand(a.shape)  # one matrix, many directions
    torch.testing.assert_close(cost.apply_curvature(v, one)[2], cost.apply_curvature(v[2:], a[:1])[0], **close)
    dense = torch.autograd.functional.hessian(lambda x: oracle(x.view(1, *cost.shape))[0], a[0].flatten())
    torch.testing.assert_close(cost.curvature(a[:1])[0], dense, **close)


@pytest.mark.parametrize("name", NAMES)
def test_every_cost_passes_the_check(name):
    dlnphase.check_cost(COSTS[name][0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_hessian_of_the_loss_is_the_dense_one_of_autograd(name, depth):
    cost, oracle = COSTS[name]
    sizes = [cost.shape[1], *([3] * (depth - 1)), cost.shape[0]]
    rng = np.random.default_rng(depth)
    layers = [torch.as_tensor(rng.standard_normal((1, n, m))) for m, n in pairwise(sizes)]
    network = Network.from_weights(layers)

    def loss(theta):
        parts = network.with_theta(theta[None]).weights
        a = parts[0]
        for w in parts[1:]:
            a = w @ a
        return oracle(a)[0]

    dense = torch.autograd.functional.hessian(loss, network.theta[0])
    eye = torch.eye(len(dense), dtype=dense.dtype)
    ours = hessian_vector_product(network, cost, eye)
    torch.testing.assert_close(ours, dense, rtol=1e-12, atol=1e-12 * float(dense.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_the_minimum_is_scipys_or_there_is_none(name):
    cost, oracle = COSTS[name]
    if name == "one bit":
        assert not cost.attained and cost.minimum == 0 and cost.minimizer is None
        return

    def fun(flat):
        at = torch.as_tensor(flat).view(1, *cost.shape).requires_grad_()
        value = oracle(at)
        return value.item(), torch.autograd.grad(value.sum(), at)[0].numpy().ravel()

    found = minimize(fun, np.zeros(cost.shape[0] * cost.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-9})
    assert cost.attained
    assert cost.minimum == pytest.approx(found.fun, rel=1e-10, abs=1e-12)
    assert float(cost.gradient(cost.minimizer[None]).abs().max()) <= 1e-12
    step = cost.unseen(matrices(cost))  # along what is not seen the minimum goes on, and nowhere else
    assert float(cost.excess(cost.minimizer + 10 * step).abs().max()) <= 1e-12
    assert cost.unique == (float(step.abs().max()) < 1e-12)


def test_data_that_can_be_told_apart_have_no_minimum():
    x = np.vstack([X[:20] + [9, 0, 0, 0], X[:20] - [9, 0, 0, 0]])
    labels = np.repeat([0, 1], 20)
    for cost in (cross_entropy(x, labels, CPU), logistic_regression(x, labels, CPU)):
        assert not cost.attained and cost.minimum == 0 and not cost.unique
        assert "no minimum" in repr(cost)
    wrong = labels.copy()
    wrong[0] = 1
    assert cross_entropy(x, wrong, CPU).attained


@pytest.mark.parametrize("margin", [1.0, 40.0, 600.0])
def test_samples_with_large_margins_keep_their_digits(margin):
    """ℓ = log(1 + e^(−m₁) + e^(−m₂)) and its slope, which a plain softmax rounds to 0 from m ≈ 37 on."""
    cost = cross_entropy(np.eye(1), np.array([0]), CPU, classes=3)
    a = torch.tensor([[[margin], [0.0], [-0.5]]], dtype=torch.float64)
    mpmath.mp.dps = 300
    first, second = mpmath.exp(-mpmath.mpf(margin)), mpmath.exp(-mpmath.mpf(margin) - mpmath.mpf(1) / 2)
    value, right = mpmath.log1p(first + second), -(first + second) / (1 + first + second)
    assert float(cost.value(a)[0]) == pytest.approx(float(value), rel=1e-14)
    assert float(cost.gradient(a)[0, 0, 0]) == pytest.approx(float(right), rel=1e-14)
    bend = first / (1 + first + second) * (1 - first / (1 + first + second))
    unit = torch.tensor([[[0.0], [1.0], [0.0]]], dtype=torch.float64)
    assert float(cost.apply_curvature(unit, a)[0, 1, 0]) == pytest.approx(float(bend), rel=1e-14)


def test_accuracy_and_margin_are_those_of_the_largest_answer():
    cost, _ = COSTS["cross-entropy"]
    a = matrices(cost)
    z = torch.as_tensor(X) @ a.mT
    share = (z.argmax(-1) == torch.as_tensor(WORDS)).double().mean(-1)
    assert torch.equal(cost.accuracy(a), share)
    assert torch.equal(COSTS["logistic"][0].accuracy(a), share)
    bits, _ = COSTS["one bit"]
    b = matrices(bits)
    agree = [np.mean(np.sign(m)[MASK] == np.sign(TARGET)[MASK]) for m in b.numpy()]
    assert bits.accuracy(b).tolist() == pytest.approx(agree)
    assert bits.margin(b).tolist() == pytest.approx([(m * np.sign(TARGET))[MASK].min() for m in b.numpy()])
    assert COSTS["huber"][0].accuracy(matrices(COSTS["huber"][0])) is None


@pytest.mark.parametrize("name", NAMES)
def test_costs_move_to_another_precision(name):
    cost, oracle = COSTS[name]
    single = cost.to(resolve_backend("cpu", "float32"))
    a = matrices(cost)
    assert single.gradient(a.float()).dtype == torch.float32
    torch.testing.assert_close(single.value(a.float()).double(), oracle(a), rtol=1e-5, atol=1e-5)
    assert single.minimum == cost.minimum and single.attained == cost.attained


class Quartic:
    """Σ (A − T)⁴/4 + ½(A − T)²: value alone."""

    shape = (2, 3)
    goal = torch.arange(6, dtype=torch.float64).view(2, 3)

    def value(self, a):
        r = a - self.goal
        return (r**4 / 4 + r**2 / 2).sum((-2, -1)) + 1.5


def test_a_cost_of_ones_own_needs_its_value_alone():
    dlnphase.check_cost(Quartic())
    cost = OwnCost(Quartic())
    assert cost.attained and cost.minimum == pytest.approx(1.5, abs=1e-14)
    torch.testing.assert_close(cost.minimizer, Quartic.goal, rtol=0, atol=1e-12)
    a, v = matrices(cost), matrices(cost, seed=3)
    r = a - Quartic.goal
    torch.testing.assert_close(cost.gradient(a), r**3 + r, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(cost.apply_curvature(v, a), (3 * r**2 + 1) * v, rtol=1e-13, atol=1e-13)
    with torch.no_grad():  # as the dynamics call it
        torch.testing.assert_close(cost.gradient(a), r**3 + r, rtol=1e-13, atol=1e-13)


def test_a_cost_that_cannot_be_differentiated_says_so():
    class Plain(Quartic):
        def value(self, a):
            return torch.as_tensor(((a.numpy() - 1) ** 2).sum((-2, -1)))

    with pytest.raises(dlnphase.InputError, match="cannot be differentiated"):
        OwnCost(Plain())


def test_costs_are_loaded_by_name(tmp_path, monkeypatch):
    (tmp_path / "somecosts.py").write_text(
        "import torch\n\nclass Bowl:\n    shape = (2, 2)\n    def value(self, a):\n"
        "        return (a - 1).square().sum((-2, -1))\n\nready = Bowl()\nnumber = 3\n"
        "def broken():\n    raise OSError('no file')\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in ("Bowl", "ready"):
        assert load_cost(f"somecosts:{name}").minimum == pytest.approx(0, abs=1e-20)
    for name, words in {"number": "is a int", "Nobody": "has no Nobody", "broken": "raises OSError"}.items():
        with pytest.raises(dlnphase.InputError, match=words):
            load_cost(f"somecosts:{name}")
    with pytest.raises(dlnphase.InputError, match="cannot import"):
        load_cost("nosuchmodule:cost")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: cross_entropy(X, WORDS[:5], CPU), "expected a class from 0 for each of 30 samples"),
        (lambda: cross_entropy(X, WORDS + 0.5, CPU), "holds float64"),
        (lambda: cross_entropy(X, WORDS, CPU, classes=2), "has the class 2"),
        (lambda: cross_entropy(X, 0 * WORDS, CPU), "one class"),
        (lambda: cross_entropy(X * np.nan, WORDS, CPU), "finite numbers"),
        (lambda: one_bit_completion(TARGET, MASK, CPU), "expected -1 and 1"),
        (lambda: huber_completion(TARGET, MASK, -1.0, CPU), "huber-delta: found -1"),
        (lambda: huber_completion(TARGET, MASK[:3], 1.0, CPU), "one shape"),
        (lambda: huber_completion(TARGET * np.inf, MASK, 1.0, CPU), "not finite"),
    ],
)
def test_wrong_arrays_are_refused_in_one_line(make, words):
    with pytest.raises(dlnphase.InputError, match=words) as error:
        make()
    assert "\n" not in str(error.value)


def test_huber_beyond_all_residuals_is_the_quadratic_cost():
    wide = huber_completion(TARGET, MASK, 1e6, CPU)
    plain = dlnphase.completion(TARGET, MASK, CPU)
    a = matrices(plain)
    torch.testing.assert_close(wide.value(a), plain.value(a), rtol=1e-14, atol=0)
    torch.testing.assert_close(wide.gradient(a), plain.gradient(a), rtol=1e-14, atol=1e-14)

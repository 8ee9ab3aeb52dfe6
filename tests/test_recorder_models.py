"""Which modules the recorder takes: those that compute the product of the layers found in them, in their own order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import dlnphase
from dlnphase.detect.linear import linear_layers
from dlnphase.errors import InputError


def _linear(n, m):
    return nn.Linear(n, m, bias=False)


class _Net(nn.Module):
    """Square layers, and a forward of one's own."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.calls, self.rule = 0, forward
        self.c, self.b, self.a = _linear(4, 4), _linear(4, 4), _linear(4, 4)  # declared last to first
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        self.calls += 1
        return self.rule(self, x)


def _used(net, x):
    return net.c(net.b(net.a(x)))


class _ByHand(nn.Module):
    def __init__(self, rule, *shapes):
        super().__init__()
        self.weights, self.rule = nn.ParameterList([torch.randn(*shape) for shape in shapes]), rule

    def forward(self, *x):
        return self.rule(self.weights, *x)


class _Holder(nn.Module):
    """What a training module is: it holds a network and has no forward."""

    def __init__(self, network):
        super().__init__()
        self.network = network


class _Compiled(nn.Module):
    """What torch.compile makes, which takes seconds to import."""

    def __init__(self, network):
        super().__init__()
        self._orig_mod = network

    def forward(self, x):
        raise AssertionError("compiled for a look")


def test_layers_come_in_the_order_of_use_not_of_declaration():
    net = _Net(_used)
    assert [w is layer.weight for w, layer in zip(linear_layers(net), (net.a, net.b, net.c), strict=True)] == [True] * 3
    plain = _Net(lambda net, x: x @ net.a.weight.T @ net.b.weight.T @ net.c.weight.T)  # no layer is called
    assert linear_layers(plain)[0] is plain.a.weight and linear_layers(plain)[2] is plain.c.weight


BY_HAND = {
    "rows": (lambda w, x: x @ w[0].T @ w[1].T @ w[2].T, (5, 3), (5, 5), (2, 5)),
    "columns": (lambda w, x: w[2] @ w[1] @ w[0] @ x, (5, 3), (5, 5), (2, 5)),
    "matrix alone": (lambda w: w[2] @ w[1] @ w[0], (5, 3), (5, 5), (2, 5)),
    "columns, as wide as the probe": (lambda w, x: w[2] @ w[1] @ w[0] @ x, (4, 4), (4, 4), (4, 4)),
    "first used last": (lambda w, x: x @ w[2].T @ w[1].T @ w[0].T, (2, 5), (5, 5), (5, 3)),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_matrices_in_a_list_are_layers(name):
    rule, *shapes = BY_HAND[name]
    net = _ByHand(rule, *shapes)
    found = linear_layers(net)
    expected = list(net.weights)[::-1] if name == "first used last" else list(net.weights)
    assert all(w is other for w, other in zip(found, expected, strict=True))
    assert [w.shape for w in linear_layers(nn.ParameterList(expected))] == [w.shape for w in expected]


def test_wrappers_and_holders_are_seen_through():
    net, layers = _Net(_used), nn.ModuleList([_linear(4, 4), _linear(4, 4)])
    for model in (_Holder(net), nn.DataParallel(net), _Holder(_Holder(net)), _Compiled(net)):
        assert linear_layers(model)[0] is net.a.weight
    assert linear_layers(_Holder(layers))[0] is layers[0].weight


def _shared(net):
    net.d = net.a
    return net


OTHERS = [
    (lambda: _Net(lambda net, x: x + _used(net, x)), "does not compute the product of its 3 layers"),
    (lambda: _Net(lambda net, x: torch.relu(_used(net, x))), "does not compute the product"),
    (lambda: _Net(lambda net, x: 0.5 * _used(net, x)), "does not compute the product"),
    (lambda: _Net(lambda net, x: net.c(net.a(x))), "does not compute the product"),
    (lambda: _Net(lambda net, x: net.c(net.b(net.a(net.a(x))))), "does not compute the product"),
    (lambda: _Net(lambda net, x: (_used(net, x), x)), "cannot be called on vectors .*it gives a tuple"),
    (lambda: _Net(lambda net, x: _used(net, x["inputs"])), "cannot be called on vectors"),
    (lambda: _Net(_used, scale=nn.Parameter(torch.ones(4))), "scale of shape .* is a parameter beside"),
    (lambda: _Net(_used, gate=nn.Parameter(torch.ones(4, 4))), "gate of shape .*weight matrices themselves, W1 first"),
    (lambda: _Net(_used, norm=nn.LayerNorm(4)), "norm is a LayerNorm"),
    (lambda: nn.Sequential(_linear(3, 4), nn.LazyLinear(2, bias=False)), "1 has no shape yet"),
    (lambda: nn.ParameterList([torch.ones(3, 2), torch.ones(3)]), r"1 has shape \(3,\)"),
    (lambda: nn.Sequential(_linear(3, 4), _linear(4, 2).requires_grad_(False)), r"1.weight is frozen"),
    (lambda: _shared(_Net(_used)), "share one weight"),
]


@pytest.mark.parametrize(("model", "words"), OTHERS, ids=range(len(OTHERS)))
def test_what_is_no_product_is_refused_by_name(model, words):
    with pytest.raises(InputError, match=words) as caught:
        linear_layers(model())
    assert "\n" not in str(caught.value)


def test_layers_that_are_zero_are_told_apart_all_the_same():
    """With one layer at zero every order gives the same product, and x + 0 looks like the identity."""
    net = _Net(lambda net, x: x + _used(net, x))
    nn.init.zeros_(net.b.weight)
    with pytest.raises(InputError, match="does not compute"):
        linear_layers(net)


def test_looking_at_a_module_leaves_no_trace():
    net = _Net(lambda net, x: torch.dropout(_used(net, x), 0.0, True) + 0 * torch.rand(()))
    seen = []
    net.register_forward_hook(lambda *_: seen.append("net"))
    net.a.register_forward_hook(lambda *_: seen.append("a"))
    before = {name: w.detach().clone() for name, w in net.named_parameters()}
    state, training = torch.get_rng_state(), net.training
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear_layers(net)[0] is net.a.weight
    assert not seen and net.calls == 0 and net.training == training
    assert torch.equal(torch.get_rng_state(), state)
    for name, w in net.named_parameters():
        assert torch.equal(w, before[name]) and w.grad is None
    net.a(torch.ones(1, 4))
    assert seen == ["a"]  # its hooks are back


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_precision_and_depth_is_recognised(dtype):
    model = nn.Sequential(*(_linear(6, 6) for _ in range(30))).to(dtype)
    assert len(linear_layers(model)) == 30


def test_an_explicit_list_is_taken_at_its_word(tmp_path):
    net = _Net(lambda net, x: _used(net, x["inputs"]))
    with dlnphase.Recorder([net.a.weight, net.b.weight, net.c.weight], tmp_path / "p.npz", lr=0.1) as recorder:
        recorder.step()
    assert np.array_equal(np.load(tmp_path / "p.npz")["W1"][0], net.a.weight.detach().numpy())

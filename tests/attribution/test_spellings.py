"""An activation has its rule however it is written, or is refused; what is none is left alone."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from stcsm.attribution import attribute
from tests.attribution.networks import inputs, seeded

X, V = inputs(5, 6), inputs(3, seed=2)
RULES = {"guided_backprop": {}, "rectgrad": {"percentile": 80}, "epsilon_lrp": {}, "deeplift": {}}


class Relu(torch.autograd.Function):
    """A ReLU with a backward pass of its own, by name or by arithmetic."""

    @staticmethod
    def forward(ctx, x, named):
        ctx.save_for_backward(x)
        return torch.relu(x) if named else x * (x > 0)

    @staticmethod
    def backward(ctx, g):
        return g * (ctx.saved_tensors[0] > 0), None


class Net(nn.Module):
    """A function under test, then a ReLU that every rule sees."""

    def __init__(self, act):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 40), nn.Linear(40, 30), nn.Linear(30, 3)
        self.act = act

    def forward(self, x):
        return self.c(torch.relu(self.b(self.act(self.a(x)))))


def assigned(x):
    y = x.clone()
    y[y < 0] = 0
    return y


RELU = {
    "clamp to infinity": lambda x: x.clamp(0, float("inf")),
    "clamp to tensors": lambda x: torch.clamp(x, torch.zeros(40, dtype=x.dtype)),
    "clip": lambda x: x.clip(0),
    "fmax": lambda x: torch.fmax(x, torch.zeros_like(x)),
    "max, turned": lambda x: torch.max(torch.zeros_like(x), x),
    "aten": torch.ops.aten.relu,
    "threshold": lambda x: F.threshold(x, 0, 0),
}
DISGUISED = {
    "where": ("relu", lambda x: torch.where(x > 0, x, 0.0)),
    "mask": ("relu", lambda x: x * (x > 0)),
    "masked_fill": ("relu", lambda x: x.masked_fill(x < 0, 0)),
    "assigned": ("relu", assigned),
    "absolute": ("relu", lambda x: (x + x.abs()) / 2),
    "heaviside": ("relu", lambda x: x * torch.heaviside(x.detach(), torch.zeros((), dtype=x.dtype))),
    "sign": ("relu", lambda x: x * (torch.sign(x) + 1) / 2),
    "leaky maximum": ("leaky_relu", lambda x: torch.maximum(x, 0.2 * x)),
    "swish": ("silu", lambda x: x / (1 + torch.exp(-x))),
    "log1p": ("softplus", lambda x: torch.log1p(torch.exp(x))),
    "logaddexp": ("softplus", lambda x: torch.logaddexp(x, torch.zeros_like(x))),
    "erf": ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5))),
    "logistic": ("sigmoid", lambda x: 1 / (1 + torch.exp(-x))),
}


@pytest.mark.filterwarnings("ignore:A part of")
@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("spelling", RELU)
def test_other_names_of_relu_have_its_rule(spelling, method):
    expected = attribute(seeded(lambda: Net(torch.relu)), X, V, method, **RULES[method])
    assert expected.any()
    found = attribute(seeded(lambda: Net(RELU[spelling])), X, V, method, **RULES[method])
    torch.testing.assert_close(found, expected)


@pytest.mark.filterwarnings("ignore:A part of")
@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spelling", DISGUISED)
def test_arithmetic_that_makes_an_activation_is_refused_by_name(spelling, dtype, method):
    name, act = DISGUISED[spelling]
    with pytest.raises(ValueError, match=rf"arithmetic that makes a {name} "):
        attribute(seeded(lambda: Net(act)).to(dtype), X.to(dtype), V, method)


@pytest.mark.filterwarnings("ignore:A part of")
@pytest.mark.parametrize("spelling", DISGUISED)
def test_methods_without_rules_take_arithmetic(spelling):
    leaf = X.clone().requires_grad_()
    encoder = seeded(lambda: Net(DISGUISED[spelling][1]))
    (expected,) = torch.autograd.grad((encoder(leaf) @ V).sum(), leaf)
    torch.testing.assert_close(attribute(encoder, X, V, "saliency"), expected)


@pytest.mark.parametrize("bounds", [(0, 1), (-1, 1)])
def test_a_clamp_on_both_sides_is_a_hardtanh_and_has_no_rule(bounds):
    with pytest.raises(ValueError, match="found hardtanh"):
        attribute(seeded(lambda: Net(lambda x: x.clamp(*bounds))), X, V, "rectgrad")


LEGITIMATE = {
    "scaled": lambda x: -2 * x + 1,
    "gate": lambda x: x * torch.sigmoid(x.flip(1)),
    "residual of an activation": lambda x: x + 0.5 * torch.relu(x),
    "normalised": lambda x: F.normalize(x, dim=1),
    "hand-made norm": lambda x: (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 1e-5).sqrt(),
    "guarded": lambda x: x.clamp(-100, 100).clamp(min=-50),
    "soft-max": lambda x: torch.softmax(x, dim=1),
    "constant mask": lambda x: x.masked_fill(torch.arange(40) % 2 == 0, 0),
    "squared": lambda x: x**2,
    "absolute": lambda x: x.abs(),
}


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("what", LEGITIMATE)
def test_what_is_no_activation_is_neither_refused_nor_warned_of(what, method):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attribute(seeded(lambda: Net(LEGITIMATE[what])), X, V, method, **RULES[method])


@torch.jit.script
def scripted(x):
    return torch.clamp(x, min=0.0)


OUT_OF_REACH = {
    "custom function": (lambda x: Relu.apply(x, True), r"custom autograd function Relu"),
    "checkpoint": (lambda x: checkpoint(torch.relu, x, use_reentrant=False), r"torch\.utils\.checkpoint"),
    "reentrant checkpoint": (lambda x: checkpoint(torch.relu, x, use_reentrant=True), r"use_reentrant=False"),
    "vmap": (torch.vmap(torch.relu), r"torch\.vmap"),
    "scripted": (scripted, r"clamp hidden in a scripted"),
}


@pytest.mark.parametrize("how", OUT_OF_REACH)
def test_activations_out_of_a_rules_reach_are_refused(how):
    act, message = OUT_OF_REACH[how]
    with pytest.raises(ValueError, match=message):
        attribute(seeded(lambda: Net(act)), X, V, "rectgrad", percentile=80)


@pytest.mark.parametrize("how", ["custom function", "checkpoint", "vmap", "scripted"])
def test_and_are_right_without_a_rule(how):
    expected = attribute(seeded(lambda: Net(torch.relu)), X, inputs(7, 3), "saliency")
    found = attribute(seeded(lambda: Net(OUT_OF_REACH[how][0])), X, inputs(7, 3), "saliency")
    torch.testing.assert_close(found, expected)


def test_a_custom_function_of_arithmetic_is_warned_of():
    with pytest.warns(UserWarning, match="Relu"):
        attribute(seeded(lambda: Net(lambda x: Relu.apply(x, False))), X, V, "guided_backprop")


W = inputs(6, 30, seed=4)
CUTS = {
    "einsum": lambda x: torch.einsum("ni,ij->nj", x, W),
    "arithmetic": lambda x: (2 * x).repeat(1, 5),
    "group norm": lambda x: F.group_norm(x, 2).repeat(1, 5),
    "attention": lambda x: F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0].repeat(1, 5),
    "transposed convolution": lambda x: F.conv_transpose1d(x[:, None], torch.ones(1, 1, 25, dtype=x.dtype))[:, 0],
}


class Branch(nn.Module):
    """A branch outside autograd beside one inside."""

    def __init__(self, op, how):
        super().__init__()
        self.a, self.b, self.op, self.how = nn.Linear(6, 3), nn.Linear(30, 3), op, how

    def forward(self, x):
        if self.how == "detach":
            return self.a(x) + self.b(self.op(x).detach())
        if self.how == "data":
            return self.a(x) + self.b(self.op(x).data)
        with torch.no_grad():
            h = self.op(x)
        return self.a(x) + self.b(h)


@pytest.mark.parametrize("how", ["no_grad", "detach", "data"])
@pytest.mark.parametrize("op", CUTS)
def test_a_branch_outside_autograd_is_warned_of(op, how):
    with pytest.warns(UserWarning, match="leaves autograd"):
        attribute(seeded(lambda: Branch(CUTS[op], how)), X, V, "saliency")


@pytest.mark.parametrize("name", ["amax", "max"])
def test_pooling_by_a_maximum_is_refused_where_its_signal_should_be_redistributed(name):
    pool = {"amax": lambda x: x.amax(2), "max": lambda x: x.max(2).values}[name]
    net = nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 40, 3), nn.ReLU(), Lambda(pool), nn.Linear(40, 3))
    with pytest.raises(ValueError, match="maximum over dimensions"):
        attribute(net.double(), X, V, "rectgrad_prr", percentile=70)
    attribute(net, X, V, "rectgrad", percentile=70)


def test_every_spelling_of_max_pooling_is_redistributed():
    def net(pool):
        return seeded(lambda: nn.Sequential(
            nn.Unflatten(1, (1, 3, 2)), nn.Conv2d(1, 40, (2, 1)), nn.ReLU(), Lambda(pool), nn.Flatten(),
            nn.Linear(40, 3),
        ))  # fmt: skip

    expected = attribute(net(nn.MaxPool2d(2)), X, V, "rectgrad_prr", percentile=70)
    assert expected.any()
    for spelled in (torch.ops.aten.max_pool2d, F.max_pool2d, torch.max_pool2d):
        pool = lambda x, spelled=spelled: spelled(x, 2)  # noqa: E731
        torch.testing.assert_close(attribute(net(pool), X, V, "rectgrad_prr", percentile=70), expected)


class Lambda(nn.Module):
    """A function as a module."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)

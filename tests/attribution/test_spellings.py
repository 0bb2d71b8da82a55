"""An activation has its rule however it is written, or is refused; what is none is left alone."""

from __future__ import annotations

import re
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


def assign_zero_at(x):
    y = x.clone()
    y[:, ::2] = 0
    return y


def mask_written_through_a_view(x):
    m = torch.zeros_like(x)
    m[:].copy_(x > 0)
    return x * m


def mask_read_through_a_view(x):
    m = torch.zeros_like(x)
    seen = m[:]
    m.copy_(x > 0)
    return x * seen


def mask_set_as_data(x):
    m = torch.zeros_like(x)
    m.data = (x > 0).to(x.dtype)
    return x * m


def swish_of_means(x):
    m = x.unflatten(1, (8, 5)).mean(2)
    return (m * torch.sigmoid(m)).repeat(1, 5)


def swish_of_two_means(x):
    h = x.unflatten(1, (8, 5))
    return (h.mean(2) * torch.sigmoid(h.mean(2))).repeat(1, 5)


def relu_of_means(x):
    m = x.unflatten(1, (8, 5)).mean(2)
    return (m * (m > 0)).repeat(1, 5)


# The call that is named, and arithmetic that is an activation or might be one.
REFUSED = {
    "where": ("where", lambda x: torch.where(x > 0, x, 0.0)),
    "mask": ("mul", lambda x: x * (x > 0)),
    "mask of floats": ("mul", lambda x: (x > 0).to(x.dtype) * x),
    "masked_fill": ("masked_fill", lambda x: x.masked_fill(x < 0, 0)),
    "assigned": ("setitem", assigned),
    "absolute": ("abs", lambda x: (x + x.abs()) / 2),
    "heaviside": ("mul", lambda x: x * torch.heaviside(x.detach(), torch.zeros((), dtype=x.dtype))),
    "sign": (("sign", "mul"), lambda x: x * (torch.sign(x) + 1) / 2),
    "leaky maximum": ("maximum", lambda x: torch.maximum(x, 0.2 * x)),
    "maximum of two": ("max", lambda x: torch.max(x, x.flip(1))),
    "swish": (("exp", "div"), lambda x: x / (1 + torch.exp(-x))),
    "swish, named": ("mul", lambda x: x * torch.sigmoid(x)),
    "log1p": ("log1p", lambda x: torch.log1p(x.softmax(1))),
    "logaddexp": ("logaddexp", lambda x: torch.logaddexp(x, torch.zeros_like(x))),
    "erf": (("erf", "mul"), lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5))),
    "logistic": (("exp", "rdiv"), lambda x: 1 / (1 + torch.exp(-x))),
    "gate": ("mul", lambda x: x * torch.sigmoid(x.flip(1))),
    "quotient": ("div", lambda x: torch.ones_like(x) / (x + 9)),
    "reciprocal": ("rdiv", lambda x: 1 / (x + 9)),
    "squared": ("pow", lambda x: x**2),
    "in place": ("exp", lambda x: x.clone().exp_()),
    "guard": ("clamp", lambda x: x.clamp(-100, 100)),
    "hardtanh": ("hardtanh", torch.nn.functional.hardtanh),
    "hardswish": ("hardswish", torch.nn.functional.hardswish),
    "mask written through a view": ("mul", mask_written_through_a_view),
    "mask set as data": ("mul", mask_set_as_data),
    "mask read through a view": ("mul", mask_read_through_a_view),
    "swish of pooled features": ("mul", swish_of_means),
    "swish of features pooled twice": ("mul", swish_of_two_means),
    "ReLU of pooled features": ("mul", relu_of_means),
    "squares of pooled features": ("pow", lambda x: x.unflatten(1, (8, 5)).mean(2).pow(2).repeat(1, 5)),
    "roots of pooled squares": (("pow", "sqrt"), lambda x: x.unflatten(1, (8, 5)).pow(2).mean(2).sqrt().repeat(1, 5)),
    "squares in a norm and beside it": ("pow", lambda x: x.pow(2) / x.pow(2).sum(1, keepdim=True).add(1)),
    "norm added": (("pow", "rsqrt"), lambda x: x + x.pow(2).mean(1, keepdim=True).rsqrt()),
    "layer on a norm": ("clamp", lambda x: x * (x.norm(dim=1, keepdim=True) @ torch.ones(1, 40).double()).clamp(0, 9)),
    "addcmul": ("addcmul", lambda x: torch.addcmul(x, x, x.flip(1))),
    "addcdiv": ("addcdiv", lambda x: torch.addcdiv(x, torch.ones_like(x), x + 9)),
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
@pytest.mark.parametrize("arithmetic", REFUSED)
def test_arithmetic_that_may_be_an_activation_is_refused_by_name(arithmetic, method):
    names, act = REFUSED[arithmetic]
    names = (names,) if isinstance(names, str) else names
    with pytest.raises(ValueError, match=rf"found {names[0]} in .*F\.relu.*allow={re.escape(repr(names))}"):
        attribute(seeded(lambda: Net(act)), X, V, method, **RULES[method])


@pytest.mark.filterwarnings("ignore:A part of")
@pytest.mark.parametrize("arithmetic", REFUSED)
def test_methods_without_rules_take_arithmetic(arithmetic):
    leaf = X.clone().requires_grad_()
    encoder = seeded(lambda: Net(REFUSED[arithmetic][1]))
    (expected,) = torch.autograd.grad((encoder(leaf) @ V).sum(), leaf)
    torch.testing.assert_close(attribute(encoder, X, V, "saliency"), expected)


@pytest.mark.parametrize(
    ("act", "allow", "slope"),
    [
        (torch.abs, ["abs"], torch.sign),
        (lambda x: x.clone().exp_(), ("mul", "exp"), torch.exp),
        (torch.sigmoid, {"sigmoid"}, lambda z: torch.sigmoid(z) * torch.sigmoid(-z)),
        (lambda x: x.clamp(min=0), ("clamp",), lambda z: (z > 0).double()),
        (F.hardtanh, ("hardtanh",), lambda z: (z.abs() < 1).double()),
        (lambda x: Relu.apply(x, True), ("Relu",), lambda z: (z > 0).double()),
        (lambda x: Relu.apply(x, False), ("Relu",), lambda z: (z > 0).double()),
    ],
)
def test_a_call_that_is_allowed_passes_its_plain_gradient(act, allow, slope):
    encoder = seeded(lambda: Net(act))
    with torch.no_grad():
        z = encoder.a(X)
        back = (V @ encoder.c.weight).clamp(min=0) * (encoder.b(act(z)) > 0)
        expected = (back @ encoder.b.weight * slope(z)) @ encoder.a.weight
    torch.testing.assert_close(attribute(encoder, X, V, "guided_backprop", allow=allow), expected)


@pytest.mark.parametrize("allow", ["exp", None, [1]])
def test_allow_takes_names(allow):
    with pytest.raises(TypeError, match=r"allow to be names of torch calls, such as \('exp',\)"):
        attribute(seeded(lambda: Net(torch.relu)), X, V, "guided_backprop", allow=allow)


class HandMadeAttention(nn.Module):
    """Attention over eight tokens of five features, in torch's own words."""

    def forward(self, x):
        tokens = x.unflatten(1, (8, 5))
        scores = (tokens @ tokens.transpose(1, 2) / 5**0.5).masked_fill(torch.eye(8, dtype=torch.bool), -torch.inf)
        return torch.einsum("nij,njc->nic", torch.softmax(scores, dim=-1), tokens).flatten(1)


def looked_at(x):
    """Values that decide nothing about the latents."""
    assert torch.isfinite(x).all()
    assert not (x > 1e6).any()
    return x


def rms_norm(x):
    return x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + 1e-6)


def layer_norm(x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)


def group_norm(x):
    """Of four groups, from the definition of the variance."""
    g = x.unflatten(1, (4, 10))
    m = g.mean(2, keepdim=True)
    return ((g - m) * ((g * g).mean(2, keepdim=True) - m.pow(2) + 1e-5).reciprocal().pow(0.5)).flatten(1)


def normalised_in_place(x):
    y = x.clone()
    y /= (x.norm(dim=1, keepdim=True) + 1e-3).clamp_(min=1e-8)
    return y


def gated_in_place(x):
    channels = x.unflatten(1, (8, 5))
    y = channels.clone()
    return y.mul_(torch.sigmoid(channels.mean(2, keepdim=True)).expand_as(y)).flatten(1)


def hooked(x):
    """Calls that change nothing."""
    y = 2 * x
    y.retain_grad()
    y.register_hook(lambda g: None)
    assert y.requires_grad_().is_contiguous()
    assert y.size(0) == len(y) == y.shape[0]
    return y


PASSING = {
    "scaled": lambda x: -2 * x + 1,
    "residual of an activation": lambda x: x + 0.5 * torch.relu(x),
    "normalised": lambda x: F.normalize(x, dim=1),
    "normalised by hand": lambda x: x / x.norm(dim=1, keepdim=True),
    "share of a sample": lambda x: x / (x.sum(dim=1, keepdim=True) + 50),
    "standardised": lambda x: (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-5),
    "gate of a channel": lambda x: (
        x.unflatten(1, (8, 5)) * torch.sigmoid(x.unflatten(1, (8, 5)).mean(2, keepdim=True))
    ).flatten(1),
    "soft-max": lambda x: torch.softmax(x, dim=1),
    "attention": HandMadeAttention(),
    "constant mask": lambda x: x.masked_fill(torch.arange(40) % 2 == 0, 0),
    "constant where": lambda x: torch.where(torch.arange(40) % 2 == 0, x, 0.0),
    "constant weights": lambda x: x * torch.linspace(-1, 1, 40, dtype=x.dtype).exp() / 3,
    "assigned at constant cells": assign_zero_at,
    "in place": lambda x: x.clone().mul_(2).add_(1),
    "looked at": looked_at,
    "sorted": lambda x: x.sort(dim=1).values,
    "pooled": lambda x: F.max_pool1d(x[:, None], 3, stride=1, padding=1)[:, 0] - x.amax(1, keepdim=True),
    "Fourier": lambda x: torch.fft.irfft(torch.fft.rfft(x), n=40),
    "normalised with a bound": lambda x: x / x.norm(dim=1, keepdim=True).clamp(min=1e-8),
    "normalised, expanded": lambda x: x / x.norm(dim=1, keepdim=True).clamp_min(1e-8).expand_as(x),
    "normalised by a reciprocal": lambda x: x * (1 / (x.norm(dim=1, keepdim=True) + 1e-8)),
    "normalised by absolute values": lambda x: x / x.abs().mean(1, keepdim=True),
    "RMS norm by hand": rms_norm,
    "layer norm by hand": layer_norm,
    "group norm by hand": group_norm,
    "addcmul": lambda x: torch.addcmul(x, x, torch.linspace(1, 2, 40, dtype=x.dtype)),
    "addcdiv": lambda x: torch.addcdiv(x, x, torch.linspace(1, 2, 40, dtype=x.dtype)),
    "cross product": lambda x: torch.cat(
        [torch.linalg.cross(x[:, :39].unflatten(1, (13, 3)), torch.ones(1, 1, 3).to(x)).flatten(1), x[:, 39:]], 1
    ),
    "cosine": lambda x: F.cosine_similarity(x[:, None], torch.eye(40, dtype=x.dtype) + 1, dim=2),
    "normalised in place": normalised_in_place,
    "gate in place": gated_in_place,
    "calls that change nothing": hooked,
    "views written to": lambda x: torch.stack([x, x]).add_(1).mean(0),
}


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("what", PASSING)
def test_what_is_no_activation_is_neither_refused_nor_warned_of(what, method):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attribute(seeded(lambda: Net(PASSING[what])), X, V, method, **RULES[method])


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize(
    ("by_hand", "by_name"),
    [(layer_norm, lambda x: F.layer_norm(x, (40,))), (rms_norm, lambda x: F.rms_norm(x, (40,), eps=1e-6))],
)
def test_a_norm_by_hand_is_the_norm(by_hand, by_name, method):
    found = attribute(seeded(lambda: Net(by_hand)), X, V, method, **RULES[method])
    expected = attribute(seeded(lambda: Net(by_name)), X, V, method, **RULES[method])
    torch.testing.assert_close(found, expected)


@pytest.mark.filterwarnings("ignore:A part of")
@pytest.mark.parametrize(
    "act",
    [
        lambda x: torch.where(torch.from_numpy(x.detach().numpy() > 0), x, 0.0),
        lambda x: (x + x.unsqueeze(-1).norm(dim=-1)) / 2,
        lambda x: torch.stack([x, 0 * x]).amax(0),
    ],
)
def test_activations_that_the_documentation_says_are_not_found(act):
    attribute(seeded(lambda: Net(act)), X, V, "guided_backprop")


class SqueezeExcitation(nn.Module):
    """Channels gated by what a small network makes of their means."""

    def __init__(self, pool, size, expand):
        super().__init__()
        self.pool, self.size, self.expand = pool, size, expand
        self.channels, self.down, self.up = nn.Linear(6, 8 * size**2), nn.Linear(8, 12), nn.Linear(12, 8)
        self.out = nn.Linear(8 * size**2, 3)

    def forward(self, x):
        h = torch.relu(self.channels(x)).unflatten(1, (8, self.size, self.size))
        gate = torch.sigmoid(self.up(torch.relu(self.down(self.pool(h).flatten(1)))))[:, :, None, None]
        return self.out((h * (gate.expand_as(h) if self.expand else gate)).flatten(1))


@pytest.mark.parametrize("expand", [False, True])
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(
    "pool",
    [
        lambda h: h.mean((2, 3)), lambda h: h.sum((2, 3)), lambda h: h.amax((2, 3)), lambda h: h.flatten(2).norm(dim=2),
        nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1), lambda h: F.avg_pool2d(h, h.shape[2:]),
    ],
)  # fmt: skip
def test_the_gate_of_a_channel_passes_at_every_image_size(pool, size, expand):
    attribute(seeded(lambda: SqueezeExcitation(pool, size, expand)), X, V, "rectgrad_const")


class TwoHeads(nn.Module):
    """The encoder of a variational autoencoder, of which the mean is returned."""

    def __init__(self):
        super().__init__()
        self.hidden, self.mean, self.log_var = nn.Linear(6, 40), nn.Linear(40, 3), nn.Linear(40, 3)

    def forward(self, x):
        h = torch.relu(self.hidden(x))
        self.variance = self.log_var(h).clamp(-10, 10).exp()
        return self.mean(h)


@pytest.mark.parametrize("method", RULES)
def test_what_the_latents_do_not_depend_on_is_left_alone(method):
    assert attribute(seeded(TwoHeads), X, V, method, **RULES[method]).any()


def test_parameters_may_be_anything():
    """What does not depend on the inputs is no business of a rule: a weight that is an exponential, a gated one."""

    class Positive(nn.Module):
        def __init__(self):
            super().__init__()
            self.raw = nn.Parameter(torch.linspace(-1, 1, 40))

        def forward(self, x):
            return x * self.raw.exp() * torch.where(self.raw > 0, self.raw, 0.1 * self.raw)

    attribute(seeded(lambda: Net(Positive())), X, V, "rectgrad", percentile=80)


@torch.jit.script
def scripted(x):
    return torch.clamp(x, min=0.0)


@torch.jit.script
def scripted_mask(x):
    return x * (x > 0)


GIVEN_UP = {
    ("mul",): lambda x: F.silu(x) * x.flip(1),
    ("glu",): lambda x: F.glu(torch.cat([x, x], 1)),
    ("hardswish",): F.hardswish,
    ("clamp", "pow"): lambda x: x.unflatten(1, (8, 5)).clamp(min=1e-6).pow(3).mean(2).pow(1 / 3).repeat(1, 5),
    ("abs",): lambda x: torch.fft.fft(x).abs(),
    ("exp",): lambda x: x.exp() / x.exp().sum(1, keepdim=True),
    ("round",): torch.round,
    ("cdist",): lambda x: torch.cdist(x[None], torch.eye(40, dtype=x.dtype)[None])[0],
    ("prod",): lambda x: x.unflatten(1, (20, 2)).prod(2).repeat(1, 2),
    ("fake_quantize_per_tensor_affine",): lambda x: torch.fake_quantize_per_tensor_affine(
        x.float(), 0.1, 0, -128, 127
    ).to(x),
    ("lstm",): lambda x: nn.LSTM(40, 40, batch_first=True).to(x)(x[:, None])[0][:, 0],
}


@pytest.mark.parametrize("allow", GIVEN_UP)
def test_what_is_given_up_is_refused_and_can_be_allowed(allow):
    encoder = seeded(lambda: Net(fixed_weights(GIVEN_UP[allow])))
    with pytest.raises(ValueError, match=re.escape(f"allow={allow!r}")):
        attribute(encoder, X, V, "guided_backprop")
    attribute(encoder, X, V, "guided_backprop", allow=allow)


def fixed_weights(act):
    """A function whose random weights are the same in every call."""

    def call(x):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return act(x)

    return call


OUT_OF_REACH = {
    "custom function": (lambda x: Relu.apply(x, True), r"custom autograd function Relu"),
    "custom arithmetic": (lambda x: Relu.apply(x, False), r"the autograd function Relu.*allow=\('Relu',\)"),
    "checkpoint": (lambda x: checkpoint(torch.relu, x, use_reentrant=False), r"torch\.utils\.checkpoint"),
    "reentrant checkpoint": (lambda x: checkpoint(torch.relu, x, use_reentrant=True), r"torch\.utils\.checkpoint"),
    "vmap": (torch.vmap(torch.relu), r"torch\.vmap"),
    "vmap of arithmetic": (torch.vmap(lambda z: z * (z > 0)), r"Mul hidden in a scripted"),
    "scripted arithmetic": (scripted_mask, r"Mul hidden in a scripted"),
    "scripted": (scripted, r"Clamp hidden in a scripted"),
}


@pytest.mark.parametrize("how", OUT_OF_REACH)
def test_activations_out_of_a_rules_reach_are_refused(how):
    act, message = OUT_OF_REACH[how]
    with pytest.raises(ValueError, match=message):
        attribute(seeded(lambda: Net(act)), X, V, "rectgrad", percentile=80)


@pytest.mark.parametrize("how", [how for how in OUT_OF_REACH if how != "reentrant checkpoint"])
def test_and_are_right_without_a_rule(how):
    expected = attribute(seeded(lambda: Net(torch.relu)), X, inputs(7, 3), "saliency")
    found = attribute(seeded(lambda: Net(OUT_OF_REACH[how][0])), X, inputs(7, 3), "saliency")
    torch.testing.assert_close(found, expected)


def test_a_reentrant_checkpoint_cuts_the_gradient():
    with pytest.raises(ValueError, match="use_reentrant=False"):
        attribute(seeded(lambda: Net(OUT_OF_REACH["reentrant checkpoint"][0])), X, V, "saliency")


W = inputs(6, 30, seed=4)
CUTS = {
    "linear": lambda x: F.linear(x, W.T),
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

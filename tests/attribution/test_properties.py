"""What must hold for any network: completeness, spellings, batches, concepts at once, and no trace left."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stcsm.attribution import METHODS, ConceptScore, attribute
from tests.attribution.networks import Residual, Spelled, conv_net, inputs, mlp, seeded

ACTIVATIONS = [nn.ReLU, nn.ReLU6, nn.ELU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign]
GENERALISED = [nn.GELU, nn.SiLU, nn.LeakyReLU, nn.SELU, nn.Mish]
PASSING = {name: {"percentile": 50.0} for name in ("rectgrad", "rectgrad_mod", "rectgrad_prr")}
"""Parameters under which something passes the narrow layers of these networks: a map of zeros proves nothing."""
FEW = settings(max_examples=15, deadline=None)


def score(encoder, x, v):
    with torch.no_grad():
        return encoder(x) @ v


@FEW
@given(seed=st.integers(0, 10_000), activation=st.sampled_from(ACTIVATIONS + GENERALISED), base=st.floats(-1, 1))
def test_integrated_gradients_are_complete(seed, activation, base):
    encoder = seeded(lambda: mlp(activation), seed)
    x, v = inputs(3, 10, seed=seed + 1), inputs(4, seed=seed + 2)
    maps = attribute(encoder, x, v, "integrated_gradients", steps=400, baseline=base)
    rise = score(encoder, x, v) - score(encoder, torch.full_like(x, base), v)
    torch.testing.assert_close(maps.sum(dim=1), rise, rtol=2e-3, atol=2e-3)


@FEW
@given(seed=st.integers(0, 10_000), activation=st.sampled_from(ACTIVATIONS + GENERALISED), base=st.floats(-1, 1))
def test_deeplift_is_complete_through_affine_and_elementwise_layers(seed, activation, base):
    encoder = seeded(lambda: mlp(activation), seed)
    x, v = inputs(3, 10, seed=seed + 1), inputs(4, seed=seed + 2)
    maps = attribute(encoder, x, v, "deeplift", baseline=base)
    rise = score(encoder, x, v) - score(encoder, torch.full_like(x, base), v)
    torch.testing.assert_close(maps.sum(dim=1), rise, rtol=1e-6, atol=1e-6)


class Attending(nn.Module):
    """Four tokens, a ReLU and self-attention."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Linear(5, 16), nn.Linear(16, 3)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x):
        tokens = torch.relu(self.embed(x.unflatten(1, (4, 5))))
        return self.out(self.attention(tokens, tokens, tokens)[0].mean(1))


GAPS = {
    "layer norm": (
        lambda: nn.Sequential(nn.Linear(20, 40), nn.LayerNorm(40), nn.Softplus(), nn.Linear(40, 3)), (20,), 0.94, 0.97
    ),
    "max pooling": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)),
        (1, 7, 7), 0.0, 1.08,
    ),
    "attention": (Attending, (20,), 0.05, 0.08),
}  # fmt: skip


@pytest.mark.parametrize("layer", GAPS)
def test_deeplifts_gap_through_other_layers_is_what_the_documentation_says(layer):
    build, shape, from_zero, from_random = GAPS[layer]
    for random, documented in ((False, from_zero), (True, from_random)):
        gaps = []
        for seed in range(20):
            encoder, x, v = seeded(build, seed), inputs(8, *shape, seed=seed), inputs(3, seed=seed + 100)
            base = inputs(*shape, seed=seed + 200) * random
            rise = score(encoder, x, v) - score(encoder, base[None], v)
            maps = attribute(encoder, x, v, "deeplift", baseline=base)
            gaps.append((maps.flatten(1).sum(1) - rise).abs() / rise.abs())
        assert float(torch.cat(gaps).median()) == pytest.approx(documented, rel=0.35, abs=0.02)


@FEW
@given(seed=st.integers(0, 10_000), activation=st.sampled_from(ACTIVATIONS))
def test_rectgrad_const_that_lets_all_pass_is_the_network_with_slope_one(seed, activation):
    encoder = seeded(lambda: mlp(activation), seed)
    x, v = inputs(3, 10, seed=seed + 1), inputs(4, seed=seed + 2)
    found = attribute(encoder, x, v, "rectgrad_const", tau=float("-inf"))
    straight = nn.Sequential(*(layer for layer in encoder if isinstance(layer, nn.Linear)))
    torch.testing.assert_close(found, attribute(straight, x, v, "input_x_gradient"))
    assert not torch.allclose(found, attribute(encoder, x, v, "input_x_gradient"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spelling", Spelled.SPELLINGS)
def test_spelling_of_an_activation_does_not_matter(spelling, method):
    x, v = inputs(4, 6), inputs(3, seed=2)
    params = PASSING.get(method, {})
    expected = attribute(seeded(lambda: Spelled("module")), x, v, method, **params)
    assert expected.any()
    torch.testing.assert_close(attribute(seeded(lambda: Spelled(spelling)), x, v, method, **params), expected)


@pytest.mark.parametrize("method", METHODS)
def test_batch_size_does_not_matter(method):
    encoder, x, v = seeded(conv_net), inputs(7, 1, 8, 8), inputs(2, 3, seed=2)
    whole = attribute(encoder, x, v, method, batch_size=256)
    assert whole.any()
    for batch_size in (1, 3):
        part = attribute(encoder, x, v, method, batch_size=batch_size)
        torch.testing.assert_close(part, whole, rtol=1e-9, atol=1e-11, equal_nan=True)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_concepts", [2, 9])
def test_concepts_at_once_are_concepts_one_by_one(method, n_concepts):
    encoder, x, v = seeded(mlp), inputs(5, 10), inputs(n_concepts, 4, seed=2)
    together = attribute(encoder, x, v, method)
    assert together.shape == (5, n_concepts, 10)
    assert together.any()
    for k in range(n_concepts):
        torch.testing.assert_close(together[:, k], attribute(encoder, x, v[k], method), rtol=1e-7, atol=1e-9)


def count_backward_passes(encoder, run):
    """How often the signal comes back to the first layer's weight-free output."""
    calls = []
    handle = encoder[0].register_full_backward_hook(lambda *_: calls.append(1))
    try:
        run()
    finally:
        handle.remove()
    return len(calls)


# Method, its parameters, and how many times over the inputs it needs the encoder.
LINEAR = [
    ("saliency", {}, 1), ("input_x_gradient", {}, 1), ("integrated_gradients", {"steps": 6}, 6),
    ("smoothgrad", {"samples": 7}, 7), ("epsilon_lrp", {}, 1), ("deeplift", {}, 1),
]  # fmt: skip


@pytest.mark.parametrize(("method", "params", "times"), LINEAR)
def test_linear_methods_cost_the_latents_whatever_the_concepts(method, params, times):
    encoder, x = seeded(mlp), inputs(5, 10)
    many = inputs(100, 4, seed=2)
    passes = count_backward_passes(encoder, lambda: attribute(encoder, x, many, method, batch_size=5, **params))
    assert passes == 4 * times


def count_rows(encoder, run):
    """How many samples go through the first layer."""
    rows = []
    handle = encoder[0].register_forward_hook(lambda _, args, __: rows.append(len(args[0])))
    try:
        run()
    finally:
        handle.remove()
    return sum(rows)


@pytest.mark.parametrize("method", METHODS)
def test_forward_passes_do_not_grow_with_the_concepts(method):
    """The trial of two rows and the passes of the method are the same for one concept and for a hundred."""
    encoder, x = seeded(mlp), inputs(5, 10)
    one = count_rows(encoder, lambda: attribute(encoder, x, inputs(4, seed=2), method))
    assert count_rows(encoder, lambda: attribute(encoder, x, inputs(100, 4, seed=2), method)) == one


def test_occlusion_costs_one_encoding_a_window():
    encoder, x = seeded(mlp), inputs(5, 10)
    trial = 2 * 2
    assert count_rows(encoder, lambda: attribute(encoder, x, inputs(100, 4), "occlusion")) == 5 * (1 + 10) + trial


def test_out_takes_a_memory_map(tmp_path):
    encoder, x, v = seeded(mlp), inputs(6, 10), inputs(3, 4, seed=2)
    out = np.lib.format.open_memmap(tmp_path / "maps.npy", mode="w+", dtype=np.float64, shape=(6, 3, 10))
    attribute(encoder, x, v, "integrated_gradients", out=out, batch_size=2)
    out.flush()
    expected = attribute(encoder, x, v, "integrated_gradients", batch_size=2)
    np.testing.assert_array_equal(np.load(tmp_path / "maps.npy"), expected.numpy())


@pytest.mark.parametrize("method", METHODS)
def test_nothing_stays_behind(method):
    encoder = seeded(conv_net).train()
    encoder[2].eval()
    parameters = list(encoder.parameters())
    parameters[0].requires_grad_(False)
    parameters[1].grad = torch.ones_like(parameters[1])
    before = copy.deepcopy(encoder.state_dict())
    x = inputs(3, 1, 8, 8).requires_grad_()
    with torch.no_grad():
        attribute(encoder, x, inputs(3, seed=2), method)
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert encoder.training
    assert not encoder[2].training
    assert not parameters[0].requires_grad
    assert torch.equal(parameters[1].grad, torch.ones_like(parameters[1]))
    assert all(p.grad is None for p in parameters[2:])
    assert x.grad is None
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in encoder.modules())


def test_nothing_stays_behind_after_an_exception():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x):
            torch.relu(self.a(x))
            raise RuntimeError("broken")

    encoder = Broken().train()
    with pytest.raises(RuntimeError, match="broken"):
        attribute(encoder, torch.ones(2, 4), torch.ones(4), "rectgrad")
    assert encoder.training
    assert torch.relu(torch.tensor([-1.0, 1.0], requires_grad=True)).grad_fn.name() == "ReluBackward0"


@pytest.mark.parametrize("method", METHODS)
def test_residual_norm_dropout_and_attention_run(method):
    encoder, params = seeded(Residual).train(), PASSING.get(method, {})
    maps = attribute(encoder, inputs(3, 8), inputs(3, seed=2), method, **params)
    assert maps.shape == (3, 8)
    assert maps.isfinite().all()
    assert maps.any()
    torch.testing.assert_close(maps, attribute(encoder, inputs(3, 8), inputs(3, seed=2), method, **params))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("activation", GENERALISED)
def test_generalised_activations_have_every_method(method, activation):
    maps = attribute(seeded(lambda: mlp(activation)), inputs(3, 10), inputs(4, seed=2), method)
    assert maps.isfinite().all()
    assert maps.any()


def test_strided_expanded_and_single_precision_inputs():
    encoder, v = seeded(mlp), inputs(4, seed=2)
    x = inputs(10, 5).T
    torch.testing.assert_close(attribute(encoder, x, v, "rectgrad"), attribute(encoder, x.contiguous(), v, "rectgrad"))
    one = inputs(1, 10)
    torch.testing.assert_close(
        attribute(encoder, one.expand(4, 10), v, "saliency"), attribute(encoder, one.repeat(4, 1), v, "saliency")
    )
    single = attribute(copy.deepcopy(encoder).float(), x.float(), v, "integrated_gradients")
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), attribute(encoder, x, v), rtol=1e-3, atol=1e-4)
    as_array = attribute(encoder, x.numpy(), v.numpy(), "saliency")
    assert isinstance(as_array, np.ndarray)


def test_concept_score_is_the_score():
    encoder, x, v = seeded(mlp), inputs(5, 10), inputs(3, 4, seed=2)
    torch.testing.assert_close(ConceptScore(encoder, v)(x), encoder(x) @ v.T)


@pytest.mark.parametrize("published", [False, True])
def test_table_of_methods_is_what_is_published(published):
    assert METHODS == (
        "saliency", "input_x_gradient", "integrated_gradients", "smoothgrad", "deconvolution", "guided_backprop",
        "rectgrad", "rectgrad_const", "rectgrad_mod", "rectgrad_prr", "epsilon_lrp", "deeplift", "occlusion",
    )  # fmt: skip
    for method in METHODS:
        attribute(seeded(mlp), inputs(2, 10), inputs(4, seed=2), method, published=published)

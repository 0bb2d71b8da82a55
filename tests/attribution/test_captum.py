"""The same numbers as captum where captum is right, and the right ones where it is not."""

from __future__ import annotations

import pytest
import torch
from captum import attr
from torch import nn

from stcsm.attribution import ConceptScore, attribute
from tests.attribution.networks import Spelled, inputs, mlp, seeded


@pytest.fixture
def case():
    encoder = seeded(mlp)
    v = inputs(3, 4, seed=2)
    return encoder, inputs(6, 10), v, ConceptScore(encoder, v)


@pytest.mark.parametrize("k", [0, 2])
def test_methods_that_captum_has(case, k):
    encoder, x, v, scores = case
    pairs = {
        "saliency": attr.Saliency(scores).attribute(x, target=k, abs=False),
        "input_x_gradient": attr.InputXGradient(scores).attribute(x, target=k),
        "integrated_gradients": attr.IntegratedGradients(scores).attribute(x, target=k, n_steps=50),
        "guided_backprop": attr.GuidedBackprop(scores).attribute(x, target=k),
        "deconvolution": attr.Deconvolution(scores).attribute(x, target=k),
        "deeplift": attr.DeepLift(scores).attribute(x, target=k),
        "occlusion": attr.Occlusion(scores).attribute(x, (1,), target=k),
    }
    for method, expected in pairs.items():
        # captum's occlusion answers in single precision
        close = {"rtol": 1e-4, "atol": 1e-5} if method == "occlusion" else {"rtol": 1e-6, "atol": 1e-8}
        torch.testing.assert_close(attribute(encoder, x, v, method)[:, k], expected.detach().double(), **close)


def test_functional_relu_is_seen_where_captum_gives_the_plain_gradient():
    encoder, x, v = seeded(lambda: Spelled("functional")), inputs(4, 6), inputs(3, seed=2)
    right = attr.GuidedBackprop(ConceptScore(seeded(lambda: Spelled("module")), v)).attribute(x, target=0)
    captums = attr.GuidedBackprop(ConceptScore(encoder, v)).attribute(x, target=0)
    torch.testing.assert_close(captums, attribute(encoder, x, v, "saliency"))  # silently no rule at all
    assert not torch.allclose(captums, right)
    torch.testing.assert_close(attribute(encoder, x, v, "guided_backprop"), right.detach())


def test_shared_module_is_seen_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.act = nn.Linear(6, 6), nn.Linear(6, 3), nn.ReLU()

        def forward(self, x):
            return self.b(self.act(self.a(self.act(x))))

    encoder, x, v = seeded(Twice), inputs(4, 6), inputs(3, seed=2)
    hidden = encoder.a(torch.relu(x))
    back = (v @ encoder.b.weight).clamp(min=0) * (hidden > 0)
    expected = (back @ encoder.a.weight).clamp(min=0) * (x > 0)
    torch.testing.assert_close(attribute(encoder, x, v, "guided_backprop"), expected.detach())

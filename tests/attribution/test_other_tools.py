"""ConceptScore makes a concept look like a class logit to zennit and Quantus (captum: see test_captum.py)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stcsm.attribution import ConceptScore, attribute
from tests.attribution.networks import inputs, mlp, seeded


@pytest.fixture
def case():
    encoder = seeded(mlp)
    v = inputs(3, 4, seed=2)
    return encoder, inputs(6, 10), v


def test_zennit_explains_a_concept(case):
    pytest.importorskip("zennit", reason="zennit is not installed: pip install zennit")
    from zennit.attribution import Gradient
    from zennit.composites import EpsilonPlus, GuidedBackprop

    encoder, x, v = case
    scores = ConceptScore(encoder, v)
    with Gradient(model=scores, composite=GuidedBackprop()) as attributor:
        _, guided = attributor(x, torch.eye(3, dtype=x.dtype)[[1]].expand(6, 3))
    # zennit's composite clips the signal at every ReLU by its own sign convention; where both are defined they agree.
    torch.testing.assert_close(guided, attribute(encoder, x, v[1], "guided_backprop"))
    with Gradient(model=scores, composite=EpsilonPlus()) as attributor:
        _, relevance = attributor(x, torch.eye(3, dtype=x.dtype)[[1]].expand(6, 3))
    assert relevance.shape == x.shape
    assert relevance.isfinite().all()


def test_quantus_judges_our_maps_of_a_concept(case):
    quantus = pytest.importorskip("quantus", reason="quantus is not installed: pip install quantus")
    encoder, x, v = case
    scores = ConceptScore(encoder.float(), v.float())

    def explain(model, inputs, targets, **_):
        maps = attribute(model.encoder, np.asarray(inputs, np.float32), model.concepts, "integrated_gradients")
        return maps[np.arange(len(inputs)), targets]

    rank = quantus.Sparseness(disable_warnings=True)(
        model=scores, x_batch=x.float().numpy()[:, None, None], y_batch=np.ones(6, int),
        a_batch=explain(scores, x.float().numpy(), np.ones(6, int))[:, None, None], channel_first=True, device="cpu",
    )  # fmt: skip
    assert len(rank) == 6
    assert all(0 <= value <= 1 for value in rank)

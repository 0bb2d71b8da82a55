"""Random layers, random inputs, other concepts: what must change a map, and what is left of the user's module."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from stcsm.attribution import mean_attribution
from stcsm.evaluation import (
    Checks,
    agreement,
    cross_concept,
    input_randomisation,
    layer_randomisation,
    layers_from_top,
    paired_similarity,
    randomised,
    verdict,
)

from .networks import deep, linear, samples, vectors


class Branched(nn.Module):
    """Layers in an order of registration that is not the order of use, a skip, a head that is not used."""

    def __init__(self):
        super().__init__()
        self.top, self.unused = nn.Linear(7, 3), nn.Linear(7, 3)
        self.second, self.first = nn.Linear(7, 7), nn.Linear(5, 7)
        self.scale = nn.Parameter(torch.ones(7) * 2)

    def forward(self, x):
        h = torch.relu(self.first(x))
        h = (h + torch.relu(self.second(h))) * self.scale
        self.unused(h)
        return self.top(h)


def test_layers_are_found_from_the_top_however_the_encoder_is_written():
    assert layers_from_top(Branched(), torch.rand(2, 5)) == ["top", "", "second", "first"]
    assert layers_from_top(deep(2), samples(2, 60)) == ["4", "2", "0"]
    frozen = Branched().requires_grad_(False)
    assert layers_from_top(frozen, torch.rand(2, 5)) == ["top", "", "second", "first"]


def test_a_layer_used_twice_counts_once_and_weight_norm_counts_as_its_layer():
    shared = nn.Linear(5, 5)
    encoder = nn.Sequential(
        shared, nn.Tanh(), shared, nn.Tanh(), nn.utils.parametrizations.weight_norm(nn.Linear(5, 2))
    )
    assert layers_from_top(encoder, torch.rand(2, 5)) == ["4", "0"]
    made = randomised(encoder, ["4"])
    x = torch.rand(3, 5)
    assert not torch.allclose(made(x), encoder(x))


def test_an_encoder_without_parameters_is_refused():
    with pytest.raises(ValueError, match="parameters between inputs and latents"):
        layers_from_top(nn.Sequential(nn.Flatten(), nn.Tanh()), torch.rand(2, 5))
    with pytest.raises(ValueError, match="Expected layers among"):
        randomised(deep(1), ["nonsense"])


def _state(module):
    return {k: v.clone() for k, v in module.state_dict().items()}, [m.training for m in module.modules()]


def _same_state(module, before):
    state, flags = before
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    assert [m.training for m in module.modules()] == flags
    assert all(p.grad is None for p in module.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in module.modules())


def test_the_users_module_is_as_before_also_after_an_exception():
    encoder = nn.Sequential(nn.Linear(9, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)).train()
    pointers = [p.data_ptr() for p in encoder.parameters()]
    before = _state(encoder)
    x = torch.rand(6, 9)
    v = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    layer_randomisation(encoder, x, lambda e: mean_attribution(e, x, v, "guided_backprop"), n_draws=2)
    _same_state(encoder, before)

    calls = []

    def fails(e):
        calls.append(e)
        if len(calls) == 3:
            raise RuntimeError("interrupted")
        return mean_attribution(e, x, v, "saliency")

    with pytest.raises(RuntimeError, match="interrupted"):
        layer_randomisation(encoder, x, fails)
    _same_state(encoder, before)

    class Breaks(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(9, 4)

        def forward(self, rows):
            out = self.inner(rows)
            raise RuntimeError("inside forward")
            return out

    broken = Breaks()
    kept = broken.inner.weight
    with pytest.raises(RuntimeError, match="inside forward"):
        randomised(broken, ["inner"])(x)
    assert broken.inner.weight is kept
    assert [p.data_ptr() for p in encoder.parameters()] == pointers


def test_a_pending_backward_pass_of_the_user_still_works():
    encoder, x = deep(1), samples(4, 60)
    encoder.requires_grad_(True)
    loss = encoder(x).square().sum()
    layer_randomisation(encoder, x, lambda e: mean_attribution(e, x, vectors(1, 6), "saliency"), n_draws=1)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters())


class SideBySide(nn.Module):
    """Two linear layers of the same inputs: unit vectors give their weights."""

    def __init__(self):
        super().__init__()
        self.a, self.b = linear(*samples(200, 60).tolist()), linear(*samples(200, 60, seed=2).tolist())

    def forward(self, x):
        return torch.cat([self.a(x), self.b(x)], dim=1)


def test_draws_keep_the_scale_and_depend_on_seed_and_name_alone():
    encoder, units = SideBySide(), torch.eye(60, dtype=torch.float64)

    def weights(layers, seed=3):
        with torch.no_grad():
            return randomised(encoder, layers, seed)(units).split(200, dim=1)

    before, one, both = weights([]), weights(["a"]), weights(["a", "b"])
    assert torch.equal(torch.cat(before, dim=1), encoder(units))
    assert torch.equal(one[1], before[1])
    assert torch.equal(one[0], both[0])
    assert not torch.equal(one[0], weights(["a"], seed=4)[0])
    for drawn, trained in zip(both, before, strict=True):
        assert not torch.equal(drawn, trained)
        assert drawn.square().mean().sqrt() == pytest.approx(trained.square().mean().sqrt().item(), rel=0.02)


def test_the_gradient_feels_a_random_top_layer_and_guided_backprop_does_not():
    """Sixt et al. 2020: with depth, guided backprop no longer depends on what stands above."""
    x, v = samples(20, 60), vectors(5, 6)
    similarity = {}
    for method in ("saliency", "guided_backprop"):
        encoder = deep(5)
        made = layer_randomisation(encoder, x[:2], lambda e, m=method: mean_attribution(e, x, v, m), n_draws=3)
        assert made.layers == ["10", "8", "6", "4", "2", "0"]
        np.testing.assert_array_equal(made.independent[0], made.cascading[0])
        similarity[method] = made.cascading.mean(axis=(1, 2))
    assert abs(similarity["saliency"]).max() < 0.3
    assert similarity["guided_backprop"][0] > 0.9
    assert similarity["guided_backprop"][-1] < 0.3  # a wholly random network draws another map


def test_guided_backprop_draws_one_map_for_all_concepts_and_their_opposites_the_deeper_the_more():
    x, v = samples(20, 60), vectors(5, 6)
    off = np.triu_indices(5, 1)

    def alike(depth, method):
        maps = mean_attribution(deep(depth), x, torch.cat([v, -v]), method)
        return cross_concept(maps[:5])[off].mean(), paired_similarity(maps[:5], maps[5:]).mean()

    shallow, middle, bottom = (alike(depth, "guided_backprop") for depth in (1, 3, 6))
    assert shallow[0] < middle[0] < bottom[0]
    assert bottom[0] > 0.9
    assert bottom[1] > 0.9
    assert alike(6, "saliency")[0] < 0.3
    assert alike(6, "saliency")[1] == pytest.approx(-1)


def test_shuffled_inputs_change_nothing_for_a_linear_encoders_gradient_and_everything_for_the_input_itself():
    encoder, x, v = nn.Linear(60, 6).double(), samples(30, 60), vectors(2, 6)
    steady = input_randomisation(x, lambda rows: mean_attribution(encoder, rows, v, "saliency"))
    np.testing.assert_allclose(steady, 1)
    assert abs(input_randomisation(x, lambda rows: rows[:3].numpy(), n_draws=20).mean()) < 0.1


def test_cells_that_are_always_zero_stay_and_the_values_of_a_sample_are_only_moved():
    x = samples(4, 1, 5, 5)
    x[:, :, 0] = 0
    seen = []
    input_randomisation(x, lambda rows: seen.append(rows) or rows[:2].numpy(), n_draws=2)
    for rows in seen[1:]:
        assert (rows[:, :, 0] == 0).all()
        assert torch.equal(rows.flatten(1).sort(dim=1).values, x.flatten(1).sort(dim=1).values)
        assert not torch.equal(rows, x)
    assert not torch.equal(seen[1], seen[2])


def test_similarities_are_scipys_spearman():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 40)), np.round(rng.normal(size=(3, 40)))  # ties
    expected = [spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(paired_similarity(a, b), expected)
    np.testing.assert_allclose(np.diag(cross_concept(a, b)), expected)
    np.testing.assert_allclose(agreement([a, b, a]), [expected, np.ones(3), expected])
    assert agreement([a]).shape == (0, 3)
    holed = a.copy()
    holed[0, 3] = np.nan
    rest = np.delete(np.arange(40), 3)
    assert cross_concept(holed)[1, 2] == pytest.approx(spearmanr(a[1, rest], a[2, rest]).statistic)
    np.testing.assert_allclose(cross_concept(np.ones((2, 5))), 0)


def _checks(**changes):
    given = {
        "name": "granule",
        "random": np.array([0.1, -0.2, 0.3, 0.0, -0.1]),
        "opposite": -1.0,
        "others": [("nerve", -0.3, -0.2), ("mitral", 0.1, 0.0)],
        "layers": ["mean", "hidden"],
        "cascading": np.array([[0.1, -0.1], [0.0, 0.05]]),
        "inputs": np.array([0.9]),
        "seeds": np.array([0.95]),
    }
    return Checks(**{**given, **changes})


def test_a_sound_map_gets_no_warning():
    said = verdict(_checks(), "saliency")
    assert said.warnings == []
    assert len(said.sentences) == 5
    assert "its own" in said.line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"random": np.full(5, 0.95)}, "nearly the same map whatever the concept"),
        ({"opposite": 0.6}, "much the same map whatever the concept"),
        ({"cascading": np.array([[0.9, 0.9], [0.1, 0.1]])}, "last layer, the one that carries the concept, is random"),
        ({"cascading": np.array([[0.9, 0.9], [0.7, 0.6]])}, "weights are random"),
        ({"others": [("nerve", 0.9, 0.1)]}, "nearly the same as that of 'nerve'"),
        ({"seeds": np.array([0.4])}, "different maps"),
    ],
)
def test_each_failure_is_said(change, words):
    said = verdict(_checks(**change), "guided_backprop")
    assert len(said.warnings) == 1
    assert words in said.warnings[0]
    assert said.line == said.warnings[0]


def test_relatives_may_have_like_maps_and_one_model_says_nothing_about_seeds():
    assert verdict(_checks(others=[("nerve", 0.9, 0.8)]), "saliency").warnings == []
    alone = verdict(_checks(seeds=np.array([]), others=[]), "saliency")
    assert alone.warnings == []
    assert any("One model only" in s for s in alone.sentences)

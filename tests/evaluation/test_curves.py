"""MIF and LIF curves and completeness, against answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from stcsm.attribution import METHODS, attribute
from stcsm.evaluation import completeness, patches, perturbation_curves

from .networks import deep, linear, samples, vectors


def test_curves_of_a_sum_worked_out_by_hand():
    encoder = linear([1.0, 1.0, 1.0])
    x = torch.tensor([[2.0, 3.0, 1.0]], dtype=torch.float64)
    curves = perturbation_curves(encoder, x, torch.ones(1, dtype=torch.float64), x, steps=3)
    np.testing.assert_allclose(curves.share, [0, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(curves.mif, [[6, 3, 1, 0]])  # 3 goes first, then 2, then 1
    np.testing.assert_allclose(curves.lif, [[6, 5, 3, 0]])
    np.testing.assert_allclose(curves.area, [(2 + 2) / 3])  # trapezoids of 0, 2, 2, 0
    np.testing.assert_allclose(curves.relative, 4 / 3 / 6)


def test_a_reversed_map_gets_the_opposite_area_and_an_empty_one_none():
    encoder, x, v = deep(2), samples(40, 60), vectors(1, 6)[0]
    maps = attribute(encoder, x, v, "integrated_gradients")
    good = perturbation_curves(encoder, x, v, maps)
    bad = perturbation_curves(encoder, x, v, -maps)
    np.testing.assert_allclose(bad.area, -good.area)
    assert (good.area > 0).all()
    nothing = perturbation_curves(encoder, x, v, torch.zeros_like(maps))
    assert abs(nothing.relative) < 0.1 * good.relative


def test_knowing_the_function_beats_knowing_the_input():
    encoder, x, v = deep(2), samples(40, 60), vectors(3, 6)
    knows = perturbation_curves(encoder, x, v, attribute(encoder, x, v, "integrated_gradients")).relative
    input_alone = perturbation_curves(encoder, x, v, x[:, None].expand(-1, 3, -1)).relative
    assert (knows > 2 * np.abs(input_alone)).all()


@pytest.mark.parametrize("batch_size", [1, 7, 100_000])
def test_batches_change_nothing(batch_size):
    encoder, x, v = deep(2), samples(5, 60), vectors(2, 6)
    maps = attribute(encoder, x, v, "rectgrad")  # zero in many places: ties
    once = perturbation_curves(encoder, x, v, maps)
    again = perturbation_curves(encoder, x, v, maps, batch_size=batch_size)
    np.testing.assert_allclose(again.mif, once.mif, rtol=1e-10)
    np.testing.assert_allclose(again.lif, once.lif, rtol=1e-10)


def test_patches_go_as_one_feature():
    label = patches((3, 5, 6), 2)
    assert label.shape == (3, 5, 6)
    assert label.max() == 8  # 3 x 3 patches, those at the edges cut
    assert (label[0] == label[2]).all()
    encoder = nn.Sequential(nn.Flatten(), deep(1, n_in=90))
    x, v = samples(2, 3, 5, 6), vectors(1, 6)[0]
    maps = attribute(encoder, x, v, "input_x_gradient")
    curves = perturbation_curves(encoder, x, v, maps, features=label, steps=9)
    sums = [maps[0][torch.from_numpy(label == p)].sum().item() for p in range(9)]
    first = torch.where(torch.from_numpy(label == int(np.argmax(sums))), 0.0, x[0])
    with torch.no_grad():
        expected = (encoder(first[None])[0] @ v).item()
    np.testing.assert_allclose(curves.mif[0, 1], expected)


def test_one_map_for_all_samples_and_a_baseline_of_ones_own():
    encoder, x, v = deep(1), samples(6, 60), vectors(2, 6)
    mean = x.mean(dim=0)
    tissue = attribute(encoder, x, v, "saliency").mean(dim=0)
    curves = perturbation_curves(encoder, x, v, np.broadcast_to(tissue.numpy(), (6, 2, 60)), baseline=mean, steps=4)
    with torch.no_grad():
        end = (encoder(mean[None]) @ v.T).numpy()[0]
    np.testing.assert_allclose(curves.mif[..., -1], np.broadcast_to(end, (6, 2)))
    np.testing.assert_allclose(curves.lif[..., -1], np.broadcast_to(end, (6, 2)))


def test_integrated_gradients_are_complete_and_an_empty_map_is_wholly_wrong():
    encoder, x, v = deep(3, activation=nn.Softplus), samples(8, 60), vectors(2, 6)
    maps = attribute(encoder, x, v, "integrated_gradients")
    assert (completeness(encoder, x, v, maps).error < 1e-3).all()
    np.testing.assert_allclose(completeness(encoder, x, v, torch.zeros_like(maps)).error, 1)
    own = x.mean(dim=0)
    maps = attribute(encoder, x, v, "integrated_gradients", baseline=own)
    found = completeness(encoder, x, v, maps, baseline=own)
    assert (found.error < 1e-3).all()
    np.testing.assert_allclose(found.total, maps.sum(dim=-1), rtol=1e-12)


def test_input_times_gradient_is_complete_for_a_linear_encoder_only():
    x, v = samples(8, 60), vectors(1, 6)[0]
    straight = nn.Linear(60, 6, bias=False).double()
    error = completeness(straight, x, v, attribute(straight, x, v, "input_x_gradient")).error
    assert error < 1e-12
    assert completeness(deep(3), x, v, attribute(deep(3), x, v, "input_x_gradient")).error > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_judged(method):
    encoder, x, v = deep(2), samples(3, 60), vectors(2, 6)
    curves = perturbation_curves(encoder, x, v, attribute(encoder, x, v, method), steps=5)
    assert curves.area.shape == (3, 2)
    assert np.isfinite(curves.area).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": np.zeros((4, 2, 60))}, "attributions of shape"),
        ({"maps": np.full((3, 2, 60), np.nan)}, "finite attributions"),
        ({"steps": 0}, "at least one step"),
        ({"features": np.zeros(60)}, "integer label"),
        ({"features": np.zeros(59, dtype=int)}, "integer label"),
        ({"baseline": np.zeros(7)}, "baseline"),
        ({"concepts": np.ones((2, 5))}, "components"),
    ],
)
def test_bad_input_is_refused_with_what_was_expected(change, message):
    given = {"concepts": vectors(2, 6), "maps": np.zeros((3, 2, 60)), **change}
    with pytest.raises(ValueError, match=message):
        perturbation_curves(deep(1), samples(3, 60), **given)

"""Infidelity and maximum sensitivity: known answers, and no dependence on batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from stcsm.attribution import METHODS, attribute
from stcsm.evaluation import infidelity, multiplies_by_input, sensitivity_max

from .networks import deep, linear, samples, vectors


@pytest.mark.parametrize("method", METHODS)
def test_methods_that_multiply_by_the_input_say_nothing_of_an_input_at_the_baseline(method):
    encoder, v = deep(2), vectors(1, 6)[0]
    maps = attribute(encoder, torch.zeros(2, 60, dtype=torch.float64), v, method)
    assert bool((maps.abs() < 1e-12).all()) == multiplies_by_input(method)


@pytest.mark.parametrize("method", ["saliency", "input_x_gradient", "occlusion"])
@pytest.mark.parametrize("baseline", [0.0, 0.3])
def test_a_linear_encoder_is_foretold_exactly(method, baseline):
    encoder, x, v = nn.Linear(20, 6).double(), samples(5, 20), vectors(2, 6)
    params = {"baseline": baseline} if method == "occlusion" else {}
    multiply = multiplies_by_input(method)
    maps = attribute(encoder, x, v, method, **params)
    if method == "input_x_gradient" and baseline:
        maps = maps * ((x - baseline) / x)[:, None]
    for normalise in (True, False):
        found = infidelity(
            encoder, x, v, maps, multiply_by_input=multiply, baseline=baseline, normalise=normalise, n_perturbations=20
        )
        np.testing.assert_allclose(found, 0, atol=1e-10)


def test_a_map_of_zeros_foretells_nothing_and_scale_does_not_count():
    encoder, x, v = deep(2), samples(6, 60), vectors(1, 6)[0]
    maps = attribute(encoder, x, v, "integrated_gradients")
    found = infidelity(encoder, x, v, maps, multiply_by_input=True)
    np.testing.assert_allclose(infidelity(encoder, x, v, 0 * maps, multiply_by_input=True), 1)
    np.testing.assert_allclose(infidelity(encoder, x, v, 7 * maps, multiply_by_input=True), found, rtol=1e-6)
    assert (found < 0.5).all()


def test_infidelity_is_the_mean_squared_error_of_what_the_map_foretells():
    encoder = linear([1.0, 2.0])
    x = torch.tensor([[3.0, 5.0]], dtype=torch.float64)
    maps = torch.tensor([[0.0, 10.0]], dtype=torch.float64)  # forgets the first feature, which is worth 3
    found = infidelity(
        encoder, x, torch.ones(1, dtype=torch.float64), maps, multiply_by_input=True, normalise=False, share=0.5,
        n_perturbations=4000, batch_size=8000,
    )  # fmt: skip
    np.testing.assert_allclose(found, 0.5 * 3**2, rtol=0.1)  # the first feature goes in half of the perturbations


@pytest.mark.parametrize("batch_size", [1, 7, 10_000])
def test_batches_change_neither(batch_size):
    encoder, x, v = deep(2), samples(5, 60), vectors(2, 6)
    maps = attribute(encoder, x, v, "input_x_gradient")
    settings = {"n_perturbations": 3}  # 7 are the perturbations of two samples, and one at the end
    np.testing.assert_allclose(
        infidelity(encoder, x, v, maps, multiply_by_input=True, batch_size=batch_size, **settings),
        infidelity(encoder, x, v, maps, multiply_by_input=True, **settings),
        rtol=1e-8,
    )
    for method, params in (("guided_backprop", {}), ("smoothgrad", {"samples": 4})):
        np.testing.assert_allclose(
            sensitivity_max(encoder, x, v, method, batch_size=batch_size, **settings, **params),
            sensitivity_max(encoder, x, v, method, **settings, **params),
            rtol=1e-8,
            atol=1e-12,
        )


def test_the_gradient_of_a_linear_encoder_is_not_sensitive_and_its_product_is_as_the_input():
    encoder, x, v = nn.Linear(20, 6).double(), samples(4, 20), vectors(2, 6)
    np.testing.assert_allclose(sensitivity_max(encoder, x, v, "saliency"), 0, atol=1e-12)
    once = sensitivity_max(encoder, x, v, "input_x_gradient", radius=0.01)
    np.testing.assert_allclose(sensitivity_max(encoder, x, v, "input_x_gradient", radius=0.02), 2 * once, rtol=1e-9)


def test_bad_settings_are_refused():
    encoder, x, v = deep(1), samples(2, 60), vectors(1, 6)[0]
    maps = torch.zeros_like(x)
    with pytest.raises(ValueError, match="share between 0 and 1"):
        infidelity(encoder, x, v, maps, multiply_by_input=True, share=1)
    with pytest.raises(ValueError, match="n_perturbations of 1"):
        infidelity(encoder, x, v, maps, multiply_by_input=True, n_perturbations=0)
    with pytest.raises(ValueError, match="radius above 0"):
        sensitivity_max(encoder, x, v, radius=0)
    with pytest.raises(ValueError, match="method to be one of"):
        multiplies_by_input("nonsense")

"""Fully connected networks over spots, and the filter before and after them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn

from stcsm.attribution import METHODS, attribute
from stcsm.nets import SpatialFilter, SpotDecoder, SpotEncoder


def test_filter_is_the_matrix_product():
    weights = sparse.random_array((6, 6), density=0.5, rng=0)
    x = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    expected = x @ torch.from_numpy(weights.toarray()).float().T
    torch.testing.assert_close(SpatialFilter(weights.tocsr())(x), expected)


@pytest.mark.parametrize("symmetric", [True, False])
def test_filter_has_the_gradient_of_the_product_in_any_order(symmetric):
    weights = sparse.random_array((6, 6), density=0.5, rng=0).tocsr()
    if symmetric:  # a symmetric neighbourhood of unsymmetric weights
        weights = sparse.csr_array(sparse.diags_array(np.arange(1.0, 7)) @ (weights + weights.T))
    layer = SpatialFilter(weights, np.array([3, 0, 5, 1, 2, 4]))
    assert (layer.columns.data_ptr() == layer.back_columns.data_ptr()) == symmetric
    np.testing.assert_array_equal(layer.matrix().toarray(), weights.astype(np.float32).toarray())
    x = torch.rand(4, 6, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(layer(x), x @ torch.from_numpy(layer.matrix().toarray().T).double())
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_passes_the_filter(method):
    weights = sparse.random_array((6, 6), density=0.5, rng=1).tocsr()
    torch.manual_seed(0)
    filtered = SpotEncoder(6, 8, 3, SpatialFilter(weights)).double().eval()
    before = nn.Linear(6, 6, bias=False).double()
    before.weight.data = torch.from_numpy(filtered.spatial_filter.matrix().toarray()).double()
    plain = SpotEncoder(6, 8, 3).double().eval()
    plain.load_state_dict(filtered.state_dict())
    u, v = torch.rand(2, 6, dtype=torch.float64), np.ones(3)
    found, expected = (attribute(encoder, u, v, method) for encoder in (filtered, nn.Sequential(before, plain)))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_filter_keeps_single_precision_under_autocast():
    layer = SpatialFilter(sparse.eye_array(6, format="csr"))
    x = torch.rand(4, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(layer(x.bfloat16()), x.bfloat16().float())


def test_filters_apply_to_the_input_and_to_the_output():
    weights = SpatialFilter(sparse.random_array((6, 6), density=0.5, rng=1).tocsr())
    plain, filtered = SpotEncoder(6, 8, 3), SpotEncoder(6, 8, 3, weights)
    filtered.load_state_dict(plain.state_dict())
    u = torch.rand(4, 6)
    torch.testing.assert_close(filtered(u), plain(weights(u)))
    torch.testing.assert_close(plain(u), plain.posterior(u)[0])
    plain, filtered = SpotDecoder(3, 8, 6), SpotDecoder(3, 8, 6, weights)
    filtered.load_state_dict(plain.state_dict())
    z = torch.rand(4, 3)
    torch.testing.assert_close(filtered(z), weights(plain(z)))

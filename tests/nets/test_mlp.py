"""Fully connected networks over spots, and the filter before and after them."""

from __future__ import annotations

import torch
from scipy import sparse

from stcsm.nets import SpatialFilter, SpotDecoder, SpotEncoder


def test_filter_is_the_matrix_product():
    weights = sparse.random_array((6, 6), density=0.5, rng=0)
    x = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    expected = x @ torch.from_numpy(weights.toarray()).float().T
    torch.testing.assert_close(SpatialFilter(weights.tocsr())(x), expected)


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

"""The published percentile rule, its ties, and maps of millions of cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stcsm.attribution import percentile_threshold


def by_sorting(values, q):
    """The rule, word for word: descending, index rint((d - 1)(1 - q / 100))."""
    d = values.shape[1]
    return -np.sort(-values, axis=1)[:, int(np.rint((d - 1) * (1.0 - q / 100.0)))]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 5), d=st.integers(1, 3000), q=st.floats(0, 100), seed=st.integers(0, 1000),
    zeros=st.sampled_from([0.0, 0.5, 0.99]), levels=st.sampled_from([0, 3]),
)  # fmt: skip
def test_any_size_with_ties_and_zeros(rows, d, q, seed, zeros, levels):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, d))
    if levels:
        values = np.rint(values * levels)
    values[rng.random(values.shape) < zeros] = 0
    np.testing.assert_array_equal(percentile_threshold(torch.from_numpy(values), q).numpy(), by_sorting(values, q))


def test_millions_of_cells():
    values = torch.randn(1, 2**24 + 1, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RuntimeError):
        torch.quantile(values, 0.95, dim=1)
    np.testing.assert_array_equal(percentile_threshold(values, 95).numpy(), by_sorting(values.numpy(), 95))

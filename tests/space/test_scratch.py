"""Counts in a scratch file are those of memory, a block at a time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from stcsm.space import ScratchMatrix, _components, _scratch, gather, spatial_filter, spot_components


@pytest.fixture
def x() -> csr_array:
    """Two groups of spots."""
    rate = np.ones((60, 30))
    rate[:30, :10] = 6
    return csr_array(np.random.default_rng(0).poisson(rate).astype(np.float32))


def pieces(x: csr_array, by_rows: bool):
    """Blocks of some rows, or of some columns."""
    for start in range(0, x.shape[0 if by_rows else 1], 7):
        stop = start + 7
        yield (start, 0, x[start:stop]) if by_rows else (0, start, csr_array(x[:, start:stop]))


@pytest.mark.parametrize("by_rows", [True, False])
def test_products_are_those_of_the_matrix(x, by_rows):
    whole, scratch = gather(pieces(x, by_rows), x.shape), gather(pieces(x, by_rows), x.shape, limit=100)
    np.testing.assert_array_equal(whole.toarray(), x.toarray())
    assert isinstance(scratch, ScratchMatrix)
    rng = np.random.default_rng(1)
    for right in (rng.normal(size=30), rng.normal(size=(30, 4))):
        np.testing.assert_allclose(scratch @ right, x @ right, atol=1e-6)
    left = rng.normal(size=(60, 2))
    np.testing.assert_allclose(scratch.transposed_product(left), x.T @ left, atol=1e-6)


@pytest.mark.parametrize("smoothed", [True, False])
def test_components_are_those_of_memory(x, smoothed):
    coords = np.stack(np.meshgrid(np.arange(6.0), np.arange(10.0)), -1).reshape(-1, 2)
    smoother = spatial_filter(coords, 1.0) if smoothed else None
    scratch = gather(pieces(x, True), x.shape, limit=0)
    found, expected = (spot_components(m, 3, smoother) for m in (scratch, x))
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("limit", [0, 2**28])
def test_components_do_not_depend_on_what_holds_the_counts(x, limit, monkeypatch):
    """Twelve components of noise, which two ways of finding them would not agree on."""
    monkeypatch.setattr(_scratch, "IN_MEMORY", limit)
    monkeypatch.setattr(_components, "_FINE_PASSES", 1)
    held = gather(pieces(x, True), x.shape)
    assert isinstance(held, ScratchMatrix) == (limit == 0)
    np.testing.assert_allclose(spot_components(held, 12), spot_components(x, 12), atol=1e-6)


def test_nothing_gives_an_empty_matrix():
    assert gather([], (3, 4)).shape == (3, 4)


def test_blocks_of_a_held_matrix_do_not_change_its_products(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values = csr_array(rng.poisson(0.3, size=(40, 9)).astype(np.float32))
    right, left = rng.normal(size=(9, 2)), rng.normal(size=(40, 2))
    for at_once in (1, 20, 2**22):
        monkeypatch.setattr(_scratch, "STORED", at_once)
        held = _scratch.HeldMatrix(values)
        np.testing.assert_allclose(held @ right, values.toarray().astype(np.float64) @ right, rtol=1e-12)
        np.testing.assert_allclose(held.transposed_product(left), values.toarray().T @ left, rtol=1e-12)
        assert sum(block.shape[0] for _, _, block in held.blocks()) == 40

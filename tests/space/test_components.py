"""Principal components of the spots are those of the whole matrix; held-out counts find how many the genes have."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg, sparse

from stcsm.space import HeldOutCounts, choose_components, spatial_filter, spot_components


def scores(dense: np.ndarray, n: int) -> np.ndarray:
    """Components by the definition: singular vectors of the centred matrix."""
    u, s, _ = linalg.svd(dense - dense.mean(axis=0), full_matrices=False)
    return u[:, :n] * s[:n]


def same_up_to_signs(found: np.ndarray, expected: np.ndarray, atol: float) -> None:
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=atol)


@pytest.mark.parametrize("shape", [(40, 90), (90, 40)])
@pytest.mark.parametrize("smooth", [False, True])
def test_components_are_those_of_the_centred_matrix(shape, smooth):
    rng = np.random.default_rng(0)
    values = sparse.random_array(shape, density=0.3, rng=rng, format="csr")
    smoother = spatial_filter(rng.uniform(size=(shape[0], 2)), 1.0) if smooth else None
    dense = values.toarray() if smoother is None else smoother @ values.toarray()
    same_up_to_signs(spot_components(values, 4, smoother), scores(dense, 4), 1e-8)


def test_a_large_sparse_section_has_the_same_components():
    rng = np.random.default_rng(1)
    patterns = rng.uniform(size=(2050, 3)) @ np.diag([9.0, 4.0, 2.0]) @ rng.uniform(size=(3, 2020))
    values = sparse.csr_array(rng.poisson(0.2 * patterns).astype(np.float32))
    dense = values.toarray().astype(float)
    dense -= dense.mean(axis=0)
    variance, u = linalg.eigh(dense @ dense.T, subset_by_index=[2047, 2049])
    expected = u[:, ::-1] * np.sqrt(variance[::-1])
    same_up_to_signs(spot_components(values, 3), expected, 1e-2 * np.abs(expected).max())


@pytest.mark.parametrize("n", [0, 10])
def test_more_components_than_there_are_are_refused(n):
    with pytest.raises(ValueError, match="1 to 9 components of 10 spots x 30 genes"):
        spot_components(sparse.csr_array(np.ones((10, 30))), n)


@pytest.mark.parametrize(("patterns", "expected"), [(1, 2), (12, 12)])
def test_number_of_components_is_that_of_the_patterns(patterns, expected):
    """Genes follow one of several patterns over the spots, which are twice as high in one part as in the rest."""
    rng = np.random.default_rng(0)
    high = rng.uniform(size=(patterns, 120)) < 0.3
    rate = np.where(high[np.arange(360) % patterns], 12.0, 1.0).T
    held = HeldOutCounts(sparse.csr_array(rng.poisson(rate).astype(np.float32)))
    assert choose_components(held, candidates=(2, 12, 60)) == expected

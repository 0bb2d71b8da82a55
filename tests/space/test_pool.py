"""Which places are pooled, and the way back from features to places."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from stcsm.space import Pool, pool_array, pool_points


@pytest.mark.parametrize(("most", "height", "width"), [(120, 1, 1), (119, 1, 2), (30, 2, 2), (29, 2, 3), (4, 6, 6)])
def test_blocks_of_an_array_are_the_smallest_that_are_few_enough(most, height, width):
    rows, cols = (x.ravel() + 100 for x in np.indices((12, 10)))
    feature = pool_array(rows, cols, most)
    block = (rows - 100) // height * 10 + (cols - 100) // width
    assert np.array_equal(feature, np.unique(block, return_inverse=True)[1])
    assert feature.max() < most


def test_blocks_of_a_hexagonal_array_have_no_gaps():
    rows, cols = np.indices((8, 8)).reshape(2, -1)
    feature = pool_array(rows, 2 * cols + rows % 2, 16)
    assert np.array_equal(np.bincount(feature), np.full(16, 4))


@pytest.mark.parametrize("n_dim", [2, 3])
def test_cells_of_points_are_balanced_compact_and_free_of_order(n_dim):
    rng = np.random.default_rng(0)
    xy = rng.uniform(size=(1000, n_dim))
    feature = pool_points(xy, 150)
    sizes = np.bincount(feature)
    assert len(sizes) == 143
    assert set(sizes) <= {6, 7}
    spread = np.mean([np.ptp(xy[feature == f], axis=0).max() for f in range(143)])
    assert spread < 1.6 * (7 / 1000) ** (1 / n_dim)
    order = rng.permutation(1000)
    assert np.array_equal(pool_points(xy[order], 150), feature[order])


def test_what_is_divided_sums_to_what_a_feature_had():
    rng = np.random.default_rng(0)
    pool = Pool(np.array([0, 0, 1, 2, 2, 2, 1]), 3)
    counts = sparse.csr_array(np.array([[1.0, 3, 0, 0, 0, 0, 0], [0, 0, 2, 4, 1, 0, 0]]))
    depth = np.array([0.1, 0.2, 0.1, 0, 0, 0, 0.3])
    maps = rng.normal(size=(2, 5, 3))
    divided = pool.divide(maps, counts, depth)
    assert np.allclose(pool.sums(divided), maps)
    assert np.allclose(divided.sum(axis=0), pool.divided_sum(maps, counts, depth))
    assert np.allclose(divided[0, 0] / pool.repeat(maps[0, 0]), [1 / 4, 3 / 4, 1 / 4, 1 / 3, 1 / 3, 1 / 3, 3 / 4])
    assert np.allclose(divided[1, 0] / pool.repeat(maps[1, 0]), [1 / 3, 2 / 3, 1, 4 / 5, 1 / 5, 0, 0])

"""Blocks of spots and the permutation of whole blocks."""

import numpy as np
import pytest

from stcsm.concepts import differential_concepts, neighbour_block_correlation, region_contrast, spatial_blocks

XY = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), -1).reshape(-1, 2)
LEFT = XY[:, 0] < 10


def test_blocks_are_compact_and_stay_within_their_group():
    blocks = spatial_blocks(XY, np.where(LEFT, 0, 1), spots_a_block=20)
    assert len(np.unique(blocks)) == 20
    for b in np.unique(blocks):
        assert len(set(LEFT[blocks == b])) == 1
        assert np.ptp(XY[blocks == b], axis=0).max() < 9
    assert (spatial_blocks(XY, np.full(400, -1)) == -1).all()


def test_level_is_kept_where_neighbours_are_alike_and_spots_would_not():
    """Smooth maps without a difference: blocks find one in 5%, single spots in many more."""
    rng = np.random.default_rng(0)
    distance = np.linalg.norm(XY[:, None] - XY[None], axis=2)
    smooth = np.linalg.cholesky(np.exp(-0.5 * (distance / 1.2) ** 2) + 1e-6 * np.eye(400))
    maps = (smooth @ rng.normal(size=(400, 300))).T
    blocks = spatial_blocks(XY, np.where(LEFT, 0, 1), spots_a_block=20)
    by_block = differential_concepts(maps, LEFT, ~LEFT, blocks, n_permutations=499)
    by_spot = differential_concepts(maps, LEFT, ~LEFT, np.arange(400), n_permutations=199)
    assert np.mean(by_block.p <= 0.05) < 0.11
    assert np.mean(by_spot.p <= 0.05) > 0.2
    groups = np.where(LEFT, 0, 1)
    assert np.mean(neighbour_block_correlation(maps, blocks, groups, XY)) < 0.15
    tiny = spatial_blocks(XY, groups, spots_a_block=3)
    assert np.mean(neighbour_block_correlation(maps, tiny, groups, XY)) > 0.3


def test_exact_test_by_hand():
    blocks = np.repeat(np.arange(6), 2)
    of_a = blocks < 3
    values = np.array([5, 5.2, 5.1, 1, 1.1, 0.9])[blocks]
    found = differential_concepts(values, of_a, ~of_a, blocks)
    assert found.exact
    assert found.n_permutations == 19  # 6 over 3, less the one seen
    assert found.p[0] == pytest.approx(2 / 20)  # A and B swapped give the same
    assert found.smallest_p == pytest.approx(0.1)
    assert found.difference[0] == pytest.approx(5.1 - 1)


def test_difference_is_a_sum_over_spots():
    """Also with blocks of unequal sizes and spots in neither region."""
    rng = np.random.default_rng(1)
    maps, a, b = rng.normal(size=(3, 400)), XY[:, 0] < 8, XY[:, 0] > 12
    blocks = np.where(a | b, rng.integers(0, 7, 400) + 7 * b, -1)
    found = differential_concepts(maps, a, b, blocks, n_permutations=9)
    np.testing.assert_allclose(maps @ region_contrast(a, b, blocks), found.difference, rtol=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_reference": LEFT}, "do not overlap"),
        ({"blocks": np.zeros(400, int)}, "straddle"),
        ({"blocks": np.where(LEFT, 0, 1)}, "two blocks in either region"),
        ({"maps": np.full((1, 400), np.nan)}, "found NaN in map 0"),
        ({"n_permutations": 0}, "at least one permutation"),
        ({"maps": np.zeros((1, 3))}, "one entry of"),
    ],
)
def test_bad_input(change, message):
    given = {"maps": np.ones((1, 400)), "in_group": LEFT, "in_reference": ~LEFT, "blocks": np.arange(400)} | change
    with pytest.raises(ValueError, match=message):
        differential_concepts(**given)

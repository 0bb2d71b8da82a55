"""Agreement of maps with masks: known answers."""

from __future__ import annotations

import numpy as np
import pytest

from stcsm.images import mask_agreement, mean_difference


def square(size=32, at=(10, 14)):
    mask = np.zeros((size, size), bool)
    mask[at[0] : at[1], at[0] : at[1]] = True
    return mask


def test_the_mask_itself_is_found_and_its_complement_is_not():
    mask = square()
    good, bad = (mask_agreement(m[None].astype(float), mask[None], share=16 / 1024) for m in (mask, ~mask))
    assert (good["auroc"], good["top"]) == (1.0, 1.0)
    assert (bad["auroc"], bad["top"]) == (0.0, 0.0)
    assert good["chance"] == (6 * 6 - 4) / 32**2  # one pixel more on each side, without the corners


def test_random_maps_are_at_chance():
    rng = np.random.default_rng(0)
    masks = np.repeat(square(at=(8, 20))[None], 200, axis=0)
    found = mask_agreement(rng.random((200, 32, 32)), masks)
    assert found["auroc"].mean() == pytest.approx(0.5, abs=0.01)
    assert found["top"].mean() == pytest.approx(found["chance"].mean(), abs=0.01)


def test_a_pixel_beside_the_mask_counts_only_within_the_margin():
    mask, value = square(), np.zeros((32, 32))
    value[9, 12] = 1  # one row above
    inside = mask_agreement(value[None], mask[None], share=1 / 1024)["top"]
    outside = mask_agreement(value[None], mask[None], share=1 / 1024, margin=0)["top"]
    assert (inside, outside) == (1, 0)


def test_only_the_order_of_a_map_matters():
    rng = np.random.default_rng(1)
    value, mask = rng.random((3, 32, 32)), np.repeat(square()[None], 3, axis=0)
    one, two = mask_agreement(value, mask), mask_agreement(np.exp(5 * value), mask)
    for key in one:
        np.testing.assert_array_equal(one[key], two[key])


def test_one_map_serves_all_and_empty_masks_tell_nothing():
    masks = np.stack([square(), square(at=(0, 0))])
    found = mask_agreement(square().astype(float), masks)
    assert found["auroc"][0] == 1
    assert np.isnan(found["auroc"][1])
    assert np.isnan(found["top"][1])


def test_mean_difference_by_hand():
    pixels = np.zeros((600, 3, 4, 4), np.uint8)
    has = np.arange(600) % 3 == 0
    pixels[has, 0, 1, 2] = 90
    pixels[~has, 2, 1, 2] = 30
    pixels[:, 1, 0, 0] = 200
    wanted = np.zeros((4, 4, 3))
    wanted[1, 2] = 90, 0, -30
    np.testing.assert_allclose(mean_difference(pixels, has), wanted, atol=1e-9)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="one shape"):
        mask_agreement(np.zeros((2, 4, 4)), np.zeros((2, 5, 5), bool))
    with pytest.raises(ValueError, match="finite"):
        mask_agreement(np.full((4, 4), np.nan), np.zeros((2, 4, 4), bool))
    with pytest.raises(ValueError, match="share"):
        mask_agreement(np.zeros((4, 4)), np.zeros((2, 4, 4), bool), share=5)
    with pytest.raises(ValueError, match="with and without"):
        mean_difference(np.zeros((2, 3, 4, 4)), [True, True])

"""Pixels between 0 and 1, and image grids."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stcsm.images import as_pixels, image_grid


def test_wrong_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="divide by 255, or pass uint8"):
        as_pixels(torch.full((1, 3, 4, 4), 200.0))
    with pytest.raises(ValueError, match=r"shape \(n, 3, size, size\)"):
        as_pixels(np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="uint8 images, or floats"):
        as_pixels(torch.zeros((1, 3, 4, 4), dtype=torch.int64))


def test_grid_has_rows_of_images() -> None:
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((3, 3, 2, 2), np.uint8)
    grid = image_grid(images, columns=2)
    np.testing.assert_array_equal(grid[..., 0], [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 255, 255], [2, 2, 255, 255]])

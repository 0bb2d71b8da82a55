"""How wide a region is, and whether a spot is one cell or many."""

from __future__ import annotations

import numpy as np
import pytest

from stcsm.space import distance_kept, irregularity, label_coherence, region_width, smooth_regions, spatial_filter
from tests.space.test_heldout import counts_of, tissue


def test_irregularity_of_a_lattice_and_of_chance():
    assert irregularity(tissue()[0]) == pytest.approx(0, abs=1e-12)
    # Distances to the nearest point of a Poisson process are Rayleigh distributed.
    chance = irregularity(np.random.default_rng(0).uniform(size=(20_000, 2)))
    assert chance == pytest.approx(np.sqrt(4 / np.pi - 1), rel=0.03)


def test_spots_that_share_their_surroundings_hold_many_cells_and_independent_ones_hold_one():
    xy, rate = tissue()
    found = region_width(counts_of(rate), xy, unit=1.0, irregular=irregularity(xy))
    assert found.cells == "many"
    assert found.width == found.best / 2
    assert found.shared > 0.4
    mixed = np.random.default_rng(2).permutation(len(xy))
    alone = region_width(counts_of(rate[mixed]), xy, unit=1.0, irregular=irregularity(xy))
    assert alone.cells == "one"
    assert alone.width == alone.best
    jittered = xy + np.random.default_rng(3).uniform(-0.45, 0.45, xy.shape)
    cells = region_width(counts_of(rate), jittered, unit=0.6, irregular=irregularity(jittered))
    assert cells.cells == "one"  # cells lie on no lattice
    assert region_width(counts_of(rate), xy, unit=1.0, irregular=0.0, cells="one").width == found.best


def test_single_cells_whose_kinds_lie_together_are_mapped_as_spots_and_mixed_ones_as_regions():
    xy, rate = tissue()
    scattered = xy + np.random.default_rng(3).uniform(-0.45, 0.45, xy.shape)
    loose = irregularity(scattered)
    assert region_width(counts_of(rate), scattered, unit=0.6, irregular=loose).scale == "spot"
    mixed = rate[np.random.default_rng(2).permutation(len(xy))]
    assert region_width(counts_of(mixed), scattered, unit=0.6, irregular=loose).scale == "region"
    assert region_width(counts_of(rate), xy, unit=1.0, irregular=irregularity(xy)).scale == "region"


def grid(side=24):
    return np.stack(np.meshgrid(np.arange(float(side)), np.arange(float(side))), -1).reshape(-1, 2)


def test_a_noisy_half_is_smoothed_and_stripes_are_left_as_they_are():
    xy = grid()
    noise = np.random.default_rng(0).normal(scale=0.3, size=len(xy))
    half, stripes = np.where(xy[:, 0] < 12, 1.0, -1.0), np.where(xy[:, 0] % 2, 1.0, -1.0)
    maps = np.stack([half + noise, stripes + noise, np.zeros(len(xy))], axis=1)
    found, widths = smooth_regions(maps, xy, 2.0)
    assert widths[0] > 0
    assert list(widths[1:]) == [0, 0]
    np.testing.assert_array_equal(found[:, 1:], maps[:, 1:])
    expected = spatial_filter(xy, widths[0]) @ maps[:, 0]
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-12)
    assert np.abs(found[:, 0] - half).mean() < np.abs(noise).mean()
    assert smooth_regions(maps, xy, 0.5)[1].max() <= 0.5
    np.testing.assert_allclose(smooth_regions(maps[:, [0]], xy, 2.0)[0][:, 0], found[:, 0], atol=1e-12)


def test_modules_of_wide_regions_stay_apart_and_those_of_thin_layers_do_not():
    xy, rng = grid(36), np.random.default_rng(0)
    smoother = spatial_filter(xy, 1.0)

    def modules(wide):
        """Eight noisy maps each of six bands, so wide."""
        band = (xy[:, 0] // wide % 6).astype(int)
        return np.repeat(np.eye(6)[band], 8, axis=1) + rng.normal(scale=0.2, size=(len(xy), 48))

    thin, wide = distance_kept(modules(1), smoother), distance_kept(modules(6), smoother)
    assert thin < 0.8
    assert wide > 0.92


def test_coherence_of_labels():
    """Six nearest of a chessboard: four of the other colour and two of its own; halves nearly always their own."""
    xy = grid(40) * [1, 1.0001]  # no ties between rows and columns
    assert label_coherence((xy[:, 0] < 20).astype(int), xy) > 0.9
    assert label_coherence(np.random.default_rng(0).integers(0, 4, len(xy)), xy) == pytest.approx(0, abs=0.03)
    assert label_coherence((xy.round().sum(axis=1) % 2).astype(int), xy) == pytest.approx(-1 / 3, abs=0.05)

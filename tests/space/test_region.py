"""How wide a region is, and whether a spot is one cell or many."""

from __future__ import annotations

import numpy as np
import pytest

from stcsm.space import irregularity, region_width
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

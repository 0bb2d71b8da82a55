"""A label as an ideal gene."""

import numpy as np
import pytest

from stcsm.concepts import group_profiles


def test_ideal_gene_follows_depth_within_its_group_of_spots():
    labels, depth = ["x", "x", "y", None], [1.0, 3.0, 2.0, 2.0]
    found = group_profiles(labels, depth, total=80)
    np.testing.assert_allclose(found.background, [10, 30, 20, 20])
    np.testing.assert_allclose(found.counts, [[15, 45, 0, 20], [0, 0, 60, 20]])
    for bad, message in ((["x", "x", "x", "x"], "one label"), ([None] * 4, "no label")):
        with pytest.raises(ValueError, match=message):
            group_profiles(bad)
    with pytest.raises(ValueError, match="counts for every label"):
        group_profiles(["x", "y"], [1.0, 0.0])

import numpy as np
import pytest

from stcsm.concepts import concept_scores, ranks, standardise


def test_scores_are_inner_products_and_gaps_stay_gaps():
    z = np.array([[1.0, 2.0], [np.nan, np.nan], [3.0, -1.0]])
    s = concept_scores(z, [[1.0, 1.0], [0.0, 2.0]])
    np.testing.assert_array_equal(s, [[3, 4], [np.nan, np.nan], [2, -2]])
    np.testing.assert_array_equal(concept_scores(z, [1.0, 1.0]), s[:, :1])
    with pytest.raises(ValueError, match=r"\(concepts, 2\), found \(3,\)"):
        concept_scores(z, np.ones(3))
    with pytest.raises(ValueError, match="NaN or infinity in concept number 1"):
        concept_scores(z, [[1.0, 1.0], [np.nan, 0.0]])


def test_standardise():
    s = np.array([[1.0, 5.0, 1e9 + 0.1], [np.nan, np.nan, np.nan], [3.0, 5.0, 1e9 + 0.1], [5.0, 5.0, 1e9 + 0.1]])
    out = standardise(s)
    np.testing.assert_allclose(out[[0, 2, 3], 0], np.array([-1, 0, 1]) * np.sqrt(1.5))
    np.testing.assert_array_equal(out[[0, 2, 3], 1:], 0)
    assert np.isnan(out[1]).all()
    np.testing.assert_allclose(standardise(1000 * s - 7), out, atol=1e-6)


def test_ranks_share_ties_and_leave_gaps():
    np.testing.assert_array_equal(ranks([3.0, np.nan, 9.0, 3.0, 1.0]), [2, np.nan, 1, 2, 4])
    np.testing.assert_array_equal(ranks(np.array([[1.0, 4.0], [2.0, 3.0]])), [[2, 1], [1, 2]])

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stcsm.concepts import cluster, cosine_similarity, map_correlation, nearest_genes


def test_correlation_and_p_are_those_of_scipy():
    z = np.random.default_rng(0).normal(size=(60, 7)).astype(np.float32)
    found = nearest_genes(z, 4, n=60)
    assert found.index[0] == 4
    assert found.r[0] == 1
    assert np.isnan(found.p[0])
    assert sorted(found.index) == list(range(60))
    for i, r, p in zip(found.index[1:], found.r[1:], found.p[1:], strict=True):
        expected = stats.pearsonr(z[4].astype(float), z[i].astype(float))
        assert r == pytest.approx(expected.statistic, abs=1e-12)
        assert p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (np.diff(found.r) <= 1e-12).all()


def test_q_counts_every_gene_tested_whatever_n_is():
    z = np.random.default_rng(1).normal(size=(500, 10))
    few, all_ = nearest_genes(z, 0, n=5), nearest_genes(z, 0, n=500)
    np.testing.assert_array_equal(few.q, all_.q[:5])
    assert few.n_tested == 499
    np.testing.assert_allclose(all_.q[1:], stats.false_discovery_control(all_.p[1:]))


def test_p_values_of_unrelated_genes_are_uniform():
    z = np.random.default_rng(2).normal(size=(5000, 20))
    p = nearest_genes(z, 0, n=5000).p[1:]
    assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_genes_that_cannot_correlate_are_never_neighbours():
    z = np.random.default_rng(3).normal(size=(10, 5))
    z[2], z[3], z[4] = np.nan, 1.7, 0.0
    found = nearest_genes(z, 0)
    assert set(found.index) == {0, 1, 5, 6, 7, 8, 9}
    assert found.n_tested == 6
    with pytest.raises(ValueError, match="without one"):
        nearest_genes(z, 2)
    for constant in (3, 4):
        with pytest.raises(ValueError, match="latent coordinates differ"):
            nearest_genes(z, constant)


def test_copies_of_the_seed_come_first_in_row_order_with_p_of_zero():
    z = np.random.default_rng(4).normal(size=(8, 6))
    z[6], z[1] = z[3] * 2 + 1, z[3]
    found = nearest_genes(z, 3, n=3)
    np.testing.assert_array_equal(found.index, [3, 1, 6])
    np.testing.assert_allclose(found.p[1:], 0, atol=1e-12)


@given(st.integers(0, 2**16), st.floats(0.1, 10), st.floats(-5, 5))
@settings(max_examples=30, deadline=None)
def test_scale_and_shift_of_a_gene_do_not_matter(seed, scale, shift):
    z = np.random.default_rng(seed).normal(size=(30, 6))
    moved = z * scale + shift
    a, b = nearest_genes(z, 5, n=10), nearest_genes(moved, 5, n=10)
    np.testing.assert_array_equal(a.index, b.index)
    np.testing.assert_allclose(a.r, b.r, atol=1e-9)


@pytest.mark.parametrize(("arguments", "message"), [((0, 0), "n of at least 1"), ((10,), "gene index below 10")])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        nearest_genes(np.random.default_rng(0).normal(size=(10, 5)), *arguments)


def test_two_latents_leave_no_degree_of_freedom():
    with pytest.raises(ValueError, match="at least 3 latents"):
        nearest_genes(np.eye(2), 0)


def test_similarity_by_hand():
    v = np.array([[1, 0], [1, 1], [-2, 0], [0, 0]])
    found = cosine_similarity(v)
    np.testing.assert_allclose(found[:3, :3], [[1, 0.5**0.5, -1], [0.5**0.5, 1, -(0.5**0.5)], [-1, -(0.5**0.5), 1]])
    assert np.isnan(found[3]).all()
    tree = cluster(found)
    assert tree.order[-1] == 3  # what cannot be compared comes last
    assert abs(list(tree.order).index(0) - list(tree.order).index(1)) == 1
    assert len(tree.linkage) == 2
    a, b = np.array([[1.0, 2, 3, 4]]), np.array([[1.0, 4, 9, 16], [0, 0, 0, 0]])
    np.testing.assert_allclose(map_correlation(a, b), [[1, np.nan]])
    assert map_correlation(a, b[:1], method="pearson")[0, 0] == pytest.approx(np.corrcoef(a[0], b[0])[0, 1])
    with pytest.raises(ValueError, match="square"):
        cluster(a)

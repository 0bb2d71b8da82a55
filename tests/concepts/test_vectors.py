"""Concept vectors: known answers, invariants, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from stcsm.concepts import ESTIMATORS, combine, concept_scores, concept_vector, concept_vectors, ranks, standardise

NAMES = sorted(ESTIMATORS)


def _latent(seed=0, n_genes=200, n_latent=6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_genes, n_latent)) * np.linspace(2, 0.2, n_latent)


def test_known_answers_by_hand():
    z = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, -6.0]])
    genes = np.array([1, 1, 0, 0])
    np.testing.assert_allclose(concept_vector(z, genes, "mean").vector, [2, 0])
    np.testing.assert_allclose(concept_vector(z, genes, "contrast").vector, [2 - 1, 0 + 1])
    signed = np.array([3.0, 1.0, -1.0, -1.0])  # up (3*1 + 1*3)/4 = 1.5, down (0, -2)
    for estimator in ("mean", "contrast"):
        np.testing.assert_allclose(concept_vector(z, signed, estimator).vector, [1.5, 2.0])
    down_only = np.array([0, 0, 0, -1.0])
    np.testing.assert_allclose(concept_vector(z, down_only, "mean").vector, [0, 6])
    np.testing.assert_allclose(concept_vector(z, down_only, "contrast").vector, [1, -1 + 6])


@pytest.mark.parametrize("estimator", NAMES)
def test_genes_without_embedding_change_nothing(estimator):
    z = _latent()
    w = (np.arange(200) < 20).astype(float)
    plain = concept_vector(z, w, estimator)
    with_gaps = np.vstack([z, np.full((3, z.shape[1]), np.nan)])
    gaps = concept_vector(with_gaps, np.r_[w, 1, 0, 1], estimator)
    np.testing.assert_allclose(gaps.vector, plain.vector)
    assert gaps.info["n_given"] == 22
    assert gaps.info["n_used"] == 20
    assert gaps.info["n_genes"] == 200


@pytest.mark.parametrize("estimator", NAMES)
@given(seed=st.integers(0, 2**16), scale=st.floats(0.01, 100))
@settings(max_examples=25, deadline=None)
def test_rotating_and_scaling_the_latent_space_does_the_same_to_the_vector(estimator, seed, scale):
    rng = np.random.default_rng(seed)
    z = _latent(seed)
    w = rng.choice([-1.0, 0.0, 0.0, 0.0, 1.0, 2.5], 200)
    q, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    there = concept_vector(scale * z @ q, w, estimator).vector
    np.testing.assert_allclose(there, scale * concept_vector(z, w, estimator).vector @ q, atol=1e-9 * scale)


@pytest.mark.parametrize("estimator", NAMES)
def test_order_of_genes_and_scale_of_weights_do_not_matter(estimator):
    rng = np.random.default_rng(1)
    z, w = _latent(), rng.choice([-1.0, 0.0, 0.0, 1.0, 3.0], 200)
    order = rng.permutation(200)
    v = concept_vector(z, w, estimator).vector
    np.testing.assert_allclose(concept_vector(z[order], w[order], estimator).vector, v, atol=1e-12)
    np.testing.assert_allclose(concept_vector(z, 7.5 * w, estimator).vector, v, atol=1e-12)


@pytest.mark.parametrize("estimator", ["contrast", "cav"])
def test_swapping_signs_turns_the_vector_round_and_shifting_all_genes_does_nothing(estimator):
    z, w = _latent(), np.random.default_rng(2).choice([-1.0, 0.0, 0.0, 1.0], 200)
    v = concept_vector(z, w, estimator).vector
    np.testing.assert_allclose(concept_vector(z, -w, estimator).vector, -v, atol=1e-12)
    np.testing.assert_allclose(concept_vector(z + 5.0, w, estimator).vector, v, atol=1e-9)
    only_up = np.abs(w)
    np.testing.assert_allclose(
        concept_vector(z, -only_up, estimator).vector, -concept_vector(z, only_up, estimator).vector, atol=1e-12
    )


@pytest.mark.parametrize("estimator", NAMES)
def test_many_at_once_are_the_same_as_one_by_one(estimator):
    rng = np.random.default_rng(3)
    z = _latent()
    z[5] = np.nan
    w = rng.choice([-1.0, 0.0, 0.0, 0.0, 1.0, 0.5], (7, 200))
    together = concept_vectors(z, sparse.csr_array(w), estimator)
    np.testing.assert_array_equal(together, concept_vectors(z, w, estimator))
    alone = [concept_vector(z, row, estimator).vector for row in w]
    np.testing.assert_allclose(together, alone, atol=1e-13)


def test_cav_finds_the_separating_axis_where_the_contrast_does_not():
    # Members differ along axis 1 only; axis 0 has 100 times the variance and drowns the difference of few means.
    rng = np.random.default_rng(4)
    z = rng.normal(size=(4000, 2)) @ np.array([[10.0, 9.0], [0.0, 1.0]])
    genes = np.zeros(4000)
    genes[:200] = 1
    z[:200] += [0.0, 3.0]
    truth = np.linalg.inv(np.cov(z[200:].T)) @ [0.0, 3.0]
    truth /= np.linalg.norm(truth)
    cav = concept_vector(z, genes, "cav")
    contrast = concept_vector(z, genes, "contrast").vector
    assert cav.vector @ truth / np.linalg.norm(cav.vector) > 0.999
    assert contrast @ truth / np.linalg.norm(contrast) < 0.95
    # Two Gaussians 3 sd apart along the best axis: accuracy Phi(1.5) = 0.933, AUROC Phi(3 / sqrt 2) = 0.983.
    assert cav.info["cv_accuracy"] == pytest.approx(0.933, abs=0.03)
    assert cav.info["cv_auroc"] == pytest.approx(0.983, abs=0.01)


def test_cav_accuracy_of_random_genes_is_chance():
    rng = np.random.default_rng(5)
    z = _latent(n_genes=2000)
    found = []
    for seed in range(20):
        w = np.zeros(2000)
        w[rng.choice(2000, 40, replace=False)] = 1
        found.append(concept_vector(z, w, "cav", seed=seed).info["cv_auroc"])
    assert np.mean(found) == pytest.approx(0.5, abs=0.03)


def test_cav_of_few_genes_says_that_it_could_not_cross_validate():
    info = concept_vector(_latent(), np.eye(200)[3], "cav").info
    assert np.isnan(info["cv_accuracy"])
    assert info["cv_folds"] == 0


@pytest.mark.parametrize("estimator", NAMES)
def test_bad_input_is_refused(estimator):
    z = _latent()
    z[7] = np.nan
    none, only_nan, nan = np.zeros(200), np.eye(200)[7], np.eye(200)[8]
    nan[3] = np.nan
    with pytest.raises(ValueError, match="at least one usable gene"):
        concept_vector(z, none, estimator)
    with pytest.raises(ValueError, match="1 genes, none of which has an embedding"):
        concept_vector(z, only_nan, estimator)
    with pytest.raises(ValueError, match="finite weights, found NaN or infinity for gene 3"):
        concept_vector(z, nan, estimator)
    with pytest.raises(ValueError, match="one weight for each"):
        concept_vector(z, np.ones(199), estimator)
    with pytest.raises(ValueError, match="infinite values in 1 rows, first row 9"):
        concept_vector(np.where(np.arange(200)[:, None] == 9, np.inf, z), np.eye(200)[3], estimator)
    with pytest.raises(ValueError, match="zero vector"):
        concept_vector(np.ones((5, 3)) if estimator != "mean" else np.zeros((5, 3)), np.eye(5)[0], estimator)


def test_a_set_of_all_genes_has_a_mean_and_no_contrast():
    z = _latent()
    np.testing.assert_allclose(concept_vector(z, np.ones(200), "mean").vector, z.mean(0))
    for estimator in ("contrast", "cav"):
        with pytest.raises(ValueError, match="set of all 200 genes; use a smaller set, or estimator='mean'"):
            concept_vector(z, np.ones(200), estimator)
    signed = np.where(np.arange(200) < 100, 1.0, -1.0)
    np.testing.assert_allclose(concept_vector(z, signed).vector, z[:100].mean(0) - z[100:].mean(0))


def test_unknown_estimator_lists_those_there_are():
    with pytest.raises(ValueError, match="contrast, mean, cav, found 'median'"):
        concept_vector(_latent(), np.eye(200)[0], "median")


def test_combine_and_not():
    a, b, c = np.array([3.0, 4.0, 0.0]), np.array([0.0, 2.0, 0.0]), np.array([0.0, 5.0, 0.0])
    np.testing.assert_allclose(combine(a, b), [3, 0, 0])
    np.testing.assert_allclose(combine(a, [b, c]), [3, 0, 0], atol=1e-15)  # parallel excluded vectors
    np.testing.assert_allclose(combine(a), a)
    np.testing.assert_allclose(combine([a, 100 * b]), [0.3, 0.9, 0])
    with pytest.raises(ValueError, match="differs from the excluded ones"):
        combine(b, c)
    with pytest.raises(ValueError, match="zero vector"):
        combine(a, np.zeros(3))


@given(st.integers(0, 2**16), st.integers(1, 3), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_a_combination_is_blind_to_what_it_excludes(seed, n_in, n_out):
    rng = np.random.default_rng(seed)
    include, exclude = rng.normal(size=(n_in, 8)), rng.normal(size=(n_out, 8)) * 10 ** rng.uniform(-3, 3, (n_out, 1))
    v = combine(include, exclude)
    np.testing.assert_allclose(exclude @ v / np.linalg.norm(exclude, axis=1), 0, atol=1e-10)
    np.testing.assert_allclose(combine(v, exclude), v, atol=1e-10)  # a projection: once is enough


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

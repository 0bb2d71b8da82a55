"""The random-concept null: exact where genes were picked at random, and able to tell where they were not."""

import numpy as np
import pytest
from scipy import sparse, stats

from stcsm.concepts import (
    ESTIMATORS,
    RandomConcepts,
    RandomConceptSampler,
    benjamini_hochberg,
    concept_vectors,
    concepts_against_random,
    map_test,
    matching_bins,
    significance,
)

N_GENES, N_LATENT, N_SPOTS = 120, 4, 15


def _tissue(seed=0):
    """Latents whose size follows abundance, as they do in practice; maps of the latent coordinates."""
    rng = np.random.default_rng(seed)
    abundance = rng.lognormal(0, 1.5, N_GENES)
    latent = rng.standard_t(3, (N_GENES, N_LATENT)) * (1 + stats.rankdata(abundance)[:, None] / 20)
    return latent, rng.normal(size=(N_LATENT, N_SPOTS)), matching_bins(abundance, n_bins=(6, 1))


def _random_weights(rng, pool, n, kind):
    w = np.zeros(N_GENES)
    chosen = rng.choice(pool, n, replace=False)
    w[chosen] = {"plain": np.ones(n), "signed": rng.choice([-1.0, 1.0], n), "weighted": rng.exponential(size=n)}[kind]
    return w


@pytest.mark.parametrize(
    ("estimator", "kind", "alternative", "statistic", "n"),
    [
        ("contrast", "plain", "two-sided", "energy", 3),
        ("contrast", "plain", "two-sided", "max", 7),
        ("contrast", "weighted", "greater", "energy", 7),
        ("contrast", "signed", "greater", "max", 6),
        ("mean", "signed", "two-sided", "energy", 6),
        ("cav", "plain", "two-sided", "energy", 30),
        ("cav", "weighted", "two-sided", "max", 5),
    ],
)
def test_p_values_of_random_concepts_are_exactly_uniform(estimator, kind, alternative, statistic, n):
    # With 19 random concepts p takes the values 1/20 ... 20/20, each with chance 1/20: a small number of random
    # concepts is the hardest case for a null that is only nearly exchangeable with what it tests.
    latent, basis, bins = _tissue()
    rng = np.random.default_rng(1)
    weights = np.array([_random_weights(rng, np.arange(N_GENES), n, kind) for _ in range(800)])
    s = significance(
        latent, weights, basis, bins, estimator=estimator, n_random=19, alternative=alternative, statistic=statistic
    )
    for p in (s.concept_p, s.p[:, 0], s.p[:, 9]):
        seen = np.bincount(np.rint(p * 20).astype(int), minlength=21)[1:]
        assert stats.chisquare(seen).pvalue > 1e-3
        assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.03)


def test_random_sets_of_abundant_genes_are_no_discovery_once_abundance_is_matched():
    latent, basis, bins = _tissue()
    rng = np.random.default_rng(2)
    abundant = np.flatnonzero(bins == 5)
    weights = np.array([_random_weights(rng, abundant, 4, "plain") for _ in range(600)])
    matched = significance(latent, weights, basis, bins, n_random=99).concept_p
    unmatched = significance(latent, weights, basis, np.zeros(N_GENES, int), n_random=99).concept_p
    assert np.mean(matched <= 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(unmatched <= 0.05) > 0.1  # what the bins are for


def test_genes_that_share_a_direction_are_found():
    latent, basis, bins = _tissue()
    rng = np.random.default_rng(3)
    own = rng.choice(N_GENES, 8, replace=False)
    latent[own] += 12 * rng.normal(size=N_LATENT)
    weights = np.zeros((2, N_GENES))
    weights[0, own] = 1
    weights[1, rng.choice(np.setdiff1d(np.arange(N_GENES), own), 8, replace=False)] = 1
    for statistic in ("energy", "max"):
        s = significance(latent, weights, basis, bins, n_random=999, statistic=statistic)
        assert s.concept_p[0] == 0.001
        assert s.concept_q[0] == 0.002
        assert s.strength[0] > 2
        assert s.concept_p[1] > 0.05
    assert np.mean(s.q[0] < 0.01) > 0.5


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
def test_p_by_hand(estimator):
    latent, basis, bins = _tissue()
    latent[5], bins[5] = np.nan, -1
    w = _random_weights(np.random.default_rng(4), np.arange(6, N_GENES), 6, "weighted")
    sampler = RandomConceptSampler(latent, bins, estimator, seed=9)
    random = sampler.sample(w, 200)
    again = np.zeros((200, N_GENES))
    np.put_along_axis(again, random.genes, w[random.own][None], axis=1)
    np.testing.assert_allclose(random.vectors, concept_vectors(latent, again, estimator), atol=1e-10)
    np.testing.assert_allclose(random.observed, concept_vectors(latent, w, estimator)[0], atol=1e-10)
    maps = np.r_[random.observed[None], random.vectors] @ basis
    z = (maps - maps.mean(0)) / maps.std(0)
    s = significance(latent, w, basis, bins, estimator=estimator, n_random=200, seed=9)
    np.testing.assert_allclose(s.z[0], z[0])
    np.testing.assert_allclose(s.p[0], [(1 + sum(abs(z[1:, j]) >= abs(z[0, j]))) / 201 for j in range(N_SPOTS)])
    energy = (z**2).mean(1)
    assert s.concept_p[0] == (1 + sum(energy[1:] >= energy[0])) / 201
    assert s.strength[0] == pytest.approx(energy[0] / np.median(energy[1:]))
    for alternative in ("two-sided", "greater"):
        for statistic in ("energy", "max"):
            linear = significance(
                latent, w, basis, bins, estimator=estimator, n_random=200, seed=9,
                alternative=alternative, statistic=statistic,
            )  # fmt: skip
            any_method = map_test(maps[0], maps[1:], alternative=alternative, statistic=statistic)
            np.testing.assert_array_equal(linear.p[0], any_method.p)
            assert linear.concept_p[0] == any_method.concept_p


def test_answers_do_not_depend_on_the_other_concepts():
    latent, basis, bins = _tissue()
    weights = np.random.default_rng(5).choice([0, 0, 0, 1.0], (5, N_GENES))
    together = significance(latent, sparse.csr_array(weights), basis, bins, n_random=99)
    alone = significance(latent, weights[3], basis, bins, n_random=99)
    np.testing.assert_array_equal(together.p[3], alone.p[0])
    assert together.concept_p[3] == alone.concept_p[0]
    other = significance(latent, weights, basis, bins, n_random=99, seed=1)
    assert (other.p != together.p).any()


def test_answers_of_a_spot_do_not_depend_on_the_other_spots():
    """Nor does it matter that there are more spots than are tested at once."""
    latent, _, bins = _tissue()
    rng = np.random.default_rng(8)
    w, basis = _random_weights(rng, np.arange(N_GENES), 6, "plain"), rng.normal(size=(N_LATENT, 150))
    whole, part = (significance(latent, w, b, bins, n_random=99) for b in (basis, basis[:, 50:90]))
    np.testing.assert_array_equal(part.p, whole.p[:, 50:90])
    random = RandomConceptSampler(latent, bins).sample(w, 99)
    maps = random.joined() @ basis
    energy = (((maps - maps.mean(0)) / maps.std(0)) ** 2).mean(1)
    assert whole.concept_p[0] == (1 + sum(energy[1:] >= energy[0])) / 100
    assert whole.strength[0] == pytest.approx(energy[0] / np.median(energy[1:]))


def test_scale_of_the_maps_does_not_matter():
    latent, basis, bins = _tissue()
    weights = np.random.default_rng(6).choice([0, 0, 0, 1.0], (3, N_GENES))
    a = significance(latent, weights, basis, bins, n_random=99)
    b = significance(1e4 * latent, weights, 1e-9 * basis, bins, n_random=99)
    np.testing.assert_allclose(a.p, b.p)
    np.testing.assert_allclose(a.z, b.z)


def test_a_concept_that_is_its_own_null_has_p_of_one_and_says_why():
    latent, basis, bins = _tissue()
    w = (bins == 2).astype(float)  # a whole bin: random sets can only be the set itself
    w[np.flatnonzero(bins == 3)[:1]] = 0
    with pytest.raises(ValueError, match="the same map for all"):
        significance(latent, w, basis, bins, n_random=50)
    w[np.flatnonzero(bins == 3)[0]] = 1
    s = significance(latent, w, basis, bins, n_random=50)
    assert s.smallest_p[0] == pytest.approx((1 + 50 / 20) / 51)  # 20 sets match it
    assert s.concept_p[0] > 1 / 51


def test_a_single_gene_is_no_rarer_than_one_in_its_bin():
    latent, basis, bins = _tissue()
    p = []
    for seed in range(10):
        s = significance(latent, np.eye(N_GENES), basis, bins, n_random=99, seed=seed)
        np.testing.assert_allclose(s.smallest_p, (1 + 99 / 20) / 100)
        p.append(s.concept_p)
    for level in (0.01, 0.05, 0.1, 0.3):
        assert np.mean(np.array(p) <= level) <= level + 0.02
    wide = significance(latent, np.eye(N_GENES)[:3], basis, bins, bins_single=np.zeros(N_GENES, int), n_random=99)
    np.testing.assert_allclose(wide.smallest_p, (1 + 99 / 120) / 100)


def test_spots_where_all_maps_agree_are_not_tested():
    latent, basis, bins = _tissue()
    basis[:, 3] = 0
    w = np.random.default_rng(7).choice([0, 0, 1.0], N_GENES)
    s = significance(latent, w, basis, bins, n_random=99)
    assert np.isnan(s.p[0, 3])
    assert np.isnan(s.q[0, 3])
    assert np.isfinite(np.delete(s.p[0], 3)).all()
    without = significance(latent, w, np.delete(basis, 3, axis=1), bins, n_random=99)
    np.testing.assert_array_equal(np.delete(s.q[0], 3), without.q[0])
    assert s.concept_p[0] == without.concept_p[0]


def test_spots_where_only_rounding_differs_are_not_tested():
    """All concepts lie on one line, and half of the spots at right angles to it; some, nearly so, have a small map."""
    rng = np.random.default_rng(0)
    line = rng.normal(size=5)
    line /= np.linalg.norm(line)
    vectors, basis = rng.normal(size=(201, 1)) * line, rng.normal(size=(5, 300))
    basis[:, :150] -= line[:, None] * (line @ basis[:, :150])
    basis[:, 140:150] += 1e-7 * line[:, None]
    none = np.empty((200, 0), dtype=int)
    drawn = RandomConcepts(vectors[0], vectors[1:], genes=none, own=none[0], smallest_p=1 / 201)
    found = concepts_against_random([drawn], 1, [basis])
    expected = map_test(vectors[0] @ basis, vectors[1:] @ basis)
    np.testing.assert_array_equal(np.isnan(expected.p), np.arange(300) < 140)
    np.testing.assert_array_equal(found.p[0], expected.p)
    np.testing.assert_allclose(found.z[0], expected.z, rtol=1e-6)
    assert found.concept_p[0] == expected.concept_p


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"basis": np.ones((3, 5))}, r"basis of shape \(4, spots\), found \(3, 5\)"),
        ({"basis": np.full((4, 5), np.nan)}, "finite basis"),
        ({"weights": np.ones((2, 7))}, r"weights of shape \(concepts, 120\)"),
        ({"weights": np.zeros(N_GENES)}, "Concept number 0: Expected at least one usable gene"),
        ({"weights": np.ones(N_GENES)}, "set of all 120 genes"),
        ({"bins": np.zeros(7, int)}, "bin for each of 120 genes"),
        ({"alternative": "less"}, "alternative out of two-sided, greater"),
        ({"statistic": "sum"}, "statistic out of energy, max"),
        ({"n_random": 0}, "at least one random set"),
        ({"estimator": "median"}, "estimator out of"),
    ],
)
def test_bad_input_is_refused(change, message):
    latent, basis, bins = _tissue()
    arguments = {"latent": latent, "weights": np.eye(N_GENES)[0], "basis": basis, "bins": bins, "n_random": 9} | change
    with pytest.raises(ValueError, match=message):
        significance(**arguments)


def test_a_bin_for_a_gene_without_embedding_is_refused():
    latent, basis, bins = _tissue()
    latent[8] = np.nan
    with pytest.raises(ValueError, match="bin -1 for genes without an embedding, found 1 others, first gene 8"):
        significance(latent, np.eye(N_GENES)[0], basis, bins, n_random=9)


def test_map_test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"found \(3,\) and \(5, 4\)"):
        map_test(np.ones(3), np.ones((5, 4)))
    with pytest.raises(ValueError, match="finite maps"):
        map_test(np.array([1, np.nan]), np.ones((5, 2)))


def test_fdr_leaves_gaps_and_respects_families():
    p = np.array([[0.01, np.nan, 0.04], [0.5, 0.02, np.nan]])
    np.testing.assert_allclose(benjamini_hochberg(p, axis=1), [[0.02, np.nan, 0.04], [0.5, 0.04, np.nan]])
    np.testing.assert_allclose(benjamini_hochberg(p), [[0.04, np.nan, 4 * 0.04 / 3], [0.5, 0.04, np.nan]])
    assert np.isnan(benjamini_hochberg([np.nan, np.nan])).all()
    assert benjamini_hochberg([]).size == 0

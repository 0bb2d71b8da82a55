"""Which genes carry a concept; how alike concepts are; labels as ideal genes; combinations of random concepts."""

import numpy as np
import pytest

from stcsm.concepts import (
    RandomConceptSampler,
    balanced,
    cluster,
    combine,
    cosine_similarity,
    discovery,
    group_profiles,
    map_correlation,
    random_combination,
)

G, L = 400, 5


def _genes(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(G, L)), np.zeros(G, int)


def test_p_of_genes_is_uniform_for_random_concepts():
    latent, bins = _genes()
    rng = np.random.default_rng(1)
    p = []
    for _ in range(20):
        w = np.zeros(G)
        w[rng.choice(G, 6, replace=False)] = 1
        sampler = RandomConceptSampler([latent, latent @ rng.normal(size=(L, L))], bins)
        found = discovery(sampler, sampler.sample(w, 99))
        assert np.isnan(found.p[w > 0]).all()
        p.append(found.p[w == 0])
    p = np.concatenate(p)
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.02)
    assert np.mean(p <= 0.5) == pytest.approx(0.5, abs=0.06)


def test_genes_of_a_direction_are_found_by_some_of_them():
    latent, bins = _genes()
    latent[:30] += 3 * np.eye(L)[0]
    w = np.zeros(G)
    w[:10] = 1
    sampler = RandomConceptSampler(latent, bins)
    found = discovery(sampler, sampler.sample(w, 2000))
    others = np.arange(30, G)
    assert np.median(found.p[10:30]) < 0.005 < 0.3 < np.median(found.p[others])
    assert np.mean(found.score[10:30][:, None] > found.score[others]) > 0.95
    order = found.order()
    assert not set(order) & set(range(10))
    assert (np.diff(found.q[order]) >= 0).all()
    assert (found.q[10:30] < 0.05).mean() > 0.8
    np.testing.assert_array_equal(np.sort(found.rank), np.arange(1, G + 1))


def test_members_of_an_ensemble_weigh_alike_whatever_their_scale():
    latent, bins = _genes()
    w = np.r_[np.ones(8), np.zeros(G - 8)]
    p = []
    for scale in (1.0, 1e3):
        sampler = RandomConceptSampler([latent, scale * latent[:, ::-1] ** 3], bins)
        drawn = sampler.sample(w, 99)
        basis = [np.eye(L), np.eye(L) / scale**2]
        size = balanced(drawn, [b @ b.T for b in basis])
        p.append(size.vectors @ np.concatenate([basis[0], basis[1]]))
    np.testing.assert_allclose(p[0][:, :2], p[1][:, :2], rtol=1e-6)


def test_random_combinations_are_blind_to_what_is_excluded_and_keep_the_level():
    latent, bins = _genes()
    rng = np.random.default_rng(2)
    excluded = rng.normal(size=(1, L))
    sampler = RandomConceptSampler(latent, bins)
    p = []
    for _ in range(300):
        parts = []
        for _ in range(2):
            w = np.zeros(G)
            w[rng.choice(G, 5, replace=False)] = 1
            parts.append(sampler.sample(w, 19))
        both = random_combination(parts, excluded, [L])
        np.testing.assert_allclose(both.joined() @ excluded[0], 0, atol=1e-12)
        size = np.linalg.norm(both.joined(), axis=1)
        p.append((1 + np.sum(size[1:] >= size[0])) / 20)
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.05)
    single = random_combination(parts[:1], excluded, [L])
    np.testing.assert_allclose(single.observed, combine(parts[0].observed, excluded))


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

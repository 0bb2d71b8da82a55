"""Which genes outside a concept's definition carry it."""

import numpy as np
import pytest

from stcsm.concepts import RandomConceptSampler, discovery

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

"""Random sets: matched bin for bin, uniform, reproducible. Random concepts: combinations and ensembles."""

from collections import Counter
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from stcsm.concepts import (
    MatchedSampler,
    RandomConceptSampler,
    balanced,
    combine,
    gene_abundance_dispersion,
    matching_bins,
    random_combination,
)

G, L = 400, 5


def _genes(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(G, L)), np.zeros(G, int)


@given(st.integers(0, 2**16), st.integers(1, 6), st.integers(20, 120), st.floats(0.01, 1.0))
@settings(max_examples=60, deadline=None)
def test_every_set_has_distinct_genes_from_the_bins_of_the_set(seed, n_bins, n_genes, share):
    rng = np.random.default_rng(seed)
    bins = rng.integers(-1, n_bins, n_genes)
    usable = np.flatnonzero(bins >= 0)
    genes = rng.choice(usable, max(1, int(share * usable.size)), replace=False)
    drawn = MatchedSampler(bins, seed).draw(genes, 50)
    np.testing.assert_array_equal(bins[drawn], np.broadcast_to(bins[genes], drawn.shape))
    assert all(np.unique(row).size == row.size for row in drawn)


@pytest.mark.parametrize("n_own", [2, 3, 5])
def test_ordered_draws_without_replacement_are_uniform(n_own):
    # 12 genes a bin: 2 or 3 genes take the redrawing path, 5 the shuffling one. Order matters: weights go by column.
    bins = np.repeat([0, 1], 12)
    drawn = MatchedSampler(bins, 7).draw(np.arange(n_own), 60_000)
    if n_own == 5:
        seen = Counter(frozenset(row) for row in drawn.tolist())
        every = [frozenset(c) for c in combinations(range(12), 5)]
    else:
        seen = Counter(tuple(row) for row in drawn.tolist())
        every = list(permutations(range(12), n_own))
    assert set(seen) <= set(every)
    assert stats.chisquare([seen[s] for s in every]).pvalue > 1e-3


def test_draws_depend_on_seed_and_set_alone():
    bins = np.zeros(500, dtype=int)
    sampler = MatchedSampler(bins, 3)
    first = sampler.draw([4, 9, 200], 30)
    sampler.draw([1, 2], 10)
    np.testing.assert_array_equal(sampler.draw([4, 9, 200], 30), first)
    np.testing.assert_array_equal(MatchedSampler(bins, 3).draw([4, 9, 200], 30), first)
    assert (MatchedSampler(bins, 4).draw([4, 9, 200], 30) != first).any()
    assert (sampler.draw([4, 9, 201], 30) != first).any()
    assert (sampler.draw([4, 9, 200], 30, [1, 1, 2]) != first).any()


def test_genes_that_cannot_be_matched_are_refused():
    sampler = MatchedSampler(np.array([0, 0, -1, 1]))
    with pytest.raises(ValueError, match="1 that do not, first gene 2"):
        sampler.draw([0, 2], 5)
    with pytest.raises(ValueError, match="gene twice"):
        sampler.draw([0, 0], 5)
    with pytest.raises(ValueError, match="at least one random set"):
        sampler.draw([0], 0)
    with pytest.raises(ValueError, match="whole number"):
        MatchedSampler(np.array([0.0, 1.0]))


def test_bins_hold_equal_numbers_of_alike_genes():
    rng = np.random.default_rng(0)
    abundance, dispersion = rng.lognormal(size=6000), rng.normal(size=6000)
    bins = matching_bins(abundance, dispersion, n_bins=(10, 4))
    assert set(np.bincount(bins)) == {150}
    for low, high in zip(range(0, 36, 4), range(4, 40, 4), strict=True):
        assert abundance[bins // 4 == low // 4].max() <= abundance[bins // 4 == high // 4].min()
    assert dispersion[bins == 5].max() <= dispersion[bins == 6].min()
    np.testing.assert_array_equal(bins, matching_bins(np.exp(3 * abundance), 7 * dispersion, n_bins=(10, 4)))


def test_default_bins_grow_with_the_panel():
    rng = np.random.default_rng(1)
    for n_genes, smallest in ((16000, 100), (500, 40), (120, 40), (20, 20)):
        size = np.bincount(matching_bins(rng.lognormal(size=n_genes), rng.normal(size=n_genes)))
        assert size.min() >= smallest
        assert size.max() - size.min() <= 2


def test_single_genes_get_larger_bins():
    abundance = np.random.default_rng(1).lognormal(size=16000)
    assert np.bincount(matching_bins(abundance, -abundance, single=True)).min() >= 1000
    assert np.bincount(matching_bins(abundance[:500], -abundance[:500], single=True)).min() >= 100


def test_genes_without_counts_have_no_bin():
    bins = matching_bins([0.0, 3.0, 5.0, 0.0], [np.nan, 1.0, 2.0, np.nan])
    np.testing.assert_array_equal(bins, [-1, 0, 0, -1])
    with pytest.raises(ValueError, match="NaN for 1 of them, first gene 2"):
        matching_bins([1.0, 3.0, 5.0], [1.0, 1.0, np.nan])
    with pytest.raises(ValueError, match="one length"):
        matching_bins([1.0, 3.0], [1.0])


def test_dispersion_is_that_of_the_negative_binomial_and_blind_to_depth():
    rng = np.random.default_rng(2)
    depth = rng.lognormal(0, 0.8, 4000)
    depth /= depth.sum()
    total, phi = 20_000 * np.ones(30), np.repeat([0.0, 0.5, 2.0], 10)
    mu = total * depth[:, None]
    counts = np.where(phi > 0, rng.negative_binomial(1 / np.maximum(phi, 1e-9), 1 / (1 + mu * phi)), rng.poisson(mu))
    # A last gene takes up the rest of each spot's counts, so that depth is what was asked for.
    counts = np.c_[counts, rng.poisson(1e7 * depth), np.zeros(4000)].astype(int)
    abundance, found = gene_abundance_dispersion(counts)
    np.testing.assert_array_equal(abundance, counts.sum(0))
    np.testing.assert_allclose(found[:30].reshape(3, 10).mean(1), [0, 0.5, 2], atol=0.1)
    assert np.isnan(found[-1])
    for form in (sparse.csr_array, sparse.csc_matrix, sparse.csr_matrix):
        np.testing.assert_allclose(gene_abundance_dispersion(form(counts))[1], found)
    with pytest.raises(ValueError, match="without a single one"):
        gene_abundance_dispersion(np.zeros((3, 2)))


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

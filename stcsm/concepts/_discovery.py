"""Which genes carry a concept that were not in its definition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stcsm.concepts._latent import FloatArray
from stcsm.concepts._random import RandomConcepts, RandomConceptSampler, balanced
from stcsm.concepts._significance import benjamini_hochberg, exceedance
from stcsm.concepts._vectors import ranks

GENES_AT_ONCE = 256


@dataclass(frozen=True)
class Discovery:
    """Score of every gene on one concept and its test; all arrays (G,), NaN for genes without an embedding.

    Attributes
    ----------
    score
        z . v; with several members, their mean, each divided by its typical size.
    z
        How many standard deviations the gene's score lies above the mean of its scores on random concepts.
    rank
        1 for the highest score.
    in_set
        True for genes in the concept's definition.
    p, q
        One-sided p value, and Benjamini-Hochberg q value over the genes tested; NaN for the concept's own genes,
        which would be tested against themselves.
    """

    score: FloatArray
    z: FloatArray
    rank: FloatArray
    in_set: NDArray[np.bool_]
    p: FloatArray
    q: FloatArray

    def order(self) -> NDArray[np.intp]:
        """Genes outside the concept's definition, best first: by q, then by score, then by row."""
        rows = np.flatnonzero(~self.in_set & ~np.isnan(self.p))
        return rows[np.lexsort((rows, -self.score[rows], self.q[rows]))]


def discovery(sampler: RandomConceptSampler, random: RandomConcepts) -> Discovery:
    """Test every gene's score on a concept against its scores on random concepts like it.

    The question: does gene g lie further along this concept than along concepts made from random genes? A gene is
    compared only with random concepts that do not contain it, since the concept does not either; then p is exact where
    the concept's genes were picked at random. Scores are taken from the mean gene, (z_g - mean z) . v, so that a shift
    of the latent space, which moves all genes alike, has no effect. With several members of an ensemble, scores are
    averaged after those of each member are divided by their typical size (`balanced`).

    Parameters
    ----------
    sampler
        Holds the latent spaces.
    random
        The concept and its random stand-ins, from ``sampler.sample(weights, n_random)``.
    """
    genes = np.flatnonzero(sampler.usable)
    centred = [z[genes] - z[genes].mean(axis=0) for z in sampler.latents]
    random = balanced(random, [z.T @ z / len(z) for z in centred])
    both, latent = random.joined(), np.concatenate(centred, axis=1)
    n_genes, n_random = sampler.usable.size, len(random.vectors)
    # For each gene, the random concepts that contain it.
    by_gene = np.argsort(random.genes.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(random.genes.ravel(), minlength=n_genes))
    holders = by_gene // random.genes.shape[1]
    in_set = np.zeros(n_genes, dtype=bool)
    in_set[random.own] = True
    z, p, score = (np.full(n_genes, np.nan) for _ in range(3))
    score[genes] = np.concatenate([x[genes] for x in sampler.latents], axis=1) @ random.observed
    for first in range(0, genes.size, GENES_AT_ONCE):
        some = genes[first : first + GENES_AT_ONCE]
        scores = both @ latent[first : first + GENES_AT_ONCE].T
        spread = scores.std(axis=0)
        # A gene at the mean of all genes scores zero on everything.
        z[some] = np.where(spread > 0, (scores[0] - scores.mean(axis=0)) / np.where(spread > 0, spread, 1), 0.0)
        n_holders = np.zeros(some.size)
        for j, gene in enumerate(some):
            held = holders[ends[gene - 1] if gene else 0 : ends[gene]]
            scores[1 + held, j] = -np.inf
            n_holders[j] = np.unique(held).size
        # Where all of them exceed it, the quotient is 1 up to rounding.
        p[some] = np.minimum(exceedance(scores[0], scores[1:]) * (1 + n_random) / (1 + n_random - n_holders), 1)
    p[in_set] = np.nan
    return Discovery(score, z, ranks(score), in_set, p, benjamini_hochberg(p))

"""The random-concept null for any number of concepts at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from tqdm.auto import tqdm

from ._fdr import benjamini_hochberg
from ._latent import FloatArray
from ._map_test import linear_map_test
from ._random_concepts import RandomConcepts, RandomConceptSampler, balanced


@dataclass(frozen=True)
class Significance:
    """Maps of K concepts against maps of random concepts.

    Attributes
    ----------
    p, q
        (K, S) p value of every spot, and its Benjamini-Hochberg q value over the spots of that concept.
    z
        (K, S) how many standard deviations a map lies above the mean of its random maps.
    concept_p, concept_q
        (K,) p value of every map as a whole, and its q value over the concepts.
    strength
        (K,) statistic of the map over the median of its random maps' statistics; ranks concepts whose p values are all
        the smallest that the number of random concepts allows.
    smallest_p
        (K,) about the smallest p value the concept can get; see `RandomConcepts`.
    n_random
        Number of random concepts a concept.
    """

    p: FloatArray
    q: FloatArray
    z: FloatArray
    concept_p: FloatArray
    concept_q: FloatArray
    strength: FloatArray
    smallest_p: FloatArray
    n_random: int


def significance(
    latent: ArrayLike | Sequence[ArrayLike],
    weights: ArrayLike | sparse.sparray,
    basis: ArrayLike | Sequence[ArrayLike],
    bins: ArrayLike,
    *,
    bins_single: ArrayLike | None = None,
    estimator: str = "contrast",
    n_random: int = 1000,
    alternative: str = "two-sided",
    statistic: str = "energy",
    seed: int = 0,
    progress: bool = False,
) -> Significance:
    """Test every concept's map against the maps of random concepts like it.

    For methods linear in the concept vector: a map is ``vector @ basis``, so a random concept costs one small matrix
    product. Whatever is done to a map afterwards and is linear (averaging over genes, a spot graph) belongs into the
    basis. Every concept has random concepts of its own: same number of genes from every matching bin, same weights and
    signs. For other methods draw with `RandomConceptSampler`, attribute, and use `map_test`.

    Several members of an ensemble go in at once, as lists of latents and of bases: the same random genes make a map in
    each, and maps are averaged after every member's are divided by one number, their typical size over the concept and
    its random concepts (`balanced`).

    Parameters
    ----------
    latent
        (G, L), or a list of them, one a member of an ensemble.
    weights
        (K, G) weights of the concepts, see `concept_vector`; dense or sparse.
    basis
        (L, S) maps of the latent coordinates, or a list of them.
    bins
        (G,) matching bins, see `matching_bins`; -1 for genes without an embedding.
    bins_single
        (G,) larger bins for concepts with a single usable gene (``matching_bins(..., single=True)``); None: the same.
    estimator
        The one the maps were made with.
    n_random
        Random concepts for every concept. The smallest p value is ``1 / (1 + n_random)``.
    alternative, statistic
        See `map_test`.
    seed
        Same seed, same concept: same p values, whatever other concepts are tested beside it.
    progress
        Show a bar over concepts.

    Raises
    ------
    ValueError
        If shapes do not fit, the basis is not finite, or a concept is at fault (see `concept_vector`).
    """
    sampler = RandomConceptSampler(latent, bins, estimator, seed)
    lone = sampler if bins_single is None else RandomConceptSampler(latent, bins_single, estimator, seed)
    bases = check_bases(basis, sampler.sizes)
    rows = sparse.csr_array(weights if sparse.issparse(weights) else np.atleast_2d(np.asarray(weights, float)))
    if rows.shape[1] != sampler.usable.size:
        raise ValueError(f"Expected weights of shape (concepts, {sampler.usable.size}), found {rows.shape}.")

    def draw(k: int) -> RandomConcepts:
        try:
            w = rows[[k]].toarray()[0]
            return (lone if np.count_nonzero(w[sampler.usable]) == 1 else sampler).sample(w, n_random)
        except ValueError as error:
            raise ValueError(f"Concept number {k}: {error}") from None

    return concepts_against_random(
        map(draw, range(rows.shape[0])), rows.shape[0], bases, alternative=alternative, statistic=statistic,
        progress=progress,
    )  # fmt: skip


def concepts_against_random(
    draws: Iterable[RandomConcepts],
    n_concepts: int,
    bases: Sequence[FloatArray],
    *,
    onto: FloatArray | None = None,
    alternative: str = "two-sided",
    statistic: str = "energy",
    progress: bool = False,
) -> Significance:
    """`significance` of concepts whose random stand-ins are given, one after the other.

    Parameters
    ----------
    draws
        K concepts with their random stand-ins.
    n_concepts
        K.
    bases
        (L_m, S) of every member of the ensemble, see `check_bases`.
    onto
        (S, C) sums over spots that are tested in place of the spots themselves, such as the difference between two
        regions; members of an ensemble weigh by the size of their whole maps all the same.
    alternative, statistic, progress
        As for `significance`.
    """
    stacked = np.concatenate(bases)
    if onto is not None:
        stacked = stacked @ onto
    grams = [b @ b.T for b in bases]
    n_spots = stacked.shape[1]
    p, q, z = (np.empty((n_concepts, n_spots)) for _ in range(3))
    concept_p, strength, smallest_p = (np.empty(n_concepts) for _ in range(3))
    n_random = 0
    for k, drawn in enumerate(
        tqdm(draws, total=n_concepts, desc="random concepts", unit="concept", disable=not progress)
    ):
        random = balanced(drawn, grams)
        try:
            test = linear_map_test(random.observed, random.vectors, stacked, alternative, statistic)
        except ValueError as error:
            raise ValueError(f"Concept number {k}: {error}") from None
        p[k], q[k], z[k] = test.p, test.q, test.z
        concept_p[k], strength[k], smallest_p[k] = test.concept_p, test.strength, random.smallest_p
        n_random = len(random.vectors)
    return Significance(p, q, z, concept_p, benjamini_hochberg(concept_p), strength, smallest_p, n_random)


def check_bases(basis: ArrayLike | Sequence[ArrayLike], sizes: Sequence[int]) -> list[FloatArray]:
    """Maps of the latent coordinates of every member, each (L_m, S), finite.

    Raises
    ------
    ValueError
        If shapes do not fit or there is NaN or infinity in a basis.
    """
    single = isinstance(basis, np.ndarray) and basis.ndim == 2
    bases = [np.asarray(b, dtype=np.float64) for b in ([basis] if single else list(basis))]  # type: ignore[arg-type]
    if len(bases) != len(sizes):
        raise ValueError(f"Expected a basis for each of {len(sizes)} latent spaces, found {len(bases)}.")
    n_spots = bases[0].shape[-1]
    for b, size in zip(bases, sizes, strict=True):
        if b.ndim != 2 or b.shape != (size, n_spots) or not n_spots:
            raise ValueError(f"Expected a basis of shape ({size}, spots), found {b.shape}.")
        if not np.isfinite(b).all():
            raise ValueError("Expected a finite basis, found NaN or infinity; leave spots without a value out.")
    return bases

"""Concept vectors of random gene sets, matched to a concept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from ._estimators import get_estimator
from ._latent import FloatArray, check_latent
from ._random_sets import MatchedSampler
from ._vectors import refuse_zero, split_signs, usable_sides


@dataclass(frozen=True)
class RandomConcepts:
    """A concept and its random stand-ins, made in one and the same way.

    Attributes
    ----------
    observed
        (L,) the concept's own vector.
    vectors
        (N, L) vectors of the random sets.
    members
        (N, n) genes of the random sets.
    own
        (n,) genes of the concept itself that have an embedding; column j of ``members`` stands in for ``own[j]``.
    smallest_p
        About the smallest p value that the concept can get: ``1 / (1 + N)``, or more where few sets match it, since
        some of the random sets are then the concept itself. A single gene can be no rarer than one in its bin.
    """

    observed: FloatArray
    vectors: FloatArray
    members: NDArray[np.intp]
    own: NDArray[np.intp]
    smallest_p: float


class RandomConceptSampler:
    """Random concepts matched in number of genes, bins of the genes, weights and signs.

    Parameters
    ----------
    latent
        (G, L); rows of NaN are never drawn.
    bins
        (G,) matching bins of `matching_bins`.
    estimator
        A name in `ESTIMATORS`.
    seed
        Same seed, same concept: same random concepts, whatever else is asked for.

    Raises
    ------
    ValueError
        If a gene has a bin and no embedding.
    """

    def __init__(self, latent: ArrayLike, bins: ArrayLike, estimator: str = "contrast", seed: int = 0) -> None:
        self.latent, self.usable = check_latent(latent)
        self.estimator = estimator
        self._chosen = get_estimator(estimator)
        self._sampler = MatchedSampler(bins, seed)
        if self._sampler.bins.shape != self.usable.shape:
            raise ValueError(f"Expected a bin for each of {self.usable.size} genes, found {self._sampler.bins.shape}.")
        lost = np.flatnonzero((self._sampler.bins >= 0) & ~self.usable)
        if lost.size:
            raise ValueError(
                f"Expected bin -1 for genes without an embedding, found {lost.size} others, first gene {lost[0]}; give "
                f"`usable` to matching_bins."
            )
        self._dense = self.latent[self.usable]
        self._row = np.cumsum(self.usable) - 1

    def sample(self, weights: ArrayLike, n_random: int) -> RandomConcepts:
        """Random stand-ins of the concept with these (G,) weights; see `concept_vector` for the weights."""
        w = np.asarray(weights, dtype=np.float64)
        if w.shape != self.usable.shape:
            raise ValueError(f"Expected one weight for each of the {self.usable.size} genes, found shape {w.shape}.")
        usable_sides(sparse.csr_array(w[None]), self.usable, needs_rest=self._chosen.needs_rest)
        own = np.flatnonzero((w != 0) & self.usable)
        members = self._sampler.draw(own, n_random, w[own])
        # The concept itself goes through the very same arithmetic as its stand-ins.
        both = np.concatenate([own[None], members])
        rows = sparse.csr_array(
            (np.tile(w[own], len(both)), self._row[both].ravel(), np.arange(0, both.size + 1, own.size)),
            shape=(len(both), self._dense.shape[0]),
        )
        vectors = self._chosen.vectors(self._dense, *split_signs(rows))
        refuse_zero(vectors[:1], self._dense)
        smallest_p = (1 + n_random * np.exp(-self._sampler.log_possible(own))) / (1 + n_random)
        return RandomConcepts(vectors[0], vectors[1:], members, own, float(smallest_p))

"""Concept vectors of random gene sets, matched to a concept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from ._combine import without
from ._estimators import get_estimator
from ._latent import FloatArray, LatentSpace, check_latent
from ._random_sets import MatchedSampler
from ._vectors import refuse_zero, usable_sides


@dataclass(frozen=True)
class RandomConcepts:
    """A concept and its random stand-ins, made in one and the same way.

    With several latent spaces (members of an ensemble), their vectors stand side by side: L is the sum of their sizes.

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

    def joined(self) -> FloatArray:
        """The concept's vector in row 0, then those of the random sets, (1 + N, L)."""
        return np.concatenate([self.observed[None], self.vectors])


class RandomConceptSampler:
    """Random concepts matched in number of genes, bins of the genes, weights and signs.

    Parameters
    ----------
    latent
        (G, L); rows of NaN are never drawn. Or a sequence of such arrays, one a member of an ensemble: the same random
        genes then make a vector in each of them.
    bins
        (G,) matching bins of `matching_bins`.
    estimator
        A name in `ESTIMATORS`.
    seed
        Same seed, same concept: same random concepts, whatever else is asked for.

    Raises
    ------
    ValueError
        If a gene has a bin and no embedding, or members of an ensemble embed different genes.
    """

    def __init__(
        self, latent: ArrayLike | Sequence[ArrayLike], bins: ArrayLike, estimator: str = "contrast", seed: int = 0
    ) -> None:
        self.latents, self.usable = check_latents(latent)
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
        self._spaces = [LatentSpace(z[self.usable]) for z in self.latents]
        self._row = np.cumsum(self.usable) - 1

    @property
    def sizes(self) -> list[int]:
        """Number of latents of every member."""
        return [z.shape[1] for z in self.latents]

    def sample(self, weights: ArrayLike, n_random: int) -> RandomConcepts:
        """Random stand-ins of the concept with these (G,) weights; see `concept_vector` for the weights."""
        w = np.asarray(weights, dtype=np.float64)
        if w.shape != self.usable.shape:
            raise ValueError(f"Expected one weight for each of the {self.usable.size} genes, found shape {w.shape}.")
        usable_sides(sparse.csr_array(w[None]), self.usable, needs_rest=self._chosen.needs_rest)
        own = np.flatnonzero((w != 0) & self.usable)
        members = self._sampler.draw(own, n_random, w[own])
        # The concept itself goes through the very same arithmetic as its stand-ins.
        both = self._row[np.concatenate([own[None], members])]
        up, down = (self._rows(both, np.maximum(sign * w[own], 0.0)) for sign in (1.0, -1.0))
        vectors = [self._chosen.vectors(space, up, down) for space in self._spaces]
        for v, space in zip(vectors, self._spaces, strict=True):
            refuse_zero(v[:1], space.coordinates)
        joined = np.concatenate(vectors, axis=1)
        smallest_p = (1 + n_random * np.exp(-self._sampler.log_possible(own))) / (1 + n_random)
        return RandomConcepts(joined[0], joined[1:], members, own, float(smallest_p))

    def _rows(self, genes: NDArray[np.intp], weights: FloatArray) -> sparse.csr_array:
        """One row a set, (N, n) genes: the weights that are not zero, to a sum of one."""
        shape = (len(genes), len(self._spaces[0].coordinates))
        kept = np.flatnonzero(weights)
        if not kept.size:
            return sparse.csr_array(shape)
        share = weights[kept] / weights[kept].sum()
        ends = np.arange(0, len(genes) * kept.size + 1, kept.size)
        return sparse.csr_array((np.tile(share, len(genes)), genes[:, kept].ravel(), ends), shape=shape)


def check_latents(latent: ArrayLike | Sequence[ArrayLike]) -> tuple[list[FloatArray], NDArray[np.bool_]]:
    """Latent coordinates of every member, each (G, L), and the genes that all of them embed.

    Raises
    ------
    ValueError
        If a member's array is at fault (see `check_latent`), or members embed different genes.
    """
    single = isinstance(latent, np.ndarray) and latent.ndim == 2
    given = [check_latent(z) for z in ([latent] if single else list(latent))]  # type: ignore[arg-type]
    if not given:
        raise ValueError("Expected latent coordinates, found none.")
    usable = given[0][1]
    for z, other in given[1:]:
        if z.shape[0] != usable.size or (other != usable).any():
            raise ValueError("Expected members of an ensemble that embed the same genes, found others.")
    return [z for z, _ in given], usable


def random_combination(
    parts: Sequence[RandomConcepts], excluded: ArrayLike | None, sizes: Sequence[int]
) -> RandomConcepts:
    """Random stand-ins of a combination of concepts (`combine`): its included concepts random, the excluded ones fixed.

    "A and not B" is compared with "random genes and not B". Of several included concepts each takes the place of its
    stand-in row by row; each is divided by its typical length, over itself and its stand-ins, and not by its own length
    as in `combine`, which would throw away how strong it is. Stand-ins of different concepts are independent, so p
    stays exact where the included concepts' genes were picked at random.

    Parameters
    ----------
    parts
        Random stand-ins of each included concept, as many of each.
    excluded
        (J, L) excluded vectors, or None.
    sizes
        Latents of every member of the ensemble; they sum to L.
    """
    unwanted = None if excluded is None else np.atleast_2d(np.asarray(excluded, dtype=np.float64))
    ends = np.cumsum([0, *sizes])
    pieces = []
    for start, stop in pairwise(ends):
        wanted = [p.joined()[:, start:stop] for p in parts]
        if len(parts) > 1:
            wanted = [v / np.sqrt(np.mean(np.sum(v**2, axis=1))) / len(parts) for v in wanted]
        v = np.sum(wanted, axis=0)
        pieces.append(v if unwanted is None else without(v, unwanted[:, start:stop]))
    joined = np.concatenate(pieces, axis=1)
    n = len(joined) - 1
    same = np.prod([(p.smallest_p * (1 + n) - 1) / n for p in parts])
    return RandomConcepts(
        joined[0],
        joined[1:],
        np.concatenate([p.members for p in parts], axis=1),
        np.unique(np.concatenate([p.own for p in parts])),
        float((1 + n * same) / (1 + n)),
    )


def balanced(random: RandomConcepts, grams: Sequence[FloatArray]) -> RandomConcepts:
    """Vectors of an ensemble, each member's divided by its typical size, so that none drowns the others; then averaged.

    One number a member: the root mean square, over the concept and its stand-ins, of what the vectors are multiplied
    with. The concept enters like its stand-ins, so p stays exact; bringing every single map to unit spread instead
    would throw away what is tested, how strong it is. With one member nothing changes.

    Parameters
    ----------
    random
        Vectors of M members side by side.
    grams
        For each member (L_m, L_m): ``basis @ basis.T``, so that ``v @ gram @ v`` is the squared size of a map.
    """
    if len(grams) == 1:
        return random
    both = random.joined()
    both -= both.mean(axis=0)
    scale = np.empty(both.shape[1])
    start = 0
    for gram in grams:
        stop = start + len(gram)
        part = both[:, start:stop]
        size = np.sqrt(np.einsum("nl,lk,nk->", part, gram, part, optimize=True) / len(part))
        scale[start:stop] = len(grams) * size if size > 0 else len(grams)
        start = stop
    return replace(random, observed=random.observed / scale, vectors=random.vectors / scale)

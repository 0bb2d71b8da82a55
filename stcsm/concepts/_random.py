"""Random concepts: genes that may replace each other, gene sets drawn from them, and their concept vectors."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.special import gammaln
from scipy.stats import rankdata

from stcsm.concepts._estimators import get_estimator
from stcsm.concepts._latent import FloatArray, LatentSpace, check_latents
from stcsm.concepts._vectors import refuse_zero, usable_sides, without

GENES_A_BIN = 50
GENES_A_BIN_SINGLE = 1000
"""In bins for concepts of a single gene."""
MAX_BINS = 100


def gene_abundance_dispersion(counts: ArrayLike | sparse.sparray) -> tuple[FloatArray, FloatArray]:
    r"""Total count of every gene, and its overdispersion once the depth of the spots is allowed for.

    With :math:`\mu_{gs} = n_g d_s` (``n_g`` the gene's total, ``d_s`` the spot's share of all counts) the negative
    binomial variance is :math:`\mu + \phi \mu^2`; the moment estimate is
    :math:`\phi_g = (\sum_s (x_{gs} - \mu_{gs})^2 - n_g) / \sum_s \mu_{gs}^2`. It needs no dense copy of the counts.

    Parameters
    ----------
    counts
        (S, G) counts, spots x genes, dense or sparse.

    Returns
    -------
    abundance
        (G,) total counts.
    dispersion
        (G,) :math:`\phi`, 0 for Poisson; NaN for genes without a count.
    """
    given: Any = counts
    x = sparse.csc_array(given).astype(np.float64)
    total: FloatArray = np.asarray(x.sum(axis=0), dtype=np.float64).ravel()
    depth: FloatArray = np.asarray(x.sum(axis=1), dtype=np.float64).ravel()
    if not depth.sum() > 0:
        raise ValueError(f"Expected counts, found a matrix of shape {x.shape} without a single one.")
    depth /= depth.sum()
    square: FloatArray = np.asarray(x.multiply(x).sum(axis=0), dtype=np.float64).ravel()
    cross: FloatArray = np.asarray(x.T @ depth, dtype=np.float64).ravel()
    return total, moment_dispersion(total, square, cross, float(np.sum(depth**2)))


def moment_dispersion(total: FloatArray, square: FloatArray, cross: FloatArray, depth_square: float) -> FloatArray:
    """Overdispersion (G,) of genes from sums over spots, see `gene_abundance_dispersion`; NaN where there is no count.

    Parameters
    ----------
    total, square
        (G,) sums of a gene's counts and of their squares.
    cross
        (G,) sum of a gene's counts times the spots' shares of all counts.
    depth_square
        Sum of the squared shares.
    """
    expected_square = total**2 * depth_square
    with np.errstate(invalid="ignore", divide="ignore"):
        dispersion = (square - 2 * total * cross + expected_square - total) / expected_square
    return np.where(total > 0, dispersion, np.nan)


def matching_bins(
    abundance: ArrayLike,
    dispersion: ArrayLike | None = None,
    *,
    usable: ArrayLike | None = None,
    n_bins: tuple[int, int] | None = None,
    single: bool = False,
) -> NDArray[np.intp]:
    """Bins of genes that may replace each other in a random concept.

    Genes are cut into bins of equal number by abundance, and each of these by dispersion, so a bin of rare genes is cut
    at what is a high dispersion for rare genes. Ranks decide, so the scale of either measure does not matter; ties are
    broken by row.

    Parameters
    ----------
    abundance
        (G,) any measure that grows with a gene's counts.
    dispersion
        (G,) any measure of overdispersion; None matches on abundance alone.
    usable
        (G,) True for genes with an embedding; the others are never drawn. None: where abundance is above zero.
    n_bins
        Number of abundance bins, and of dispersion bins within each. None: bins of about 50 genes, at most about 100
        of them, twice as many by abundance as by dispersion.
    single
        Bins for concepts of a single gene, which can be no rarer than one in its bin: of about 1000 genes, or a quarter
        of a small panel.

    Returns
    -------
    (G,) bin of every gene; -1 for genes that are not usable.
    """
    a = np.asarray(abundance, dtype=np.float64)
    d = None if dispersion is None else np.asarray(dispersion, dtype=np.float64)
    if a.ndim != 1 or (d is not None and d.shape != a.shape):
        raise ValueError(
            f"Expected abundance and dispersion of one length, found {a.shape} and {None if d is None else d.shape}."
        )
    use = a > 0 if usable is None else np.asarray(usable, dtype=bool)
    if use.shape != a.shape:
        raise ValueError(f"Expected one entry of usable a gene ({a.size}), found {use.shape}.")
    bad = use & (np.isnan(a) | (np.isnan(d) if d is not None else False))
    if bad.any():
        raise ValueError(
            f"Expected abundance and dispersion of every usable gene, found NaN for {int(bad.sum())} of them, first "
            f"gene {int(np.flatnonzero(bad)[0])}."
        )
    n_use = int(use.sum())
    if n_bins is None:
        at_least = min(GENES_A_BIN_SINGLE, n_use // 4) if single else GENES_A_BIN
        n_all = min(MAX_BINS, max(1, n_use // max(at_least, 1)))
        n_d = 1 if d is None else max(1, round(np.sqrt(n_all / 2)))
        n_bins = (max(1, n_all // n_d), n_d)
    if min(n_bins) < 1:
        raise ValueError(f"Expected at least one bin each way, found {n_bins}.")
    bins = np.full(a.size, -1, dtype=np.intp)
    rows = np.flatnonzero(use)
    by_abundance = _quantile_bins(a[rows], n_bins[0])
    for i in range(n_bins[0]):
        inside = rows[by_abundance == i]
        within = np.zeros(inside.size, dtype=np.intp) if d is None else _quantile_bins(d[inside], n_bins[1])
        bins[inside] = i * n_bins[1] + within
    return bins


def _quantile_bins(values: FloatArray, n: int) -> NDArray[np.intp]:
    rank = rankdata(values, method="ordinal") - 1
    return (rank * n // max(values.size, 1)).astype(np.intp)


class MatchedSampler:
    """Draws random gene sets with the same number of genes from every bin as a given set.

    Within a bin, genes are drawn without replacement and each with the same chance, so that a set whose genes were
    themselves picked at random, given how many fell into each bin, is exchangeable with its draws. The exactness of the
    p values rests on this alone. In particular the draws may contain genes of the set itself.

    Parameters
    ----------
    bins
        (G,) bin of every gene, -1 for genes never drawn; see `matching_bins`.
    seed
        Draws depend on the seed and on the set asked for, not on other sets or their order.
    """

    def __init__(self, bins: ArrayLike, seed: int = 0) -> None:
        self.bins = np.asarray(bins)
        if self.bins.ndim != 1 or not np.issubdtype(self.bins.dtype, np.integer):
            raise ValueError(f"Expected one whole number a gene as bins, found {self.bins.dtype} {self.bins.shape}.")
        self.seed = seed
        # Genes in order of their bin; bin b holds genes[start[b] : start[b] + size[b]].
        order = np.argsort(self.bins, kind="stable")
        self._genes = order[np.count_nonzero(self.bins < 0) :]
        self._size = np.bincount(self.bins[self._genes], minlength=1)
        self._start = np.concatenate([[0], np.cumsum(self._size)[:-1]])

    def draw(self, genes: ArrayLike, n_random: int, weights: ArrayLike | None = None) -> NDArray[np.intp]:
        """Random sets in place of ``genes``.

        Parameters
        ----------
        genes
            (n,) distinct rows of genes.
        n_random
            Number of random sets.
        weights
            (n,) weights of the genes. They do not change how sets are drawn (column j stands in for gene j and takes
            its weight), but sets that differ in weights alone get draws of their own.

        Returns
        -------
        (n_random, n) rows of genes; column j comes from the bin of gene j; no gene twice in a row.

        Raises
        ------
        ValueError
            If a gene is in no bin (it cannot be matched) or given twice.
        """
        rows = np.asarray(genes, dtype=np.intp)
        if (self.bins[rows] < 0).any():
            lost = rows[self.bins[rows] < 0]
            raise ValueError(
                f"Expected genes that lie in a matching bin, found {lost.size} that do not, first gene {lost[0]}; "
                f"leave genes without an embedding out."
            )
        if np.unique(rows).size != rows.size:
            raise ValueError("Expected distinct genes, found a gene twice.")
        if n_random < 1:
            raise ValueError(f"Expected at least one random set, found {n_random}.")
        rng = self._generator(rows, weights)
        own = self.bins[rows]
        wanted = np.bincount(own, minlength=self._size.size)
        # Where much of a bin is taken, redrawing collisions takes long: shuffle the bin instead.
        crowded = wanted * 3 > self._size
        place = np.empty((rows.size, n_random), dtype=np.intp)
        for b in np.flatnonzero(crowded & (wanted > 0)):
            keys = rng.random((n_random, self._size[b]))
            place[own == b] = self._start[b] + np.argsort(keys, axis=1)[:, : wanted[b]].T
        slots = np.flatnonzero(~crowded[own])
        slots = slots[np.argsort(own[slots], kind="stable")]
        if slots.size:
            place[slots] = self._redraw(rng, own[slots], n_random)
        return self._genes[place.T]

    def log_possible(self, genes: ArrayLike) -> float:
        """Natural logarithm of the number of different sets that match ``genes``."""
        wanted = np.bincount(self.bins[np.asarray(genes)], minlength=self._size.size)
        return float(np.sum(gammaln(self._size + 1) - gammaln(wanted + 1) - gammaln(self._size - wanted + 1)))

    def _redraw(self, rng: np.random.Generator, own: NDArray[np.intp], n_random: int) -> NDArray[np.intp]:
        """Draw every slot, then draw again those that hit a gene already taken, until none does.

        A set is then the first distinct genes of an endless stream of uniform draws, which is a uniform draw without
        replacement. ``own`` is the bin of every slot, sorted; the answer is (slots, n_random).
        """
        size, start = self._size[own][:, None], self._start[own][:, None]
        reach = int(np.bincount(own).max()) - 1
        place = start + np.floor(rng.random((own.size, n_random)) * size).astype(np.intp)
        if reach == 0:
            return place
        sets = np.arange(n_random)
        taken = np.zeros((own.size, n_random), dtype=bool)
        clash = _later_copies(place, taken, reach)
        while clash.any():
            again = clash.any(axis=0)
            sets, clash = sets[again], clash[:, again]
            slot, column = np.nonzero(clash)
            place[slot, sets[column]] = start[slot, 0] + np.floor(rng.random(slot.size) * size[slot, 0]).astype(np.intp)
            clash = _later_copies(place[:, sets], ~clash, reach)
        return place

    def _generator(self, genes: NDArray[np.intp], weights: ArrayLike | None) -> np.random.Generator:
        key = [zlib.crc32(genes.astype(np.int64).tobytes())]
        if weights is not None:
            key.append(zlib.crc32(np.asarray(weights, dtype=np.float64).tobytes()))
        return np.random.default_rng([self.seed, *key])


def _later_copies(place: NDArray[np.intp], taken: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Slots that hold the gene of another slot of their set which came first; ``taken`` slots came before all others.

    Slots of one bin are adjacent, so copies are at most ``reach`` slots apart.
    """
    copy = np.zeros(place.shape, dtype=bool)
    for lag in range(1, reach + 1):
        same = place[lag:] == place[:-lag]
        copy[lag:] |= same & ~taken[lag:]
        copy[:-lag] |= same & taken[lag:]
    return copy


@dataclass(frozen=True)
class RandomConcepts:
    """A concept and its random stand-ins, made in the same way.

    Vectors in several latent spaces (members of an ensemble) are concatenated: L is the sum of their sizes.

    Attributes
    ----------
    observed
        (L,) the concept's own vector.
    vectors
        (N, L) vectors of the random sets.
    genes
        (N, n) genes of the random sets.
    own
        (n,) genes of the concept itself that have an embedding; column j of ``genes`` stands in for ``own[j]``.
    smallest_p
        About the smallest p value that the concept can get: ``1 / (1 + N)``, or more where few sets match it, since
        some of the random sets are then the concept itself. A single gene can be no rarer than one in its bin.
    """

    observed: FloatArray
    vectors: FloatArray
    genes: NDArray[np.intp]
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
        Same seed, same concept: same random concepts, whatever other concepts are asked for.

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
        genes = self._sampler.draw(own, n_random, w[own])
        # The concept itself goes through the same arithmetic as its stand-ins, so that p is exact.
        both = self._row[np.concatenate([own[None], genes])]
        up, down = (self._rows(both, np.maximum(sign * w[own], 0.0)) for sign in (1.0, -1.0))
        vectors = [self._chosen.vectors(space, up, down) for space in self._spaces]
        for v, space in zip(vectors, self._spaces, strict=True):
            refuse_zero(v[:1], space.coordinates)
        joined = np.concatenate(vectors, axis=1)
        smallest_p = (1 + n_random * np.exp(-self._sampler.log_possible(own))) / (1 + n_random)
        return RandomConcepts(joined[0], joined[1:], genes, own, float(smallest_p))

    def _rows(self, genes: NDArray[np.intp], weights: FloatArray) -> sparse.csr_array:
        """One row a set, (N, n) genes: the weights that are not zero, scaled to a sum of one."""
        shape = (len(genes), len(self._spaces[0].coordinates))
        kept = np.flatnonzero(weights)
        if not kept.size:
            return sparse.csr_array(shape)
        share = weights[kept] / weights[kept].sum()
        ends = np.arange(0, len(genes) * kept.size + 1, kept.size)
        return sparse.csr_array((np.tile(share, len(genes)), genes[:, kept].ravel(), ends), shape=shape)


def random_combination(
    parts: Sequence[RandomConcepts], excluded: ArrayLike | None, sizes: Sequence[int]
) -> RandomConcepts:
    """Random stand-ins of a combination of concepts (`combine`): its included concepts random, the excluded ones fixed.

    "A and not B" is compared with "random genes and not B". Each of several included concepts is replaced by its own
    stand-ins, row by row. It is divided by its typical length over itself and its stand-ins, not by its own length as
    in `combine`, which would discard its strength. Stand-ins of different concepts are independent, so p stays exact
    where the included concepts' genes were picked at random.

    Parameters
    ----------
    parts
        Random stand-ins of each included concept, the same number of each.
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
        np.concatenate([p.genes for p in parts], axis=1),
        np.unique(np.concatenate([p.own for p in parts])),
        float((1 + n * same) / (1 + n)),
    )


def balanced(random: RandomConcepts, grams: Sequence[FloatArray]) -> RandomConcepts:
    """Vectors of an ensemble scaled so that every member counts the same, and a product with them is the members' mean.

    One number a member: the root mean square, over the concept and its stand-ins, of what the vectors are multiplied
    with. The concept enters like its stand-ins, so p stays exact; scaling every single map to unit spread would discard
    its strength, which is what is tested. With one member nothing changes.

    Parameters
    ----------
    random
        Concatenated vectors of M members.
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

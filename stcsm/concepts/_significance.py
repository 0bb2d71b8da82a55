"""Maps of concepts against maps of random concepts: a p value for each spot and for each map."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.stats import false_discovery_control
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from stcsm.concepts._latent import FloatArray
from stcsm.concepts._random import RandomConcepts, RandomConceptSampler, balanced
from stcsm.concepts._vectors import weight_rows

ALTERNATIVES = ("two-sided", "greater")
STATISTICS = ("energy", "max")
SPOTS_AT_ONCE = 256
"""Spots whose random maps stay in the processor's cache."""
ROUNDING = 1e-12
"""Of the largest value: maps that differ less are the same."""
DOUBTFUL = 1e-5
"""Of what the sizes of vectors and basis allow: a spread from a covariance that is less is mostly rounding.

Its square is exact to 1e-16 of the largest, so it is itself to 1e-8.
"""


@dataclass(frozen=True)
class MapTest:
    """A map against maps of random concepts.

    Attributes
    ----------
    p, q
        (S,) p value of every spot, and its Benjamini-Hochberg q value over the spots; NaN where all maps are the same.
    z
        (S,) map minus mean, over standard deviation, of the maps of random concepts and of the concept itself.
    concept_p
        p value of the whole map.
    strength
        The map's statistic over the median of the random maps' statistics: 1 for a concept like any other.
    """

    p: FloatArray
    q: FloatArray
    z: FloatArray
    concept_p: float
    strength: float


def map_test(
    observed: ArrayLike, random_maps: ArrayLike, *, alternative: str = "two-sided", statistic: str = "energy"
) -> MapTest:
    r"""Test a map against maps of random concepts, whatever method made them.

    A p value is (1 + number of random maps at least as extreme) / (1 + number of random maps) (Phipson & Smyth 2010),
    exact at any number of random maps when the concept's genes were themselves picked at random. To keep it exact, mean
    and standard deviation at a spot are taken over the random maps AND the map tested, which then enter alike.

    Parameters
    ----------
    observed
        (S,) the map.
    random_maps
        (N, S) maps of random concepts, made in the same way; see `RandomConceptSampler`.
    alternative
        ``"two-sided"``: far from the random maps' mean in either direction; ``"greater"``: above it.
    statistic
        Of the whole map. ``"energy"``: mean of :math:`z^2` over spots (of its positive part for ``"greater"``);
        ``"max"``: largest :math:`|z|` (largest z), which also controls the chance of any false spot.

    Raises
    ------
    ValueError
        If shapes do not fit or there is NaN or infinity in a map.
    """
    one, many = np.asarray(observed, dtype=np.float64), np.asarray(random_maps, dtype=np.float64)
    if one.ndim != 1 or many.ndim != 2 or many.shape[1] != one.size or not len(many):
        raise ValueError(f"Expected a map (spots,) and random maps (n, spots), found {one.shape} and {many.shape}.")
    if not (np.isfinite(one).all() and np.isfinite(many).all()):
        raise ValueError("Expected finite maps, found NaN or infinity; leave spots without a value out.")
    both = np.concatenate([one[None], many])
    rounding = ROUNDING * np.abs(both).max()
    both -= both.mean(axis=0)

    def standardised() -> Iterator[tuple[FloatArray, NDArray[np.bool_]]]:
        for s in _spot_slices(one.size):
            maps = both[:, s]
            spread = np.sqrt(np.einsum("ns,ns->s", maps, maps) / len(maps))
            yield maps / np.where(spread > rounding, spread, np.inf), spread > rounding

    return _test_blocks(standardised(), alternative, statistic)


def _linear_map_test(
    observed: FloatArray, random_vectors: FloatArray, basis: FloatArray, alternative: str, statistic: str
) -> MapTest:
    """`map_test` for maps that are ``vector @ basis``, (L,), (N, L) and (L, S), without holding all random maps.

    The standard deviation at a spot is that of a product with its column of the basis, which the vectors' covariance
    gives at once; where that is nearly nothing, it is taken from the products themselves.
    """
    both = np.concatenate([observed[None], random_vectors])
    rounding = ROUNDING * np.abs(both).max() * np.abs(basis).max()
    both -= both.mean(axis=0)
    covariance = both.T @ both / len(both)

    def standardised() -> Iterator[tuple[FloatArray, NDArray[np.bool_]]]:
        for s in _spot_slices(basis.shape[1]):
            columns = basis[:, s]
            spread = np.sqrt(np.maximum(np.einsum("ls,ls->s", columns, covariance @ columns), 0.0))
            small = spread <= DOUBTFUL * np.sqrt(np.trace(covariance) * np.square(columns).sum(axis=0))
            if small.any():
                spread[small] = np.sqrt(np.square(both @ columns[:, small]).mean(axis=0))
            yield both @ (columns / np.where(spread > rounding, spread, np.inf)), spread > rounding

    return _test_blocks(standardised(), alternative, statistic)


def _spot_slices(n_spots: int) -> Iterator[slice]:
    return (slice(first, first + SPOTS_AT_ONCE) for first in range(0, n_spots, SPOTS_AT_ONCE))


def _test_blocks(blocks: Iterable[tuple[FloatArray, NDArray[np.bool_]]], alternative: str, statistic: str) -> MapTest:
    """Test from blocks (1 + N, spots) of standardised maps, which it overwrites; row 0 is the map tested.

    Each comes with a mask of its spots whose maps differ by more than rounding; the others (spots without counts) have
    nothing to test, and zeros.
    """
    if alternative not in ALTERNATIVES:
        raise ValueError(f"Expected alternative out of {', '.join(ALTERNATIVES)}, found {alternative!r}.")
    if statistic not in STATISTICS:
        raise ValueError(f"Expected statistic out of {', '.join(STATISTICS)}, found {statistic!r}.")
    p, z, n_tested = [], [], 0
    total: FloatArray | float = 0.0 if statistic == "energy" else -np.inf
    for maps, varies in blocks:
        z.append(np.where(varies, maps[0], np.nan))
        extreme = np.abs(maps, out=maps) if alternative == "two-sided" else maps
        p.append(np.where(varies, exceedance(extreme[0], extreme[1:]), np.nan))
        n_tested += int(varies.sum())
        if statistic == "max":
            total = np.maximum(total, extreme[:, varies].max(axis=1, initial=-np.inf))
        else:
            positive = np.maximum(extreme, 0.0, out=extreme)
            total = total + np.einsum("ns,ns->n", positive, positive)
    if not n_tested:
        raise ValueError("Expected maps that differ between concepts, found the same map for all of them.")
    total = np.asarray(total)
    spots = np.concatenate(p)
    return MapTest(
        p=spots,
        q=benjamini_hochberg(spots),
        z=np.concatenate(z),
        concept_p=float(exceedance(total[0], total[1:])),
        strength=float(total[0] / np.median(total[1:])),
    )


def exceedance(observed: FloatArray | float, random: FloatArray) -> FloatArray:
    """(1 + number of rows of ``random`` at least as large) / (1 + number of rows); equal up to rounding is equal."""
    value = np.asarray(observed)
    return (1 + np.count_nonzero(random >= value - 1e-9 * np.abs(value), axis=0)) / (1 + len(random))


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
    """Test every concept's map against the maps of random concepts like it, from arrays alone.

    ``stcsm.tl.significance`` draws its random concepts itself and calls :func:`concepts_against_random`.

    For methods linear in the concept vector: a map is ``vector @ basis``, so a random concept costs one small matrix
    product. Whatever is done to a map afterwards and is linear (averaging over genes, a spot graph) belongs in the
    basis. Every concept has its own random concepts: same number of genes from every matching bin, same weights and
    signs. For other methods draw with `RandomConceptSampler`, attribute, and use `map_test`.

    Several members of an ensemble go in at once, as lists of latents and of bases: the same random genes make a map in
    each, and maps are averaged after those of every member are divided by one number, their typical size over the
    concept and its random concepts (`balanced`).

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
        Same seed, same concept: same p values, whatever other concepts are tested.
    progress
        Show a progress bar.

    Raises
    ------
    ValueError
        If shapes do not fit, the basis is not finite, or a concept is at fault (see `concept_vector`).
    """
    sampler = RandomConceptSampler(latent, bins, estimator, seed)
    lone = sampler if bins_single is None else RandomConceptSampler(latent, bins_single, estimator, seed)
    bases = check_bases(basis, sampler.sizes)
    rows = weight_rows(weights, sampler.usable.size)

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
        regions; the weight of a member of the ensemble still comes from the size of its whole maps.
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
            # Threads of BLAS that share products as small as these mostly wait for one another.
            with threadpool_limits(1, user_api="blas"):
                test = _linear_map_test(random.observed, random.vectors, stacked, alternative, statistic)
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


def benjamini_hochberg(p: ArrayLike, axis: int | None = None) -> FloatArray:
    """Compute q values of the same shape as ``p`` (Benjamini & Hochberg 1995).

    Parameters
    ----------
    p
        p values; NaN marks what was not tested: it stays NaN and does not count among the tests.
    axis
        Axis along which the tests form one family; None takes all entries as one.
    """
    values = np.asarray(p, dtype=np.float64)
    tested = ~np.isnan(values)
    if tested.all() and values.size:
        return np.asarray(false_discovery_control(values, axis=axis))
    out = np.full(values.shape, np.nan)
    if axis is None:
        if tested.any():
            out[tested] = false_discovery_control(values[tested])
        return out
    for where in np.ndindex(*np.delete(values.shape, axis)):
        line = (*where[:axis], slice(None), *where[axis:])
        if tested[line].any():
            picked = out[line]
            picked[tested[line]] = false_discovery_control(values[line][tested[line]])
    return out

"""Is a map more than the maps of random concepts are? One p value a spot, and one for the whole map."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ._fdr import benjamini_hochberg
from ._latent import FloatArray

ALTERNATIVES = ("two-sided", "greater")
STATISTICS = ("energy", "max")
SPOTS_AT_ONCE = 64
ROUNDING = 1e-12


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
    return from_blocks((both[:, s] for s in blocks(one.size)), rounding, alternative, statistic)


def linear_map_test(
    observed: FloatArray, random_vectors: FloatArray, basis: FloatArray, alternative: str, statistic: str
) -> MapTest:
    """`map_test` for maps that are ``vector @ basis``, (L,), (N, L) and (L, S), without holding all random maps."""
    both = np.concatenate([observed[None], random_vectors])
    rounding = ROUNDING * np.abs(both).max() * np.abs(basis).max()
    both -= both.mean(axis=0)
    return from_blocks((both @ basis[:, s] for s in blocks(basis.shape[1])), rounding, alternative, statistic)


def blocks(n_spots: int) -> Iterator[slice]:
    """Slices of spots, few enough that their random maps stay in the processor's cache."""
    return (slice(first, first + SPOTS_AT_ONCE) for first in range(0, n_spots, SPOTS_AT_ONCE))


def from_blocks(centred: Iterable[FloatArray], rounding: float, alternative: str, statistic: str) -> MapTest:
    """Test from blocks (1 + N, spots) of centred maps, which it overwrites; row 0 is the map tested.

    A spot whose maps differ by no more than ``rounding`` (a spot without counts) has nothing to test.
    """
    if alternative not in ALTERNATIVES:
        raise ValueError(f"Expected alternative out of {', '.join(ALTERNATIVES)}, found {alternative!r}.")
    if statistic not in STATISTICS:
        raise ValueError(f"Expected statistic out of {', '.join(STATISTICS)}, found {statistic!r}.")
    p, z, n_tested = [], [], 0
    total: FloatArray | float = 0.0 if statistic == "energy" else -np.inf
    for maps in centred:
        spread = np.sqrt(np.einsum("ns,ns->s", maps, maps) / len(maps))
        varies = spread > rounding
        maps /= np.where(varies, spread, np.inf)
        z.append(np.where(varies, maps[0], np.nan))
        extreme = np.abs(maps, out=maps) if alternative == "two-sided" else maps
        p.append(np.where(varies, exceedance(extreme[0], extreme[1:]), np.nan))
        if not varies.all():
            extreme = extreme[:, varies]
        n_tested += extreme.shape[1]
        if statistic == "max":
            total = np.maximum(total, extreme.max(axis=1, initial=-np.inf))
        else:
            positive = np.maximum(extreme, 0.0)
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
    return (1 + np.sum(random >= value - 1e-9 * np.abs(value), axis=0)) / (1 + len(random))

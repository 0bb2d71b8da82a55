"""Differential concepts: maps in one group of spots against a reference, by permuting blocks of neighbouring spots."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from stcsm.concepts._latent import FloatArray
from stcsm.concepts._significance import benjamini_hochberg, exceedance
from stcsm.concepts._similarity import map_correlation

CONCEPTS_AT_ONCE = 64


def spatial_blocks(coords: ArrayLike, groups: ArrayLike, *, spots_a_block: int = 20, seed: int = 0) -> NDArray[np.intp]:
    """Compact blocks of about equal numbers of neighbouring spots, each within one group.

    Neighbouring spots are alike, so permuting single spots finds differences everywhere. Blocks that are larger than
    the distance over which spots are alike can be permuted; see `neighbour_block_correlation`. Blocks come from k-means
    on the coordinates.

    Parameters
    ----------
    coords
        (S, 2) coordinates.
    groups
        (S,) group (region, condition, section) of every spot as whole numbers; -1 for spots in none.
    spots_a_block
        Mean number of spots in a block.
    seed
        Of the k-means.

    Returns
    -------
    (S,) block of every spot; -1 where the group is -1.
    """
    from sklearn.cluster import KMeans

    xy, group = np.asarray(coords, dtype=np.float64), np.asarray(groups)
    if xy.ndim != 2 or group.shape != (len(xy),):
        raise ValueError(f"Expected coordinates (spots, 2) and a group a spot, found {xy.shape} and {group.shape}.")
    if not np.isfinite(xy).all():
        raise ValueError("Expected finite coordinates, found NaN or infinity.")
    if spots_a_block < 1:
        raise ValueError(f"Expected spots_a_block of at least 1, found {spots_a_block}.")
    block = np.full(len(xy), -1, dtype=np.intp)
    first = 0
    for g in np.unique(group[group >= 0]):
        inside = np.flatnonzero(group == g)
        n_blocks = max(1, round(inside.size / spots_a_block))
        n_blocks = min(n_blocks, len(np.unique(xy[inside], axis=0)))
        found = KMeans(n_blocks, n_init=3, random_state=seed).fit_predict(xy[inside])
        block[inside] = first + found
        first += n_blocks
    return block


def neighbour_block_correlation(maps: ArrayLike, blocks: ArrayLike, groups: ArrayLike, coords: ArrayLike) -> FloatArray:
    """Correlation between the mean of a block and that of the nearest block of its group, group means removed.

    Near zero, blocks are as good as independent and a permutation of blocks can be trusted; well above zero (say 0.3),
    they are too small.

    Parameters
    ----------
    maps
        (K, S).
    blocks, groups, coords
        See `spatial_blocks`.

    Returns
    -------
    (K,) NaN where fewer than 3 blocks have a neighbour.
    """
    values, block, group = np.atleast_2d(np.asarray(maps, float)), np.asarray(blocks), np.asarray(groups)
    n_blocks = int(block.max()) + 1
    used = block >= 0
    size = np.bincount(block[used], minlength=n_blocks)
    mean = block_means(values, block)
    centre = np.stack([np.bincount(block[used], c[used], n_blocks) / size for c in np.asarray(coords, float).T], axis=1)
    own = np.zeros(n_blocks, dtype=int)
    own[block[used]] = group[used]
    left, right = [], []
    residual = mean.copy()
    for g in np.unique(own):
        inside = np.flatnonzero(own == g)
        residual[:, inside] -= residual[:, inside].mean(axis=1, keepdims=True)
        if inside.size > 1:
            near = np.asarray(cKDTree(centre[inside]).query(centre[inside], k=2)[1])[:, 1]
            left.append(inside)
            right.append(inside[near])
    if sum(map(len, left)) < 3:
        return np.full(len(values), np.nan)
    a, b = residual[:, np.concatenate(left)], residual[:, np.concatenate(right)]
    return np.array([map_correlation(x[None], y[None], method="pearson")[0, 0] for x, y in zip(a, b, strict=True)])


def block_means(maps: FloatArray, blocks: NDArray[np.intp]) -> FloatArray:
    """Mean of every map (K, S) over the spots of every block, (K, B)."""
    used = blocks >= 0
    n_blocks = int(blocks.max()) + 1
    size = np.bincount(blocks[used], minlength=n_blocks)
    return np.stack([np.bincount(blocks[used], m[used], n_blocks) / size for m in maps])


@dataclass(frozen=True)
class Differential:
    """Differences between a group of spots (a region, a condition) and a reference, one entry a concept, (K,).

    Attributes
    ----------
    difference
        Mean over the group's blocks minus mean over those of the reference, in the map's units.
    t
        The difference over its standard error (Welch, over blocks).
    p, q
        Two-sided permutation p value, and its Benjamini-Hochberg q value over the concepts.
    n_blocks
        Blocks in the group and in the reference.
    n_permutations
        Permutations compared with; ``exact`` says that these were all there are.
    smallest_p
        The smallest p value that so many blocks can give.
    """

    difference: FloatArray
    t: FloatArray
    p: FloatArray
    q: FloatArray
    n_blocks: tuple[int, int]
    n_permutations: int
    exact: bool
    smallest_p: float


def differential_concepts(
    maps: ArrayLike,
    in_group: ArrayLike,
    in_reference: ArrayLike,
    blocks: ArrayLike,
    *,
    n_permutations: int = 9999,
    seed: int = 0,
) -> Differential:
    r"""Compare maps between two sets of spots by permuting whole blocks of spots.

    Neighbouring spots are alike, so the unit that is permuted is a block (see `spatial_blocks`), never a spot. The
    statistic is Welch's t over block means: studentised, so that the test keeps its level when group and reference
    differ in spread or in their number of blocks but not in mean (Janssen 1997; Chung & Romano 2013).
    Where there are no more permutations than asked for, all are taken and p is exact.

    What it can and cannot say: it takes blocks as exchangeable between group and reference. A trend across the
    whole tissue makes two regions differ without either being special. Whether a difference is larger than that of
    concepts made from random genes is answered by `concepts_against_random` with ``onto=region_contrast(...)``.

    Parameters
    ----------
    maps
        (K, S) one map a concept (or (S,) for one).
    in_group, in_reference
        (S,) True for the spots of either; they may not overlap, and spots in neither are left out.
    blocks
        (S,) whole number: the block of every spot. No block may hold spots of both.
    n_permutations
        Random permutations, if there are more than that.
    seed
        Of the permutations.

    Raises
    ------
    ValueError
        If shapes do not fit, a map is NaN at one of these spots, group and reference overlap, a block straddles
        them, or either has fewer than two blocks.
    """
    values = np.atleast_2d(np.asarray(maps, dtype=np.float64))
    group, reference, block = np.asarray(in_group, bool), np.asarray(in_reference, bool), np.asarray(blocks)
    _check(values, group, reference, block, n_permutations)
    kept = group | reference
    _, number = np.unique(block[kept], return_inverse=True)
    means = block_means(values[:, kept], number)
    chosen = np.zeros(means.shape[1], dtype=bool)
    chosen[number[group[kept]]] = True
    n_group, n_reference = int(chosen.sum()), int((~chosen).sum())
    _check_blocks(n_group, n_reference)
    n_possible = comb(n_group + n_reference, n_group)
    exact = n_possible - 1 <= n_permutations
    others = _all_others(chosen) if exact else _random_others(chosen, n_permutations, seed)
    choices = np.concatenate([chosen[None], others]).astype(np.float64)
    t, p = np.empty(len(means)), np.empty(len(means))
    for first in range(0, len(means), CONCEPTS_AT_ONCE):
        some = slice(first, first + CONCEPTS_AT_ONCE)
        welch = _welch(means[some], choices)
        t[some] = welch[0]
        p[some] = exceedance(np.abs(welch[0]), np.abs(welch[1:]))
    difference = means[:, chosen].mean(axis=1) - means[:, ~chosen].mean(axis=1)
    # With as many blocks in group as in reference, swapping them gives the same |t|: even all permutations reach 2 / n.
    floor = max(1.0 / len(choices), (2.0 if n_group == n_reference else 1.0) / n_possible)
    return Differential(difference, t, p, benjamini_hochberg(p), (n_group, n_reference), len(others), exact, floor)


def region_contrast(in_group: ArrayLike, in_reference: ArrayLike, blocks: ArrayLike) -> FloatArray:
    """Weights (S,) of the spots with which a map sums to `Differential.difference`.

    Every block weighs the same, and within a block every spot.

    Parameters
    ----------
    in_group, in_reference, blocks
        As for `differential_concepts`.

    Raises
    ------
    ValueError
        If group or reference has fewer than two blocks.
    """
    group, reference, block = np.asarray(in_group, bool), np.asarray(in_reference, bool), np.asarray(blocks)
    _check_blocks(len(np.unique(block[group])), len(np.unique(block[reference])))
    out = np.zeros(len(block))
    for side, sign in ((group, 1.0), (reference, -1.0)):
        _, number, size = np.unique(block[side], return_inverse=True, return_counts=True)
        out[side] = sign / (len(size) * size[number])
    return out


def _check_blocks(n_group: int, n_reference: int) -> None:
    if min(n_group, n_reference) < 2:
        raise ValueError(
            f"Expected at least two blocks in either region, found {n_group} and {n_reference}; use smaller blocks."
        )


def _welch(means: FloatArray, choices: FloatArray) -> FloatArray:
    """Welch's t (N, K) of block means (K, B) for every choice (N, B) of blocks as the group."""
    # Centred and scaled, so that sums of squares lose no digits.
    centred = means - means.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True)
    x = centred / np.where(spread > 0, spread, 1.0)
    n_a = choices.sum(axis=1)[:, None]
    n_b = choices.shape[1] - n_a
    sum_a, square_a = choices @ x.T, choices @ np.square(x).T
    sum_b, square_b = x.sum(axis=1) - sum_a, np.square(x).sum(axis=1) - square_a
    variance_a = np.maximum(square_a - sum_a**2 / n_a, 0.0) / (n_a - 1)
    variance_b = np.maximum(square_b - sum_b**2 / n_b, 0.0) / (n_b - 1)
    error = np.sqrt(variance_a / n_a + variance_b / n_b)
    return (sum_a / n_a - sum_b / n_b) / np.maximum(error, 1e-9)


def _all_others(chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    every = [c for c in combinations(range(chosen.size), int(chosen.sum())) if not chosen[list(c)].all()]
    out = np.zeros((len(every), chosen.size), dtype=bool)
    np.put_along_axis(out, np.array(every), True, axis=1)
    return out


def _random_others(chosen: NDArray[np.bool_], n: int, seed: int) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    return rng.permuted(np.broadcast_to(chosen, (n, chosen.size)), axis=1)


def _check(values: FloatArray, group: NDArray, reference: NDArray, block: NDArray, n_permutations: int) -> None:
    n_spots = values.shape[1]
    if values.ndim != 2 or any(x.shape != (n_spots,) for x in (group, reference, block)):
        raise ValueError(
            f"Expected maps (concepts, spots) and one entry of in_group, in_reference and blocks a spot, found "
            f"{values.shape}, {group.shape}, {reference.shape} and {block.shape}."
        )
    if n_permutations < 1:
        raise ValueError(f"Expected at least one permutation, found {n_permutations}.")
    if (group & reference).any():
        raise ValueError(f"Expected regions that do not overlap, found {int((group & reference).sum())} spots in both.")
    if (block[group | reference] < 0).any():
        raise ValueError("Expected a block for every spot of either region, found spots with block -1.")
    both = np.intersect1d(block[group], block[reference])
    if both.size:
        raise ValueError(
            f"Expected every block within one region, found {both.size} that straddle, first block {both[0]}; make "
            f"blocks within regions, as spatial_blocks does."
        )
    lost = np.isnan(values[:, group | reference]).any(axis=1)
    if lost.any():
        raise ValueError(f"Expected a value at every spot of either region, found NaN in map {int(lost.argmax())}.")

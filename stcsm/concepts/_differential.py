"""Differential concepts: a concept's map in region (or condition) A against region B."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._blocks import block_means
from ._fdr import benjamini_hochberg
from ._latent import FloatArray
from ._map_test import exceedance

CONCEPTS_AT_ONCE = 64


@dataclass(frozen=True)
class Differential:
    """Differences between two regions, one entry a concept, (K,).

    Attributes
    ----------
    difference
        Mean over blocks in A minus mean over blocks in B, in the map's units.
    t
        The difference over its standard error (Welch, over blocks).
    p, q
        Two-sided permutation p value, and its Benjamini-Hochberg q value over the concepts.
    n_blocks
        Blocks in A and in B.
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
    in_a: ArrayLike,
    in_b: ArrayLike,
    blocks: ArrayLike,
    *,
    n_permutations: int = 9999,
    seed: int = 0,
) -> Differential:
    r"""Compare maps between two sets of spots by permuting whole blocks of spots.

    Neighbouring spots are alike, so the unit that is permuted is a block (see `spatial_blocks`), never a spot. The
    statistic is Welch's t over block means: studentised, so that the test keeps its level when A and B differ in spread
    or in their number of blocks but not in mean (Janssen 1997; Chung & Romano 2013). Where there are no more
    permutations than asked for, all are taken and p is exact.

    What it can and cannot say: it takes blocks as exchangeable between A and B. A trend across the whole tissue makes
    two regions differ without either being special; whether a difference is more than that of concepts made from random
    genes is answered by `concepts_against_random` with ``onto=region_contrast(...)``.

    Parameters
    ----------
    maps
        (K, S) one map a concept (or (S,) for one).
    in_a, in_b
        (S,) True for the spots of either region; they may not overlap, and spots in neither are left out.
    blocks
        (S,) whole number: the block of every spot. No block may hold spots of both.
    n_permutations
        Random permutations, if there are more than that.
    seed
        Of the permutations.

    Raises
    ------
    ValueError
        If shapes do not fit, a map is NaN at a spot of A or B, regions overlap, a block straddles, or a region has
        fewer than two blocks.
    """
    values = np.atleast_2d(np.asarray(maps, dtype=np.float64))
    a, b, block = np.asarray(in_a, bool), np.asarray(in_b, bool), np.asarray(blocks)
    _check(values, a, b, block, n_permutations)
    kept = a | b
    _, number = np.unique(block[kept], return_inverse=True)
    means = block_means(values[:, kept], number)
    of_a = np.zeros(means.shape[1], dtype=bool)
    of_a[number[a[kept]]] = True
    n_a, n_b = int(of_a.sum()), int((~of_a).sum())
    _check_blocks(n_a, n_b)
    n_possible = comb(n_a + n_b, n_a)
    exact = n_possible - 1 <= n_permutations
    others = _all_others(of_a) if exact else _random_others(of_a, n_permutations, seed)
    choices = np.concatenate([of_a[None], others]).astype(np.float64)
    t, p = np.empty(len(means)), np.empty(len(means))
    for first in range(0, len(means), CONCEPTS_AT_ONCE):
        some = slice(first, first + CONCEPTS_AT_ONCE)
        welch = _welch(means[some], choices)
        t[some] = welch[0]
        p[some] = exceedance(np.abs(welch[0]), np.abs(welch[1:]))
    difference = means[:, of_a].mean(axis=1) - means[:, ~of_a].mean(axis=1)
    # With as many blocks in A as in B, swapping the two gives the same |t|, so even all permutations reach 2 / n only.
    floor = max(1.0 / len(choices), (2.0 if n_a == n_b else 1.0) / n_possible)
    return Differential(difference, t, p, benjamini_hochberg(p), (n_a, n_b), len(others), exact, floor)


def region_contrast(in_a: ArrayLike, in_b: ArrayLike, blocks: ArrayLike) -> FloatArray:
    """Weights (S,) of the spots with which a map sums to `Differential.difference`.

    Every block weighs the same, and within a block every spot.

    Parameters
    ----------
    in_a, in_b, blocks
        As for `differential_concepts`.

    Raises
    ------
    ValueError
        If a region has fewer than two blocks.
    """
    a, b, block = np.asarray(in_a, bool), np.asarray(in_b, bool), np.asarray(blocks)
    _check_blocks(len(np.unique(block[a])), len(np.unique(block[b])))
    out = np.zeros(len(block))
    for side, sign in ((a, 1.0), (b, -1.0)):
        _, number, size = np.unique(block[side], return_inverse=True, return_counts=True)
        out[side] = sign / (len(size) * size[number])
    return out


def _check_blocks(n_a: int, n_b: int) -> None:
    if min(n_a, n_b) < 2:
        raise ValueError(f"Expected at least two blocks in either region, found {n_a} and {n_b}; use smaller blocks.")


def _welch(means: FloatArray, choices: FloatArray) -> FloatArray:
    """Welch's t (N, K) of block means (K, B) for every choice (N, B) of blocks as A."""
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


def _all_others(of_a: NDArray[np.bool_]) -> NDArray[np.bool_]:
    every = [c for c in combinations(range(of_a.size), int(of_a.sum())) if not of_a[list(c)].all()]
    out = np.zeros((len(every), of_a.size), dtype=bool)
    np.put_along_axis(out, np.array(every), True, axis=1)
    return out


def _random_others(of_a: NDArray[np.bool_], n: int, seed: int) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    return rng.permuted(np.broadcast_to(of_a, (n, of_a.size)), axis=1)


def _check(values: FloatArray, a: NDArray, b: NDArray, block: NDArray, n_permutations: int) -> None:
    n_spots = values.shape[1]
    if values.ndim != 2 or any(x.shape != (n_spots,) for x in (a, b, block)):
        raise ValueError(
            f"Expected maps (concepts, spots) and one entry of in_a, in_b and blocks a spot, found {values.shape}, "
            f"{a.shape}, {b.shape} and {block.shape}."
        )
    if n_permutations < 1:
        raise ValueError(f"Expected at least one permutation, found {n_permutations}.")
    if (a & b).any():
        raise ValueError(f"Expected regions that do not overlap, found {int((a & b).sum())} spots in both.")
    if (block[a | b] < 0).any():
        raise ValueError("Expected a block for every spot of either region, found spots with block -1.")
    both = np.intersect1d(block[a], block[b])
    if both.size:
        raise ValueError(
            f"Expected every block within one region, found {both.size} that straddle, first block {both[0]}; make "
            f"blocks within regions, as spatial_blocks does."
        )
    lost = np.isnan(values[:, a | b]).any(axis=1)
    if lost.any():
        raise ValueError(f"Expected a value at every spot of either region, found NaN in map {int(lost.argmax())}.")

"""Blocks of neighbouring spots: the units that a permutation may move."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from ._latent import FloatArray
from ._similarity import map_correlation


def spatial_blocks(coords: ArrayLike, groups: ArrayLike, *, spots_a_block: int = 20, seed: int = 0) -> NDArray[np.intp]:
    """Compact blocks of about equal numbers of neighbouring spots, each within one group.

    Spots that lie side by side are alike, so permuting single spots finds differences everywhere. Blocks larger than
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
    """Correlation between the mean of a block and that of the nearest block of its group, group means taken away.

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

"""Whether regions are wide enough to be smoothed over: maps of gene modules then stay apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import ClusterError, kmeans2
from scipy.sparse import csr_array

MODULES = (4, 5, 6, 7, 8)
"""Numbers of modules over which the result is averaged."""
STARTS = 2
"""Of k-means; the tightest modules are taken."""


def distance_kept(maps: NDArray[np.floating], smoother: csr_array, *, seed: int = 0) -> float:
    """Share of the distance between maps of gene modules that is left where the maps are smoothed over space.

    Modules are clusters (k-means) of genes by their maps. A module is as far from the others as from the one most like
    it: 1 minus the correlation of their mean maps. Smoothing brings thin layers side by side together, while wide
    regions stay apart. No label is looked at.

    Parameters
    ----------
    maps
        A gene's map in each column, (S, n).
    smoother
        The filter (S, S) in question.
    seed
        Of k-means.
    """
    standard = _standardised(maps)
    rng = np.random.default_rng(seed)
    kept = []
    for n in MODULES:
        means = _module_means(standard, n, rng)
        if means.shape[1] > 1:
            kept.append(_nearest(np.asarray(smoother @ means)) / max(_nearest(means), 1e-12))
    return float(np.mean(kept)) if kept else 1.0


def _module_means(maps: NDArray[np.floating], n: int, rng: np.random.Generator) -> NDArray[np.floating]:
    """Mean maps (S, at most n) of modules."""
    best, least = maps.mean(axis=1, keepdims=True), np.inf
    if maps.shape[1] <= n:
        return best
    for _ in range(STARTS):
        try:
            means, module = kmeans2(maps.T, n, minit="++", iter=20, seed=rng, missing="raise")
        except ClusterError:  # an empty cluster: fewer modules than that
            continue
        spread = float(np.square(maps.T - means[module]).sum())
        if spread < least:
            best, least = means[np.unique(module)].T, spread
    return best


def _standardised(maps: NDArray[np.floating]) -> NDArray[np.floating]:
    maps = maps - maps.mean(axis=0)
    spread = maps.std(axis=0)
    return maps / np.where(spread > 0, spread, 1)


def _nearest(means: NDArray[np.floating]) -> float:
    """Mean over modules of 1 minus the correlation with the most alike other one."""
    standard = _standardised(means)
    alike = standard.T @ standard / len(standard)
    np.fill_diagonal(alike, -np.inf)
    return float(np.mean(1 - alike.max(axis=1)))

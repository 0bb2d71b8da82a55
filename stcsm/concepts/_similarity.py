"""How alike concepts are: as directions, and as maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

from ._latent import FloatArray

MOST_ORDERED = 1000


def cosine_similarity(vectors: ArrayLike) -> FloatArray:
    """Cosine of the angle between concept vectors (K, L), as (K, K); NaN for a zero vector."""
    v = np.asarray(vectors, dtype=np.float64)
    if v.ndim != 2:
        raise ValueError(f"Expected concept vectors of shape (concepts, latents), found {v.shape}.")
    length = np.linalg.norm(v, axis=1, keepdims=True)
    unit = np.divide(v, length, out=np.full(v.shape, np.nan), where=length > 0)
    return np.clip(unit @ unit.T, -1.0, 1.0)


def map_correlation(maps: ArrayLike, others: ArrayLike | None = None, *, method: str = "spearman") -> FloatArray:
    """Correlation over spots between maps.

    Parameters
    ----------
    maps
        (K, S); spots that are NaN in any map are left out.
    others
        (J, S) maps to correlate with; None for ``maps`` themselves.
    method
        ``"spearman"`` (ties share their mean rank) or ``"pearson"``.

    Returns
    -------
    (K, J) correlations; NaN for a map that is constant.

    Raises
    ------
    ValueError
        If shapes do not fit, or fewer than 3 spots have a value in all maps.
    """
    a = np.asarray(maps, dtype=np.float64)
    b = a if others is None else np.asarray(others, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"Expected maps (concepts, spots) over the same spots, found {a.shape} and {b.shape}.")
    if method not in ("spearman", "pearson"):
        raise ValueError(f"Expected method='spearman' or 'pearson', found {method!r}.")
    known = ~(np.isnan(a).any(axis=0) | np.isnan(b).any(axis=0))
    if known.sum() < 3:
        raise ValueError(f"Expected at least 3 spots with a value in every map, found {int(known.sum())}.")
    left, right = (_unit(m[:, known], method) for m in (a, b))
    return np.clip(left @ right.T, -1.0, 1.0)


@dataclass(frozen=True)
class ConceptTree:
    """Concepts joined by likeness.

    Attributes
    ----------
    order
        (K,) a permutation in which alike concepts stand side by side; concepts with NaN come last.
    linkage
        (n - 1, 4) scipy's linkage matrix of the n concepts without NaN, numbered in rising order; (0, 4) for fewer
        than two of them.
    """

    order: NDArray[np.intp]
    linkage: FloatArray


def cluster(similarity: ArrayLike) -> ConceptTree:
    """Join concepts by likeness, for a heat map: average linkage on 1 - similarity.

    The leaves are turned so that neighbours are most alike (for up to 1000 of them; beyond, the order of the tree).

    Parameters
    ----------
    similarity
        (K, K) symmetric; NaN on the diagonal marks a concept that cannot be compared.

    Raises
    ------
    ValueError
        If the matrix is not square.
    """
    s = np.asarray(similarity, dtype=np.float64)
    if s.ndim != 2 or s.shape[0] != s.shape[1]:
        raise ValueError(f"Expected a square matrix of similarities, found {s.shape}.")
    lost = np.isnan(np.diag(s))
    kept = np.flatnonzero(~lost)
    if kept.size < 2:
        return ConceptTree(np.concatenate([kept, np.flatnonzero(lost)]), np.empty((0, 4)))
    inner = s[np.ix_(kept, kept)]
    distance = squareform(np.clip(1 - (inner + inner.T) / 2, 0, None), checks=False)
    tree = hierarchy.linkage(distance, method="average", optimal_ordering=kept.size <= MOST_ORDERED)
    order = np.concatenate([kept[hierarchy.leaves_list(tree)], np.flatnonzero(lost)])
    return ConceptTree(order, np.asarray(tree))


def _unit(maps: FloatArray, method: str) -> FloatArray:
    size = np.abs(maps).max(axis=1, keepdims=True, initial=0.0)
    constant = np.ptp(maps, axis=1, keepdims=True) <= 1e-12 * size
    values = rankdata(maps, axis=1) if method == "spearman" else maps
    values = values - values.mean(axis=1, keepdims=True)
    length = np.where(constant, np.nan, np.linalg.norm(values, axis=1, keepdims=True))
    return values / length

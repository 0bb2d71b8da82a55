"""Similarity of concepts, of maps and of genes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

from stcsm.concepts._latent import FloatArray, check_latent
from stcsm.concepts._significance import benjamini_hochberg

MOST_ORDERED = 1000
"""Concepts whose leaves are ordered; beyond, ordering takes too long."""


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
    """Concepts joined by similarity.

    Attributes
    ----------
    order
        (K,) a permutation in which similar concepts are adjacent; concepts with NaN come last.
    linkage
        (n - 1, 4) scipy's linkage matrix of the n concepts without NaN, numbered in rising order; (0, 4) for fewer
        than two of them.
    """

    order: NDArray[np.intp]
    linkage: FloatArray


def cluster(similarity: ArrayLike) -> ConceptTree:
    """Join concepts by similarity, for a heat map: average linkage on 1 - similarity.

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


@dataclass(frozen=True)
class Neighbours:
    """Genes in order of falling correlation with a seed gene, the seed itself first.

    Attributes
    ----------
    index
        (n,) rows of the latent space.
    r
        (n,) Pearson correlation over the latent coordinates; 1 for the seed.
    p
        (n,) two-sided p value of r, t distribution with L - 2 degrees of freedom; NaN for the seed, which is no test.
    q
        (n,) Benjamini-Hochberg q value over ALL genes tested, not over the n returned.
    n_tested
        Number of genes that were tested.
    """

    index: NDArray[np.intp]
    r: FloatArray
    p: FloatArray
    q: FloatArray
    n_tested: int


def nearest_genes(latent: ArrayLike, index: int, n: int = 50) -> Neighbours:
    """Find the n genes whose latent coordinates correlate most with those of gene ``index``, itself first.

    The published pipeline takes the 50 most correlated genes, the seed among them. Genes without an embedding (NaN) and
    genes whose coordinates are all the same (no correlation is defined) are never neighbours. Equal correlations are
    ordered by row, so the answer never depends on the machine. Fewer than n come back where fewer can be compared.

    The p value takes the L coordinates of a gene as independent draws from one normal distribution, as the published
    pipeline does. Latents differ in spread, so read it as a ranking aid; the random-concept null is the test.

    Parameters
    ----------
    latent
        (G, L) with L >= 3.
    index
        Row of the seed gene.
    n
        Number of genes to return, the seed included.

    Raises
    ------
    ValueError
        If L < 3 (no degree of freedom is left), n < 1, ``index`` is no row, or the seed has no embedding or a constant
        one.
    """
    z, usable = check_latent(latent)
    n_genes, n_latent = z.shape
    if n_latent < 3:
        raise ValueError(f"Expected at least 3 latents to correlate genes over, found {n_latent}.")
    if n < 1:
        raise ValueError(f"Expected n of at least 1, found {n}.")
    if not -n_genes <= index < n_genes:
        raise ValueError(f"Expected a gene index below {n_genes}, found {index}.")
    seed = int(index) % n_genes
    if not usable[seed]:
        raise ValueError(f"Expected a seed gene with an embedding, found gene {seed} without one (it has no counts).")
    unit, varies = _unit_rows(z)
    if not varies[seed]:
        raise ValueError(f"Expected a seed gene whose latent coordinates differ, found {z[seed, 0]:g} in all of them.")
    others = np.flatnonzero(varies & (np.arange(n_genes) != seed))
    r = np.clip(unit[others] @ unit[seed], -1.0, 1.0)
    p = correlation_p(r, n_latent)
    q = benjamini_hochberg(p)
    # Correlations that agree to rounding are ties; a stable sort then leaves them in row order.
    order = np.argsort(-np.round(r, 12), kind="stable")[: n - 1]
    return Neighbours(
        index=np.concatenate([[seed], others[order]]).astype(np.intp),
        r=np.concatenate([[1.0], r[order]]),
        p=np.concatenate([[np.nan], p[order]]),
        q=np.concatenate([[np.nan], q[order]]),
        n_tested=int(others.size),
    )


def correlation_p(r: ArrayLike, n_points: int) -> FloatArray:
    """Two-sided p value of a Pearson correlation over ``n_points`` pairs: t distribution, n_points - 2 df."""
    rho = np.asarray(r, dtype=np.float64)
    df = n_points - 2
    with np.errstate(divide="ignore"):
        t = np.abs(rho) * np.sqrt(df / np.maximum(1.0 - rho**2, 0.0))
    return np.asarray(2.0 * stats.t.sf(t, df))


def _unit_rows(z: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Rows centred and scaled to length one, and which rows vary at all (rows of NaN do not)."""
    centred = z - z.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1)
    size = np.abs(z).max(axis=1)
    varies = length > 1e-12 * size  # NaN compares False
    return np.where(varies[:, None], centred, 0.0) / np.where(varies, length, 1.0)[:, None], varies

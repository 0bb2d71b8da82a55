"""Marker genes of labels: which genes stand out in the spots of one label against those of all others."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from scipy.stats import ttest_ind_from_stats

from stcsm.space import stored_blocks

COUNTS_A_SPOT = 1e4
"""Depth that every spot is scaled to before the logarithm, as in scanpy's tutorials."""


def marker_scores(matrix: Any, depth: np.ndarray, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Welch's t of log-normalised counts, the spots of each group against those of all others.

    These are the scores of ``scanpy.tl.rank_genes_groups(method="t-test")`` after ``normalize_total(target_sum=1e4)``
    and ``log1p``. The counts are read once in blocks; what is kept of them are sums and sums of squares, (K, G) each.

    Parameters
    ----------
    matrix
        Counts (S, G): dense, sparse, backed or lazy.
    depth
        Counts of each spot, (S,).
    groups
        Group of each spot, (S,), 0 to K - 1; -1 for spots that are left out. A spot in a group has counts.
    n_groups
        K, two or more; each with two spots or more.

    Returns
    -------
    (K, G) float64; zero where a gene has no variance in either.
    """
    n_genes = matrix.shape[1]
    # Single precision, here and in the squares, as scanpy has it: the order of nearly equal genes is the same.
    scale = (np.asarray(depth, dtype=np.float32) / np.float32(COUNTS_A_SPOT)).astype(np.float32)
    sums, squares = np.zeros((n_groups, n_genes)), np.zeros((n_groups, n_genes))
    for row, column, block in stored_blocks(matrix):
        used = np.flatnonzero(groups[row : row + block.shape[0]] >= 0)
        values = sparse.csr_array(block, dtype=np.float32)[used]
        values.data = np.log1p(values.data / np.repeat(scale[row + used], np.diff(values.indptr)))
        to_groups = sparse.csr_array(
            (np.ones(len(used)), (groups[row + used], np.arange(len(used)))), shape=(n_groups, len(used))
        )
        some = slice(column, column + block.shape[1])
        sums[:, some] += (to_groups @ values.astype(np.float64)).toarray()
        values.data = values.data * values.data
        squares[:, some] += (to_groups @ values.astype(np.float64)).toarray()
    n = np.bincount(groups[groups >= 0], minlength=n_groups)[:, None]
    own = _moments(sums, squares, n)
    rest = _moments(sums.sum(axis=0) - sums, squares.sum(axis=0) - squares, n.sum() - n)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = ttest_ind_from_stats(*own, n, *rest, n.sum() - n, equal_var=False).statistic
    return np.where(np.isnan(t), 0.0, t)


def _moments(sums: np.ndarray, squares: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations (unbiased variance) from sums over n spots."""
    mean = sums / n
    return mean, np.sqrt(np.maximum(squares / n - mean**2, 0) * (n / (n - 1)))


def highest(scores: np.ndarray) -> np.ndarray:
    """Genes by score (G,), highest first; equal scores stand as scanpy's ranking has them."""
    ranked = np.argpartition(scores, -len(scores))
    return ranked[np.argsort(scores[ranked])[::-1]]

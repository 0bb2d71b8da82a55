"""Counts as the spatial arithmetic uses them: thinned into independent parts, and log-normalised."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array, diags_array


def thin_counts(counts: Any, share: float, rng: np.random.Generator) -> tuple[csr_array, csr_array]:
    """Split counts binomially in two: each count goes to the first part with probability ``share``.

    If the counts are Poisson given the tissue, the two parts are independent given the tissue: what is learnt from one
    can be scored on the other, without losing a spot or a gene.

    Parameters
    ----------
    counts
        Whole numbers, sparse or dense, shape (S, G).
    share
        Between 0 and 1, exclusive.
    rng
        Source of randomness.

    Returns
    -------
    csr_array, csr_array
        Two parts (S, G), float32, that add up to ``counts``.
    """
    if not 0 < share < 1:
        raise ValueError(f"Expected a share between 0 and 1, found {share!r}")
    whole = csr_array(counts)
    data = np.rint(whole.data).astype(np.int64)
    first = rng.binomial(data, share)
    parts = []
    for values in (first, data - first):
        part = csr_array((values.astype(np.float32), whole.indices.copy(), whole.indptr.copy()), shape=whole.shape)
        part.eliminate_zeros()
        parts.append(part)
    return parts[0], parts[1]


def log_normalise(counts: Any) -> csr_array:
    """log1p of counts scaled to the median depth of the spots that have counts; a spot without counts stays zero.

    Parameters
    ----------
    counts
        Non-negative, sparse or dense, shape (S, G).

    Returns
    -------
    csr_array
        Shape (S, G), float32, as sparse as the counts.
    """
    whole = csr_array(counts)
    depth = np.asarray(whole.sum(axis=1, dtype=np.float64)).ravel()
    if not (depth > 0).any():
        raise ValueError("Expected counts, found only zeros")
    factor = np.zeros_like(depth)
    factor[depth > 0] = np.median(depth[depth > 0]) / depth[depth > 0]
    scaled = csr_array(diags_array(factor) @ whole)
    scaled.data = np.log1p(scaled.data).astype(np.float32)
    return scaled

"""Concept scores of genes: how far each gene lies along a concept."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from ._latent import FloatArray, check_latent, check_vectors


def concept_scores(latent: ArrayLike, vectors: ArrayLike) -> FloatArray:
    """Score z . v of every gene on every concept.

    Parameters
    ----------
    latent
        (G, L); rows of NaN stay NaN.
    vectors
        (K, L) or (L,).

    Returns
    -------
    (G, K) float64.
    """
    z, usable = check_latent(latent)
    v = check_vectors(vectors, z.shape[1])
    scores = np.full((z.shape[0], v.shape[0]), np.nan)
    scores[usable] = z[usable] @ v.T
    return scores


def standardise(scores: ArrayLike) -> FloatArray:
    """Each column to mean 0 and standard deviation 1 over its finite entries; a constant column becomes 0.

    Latent spaces of different training runs differ in scale, so scores are brought to one scale before they are
    averaged or compared.
    """
    s = np.asarray(scores, dtype=np.float64)
    known = ~np.isnan(s)
    n = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, s, 0.0).sum(axis=0) / n
    centred = s - mean
    spread = np.sqrt(np.square(np.where(known, centred, 0.0)).sum(axis=0) / n)
    # A column is constant when its spread is rounding noise of its size.
    size = np.abs(np.where(known, s, 0.0)).max(axis=0, initial=0.0)
    constant = spread <= 1e-12 * size
    centred[:, constant] = np.where(known[:, constant], 0.0, np.nan)
    return centred / np.where(constant, 1.0, spread)


def ranks(scores: ArrayLike) -> FloatArray:
    """Rank of every gene in every column, 1 for the highest score; ties share the best rank; NaN has no rank (NaN).

    Parameters
    ----------
    scores
        (G, K) or (G,).
    """
    s = np.asarray(scores, dtype=np.float64)
    columns = s.reshape(s.shape[0], -1)
    out = np.full(columns.shape, np.nan)
    for k in range(columns.shape[1]):
        known = ~np.isnan(columns[:, k])
        out[known, k] = rankdata(-columns[known, k], method="min")
    return out.reshape(s.shape)

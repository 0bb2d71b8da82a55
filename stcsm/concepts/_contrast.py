"""Concept vectors that are weighted means of latent coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from ._latent import FloatArray, LatentSpace


def contrasts(space: LatentSpace, up: sparse.csr_array, down: sparse.csr_array) -> FloatArray:
    """Mean of up genes minus mean of down genes; the mean of all genes stands for a side that has none.

    Parameters
    ----------
    space
        The genes, (n, L).
    up, down
        (K, n) rows of non-negative weights that sum to one, or empty rows.

    Returns
    -------
    (K, L)
    """
    return _side(space, up) - _side(space, down)


def _side(space: LatentSpace, weights: sparse.csr_array) -> FloatArray:
    if not weights.nnz:
        return np.broadcast_to(space.mean, (weights.shape[0], space.mean.size))
    mean = np.asarray(weights @ space.coordinates)
    mean[np.diff(weights.indptr) == 0] = space.mean
    return mean


class Mean:
    """Weighted mean of the members (up minus down); the published choice for spatial transcriptomics."""

    needs_rest = False

    def vectors(self, space: LatentSpace, up: sparse.csr_array, down: sparse.csr_array) -> FloatArray:
        """Concept vectors (K, L)."""
        vectors = np.asarray(up @ space.coordinates)
        return vectors - np.asarray(down @ space.coordinates) if down.nnz else vectors

    def info(self, space: LatentSpace, up: FloatArray, down: FloatArray, seed: int) -> dict[str, Any]:
        """Nothing beyond what every concept reports."""
        return {}


class Contrast:
    """Weighted mean of the members minus the mean of all genes; with signs, of the up genes minus the down genes."""

    needs_rest = True

    def vectors(self, space: LatentSpace, up: sparse.csr_array, down: sparse.csr_array) -> FloatArray:
        """Concept vectors (K, L)."""
        return contrasts(space, up, down)

    def info(self, space: LatentSpace, up: FloatArray, down: FloatArray, seed: int) -> dict[str, Any]:
        """Nothing beyond what every concept reports."""
        return {}

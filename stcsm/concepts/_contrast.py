"""Concept vectors that are weighted means of latent coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from ._latent import FloatArray


def contrasts(latent: FloatArray, up: sparse.csr_array, down: sparse.csr_array) -> FloatArray:
    """Mean of up genes minus mean of down genes; the mean of all genes stands for a side that has none.

    Parameters
    ----------
    latent
        (n, L), finite.
    up, down
        (K, n) rows of non-negative weights that sum to one, or empty rows.

    Returns
    -------
    (K, L)
    """
    centred = latent - latent.mean(axis=0)
    return np.asarray(up @ centred) - np.asarray(down @ centred)


class Mean:
    """Weighted mean of the members (up minus down); the published choice for spatial transcriptomics."""

    needs_rest = False

    def vectors(self, latent: FloatArray, up: sparse.csr_array, down: sparse.csr_array) -> FloatArray:
        """Concept vectors (K, L)."""
        return np.asarray(up @ latent) - np.asarray(down @ latent)

    def info(self, latent: FloatArray, up: FloatArray, down: FloatArray, seed: int) -> dict[str, Any]:
        """Nothing beyond what every concept reports."""
        return {}


class Contrast:
    """Weighted mean of the members minus the mean of all genes; with signs, of the up genes minus the down genes."""

    needs_rest = True

    def vectors(self, latent: FloatArray, up: sparse.csr_array, down: sparse.csr_array) -> FloatArray:
        """Concept vectors (K, L)."""
        return contrasts(latent, up, down)

    def info(self, latent: FloatArray, up: FloatArray, down: FloatArray, seed: int) -> dict[str, Any]:
        """Nothing beyond what every concept reports."""
        return {}

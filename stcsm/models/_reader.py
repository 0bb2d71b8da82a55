"""Counts, gene by gene, from whatever holds the spots x genes matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from stcsm.models._setup import row_blocks


class GeneReader:
    """Read gene profiles from a spots x genes matrix without transposing it.

    A dense array stays where it is. A sparse matrix is held gene-wise (CSC; a CSC matrix is used as it is). Only the
    genes that are asked for become dense.

    Parameters
    ----------
    matrix
        Counts (S, G): dense array, any scipy sparse matrix or array, or a backed anndata matrix, which is read into
        memory block by block.
    spots
        Indices (S',) of the spots to restrict profiles to; by default those with at least one count.

    Attributes
    ----------
    spots
        Indices (S',) of the spots that profiles are restricted to.
    gene_totals
        Counts of each gene (G,).
    depth
        Share of all counts that falls on each spot of ``spots`` (S',); sums to one.
    """

    def __init__(self, matrix: Any, spots: np.ndarray | None = None):
        self.n_all_spots, self.n_genes = matrix.shape
        self._matrix = _gene_wise(matrix)
        self.gene_totals = np.asarray(self._matrix.sum(axis=0, dtype=np.float64)).ravel()
        spot_totals = np.asarray(self._matrix.sum(axis=1, dtype=np.float64)).ravel()
        self.spots = np.flatnonzero(spot_totals > 0) if spots is None else spots
        self.depth = spot_totals[self.spots] / spot_totals.sum()
        self._all_spots = len(self.spots) == self.n_all_spots

    @property
    def n_spots(self) -> int:
        """Number of spots that profiles are restricted to."""
        return len(self.spots)

    def profiles(self, genes: np.ndarray) -> np.ndarray:
        """Counts of ``genes`` at the spots of the model, dense (n, S'), float32."""
        columns: Any = self._matrix[:, genes]
        rows = columns.T if isinstance(columns, np.ndarray) else columns.T.toarray()
        if not self._all_spots:
            rows = rows[:, self.spots]
        return np.ascontiguousarray(rows, dtype=np.float32)


def _gene_wise(matrix: Any) -> Any:
    if isinstance(matrix, np.ndarray):
        return matrix
    if not sparse.issparse(matrix):
        blocks = [sparse.csr_array(block) for _, block in row_blocks(matrix)]
        matrix = sparse.vstack(blocks, format="csr")
    gene_wise = sparse.csc_array(matrix)
    if not gene_wise.has_canonical_format:
        # Entries that are stored twice mean their sum; summing in place would change the user's matrix.
        gene_wise = gene_wise.copy()
        gene_wise.sum_duplicates()
    return gene_wise

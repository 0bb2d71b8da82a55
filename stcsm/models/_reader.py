"""Counts, gene by gene, from whatever holds the spots x genes matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from stcsm.space import row_blocks


class GeneReader:
    """Read gene profiles from a spots x genes matrix without transposing it.

    Counts are held gene-wise, as a CSC copy of their own: later changes of the AnnData do not change the model. Only
    the genes that are asked for become dense.

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
        self.depth = spot_totals[self.spots] / max(spot_totals.sum(), 1)
        self._all_spots = len(self.spots) == self.n_all_spots

    @property
    def n_spots(self) -> int:
        """Number of spots that profiles are restricted to."""
        return len(self.spots)

    def profiles(self, genes: np.ndarray) -> np.ndarray:
        """Counts of ``genes`` at the spots of the model, dense (n, S'), float32."""
        rows = self._matrix[:, genes].T.toarray()
        if not self._all_spots:
            rows = rows[:, self.spots]
        return np.ascontiguousarray(rows, dtype=np.float32)

    def thinned(self, genes: np.ndarray, share: float, seed: int) -> tuple[GeneReader, GeneReader]:
        """Split the counts of some genes in two by binomial thinning.

        Every gene has a generator of its own, so the split of a gene depends on nothing else.

        Parameters
        ----------
        genes
            Indices of the genes to split; the others are empty in both parts.
        share
            Share of the counts that goes into the second part.
        seed
            Of the split.

        Returns
        -------
        What is left, and what was taken.
        """
        taken = np.zeros_like(self._matrix.data)
        for gene in genes:
            part = slice(self._matrix.indptr[gene], self._matrix.indptr[gene + 1])
            rng = np.random.default_rng([seed, int(gene)])
            taken[part] = rng.binomial(self._matrix.data[part].astype(np.int64), share)
        chosen = np.zeros(self.n_genes, dtype=bool)
        chosen[genes] = True
        whole = np.where(np.repeat(chosen, np.diff(self._matrix.indptr)), self._matrix.data, 0)
        return self._with(whole - taken), self._with(taken)

    def _with(self, data: np.ndarray) -> GeneReader:
        other = sparse.csc_array((data, self._matrix.indices, self._matrix.indptr), shape=self._matrix.shape)
        return GeneReader(other, self.spots)


def _gene_wise(matrix: Any) -> sparse.csc_array:
    """Copy of a matrix in CSC form: what is done to the AnnData later does not reach the model."""
    given: Any = matrix
    if isinstance(matrix, np.ndarray) or sparse.issparse(matrix):
        gene_wise = sparse.csc_array(given, copy=True)
    else:
        blocks = [sparse.csr_array(block) for _, block in row_blocks(matrix)]
        gene_wise = sparse.csc_array(sparse.vstack(blocks, format="csc"))
    gene_wise.sum_duplicates()
    return gene_wise

"""Gene profiles over the spots of a model, from whatever holds the spots x genes matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from stcsm.models._store import GeneStore, open_genes, thin

BLOCK = 256
"""Genes that are dense at once where a part of the counts is taken out."""
VALUES = 2**22
"""Values, counted as if they were dense, that are summed together."""


class GeneReader:
    """Read gene profiles from a spots x genes matrix; only the genes that are asked for become dense.

    Parameters
    ----------
    matrix
        Counts (S, G): dense array, any scipy sparse matrix or array, a backed anndata matrix (HDF5 or zarr, sparse or
        dense) or a lazy dask array. What is in memory is copied: later changes of it do not change the model. What
        lies on disk is read as :func:`stcsm.models._store.open_genes` says.
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
        self._take(open_genes(matrix), spots)

    def _take(self, store: GeneStore, spots: np.ndarray | None) -> None:
        self._store = store
        self.n_all_spots, self.n_genes = store.shape
        self.gene_totals, spot_totals = _totals(store)
        self.spots = np.flatnonzero(spot_totals > 0) if spots is None else np.asarray(spots)
        self.depth = spot_totals[self.spots] / max(spot_totals.sum(), 1)
        # Column of a profile in which each spot stands; -1 for those that are left out.
        self._place = np.full(self.n_all_spots, -1, dtype=np.int64)
        self._place[self.spots] = np.arange(len(self.spots))

    @property
    def n_spots(self) -> int:
        """Number of spots that profiles are restricted to."""
        return len(self.spots)

    def profiles(self, genes: np.ndarray) -> np.ndarray:
        """Counts of ``genes`` at the spots of the model, dense (n, S'), float32."""
        some = self._store.columns(np.asarray(genes))
        gene, place, values = some.owner, self._place[some.rows], some.values
        if self.n_spots < self.n_all_spots:
            known = place >= 0
            gene, place, values = gene[known], place[known], values[known]
        rows = np.zeros((len(genes), self.n_spots), dtype=np.float32)
        rows[gene, place] = values
        return rows

    def counts(self, genes: np.ndarray, spots: np.ndarray) -> sparse.csr_array:
        """Counts of ``genes`` at some of the model's spots, sparse (n_spots, n_genes), made block by block."""
        blocks = [
            sparse.csr_array(self.profiles(genes[start : start + BLOCK])[:, spots])
            for start in range(0, len(genes), BLOCK)
        ]
        return sparse.csr_array(sparse.vstack(blocks).T)

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
        left, taken = thin(self._store, np.asarray(genes), share, seed)
        return self._with(left), self._with(taken)

    def _with(self, store: GeneStore) -> GeneReader:
        other = GeneReader.__new__(GeneReader)
        other._take(store, self.spots)
        return other


def _totals(store: GeneStore) -> tuple[np.ndarray, np.ndarray]:
    """Counts of every gene (G,) and of every spot (S,), in bounded memory."""
    n_spots, n_genes = store.shape
    genes, spots = np.zeros(n_genes), np.zeros(n_spots)
    step = max(1, VALUES // max(n_spots, 1))
    for start in range(0, n_genes, step):
        some = store.columns(np.arange(start, min(start + step, n_genes)))
        values = some.values.astype(np.float64)
        genes[start : start + step] = np.bincount(some.owner, weights=values, minlength=len(some.indptr) - 1)
        spots += np.bincount(some.rows, weights=values, minlength=n_spots)
    return genes, spots

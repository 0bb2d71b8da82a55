"""Gene profiles over the spots of a model, from whatever holds the spots x genes matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from stcsm.models._store import GeneStore, SectionGenes, open_genes, thin

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
        Counts of each gene (G,) at these spots.
    depth
        Share of all counts that falls on each spot of ``spots`` (S',); sums to one.
    """

    def __init__(self, matrix: Any, spots: np.ndarray | None = None):
        self._take(open_genes(matrix), spots)

    def _take(self, store: GeneStore, spots: np.ndarray | None) -> None:
        self._store = store
        self.n_all_spots, self.n_genes = store.shape
        self.gene_totals, spot_totals = _totals(store, spots=spots)
        self._restrict(np.flatnonzero(spot_totals > 0) if spots is None else np.asarray(spots))
        self.depth = spot_totals[self.spots] / max(spot_totals.sum(), 1)

    def _restrict(self, spots: np.ndarray) -> None:
        self.spots = spots
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

    def part(self, genes: np.ndarray, spots: np.ndarray) -> GeneReader:
        """A reader of some genes at some of the model's spots, those without a count left out; for a trial."""
        return GeneReader(self.counts(genes, spots))

    def section(self, genes: np.ndarray) -> np.ndarray | None:
        """Which section each sample belongs to, (n,); None where there are no sections."""
        return None

    def in_sections(self, section: np.ndarray, place: np.ndarray, n_sections: int, n_places: int) -> SampleReader:
        """Read the same counts as samples, a gene in one section each.

        Parameters
        ----------
        section, place
            Of each of ``spots``, (S',).
        n_sections, n_places
            How many there are.
        """
        of_spot = np.full((2, self.n_all_spots), -1, dtype=np.int64)
        of_spot[:, self.spots] = section, place
        store = SectionGenes(self._store, of_spot[0], of_spot[1], n_sections, n_places)
        return SampleReader(store, np.repeat(np.arange(n_sections), self.n_genes), n_sections, np.arange(n_places))

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


class SampleReader(GeneReader):
    """Reads samples, a gene in one section each, where several sections share their places.

    What a :class:`GeneReader` says of genes and spots holds for samples and places.

    Parameters
    ----------
    store
        Counts (P, N) of samples.
    sections
        Section of each sample, (N,).
    n_sections
        How many there are, B.
    places
        Indices (P',) of the places to restrict profiles to; by default those with a count in some section.

    Attributes
    ----------
    depth
        Share of a section's counts that falls on each place, (B, P'); zero where the section has no spot.
    """

    def __init__(self, store: GeneStore, sections: np.ndarray, n_sections: int, places: np.ndarray | None = None):
        self._sections, self.n_sections = sections, n_sections
        self._take(store, places)

    def _take(self, store: GeneStore, spots: np.ndarray | None) -> None:
        self._store = store
        self.n_all_spots, self.n_genes = store.shape
        self.gene_totals, totals = np.zeros(self.n_genes), np.zeros((self.n_sections, self.n_all_spots))
        for b in range(self.n_sections):
            own = np.flatnonzero(self._sections == b)
            self.gene_totals[own], totals[b] = _totals(store, own)
        self._restrict(np.flatnonzero(totals.any(axis=0)) if spots is None else np.asarray(spots))
        self.depth = totals[:, self.spots] / np.maximum(totals.sum(axis=1, keepdims=True), 1)

    def section(self, genes: np.ndarray) -> np.ndarray:
        """Which section each sample belongs to, (n,)."""
        return self._sections[np.asarray(genes)]

    def part(self, genes: np.ndarray, spots: np.ndarray) -> GeneReader:
        """A reader of some samples at some places."""
        return SampleReader(open_genes(self.counts(genes, spots)), self._sections[genes], self.n_sections)

    def _with(self, store: GeneStore) -> GeneReader:
        return SampleReader(store, self._sections, self.n_sections, self.spots)


def _totals(
    store: GeneStore, of: np.ndarray | None = None, spots: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Counts of every gene or of some, (n,), at every spot or at some, and of the spots (S,); in bounded memory."""
    n_spots, n_genes = store.shape
    of = np.arange(n_genes) if of is None else of
    counted = np.ones(n_spots) if spots is None else np.isin(np.arange(n_spots), spots).astype(np.float64)
    genes, spots = np.zeros(len(of)), np.zeros(n_spots)
    step = max(1, VALUES // max(n_spots, 1))
    for start in range(0, len(of), step):
        some = store.columns(of[start : start + step])
        values = some.values.astype(np.float64) * counted[some.rows]
        genes[start : start + step] = np.bincount(some.owner, weights=values, minlength=len(some.indptr) - 1)
        spots += np.bincount(some.rows, weights=values, minlength=n_spots)
    return genes, spots

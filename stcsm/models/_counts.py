"""Counts gene by gene: profiles over spots, from whatever holds the spots x genes matrix.

A *reader* gives dense profiles of the genes (or samples) that are asked for. Below it a *store* gives single genes in
compressed form: from memory, from a CSC file where it stands, or from a scratch file into which any other file is
transposed once. Memory stays bounded on every way.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from scipy import sparse
from tqdm.auto import tqdm

from stcsm.space import IN_MEMORY, Pool, ScratchFile, available_memory, stored_blocks, stored_by_columns

logger = logging.getLogger(__name__)

BLOCK = 256
"""Genes that are dense at once where a part of the counts is taken out."""
VALUES = 2**22
"""Values, counted as if they were dense, that are summed together."""
PIECE = 2**23
"""Counts that are transposed together on their way into the scratch file."""
_ENTRY = 8
"""Bytes of a stored count: its row (int32) and its value (float32)."""


class GeneReader:
    """Reads gene profiles; only the genes that are asked for become dense.

    Parameters
    ----------
    store
        Counts (S, G), gene by gene.
    spots
        Indices (S',) of the spots to restrict profiles to; by default those with at least one count.
    among
        Mask (S,) of the spots that may be taken by default.

    Attributes
    ----------
    spots
        Indices (S',) of the spots that profiles are restricted to.
    gene_totals
        Counts of each gene (G,) at these spots.
    gene_checks
        Counts of each gene (G,) at these spots, summed with a weight for each spot: other counts have other sums.
    depth
        Share of all counts that falls on each spot of ``spots`` (S',); sums to one.
    """

    def __init__(self, store: GeneStore, spots: np.ndarray | None = None, among: np.ndarray | None = None):
        self._store = store
        self.n_all_spots, self.n_genes = store.shape
        counted = np.flatnonzero(among) if spots is None and among is not None else spots
        self.gene_totals, self.gene_checks, spot_totals = _totals(store, spots=counted)
        self._restrict(np.flatnonzero(spot_totals > 0) if spots is None else np.asarray(spots))
        self.depth = spot_totals[self.spots] / max(spot_totals.sum(), 1)

    @staticmethod
    def open(
        matrix: Any,
        spots: np.ndarray | None = None,
        among: np.ndarray | None = None,
        genes: np.ndarray | None = None,
    ) -> GeneReader:
        """Read from a matrix (S, G).

        Parameters
        ----------
        matrix
            Dense array, any scipy sparse matrix or array, a backed anndata matrix (HDF5 or zarr, sparse or dense) or a
            lazy dask array. What is in memory is copied: later changes of it do not change the model. What lies on disk
            is read as :func:`open_genes` says.
        spots, among
            As for the class.
        genes
            Mask (G,) of the features that are genes; the others are read as if they had no counts.
        """
        store = open_genes(matrix)
        if genes is not None and not genes.all():
            store = only_genes(store, genes)
        return GeneReader(store, spots, among)

    def _restrict(self, spots: np.ndarray) -> None:
        self.spots = spots
        # Column of a profile in which each spot stands; -1 for those that are left out.
        self._column = np.full(self.n_all_spots, -1, dtype=np.int64)
        self._column[self.spots] = np.arange(len(self.spots))

    @property
    def is_in_memory(self) -> bool:
        """Whether all counts are in memory."""
        store = self._store._store if isinstance(self._store, SectionGenes) else self._store
        return isinstance(store, MemoryGenes)

    @property
    def n_spots(self) -> int:
        """Number of spots that profiles are restricted to."""
        return len(self.spots)

    def profiles(self, genes: np.ndarray) -> np.ndarray:
        """Counts of ``genes`` at the spots of the model, dense (n, S'), float32."""
        some = self._known(genes)
        rows = np.zeros((len(genes), self.n_spots), dtype=np.float32)
        rows[some.owner, some.rows] = some.values
        return rows

    def sparse_profiles(self, genes: np.ndarray) -> sparse.csr_array:
        """:meth:`profiles`, sparse (n, S')."""
        some = self._known(genes)
        return sparse.csr_array((some.values, some.rows, some.indptr), shape=(len(genes), self.n_spots))

    def _known(self, genes: np.ndarray) -> Columns:
        """Counts of ``genes``; rows are the spots of the model."""
        some = self._store.columns(np.asarray(genes))
        column, values, counts = self._column[some.rows], some.values, np.diff(some.indptr)
        if self.n_spots < self.n_all_spots:
            known = column >= 0
            counts = np.bincount(some.owner[known], minlength=len(counts))
            column, values = column[known], values[known]
        return Columns(_pointers(counts), column, values.astype(np.float32, copy=False))

    def counts(self, genes: np.ndarray, spots: np.ndarray) -> sparse.csr_array:
        """Counts of ``genes`` at some of the model's spots, sparse (n_spots, n_genes), read block by block."""
        blocks = [self.sparse_profiles(genes[start : start + BLOCK])[:, spots] for start in range(0, len(genes), BLOCK)]
        return sparse.csr_array(sparse.vstack(blocks).T)

    def part(self, genes: np.ndarray, spots: np.ndarray) -> GeneReader:
        """Return a reader of some genes at some of the model's spots, those without a count left out; for a trial."""
        return GeneReader.open(self.counts(genes, spots))

    def section(self, genes: np.ndarray) -> np.ndarray | None:
        """Section of each sample, (n,); None where there are no sections."""
        return None

    def in_sections(self, section: np.ndarray, position: np.ndarray, n_sections: int, n_positions: int) -> SampleReader:
        """Read the same counts as samples, a gene in one section each.

        Parameters
        ----------
        section, position
            Section and array position of each of ``spots``, (S',).
        n_sections, n_positions
            How many there are.
        """
        of_spot = np.full((2, self.n_all_spots), -1, dtype=np.int64)
        of_spot[:, self.spots] = section, position
        store = SectionGenes(self._store, of_spot[0], of_spot[1], n_sections, n_positions)
        sections = np.repeat(np.arange(n_sections), self.n_genes)
        return SampleReader(store, sections, n_sections, np.arange(n_positions))

    def pooled(self, pool: Pool) -> GeneReader:
        """Read the same genes over features, each the sum of some of ``spots``: their "spots" are features then."""
        return GeneReader(pool_genes(self, pool), np.arange(pool.n_features))

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
            Seed of the split.

        Returns
        -------
        What is left, and what was taken.
        """
        left, taken = thin(self._store, np.asarray(genes), share, seed)
        return self._of_store(left), self._of_store(taken)

    def _of_store(self, store: GeneStore) -> GeneReader:
        """Return a reader of other counts of the same genes at the same spots."""
        return GeneReader(store, self.spots)


class SampleReader(GeneReader):
    """Reads samples, a gene in one section each, where several sections share their array positions.

    What a :class:`GeneReader` says of genes and spots holds for samples and array positions.

    Parameters
    ----------
    store
        Counts (P, N) of samples.
    sections
        Section of each sample, (N,).
    n_sections
        Number of sections, B.
    positions
        Indices (P',) of the array positions to restrict profiles to; by default those with a count in some section.

    Attributes
    ----------
    depth
        Share of a section's counts that falls on each array position, (B, P'); zero where the section has no spot.
    """

    def __init__(self, store: GeneStore, sections: np.ndarray, n_sections: int, positions: np.ndarray | None = None):
        self._store = store
        self._sections, self.n_sections = sections, n_sections
        self.n_all_spots, self.n_genes = store.shape
        self.gene_totals, self.gene_checks = np.zeros((2, self.n_genes))
        totals = np.zeros((n_sections, self.n_all_spots))
        for b in range(n_sections):
            own = np.flatnonzero(sections == b)
            self.gene_totals[own], self.gene_checks[own], totals[b] = _totals(store, own)
        self._restrict(np.flatnonzero(totals.any(axis=0)) if positions is None else np.asarray(positions))
        self.depth = totals[:, self.spots] / np.maximum(totals.sum(axis=1, keepdims=True), 1)

    def section(self, genes: np.ndarray) -> np.ndarray:
        """Section of each sample, (n,)."""
        return self._sections[np.asarray(genes)]

    def pooled(self, pool: Pool) -> GeneReader:
        """Read the same samples over features, each the sum of some array positions."""
        return SampleReader(pool_genes(self, pool), self._sections, self.n_sections, np.arange(pool.n_features))

    def part(self, genes: np.ndarray, spots: np.ndarray) -> GeneReader:
        """Return a reader of some samples at some array positions."""
        return SampleReader(open_genes(self.counts(genes, spots)), self._sections[genes], self.n_sections)

    def _of_store(self, store: GeneStore) -> GeneReader:
        return SampleReader(store, self._sections, self.n_sections, self.spots)


def _totals(
    store: GeneStore, of: np.ndarray | None = None, spots: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts and weighted counts of all or some genes, (n,), at all or some spots, and counts of the spots (S,).

    In bounded memory. A gene is summed at once, in the order of its spots: blocks and storage make no difference.
    """
    n_spots, n_genes = store.shape
    of = np.arange(n_genes) if of is None else of
    counted = np.ones(n_spots) if spots is None else np.isin(np.arange(n_spots), spots).astype(np.float64)
    weights = np.random.PCG64(0).random_raw(n_spots) / 2.0**64  # the same with every version of numpy
    genes, checks, spots = np.zeros(len(of)), np.zeros(len(of)), np.zeros(n_spots)
    step = max(1, VALUES // max(n_spots, 1))
    for start in range(0, len(of), step):
        some = store.columns(of[start : start + step])
        values = some.values.astype(np.float64) * counted[some.rows]
        owner, n = some.owner, len(some.indptr) - 1
        genes[start : start + step] = np.bincount(owner, weights=values, minlength=n)
        checks[start : start + step] = np.bincount(owner, weights=values * weights[some.rows], minlength=n)
        spots += np.bincount(some.rows, weights=values, minlength=n_spots)
    return genes, checks, spots


class Columns(NamedTuple):
    """Some genes in compressed form: counts ``indptr[i]`` to ``indptr[i + 1]`` belong to the i-th of them."""

    indptr: np.ndarray
    rows: np.ndarray
    values: np.ndarray

    @property
    def owner(self) -> np.ndarray:
        """Number of the gene that each count belongs to."""
        return np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))


class GeneStore(Protocol):
    """Counts (S, G) that give single genes; the rows of a gene ascend, each comes once, and no count is zero."""

    shape: tuple[int, int]

    def columns(self, genes: np.ndarray) -> Columns:
        """Counts of genes, in the order of ``genes``."""
        ...


class MemoryGenes:
    """Counts in memory, as a CSC matrix that is this object's own."""

    def __init__(self, matrix: sparse.csc_array):
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        self.matrix = matrix
        self.shape = (int(matrix.shape[0]), int(matrix.shape[1]))

    def columns(self, genes: np.ndarray) -> Columns:
        """Counts of genes."""
        some: Any = self.matrix[:, genes]
        return Columns(some.indptr.astype(np.int64), some.indices, some.data)


class FileGenes:
    """Counts in a CSC matrix on disk (backed h5ad or zarr), read where they stand."""

    def __init__(self, matrix: Any):
        self._matrix = matrix
        self.shape = (int(matrix.shape[0]), int(matrix.shape[1]))

    def columns(self, genes: np.ndarray) -> Columns:
        """Counts of genes.

        Raises
        ------
        OSError
            If the file was closed in the meantime.
        """
        genes = np.asarray(genes)
        parts = []
        # Genes that follow one another are read together.
        for run in np.split(genes, np.flatnonzero(np.diff(genes) != 1) + 1):
            if not len(run):
                continue
            try:
                block = self._matrix[:, int(run[0]) : int(run[-1]) + 1]
            except (ValueError, RuntimeError, KeyError) as error:
                raise OSError(
                    "Expected the file of the counts to be open, found that it cannot be read any more; the model "
                    f"reads genes from it: keep it open, or read the AnnData into memory ({error})"
                ) from error
            parts.append(_canonical(block))
        counts = _cat([np.diff(p.indptr) for p in parts], np.int64)
        rows, values = _cat([p.indices for p in parts], np.int32), _cat([p.data for p in parts], np.float32)
        return Columns(_pointers(counts), rows, values)


class _Piece(NamedTuple):
    first_row: int
    first_column: int
    indptr: np.ndarray
    rows: int
    values: int


class ScratchGenes:
    """Counts in pieces, each gene-wise, in a scratch file that is removed when it is no longer used.

    Pieces are appended once and only read afterwards; a gene is assembled from its part in each.
    """

    def __init__(self, shape: tuple[int, int]):
        self.shape = shape
        self._file = ScratchFile()
        self._pieces: list[_Piece] = []

    def append(self, first_row: int, first_column: int, block: sparse.csc_array) -> None:
        """Write a block, canonical, whose first row and column are these."""
        rows = self._file.append(block.indices.astype(np.int32))
        values = self._file.append(block.data.astype(np.float32))
        self._pieces.append(_Piece(first_row, first_column, block.indptr.astype(np.int64), rows, values))

    def columns(self, genes: np.ndarray) -> Columns:
        """Counts of genes."""
        rows: list[np.ndarray] = []
        values: list[np.ndarray] = []
        counts = np.zeros(len(genes), dtype=np.int64)
        for i, gene in enumerate(genes):
            for piece in self._pieces:
                column = int(gene) - piece.first_column
                if not 0 <= column < len(piece.indptr) - 1:
                    continue
                start, stop = int(piece.indptr[column]), int(piece.indptr[column + 1])
                if start == stop:
                    continue
                rows.append(self._file.read(piece.rows + 4 * start, stop - start, np.int32) + piece.first_row)
                values.append(self._file.read(piece.values + 4 * start, stop - start, np.float32))
                counts[i] += stop - start
        return Columns(_pointers(counts), _cat(rows, np.int32), _cat(values, np.float32))


class SectionGenes:
    """Counts (P, B * G) of samples, a gene in one section each, from counts (S, G) of B sections on P array positions.

    Sample ``b * G + g`` is gene g in section b.

    Parameters
    ----------
    store
        Counts (S, G) of all sections.
    section, position
        Section and array position of each spot, (S,); -1 for spots that are left out. A section has at most one spot on
        an array position.
    n_sections, n_positions
        B and P.
    """

    def __init__(self, store: GeneStore, section: np.ndarray, position: np.ndarray, n_sections: int, n_positions: int):
        self._store, self._section, self._position = store, section, position
        self._n_genes = store.shape[1]
        self.shape = (n_positions, n_sections * self._n_genes)

    def columns(self, genes: np.ndarray) -> Columns:
        """Counts of samples."""
        section, gene = np.divmod(np.asarray(genes), self._n_genes)
        whole = self._store.columns(gene)
        owner = whole.owner
        own = self._section[whole.rows] == section[owner]
        owner, position, values = owner[own], self._position[whole.rows[own]], whole.values[own]
        order = np.lexsort((position, owner))
        counts = np.bincount(owner, minlength=len(section))
        return Columns(_pointers(counts), position[order], values[order])


class OnlyGenes:
    """Counts of some features; the others have none."""

    def __init__(self, store: GeneStore, genes: np.ndarray):
        self._store, self._genes = store, genes
        self.shape = store.shape

    def columns(self, genes: np.ndarray) -> Columns:
        """Counts of genes."""
        kept = self._genes[genes]
        some = self._store.columns(np.asarray(genes)[kept])
        counts = np.zeros(len(kept), dtype=np.int64)
        counts[kept] = np.diff(some.indptr)
        return Columns(_pointers(counts), some.rows, some.values)


def only_genes(store: GeneStore, genes: np.ndarray) -> GeneStore:
    """Leave the counts of other features out: of counts in memory at once, of those in a file when they are read."""
    only = OnlyGenes(store, genes)
    if not isinstance(store, MemoryGenes):
        return only
    return MemoryGenes(_matrix(only.columns(np.arange(store.shape[1])), store.shape[0]))


def pool_genes(reader: GeneReader, pool: Pool) -> GeneStore:
    """Counts (F, G) of features, each the sum of some spots of a reader, added up once.

    They are kept in memory where the reader's are (they are never more) or up to ``IN_MEMORY`` bytes of them, otherwise
    in a scratch file.
    """
    limit = np.inf if reader.is_in_memory else IN_MEMORY
    blocks: list[_Block] = []
    scratch: ScratchGenes | None = None
    for start in range(0, reader.n_genes, BLOCK):
        some = reader.sparse_profiles(np.arange(start, min(start + BLOCK, reader.n_genes)))
        shape = (pool.n_features, some.shape[0])
        summed = sparse.csc_array((some.data, pool.feature[some.indices], some.indptr), shape=shape)
        summed.sum_duplicates()
        blocks.append(_Block(0, start, summed))
        if scratch is None and sum(block.counts.nnz for block in blocks) * _ENTRY > limit:
            scratch = ScratchGenes((pool.n_features, reader.n_genes))
        if scratch is not None:
            for block in blocks:
                scratch.append(*block)
            blocks.clear()
    return scratch or MemoryGenes(sparse.csc_array(_join([block.counts for block in blocks], True)))


class ThinnedGenes:
    """One part of counts that are split in two by binomial thinning, drawn when it is read.

    Every gene has a generator of its own, so the split of a gene depends on nothing else.
    """

    def __init__(self, store: GeneStore, genes: np.ndarray, share: float, seed: int, taken: bool):
        self._store = store
        self._chosen = np.zeros(store.shape[1], dtype=bool)
        self._chosen[genes] = True
        self._share, self._seed, self._taken = share, seed, taken
        self.shape = store.shape

    def columns(self, genes: np.ndarray) -> Columns:
        """Counts of genes in this part."""
        whole = self._store.columns(genes)
        part = np.zeros(len(whole.values), dtype=np.float32)
        for i, gene in enumerate(genes):
            if self._chosen[gene]:
                own = slice(int(whole.indptr[i]), int(whole.indptr[i + 1]))
                rng = np.random.default_rng([self._seed, int(gene)])
                drawn = rng.binomial(whole.values[own].astype(np.int64), self._share)
                part[own] = drawn if self._taken else whole.values[own] - drawn
        kept = part > 0
        counts = np.bincount(whole.owner[kept], minlength=len(genes))
        return Columns(_pointers(counts), whole.rows[kept], part[kept])


def thin(store: GeneStore, genes: np.ndarray, share: float, seed: int) -> tuple[GeneStore, GeneStore]:
    """Split the counts of some genes into what is left and what was taken; other genes are empty in both.

    Counts in memory are split at once and kept; those in a file are split again, in the same way, at every read.
    """
    left, taken = (ThinnedGenes(store, genes, share, seed, taken=part) for part in (False, True))
    if not isinstance(store, MemoryGenes):
        return left, taken
    every = np.arange(store.shape[1])
    kept, drawn = (_matrix(part.columns(every), store.shape[0]) for part in (left, taken))
    return MemoryGenes(kept), MemoryGenes(drawn)


def open_genes(matrix: Any) -> GeneStore:
    """Make counts readable gene by gene, in bounded memory.

    A matrix in memory is copied, so that later changes of it do not reach the model. A matrix on disk, or a lazy one,
    is read once, in blocks: where its counts fit into ``IN_MEMORY`` bytes they are kept in memory; otherwise a CSC
    matrix on disk is read where it stands, and any other is transposed into a scratch file (in the folder for temporary
    files: TMPDIR).
    """
    given: Any = matrix
    if isinstance(matrix, np.ndarray) or sparse.issparse(matrix):
        stored = np.count_nonzero(given) if isinstance(matrix, np.ndarray) else given.nnz
        free = available_memory()
        if free is None or 3 * stored * (given.dtype.itemsize + 4) <= free:
            return MemoryGenes(sparse.csc_array(given, copy=True))
        return _from_blocks(matrix, 0)
    return _from_blocks(matrix, IN_MEMORY)


def _from_blocks(matrix: Any, limit: int) -> GeneStore:
    shape = (int(matrix.shape[0]), int(matrix.shape[1]))
    by_columns = stored_by_columns(matrix)
    pieces: list[_Block] = []
    scratch: ScratchGenes | None = None
    for piece in tqdm(_gene_wise(matrix, by_columns), desc="counts, gene by gene", leave=False, delay=5):
        if scratch is not None:
            scratch.append(*piece)
            continue
        pieces.append(piece)
        if sum(p.counts.nnz for p in pieces) * _ENTRY <= limit:
            continue
        if by_columns and hasattr(matrix, "format") and not sparse.issparse(matrix):
            return FileGenes(matrix)
        scratch = ScratchGenes(shape)
        logger.warning(
            f"the counts ({shape[0]} x {shape[1]}) take more than {limit / 2**20:.0f} MiB and are not stored gene by "
            f"gene: they are transposed once, into a scratch file in {tempfile.gettempdir()} (set TMPDIR for another)"
        )
        for each in pieces:
            scratch.append(*each)
        pieces.clear()
    if scratch is not None:
        return scratch
    return MemoryGenes(sparse.csc_array(_join([p.counts for p in pieces], by_columns)))


class _Block(NamedTuple):
    first_row: int
    first_column: int
    counts: sparse.csc_array


def _gene_wise(matrix: Any, by_columns: bool) -> Iterator[_Block]:
    """Blocks of a matrix, joined to about ``PIECE`` counts and made gene-wise."""
    waiting: list[Any] = []
    first, held = (0, 0), 0
    for row, column, block in stored_blocks(matrix):
        if held >= PIECE:
            yield _Block(*first, _canonical(_join(waiting, by_columns)))
            waiting, held = [], 0
        if not waiting:
            first = (row, column)
        waiting.append(sparse.csc_array(block) if by_columns else sparse.csr_array(block))
        held += waiting[-1].nnz
    yield _Block(*first, _canonical(_join(waiting, by_columns)))


def _join(blocks: list[Any], by_columns: bool) -> Any:
    return (sparse.hstack if by_columns else sparse.vstack)(blocks, format="csc")


def _canonical(matrix: Any) -> sparse.csc_array:
    """Copy in which rows ascend, each comes once, and no stored count is zero."""
    whole = sparse.csc_array(matrix, dtype=np.float32, copy=True)
    whole.sum_duplicates()
    whole.eliminate_zeros()
    return whole


def _pointers(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _cat(arrays: list[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=dtype)


def _matrix(columns: Columns, n_rows: int) -> sparse.csc_array:
    shape = (n_rows, len(columns.indptr) - 1)
    return sparse.csc_array((columns.values, columns.rows, columns.indptr), shape=shape)

"""What a gene model knows of a tissue: spots, their array positions, sections, samples, and the cells of a grid.

An *array position* is a row and a column; where spots have none, it is their coordinates. Sections of one model share
their array positions, and a sample is then a gene in one section.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from stcsm import _keys
from stcsm.models._counts import GeneReader
from stcsm.models._setup import (
    Setup,
    check_coordinates,
    counts_matrix,
    gene_features,
    section_labels,
    spots_on_tissue,
)
from stcsm.models._stacked import onto_one_grid
from stcsm.nets import padded_side
from stcsm.space import (
    IMAGES,
    Pool,
    array_coordinates,
    check_grid_size,
    fold_hexagonal,
    lattice_positions,
    pool_array,
    pool_points,
    whole_positions,
)

logger = logging.getLogger(__name__)

ARRAY = "array"
COORDINATES = "coordinates"
SHARED = 0.5
"""Share of its array positions that a section must have in common with the others, or they with it."""


@dataclass(frozen=True)
class Frame:
    """The array positions that a model knows.

    Attributes
    ----------
    kind
        ``"array"``: positions are rows and columns; ``"coordinates"``: they are coordinates.
    keys
        What tells positions apart, (P, 2 or 3).
    coordinates
        Where they lie, (P, 2 or 3).
    """

    kind: str
    keys: np.ndarray
    coordinates: np.ndarray


@dataclass(frozen=True)
class Sections:
    """Sections of a model, on P array positions.

    Attributes
    ----------
    names
        Names of the B sections, in order.
    frame
        Their array positions.
    section, position
        Section and array position of each of the model's spots, (S',).
    """

    names: tuple[str, ...]
    frame: Frame
    section: np.ndarray
    position: np.ndarray

    def spots(self, section: int) -> np.ndarray:
        """Indices of a section's spots among the model's."""
        return np.flatnonzero(self.section == section)

    def positions(self, section: int | None) -> np.ndarray:
        """Array positions of a section's spots; None is all spots."""
        return self.position if section is None else self.position[self.spots(section)]


class Tissue:
    """The counts that a model reads, and where its spots lie, as they were when the model was made.

    Parameters
    ----------
    adata
        Spots x genes.
    setup
        Where counts, coordinates and sections are.
    spots
        Indices (S',) of the spots that the model knows; by default those on tissue with a count, and their sections are
        found.
    sections
        Sections of these spots, where there are several.
    frame
        Array positions of these spots; by default those that ``adata`` has now.
    pool
        Features of the array positions, where these are pooled.

    Attributes
    ----------
    reader
        Profiles of genes over the model's spots.
    at_positions
        Profiles of samples over the array positions of several sections; of one section, the same as ``reader``.
    pool
        Features that neighbouring array positions are pooled to; None where each is a feature.
    samples
        Profiles of samples over the features.
    section_names
        Names of the sections; empty where no column names them.
    n_beside
        Number of spots beside the tissue, which are left out.
    genes
        Features (G,) that are genes; the others have no counts here.
    """

    def __init__(
        self,
        adata: AnnData,
        setup: Setup,
        spots: np.ndarray | None = None,
        sections: Sections | None = None,
        frame: Frame | None = None,
        pool: Pool | None = None,
    ):
        self.setup = setup
        self.gene_names: pd.Index = adata.var_names
        self.spot_names: pd.Index = adata.obs_names
        self.genes = gene_features(adata, setup)
        self.reader = open_reader(adata, setup, spots)
        beside = ~spots_on_tissue(adata, setup)
        beside[self.reader.spots] = False
        self.n_beside = int(beside.sum())
        self.at_positions = self.reader
        self.sections = find_sections(adata, setup, self.reader.spots) if spots is None else sections
        labels = section_labels(adata, setup)
        if self.sections is not None:
            self.frame = self.sections.frame
            self.section_names = self.sections.names
            self.at_positions = self.reader.in_sections(
                self.sections.section, self.sections.position, len(self.sections.names), len(self.frame.keys)
            )
        else:
            self.section_names = () if labels is None else tuple(np.unique(labels).tolist())
            self.frame = frame or self._positions_now(adata)
        self.pool_by(pool)

    def pool_by(self, pool: Pool | None) -> None:
        """Take these features."""
        self.pool = pool
        self.samples = self.at_positions if pool is None else self.at_positions.pooled(pool)

    def pool_to(self, most: int) -> None:
        """Pool neighbouring array positions to at most so many features, where there are more."""
        frame = self.frame
        if len(frame.keys) <= most:
            return
        if frame.kind == ARRAY:
            rows, cols = frame.keys.astype(np.int64).T
            feature = pool_array(rows, cols, most)
        else:
            feature = pool_points(frame.coordinates, most)
        self.pool_by(Pool(feature, int(feature.max()) + 1))

    @property
    def feature_coordinates(self) -> np.ndarray:
        """Where the features lie, (F, 2 or 3): in the middle of their array positions."""
        return self.frame.coordinates if self.pool is None else self.pool.centroids(self.frame.coordinates)

    def _positions_now(self, adata: AnnData) -> Frame:
        here, known = spot_positions(adata, self.setup.spatial_key), self.reader.spots
        return Frame(here.kind, here.keys[known], here.coordinates[known])

    @property
    def coordinates(self) -> np.ndarray:
        """Coordinates of the model's spots, (S', 2 or 3); of several sections, those of their array positions."""
        return self.frame.coordinates if self.sections is None else self.frame.coordinates[self.sections.position]

    def parts(self) -> list[tuple[str | None, Any]]:
        """Name of each section, and the indices of its spots among the model's; one part, None, where there is one."""
        if self.sections is None:
            return [(None, slice(None))]
        return [(name, self.sections.spots(b)) for b, name in enumerate(self.sections.names)]

    def section_totals(self, section: str | None) -> np.ndarray:
        """Counts of each gene (G,) in a section; None is all sections together."""
        b = self.section_index(section)
        return self.reader.gene_totals if b is None else self.samples.gene_totals[self.samples_of(b)]

    def expected_counts(self, genes: np.ndarray, spots: np.ndarray | None = None) -> np.ndarray:
        """Counts (n, S') of genes that follow depth alone: n_g d_s, within each section.

        With ``spots`` (n,), those of each gene at its spot, (n,).
        """
        if spots is not None:
            if self.sections is None:
                return (self.reader.gene_totals[genes] * self.reader.depth[spots]).astype(np.float32)
            b = self.sections.section[spots]
            totals = self.samples.gene_totals[genes + b * self.reader.n_genes]
            return (totals * self.at_positions.depth[b, self.sections.position[spots]]).astype(np.float32)
        if self.sections is None:
            return np.outer(self.reader.gene_totals[genes], self.reader.depth).astype(np.float32)
        out = np.empty((len(genes), self.reader.n_spots), dtype=np.float32)
        for b, name in enumerate(self.sections.names):
            own = self.sections.spots(b)
            depth = self.at_positions.depth[b, self.sections.position[own]]
            out[:, own] = np.outer(self.section_totals(name)[genes], depth)
        return out

    def to_spots(self, maps: np.ndarray, section: int | None = None) -> np.ndarray:
        """Bring maps over features, (..., F), to the model's spots: each gets the value of its feature."""
        if self.sections is None:
            return maps if self.pool is None else self.pool.repeat(maps)
        position = self.sections.positions(section)
        return maps[..., position if self.pool is None else self.pool.feature[position]]

    def spot_pool(self, section: int | None = None) -> Pool | None:
        """Features of the model's spots, or of a section's; None where nothing is pooled."""
        if self.pool is None or self.sections is None:
            return self.pool
        return self.pool.part(self.sections.positions(section))

    def spot_depth(self, section: int | None = None) -> np.ndarray:
        """Depth of the model's spots, or of a section's."""
        depth = self.reader.depth
        return depth if self.sections is None or section is None else depth[self.sections.spots(section)]

    def spot_counts(self, genes: np.ndarray, section: int | None = None) -> sparse.csr_array:
        """Counts of genes at the model's spots, or at a section's."""
        counts = self.reader.sparse_profiles(genes)
        if self.sections is None or section is None:
            return counts
        return sparse.csr_array(counts[:, self.sections.spots(section)])

    def to_all_spots(self, maps: np.ndarray, counted: bool = False) -> np.ndarray:
        """Bring maps over the model's spots to all spots, (..., S); NaN elsewhere, see ``GeneVAE.to_all_spots``."""
        full = np.full((*maps.shape[:-1], self.reader.n_all_spots), np.nan, dtype=maps.dtype)
        full[..., self.reader.spots] = maps
        if counted:
            full[..., self.reader.spots[self.reader.depth == 0]] = np.nan
        return full

    def section_index(self, section: str | None) -> int | None:
        """Number of a section; None where all are meant, or there is one.

        Raises
        ------
        ValueError
            If there is no such section.
        """
        if section is None:
            return 0 if self.sections is not None and len(self.sections.names) == 1 else None
        if section not in self.section_names:
            raise ValueError(
                f"Expected a section among {self.section_names}, found {section!r}"
                if self.section_names
                else f"Expected a model of several sections to take {section!r} of, found one that knows no sections; "
                "name their column: GeneVAE.setup_anndata(adata, batch_key=...)"
            )
        return None if self.sections is None else self.section_names.index(section)

    def samples_of(self, section: int) -> np.ndarray:
        """Samples (G,) of a section."""
        return np.arange(self.reader.n_genes) + section * self.reader.n_genes

    def samples_of_genes(self, genes: np.ndarray) -> np.ndarray:
        """Samples of genes in all sections, in the order of the genes, section by section."""
        n = self.reader.n_genes
        return (genes + n * np.arange(self.samples.n_genes // n)[:, None]).ravel()

    def gene_index(self, genes: Any) -> np.ndarray:
        """Indices of genes that are given by name, index or mask; None is all.

        Raises
        ------
        ValueError
            If a gene is unknown.
        """
        n_genes = self.reader.n_genes
        if genes is None:
            return np.arange(n_genes)
        genes = np.atleast_1d(np.asarray(genes))
        if genes.dtype == bool:
            if genes.shape != (n_genes,):
                raise ValueError(f"Expected a mask of {n_genes} genes, found shape {genes.shape}")
            return np.flatnonzero(genes)
        if genes.dtype.kind in "iu":
            outside = (genes < 0) | (genes >= n_genes)
            if outside.any():
                raise ValueError(f"Expected indices from 0 to {n_genes - 1}, found {genes[outside][0]}")
            return genes
        index = self.gene_names.get_indexer(genes)
        if (index < 0).any():
            raise ValueError(f"Expected gene names of this AnnData, found {genes[index < 0][0]!r}")
        return index


def open_reader(adata: AnnData, setup: Setup, spots: np.ndarray | None = None) -> GeneReader:
    """Read the counts of an AnnData: those of genes, by default at the spots on tissue with a count."""
    return GeneReader.open(
        counts_matrix(adata, setup.layer),
        spots,
        among=spots_on_tissue(adata, setup),
        genes=gene_features(adata, setup),
    )


def spot_positions(adata: AnnData, spatial_key: str) -> Frame:
    """Array position of each spot: row and column where all spots have whole ones, else its coordinates."""
    coordinates = check_coordinates(adata, spatial_key)
    whole = whole_positions(adata.obs.get(_keys.ARRAY_ROW), adata.obs.get(_keys.ARRAY_COL))
    if whole is None:
        return Frame(COORDINATES, coordinates, coordinates)
    return Frame(ARRAY, np.column_stack(whole).astype(np.float64), coordinates)


def find_sections(adata: AnnData, setup: Setup, spots: np.ndarray | None = None) -> Sections | None:
    """Find the sections of an AnnData on the array positions that they share; None where it has only one.

    Neither positions nor sections depend on the order of the spots: both are sorted.

    Parameters
    ----------
    adata
        Spots x genes.
    setup
        Names the column of the sections, and the coordinates.
    spots
        Indices (S',) of the spots to take; None is all.

    Raises
    ------
    ValueError
        If two spots of a section have one array position, or a section shares too few of them with the others.
    """
    labels = section_labels(adata, setup)
    if labels is None:
        return None
    spots = np.arange(adata.n_obs) if spots is None else spots
    names, section = np.unique(labels[spots], return_inverse=True)
    if len(names) < 2:
        return None
    here = spot_positions(adata, setup.spatial_key)
    keys, position = np.unique(here.keys[spots], axis=0, return_inverse=True)
    position = position.ravel()
    words = tuple(str(name) for name in names)
    _check_one_each(words, section, position, here.kind, setup.spatial_key, _keys.holds_bins(adata))
    fix = "register the sections first: shift and turn their rows and columns (array_row, array_col) into one frame"
    if here.kind == COORDINATES:
        on_array = adata.obsm.get(_keys.SPATIAL_ARRAY, here.coordinates)
        fix = "bring them onto one grid: " + onto_one_grid(np.asarray(on_array)[spots], section, str(setup.batch_key))
    _check_shared(words, section, position, keys, here.kind, setup.spatial_key, fix)
    where = array_coordinates(*keys.astype(np.int64).T) if here.kind == ARRAY else keys
    return Sections(words, Frame(here.kind, keys, where), section, position)


def find_on_frame(frame: Frame, adata: AnnData, setup: Setup, spots: np.ndarray) -> tuple[np.ndarray, Sections]:
    """Match the spots of another AnnData to the array positions that a model knows.

    Parameters
    ----------
    frame
        The model's array positions.
    adata, setup
        The other AnnData.
    spots
        Indices (S') of its spots with counts.

    Returns
    -------
    Indices of the spots that have known positions, and their sections.

    Raises
    ------
    ValueError
        If positions are of another kind, two spots of a section share one, or fewer than half of the positions are in
        common.
    """
    here = spot_positions(adata, setup.spatial_key)
    if here.kind != frame.kind:
        found = {ARRAY: "whole rows and columns", COORDINATES: "coordinates alone"}
        raise ValueError(
            f"Expected {found[frame.kind]} as array positions, as the model was trained with, found "
            f"{found[here.kind]}; "
            + (
                "give the spots rows and columns of the same grid: stcsm.pp.to_grid(adata)"
                if frame.kind == ARRAY
                else "remove obs['array_row'] and obs['array_col'], or train with them"
            )
        )
    if here.keys.shape[1] != frame.keys.shape[1]:
        raise ValueError(
            f"Expected array positions of {frame.keys.shape[1]} coordinates, as the model's are, found "
            f"{here.keys.shape[1]}"
        )
    known = pd.MultiIndex.from_arrays(list(frame.keys.T))
    if known.has_duplicates:
        raise ValueError(
            f"Expected a model with one spot at each array position, found {int(known.duplicated().sum())} that share "
            "one; train it on bins: stcsm.pp.bin_spots(adata)"
        )
    position = known.get_indexer(pd.MultiIndex.from_arrays(list(here.keys[spots].T)))
    labels = section_labels(adata, setup)
    own = np.full(len(spots), "") if labels is None else labels[spots]
    names, section = np.unique(own, return_inverse=True)
    words = tuple(str(name) for name in names)
    on = position >= 0
    for b, name in enumerate(words):
        mine = section == b
        common, least = int((on & mine).sum()), min(int(mine.sum()), len(known))
        if common < SHARED * least:
            raise ValueError(
                f"Expected a section on the model's {len(known)} array positions, found that {common} of the "
                f"{int(mine.sum())} spots{f' of {name!r}' if name else ''} have one of them; bring it into the model's "
                "frame: the same origin and unit, stcsm.pp.to_grid over both sections together"
            )
    _check_one_each(words, section[on], position[on], here.kind, setup.spatial_key, _keys.holds_bins(adata))
    return spots[on], Sections(words, frame, section[on], position[on])


def _where(kind: str, spatial_key: str) -> str:
    return "(array_row, array_col)" if kind == ARRAY else f"obsm[{spatial_key!r}]"


def _check_one_each(
    names: tuple[str, ...], section: np.ndarray, position: np.ndarray, kind: str, key: str, are_bins: bool
) -> None:
    both = np.column_stack([section, position])
    taken, n = np.unique(both, axis=0, return_counts=True)
    if (n == 1).all():
        return
    worst = int(taken[n > 1][0, 0])
    at_fault = (n > 1) & (taken[:, 0] == worst)
    raise ValueError(
        f"Expected one spot of a section at each array position, found that {int(n[at_fault].sum())} spots"
        f"{f' of section {names[worst]!r}' if names[worst] else ''} share {int(at_fault.sum())} positions by "
        f"{_where(kind, key)}; "
        + ("" if are_bins else "give each its own with stcsm.pp.to_grid, or ")
        + "add them up: adata = stcsm.pp.bin_spots(adata)"
    )


def _check_shared(
    names: tuple[str, ...], section: np.ndarray, position: np.ndarray, keys: np.ndarray, kind: str, key: str, fix: str
) -> None:
    has = np.zeros((len(names), len(keys)), dtype=bool)
    has[section, position] = True
    for b, name in enumerate(names):
        others = np.delete(has, b, axis=0).any(axis=0)
        common, least = int((has[b] & others).sum()), int(min(has[b].sum(), others.sum()))
        if common >= SHARED * least:
            continue
        raise ValueError(
            f"Expected sections on shared array positions, found that section {name!r} has {common} of its "
            f"{int(has[b].sum())} positions by {_where(kind, key)} in common with the others "
            f"({_extents(names, has, keys)}); {fix}"
        )


def _extents(names: tuple[str, ...], has: np.ndarray, keys: np.ndarray) -> str:
    said = []
    for b, name in enumerate(names[:4]):
        low, high = keys[has[b]].min(axis=0), keys[has[b]].max(axis=0)
        said.append(f"{name!r}: " + " x ".join(f"{lo:g} to {hi:g}" for lo, hi in zip(low, high, strict=True)))
    return "; ".join(said) + ("; ..." if len(names) > 4 else "")


def grid_cells(adata: AnnData, tissue: Tissue) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the cells of a convolutional model's grid, cropped to the spots and padded only as far as halving needs.

    Whole numbers in ``obs["array_row"]`` and ``obs["array_col"]`` are taken as they are (those of a hexagonal array
    without its gaps); otherwise the lattice is found from the coordinates.

    Returns
    -------
    Cell ``row * W + column`` of each spot, (S',), or of each array position of several sections, (P,); and the grid's
    shape (H, W).

    Raises
    ------
    ValueError
        If there are no rows and columns and the coordinates lie on no lattice.
    MemoryError
        If the grid would not fit.
    """
    if tissue.sections is not None:
        frame = tissue.sections.frame
        if frame.kind == ARRAY:
            rows, cols = frame.keys.astype(np.int64).T
            return _cells(rows, cols)
        return _cells(*_on_lattice(frame.coordinates, "the frame of the sections"))
    whole = whole_positions(adata.obs.get(_keys.ARRAY_ROW), adata.obs.get(_keys.ARRAY_COL))
    if whole is None:
        key = _keys.SPATIAL_ARRAY if _keys.SPATIAL_ARRAY in adata.obsm else tissue.setup.spatial_key
        whole = _on_lattice(check_coordinates(adata, key), f"adata.obsm[{key!r}]")
    return _cells(whole[0][tissue.reader.spots], whole[1][tissue.reader.spots])


def _on_lattice(coordinates: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    found = lattice_positions(coordinates)
    if found is None:
        raise ValueError(
            f"Expected spots on an array for a convolutional model, found that {what} lies on none; "
            "give each spot a cell first: stcsm.pp.to_grid(adata, bin_size=...)"
        )
    return found.rows, found.cols


def _cells(rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    cols = fold_hexagonal(rows, cols)
    rows, cols = rows - rows.min(), cols - cols.min()
    n_rows, n_cols = int(rows.max()) + 1, int(cols.max()) + 1
    check_grid_size(n_rows, n_cols, 'take larger bins, or encoder="mlp", which needs no grid', IMAGES)
    shape = padded_side(n_rows), padded_side(n_cols)
    cells = rows * shape[1] + cols
    shared = len(cells) - len(np.unique(cells))
    if shared:
        logger.info(f"{shared} of {len(cells)} spots share a cell with others; the encoder sees their counts together")
    return cells, shape

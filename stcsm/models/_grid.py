"""The grid that a convolutional model works on, from what an AnnData says about its spots."""

from __future__ import annotations

import logging

import numpy as np
from anndata import AnnData

from stcsm import _keys
from stcsm.models._sections import ARRAY, Frame
from stcsm.models._setup import check_coordinates
from stcsm.nets import padded_side
from stcsm.space import IMAGES, check_grid_size, fold_hexagonal, lattice_places, whole_places

logger = logging.getLogger(__name__)


def grid_cells(adata: AnnData, spots: np.ndarray, spatial_key: str) -> tuple[np.ndarray, tuple[int, int]]:
    """Cell of each spot on a grid cropped to the spots and padded only as far as halving needs.

    Whole numbers in ``obs["array_row"]`` and ``obs["array_col"]`` are taken as they stand (those of a hexagonal array
    without its gaps); otherwise the lattice is found from the coordinates.

    Parameters
    ----------
    adata
        The tissue.
    spots
        Indices (S',) of the spots that the model knows.
    spatial_key
        Key of the coordinates in ``.obsm``.

    Returns
    -------
    Cells ``row * W + column`` (S',), and the grid's shape (H, W).

    Raises
    ------
    ValueError
        If there are no places and the coordinates lie on no lattice.
    MemoryError
        If the grid would not fit.
    """
    places = whole_places(adata.obs.get(_keys.ARRAY_ROW), adata.obs.get(_keys.ARRAY_COL))
    if places is None:
        key = _keys.SPATIAL_ARRAY if _keys.SPATIAL_ARRAY in adata.obsm else spatial_key
        places = _on_lattice(check_coordinates(adata, key), f"adata.obsm[{key!r}]")
    return _cells(places[0][spots], places[1][spots])


def place_cells(frame: Frame) -> tuple[np.ndarray, tuple[int, int]]:
    """Cell of each place that several sections share, and the grid's shape: see :func:`grid_cells`."""
    if frame.kind == ARRAY:
        rows, cols = frame.keys.astype(np.int64).T
        return _cells(rows, cols)
    return _cells(*_on_lattice(frame.coordinates, "the places of the sections"))


def _on_lattice(coordinates: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    found = lattice_places(coordinates)
    if found is None:
        raise ValueError(
            f"Expected spots on an array for a convolutional model, found that {what} lies on none; "
            "give each spot a cell first: stcsm.pp.to_grid(adata, bin_size=...)"
        )
    return found.rows, found.cols


def _cells(rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    cols = fold_hexagonal(rows, cols)
    rows, cols = rows - rows.min(), cols - cols.min()
    check_grid_size(
        int(rows.max()) + 1, int(cols.max()) + 1, 'take larger bins, or encoder="mlp", which needs no grid', IMAGES
    )
    shape = padded_side(int(rows.max()) + 1), padded_side(int(cols.max()) + 1)
    cells = rows * shape[1] + cols
    shared = len(cells) - len(np.unique(cells))
    if shared:
        logger.info(f"{shared} of {len(cells)} spots share a cell with others; the encoder sees their counts together")
    return cells, shape

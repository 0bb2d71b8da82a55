"""Where the published code puts a spot on its grid."""

from __future__ import annotations

import logging

import numpy as np
from anndata import AnnData

from stcsm import _keys
from stcsm.nets import SIZE

logger = logging.getLogger(__name__)


def published_cells(adata: AnnData, spots: np.ndarray) -> np.ndarray:
    """Cell ``y * 32 + x`` of each spot, x = int(x + 0.5) - 1 and y = int(y + 0.5) of its array coordinates.

    Spots beyond the 32 x 32 cells are brought in by shifting all of them, where they fit.

    Parameters
    ----------
    adata
        Has ``obsm["spatial_array"]``, or ``obs["array_col"]`` and ``obs["array_row"]``.
    spots
        Indices (S',) of the spots that the model knows.

    Raises
    ------
    ValueError
        If there are no array coordinates, they are not finite, or the spots do not fit 32 x 32 cells.
    """
    if _keys.SPATIAL_ARRAY in adata.obsm:
        places = np.asarray(adata.obsm[_keys.SPATIAL_ARRAY], dtype=np.float64)
    elif {_keys.ARRAY_COL, _keys.ARRAY_ROW} <= set(adata.obs):
        places = adata.obs[[_keys.ARRAY_COL, _keys.ARRAY_ROW]].to_numpy(dtype=np.float64)
    else:
        raise ValueError(
            "Expected array coordinates in adata.obsm['spatial_array'] or in obs['array_col'] and obs['array_row'], "
            "found neither; read ST files with stcsm.io.read_st, or run stcsm.pp.to_grid(adata) first"
        )
    places = places[spots]
    if places.ndim != 2 or places.shape[1] != 2 or not np.isfinite(places).all():
        raise ValueError("Expected two finite array coordinates for every spot, found others; drop those spots")
    # int() cuts off towards zero.
    cells = np.trunc(places + 0.5).astype(np.int64) - [1, 0]
    low, extent = cells.min(axis=0), np.ptp(cells, axis=0) + 1
    if (extent > SIZE).any():
        raise ValueError(
            f"Expected spots that fit the {SIZE} x {SIZE} cells of the published model, found {extent[0]} columns and "
            f'{extent[1]} rows; take GeneVAE(adata, encoder="conv"), whose grid is as large as the tissue'
        )
    shift = np.where((low < 0) | (cells.max(axis=0) >= SIZE), (SIZE - extent) // 2 - low, 0)
    if shift.any():
        logger.warning(f"spots lie beyond the published grid; all are shifted by {shift[0]} columns, {shift[1]} rows")
    x, y = (cells + shift).T
    flat = y * SIZE + x
    shared = len(flat) - len(np.unique(flat))
    if shared:
        logger.warning(f"{shared} of {len(flat)} spots share a cell with others; their counts are added up there")
    return flat

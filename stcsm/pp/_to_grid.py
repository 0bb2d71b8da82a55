"""Spots to the cells of a grid."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from anndata import AnnData

from stcsm import _keys
from stcsm._lazy import check_writable, columns
from stcsm.pp._sections import section_codes
from stcsm.space import (
    ArrayPositions,
    bin_positions,
    bins_across,
    check_grid_size,
    lattice_positions,
    shared_lattice_positions,
    whole_positions,
)

logger = logging.getLogger(__name__)


def to_grid(
    adata: AnnData,
    bin_size: float | None = None,
    n_bins: int | None = None,
    *,
    spatial_key: str | None = None,
    microns_per_unit: float | None = None,
    batch_key: str | None = None,
) -> None:
    """Give every spot a cell of a grid: a row and a column.

    Without ``bin_size`` and ``n_bins`` the spots are taken to lie on an array. Whole numbers that stand in
    ``.obs["array_row"]`` and ``.obs["array_col"]`` (Visium) stay as they are; otherwise the square or hexagonal lattice
    is found from coordinates of any unit, rotation and offset, and every spot gets a cell of its own: where two have
    the same, the nearer keeps it and the other goes to the nearest free cell, with a warning. Clouds of points (cells,
    beads, small bins) are binned, and may share a cell: :func:`stcsm.pp.bin_spots` adds them up,
    :func:`stcsm.pp.from_bins` brings maps back to them.

    Parameters
    ----------
    adata
        Spots x genes. Only coordinates are read.
    bin_size
        Side of a bin in micrometres.
    n_bins
        Bins along the longer side of the tissue, instead of ``bin_size``.
    spatial_key
        Key of the coordinates in ``.obsm``, (S, 2); by default array coordinates (``"spatial_array"``) where there are
        any and no bins are asked for, else ``"spatial"``.
    microns_per_unit
        Micrometres a unit of the coordinates; by default ``microns_per_pixel`` of Space Ranger's scale factors where it
        is there, else 1.
    batch_key
        Column of ``.obs`` that names each spot's section, where there are several in one frame of coordinates. All get
        the rows and columns of one grid: the lattice of the section with most spots, or bins from one corner on; two
        spots of different sections may have the same cell.

    Writes
    ------
    ``adata.obs["array_row"]``, ``adata.obs["array_col"]``
        Whole numbers. Columns of a hexagonal array count half steps, as Space Ranger's do. Array coordinates that stood
        there and are no whole numbers are kept in ``adata.obsm["spatial_array"]``.
    ``adata.uns["stcsm"]["grid"]``
        The kind (``"given"``, ``"square"``, ``"hexagonal"``, ``"bins"``), rows and columns, the names of the spots that
        had to move, the largest number of spots a cell, and, where the grid was found here, coordinates of cell (0, 0)
        (``origin``) and of a step of one column and one row (``axes``); ``batch_key``, where it was given.

    Raises
    ------
    TypeError
        If ``adata`` is not an AnnData.
    ValueError
        If there are no coordinates, they are not finite or not two a spot, the spots lie on no lattice and no bins are
        asked for, a setting is out of range, or ``adata`` is a view of a backed AnnData.
    MemoryError
        If so large a grid does not fit the memory.
    """
    if not isinstance(adata, AnnData):
        raise TypeError(f"Expected an AnnData (spots x genes), found {type(adata).__name__}")
    check_writable(adata)
    if bin_size is not None and n_bins is not None:
        raise ValueError("Expected bin_size or n_bins, found both")
    if microns_per_unit is not None and not (np.isfinite(microns_per_unit) and microns_per_unit > 0):
        raise ValueError(f"Expected a positive microns_per_unit, found {microns_per_unit!r}")
    binned = bin_size is not None or n_bins is not None
    sections = section_codes(adata, batch_key)
    given = whole_positions(adata.obs.get(_keys.ARRAY_ROW), adata.obs.get(_keys.ARRAY_COL))
    if not binned and spatial_key is None and given is not None and not _keys.holds_bins(adata):
        check_grid_size(int(np.ptp(given[0])) + 1, int(np.ptp(given[1])) + 1)
        _write(adata, given, {"kind": "given", "moved": np.zeros(0, dtype=object)}, sections, batch_key)
        return
    key = _coordinates_key(adata, spatial_key, binned)
    coords = np.asarray(adata.obsm[key])
    if binned:
        positions = bin_positions(coords, _side(adata, coords, bin_size, n_bins, microns_per_unit))
    else:
        found = lattice_positions(coords) if sections is None else shared_lattice_positions(coords, sections)
        if found is None:
            n_sections = 1 if sections is None else int(sections.max()) + 1
            n_bins = bins_across(len(coords), n_sections)
            with_key = "" if batch_key is None else f", batch_key={batch_key!r}"
            raise ValueError(
                f"Expected spots on a square or hexagonal array, found that adata.obsm[{key!r}] lies on none; say how "
                f"large the bins are to be, bin_size=... (micrometres) or n_bins=..., such as for about 4 spots a bin "
                f"stcsm.pp.to_grid(adata, n_bins={n_bins}{with_key}), then adata = stcsm.pp.bin_spots(adata)"
            )
        positions = found
    if len(positions.moved):
        names = ", ".join(map(str, adata.obs_names[positions.moved[:5]]))
        logger.warning(
            f"{len(positions.moved)} of {adata.n_obs} spots fell on the cell of another spot and went to the nearest "
            f"free one: {names}{', ...' if len(positions.moved) > 5 else ''}; no counts are lost"
        )
    _keep_array_coordinates(adata)
    _write(adata, (positions.rows, positions.cols), _record(adata, positions, key), sections, batch_key)


def _coordinates_key(adata: AnnData, spatial_key: str | None, binned: bool) -> str:
    key = spatial_key
    if key is None:
        key = _keys.SPATIAL_ARRAY if _keys.SPATIAL_ARRAY in adata.obsm and not binned else _keys.SPATIAL
    if key not in adata.obsm:
        raise ValueError(f"Expected coordinates in adata.obsm[{key!r}], found {sorted(map(str, adata.obsm))}")
    return key


def _side(
    adata: AnnData, coords: np.ndarray, bin_size: float | None, n_bins: int | None, microns_per_unit: float | None
) -> float:
    """Side of a bin in the coordinates' unit."""
    if n_bins is not None:
        if isinstance(n_bins, bool) or not isinstance(n_bins, (int, np.integer)) or n_bins < 1:
            raise ValueError(f"Expected n_bins to be a whole number of 1 or more, found {n_bins!r}")
        finite = coords[np.isfinite(coords.astype(np.float64)).all(axis=1)].astype(np.float64)
        extent = float(np.ptp(finite, axis=0).max()) if len(finite) else 0.0
        # The point at the far rim belongs to the last bin, not to one more.
        return extent / int(n_bins) * (1 + 1e-9) if extent else 1.0
    if not (isinstance(bin_size, (int, float, np.integer, np.floating)) and np.isfinite(bin_size) and bin_size > 0):
        raise ValueError(f"Expected bin_size to be a positive number of micrometres, found {bin_size!r}")
    return float(bin_size) / (microns_per_unit or _microns_per_pixel(adata) or 1.0)


def _microns_per_pixel(adata: AnnData) -> float | None:
    for library in dict(adata.uns.get(_keys.SPATIAL, {})).values():
        if isinstance(library, dict) and (library.get("scalefactors") or {}).get("microns_per_pixel"):
            return float(library["scalefactors"]["microns_per_pixel"])
    return None


def _record(adata: AnnData, positions: ArrayPositions, key: str) -> dict[str, Any]:
    return {
        "kind": positions.kind,
        "spatial_key": key,
        "moved": np.asarray(adata.obs_names[positions.moved], dtype=object),
        "origin": positions.origin,
        "axes": positions.axes,
        "residual": positions.residual,
    }


def _keep_array_coordinates(adata: AnnData) -> None:
    """Array coordinates with fractions, before whole numbers replace them."""
    if _keys.SPATIAL_ARRAY in adata.obsm or not {_keys.ARRAY_COL, _keys.ARRAY_ROW} <= set(adata.obs):
        return
    if whole_positions(adata.obs[_keys.ARRAY_ROW], adata.obs[_keys.ARRAY_COL]) is None:
        adata.obsm[_keys.SPATIAL_ARRAY] = columns(adata.obs, [_keys.ARRAY_COL, _keys.ARRAY_ROW])


def _write(
    adata: AnnData,
    positions: tuple[np.ndarray, np.ndarray],
    record: dict[str, Any],
    sections: np.ndarray | None,
    batch_key: str | None,
) -> None:
    rows, cols = positions
    if batch_key is not None:
        record["batch_key"] = batch_key
    of_section = np.zeros(len(rows), dtype=np.int64) if sections is None else sections
    _, shared = np.unique(np.column_stack([of_section, rows, cols]), axis=0, return_counts=True)
    record |= {
        "n_rows": int(np.ptp(rows)) + 1,
        "n_cols": int(np.ptp(cols)) + 1,
        "n_cells": len(np.unique(np.column_stack([rows, cols]), axis=0)),
        "most_spots_a_cell": int(shared.max()),
    }
    adata.obs[_keys.ARRAY_ROW], adata.obs[_keys.ARRAY_COL] = rows, cols
    adata.uns[_keys.UNS] = {**adata.uns.get(_keys.UNS, {}), "grid": record}

"""One entry for every format: it looks at what the path is and calls the reader."""

from __future__ import annotations

from pathlib import Path

import anndata as ad

from stcsm import _keys
from stcsm._files import existing_file
from stcsm.io._spaceranger import looks_like_spaceranger, read_spaceranger
from stcsm.io._spatialdata import is_zarr, read_store
from stcsm.io._st import read_st

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
TEXT_SUFFIXES = (".tsv", ".txt", ".csv", ".tab")
KNOWN = (
    ".h5ad, a SpatialData store (.zarr), an ST text table (.tsv, .txt, .csv, plain or .gz), or a Space Ranger outs "
    "folder"
)


def read(
    path: str | Path, *, layer: str | None = None, table: str | None = None, coordinate_system: str = "global"
) -> ad.AnnData:
    """Read counts with coordinates from any format stcsm knows.

    Parameters
    ----------
    path
        `.h5ad`; a SpatialData store, or an AnnData kept as zarr; ST text (`.tsv`, `.txt`, `.csv`, plain or gzipped; see
        `read_st`); a Space Ranger `outs` folder, or the folder that holds it.
    layer
        Entry of ``adata.layers`` that must exist (the counts of a `.h5ad` are often in a layer).
    table
        Of a SpatialData store: name of the table; may be left out where there is only one.
    coordinate_system
        Of a SpatialData store: where the centroids of shapes or labels are taken, for a table without coordinates.

    Returns
    -------
    AnnData
        Spots x genes.

    Raises
    ------
    FileNotFoundError
        Nothing there, or a folder without what Space Ranger writes.
    ValueError
        A format without coordinates (a bare 10x matrix), an unknown or damaged file, or no such layer.
    """
    path = Path(path).expanduser()
    if path.is_dir() and (is_zarr(path) or path.suffix == ".zarr"):
        adata = read_store(path, table, coordinate_system=coordinate_system)
    elif table is not None:
        raise ValueError(f"Expected a SpatialData store with table=, found {path}; leave table= out.")
    elif path.is_dir():
        adata = _read_folder(path)
    else:
        adata = _read_file(existing_file(path, f"counts ({KNOWN})"))
    if layer is not None and layer not in adata.layers:
        there = ", ".join(map(repr, _keys.layer_names(adata.layers))) or "none"
        raise ValueError(
            f"Expected a layer {layer!r}, found {there} in {path}; check layer=, or leave it out to use .X."
        )
    return adata


def _read_folder(folder: Path) -> ad.AnnData:
    outs = folder if looks_like_spaceranger(folder) else folder / "outs"
    if not (outs.is_dir() and looks_like_spaceranger(outs)):
        raise FileNotFoundError(f"Expected {KNOWN}, found a folder without anything Space Ranger writes: {folder}.")
    return read_spaceranger(outs)


def _read_file(path: Path) -> ad.AnnData:
    with path.open("rb") as file:
        hdf5 = file.read(len(HDF5_MAGIC)) == HDF5_MAGIC
    if hdf5:
        return _read_hdf5(path)
    name = path.name.lower()
    if name.endswith((".h5", ".h5ad", ".hdf5")):
        raise ValueError(f"Expected an HDF5 file, found other content in {path}; it is damaged or misnamed.")
    if name.removesuffix(".gz").endswith(TEXT_SUFFIXES):
        return read_st(path)
    raise ValueError(f"Expected {KNOWN}, found a file of unknown kind: {path}.")


def _read_hdf5(path: Path) -> ad.AnnData:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            groups = set(file)
    except OSError as error:
        raise ValueError(
            f"Expected a whole HDF5 file, found one that does not open ({error}): {path}; copy it again."
        ) from error
    if {"obs", "var"} <= groups:
        try:
            return ad.read_h5ad(path)
        except Exception as error:  # anndata meets a foreign file with whatever its readers happen to raise
            raise ValueError(
                f"Expected an AnnData file, found one that anndata cannot read: {path} ({error})."
            ) from error
    if "matrix" in groups:
        raise ValueError(
            f"Expected counts with coordinates, found a bare 10x matrix, which has none: {path}; "
            "give the Space Ranger outs folder that holds both this file and spatial/."
        )
    raise ValueError(f"Expected an AnnData file with obs and var, found the groups {sorted(groups)} in {path}.")

"""One entry for every format: it looks at what the path is and calls the reader."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata as ad

from stcsm import _keys
from stcsm._files import existing_file
from stcsm._text import listed
from stcsm.io._gef import read_gef
from stcsm.io._gem import is_gem, read_gem
from stcsm.io._section import join_sections, section_name
from stcsm.io._spaceranger import has_positions, looks_like_spaceranger, read_spaceranger
from stcsm.io._spatialdata import is_zarr, read_store
from stcsm.io._st import count_tables, is_text, read_st, read_st_folder
from stcsm.io._tenx import is_tenx
from stcsm.io._vendors import VENDORS, read_vendor, vendor_of
from stcsm.space import available_memory

logger = logging.getLogger(__name__)

SHARE = 1 / 8
"""Share of the free memory up to which counts of an .h5ad are read: the model and the spot graph make copies."""
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
KNOWN = (
    ".h5ad, a SpatialData store (.zarr), an ST text table (.tsv, .txt, .csv, plain or .gz), .gef, .gem, or a folder of "
    "ST text tables, Space Ranger, " + ", ".join(vendor.name for vendor in VENDORS[:-1]) + f" or {VENDORS[-1].name}"
)


def read(
    path: str | Path | Sequence[str | Path],
    *,
    layer: str | None = None,
    bin_size: int | None = None,
    keep_background: bool = False,
    table: str | None = None,
    coordinate_system: str = "global",
    backed: bool | None = None,
) -> ad.AnnData:
    """Read counts with coordinates from any format stcsm knows.

    Parameters
    ----------
    path
        `.h5ad`; a SpatialData store, or an AnnData kept as zarr; ST text (`.tsv`, `.txt`, `.csv`, plain or gzipped; see
        `read_st`); a Space Ranger `outs` folder of any version, of Visium HD too, the folder that holds it, or its
        matrix (`.h5`, `.mtx`) with `spatial/` beside it; a folder of Xenium, CosMx, MERSCOPE, STARmap PLUS, seqFISH,
        Stereo-seq (also a `.gef` or `.gem`) or Curio; a folder of ST text, in which every table of counts is a section,
        with the transformation and image of the same name. A list of these is read as one AnnData of several sections.
    layer
        Entry of ``adata.layers`` that must exist (the counts of a `.h5ad` are often in a layer), or ``"raw"`` for
        ``adata.raw``.
    bin_size
        Side of the bins of Visium HD in micrometres (by default 8 if there, else the largest), or of a `.gef` or `.gem`
        in DNBs (by default its cells, else 50).
    keep_background
        Keep the spots of Space Ranger that lie beside the tissue (``in_tissue`` 0).
    table
        Of a SpatialData store: name of the table; may be left out where there is only one.
    coordinate_system
        Of a SpatialData store: where the centroids of shapes or labels are taken, for a table without coordinates.
    backed
        Leave the counts of a single `.h5ad` in the file (as ``anndata.read_h5ad(path, backed="r")``), from which every
        step reads them in blocks. None: where they would take more than an eighth of the free memory.

    Returns
    -------
    AnnData
        Spots (or cells) x genes, coordinates in ``.obsm["spatial"]``. Of several sections: their names in
        ``.obs["section"]``, spots named `spot-section`, and ``.uns["spatial"]`` by section.

    Warns
    -----
    UserWarning
        Spots beside the tissue, or features that are no genes (antibodies, CRISPR guides, blanks, negative controls),
        were left out of what a platform wrote; gene symbols that occur twice were numbered.

    Raises
    ------
    FileNotFoundError
        Nothing there, or a folder of no platform that is known, or one that lacks a file.
    ValueError
        A format without coordinates (a bare 10x matrix), an unknown or damaged file, no such layer, or a `bin_size`
        where there are no bins.
    """
    bin_size = _whole(bin_size)
    paths = [Path(one).expanduser() for one in ([path] if isinstance(path, str | Path) else path)]
    if not paths:
        raise ValueError("Expected at least one path, found an empty list.")
    sections: list[tuple[str, ad.AnnData]] = []
    # a table in the ST format has no column for a gene without a count; other files name all that were looked for
    absent_is_zero = True
    for one in paths:
        found, is_st = _read_one(
            one, bin_size, keep_background, table, coordinate_system, backed if len(paths) == 1 else False
        )
        _check_layer(found, layer, one)
        sections += found
        absent_is_zero &= is_st
    return join_sections(sections, genes="outer" if absent_is_zero else "inner")


def _whole(bin_size: Any) -> int | None:
    """Side of a bin as a number; text and floats will do where they are whole ("16", 8.0)."""
    if bin_size is None:
        return None
    try:
        size = float(bin_size)
    except (TypeError, ValueError):
        size = 0.0
    if not size.is_integer() or size < 1:
        raise ValueError(
            f"Expected bin_size as a whole number, such as 16, found {bin_size!r}; give the side of a bin without its "
            "unit."
        )
    return int(size)


def _check_layer(sections: list[tuple[str, ad.AnnData]], layer: str | None, path: Path) -> None:
    for _, adata in sections:
        if layer is not None and layer not in adata.layers and not (layer == "raw" and adata.raw is not None):
            there = ", ".join(map(repr, _keys.layer_names(adata.layers))) or "none"
            raise ValueError(
                f"Expected a layer {layer!r}, found {there} in {path}; check layer=, or leave it out to use .X."
            )


def _read_one(
    path: Path,
    bin_size: int | None,
    keep_background: bool,
    table: str | None,
    coordinate_system: str,
    backed: bool | None,
) -> tuple[list[tuple[str, ad.AnnData]], bool]:
    """Name and spots x genes of each section that a path holds, and whether it is text in the ST format."""
    if path.is_dir() and (is_zarr(path) or path.suffix == ".zarr"):
        _refuse_bin_size(bin_size, path)
        return [(section_name(path), read_store(path, table, coordinate_system=coordinate_system))], False
    if table is not None:
        raise ValueError(f"Expected a SpatialData store with table=, found {path}; leave table= out.")
    if path.is_dir():
        return _read_folder(path, bin_size, keep_background)
    path = existing_file(path, f"counts ({KNOWN})")
    for reader, fits in ((read_gef, path.suffix.lower() == ".gef"), (read_gem, is_gem(path))):
        if fits:
            return [(section_name(path), reader(path, bin_size=bin_size))], False
    _refuse_bin_size(bin_size, path)
    if is_tenx(path):
        return _read_matrix(path, keep_background), False
    return [(section_name(path), _read_file(path, backed))], is_text(path)


def _read_matrix(path: Path, keep_background: bool) -> list[tuple[str, ad.AnnData]]:
    """A 10x matrix with the coordinates that lie beside it."""
    folder = path.absolute().parent
    if "probe_bc_matrix" in path.name:
        raise ValueError(
            f"Expected counts of genes, found those of probes: {path}; give filtered_feature_bc_matrix.h5."
        )
    if has_positions(folder):
        return read_spaceranger(path, keep_background=keep_background)
    if ".mtx" in path.name and has_positions(folder.parent):
        return read_spaceranger(folder, keep_background=keep_background)
    if any(len(vendor.missing(folder)) == 0 for vendor in VENDORS):
        return _read_folder(folder, None, keep_background)[0]
    raise ValueError(
        f"Expected counts with coordinates, found a bare 10x matrix, which has none: {path}; put it beside spatial/ "
        "of Space Ranger, or give the folder that holds both."
    )


def _read_folder(
    folder: Path, bin_size: int | None, keep_background: bool
) -> tuple[list[tuple[str, ad.AnnData]], bool]:
    if looks_like_spaceranger(folder):
        logger.info("Space Ranger: %s is read by stcsm's own reader.", folder)
        return read_spaceranger(folder, bin_size=bin_size, keep_background=keep_background), False
    for place in (folder, folder / "outs"):
        if place.is_dir() and (vendor := vendor_of(place)) is not None:
            if not vendor.binned:
                _refuse_bin_size(bin_size, place)
            return read_vendor(place, vendor, bin_size=bin_size), False
    if tables := count_tables(folder):
        _refuse_bin_size(bin_size, folder)
        return read_st_folder(tables), True
    there = listed(sorted(path.name for path in folder.iterdir()))
    within = [path for path in sorted(folder.iterdir()) if path.is_dir() and _is_section(path)]
    advice = f"; give the folders of its sections: {listed([str(path) for path in within], 4)}" if within else ""
    raise FileNotFoundError(
        f"Expected {KNOWN}, found a folder of no platform that is known: {folder} (there: {there}){advice}."
    )


def _is_section(folder: Path) -> bool:
    places = [place for place in (folder, folder / "outs") if place.is_dir()]
    tables = any(is_text(path) for path in folder.iterdir())
    return tables or looks_like_spaceranger(folder) or any(not v.missing(place) for place in places for v in VENDORS)


def _refuse_bin_size(bin_size: int | None, path: Path) -> None:
    if bin_size is not None:
        raise ValueError(
            f"Expected Visium HD or Stereo-seq for bin_size={bin_size}, found neither in {path}; leave bin_size out."
        )


def _read_file(path: Path, backed: bool | None) -> ad.AnnData:
    with path.open("rb") as file:
        hdf5 = file.read(len(HDF5_MAGIC)) == HDF5_MAGIC
    if hdf5:
        return _read_hdf5(path, backed)
    name = path.name.lower()
    if name.endswith((".h5", ".h5ad", ".hdf5")):
        raise ValueError(f"Expected an HDF5 file, found other content in {path}; it is damaged or misnamed.")
    if is_text(path):
        return read_st(path)
    raise ValueError(f"Expected {KNOWN}, found a file of unknown kind: {path}.")


def _read_hdf5(path: Path, backed: bool | None) -> ad.AnnData:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            groups = set(file)
            if backed is None:
                backed = stays_in_file(file)
    except OSError as error:
        raise ValueError(
            f"Expected a whole HDF5 file, found one that does not open ({error}): {path}; copy it again."
        ) from error
    if {"obs", "var"} <= groups:
        try:
            if backed:
                logger.info("%s: the counts stay in the file, from which they are read in blocks.", path)
            return ad.read_h5ad(path, backed="r" if backed else None)
        except Exception as error:  # anndata meets a foreign file with whatever its readers happen to raise
            raise ValueError(
                f"Expected an AnnData file, found one that anndata cannot read: {path} ({error})."
            ) from error
    raise ValueError(f"Expected an AnnData file with obs and var, found the groups {sorted(groups)} in {path}.")


def stays_in_file(file: Any) -> bool:
    """Whether the counts in ``X`` of an open HDF5 file take more than their share of the free memory.

    `read` then leaves them there, and those of ``raw`` too.
    """
    held, free = file.get("X"), available_memory()
    if held is None or free is None:
        return False
    return sum(part.nbytes for part in (held.values() if hasattr(held, "values") else [held])) > SHARE * free

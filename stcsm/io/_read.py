"""One entry for every format: it looks at what the path is and calls the reader."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import anndata as ad

from stcsm import _keys
from stcsm._files import existing_file
from stcsm.io._gef import read_gef
from stcsm.io._section import join_sections, section_name
from stcsm.io._spaceranger import looks_like_spaceranger, read_spaceranger
from stcsm.io._st import read_st
from stcsm.io._vendors import VENDORS, read_vendor, vendor_of

logger = logging.getLogger(__name__)

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
TEXT_SUFFIXES = (".tsv", ".txt", ".csv", ".tab")
KNOWN = (
    ".h5ad, an ST text table (.tsv, .txt, .csv, plain or .gz), .gef, or a folder of Space Ranger, "
    + ", ".join(vendor.name for vendor in VENDORS[:-1])
    + f" or {VENDORS[-1].name}"
)


def read(
    path: str | Path | Sequence[str | Path],
    *,
    layer: str | None = None,
    bin_size: int | None = None,
    keep_background: bool = False,
) -> ad.AnnData:
    """Read counts with coordinates from any format stcsm knows.

    Parameters
    ----------
    path
        `.h5ad`; ST text (`.tsv`, `.txt`, `.csv`, plain or gzipped; see `read_st`); a Space Ranger `outs` folder of any
        version, of Visium HD too, or the folder that holds it; a folder of Xenium, CosMx, MERSCOPE, STARmap PLUS,
        seqFISH, Stereo-seq (also a `.gef`) or Curio. A list of these is read as one AnnData of several sections.
    layer
        Entry of ``adata.layers`` that must exist (the counts of a `.h5ad` are often in a layer), or ``"raw"`` where
        they are in ``adata.raw``.
    bin_size
        Side of the bins of Visium HD in micrometres (by default 8 if there, else the largest), or of a `.gef` in DNBs
        (by default 50).
    keep_background
        Keep the spots of Space Ranger that lie beside the tissue (``in_tissue`` 0).

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
    paths = [Path(one).expanduser() for one in ([path] if isinstance(path, str | Path) else path)]
    if not paths:
        raise ValueError("Expected at least one path, found an empty list.")
    sections: list[tuple[str, ad.AnnData]] = []
    for one in paths:
        found = _read_one(one, bin_size, keep_background)
        _check_layer(found, layer, one)
        sections += found
    # a table in the ST format has no column for a gene without a count; other files name all that were looked for
    absent_is_zero = all(one.is_file() and _is_text(one) for one in paths)
    return join_sections(sections, genes="outer" if absent_is_zero else "inner")


def _check_layer(sections: list[tuple[str, ad.AnnData]], layer: str | None, path: Path) -> None:
    for _, adata in sections:
        if layer == "raw" and adata.raw is not None:
            continue  # adata.raw.X, see models.GeneVAE.setup_anndata
        if layer is not None and layer not in adata.layers:
            there = ", ".join(map(repr, _keys.layer_names(adata.layers))) or "none"
            raise ValueError(
                f"Expected a layer {layer!r}, found {there} in {path}; check layer=, or leave it out to use .X."
            )


def _read_one(path: Path, bin_size: int | None, keep_background: bool) -> list[tuple[str, ad.AnnData]]:
    """Name and spots x genes of each section that a path holds."""
    if path.is_dir():
        return _read_folder(path, bin_size, keep_background)
    path = existing_file(path, f"counts ({KNOWN})")
    if path.suffix.lower() == ".gef":
        return [(section_name(path), read_gef(path, bin_size=bin_size))]
    _refuse_bin_size(bin_size, path)
    return [(section_name(path), _read_file(path))]


def _read_folder(folder: Path, bin_size: int | None, keep_background: bool) -> list[tuple[str, ad.AnnData]]:
    if looks_like_spaceranger(folder):
        logger.info("Space Ranger: %s is read by stcsm's own reader.", folder)
        return read_spaceranger(folder, bin_size=bin_size, keep_background=keep_background)
    for place in (folder, folder / "outs"):
        if place.is_dir() and (vendor := vendor_of(place)) is not None:
            if not vendor.binned:
                _refuse_bin_size(bin_size, place)
            return read_vendor(place, vendor, bin_size=bin_size)
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "nothing"
    raise FileNotFoundError(
        f"Expected {KNOWN}, found a folder of no platform that is known: {folder} (there: {there})."
    )


def _refuse_bin_size(bin_size: int | None, path: Path) -> None:
    if bin_size is not None:
        raise ValueError(
            f"Expected Visium HD or Stereo-seq for bin_size={bin_size}, found neither in {path}; leave bin_size out."
        )


def _is_text(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(TEXT_SUFFIXES)


def _read_file(path: Path) -> ad.AnnData:
    with path.open("rb") as file:
        hdf5 = file.read(len(HDF5_MAGIC)) == HDF5_MAGIC
    if hdf5:
        return _read_hdf5(path)
    name = path.name.lower()
    if name.endswith((".h5", ".h5ad", ".hdf5")):
        raise ValueError(f"Expected an HDF5 file, found other content in {path}; it is damaged or misnamed.")
    if _is_text(path):
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

"""Folders of imaging platforms and bead arrays: which one it is, and its counts and positions from the vendor's tables.

Where a bundle is whole and spatialdata-io is installed, its reader is taken; it opens images or boundaries that many
copies of a bundle lack, so every platform has a reader of the tables alone. Both give the same AnnData.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from stcsm import _keys
from stcsm._files import opened_text, text_lines
from stcsm._text import as_text
from stcsm.io._gef import read_gef
from stcsm.io._gem import read_gem
from stcsm.io._section import Counts, place, section_name, unique_names
from stcsm.io._table import SEPARATORS, split_cells
from stcsm.io._tenx import read_parquet, read_tenx

logger = logging.getLogger(__name__)

CELLS_AT_ONCE = 10**7
"""Cells of a table of counts that are held dense at once."""
XENIUM_MATRIX = ("cell_feature_matrix.h5", "cell_feature_matrix")
XENIUM_CELLS = ("cells.parquet", "cells.csv.gz", "cells.csv")
STEREOSEQ_KINDS = (".cellbin", ".tissue", ".ge")
"""What the names of Stereo-seq's files say of them, the one to be preferred first: cells, bins of the tissue, bins."""
_STEREOSEQ = re.compile(r"(\.(raw|tissue\w*|cellbin|adjusted))*\.(gef|gem|gem\.gz)$")
"""What stands after the name of a chip in the names of its files."""
COSMX_XY = (("CenterX_global_px", "CenterY_global_px"), ("x_slide_mm", "y_slide_mm"))


@dataclass(frozen=True)
class Vendor:
    """A platform.

    Attributes
    ----------
    name
        Of the platform.
    files
        Patterns of file names, each with its alternatives; a folder that holds one of each is of this platform.
    tables
        Reader of the tables alone: an AnnData, or names and AnnData of several sections.
    reader
        Name of spatialdata-io's reader, where it serves.
    opens
        Patterns of what that reader opens besides `files`.
    options
        Its arguments; they leave out what is not needed here.
    xy
        Entry of ``.obsm`` in which it puts the coordinates of the whole section.
    binned
        Whether `tables` takes a ``bin_size``.
    """

    name: str
    files: tuple[tuple[str, ...], ...]
    tables: Callable[..., ad.AnnData | list[tuple[str, ad.AnnData]]]
    reader: str | None = None
    opens: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    xy: str = _keys.SPATIAL
    binned: bool = False

    def missing(self, folder: Path) -> list[str]:
        """Which of `files` a folder lacks; none of a folder of this platform."""
        names = [path.name for path in folder.iterdir()]
        return [
            " or ".join(either)
            for either in self.files
            if not any(fnmatch(name, pattern) for name in names for pattern in either)
        ]


def vendor_of(folder: Path) -> Vendor | None:
    """Platform whose files a folder holds, None if of none that is known.

    Raises
    ------
    FileNotFoundError
        Some of a platform's files are there, others not; the message names these.
    ValueError
        The files of two platforms.
    """
    missing = [(vendor, vendor.missing(folder)) for vendor in VENDORS]
    found = [vendor for vendor, names in missing if not names]
    if len(found) > 1:
        raise ValueError(
            f"Expected the files of one platform, found those of {' and '.join(vendor.name for vendor in found)} in "
            f"{folder}; put each in a folder of its own."
        )
    whole = found[0] if found else None
    part = next(((vendor, names) for vendor, names in missing if len(names) < len(vendor.files)), None)
    if whole is None and part is not None:
        raise FileNotFoundError(
            f"Expected the counts and the cells of {part[0].name}, found no {', '.join(part[1])} in {folder}; copy it "
            "there."
        )
    return whole


def read_vendor(folder: Path, vendor: Vendor, *, bin_size: int | None = None) -> list[tuple[str, ad.AnnData]]:
    """Name and cells x genes of each section in a vendor's folder, with its coordinates in ``.obsm["spatial"]``.

    `bin_size` is that of `read`, for platforms that are binned.

    Raises
    ------
    FileNotFoundError, ValueError
        The tables are incomplete, damaged or do not fit each other.
    """
    adata = _through_spatialdata_io(folder, vendor)
    if adata is not None:
        return [(section_name(folder), adata)]
    sections = vendor.tables(folder, bin_size=bin_size) if vendor.binned else vendor.tables(folder)
    return sections if isinstance(sections, list) else [(section_name(folder), sections)]


def _through_spatialdata_io(folder: Path, vendor: Vendor) -> ad.AnnData | None:
    """What spatialdata-io reads; None where it does not serve, which is said."""
    alone = f"{vendor.name}: counts and coordinates are read from the tables of {folder} alone"
    if vendor.reader is None:
        logger.info("%s.", alone)
        return None
    absent = [pattern for pattern in vendor.opens if not any(folder.glob(pattern))]
    if absent:
        zipped = [pattern for pattern in absent if any(folder.glob(f"{pattern}.gz"))]
        needs = [f"{name} (which is gzipped here)" if name in zipped else name for name in absent]
        logger.info("%s: spatialdata_io.%s also needs %s.", alone, vendor.reader, ", ".join(needs))
        return None
    for either in vendor.files:  # of several sections that reader takes the first
        if len(either) == 1:
            _one(folder, *either)
    if importlib.util.find_spec("spatialdata_io") is None:
        logger.info('%s: spatialdata-io is missing (pip install "stcsm[io]").', alone)
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sdata = getattr(importlib.import_module("spatialdata_io"), vendor.reader)(folder, **vendor.options)
            (table,) = sdata.tables.values()
    except Exception as error:  # readers of many formats by many hands raise whatever they meet
        logger.warning("%s: spatialdata_io.%s failed (%s: %s).", alone, vendor.reader, type(error).__name__, error)
        return None
    logger.info("%s: read with spatialdata_io.%s from %s.", vendor.name, vendor.reader, folder)
    return _plain(table, vendor.xy, folder)


def _plain(table: ad.AnnData, xy_key: str, folder: Path) -> ad.AnnData:
    counts = Counts(
        sparse.csr_matrix(table.X, dtype=np.float32),
        list(map(str, table.obs_names)),
        list(map(str, table.var_names)),
        table.var.reset_index(drop=True),
    )
    xy = np.asarray(table.obsm[xy_key], dtype=np.float64)
    obs = table.obs.set_axis(pd.Index(counts.spots, dtype=object)).assign(_x=xy[:, 0], _y=xy[:, 1])
    return place(counts, obs, ("_x", "_y"), folder)


def _xenium(folder: Path) -> ad.AnnData:
    matrix = next(folder / name for name in XENIUM_MATRIX if (folder / name).exists())
    cells = next(folder / name for name in XENIUM_CELLS if (folder / name).is_file())
    table = read_parquet(cells) if cells.suffix == ".parquet" else _read_obs(cells, ("cell_id",))
    _need(table, ("cell_id", "x_centroid", "y_centroid"), cells)
    table.index = pd.Index(list(map(as_text, table["cell_id"])), dtype=object)
    return place(read_tenx(matrix), table.drop(columns="cell_id"), ("x_centroid", "y_centroid"), folder)


def _cosmx(folder: Path) -> ad.AnnData:
    path, at = _one(folder, "*exprMat_file.csv*"), _one(folder, "*metadata_file.csv*")
    keys = ("fov", "cell_ID")
    table, counts = _read_obs(at, keys), _read_counts(path, keys)
    _need(table, keys, at)
    table.index = pd.Index(table["cell_ID"] + "_" + table["fov"], dtype=object)
    xy = next((pair for pair in COSMX_XY if set(pair) <= set(table)), None)
    if xy is None:
        wanted, there = " or ".join(map(", ".join, COSMX_XY)), ", ".join(map(str, table.columns))
        raise ValueError(
            f"Expected coordinates of the whole section ({wanted}), found the columns {there} in {at}; those within a "
            "field of view do not say where it lies."
        )
    if outside := {name for name in counts.spots if name.startswith("0_")} - set(table.index):
        # cell 0 of a field of view is what lies in no cell
        inside = np.array([name not in outside for name in counts.spots])
        counts.values, counts.spots = counts.values[inside], [name for name in counts.spots if name not in outside]
    return place(counts, table.drop(columns="cell_ID"), xy, folder)


def _merscope(folder: Path) -> ad.AnnData:
    path, at = _one(folder, "*cell_by_gene*.csv*"), _one(folder, "*cell_metadata*.csv*")
    table = _read_obs(at, ("EntityID",))
    name = "EntityID" if "EntityID" in table else table.columns[0]
    _need(table, ("center_x", "center_y"), at)
    table.index = pd.Index(table[name].astype(str), dtype=object)
    return place(_read_counts(path), table.drop(columns=name), ("center_x", "center_y"), folder)


def _starmap_plus(folder: Path) -> ad.AnnData:
    path, at = _one(folder, "*raw_expression*.csv*"), _one(folder, "*spatial.csv*")
    table = _read_obs(at, ("NAME",))
    _need(table, ("NAME", "X", "Y"), at)
    if len(table) and table["NAME"].iloc[0] == "TYPE":  # the second line says what each column is
        kinds = table.iloc[0]
        table = table.iloc[1:].copy()
        for column in table.columns[kinds == "numeric"]:
            table[column] = pd.to_numeric(table[column])
    table.index = pd.Index(table["NAME"], dtype=object)
    genes = _read_counts(path)  # genes x cells
    counts = Counts(genes.values.T.tocsr(), genes.features, genes.spots)
    return place(counts, table.drop(columns="NAME"), ("X", "Y"), folder)


def _seqfish(folder: Path) -> list[tuple[str, ad.AnnData]]:
    sections = []
    for roi in sorted({re.split("CellCoordinates|CellxGene", path.name)[0] for path in folder.glob("*Cell*.csv*")}):
        at = _one(folder, f"{roi}CellCoordinates.csv*")
        table = _read_obs(at, ("label",))
        _need(table, ("label", "center_x", "center_y"), at)
        table.index = pd.Index(table["label"], dtype=object)
        counts = _read_counts(_one(folder, f"{roi}CellxGene.csv*"))
        name = roi.rstrip("_") or section_name(folder)
        sections.append((name, place(counts, table.drop(columns="label"), ("center_x", "center_y"), folder)))
    return sections


def _curio(folder: Path) -> ad.AnnData:
    path = _one(folder, "*anndata.h5ad")
    adata = ad.read_h5ad(path)
    key = next((key for key in (_keys.SPATIAL, "X_spatial") if key in adata.obsm), None)
    if key is None:
        raise ValueError(f"Expected coordinates in .obsm, found {', '.join(adata.obsm) or 'none'} in {path}.")
    cluster = {row[0]: row[-1] for row in _read_rows(_one(folder, "*cluster_assignment.txt"))}
    adata.obs["cluster"] = pd.Categorical([cluster.get(name) for name in adata.obs_names])
    return _plain(adata, key, folder)


def _stereoseq(folder: Path, *, bin_size: int | None) -> list[tuple[str, ad.AnnData]]:
    held = {path: found for path in sorted(folder.rglob("*")) if (found := _STEREOSEQ.search(path.name))}
    there = ", ".join(path.name for path in held) or "none"
    chips: defaultdict[str, list[tuple[tuple[int, int], Path]]] = defaultdict(list)
    for path, found in held.items():
        kind = next(i for i, word in enumerate(STEREOSEQ_KINDS) if word in found[0])
        wanted = ".raw" not in found[0] and not (STEREOSEQ_KINDS[kind] == ".cellbin" and bin_size is not None)
        # cells that were corrected, then what is read fastest
        form = next(i for i, word in enumerate((".adjusted", ".gef", ".gem.gz", "")) if word in found[0])
        if wanted:
            chips[path.name.removesuffix(found[0])].append(((kind, form), path))
    if not chips:
        raise FileNotFoundError(f"Expected a .tissue.gef, .cellbin.gef or .gem, found {there} in {folder}.")
    best = {chip: min(rank for rank, _ in files) for chip, files in chips.items()}
    if len({kind for kind, _ in best.values()}) > 1:
        raise ValueError(
            f"Expected files of one kind (cells, bins of the tissue) of all {len(chips)} sections, found {there} in "
            f"{folder}; give the files to be read, or ask for square bins with bin_size=."
        )
    sections = []
    for chip, files in chips.items():
        paths = [path for rank, path in files if rank == best[chip]]
        if len(paths) > 1:
            raise ValueError(
                f"Expected one file of a kind of section {chip!r}, found "
                f"{', '.join(str(path.relative_to(folder)) for path in paths)} in {folder}; give one of them."
            )
        logger.info("Stereo-seq: %s is read.", paths[0])
        reader = read_gef if paths[0].suffix == ".gef" else read_gem
        sections.append((chip if len(chips) > 1 else section_name(folder), reader(paths[0], bin_size=bin_size)))
    return sections


VENDORS = (
    Vendor(
        "Xenium",
        (XENIUM_MATRIX, XENIUM_CELLS),
        _xenium,
        reader="xenium",
        opens=("experiment.xenium", "cells.zarr.zip", "cells.parquet", "cell_feature_matrix.h5"),
        options={
            "gex_only": False,
            **dict.fromkeys(
                ("cells_boundaries", "nucleus_boundaries", "cells_labels", "nucleus_labels", "transcripts"), False
            ),
            **dict.fromkeys(("morphology_mip", "morphology_focus", "aligned_images"), False),
        },
    ),
    Vendor(
        "CosMx",
        (("*exprMat_file.csv*",), ("*metadata_file.csv*",)),
        _cosmx,
        reader="cosmx",
        opens=("*exprMat_file.csv", "*metadata_file.csv", "*fov_positions_file.csv", "CellComposite", "CellLabels"),
        options={"transcripts": False},
        xy="global",
    ),
    Vendor(
        "MERSCOPE",
        (("*cell_by_gene*.csv*",), ("*cell_metadata*.csv*",)),
        _merscope,
        reader="merscope",
        opens=("cell_by_gene.csv", "cell_metadata.csv", "images/micron_to_mosaic_pixel_transform.csv"),
        options=dict.fromkeys(("transcripts", "cells_boundaries", "mosaic_images"), False),
    ),
    Vendor("STARmap PLUS", (("*raw_expression*.csv*",), ("*spatial.csv*",)), _starmap_plus),
    # spatialdata-io 0.7 keeps the numbers of seqFISH cells in 16 bits, takes the table of Stereo-seq's clustering
    # (which need not hold counts), and its reader of Curio does not run with spatialdata 0.7
    Vendor("seqFISH", (("*CellxGene.csv*",), ("*CellCoordinates.csv*",)), _seqfish),
    Vendor(
        "Stereo-seq",
        (("*.gef", "*.gem", "*.gem.gz", "041.cellcut", "04.tissuecut", "feature_expression"),),
        _stereoseq,
        binned=True,
    ),
    Vendor("Curio", (("*anndata.h5ad",), ("*cluster_assignment.txt",)), _curio),
)
"""Every platform whose folders are known."""


def _one(folder: Path, pattern: str) -> Path:
    found = sorted(path for path in folder.glob(pattern) if path.is_file())
    if len(found) == 1:
        return found[0]
    raise ValueError(
        f"Expected one file {pattern}, found {', '.join(path.name for path in found) or 'none'} in {folder}; put each "
        "section's files in a folder of its own and give stcsm.io.read the list of folders."
    )


def _need(table: pd.DataFrame, columns: Sequence[str], path: Path) -> None:
    if missing := [name for name in columns if name not in table]:
        raise ValueError(
            f"Expected the columns {', '.join(columns)}, found no {', '.join(missing)} among "
            f"{', '.join(map(str, table.columns))} in {path}."
        )


def _header(path: Path) -> tuple[list[str], str]:
    """Names of the columns, with an empty one where R left out the cell above the row names; and the separator."""
    lines = text_lines(path)
    n, first = next(lines, (0, ""))
    separator = next((s for s in SEPARATORS[:3] if s in first), None)
    if separator is None:
        raise ValueError(
            f"Expected a table with cells separated by commas, tabs or semicolons, found {first[:60]!r} as first line "
            f"of {path}."
        )
    header = [name.strip() for name in split_cells(first, separator, n, path)]
    n, second = next(lines, (0, ""))
    if len(split_cells(second, separator, n, path)) == len(header) + 1:
        header = ["", *header]
    return header, separator


def _read_rows(path: Path) -> list[list[str]]:
    _, separator = _header(path)
    return [[cell.strip() for cell in split_cells(line, separator, n, path)] for n, line in text_lines(path)]


def _read_obs(path: Path, text: Sequence[str]) -> pd.DataFrame:
    """Table of cells; the columns of names `text` are kept as their text, row numbers that R wrote are left out."""
    header, separator = _header(path)
    names = unique_names(header)
    text = [*text, *names[:1]]
    try:
        with opened_text(path) as file:
            table = pd.read_csv(
                file,
                sep=separator,
                header=None,
                skiprows=1,
                names=names,
                dtype=dict.fromkeys(text, str),
                low_memory=False,
            )
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"Expected a table of cells, found one that does not read ({error}): {path}.") from error
    numbered = names[0] == "" and any(name in names[1:] for name in text)
    return table.drop(columns="") if numbered else table


def _read_counts(path: Path, keys: Sequence[str] = ()) -> Counts:
    """Table of counts in blocks of rows, into a sparse matrix.

    Rows are named by their first cell, or by the columns `keys`, the last first, joined by an underscore.
    """
    header, separator = _header(path)
    names = unique_names(header)
    if keys:
        _need(pd.DataFrame(columns=names), keys, path)
        left_out = {*keys, "", "cell", "cell_id"} & set(names)
    else:
        keys, left_out = names[:1], {names[0]}
    features = [name for name in names if name not in left_out]
    kinds: defaultdict[str, Any] = defaultdict(lambda: np.float32, dict.fromkeys(left_out, str))
    rows: list[str] = []
    blocks = []
    try:
        with opened_text(path) as file:
            chunks = pd.read_csv(
                file, sep=separator, header=None, skiprows=1, names=names, dtype=kinds,
                chunksize=max(1, CELLS_AT_ONCE // len(names)),
            )  # fmt: skip
            for chunk in chunks:
                rows += ["_".join(row) for row in chunk[list(keys)[::-1]].itertuples(index=False)]
                values = chunk[features].to_numpy(dtype=np.float32)
                if not np.isfinite(values).all():
                    row, column = np.argwhere(~np.isfinite(values))[0]
                    raise ValueError(f"an empty cell under {features[column]!r} for {rows[row - len(chunk)]!r}")
                blocks.append(sparse.csr_matrix(values))
    except (ValueError, TypeError, EOFError, OSError) as error:
        raise ValueError(
            f"Expected a table of counts, found {error} in {path}; a table of counts holds numbers only."
        ) from error
    if not blocks:
        raise ValueError(f"Expected rows of counts below the first line, found none in {path}; export it again.")
    return Counts(sparse.vstack(blocks, format="csr"), rows, features)

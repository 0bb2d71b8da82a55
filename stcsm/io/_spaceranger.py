"""Space Ranger output in every layout since 1.0: Visium and Visium HD, as written or as repositories store it."""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from stcsm import _keys
from stcsm._files import text_lines
from stcsm._text import as_text, listed
from stcsm.io._section import matched_barcodes, place, section_name, without_background
from stcsm.io._table import SEPARATORS, split_cells
from stcsm.io._tenx import plain_bytes, read_parquet, read_tenx

logger = logging.getLogger(__name__)

MATRICES = (
    r"filtered_feature_bc_matrix\.h5",
    r"filtered_feature_bc_matrix",
    r"filtered_gene_bc_matrices_h5\.h5",
    r"filtered_gene_bc_matrices",
    r"filtered_feature_cell_matrix\.h5",
    r"filtered_feature_cell_matrix",
    r"matrix\.mtx",
    r"raw_feature_bc_matrix\.h5",
    r"raw_feature_bc_matrix",
    r"raw_gene_bc_matrices_h5\.h5",
    r"raw_gene_bc_matrices",
    r"raw_feature_cell_matrix\.h5",
    r"raw_feature_cell_matrix",
)
"""Names of the matrix, the one to be preferred first; without `.h5` they are folders."""
CELLS = r"cell_segmentations\.geojson"
"""Outlines of segmented cells, of Space Ranger 4."""
POSITIONS = (r"tissue_positions\.parquet", r"tissue_positions\.csv", r"tissue_positions_list\.(csv|txt)", CELLS)
SCALES = (r"scalefactors_json\.json",)
IMAGES = {
    "hires": (r"tissue_hires_image\.(png|jpe?g|tiff?)",),
    "lowres": (r"tissue_lowres_image\.(png|jpe?g|tiff?)",),
}
COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
PIXELS = ("pxl_col_in_fullres", "pxl_row_in_fullres")
DEFAULT_BIN = 8
"""Micrometres; what Space Ranger analyses and 10x recommends to begin with."""
SEGMENTED = "segmented_outputs"
"""Folder of the cells that Space Ranger 4 segments on Visium HD."""
_BIN = re.compile(r"square_(\d+)um")
_TRACE = re.compile(
    r"feature_(bc|cell)_matrix|probe_bc_matrix|gene_bc_matri|tissue_positions|scalefactors_json|matrix\.mtx"
)


@dataclass
class _Files:
    """Files of one section; `sample` is what stands before their names, as repositories store them."""

    sample: str
    matrix: Path
    positions: Path
    scales: Path | None = None
    images: dict[str, Path] = field(default_factory=dict)


def looks_like_spaceranger(folder: Path) -> bool:
    """Whether `folder`, or the `outs` folder in it, holds something that Space Ranger writes."""
    return any(
        (outs / "spatial").is_dir()
        or (outs / SEGMENTED).is_dir()
        or _bins(outs)
        or any(_TRACE.search(path.name) for path in outs.iterdir())
        for outs in (folder, folder / "outs")
        if outs.is_dir()
    )


def read_spaceranger(
    path: Path, *, bin_size: int | None = None, keep_background: bool = False
) -> list[tuple[str, ad.AnnData]]:
    """Read what Space Ranger writes: an `outs` folder, the folder that holds it, files of several samples, a matrix.

    Parameters
    ----------
    path
        A folder that holds a matrix (`.h5` or a folder of three text files, filtered preferred to raw) and, there or in
        `spatial/`, positions (`.csv` with or without a header, or `.parquet`), scale factors and images. All but the
        matrix and the positions may be absent, every file may be gzipped, and a sample's name may stand before each
        name; files of several samples in one folder are read as several sections. Of Visium HD: the folder that holds
        `binned_outputs`, the folder of one bin size, or `segmented_outputs` for the cells, which are also taken where
        there are no bins. Or the matrix alone: the other files are sought beside it.
    bin_size
        Side of the bins of Visium HD in micrometres; by default 8 if there, else the largest.
    keep_background
        Keep the spots beside the tissue.

    Returns
    -------
    list of (str, AnnData)
        Name and spots x genes of each section. ``.obs[["in_tissue", "array_row", "array_col"]]``;
        ``.obsm["spatial"]``: x, y in pixels of the full-resolution image; ``.uns["spatial"]``: images, scale factors
        and metadata as squidpy expects them.

    Raises
    ------
    FileNotFoundError
        No matrix, no positions or no bins of this size; the message names what is missing and what is there.
    ValueError
        A damaged file, positions of another run, or `bin_size` without bins.
    """
    matrix = path if bin_size is None and (path.is_file() or _is_matrix(path)) else None
    home = _home(path, bin_size) if matrix is None else path.absolute().parent
    return [
        (files.sample or section_name(home), _read_section(files, home, keep_background))
        for files in _sections(home, matrix)
    ]


def has_positions(folder: Path) -> bool:
    """Whether Space Ranger's positions of spots are in `folder` or in a folder `spatial` there."""
    return bool(_named(_around(folder), POSITIONS))


def _is_matrix(folder: Path) -> bool:
    """Whether a folder is a matrix (three text files) and nothing more."""
    return bool(_named([folder.absolute()], MATRICES)) and not has_positions(folder)


def _home(folder: Path, bin_size: int | None) -> Path:
    """Folder of the matrix: `folder`, `outs` in it, or the folder of a bin size."""
    if folder.resolve().name == "spatial" and not any("matri" in path.name for path in folder.iterdir()):
        folder = folder.resolve().parent
    own = _BIN.fullmatch(folder.resolve().name)
    if own and bin_size in (None, int(own[1])):
        return folder
    for outs in (folder, folder / "outs"):
        bins = _bins(outs)
        if not bins:
            continue
        size = bin_size or (DEFAULT_BIN if DEFAULT_BIN in bins else max(bins))
        if size not in bins:
            raise FileNotFoundError(
                f"Expected bins of {size} micrometres, found {', '.join(map(str, sorted(bins)))} in {outs}; "
                "choose one of them with bin_size=, or give its folder."
            )
        if bin_size is None:
            there = ", ".join(map(str, sorted(bins)))
            cells = "; segmented_outputs holds cells, give it to read these" if (outs / SEGMENTED).is_dir() else ""
            logger.info(
                "Visium HD: bins of %d micrometres are read (there: %s); choose with bin_size=%s.", size, there, cells
            )
        return bins[size]
    if bin_size is not None:
        raise ValueError(
            f"Expected Visium HD output (binned_outputs/square_*um) for bin_size={bin_size}, found "
            f"{f'bins of {int(own[1])} micrometres' if own else 'none'} in {folder}; leave bin_size out."
        )
    for outs in (folder, folder / "outs"):
        if (outs / SEGMENTED).is_dir():
            logger.info("Visium HD: segmented cells are read; there are no bins.")
            return outs / SEGMENTED
    outs = folder / "outs"
    return outs if outs.is_dir() and not any(_TRACE.search(path.name) for path in folder.iterdir()) else folder


def _bins(folder: Path) -> dict[int, Path]:
    """Folders of bins by their size in micrometres."""
    found: dict[int, Path] = {}
    for parent in (folder / "binned_outputs", folder):
        if parent.is_dir():
            sizes = ((_BIN.fullmatch(path.name), path) for path in sorted(parent.iterdir()))
            found |= {int(size[1]): path for size, path in sizes if size and path.is_dir()}
    return found


def _around(folder: Path) -> list[Path]:
    """Files of the folders `spatial` in a folder, then the folder's own."""
    held = sorted(folder.iterdir())
    spatial = [path for path in held if path.is_dir() and path.name.endswith("spatial")]
    return [path for inner in spatial for path in sorted(inner.iterdir())] + held


def _sections(folder: Path, given: Path | None) -> list[_Files]:
    """Files of each sample in a folder, told apart by what stands before their names; of one matrix if it is given."""
    around = _around(folder)
    there = _named(sorted(folder.iterdir()), MATRICES)
    matrices = there if given is None else _named([given.absolute()], MATRICES) or {"": given}
    alone = len(there | matrices) == 1
    positions, scales = _named(around, POSITIONS), _named(around, SCALES)
    images = {resolution: _named(around, names) for resolution, names in IMAGES.items()}
    _refuse_incomplete(folder, matrices, positions)
    sections = []
    for sample, matrix in matrices.items():
        at = _of_sample(positions, sample, alone=alone)
        if at is None:
            raise FileNotFoundError(
                f"Expected spot positions of every sample, found none for {sample or matrix.name!r} in {folder} (there "
                f"are some for {', '.join(map(repr, positions))}); begin the names of one sample's files alike."
            )
        files = _Files(sample, matrix, at, _of_sample(scales, sample, alone=alone))
        for resolution, paths in images.items():
            if (image := _of_sample(paths, sample, alone=alone)) is not None:
                files.images[resolution] = image
        sections.append(files)
    return sections


def _named(paths: list[Path], patterns: tuple[str, ...]) -> dict[str, Path]:
    """Sample's name (``""`` for none) and its path, of the first pattern that fits a sample."""
    found: dict[str, Path] = {}
    for pattern in patterns:
        for path in (path for path in paths if not path.name.startswith(".")):  # macOS puts ._ files beside others
            fits = re.fullmatch(rf"(?:(.+)[_.-])?{pattern}(?:\.gz)?", path.name)
            # what GEO calls GSM1_A_spatial/ holds files without the sample's name
            inside = path.parent.name.removesuffix("spatial").rstrip("_.-")
            if fits and path.is_dir() == ("." not in pattern):
                found.setdefault(fits[1] or (inside if path.parent.name.endswith("spatial") else ""), path)
    return found


def _of_sample(paths: dict[str, Path], sample: str, *, alone: bool) -> Path | None:
    return paths.get(sample) or (next(iter(paths.values())) if alone and len(paths) == 1 else None)


def _refuse_incomplete(folder: Path, matrices: dict[str, Path], positions: dict[str, Path]) -> None:
    there = listed(sorted(path.name for path in folder.iterdir()))
    if packed := [path.name for path in folder.iterdir() if path.name.endswith((".tar.gz", ".tgz", ".tar", ".zip"))]:
        there += f"; unpack {listed(packed, 3)} first"
    if not matrices:
        probes = any("probe_bc_matrix" in path.name for path in folder.iterdir())
        raise FileNotFoundError(
            f"Expected Space Ranger's counts of genes, found no filtered_feature_bc_matrix.h5 (nor its folder, nor the "
            f"raw one) in {folder} (there: {there}); "
            + ("raw_probe_bc_matrix.h5 counts probes, not genes." if probes else "copy the matrix there.")
        )
    if not positions:
        raise FileNotFoundError(
            f"Expected the positions of the spots, found no tissue_positions.csv, tissue_positions_list.csv or "
            f"tissue_positions.parquet in {folder} or its spatial/ (there: {there}); copy it from Space Ranger's "
            "spatial folder."
        )


def _read_section(files: _Files, folder: Path, keep_background: bool) -> ad.AnnData:
    of_cells = files.positions.name.removesuffix(".gz").endswith(".geojson")
    positions = read_centroids(files.positions) if of_cells else read_positions(files.positions)
    counts = read_tenx(files.matrix)
    if not pd.Index(counts.spots, dtype=object).isin(positions.index).any():
        names = matched_barcodes(list(positions.index), counts.spots)
        if names is not None:
            positions.index = pd.Index(names, dtype=object)
            warnings.warn(
                f"The barcodes of {files.positions.name} and {files.matrix.name} agree but for the number (-1) after "
                "them, and are joined without it.",
                stacklevel=2,
            )
    unplaced = int((~pd.Index(counts.spots, dtype=object).isin(positions.index)).sum())
    if unplaced:
        raise ValueError(
            f"Expected a position for every spot, found none for {unplaced} of {len(counts.spots)} spots of "
            f"{files.matrix} in {files.positions}; the matrix and the positions come from different runs."
        )
    adata = place(counts, positions, PIXELS, folder, what="cells" if of_cells else "spots")
    if not keep_background and not of_cells:
        adata = without_background(adata, folder)
    library = counts.about.pop("library_ids", "") or files.sample or section_name(folder)
    adata.uns[_keys.SPATIAL] = {library: _spatial(files, counts.about)}
    return adata


def read_centroids(path: Path) -> pd.DataFrame:
    """Centroids of segmented cells in pixels at full resolution, and their `area` in such pixels, indexed by barcode.

    Raises
    ------
    ValueError
        No GeoJSON of cells.
    """
    import shapely
    from shapely.geometry import shape

    try:
        features = json.loads(plain_bytes(path))["features"]
        names = [as_text(feature["properties"]["cell_id"]) for feature in features]
        outlines = np.array([shape(feature["geometry"]) for feature in features], dtype=object)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"Expected outlines of cells as GeoJSON with a cell_id, found other content in {path} ({error!r}); copy it "
            "again."
        ) from error
    # the matrix calls the cell 12 cellid_000000012-1
    index = pd.Index([f"cellid_{int(name):09d}-1" if name.isdigit() else name for name in names], dtype=object)
    centre = shapely.get_coordinates(shapely.centroid(outlines))
    return pd.DataFrame(dict(zip(PIXELS, centre.T, strict=True)), index=index).assign(area=shapely.area(outlines))


def read_positions(path: Path) -> pd.DataFrame:
    """Positions of spots, indexed by barcode: `in_tissue`, `array_row`, `array_col` and pixels at full resolution.

    Raises
    ------
    ValueError
        Columns are missing, or a value is no number.
    """
    if path.name.removesuffix(".gz").endswith(".parquet"):
        table = read_parquet(path)
        if table.index.name == "barcode":
            table = table.reset_index()
    else:
        lines = list(text_lines(path))
        separator = next((s for s in SEPARATORS if lines and s in lines[0][1]), ",")
        rows = [[cell.strip() for cell in split_cells(line, separator, n, path)] for n, line in lines]
        header = rows.pop(0) if rows and "barcode" in rows[0] else list(COLUMNS)  # Space Ranger 1 writes no header
        if rows and all(len(row) == len(header) + 1 for row in rows):
            header = ["", *header]  # R leaves out the cell above the row names
        short = next((i for i, row in enumerate(rows) if len(row) != len(header)), None)
        if short is not None:
            raise ValueError(
                f"Expected {len(header)} cells ({', '.join(header)}), found {len(rows[short])} in row {short + 1} of "
                f"{path}; the file may be cut short."
            )
        table = pd.DataFrame(rows, columns=header)
    if missing := [name for name in ("barcode", *PIXELS) if name not in table]:
        raise ValueError(
            f"Expected the columns {', '.join(COLUMNS)}, found no {', '.join(missing)} among "
            f"{', '.join(map(str, table.columns))} in {path}; is this Space Ranger's file?"
        )
    index = pd.Index([as_text(value) for value in table["barcode"]], dtype=object)
    try:
        numbers = {name: pd.to_numeric(table[name]).to_numpy() for name in COLUMNS[1:] if name in table}
    except (ValueError, TypeError) as error:
        raise ValueError(f"Expected numbers, found other cells in {path} ({error}); correct them.") from error
    return pd.DataFrame(numbers, index=index).assign(**({} if _keys.IN_TISSUE in numbers else {_keys.IN_TISSUE: 1}))


def _spatial(files: _Files, about: dict[str, str]) -> dict[str, Any]:
    """Images that have a scale factor, scale factors and metadata, the way squidpy keeps them."""
    from PIL import Image

    factors: dict[str, Any] = {}
    if files.scales is not None:
        try:
            factors = json.loads(plain_bytes(files.scales))
        except ValueError as error:
            raise ValueError(
                f"Expected scale factors as JSON, found {error} in {files.scales}; copy it again."
            ) from error
    images: dict[str, np.ndarray] = {}
    for resolution, path in files.images.items():
        if f"tissue_{resolution}_scalef" not in factors:
            where = f"in {files.scales}" if files.scales else "(scalefactors_json.json is missing)"
            warnings.warn(
                f"{path.name} is not attached: there is no scale factor for it {where}, so it is not known where the "
                "spots lie on it.",
                stacklevel=2,
            )
            continue
        try:
            with Image.open(io.BytesIO(plain_bytes(path))) as image:
                images[resolution] = np.asarray(image.convert("RGB"))
        except OSError as error:
            raise ValueError(
                f"Expected an image, found a file that does not open as one: {path} ({error}); copy it again."
            ) from error
    return {"images": images, "scalefactors": factors, "metadata": {**about, "image": "tissue" if images else "none"}}

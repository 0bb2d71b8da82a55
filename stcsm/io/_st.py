"""The ST text format (Stahl et al. 2016): a table of counts whose spots are named by their array position."""

from __future__ import annotations

import gzip
import itertools
import re
import warnings
import zlib
from pathlib import Path
from typing import Literal

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse

from stcsm import _keys
from stcsm._files import existing_file, text_lines
from stcsm._text import listed
from stcsm.io._image import check_image_shape, read_image, read_transformation, spatial_entry
from stcsm.io._section import section_name
from stcsm.io._table import (
    SEPARATORS,
    Table,
    duplicated,
    is_array_position,
    parse_array_positions,
    read_table,
    share_of_array_positions,
    split_cells,
)


def read_st(
    path: str | Path,
    *,
    image: str | Path | ArrayLike | None = None,
    transformation: str | Path | ArrayLike | None = None,
    image_shape: tuple[int, int] | None = None,
    duplicates: Literal["error", "sum"] = "error",
) -> ad.AnnData:
    """Read counts in the ST text format.

    Parameters
    ----------
    path
        Plain or gzipped table of counts, spots x genes or genes x spots. Spots are named by their array
        position, column and row joined by `x` (`16.92x9.015`); the side with such names holds the spots.
    image
        Image of the tissue: a file or an array (height, width, 3). Images longer than 2000 pixels are stored reduced.
    transformation
        Affine transformation from array to pixel coordinates: a file of 9 numbers, or a 3 x 3 array;
        ``[x y 1] @ transformation`` is ``[px py 1]``.
    image_shape
        (width, height) of the image that `transformation` refers to, where `image` is a reduced copy of it.
    duplicates
        What to do with spots or genes of one name: refuse the file, or add their counts.

    Returns
    -------
    AnnData
        Spots x genes. ``.X``: CSR float32. ``.obsm["spatial"]``: pixel coordinates (x, y) where there is a
        transformation, else array coordinates. ``.obsm["spatial_array"]`` and ``.obs["array_col"]`` (x),
        ``.obs["array_row"]`` (y): array coordinates. ``.uns["spatial"]``: image (a white canvas where none is
        given) and scale factors, under the file's name, the way squidpy expects them, so that
        ``squidpy.pl.spatial_scatter(adata)`` works.

    Raises
    ------
    ValueError
        Spots on neither or both sides, a name that is not an array position, names that occur twice, cells that are
        not numbers, a file that is cut short, or an image and transformation that do not fit.
    FileNotFoundError
        One of the files is missing.

    Examples
    --------
    >>> adata = stcsm.io.read_st("Rep11_MOB_count_matrix-1.tsv.gz")  # doctest: +SKIP
    """
    if duplicates not in ("error", "sum"):
        raise ValueError(f"Expected duplicates to be 'error' or 'sum', found {duplicates!r}.")
    if transformation is None and (image is not None or image_shape is not None):
        raise ValueError(
            "Expected a transformation with the image, found none: it says where on the image the spots are; "
            "give transformation=."
        )
    path = existing_file(path, "a count matrix in the ST text format")
    # the small files first: an error about the image should not come after minutes of reading counts
    matrix = None if transformation is None else read_transformation(transformation)
    stored, scale, full = None, 1.0, None
    if image is not None:
        stored, scale, full = read_image(image, image_shape)
    elif image_shape is not None:
        full = check_image_shape(image_shape)

    counts, spots, genes = _spots_by_genes(read_table(path), duplicates)
    array = parse_array_positions(spots)
    adata = ad.AnnData(X=counts, obs=pd.DataFrame(index=pd.Index(spots)), var=pd.DataFrame(index=pd.Index(genes)))
    adata.obs[_keys.ARRAY_ROW] = array[:, 1]
    adata.obs[_keys.ARRAY_COL] = array[:, 0]
    adata.obsm[_keys.SPATIAL_ARRAY] = array
    pixels = array if matrix is None else array @ matrix[:2, :2] + matrix[2, :2]
    adata.obsm[_keys.SPATIAL] = pixels.copy()
    if full is not None:
        _check_on_image(pixels, full)
    library = _stem(path)
    adata.uns[_keys.SPATIAL] = {library: spatial_entry(pixels, matrix, stored, scale, full, source=path.name)}
    return adata


def read_st_folder(tables: list[Path]) -> list[tuple[str, ad.AnnData]]:
    """Name and spots x genes of each of the tables of a folder (see `count_tables`).

    A section is named by the parts of its file's name that not all names have (`Rep1` of
    `Rep1_MOB_count_matrix-1.tsv`). The transformations that lie beside the tables are used where every section has one
    (its name contains the section's and `transformation`), and of each section the image, where there is one. Other
    files are left alone.
    """
    folder = tables[0].parent
    words = {path: _words(_stem(path)) for path in tables}
    common = set.intersection(*map(set, words.values())) if len(tables) > 1 else set()
    own = {path: [word for word in words[path] if word not in common] if len(tables) > 1 else [] for path in tables}
    tables = sorted(tables, key=lambda path: [(text, int(n or 0)) for text, n in _DIGITS.findall(_stem(path))])
    beside = sorted(path for path in folder.iterdir() if path.is_file() and path not in tables)
    matrices = {path: _only([p for p in beside if _is_transformation(p)], own[path]) for path in tables}
    without = [path.name for path, matrix in matrices.items() if matrix is None]
    if without and len(without) < len(tables):
        warnings.warn(
            f"{len(tables) - len(without)} of {len(tables)} sections have a transformation in {folder}, not "
            f"{listed(without, 3)}; none is used, so that the coordinates of all are array positions.",
            stacklevel=5,
        )
    sections = []
    for path in tables:
        name = "_".join(own[path]) or section_name(path)
        matrix = None if without else matrices[path]
        image = _only([p for p in beside if p.suffix.lower() in IMAGE_SUFFIXES], own[path])
        sections.append((name, _read_with(path, matrix, image)))
    return sections


_DIGITS = re.compile(r"(\D*)(\d*)")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
TEXT_SUFFIXES = (".tsv", ".txt", ".csv", ".tab")
FEWER = 0.1
"""A table with a smaller share of the columns of the widest is no table of counts (pixels, one column a label)."""


def is_text(path: Path) -> bool:
    """Whether a file is named as a table of text is, plain or gzipped."""
    return path.name.lower().removesuffix(".gz").endswith(TEXT_SUFFIXES)


def shape_in_name(transformation: Path) -> tuple[int, int] | None:
    """(width, height) of the image that a transformation was made for, where its name says so (`..._for_1856x1986`)."""
    size = re.search(r"_for_(\d+)x(\d+)$", transformation.stem)
    return None if size is None else (int(size[1]), int(size[2]))


def _read_with(path: Path, matrix: Path | None, image: Path | None) -> ad.AnnData:
    """Read a table with what lies beside it, or without, where that does not fit."""
    if matrix is None:
        return read_st(path)
    try:
        return read_st(
            path, image=image, transformation=matrix, image_shape=None if image is None else shape_in_name(matrix)
        )
    except ValueError as error:
        adata = read_st(path, transformation=matrix)  # raises again where counts or numbers are at fault
        warnings.warn(f"The image {image} is not used: {error}", stacklevel=6)
        return adata


def count_tables(folder: Path) -> list[Path]:
    """Files in a folder that begin as a table of counts in the ST text format does.

    Of a plain and a gzipped one of the same name it is the plain one.
    """
    widths: dict[Path, int | None] = {}
    for path in sorted(folder.iterdir()):
        plain = path.with_name(path.name.removesuffix(".gz"))
        hidden = path.name.startswith(".")
        if hidden or not path.is_file() or not is_text(path) or (plain != path and plain in widths):
            continue
        width = _genes_in(path)
        if width != 0:
            widths[path] = width
    widest = max((width for width in widths.values() if width), default=0)
    narrow = [path.name for path, width in widths.items() if width is not None and width < FEWER * widest]
    if narrow:
        warnings.warn(
            f"{', '.join(narrow)} in {folder} has far fewer columns than the other tables and is not read as counts.",
            stacklevel=5,
        )
    return [path for path in widths if path.name not in narrow]


def _genes_in(path: Path) -> int | None:
    """Number of columns of a table that has spots in rows, None where they are in columns; 0 of any other file."""
    try:
        (_, header), (_, row) = itertools.islice(text_lines(path), 2)
        separator = next((s for s in SEPARATORS if s in header), None)
        if separator is None:
            return 0
        columns = [cell.strip() for cell in split_cells(header, separator, 1, path)]
        name, *cells = split_cells(row, separator, 2, path)
        numbers = np.array(cells, dtype=np.float64)
    except ValueError:  # no two lines, no text, or no numbers
        return None if path.name.lower().endswith(".gz") and _is_damaged(path) else 0
    if len(cells) < 3 or not np.isfinite(numbers).all():
        return 0
    if is_array_position(name):
        return len(cells)
    return None if share_of_array_positions(columns[-len(cells) :]) > 0.5 else 0


def _is_damaged(path: Path) -> bool:
    """Whether a gzipped file cannot be read in its first lines; reading it as counts says why."""
    try:
        with gzip.open(path, "rb") as file:
            file.read(2**22)
    except (OSError, EOFError, zlib.error):
        return True
    return False


def _is_transformation(path: Path) -> bool:
    """The official files of three replicates are named `transformaton`."""
    return path.suffix.lower() == ".txt" and "transformat" in path.name.lower()


def _only(paths: list[Path], words: list[str]) -> Path | None:
    """The file whose name has all these words; None where there is none or more than one."""
    found = [path for path in paths if set(words) <= set(_words(path.stem))]
    return found[0] if len(found) == 1 else None


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[_\-. ]+", name) if word]


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rsplit(".", 1)[0] or path.name


def _spots_by_genes(table: Table, duplicates: str) -> tuple[sparse.csr_matrix, list[str], list[str]]:
    """Put spots in rows, and every name of either side once."""
    spots_in_rows = _spots_in_rows(table)
    if spots_in_rows:
        spots, genes, counts = table.rows, table.columns, table.values
        where = [f"line {n}" for n in table.lines]
    else:
        spots, genes, counts = table.columns, table.rows, table.values.T.tocsr()
        where = [f"line 1, column {i + 2}" for i in range(len(spots))]
    bad = [i for i, name in enumerate(spots) if not is_array_position(name)]
    if bad:
        others = f" (and {len(bad) - 1} more such names)" if len(bad) > 1 else ""
        raise ValueError(
            f"Expected a spot name of two numbers joined by x, such as 16.92x9.015, found {spots[bad[0]]!r} in "
            f"{where[bad[0]]} of {table.path}{others}; correct the name or remove the spot."
        )
    spot_sums, spots = _unique(spots, "spot", duplicates, table.path)
    gene_sums, genes = _unique(genes, "gene", duplicates, table.path)
    if spot_sums is not None:
        counts = (spot_sums @ counts).tocsr()
    if gene_sums is not None:
        counts = (counts @ gene_sums.T).tocsr()
    return counts, spots, genes


def _spots_in_rows(table: Table) -> bool:
    rows, columns = share_of_array_positions(table.rows) > 0.5, share_of_array_positions(table.columns) > 0.5
    if rows == columns:
        found = (
            "on both sides" if rows else f"on neither: rows begin {table.rows[:3]}, columns begin {table.columns[:3]}"
        )
        raise ValueError(
            "Expected spot names of two numbers joined by x, such as 16.92x9.015, on one side of the table, "
            f"found them {found} in {table.path}; rename the spots, or read other formats with stcsm.io.read."
        )
    return rows


def _unique(names: list[str], what: str, duplicates: str, path: Path) -> tuple[sparse.csr_matrix | None, list[str]]:
    """Matrix (unique names x names) that adds up what has one name, None where all differ; and the unique names."""
    twice = duplicated(names)
    if not twice:
        return None, names
    if duplicates == "error":
        raise ValueError(
            f"Expected every {what} name once, found {len(twice)} that occur more than once ({listed(twice, 5)}"
            f"{', ...' if len(twice) > 5 else ''}) in {path}; rename them, or add their counts with duplicates='sum'."
        )
    codes, unique = pd.factorize(np.asarray(names, dtype=object))
    ones = np.ones(len(names), dtype=np.float32)
    return sparse.csr_matrix((ones, (codes, np.arange(len(names)))), shape=(len(unique), len(names))), list(unique)


def _check_on_image(pixels: np.ndarray, full: tuple[int, int]) -> None:
    inside = int(((pixels >= 0) & (pixels <= full)).all(axis=1).sum())
    found = f"{inside} of {len(pixels)} spots on the image of {full[0]} x {full[1]} pixels"
    advice = "image_shape must be the size of the image that the transformation was made for"
    if inside == 0:
        raise ValueError(f"Expected the transformation to place spots on the image, found {found}; {advice}.")
    if inside < len(pixels):
        warnings.warn(f"Found only {found}; {advice}.", stacklevel=3)

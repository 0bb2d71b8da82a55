"""The ST text format (Stahl et al. 2016): a table of counts whose spots are named by their array position."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse

from stcsm import _keys
from stcsm._files import existing_file
from stcsm.io._image import check_image_shape, read_image, read_transformation, spatial_entry
from stcsm.io._table import (
    Table,
    duplicated,
    is_array_position,
    parse_array_positions,
    read_table,
    share_of_array_positions,
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
    library = path.name.removesuffix(".gz").rsplit(".", 1)[0] or path.name
    adata.uns[_keys.SPATIAL] = {library: spatial_entry(pixels, matrix, stored, scale, full, source=path.name)}
    return adata


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
            f"Expected every {what} name once, found {len(twice)} that occur more than once ({', '.join(twice[:5])}"
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

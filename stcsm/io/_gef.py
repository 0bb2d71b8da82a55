"""Stereo-seq's GEF files (SAW): counts of square bins of DNBs, or of segmented cells."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from stcsm import _keys
from stcsm._text import as_text
from stcsm.io._section import Counts, place

DEFAULT_BIN = 50
"""Side of a square bin in DNBs, which lie 0.5 micrometres apart: 25 micrometres."""


def read_gef(path: Path, *, bin_size: int | None = None) -> ad.AnnData:
    """Read a square-bin or cell-bin GEF.

    Parameters
    ----------
    path
        `.gef` with the group `geneExp` (square bins) or `cellBin` (cells).
    bin_size
        Side of the square bins in DNBs, 50 by default; DNBs are added up here.

    Returns
    -------
    AnnData
        Bins (named `x_y` by their corner) or cells x genes. ``.obsm["spatial"]``: their centres in DNBs, as the file
        counts them.

    Raises
    ------
    ValueError
        Neither kind of GEF, a damaged file, or `bin_size` for cells.
    """
    try:
        with h5py.File(path, "r") as file:
            if "cellBin" in file:
                if bin_size is not None:
                    raise ValueError(
                        f"Expected square bins for bin_size={bin_size}, found cells in {path}; leave bin_size out, or "
                        "give the .tissue.gef."
                    )
                return _cells(file["cellBin"], path)
            if "geneExp" in file and "bin1" in file["geneExp"]:
                return _squares(file["geneExp/bin1"], bin_size or DEFAULT_BIN, path)
            raise ValueError(
                f"Expected a GEF with geneExp/bin1 or cellBin, found the groups {', '.join(file)} in {path}; give the "
                ".tissue.gef or the .cellbin.gef of SAW."
            )
    except (OSError, KeyError) as error:
        raise ValueError(
            f"Expected a whole GEF, found one that does not read ({error}): {path}; copy it again."
        ) from error


def _squares(group: h5py.Group, size: int, path: Path) -> ad.AnnData:
    genes, dnbs = group["gene"][:], group["expression"][:]
    per_gene = genes["count"].astype(np.int64)
    if per_gene.sum() != len(dnbs):
        raise ValueError(
            f"Expected {per_gene.sum()} values, as many as the genes say, found {len(dnbs)} in {path}; copy it again."
        )
    bins = np.column_stack([dnbs["x"] // size, dnbs["y"] // size]).astype(np.int64)
    of_gene = np.repeat(np.arange(len(genes)), per_gene)
    return square_bins(bins, of_gene, dnbs["count"], *_genes(genes), size, path)


def square_bins(
    bins: np.ndarray,
    of_gene: np.ndarray,
    counts: np.ndarray,
    genes: list[str],
    var: pd.DataFrame,
    size: int,
    path: Path,
) -> ad.AnnData:
    """Counts added up in square bins.

    Parameters
    ----------
    bins
        Column and row of the bin of each count, integers (n, 2).
    of_gene, counts
        Its gene, as a number, and the count, (n,).
    genes, var
        Names of the genes, and what else the file says of them.
    size
        Side of the bins in DNBs.
    path
        Where the counts come from, for messages.
    """
    unique, of_bin = np.unique(bins, axis=0, return_inverse=True)
    values = sparse.csr_matrix((counts.astype(np.float32), (of_bin.ravel(), of_gene)), shape=(len(unique), len(genes)))
    corner, centre = unique * size, (unique + 0.5) * size
    names = [f"{x}_{y}" for x, y in corner]
    table = pd.DataFrame({"x": centre[:, 0], "y": centre[:, 1]}, index=names)
    table[[_keys.ARRAY_COL, _keys.ARRAY_ROW]] = unique
    return place(Counts(values, names, genes, var), table, ("x", "y"), path, what="bins")


def _cells(group: h5py.Group, path: Path) -> ad.AnnData:
    cells, values, genes = group["cell"][:], group["cellExp"][:], group["gene"][:]
    indptr = np.concatenate([[0], np.cumsum(cells["geneCount"].astype(np.int64))])
    if indptr[-1] != len(values):
        raise ValueError(
            f"Expected {indptr[-1]} values, as many as the cells say, found {len(values)} in {path}; copy it again."
        )
    columns = values["geneID"].astype(np.int64)
    counts = sparse.csr_matrix((values["count"].astype(np.float32), columns, indptr), shape=(len(cells), len(genes)))
    names = [as_text(cell) for cell in cells["id"]]
    table = pd.DataFrame({"area": cells["area"], "x": cells["x"], "y": cells["y"]}, index=names)
    return place(Counts(counts, names, *_genes(genes)), table, ("x", "y"), path)


def _genes(genes: np.ndarray) -> tuple[list[str], pd.DataFrame]:
    """Symbols, and identifiers where the file has them: newer ones name both, older ones one."""
    held = genes.dtype.names or ()
    symbols = next(name for name in ("geneName", "gene", held[0]) if name in held)
    var = {"gene_ids": list(map(as_text, genes["geneID"]))} if "geneID" in held and symbols != "geneID" else {}
    return list(map(as_text, genes[symbols])), pd.DataFrame(var)

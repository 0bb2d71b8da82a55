"""Stereo-seq's GEM text: a line for each gene and DNB, counted in square bins or in segmented cells."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from stcsm._files import opened_text, text_lines
from stcsm.io._gef import DEFAULT_BIN, square_bins
from stcsm.io._section import Counts, place
from stcsm.io._table import SEPARATORS

LINES_AT_ONCE = 10**7
"""Lines that are in memory at once."""
START = {"geneID", "x", "y"}
COUNTS = ("MIDCount", "MIDCounts", "UMICount", "UMICounts", "count")
"""Names of the column of counts, by version."""
CELL = ("CellID", "cell", "label")
"""Names of the column of cells, by version."""


def is_gem(path: Path) -> bool:
    """Whether a file is named as a GEM, or begins as one (`geneID`, `x` and `y` in the first line that is no comment).

    Repositories keep GEM files as `.txt` or `.tsv`.
    """
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".gem"):
        return True
    try:
        header = _header(path)[0] if name.endswith((".txt", ".tsv", ".csv")) else []
    except ValueError:  # no text
        return False
    return set(header) >= START


def read_gem(path: Path, *, bin_size: int | None = None) -> ad.AnnData:
    """Read a GEM file.

    Parameters
    ----------
    path
        Tab-separated text, plain or gzipped, lines that begin with ``#`` aside: `geneID`, perhaps `geneName`, `x`, `y`,
        `MIDCount` (`MIDCounts`, `UMICount`), perhaps `ExonCount`, perhaps `CellID` (0 for none).
    bin_size
        Side of the square bins in DNBs; by default the cells of a file that has them, else 50.

    Returns
    -------
    AnnData
        Bins (named `x_y` by their corner) or cells x genes. ``.obsm["spatial"]``: centres of the bins, or means of the
        DNBs with a count in each cell, in DNBs as the file counts them.

    Raises
    ------
    ValueError
        Other columns, a cell that is no number, or a file that is cut short.
    """
    header, skipped, separator = _header(path)
    count = next((name for name in COUNTS if name in header), None)
    if count is None or not set(header) >= START:
        raise ValueError(
            f"Expected the columns geneID, x, y, MIDCount, found {', '.join(header)} in {path}; is this a GEM file?"
        )
    symbol = "geneName" if "geneName" in header else "geneID"
    cell = next((name for name in CELL if name in header), None) if bin_size is None else None
    size = 1 if cell else bin_size or DEFAULT_BIN
    numbers = ["x", "y", count, *([cell] if cell else [])]
    codes: dict[str, int] = {}
    symbols: list[str] = []
    parts = []
    try:
        with opened_text(path) as file:
            chunks = pd.read_csv(
                file, sep=separator, skiprows=skipped, header=None, names=header,
                usecols=list(dict.fromkeys(["geneID", symbol, *numbers])),
                dtype={"geneID": str, symbol: str} | dict.fromkeys(numbers, np.float64),
                keep_default_na=False, na_values=[""], chunksize=LINES_AT_ONCE,
            )  # fmt: skip
            for chunk in chunks:
                if chunk.isna().any(axis=None):
                    raise ValueError("an empty cell")
                of, ids = pd.factorize(chunk["geneID"])
                first = np.unique(of, return_index=True)[1]
                for gene, name in zip(ids, chunk[symbol].to_numpy()[first], strict=True):
                    if codes.setdefault(gene, len(codes)) == len(symbols):
                        symbols.append(name)
                lines = pd.DataFrame({"x": chunk["x"] // size, "y": chunk["y"] // size}, dtype=np.int64)
                lines["gene"] = np.array([codes[gene] for gene in ids])[of]
                lines["cell"] = chunk[cell].astype(np.int64) if cell else 0
                lines["count"] = chunk[count]
                parts.append(lines.groupby(["cell", "x", "y", "gene"], as_index=False)["count"].sum())
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"Expected numbers in {', '.join(numbers)}, found {error} in {path}; the file may be cut short."
        ) from error
    if not parts:
        raise ValueError(f"Expected lines of counts below the first one, found none in {path}; export it again.")
    lines = pd.concat(parts)
    var = pd.DataFrame({"gene_ids": list(codes)}) if symbol != "geneID" else pd.DataFrame()
    if cell:
        return _cells(lines[lines["cell"] > 0], symbols, var, path)
    return square_bins(
        lines[["x", "y"]].to_numpy(), lines["gene"].to_numpy(), lines["count"].to_numpy(), symbols, var, size, path
    )


def _cells(lines: pd.DataFrame, genes: list[str], var: pd.DataFrame, path: Path) -> ad.AnnData:
    if lines.empty:
        raise ValueError(f"Expected counts in cells, found none in {path}; read square bins with bin_size=.")
    dnbs = lines[["cell", "x", "y"]].drop_duplicates()
    table = dnbs.groupby("cell").agg(x=("x", "mean"), y=("y", "mean"), area=("x", "size"))
    at = table.index.get_indexer(pd.Index(lines["cell"]))
    values = sparse.csr_matrix(
        (lines["count"].to_numpy(dtype=np.float32), (at, lines["gene"].to_numpy())), shape=(len(table), len(genes))
    )
    names = list(map(str, table.index))
    return place(Counts(values, names, genes, var), table.set_axis(names), ("x", "y"), path)


def _header(path: Path) -> tuple[list[str], int, str]:
    """Names of the columns, the number of their line, and the separator."""
    n, line = next(((n, line) for n, line in text_lines(path) if not line.startswith("#")), (0, ""))
    separator = next((one for one in SEPARATORS[:3] if one in line), "\t")
    return [name.strip() for name in line.split(separator)], n, separator

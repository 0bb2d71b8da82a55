"""Labels of spots (tissue layers, regions, clusters) from a text file, joined by spot name."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import anndata as ad
import pandas as pd

from stcsm import _keys
from stcsm._files import existing_file, text_lines
from stcsm.io._table import SEPARATORS, duplicated, is_array_position, split_cells

MISSING = frozenset({"", "na", "n/a", "nan", "<na>", "null"})
"""Texts, in lower case, that say a spot has no label."""
OF_SPOTS = frozenset({"", "spot", "spots", "barcode", "barcodes", "cell", "cells", "id", "name", "names"})
"""Names, in lower case, of a column of spot names."""
_BARCODE = re.compile(r"[ACGTN]{8,}([-_.]\w+)*")


def read_labels(path: str | Path, *, column: str | None = None) -> pd.Series:
    """Read one label a spot.

    Parameters
    ----------
    path
        Plain or gzipped text, cells separated by tabs, commas or semicolons: spot names in the first column, and a
        column of labels. A first line of column names may be absent where spots are named by array position or barcode;
        several columns of labels are then named 1, 2, ... The cell above the spot names may be absent, as R writes it.
    column
        Name of the label column; may be left out where there is only one.

    Returns
    -------
    pandas.Series
        Categorical, indexed by spot name, named like the column; NaN where the label is empty or `NA`. Categories are
        ordered as a reader would (`L2` before `L10`).

    Raises
    ------
    ValueError
        No such column, several to choose from, a spot with two labels, or no label at all.
    FileNotFoundError
        The file is missing.
    """
    path = existing_file(path, "a file of labels")
    lines = list(text_lines(path))
    separator = next((s for s in SEPARATORS[:3] if any(s in line for _, line in lines[:2])), None)
    if separator is None:
        raise ValueError(
            f"Expected spot names and labels separated by commas or tabs, found {lines[0][1][:60]!r} as the first "
            f"line of {path}; check that this is the file of labels."
            if lines
            else f"Expected spot names and labels, found only blank lines in {path}."
        )
    rows = [(n, [cell.strip() for cell in split_cells(line, separator, n, path)]) for n, line in lines]
    first = rows[0][1]
    headless = is_array_position(first[0]) or _BARCODE.fullmatch(first[0]) is not None
    header = (
        ["spot", *([_keys.LAYER] if len(first) == 2 else [str(i) for i in range(1, len(first))])] if headless else first
    )
    body = rows if headless else rows[1:]
    one_more = bool(body) and all(len(cells) == len(header) + 1 for _, cells in body)
    if not headless and one_more and header[0].lower() not in OF_SPOTS:
        header = ["spot", *header]  # R leaves out the cell above the row names
    for n, cells in body:
        if len(cells) != len(header):
            raise ValueError(
                f"Expected {len(header)} cells, as in the first line, found {len(cells)} in line {n} of {path}; "
                "put labels that hold the separator in quotes."
            )
    if len(header) < 2:
        raise ValueError(
            f"Expected spot names and labels, found one column, {header[0][:60]!r}, in {path}; check its quotes."
        )
    chosen = _choose(header, column, path)
    names = [cells[0] for _, cells in body]
    if twice := duplicated(names):
        raise ValueError(
            f"Expected one label a spot, found {len(twice)} spots that occur more than once ({', '.join(twice[:5])}) "
            f"in {path}; remove the lines that are wrong."
        )
    labels = [None if cells[chosen].lower() in MISSING else cells[chosen] for _, cells in body]
    found = sorted({label for label in labels if label is not None}, key=natural_order)
    if not found:
        raise ValueError(
            f"Expected labels in column {header[chosen]!r}, found none in {len(body)} lines of {path}; check column=."
        )
    return pd.Series(pd.Categorical(labels, categories=found), index=pd.Index(names, dtype=object), name=header[chosen])


def add_labels(
    adata: ad.AnnData,
    labels: str | Path | pd.Series,
    key: str = _keys.LAYER,
    *,
    column: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write the labels of a file to ``adata.obs[key]``, joined by spot name.

    Spots without a label get NaN. A warning counts spots of the data and spots of the file that have no partner.

    Parameters
    ----------
    adata
        Spots x genes.
    labels
        File (see `read_labels`), or a Series indexed by spot name.
    key
        Column of ``adata.obs`` to write.
    column
        Label column of the file, where there are several.
    overwrite
        Replace an existing ``adata.obs[key]``.

    Raises
    ------
    ValueError
        No spot of the file is in `adata`, the column exists, or the file is not one of labels; `adata` is unchanged.
    """
    if key in adata.obs and not overwrite:
        raise ValueError(
            f"Expected a new column, found {key!r} in adata.obs; choose another key= or say overwrite=True."
        )
    source = "the labels given" if isinstance(labels, pd.Series) else str(labels)
    series = labels if isinstance(labels, pd.Series) else read_labels(labels, column=column)
    if twice := duplicated(list(map(str, series.index))):
        raise ValueError(
            f"Expected one label a spot, found {len(twice)} spots that occur more than once ({', '.join(twice[:5])})."
        )
    series = series.set_axis(pd.Index(list(map(str, series.index)), dtype=object))  # names of any type, by their text
    shared = series.index.isin(adata.obs_names)
    matched, unknown = int(shared.sum()), int((~shared).sum())
    missing = int((~adata.obs_names.isin(series.index)).sum())
    if matched == 0:
        raise ValueError(
            f"Expected labels of the same spots, found none in common: {len(series)} spots in {source} (such as "
            f"{_some(series.index)}), {adata.n_obs} in the data (such as {_some(adata.obs_names)}); "
            "make the names agree."
        )
    values = series.reindex(adata.obs_names)
    if not isinstance(values.dtype, pd.CategoricalDtype):
        found = sorted(values.dropna().unique(), key=lambda label: natural_order(str(label)))
        values = values.astype(pd.CategoricalDtype(found))
    if values.isna().all():
        raise ValueError(f"Expected labels, found the spots of the data without one in {source}; check column=.")
    if unknown or missing:
        warnings.warn(
            f"Labels joined by name for {matched} of {adata.n_obs} spots: {missing} spots of the data are not in "
            f"{source}, {unknown} spots of {source} are not in the data.",
            stacklevel=2,
        )
    adata.obs[key] = values.cat.remove_unused_categories()


def natural_order(text: str) -> list[tuple[int, float, str]]:
    """Sort key that reads numbers as numbers."""
    parts = re.split(r"(\d+)", text.casefold())
    return [(0, float(part), "") if part.isdigit() else (1, 0.0, part) for part in parts if part]


def _choose(header: list[str], column: str | None, path: Path) -> int:
    candidates = header[1:]
    if column is not None:
        if candidates.count(column) != 1:
            raise ValueError(
                f"Expected one column {column!r}, found the columns {', '.join(candidates)} in {path}; check column=."
            )
        return 1 + candidates.index(column)
    if len(candidates) > 1:
        raise ValueError(
            f"Expected one column of labels, found {', '.join(candidates)} in {path}; choose one with column=."
        )
    return 1


def _some(names: Iterable[str]) -> str:
    return ", ".join(repr(str(name)) for name in list(names)[:2])

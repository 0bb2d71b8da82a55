"""Labels of spots (tissue layers, regions, clusters) from a text file, joined by spot name."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from stcsm import _keys
from stcsm._files import existing_file, text_lines
from stcsm._text import as_text, is_missing, some_of
from stcsm.io._section import matched_barcodes
from stcsm.io._table import (
    SEPARATORS,
    duplicated,
    is_array_position,
    parse_array_positions,
    share_of_array_positions,
    split_cells,
)

OF_SPOTS = frozenset({"", "spot", "spots", "barcode", "barcodes", "cell", "cells", "id", "name", "names"})
"""Names, in lower case, of a column of spot names."""
COORDINATES = (("x", "y"), ("new_x", "new_y"), ("pixel_x", "pixel_y"), ("array_col", "array_row"))
"""Names, in lower case, of two columns of coordinates: across and down."""
_FLAGS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
"""Cells, in lower case, of a table with a column of zeros and ones for each label."""
_NAMES = frozenset({"none", "null"})
"""Texts of missing labels, in lower case, that might be the name of a label."""
_BARCODE = re.compile(r"[ACGTN]{8,}([-_.]\w+)*")


def read_labels(path: str | Path, *, column: str | None = None) -> pd.Series:
    """Read one label a spot.

    Parameters
    ----------
    path
        Plain or gzipped text, cells separated by tabs, commas or semicolons: spot names in the first column, and a
        column of labels. A first line of column names may be absent where spots are named by array position or barcode;
        several columns of labels are then named 1, 2, ... The cell above the spot names may be absent, as R writes it.
        In place of names, the first two columns may be coordinates (``x`` and ``y``, ``pixel_x`` and ``pixel_y``,
        ``array_col`` and ``array_row``). Several columns of zeros and ones, one for each label, are one column of
        labels; a spot that has only zeros has no label.
    column
        Name of the label column; may be left out where there is only one.

    Returns
    -------
    pandas.Series
        Categorical, indexed by spot name, named like the column; NaN where the label is empty or a text that says so
        (`NA`, `nan`, `None`, `null`, ...). Categories are ordered as a reader would (`L2` before `L10`).

    Raises
    ------
    ValueError
        No such column, several to choose from, a spot with two labels (or two ones in a table of zeros and ones), or
        no label at all.
    FileNotFoundError
        The file is missing.
    """
    path = existing_file(path, "a file of labels")
    lines = list(text_lines(path))
    separator = _separator([line for _, line in lines])
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
    spots = _spots(header)
    names = ["x".join(cells[i] for i in spots) for _, cells in body]
    if twice := duplicated(names):
        raise ValueError(
            f"Expected one label a spot, found {len(twice)} spots that occur more than once ({', '.join(twice[:5])}) "
            f"in {path}; remove the lines that are wrong."
        )
    rest = [i for i in range(len(header)) if i not in spots]
    table = pd.DataFrame(
        [[cells[i] for i in rest] for _, cells in body], columns=[header[i] for i in rest], dtype=object
    )
    if column is None and not headless and _is_one_hot(table):
        labels = _from_one_hot(table, [f"line {n}" for n, _ in body], str(path))
    else:
        chosen = _choose([header[i] for i in rest], column, path)
        labels = pd.Series(table.iloc[:, chosen], name=table.columns[chosen])
        if doubtful := int(labels.str.lower().isin(_NAMES).sum()):
            warnings.warn(
                f"{doubtful} spots of {path} have the label 'None' or 'null', which stands for no label; if it is the "
                "name of one, rename it.",
                stacklevel=2,
            )
    labels = labels.where(~labels.map(is_missing).astype(bool), None)
    found = sorted({label for label in labels if label is not None}, key=natural_order)
    if not found:
        raise ValueError(
            f"Expected labels in column {labels.name!r}, found none in {len(body)} lines of {path}; check column=."
        )
    return pd.Series(
        pd.Categorical(labels.tolist(), categories=found), index=pd.Index(names, dtype=object), name=labels.name
    )


def add_labels(
    adata: ad.AnnData,
    labels: str | Path | pd.Series | pd.DataFrame,
    key: str = _keys.LAYER,
    *,
    column: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write the labels of a file to ``adata.obs[key]``, joined by spot name.

    Where no name agrees and the names of the labels are positions (``10.05x12.2``), they are joined to the nearest
    array positions or pixels of the spots, if that is one to one for most of them. Spots without a label get NaN.
    A warning counts spots of the data and spots of the file that have no partner, and says if positions were joined.

    Parameters
    ----------
    adata
        Spots x genes.
    labels
        File (see `read_labels`); a Series indexed by spot name; or a DataFrame indexed by spot name, or with two
        columns of coordinates: one column of labels, or zeros and ones with a column for each label.
    key
        Column of ``adata.obs`` to write.
    column
        Label column of the file or DataFrame, where there are several.
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
    if isinstance(labels, (pd.Series, pd.DataFrame)):
        source, series = "the labels given", _in_memory(labels, column)
    else:
        source, series = str(labels), read_labels(labels, column=column)
    if twice := duplicated([as_text(name) for name in series.index]):
        raise ValueError(
            f"Expected one label a spot, found {len(twice)} spots that occur more than once ({', '.join(twice[:5])})."
        )
    # Names of any type are joined by their text.
    series = series.set_axis(pd.Index([as_text(name) for name in series.index], dtype=object))
    spots = pd.Index([as_text(name) for name in adata.obs_names], dtype=object)
    how = "name"
    # numbers that pandas gave the rows of a table are no names where it has coordinates
    numbered = isinstance(labels, pd.DataFrame) and isinstance(labels.index, pd.RangeIndex)
    by_place = _by_position(adata, _named_by_place(labels, series)) if numbered else None
    if by_place is not None or not series.index.isin(spots).any():
        joined = by_place or _by_barcode(spots, series) or _by_position(adata, _named_by_place(labels, series))
        if joined is None:
            raise ValueError(
                f"Expected labels of the same spots, found none in common: {len(series)} spots in {source} (such as "
                f"{some_of(series.index)}), {adata.n_obs} in the data (such as {some_of(spots)}); "
                "make the names agree."
            )
        series, how = joined
    shared = series.index.isin(spots)
    matched, unknown = int(shared.sum()), int((~shared).sum())
    missing = int((~spots.isin(series.index)).sum())
    values = series.reindex(spots).set_axis(adata.obs_names)
    if not isinstance(values.dtype, pd.CategoricalDtype):
        found = sorted(values.dropna().unique(), key=lambda label: natural_order(str(label)))
        values = values.astype(pd.CategoricalDtype(found))
    if values.isna().all():
        raise ValueError(f"Expected labels, found the spots of the data without one in {source}; check column=.")
    if unknown or missing or how != "name":
        warnings.warn(
            f"Labels joined by {how} for {matched} of {adata.n_obs} spots: {missing} spots of the data are not in "
            f"{source}, {unknown} spots of {source} are not in the data.",
            stacklevel=2,
        )
    adata.obs[key] = values.cat.remove_unused_categories()


def _in_memory(labels: pd.Series | pd.DataFrame, column: str | None) -> pd.Series:
    """Labels of a Series, or of one column or the columns of zeros and ones of a DataFrame; missing texts are NaN."""
    if isinstance(labels, pd.DataFrame):
        if column is None and _is_one_hot(labels):
            return _from_one_hot(labels, [f"spot {name}" for name in labels.index], "the labels given")
        if column is None:
            places = {name for pair in COORDINATES for name in pair}
            left = [name for name in labels if str(name).lower() not in places]
            column = str(left[0]) if len(left) == 1 else None
        if column not in labels:
            raise ValueError(
                f"Expected one column of labels, or one of zeros and ones for each label, found the columns "
                f"{', '.join(map(str, labels))}; choose one with column=."
            )
        labels = labels[column]
    text = labels.notna().to_numpy() & labels.map(is_missing).astype(bool).to_numpy()
    if text.any():
        warnings.warn(
            f"{text.sum()} spots have a text that stands for no label, such as {str(labels[text].iloc[0])!r}, and get "
            "none; if it is the name of a label, rename it.",
            stacklevel=3,
        )
    return labels.where(~text)


def _separator(lines: list[str]) -> str | None:
    """The character that cuts all lines into equally many cells; of a table without one, any that is there."""
    even = (s for s in SEPARATORS[:3] if len({len(_cells(line, s)) for line in lines}) == 1 and s in lines[0])
    return next(even, next((s for s in SEPARATORS[:3] if any(s in line for line in lines[:2])), None))


def _cells(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator)) if '"' in line else line.split(separator)


def _spots(header: list[str]) -> list[int]:
    """Columns that name the spot: the first, or the first two where these are coordinates (across, then down)."""
    pair = tuple(name.lower() for name in header[:2])
    if len(header) > 2 and pair in COORDINATES:
        return [0, 1]
    return [1, 0] if len(header) > 2 and pair[::-1] in COORDINATES else [0]


def _flags(table: pd.DataFrame) -> pd.DataFrame:
    """Zeros and ones as booleans; a missing cell is a zero, any other is NaN."""
    return table.map(lambda cell: False if is_missing(cell) else _FLAGS.get(as_text(cell).strip().lower(), np.nan))


def _is_one_hot(table: pd.DataFrame) -> bool:
    return table.shape[1] > 1 and len(table) > 0 and bool(_flags(table).notna().all(axis=None))


def _from_one_hot(table: pd.DataFrame, where: list[str], source: str) -> pd.Series:
    """Labels of a table with a column of zeros and ones for each.

    Raises
    ------
    ValueError
        If a row has several ones, or no row has any.
    """
    flags = _flags(table).to_numpy(dtype=bool)
    names = [str(name) for name in table]
    several = np.flatnonzero(flags.sum(axis=1) > 1)
    if several.size:
        both = " and ".join(names[k] for k in np.flatnonzero(flags[several[0]])[:2])
        raise ValueError(
            f"Expected at most one label a spot in the columns of zeros and ones of {source}, found {both} in "
            f"{where[several[0]]}, and {several.size} such spots in all; choose one column with column=."
        )
    if not flags.any():
        raise ValueError(f"Expected a label, found only zeros in the columns {', '.join(names)} of {source}.")
    labels = np.where(flags.any(axis=1), np.array(names, dtype=object)[flags.argmax(axis=1)], None)
    return pd.Series(labels, index=table.index, name=_keys.LAYER, dtype=object)


def _by_barcode(spots: pd.Index, series: pd.Series) -> tuple[pd.Series, str] | None:
    """Labels under the names of the spots of the same barcode, where only one side has the number (-1) after it."""
    names = matched_barcodes(list(series.index), list(spots))
    if names is None:
        return None
    return series.set_axis(pd.Index(names, dtype=object)), "barcode, without the number after it,"


def _named_by_place(labels: object, series: pd.Series) -> pd.Series:
    """Labels named by the two columns of coordinates that a table in memory has, else as they are."""
    columns = {str(name).lower(): name for name in labels} if isinstance(labels, pd.DataFrame) else {}
    pair = next(([columns[name] for name in both] for both in COORDINATES if set(both) <= set(columns)), None)
    if pair is None or not isinstance(labels, pd.DataFrame):
        return series
    across, down = (labels[name] for name in pair)
    return series.set_axis(pd.Index([f"{x}x{y}" for x, y in zip(across, down, strict=True)], dtype=object))


def _by_position(adata: ad.AnnData, series: pd.Series) -> tuple[pd.Series, str] | None:
    """Labels under the names of the spots at their positions, and what they were joined by.

    A label belongs to a spot if each is the other's nearest and they are no further apart than half the distance of
    two spots, across and down: as if both were rounded to the array. None where that is so for half of them or fewer.
    """
    if share_of_array_positions(list(series.index)) < 1:
        return None
    theirs = parse_array_positions(list(series.index))
    best: dict[int, int] = {}
    frame = ""
    for name, ours in _frames(adata):
        known = np.flatnonzero(np.isfinite(ours).all(axis=1))
        if len(known) < 2 or len(np.unique(ours[known], axis=0)) < len(known):
            continue  # of sections in one frame, a position belongs to several spots
        tree = cKDTree(ours[known])
        spacing = float(np.median(np.asarray(tree.query(ours[known], k=2, p=np.inf)[0])[:, 1]))
        distance, spot = map(np.asarray, tree.query(theirs, p=np.inf))
        back = np.asarray(cKDTree(theirs).query(ours[known], p=np.inf)[1])
        mutual = np.flatnonzero((distance <= spacing / 2) & (back[spot] == np.arange(len(theirs))))
        if len(mutual) > max(len(best), min(len(theirs), adata.n_obs) / 2):
            best, frame = dict(zip(mutual.tolist(), known[spot[mutual]].tolist(), strict=True)), name
    if not best:
        return None
    names = [as_text(adata.obs_names[best[i]]) if i in best else old for i, old in enumerate(series.index)]
    first = next(iter(best))
    return series.set_axis(pd.Index(names, dtype=object)), f"{frame} (as {series.index[first]!r} to {names[first]!r})"


def _frames(adata: ad.AnnData) -> Iterable[tuple[str, np.ndarray]]:
    """Coordinates of the spots, across and down, and what they are."""
    names = [as_text(name) for name in adata.obs_names]
    if share_of_array_positions(names) == 1:
        yield "array position", parse_array_positions(names)
    if {_keys.ARRAY_ROW, _keys.ARRAY_COL} <= set(adata.obs):
        yield "array position", adata.obs[[_keys.ARRAY_COL, _keys.ARRAY_ROW]].to_numpy(dtype=float)
    for key, what in ((_keys.SPATIAL_ARRAY, "array position"), (_keys.SPATIAL, "pixel")):
        if key in adata.obsm:
            yield what, np.asarray(adata.obsm[key], dtype=float)[:, :2]


def natural_order(text: str) -> list[tuple[int, float, str]]:
    """Sort key that reads numbers as numbers."""
    parts = re.split(r"(\d+)", text.casefold())
    return [(0, float(part), "") if part.isdigit() else (1, 0.0, part) for part in parts if part]


def _choose(candidates: list[str], column: str | None, path: Path) -> int:
    """Number of the label column: the one asked for, or the only one that holds no coordinates."""
    if column is not None:
        if candidates.count(column) != 1:
            raise ValueError(
                f"Expected one column {column!r}, found the columns {', '.join(candidates)} in {path}; check column=."
            )
        return candidates.index(column)
    places = {name for pair in COORDINATES for name in pair}
    left = [i for i, name in enumerate(candidates) if name.lower() not in places]
    if len(candidates) == 1 or len(left) == 1:
        return left[0] if left else 0
    raise ValueError(
        f"Expected one column of labels, found {', '.join(candidates)} in {path}; choose one with column=."
    )

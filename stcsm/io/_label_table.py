"""Labels of spots as files hold them: which column names the spots, which one holds the labels."""

from __future__ import annotations

import csv
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from stcsm import _keys
from stcsm._files import existing_file, text_lines
from stcsm._text import as_text, is_missing, listed
from stcsm.io._table import SEPARATORS, duplicated, is_array_position, split_cells

OF_SPOTS = frozenset({"", "spot", "spots", "barcode", "barcodes", "cell", "cells", "cell_id", "id", "name", "names"})
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
        A first column without a name that numbers the rows, as R and pandas write it, is left out where another one
        holds the names. In place of names, the first two columns may be coordinates (``x`` and ``y``, ``pixel_x`` and
        ``pixel_y``, ``array_col`` and ``array_row``). Several columns of zeros and ones, one for each label, are one
        column of labels; a spot that has only zeros has no label.
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
    return chosen_labels(read_label_table(path), column)


@dataclass(frozen=True)
class LabelTable:
    """Names of spots, and beside them columns of which one (or several of zeros and ones) holds the labels."""

    names: list[str]
    columns: pd.DataFrame
    source: str
    where: list[str]
    headless: bool = False

    def without(self, column: str) -> LabelTable:
        """The table without one of its columns."""
        return replace(self, columns=self.columns.drop(columns=column))

    def rows(self, at: np.ndarray) -> LabelTable:
        """Some of its rows."""
        names, where = ([of_row[i] for i in at] for of_row in (self.names, self.where))
        return replace(self, names=names, where=where, columns=self.columns.iloc[at])


def read_label_table(path: str | Path, spots: frozenset[str] = frozenset()) -> LabelTable:
    """Cells of a file of labels; `spots` are the names of the data's, where they are known."""
    path = existing_file(path, "a file of labels")
    lines = list(text_lines(path))
    separator = _separator([line for _, line in lines])
    if separator is None:
        raise ValueError(
            f"Expected spot names and labels separated by commas, tabs or semicolons, found {lines[0][1][:60]!r} as "
            f"the first line of {path}; check that this is the file of labels."
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
    if not headless and one_more and (header[0].lower() not in OF_SPOTS or _are_numbers([c[0] for _, c in body])):
        header = ["", *header]  # R leaves out the cell above the row names
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
    table = pd.DataFrame([cells for _, cells in body], columns=range(len(header)), dtype=object)
    named_by = spot_columns(header, [table[i].tolist() for i in table], spots)
    left_out = {*named_by, *([0] if header[0] == "" else [])}
    rest = [i for i in range(len(header)) if i not in left_out]
    names = ["x".join(row) for row in table[named_by].itertuples(index=False)]
    if 0 not in named_by:
        say_names_are(" and ".join(repr(header[i]) for i in named_by), str(path))
    columns = table[rest].set_axis(pd.Index([header[i] for i in rest], dtype=object), axis=1)
    return LabelTable(names, columns, str(path), [f"line {n}" for n, _ in body], headless)


def chosen_labels(table: LabelTable, column: str | None) -> pd.Series:
    """Labels of the column asked for, or of the only one; see `read_labels`."""
    if twice := duplicated(table.names):
        raise ValueError(
            f"Expected one label a spot, found {len(twice)} spots that occur more than once ({listed(twice, 5)}) "
            f"in {table.source}; remove the lines that are wrong, or name the section of each in a column 'section'."
        )
    if column is None and not table.headless and is_one_hot(table.columns):
        labels = from_one_hot(table.columns, table.where, table.source)
    else:
        chosen = _choose(list(map(str, table.columns)), column, table.source)
        labels = pd.Series(table.columns.iloc[:, chosen], name=table.columns.columns[chosen])
        if doubtful := int(labels.str.lower().isin(_NAMES).sum()):
            warnings.warn(
                f"{doubtful} spots of {table.source} have the label 'None' or 'null', which stands for no label; if it "
                "is the name of one, rename it.",
                stacklevel=3,
            )
    labels = labels.where(~labels.map(is_missing).astype(bool), None)
    found = sorted({label for label in labels if label is not None}, key=natural_order)
    if not found:
        raise ValueError(
            f"Expected labels in column {labels.name!r}, found none in {len(labels)} lines of {table.source}; check "
            "column=."
        )
    return pd.Series(
        pd.Categorical(labels.tolist(), categories=found), index=pd.Index(table.names, dtype=object), name=labels.name
    )


def _separator(lines: list[str]) -> str | None:
    """The character that cuts all lines into equally many cells; of a table without one, any that is there."""
    even = (s for s in SEPARATORS[:3] if len({len(_cells(line, s)) for line in lines}) == 1 and s in lines[0])
    return next(even, next((s for s in SEPARATORS[:3] if any(s in line for line in lines[:2])), None))


def _cells(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator)) if '"' in line else line.split(separator)


def spot_columns(header: list[str], columns: list[list[str]], spots: frozenset[str]) -> list[int]:
    """Columns that name the spot: the first, or the first two where these are coordinates (across, then down).

    Where the first one has no name and numbers the rows, as R and pandas write it, or holds none of the names of the
    data, it is the column that holds most of these, or else is named as, or looks like, a column of spot names.
    """
    numbered = header[0] == "" and _are_numbers(columns[0])
    hits = [len(spots.intersection(column)) for column in columns]
    if len(header) > 2 and (numbered or not hits[0]):
        best = max(range(1, len(header)), key=hits.__getitem__)
        if hits[best] >= max(hits[0], 1) and 2 * hits[best] > len(set(columns[best])):
            return [best]
        if numbered and not hits[0]:
            for i in range(1, len(header)):
                if header[i].lower() in OF_SPOTS - {""} or all(map(_BARCODE.fullmatch, columns[i])):
                    return [i]
            return _pair(header, 1) or [0]
    return _pair(header, 0) or [0]


def _pair(header: list[str], start: int) -> list[int]:
    """The two columns of coordinates that a table begins with, across and down; none of any other."""
    pair = tuple(name.lower() for name in header[start : start + 2])
    if len(header) > start + 2 and (pair in COORDINATES or pair[::-1] in COORDINATES):
        return [start, start + 1] if pair in COORDINATES else [start + 1, start]
    return []


def _are_numbers(names: list[str]) -> bool:
    """Whether names are the numbers of the rows, from 0 or 1 on."""
    return any(names == [str(i) for i in range(first, first + len(names))] for first in (0, 1))


def say_names_are(column: str, source: str) -> None:
    """Warn that a column other than the first holds the names."""
    warnings.warn(
        f"The names of the spots are those in the column {column} of {source}, not in the first column.", stacklevel=4
    )


def _flags(table: pd.DataFrame) -> pd.DataFrame:
    """Zeros and ones as booleans; a missing cell is a zero, any other is NaN."""
    return table.map(lambda cell: False if is_missing(cell) else _FLAGS.get(as_text(cell).strip().lower(), np.nan))


def is_one_hot(table: pd.DataFrame) -> bool:
    return table.shape[1] > 1 and len(table) > 0 and bool(_flags(table).notna().all(axis=None))


def from_one_hot(table: pd.DataFrame, where: list[str], source: str) -> pd.Series:
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


def natural_order(text: str) -> list[tuple[int, float, str]]:
    """Sort key that reads numbers as numbers."""
    parts = re.split(r"(\d+)", text.casefold())
    return [(0, float(part), "") if part.isdigit() else (1, 0.0, part) for part in parts if part]


def beside_coordinates(names: list[str]) -> list[int]:
    """Numbers of the columns that hold no coordinates, by their names."""
    places = {name for pair in COORDINATES for name in pair}
    return [i for i, name in enumerate(names) if name.lower() not in places]


def _choose(candidates: list[str], column: str | None, source: str) -> int:
    """Number of the label column: the one asked for, or the only one that holds no coordinates."""
    if column is not None:
        if candidates.count(column) != 1:
            raise ValueError(
                f"Expected one column {column!r}, found the columns {', '.join(candidates)} in {source}; check column=."
            )
        return candidates.index(column)
    left = beside_coordinates(candidates)
    if len(candidates) == 1 or len(left) == 1:
        return left[0] if left else 0
    raise ValueError(
        f"Expected one column of labels, found {', '.join(candidates)} in {source}; choose one with column=."
    )

"""Tables as text: cells, rows of numbers read line by line into a sparse matrix, spots named by array position."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from stcsm._files import text_lines

SEPARATORS = "\t,; "
"""Characters that may separate two cells, the most likely first."""
FLOAT32_EXACT = 2**24
"""Whole numbers up to here are exact in float32."""
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_POSITION = re.compile(rf"\s*({_NUMBER})x({_NUMBER})\s*")


@dataclass(frozen=True)
class Table:
    """Named rows and columns of numbers, and the line of the file that each row comes from."""

    path: Path
    rows: list[str]
    columns: list[str]
    values: sparse.csr_matrix
    lines: list[int]


def read_table(path: Path) -> Table:
    """Read a delimited text table of numbers.

    The first line holds the column names, with or without a cell above the row names; the first cell of every
    other line is the row's name. Only the values that are not zero are kept, so memory follows the counts and not
    the size of the file.

    Parameters
    ----------
    path
        Plain or gzipped text, cells separated by tabs, commas, semicolons or blanks.

    Returns
    -------
    Table
        Values are float32, or float64 where a whole number would not be exact in float32.

    Raises
    ------
    ValueError
        No cells, no rows, a line with another number of cells than the first, a cell that is not a finite number, or a
        missing name; the message says the line and the text.
    """
    rows: list[str] = []
    lines: list[int] = []
    data: list[np.ndarray] = []
    indices: list[np.ndarray] = []
    indptr = [0]
    numbered = text_lines(path)
    head_line, header = next(numbered, (0, ""))
    separator = next((s for s in SEPARATORS if s in header), None)
    if separator is None or header.lstrip().startswith("<"):
        raise ValueError(
            "Expected a table with cells separated by tabs, commas, semicolons or blanks, found as its "
            f"first line {_short(header)!r} in {path}; check that this is the count matrix and not, for instance, a "
            "web page saved under its name."
        )
    names = [name.strip() for name in split_cells(header, separator, head_line, path)]
    columns: list[str] | None = None
    for n, line in numbered:
        name, *cells = split_cells(line, separator, n, path)
        if columns is None:  # the first row tells whether the header has a cell above the row names
            columns = names if len(cells) == len(names) and names[0] else names[1:]
        if len(cells) != len(columns):
            raise ValueError(
                f"Expected {len(columns)} values, as many as the first line names, found {len(cells)} in line {n} "
                f"({_short(name)!r}) of {path}; the file may be cut short or have another layout."
            )
        values = _numbers(cells, name, line, n, columns, path)
        kept = np.flatnonzero(values)
        rows.append(name.strip())
        lines.append(n)
        indices.append(kept.astype(np.int32))
        data.append(values[kept])
        indptr.append(indptr[-1] + kept.size)
    if columns is None:
        raise ValueError(
            f"Expected rows of numbers below the first line, found none in {path}; fetch or export it again."
        )
    _check_names(rows, columns, lines, head_line, path)
    flat = np.concatenate(data)
    exact = not flat.size or np.abs(flat).max() <= FLOAT32_EXACT
    matrix = sparse.csr_matrix(
        (flat.astype(np.float32) if exact else flat, np.concatenate(indices), indptr), shape=(len(rows), len(columns))
    )
    return Table(path, rows, columns, matrix, lines)


def duplicated(names: Sequence[str]) -> list[str]:
    """Names that occur more than once, in order of first appearance."""
    return [name for name, n in Counter(names).items() if n > 1]


def split_cells(line: str, separator: str, n: int, path: Path) -> list[str]:
    """Cells of line `n` of a file, without the quotes around them.

    Raises
    ------
    ValueError
        A quote that is not closed runs over all the rest of a long line.
    """
    if '"' not in line:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator))
    except csv.Error as error:
        raise ValueError(
            f"Expected quotes in pairs, found one that is not closed in line {n} of {path} ({error}); remove it."
        ) from error


def is_array_position(name: str) -> bool:
    """Whether `name` is two finite numbers joined by `x`: `16.92x9.015` is column 16.92, row 9.015 of the array."""
    pair = _POSITION.fullmatch(name)
    return pair is not None and math.isfinite(float(pair[1])) and math.isfinite(float(pair[2]))


def share_of_array_positions(names: Sequence[str]) -> float:
    """Share of `names` that are array positions; 0 of none."""
    return sum(map(is_array_position, names)) / len(names) if names else 0.0


def parse_array_positions(names: Sequence[str]) -> np.ndarray:
    """Array coordinates, shape (number of names, 2): x (column), then y (row).

    Names must be array positions (see `is_array_position`).
    """
    pairs = [_POSITION.fullmatch(name) for name in names]
    return np.array([[float(pair[1]), float(pair[2])] for pair in pairs if pair], dtype=np.float64).reshape(-1, 2)


def _numbers(cells: list[str], name: str, line: str, n: int, columns: list[str], path: Path) -> np.ndarray:
    try:
        values = np.fromiter(map(float, cells), dtype=np.float64, count=len(cells))
        suspect = not np.isfinite(values).all() or "_" in line
    except ValueError:
        suspect = True
    bad = next((i for i, cell in enumerate(cells) if not _is_number(cell)), None) if suspect else None
    if bad is not None:
        raise ValueError(
            f"Expected a number, found {_short(cells[bad])!r} in line {n} ({_short(name)!r}), "
            f"column {bad + 2} ({columns[bad]!r}) of {path}; "
            "a count matrix holds numbers only, 0 where nothing was counted."
        )
    return values


def _is_number(cell: str) -> bool:
    """Whether `cell` is a finite number in plain digits; `float` would also take 1_000."""
    try:
        return math.isfinite(float(cell)) and "_" not in cell
    except ValueError:
        return False


def _check_names(rows: list[str], columns: list[str], lines: list[int], head_line: int, path: Path) -> None:
    for i, name in enumerate(columns):
        if not name:
            raise ValueError(
                f"Expected a name, found an empty one in line {head_line}, column {i + 2} of {path}; name the column."
            )
    for line, name in zip(lines, rows, strict=True):
        if not name:
            raise ValueError(
                f"Expected a name, found an empty one at the beginning of line {line} of {path}; name the row."
            )


def _short(text: str, width: int = 60) -> str:
    return text if len(text) <= width else text[:width] + "..."

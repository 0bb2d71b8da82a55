"""CelebA's tables of attributes, landmarks and partition, as text or csv, and attribute tables of your own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

__all__ = ["LANDMARKS", "PARTITIONS", "attributes_from", "read_attributes", "read_landmarks", "read_partition"]

#: Columns of ``list_landmarks_align_celeba``.
LANDMARKS = (
    "lefteye_x",
    "lefteye_y",
    "righteye_x",
    "righteye_y",
    "nose_x",
    "nose_y",
    "leftmouth_x",
    "leftmouth_y",
    "rightmouth_x",
    "rightmouth_y",
)

#: Names of the numbers in ``list_eval_partition``.
PARTITIONS = ("train", "valid", "test")


def read_attributes(path: str | Path) -> pd.DataFrame:
    """Read an attribute table.

    Parameters
    ----------
    path
        CelebA's ``list_attr_celeba.txt`` (a count, a line of names, then ``000001.jpg -1 1 ...``) or a table separated
        by commas, semicolons or tabs whose first column, or the one called ``image_id``, holds the names of the images.
        Values are -1/1, 0/1 or true/false.

    Returns
    -------
    Booleans, one row per image (indexed by its name), one column per attribute.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, lists an image twice, or holds other values.
    """
    return attributes_from(_read(path), str(path))


def read_landmarks(path: str | Path) -> pd.DataFrame:
    """Read ``list_landmarks_align_celeba`` (.txt or .csv): ten integers per image, in pixels, columns `LANDMARKS`.

    Raises
    ------
    ValueError
        If columns are missing, a name occurs twice or a value is not an integer.
    """
    table = _read(path)
    absent = [name for name in LANDMARKS if name not in table.columns]
    if absent:
        raise ValueError(f"Expected the columns {', '.join(LANDMARKS)} in {path}, found none called {absent[0]!r}.")
    return _numbers(table[list(LANDMARKS)], str(path))


def read_partition(path: str | Path) -> pd.Series:
    """Read ``list_eval_partition``: text without a header, or a table with commas, semicolons or tabs.

    Returns ``train``, ``valid`` or ``test`` for each image.

    Raises
    ------
    ValueError
        If a name occurs twice or a value is not 0, 1 or 2.
    """
    path = Path(path)
    table = _read(path, names_first=False)
    if table.shape[1] != 1:
        raise ValueError(f"Expected one number per image in {path}, found {table.shape[1]} columns.")
    values = _numbers(table, str(path)).iloc[:, 0]
    invalid = ~values.isin(range(len(PARTITIONS)))
    if invalid.any():
        name = values.index[invalid][0]
        raise ValueError(
            f"Expected 0 (train), 1 (validation) or 2 (test) in {path}, found {values[name]} for {name}; correct it."
        )
    return values.map(dict(enumerate(PARTITIONS))).rename("partition")


def attributes_from(table: pd.DataFrame, source: str = "the attribute table") -> pd.DataFrame:
    """Convert a table of -1/1, 0/1 or true/false, indexed by image names, to booleans.

    Raises
    ------
    ValueError
        If a name occurs twice, a value is missing or not one of these, or a column mixes -1 and 0.
    """
    if table.shape[1] == 0:
        raise ValueError(f"Expected at least one attribute in {source}, found none.")
    if table.columns.has_duplicates:
        twice = table.columns[table.columns.duplicated()][0]
        raise ValueError(f"Expected distinct attributes in {source}, found {twice!r} twice.")
    if table.map(lambda value: isinstance(value, bool | np.bool_)).all(axis=None):
        return _distinct(table, source).astype(bool)
    numbers = _numbers(table, source)
    values = numbers.to_numpy()
    invalid = ~np.isin(values, (-1, 0, 1))
    if invalid.any():
        row, column = np.argwhere(invalid)[0]
        raise ValueError(
            f"Expected -1 or 1 (or 0 or 1) in {source}, found {values[row, column]} for {table.columns[column]!r} of "
            f"{table.index[row]}; write 1 for yes and -1 (or 0) for no."
        )
    mixed = (values == -1).any(axis=0) & (values == 0).any(axis=0)
    if mixed.any():
        name = table.columns[int(np.argmax(mixed))]
        raise ValueError(
            f"Expected either -1/1 or 0/1 in a column of {source}, found -1 and 0 in {name!r}; 0 may mean unknown."
        )
    return pd.DataFrame(values > 0, index=numbers.index, columns=numbers.columns)


def _read(path: str | Path, *, names_first: bool = True) -> pd.DataFrame:
    """Read a table indexed by the names of the images.

    Text that is separated by blanks has a line of names first if `names_first` says so; of other tables the first line
    shows whether it holds names.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a table at {path}, found no such file.")
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        head = [line for _, line in zip(range(2), (line for line in lines if line.strip()), strict=False)]
    separator = _separator("".join(head), path.suffix.lower())
    if separator is None:
        return _read_text(path, header=names_first)
    last = "".join(head[:1]).split(separator)[-1].strip(' "\n')
    header = names_first or path.suffix.lower() == ".csv" or not _is_number(last)
    try:
        table = pd.read_csv(
            path,
            sep=separator,
            header=0 if header else None,
            dtype={0: str, "image_id": str},
            skipinitialspace=True,
            encoding="utf-8-sig",
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected a table in {path}, found a damaged file: {error}") from error
    if isinstance(table.index, pd.MultiIndex):
        raise ValueError(
            f"Expected one value for each of the {table.shape[1]} names in {path}, found {table.index.nlevels} more."
        )
    if not isinstance(table.index, pd.RangeIndex):  # no cell above the names of the images, as R writes tables
        return table.set_axis(pd.Index(table.index, name="image_id"))
    # Some copies have an unnamed column of row numbers before the names.
    names = "image_id" if "image_id" in table.columns else table.columns[0]
    index = table.pop(names)
    table = table.loc[:, [not str(c).startswith("Unnamed:") for c in table.columns]]
    return table.set_axis(pd.Index(index, name="image_id"))


def _separator(head: str, suffix: str) -> str | None:
    """What separates the cells of a table's first two lines; None for blanks."""
    known = {".csv": ",", ".tsv": "\t"}
    likely = [*([known[suffix]] if suffix in known else []), ";", ",", *("\t" if suffix in known else "")]
    most = max(likely, key=head.count)  # of equals the first, which is what the name of the file says
    return most if head.count(most) or suffix in known else None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_text(path: Path, header: bool) -> pd.DataFrame:
    count, names, skip = None, None, 0
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        if header:
            line = next(lines, "").split()
            if len(line) == 1 and line[0].isdigit():
                count, skip = int(line[0]), 1
                line = next(lines, "").split()
            names, skip = line, skip + 1
        first = next(lines, "").split()
    if len(first) < 2:
        raise ValueError(
            f"Expected lines such as '000001.jpg -1 1' in {path}, found {' '.join(first)!r} as the first of them."
        )
    names = [str(k) for k in range(len(first) - 1)] if names is None else names
    names = names[1:] if len(names) == len(first) else names  # the header also names the column of file names
    if len(names) != len(first) - 1:
        raise ValueError(f"Expected one value for each of the {len(names)} names in {path}, found {len(first) - 1}.")
    try:
        table = pd.read_csv(
            path, sep=r"\s+", skiprows=skip, header=None, names=["image_id", *names], dtype={"image_id": str}
        )
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(
            f"Expected {len(names) + 1} entries per line in {path}, found a damaged file: {error}"
        ) from error
    if isinstance(table.index, pd.MultiIndex) or not isinstance(table.index, pd.RangeIndex):
        raise ValueError(f"Expected {len(names) + 1} entries per line in {path}, found more.")
    if count is not None and count != len(table):
        raise ValueError(
            f"Expected {count} images in {path}, as its first line says, found {len(table)}; is the file complete?"
        )
    return table.set_index("image_id")


def _distinct(table: pd.DataFrame, source: str) -> pd.DataFrame:
    index = table.index
    if index.hasnans:
        raise ValueError(
            f"Expected a name in every row of {source}, found row {int(np.argmax(index.isna())) + 1} without one; "
            "name its image or delete it."
        )
    if index.has_duplicates:
        raise ValueError(
            f"Expected distinct image names in {source}, found {index[index.duplicated()][0]} twice; delete one row."
        )
    return table.set_axis(index.astype(str))


def _numbers(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Convert a table to integers; the error names the first cell that is not one."""
    table = _distinct(table, source)
    numbers = table.apply(pd.to_numeric, errors="coerce")
    values = numbers.to_numpy(dtype=np.float64)
    invalid = ~np.isfinite(values) | (values != np.rint(values))
    if invalid.any():
        row, column = np.argwhere(invalid)[0]
        found = table.iloc[row, column]
        raise ValueError(
            f"Expected integers in {source}, found {found!r} for {table.columns[column]!r} of {table.index[row]}; "
            "correct it or delete the row."
        )
    return pd.DataFrame(values.astype(np.int64), index=table.index, columns=table.columns)

"""10x matrices, as Space Ranger and Xenium write them: one HDF5 file, or a folder of three text files."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.io import mmread

from stcsm._files import GZIP_MAGIC, text_lines
from stcsm._text import as_text, listed
from stcsm.io._section import Counts
from stcsm.io._table import split_cells

_ABOUT = ("library_ids", "chemistry_description", "software_version")


def read_tenx(path: Path) -> Counts:
    """Read a 10x matrix: barcodes x features.

    Parameters
    ----------
    path
        `.h5`, of Cell Ranger 2 (one group a genome) or later (`matrix`), plain or gzipped; `matrix.mtx`, beside it
        `barcodes.tsv` and `features.tsv` (or `genes.tsv`), each plain or gzipped, after a sample's name or none; or a
        folder that holds these.

    Returns
    -------
    Counts
        Features are named by symbol. ``var``: ``gene_ids``, and ``feature_types`` and ``genome`` where the file says
        so. ``about``: ``library_ids``, ``chemistry_description`` and ``software_version``, where it says so.

    Raises
    ------
    FileNotFoundError
        A folder that lacks one of the three files.
    ValueError
        A folder of several matrices, a damaged file, or one whose names and counts do not fit.
    """
    if path.is_dir():
        return _read_mtx(_mtx_in(path))
    return _read_mtx(path) if path.name.removesuffix(".gz").endswith(".mtx") else _read_h5(path)


def is_tenx(path: Path) -> bool:
    """Whether a file is a 10x matrix: HDF5 with its groups, plain or gzipped, or `.mtx`."""
    name = path.name.removesuffix(".gz")
    if not (name.endswith(".h5") or h5py.is_hdf5(path)):
        return name.endswith(".mtx")
    try:
        with h5py.File(_as_h5(path), "r") as file:
            groups = [group for group in file.values() if isinstance(group, h5py.Group)]
            return "obs" not in file and any("barcodes" in group for group in groups)
    except (OSError, ValueError):  # damaged: reading it says how
        return False


def plain_bytes(path: Path) -> bytes:
    """Content of a file, unzipped where it is gzipped; the content says so, not the name.

    Raises
    ------
    ValueError
        The gzip stream is cut short or damaged.
    """
    data = path.read_bytes()
    if not data.startswith(GZIP_MAGIC):
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"Expected a whole gzip file, found one that is cut short or damaged ({error}): {path}; copy it again."
        ) from error


def read_parquet(path: Path) -> pd.DataFrame:
    """Table of spots or cells, plain or gzipped.

    Raises
    ------
    ValueError
        The file is damaged.
    """
    try:
        return pd.read_parquet(io.BytesIO(plain_bytes(path)))
    except (OSError, ValueError) as error:
        raise ValueError(f"Expected a whole parquet file, found {error}: {path}; copy it again.") from error


def _read_h5(path: Path) -> Counts:
    try:
        with h5py.File(_as_h5(path), "r") as file:
            groups = ["matrix"] if "matrix" in file else [name for name in file if "barcodes" in file[name]]
            if not groups:
                raise ValueError(
                    f"Expected a 10x matrix (the group 'matrix'), found the groups {sorted(file)} in {path}; "
                    "give filtered_feature_bc_matrix.h5."
                )
            if len(groups) > 1:
                raise ValueError(
                    f"Expected the matrix of one genome, found {', '.join(groups)} in {path}; "
                    "write one of them to a file of its own."
                )
            counts = _read_group(file[groups[0]], groups[0], path)
            said = {key: np.atleast_1d(file.attrs.get(key, ())) for key in _ABOUT}
            counts.about = {key: as_text(values[0]) for key, values in said.items() if len(values)}
    except (OSError, KeyError) as error:
        raise ValueError(
            f"Expected a whole 10x matrix, found an HDF5 file that does not open as one ({error}): {path}; "
            "copy it again."
        ) from error
    return counts


def _as_h5(path: Path) -> Any:
    with path.open("rb") as file:
        return io.BytesIO(plain_bytes(path)) if file.read(2) == GZIP_MAGIC else path


def _read_group(group: h5py.Group, name: str, path: Path) -> Counts:
    features = group.get("features")
    if features is None:  # Cell Ranger 2: genes and gene_names in a group that bears the genome's name
        symbols, columns = _texts(group["gene_names"]), {"gene_ids": _texts(group["genes"]), "genome": name}
    else:
        symbols = _texts(features["name"])
        held = {"gene_ids": "id", "feature_types": "feature_type", "genome": "genome"}
        columns = {key: _texts(features[there]) for key, there in held.items() if there in features}
    # tools in R write indices as floats
    indices, indptr = (group[key][:].astype(np.int64) for key in ("indices", "indptr"))
    n_features, n_barcodes = (int(n) for n in group["shape"][:])
    counts = sparse.csr_matrix((group["data"][:].astype(np.float32), indices, indptr), shape=(n_barcodes, n_features))
    return _checked(counts, _texts(group["barcodes"]), symbols, columns, path)


def _mtx_in(folder: Path) -> Path:
    # Cell Ranger 2 puts the files in a folder named by the genome
    for places in ([folder], sorted(p for p in folder.iterdir() if p.is_dir())):
        held = [path for place in places for path in sorted(place.iterdir())]
        found = [path for path in held if path.is_file() and _ends(path, "matrix.mtx")]
        if len({path.with_name(path.name.removesuffix(".gz")) for path in found}) > 1:
            raise ValueError(
                f"Expected one matrix, found {', '.join(str(path.relative_to(folder)) for path in found)} in {folder}; "
                "put each sample's (or genome's) three files in a folder of their own."
            )
        if found:
            return found[0]
    raise FileNotFoundError(
        f"Expected matrix.mtx (or .gz), found {', '.join(sorted(p.name for p in folder.iterdir())) or 'nothing'} "
        f"in {folder}; copy it there."
    )


def _ends(path: Path, name: str) -> bool:
    """Whether a file is called `name`, gzipped or not, after a sample's name or none."""
    stem = path.name.removesuffix(".gz")
    return re.fullmatch(rf"(?:[^.].*[_.-])?{re.escape(name)}", stem) is not None


def _read_mtx(path: Path) -> Counts:
    beginning = path.name.removesuffix(".gz").removesuffix("matrix.mtx")
    barcodes = [row[0] for row in _cells(_beside(path, beginning, ("barcodes.tsv",)))]
    rows = _cells(_beside(path, beginning, ("features.tsv", "genes.tsv")))
    symbols = [row[1] if len(row) > 1 else row[0] for row in rows]
    columns: dict[str, Any] = {"gene_ids": [row[0] for row in rows]}
    if all(len(row) > 2 for row in rows):
        columns["feature_types"] = [row[2] for row in rows]
    try:
        counts = sparse.csr_matrix(mmread(io.BytesIO(plain_bytes(path))).T, dtype=np.float32)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"Expected a whole Matrix Market file, found one that does not read as one ({error}): {path}; "
            "copy it again."
        ) from error
    return _checked(counts, barcodes, symbols, columns, path)


def _beside(path: Path, beginning: str, names: tuple[str, ...]) -> Path:
    """The file of one of these names under the matrix's beginning of the name, else the only one of such a name."""
    held = sorted(file for file in path.parent.iterdir() if file.is_file())
    for name in names:
        alike = [file for file in held if file.name.removesuffix(".gz") == f"{beginning}{name}"]
        others = [file for file in held if _ends(file, name)]
        if alike or len(others) == 1:
            return (alike or others)[0]
    there = listed([file.name for file in held])
    raise FileNotFoundError(
        f"Expected {' or '.join(beginning + name for name in names)} (or .gz) beside {path}, found {there}; "
        "copy the three files of the matrix together."
    )


def _cells(path: Path) -> list[list[str]]:
    return [[cell.strip() for cell in split_cells(line, "\t", n, path)] for n, line in text_lines(path)]


def _checked(
    values: sparse.csr_matrix, barcodes: list[str], symbols: list[str], columns: dict[str, Any], path: Path
) -> Counts:
    if values.shape != (len(barcodes), len(symbols)):
        raise ValueError(
            f"Expected counts of {len(barcodes)} barcodes x {len(symbols)} features, as many as are named, found "
            f"{values.shape[0]} x {values.shape[1]} in {path}; the files come from different runs, or one is cut short."
        )
    values.sum_duplicates()
    return Counts(values, barcodes, symbols, pd.DataFrame(columns))


def _texts(dataset: h5py.Dataset) -> list[str]:
    return [as_text(value) for value in dataset[:]]

"""Whether a matrix holds counts, and if not, what it holds and where."""

from __future__ import annotations

import os
import weakref
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from stcsm.space._stored_blocks import stored_blocks

_passed: dict[Hashable, tuple[Any, Any]] = {}
"""Matrices that have passed: by the object's number or the file's name, a weak reference (or None) and a signature.

Single operations on a dictionary are atomic, so threads need no lock; at worst two of them check a matrix twice.
"""


def check_counts(matrix: Any, spot_names: Sequence[str], gene_names: Sequence[str]) -> None:
    """Refuse a matrix that does not hold counts; say what it holds, where and how often.

    A matrix that has passed is not read value by value again while it is the same object with the same shape, number,
    sum and sum of squares of its stored values (one that was normalised in place has others), or the same data set of
    an unchanged HDF5 file that is open for reading only. Whatever is neither (views, lazy arrays, zarr stores) is
    checked each time. The user's data are not kept alive.

    Parameters
    ----------
    matrix
        (S, G): dense, sparse, backed or lazy; read in blocks.
    spot_names, gene_names
        Names of rows and columns, for the message.

    Raises
    ------
    ValueError
        If a value is NaN, infinite, negative or fractional, or if there is no count at all.
    """
    name, reference, signature = _identity(matrix)
    known = _passed.get(name)
    if signature is not None and known is not None and known[1] == signature:
        kept = known[0]
        if kept is None or kept() is matrix:
            return
    check_every_value(matrix, spot_names, gene_names)
    if signature is not None:
        _passed[name] = (reference, signature)


def _identity(matrix: Any) -> tuple[Hashable, Any, Any]:
    """Name, weak reference and signature of a matrix; the signature is None where it could be another one unnoticed."""
    values = matrix if isinstance(matrix, np.ndarray) else getattr(matrix, "data", None)
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "iufb" or not values.flags.forc:
            return None, None, None
        flat = values.ravel(order="K")  # not a copy, since the values are contiguous
        # A spot's counts divided by its depth may leave the sum as it was, and the squares will not.
        signature = (matrix.shape, values.dtype.str, flat.size, float(flat.sum()), float(np.vdot(flat, flat)))
        name = id(matrix)
        return name, weakref.ref(matrix, lambda _: _passed.pop(name, None)), signature
    stored = getattr(matrix, "group", matrix)
    file: Any = getattr(stored, "file", None)
    if getattr(file, "mode", None) != "r":
        return None, None, None
    try:
        stat = os.stat(file.filename)
    except (OSError, TypeError, ValueError):  # a file that lies in memory
        return None, None, None
    return (file.filename, stored.name), None, (matrix.shape, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def check_every_value(matrix: Any, spot_names: Sequence[str], gene_names: Sequence[str]) -> None:
    """:func:`check_counts` of a matrix of which nothing is known yet."""
    if getattr(matrix, "dtype", None) is not None and matrix.dtype.kind not in "iufb":
        raise ValueError(f"Expected numbers as counts, found a matrix of {matrix.dtype}")
    faults = {"NaN or infinite": 0, "negative": 0, "fractional": 0}
    first: dict[str, str] = {}
    total = 0.0
    hint, named = "point to the raw counts: layer=...", ""
    for row, column, block in stored_blocks(matrix):
        values = _values(block)
        finite = np.isfinite(values)
        total += float(values[finite].sum(dtype=np.float64))
        for kind, bad in (
            ("NaN or infinite", ~finite),
            ("negative", finite & (values < 0)),
            ("fractional", finite & (values != np.rint(values))),
        ):
            n = int(np.count_nonzero(bad))
            if n and kind not in first:
                spot, gene = _locate(block, bad)
                value = values.flat[int(np.flatnonzero(bad)[0])]
                place = f"spot {spot_names[row + spot]!r}, gene {gene_names[column + gene]!r}"
                first[kind] = f"{value:.4g} at {place}"
                if kind == "fractional":
                    named = _what_it_is(block)
            faults[kind] += n
    found = [f"{n} {kind} (first: {first[kind]})" for kind, n in faults.items() if n]
    if found:
        if faults["fractional"] and not faults["negative"] and not faults["NaN or infinite"]:
            hint = named + hint
        raise ValueError(f"Expected counts (whole numbers, 0 or more), found {'; '.join(found)}; {hint}")
    if total == 0:
        raise ValueError("Expected counts, found only zeros; is this the right layer?")


def _values(block: Any) -> np.ndarray:
    return block if isinstance(block, np.ndarray) else block.data


def _locate(block: Any, bad: np.ndarray) -> tuple[int, int]:
    """Row and column of the first bad value of a block."""
    if isinstance(block, np.ndarray):
        row, column = np.argwhere(bad)[0]
        return int(row), int(column)
    # Compressed by rows or by columns: the pointer array says in which the stored value lies.
    k = int(np.flatnonzero(bad)[0])
    major = int(np.searchsorted(block.indptr, k, side="right")) - 1
    minor = int(block.indices[k])
    return (major, minor) if block.format == "csr" else (minor, major)


def _what_it_is(block: Any) -> str:
    """Name normalised data for what it is: within a spot, all values are multiples of one size factor."""
    some: Any = block[:64] if isinstance(block, np.ndarray) else sparse.csr_array(block)[:64].toarray()
    rows = np.asarray(some)
    logged: list[float] = []
    scaled: list[float] = []
    for row in rows.astype(np.float64):
        values = row[row > 0]
        if len(values) < 2:
            continue
        for undone, votes in ((np.expm1(np.minimum(values, 50.0)), logged), (values, scaled)):
            ratio = undone / undone.min()
            small = ratio[ratio < 50]
            votes.append(float(np.mean(np.abs(small - np.rint(small)) < 0.01 * small)))
    if logged and np.median(logged) > 0.95 and np.median(logged) > np.median(scaled):
        return "these are log-normalised values (scanpy's normalize_total and log1p), not counts; "
    if scaled and np.median(scaled) > 0.95:
        return "these are normalised values (scanpy's normalize_total), not counts; "
    return ""

"""Matrices of counts: read in bounded blocks, checked, thinned into independent parts, log-normalised."""

from __future__ import annotations

import os
import weakref
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import csr_array, diags_array

VALUES = 2**23
"""Values that a block would have as a dense array; bounds the memory of a reader."""
LARGEST_LOG = 20.0
"""No logarithm of a count is larger: e^20 is 500 million."""

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
        total, squares = (float(np.einsum(how, *[flat] * n, dtype=np.float64)) for how, n in (("i->", 1), ("i,i->", 2)))
        if not np.isfinite(squares):
            return None, None, None
        signature = (matrix.shape, values.dtype.str, flat.size, total, squares)
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
                where = f"spot {spot_names[row + spot]!r}, gene {gene_names[column + gene]!r}"
                first[kind] = f"{_in_digits(value)} at {where}"
                if kind == "fractional":
                    named = _what_it_is(block)
            faults[kind] += n
    found = [f"{n} {kind} (first: {first[kind]})" for kind, n in faults.items() if n]
    if found:
        if faults["fractional"] and not faults["negative"] and not faults["NaN or infinite"]:
            hint = named + hint
        raise ValueError(f"Expected counts (whole numbers, 0 or more), found {'; '.join(found)}; {hint}")
    if total == 0:
        raise ValueError(
            f"Expected counts, found only zeros in {len(spot_names)} spots x {len(gene_names)} genes; read a file or "
            "name a layer that has some: layer=..."
        )


def _values(block: Any) -> np.ndarray:
    return block if isinstance(block, np.ndarray) else block.data


def _in_digits(value: Any) -> str:
    """A value in four digits, or in as many as show that it is no whole number."""
    if not np.isfinite(value) or value == np.rint(value):
        return f"{value:.4g}"
    return next(text for n in range(4, 18) if not float(text := f"{value:.{n}g}").is_integer())


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
    """Recognise normalised data: within a spot, all values are multiples of one size factor."""
    some: Any = block[:64] if isinstance(block, np.ndarray) else sparse.csr_array(block)[:64].toarray()
    rows = np.asarray(some)
    logged: list[float] = []
    scaled: list[float] = []
    for row in rows.astype(np.float64):
        values = row[row > 0]
        if len(values) < 2:
            continue
        for undone, votes in ((np.expm1(np.minimum(values, LARGEST_LOG)), logged), (values, scaled)):
            ratio = undone / undone.min()
            small = ratio[ratio < 50]
            whole = float(np.mean(np.abs(small - np.rint(small)) < 0.01 * small))
            votes.append(0.0 if votes is logged and values.max() > LARGEST_LOG else whole)
    if logged and np.median(logged) > 0.95 and np.median(logged) > np.median(scaled):
        return "these are log-normalised values (scanpy's normalize_total and log1p), not counts; "
    if scaled and np.median(scaled) > 0.95:
        return "these are normalised values (scanpy's normalize_total), not counts; "
    return ""


def stored_blocks(matrix: Any, values: int = VALUES) -> Iterator[tuple[int, int, Any]]:
    """Blocks of a matrix, along the axis by which it is stored: rows, or columns where it is stored by columns.

    Against that axis a matrix on disk would be read whole for every block.

    Parameters
    ----------
    matrix
        (S, G): a numpy array, any scipy sparse matrix, a backed anndata matrix (HDF5 or zarr, sparse or dense), or a
        lazy dask array of either.
    values
        Most values of a block, counted as if it were dense.

    Yields
    ------
    First row, first column, and the block in memory: a numpy array or a scipy sparse matrix.
    """
    for start, stop in _ranges(matrix, values):
        if stored_by_columns(matrix):
            yield 0, start, _in_memory(matrix[:, start:stop])
        else:
            yield start, 0, _in_memory(matrix[start:stop])


def _ranges(matrix: Any, values: int) -> Iterator[tuple[int, int]]:
    """First row of each block and the row after its last; columns of a matrix that is stored by columns."""
    rows, columns = matrix.shape
    by_columns = stored_by_columns(matrix)
    length, across = (columns, rows) if by_columns else (rows, columns)
    step = max(1, values // max(across, 1))
    chunk = _chunk(matrix, 1 if by_columns else 0)
    if chunk is not None and chunk * across <= 4 * values:  # a chunk that is cut is read and unpacked twice
        step = max(chunk, step // chunk * chunk)
    for start in range(0, length, step):
        yield start, min(start + step, length)


def selected_blocks(matrix: Any, rows: np.ndarray, values: int = VALUES) -> Iterator[tuple[int, int, csr_array]]:
    """Blocks of some rows of a matrix, read as :func:`stored_blocks` reads; blocks without such a row are not read.

    Parameters
    ----------
    matrix
        (S, G), as for :func:`stored_blocks`.
    rows
        Indices (n,) of rows, ascending.
    values
        As for :func:`stored_blocks`.

    Yields
    ------
    Place of the block's first row among ``rows``, first column, and the block (CSR).
    """
    if stored_by_columns(matrix):
        for _, column, block in stored_blocks(matrix, values):
            yield 0, column, csr_array(block)[rows]
        return
    for start, stop in _ranges(matrix, values):
        first, last = np.searchsorted(rows, [start, stop])
        if first < last:
            yield int(first), 0, csr_array(_in_memory(matrix[start:stop]))[rows[first:last] - start]


def count_totals(
    matrix: Any, taken_spots: np.ndarray | None = None, taken_genes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Counts of each spot (S,) and of each gene (G,), float64, read once in blocks.

    With masks (S,) and (G,), only counts of these spots at these genes are added up; the others have zero.
    """
    if taken_spots is not None and taken_genes is not None and not (taken_spots.all() and taken_genes.all()):
        return _totals_of(matrix, taken_spots, taken_genes)
    spots, genes = np.zeros(matrix.shape[0]), np.zeros(matrix.shape[1])
    for row, column, block in stored_blocks(matrix):
        spots[row : row + block.shape[0]] += np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()
        genes[column : column + block.shape[1]] += np.asarray(block.sum(axis=0, dtype=np.float64)).ravel()
    return spots, genes


def _totals_of(matrix: Any, taken_spots: np.ndarray, taken_genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    spots, genes = np.zeros(matrix.shape[0]), np.zeros(matrix.shape[1])
    for row, column, block in stored_blocks(matrix):
        own, some = slice(row, row + block.shape[0]), slice(column, column + block.shape[1])
        left, right = taken_spots[own].astype(np.float64), taken_genes[some].astype(np.float64)
        spots[own] += left * (block @ right)
        genes[some] += right * (block.T @ left)
    return spots, genes


def stored_by_columns(matrix: Any) -> bool:
    """Whether columns lie together: compressed sparse columns, or lazy or chunked arrays cut along the columns."""
    kind = getattr(matrix, "format", None)
    if kind is not None:
        return kind == "csc"
    chunks = getattr(matrix, "chunks", None)
    if chunks is None:
        return isinstance(matrix, np.ndarray) and matrix.flags.f_contiguous and not matrix.flags.c_contiguous
    rows, columns = (c[0] if isinstance(c, tuple) else c for c in chunks)
    return rows >= matrix.shape[0] and columns < matrix.shape[1]


def _chunk(matrix: Any, axis: int) -> int | None:
    chunks = getattr(matrix, "chunks", None)
    if chunks is None or getattr(matrix, "format", None) is not None:
        return None
    along = chunks[axis]
    return int(along[0] if isinstance(along, tuple) else along)


def _in_memory(block: Any) -> Any:
    if hasattr(block, "compute"):  # dask
        block = block.compute()
    return block if sparse.issparse(block) else np.asarray(block)


def thin_counts(counts: Any, share: float, rng: np.random.Generator) -> tuple[csr_array, csr_array]:
    """Split counts binomially in two: each count goes to the first part with probability ``share``.

    If the counts are Poisson given the tissue, the two parts are independent given the tissue: what is learnt from one
    can be scored on the other, without losing a spot or a gene.

    Parameters
    ----------
    counts
        Whole numbers, sparse or dense, shape (S, G).
    share
        Between 0 and 1, exclusive.
    rng
        Source of randomness.

    Returns
    -------
    csr_array, csr_array
        Two parts (S, G), float32, that add up to ``counts``.
    """
    if not 0 < share < 1:
        raise ValueError(f"Expected a share between 0 and 1, found {share!r}")
    whole = csr_array(counts)
    data = np.rint(whole.data).astype(np.int64)
    first = rng.binomial(data, share)
    parts = []
    for values in (first, data - first):
        part = csr_array((values.astype(np.float32), whole.indices.copy(), whole.indptr.copy()), shape=whole.shape)
        part.eliminate_zeros()
        parts.append(part)
    return parts[0], parts[1]


def log_normalise(counts: Any, factor: np.ndarray | None = None) -> csr_array:
    """log1p of counts scaled to the median depth of the spots that have counts; a spot without counts stays zero.

    Parameters
    ----------
    counts
        Non-negative, sparse or dense, shape (S, G).
    factor
        :func:`depth_factors` of the spots, (S,), where the counts are a block of a larger matrix.

    Returns
    -------
    csr_array
        Shape (S, G), float32, as sparse as the counts.
    """
    whole = csr_array(counts)
    if factor is None:
        factor = depth_factors(np.asarray(whole.sum(axis=1, dtype=np.float64)).ravel())
    scaled = csr_array(diags_array(factor) @ whole)
    scaled.data = np.log1p(scaled.data).astype(np.float32)
    return scaled


def depth_factors(depth: np.ndarray) -> np.ndarray:
    """Factors (S,) that bring spots of these depths to their median depth; zero for a spot without counts."""
    seen = depth > 0
    if not seen.any():
        raise ValueError("Expected counts, found only zeros")
    factor = np.zeros_like(depth)
    factor[seen] = np.median(depth[seen]) / depth[seen]
    return factor

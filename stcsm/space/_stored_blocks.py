"""Walk through a matrix of any kind, a bounded block at a time, in the order in which it is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import sparse

CHUNK = 2048
"""Rows that are looked at together."""
VALUES = 2**23
"""Values that a block would have as a dense array; bounds the memory of a walk."""


def row_blocks(matrix: Any, size: int = CHUNK) -> Iterator[tuple[int, Any]]:
    """Blocks of rows, read one at a time, of a dense, sparse, backed or lazy matrix."""
    for start in range(0, matrix.shape[0], size):
        yield start, _in_memory(matrix[start : start + size])


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
    rows, columns = matrix.shape
    by_columns = stored_by_columns(matrix)
    length, across = (columns, rows) if by_columns else (rows, columns)
    step = max(1, values // max(across, 1))
    chunk = _chunk(matrix, 1 if by_columns else 0)
    if chunk is not None and chunk * across <= 4 * values:  # a chunk that is cut is read and unpacked twice
        step = max(chunk, step // chunk * chunk)
    for start in range(0, length, step):
        if by_columns:
            yield 0, start, _in_memory(matrix[:, start : start + step])
        else:
            yield start, 0, _in_memory(matrix[start : start + step])


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

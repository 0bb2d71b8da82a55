"""Large counts on their way: kept in memory while they are few, else in a scratch file, block by block."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array, hstack, vstack

IN_MEMORY = 2**28
"""Bytes of counts (8 each: index and value) up to which what is read from a file is kept in memory."""

STORED = 2**22
"""Values of a matrix in memory that are brought to a product at a time."""


def fits_in_memory(n_values: int, limit: int | None = None) -> bool:
    """Whether so many counts take no more than ``limit`` bytes, by default ``IN_MEMORY``."""
    return 8 * n_values <= (IN_MEMORY if limit is None else limit)


class ScratchFile:
    """Arrays in a file without a name, in the folder for temporary files; it is gone when it is no longer used."""

    def __init__(self) -> None:
        # The file has no name, so nothing is left behind, whatever happens.
        self._file = tempfile.TemporaryFile(prefix="stcsm-")  # noqa: SIM115
        self._end = 0

    def append(self, array: np.ndarray) -> int:
        """Write an array behind the others; where it begins."""
        offset = self._end
        self._file.seek(offset)
        self._file.write(array.tobytes())
        self._file.flush()
        self._end += array.nbytes
        return offset

    def read(self, offset: int, count: int, dtype: Any) -> np.ndarray:
        """Read ``count`` values that begin at ``offset``."""
        # Not a memory map, whose pages would count as this process's memory; pread is safe where processes fork.
        n_bytes = np.dtype(dtype).itemsize * count
        if hasattr(os, "pread"):
            return np.frombuffer(os.pread(self._file.fileno(), n_bytes, offset), dtype=dtype)
        self._file.seek(offset)
        return np.frombuffer(self._file.read(n_bytes), dtype=dtype)


class _Block(NamedTuple):
    first_row: int
    first_column: int
    indptr: np.ndarray
    n_columns: int
    indices: int
    values: int


class BlockMatrix(ABC):
    """A sparse matrix (S, G) for products with vectors in float64, to which one block of it is brought at a time."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape

    @abstractmethod
    def blocks(self) -> Iterator[tuple[int, int, csr_array]]:
        """First row, first column and values, in float64, of each block."""

    def __matmul__(self, right: np.ndarray) -> np.ndarray:
        """Product with (G,) or (G, n), float64."""
        out = np.zeros((self.shape[0], *right.shape[1:]))
        for row, column, block in self.blocks():
            out[row : row + block.shape[0]] += block @ right[column : column + block.shape[1]]
        return out

    def transposed_product(self, right: np.ndarray) -> np.ndarray:
        """Product of the transpose with (S,) or (S, n), float64."""
        out = np.zeros((self.shape[1], *right.shape[1:]))
        for row, column, block in self.blocks():
            out[column : column + block.shape[1]] += block.T @ right[row : row + block.shape[0]]
        return out


class HeldMatrix(BlockMatrix):
    """A matrix in memory: neither its transpose nor all of it in float64 is held beside it."""

    def __init__(self, values: csr_array) -> None:
        super().__init__(values.shape)
        self._values = values

    def blocks(self) -> Iterator[tuple[int, int, csr_array]]:
        """First row, first column and values, in float64, of each block."""
        whole, first = self._values, 0
        while first < self.shape[0]:
            start = whole.indptr[first]
            last = max(int(np.searchsorted(whole.indptr, start + STORED, side="right")) - 1, first + 1)
            own = slice(start, whole.indptr[last])
            parts = whole.data[own].astype(np.float64), whole.indices[own], whole.indptr[first : last + 1] - start
            yield first, 0, csr_array(parts, shape=(last - first, self.shape[1]))
            first = last


class ScratchMatrix(BlockMatrix):
    """A matrix in a scratch file; one block of it is in memory at a time."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__(shape)
        self._file = ScratchFile()
        self._blocks: list[_Block] = []

    def append(self, first_row: int, first_column: int, block: csr_array) -> None:
        """Write a block whose first row and column are these."""
        indices = self._file.append(block.indices.astype(np.int32))
        values = self._file.append(block.data.astype(np.float32))
        pointers = block.indptr.astype(np.int64)
        self._blocks.append(_Block(first_row, first_column, pointers, block.shape[1], indices, values))

    def blocks(self) -> Iterator[tuple[int, int, csr_array]]:
        """First row, first column and values, in float64, of each block."""
        for b in self._blocks:
            stored = int(b.indptr[-1])
            indices = self._file.read(b.indices, stored, np.int32)
            values = self._file.read(b.values, stored, np.float32).astype(np.float64)
            shape = (len(b.indptr) - 1, b.n_columns)
            yield b.first_row, b.first_column, csr_array((values, indices, b.indptr), shape=shape)


def join_blocks(blocks: Iterable[tuple[int, int, csr_array]], shape: tuple[int, int]) -> csr_array:
    """Join blocks of a matrix in memory.

    Parameters
    ----------
    blocks
        First row, first column and block, along one axis only: all of them begin in the first column, or in the first
        row.
    shape
        Of the whole.
    """
    held = list(blocks)
    if not held:
        return csr_array(np.zeros(shape, dtype=np.float32))
    join = hstack if any(column for _, column, _ in held) else vstack
    joined: csr_array[Any, tuple[int, int]] = csr_array(join([block for _, _, block in held], format="csr"))
    return joined


def gather(
    blocks: Iterable[tuple[int, int, csr_array]], shape: tuple[int, int], limit: int | None = None
) -> csr_array | ScratchMatrix:
    """Join blocks of a matrix in memory, or in a scratch file where they take more than ``limit`` bytes.

    Parameters
    ----------
    blocks, shape
        As for :func:`join_blocks`.
    limit
        By default ``IN_MEMORY``.
    """
    held: list[tuple[int, int, csr_array]] = []
    scratch: ScratchMatrix | None = None
    n_values = 0
    for block in blocks:
        if scratch is not None:
            scratch.append(*block)
            continue
        held.append(block)
        n_values += block[2].nnz
        if not fits_in_memory(n_values, limit):
            scratch = ScratchMatrix(shape)
            while held:
                scratch.append(*held.pop(0))
    return join_blocks(held, shape) if scratch is None else scratch

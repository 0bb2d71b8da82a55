"""The value at a rank of every row, without sorting: what RectGrad does most.

Only the few cells above a bound are looked at closely. The bound is guessed from a sample of each row and checked, so
that a poor guess costs time and nothing else. Selecting from whole rows is several times slower, and slowest where
most cells are zero, as they are behind a ReLU; ``torch.quantile`` sorts, and refuses more than 2**24 values.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["value_at_rank"]

_SMALL = 256  # cells of a row below which selection from the whole row is as fast

Array = NDArray[Any]


def value_at_rank(values: Array, rank: int) -> Array:
    """Find every row's value at a rank counted from the top, 0 being the largest.

    Parameters
    ----------
    values
        (rows, d), contiguous, without NaN.
    rank
        At most d - 1.

    Returns
    -------
    numpy.ndarray
        (rows,)
    """
    rows, size = values.shape
    if size <= _SMALL:
        return _partitioned(values, rank)
    bound = _guess(values, rank)
    places = np.flatnonzero(values > bound[:, None])
    counts = np.diff(np.searchsorted(places, np.arange(rows + 1) * size))
    # Those cells, one row of a table for each row, filled up from below.
    table = np.full((rows, max(int(counts.max()), rank + 1)), -np.inf, dtype=values.dtype)
    table[np.arange(table.shape[1]) < counts[:, None]] = values.reshape(-1)[places]
    found = _partitioned(table, rank)
    missed = np.flatnonzero(counts <= rank)
    if len(missed) == 0:
        return found
    # The bound itself is the value sought where many cells are equal (zero mostly).
    found[missed] = bound[missed]
    tied = np.count_nonzero(values[missed] >= bound[missed, None], axis=1) > rank
    loose = missed[~tied]
    if len(loose):
        found[loose] = np.sort(values[loose], axis=1)[:, size - 1 - rank]
    return found


def _guess(values: Array, rank: int) -> Array:
    """Bound of every row that hardly ever lies above the value sought."""
    size = values.shape[1]
    step = (size // min(max(_SMALL, size // 512), 8192)) | 1  # odd, so as not to follow one column of a picture
    sample = values[:, ::step]
    drawn, share = sample.shape[1], rank / size
    margin = 3 * math.sqrt(drawn * share * (1 - share)) + 1
    return _partitioned(sample, min(drawn - 1, math.ceil(drawn * share + margin)))


def _partitioned(values: Array, rank: int) -> Array:
    place = values.shape[1] - 1 - rank
    return np.partition(values, place, axis=1)[:, place]

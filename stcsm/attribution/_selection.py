"""Selection of the largest cells of every row, without sorting: what RectGrad does most.

Only the few cells above a bound are looked at closely. The bound is guessed from a sample of each row and checked, so
that a poor guess costs time and nothing else. Selecting from whole rows is several times slower, and slowest where
most cells are zero, as they are behind a ReLU; ``torch.quantile`` sorts, and refuses more than 2**24 values.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Selection", "select", "select_in_parallel"]

_SMALL = 256  # cells of a row below which selection from the whole row is as fast
_WORTH_A_THREAD = 1 << 17  # cells

Array = NDArray[Any]


@dataclass(frozen=True)
class Selection:
    """What was found in (rows, d) values.

    Attributes
    ----------
    threshold
        (rows,), the value at the rank asked for.
    above
        Places of the cells above their row's threshold, in the flattened values.
    """

    threshold: Array
    above: NDArray[np.intp]


def select(values: Array, rank: int) -> Selection:
    """Find every row's value at a rank counted from the top, 0 being the largest, and the cells above it.

    Parameters
    ----------
    values
        (rows, d), contiguous, without NaN.
    rank
        At most d - 1.
    """
    rows, size = values.shape
    if size <= _SMALL:
        threshold = _at_rank(values, rank)
        return Selection(threshold, np.flatnonzero(values > threshold[:, None]))
    bound = _guess(values, rank)
    places = np.flatnonzero(values > bound[:, None])
    cells = values.reshape(-1)[places]
    counts = np.diff(np.searchsorted(places, np.arange(rows + 1) * size))
    # Those cells, one row of a table for each row, filled up from below.
    table = np.full((rows, max(int(counts.max()), rank + 1)), -np.inf, dtype=values.dtype)
    table[np.arange(table.shape[1]) < counts[:, None]] = cells
    threshold = _at_rank(table, rank)
    above = places[cells > np.repeat(threshold, counts)]
    missed = np.flatnonzero(counts <= rank)
    if len(missed) == 0:
        return Selection(threshold, above)
    # Where the bound itself is the value sought (many cells are equal, zero mostly), ``above`` is right already.
    threshold[missed] = bound[missed]
    tied = np.count_nonzero(values[missed] >= bound[missed, None], axis=1) > rank
    loose = missed[~tied]
    if len(loose) == 0:
        return Selection(threshold, above)
    exact = select_sorted(values[loose], rank)
    threshold[loose] = exact.threshold
    rest = above[~np.isin(above // size, loose)]
    return Selection(threshold, np.concatenate([rest, loose[exact.above // size] * size + exact.above % size]))


def select_sorted(values: Array, rank: int) -> Selection:
    """:func:`select` by sorting whole rows: slow, and always right."""
    threshold = np.sort(values, axis=1)[:, values.shape[1] - 1 - rank]
    return Selection(threshold, np.flatnonzero(values > threshold[:, None]))


def _guess(values: Array, rank: int) -> Array:
    """Bound of every row that hardly ever lies above the value sought."""
    size = values.shape[1]
    step = (size // min(max(_SMALL, size // 512), 8192)) | 1  # odd, so as not to follow one column of a picture
    sample = values[:, ::step]
    drawn, share = sample.shape[1], rank / size
    margin = 4 * math.sqrt(drawn * share * (1 - share)) + 2
    return _at_rank(sample, min(drawn - 1, math.ceil(drawn * share + margin)))


def _at_rank(values: Array, rank: int) -> Array:
    place = values.shape[1] - 1 - rank
    return np.partition(values, place, axis=1)[:, place]


def select_in_parallel(values: Array, rank: int, threads: int) -> Selection:
    """:func:`select`, rows dealt out to threads where that pays; the result is the same."""
    rows, size = values.shape
    parts = max(1, min(threads, rows, values.size // _WORTH_A_THREAD))
    if parts == 1:
        return select(values, rank)
    edges = np.linspace(0, rows, parts + 1).astype(int)
    with ThreadPoolExecutor(parts) as pool:
        found = list(pool.map(lambda i: select(values[edges[i] : edges[i + 1]], rank), range(parts)))
    return Selection(
        np.concatenate([part.threshold for part in found]),
        np.concatenate([part.above + edges[i] * size for i, part in enumerate(found)]),
    )

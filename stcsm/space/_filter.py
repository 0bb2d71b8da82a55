"""Coordinates of spots, and the spatial filter: a sparse Gaussian over neighbours, for coordinates of any kind."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy.sparse import csr_array, eye_array
from scipy.spatial import cKDTree

from stcsm.space._memory import require_memory

TRUNCATE = 3.0
"""Neighbours beyond so many standard deviations get no weight: 1.1% of a Gaussian's mass in the plane."""
_PAIRS = 2**21  # neighbours found at once: bounds the memory of the search, not the result
_PAIR_BYTES = 96.0  # that the search and the sorting of a pair take
_BITS = 20  # of a coordinate on the curve


def check_coords(coords: ArrayLike, *, at_least: int = 2) -> NDArray[np.float64]:
    """Coordinates as a finite float64 array (spots, 2 or 3).

    Parameters
    ----------
    coords
        Coordinates of the spots, in any unit, shape (S, 2) or (S, 3).
    at_least
        Fewest spots that the caller can use.

    Raises
    ------
    ValueError
        If the shape is another one, there are fewer spots, or a coordinate is NaN or infinite.
    """
    try:
        xy = np.asarray(coords, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected numeric coordinates (spots x 2 or 3), found {type(coords).__name__}: {error}"
        ) from None
    if xy.ndim != 2 or xy.shape[1] not in (2, 3):
        raise ValueError(f"Expected coordinates of shape (spots, 2) or (spots, 3), found {xy.shape}")
    if len(xy) < at_least:
        raise ValueError(f"Expected coordinates of at least {at_least} spots, found {len(xy)}")
    bad = np.flatnonzero(~np.isfinite(xy).all(axis=1))
    if bad.size:
        rows = ", ".join(map(str, bad[:5])) + (", ..." if bad.size > 5 else "")
        raise ValueError(
            f"Expected finite coordinates, found {bad.size} of {len(xy)} spots with NaN or infinite ones "
            f'(rows {rows}); drop them: adata[np.isfinite(adata.obsm["spatial"]).all(axis=1)].copy()'
        )
    return xy


def nearest_neighbour_distance(coords: ArrayLike) -> float:
    """Median distance of a location to the nearest other one, in the unit of the coordinates.

    Spots that share one location (duplicates) count once: their distance of zero says nothing about how densely the
    tissue was sampled.

    Parameters
    ----------
    coords
        Coordinates of the spots, shape (S, 2) or (S, 3).

    Raises
    ------
    ValueError
        If there are fewer than two spots, all spots share one location, or a coordinate is not finite.
    """
    xy = check_coords(coords)
    where = np.unique(xy, axis=0)
    if len(where) < 2:
        raise ValueError(f"Expected spots at two locations or more, found all {len(xy)} spots at {where[0].tolist()}")
    distances = np.asarray(cKDTree(where).query(where, k=2)[0])
    return float(np.median(distances[:, 1]))


def spatial_filter(
    coords: ArrayLike,
    width: float,
    *,
    truncate: float = TRUNCATE,
    include_self: bool = True,
    dtype: DTypeLike = np.float64,
    unit: float | None = None,
) -> csr_array:
    """Sparse Gaussian smoothing over spots; ``filter @ values`` smooths a map.

    Entry (s, t) is proportional to ``exp(-d(s, t)^2 / (2 sd^2))`` with d the Euclidean distance and ``sd = width *
    unit``; each row sums to one, so constants stay constant and every smoothed value is a weighted mean of the values
    around it.

    Parameters
    ----------
    coords
        Coordinates of the spots, shape (S, 2) or (S, 3), in any unit.
    width
        Standard deviation in nearest-neighbour distances; 0 is the identity.
    truncate
        Neighbours beyond this many standard deviations get no weight.
    include_self
        Whether a spot belongs to its own neighbours. Without it a spot that has no neighbour within reach gets
        an empty row.
    dtype
        ``float64`` or ``float32``.
    unit
        The nearest-neighbour distance, where it is known already; :func:`nearest_neighbour_distance` otherwise.

    Returns
    -------
    csr_array
        Shape (S, S), column indices sorted within a row.

    Raises
    ------
    ValueError
        If a coordinate is not finite, there are fewer than two spots or all at one location, ``width`` is negative or
        not finite, or ``truncate`` is not positive.
    MemoryError
        If so wide a filter over so many spots does not fit the free memory.
    """
    kind = np.dtype(dtype)
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"Expected dtype float32 or float64, found {kind}")
    rows = _Rows(coords, width, truncate, include_self, unit)
    spots = len(rows.xy)
    if width == 0:
        return (
            csr_array(eye_array(spots, dtype=kind, format="csr"))
            if include_self
            else csr_array((spots, spots), dtype=kind)
        )
    each = 2 * (kind.itemsize + 4)  # the result twice: its parts and the whole they are joined to
    require_memory(
        rows.neighbours * spots * each + _PAIR_BYTES * _PAIRS,
        f"{spots} spots x {rows.neighbours:.0f} neighbours within {rows.radius:.3g} x {each} bytes",
        f"lower the width ({width:g} nearest-neighbour distances) or use dtype float32",
    )
    index = np.int32 if spots <= np.iinfo(np.int32).max else np.int64
    counts = np.zeros(spots + 1, dtype=np.int64)
    columns: list[NDArray[np.integer]] = []
    weights: list[NDArray[np.floating]] = []
    for start, block in rows.blocks():
        counts[start + 1 : start + 1 + block.shape[0]] = np.diff(block.indptr)
        columns.append(block.indices.astype(index))
        weights.append(block.data.astype(kind))
    pointers = np.cumsum(counts)
    if pointers[-1] <= np.iinfo(index).max:
        pointers = pointers.astype(index)
    return csr_array((np.concatenate(weights), np.concatenate(columns), pointers), shape=(spots, spots))


def smooth(
    values: NDArray[np.floating], coords: ArrayLike, width: float, *, unit: float | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``spatial_filter(coords, width) @ values``, without holding a filter that is wide, of many spots.

    Parameters
    ----------
    values
        A map in each column, (S, K).
    coords, width, unit
        As for :func:`spatial_filter`.

    Returns
    -------
    smoothed, own
        Smoothed maps (S, K), and each spot's weight in its own value (S,): the filter's diagonal.

    Raises
    ------
    ValueError
        As for :func:`spatial_filter`.
    """
    rows = _Rows(coords, width, TRUNCATE, True, unit)
    if width == 0:
        return np.array(values, dtype=np.float64), np.ones(len(values))
    out, own = np.empty(values.shape), np.empty(len(values))
    for start, block in rows.blocks():
        here = slice(start, start + block.shape[0])
        out[here] = block @ values
        own[here] = block.diagonal(start)
    return out, own


class _Rows:
    """Rows of a filter, made a block at a time."""

    def __init__(
        self, coords: ArrayLike, width: float, truncate: float, include_self: bool, unit: float | None
    ) -> None:
        self.xy = check_coords(coords)
        if not (np.isfinite(width) and width >= 0):
            raise ValueError(f"Expected a width of 0 (no filter) or more nearest-neighbour distances, found {width!r}")
        if not (np.isfinite(truncate) and truncate > 0):
            raise ValueError(f"Expected truncate to be a positive number of standard deviations, found {truncate!r}")
        if width == 0:
            return
        self.include_self = include_self
        self.sd = width * (nearest_neighbour_distance(self.xy) if unit is None else unit)
        # A neighbour that lies on the rim must not come or go with the last bit of its coordinates.
        self.radius = truncate * self.sd * (1 + 1e-9)
        self.tree = cKDTree(self.xy)
        some = self.xy[:: max(len(self.xy) // 256, 1)]
        self.neighbours = float(np.mean(self.tree.query_ball_point(some, self.radius, return_length=True)))

    def blocks(self) -> Iterator[tuple[int, csr_array]]:
        """First row and rows (n, S) of each block."""
        spots = len(self.xy)
        step = int(np.clip(_PAIRS / self.neighbours, 1, spots))
        for start in range(0, spots, step):
            here = self.xy[start : start + step]
            pairs = cKDTree(here).sparse_distance_matrix(self.tree, self.radius, output_type="ndarray")
            row, column, distance = pairs["i"], pairs["j"], pairs["v"]
            if not self.include_self:
                other = row + start != column
                row, column, distance = row[other], column[other], distance[other]
            order = np.lexsort((column, row))
            row, column, distance = row[order], column[order], distance[order]
            weight = np.exp(-0.5 * np.square(distance / self.sd))
            total = np.bincount(row, weights=weight, minlength=len(here))
            pointers = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(here)))])
            yield start, csr_array((weight / total[row], column, pointers), shape=(len(here), spots))


def spatial_order(coords: NDArray[np.float64]) -> NDArray[np.intp]:
    """Order (S,) of spots along a Z-order curve: spots near one another in the tissue are mostly so in the order.

    Parameters
    ----------
    coords
        Coordinates of the spots, (S, 2 or 3).
    """
    low, side = coords.min(axis=0), np.ptp(coords, axis=0).max()
    cell = ((coords - low) * ((2**_BITS - 1) / max(side, 1e-300))).astype(np.int64)
    code = np.zeros(len(coords), dtype=np.int64)
    dimensions = coords.shape[1]
    for bit in range(_BITS):
        for axis in range(dimensions):
            code |= (cell[:, axis] >> bit & 1) << (dimensions * bit + axis)
    return np.argsort(code, kind="stable")

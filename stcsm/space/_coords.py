"""Coordinates of spots: checked once, here, by everything that measures distances."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree


def check_coords(coords: ArrayLike, *, at_least: int = 2) -> NDArray[np.float64]:
    """Coordinates as a finite float64 array (spots, 2 or 3).

    Parameters
    ----------
    coords
        Coordinates of the spots, in any unit, shape (S, 2) or (S, 3).
    at_least
        Fewest spots that make sense to the caller.

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
    """Median distance of a place to the nearest other place, in the coordinates' own unit.

    Spots that share one place (duplicates) count once: their distance of zero says nothing about how densely the
    tissue was sampled.

    Parameters
    ----------
    coords
        Coordinates of the spots, shape (S, 2) or (S, 3).

    Raises
    ------
    ValueError
        If there are fewer than two spots, all spots share one place, or a coordinate is not finite.
    """
    xy = check_coords(coords)
    places = np.unique(xy, axis=0)
    if len(places) < 2:
        raise ValueError(f"Expected spots at two places at least, found all {len(xy)} spots at {places[0].tolist()}")
    distances = np.asarray(cKDTree(places).query(places, k=2)[0])
    return float(np.median(distances[:, 1]))

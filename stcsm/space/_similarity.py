"""The spot graph: each spot joined to the spots that look most like it, wherever they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse
from scipy.spatial import cKDTree

from stcsm.space._memory import require_memory

Neighbours = tuple[NDArray[np.float64], NDArray[np.integer]]


def nearest_spots(features: NDArray[np.floating], k: int) -> Neighbours:
    """Each spot and its ``k`` nearest others in feature space.

    Parameters
    ----------
    features
        Principal components of the spots, shape (S, P).
    k
        Neighbours, 1 to S - 1.

    Returns
    -------
    distances, indices
        Both (S, k + 1), nearest first, the spot itself among them.

    Raises
    ------
    ValueError
        If ``k`` is out of range or a feature is not finite.
    """
    points = np.asarray(features, dtype=np.float64)
    spots = len(points)
    if not 1 <= k <= spots - 1:
        raise ValueError(f"Expected 1 to {spots - 1} neighbours of {spots} spots, found {k}")
    if not np.isfinite(points).all():
        raise ValueError("Expected finite features, found NaN or infinite ones")
    require_memory(spots * (k + 1) * 32.0, f"{spots} spots x {k + 1} neighbours x 32 bytes", "ask for fewer neighbours")
    distances, indices = cKDTree(points).query(points, k=k + 1, workers=-1)
    return np.asarray(distances), np.asarray(indices)


def similarity_graph(neighbours: Neighbours, k: int) -> csr_array:
    """Gaussian weights over the ``k`` nearest spots, each row summing to one.

    The Gaussian's standard deviation is the distance to the k-th neighbour, a spot's own: where spots of a kind are
    many it is narrow, where they are few it is wide, and no unit has to be set.

    Parameters
    ----------
    neighbours
        Of :func:`nearest_spots`, with ``k`` or more neighbours.
    k
        Neighbours that are joined.

    Returns
    -------
    csr_array
        Shape (S, S), float32, k + 1 entries a row.
    """
    distances, indices = neighbours[0][:, : k + 1], neighbours[1][:, : k + 1]
    spots, each = distances.shape
    # Spots that look exactly alike (without counts, say) are at distance zero: they share equally.
    reach = np.maximum(distances[:, -1:], np.finfo(np.float64).tiny ** 0.25)
    weights = np.exp(-0.5 * np.square(distances / reach))
    weights /= weights.sum(axis=1, keepdims=True)
    order = np.argsort(indices, axis=1)
    index = np.int32 if spots * each <= np.iinfo(np.int32).max else np.int64
    return csr_array(
        (
            np.take_along_axis(weights, order, axis=1).astype(np.float32).ravel(),
            np.take_along_axis(indices, order, axis=1).astype(index).ravel(),
            np.arange(0, spots * each + 1, each, dtype=index),
        ),
        shape=(spots, spots),
    )


def diffuse(graph: Any, maps: NDArray[np.floating], steps: int) -> NDArray[np.floating]:
    """Spread maps over the spot graph: ``graph^steps @ maps`` (METHOD.md's "map <- D^t map").

    Each step replaces a spot's value by the weighted mean of the values of the spots that look like it. Rows sum to
    one, so a constant stays constant and no value leaves the range of the map.

    Parameters
    ----------
    graph
        Sparse, shape (S, S), rows summing to one: ``adata.obsp["stcsm_spot_graph"]``.
    maps
        One map (S,) or several (S, K), a column each.
    steps
        0 or more; 0 returns the maps as they are.

    Returns
    -------
    ndarray
        Shape of ``maps``; float64 unless ``maps`` is float32.

    Raises
    ------
    ValueError
        If shapes do not fit or ``steps`` is not a whole number of 0 or more.
    """
    values = np.asarray(maps)
    if values.dtype != np.float32:
        values = values.astype(np.float64)
    shape: tuple[int, ...] = getattr(graph, "shape", ())
    if not issparse(graph) or shape[0] != shape[1]:
        raise ValueError(f"Expected a square sparse graph, found {type(graph).__name__} {shape}")
    if values.ndim not in (1, 2) or len(values) != shape[0]:
        raise ValueError(
            f"Expected maps of shape ({shape[0]},) or ({shape[0]}, K) for this graph, found {values.shape}"
        )
    if isinstance(steps, bool) or int(steps) != steps or steps < 0:
        raise ValueError(f"Expected a whole number of steps, 0 or more, found {steps!r}")
    for _ in range(int(steps)):
        values = np.asarray(graph @ values)
    return values.copy() if steps == 0 else values

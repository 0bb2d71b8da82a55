"""The spot graph: each spot joined to the spots that look most like it, and which graph, by held-out counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse
from scipy.spatial import cKDTree

from stcsm.space._components import spot_components
from stcsm.space._counts import log_normalise
from stcsm.space._filter import spatial_filter
from stcsm.space._heldout import HeldOutCounts
from stcsm.space._memory import require_memory

NEIGHBOURS = (15, 30, 50, 80)
STEPS = (1, 2, 3, 4, 6, 8)
SPOT_WIDTHS = (0.0, 0.5, 1.0, 2.0)
"""Widths that held-out counts choose from at the scale of spots, in nearest-neighbour distances."""

EXACT_COMPONENTS, EXACT_VALUES = 5, 1_000_000
"""Neighbours are searched exactly in so few components, or where spots times components are no more than this."""

_ROWS = 65_536  # rows of the graph made at once: bounds the memory, not the result

Neighbours = tuple[NDArray[np.floating], NDArray[np.integer]]


def nearest_spots(features: NDArray[np.floating], k: int, *, seed: int = 0) -> Neighbours:
    """Each spot and its ``k`` nearest others in feature space.

    Of more than 50,000 spots in 20 components (100,000 in 10) nearly all of the nearest (99.9% of 50), by
    nearest-neighbour descent (Dong et al. 2011; pynndescent): the time of an exact search grows with the square of the
    spots in so many components.

    Parameters
    ----------
    features
        Principal components of the spots, shape (S, P).
    k
        Neighbours, 1 to S - 1.
    seed
        Of the descent.

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
    if not is_searched_exactly(*points.shape):
        return _by_descent(points, k, seed)
    distances, indices = cKDTree(points).query(points, k=k + 1, workers=-1)
    return np.asarray(distances), np.asarray(indices)


def is_searched_exactly(spots: int, components: int) -> bool:
    """Whether :func:`nearest_spots` finds all of the nearest, and not nearly all."""
    return components <= EXACT_COMPONENTS or spots * components <= EXACT_VALUES


def _by_descent(points: NDArray[np.float64], k: int, seed: int) -> Neighbours:
    from pynndescent import NNDescent  # compiles for seconds

    # What it misses depends on the number of threads, and one is what every machine has.
    descent = NNDescent(points.astype(np.float32), n_neighbors=k + 1, random_state=seed, n_jobs=1)
    found, lengths = descent.neighbor_graph
    indices, distances = np.array(found), np.array(lengths)
    short = np.flatnonzero((indices < 0).any(axis=1))  # the descent found fewer than k
    if len(short):
        distances[short], indices[short] = cKDTree(points).query(points[short], k=k + 1, workers=-1)
    return distances, indices


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
    index = np.int32 if spots * each <= np.iinfo(np.int32).max else np.int64
    weights, columns = np.empty((spots, each), np.float32), np.empty((spots, each), index)
    for start in range(0, spots, _ROWS):
        some = slice(start, start + _ROWS)
        distance = distances[some].astype(np.float64)
        # Spots that look exactly alike (without counts, say) are at distance zero: they share equally.
        reach = np.maximum(distance[:, -1:], np.finfo(np.float64).tiny ** 0.25)
        weight = np.exp(-0.5 * np.square(distance / reach))
        weight /= weight.sum(axis=1, keepdims=True)
        order = np.argsort(indices[some], axis=1)
        weights[some] = np.take_along_axis(weight, order, axis=1)
        columns[some] = np.take_along_axis(indices[some], order, axis=1)
    pointers = np.arange(0, spots * each + 1, each, dtype=index)
    return csr_array((weights.ravel(), columns.ravel(), pointers), shape=(spots, spots))


def diffuse(graph: Any, maps: NDArray[np.floating], steps: int) -> NDArray[np.floating]:
    """Spread maps over the spot graph: ``graph^steps @ maps`` (docs/method.md).

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


@dataclass(frozen=True)
class GraphSetting:
    """One graph and how well it predicts: a row of the selection table."""

    width: float
    n_pcs: int
    n_neighbors: int
    steps: int
    gain: float
    prior: float


def some_spots(coords: NDArray[np.float64], most: int, seed: int, patches: int = 10) -> NDArray[np.intp]:
    """Indices of some spots of a large section: a few whole patches, so that neighbours stay neighbours."""
    spots = len(coords)
    if spots <= most:
        return np.arange(spots)
    rng = np.random.default_rng(seed)
    tree = cKDTree(coords)
    chosen = np.zeros(spots, dtype=bool)
    centres = coords[rng.permutation(spots)]
    each = most // patches
    for centre in centres:
        chosen[np.asarray(tree.query(centre, k=each)[1])] = True
        if chosen.sum() > most - each:
            break
    return np.flatnonzero(chosen)


def choose_graph(
    counts: csr_array,
    coords: NDArray[np.float64],
    *,
    unit: float,
    widths: Sequence[float],
    n_pcs: Sequence[int],
    n_neighbors: Sequence[int],
    steps: Sequence[int],
    seed: int = 0,
    tick: Callable[[], object] = lambda: None,
) -> list[GraphSetting]:
    """Score spot graphs by held-out counts; the best is first.

    Every graph is built on 70% of the counts alone, the same 70% is diffused over it, and what it predicts is the other
    30% (:class:`HeldOutCounts`). Steps are added while they help. Where several widths are given, the width is settled
    first, with the middle components and neighbours.

    Parameters
    ----------
    counts
        Whole numbers (S, G).
    coords
        Coordinates (S, 2 or 3).
    unit
        Nearest-neighbour distance.
    widths, n_pcs, n_neighbors, steps
        Candidates; one of a kind settles that kind.
    seed
        Seed of the thinning.
    tick
        Called after each graph, for a progress bar.

    Returns
    -------
    list of GraphSetting
        All that were tried, the best first.
    """
    held = HeldOutCounts(counts, seed=seed)
    values = log_normalise(held.kept)
    tried: list[GraphSetting] = []

    def run(width: float, pcs: Sequence[int], neighbours: Sequence[int]) -> None:
        smoother = spatial_filter(coords, width, unit=unit, dtype=np.float32) if width else None
        scores = spot_components(values, max(pcs), smoother, seed=seed)
        for p in pcs:
            nearest = nearest_spots(scores[:, :p], max(neighbours))
            for k in neighbours:
                for t, gain, prior in _walk(held, similarity_graph(nearest, k), steps):
                    tried.append(GraphSetting(float(width), p, k, t, gain, prior))
                tick()

    if len(widths) > 1:
        for width in widths:
            run(width, n_pcs[len(n_pcs) // 2 :][:1], n_neighbors[len(n_neighbors) // 2 :][:1])
        widths = [max(tried, key=lambda s: s.gain).width]
    run(widths[0], n_pcs, n_neighbors)
    return sorted(dict.fromkeys(tried), key=lambda s: -s.gain)


def _walk(held: HeldOutCounts, graph: csr_array, steps: Sequence[int]) -> Iterator[tuple[int, float, float]]:
    """Diffuse step by step, scoring where asked, until the score falls."""
    smoothed, depth, done, last = held.training, held.depth, 0, -np.inf
    for step in sorted(steps):
        for _ in range(step - done):
            smoothed, depth = np.asarray(graph @ smoothed), np.asarray(graph @ depth)
        done = step
        gain, prior = held.gain(smoothed, depth)
        yield step, gain, prior
        if gain < last:
            return
        last = gain
